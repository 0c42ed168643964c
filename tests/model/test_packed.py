"""Packed = padded = one at a time, for the three families; and a wrong boundary must show."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma3Config, LlamaConfig

from data.packing import pack
from data.render import Sequence
from errors import UserError
from model.attention import ATTEND, backends_here, choose_backend
from model.load import WIDE, ModelConfig, load_policy, load_tokenizer, resolve_dtype
from model.logprobs import response_sums
from model.parallel import Ranks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny):
    return load_policy(ModelConfig(tiny), Ranks(), load_tokenizer(tiny))


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return [Sequence(rng.integers(5, 250, n).astype(np.int32), p) for n, p in ((30, 7), (5, 1), (64, 20), (11, 10))]


def gradients(model):
    grads = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad(set_to_none=True)
    return grads


def test_packed_equals_one_at_a_time(model, sequences):
    batch = pack(sequences)
    packed = response_sums(model(batch), batch)
    packed.square().sum().backward()
    packed_grad = gradients(model)
    singles = []
    for sequence in sequences:
        one = pack([sequence])
        singles.append(response_sums(model(one), one))
        singles[-1].square().sum().backward()
    torch.testing.assert_close(packed, torch.cat(singles), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(packed_grad, gradients(model), rtol=1e-4, atol=1e-2)


def test_packed_equals_padded_through_the_library(model, sequences, tiny):
    """The other side is transformers' own model: padded batch, attention mask, full logits."""
    lm = AutoModelForCausalLM.from_pretrained(tiny, attn_implementation="eager").eval()
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(sequence.ids.astype(np.int64))
        mask[row, : len(sequence)] = 1
    with torch.no_grad():
        logps = lm(input_ids=ids, attention_mask=mask).logits.log_softmax(-1)
    token_logps = logps[:, :-1].gather(-1, ids[:, 1:, None])[..., 0]
    expected = [token_logps[r, s.prompt_len - 1 : len(s) - 1].sum().item() for r, s in enumerate(sequences)]
    batch = pack(sequences)
    with torch.no_grad():
        actual = response_sums(model(batch), batch).tolist()
    assert actual == pytest.approx(expected, abs=1e-3)


def test_a_wrong_boundary_is_seen(model, sequences):
    batch = pack(sequences)
    right = response_sums(model(batch), batch)
    wrong = pack(sequences)
    wrong.cu_seqlens = torch.tensor([0, *batch.cu_seqlens[2:].tolist()], dtype=torch.int32)  # first two joined
    wrong.max_seqlen = int(wrong.cu_seqlens.diff().max())
    moved = (response_sums(model(wrong), wrong) - right).abs()
    assert moved[1] > 0.1, "a sequence that sees its neighbour must get other log-probs"
    torch.testing.assert_close(moved[2:], torch.zeros(2), atol=1e-3, rtol=0)


def test_position_ids_alone_do_not_separate(model, sequences):
    """Restarting position ids without boundaries is contamination: the negative control of the packing itself."""
    batch = pack(sequences)
    right = response_sums(model(batch), batch)
    batch.cu_seqlens = torch.tensor([0, batch.input_ids.numel()], dtype=torch.int32)
    assert (response_sums(model(batch), batch) - right).abs()[1:].max() > 0.1


def dense_attention(q_TNH, k_TKH, v_TKH, cu_seqlens, max_seqlen, scale, window=None):
    """The definition: one T × T mask, true where the key is in the query's own segment, not after it, not too far."""
    group = q_TNH.shape[1] // k_TKH.shape[1]
    k_TNH, v_TNH = (x.repeat_interleave(group, dim=1) for x in (k_TKH, v_TKH))
    at = torch.arange(len(q_TNH), device=q_TNH.device)
    segment = torch.bucketize(at, cu_seqlens, right=True)
    mask = (segment[:, None] == segment) & (at[:, None] >= at) & (at[:, None] - at < (window or len(at)))
    scores = torch.einsum("qnh,knh->nqk", q_TNH, k_TNH) * scale
    return torch.einsum("nqk,knh->qnh", scores.masked_fill(~mask, -torch.inf).softmax(-1), v_TNH)


def outputs(attend, inputs, cu_seqlens, max_seqlen, upstream, window):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = attend(*inputs, cu_seqlens, max_seqlen, 0.1, window)
    out.backward(upstream.to(out.dtype))
    return [out.detach(), *(x.grad for x in inputs)]


ON_CUDA = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused kernels need CUDA")]


@pytest.mark.parametrize(
    ("device", "dtype", "tolerance"),
    [
        ("cpu", torch.float32, 1e-5),
        ("cpu", torch.bfloat16, 2e-2),
        pytest.param("cuda", torch.bfloat16, 2e-2, marks=ON_CUDA),
    ],
)
@pytest.mark.parametrize("window", [None, 2, 50])
def test_all_available_backends_agree(device, dtype, tolerance, window):
    """Output and gradients, against a dense mask in float64; grouped heads, a segment of one token."""
    torch.manual_seed(0)
    device, lens = torch.device(device), [130, 1, 300, 77]
    cu_seqlens = torch.tensor([0, *np.cumsum(lens)], dtype=torch.int32, device=device)
    inputs = [torch.randn(sum(lens), heads, 64, device=device, dtype=dtype) for heads in (8, 2, 2)]
    upstream = torch.randn_like(inputs[0])
    exact = outputs(dense_attention, [x.double() for x in inputs], cu_seqlens, max(lens), upstream, window)
    for name in backends_here(device, dtype):
        found = outputs(ATTEND[name], inputs, cu_seqlens, max(lens), upstream, window)
        for part, a, e in zip("oqkv", found, exact, strict=True):
            assert a.dtype == dtype
            assert (a.double() - e).norm() / e.norm() < tolerance, (name, part)


