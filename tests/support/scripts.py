"""The training scripts run through their command lines on tiny models, and the comparison of what they leave."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]


def command(script, *words, ranks=1):
    launch = [sys.executable]
    if ranks > 1:
        launch += ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--master_port", "0"]
        launch += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0"]
    return [*launch, script, *map(str, words)]


def run(script, *words, ranks=1):
    done = subprocess.run(command(script, *words, ranks=ranks), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


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


def fails(script, *words):
    done = subprocess.run(command(script, *words), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    return last
