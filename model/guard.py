"""Is a model computed here as transformers computes it? Shown on the model itself; what is not is refused in one line.

What a config declares can be refused before any weight is read: what shows on long rows alone (rope that follows the
longest position), what the weights mean (quantisation), what has no place here. All else, by whatever name, shows in
numbers: two short sequences go through the loaded model packed, alone, and through transformers' own forward pass and
attention, with windows so short that they show. One guard serves training, generation and evaluation.
"""

import copy
import re
from collections.abc import Callable
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from data.packing import pack
from data.render import Sequence
from errors import UserError, one_line

LAYERS = {"full_attention", "sliding_attention"}
ROPES = {"default", "linear", "yarn", "llama3"}  # the same for every length; dynamic and longrope are not
WINDOW = 8
LOGITS = re.compile(r"logit|softcap|lm_head|multiplier|scale")


def check_config(config: PretrainedConfig, path: str) -> None:
    """Refuse what a config declares and short sequences would not show. Raises UserError naming it."""

    def refuse(what):
        raise UserError(f"{path} ({config.model_type}) {what}, which is not supported (docs/models.md)")

    if config.get_text_config() is not config:
        refuse(f"holds more than a language model ({', '.join(config.sub_configs)})")
    if getattr(config, "quantization_config", None):
        method = dict(config.quantization_config).get("quant_method", "some method")
        refuse(f"is quantised ({method}: quantization_config)")
    # caps, which bend log-probs by less than bfloat16 rounds them
    if capped := [key for key, value in config.to_dict().items() if "softcap" in key and value]:
        refuse(f"caps its logits or scores ({', '.join(capped)})")
    # attention of every layer, under the names that hybrid models have for their lists
    for key in ("layer_types", "layers_block_type", "block_types"):
        if kinds := sorted(set(getattr(config, key, None) or []) - LAYERS):
            refuse(f"has layers of other kinds than full or sliding attention ({key}: {', '.join(map(str, kinds))})")
    # rope, of all layers or by kind of layer
    ropes = getattr(config, "rope_parameters", None) or {}
    for rope in [ropes, *(value for value in ropes.values() if isinstance(value, dict))]:
        if rope.get("rope_type", "default") not in ROPES:
            refuse(f"has positions that depend on the longest sequence of a row (rope_type: {rope['rope_type']})")


def skeleton(config: PretrainedConfig, path: str, dtype: torch.dtype, attention: str = "eager") -> nn.Module:
    """Build transformers' own model of a config on the meta device: decoder layers between an embedding and a head.

    dtype: of its weights. attention: the name of a function registered with transformers. Raises UserError for a
    config that cannot be built, and for a model that is built otherwise.
    """
    check_config(config, path)
    try:
        with torch.device("meta"):
            lm = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, attn_implementation=attention)
    except Exception as error:  # whatever the library says to a config that it cannot build
        raise UserError(f"cannot load a model from {path}: {one_line(error)}") from error
    parts = ("model.embed_tokens", "model.layers", "model.norm", "lm_head")
    if absent := [part for part in parts if part not in dict(lm.named_modules())]:
        raise UserError(f"{path} ({type(lm).__name__}) is built otherwise than the models known here: no {absent[0]}")
    if not isinstance(lm.lm_head, nn.Linear) or lm.lm_head.bias is not None:
        raise UserError(f"{path} ({type(lm).__name__}) has no plain linear lm_head, without bias")
    return lm


def dropouts(config: PretrainedConfig) -> dict[str, float]:
    """Return the dropout that a config asks for: {key: probability}. None of it is done here, in any pass."""
    return {
        key: value
        for key, value in config.to_dict().items()
        if re.search("dropout|pdrop|drop_path|jitter", key) and isinstance(value, float) and value > 0
    }


@contextmanager
def probing(lm: nn.Module):
    """Make a model's windows WINDOW tokens long inside `with`; no layer is compiled anew for that."""
    windowed = [part for part in (lm.config, *lm.modules()) if isinstance(getattr(part, "sliding_window", None), int)]
    before = [part.sliding_window for part in windowed]
    try:
        for part in windowed:
            part.sliding_window = WINDOW
        with torch.compiler.set_stance("force_eager"):
            yield
    finally:
        for part, window in zip(windowed, before, strict=True):
            part.sliding_window = window


