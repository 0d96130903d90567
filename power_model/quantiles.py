"""Quantiles: of discrete distributions, of the normal and (approximately) the chi-square distribution."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

_STANDARD = NormalDist()


def discrete_quantile(values: Sequence[float], weights: Sequence[float], p: float) -> float:
    """Return the smallest value whose cumulative share of the weights is at least p, 0 < p <= 1.

    `values` must not decrease; weights >= 0 with a positive sum. Unit: that of the values. Raises `ValueError`
    otherwise. Partial sums are exact (`math.fsum`), so that p = 0.3 of ten equal weights is the third value.
    """
    if not 0.0 < p <= 1.0 or len(values) != len(weights) or not values:
        raise ValueError("need 0 < p <= 1 and as many weights as values")
    if min(weights) < 0.0 or any(a > b for a, b in itertools.pairwise(values)):
        raise ValueError("weights must not be negative, values must not decrease")
    total = math.fsum(weights)
    if not total > 0.0:
        raise ValueError("no mass")
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if math.fsum(weights[: middle + 1]) / total >= p:
            high = middle
        else:
            low = middle + 1
    return values[low]


def normal_quantile(p: float) -> float:
    """Return the standard normal quantile (Wichura's AS 241, 1e-16 relative), 0 < p < 1, without unit."""
    return _STANDARD.inv_cdf(p)


def chi_square_quantile(p: float, dof: float) -> float:
    """Return the chi-square quantile by Wilson and Hilferty (1931), 0 < p < 1, dof > 0.

    Relative error below 3 % for dof >= 10 and 0.005 <= p <= 0.995, below 0.1 % for dof >= 60; at fewer degrees of
    freedom the lower tail is too small (floored at 0), which only widens a variance interval.
    """
    if not dof > 0.0:
        raise ValueError("dof must be positive")
    spread = 2.0 / (9.0 * dof)
    root = 1.0 - spread + normal_quantile(p) * math.sqrt(spread)
    return dof * max(root, 0.0) ** 3


def variance_interval(variance: float, dof: float, confidence: float) -> tuple[float, float]:
    """Return the equal-tailed interval of a variance estimated with `dof` degrees of freedom (unit squared).

    The upper end is infinite where the approximation gives a lower chi-square quantile of 0.
    """
    if not 0.0 < confidence < 1.0 or variance < 0.0:
        raise ValueError("need 0 < confidence < 1 and a variance >= 0")
    tail = (1.0 - confidence) / 2.0
    upper = chi_square_quantile(1.0 - tail, dof)
    lower = chi_square_quantile(tail, dof)
    return dof * variance / upper, dof * variance / lower if lower > 0.0 else math.inf
