"""A run's tables: which they are (TableConfig), and what fills them: graded responses, a cell where all are there."""

import difflib
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

from errors import UserError, read_json
from evals import benchmarks
from evals.benchmarks.common import Problem
from evals.models import Place
from evals.published import FIGURES, TABLES, Count
from evals.questions import Question, Settings
from evals.results import Answer, Cell, Table
from evals.store import Ledgers
from pages.page import render
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


@dataclass(frozen=True)
class Evaluation:
    """What was asked, answered and graded. settings: {benchmark: how it is asked}. places: {model: {run: Place}}.
    grade_keys: {(generation's key, problem): its grade's key} (evals/grade.py)."""

    settings: dict[str, Settings]
    places: dict[str, dict[str, Place]]
    problems: list[Problem]
    questions: list[Question]
    generations: Ledgers
    grades: Ledgers
    grade_keys: dict

    @cached_property
    def answers(self) -> dict[tuple[Place, Problem], list[Answer | None]]:
        """Return {(place, problem): [Answer, one a sample]}, None for one that is missing or not graded."""
        found = defaultdict(list)
        for question in self.questions:
            key, graded_as, answer = question.key, self.grade_keys.get((question.key, question.problem)), None
            if key in self.generations and graded_as in self.grades:
                made, grade = self.generations[key], self.grades[graded_as]
                answer = Answer(
                    **{name: grade[name] for name in ("status", "extracted", "detail")},
                    **{name: made.get(name) for name in ("tokens", "finish_reason", "dtype")},
                    program=benchmarks.runs_programs(question.problem.kind),
                    isolation=grade.get("isolation"),
                    made=partial(self.generations.__getitem__, key),
                )
            found[question.place, question.problem].append(answer)
        return found


# --- what fills them ---


def measured(cfg, tables: dict[str, TableConfig], run: Evaluation) -> list[Table]:
    """Return the Table of every TableConfig. A cell with a response that is missing or not graded is left out."""
    # a row for every benchmark, and one for each group where it is split
    rows = {}
    for name, benchmark in cfg.benchmarks.items():
        rows[name] = [problem for problem in run.problems if problem.benchmark == name]
        groups = dict.fromkeys(problem.group for problem in rows[name]) if benchmark.split else ()
        if len(groups) > 1:
            rows |= {f"{name}: {group}": [p for p in rows[name] if p.group == group] for group in groups}
    papers = {name: row for name, b in cfg.benchmarks.items() if (row := benchmarks.row_of(name, b))}

    shown = []
    for name, table in tables.items():
        cells, dtypes, isolations = {}, {}, defaultdict(set)
        for column, model in table.columns.items():
            # a cell of each row, unless a response is not there
            places = run.places[model]
            for row, problems in rows.items():
                runs = {seed: {p.id: run.answers[place, p] for p in problems} for seed, place in places.items()}
                if problems and all(None not in found for by_id in runs.values() for found in by_id.values()):
                    cells[papers.get(row, row) if table.paper else row, column] = Cell(runs)
            # for the notes: what the responses were computed in, and what their programs ran in
            there = [(p, a) for place in places.values() for p in run.problems for a in run.answers[place, p] if a]
            dtypes[column] = sorted({answer.dtype for _, answer in there} - {None})
            for problem, answer in there:
                isolations[problem.benchmark].add(answer.isolation)
        below = notes(cfg, run, cells, dtypes, isolations)
        shown.append(assemble(name, table, list(rows), cells, below, frozenset(rows.keys() - cfg.benchmarks)))
    return shown


def assemble(
    name: str,
    config: TableConfig,
    rows: list[str],
    cells: dict,
    notes: list[str],
    parts: frozenset[str] = frozenset(),
) -> Table:
    """Make the Table of a TableConfig. rows: row names; cells: {(row, column): Cell}, what is measured, in one of
    the paper's tables by the paper's names. parts: the rows of a benchmark's `split`."""
    paper = PAPERS.get(config.paper)
    if paper is None:
        title, columns = config.title or name, list(config.columns)
        return Table(name, title, rows, columns, cells, config.against, notes, parts=parts)
    title, rows = config.title or f"{paper.number}: {paper.caption}", list(paper.benchmarks)
    below = notes if cells else []  # they are of what was generated
    cells = {place: cell for place, cell in cells.items() if place[0] in rows} | levels(config.levels)
    return Table(name, title, rows, paper.columns, cells, config.against, below, paper)


def levels(folders: dict[str, str]) -> dict[tuple[str, str], Count]:
    """Return {(level, column): Count} from report.json of each folder of a build_crv run that has finished."""
    cells = {}
    for column, folder in folders.items():
        file = Path(folder) / "report.json"
        if not file.exists():
            continue
        counts = read_json(file, "run build_crv.py there again", _rated)
        total = sum(counts.values())
        if total:
            cells |= {(level.capitalize(), column): Count(counts[level], total) for level in ("easy", "medium", "hard")}
    return cells


def _rated(report):
    return {level: int(report["levels_before"][level]) for level in ("easy", "medium", "hard", "unrated")}


def notes(cfg, run: Evaluation, cells: dict, dtypes: dict[str, list], isolations: dict[str, set]) -> list[str]:
    """Return the config's notes, what is special about a benchmark, how the responses were drawn, what the intervals
    are. dtypes: {column: of its responses}. isolations: {benchmark: what its programs ran in}."""
    lines = list(cfg.notes)
    for name, benchmark in cfg.benchmarks.items():
        if own := [problem for problem in run.problems if problem.benchmark == name]:
            lines += benchmarks.notes(name, benchmark, own, sorted(isolations.get(name, set()) - {None}))
    seeds = any(len(cell.runs) > 1 for cell in cells.values())
    return lines + render("drawn.txt", settings=run.settings, seeds=seeds, dtypes=dtypes).splitlines()
