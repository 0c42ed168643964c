"""Public datasets -> records: chains of thought as problems for build_crv.py, preference data as pairs, and whole
conversations for train_sft.py.

    python -m data.sources name=bespoke out=problems/bespoke_stratos_17k.jsonl
    python -m data.sources name=openthoughts out=problems/openthoughts_114k.jsonl \\
        decontaminate='[benchmarks/math500.jsonl, benchmarks/aime2024.jsonl]'
    python -m data.sources name=sky_t1 path=Sky-T1_data_17k.json out=problems/sky_t1_17k.jsonl
    python -m data.sources name=someone/set columns='{problem: question, answer: solution, reasoning: cot}' out=…
    python -m data.sources path=cogpo.jsonl gap=large out=problems/pairs.jsonl
    python -m data.sources path=alpaca.json records=sft out=problems/sft.jsonl

Any hub id, file or folder (data/rows.py) will do: the columns tell what the rows are (data/formats.py). Every row is
used or counted: how many are left out for which reason is printed, with the place of the first.
"""

import itertools
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from config import run_cli
from data.decontaminate import Benchmarks, write_overlaps
from data.formats import Note, format_of, preferences, read_row
from data.messages import NAMES
from data.records import check_record, jsonl_writer
from data.rows import Rows, hub_rows, iter_rows
from data.turns import Row
from errors import UserError
from values import Count, FilePath, MaybePath, Positive, PositiveShare


@dataclass
class Config:
    out: FilePath
    """The file to write: problems or sft records, or pairs where the rows are preferences."""
    name: str = ""
    """bespoke, sky_t1, openthoughts, omnithought, or a hub id."""
    path: MaybePath = ""
    """A local file, a pattern or a folder, in any form that data/rows.py opens, instead of the hub."""
    subset: str = ""
    """The hub dataset's configuration; empty for the usual one (openthoughts: metadata)."""
    split: str = ""
    """The hub dataset's split; empty: train."""
    columns: dict[str, str] = field(default_factory=dict)
    """What the dataset calls our columns, e.g. {problem: question, answer: solution, reasoning: cot}."""
    ignore: list[str] = field(default_factory=list)
    """Columns that may be lost although they change what is asked."""
    records: Literal["problems", "sft"] = "problems"
    """What to make of conversations: problems have one exchange, a chain and an answer; sft records have anything."""
    gap: Literal["beta", "small", "medium", "large"] = "beta"
    """Preference rows: the gap of every pair, or beta to tell it from that column."""
    betas: tuple[Positive, Positive, Positive] = (0.1, 0.2, 0.5)
    """What `beta` is for small, medium and large gaps (Table 8)."""
    decontaminate: list[FilePath] = field(default_factory=list)
    """Benchmark files; problems that overlap with one of theirs are left out (data/decontaminate.py)."""
    overlap: PositiveShare = 0.6
    """A problem is left out if it has at least this share of a benchmark problem's 8-grams."""
    limit: Count | None = None
    """Only the first N rows."""


