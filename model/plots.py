"""The curves of a run as one picture, from its metrics.jsonl alone.

    python -m model.plots out/run        writes out/run/plots.png, also while the run goes on

Training values are drawn faint as they are and firm as a running mean; held-out values are dashed. For preference runs
one colour a gap.
"""

import argparse
import json
import math
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from data.records import GAPS
from errors import UserError

# of Okabe and Ito's colours: told apart with any colour vision
COLOURS = {"": "#333333"} | dict(zip((f"{gap}/" for gap in GAPS), ("#0072B2", "#E69F00", "#009E73"), strict=True))
FROM_ZERO = ("grad_norm", "tokens_per_second", "memory_gib")  # small jitter should look small


def plot_run(metrics_path, png_path):
    """Draw what the metrics of a run of train_sft.py or train_cogpo.py hold; one step is enough.

    Raises UserError if the file is missing or holds no step.
    """
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    curves = read_curves(metrics_path)
    shown = [(name, title) for name, title in panels(curves) if any(p + name in curves for p in COLOURS)]
    columns = 4 if len(shown) > 6 else 3
    rows = math.ceil(len(shown) / columns)
    size = (4 * columns, 2.6 * rows + 0.8)
    figure, grid = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False, sharex=True)
    for axis, (name, title) in zip(grid.flat, shown, strict=False):
        axis.set_title(title, fontsize=10, loc="left")
        for prefix, colour in COLOURS.items():
            draw(axis, colour, curves.get(prefix + name), curves.get(f"eval/{prefix}{name}"), smooth=name != "lr")
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8, labelbottom=True)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, steps=[1, 2, 5, 10]))
        if name == "accuracy":
            axis.set_ylim(-0.03, 1.03)
        if name == "lr":
            axis.yaxis.set_major_formatter("{x:.2g}")
        if name in FROM_ZERO:
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter("{x:,g}")
    for axis in grid.flat[len(shown) :]:
        axis.set_axis_off()

    gaps = [p for p in COLOURS if p and p + "loss" in curves]
    lines = [Line2D([], [], color=COLOURS[p], label=f"{p[:-1]} gap") for p in gaps]
    lines += [Line2D([], [], color=COLOURS[""], label="all")] if gaps else []
    if any(name.startswith("eval/") for name in curves):
        lines += [Line2D([], [], color=COLOURS[""], linestyle="--", marker="o", markersize=3, label="held-out")]
    if lines:
        figure.legend(handles=lines, loc="outside lower center", ncols=len(lines), frameon=False, fontsize=10)
    figure.suptitle(f"{Path(metrics_path).resolve().parent.name}: over optimizer steps", fontsize=11)
    figure.savefig(png_path, dpi=110)
    plt.close(figure)


def panels(curves):
    """(name, title) of every panel a run can have, in reading order."""
    # a run with a reference starts at ln 2, where train_cogpo.py would have stopped it otherwise
    has_reference = abs(curves["loss"][1][0] - math.log(2)) < 1e-3
    logps = "log-prob change (nats)" if has_reference else "log-prob a token (nats)"
    mfu = f" (MFU {np.median(curves['mfu'][1]):.0%})" if "mfu" in curves else ""
    return [
        ("loss", "loss (nats)"),
        ("margin", "margin (nats)"),
        ("accuracy", "accuracy (share with margin > 0)"),
        ("beta", "β used, mean"),
        ("chosen_over_beta", f"chosen: {logps}"),
        ("rejected_over_beta", f"rejected: {logps}"),
        ("chosen_reward", "chosen: reward (nats)"),
        ("rejected_reward", "rejected: reward (nats)"),
        ("grad_norm", "gradient norm before clipping"),
        ("lr", "learning rate"),
        ("tokens_per_second", "tokens/s, all ranks" + mfu),
        ("memory_gib", "peak memory, fullest rank (GiB)"),
    ]


def read_curves(metrics_path):
    """{name: (steps, values)} as arrays, without what was not finite (null in the file).

    Adds reward / β: what the response's log-prob gained on the reference since step 0 (with SimPO, which has no
    reference, its mean log-prob a token). Over the pairs of a gap it is weighted by β where β-DPO varies it.
    """
    path = Path(metrics_path)
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    points = defaultdict(list)
    for line in path.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            break  # the run is writing it
        values = json.loads(line)
        step = values.pop("step")
        for key in [k for k in values if k.endswith("_reward")]:
            gap, side = key.removesuffix("_reward").rsplit("/", 1)
            if values[key] is not None and values[f"{gap}/beta"]:  # β = 0 switches a gap off: it has no reward
                values[f"{gap}/{side}_over_beta"] = values[key] / values[f"{gap}/beta"]
        for name, value in values.items():
            if value is not None:
                points[name].append((step, value))
    if "loss" not in points:
        raise UserError(f"{path} holds no step yet")
    return {name: np.array(pairs).T for name, pairs in points.items()}


def draw(axis, colour, training, held_out, smooth):
    """training, held_out: (steps, values), or None."""
    if training is not None:
        steps, values = training
        window = max(1, len(steps) // 40) if smooth else 1
        if window > 1:
            axis.plot(steps, values, color=colour, alpha=0.22, linewidth=0.7)
        weights = np.convolve(np.ones(len(steps)), np.ones(window), "same")
        means = np.convolve(values, np.ones(window), "same") / weights
        axis.plot(steps, means, color=colour, linewidth=1.4, marker="." if len(steps) < 3 else None)
    if held_out is not None:
        axis.plot(*held_out, color=colour, linestyle="--", marker="o", markersize=3, linewidth=1.2)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="output folder of a run of train_sft.py or train_cogpo.py")
    out = parser.parse_args(argv).out
    try:
        plot_run(out / "metrics.jsonl", out / "plots.png")
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(out / "plots.png")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
