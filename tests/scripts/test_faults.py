"""What may happen to a training run from outside, through the real scripts: kills, preemption, full disks, new config.

Each ends in one clear line and a non-zero status, loses nothing, and the same command goes on to the same weights.
"""

import math
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

import config
import train_sft
from data.records import write_jsonl
from model.checkpoint import PREEMPTED
from tests.support.scripts import (
    ROOT,
    assert_same_run,
    cogpo_words,
    command,
    fails,
    metrics,
    run,
    sft_words,
    up_to_the_export,
    weights,
)  # fmt: skip
from tests.support.tiny import pair_rows
from tests.support.warm_python import kill

LONG = {"epochs": 8, "batch__size": 4, "optim__lr": 1e-3, "checkpoint__every_steps": 3}  # 40 steps
SCRIPTS = pytest.mark.parametrize("script,words", [("train_sft.py", sft_words), ("train_cogpo.py", cogpo_words)])


@pytest.fixture(scope="module")
def undisturbed(tiny_qwen, files, tmp_path_factory):
    """A whole run of train_sft.py; beside it, in `stopped`, as it was before the export: after 39 and 40 steps."""
    out = tmp_path_factory.mktemp("undisturbed") / "sft"
    up_to_the_export("train_sft.py", sft_words(tiny_qwen, files, out, **LONG))
    assert checkpoints(out) == ["step-000039", "step-000040"]
    shutil.copytree(out, out.parent / "stopped")
    run("train_sft.py", *sft_words(tiny_qwen, files, out, **LONG))
    assert not (out / "checkpoints").exists()
    return out


def checkpoints(out):
    return sorted(p.name for p in (out / "checkpoints").iterdir())


def start_and_wait(script, words, num_lines, out, ranks=1, launch=()):
    """The process of a run of which num_lines steps are logged by now. launch: words for torchrun."""
    words = command(script, *words, ranks=ranks, launch=launch)
    process = subprocess.Popen(words, cwd=ROOT, stdout=-3, stderr=subprocess.PIPE, text=True)
    log, end = out / "metrics.jsonl", time.monotonic() + 120
    while not log.exists() or len(log.read_text().splitlines()) < num_lines:
        assert process.poll() is None and time.monotonic() < end, "the run ended before it could be disturbed"
        time.sleep(0.005)
    return process


def stderr_of(process, within=300):
    return process.communicate(timeout=within)[1]


def kill_rank_1(script, out):
    """SIGKILL to the second of two ranks that torchrun has started, `python -u script …`, of the run in `out`."""
    listed = subprocess.run(["pgrep", "-f", rf" -u {script} .*out={out} "], capture_output=True, text=True, check=True)
    ranks = listed.stdout.split()
    assert len(ranks) == 2
    subprocess.run(["kill", "-KILL", ranks[1]], check=True)


def assert_identical_runs(a, b):
    assert all(torch.equal(value, weights(b)[name]) for name, value in weights(a).items())
    rows = [[(m["step"], m["loss"], m["grad_norm"]) for m in metrics(out)] for out in (a, b)]
    assert rows[0] == rows[1]


@pytest.mark.slow
@SCRIPTS
def test_killed_and_resumed_is_bit_identical(undisturbed, tiny_qwen, files, tmp_path, script, words):
    whole, out = undisturbed, tmp_path / "killed"
    if words is cogpo_words:
        whole = tmp_path / "whole"
        run(script, *words(tiny_qwen, files, whole, **LONG))
    for num_lines in (4, 14):
        process = start_and_wait(script, words(tiny_qwen, files, out, **LONG), num_lines, out)
        kill(process)
        assert not (out / "model").exists()
    run(script, *words(tiny_qwen, files, out, **LONG))
    assert_identical_runs(whole, out)


