"""plots.png from metrics.jsonl alone: what is read, what is drawn, and in which colour."""

import json
import math
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from errors import UserError
from model.plots import COLOURS, panels, plot_run, read_curves

ROOT = Path(__file__).parent.parent.parent
LN2 = math.log(2)


def line(step, gaps=("small", "medium", "large"), loss=LN2):
    """What train_cogpo.py logs, with the numbers of a chosen response that gained 4 `step` nats."""
    out = {"step": step, "loss": loss, "lr": 1e-6, "grad_norm": 1.0, "tokens_per_second": 1000.0, "memory_gib": 2.0}
    for gap, beta in zip(("small", "medium", "large"), (0.1, 0.2, 0.5), strict=True):
        if gap in gaps:
            values = {"loss": 0.6, "margin": 5 * step * beta, "accuracy": 1.0, "beta": beta}
            values |= {"chosen_reward": 4 * step * beta, "rejected_reward": -step * beta}
            out |= {f"{gap}/{name}": value for name, value in values.items()}
    return out


def write(path, lines):
    path.write_text("".join(json.dumps(values) + "\n" for values in lines))
    return path


def pixels(png, colour):
    """How many pixels have this colour exactly."""
    image = (matplotlib.image.imread(png)[..., :3] * 255).round()
    wanted = np.array(matplotlib.colors.to_rgb(colour)) * 255
    return int((abs(image - wanted).max(axis=-1) < 1).sum())


def test_log_prob_change_is_reward_over_beta(tmp_path):
    last = {"step": 3} | {f"eval/{k}": v for k, v in line(3).items() if k != "step"}
    curves = read_curves(write(tmp_path / "metrics.jsonl", [line(0), line(1, gaps=["large"]), line(2), last]))
    for gap in ("small", "large"):
        steps = [0, 1, 2] if gap == "large" else [0, 2]
        assert curves[f"{gap}/chosen_over_beta"].tolist() == [steps, [4 * s for s in steps]]
        assert curves[f"{gap}/rejected_over_beta"].tolist() == [steps, [-s for s in steps]]
        assert curves[f"eval/{gap}/chosen_over_beta"].tolist() == [[3], pytest.approx([12])]
    assert curves["eval/loss"][0].tolist() == [3]


def test_what_was_not_finite_and_an_unfinished_line_are_left_out(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [line(0), line(1) | {"grad_norm": None, "small/beta": None}])
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    curves = read_curves(path)
    assert curves["loss"][0].tolist() == [0, 1]
    assert curves["grad_norm"][0].tolist() == curves["small/chosen_over_beta"][0].tolist() == [0]


def test_training_and_held_out_values_are_drawn_in_the_colour_of_their_gap(tmp_path):
    lines = [line(step, gaps=["small", "large"]) for step in range(20)]
    plot_run(write(tmp_path / "a.jsonl", lines), tmp_path / "a.png")
    for step in (0, 10):
        lines[step]["eval/medium/margin"] = step
    plot_run(write(tmp_path / "b.jsonl", [*lines, {"step": 20, "eval/medium/margin": 9.0}]), tmp_path / "b.png")
    for gap in ("small/", "large/"):
        assert pixels(tmp_path / "a.png", COLOURS[gap]) > 500
    assert pixels(tmp_path / "a.png", COLOURS["medium/"]) == 0 < 50 < pixels(tmp_path / "b.png", COLOURS["medium/"])


def test_one_step_of_sft(tmp_path):
    plot_run(write(tmp_path / "metrics.jsonl", [line(0, gaps=[], loss=1.5)]), tmp_path / "plots.png")
    assert pixels(tmp_path / "plots.png", COLOURS[""]) > 100  # a dot in each of five panels; text alone has half that


def test_without_a_reference_there_is_no_change_to_speak_of(tmp_path):
    """SimPO does not start at ln 2; what its reward is of is the log-prob itself."""
    for loss, title in ((LN2, "log-prob change"), (0.8, "log-prob a token")):
        curves = read_curves(write(tmp_path / "metrics.jsonl", [line(0, loss=loss)]))
        assert title in dict(panels(curves))["chosen_over_beta"]


def test_command_line(tmp_path):
    def plot(out):
        return subprocess.run(
            [sys.executable, "-m", "model.plots", str(out)], cwd=ROOT, capture_output=True, text=True, timeout=120
        )

    assert plot(tmp_path).stderr == f"error: no such file: {tmp_path}/metrics.jsonl\n"
    write(tmp_path / "metrics.jsonl", [])
    with pytest.raises(UserError, match="holds no step"):
        read_curves(tmp_path / "metrics.jsonl")
    write(tmp_path / "metrics.jsonl", [line(0), line(1)])
    done = plot(tmp_path)
    assert done.returncode == 0 and (tmp_path / "plots.png").exists(), done.stderr
