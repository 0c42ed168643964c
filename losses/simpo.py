"""SimPO (Meng et al. 2024), the baseline of Table 2: no reference model, length-normalised log-probs, a margin γ."""

import torch
import torch.nn.functional as F
from torch import Tensor

from losses.dpo import PairLoss


def simpo_loss(mean_logps: Tensor, chosen: Tensor, rejected: Tensor, beta: float = 2.0, gamma: float = 0.3) -> PairLoss:
    """Compute −log σ(β (mean log π(y_w) − mean log π(y_l)) − γ).

    mean_logps: float32 [R], response log-probs divided by response length, nats per token. chosen, rejected: int64 [P],
    indices into R. gamma is the absolute margin, inside the sigmoid as it stands: LLaMA-Factory's and TRL's reading of
    Table 8's γ = 0.3. SimPO's own code takes gamma_beta_ratio = γ/β, here 0.15.
    Returns a PairLoss; `margin` is β (Δ) without γ, so that margin > 0 means the chosen response is preferred.
    """
    chosen_reward, rejected_reward = beta * mean_logps[chosen], beta * mean_logps[rejected]
    margin = chosen_reward - rejected_reward
    return PairLoss(
        loss=-F.logsigmoid(margin - gamma),
        margin=margin.detach(),
        beta=torch.full_like(margin, beta).detach(),
        chosen_reward=chosen_reward.detach(),
        rejected_reward=rejected_reward.detach(),
    )
