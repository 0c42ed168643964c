"""What only a GPU shows, small: kernels against float64, sharding in bfloat16, a training from its start to its export.

TEST_GPU=1 python -m pytest -m gpu            on a machine with a GPU; needs no package beyond training's own
TEST_GPU=cpu python -m pytest -m gpu          the same lines on the CPU, where they show less
"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from data.packing import pack
from data.records import write_jsonl
from data.render import Sequence
from model.attention import ATTEND, NAME, backends_here, try_backend
from model.logprobs import LogProbModel, linear_logps, response_sums
from model.parallel import ANY_LENGTH, checkpointed, compiles
from tests.support.scripts import ROOT
from tests.support.tiny import pair_rows, sft_rows

CUDA = torch.cuda.is_available()
DEVICE, BF16 = torch.device("cuda" if CUDA else "cpu"), torch.bfloat16
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not CUDA and os.environ.get("TEST_GPU") != "cpu", reason="no CUDA device"),
]


def relative(a, b):
    return ((a.double() - b.double()).norm() / b.double().norm()).item()


def test_the_head_against_float64():
    """Its CUDA branch keeps the float32 sums of bfloat16 products; a block that is not full, labels likely and not."""
    numbers = torch.Generator(DEVICE).manual_seed(0)
    weight = torch.empty(9000, 512, device=DEVICE, dtype=BF16).normal_(std=512**-0.5, generator=numbers)
    labels = torch.randint(9000, (700,), device=DEVICE, generator=numbers)
    hidden = (2 * torch.randn(700, 512, device=DEVICE, generator=numbers) + 9 * weight[labels].float()).to(BF16)
    upstream = torch.rand(700, device=DEVICE, generator=numbers)
    h, w = hidden.clone().requires_grad_(), weight.clone().requires_grad_()
    logps = linear_logps(h, w, labels)
    logps.backward(upstream)
    exact_h, exact_w = hidden.double().requires_grad_(), weight.double().requires_grad_()
    exact = (exact_h @ exact_w.T).log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    exact.backward(upstream.double())
    assert (logps - exact).abs().max() < (1e-3 if CUDA else 5e-2), "nats"
    assert relative(h.grad, exact_h.grad) < 6e-3 and relative(w.grad, exact_w.grad) < 6e-3


def small_model(backend, longest=None, compiled=False):
    """Four layers in bfloat16 with grouped heads of 64."""
    config = Qwen2Config(
        vocab_size=2000, hidden_size=256, intermediate_size=768, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, initializer_range=0.06,
    )  # fmt: skip
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(config, dtype=BF16, attn_implementation=NAME).to(DEVICE)
    lm.config.packed_backend = backend
    for layer in lm.model.layers:
        layer.forward = checkpointed(layer, longest or {"none": ANY_LENGTH})
        if compiled:
            layer.forward = torch.compile(layer.forward, dynamic=True)
    return LogProbModel(lm).train()


def gradient(model):
    found = torch.cat([p.grad.flatten().double() for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    return found


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return [Sequence(rng.integers(0, 2000, n).astype(np.int32), min(4, n - 1)) for n in (400, 300, 324, 2)]


@pytest.mark.parametrize("backend", ATTEND)
def test_packed_is_single(backend, sequences):
    """Log-probs and gradients of a row, and of its sequences one at a time, on every backend that is there."""
    if backend not in backends_here(DEVICE, BF16):
        pytest.skip(f"{backend} is not installed, or not for this device")
    assert try_backend(backend, DEVICE, BF16) == ""
    model, batch = small_model(backend), pack(sequences).to(DEVICE)
    packed = response_sums(model(batch), batch)
    packed.sum().backward()
    packed_gradient, singles = gradient(model), []
    for sequence in sequences:
        one = pack([sequence]).to(DEVICE)
        singles.append(response_sums(model(one), one))
        singles[-1].sum().backward()
    lengths = torch.tensor(batch.response_lens, device=DEVICE)
    assert ((packed - torch.cat(singles)).abs() < 0.02 * lengths.sqrt() + 0.02).all(), "nats"
    assert relative(packed_gradient, gradient(model)) < 3e-2


@pytest.mark.parametrize(
    "longest",
    [{"products": ANY_LENGTH}, {"selective": ANY_LENGTH}, {"full": ANY_LENGTH}, {"none": 100, "full": ANY_LENGTH}],
)
def test_recomputation_changes_nothing(longest, sequences):
    batch, backend = pack(sequences).to(DEVICE), backends_here(DEVICE, BF16)[0]
    plain, again = small_model(backend), small_model(backend, longest)
    found = [model(batch) for model in (plain, again)]
    for logps in found:
        logps.sum().backward()
    assert torch.equal(*found), "the same kernels"
    assert relative(gradient(again), gradient(plain)) < 1e-2, "sums over tokens in another order"


@pytest.mark.parametrize("mode", ["none", "products", "selective", "full"])
def test_compiled_layers_compute_reference_and_policy_alike(mode, sequences):
    """… to the last bit, whatever lengths came before; else the first loss would not be ln 2."""
    if not compiles(DEVICE):
        pytest.skip("torch.compile does not work here")
    backend = backends_here(DEVICE, BF16)[0]
    model, eager = small_model(backend, {mode: ANY_LENGTH}, compiled=True), small_model(backend)
    batches = [pack(sequences[:n]).to(DEVICE) for n in (2, 4, 1)]
    first = [model(batch).detach() for batch in batches]
    for batch in reversed(batches):
        model(batch).sum().backward()
    for logps, batch in zip(first, batches, strict=True):
        assert torch.equal(model(batch), logps)
        assert (logps - eager(batch)).square().mean().sqrt() < 0.1, "nats a token"


# --- the scripts, in bfloat16: FSDP2 over NCCL on one rank


@pytest.fixture(scope="module")
def runs(tiny_qwen, tmp_path_factory):
    """A function that runs a training on tiny data, and one run to compare with."""
    folder = tmp_path_factory.mktemp("cuda")
    write_jsonl(folder / "pairs.jsonl", pair_rows(12))
    write_jsonl(folder / "sft.jsonl", sft_rows(12))

    def run(name, script="train_cogpo.py", *words, start=False, ranks=0):
        kind = "pairs" if "cogpo" in script else "sft"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)] if ranks else []
        line = [sys.executable, *launch, script, f"model.path={tiny_qwen}", f"data.file={folder}/{kind}.jsonl"]
        line += [f"out={folder}/{name}", "model.compute_dtype=bfloat16", "batch.size=6", "batch.max_tokens=300"]
        line += ["optim.lr=1e-3", "epochs=3", "checkpoint.every_steps=1000", *words]
        line += [f"reference_cache={folder}/reference"] if kind == "pairs" else []
        if start:
            return subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads(row) for row in (folder / name / "metrics.jsonl").read_text().splitlines()]

    run.folder = folder
    return run


def assert_close(rows, others):
    assert len(rows) == len(others) > 3
    for a, b in zip(rows, others, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-2)


@pytest.fixture(scope="module")
def plain(runs):
    return runs("plain")


def test_a_training_begins_at_ln_2_and_learns(plain):
    assert plain[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert plain[-1]["loss"] < 0.6 and ("reserved_gib" in plain[0]) == CUDA


@pytest.mark.parametrize(
    "words", [["parallel.activation_checkpointing=selective"], ["parallel.compile=true"], ["lora.rank=4"]]
)
def test_ways_to_train(runs, plain, words):
    if "lora" in words[0]:
        pytest.importorskip("peft")
    rows = runs(words[0].replace("=", "-"), "train_cogpo.py", *words)
    assert rows[0]["loss"] == pytest.approx(np.log(2), abs=1e-6)
    if "lora" not in words[0]:
        assert_close(rows, plain)


def test_under_torchrun(runs, plain):
    assert_close(runs("torchrun", ranks=1), plain)


@pytest.mark.skipif(not CUDA, reason="parallel.offload needs a GPU")
def test_offload(runs):
    assert_close(runs("offloaded", "train_sft.py", "parallel.offload=true"), runs("sft", "train_sft.py"))


def test_sigterm_and_resume(runs, plain):
    process, log = runs("stopped", start=True), runs.folder / "stopped" / "metrics.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") >= 2):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 75 and "checkpoint saved" in said, said[-2000:]
    assert_close(runs("stopped"), plain)
