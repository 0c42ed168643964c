"""The loss of supervised fine-tuning (§3.1, phase 1)."""

from torch import Tensor


def sft_loss(logps: Tensor, mask: Tensor | float) -> Tensor:
    """Sum the negative log-likelihood of the supervised tokens; the caller divides by the global token count.

    logps: float32 [T], log π(token) in nats. mask: [T], 1 where the token is supervised. Returns float32 [].
    """
    return -(logps * mask).sum()
