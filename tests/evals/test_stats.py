"""Intervals and tests against values worked out by hand or published."""

import math

import pytest

from evals.stats import bootstrap, is_k_of_n, mcnemar, sign_flip, wilson


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        (9, 30, 0.1666, 0.4788),
        (422, 500, 0.8096, 0.8732),
        (81, 198, 0.3430, 0.4787),
        (187, 511, 0.3253, 0.4086),
        (0, 10, 0.0, 0.2775),  # z² / (n + z²)
        (10, 10, 0.7225, 1.0),
    ],
)
def test_wilson(k, n, low, high):
    assert wilson(k, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 6, 2 / 64),
        (0, 5, 2 / 32),
        (1, 7, 2 * (1 + 8) / 256),
        (9, 20, 2 * sum(math.comb(29, i) for i in range(10)) / 2**29),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemar(lost, gained, p):
    assert mcnemar(lost, gained) == pytest.approx(p)
    assert mcnemar(gained, lost) == pytest.approx(p)


def test_sign_flip_by_hand():
    # 3 and 1: sums ±4, ±2, each with one of four patterns; |sum| >= 4 in two of them, |sum| >= 2 in all
    assert sign_flip([3, 1]) == pytest.approx(0.5)
    assert sign_flip([3, -1]) == pytest.approx(1.0)
    assert sign_flip([0, 0, 2]) == pytest.approx(1.0)


def test_bootstrap_covers_the_mean_and_narrows_with_more_problems():
    few, many = [0, 1] * 10, [0, 1] * 200
    assert bootstrap(few)[0] < 0.5 < bootstrap(few)[1]
    assert bootstrap(many)[1] - bootstrap(many)[0] == pytest.approx(2 * 1.96 * 0.5 / math.sqrt(400), rel=0.1)
    assert bootstrap([1] * 20) == (1.0, 1.0)


def test_k_of_n():
    assert is_k_of_n(46.6, 674)
    assert not is_k_of_n(46.5, 674)
    assert is_k_of_n(26.7, 30)
    assert not is_k_of_n(31.3, 30)
