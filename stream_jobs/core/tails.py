"""How far known noise goes: bounds that honest hosts exceed with a stated probability, whatever their power."""

from __future__ import annotations

import math
from functools import lru_cache

HONEST_TAIL = 1e-6
"""Probability, at most, with which one test of the layers on histories, cohorts and influence meets an honest host."""

_STEPS = 200
"""Intervals of the numerical integral in `square_sum_excess`; Simpson's rule, to far below the rounding there."""


@lru_cache(maxsize=1024)
def sum_excess(count: int, tail: float = HONEST_TAIL) -> float:
    """Return x such that the sum of `count` Laplace draws of scale 1 exceeds it with probability at most `tail`.

    Chernoff's bound: P(sum >= x) <= exp(-s x) (1 - s^2)^-count, least at x = 2 count s / (1 - s^2). It holds for
    discrete Laplace noise too: sinh(x) / x grows, so its moments of exponentials are the smaller ones.
    """
    wanted = -math.log(tail) / count
    low, high = 0.0, 1.0
    for _ in range(60):
        s = (low + high) / 2
        if s < 1 and math.log1p(-s * s) + 2 * s * s / (1 - s * s) < wanted:
            low = s
        else:
            high = s
    return 2 * count * high / (1 - high * high)


def draw_excess(count: int, tail: float = HONEST_TAIL) -> float:
    """Return x such that any of `count` Laplace draws of scale 1 exceeds it, on either side, with at most `tail`."""
    return math.log(count / tail)


@lru_cache(maxsize=1024)
def square_sum_excess(count: int, tail: float = HONEST_TAIL) -> float:
    """Return x: the sum of squares of `count` Laplace draws of scale 1 exceeds 2 count + x with at most `tail`.

    Chernoff's bound for the squares cut off where any draw lies with probability tail / 2 (uncut, they have no moments
    of exponentials); rounded up to three digits, so that it does not hang on the last bits of exp.
    """
    cut = math.log(2 * count / tail)
    best = math.inf
    for step in range(1, 41):
        s = step / 40 / cut
        width = cut / _STEPS
        values = [math.exp(s * (i * width) ** 2 - i * width) * (1 if i in {0, _STEPS} else 4 if i % 2 else 2)
                  for i in range(_STEPS + 1)]  # fmt: skip
        moment = math.fsum(values) * width / 3 + math.exp(s * cut * cut - cut)
        best = min(best, (count * math.log(moment) + math.log(2 / tail)) / s - 2 * count)
    digit = 10.0 ** (math.floor(math.log10(best)) - 2)
    return math.ceil(best / digit) * digit
