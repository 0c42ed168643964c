"""The loss of supervised fine-tuning (§3.1, phase 1)."""


def sft_loss(logps, mask):
    """Negative log-likelihood of the supervised tokens, summed; the caller divides by the global token count.

    logps: float32 [T], log π(token) in nats. mask: [T], 1 where the token is supervised. Returns float32 [].
    """
    return -(logps * mask).sum()
