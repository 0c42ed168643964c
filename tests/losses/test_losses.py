"""The losses against values worked out by hand, and the identities that tie them together."""

import math

import pytest
import torch

from losses import beta_dpo_loss, cogpo_loss, dpo_loss, sft_loss, simpo_loss

LOGPS = torch.tensor([-10.0, -12.0, -20.0])  # r*, r, r~
REFS = torch.tensor([-11.0, -12.5, -18.0])  # Δ = 1.0, 0.5, −2.0
CHOSEN, REJECTED, GAP = torch.tensor([0, 1, 0]), torch.tensor([1, 2, 2]), torch.tensor([0, 1, 2])


def softplus(x):
    return math.log1p(math.exp(x))


def test_dpo_by_hand():
    out = dpo_loss(LOGPS, REFS, CHOSEN, REJECTED, beta=0.1)
    assert out.margin.tolist() == pytest.approx([0.05, 0.25, 0.3])
    assert out.loss.tolist() == pytest.approx([softplus(-0.05), softplus(-0.25), softplus(-0.3)])
    assert out.chosen_reward.tolist() == pytest.approx([0.1, 0.05, 0.1])
    assert out.rejected_reward.tolist() == pytest.approx([0.05, -0.2, -0.2])


def test_cogpo_by_hand():
    out = cogpo_loss(LOGPS, REFS, CHOSEN, REJECTED, GAP)
    assert out.beta.tolist() == pytest.approx([0.1, 0.2, 0.5])
    assert out.margin.tolist() == pytest.approx([0.1 * 0.5, 0.2 * 2.5, 0.5 * 3.0])
    assert out.loss.tolist() == pytest.approx([softplus(-0.05), softplus(-0.5), softplus(-1.5)])


def test_dpop_by_hand():
    """Only the third response lost likelihood: where it is the chosen one, λ times what it lost is taken off."""
    out = dpo_loss(LOGPS, REFS, torch.tensor([0, 2]), torch.tensor([1, 0]), beta=0.1, penalty=5.0)
    assert out.margin.tolist() == pytest.approx([0.1 * 0.5, 0.1 * -3.0])
    assert out.loss.tolist() == pytest.approx([softplus(-0.05), softplus(0.3 + 0.1 * 5.0 * 2.0)])
    assert torch.equal(
        cogpo_loss(LOGPS, REFS, CHOSEN, REJECTED, GAP, (0.1,) * 3, penalty=5.0).loss,
        dpo_loss(LOGPS, REFS, CHOSEN, REJECTED, 0.1, penalty=5.0).loss,
    )


def test_at_the_start_nothing_is_to_be_held():
    """Where policy and reference are equal the gradient is DPO's: relu's slope at 0 is 0, that of clamp is 1."""
    grads = []
    for penalty in (0.0, 50.0):
        logps = torch.tensor([-11.0, -9.0], requires_grad=True)
        same = logps.detach().clone()
        dpo_loss(logps, same, torch.tensor([0]), torch.tensor([1]), 0.1, penalty=penalty).loss.backward()
        grads.append(logps.grad.tolist())
    assert grads[0] == grads[1] == pytest.approx([-0.05, 0.05])


def test_the_penalty_pulls_up_what_it_holds():
    logps = torch.tensor([-12.0, -9.0], requires_grad=True)  # chosen: Δ = −1
    dpo_loss(logps, torch.tensor([-11.0, -9.0]), torch.tensor([0]), torch.tensor([1]), 0.1, penalty=4.0).loss.backward()
    pull = 0.1 / (1 + math.exp(0.1 * (-1 - 4)))  # β σ(−z)
    assert logps.grad.tolist() == pytest.approx([-5 * pull, pull])


