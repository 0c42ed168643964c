"""The sinks of a run agree with each other through kills and resumptions; per-gap statistics; speed and memory."""

import json
import math
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from data.records import GAPS
from errors import UserError
from losses import cogpo_loss
from model.metrics import GapStats, Metrics, Speed
from model.parallel import Ranks
from settings import WatchConfig
from tests.support.small_runs import on_ranks
from values import build

ROOT = Path(__file__).parent.parent.parent


def rows(out):
    return [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


def board(out):
    """{name: [(step, value)]} as TensorBoard shows it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(Path(out) / "tensorboard"))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def log(out, start, stop, loss=1.0, config=WatchConfig(), evaluated=None):  # noqa: B008
    """Steps start … stop − 1, then the held-out values of the trained weights. Left open, as a kill leaves it."""
    metrics = Metrics(out, config, start, Ranks(), {"seed": 0})
    for step in range(start, stop):
        metrics.log(step, loss=loss + step, **{"small/margin": step / 4})
    if evaluated is not None:
        metrics.log(stop, **{"eval/loss": evaluated})
    return metrics


def test_files_of_a_run(tmp_path):
    log(tmp_path, 0, 3, evaluated=0.5).close()
    assert rows(tmp_path) == [
        {"step": 0, "loss": 1.0, "small/margin": 0.0},
        {"step": 1, "loss": 2.0, "small/margin": 0.25},
        {"step": 2, "loss": 3.0, "small/margin": 0.5},
        {"step": 3, "eval/loss": 0.5},
    ]
    assert board(tmp_path) == {
        "loss": [(0, 1.0), (1, 2.0), (2, 3.0)],
        "small/margin": [(0, 0.0), (1, 0.25), (2, 0.5)],
        "eval/loss": [(3, 0.5)],
    }
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl", "tensorboard"]


@pytest.mark.parametrize("next_step", [0, 3, 5])
def test_resumed_at_the_checkpoint_no_curve_is_doubled(tmp_path, next_step):
    """Killed after the held-out evaluation, in the middle of a line; the checkpoint is of an earlier step."""
    log(tmp_path, 0, 5, evaluated=0.5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "eval/lo')
    time.sleep(1)  # TensorBoard orders event files of one second by a number that is not padded
    log(tmp_path, next_step, 6, loss=2.0, evaluated=0.25).close()
    losses = [(s, (1.0 if s < next_step else 2.0) + s) for s in range(6)]
    assert [(r["step"], r["loss"]) for r in rows(tmp_path)[:-1]] == losses
    assert rows(tmp_path)[-1] == {"step": 6, "eval/loss": 0.25}
    assert board(tmp_path)["loss"] == losses
    assert board(tmp_path)["eval/loss"] == [(6, 0.25)]


def test_a_killed_run_has_lost_no_event(tmp_path):
    code = (
        "import os, signal, sys; from tests.model.test_metrics import log\n"
        "log(sys.argv[1], 0, 4); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=120)
    assert len(rows(tmp_path)) == 4
    assert [step for step, _ in board(tmp_path)["loss"]] == [0, 1, 2, 3]


def test_what_is_not_finite_is_valid_json(tmp_path):
    metrics = Metrics(tmp_path, WatchConfig(), 0, Ranks(), {})
    metrics.log(0, loss=float("nan"), grad_norm=float("inf"), lr=1e-5)
    metrics.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"step": 0, "loss": None, "grad_norm": None, "lr": 1e-5}
    assert math.isnan(board(tmp_path)["loss"][0][1])


@pytest.mark.parametrize("package", ["wandb", "trackio"])
def test_a_tracker_without_its_package_is_one_line(monkeypatch, package):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=f"watch.{package} is set, but .*pip install {package}"):
        build(WatchConfig, {package: "crv"})
    assert build(WatchConfig, {}) == WatchConfig("", "")


def test_trackio_goes_on_with_the_same_run(tmp_path, monkeypatch):
    """Its own files are read back: what the page of `trackio show` is made of."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage").SQLiteStorage
    for start, stop in ((0, 3), (2, 4)):
        log(tmp_path, start, stop, config=WatchConfig(trackio="crv")).close()
    (name,) = storage.get_runs("crv")
    assert name == f"{tmp_path.name}-{(tmp_path / 'trackio.id').read_text()}"
    logged = {row["step"]: row["loss"] for row in storage.get_logs("crv", name)}
    assert logged == {row["step"]: row["loss"] for row in rows(tmp_path)} and len(logged) == 4


def test_wandb_goes_on_with_the_same_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    names = []
    for start, stop in ((0, 3), (2, 4)):
        metrics = log(tmp_path, start, stop, config=WatchConfig(wandb="crv"))
        run = metrics.trackers["wandb"]
        names.append((run.id, run.project, dict(run.config)))
        metrics.close()
    assert names[0] == names[1] == ((tmp_path / "wandb.id").read_text(), "crv", {"seed": 0})
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 2
    assert [r["step"] for r in rows(tmp_path)] == [0, 1, 2, 3]