def library_logps(lm: nn.Module, ids: Tensor) -> Tensor:
    """Compute log softmax(logits)[next token] by transformers' own forward pass. ids: int64 [1, T]. float32 [T - 1]."""
    ours, lm.config._attn_implementation = lm.config._attn_implementation, "eager"  # and its masks
    try:
        logits_TV = lm(input_ids=ids, use_cache=False).logits[0, :-1].float()
    finally:
        lm.config._attn_implementation = ours
    return logits_TV.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]


def probes(vocabulary: int) -> tuple[Sequence, Sequence, Sequence]:
    """Draw three short sequences, two of them of one length."""
    rng = np.random.default_rng(0)
    return tuple(Sequence(rng.integers(0, vocabulary, n).astype(np.int32), 1) for n in (24, 24, 17))


def shown(path: str, lm: nn.Module, check: Callable[[], str]) -> str:
    """Run a check of a model that may not even take what is given to it. Returns what is wrong; "" if nothing is."""
    try:
        with probing(lm):
            return check()
    except (UserError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever a model says that expects other arguments
        return f"{path} ({type(lm).__name__}) cannot be run here: {type(error).__name__}: {one_line(error)}"


@torch.no_grad()
def check_packing(model: Callable, lm: nn.Module, device: torch.device, dtype: torch.dtype, path: str) -> str:
    """Compare a sequence's log-probs packed behind another one, alone, and by transformers' own forward pass.

    model: a model.logprobs.LogProbModel over `lm`. Every rank makes the same four passes. Returns what is wrong, in
    words; "" if nothing is.
    """
    before, other, last = probes(lm.config.vocab_size)

    def logps(*sequences, **how):
        batch = pack(list(sequences)).to(device)
        return model(batch, **how)[-batch.response_lens[-1] :]

    packed, beside_other, alone = logps(before, last), logps(other, last), logps(last)
    library = logps(last, library=True)
    if fault := differs(alone, library, lm, dtype, path):
        return fault
    # the same shapes and kernels: what comes before another sequence must not change it at all. But an expert's product
    # has as many rows as both sequences send there, and is rounded otherwise for another number
    routed = any(name.endswith(".experts") for name, _ in lm.named_modules())
    limit = tolerance(dtype, library) if routed else max(1e-4, 8 * torch.finfo(dtype).eps)
    if (leak := _distance(packed, beside_other)) > limit:
        parts = sorted({type(part).__name__ for layer in lm.model.layers for part in layer.children()})
        return (
            f"{path} ({type(lm).__name__}): what stands before a packed sequence changes its log-probs (by {leak:.2g} "
            f"nats a token); something mixes tokens outside attention ({', '.join(parts)})"
        )
    if (away := _distance(packed, alone)) > tolerance(dtype, library):
        return (
            f"{path} ({type(lm).__name__}): packed and alone, a sequence's log-probs differ by {away:.2g} nats a token"
        )
    return ""


def differs(ours: Tensor, library: Tensor, lm: nn.Module, dtype: torch.dtype, path: str) -> str:
    """Say that log-probs differ from those of transformers' own forward pass, and what may be the reason; "" if not."""
    if not library.isfinite().all():
        return f"{path} ({type(lm).__name__}) computes values that are not finite: its weights are damaged"
    if not (away := _distance(ours, library)) > tolerance(dtype, library):
        return ""
    values = {k: v for k, v in lm.config.to_dict().items() if LOGITS.search(k) and isinstance(v, int | float) and v}
    what = f"transforms its logits ({', '.join(values)})" if values else "computes something"
    return (
        f"{path} ({type(lm).__name__}) {what} in a way that is not supported: log-probs differ by {away:.2g} nats a "
        f"token from those of transformers' own forward pass"
    )


def tolerance(dtype: torch.dtype, logps: Tensor) -> float:
    """Return the nats a token (root mean square) that the rounding of two ways to compute in `dtype` explains.

    Logits are rounded in proportion to their size, which the spread of random tokens' log-probs shows: 0.08 to 0.23
    nats were measured for SmolLM2-135M in bfloat16, 5e-6 in float32; a forgotten scale is as large as the spread.
    """
    return max(1e-3, 32 * torch.finfo(dtype).eps) * max(1.0, logps.std().item())


def _distance(a, b):
    return (a - b).square().mean().sqrt().nan_to_num(float("inf")).item()
