"""β-DPO (Wu et al. 2024a) as Eq. 4 of the CogPO paper states it: each pair's β follows its own reward differential.

With three betas and gap tags it is CogPO × β-DPO. M_i is the raw log-ratio difference Δ_w − Δ_l in nats, not
multiplied by β (as in the original's released code, which takes one β a batch). Sums over long chains differ by tens
of nats, where α (M_i − M0) would send β to zero or to ten times its size: hence the floor and the ceiling.
"""

import torch
from torch import Tensor

from losses.cogpo import BETAS
from losses.dpo import PairLoss, dpo_loss


def beta_dpo_loss(
    logps: Tensor,
    ref_logps: Tensor,
    chosen: Tensor,
    rejected: Tensor,
    beta: float | tuple[float, float, float] | None = None,
    alpha: float = 0.6,
    m0: float = 0.0,
    gap: Tensor | None = None,
    floor: float = 1e-3,
    ceiling: float = 1.0,
) -> PairLoss:
    """Compute DPO with β_i* = β_i + α (M_i − M0) β_i, clamped to [floor, ceiling]   (Eq. 4). β carries no gradient.

    logps, ref_logps: float32 [R]. chosen, rejected: int64 [P]. beta: a float, 0.1 if None; with `gap` int64 [P] the
    three (β_S, β_M, β_L), CogPO's if None. alpha: per nat. m0: nats. Returns a PairLoss whose `.beta` is the β used for
    each pair.
    """
    # β_i of each pair, before it follows anything
    if beta is None:
        beta = 0.1 if gap is None else BETAS
    betas = [beta] if gap is None else beta
    base = torch.stack([logps.new_full((), b) for b in betas])  # filled there: a copy would wait for the GPU
    if gap is not None:
        base = base[gap]  # [P]
    # Eq. 4: moved by how far the pair's differential is from the threshold
    delta = (logps - ref_logps).detach()  # [R]
    m = delta[chosen] - delta[rejected]  # [P], nats
    return dpo_loss(logps, ref_logps, chosen, rejected, beta=(base + alpha * (m - m0) * base).clamp(floor, ceiling))