def test_cogpo_with_equal_betas_is_dpo():
    logps, refs = torch.randn(9), torch.randn(9)
    chosen, rejected, gap = torch.randint(0, 9, (20,)), torch.randint(0, 9, (20,)), torch.randint(0, 3, (20,))
    cogpo = cogpo_loss(logps, refs, chosen, rejected, gap, betas=(0.3, 0.3, 0.3))
    dpo = dpo_loss(logps, refs, chosen, rejected, beta=0.3)
    for name in ("loss", "margin", "beta", "chosen_reward", "rejected_reward"):
        assert torch.equal(getattr(cogpo, name), getattr(dpo, name)), name


def test_at_the_reference_every_gap_starts_at_ln2_and_pulls_with_half_its_beta():
    logps = REFS.clone().requires_grad_()
    for gap, beta in enumerate((0.1, 0.2, 0.5)):
        logps.grad = None
        out = cogpo_loss(logps, REFS, torch.tensor([0]), torch.tensor([1]), torch.tensor([gap]))
        assert out.loss.item() == pytest.approx(math.log(2))
        out.loss.sum().backward()
        # d loss / d (Δ_w − Δ_l) = −β σ(0) = −β/2
        assert logps.grad.tolist() == pytest.approx([-beta / 2, beta / 2, 0.0])


def test_gap_order_is_small_medium_large():
    from data.records import GAPS

    assert GAPS == ("small", "medium", "large")
    betas = [cogpo_loss(LOGPS, REFS, CHOSEN[:1], REJECTED[:1], torch.tensor([g])).beta.item() for g in range(3)]
    assert betas == sorted(betas) and len(set(betas)) == 3


def test_beta_dpo_by_hand():
    out = beta_dpo_loss(LOGPS, REFS, CHOSEN, REJECTED, beta=0.1, alpha=0.6, m0=0.5)
    # M = 0.5, 2.5, 3.0; β = 0.1 (1 + 0.6 (M − 0.5))
    assert out.beta.tolist() == pytest.approx([0.1, 0.22, 0.25])
    assert out.margin.tolist() == pytest.approx([0.05, 0.55, 0.75])


def test_beta_dpo_clamps():
    logps = torch.tensor([0.0, 50.0])
    out = beta_dpo_loss(
        logps, torch.zeros(2), torch.tensor([0, 1]), torch.tensor([1, 0]), beta=0.1, alpha=0.6, floor=1e-3, ceiling=0.7
    )
    assert out.beta.tolist() == pytest.approx([1e-3, 0.7])


def test_alpha_zero_is_dpo_or_cogpo():
    args = (LOGPS, REFS, CHOSEN, REJECTED)
    assert torch.equal(beta_dpo_loss(*args, beta=0.1, alpha=0.0).loss, dpo_loss(*args, beta=0.1).loss)
    combined = beta_dpo_loss(*args, beta=(0.1, 0.2, 0.5), alpha=0.0, gap=GAP)
    assert torch.equal(combined.loss, cogpo_loss(*args, GAP).loss)


def test_no_gradient_through_beta():
    logps = LOGPS.clone().requires_grad_()
    out = beta_dpo_loss(logps, REFS, CHOSEN[:1], REJECTED[1:2], beta=0.1, alpha=0.6)
    out.loss.sum().backward()
    beta, margin = out.beta.item(), out.margin.item()
    assert logps.grad[0].item() == pytest.approx(-beta / (1 + math.exp(margin)))


def test_simpo_gamma_is_the_absolute_margin():
    mean_logps = torch.tensor([-0.5, -0.8])
    out = simpo_loss(mean_logps, torch.tensor([0]), torch.tensor([1]), beta=2.0, gamma=0.3)
    assert out.loss.item() == pytest.approx(softplus(-(2.0 * 0.3 - 0.3)))
    # SimPO's own parametrisation: β (Δ − γ/β) with gamma_beta_ratio 0.15
    assert out.loss.item() == pytest.approx(softplus(-2.0 * (0.3 - 0.15)))
    assert out.margin.item() == pytest.approx(0.6)


def test_sft_sums_supervised_tokens():
    logps = torch.tensor([-1.0, -2.0, -4.0])
    assert sft_loss(logps, torch.tensor([1, 0, 1])).item() == pytest.approx(5.0)
