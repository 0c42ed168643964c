"""LoRA through the peft library: small trainable matrices beside frozen weights.

The reference policy is the same model without its adapters: log π_ref is computed before the first step, when B = 0
makes every adapter an exact zero.
"""

import math
import re
import zlib
from collections.abc import Callable

import torch
from torch import nn

from errors import UserError, one_line
from settings import LoraConfig

ADAPTER = "default"


def add_adapters(lm: nn.Module, cfg: LoraConfig, frozen_dtype: torch.dtype) -> None:
    """Put float32 adapters beside the linear layers of a model on the meta device; the rest becomes `frozen_dtype`.

    Raises UserError if no layer bears one of the names in cfg.targets, or one that can have no adapter does.
    """
    import peft

    for parameter in lm.parameters():  # not lm.to(): buffers keep their dtype
        parameter.requires_grad_(False)
        parameter.data = parameter.data.to(frozen_dtype)
    config = peft.LoraConfig(
        r=cfg.rank, lora_alpha=cfg.alpha, target_modules=cfg.targets, lora_dropout=0.0, task_type="CAUSAL_LM"
    )
    try:
        peft.inject_adapter_in_model(config, lm, adapter_name=ADAPTER)
    except (ValueError, re.error) as error:
        raise UserError(f"lora.targets={cfg.targets}: {one_line(error, 200)}") from None
    # the head's weight is read past its adapter (model/logprobs.py), an embedding's adapter is made of other tensors
    for name, module in lm.named_modules():
        linear = isinstance(module, peft.tuners.lora.Linear) and module is not lm.get_output_embeddings()
        if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer) and not linear:
            raise UserError(
                f"lora.targets={cfg.targets}: {name} cannot have an adapter, only linear layers below the head can; "
                f"leave it out"
            )
    for name, parameter in lm.named_parameters():
        if is_adapter(name):
            parameter.data = parameter.data.float()


def is_adapter(name: str) -> bool:
    """Tell whether a parameter belongs to an adapter."""
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


def adapter_change(lm: nn.Module) -> Callable[[str], torch.Tensor | None]:
    """Make a function (name of a parameter) -> (α/r) B A, what its adapter adds to it, float32; None without adapter.

    For model.export.export. It is a collective under sharding: all ranks call it for the same names in one order.
    """
    modules = dict(lm.named_modules())

    def change(name: str) -> torch.Tensor | None:
        if not name.endswith(".base_layer.weight"):
            return None
        layer = modules[name.removesuffix(".base_layer.weight")]
        a, b = (whole(getattr(layer, part)[ADAPTER].weight) for part in ("lora_A", "lora_B"))
        return layer.scaling[ADAPTER] * (b @ a)

    return change


def whole(parameter: nn.Parameter) -> torch.Tensor:
    """Gather a parameter's full tensor, on every rank. A collective under sharding."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter.data
