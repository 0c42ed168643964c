"""From record files to what training walks over: sequences, and the units that travel together."""

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch

from data.messages import KEYS, NAMES, NEUTRAL
from data.packing import Unit, plan_micro_batches
from data.records import GAPS, MESSAGES, numbered_records
from data.render import Renderer, Sequence, joined
from errors import UserError
from progress import say
from settings import BatchConfig, DataConfig

CHUNK = 512  # records that are tokenized together: enough for all cores, little beside the tokens that stay


@dataclass(frozen=True)
class Pair:
    """chosen, rejected: indices of sequences. gap: 0 small, 1 medium, 2 large."""

    chosen: int
    rejected: int
    gap: int


@dataclass
class Examples:
    """R sequences, and the units over them: one example each (SFT), or the pairs of one problem (CogPO)."""

    sequences: list[Sequence] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    dropped: int = 0  # examples or pairs longer than data.max_length
    ref_logps: torch.Tensor | None = None  # float32 [R], log π_ref of each sequence's response (nats), once it is known

    @cached_property
    def lengths(self) -> list[int]:
        """Count the tokens of each sequence; once, after loading."""
        return [len(s) for s in self.sequences]

    @property
    def everything(self) -> list[int]:
        """All units, as one step."""
        return list(range(len(self.units)))

    def digest(self) -> str:
        """Return a short hex string that changes with anything the batch plan and the losses read."""
        digest = hashlib.sha256(repr(self.units).encode())
        for sequence in self.sequences:
            digest.update(sequence.ids.tobytes())
            digest.update(repr((sequence.prompt_len, sequence.gaps)).encode())
        return digest.hexdigest()[:20]


def plan_step(
    step: list[int], examples: Examples, batch: BatchConfig, num_ranks: int, quadratic: float
) -> list[list[list[int]]]:
    """Pack a step's units for every rank: [rank][micro-batch] -> unit indices (data.packing.plan_micro_batches)."""
    return plan_micro_batches(step, examples.units, examples.lengths, batch.max_tokens, num_ranks, quadratic)


def unique_seqs(micro: list[int], units: list[Unit]) -> list[int]:
    """List the sequences of a micro-batch, each once, in a fixed order."""
    return list(dict.fromkeys(s for u in micro for s in units[u].seqs))


def count_tokens(examples: Examples, plan_by_rank: list[list[list[int]]]) -> tuple[list[int], int]:
    """Count what a step runs: (tokens of each sequence, supervised tokens of all), over all ranks."""
    micro_batches = [micro for on_rank in plan_by_rank for micro in on_rank]
    sequences = [examples.sequences[s] for micro in micro_batches for s in unique_seqs(micro, examples.units)]
    return [len(s) for s in sequences], sum(s.supervised for s in sequences)


def sequences_saved(units: list[Unit]) -> int:
    """Count the response passes that shared responses spare: 3 for a problem's triad."""
    return sum(2 * len(unit.pairs) - len(unit.seqs) for unit in units if unit.pairs)


def load_sft(cfg: DataConfig, renderer: Renderer) -> Examples:
    """Read an sft file: every message of the assistant is a response, what stands before it its prompt.

    Raises UserError for a bad record, for one that is too long (data.overlength=error), or if none is left.
    """

    def turns(row: dict) -> list[list[dict]]:
        ends = enumerate(row["messages"], 1)
        return [row["messages"][:end] for end, m in ends if m["role"] == "assistant" and m.get("weight") != 0]

    examples = Examples()
    for _, row, sequences in _rendered(cfg, renderer, "sft", turns):
        sequences = joined(sequences)
        if _fits(sequences, cfg, row["id"], examples):
            # one example; what could not be joined stays in its step
            for number, sequence in enumerate(sequences):
                unit = Unit((len(examples.sequences),), items=int(number == 0), continues=number > 0)
                examples.units.append(unit)
                examples.sequences.append(sequence)
    _check_left(examples, cfg)
    return examples


