"""From graded responses to the cells of the tables: which rows there are, and which of their cells are complete."""

from collections import defaultdict
from dataclasses import dataclass

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


def measured(cfg, tables: dict[str, TableConfig], run: Evaluation) -> list[Table]:
    """Return the Table of every TableConfig. A cell with a response that is missing or not graded is left out."""
    samples = defaultdict(list)  # (place, problem) -> keys of its generations, one a sample
    for question in run.questions:
        samples[question.place, question.problem].append(question.key)
    rows = rows_of(cfg, run.problems)
    papers = {name: row for name, b in cfg.benchmarks.items() if (row := benchmarks.row_of(name, b))}
    # every answer is read once, however many tables and rows show it; notes need what it was computed and run in
    answers, dtypes, isolations = {}, {}, defaultdict(set)

    def answer(key, problem):
        """The Answer of one response, None if it is missing or not graded."""
        place = key, problem
        if place not in answers and key in run.generations and run.grade_keys[place] in run.grades:
            made, grade = run.generations[key], run.grades[run.grade_keys[place]]
            vote = None if benchmarks.runs_programs(problem.kind) else grade["extracted"]
            answers[place] = Answer(grade["status"], made["tokens"], vote)
            dtypes[key] = made.get("dtype")
            isolations[problem.benchmark].add(grade.get("isolation"))
        return answers.get(place)

    def cell(model, row):
        """The Cell of one model and row, None unless every response is there."""
        runs = {
            name: {problem.id: [answer(key, problem) for key in samples[place, problem]] for problem in rows[row]}
            for name, place in run.places[model].items()
        }
        complete = all(None not in found for by_problem in runs.values() for found in by_problem.values())
        return Cell(runs) if complete and rows[row] else None

    shown = []
    for name, table in tables.items():
        cells = {(row, column): cell(model, row) for row in rows for column, model in table.columns.items()}
        cells = {place: value for place, value in cells.items() if value is not None}
        below = notes(cfg, run, cells, isolations)
        computed = {
            column: {dtypes.get(key) for place in run.places[model].values() for p in run.problems
                     for key in samples[place, p]}
            for column, model in table.columns.items()
        }  # fmt: skip
        shown.append(assemble(name, table, list(rows), cells, below + dtype_note(computed), papers))
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
