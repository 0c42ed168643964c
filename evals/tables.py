"""What a table says, as text and as a grid in the paper's layout, and the grids as Markdown.

A cell reads `62.5 % (60/96) [52.5, 71.5]`: accuracy, right answers of all responses, 95 % interval. Where the table is
one of the paper's, below it stand the printed value and the difference, what that value stands on at one response a
problem, and the paired test against the reference column. The HTML page and evals/latex_table.py show the same.
"""

from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from evals.published import Count, Printed
from evals.results import Cell, Comparison, Table, ranks
from pages.page import render

PAIRED = "Paired differences on the same problems, in percentage points, with an exact test:"
PAIRS = "Every pair of columns: column minus row in points (problems gained : lost), p"


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


# --- texts ---


def percent(x: float) -> str:
    return f"{100 * x:.1f}"


def signed(text: str) -> str:
    """Give a number's text its sign, a true minus."""
    return "−" + text[1:] if text.startswith("-") else "+" + text


def points(difference: float) -> str:
    return signed(percent(difference))


def span(interval: tuple[float, float]) -> str:
    return f"[{percent(interval[0])}, {percent(interval[1])}]"


def p_value(p: float) -> str:
    return "p < .001" if p < 0.001 else "p = 1" if p >= 0.9995 else f"p = {p:.3f}".replace("0.", ".", 1)


def value_text(cell: Cell | Count | Printed) -> str:
    return f"{percent(cell.accuracy)} %" if isinstance(cell, Cell) else str(cell.value)


def basis_text(cell: Cell | Count | Printed) -> str:
    """Say what the value stands on: 60/96 [52.5, 71.5]; for a printed accuracy at one response a problem, ≈ where
    several k round to it."""
    if isinstance(cell, Count):
        return f"{percent(cell.accuracy)} % of {cell.n} {span(cell.interval)}"
    if isinstance(cell, Cell):
        return f"{cell.k}/{cell.n} {span(cell.interval)}" + (f" avg@{cell.samples}" if cell.samples > 1 else "")
    if cell.k is None:
        return f"no k/{cell.n} †"
    return f"{'≈' if len(cell.ks) > 1 else ''}{cell.k}/{cell.n} {span(cell.interval)}"


def cell_text(cell: Cell) -> str:
    basis, interval = basis_text(cell).split(" [")
    return f"{value_text(cell)} ({basis}) [{interval}"


def per_run_text(cell: Cell | Count) -> list[str]:
    """Give the single seeds of a cell as one line; no line for one run."""
    several = isinstance(cell, Cell) and len(cell.runs) > 1
    return ["seeds " + " · ".join(percent(x) for x in cell.per_run)] if several else []


def difference_text(cell: Cell | Count, printed: Printed | Count) -> str:
    """Give measured minus published: points, or chains for a count."""
    if isinstance(cell, Count):
        return signed(str(cell.value - printed.value))
    return points(cell.accuracy - printed.accuracy)


def change_text(c: Comparison) -> str:
    return points(c.difference) if abs(c.difference) >= 0.0005 else "+0.0"  # no −0.0


def comparison_text(c: Comparison) -> str:
    return f"{c.column} − {c.reference}: {change_text(c)} ({c.gained} gained, {c.lost} lost, {p_value(c.p)})"


def status_text(cell: Cell) -> str:
    return ", ".join(f"{count} {status.replace('_', ' ')}" for status, count in cell.statuses.items())


def sample_text(cell: Cell) -> str:
    """Give pass@k for some k, and maj@n; empty for one sample."""
    n = cell.samples
    parts = [f"pass@{k} {percent(cell.pass_at(k))}" for k in sorted({4, 16, 64, n}) if 1 < k <= n]
    return " · ".join(parts + ([f"maj@{n} {percent(cell.majority)}"] if n > 1 and cell.majority is not None else []))


# --- grids ---


def layout(table: Table, entry: Callable[[str, str], Entry]) -> Grid:
    """Make a Grid of entry(row, column) in the table's own layout: the paper's, if it is one of the paper's."""
    paper = table.published
    if paper is None:
        return Grid([["", *table.columns]], [(row, [entry(row, c) for c in table.columns]) for row in table.rows])
    if paper.transposed:
        heads = [[paper.corner, *paper.benchmarks.values()]]
        return Grid(heads, [(column, [entry(row, column) for row in table.rows]) for column in table.columns])
    heads = [[paper.corner, *(paper.heads or paper.columns)]] + ([list(paper.second)] if paper.second else [])
    return Grid(heads, [(paper.benchmarks[row], [entry(row, c) for c in table.columns]) for row in table.rows])


