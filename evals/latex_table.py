r"""The tables as LaTeX, to \input where booktabs and graphicx are in use. A table too wide for its page is scaled."""

import re

from evals.results import Table
from evals.tables import grids, notes

SPECIAL = {c: "\\" + c for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
SPECIAL |= {"\\": r"\textbackslash{}", "−": "$-$", "–": "--", "≈": r"$\approx$", "·": r"$\cdot$", "†": r"$^\dagger$"}
SPECIAL |= {"α": r"$\alpha$", "β": r"$\beta$", "γ": r"$\gamma$", "<": "$<$", ">": "$>$", "|": "$|$", "×": r"$\times$"}
MARKS = {1: r"\textbf{%s}", 2: r"\underline{%s}"}


def escape(text: str) -> str:
    return re.sub("|".join(map(re.escape, SPECIAL)), lambda match: SPECIAL[match.group()], text)


def latex(tables: list[Table]) -> str:
    """Write all tables as one LaTeX text."""
    return "\n".join(_float(table, heading, grid) for table in tables for heading, grid in grids(table))


def _float(table, heading, grid):
    title = table.title.removeprefix(f"{table.published.number}: " if table.published else "")  # LaTeX counts itself
    caption = escape(f"{title} {heading}." if heading else title)
    heads = [" & ".join(map(escape, line)) + r" \\" for line in grid.heads]
    rules = [*heads, r"\midrule", *(line for row, entries in grid.rows for line in _row(row, entries))]
    return "\n".join(
        [
            r"\begin{table*}[t]",
            r"\centering\small\setlength{\tabcolsep}{4pt}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'c' * (len(grid.heads[0]) - 1)}}}",
            r"\toprule",
            *rules,
            r"\bottomrule",
            r"\end{tabular}}",
            rf"\caption{{{caption}}}",
            *(rf"\par\footnotesize {escape(note)}" for note in notes(table) if heading),
            r"\end{table*}",
            "",
        ]
    )


def _row(label, entries):
    """One line of the tabular for each line of the cells; the further ones are small."""
    lines = [[escape(label), *(MARKS.get(e.rank, "%s") % escape(e.lines[0]) for e in entries)]]
    for i in range(1, max(len(e.lines) for e in entries)):
        small = (rf"\scriptsize {escape(e.lines[i])}" if i < len(e.lines) else "" for e in entries)
        lines.append(["", *small])
    texts = [" & ".join(line) + r" \\" for line in lines]
    return [*texts, r"\addlinespace"] if len(texts) > 1 else texts
