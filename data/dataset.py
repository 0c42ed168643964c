"""From record files to what training walks over: sequences, and the units that travel together."""

import hashlib
import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from data.packing import Unit, plan_micro_batches
from data.records import GAPS, read_records
from errors import UserError

CHUNK = 512  # records
SIDES = ("chosen", "rejected")


@dataclass
class DataConfig:
    """What to train on."""

    file: str
    """sft.jsonl or pairs.jsonl, as build_crv.py writes them"""
    max_length: int = 16384
    """longest sequence in tokens, prompt and response together"""
    overlength: Literal["drop", "error"] = "error"
    """a longer example (for pairs: the whole pair) is dropped and counted, or the run refuses; nothing is ever cut"""
    limit: int | None = None
    """only the first so many records of the file"""


@dataclass
class HeldOutConfig:
    """Loss and margins on data that is not trained on."""

    file: str = ""
    """a file like data.file; empty for none"""
    every_steps: int = 50
    """steps between two looks at it; one more follows the last step"""


@dataclass
class BatchConfig:
    """How much goes into a step and into a row."""

    size: int = 96
    """examples (SFT) or pairs (CogPO) per optimizer step, over all ranks (Table 8)"""
    max_tokens: int = 32768
    """tokens packed into one row, the micro-batch of one rank"""
    group_by_problem: bool = True
    """CogPO: keep a problem's pairs together, so that each of its responses is run once (3 instead of 6)"""


@dataclass(frozen=True)
class Pair:
    """chosen, rejected: indices of sequences. gap: 0 small, 1 medium, 2 large."""

    chosen: int
    rejected: int
    gap: int


@dataclass
class Examples:
    """sequences: list of R data.render.Sequence. units: list of data.packing.Unit; for pairs the payload is the Pairs.
    ref_logps: float32 [R], log π_ref of each sequence's response, once it is known."""

    sequences: list = field(default_factory=list)
    units: list = field(default_factory=list)
    dropped: int = 0
    ref_logps: object = None

    @cached_property
    def lengths(self):
        """Tokens of each sequence; counted once, after loading."""
        return [len(s) for s in self.sequences]

    @property
    def everything(self):
        """All units, as one step."""
        return list(range(len(self.units)))

    def digest(self):
        """A short hex string that changes with anything the batch plan and the losses read."""
        digest = hashlib.sha256(repr(self.units).encode())
        for sequence in self.sequences:
            digest.update(sequence.ids.tobytes())
            digest.update(sequence.prompt_len.to_bytes(4, "little"))
        return digest.hexdigest()[:20]


def plan_step(step, examples, batch, num_ranks, quadratic):
    """Every rank's micro-batches of a step: [rank][micro-batch] -> unit indices, as data.packing.plan_micro_batches.

    step: unit indices. batch: BatchConfig.
    """
    return plan_micro_batches(step, examples.units, examples.lengths, batch.max_tokens, num_ranks, quadratic)


def unique_seqs(micro, units):
    """The sequences of a micro-batch, each once, in a fixed order."""
    return list(dict.fromkeys(s for u in micro for s in units[u].seqs))


def count_tokens(examples, plan):
    """(tokens of each sequence that is run, supervised tokens of all) of a step. plan: [rank][micro-batch]."""
    micro_batches = [micro for on_rank in plan for micro in on_rank]
    sequences = [examples.sequences[s] for micro in micro_batches for s in unique_seqs(micro, examples.units)]
    return [len(s) for s in sequences], sum(len(s) - s.prompt_len for s in sequences)


def sequences_saved(units):
    """How many response passes the units are spared because their pairs share responses: 3 for a problem's triad."""
    return sum(2 * len(unit.payload) - len(unit.seqs) for unit in units if unit.payload)


def load_sft(cfg, renderer):
    """Examples of an sft file: the last message is the response, what stands before it the prompt."""
    examples = Examples()
    for rows in _chunks(read_records(cfg.file, "sft"), cfg.limit):
        rendered = renderer.sequences([(row["messages"][:-1], row["messages"][-1]["content"]) for row in rows])
        for row, sequence in zip(rows, rendered, strict=True):
            if _fits([sequence], cfg, row["id"], examples):
                examples.units.append(Unit(seqs=(len(examples.sequences),)))
                examples.sequences.append(sequence)
    _check_left(examples, cfg)
    return examples


def load_pairs(cfg, renderer, group_by_problem):
    """Examples of a pairs file. Equal responses to equal prompts become one sequence, whatever pairs they are in."""
    examples, index, groups = Examples(), {}, {}
    for rows in _chunks(read_records(cfg.file, "pair"), cfg.limit):
        # a problem's pairs are neighbours: its responses are tokenized once, not twice
        texts = {_text_key(row, side): (row["prompt"], _text(row, side)) for row in rows for side in SIDES}
        rendered = dict(zip(texts, renderer.sequences(list(texts.values())), strict=True))
        for row in rows:
            pair = [rendered[_text_key(row, side)] for side in SIDES]
            if not _fits(pair, cfg, row["id"], examples):
                continue
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
        examples.units.append(Unit(seqs=tuple(seqs), items=len(pairs), payload=tuple(pairs)))
    _check_left(examples, cfg)
    return examples


def _chunks(rows, limit):
    """Lists of rows that are tokenized together: enough for all cores, little beside the tokens that stay."""
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
