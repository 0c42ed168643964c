"""The objectives, as pure functions of tensors. Read them, edit them; they import torch and nothing else."""

from losses.beta_dpo import beta_dpo_loss
from losses.cogpo import cogpo_loss
from losses.dpo import PairLoss, dpo_loss
from losses.sft import sft_loss
from losses.simpo import simpo_loss

__all__ = [
    "PairLoss",
    "beta_dpo_loss",
    "cogpo_loss",
    "dpo_loss",
    "sft_loss",
    "simpo_loss",
]
