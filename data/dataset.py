"""From record files to what training walks over: sequences, and the units that travel together."""

import hashlib
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import torch

from data.packing import Unit, plan_micro_batches
from data.records import GAPS, read_records
from data.render import Renderer, Sequence
from errors import UserError
from settings import BatchConfig, DataConfig

CHUNK = 512  # records that are tokenized together: enough for all cores, little beside the tokens that stay
SIDES = ("chosen", "rejected")


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
        """Tokens of each sequence; counted once, after loading."""
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
            digest.update(sequence.prompt_len.to_bytes(4, "little"))
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
    return [len(s) for s in sequences], sum(len(s) - s.prompt_len for s in sequences)


def sequences_saved(units: list[Unit]) -> int:
    """Count the response passes that shared responses spare: 3 for a problem's triad."""
    return sum(2 * len(unit.pairs) - len(unit.seqs) for unit in units if unit.pairs)


def load_sft(cfg: DataConfig, renderer: Renderer) -> Examples:
    """Read an sft file: the last message is the response, what stands before it the prompt.

    Raises UserError for a bad record, for one that is too long (data.overlength=error), or if none is left.
    """
    examples = Examples()
    for rows in _chunks(read_records(cfg.file, "sft"), cfg.limit):
        rendered = renderer.sequences([(row["messages"][:-1], row["messages"][-1]["content"]) for row in rows])
        for row, sequence in zip(rows, rendered, strict=True):
            if _fits([sequence], cfg, row["id"], examples):
                examples.units.append(Unit(seqs=(len(examples.sequences),)))
                examples.sequences.append(sequence)
    _check_left(examples, cfg)
    return examples


def load_pairs(cfg: DataConfig, renderer: Renderer, group_by_problem: bool) -> Examples:
    """Read a pairs file. Equal responses to equal prompts become one sequence, whatever pairs they are in.

    group_by_problem: a problem's pairs are one unit, else each pair is its own. Raises UserError as load_sft does.
    """
    examples, index, groups = Examples(), {}, {}
    for rows in _chunks(read_records(cfg.file, "pair"), cfg.limit):
        # a problem's pairs are neighbours: its responses are tokenized once, not twice
        texts = {_text_key(row, side): (row["prompt"], _text(row, side)) for row in rows for side in SIDES}
        rendered = dict(zip(texts, renderer.sequences(list(texts.values())), strict=True))
        for row in rows:
            # a pair is used whole or not at all
            pair = [rendered[_text_key(row, side)] for side in SIDES]
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
            group = row["problem_id"] if group_by_problem else row["id"]
            groups.setdefault(group, []).append(Pair(*places, GAPS.index(row["gap"])))
    for pairs in groups.values():
        seqs = dict.fromkeys(s for pair in pairs for s in (pair.chosen, pair.rejected))
        examples.units.append(Unit(seqs=tuple(seqs), items=len(pairs), pairs=tuple(pairs)))
    _check_left(examples, cfg)
    return examples


def _chunks(rows: Iterable[dict], limit: int | None) -> Iterator[list[dict]]:
    rows = itertools.islice(rows, limit)
    while chunk := list(itertools.islice(rows, CHUNK)):
        yield chunk


def _text_key(row, side):
    return repr(row["prompt"]), _text(row, side)


def _text(row, side):
    if len(row[side]) != 1 or row[side][0]["role"] != "assistant":
        raise UserError(f"pair {row['id']!r}: {side} must be one assistant message")
    return row[side][0]["content"]


def _fits(sequences, cfg, record, examples):
    """Whether a record is short enough to be used. Counts it if not, or raises (data.overlength)."""
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
    if not examples.units:
        raise UserError(f"{cfg.file}: all {examples.dropped} records are longer than data.max_length={cfg.max_length}")
