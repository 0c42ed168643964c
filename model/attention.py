"""Attention over packed sequences: segment i of a packed row attends to itself alone, causally.

Registered with transformers under the name "packed", so the models stay the library's own. A packed batch is one row
of T tokens; `cu_seqlens` [S+1] holds the segment boundaries and travels to this function as a keyword argument of
`model(...)`. No mask tensor exists. A layer with a sliding window of W says so to its attention function: a token then
sees itself and the W − 1 before it.

    B = 1  T tokens  N query heads  K key/value heads  H head size
"""

import itertools
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from errors import UserError

NAME = "packed"


def packed_attention(
    module: nn.Module,
    q_BNTH: Tensor,
    k_BKTH: Tensor,
    v_BKTH: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, None]:
    """Attend within segments; transformers calls it. Returns ([B, T, N, H], None)."""
    assert attention_mask is None and dropout == 0.0 and q_BNTH.shape[0] == 1
    only_plain(module, kwargs, "cu_seqlens" in kwargs)
    q_TNH, k_TKH, v_TKH = (x[0].transpose(0, 1) for x in (q_BNTH, k_BKTH, v_BKTH))
    attend = ATTEND[module.config.packed_backend]
    bounds, window = (kwargs["cu_seqlens"], kwargs["max_seqlen"]), kwargs.get("sliding_window")
    # the flash kernels know one head size; latent attention has smaller values than keys
    size = v_TKH.shape[-1]
    if (more := q_TNH.shape[-1] - size) > 0:
        v_TKH = F.pad(v_TKH, (0, more))
    out_TNH = attend(q_TNH, k_TKH, v_TKH, *bounds, scaling, window)
    return out_TNH[..., :size].unsqueeze(0), None


def only_plain(module: nn.Module, kwargs: dict, boundaries: bool) -> None:
    """Refuse what a model asks of attention beyond plain attention. Raises UserError naming it.

    boundaries: whether the model has handed on what says which tokens belong together.
    """
    for key, what in (("softcap", "caps its scores"), ("s_aux", "has attention sinks")):
        if kwargs.get(key) is not None:
            raise UserError(f"{type(module).__name__} {what} ({key}), which is not supported (docs/models.md)")
    if not boundaries:
        raise UserError(f"{type(module).__name__} does not hand on what attention is told (docs/models.md)")


def _flash3(q_TNH, k_TKH, v_TKH, cu_seqlens, max_seqlen, scale, window=None):
    from flash_attn_interface import flash_attn_varlen_func

    out = flash_attn_varlen_func(
        q_TNH, k_TKH, v_TKH, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen,
        softmax_scale=scale, causal=True, window_size=(window - 1 if window else -1, 0 if window else -1),
    )  # fmt: skip
    return out[0] if isinstance(out, tuple) else out  # its betas return the log-sum-exp as well


def _flash2(q_TNH, k_TKH, v_TKH, cu_seqlens, max_seqlen, scale, window=None):
    from flash_attn import flash_attn_varlen_func

    return flash_attn_varlen_func(
        q_TNH, k_TKH, v_TKH, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen,
        softmax_scale=scale, causal=True, window_size=(window - 1 if window else -1, 0 if window else -1),
    )  # fmt: skip


def _varlen(q_TNH, k_TKH, v_TKH, cu_seqlens, max_seqlen, scale, window=None):
    from torch.nn.attention.varlen import varlen_attn

    return varlen_attn(
        q_TNH, k_TKH, v_TKH, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen,
        scale=scale, window_size=(window - 1 if window else -1, 0), enable_gqa=True,
    )  # fmt: skip


def _sdpa(q_TNH, k_TKH, v_TKH, cu_seqlens, max_seqlen, scale, window=None):
    """One call a segment: runs anywhere, in any dtype, and nothing can leak from one segment into another."""
    bounds, dtype = cu_seqlens.tolist(), q_TNH.dtype
    if q_TNH.device.type == "cpu":  # in bfloat16 torch's kernel takes up to twice as long there, backward
        q_TNH, k_TKH, v_TKH = q_TNH.float(), k_TKH.float(), v_TKH.float()
    outs = []
    for start, end in itertools.pairwise(bounds):
        q_NSH, k_KSH, v_KSH = (x[start:end].transpose(0, 1).unsqueeze(0) for x in (q_TNH, k_TKH, v_TKH))
        outs.append(causal_attention(q_NSH, k_KSH, v_KSH, scale, window)[0].transpose(0, 1))
    return torch.cat(outs).to(dtype)


def causal_attention(q_BNSH: Tensor, k_BKSH: Tensor, v_BKSH: Tensor, scale: float | None, window: int | None) -> Tensor:
    """Attend causally, through a window if there is one: in blocks of W queries over 2 W − 1 keys, not S × S scores."""
    attend, length = partial(F.scaled_dot_product_attention, scale=scale, enable_gqa=True), q_BNSH.shape[2]
    if not window or window >= length:
        return attend(q_BNSH, k_BKSH, v_BKSH, is_causal=True)
    outs, at = [], torch.arange(length, device=q_BNSH.device)
    for start in range(0, length, window):
        queries, keys = slice(start, start + window), slice(max(0, start - window + 1), start + window)
        back = at[queries, None] - at[keys]
        mask = (back >= 0) & (back < window)
        outs.append(attend(q_BNSH[:, :, queries], k_BKSH[:, :, keys], v_BKSH[:, :, keys], attn_mask=mask))
    return torch.cat(outs, dim=2)


ATTEND = {"flash3": _flash3, "flash2": _flash2, "varlen": _varlen, "sdpa": _sdpa}

AttentionInterface.register(NAME, packed_attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # boundaries come as cu_seqlens, not as a mask


def backends_here(device: torch.device, dtype: torch.dtype) -> list[str]:
    """List the keys of ATTEND that work on a torch.device in a compute dtype, the fastest first."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return ["sdpa"]
    generation = torch.cuda.get_device_capability(device)[0]
    if generation < 8:  # the flash kernels, torch's own included, want Ampere or newer
        return ["sdpa"]
    found = ["flash3"] if generation == 9 and find_spec("flash_attn_interface") else []
    if find_spec("flash_attn_2_cuda"):  # its compiled module: the name flash_attn may be flash-attn 4's
        found.append("flash2")
    return [*found, "varlen", "sdpa"]


def choose_backend(wanted: str, device: torch.device, dtype: torch.dtype) -> str:
    """Resolve `attention:` of the config to a key of ATTEND. Raises UserError for what cannot work here."""
    here = backends_here(device, dtype)
    if wanted == "auto":
        return here[0]
    fits = [name for name in here if name.startswith(wanted)]
    if fits:
        return fits[0]
    needs = [] if "varlen" in here else ["a GPU of the Ampere generation or newer and bfloat16 compute"]
    if wanted == "flash":
        needs.append("the flash-attn package (pip install -r requirements-cuda.txt)")
    raise UserError(f"attention: {wanted} needs {' and '.join(needs)}; attention: auto uses what works here")
