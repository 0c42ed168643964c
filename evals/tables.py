"""What a table says: grids in the paper's layout, and the lines around them, for the templates pages/table.*.

A cell reads `62.5 % (60/96) [52.5, 71.5]`: accuracy, right answers of all responses, 95 % interval. Where the table is
one of the paper's, below it stand the printed value and the difference, what that value stands on at one response a
problem, and the paired test against the reference column.
"""

from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from evals.results import Cell, Comparison, Table
from evals.stats import p_value, percent, points, signed
from pages.page import TEMPLATES, render

PAIRED = "Paired differences on the same problems, in percentage points, with an exact test:"
PAIRS = "Every pair of columns: column minus row in points (problems gained : lost), p"
SHARES = {"truncated": "truncated", "no_answer": "no answer", "timeout": "grader timeout", "error": "grader error"}


@dataclass(frozen=True)
class Entry:
    """lines: what a cell says, the most important first. rank: 1 best, 2 second, 0 neither. bars: (kind, low, value,
    high) of each 95 % interval, measured or "theirs", in percent of the width that all cells of the row share."""

    lines: list
    rank: int = 0
    bars: list = ()


@dataclass(frozen=True)
class Grid:
    """heads: one or two lines of column headings, the corner first. rows: [(label, [Entry])]."""

    heads: list
    rows: list


def write(folder: str | Path, title: str, tables: list[Table], speeds: dict[str, str]) -> str:
    """Write table.md, table.html, table.tex and one PNG a table into `folder`. Returns the Markdown. speeds: {model's
    path: "496 tokens/s"} of what was generated here."""
    from evals.charts import chart  # matplotlib: a second that --help and --plan do not need

    folder, charts = Path(folder), [chart(table) for table in tables]
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("md", "html", "tex"):
        text = rendered(kind, tables, title, speeds, [svg for _, svg in charts])
        (folder / f"table.{kind}").write_text(text, encoding="utf-8")
    for number, (table, (image, _)) in enumerate(zip(tables, charts, strict=True)):
        (folder / (f"table-{table.name}.png" if number else "table.png")).write_bytes(image)
    return (folder / "table.md").read_text(encoding="utf-8")


def rendered(kind: str, tables: list[Table], title: str = "", speeds: dict | None = None, charts: list = ()) -> str:
    """Return all tables as one text by the template of a kind: md, html or tex. charts: an SVG for each table."""
    parts = [
        {
            "name": table.name,
            "title": table.title,
            "number": table.published.number if table.published else "",
            "grids": grids(table),
            # the paper's layout has them in its cells
            "comparisons": [] if table.published else [(c, comparison_text(c)) for c in table.comparisons],
            "pairs": pair_grids(table),
            "answers": answer_rows(table),
            "notes": [*table.notes, *render("notes.txt", table=table).splitlines()],
            "chart": Markup(charts[place]) if charts else "",
        }
        for place, table in enumerate(tables)
    ]
    return render(f"table.{kind}", title=title, tables=parts, speeds=speeds or {}, paired=PAIRED, pairs=PAIRS)


