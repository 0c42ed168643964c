"""Log-probabilities of supervised tokens, straight from hidden states: the logits [N, V] never exist whole.

Long chains over a large vocabulary would need 10 GB for one fp32 copy of the logits (16k tokens, V = 152k). Here they
are made a block of the vocabulary at a time for all tokens, reduced to one number a token, dropped, and made again in
the backward pass. A block owns its rows of the weight's gradient, so each of those is one matrix product over all
tokens, accumulated in float32 and rounded once: no float32 copy of the gradient exists either.

    N supervised tokens  D hidden size  V vocabulary  B words in a block
"""

import torch
from torch import Tensor, nn

from data.packing import PackedBatch
from model.guard import library_logps

BLOCK = 2048  # words at a time: the float32 logits of 16k tokens take 134 MB


class _LinearLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h_ND, weight_VD, labels_N, block):
        lses, label_logit = [], torch.zeros(len(h_ND), device=h_ND.device)
        for start in range(0, len(weight_VD), block):
            logits_NB = mm32(h_ND, weight_VD[start : start + block].T)
            lses.append(logits_NB.logsumexp(-1))
            here, inside = _within(labels_N, start, logits_NB)
            label_logit = torch.where(inside, logits_NB.gather(-1, here)[:, 0], label_logit)
            del logits_NB  # before the next block is made
        lse_N = torch.stack(lses).logsumexp(0)  # once over all blocks: adding them one by one rounds V / B times
        ctx.save_for_backward(h_ND, weight_VD, labels_N, lse_N)
        ctx.block = block
        return label_logit - lse_N

    @staticmethod
    def backward(ctx, grad_N):
        h_ND, weight_VD, labels_N, lse_N = ctx.saved_tensors
        needs_h, needs_weight = ctx.needs_input_grad[:2]
        grad_h = torch.zeros_like(h_ND, dtype=torch.float32) if needs_h else None
        grad_weight = torch.empty_like(weight_VD) if needs_weight else None
        for start in range(0, len(weight_VD), ctx.block):
            rows = slice(start, start + ctx.block)
            dlogits_NB = _dlogits(h_ND, weight_VD[rows], labels_N, start, lse_N, grad_N)
            if needs_h:
                _add_mm32(grad_h, dlogits_NB, weight_VD[rows])
            if needs_weight:
                torch.mm(dlogits_NB.T, h_ND, out=grad_weight[rows])
            del dlogits_NB
        return None if grad_h is None else grad_h.to(h_ND.dtype), grad_weight, None, None


def _dlogits(h_ND, weight_BD, labels_N, start, lse_N, grad_N):
    """Compute the gradient of a block's logits, in the dtype of h: grad · (onehot(label) − softmax(logits))."""
    p_NB = mm32(h_ND, weight_BD.T).sub_(lse_N[:, None]).exp_()
    here, inside = _within(labels_N, start, p_NB)
    p_NB.scatter_add_(-1, here, -inside.to(p_NB.dtype)[:, None])  # before rounding, which would lose 1 − p(label)
    if h_ND.dtype == p_NB.dtype:
        return p_NB.mul_(-grad_N[:, None])
    return torch.mul(p_NB, -grad_N[:, None], out=torch.empty_like(p_NB, dtype=h_ND.dtype))


def _within(labels_N, start, logits_NB):
    """Return labels as columns [N, 1] of the block that begins at `start` (0 for others), and which are inside."""
    inside = (labels_N >= start) & (labels_N < start + logits_NB.shape[1])
    return torch.where(inside, labels_N - start, 0)[:, None], inside


def mm32(a: Tensor, b: Tensor) -> Tensor:
    """Compute a @ b as float32. In bfloat16 CUDA hands out its float32 sums as they are; the CPU rounds them first."""
    if a.is_cuda and a.dtype != torch.float32:
        return torch.mm(a, b, out_dtype=torch.float32)
    return (a @ b).float()


def _add_mm32(total, a, b):
    """Add a @ b to `total`, which is float32."""
    if a.dtype == torch.float32:
        total.addmm_(a, b)
    else:
        total += mm32(a, b)


def linear_logps(h_ND: Tensor, weight_VD: Tensor, labels_N: Tensor, block: int = BLOCK) -> Tensor:
    """Compute log softmax(h Wᵀ)[label] in nats, float32 [N].

    h_ND: hidden states, weight_VD: the head's weight in the same dtype, labels_N: int64 in [0, V). block: words of the
    vocabulary at a time. Memory beyond arguments and gradients: N · block float32 logits twice over, and in the
    backward pass the hidden states' gradient in float32, twice.
    """
    return _LinearLogProb.apply(h_ND, weight_VD, labels_N, block)


class LogProbModel(nn.Module):
    """A causal language model as training sees it: packed tokens in, log-probs of the supervised tokens out.

    dtype: of its matrix products.
    """

    compiled = None  # {mode: longest row} of compiled layers (model.parallel.shard), which say how they round

    def __init__(self, lm: nn.Module, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.lm, self.dtype, self.scale, logits = lm, dtype, logit_scale(lm), lm.lm_head.forward
        # the head is called as a module, so that FSDP's hooks gather its weight, but answers labels with log-probs
        lm.lm_head.forward = lambda h_ND, labels_N=None: (
            logits(h_ND) if labels_N is None else linear_logps(h_ND, lm.lm_head.weight, labels_N)
        )

    def forward(self, batch: PackedBatch, library: bool = False) -> Tensor:
        """Run a batch on the model's device. Returns log-probs, float32 [N], in the order of the batch.

        library: by transformers' own forward pass instead, of one sequence with a prompt of one token.
        """
        if library:
            return library_logps(self.lm, batch.input_ids)
        hidden_BTD = self.lm.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
            use_cache=False,
        ).last_hidden_state
        hidden_ND = hidden_BTD[0, batch.predict_from]
        return self.lm.lm_head(hidden_ND * self.scale if self.scale != 1 else hidden_ND, batch.labels)

    def without_backward(self) -> torch.set_grad_enabled:
        """Return a context for forward passes alone. Compiled layers keep their graph in it, and so the kernels of
        training: those that torch.compile makes without one may round otherwise."""
        return torch.set_grad_enabled(self.compiled is not None)


def logit_scale(lm: nn.Module) -> float:
    """Return what a model multiplies its logits with (Cohere, Granite); model/guard.py shows whether that is all."""
    return (getattr(lm.config, "logit_scale", None) or 1.0) / (getattr(lm.config, "logits_scaling", None) or 1.0)


def response_sums(logps_N: Tensor, batch: PackedBatch) -> Tensor:
    """Sum the log-probs of each response, float32 [S] (nats), one entry a sequence of the batch."""
    return torch.stack([part.sum() for part in logps_N.split(batch.response_lens)])
