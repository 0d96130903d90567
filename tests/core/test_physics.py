"""Bounds of the physics layer: honest noise passes with the probability stated, and they are not loose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from producers import privacy
from schemas.records import ClassEnrolment, ModelRule
from stream_jobs.core import checks
from stream_jobs.core.checks import NOISE_TAIL, draw_bound, effective_capacity_w, noise_bound, physics_false_reject
from tests.core.fleet import GPUS, MODEL, gpu_class, report_of, session_of


def exact_tail(scale: float, count: int, bound: float) -> float:
    """P(|sum of `count` discrete Laplace draws| > bound), by the difference of two negative binomial variables."""
    p = -math.expm1(-1 / scale)
    steps = np.arange(int(stats.nbinom.isf(1e-16, count, p)) + 1)
    mass = stats.nbinom.pmf(steps, count, p)
    # One side is at least bound + 1 above the other; the tails are alike.
    return 2 * float(np.sum(mass * stats.nbinom.sf(steps + math.floor(bound), count, p)))


@pytest.mark.parametrize("count", [1, 2, 60, 64, 144])
@pytest.mark.parametrize("scale", [0.2, 1.0, 13.3, 40.0, 400.0])
def test_a_sum_of_draws_exceeds_its_bound_as_rarely_as_said(scale: float, count: int) -> None:
    bound = noise_bound(scale, count)
    assert exact_tail(scale, count, bound) <= NOISE_TAIL
    if scale > 1:
        assert exact_tail(scale, count, 0.75 * bound) > NOISE_TAIL


@pytest.mark.parametrize("count", [1, 60, 144])
@pytest.mark.parametrize("scale", [0.2, 1.0, 13.3, 4_285.7])
def test_any_of_some_draws_exceeds_their_bound_as_rarely_as_said(scale: float, count: int) -> None:
    """The exact tail of one draw, 2 q^(x+1) / (1+q), times the draws."""
    q = math.exp(-1 / scale)

    def tail(bound: int) -> float:
        return count * 2 * q ** (bound + 1) / (1 + q)

    bound = draw_bound(scale, count)
    assert tail(bound) <= NOISE_TAIL * (1 + 1e-9)
    assert bound == 0 or tail(bound - 1) > NOISE_TAIL * (1 - 1e-9)


@pytest.mark.parametrize("bound", [noise_bound, draw_bound])
def test_bounds_hold_on_draws(bound: Callable[[float, int], float], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tail that can be counted: 100,000 sums and 100,000 sets of eight draws."""
    rng, scale, count, sets = np.random.default_rng(5), 7.0, 8, 100_000
    p = -math.expm1(-1 / scale)
    draws = rng.geometric(p, (sets, count)) - rng.geometric(p, (sets, count))
    seen = np.abs(draws.sum(axis=1)) if bound is noise_bound else np.abs(draws).max(axis=1)
    monkeypatch.setattr(checks, "NOISE_TAIL", 1e-3)
    noise_bound.cache_clear()
    exceeded = int(np.count_nonzero(seen > bound(scale, count)))
    noise_bound.cache_clear()
    assert stats.binomtest(exceeded, sets, 1e-3, alternative="greater").pvalue > 1e-6
    assert exceeded > 0


def test_the_layer_s_share_of_honest_refusals() -> None:
    """One in a hundred thousand at the very most (design, section 9), with as many classes as a host may have."""
    session = session_of("h0", "d")
    plain = gpu_class()
    full = replace(plain, histogram=bytes(260), histogram_shape=(65,), energy_residual_mj=1)
    for classes, bounds in (((), 0), ((plain,), 4), ((full,), 8), ((full,) * 8, 64)):
        assert physics_false_reject(report_of(session, 0, classes=classes)) == pytest.approx(bounds * NOISE_TAIL)
    assert 64 * NOISE_TAIL < 1e-5


@pytest.mark.parametrize("clip", [(0, 300), (20, 700), (100, 101)])
@pytest.mark.parametrize("sample_hz", [1, 5, 10, 20, 100])
def test_the_energy_residual_s_sensitivity_is_the_hosts(clip: tuple[int, int], sample_hz: int) -> None:
    models = [
        replace(MODEL, clip_low_w=clip[0], clip_high_w=clip[1]),
        ModelRule(model="b", edges_w=(), clip_low_w=0, clip_high_w=50),
    ]
    stated = max(privacy.energy_residual_l1(one.clip_low_w, one.clip_high_w, 1000 // sample_hz) for one in models)
    assert checks.energy_residual_l1(models, sample_hz) == stated


@pytest.mark.parametrize(("limit_w", "counts_w"), [(None, 600), (600, 600), (599, 599), (1, 1), (2_400, 600)])
def test_a_limit_below_enrolment_lowers_the_capacity_that_counts(limit_w: int | None, counts_w: int) -> None:
    enrolled = ClassEnrolment(model=MODEL.model, gpus=GPUS, capacity_w=600)
    assert effective_capacity_w(gpu_class(enforced_limit_w=limit_w), enrolled) == counts_w
