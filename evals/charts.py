"""Charts with 95 % intervals: a panel for each row of a table, in it a line for each column."""

import io
import re
import textwrap

import matplotlib
import numpy as np

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from evals.results import Table

# of a light page.css: in an SVG each becomes the page's own variable, so that a dark page has a dark chart
INK, LINE, OURS, THEIRS, BACK = "#1d2430", "#d9dee6", "#2f6bd8", "#c2691b", "#ffffff"
ON_PAGE = {INK: "currentColor", LINE: "var(--line)", OURS: "var(--medium)", THEIRS: "var(--hard)", BACK: "var(--card)"}
PER_LINE = 4
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "",
    "font.family": "sans-serif",
    "text.color": INK,
    "text.parse_math": False,
}
STYLE |= {f"axes.{name}color": INK for name in ("label", "edge", "title")} | {"xtick.color": INK, "ytick.color": INK}


def chart(table: Table) -> tuple[bytes, str]:
    """Draw a table as a PNG, and as an SVG to be put into a page."""
    with matplotlib.rc_context(STYLE):
        figure, png, svg = _panels(table), io.BytesIO(), io.StringIO()
        figure.savefig(png, format="png", dpi=110, metadata={"Software": None})
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
        plt.close(figure)
    drawn = svg.getvalue()
    for colour, variable in ON_PAGE.items():
        drawn = drawn.replace(colour, variable)
    # inside a page the drawing has no header, and neither a style sheet nor a size of its own
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    return png.getvalue(), drawn


def _panels(table):
    """Measured filled, printed hollow. Each panel has its own scale, as the steps within a benchmark are small beside
    the distance between benchmarks."""
    # inches: room for the names at the left, for each line, for the title and the scale of each panel; four panels
    # are as wide as the page
    names = [textwrap.fill(column, 30) for column in table.columns]
    left = 0.3 + 0.085 * max(len(line) for name in names for line in name.splitlines())
    across = max(1, min(PER_LINE, len(table.rows)))
    down = max(1, -(-len(table.rows) // across))
    line = 0.14 * max(2 + name.count("\n") for name in names)
    width = left + across * min(2.7, (12.8 - left) / across)
    height = down * (0.75 + line * len(names)) + 0.75
    figure, panels = plt.subplots(down, across, figsize=(width, height), sharey=True, squeeze=False)
    inside = {"left": left / width, "right": 1 - 0.2 / width, "bottom": 0.55 / height, "top": 1 - 0.65 / height}
    figure.subplots_adjust(**inside, wspace=0.12, hspace=0.75 / (line * len(names)))
    for panel in panels.flat[len(table.rows) :]:
        panel.set_axis_off()
    both = bool(table.printed and table.cells)
    series = [("printed", table.printed, -0.15 * both, {"color": THEIRS, "mfc": BACK})]
    series += [("measured", table.cells, 0.15 * both, {"color": OURS})]
    series = [one for one in series if one[1]]
    for row, panel in zip(table.rows, panels.flat, strict=False):
        for label, cells, lift, style in series:
            shown = [(at + lift, cells[row, c]) for at, c in enumerate(table.columns) if (row, c) in cells]
            values = np.array([cell.accuracy for _, cell in shown])
            # an accuracy without an interval has nothing around it
            ends = np.array([cell.interval or (cell.accuracy, cell.accuracy) for _, cell in shown]).reshape(-1, 2).T
            reach = 100 * np.maximum(0, [values - ends[0], ends[1] - values])
            spots = 100 * values, [place for place, _ in shown]
            panel.errorbar(*spots, xerr=reach, fmt="o", ms=5, elinewidth=1.2, capsize=2, label=label, **style)
        panel.set_title(textwrap.fill(row, 34), fontsize=9, loc="left")
        panel.set_yticks(range(len(names)), names, fontsize=9)
        panel.set_ylim(len(names) - 0.4, -0.6)
        panel.tick_params(axis="x", labelsize=8)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", color=LINE)
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
    unit = "share of the chains (%)" if table.counts else "accuracy (%)"
    said = f"{unit}, with 95 % intervals" if series else "nothing measured yet"
    figure.text(left / width, 0.12 / height, said, fontsize=9)
    if len(series) > 1:
        handles, labels = panels.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper right", ncols=2, frameon=False, fontsize=9)
    return figure
