"""Activation checkpointing: what a decoder layer keeps of its forward pass, and what it computes again.

It wraps the layer's `forward`, inside FSDP's hooks (whose gathered weights serve both passes) and inside torch.compile
(which then sees, and honours, the choice of what to keep).
"""

from functools import partial, wraps

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

PRODUCTS = {torch.ops.aten.mm.default, torch.ops.aten.addmm.default}
ATTENTION = (  # by name: the flash-attn package registers its own when it is imported
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_flash_attn_varlen_forward",
    "_flash_attn_forward",
    "_varlen_attn",
    "flash_attn_3.fwd",
)


def checkpointed(forward, mode):
    """`forward` of a decoder layer under mode "none", "selective" or "full"."""
    if mode == "none":
        return forward
    contexts = {"context_fn": _selective_contexts} if mode == "selective" else {}

    @wraps(forward)
    def wrapped(*args, **kwargs):
        return checkpoint(forward, *args, use_reentrant=False, preserve_rng_state=False, **contexts, **kwargs)

    return wrapped


def _selective_contexts():
    return create_selective_checkpoint_contexts(partial(_policy, seen={False: 0, True: 0}))


def _policy(ctx, op, *args, seen, **kwargs):
    """Keep attention, whose recomputation costs most, and every second matrix product."""
    if op in PRODUCTS:
        seen[ctx.is_recompute] += 1
        return CheckpointPolicy.MUST_SAVE if seen[ctx.is_recompute] % 2 else CheckpointPolicy.PREFER_RECOMPUTE
    if any(name in str(op) for name in ATTENTION):
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
