"""Public chain-of-thought datasets -> problem records, the input of build_crv.py; preference data -> pair records.

    python -m data.sources name=bespoke out=problems/bespoke_stratos_17k.jsonl
    python -m data.sources name=openthoughts out=problems/openthoughts_114k.jsonl \\
        decontaminate='[benchmarks/math500.jsonl, benchmarks/aime2024.jsonl]'
    python -m data.sources name=sky_t1 path=Sky-T1_data_17k.json out=problems/sky_t1_17k.jsonl
    python -m data.sources name=someone/set columns='{problem: question, answer: solution, reasoning: cot}' out=…
    python -m data.sources path=cogpo.jsonl gap=large out=problems/pairs.jsonl

Any hub id or local .json, .jsonl or .parquet file will do: the columns tell what the rows are (data/formats.py). Rows
that cannot be used are left out; how many for which reason is printed.
"""

import glob
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from data.decontaminate import Benchmarks, write_overlaps
from data.formats import Format, format_of, preferences
from data.records import check_record, jsonl_writer
from errors import UserError

HUB = {
    "bespoke": ("bespokelabs/Bespoke-Stratos-17k", None),
    "sky_t1": ("NovaSky-AI/Sky-T1_data_17k", None),
    "openthoughts": ("open-thoughts/OpenThoughts-114k", "metadata"),
    "omnithought": ("alibaba-pai/OmniThought", None),
}
ROW_KEYS = ("problem", "answer", "reasoning", "solution", "domain", "tests", "prompt", "chosen", "rejected")


@dataclass
class Config:
    out: str
    """The file to write: problems, or pairs where the rows are preferences."""
    name: str = ""
    """bespoke, sky_t1, openthoughts, omnithought, or a hub id."""
    path: str = ""
    """Local .json, .jsonl or .parquet file, or a pattern of such, instead of the hub."""
    subset: str = ""
    """The hub dataset's configuration; empty for the usual one (openthoughts: metadata)."""
    split: str = "train"
    """The hub dataset's split."""
    columns: dict[str, str] = field(default_factory=dict)
    """What the dataset calls our columns, e.g. {problem: question, answer: solution, reasoning: cot}."""
    gap: Literal["beta", "small", "medium", "large"] = "beta"
    """Preference rows: the gap of every pair, or beta to tell it from that column."""
    betas: tuple[float, float, float] = (0.1, 0.2, 0.5)
    """What `beta` is for small, medium and large gaps (Table 8)."""
    repair_latex: bool = False
    """Mend LaTeX whose backslash was read as a JSON escape ("\\boxed" with one backslash) instead of leaving out the
    row."""
    decontaminate: list[str] = field(default_factory=list)
    """Benchmark files; problems that overlap with one of theirs are left out (data/decontaminate.py)."""
    overlap: float = 0.6
    """A problem is left out if it has at least this share of a benchmark problem's 8-grams."""
    limit: int | None = None
    """Only the first N rows."""


def main(cfg: Config) -> None:
    """Write the records of a dataset to cfg.out and print what was left out. Raises UserError if no row can be used."""
    benchmarks = Benchmarks(cfg.decontaminate)  # before anything is loaded: a mistyped path costs nothing
    seen, reasons, kind, overlaps = set(), Counter(), None, []
    with jsonl_writer(cfg.out) as write:  # as they come: a dataset of long chains is tens of gigabytes
        for row in read_rows(cfg):
            # the first row tells the format of all
            if kind is None:
                read, kind = _reader(row, cfg)

            # a record is written unless it is invalid, was seen before, or repeats a benchmark problem
            for record in read(row):
                repaired = _repaired(record) if cfg.repair_latex else record
                if isinstance(record, str):
                    reasons[record] += 1
                elif problem := _invalid(repaired, kind):
                    reasons[problem] += 1
                elif record["id"] in seen:
                    reasons["duplicate"] += 1
                elif found := benchmarks.overlaps(record["id"], _question(repaired), cfg.overlap):
                    overlaps += found
                    reasons[f"in {found[0]['benchmark']}"] += 1
                else:
                    write(repaired)
                    seen.add(record["id"])
                    reasons["repaired (and kept)"] += repaired != record

        # inside the block, so that an error leaves an earlier file as it was
        left_out = ", ".join(f"{n} {reason}" for reason, n in reasons.most_common() if n) or "none"
        if not seen:
            raise UserError(f"no usable row in {cfg.path or cfg.name}: {left_out}")
    print(f"{len(seen)} {kind}s in {cfg.out}; left out: {left_out}")
    if cfg.decontaminate:
        write_overlaps(cfg.out, overlaps, benchmarks)