@pytest.mark.slow
def test_sigterm_saves_and_exits_with_75(undisturbed, tiny_qwen, files, tmp_path):
    """… and the run goes on, here on two ranks."""
    out, words = tmp_path / "o", sft_words(tiny_qwen, files, tmp_path / "o", **LONG)
    process = start_and_wait("train_sft.py", words, 7, out)
    process.terminate()
    said = stderr_of(process)
    assert process.returncode == PREEMPTED == 75
    done = len(metrics(out))
    last = said.strip().splitlines()[-1]
    assert last == f"stopped by SIGTERM after step {done}; checkpoint saved; run the same command again to resume"
    assert checkpoints(out)[-1] == f"step-{done:06d}" and "Traceback" not in said
    run("train_sft.py", *words, ranks=2)
    assert_same_run(undisturbed, out)


@pytest.mark.slow
def test_two_ranks_are_stopped_then_one_of_them_killed(undisturbed, tiny_qwen, files, tmp_path):
    """SIGTERM to torchrun; SIGKILL to one rank; the rest on one rank: the same run as without all that."""
    out, words = tmp_path / "o", sft_words(tiny_qwen, files, tmp_path / "o", **LONG)
    process = start_and_wait("train_sft.py", words, 7, out, ranks=2)
    process.terminate()
    assert stderr_of(process).count("checkpoint saved; run the same command again") == 1
    done = len(metrics(out))
    assert process.returncode != 0 and checkpoints(out)[-1] == f"step-{done:06d}"

    process = start_and_wait("train_sft.py", words, done + 4, out, ranks=2)
    kill_rank_1("train_sft.py", out)
    said = stderr_of(process)
    assert process.returncode != 0
    assert "[rank0]: Traceback" not in said and "run the same command again to resume" in said
    assert not (out / "model").exists()

    run("train_sft.py", *words)
    assert_same_run(undisturbed, out)


@pytest.mark.slow
def test_torchrun_restarts_the_ranks_after_one_was_killed(undisturbed, tiny_qwen, files, tmp_path):
    """--max-restarts 1, and the same run as without the kill."""
    out, words = tmp_path / "o", sft_words(tiny_qwen, files, tmp_path / "o", **LONG)
    process = start_and_wait("train_sft.py", words, 7, out, ranks=2, launch=("--max_restarts", "1"))
    kill_rank_1("train_sft.py", out)
    said = stderr_of(process)
    assert process.returncode == 0 and "resuming after step" in said
    assert_same_run(undisturbed, out)


def test_sigterm_before_the_first_step_ends_at_once(tiny_qwen, files, tmp_path):
    write_jsonl(tmp_path / "pairs.jsonl", pair_rows(400))
    words = cogpo_words(tiny_qwen, files, tmp_path / "o", batch__max_tokens=1)
    words.append(f"data.file={tmp_path / 'pairs.jsonl'}")
    process = subprocess.Popen(command("train_cogpo.py", *words), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not any(path.stat().st_size for path in (tmp_path / "reference").glob("*.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.terminate()
    began = time.monotonic()
    said = stderr_of(process)
    assert process.returncode == PREEMPTED and time.monotonic() - began < 10
    assert said.strip().splitlines()[-1] == "stopped by SIGTERM; run the same command again to resume"
    (cache,) = (tmp_path / "reference").glob("*.jsonl")
    assert cache.read_text().count("}") > 0 and not (tmp_path / "o" / "metrics.jsonl").exists()


# a write beyond argv[1] bytes of a file fails, as it does on a full disk
SMALL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), int(sys.argv[1])))
del sys.argv[:2]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "num_bytes, target",
    [(50_000, "checkpoints/step-000040"), (130_000, "model.partial/model.safetensors")],
    ids=["save", "export"],
)
def test_a_full_disk_is_one_line_and_loses_nothing(undisturbed, tiny_qwen, files, tmp_path, num_bytes, target):
    out = tmp_path / "o"
    shutil.copytree(undisturbed.parent / "stopped", out)
    (out / "config.yaml").write_text((out / "config.yaml").read_text().replace(str(undisturbed), str(out)))
    if target.startswith("checkpoints"):
        shutil.rmtree(out / target)
    before = checkpoints(out)
    words = sft_words(tiny_qwen, files, out, **LONG)
    line = command("-c", SMALL_DISK, num_bytes, "train_sft.py", *words)
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 2 and last.startswith("error: cannot write ") and f"{target}: " in last, last
    assert "File too large" in last and "Traceback" not in done.stderr
    assert checkpoints(out) == before and not (out / "model").exists()
    run("train_sft.py", *words)
    assert_identical_runs(undisturbed, out)