def markdown_rows(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table in Markdown. rows: lists of text, the head first."""
    template = TEMPLATES.get_template("table.md").make_module({"tables": [], "speeds": {}})
    return template.table(rows[:1], rows[1:]).splitlines()


# --- texts ---


def comparison_text(c: Comparison) -> str:
    return f"{c.column} − {c.reference}: {points(c.difference)} ({c.gained} gained, {c.lost} lost, {p_value(c.p)})"


def sample_text(cell: Cell) -> str:
    """Give pass@k for some k, and maj@n; empty for one sample."""
    n = cell.samples
    parts = [f"pass@{k} {percent(cell.pass_at(k))}" for k in sorted({4, 16, 64, n}) if 1 < k <= n]
    return " · ".join(parts + ([f"maj@{n} {percent(cell.majority)}"] if n > 1 and cell.majority is not None else []))


# --- grids ---


def grids(table: Table) -> list[tuple[str, Grid]]:
    """Return [(heading, Grid)]: the paper's table as printed, if there is one; then what was measured beside it; where
    nothing was, what is printed as k of N."""
    if not table.printed:
        return [("Measured" if table.published else "", measured_grid(table))]
    best = ranking(table, table.printed)
    printed = layout(table, {at: Entry([p.text], best.get(at, 0)) for at, p in table.printed.items()})
    return [("", printed), ("Measured, and the paper's" if table.cells else "k of N", measured_grid(table))]


def layout(table: Table, entries: dict[tuple[str, str], Entry]) -> Grid:
    """Put {(row, column): Entry} into the table's own layout: the paper's, if it is one of the paper's."""
    paper = table.published
    if paper and paper.transposed:
        rows = [(column, [entries[row, column] for row in table.rows]) for column in table.columns]
        return Grid([[paper.corner, *paper.benchmarks.values()]], rows)
    labels = paper.benchmarks if paper else {row: row for row in table.rows}
    heads = [[paper.corner, *(paper.heads or paper.columns)]] if paper else [["", *table.columns]]
    heads += [list(paper.second)] if paper and paper.second else []
    return Grid(heads, [(labels[row], [entries[row, column] for column in table.columns]) for row in table.rows])


def measured_grid(table: Table) -> Grid:
    """Lay out what was measured, with what is printed and the test against the reference column."""
    best, entries = ranking(table, table.cells), {}
    for row in table.rows:
        bars = interval_bars(table, row)
        for column in table.columns:
            at, change = (row, column), ""
            cell, there = table.cells.get(at), table.printed.get(at)
            # what was measured; in a table of one's own in one line
            lines = [] if there and not table.cells else ["–"]
            if cell:
                value, bracket, rest = cell.basis.partition(" [")
                lines = [cell.text, cell.basis] if table.published else [f"{cell.text} ({value}){bracket}{rest}"]
                if isinstance(cell, Cell) and len(cell.runs) > 1:
                    lines.append("seeds " + " · ".join(map(percent, cell.per_run)))
            # what is printed, and the difference: in points, or in chains for a count
            if there and cell:
                by = cell.accuracy - there.accuracy
                change = f" ({signed(str(cell.value - there.value)) if table.counts else points(by)})"
            if there:
                lines += [f"paper {there.text}{change}" if lines else there.text, there.basis]
            # the paired test
            if table.published and (c := table.comparison(row, column)):
                lines.append(f"{points(c.difference)} on {c.reference}, {p_value(c.p)}")
            entries[at] = Entry(lines, best.get(at, 0), bars.get(column, ()))
    return layout(table, entries)


def ranking(table: Table, cells: dict) -> dict[tuple[str, str], int]:
    """Return {(row, column): 1 for the row's best accuracy, 2 for its second}, ties included; the paper's bold and
    underlined. Nothing for counts, and where all are equal."""
    best = {}
    for row in () if table.counts else table.rows:
        scores = {(row, column): cells[row, column].accuracy for column in table.columns if (row, column) in cells}
        first = sorted(set(scores.values()), reverse=True)[:2]
        best |= {at: first.index(score) + 1 for at, score in scores.items() if score in first and len(first) > 1}
    return best


def interval_bars(table: Table, row: str) -> dict[str, list]:
    """Return {column: bars of an Entry}, over one scale for the row."""
    found = [
        (column, kind, *cells[row, column].interval, cells[row, column].accuracy)
        for kind, cells in (("", table.cells), ("theirs", table.printed))
        for column in table.columns
        if (row, column) in cells and cells[row, column].interval
    ]
    low = min((start for _, _, start, _, _ in found), default=0)
    unit = 100 / (max((end for _, _, _, end, _ in found), default=1) - low)
    bars = {column: [] for column in table.columns}
    for column, kind, start, end, value in found:
        bars[column].append((kind, *(unit * (x - low) for x in (start, value, end))))
    return bars


def pair_grids(table: Table) -> list[Grid]:
    """Make a Grid a row of the table: every pair of its columns. Empty if the list of comparisons says it all."""
    if not table.published and len(table.pairs) <= len(table.comparisons):
        return []
    found = []
    for row in table.rows:
        columns = [column for column in table.columns if any(p[0] == row and column in p[1:] for p in table.pairs)]
        lines = []
        for earlier in columns[:-1]:
            tested = [table.pairs.get((row, later, earlier)) for later in columns[1:]]
            lines.append((earlier, [Entry(pair_lines(c) if c else [""]) for c in tested]))
        if lines:
            found.append(Grid([[row, *columns[1:]]], lines))
    return found


def pair_lines(c: Comparison) -> list[str]:
    star = " *" if c.holm is not None and c.holm < 0.05 else ""
    return [f"{points(c.difference)} ({c.gained} : {c.lost})", p_value(c.p) + star]


def answer_rows(table: Table) -> list[list[str]]:
    """List what became of the answers: a heading line, then one line a measured cell."""
    rows = [["", "column", "answers", *SHARES.values(), "tokens a response", ""]]
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column))
            if isinstance(cell, Cell):
                became = ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in cell.statuses.items())
                shares = [f"{percent(cell.statuses.get(kind, 0) / cell.n)} %" for kind in SHARES]
                rows.append([row, column, became, *shares, f"{cell.mean_tokens:.0f}", sample_text(cell)])
    return [line if any(line[-1] for line in rows) else line[:-1] for line in rows] if len(rows) > 1 else []