def load_pairs(
    cfg: DataConfig, renderer: Renderer, group_by_problem: bool, batch: BatchConfig | None = None
) -> Examples:
    """Read a pairs file. Equal responses to equal prompts become one sequence, whatever pairs they are in.

    group_by_problem: a problem's pairs are one unit, else each pair is its own. batch: units larger than its size or
    its max_tokens are split. Raises UserError as load_sft does, and for a pair whose sides are the same tokens.
    """

    def sides(row: dict) -> list[list[dict]]:
        return [row["prompt"] + row[side] for side in ("chosen", "rejected")]

    examples, index, groups = Examples(), {}, {}
    for where, row, pair in _rendered(cfg, renderer, "pair", sides):
        # a pair is used whole or not at all
        if not _fits(pair, cfg, row["id"], examples):
            continue
        # its two responses as indices of sequences, which other pairs may share
        places = []
        for sequence in pair:
            key = (sequence.ids.tobytes(), sequence.prompt_len)
            if key not in index:
                index[key] = len(examples.sequences)
                examples.sequences.append(sequence)
            places.append(index[key])
        if places[0] == places[1]:
            raise UserError(f"{where}: record {row['id']!r}: chosen and rejected become the same tokens")
        group = row["problem_id"] if group_by_problem else row["id"]
        groups.setdefault(group, []).append(Pair(*places, GAPS.index(row["gap"])))
    for pairs in groups.values():
        examples.units += _units(pairs, examples.lengths, batch or BatchConfig())
    _check_left(examples, cfg)
    return examples


def _rendered(
    cfg: DataConfig, renderer: Renderer, kind: str, conversations: Callable[[dict], list[list[dict]]]
) -> Iterator[tuple[str, dict, list[Sequence]]]:
    """Yield (where, record, a sequence for each of its conversations); the last message of each is the response.

    A chunk of records is tokenized at once, and what several of them share (a problem's pairs are neighbours) once.
    Says at the end what training does not read. Raises UserError naming the record that cannot be rendered.
    """
    rows, unread = itertools.islice(numbered_records(cfg.file, kind), cfg.limit), set()
    while chunk := list(itertools.islice(rows, CHUNK)):
        # conversations as texts, by what decides the text
        texts, wanted = {}, []
        for where, row in chunk:
            unread |= _unread(row)
            given = row.get("tools"), row.get("chat_template_kwargs")
            wanted.append({repr((messages, *given)): messages for messages in conversations(row)})
            for key, messages in wanted[-1].items():
                try:
                    texts[key] = texts.get(key) or renderer.text(messages, *given)
                except UserError as error:
                    raise UserError(f"{where}: record {row['id']!r}: {error}") from None
        # the texts as tokens
        sequences = dict(zip(texts, renderer.encode(list(texts.values())), strict=True))
        for (where, row), keys in zip(chunk, wanted, strict=True):
            yield where, row, [sequences[key] for key in keys]
    if unread:
        say(f"{cfg.file}: training does not read the columns {', '.join(sorted(unread))}")


def _units(pairs, lengths, batch):
    """Yield the units of a problem's pairs: at most batch.size pairs, for a step, and batch.max_tokens tokens (or one
    pair), for a row. What one step can hold stays in one step, however small the rows."""
    for start in range(0, len(pairs), batch.size):
        parts = [[]]
        for pair in pairs[start : start + batch.size]:
            seqs = {s for p in (*parts[-1], pair) for s in (p.chosen, p.rejected)}
            if parts[-1] and sum(lengths[s] for s in seqs) > batch.max_tokens:
                parts.append([])
            parts[-1].append(pair)
        for number, part in enumerate(parts):
            seqs = dict.fromkeys(s for pair in part for s in (pair.chosen, pair.rejected))
            yield Unit(tuple(seqs), len(part), tuple(part), continues=number > 0)


def _unread(row):
    """Name the columns of a record, and the keys of its messages, that training does not read."""
    messages = [m for key in MESSAGES if isinstance(row.get(key), list) for m in row[key] if isinstance(m, dict)]
    found = {f"{key} (of messages)" for m in messages for key in m if key not in KEYS and m[key] not in NEUTRAL}
    return found | row.keys() - {*NAMES["columns"], *NAMES["unread"]}


def _fits(sequences, cfg, record, examples):
    """Tell whether a record is short enough to be used. Counts it if not, or raises (data.overlength)."""
    longest = max(len(s) for s in sequences)
    if longest <= cfg.max_length:
        return True
    if cfg.overlength == "error":
        raise UserError(
            f"{cfg.file}: record {record!r} is {longest} tokens long, data.max_length is {cfg.max_length}; raise it, "
            f"or set data.overlength=drop to leave such records out"
        )
    examples.dropped += 1
    return False


def _check_left(examples, cfg):
    """Raise UserError if every record was too long."""
    if not examples.units:
        raise UserError(f"{cfg.file}: all {examples.dropped} records are longer than data.max_length={cfg.max_length}")
