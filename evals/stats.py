"""Statistics of right and wrong answers.

With one sample a problem, accuracy is k/N with the Wilson interval, and two columns over the same problems are compared
by the exact McNemar test. With several seeds the answers to one problem are not independent: intervals come from a
bootstrap over problems, and the paired test flips the sign of a whole problem's difference.
"""

import math
from collections import Counter

import numpy as np

Z95 = 1.959963984540054
RESAMPLES = 10_000


def wilson(k, n, z=Z95):
    """95 % Wilson score interval of k successes in n trials, as (low, high) in [0, 1]."""
    p, zz = k / n, z * z
    middle, half = p + zz / (2 * n), z * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return max(0.0, (middle - half) / (1 + zz / n)), min(1.0, (middle + half) / (1 + zz / n))


def bootstrap(scores, seed=0):
    """95 % percentile interval of the mean of `scores` [problems] (each the mean over seeds), resampling problems."""
    scores = np.asarray(scores, dtype=np.float64)
    picks = np.random.default_rng(seed).integers(0, len(scores), (RESAMPLES, len(scores)))
    low, high = np.quantile(scores[picks].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def mcnemar(only_a, only_b):
    """Exact two-sided p-value for the problems that only a, and only b, answered right."""
    return sign_flip([1] * only_b + [-1] * only_a)


def sign_flip(differences):
    """Exact two-sided p-value of a sum of integer differences, one a problem, if each sign were a fair coin.

    For differences of -1, 0, 1 this is the exact McNemar test: twice the binomial tail.
    """
    counts = Counter({0: 1})  # sum -> number of sign patterns; Python's integers are exact
    for size in (abs(d) for d in differences if d):
        spread = Counter()
        for total, ways in counts.items():
            spread[total + size] += ways
            spread[total - size] += ways
        counts = spread
    observed = abs(sum(differences))
    return sum(ways for total, ways in counts.items() if abs(total) >= observed) / sum(counts.values())


def is_k_of_n(percent, n, digits=1):
    """Whether a published percentage, rounded to `digits`, can be k/n (the GRIM test)."""
    nearest = round(percent * n / 100)
    half = 0.5 * 10**-digits + 1e-9
    return any(abs(100 * k / n - percent) <= half for k in (nearest - 1, nearest, nearest + 1))
