"""Rounding at random keeps on average what rounding to nearest drops, and the share that is kept is measured."""

import pytest
import torch

from model.rounding import BLOCK, Kept, round_stochastically

DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])


@DTYPES
@pytest.mark.parametrize("scale", [3.0, 0.02, 1e-6])  # 1e-6: below float16's smallest normal value
def test_the_mean_is_the_value_and_only_neighbours_are_taken(dtype, scale):
    x = torch.randn(1000, generator=torch.Generator().manual_seed(0)) * scale
    drawn = torch.stack([round_stochastically(x, dtype, str(i)) for i in range(4000)])
    nearest, other = x.to(dtype), torch.where(drawn == x.to(dtype), torch.nan, drawn.float())
    neighbours = torch.stack([nearest.float(), other.nan_to_num(-torch.inf).amax(0)])
    step = (neighbours[0] - neighbours[1]).abs()
    inside = step.isfinite() & (step > 0)
    assert inside.float().mean() > 0.9
    assert (other.isnan() | (other == neighbours[1])).all(), "a third value"
    # both sides of x, next to each other
    assert ((neighbours.amin(0) <= x) & (x <= neighbours.amax(0)))[inside].all()
    assert ((drawn.double().mean(0) - x).abs()[inside] < 5 * 0.5 / 4000**0.5 * step[inside]).all()


@DTYPES
def test_what_the_dtype_holds_stays_and_a_key_gives_the_same_bits(dtype):
    x = torch.cat([torch.randn(2000), torch.randn(100) * 1e-7, torch.tensor([0.0, 1e-30, 6e4, -(2.0**-14)])])
    held = x.to(dtype).float()
    assert torch.equal(round_stochastically(held, dtype, "a").float(), held)
    a, again, b = (round_stochastically(x, dtype, key) for key in ("a", "a", "b"))
    assert torch.equal(a, again) and not torch.equal(a, b)


def test_what_is_too_large_becomes_infinite():
    assert round_stochastically(torch.tensor([7e4, -7e4]), torch.float16, "a").tolist() == [torch.inf, -torch.inf]


def test_a_small_change_of_weights_on_the_grid_is_dropped_by_the_nearest_value_and_kept_at_random():
    """As a preference stage on a bfloat16 checkpoint: 1e-5 on weights of 0.02, whose steps are 1.2e-4."""
    numbers = torch.Generator().manual_seed(0)
    start = (torch.randn(BLOCK + 1000, generator=numbers) * 0.02).bfloat16()
    trained = start.float() + torch.randn(start.shape, generator=numbers) * 1e-5
    shares = {}
    for name, saved in {
        "nearest": trained.bfloat16(),
        "random": round_stochastically(trained, torch.bfloat16, "w"),
        "float16": trained.half(),
        "none": trained,
    }.items():
        kept = Kept()
        kept.add("w", start, trained, saved)
        summary = kept.summary()
        assert summary["least_kept"] == ["w", summary["kept"]] and summary["rms_change"] == pytest.approx(
            1e-5, rel=0.01
        )
        shares[name] = summary["kept"]
    assert shares["none"] == 1.0 and shares["random"] == pytest.approx(1, abs=0.02)
    assert 0.1 < shares["nearest"] < 0.35 and shares["float16"] > 0.8


def test_the_share_over_all_tensors_is_weighted_by_their_change():
    kept = Kept()
    zero = torch.zeros(2)
    kept.add("large", zero, torch.tensor([3.0, 0.0]), torch.tensor([3.0, 5.0]))
    kept.add("small", zero, torch.tensor([0.0, 1.0]), zero)
    kept.add("still", zero, zero, zero)
    expected = {"kept": 0.9, "least_kept": ["small", 0.0], "rms_change": pytest.approx((10 / 6) ** 0.5)}
    assert kept.summary() == expected
    assert Kept().summary() == {"kept": None, "least_kept": None, "rms_change": None}