def main(cfg: Config) -> None:
    """Write the records of a dataset to cfg.out and print what was left out. Raises UserError if no row can be used."""
    benchmarks = Benchmarks(cfg.decontaminate)  # before anything is loaded: a mistyped path costs nothing
    seen, left_out, places, notes, unread = set(), Counter(), {}, Counter(), set()
    rows, kind, overlaps = 0, None, []
    with jsonl_writer(cfg.out) as write:  # as they come: a dataset of long chains is tens of gigabytes
        for rows, (where, columns) in enumerate(itertools.islice(read_rows(cfg), cfg.limit), 1):
            # what a row is: told by its columns; all are of the kind that the first one is
            row = _named(columns, cfg, strict=rows == 1)
            read = format_of(row, cfg.records == "sft")
            is_kind = "pair" if read is preferences else cfg.records.removesuffix("s")
            if rows == 1 and read is None:
                wanted = "messages" if cfg.records == "sft" else "problem, answer and reasoning"
                hint = "columns='{problem: …, answer: …, reasoning: …}'"
                hint = "columns='{messages: …}' or columns='{problem: …, output: …}'" if cfg.records == "sft" else hint
                raise UserError(f"cannot tell {wanted} from the columns {', '.join(row)}; name them: {hint}")
            kind = kind or is_kind
            if read is preferences:
                read = partial(preferences, gap=None if cfg.gap == "beta" else cfg.gap, betas=cfg.betas)
            found = read_row(row, read) if read and is_kind == kind else ["with other columns than the first row's"]

            # a record is written unless it is invalid, was seen before, or repeats a benchmark problem
            for record in found:
                if isinstance(record, Note):
                    notes[record] += 1
                    continue
                reason = record if isinstance(record, str) else _invalid(record, kind)
                if not reason:
                    if record["id"] in seen:
                        reason = "duplicate"
                    elif matches := benchmarks.overlaps(record["id"], _question(record), cfg.overlap):
                        overlaps += matches
                        reason = f"in {matches[0]['benchmark']}"
                if reason:
                    left_out[reason] += 1
                    places.setdefault(reason, where)
                else:
                    write(record)
                    seen.add(record["id"])
            unread |= row.unread()

        # inside the block, so that an error leaves an earlier file as it was
        reasons = ", ".join(f"{n} {why} (first: {Path(places[why]).name})" for why, n in left_out.most_common())
        if not seen:
            raise UserError(f"no usable row in {cfg.path or cfg.name}: {reasons or 'it has none'}")

    print(f"{len(seen)} {kind.replace('sft', 'sft record')}s in {cfg.out}; left out: {reasons or 'none'}")
    print(f"  {rows} rows: {len(seen)} kept + {left_out.total()} left out = {len(seen) + left_out.total()}")
    if notes:
        print(f"  not as they were: {', '.join(f'{n} {note}' for note, n in notes.items())}")
    if unread:
        print(f"  columns that were not used: {', '.join(sorted(unread))}")
    if cfg.decontaminate:
        write_overlaps(cfg.out, overlaps, benchmarks)


def read_rows(cfg: Config) -> Rows:
    """Yield (where, row) from local files or the hub. Raises UserError if they can't be loaded."""
    if cfg.path and (cfg.subset or cfg.split):
        raise UserError("subset and split are of the hub's datasets; let path=… name the files of one")
    if cfg.path:
        yield from iter_rows(cfg.path)
        return
    if not cfg.name:
        raise UserError(f"set name=… ({', '.join(NAMES['hub'])} or a hub id) or path=…")
    hub_id, subset = NAMES["hub"].get(cfg.name, (cfg.name, None))
    try:
        yield from hub_rows(hub_id, cfg.subset or subset, cfg.split or "train", streaming=cfg.limit is not None)
    except UserError as error:
        raise UserError(f"{error}; or set path=… to files of it") from None


def _named(columns, cfg, strict):
    """Return a row under our names. With a map, what is not mapped does not take part (it would be mistaken for a
    column that tells the format), but for what changes the question. strict: every name of the map must be there."""
    if unknown := [key for key in cfg.columns if key not in NAMES["ours"]]:
        raise UserError(f"columns has {unknown[0]!r}; it maps from {', '.join(NAMES['ours'])}")
    if strict and (missing := [name for name in cfg.columns.values() if name not in columns]):
        raise UserError(f"columns names {missing[0]!r}, which the rows do not have; they have {', '.join(columns)}")
    if cfg.columns:
        rest = set(NAMES["context"]) - set(cfg.columns.values())
        mapped = {ours: columns.get(theirs) for ours, theirs in cfg.columns.items()}
        columns = {name: value for name, value in columns.items() if name in rest} | mapped
    return Row({name: value for name, value in columns.items() if name not in cfg.ignore})


def _invalid(record, kind):
    """Say why build_crv.py or a training would refuse a whole file for this record, or None."""
    try:
        check_record(record, kind, "row")
    except UserError as error:
        reason = str(error).removeprefix("row: ")
        if "with one backslash" in reason:
            return "with damaged LaTeX"
        return "with an empty or missing text" if "must be a string" in reason else f"refused: {reason}"
    return None


def _question(record):
    messages = record.get("prompt") or record.get("messages") or [{"role": "user", "content": record["problem"]}]
    return "\n\n".join(message["content"] for message in messages if message["role"] == "user")


if __name__ == "__main__":
    run_cli(main, Config, __doc__)