def printed_grid(table: Table) -> Grid:
    """Lay out the paper's table as the paper prints it."""
    best = ranking(table, table.printed)
    return layout(table, lambda *place: Entry([value_text(table.printed[place])], best.get(place, 0)))


def measured_grid(table: Table) -> Grid:
    """Lay out what was measured beside what is printed; where nothing was, what is printed as k of N."""
    best = ranking(table, table.cells)
    bars = interval_bars(table, {"": table.cells, "theirs": table.printed})

    def entry(row, column):
        cell, there = table.cells.get((row, column)), table.printed.get((row, column))
        if not table.published:
            lines = [cell_text(cell), *per_run_text(cell)] if cell else ["–"]
        elif there and not table.cells:
            lines = [value_text(there), basis_text(there)]
        else:
            lines = [value_text(cell), basis_text(cell), *per_run_text(cell)] if cell else ["–"]
            if there:
                change = f" ({difference_text(cell, there)})" if cell else ""
                lines += [f"paper {there.value}{change}", basis_text(there)]
            if c := table.comparison(row, column):
                lines.append(f"{change_text(c)} on {c.reference}, {p_value(c.p)}")
        return Entry(lines, best.get((row, column), 0), bars.get((row, column), ()))

    return layout(table, entry)


def ranking(table: Table, cells: dict) -> dict[tuple[str, str], int]:
    """Return {(row, column): 1 for the row's best accuracy, 2 for its second}, ties included; the paper's bold and
    underlined. Nothing for counts."""
    best = {}
    for row in () if table.counts else table.rows:
        scores = {column: cells[row, column].accuracy for column in table.columns if (row, column) in cells}
        best |= {(row, column): rank for column, rank in ranks(scores).items()}
    return best


def interval_bars(table: Table, sources: dict[str, dict]) -> dict[tuple[str, str], list]:
    """{(row, column): bars of an Entry}. sources: {kind: {(row, column): cell}}."""
    bars = {}
    for row in table.rows:
        places = [(row, column) for column in table.columns]
        found = [
            (place, kind, *cells[place].interval, cells[place].accuracy)
            for kind, cells in sources.items()
            for place in places
            if place in cells and cells[place].interval
        ]
        low = min((start for _, _, start, _, _ in found), default=0)
        unit = 100 / (max((end for _, _, _, end, _ in found), default=1) - low)
        for place, kind, start, end, value in found:
            bars.setdefault(place, []).append((kind, *(unit * (x - low) for x in (start, value, end))))
    return bars


def grids(table: Table) -> list[tuple[str, Grid]]:
    """Return [(heading, Grid)]: the paper's table as printed, if there is one; then what was measured."""
    if not table.printed:
        return [("Measured" if table.published else "", measured_grid(table))]
    heading = "Measured, and the paper's" if table.cells else "k of N"
    return [("", printed_grid(table)), (heading, measured_grid(table))]


def pair_grids(table: Table) -> list[Grid]:
    """Make a Grid a row of the table: every pair of its columns. Empty if the list of comparisons says it all."""
    if not table.published and len(table.pairs) <= len(table.comparisons()):
        return []
    found = []
    for row in table.rows:
        columns = [column for column in table.columns if any(p[0] == row and column in p[1:] for p in table.pairs)]
        lines = [
            (earlier, [_pair(table.pairs.get((row, later, earlier))) for later in columns[1:]])
            for earlier in columns[:-1]
        ]
        if lines:
            found.append(Grid([[row, *columns[1:]]], lines))
    return found


def _pair(c):
    if c is None:
        return Entry([""])
    return Entry(
        [
            f"{change_text(c)} ({c.gained} : {c.lost})",
            p_value(c.p) + (" *" if c.holm is not None and c.holm < 0.05 else ""),
        ]
    )


def answer_rows(table: Table) -> list[list[str]]:
    """List what became of the answers: a heading line, then one line a measured cell."""
    shares = {"truncated": "truncated", "no_answer": "no answer", "timeout": "grader timeout", "error": "grader error"}
    rows = [["", "column", "answers", *shares.values(), "tokens a response", ""]]
    for row in table.rows:
        for column in table.columns:
            cell = table.cells.get((row, column))
            if isinstance(cell, Cell):
                counts = [cell.statuses.get(kind, 0) for kind in shares]
                kinds = [f"{percent(count / cell.n)} %" for count in counts]
                rows.append([row, column, status_text(cell), *kinds, f"{cell.mean_tokens:.0f}", sample_text(cell)])
    return [line if any(line[-1] for line in rows) else line[:-1] for line in rows] if len(rows) > 1 else []


