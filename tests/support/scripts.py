"""The training scripts run through their command lines on tiny models, and the comparison of what they leave."""

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from config import claim_output, load
from tests.support.warm_python import everywhere, python

ROOT = Path(__file__).resolve().parents[2]


def command(script, *words, ranks=1, launch=(), new=False):
    """As a user starts it, under torchrun if there are several ranks. launch: further words for torchrun. new: by
    interpreters of their own."""
    start = [sys.executable] if new else list(python())
    if ranks > 1:
        variables = [] if new else [f"{name}={value}" for name, value in everywhere().items()]
        start = ["env", *variables, *start, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), *launch]
        start += ["--master_port", "0", "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    return [*start, script, *map(str, words)]


def run(script, *words, ranks=1, launched=False, cwd=ROOT):
    """Run a script to its good end. launched: by a new interpreter and torchrun, not by forks that torchrun's variables
    make ranks of. cwd: the tree whose code runs, then in a new interpreter."""
    launched = launched or cwd != ROOT
    if ranks > 1 and not launched:
        return run_ranks(script, words, ranks)
    line = command(script, *words, ranks=ranks, new=launched)
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def inside(script, *words):
    """Call a script's main in this process: as `run`, without the seconds that a new interpreter takes."""
    module, handler = importlib.import_module(script.removesuffix(".py")), signal.getsignal(signal.SIGTERM)
    try:
        module.main(load(module.Config, [str(word) for word in words]))
    finally:
        signal.signal(signal.SIGTERM, handler)


def up_to_the_export(script, words):
    """A run that did all its steps and left its checkpoints, but could not write its model: as if killed just then."""
    cfg = load(importlib.import_module(script.removesuffix(".py")).Config, [str(word) for word in words])
    claim_output(cfg, cfg.out)
    partial = Path(cfg.out) / "model.partial"
    partial.write_text("a file where the export's folder should be")
    with pytest.raises(FileExistsError, match=r"model\.partial"):
        inside(script, *words)
    partial.unlink()


def run_ranks(script, words, ranks):
    with socket.create_server(("127.0.0.1", 0)) as server:
        shared = {"WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": server.getsockname()[1]}
    processes = []
    for rank in range(ranks):
        environment = os.environ | {k: str(v) for k, v in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
        line = [*python(), str(script), *map(str, words)]
        processes.append(
            subprocess.Popen(line, cwd=ROOT, env=environment, stdout=-3, stderr=subprocess.PIPE, text=True)
        )
    try:
        said = [process.communicate(timeout=300)[1] for process in processes]  # little: no pipe fills up
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * ranks, "\n".join(text[-3000:] for text in said)


def sft_words(model, files, out, **extra):
    words = {"model.path": model, "data.file": files / "sft.jsonl", "out": out, "epochs": 2, "batch.size": 8}
    words |= {"batch.max_tokens": 4096, "optim.lr": 1e-2, "model.export_dtype": "float32"}
    return [f"{k}={v}" for k, v in (words | {k.replace("__", "."): v for k, v in extra.items()}).items()]


def cogpo_words(model, files, out, **extra):
    words = {"data.file": files / "pairs.jsonl", "reference_cache": Path(out).parent / "reference", "optim.lr": 1e-3}
    return sft_words(model, files, out, **(words | extra))


def weights(out):
    return load_file(Path(out) / "model" / "model.safetensors")


def metrics(out):
    return [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


def assert_same_run(out_a, out_b, atol=2e-5):
    for a, b in zip(metrics(out_a), metrics(out_b), strict=True):
        assert a.get("loss", 0.0) == pytest.approx(b.get("loss", 0.0), abs=1e-5)  # the last line may be held-out alone
        assert a.get("grad_norm", 0.0) == pytest.approx(b.get("grad_norm", 0.0), rel=1e-3)
    a, b = weights(out_a), weights(out_b)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=0, atol=atol, msg=name)


def fails(script, *words, ranks=1, cwd=ROOT):
    """The last line of stderr, the error in one line; of several ranks under torchrun all that they said."""
    line = command(script, *words, ranks=ranks, new=cwd != ROOT)
    done = subprocess.run(line, cwd=cwd, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    if ranks > 1:
        return done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last