def some_pairs(num_pairs=50, gaps=(0, 2)):
    """Random responses and pairs over them: (PairLoss, gap, log-probs, chosen, rejected)."""
    generator = torch.Generator().manual_seed(0)
    logps, refs = (-100 * torch.rand(2, 30, generator=generator)).unbind(0)
    chosen, rejected = torch.randint(0, 30, (2, num_pairs), generator=generator).unbind(0)
    gap = torch.tensor(gaps)[torch.randint(0, len(gaps), (num_pairs,), generator=generator)]
    return cogpo_loss(logps, refs, chosen, rejected, gap), gap, logps, chosen, rejected


def part(pairs, gap, logps, chosen, rejected, mask):
    fields = {name: value[mask] for name, value in vars(pairs).items()}
    return type(pairs)(**fields), gap[mask], logps, chosen[mask], rejected[mask]


def by_hand(pairs, gap, logps, chosen, rejected):
    """Pair by pair, in Python floats."""
    out = {}
    for g, name in enumerate(GAPS):
        mine = [i for i in range(len(gap)) if gap[i] == g]
        values = {
            "loss": [pairs.loss[i].item() for i in mine],
            "margin": [pairs.margin[i].item() for i in mine],
            "accuracy": [float(pairs.margin[i] > 0) for i in mine],
            "chosen_logp": [logps[chosen[i]].item() for i in mine],
            "rejected_logp": [logps[rejected[i]].item() for i in mine],
            "chosen_reward": [pairs.chosen_reward[i].item() for i in mine],
            "rejected_reward": [pairs.rejected_reward[i].item() for i in mine],
            "beta": [pairs.beta[i].item() for i in mine],
        }
        if mine:
            out[f"{name}/pairs"] = len(mine)
            out |= {f"{name}/{k}": sum(v) / len(mine) for k, v in values.items()}
    return out


def test_gap_statistics_equal_a_plain_loop():
    all_pairs = some_pairs()
    stats = GapStats(torch.device("cpu"))
    first = torch.arange(50) < 20
    stats.add(*part(*all_pairs, first))
    stats.add(*part(*all_pairs, ~first))
    read = GapStats.means(stats.sums.flatten().tolist())
    assert read == pytest.approx(by_hand(*all_pairs), rel=1e-6)
    assert 0 < read["small/accuracy"] < 1
    assert not any(name.startswith("medium/") for name in read)  # no such pairs: nothing to say of them


def one_of_two(ranks, out):
    rank = ranks.rank
    speed = Speed(ranks, peak_flops=1e12)
    speed.start()
    # more than the whole process that spawns this one: Linux counts a parent's peak into its child's
    ballast = torch.ones(1500 * 2**20 // 4) if rank == 1 else None
    time.sleep(0.2 * rank)
    stats = GapStats(torch.device("cpu"))
    stats.add(*part(*some_pairs(), torch.arange(50) % 2 == rank))
    found = speed.read(tokens=1000, flops=1e9) | GapStats.means(ranks.sum(stats.sums).flatten().tolist())
    own_memory = speed._memory()[0]
    metrics = Metrics(Path(out), WatchConfig(), 0, ranks, {})
    metrics.log(0, **found)
    metrics.close()
    (Path(out) / f"rank{rank}.json").write_text(json.dumps(found | {"own": own_memory / 2**30}))
    del ballast


def test_two_ranks(tmp_path):
    """Sums over both, the peak and the time of the slower one, and a single writer."""
    on_ranks(2, one_of_two, str(tmp_path))
    a, b = (json.loads((tmp_path / f"rank{r}.json").read_text()) for r in (0, 1))
    expected = by_hand(*some_pairs())
    for seen in (a, b, rows(tmp_path)[0]):
        assert {k: seen[k] for k in expected} == pytest.approx(expected, rel=1e-6)
    assert len(rows(tmp_path)) == 1
    assert b["own"] > a["own"] + 0.3
    assert a["memory_gib"] == b["memory_gib"] == pytest.approx(b["own"], abs=0.05)
    assert min(a["seconds"], b["seconds"]) >= 0.2
    assert a["tokens_per_second"] == pytest.approx(1000 / a["seconds"])
    assert a["tflops_per_rank"] == pytest.approx(1e9 / 2 / a["seconds"] / 1e12)
    assert a["mfu"] == pytest.approx(a["tflops_per_rank"])  # of a peak of one TFLOP/s


def test_no_mfu_where_the_peak_is_unknown():
    speed = Speed(Ranks())
    speed.start()
    assert set(speed.read(tokens=1, flops=1)) == {"seconds", "tokens_per_second", "tflops_per_rank", "memory_gib"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_memory_is_of_the_step_and_the_clock_is_read_after_its_kernels():
    ranks = Ranks()
    speed = Speed(ranks)
    speed.start()
    torch.empty(2**30, dtype=torch.uint8, device=ranks.device)
    assert speed.read(1, 1)["memory_gib"] >= 1
    x = torch.randn(8192, 8192, device=ranks.device)
    for _ in range(2):  # the first one warms up
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        speed.start()
        before.record()
        for _ in range(20):
            y = x @ x
        after.record()
        y.sum().item()  # as a step reads its loss
        values = speed.read(1, 1)
    assert values["memory_gib"] < 1 <= values["reserved_gib"]
    assert values["seconds"] >= before.elapsed_time(after) / 1000
