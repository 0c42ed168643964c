"""Statistics of right and wrong answers, and how they are written.

With one response a problem, accuracy is k/N with the Wilson interval, and two columns over the same problems are
compared by the exact McNemar test. With several samples or seeds the answers to one problem are not independent:
intervals come from a bootstrap over problems, and the paired test flips the sign of a whole problem's difference.
"""

import math
from collections.abc import Sequence

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 10_000
EXACT_WORK = 2_000_000_000  # additions of an exact sign-flip test, some seconds; beyond it signs are drawn at random
FLIPS = 100_000


def wilson(k: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of k successes in n trials, as (low, high) in [0, 1]."""
    p, zz = k / n, Z95 * Z95
    middle, half = p + zz / (2 * n), Z95 * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, (middle - half) / (1 + zz / n)), min(1.0, (middle + half) / (1 + zz / n))


def bootstrap(scores: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % percentile interval of the mean of `scores` [problems] (each the mean over its responses),
    resampling problems. Drawn as counts of each distinct score: the same distribution, whatever the number of
    problems."""
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    total = int(counts.sum())
    draws = np.random.default_rng(0).multinomial(total, counts / total, size=RESAMPLES)
    low, high = np.quantile(draws @ values / total, [0.025, 0.975])
    return float(low), float(high)


def sign_flip(differences: Sequence[int], work: int = EXACT_WORK) -> float:
    """Return the two-sided p-value of a sum of integer differences, one a problem, if each sign were a fair coin.

    For differences of -1, 0, 1 this is the exact McNemar test: twice the binomial tail. Exact up to rounding as long as
    it costs at most `work` additions; else the share of FLIPS seeded random sign patterns, the observed one counted in.
    """
    # in units of the greatest common divisor; what is 0 has no sign
    sizes = np.abs(np.asarray(differences, dtype=np.int64))
    sizes = np.sort(sizes[sizes > 0])
    if not len(sizes):
        return 1.0
    observed, scale = abs(int(sum(differences))), int(np.gcd.reduce(sizes))
    sizes, observed = sizes // scale, observed // scale
    # too many for the exact distribution: draw patterns
    if len(sizes) * int(sizes.sum()) > work:
        rng = np.random.default_rng(0)
        values, counts = np.unique(sizes, return_counts=True)
        sums = (2 * rng.binomial(counts, 0.5, size=(FLIPS, len(counts))) - counts) @ values
        return float((1 + np.sum(np.abs(sums) >= observed)) / (1 + FLIPS))
    # the exact distribution, one problem after the other
    chances = np.ones(1)  # of each number of units with a plus: the sum is twice that, less all units
    for size in sizes:
        longer = np.zeros(len(chances) + size)
        longer[: len(chances)] = 0.5 * chances
        longer[size:] += 0.5 * chances
        chances = longer
    sums = 2 * np.arange(len(chances)) - sizes.sum()
    return min(1.0, float(chances[np.abs(sums) >= observed].sum()))


def holm(ps: list[float]) -> list[float]:
    """Return the p-values corrected for their number (Holm, 1979), in the order given: below 0.05 anywhere with a
    chance of at most 5 % if no difference is real."""
    corrected, highest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=ps.__getitem__)):
        highest = max(highest, min(1.0, (len(ps) - rank) * ps[place]))
        corrected[place] = highest
    return corrected


def pass_at_k(n: int, c: int, k: int) -> float:
    """Estimate, without bias, the chance that one of k responses is right, from n of which c are:
    1 - C(n-c, k) / C(n, k) (arXiv 2107.03374, Eq. 1)."""
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def k_of_n(percent: float, n: int) -> range:
    """Return all k whose k/n in percent rounds to this figure of one decimal; none: it is no k/n (the GRIM test)."""
    half = 0.05 + 1e-9
    low, high = math.ceil((percent - half) * n / 100), math.floor((percent + half) * n / 100)
    return range(max(0, low), min(n, high) + 1)


# --- as text ---


def percent(x: float) -> str:
    return f"{100 * x:.1f}"


def signed(text: str) -> str:
    """Give a number's text its sign, a true minus."""
    return "−" + text[1:] if text.startswith("-") else "+" + text


def points(difference: float) -> str:
    """Write a difference of accuracies in percentage points; none has a plus."""
    return signed(percent(difference).replace("-0.0", "0.0"))


def span(interval: tuple[float, float]) -> str:
    return f"[{percent(interval[0])}, {percent(interval[1])}]"


def p_value(p: float) -> str:
    return "p < .001" if p < 0.001 else "p = 1" if p >= 0.9995 else f"p = {p:.3f}".replace("0.", ".", 1)
