"""CogPO (Eq. 3): DPO whose β is chosen per pair by its preference gap.

    gap 0  small    suitable   > unsuitable (both correct)    β_S = 0.1
    gap 1  medium   unsuitable > incorrect                    β_M = 0.2
    gap 2  large    suitable   > incorrect                    β_L = 0.5

A larger β asks for less movement before a pair counts as learnt: −log σ(β z) saturates at a smaller log-ratio gap z,
while its pull at z = 0 is β/2, the strongest for the large gap.
"""

import torch
from torch import Tensor

from losses.dpo import PairLoss, dpo_loss

BETAS = (0.1, 0.2, 0.5)  # β_S, β_M, β_L (A.2)


def cogpo_loss(
    logps: Tensor,
    ref_logps: Tensor,
    chosen: Tensor,
    rejected: Tensor,
    gap: Tensor,
    betas: tuple[float, float, float] = BETAS,
    penalty: float = 0.0,
) -> PairLoss:
    """Compute −log σ(β_gap (Δ_w − Δ_l))   (Eq. 3; Δ as in Eq. 1, penalty as in dpo_loss).

    logps, ref_logps: float32 [R], summed response log-probs in nats. chosen, rejected: int64 [P], indices into R.
    gap: int64 [P], 0 small, 1 medium, 2 large. betas: (β_S, β_M, β_L). Returns a PairLoss.
    """
    table = torch.stack([logps.new_full((), beta) for beta in betas])  # filled there: a copy would wait for the GPU
    return dpo_loss(logps, ref_logps, chosen, rejected, beta=table[gap], penalty=penalty)
