"""Charts with 95 % intervals: tables of the paper as points, measured beside printed; all others as bars."""

import io

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from evals.results import Table

# Okabe and Ito's colours: told apart with any colour vision, and in print
COLOURS = ["#999999", "#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00", "#0072B2", "#000000"]
INK, OURS, THEIRS = "#333333", "#0072B2", "#D55E00"
PER_LINE = 4


def chart(table: Table) -> bytes:
    """Draw a table as a PNG."""
    figure = _points(table) if table.printed else _bars(table)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


def _points(table):
    """One panel a benchmark, one line a column: measured filled, printed hollow. Each panel has its own scale, as the
    steps within a benchmark are small beside the distance between benchmarks."""
    rows, columns, printed = table.rows, table.columns, table.printed
    across = min(PER_LINE, len(rows))
    down = -(-len(rows) // across)
    size = (2.2 + 2.6 * across, down * (0.95 + 0.33 * len(columns)) + 0.45)
    figure, panels = plt.subplots(down, across, figsize=size, sharey=True, squeeze=False, layout="constrained")
    for panel in panels.flat[len(rows) :]:
        panel.set_axis_off()
    series = [("printed", printed, -0.15 if table.cells else 0, {"color": THEIRS, "mfc": "white"})]
    series += [("measured", table.cells, 0.15, {"color": OURS})] if table.cells else []
    for row, panel in zip(rows, panels.flat, strict=False):
        for label, cells, lift, style in series:
            shown = [(place, cells[row, column]) for place, column in enumerate(columns) if (row, column) in cells]
            reach = _reach([cell for _, cell in shown])
            spots = [100 * cell.accuracy for _, cell in shown], [place + lift for place, _ in shown]
            panel.errorbar(*spots, xerr=reach, fmt="o", ms=5, elinewidth=1.2, capsize=2, label=label, **style)
        panel.set_title(row, fontsize=10, loc="left")
        panel.set_yticks(range(len(columns)), columns, fontsize=9)
        panel.set_ylim(len(columns) - 0.4, -0.6)
        panel.tick_params(axis="x", labelsize=8)
        panel.tick_params(axis="y", length=0)
        panel.grid(axis="x", color="#e3e7eb")
        panel.set_axisbelow(True)
        panel.spines[["top", "right", "left"]].set_visible(False)
    unit = "share of the chains (%)" if table.counts else "accuracy (%)"
    figure.supxlabel(f"{unit}, with 95 % intervals", fontsize=9)
    handles, labels = panels.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, fontsize=9)
    return figure


def _reach(cells):
    """How far the intervals go below and above the values, in points, [2][cells]; nowhere for one without."""
    ends = [(cell.accuracy, *(cell.interval or (cell.accuracy, cell.accuracy))) for cell in cells]
    return [100 * max(0.0, x - low) for x, low, _ in ends], [100 * max(0.0, high - x) for x, _, high in ends]


def _bars(table):
    """One group of bars a row, one colour a column."""
    columns, rows = table.columns, table.rows
    width = 0.8 / len(columns)
    # The bars of a single row are labelled below; several rows need a legend.
    single = len(rows) == 1
    wide = min(max(5.0, 0.55 * len(rows) * len(columns) + 1.5), 16.0)
    figure, axes = plt.subplots(figsize=(wide, 3.8), layout="constrained")
    for place, column in enumerate(columns):
        shown = [(index, table.cells[row, column]) for index, row in enumerate(rows) if (row, column) in table.cells]
        spots = [index + (place - (len(columns) - 1) / 2) * width for index, _ in shown]
        heights, spans = [100 * cell.accuracy for _, cell in shown], _reach([cell for _, cell in shown])
        bars = axes.bar(spots, heights, 0.9 * width, label=column, color=COLOURS[place % len(COLOURS)])
        axes.errorbar(spots, heights, spans, fmt="none", ecolor=INK, elinewidth=1, capsize=3)
        for bar, height, above in zip(bars, heights, spans[1], strict=True):
            label = (bar.get_x() + bar.get_width() / 2, height + above)
            axes.annotate(f"{height:.1f}", label, (0, 2), textcoords="offset points", ha="center", fontsize=8)
    if not table.cells:
        axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center", color=INK)
    axes.set_ylabel("accuracy (%)")
    axes.set_ylim(0, 108)
    axes.set_yticks(range(0, 101, 20))
    axes.spines[["top", "right"]].set_visible(False)
    if single:
        places = [(place - (len(columns) - 1) / 2) * width for place in range(len(columns))]
        axes.set_xticks(places, columns)
        axes.set_xlabel(rows[0])
    else:
        axes.set_xticks(range(len(rows)), rows)
        axes.legend(frameon=False, ncols=len(columns), loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=9)
    return figure
