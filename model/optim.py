"""AdamW, the learning-rate schedule, and the one place where a step is applied or refused."""

import importlib.util
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch.distributed.tensor import DTensor

from errors import UserError


@dataclass
class OptimConfig:
    """AdamW with linear warm-up, then cosine to zero."""

    lr: float
    """peak learning rate (Table 8: 1e-5 for SFT, 5e-7 for the preference stage)"""
    warmup: float = 0.1
    """share of the steps with linear warm-up"""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's moments"""
    eps: float = 1e-8
    """AdamW's epsilon"""
    weight_decay: float = 0.0
    """decoupled weight decay, of matrices only"""
    max_grad_norm: float = 1.0
    """gradients are scaled down to this global norm; .inf leaves them as they are"""
    state: Literal["float32", "8bit"] = "float32"
    """AdamW's moments: 8 bytes a weight, or 2 with torchao's 8-bit AdamW (pip install torchao)"""


def check_optim(cfg):
    """Raises UserError for settings that would spoil the weights, or train nothing."""
    if not (math.isfinite(cfg.lr) and cfg.lr > 0):
        raise UserError(f"config key optim.lr must be a finite number above 0, not {cfg.lr}")
    if not cfg.max_grad_norm > 0:
        raise UserError(f"config key optim.max_grad_norm must be above 0 (.inf: no clipping), not {cfg.max_grad_norm}")
    if not 0 <= cfg.warmup <= 1:
        raise UserError(f"config key optim.warmup is a share of the steps, from 0 to 1, not {cfg.warmup}")


def make_optimizer(cfg, model):
    """AdamW over the trainable parameters. Raises UserError if the package for `cfg.state` is missing."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": cfg.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},  # norms and biases
    ]
    groups = [group for group in groups if group["params"]]
    if cfg.state == "float32":
        return torch.optim.AdamW(groups, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps, fused=True)
    if importlib.util.find_spec("torchao") is None:
        raise UserError("optim.state: 8bit needs the torchao package (pip install torchao)")
    from torchao.optim import AdamW8bit

    return AdamW8bit(groups, lr=cfg.lr, betas=cfg.betas, eps=cfg.eps)


def lr_at(cfg, step, num_steps):
    """Learning rate of step 0 … num_steps − 1. Step 0 is already above zero, the step after the last would be zero."""
    warmup_steps = math.ceil(cfg.warmup * num_steps)
    if step < warmup_steps:
        return cfg.lr * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, num_steps - warmup_steps)
    return cfg.lr * 0.5 * (1 + math.cos(math.pi * done))


def apply_step(cfg, model, optimizer, lr, loss, step):
    """Clip, check, step, clear. loss: float, the step's global loss. Returns the gradient norm before clipping.

    Raises UserError, before any weight changes, if the loss or the norm is not finite.
    """
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.max_grad_norm)
    norm = (norm.full_tensor() if isinstance(norm, DTensor) else norm).item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        raise UserError(
            f"step {step}: loss {loss}, gradient norm {norm}; stopped before the update, the last checkpoint is sound "
            f"(a lower optim.lr or a look at this step's data may help)"
        )
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):  # torchao's: a number would be compiled in
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
