"""Packed = padded = one at a time, for the three families; and a wrong boundary must show."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from data.packing import pack
from data.render import Sequence
from model.attention import ATTEND, choose_backend
from model.load import ModelConfig, load_policy, load_tokenizer
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


def available_backends():
    found = ["sdpa"]
    for name in ("varlen", "flash") if torch.cuda.is_available() else ():
        try:
            found.append(choose_backend(name, torch.device("cuda"), torch.bfloat16))
        except ValueError:
            continue
    return found


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="the fused kernels need CUDA")
def test_backends_agree():
    torch.manual_seed(0)
    lens = [130, 1, 300, 77]
    cu = torch.tensor([0, *np.cumsum(lens)], dtype=torch.int32, device="cuda")
    q, k, v = (torch.randn(sum(lens), n, 64, device="cuda", dtype=torch.bfloat16) for n in (8, 2, 2))
    expected = ATTEND["sdpa"](q.float(), k.float(), v.float(), cu, max(lens), 0.125)
    for name in available_backends():
        out = ATTEND[name](q, k, v, cu, max(lens), 0.125).float()
        assert (out - expected).norm() / expected.norm() < 1e-2, name


def test_backend_choice_says_what_to_do():
    assert choose_backend("auto", CPU, torch.float32) == "sdpa"
    with pytest.raises(ValueError, match=r"needs the flash-attn package|needs a CUDA device"):
        choose_backend("flash", CPU, torch.float32)
    with pytest.raises(ValueError, match="needs a CUDA device"):
        choose_backend("varlen", CPU, torch.bfloat16)