def read_rows(cfg: Config) -> Iterator[dict]:
    """Yield rows, with our names for their columns, from local files or the hub. Raises UserError if they can't be
    loaded or lack a column that `columns` names."""
    from datasets import load_dataset  # here, so that --help answers at once
    from datasets.exceptions import DatasetGenerationError

    # what to load: local files by their suffix, or a dataset of the hub
    if cfg.path:
        files = sorted(glob.glob(cfg.path))
        if not files:
            raise UserError(f"no such file: {cfg.path}")
        source = ("parquet" if files[0].endswith(".parquet") else "json",)
        options = {"data_files": files, "split": "train", "streaming": True}
    elif not cfg.name:
        raise UserError(f"set name=… ({', '.join(HUB)} or a hub id) or path=…")
    else:
        hub_id, subset = HUB.get(cfg.name, (cfg.name, None))
        source = (hub_id, cfg.subset or subset)
        options = {"split": cfg.split, "streaming": cfg.limit is not None}

    try:
        for number, row in enumerate(load_dataset(*source, **options)):
            if number == cfg.limit:
                return
            yield row | {ours: _column(row, theirs) for ours, theirs in cfg.columns.items()}
    except (OSError, ValueError, DatasetGenerationError) as error:
        if isinstance(error, UserError):
            raise
        hint = "" if cfg.path else "; or set path=…"
        cause = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(f"cannot load {cfg.path or hub_id}: {cause}{hint}") from None


def _column(row, name):
    if name not in row:
        raise UserError(f"columns names {name!r}, which the rows do not have; they have {', '.join(row)}")
    return row[name]


def _reader(row: dict, cfg: Config) -> tuple[Format, str]:
    """Choose (generator of records, "problem" or "pair") for all rows, from the first one."""
    unknown = [key for key in cfg.columns if key not in ROW_KEYS]
    if unknown:
        raise UserError(f"columns has {unknown[0]!r}; it maps from {', '.join(ROW_KEYS)}")

    # with a map, what is not mapped does not take part: it would be mistaken for a column that tells the format
    read = format_of({key: row[key] for key in cfg.columns} if cfg.columns else row)
    if read is None:
        raise UserError(
            f"cannot tell problem, answer and reasoning from the columns {', '.join(row)}; "
            f"name them with columns='{{problem: …, answer: …, reasoning: …}}'"
        )
    if read is preferences:
        gap = None if cfg.gap == "beta" else cfg.gap
        return lambda row: preferences(row, gap, cfg.betas), "pair"
    return read, "problem"


def _invalid(record, kind):
    """Say why build_crv.py or train_cogpo.py would refuse a whole file for this record, or None."""
    try:
        check_record(record, kind, "row")
    except UserError as error:
        damaged = "with one backslash" in str(error)
        return "with damaged LaTeX (see repair_latex)" if damaged else "with an empty or missing text"
    return None


DAMAGED = re.compile(r"[\b\f\v](?=[a-z])")


def _repaired(value):
    """Put the backslash back where JSON has read "\\b", "\\f" or "\\v" as a control character."""
    if isinstance(value, str):
        return DAMAGED.sub(lambda match: {"\b": "\\b", "\f": "\\f", "\v": "\\v"}[match.group()], value)
    if isinstance(value, list):
        return [_repaired(inner) for inner in value]
    return {key: _repaired(inner) for key, inner in value.items()} if isinstance(value, dict) else value


def _question(record):
    return record["problem"] if "problem" in record else record["prompt"][-1]["content"]


if __name__ == "__main__":
    from config import run_cli

    run_cli(main, Config, __doc__)