def test_backend_choice_says_what_to_do():
    assert choose_backend("auto", CPU, torch.float32) == "sdpa"
    with pytest.raises(UserError, match=r"flash needs a GPU .* and the flash-attn package \(pip install -r"):
        choose_backend("flash", CPU, torch.float32)
    with pytest.raises(UserError, match="varlen needs a GPU of the Ampere generation or newer and bfloat16"):
        choose_backend("varlen", CPU, torch.bfloat16)


@pytest.mark.parametrize(
    ("capability", "installed", "auto", "flash"),
    [
        (9, {"flash_attn_interface", "flash_attn_2_cuda"}, "flash3", "flash3"),
        (9, {"flash_attn_2_cuda"}, "flash2", "flash2"),
        (8, {"flash_attn_interface", "flash_attn_2_cuda"}, "flash2", "flash2"),
        (8, {"flash_attn_interface"}, "varlen", None),
        (9, set(), "varlen", None),
    ],
)
def test_backend_choice_on_cuda(monkeypatch, capability, installed, auto, flash):
    """Which packages and which generation of GPU make which kernel, if all of them compute."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (capability, 0))
    monkeypatch.setattr("model.attention.find_spec", lambda name: name in installed)
    monkeypatch.setattr("model.attention.try_backend", lambda *args: "")
    cuda = torch.device("cuda")
    assert choose_backend("auto", cuda, torch.bfloat16) == auto
    assert choose_backend("varlen", cuda, torch.bfloat16) == "varlen"
    assert choose_backend("sdpa", cuda, torch.bfloat16) == "sdpa"
    assert choose_backend("auto", cuda, torch.float32) == "sdpa"
    if flash:
        assert choose_backend("flash", cuda, torch.bfloat16) == flash
    else:
        with pytest.raises(UserError, match="flash needs the flash-attn package"):
            choose_backend("flash", cuda, torch.bfloat16)


def test_gpus_before_ampere_have_no_flash_kernels(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    monkeypatch.setattr("model.attention.find_spec", lambda name: True)
    monkeypatch.setattr("model.attention.try_backend", lambda *args: "")
    cuda = torch.device("cuda")
    assert choose_backend("auto", cuda, torch.bfloat16) == "sdpa"
    with pytest.raises(UserError, match="varlen needs a GPU of the Ampere generation"):
        choose_backend("varlen", cuda, torch.bfloat16)


@pytest.mark.parametrize("flags", [{"avx512_bf16"}, {"amx_tile"}, {"avx512_bf16", "amx_tile"}, set()])
def test_auto_computes_in_bfloat16_where_the_cpu_multiplies_it_and_the_model_is_wide_enough(monkeypatch, flags):
    for flag in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{flag}_supported", lambda flag=flag: flag in flags)
    narrow, wide = LlamaConfig(hidden_size=WIDE // 2), LlamaConfig(hidden_size=WIDE)
    expected = torch.bfloat16 if flags else torch.float32
    assert resolve_dtype("auto", CPU, wide) == expected
    assert resolve_dtype("auto", CPU, Gemma3Config(text_config={"hidden_size": WIDE})) == expected
    assert resolve_dtype("auto", CPU, narrow) == torch.float32
    assert resolve_dtype("auto", torch.device("cuda"), narrow) == torch.bfloat16
    for config in (narrow, wide):
        assert resolve_dtype("float32", CPU, config) == torch.float32
        assert resolve_dtype("bfloat16", CPU, config) == torch.bfloat16


def test_torch_without_a_flag_says_no(monkeypatch):
    for flag in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{flag}_supported", raising=False)
    assert resolve_dtype("auto", CPU, LlamaConfig(hidden_size=WIDE)) == torch.float32


def broken(*args):
    raise TypeError("got an unexpected keyword argument 'enable_gqa'")


def wrong(q_TNH, k_TKH, v_TKH, *args):
    return q_TNH * 3


def without_a_backward(*args):
    return ATTEND["sdpa"](*args).detach()


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        (broken, "TypeError: got an unexpected keyword"),
        (wrong, "a mean of ones is off by 2"),
        (without_a_backward, "does not require grad"),
    ],
)
def test_a_backend_that_does_not_work_is_tried_said_and_passed_over(monkeypatch, capsys, kernel, said):
    """Tried here on the CPU: a kernel that does not fit its call, one that computes something else, one half done."""
    monkeypatch.setattr("model.attention.backends_here", lambda device, dtype: ["flash2", "varlen", "sdpa"])
    monkeypatch.setitem(ATTEND, "flash2", kernel)
    monkeypatch.setitem(ATTEND, "varlen", ATTEND["sdpa"])
    assert choose_backend("auto", CPU, torch.bfloat16) == "varlen"
    warning = capsys.readouterr().err
    assert "the attention backend flash2 does not work here (" in warning and said in warning
    with pytest.raises(UserError, match="attention: flash does not work here"):
        choose_backend("flash", CPU, torch.bfloat16)
