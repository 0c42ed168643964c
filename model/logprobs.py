"""Log-probabilities of supervised tokens, straight from hidden states: the logits [N, V] never exist whole.

Long chains over a large vocabulary would need 10 GB for one fp32 copy of the logits (16k tokens, V = 152k). Here they
are made a chunk of tokens at a time, reduced to one number a token, dropped, and made again in the backward pass.
Matrix products run in the dtype of the hidden states; everything after them is float32, and so is the sum of the
weight's gradient over chunks.

    N supervised tokens  D hidden size  V vocabulary
"""

import torch
from torch import nn

CHUNK_LOGITS = 2**26  # logits per chunk: 256 MB in float32


class _LinearLogProb(torch.autograd.Function):
    @staticmethod
    def forward(ctx, h_ND, weight_VD, labels_N, chunk):
        logps, lses = [], []
        for h, labels in zip(h_ND.split(chunk), labels_N.split(chunk), strict=True):
            logits = (h @ weight_VD.T).float()
            lse = logits.logsumexp(-1)
            logps.append(logits.gather(-1, labels[:, None])[:, 0] - lse)
            lses.append(lse)
        ctx.save_for_backward(h_ND, weight_VD, labels_N, torch.cat(lses))
        ctx.chunk = chunk
        return torch.cat(logps)

    @staticmethod
    def backward(ctx, grad_N):
        h_ND, weight_VD, labels_N, lse_N = ctx.saved_tensors
        needs_h, needs_weight = ctx.needs_input_grad[:2]
        grad_h = torch.empty_like(h_ND) if needs_h else None
        grad_weight = torch.zeros_like(weight_VD, dtype=torch.float32) if needs_weight else None
        for start in range(0, len(h_ND), ctx.chunk):
            part = slice(start, start + ctx.chunk)
            h, labels, grad = h_ND[part], labels_N[part], grad_N[part]
            # d log p(label) / d logits = onehot(label) − softmax(logits)
            dlogits = (h @ weight_VD.T).float().sub_(lse_N[part, None]).exp_().mul_(-grad[:, None])
            dlogits.scatter_add_(-1, labels[:, None], grad[:, None])
            dlogits = dlogits.to(h.dtype)
            if needs_h:
                torch.mm(dlogits, weight_VD, out=grad_h[part])
            if needs_weight and h.dtype == torch.float32:
                grad_weight.addmm_(dlogits.T, h)
            elif needs_weight:
                grad_weight += dlogits.T @ h
        return grad_h, None if grad_weight is None else grad_weight.to(weight_VD.dtype), None, None


def linear_logps(h_ND, weight_VD, labels_N, chunk=None):
    """log softmax(h Wᵀ)[label] in nats, float32 [N].

    h_ND: hidden states, weight_VD: the head's weight in the same dtype, labels_N: int64 in [0, V). chunk: tokens at a
    time (default: so that a chunk's logits take 256 MB).
    """
    chunk = chunk or max(16, CHUNK_LOGITS // weight_VD.shape[0])
    return _LinearLogProb.apply(h_ND, weight_VD, labels_N, chunk)


class LogProbModel(nn.Module):
    """A causal language model as training sees it: packed tokens in, log-probs of the supervised tokens out."""

    def __init__(self, lm):
        super().__init__()
        self.lm = lm
        # the head is called as a module, so that FSDP's hooks gather its weight, but answers with log-probs
        lm.lm_head.forward = lambda h_ND, labels_N: linear_logps(h_ND, lm.lm_head.weight, labels_N)

    def forward(self, batch):
        """batch: data.packing.PackedBatch on the model's device. Returns float32 [N], in the order of the batch."""
        hidden_BTD = self.lm.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            cu_seqlens=batch.cu_seqlens,
            max_seqlen=batch.max_seqlen,
            use_cache=False,
        ).last_hidden_state
        return self.lm.lm_head(hidden_BTD[0, batch.predict_from], batch.labels)


def response_sums(logps_N, batch):
    """Sum of log-probs of each response, float32 [S] (nats), one entry a sequence of the batch."""
    return torch.stack([part.sum() for part in logps_N.split(batch.response_lens)])
