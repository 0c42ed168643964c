"""The count of FLOPs against torch's own counter, against 6·N·T, and against published figures for Qwen2.5-7B."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, Qwen2Config, Qwen3Config

from model.cost import forward_parts, quadratic, shape_of, train_flops
from model.metrics import peak_flops

QWEN_7B = Qwen2Config(
    vocab_size=152064, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
    num_key_value_heads=4, tie_word_embeddings=False,
)  # fmt: skip


def counted(lm, lengths, supervised, backward=True):
    """What torch counts: each sequence alone, the head over its last `supervised` tokens, all n × n scores."""
    with FlopCounterMode(display=False) as counter:
        for n in lengths:
            ids = torch.randint(0, 300, (1, n))
            logits = lm(input_ids=ids, logits_to_keep=supervised).logits
            if backward:
                logits.sum().backward()
    return counter.get_total_flops()


def full_square(shape, lengths):
    """The half of the scores that torch's counter sees and causal attention need not compute, in a forward pass."""
    return 2 * shape.layers * shape.heads * shape.head_dim * sum(n * n for n in lengths)


def test_count_equals_torchs_own(tiny):
    lm = AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="eager")
    shape, lengths, supervised = shape_of(lm.config), [7, 40, 64], 5
    over = full_square(shape, lengths)
    assert counted(lm, lengths, supervised, backward=False) == sum(forward_parts(shape, lengths, 3 * supervised)) + over
    assert counted(lm, lengths, supervised) == train_flops(shape, lengths, 3 * supervised) + 3 * over


def test_count_with_adapters_equals_torchs_own(tiny_qwen):
    """torch computes the gradient into frozen layers too, as it must; only the very first one's inputs need none."""
    import peft

    lm = AutoModelForCausalLM.from_pretrained(tiny_qwen, attn_implementation="eager")
    shape, lengths, rank = shape_of(lm.config), [40, 64], 4
    lm = peft.inject_adapter_in_model(peft.LoraConfig(r=rank, target_modules="all-linear"), lm)
    expected = train_flops(shape, lengths, 2 * 64, rank) + 3 * full_square(shape, lengths)
    first_inputs = 3 * 2 * sum(lengths) * (shape.hidden * rank)  # d/dx through A of q, k and v
    first_inputs += 2 * sum(lengths) * shape.hidden * (shape.attention_width + 2 * shape.kv_heads * shape.head_dim)
    supervised = 40 + 64  # of the shorter one all 40 tokens are kept
    expected += 2 * 2 * shape.head_params * (supervised - 2 * 64)
    assert counted(lm, lengths, 64) == expected - first_inputs


@pytest.mark.parametrize("tie", [True, False])
def test_parameters_are_the_models_own(tiny, tie):
    config = AutoConfig.from_pretrained(tiny, tie_word_embeddings=tie)
    assert shape_of(config).params == AutoModelForCausalLM.from_config(config).num_parameters()


def test_a_head_size_of_its_own():
    """Qwen3's heads are wider than hidden / heads, and it norms queries and keys."""
    config = Qwen3Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, attn_implementation="eager", pad_token_id=0,
    )  # fmt: skip
    lm, shape = AutoModelForCausalLM.from_config(config), shape_of(config)
    assert shape.params == lm.num_parameters() and shape.attention_width == 64
    assert counted(lm, [50], 50) == train_flops(shape, [50], 50) + 3 * full_square(shape, [50])


def test_short_sequences_cost_6_n_t():
    shape = shape_of(QWEN_7B)
    in_products = shape.params - shape.head_params  # looking up an embedding is no product
    assert train_flops(shape, [16] * 100, 1600) == pytest.approx(6 * in_products * 1600, rel=1e-3)


@pytest.mark.parametrize(("length", "gflops"), [(4096, 44.9), (8192, 47.4), (16384, 52.3)])
def test_published_figures_of_qwen_7b(length, gflops):
    shape = shape_of(QWEN_7B)
    assert shape.params == 7_615_616_512
    assert train_flops(shape, [length], length) / length / 1e9 == pytest.approx(gflops, abs=0.05)


def test_quadratic_is_the_attention_of_the_same_count():
    """Cost in tokens and FLOPs rank sequences alike: n + quadratic · n² is proportional to train_flops."""
    shape = shape_of(QWEN_7B)
    token = 6 * (shape.layers * shape.layer_linear + shape.head_params)
    for n in (1000, 16384):
        assert train_flops(shape, [n], n) == pytest.approx(token * (n + quadratic(shape) * n * n), rel=1e-6)


def test_peaks_by_name():
    names = {
        "NVIDIA A100-SXM4-80GB": 312, "NVIDIA A800-SXM4-80GB": 312, "NVIDIA H100 80GB HBM3": 989, "A800": 312,
        "NVIDIA H100 PCIe": 756, "NVIDIA H200": 989, "NVIDIA A10": 125, "NVIDIA GeForce RTX 4090": 165,
    }  # fmt: skip
    assert {name: peak_flops(name) for name in names} == {name: tflops * 1e12 for name, tflops in names.items()}
    assert peak_flops("NVIDIA RTX A4000") is None and peak_flops("cpu") is None
