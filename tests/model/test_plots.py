"""plots.png from metrics.jsonl alone: what is read, what is drawn, and in which colour."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import matplotlib.image
import numpy as np
import pytest

from errors import UserError
from model.plots import COLOURS, plot_run, read_curves

ROOT = Path(__file__).parent.parent.parent


def line(step, gaps=("small", "medium", "large"), loss=0.7):
    """What train_cogpo.py logs; a β of 0 switches the small gap off."""
    out = {"step": step, "loss": loss, "lr": 1e-6, "grad_norm": 1.0, "tokens_per_second": 1000.0, "memory_gib": 2.0}
    for gap, beta in zip(("small", "medium", "large"), (0.0, 0.2, 0.5), strict=True):
        if gap in gaps:
            values = {"loss": 0.6, "margin": 5 * step * beta, "accuracy": 1.0, "beta": beta, "chosen_logp": -9.0 - step}
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


def test_what_was_not_finite_and_an_unfinished_line_are_left_out(tmp_path):
    path = write(tmp_path / "metrics.jsonl", [line(0), line(1) | {"grad_norm": None}, {"step": 2, "eval/loss": 0.5}])
    with path.open("a") as file:
        file.write('{"step": 2, "lo')
    curves = read_curves(path)
    assert curves["loss"] == ([0, 1], [0.7, 0.7]) and curves["grad_norm"] == ([0], [1.0])
    assert curves["eval/loss"] == ([2], [0.5])


def test_one_colour_a_gap_and_only_for_gaps_that_are_there(tmp_path):
    lines = [line(step, gaps=("small", "large")) for step in range(50)]
    plot_run(write(tmp_path / "metrics.jsonl", lines), tmp_path / "a.png")
    held_out = {f"eval/{name}": value for name, value in line(50, gaps=("medium",)).items() if name != "step"}
    both = [lines[0] | held_out, *lines[1:], {"step": 50} | held_out]
    plot_run(write(tmp_path / "metrics.jsonl", both), tmp_path / "b.png")
    for gap in ("small/", "large/"):
        assert pixels(tmp_path / "a.png", COLOURS[gap]) > 500
    assert pixels(tmp_path / "a.png", COLOURS["medium/"]) == 0 < 50 < pixels(tmp_path / "b.png", COLOURS["medium/"])


def test_one_step_of_sft(tmp_path):
    plot_run(write(tmp_path / "metrics.jsonl", [line(0, gaps=[], loss=1.5)]), tmp_path / "plots.png")
    assert pixels(tmp_path / "plots.png", COLOURS[""]) > 50  # a dot in each of five panels


def test_command_line(tmp_path):
    def plot(*words):
        words = [sys.executable, "-m", "model.plots", *map(str, words)]
        return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)

    assert plot(tmp_path).stderr == f"error: no such file: {tmp_path}/metrics.jsonl\n"
    write(tmp_path / "metrics.jsonl", [])
    with pytest.raises(UserError, match="holds no step"):
        read_curves(tmp_path / "metrics.jsonl")
    write(tmp_path / "metrics.jsonl", [line(0), line(1)])
    done = plot(tmp_path)
    assert done.returncode == 0 and (tmp_path / "plots.png").exists(), done.stderr
    assert plot().returncode == 2


def test_runs_to_compare_with_stand_behind_it_and_the_page_may_be_dark(tmp_path):
    for name, loss in (("a", 0.7), ("b", 0.1)):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "metrics.jsonl", [line(step, gaps=[], loss=loss) for step in range(20)])
    alone, both = tmp_path / "alone.png", tmp_path / "both.png"
    plot_run(tmp_path / "a/metrics.jsonl", alone)
    plot_run(tmp_path / "a/metrics.jsonl", both, [tmp_path / "b/metrics.jsonl"])
    one, two = (matplotlib.image.imread(png) for png in (alone, both))
    assert (one[..., 3] == 0).mean() > 0.8 and one[0, 0, 3] == 0  # nothing white behind the curves
    pale = [int(((image[..., 3] > 0.43) & (image[..., 3] < 0.47)).sum()) for image in (one, two)]
    assert pale[1] > 1.5 * pale[0]  # at the edges of a full line too


@pytest.mark.parametrize("damage", ["{]", "7", '{"loss": 1}'])
def test_a_damaged_line_is_named(tmp_path, damage):
    path = write(tmp_path / "metrics.jsonl", [line(0)])
    path.write_text(path.read_text() + damage + "\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl:2 is damaged; delete that line"):
        read_curves(path)
