"""Attention over packed sequences: segment i of a packed row attends to itself alone, causally.

Registered with transformers under the name "packed", so the models stay the library's own. A packed batch is one row
of T tokens; `cu_seqlens` [S+1] holds the segment boundaries and travels to this function as a keyword argument of
`model(...)`. No mask tensor exists. A layer with a sliding window of W says so to its attention function: a token then
sees itself and the W − 1 before it.

    B = 1  T tokens  N query heads  K key/value heads  H head size
"""

import inspect
import itertools
from functools import partial
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from transformers import AttentionInterface

from errors import UserError, one_line
from progress import say

NAME = "packed"
# torch 2.11 takes grouped heads unasked
GROUPED = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}


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
    return varlen_attn(
        q_TNH, k_TKH, v_TKH, cu_seqlens, cu_seqlens, max_seqlen, max_seqlen,
        scale=scale, window_size=(window - 1 if window else -1, 0), **GROUPED,
    )  # fmt: skip


def _sdpa(q_TNH, k_TKH, v_TKH, cu_seqlens, max_seqlen, scale, window=None):
    """Call torch's attention once a segment: it runs anywhere, in any dtype, and nothing can leak from one segment into
    another. On CUDA each layer waits for the GPU, to read where segments end."""
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

# no mask function of this name is registered: the library then makes no mask, and asks no GPU whether a row is packed
AttentionInterface.register(NAME, packed_attention)


def backends_here(device: torch.device, dtype: torch.dtype) -> list[str]:
    """List the keys of ATTEND that a torch.device and the installed packages have kernels for, the fastest first."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return ["sdpa"]
    generation = torch.cuda.get_device_capability(device)[0]
    if generation < 8:  # the flash kernels, torch's own included, want Ampere or newer
        return ["sdpa"]
    found = ["flash3"] if generation == 9 and find_spec("flash_attn_interface") else []
    if find_spec("flash_attn_2_cuda"):  # its compiled module: the name flash_attn may be flash-attn 4's
        found.append("flash2")
    return [*found, "varlen", "sdpa"]


def try_backend(name: str, device: torch.device, dtype: torch.dtype, head_size: int = 64) -> str:
    """Run a backend on two short segments, forward and backward, with and without a window. Returns what it says of
    itself when it cannot: a package may be built for another torch, or lack this head size; "" if it works."""
    q, k, v = (torch.ones(16, heads, head_size, device=device, dtype=dtype, requires_grad=True) for heads in (4, 2, 2))
    bounds = torch.tensor([0, 5, 16], dtype=torch.int32, device=device)
    try:
        for window in (None, 4):
            ATTEND[name](q, k, v, bounds, 11, None, window).sum().backward()
        # equal values are their own mean, wherever attention looks; kernels run later than they are called
        off = (ATTEND[name](q, k, v, bounds, 11, None) - 1).abs().max().item()
    except Exception as error:  # whatever a library says that does not fit
        return f"{type(error).__name__}: {one_line(error)}"
    return "" if off < 0.1 else f"a mean of ones is off by {off:.2g}"


def choose_backend(wanted: str, device: torch.device, dtype: torch.dtype, head_size: int = 64) -> str:
    """Resolve `attention:` of the config to a key of ATTEND that has been tried, and say which ones did not work.

    Raises UserError for what cannot work here.
    """
    here = backends_here(device, dtype)
    fits = here if wanted == "auto" else [name for name in here if name.startswith(wanted)]
    for name in fits:
        fault = try_backend(name, device, dtype, head_size)
        if not fault:
            return name
        say(f"warning: the attention backend {name} does not work here ({fault})")
    needs = [] if "varlen" in here else ["a GPU of the Ampere generation or newer and bfloat16 compute"]
    if wanted == "flash" and not fits:
        needs.append("the flash-attn package (pip install -r requirements-cuda.txt)")
    what = f"needs {' and '.join(needs)}" if needs else f"does not work here ({fault})"
    raise UserError(f"attention: {wanted} {what}; attention: auto uses what works here")
