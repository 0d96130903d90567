"""The discrete Laplace distribution P(x) = (1-p)/(1+p) p^|x|, p = exp(-1/scale): the noise every host adds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable


def discrete_laplace_variance(scale: float) -> float:
    """Return the exact variance 2p/(1-p)^2, in the release's unit squared; `scale` > 0 in its unit.

    Below 2 scale^2 of the continuous distribution by about 1/6. Source: Inusah and Kozubowski (2006).
    """
    rate = _rate(scale)
    return 2.0 * math.exp(-rate) / math.expm1(-rate) ** 2


def summed_variance(scales_micro: Iterable[int]) -> float:
    """Return the variance of the sum of one draw per scale (millionths of the unit), exact in any order of them."""
    counts = sorted(Counter(scales_micro).items())
    return math.fsum(count * discrete_laplace_variance(scale / 1e6) for scale, count in counts)


def discrete_laplace_pmf(x: int, scale: float) -> float:
    """Return P(X = x); `scale` > 0."""
    rate = _rate(scale)
    return -math.expm1(-rate) / (1.0 + math.exp(-rate)) * math.exp(-rate * abs(x))


def discrete_laplace_tail(x: int, scale: float) -> float:
    """Return P(|X| > x) = 2 p^(x+1) / (1+p) for x >= 0."""
    rate = _rate(scale)
    return 2.0 * math.exp(-rate * (x + 1)) / (1.0 + math.exp(-rate))


def discrete_laplace_bound(probability: float, scale: float) -> int:
    """Return the smallest x >= 0 with P(|X| > x) <= probability, 0 < probability < 1, in the release's unit."""
    if not 0.0 < probability < 1.0:
        raise ValueError("need 0 < probability < 1")
    rate = _rate(scale)
    exact = (math.log(2.0) - math.log(probability) - math.log1p(math.exp(-rate))) / rate - 1.0
    bound = max(math.ceil(exact) - 1, 0)  # one lower, then up: the logarithms are rounded
    while discrete_laplace_tail(bound, scale) > probability:
        bound += 1
    return bound


def _rate(scale: float) -> float:
    if not scale > 0.0 or not math.isfinite(scale):
        raise ValueError("scale must be positive")
    return 1.0 / scale
