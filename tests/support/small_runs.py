"""Training of a small module with checkpoints, for processes that tests start and kill: it imports nothing slow."""

import multiprocessing
import os
import resource
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from errors import UserError
from model.checkpoint import Saver
from model.parallel import Ranks
from settings import CheckpointConfig

FORKS = multiprocessing.get_context("forkserver")  # a process does not pay for these imports (optimizers need dynamo)
FORKS.set_forkserver_preload(["train_cogpo", "torch._dynamo", "torch.distributed.checkpoint.state_dict"])


def config(out, **checkpoint):
    return SimpleNamespace(
        out=str(out),
        checkpoint=CheckpointConfig(**checkpoint),
        model=SimpleNamespace(path=str(out / "from"), export_dtype="float32"),
        seed=0,
    )


def saver(out, ranks=None, **checkpoint):
    class Never:
        asked = False

    return Saver(config(out, **checkpoint), ranks or Ranks(), Never())


def make(frozen=False, width=64, ranks=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, 2 * width), nn.Tanh(), nn.Linear(2 * width, width))
    model[0].requires_grad_(not frozen)
    if ranks > 1:
        fully_shard(model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    return model, torch.optim.AdamW(trainable, lr=1e-2, fused=True)


def train_step(model, optimizer, step):
    """One step on data that depend on the step alone; a mean over the batch, so every rank may run all of it."""
    x = torch.randn(8, model[0].in_features, generator=torch.Generator().manual_seed(step))
    (model(x) - x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def whole(model):
    return [p.full_tensor() if isinstance(p, DTensor) else p.detach().clone() for p in model.parameters()]


def assert_equal(a, b, atol=0.0):
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol)


@contextmanager
def files_up_to(num_bytes):
    """What a full disk does: a write beyond num_bytes of a file fails with an OSError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# -- what processes run


def train_and_save(out):
    model, optimizer = make(width=256)
    saving = saver(out, every_steps=1)
    resumed = saving.load_latest(model, optimizer, {}) or {"step": 0}
    for step in range(resumed["step"], 25):
        train_step(model, optimizer, step)
        saving.after_step(step + 1, 25, model, optimizer, {"inputs": {}})
        (Path(out) / "alive").touch()
    saving.wait()
    torch.save(whole(model), Path(out) / "final.tmp")
    (Path(out) / "final.tmp").rename(Path(out) / "final.pt")


def train_to(ranks, out, num_steps):
    """Go on from what is there up to num_steps; leave the weights of then in <out>/at-<num_steps>.pt."""
    model, optimizer = make(ranks=ranks.count)
    saving = saver(out, ranks, every_steps=1000)
    resumed = saving.load_latest(model, optimizer, {}) or {"step": 0}
    for step in range(resumed["step"], num_steps):
        train_step(model, optimizer, step)
    saving.save(num_steps, model, optimizer, {"inputs": {}})
    weights = whole(model)
    saving.wait()
    if ranks.is_main:
        torch.save(weights, Path(out) / f"at-{num_steps}.pt")


def full_disk_on_rank_1(ranks, out):
    model, optimizer = make(ranks=ranks.count)
    saving = saver(out, ranks)
    saving.save(1, model, optimizer, {"inputs": {}})
    saving.wait()
    with files_up_to(50_000 if ranks.rank == 1 else 10**9):
        saving.save(2, model, optimizer, {"inputs": {}})
        with pytest.raises(UserError, match="step-000002: File too large"):
            saving.wait()
    assert saving.load_latest(model, optimizer, {})["step"] == 1


def on_ranks(count, function, *args):
    """Run function(*args) on `count` ranks; none of them may fail."""
    with socket.socket() as s:
        s.bind(("", 0))
        port = s.getsockname()[1]
    environment = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    processes = [
        FORKS.Process(target=_as_rank, args=(environment | {"RANK": str(rank)}, function, *args))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    # a loaded machine takes minutes for what takes seconds; a rank that hangs does not outlive its test
    deadline = time.monotonic() + 600
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert codes == [0] * count


def _as_rank(environment, function, *args):
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(Ranks(), *args)