def notes(table: Table) -> list[str]:
    """Return the table's own notes, and what a reader must know of the printed numbers and of the tests."""
    lines = list(table.notes)
    if not table.printed:
        lines.append("Bold: best of the row; underlined: second.")
    if table.counts:
        lines.append("Printed counts are of 500 responses (MATH-500); brackets: 95 % Wilson interval of the share.")
    elif table.printed:
        lines.append(
            "Bold: best of a benchmark; underlined: second, ties included (the rule of Table 2's caption: the paper's "
            "text shows no type faces). Brackets of printed numbers: the 95 % Wilson interval of k of N, one response "
            "a problem; ≈: more than one k rounds to it."
        )
        odd = [(place, p) for place, p in table.printed.items() if p.note]
        lines += [f"† {row}, {column} cannot be k/{p.n}: {p.note}." for (row, column), p in odd]
    elif table.published:
        lines.append(
            f"The paper's text has no numbers for {table.published.number}, nor says what its bars are: the columns "
            f"are chosen here, and only what was measured is drawn."
        )
    if table.pairs:
        family = [c.holm for c in table.pairs.values() if c.holm is not None]
        lines.append(
            f"p: exact paired test over problems (one response each: McNemar's; several: sign flips), not corrected. "
            f"Pairs of columns tested in this table: {len(family)}; below .05 after Holm's correction: "
            f"{sum(p < 0.05 for p in family)} (*)."
        )
        if parts := len(table.pairs) - len(family):
            lines[-1] += f" The {parts} of parts of a benchmark hold its problems again: they are not among these."
    return lines


# --- Markdown ---


def markdown(tables: list[Table], speeds: dict[str, str]) -> str:
    """Write all tables as one Markdown text. speeds: {model's path: "496 tokens/s"} of what was generated here."""
    speed = "; ".join(f"{name} {text}" for name, text in speeds.items())
    return "\n".join(map(_markdown_table, tables)) + (f"\nGenerated: {speed}\n" if speed else "")


def shown(table: Table) -> dict:
    """Return the parts of a table as Markdown and HTML show them, in order."""
    return {
        "name": table.name,
        "title": table.title,
        "grids": grids(table),
        # the paper's layout has them in its cells
        "comparisons": [] if table.published else [(c, comparison_text(c)) for c in table.comparisons()],
        "pairs": pair_grids(table),
        "answers": answer_rows(table),
        "notes": notes(table),
    }


def _markdown_table(table):
    part = shown(table)
    lines = [f"## {part['title']}", ""]
    for heading, grid in part["grids"]:
        lines += ([f"### {heading}", ""] if heading else []) + [*markdown_grid(grid), ""]
    if part["comparisons"]:
        lines += [PAIRED, "", *(f"- {test.row}: {text}" for test, text in part["comparisons"]), ""]
    if part["pairs"]:
        lines += [f"<details><summary>{PAIRS}</summary>", ""]
        lines += [line for grid in part["pairs"] for line in (*markdown_grid(grid), "")] + ["</details>", ""]
    if part["answers"]:
        lines += [*markdown_rows(part["answers"]), ""]
    return "\n".join([*lines, *(f"> {note}  " for note in part["notes"]), ""])


def markdown_grid(grid: Grid) -> list[str]:
    marks = {1: "**{}**", 2: "<u>{}</u>"}
    body = [[row, *("<br>".join([marks.get(e.rank, "{}").format(e.lines[0]), *e.lines[1:]]) for e in entries)]
            for row, entries in grid.rows]  # fmt: skip
    return markdown_rows([*grid.heads, *body])


def markdown_rows(rows: list[list[str]]) -> list[str]:
    """Return the lines of a table. rows: lists of text, the head first."""
    escaped = [[cell.replace("|", r"\|") for cell in row] for row in rows]  # a name may hold one
    head, *body = ["| " + " | ".join(row) + " |" for row in escaped]
    return [head, "| " + " | ".join(["---"] * len(rows[0])) + " |", *body]


# --- HTML ---


def webpage(title: str, tables: list[Table], speeds: dict[str, str], charts: list[str]) -> str:
    """All tables as one HTML page (pages/table.html). speeds: as in `markdown`. charts: an SVG for each table."""
    parts = [shown(table) | {"chart": Markup(chart)} for table, chart in zip(tables, charts, strict=True)]
    return render("table.html", title=title, tables=parts, speeds=speeds, paired=PAIRED, pairs=PAIRS)
