"""Ramps against changes that are known: unbiased enough, and intervals that hold for whatever changes there are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from power_model.ramps import ramp_rate

Floats = npt.NDArray[np.float64]


def still(rng: np.random.Generator, count: int) -> Floats:
    return np.zeros(count)


def one_jump(rng: np.random.Generator, count: int) -> Floats:
    return np.where(np.arange(count) == count // 2, 12.0, 0.0)


def gentle(rng: np.random.Generator, count: int) -> Floats:
    return 0.7 * rng.normal(size=count)


def wild(rng: np.random.Generator, count: int) -> Floats:
    return 3.0 * rng.standard_t(3, size=count)


def falling(rng: np.random.Generator, count: int) -> Floats:
    return np.full(count, -2.0)


def true_ramp(changes: Floats) -> float:
    return max(float(np.sort(changes)[math.ceil(0.99 * changes.size - 1e-9) - 1]), 0.0)


def pane_noise(rng: np.random.Generator, count: int, hosts: int) -> Floats:
    """Changes of Laplace noise between panes, variance 1 per change; neighbours share a pane."""
    panes = rng.laplace(size=(hosts, count + 1)).sum(axis=0) / math.sqrt(2 * 2 * hosts)
    return np.diff(panes)


@pytest.mark.parametrize("count", [9, 59, 250])
@pytest.mark.parametrize("hosts", [1, 32])
@pytest.mark.parametrize("law", [still, one_jump, gentle, wild, falling])
def test_the_interval_holds_the_true_ramp(
    law: Callable[[np.random.Generator, int], Floats], hosts: int, count: int
) -> None:
    trials = 400
    held, widths = 0, []
    for trial in range(trials):
        rng = np.random.default_rng([7, hosts, count, trial])
        changes = law(rng, count)
        found = ramp_rate(
            changes + pane_noise(rng, count, hosts), 1.0, confidence=0.95, excess_kurtosis=3.0 / 2.0 / hosts
        )
        held += found.low <= true_ramp(changes) <= found.high
        widths.append(found.high - found.low)
    assert held >= 0.95 * trials - 2.6 * math.sqrt(trials * 0.95 * 0.05)
    assert float(np.mean(widths)) < 10.0, "in standard deviations of the noise: wider would say nothing"


@pytest.mark.parametrize("law", [one_jump, gentle, wild])
def test_subtracting_the_noise_takes_the_bias_away(law: Callable[[np.random.Generator, int], Floats]) -> None:
    errors, raw = [], []
    for trial in range(1_000):
        rng = np.random.default_rng([8, trial])
        changes = law(rng, 59)
        noisy = changes + pane_noise(rng, 59, 32)
        truth = true_ramp(changes)
        errors.append(ramp_rate(noisy, 1.0, confidence=0.95).rate - truth)
        raw.append(true_ramp(noisy) - truth)
    bias = abs(float(np.mean(errors)))
    assert bias < max(0.5 * float(np.mean(raw)), 0.25)
    assert bias < 0.45


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=300))
def test_without_noise_it_is_the_quantile_itself(changes: list[float]) -> None:
    found = ramp_rate(np.array(changes), 0.0, confidence=0.95)
    assert found.low == found.high == true_ramp(np.array(changes))
    assert found.rate == pytest.approx(found.low, rel=1e-12)


@given(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=100), st.floats(0, 1e6), st.floats(0, 1.5))
def test_the_rate_lies_in_its_interval(changes: list[float], variance: float, kurtosis: float) -> None:
    found = ramp_rate(np.array(changes), variance, confidence=0.9, excess_kurtosis=kurtosis)
    assert 0.0 <= found.low <= found.rate <= found.high


def test_ways_are_told_apart() -> None:
    changes = np.concatenate([np.full(50, 0.2), np.full(5, -2.0)])
    assert ramp_rate(changes, 0.0, confidence=0.95).rate == 0.2
    assert ramp_rate(-changes, 0.0, confidence=0.95).rate == 2.0


@pytest.mark.parametrize(("changes", "variance", "confidence"), [([], 1.0, 0.9), ([1.0], -1.0, 0.9), ([1.0], 1.0, 1.0)])
def test_bad_input(changes: list[float], variance: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="need"):
        ramp_rate(np.array(changes), variance, confidence=confidence)
