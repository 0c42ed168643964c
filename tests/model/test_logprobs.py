"""Blockwise log-probs from hidden states equal log-softmax of the full logits, and never make the full logits."""

import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from model.logprobs import BLOCK, linear_logps

N, D, V = 37, 16, 101


def full_logps(h, weight, labels):
    return (h @ weight.T).float().log_softmax(-1).gather(-1, labels[:, None])[:, 0]


def run(function, h, weight, labels, upstream):
    h, weight = h.clone().requires_grad_(), weight.clone().requires_grad_()
    out = function(h, weight, labels)
    out.backward(upstream)
    return out.detach(), h.grad, weight.grad


@pytest.mark.parametrize("block", [1, 8, 100, 101, BLOCK])
def test_values_and_gradients(block):
    torch.manual_seed(0)
    h, weight = torch.randn(N, D, dtype=torch.float32), torch.randn(V, D)
    labels, upstream = torch.randint(0, V, (N,)), torch.randn(N)
    labels[:3] = torch.tensor([0, V - 1, min(block, V - 1)])  # both ends, and the first word of the second block
    expected = run(full_logps, h, weight, labels, upstream)
    actual = run(lambda *a: linear_logps(*a, block=block), h, weight, labels, upstream)
    for e, a in zip(expected, actual, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-5)


def test_many_blocks_lose_nothing():
    """Errors of the single blocks must not add up over the vocabulary."""
    torch.manual_seed(0)
    h, weight, labels = torch.randn(64, 32) * 3, torch.randn(20_000, 32), torch.randint(0, 20_000, (64,))
    exact = (h.double() @ weight.double().T).log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    assert (linear_logps(h, weight, labels, block=50) - exact).abs().max() < 2e-5


def test_bfloat16_sums_in_float32():
    torch.manual_seed(0)
    h, weight = torch.randn(N, D).bfloat16(), torch.randn(4000, D).bfloat16()
    labels, upstream = torch.randint(0, 4000, (N,)), torch.randn(N)
    exact = run(full_logps, h.float(), weight.float(), labels, upstream)
    one = run(lambda *a: linear_logps(*a, block=4000), h, weight, labels, upstream)
    many = run(lambda *a: linear_logps(*a, block=16), h, weight, labels, upstream)
    assert many[0].dtype == torch.float32 and many[1].dtype == many[2].dtype == torch.bfloat16
    for e, o, m in zip(exact, one, many, strict=True):
        assert (m.float() - e).norm() / e.norm() < 1e-2
        assert (m.float() - o.float()).norm() / e.norm() < 4e-3  # 250 blocks summed in bfloat16 would be off by 2e-2


def test_bfloat16_gradient_of_certain_tokens():
    """After SFT most tokens are all but certain: their gradient is 1 − p(label), which bfloat16 cannot hold as p."""
    torch.manual_seed(0)
    weight, labels = torch.randn(6000, 64).bfloat16(), torch.randint(0, 6000, (96,))
    h = (weight[labels] * 0.3).bfloat16()
    upstream = torch.ones(96)
    exact = run(full_logps, h.float(), weight.float(), labels, upstream)
    assert exact[0].exp().median() > 0.99
    _, grad_h, _ = run(linear_logps, h, weight, labels, upstream)
    error = (grad_h.float() - exact[1]).norm(dim=-1) / exact[1].norm(dim=-1)
    assert error.median() < 0.03


class Created(TorchDispatchMode):
    """The storages that operations make, forward and backward: `made`, as (elements, dtype), and `peak`, bytes at once.

    given: tensors whose views do not count.
    """

    def __init__(self, *given):
        super().__init__()
        self.known = {x.untyped_storage()._cdata for x in given}
        self.made, self.now, self.peak = [], 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, (tuple, list)) else [out]:
            if torch.is_tensor(x) and x.untyped_storage()._cdata not in self.known:
                self.add(x.untyped_storage(), x)
        return out

    def add(self, storage, x):
        self.known.add(storage._cdata)
        self.made.append((storage.nbytes() // x.itemsize, x.dtype))
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self.free, storage._cdata, storage.nbytes())

    def free(self, key, nbytes):
        self.known.remove(key)
        self.now -= nbytes

    def largest(self, *dtypes):
        return max(elements for elements, dtype in self.made if not dtypes or dtype in dtypes)


def created(function, dtype, train_h=True, train_weight=True):
    """N_LARGE · BLOCK < V_LARGE · D_LARGE < N_LARGE · V_LARGE, so that each kind of tensor shows by its size."""
    torch.manual_seed(0)
    h = torch.randn(N_LARGE, D_LARGE, dtype=dtype, requires_grad=train_h)
    weight = torch.randn(V_LARGE, D_LARGE, dtype=dtype, requires_grad=train_weight)
    labels = torch.randint(0, V_LARGE, (N_LARGE,))
    with Created(h, weight) as mode:
        function(h, weight, labels).sum().backward()
    assert (h.grad is not None, weight.grad is not None) == (train_h, train_weight)
    return mode


N_LARGE, D_LARGE, V_LARGE = 96, 64, 3 * BLOCK + 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_tensor_as_large_as_the_logits(dtype):
    assert created(full_logps, dtype).largest() >= N_LARGE * V_LARGE  # the check itself sees them
    assert created(linear_logps, dtype).largest() == V_LARGE * D_LARGE  # the weight's gradient, nothing above it


def test_no_float32_copy_of_a_bfloat16_gradient():
    assert created(linear_logps, torch.bfloat16).largest(torch.float32) <= N_LARGE * BLOCK


def test_what_is_frozen_costs_nothing():
    frozen_head = created(linear_logps, torch.float32, train_weight=False)
    assert frozen_head.largest() <= N_LARGE * BLOCK
    both, weight_only = created(linear_logps, torch.float32), created(linear_logps, torch.float32, train_h=False)
    assert len(weight_only.made) < len(both.made)


def test_under_two_gigabytes_at_16k_tokens():
    """Qwen2.5-7B's head, gradients included. Tensors without storage: the accounting is exact, and at full size."""
    assert peak_bytes(linear_logps) < 2e9 < peak_bytes(full_logps)


def peak_bytes(function):
    with FakeTensorMode():
        h = torch.empty(16384, 3584, dtype=torch.bfloat16, requires_grad=True)
        weight = torch.empty(152064, 3584, dtype=torch.bfloat16, requires_grad=True)
        labels = torch.empty(16384, dtype=torch.int64)
        with Created(h, weight, labels) as mode:
            function(h, weight, labels).sum().backward()
        return mode.peak