@SCRIPTS
def test_what_only_shows_a_run_cannot_cost_its_model(tiny_qwen, files, tmp_path, script, words):
    """Neither curves that cannot be drawn nor events that cannot be written: one warning line each, and the model."""
    out, held = tmp_path / "o", files / ("sft.jsonl" if words is sft_words else "pairs.jsonl")
    words = words(tiny_qwen, files, out, **LONG | {"heldout__file": held, "epochs": 2})
    process = start_and_wait(script, words, 2, out)
    (out / "plots.png").mkdir()
    said = stderr_of(process)
    assert process.returncode == 0, said
    assert said.count("warning: no plots.png: IsADirectoryError") == 1 and "Traceback" not in said
    assert weights(out) and "eval/loss" in metrics(out)[-1]
    shutil.rmtree(out / "model")  # as if killed in the midst of the export
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    shutil.rmtree(out / "tensorboard")
    (out / "tensorboard").write_text("a file where a folder should be")
    said = run(script, *words).stderr
    assert said.count("warning: no TensorBoard curves: ") == 1 and "Traceback" not in said
    assert weights(out) and "eval/loss" in metrics(out)[-1]


def test_a_gap_that_is_switched_off_trains_exports_and_plots(tiny_qwen, files, tmp_path):
    out = tmp_path / "o"
    done = run("train_cogpo.py", *cogpo_words(tiny_qwen, files, out, loss__betas="[0.0,0.2,0.5]"))
    assert (out / "plots.png").is_file() and weights(out) and "warning" not in done.stderr
    rows = metrics(out)
    assert all(row["small/loss"] == pytest.approx(math.log(2)) for row in rows if "small/loss" in row)


def refused(words, monkeypatch, capsys):
    """What train_sft.py prints before it refuses, run inside this process."""
    monkeypatch.setattr(sys, "argv", ["train_sft.py", *words])
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as left:
            config.run_cli(train_sft.main, train_sft.Config, "")
    finally:
        signal.signal(signal.SIGTERM, handler)
    assert left.value.code == 2
    return capsys.readouterr().err


def test_a_changed_config_is_named(undisturbed, tiny_qwen, files, monkeypatch, capsys):
    words = sft_words(tiny_qwen, files, undisturbed, **LONG | {"batch__size": 8, "seed": 1})
    said = refused(words, monkeypatch, capsys)
    assert said.startswith("error: ") and said.count("\n") == 1
    assert "another configuration (batch.size: 4 there, 8 now; seed: 0 there, 1 now)" in said


@pytest.mark.parametrize("lr", ["nan", "inf", "0", "-1e-5"])
def test_a_learning_rate_that_is_none_is_refused_first(tiny_qwen, files, tmp_path, monkeypatch, capsys, lr):
    words = sft_words(tiny_qwen, files, tmp_path / "o", optim__lr=lr)
    said = refused(words, monkeypatch, capsys)
    assert re.match("error: config key optim.lr must be (above 0|finite), not ", said)
    assert not (tmp_path / "o").exists()


def test_a_loss_that_is_not_finite_stops_before_the_update(tiny_qwen, files, tmp_path):
    words = sft_words(tiny_qwen, files, tmp_path / "o", optim__lr=1e30)
    said = fails("train_sft.py", *words)
    assert "step 1: loss " in said and "stopped before the update" in said
