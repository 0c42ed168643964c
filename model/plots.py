"""The curves of a run as one page, from its metrics.jsonl alone.

    python -m model.plots out/run        writes out/run/plots.png, also during the run

Held-out values are dashed. For preference runs one colour a gap.
"""

import json
import sys
from collections import defaultdict
from pathlib import Path

from data.records import GAPS
from errors import UserError

# of Okabe and Ito's colours: told apart with any colour vision
COLOURS = {"": "#333333"} | dict(zip((f"{gap}/" for gap in GAPS), ("#0072B2", "#E69F00", "#009E73"), strict=True))
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


def plot_run(metrics_path: str | Path, png_path: str | Path) -> None:
    """Draw what the metrics of a run of train_sft.py or train_cogpo.py hold; one step is enough.

    Raises UserError if the file is missing or holds no step.
    """
    import matplotlib

    matplotlib.use("Agg")  # no display needed
    import matplotlib.pyplot as plt

    # a panel for every metric of the list that the run has
    curves = read_curves(metrics_path)
    shown = [name for name in PANELS if any(prefix + name in curves for prefix in COLOURS)]
    rows = -(-len(shown) // 4)
    figure, grid = plt.subplots(rows, 4, figsize=(16, 2.8 * rows + 0.5), layout="constrained", squeeze=False)
    for axis, name in zip(grid.flat, shown, strict=False):
        axis.set_title(PANELS[name], fontsize=10, loc="left")
        for prefix, colour in COLOURS.items():
            # training values; held-out ones of the same name beside them
            gap = prefix.removesuffix("/")
            trained, held_out = gap or "training", f"{gap}, held out" if gap else "held out"
            for key, style, label in ((prefix + name, "-", trained), (f"eval/{prefix}{name}", "--o", held_out)):
                if key in curves:
                    steps, values = curves[key]
                    style = "." if len(steps) == 1 else style
                    axis.plot(steps, values, style, color=colour, label=label, markersize=4, linewidth=1.8)
        axis.grid(alpha=0.25)
        if len(axis.lines) > 1:
            axis.legend(fontsize=7, frameon=False)
    for axis in grid.flat[len(shown) :]:
        axis.set_axis_off()
    figure.suptitle(f"{Path(metrics_path).resolve().parent.name}: over optimizer steps", fontsize=11)
    figure.savefig(png_path, dpi=110)
    plt.close(figure)


def read_curves(metrics_path: str | Path) -> dict[str, tuple[list[int], list[float]]]:
    """Read {name: (steps, values)}, without what was not finite (null in the file) and a line still being written.

    Raises UserError if the file is missing or holds no step.
    """
    path, curves = Path(metrics_path), defaultdict(lambda: ([], []))
    if not path.is_file():
        raise UserError(f"no such file: {path}")
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            values = json.loads(line)
            step = values.pop("step")
            for name, value in values.items():
                if value is not None:
                    curves[name][0].append(step)
                    curves[name][1].append(value)
    if "loss" not in curves:
        raise UserError(f"{path} holds no step yet")
    return dict(curves)


def main(argv: list[str]) -> int:
    if len(argv) != 1 or argv[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if argv and argv[0] in ("-h", "--help") else 2
    try:
        plot_run(Path(argv[0], "metrics.jsonl"), Path(argv[0], "plots.png"))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(Path(argv[0], "plots.png"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
