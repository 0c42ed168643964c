"""Chunked log-probs from hidden states equal log-softmax of the full logits, in value and in gradient."""

import pytest
import torch

from model.logprobs import linear_logps

N, D, V = 37, 16, 101


def full_logps(h, weight, labels):
    return (h @ weight.T).float().log_softmax(-1).gather(-1, labels[:, None])[:, 0]


def run(function, h, weight, labels, upstream):
    h, weight = h.clone().requires_grad_(), weight.clone().requires_grad_()
    out = function(h, weight, labels)
    out.backward(upstream)
    return out.detach(), h.grad, weight.grad


@pytest.mark.parametrize("chunk", [1, 8, 36, 37, 1000])
def test_values_and_gradients(chunk):
    torch.manual_seed(0)
    h, weight = torch.randn(N, D, dtype=torch.float32), torch.randn(V, D)
    labels, upstream = torch.randint(0, V, (N,)), torch.randn(N)
    expected = run(full_logps, h, weight, labels, upstream)
    actual = run(lambda *a: linear_logps(*a, chunk=chunk), h, weight, labels, upstream)
    for e, a in zip(expected, actual, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_float32_after_the_matmul():
    torch.manual_seed(0)
    h, weight, labels = torch.randn(N, D).bfloat16(), torch.randn(V, D).bfloat16(), torch.randint(0, V, (N,))
    upstream = torch.randn(N)
    logps, grad_h, grad_w = run(lambda *a: linear_logps(*a, chunk=8), h, weight, labels, upstream)
    assert logps.dtype == torch.float32 and grad_h.dtype == grad_w.dtype == torch.bfloat16
    exact = run(full_logps, h.float(), weight.float(), labels, upstream)
    for a, e in zip((logps, grad_h, grad_w), exact, strict=True):
        assert (a.float() - e).norm() / e.norm() < 1e-2


def test_frozen_weight_gets_no_gradient():
    h = torch.randn(N, D, requires_grad=True)
    linear_logps(h, torch.randn(V, D), torch.randint(0, V, (N,))).sum().backward()
    assert h.grad is not None
