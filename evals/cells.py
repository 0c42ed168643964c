"""From graded responses to the cells of the tables: which rows there are, and which of them are complete."""

from evals import benchmarks
from evals.report import assemble
from evals.results import Answer, Cell


def measured(cfg, plan, asked, places, problems, wanted, keys, generations, grades):
    """[Table] for every table of `plan`. A cell with a response that is missing or not graded is left out.

    asked: {benchmark: Settings}. places: {model: {run: Place}}. wanted, keys: of evals.questions and evals.grade.
    """
    samples = {}  # (place, problem) -> keys of its generations, one a sample
    for want in wanted:
        samples.setdefault((want.place, want.problem), []).append(want.key)
    rows, read = lines(cfg, problems), {}
    papers = {name: row for name, b in cfg.benchmarks.items() if (row := benchmarks.row_of(name, b))}
    dtypes, isolations = {}, {}  # {generation's key: its compute dtype}; {benchmark: {what its programs ran in}}

    def answer(key, problem):
        place = key, problem
        if place not in read and key in generations and keys[place] in grades:
            made, grade = generations[key], grades[keys[place]]
            vote = None if benchmarks.runs_programs(problem.extra["kind"]) else grade["extracted"]
            read[place] = Answer(grade["status"], made["tokens"], vote)
            dtypes[key] = made.get("dtype")
            isolations.setdefault(problem.benchmark, set()).add(grade.get("isolation"))
        return read.get(place)

    def cell(model, row):
        runs = {
            run: {problem.id: [answer(key, problem) for key in samples[place, problem]] for problem in rows[row]}
            for run, place in places[model].items()
        }
        whole = all(None not in answers for run in runs.values() for answers in run.values())
        return Cell(runs) if whole and rows[row] else None

    tables = []
    for name, table in plan.items():
        cells = {(row, column): cell(model, row) for row in rows for column, model in table.columns.items()}
        cells = {place: value for place, value in cells.items() if value is not None}
        below = notes(cfg, asked, problems, cells, isolations)
        used = {
            column: {dtypes.get(key) for place in places[model].values() for p in problems for key in samples[place, p]}
            for column, model in table.columns.items()
        }
        tables.append(assemble(name, table, list(rows), cells, below + mixed(used), papers))
    return tables


def lines(cfg, problems):
    """{row of the tables: its problems}: one for every benchmark, and one for each group where it is split."""
    rows = {}
    for name, benchmark in cfg.benchmarks.items():
        rows[name] = [problem for problem in problems if problem.benchmark == name]
        groups = dict.fromkeys(problem.group for problem in rows[name]) if benchmark.split else ()
        if len(groups) > 1:
            rows |= {f"{name}: {group}": [p for p in rows[name] if p.group == group] for group in groups}
    return rows


def mixed(used):
    """A line if responses were not all computed in one dtype, which alone can turn some of them. used: {column:
    dtypes, None where a server or nothing answered}."""
    used = {column: sorted(dtypes - {None}) for column, dtypes in used.items()}
    if len(set().union(*used.values())) < 2:
        return []
    return ["Computed in " + ", ".join(f"{' and '.join(d)} ({column})" for column, d in used.items() if d) + "."]


def notes(cfg, asked, problems, cells, isolations):
    """The config's notes, what is special about a benchmark, how the responses were drawn, what the intervals are."""
    own = {name: [problem for problem in problems if problem.benchmark == name] for name in cfg.benchmarks}
    special = [
        line
        for name, b in cfg.benchmarks.items()
        if own[name]
        for line in benchmarks.notes(name, b, own[name], sorted(isolations.get(name, set()) - {None}))
    ]
    ways = {}
    for name, how in asked.items():
        ways.setdefault(how_drawn(how), []).append(name)
    text = " ".join(f"{way}." if len(ways) == 1 else f"{', '.join(names)}: {way}." for way, names in ways.items())
    text += " Brackets: 95 % Wilson interval"
    if any(how.samples > 1 for how in asked.values()):
        text += ", with several responses a problem a bootstrap over problems"
    several = any(len(cell.runs) > 1 for cell in cells.values())
    text += "; several seeds: the mean over them, each seed below, a bootstrap over problems." if several else "."
    return [*cfg.notes, *special, text]


def how_drawn(how):
    """One response a problem, greedy, at most 256 tokens"""
    sampling = how.sampling
    count = "One response" if how.samples == 1 else f"{how.samples} responses"
    way = "greedy"
    if sampling["temperature"]:
        way = f"temperature {sampling['temperature']:g}, top_p {sampling['top_p']:g}"
        way += f", top_k {sampling['top_k']}" if sampling["top_k"] else ""
    return f"{count} a problem, {way}, at most {how.max_new_tokens} tokens"
