"""From graded responses to the cells of the tables: which rows there are, and which of their cells are complete."""

from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property, partial

from evals import benchmarks
from evals.assembly import TableConfig, assemble
from evals.models import Place
from evals.problem import Problem
from evals.questions import Question, Settings
from evals.results import Answer, Cell, Table
from evals.store import Ledgers


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


def measured(cfg, tables: dict[str, TableConfig], run: Evaluation) -> list[Table]:
    """Return the Table of every TableConfig. A cell with a response that is missing or not graded is left out."""
    rows = rows_of(cfg, run.problems)
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
                    cells[row, column] = Cell(runs)
            # for the notes: what the responses were computed in, and what their programs ran in
            there = [(p, a) for place in places.values() for p in run.problems for a in run.answers[place, p] if a]
            dtypes[column] = {answer.dtype for _, answer in there}
            for problem, answer in there:
                isolations[problem.benchmark].add(answer.isolation)
        below = notes(cfg, run, cells, isolations) + dtype_note(dtypes)
        shown.append(assemble(name, table, list(rows), cells, below, papers, frozenset(rows.keys() - cfg.benchmarks)))
    return shown


def rows_of(cfg, problems: list[Problem]) -> dict[str, list[Problem]]:
    """Return {row of the tables: its problems}: a row for every benchmark, and one for each group where it is split."""
    rows = {}
    for name, benchmark in cfg.benchmarks.items():
        rows[name] = [problem for problem in problems if problem.benchmark == name]
        groups = dict.fromkeys(problem.group for problem in rows[name]) if benchmark.split else ()
        if len(groups) > 1:
            rows |= {f"{name}: {group}": [p for p in rows[name] if p.group == group] for group in groups}
    return rows


def dtype_note(computed: dict[str, set]) -> list[str]:
    """Return a line if responses were not all computed in one dtype, which alone can turn some of them. computed:
    {column: dtypes, None where a server or nothing answered}."""
    computed = {column: sorted(dtypes - {None}) for column, dtypes in computed.items()}
    if len(set().union(*computed.values())) < 2:
        return []
    return ["Computed in " + ", ".join(f"{' and '.join(d)} ({column})" for column, d in computed.items() if d) + "."]


def notes(cfg, run: Evaluation, cells: dict, isolations: dict[str, set]) -> list[str]:
    """Return the config's notes, what is special about a benchmark, how the responses were drawn, what the intervals
    are. isolations: {benchmark: what its programs ran in}."""
    lines = list(cfg.notes)
    for name, benchmark in cfg.benchmarks.items():
        if own := [problem for problem in run.problems if problem.benchmark == name]:
            lines += benchmarks.notes(name, benchmark, own, sorted(isolations.get(name, set()) - {None}))
    # benchmarks that are asked in the same way share a sentence
    asked = defaultdict(list)
    for name, settings in run.settings.items():
        asked[how_drawn(settings)].append(name)
    text = " ".join(f"{way}." if len(asked) == 1 else f"{', '.join(names)}: {way}." for way, names in asked.items())
    text += " Brackets: 95 % Wilson interval"
    if any(settings.samples > 1 for settings in run.settings.values()):
        text += ", with several responses a problem a bootstrap over problems"
    several = any(len(cell.runs) > 1 for cell in cells.values())
    text += "; several seeds: the mean over them, each seed below, a bootstrap over problems." if several else "."
    return [*lines, text]


def how_drawn(settings: Settings) -> str:
    """Say how a benchmark is asked: "One response a problem, greedy, at most 256 tokens"."""
    sampling = settings.sampling
    count = "One response" if settings.samples == 1 else f"{settings.samples} responses"
    way = "greedy"
    if sampling["temperature"]:
        way = f"temperature {sampling['temperature']:g}, top_p {sampling['top_p']:g}"
        way += f", top_k {sampling['top_k']}" if sampling["top_k"] else ""
    return f"{count} a problem, {way}, at most {settings.max_new_tokens} tokens"
