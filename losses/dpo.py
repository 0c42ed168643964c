"""DPO (Eq. 1 and 2), in the index form that lets pairs share responses.

A batch holds R unique responses and P pairs over them. Each response is run through the model once, however many
pairs it is in; a pair is two indices into the responses.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass
class PairLoss:
    """What every preference loss returns; all float32 [P], one entry a pair. Only `loss` carries a gradient."""

    loss: Tensor  # not reduced: the caller sums and divides by the global pair count
    margin: Tensor  # β (Δ_w − Δ_l), the difference of the two rewards
    beta: Tensor
    chosen_reward: Tensor  # β Δ_w
    rejected_reward: Tensor  # β Δ_l


def dpo_loss(
    logps: Tensor,
    ref_logps: Tensor,
    chosen: Tensor,
    rejected: Tensor,
    beta: float | Tensor = 0.1,
    penalty: float = 0.0,
) -> PairLoss:
    """Compute −log σ(M_β) with M_β = β (Δ_w − Δ_l) and Δ = log π_θ(y|x) − log π_ref(y|x)   (Eq. 1, 2).

    logps, ref_logps: float32 [R], summed response log-probs in nats; divided by the responses' lengths, both of them,
    the loss is length-normalised. chosen, rejected: int64 [P], indices into R. beta: a float, or float32 [P] with one
    value a pair. penalty: λ of DPOP (arXiv 2402.13228), −log σ(β (Δ_w − Δ_l − λ max(0, −Δ_w))), which holds a chosen
    response where the reference had it. `margin` is without it, so that margin > 0 means the chosen one is preferred.
    """
    delta = logps - ref_logps  # [R]
    delta_w, delta_l = delta[chosen], delta[rejected]
    beta = beta if isinstance(beta, Tensor) else delta.new_full((), beta)
    beta = beta.expand_as(delta_w)
    margin = beta * (delta_w - delta_l)
    return PairLoss(
        loss=-F.logsigmoid(margin - beta * penalty * (-delta_w).relu()),
        margin=margin.detach(),
        beta=beta.detach(),
        chosen_reward=(beta * delta_w).detach(),
        rejected_reward=(beta * delta_l).detach(),
    )
