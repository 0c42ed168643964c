"""The curves of a run as one page, from its metrics.jsonl alone; readable on white and on black.

    python -m model.plots out/run              writes out/run/plots.png, also during the run
    python -m model.plots out/run out/other    the same with the curves of other runs behind it, paler

Held-out values are dashed. For preference runs one colour a gap.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from config import run_main
from data.records import GAPS
from errors import UserError

INK = "#7f858e"  # as far from white as from black: the background is transparent
# of Okabe and Ito's colours: told apart with any colour vision
COLOURS = {"": INK} | dict(zip((f"{gap}/" for gap in GAPS), ("#0072B2", "#E69F00", "#009E73"), strict=True))
INKED = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color")
PANELS = {  # metric: its title
    "loss": "loss (nats)",
    "margin": "margin β (Δ_w − Δ_l) (nats)",
    "accuracy": "share of pairs with margin > 0",
    "beta": "β, mean over pairs",
    "chosen_logp": "log-prob of chosen responses (nats)",
    "rejected_logp": "log-prob of rejected responses (nats)",
    "chosen_reward": "reward of chosen responses (nats)",
    "rejected_reward": "reward of rejected responses (nats)",
    "chosen_grad": "gradient norm through chosen responses",
    "rejected_grad": "gradient norm through rejected responses",
    "grad_norm": "gradient norm before clipping",
    "lr": "learning rate",
    "tokens_per_second": "tokens/s, all ranks",
    "memory_gib": "peak memory, fullest rank (GiB)",
}


def plot_run(metrics_path: str | Path, png_path: str | Path, others: Sequence[str | Path] = ()) -> None:
    """Draw what the metrics of a run of train_sft.py or train_cogpo.py hold; one step is enough. others: metrics of
    runs to compare it with, each paler than the one before.

    Raises UserError if a file is missing or holds no step.
    """
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    import matplotlib.pyplot as plt

    # a panel for every metric of the list that a run has
    runs = {Path(path).resolve().parent: read_curves(path) for path in (metrics_path, *others)}
    shown = [name for name in PANELS if any(prefix + name in run for run in runs.values() for prefix in COLOURS)]
    rows = -(-len(shown) // 4)
    plt.rcParams |= dict.fromkeys(INKED, INK) | {"text.parse_math": False}  # a folder's name may hold dollars
    figure, grid = plt.subplots(rows, 4, figsize=(16, 2.8 * rows + 0.5), layout="constrained", squeeze=False)
    for axis, name in zip(grid.flat, shown, strict=False):
        axis.set_title(PANELS[name], fontsize=10, loc="left")
        for (number, (run, curves)), (prefix, colour) in product(enumerate(runs.items()), COLOURS.items()):
            # training values; held-out ones of the same name beside them
            gap, whose = prefix.removesuffix("/"), f"{run.name}: " if len(runs) > 1 else ""
            trained, held_out = gap or "training", f"{gap}, held out" if gap else "held out"
            look = {"color": colour, "alpha": 0.45**number, "zorder": 3 - number, "markersize": 4, "linewidth": 1.8}
            for key, style, label in ((prefix + name, "-", trained), (f"eval/{prefix}{name}", "--o", held_out)):
                if key in curves:
                    steps, values = curves[key]
                    axis.plot(steps, values, "." if len(steps) == 1 else style, label=whose + label, **look)
        axis.grid(alpha=0.25)
        if len(axis.lines) > 1:
            axis.legend(fontsize=7, frameon=False)
    for axis in grid.flat[len(shown) :]:
        axis.set_axis_off()
    figure.suptitle(f"{', '.join(run.name for run in runs)}: over optimizer steps", fontsize=11)
    figure.savefig(png_path, dpi=110, transparent=True)
    plt.close(figure)


def read_curves(metrics_path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read {name: (steps, values)}, without what was not finite (null in the file) and a line still being written.

    Raises UserError if the file is missing, holds no step, or a line is no JSON object with one.
    """
    path, curves = Path(metrics_path), defaultdict(lambda: ([], []))
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    for number, line in enumerate(path.read_text().splitlines(keepends=True), 1):
        if line.endswith("\n"):
            try:
                values = json.loads(line)
                step = values.pop("step")
            except (ValueError, KeyError, AttributeError, TypeError):
                raise UserError(f"{path}:{number} is damaged; delete that line") from None
            for name, value in values.items():
                if value is not None:
                    curves[name][0].append(step)
                    curves[name][1].append(value)
    if "loss" not in curves:
        raise UserError(f"{path} holds no step yet")
    return dict(curves)


def main(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv else 2
    first, *others = [Path(run, "metrics.jsonl") for run in argv]
    plot_run(first, Path(argv[0], "plots.png"), others)
    print(Path(argv[0], "plots.png"))
    return 0


if __name__ == "__main__":
    run_main(main, sys.argv[1:])
