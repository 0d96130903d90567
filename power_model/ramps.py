"""Ramps: how fast a domain's power rises and falls, from noisy panes with known noise.

The figure is a quantile of the true changes of one window. The largest of many noisy changes is too large on average;
how much follows from the known noise, which is taken off in quadrature at the same rank. The interval holds for any
true changes: it uses nothing but the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from power_model.quantiles import normal_quantile

RAMP_SHARE = 0.99
"""Ramps are the change that one second in a hundred exceeds."""


@dataclass(frozen=True, slots=True)
class RampRate:
    """A ramp and the ends of its interval, at least 0, in the unit of the changes."""

    rate: float
    low: float
    high: float


def ramp_rate(
    changes: npt.NDArray[np.float64], noise_variance: float, *, confidence: float, excess_kurtosis: float = 0.0
) -> RampRate:
    """Return the ramp upwards among noisy changes, float64[n], n >= 1; turn the sign for downwards.

    `noise_variance`, `excess_kurtosis`: of the noise in one change, in the changes' unit squared, and 0 for a normal
    law. True ramp: the smallest value that at least `RAMP_SHARE` of the true changes do not exceed, or 0 if that is
    negative.

    The interval: the m changes that truly reach the ramp are seen no lower than the ramp less the worst of m draws of
    noise, and the m that are seen to reach the observed rank stand no lower than it less the worst of n draws. Both
    hold jointly with the stated confidence whatever the true changes are, and for dependent draws, too (union bound).
    """
    if not changes.size:
        raise ValueError("a ramp needs a change")
    if noise_variance < 0.0 or not 0.0 < confidence < 1.0:
        raise ValueError("need a variance >= 0 and 0 < confidence < 1")
    count = changes.size
    above = count - max(math.ceil(RAMP_SHARE * count - 1e-9), 1) + 1
    seen = float(np.sort(changes)[count - above])
    deviation = math.sqrt(noise_variance)
    # Blom (1958): the rank's expectation if nothing but normal noise were there.
    usual = deviation * _tail((above - 0.375) / (count + 0.25), excess_kurtosis)
    rate = math.sqrt(max(seen * seen - usual * usual, 0.0)) if seen > 0.0 else 0.0
    miss = (1.0 - confidence) / 2.0
    low = seen - deviation * _tail(miss / count, excess_kurtosis)
    high = seen + deviation * _tail(miss / above, excess_kurtosis)
    low, high = max(low, 0.0), max(high, 0.0)
    return RampRate(min(max(rate, low), high), low, high)


def _tail(probability: float, excess_kurtosis: float) -> float:
    """Deviation that noise exceeds with this probability, in standard deviations (Cornish and Fisher 1938)."""
    z = -normal_quantile(probability)
    return z + (z * z * z - 3.0 * z) * excess_kurtosis / 24.0
