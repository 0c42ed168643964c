"""A run's tables: which they are (TableConfig), what fills them, and the files that show them."""

import difflib
import json
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from errors import UserError
from evals.published import ALIASES, FIGURES, TABLES, Count
from evals.results import Table
from values import FilePath

PAPERS = TABLES | FIGURES


@dataclass
class TableConfig:
    title: str = ""
    """heading; default is the caption of `paper`, or the table's name"""
    columns: dict[str, str] = field(default_factory=dict)
    """column heading: name of a model, from left to right"""
    against: dict[str, str] = field(default_factory=dict)
    """column: the column that its paired test compares with; default is the column before it; empty: none"""
    paper: str = ""
    """table1 … table10, figure4a … figure6 of the paper: its layout, with its numbers beside the measured ones"""
    levels: dict[str, FilePath] = field(default_factory=dict)
    """column heading: folder of a finished build_crv run, whose Critic's levels are shown (Table 1)"""


def check(name: str, table: TableConfig, models: Collection[str]) -> None:
    """Raise UserError for what a TableConfig names and is not there. models: the names that `columns` may show."""
    if "/" in name:
        raise UserError(f"tables.{name}: the name is a part of a file's name, it cannot have a slash; title: can")
    if table.paper and table.paper not in PAPERS:
        raise UserError(f"tables.{name}.paper: no {table.paper!r}; there are {', '.join(PAPERS)}")
    if not table.paper and not table.columns:
        raise UserError(f"tables.{name} needs columns, or paper: one of {', '.join(PAPERS)}")
    if table.levels and table.paper != "table1":
        raise UserError(f"tables.{name}: levels are for paper: table1")
    for column, model in table.columns.items():
        if model not in models:
            raise UserError(f"tables.{name}: column {column} shows model {model!r}, which is not in models")
    columns = PAPERS[table.paper].columns if table.paper else list(table.columns)
    for column in (*table.columns, *table.levels, *table.against, *filter(None, table.against.values())):
        if column not in columns:
            (near,) = difflib.get_close_matches(column, columns, 1, 0)
            where = f"the paper's {table.paper}" if table.paper else "that table"
            raise UserError(f"tables.{name} names {column!r}, not a column of {where}; did you mean {near!r}?")


def check_rows(plan: dict[str, TableConfig], rows: dict[str, str | None]) -> None:
    """Raise UserError for a benchmark that no table shows, and for two that would fill one row of the paper's tables.
    plan: {name: TableConfig}. rows: {benchmark: its row of the paper's tables, or None}."""
    papers = [table.paper for table in plan.values() if table.paper]
    for number, (benchmark, row) in enumerate(rows.items()):
        others = [other for other in list(rows)[:number] if row and rows[other] == row]
        if papers and others:
            raise UserError(
                f"benchmarks {others[0]} and {benchmark} are both the row {row} of the paper; leave one out"
            )
        if len(papers) == len(plan) and not any(row in PAPERS[paper].benchmarks for paper in papers):
            raise UserError(
                f"benchmarks.{benchmark} is a row of no table: {papers[0]} has "
                f"{', '.join(PAPERS[papers[0]].benchmarks)}; leave it out, or add a table without paper"
            )


def assemble(
    name: str,
    config: TableConfig,
    rows: list[str],
    cells: dict,
    notes: list[str],
    papers: dict[str, str] | None = None,
    parts: frozenset[str] = frozenset(),
) -> Table:
    """Make the Table of a TableConfig. rows: row names; cells: {(row, column): Cell}, those that are measured. papers:
    {row: the paper's name for it}, of those whose name is another. parts: the rows of a benchmark's `split`."""
    paper = PAPERS.get(config.paper)
    if paper is None:
        title, columns = config.title or name, list(config.columns)
        return Table(name, title, rows, columns, cells, config.against, notes, parts=parts)
    title, rows = config.title or f"{paper.number}: {paper.caption}", list(paper.benchmarks)
    below = notes if cells else []  # they are of what was generated
    own = ALIASES | (papers or {})
    cells = {(own.get(row, row), column): cell for (row, column), cell in cells.items()} | levels(config.levels)
    cells = {place: cell for place, cell in cells.items() if place[0] in rows}
    return Table(name, title, rows, paper.columns, cells, config.against, below, paper)


def levels(folders: dict[str, str]) -> dict[tuple[str, str], Count]:
    """Return {(level, column): Count} from report.json of each folder of a build_crv run that has finished."""
    cells = {}
    for column, folder in folders.items():
        file = Path(folder) / "report.json"
        if not file.exists():
            continue
        try:
            counts = json.loads(file.read_text(encoding="utf-8"))["levels_before"]
            counts = {level: int(counts[level]) for level in ("easy", "medium", "hard", "unrated")}
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{file} is no report of build_crv.py ({error}); run build_crv.py there again") from None
        total = sum(counts.values())
        if total:
            cells |= {(level.capitalize(), column): Count(counts[level], total) for level in ("easy", "medium", "hard")}
    return cells
