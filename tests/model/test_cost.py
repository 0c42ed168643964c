"""Predictions against what real (tiny) models take, and the sanity of what --plan says about real sizes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config

from config import load
from data.dataset import Examples, Pair
from data.packing import Unit, pack
from data.render import Sequence
from errors import UserError
from model.attention import NAME
from model.cost import (
    GIB,
    Settings,
    _kept_bytes,
    adapter_params,
    forward_parts,
    longest_rows,
    predict_memory,
    settings_of,
    shape_of,
    train_flops,
)
from model.logprobs import LogProbModel
from model.lora import add_adapters
from model.metrics import peak_flops
from model.parallel import checkpointed, recomputed_by
from model.plan import Work, assume_examples, longest_row, measure_work, predict_hours, show_plan, ways_to_less
from settings import DataConfig, LoraConfig, ModelConfig, ParallelConfig, PlanConfig, TrainConfig
from tests.support.scripts import fails, run
from train_cogpo import Config, PairBatchConfig

VOCAB = 152064


def qwen(layers, hidden, intermediate, heads, kv_heads):
    return shape_of(
        Qwen2Config(
            vocab_size=VOCAB,
            hidden_size=hidden,
            intermediate_size=intermediate,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=False,
        )
    )


@pytest.fixture(scope="module")
def qwen_7b():
    return qwen(28, 3584, 18944, 28, 4)


@pytest.fixture(scope="module")
def qwen_14b():
    return qwen(48, 5120, 13824, 40, 8)


def work(longest=16384, in_unit=3, steps=100):
    """Problems whose chains have up to `longest` tokens, `in_unit` of them in a unit; 32 units in a step."""
    lengths = np.random.default_rng(0).integers(longest // 16, longest, 32 * steps * in_unit)
    return Work(
        lengths=lengths, rows=lengths, supervised=int(lengths.sum() * 0.95), epochs=1, steps=steps,
        micro_batches=32 * steps, longest_unit=longest * in_unit, largest_step=20 * longest * in_unit,
        fill=0.9, idle=0.02, reference=in_unit > 1,
    )  # fmt: skip


# --- parts that can be measured here


@pytest.mark.parametrize("tie", [True, False])
def test_weights_gradients_and_state_are_exact(tiny, tie):
    lm = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tiny, tie_word_embeddings=tie))
    lm(input_ids=torch.arange(8)[None]).logits.sum().backward()
    optimizer = torch.optim.AdamW(lm.parameters())
    optimizer.step()
    parts = predict_memory(shape_of(lm.config), Settings(gpus=1), 8).parts
    assert parts["weights"] == sum(p.nbytes for p in lm.parameters())
    assert parts["gradients"] == sum(p.grad.nbytes for p in lm.parameters())
    moments = [v for state in optimizer.state.values() for k, v in state.items() if k != "step"]
    assert parts["optimizer state"] == sum(v.nbytes for v in moments)


def test_adapters_are_exact(tiny_qwen):
    config = AutoConfig.from_pretrained(tiny_qwen)
    with torch.device("meta"):
        lm = AutoModelForCausalLM.from_config(config)
    add_adapters(lm, LoraConfig(rank=4), torch.bfloat16)
    parts = predict_memory(shape_of(config), Settings(gpus=1, lora_rank=4), 8).parts
    assert parts["weights"] == sum(p.nbytes for p in lm.parameters())
    assert parts["gradients"] == sum(p.nbytes for p in lm.parameters() if p.requires_grad)
    assert parts["optimizer state"] == 2 * parts["gradients"]


def test_more_gpus_than_ranks_of_an_adapter_share_out_its_rows(tiny_qwen):
    """FSDP2 gives the first GPU a whole row of each A [4, in] where there are 8 of them, and its share of each B."""
    shape = shape_of(AutoConfig.from_pretrained(tiny_qwen))
    own = shape.layers * sum(1 * into + math.ceil(out / 8) * 4 for out, into in shape.matrices)
    memory = predict_memory(shape, Settings(gpus=8, lora_rank=4), 8)
    assert memory.parts["gradients"] == 4 * own > 4 * adapter_params(shape, 4) / 8
    assert memory.cpu == 12 * own + shape.tied * 2 * shape.head_params / 8


def tracked(mode, dtype, layers):
    """(bytes kept after a forward pass, bytes at the peak of the backward pass), weights and their gradients aside."""
    from torch.distributed._tools.mem_tracker import MemTracker

    config = Qwen2Config(
        vocab_size=100, hidden_size=64, intermediate_size=320, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    lm = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=NAME)
    lm.config.packed_backend = "sdpa"
    for layer in lm.model.layers:
        layer.forward = checkpointed(layer, {mode: 1000})
    ids = np.random.default_rng(0).integers(0, 100, 400).astype(np.int32)
    batch = pack([Sequence(ids[:300], 290), Sequence(ids[300:], 90)])
    model, tracker = LogProbModel(lm), MemTracker()
    tracker.track_external(model)
    with tracker:
        out = model(batch)
        after_forward = tracker.get_tracker_snapshot()
        out.sum().backward()
    snapshots = (snapshot[torch.device("cpu")] for snapshot in (after_forward, tracker.get_tracker_snapshot("peak")))
    kept, peak = (sum(size for kind, size in s.items() if str(kind).endswith(("ACT", "TEMP"))) for s in snapshots)
    return kept / 400, peak / 400, shape_of(config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mode", ["none", "products", "selective", "full"])
def test_activations_are_what_torch_keeps(mode, dtype):
    """Kept per token and layer to the byte; the working set of a backward pass within a fifth, never far below."""
    few, many = (tracked(mode, dtype, layers) for layers in (1, 2))
    shape, e = many[2], dtype.itemsize
    copied = e * shape.attention_width  # the sdpa backend joins its segments into a tensor of their own
    expected = _kept_bytes(shape, mode, e) + (copied if mode == "none" else 0)
    # and in bfloat16, on a CPU, it computes in float32: queries, keys, values and output
    widened = (4 - e) * 2 * (shape.attention_width + shape.kv_heads * shape.head_dim)
    expected += {"none": widened, "full": 0}.get(mode, (4 - e) * shape.attention_width)
    assert many[0] - few[0] == pytest.approx(expected, rel=1e-9)
    working = predict_memory(shape, Settings(gpus=1, checkpointing=mode, compute_bytes=e), 400).parts
    predicted = working["working set of a layer"] / 400
    assert 0.9 < (predicted + (mode != "none") * (copied + widened)) / (many[1] - many[0]) < 1.25


# --- sanity of the whole


def test_cogpo_of_7b_on_one_80_gb_gpu(qwen_7b):
    settings, capacity = Settings(gpus=1, checkpointing="full"), 80 * GIB
    memory = predict_memory(qwen_7b, settings, longest_row(settings, work()))
    assert memory.parts["weights"] + memory.parts["gradients"] + memory.parts["optimizer state"] > capacity
    offloaded = replace(settings, offload=True)
    memory = predict_memory(qwen_7b, offloaded, longest_row(offloaded, work()))
    assert memory.total < capacity and memory.parts["weights"] == 0
    assert memory.cpu == (16 + 12) * qwen_7b.params  # and the copy that a checkpoint is written from


@pytest.mark.parametrize("settings", [Settings(gpus=1), Settings(gpus=8, replicate=4, lora_rank=8, offload=True)])
def test_every_change_that_is_named_needs_less(qwen_7b, settings):
    ways, now = (
        ways_to_less(qwen_7b, settings, work(4096)),
        predict_memory(qwen_7b, settings, longest_row(settings, work(4096))),
    )
    assert ways and max(ways.values()) < now.total / GIB
    assert ("parallel.offload=true" in ways) == (not settings.offload)
    assert ("parallel.replicate=1" in ways) == (settings.replicate > 1 and not settings.offload)


def test_14b_fits_eight_gpus_at_16k(qwen_14b):
    settings = Settings(gpus=8, checkpointing="full", max_tokens=16384)
    assert predict_memory(qwen_14b, settings, 16384).total < 80 * GIB
    assert predict_memory(qwen_14b, replace(settings, gpus=2), 16384).total > 80 * GIB


def test_sharding_divides_what_it_shards(qwen_7b):
    one, eight, hybrid = (
        predict_memory(qwen_7b, Settings(n, replicate=r), 100).parts for n, r in ((1, 1), (8, 1), (8, 2))
    )
    for part in ("weights", "gradients", "optimizer state"):
        assert one[part] == 8 * eight[part] == 4 * hybrid[part]


def test_hours(qwen_7b):
    """By hand: what a step computes, at 40 % of eight A100s."""
    run, peak = replace(work(8192, in_unit=1), idle=0.0), peak_flops("A100")
    settings, full = Settings(gpus=8, checkpointing="full"), {"full": 1 << 20}
    train, reference, mfu = predict_hours(qwen_7b, settings, run, peak, 0.4, full)
    useful = train_flops(qwen_7b, run.lengths, run.supervised)
    again = sum(forward_parts(qwen_7b, run.lengths, run.supervised))
    down = 2 * 28 * 3584 * 18944 * run.lengths.sum()  # whose output no gradient needs
    executed = useful + again - down
    assert train == pytest.approx(executed / (8 * 0.4 * peak) / 3600) and reference == 0
    assert mfu == pytest.approx(0.4 * useful / executed) and 0.31 < mfu < 0.33
    waiting = predict_hours(qwen_7b, settings, replace(run, idle=0.5, reference=True), peak, 0.4, full)
    assert waiting[0] == pytest.approx(2 * train) and waiting[1] == pytest.approx(2 * train * again / executed)
    assert predict_hours(qwen_7b, replace(settings, offload=True), run, peak, 0.4, full)[0] > train
    # selective: q, v and gate; by row: nothing of the shorter half
    part = (3584 * 3584 + 512 * 3584 + 18944 * 3584) / qwen_7b.layer_linear
    linear, head = 2 * 28 * qwen_7b.layer_linear * run.lengths.sum(), 2 * qwen_7b.head_params * run.supervised
    selective = predict_hours(qwen_7b, settings, run, peak, 0.4, {"selective": 1 << 20})[0]
    assert selective == pytest.approx((useful + part * linear + head) / (8 * 0.4 * peak) / 3600) and 0.35 < part < 0.36
    # products: none but the head's
    products = predict_hours(qwen_7b, settings, run, peak, 0.4, {"products": 1 << 20})[0]
    assert products == pytest.approx((useful + head) / (8 * 0.4 * peak) / 3600)
    half = predict_hours(qwen_7b, settings, run, peak, 0.4, {"none": 4000, "selective": 8000, "full": 1 << 20})[0]
    assert (useful + head) / executed * train < half < selective


def test_recomputation_follows_the_row(qwen_7b):
    """Modes of which each fits the GPU at its longest row, and no longer one."""
    settings, capacity = Settings(gpus=8, checkpointing="auto"), 80 * GIB
    longest = longest_rows(qwen_7b, settings, capacity)
    assert list(longest) == ["none", "products", "selective", "full"]
    assert 5000 < longest["none"] < 16384 < longest["products"] < longest["selective"] < 40000
    for mode in ("none", "products", "selective"):
        fixed = replace(settings, checkpointing=mode)
        at, beyond = (predict_memory(qwen_7b, fixed, longest[mode] + more).total for more in (0, 1))
        assert at <= capacity < beyond
    assert recomputed_by(longest["none"], longest) == "none" and recomputed_by(200000, longest) == "full"
    assert longest_rows(qwen_7b, replace(settings, checkpointing="selective"), capacity).keys() == {"selective"}
    assert longest_rows(qwen_7b, replace(settings, gpus=1), capacity)["selective"] == -1, "not even the weights fit"


# --- from a config and data


def config(model, **keys):
    """A small CogPO configuration that is asked for its plan."""
    keys = {"data": DataConfig("absent.jsonl"), "plan": PlanConfig(), "epochs": 2} | keys
    return Config("out", ModelConfig(model), batch=PairBatchConfig(size=6, max_tokens=100), **keys)


def triads(n):
    sequences = [Sequence(np.zeros(10 + i, dtype=np.int32), 4) for i in range(3 * n)]
    pairs = [(Pair(i, i + 1, 0), Pair(i + 1, i + 2, 1), Pair(i, i + 2, 2)) for i in range(0, 3 * n, 3)]
    units = [Unit((p[0].chosen, p[0].rejected, p[1].rejected), 3, p) for p in pairs]
    return Examples(sequences=sequences, units=units)


def test_work_is_that_of_the_plan(tiny_qwen):
    cfg, examples = config(tiny_qwen), triads(10)
    found = measure_work(cfg, examples, shape_of(AutoConfig.from_pretrained(tiny_qwen)), 8, True)
    assert sorted(found.lengths) == list(range(10, 40)) and found.supervised == sum(range(6, 36))
    assert (found.steps, found.epochs, found.micro_batches) == (10, 2, 10)  # two triads a step, fewer than GPUs
    assert found.longest_unit == 37 + 38 + 39
    assert 0.7 < found.idle < 0.9, "eight GPUs, two of them with work"


def test_plan_as_it_is_printed(tiny_qwen):
    cfg, hf_config = config(tiny_qwen), AutoConfig.from_pretrained(tiny_qwen)
    text = show_plan(cfg, hf_config, triads(10), reference=True)
    assert "of 80: fits" in text and "rows of up to 114 tokens" in text and "for the reference" in text
    assert "together with one change" not in text
    kept = ParallelConfig(activation_checkpointing="none")
    text = show_plan(replace(cfg, parallel=kept, plan=PlanConfig(gpus=1, memory_gb=1.0)), hf_config, triads(10))
    assert "does not fit\ntogether with one change: parallel.activation_checkpointing=full " in text
    assert "GiB" in text and "reference" not in text


@pytest.mark.parametrize("dtype, gigabytes", [("float32", 6), ("bfloat16", 3)])
def test_plan_counts_the_disk_of_an_export_in_its_dtype(tiny_qwen, dtype, gigabytes):
    shape = Qwen2Config(
        vocab_size=151936,
        hidden_size=1536,
        intermediate_size=8960,
        num_hidden_layers=28,
        num_attention_heads=12,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    cfg = config(tiny_qwen, plan=PlanConfig(examples=20))
    text = show_plan(replace(cfg, model=replace(cfg.model, export_dtype=dtype)), shape, None, triads=True)
    assert "1.54 B parameters" in text
    assert f"disk: {gigabytes} GB for the model it writes, 19 GB for each checkpoint" in text


def test_errors_say_what_to_set(tiny_qwen):
    cfg, hf_config = config(tiny_qwen), AutoConfig.from_pretrained(tiny_qwen)
    with pytest.raises(UserError, match=r"--plan gpu='TPU'"):
        show_plan(replace(cfg, plan=PlanConfig(gpu="TPU")), hf_config, triads(2))
    with pytest.raises(UserError, match=r"of examples=5 with tokens=4000 none fits in data\.max_length=10"):
        assume_examples(PlanConfig(examples=5), max_length=10)
    with pytest.raises(UserError, match=r"replicate=3 does not divide 8 GPUs"):
        settings_of(replace(cfg, parallel=ParallelConfig(replicate=3)), 8)


def test_assumed_lengths(tiny_qwen):
    plan = PlanConfig(examples=2000)
    single, triads = assume_examples(plan, 9000), assume_examples(plan, 9000, triads=True)
    assert len(single.units) + single.dropped == len(triads.units) + triads.dropped == 2000
    assert 0 < single.dropped < 400 and max(single.lengths) <= 9000
    assert 3500 < np.median(single.lengths) < 4200  # the longest are missing
    assert {len(u.seqs) for u in triads.units} == {3} and triads.units[1].pairs[0].chosen == 3
    text = show_plan(config(tiny_qwen, plan=plan), AutoConfig.from_pretrained(tiny_qwen), None, triads=True)
    assert "assumed: 2000 examples, lengths with a median of 4000 tokens" in text
    assert sum(assume_examples(PlanConfig(examples=2000, tokens=400), 9000).lengths) * 6 < sum(single.lengths)


def test_plan_from_the_command_line(tiny_qwen, tmp_path):
    """The words behind --plan are its own; they come before or after keys of the run, which nothing is written for."""
    words = ["--plan", "gpus=2", "gpu=a800", f"model.path={tiny_qwen}", "examples=50", "memory_gb=40"]
    done = run("train_sft.py", f"out={tmp_path}/o", f"data.file={tmp_path}/none.jsonl", *words)
    assert "memory of each of 2 x a800" in done.stdout and "GiB of 40: fits" in done.stdout
    assert "assumed: 50 examples" in done.stdout and not (tmp_path / "o").exists()
    assert "unknown config key gpus" in fails("train_sft.py", f"out={tmp_path}/o", "gpus=2")


@pytest.mark.parametrize(
    "word, said",
    [
        ("memory=80", "unknown config key memory; did you mean plan.memory_gb?"),
        ("epoch=1", "unknown config key epoch; did you mean epochs?"),
        ("gpus=0", "config key plan.gpus must be at least 1, not 0"),
        ("tokens=0", "config key plan.tokens must be at least 1, not 0"),
        ("utilization=2", "config key plan.utilization must be at most 1, not 2.0"),
        ("memory_gb=0", "config key plan.memory_gb must be above 0, not 0.0"),
        ("memory_gb=inf", "config key plan.memory_gb must be finite, not inf"),
        ("gpus=-8", "config key plan.gpus must be at least 1, not -8"),
        ("gpus=100000000000", "config key plan.gpus must be at most 16384, not 100000000000"),
        ("gpus=eight", "config key plan.gpus must be a whole number, not 'eight'"),
        ("examples=100000000000", "config key plan.examples must be at most 10000000, not 100000000000"),
        ("tokens=100000000000", "config key plan.tokens must be at most 10000000, not 100000000000"),
    ],
)
def test_wrong_words_of_a_plan(word, said):
    with pytest.raises(UserError) as error:
        load(TrainConfig, ["out=o", "model.path=m", "data.file=f", "epochs=1", "--plan", word])
    assert said in str(error.value)
