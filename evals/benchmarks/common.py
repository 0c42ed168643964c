"""What the benchmark families share: a problem, a benchmark's config, its rows from the hub or a file, the checks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import yaml

from data.rows import Rows, hub_rows, iter_rows
from errors import UserError
from values import Count, MaybePath, Template, Whole


@dataclass(frozen=True)
class Problem:
    """A test problem, as every family loads, asks and grades it.

    benchmark: its name in the config, a row of the tables. question: what {problem} stands for in the instruction.
    gold: the right answer as text; empty where tests decide. group: the part of the benchmark that it belongs to, or
    empty. kind: as evals/benchmarks.yaml has it. extra: what only its family knows (options, tests, tolerance, …).
    record: what belongs into every record of a generation (the order of the options). private: its text must not appear
    in anything that is shown or shared, nor does it in the repr."""

    benchmark: str
    id: str
    question: str = field(repr=False)
    gold: str = field(repr=False)
    group: str = ""
    kind: str = ""
    extra: dict = field(default_factory=dict, compare=False, repr=False)
    record: dict = field(default_factory=dict, compare=False, repr=False)
    private: bool = False


@dataclass
class BenchmarkConfig:
    kind: str = ""
    """which benchmark this is: aime2024, math500, gsm8k, olympiadbench, gpqa_diamond, mmlu, livecodebench_v2, or local
    (a file of your own); empty: by its name, as in Table 7, else local"""
    file: MaybePath = ""
    """read this instead of the hub, in any form that data/rows.py opens, with the columns that the hub has; local: id,
    problem, answer"""
    split: str = ""
    """column whose values become rows of the table, beside one row for all; empty: one row"""
    limit: Whole = 0
    """only the first N problems; 0: all"""
    samples: Count | None = None
    """responses a problem; default: the protocol's"""
    max_new_tokens: Count | None = None
    """longest response; default: the protocol's"""
    instruction: Template | None = None
    """template around {problem}; default: the family's under the protocol"""


@dataclass(frozen=True)
class Kind:
    """A benchmark as evals/benchmarks.yaml describes it; the fields are explained there."""

    family: str
    title: str = ""
    repo: str = ""
    subset: str | None = None
    split: str = ""
    columns: dict[str, list[str]] = field(default_factory=dict)
    also: list[str] = ()
    gated: bool = False
    prompts: dict[str, str] = field(default_factory=dict)
    samples: dict[str, int] = field(default_factory=dict)


DESCRIBED = yaml.safe_load((Path(__file__).parents[1] / "benchmarks.yaml").read_text(encoding="utf-8"))
KINDS = {name: Kind(**kind) for name, kind in DESCRIBED["kinds"].items()}
PROTOCOLS: dict[str, dict] = DESCRIBED["protocols"]


def read(
    kind: str, name: str, cfg: BenchmarkConfig, parse: Callable[..., Problem], given: Rows | None = None
) -> list[Problem]:
    """Read all problems of a benchmark, rows checked.

    parse: (number from 1, {our name: text}, row, where) -> Problem, where `row` has every column as the file has it and
    `where` names the place for messages. given: the rows, where the family finds them itself. Raises UserError, one
    line with file and line, for columns that are missing or empty, duplicated ids, and a hub that cannot be reached. No
    message quotes a row.
    """
    problems, places = [], {}
    for number, (where, row) in enumerate(given or rows(KINDS[kind], name, cfg), 1):
        texts = {ours: text(row, names, where) for ours, names in KINDS[kind].columns.items()}
        problem = parse(number, texts, row, where)
        if problem.id in places:
            raise UserError(f"{where}: duplicate id {problem.id!r}, first seen at {places[problem.id]}")
        places[problem.id] = where
        problems.append(replace(problem, group=text(row, (cfg.split,), where) if cfg.split else ""))
    return problems


# --- rows ---


def rows(source: Kind, name: str, cfg: BenchmarkConfig) -> Rows:
    """Yield (where, row) from cfg.file, else from the hub."""
    if cfg.file:
        yield from iter_rows(cfg.file)
        return
    try:
        yield from hub_rows(source.repo, source.subset, source.split)
    except UserError as error:
        columns = ", ".join([*(names[0] for names in source.columns.values()), *source.also])
        consent = "accept its terms on the hub and log in (`hf auth login`), or " if source.gated else ""
        wanted = f"set benchmarks.{name}.file to a local file with the columns {columns}"
        raise UserError(f"benchmarks.{name}: {error}; {consent}{wanted}") from None


def text(row: dict, names: Sequence[str], where: str) -> str:
    """Return the text of the first of these columns that a row has. Whole numbers count as text. Raises UserError, also
    for half a surrogate pair, which JSON can spell and no file can hold."""
    key = next((key for key in names if row.get(key) is not None), None)
    if key is None:
        raise UserError(f"{where}: a test problem needs {' or '.join(names)}, which is missing")
    value = row[key]
    if not isinstance(value, str | int) or isinstance(value, bool):
        raise UserError(f"{where}: a test problem needs {key} to be text, not {type(value).__name__}")
    if not str(value).strip():
        raise UserError(f"{where}: a test problem needs {key}, which is empty")
    try:
        str(value).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: {key} holds half a surrogate pair, which no UTF-8 file can hold; repair it"
        ) from None
    return str(value)
