"""LoRA through the peft library: small trainable matrices beside frozen weights.

The reference policy is the same model without its adapters: log π_ref is computed before the first step, when B = 0
makes every adapter an exact zero.
"""

import math
import zlib
from collections.abc import Callable

import torch
from torch import nn

from errors import UserError
from settings import LoraConfig

ADAPTER = "default"


def add_adapters(lm: nn.Module, cfg: LoraConfig, frozen_dtype: torch.dtype) -> None:
    """Put float32 adapters beside the linear layers of a model on the meta device; the rest becomes `frozen_dtype`.

    Raises UserError if no layer bears one of the names in cfg.targets.
    """
    import peft

    for parameter in lm.parameters():
        parameter.requires_grad_(False)
    lm.to(frozen_dtype)
    config = peft.LoraConfig(
        r=cfg.rank, lora_alpha=cfg.alpha, target_modules=cfg.targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    try:
        peft.inject_adapter_in_model(config, lm, adapter_name=ADAPTER)
    except ValueError as error:
        raise UserError(f"lora.targets={cfg.targets}: {' '.join(str(error).split())[:200]}") from None
    for name, parameter in lm.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.float()


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return ".lora_" in name


def plain_name(name: str) -> str:
    """Return the name that a parameter has in the model without adapters."""
    return name.replace(".base_layer.", ".")


def initial_value(name: str, shape: torch.Size, seed: int) -> torch.Tensor:
    """Draw an adapter's start, float32: A as kaiming-uniform noise from the seed and the name alone, B as zero."""
    if ".lora_B." in name:
        return torch.zeros(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode()))
    value = torch.empty(shape)
    return torch.nn.init.kaiming_uniform_(value, a=math.sqrt(5), generator=generator)


def merged_value(lm: nn.Module) -> Callable[[str, nn.Parameter], torch.Tensor]:
    """Make a function (name, parameter) -> full tensor on every rank, in which W has become W + (α/r) B A.

    For model.export.export. It is a collective under sharding: all ranks call it for the same names in one order.
    """
    modules = dict(lm.named_modules())

    def value(name, parameter):
        full = _full(parameter)
        layer = modules.get(name.removesuffix(".base_layer.weight"))
        if not name.endswith(".base_layer.weight"):
            return full
        a, b = (_full(getattr(layer, part)[ADAPTER].weight) for part in ("lora_A", "lora_B"))
        return full.float() + layer.scaling[ADAPTER] * (b @ a)

    return value


def _full(parameter):
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.data
