"""β-DPO (Wu et al. 2024a): β follows the reward differential. Two forms.

`beta_dpo_loss`  Eq. 4 of the CogPO paper, instance-level; with three betas and gap tags it is CogPO × β-DPO.
`batch_beta`     the original's, batch-level: one β for a whole batch, a threshold M0 that is a moving average over
                 batches, and a filter that drops the pairs furthest from it. Feed its β to `dpo_loss`.

M_i is the raw log-ratio difference Δ_w − Δ_l in nats, not multiplied by β (as in the original's released code). Sums
over long chains differ by tens of nats, where α (M_i − M0) would send β to zero or to ten times its size: hence the
floor and the ceiling.
"""

from dataclasses import dataclass

import torch

from losses.dpo import dpo_loss


def beta_dpo_loss(
    logps, ref_logps, chosen, rejected, beta=0.1, alpha=0.6, m0=0.0, gap=None, floor=1e-3, ceiling=float("inf")
):
    """DPO with β_i* = β_i + α (M_i − M0) β_i, clamped to [floor, ceiling]   (Eq. 4). No gradient flows through β.

    logps, ref_logps: float32 [R]. chosen, rejected: int64 [P]. beta: a float; or (β_S, β_M, β_L) with `gap` int64 [P].
    alpha: per nat. m0: nats. Returns a PairLoss whose `.beta` is the β used for each pair.
    """
    base = torch.tensor(beta, dtype=logps.dtype, device=logps.device)
    if gap is not None:
        base = base[gap]  # [P]
    m = differential(logps, ref_logps, chosen, rejected)
    return dpo_loss(logps, ref_logps, chosen, rejected, beta=(base + alpha * (m - m0) * base).clamp(floor, ceiling))


def differential(logps, ref_logps, chosen, rejected):
    """M_i = Δ_w − Δ_l in nats, float32 [P], detached."""
    delta = (logps - ref_logps).detach()
    return delta[chosen] - delta[rejected]


@dataclass(frozen=True)
class BatchBetaState:
    """Moving averages of the differential in nats: the threshold M0 and the spread used by the filter."""

    m0: float = 0.0
    std: float = 0.0


def batch_beta(m, state, generator, beta=0.1, alpha=0.6, drop=0.2, momentum=0.9, floor=1e-3, ceiling=float("inf")):
    """One β for a batch, as in the original: β (1 + α (mean of the kept M_i − M0)), clamped to [floor, ceiling].

    m: float32 [B], the differentials (nats) of the whole batch, all ranks. state: averages so far; the current batch
    moves them before they are used. generator: torch.Generator on m's device, equal on all ranks, draws the kept pairs
    with weight exp(−½ ((M_i − M0) / std)²). Returns (β as a float, keep bool [B], the new state). When evaluating,
    call it with a copy of the training state and discard the new one.
    """
    spread = m.std().item() if len(m) > 1 else 0.0
    state = BatchBetaState(
        m0=momentum * state.m0 + (1 - momentum) * m.mean().item(),
        std=momentum * state.std + (1 - momentum) * spread,
    )
    num_kept = max(1, int(len(m) * (1 - drop)))
    # the tiny constant keeps far outliers drawable when fewer than num_kept weights are above zero
    weights = torch.exp(-0.5 * ((m - state.m0) / max(state.std, 1e-6)) ** 2) + 1e-12
    keep = torch.zeros(len(m), dtype=torch.bool, device=m.device)
    keep[torch.multinomial(weights, num_kept, replacement=False, generator=generator)] = True
    used = beta * (1 + alpha * (m[keep].mean().item() - state.m0))
    return min(max(used, floor), ceiling), keep, state
