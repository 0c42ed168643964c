"""AdamW, the learning-rate schedule, and the one place where a step is applied or refused."""

import math

import torch
from torch import nn
from torch.distributed.tensor import DTensor

from errors import UserError
from settings import OptimConfig


def make_optimizer(cfg: OptimConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Make AdamW over the trainable parameters."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": cfg.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},  # norms and biases
    ]
    groups = [group for group in groups if group["params"]]
    return torch.optim.AdamW(groups, lr=cfg.lr, betas=cfg.betas, fused=True)


def lr_at(cfg: OptimConfig, step: int, num_steps: int) -> float:
    """Return the rate of steps 0 … num_steps − 1. The first is above zero, the one after the last would be 0."""
    warmup_steps = math.ceil(cfg.warmup * num_steps)
    if step < warmup_steps:
        return cfg.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * done))


def apply_step(
    cfg: OptimConfig, model: nn.Module, optimizer: torch.optim.Optimizer, lr: float, step: int, sums: torch.Tensor
) -> tuple[list[float], float]:
    """Clip, check, step, clear. Returns (`sums` as floats, the gradient norm before clipping).

    sums: [K] on the device, already summed over ranks, the step's loss first; they are read together with the norm,
    so a step waits for the GPU once. Raises UserError, before any weight changes, if loss or norm is not finite.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.max_grad_norm)
    norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
    *values, norm = torch.cat([sums, norm.to(sums)[None]]).tolist()
    if not (math.isfinite(values[0]) and math.isfinite(norm)):
        raise UserError(
            f"step {step}: loss {values[0]}, gradient norm {norm}; stopped before the update, any checkpoint is "
            f"sound (a lower optim.lr or a look at this step's data may help)"
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return values, norm


def gradient_norm(model: nn.Module) -> float:
    """Return the norm of what `backward` has gathered, over all ranks, and clear it."""
    norm = torch.nn.utils.get_total_norm(p.grad for p in model.parameters() if p.grad is not None)
    model.zero_grad(set_to_none=True)
    return (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
