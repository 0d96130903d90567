"""The mechanism, empirically: the right distribution, no bias, the promised epsilon; mutants are caught."""

import math
import os
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from power_model.noise import discrete_laplace_pmf, discrete_laplace_tail, discrete_laplace_variance
from producers.config import Schedule
from producers.distil import Distilled
from producers.privacy import (
    MICRO,
    Budget,
    default_budget,
    energy_residual_l1,
    event_epsilon_micro,
    privacy_parameters,
)
from producers.privatise import Noisy, Privatiser
from schemas.contract import HISTOGRAM_CELLS
from schemas.errors import ConfigError
from schemas.records import PrivacyParameters, PrivacyRelease
from tests.producers.forge import SCHEDULE, FakeSource, gpu_class

SIGNIFICANCE = 1e-6
DRAWS = 100_000
COUNTS, BINS = 4 / 0.1, 2 / 0.35
"""Scales of transitions and histogram in the default budget."""


def parameters(budget: Budget | None = None, schedule: Schedule = SCHEDULE) -> PrivacyParameters:
    return privacy_parameters(budget or Budget(), [gpu_class()], schedule)


def draw(privatiser: Privatiser, counts: int, sums: int = 1, bins: int = HISTOGRAM_CELLS) -> Noisy:
    side = math.isqrt(counts)
    nothing = np.zeros(bins, np.int64)
    return privatiser.privatise(Distilled(np.zeros((side, side), np.int64), np.zeros(sums, np.int64), nothing, 0))


def with_scale(of: PrivacyParameters, name: str, factor: float) -> PrivacyParameters:
    """A statement whose noise is scaled by `factor` while its sensitivity is understated alike, so it looks sound."""

    def change(release: PrivacyRelease) -> PrivacyRelease:
        if release.release != name:
            return release
        return replace(
            release,
            scale_micro=math.ceil(release.scale_micro * factor),
            sensitivity_l1=int(release.sensitivity_l1 * factor),
        )

    return replace(of, releases=tuple(change(release) for release in of.releases))


def p_value(noise: np.ndarray | None, scale: float) -> float:
    """Chi-square of a histogram against the discrete Laplace with this scale, cells of 20 expected draws or more."""
    assert noise is not None
    reach = 0
    while discrete_laplace_pmf(reach + 1, scale) * noise.size > 20:
        reach += 1
    seen = Counter(np.clip(noise, -reach - 1, reach + 1).tolist())
    expected = {k: discrete_laplace_pmf(k, scale) * noise.size for k in range(-reach, reach + 1)}
    expected[reach + 1] = expected[-reach - 1] = discrete_laplace_tail(reach, scale) / 2 * noise.size
    return float(stats.chisquare([seen[k] for k in expected], list(expected.values())).pvalue)


@cache
def transition_noise() -> np.ndarray:
    """`DRAWS` draws of the default."""
    return draw(Privatiser(parameters()), DRAWS).transitions.ravel()


def test_transition_noise_is_the_discrete_laplace_it_claims() -> None:
    noise = transition_noise()
    assert p_value(noise, COUNTS) > SIGNIFICANCE


def test_a_mutant_with_half_the_sensitivity_is_caught() -> None:
    mutant = with_scale(parameters(), "transitions", 0.5)
    noise = draw(Privatiser(mutant), DRAWS).transitions.ravel()
    assert p_value(noise, COUNTS) < SIGNIFICANCE
    assert p_value(noise, COUNTS / 2) > SIGNIFICANCE


def test_a_mutant_that_clamps_at_zero_is_caught() -> None:
    noise = np.maximum(transition_noise(), 0)
    assert p_value(noise, COUNTS) < SIGNIFICANCE


def test_histogram_noise_is_the_discrete_laplace_it_claims_and_a_mutant_is_caught() -> None:
    sound, mutant = Privatiser(parameters()), Privatiser(with_scale(parameters(), "histogram", 0.5))
    assert p_value(draw(sound, 1, bins=DRAWS).histogram, BINS) > SIGNIFICANCE
    assert p_value(draw(mutant, 1, bins=DRAWS).histogram, BINS) < SIGNIFICANCE


def test_pane_sum_noise_has_the_stated_mean_variance_and_shape() -> None:
    stated = parameters()
    scale = stated.releases[1].scale_micro / MICRO
    noise = draw(Privatiser(stated), 1, DRAWS).pane_sums.astype(np.float64)
    spread = math.sqrt(discrete_laplace_variance(scale))
    assert abs(noise.mean()) < 5 * spread / math.sqrt(DRAWS)
    # Kurtosis 6 of the Laplace distribution: the variance of a sample variance is 5 sigma^4 / n.
    assert abs(noise.var() / spread**2 - 1) < 5 * math.sqrt(5 / DRAWS)
    assert stats.kstest(noise, stats.laplace(scale=scale).cdf).pvalue > SIGNIFICANCE


@pytest.mark.parametrize("factor", [0.5, 0.9])
def test_pane_sum_mutants_are_caught(factor: float) -> None:
    stated = parameters()
    scale = stated.releases[1].scale_micro / MICRO
    noise = draw(Privatiser(with_scale(stated, "pane_sums", factor)), 1, DRAWS).pane_sums
    assert stats.kstest(noise, stats.laplace(scale=scale).cdf).pvalue < SIGNIFICANCE


def test_release_is_unbiased_around_the_exact_values() -> None:
    privatiser = Privatiser(parameters())
    bins = np.arange(HISTOGRAM_CELLS, dtype=np.int64)
    exact = Distilled(np.arange(25, dtype=np.int64).reshape(5, 5), np.array([7, 800_000]), bins, 50)
    runs = [privatiser.privatise(exact) for _ in range(2000)]
    counts = np.mean([found.transitions for found in runs], axis=0)
    assert np.abs(counts - exact.transitions).max() < 6 * math.sqrt(discrete_laplace_variance(COUNTS) / 2000)
    readings = np.mean([found.histogram for found in runs], axis=0)
    assert np.abs(readings - bins).max() < 6 * math.sqrt(discrete_laplace_variance(BINS) / 2000)
    assert min(int(found.transitions.min()) for found in runs) < 0  # raw: nothing is clamped
    assert runs[0].transitions.dtype == np.dtype("<i4")
    assert runs[0].transitions.shape == (5, 5)


def test_observed_privacy_loss_between_neighbours_is_within_epsilon() -> None:
    """Log ratio of the probabilities of any output on neighbours a distance 4 apart, in one cell each way."""
    privatiser = Privatiser(parameters(Budget(transitions_micro=2_000_000)))
    noise = draw(privatiser, DRAWS).transitions.ravel()
    low, high = Counter(noise.tolist()), Counter((noise + 4).tolist())
    for value in range(-2, 7):
        loss = abs(math.log(low[value] / high[value]))
        error = 6 * math.sqrt(1 / low[value] + 1 / high[value])
        assert loss <= 2.0 + error


@given(st.integers(1_000, 20_000_000), st.integers(100_000, 20_000_000), st.integers(1_000, 20_000_000))
def test_scales_keep_the_stated_epsilon_exactly(transitions: int, pane_sums: int, histogram: int) -> None:
    budget = Budget(transitions_micro=transitions, pane_sums_micro=pane_sums, histogram_micro=histogram)
    stated = parameters(budget)
    for release in stated.releases:
        exact = Fraction(release.sensitivity_l1) / Fraction(release.scale_micro / MICRO)
        assert exact <= Fraction(release.epsilon_micro, MICRO)
        assert exact >= Fraction(release.epsilon_micro, MICRO) * (1 - Fraction(1, 10**4))
    Privatiser(stated)


def test_an_unsound_scale_is_refused_by_opendp_itself() -> None:
    stated = parameters()
    unsound = replace(stated.releases[0], scale_micro=stated.releases[0].scale_micro - 10)
    with pytest.raises(ValueError, match="epsilon"):
        Privatiser(replace(stated, releases=(unsound, *stated.releases[1:])))
    with pytest.raises(ValueError, match="releases"):
        Privatiser(replace(stated, releases=stated.releases[:1]))


def test_statement_of_instant_and_average_mode() -> None:
    stated = parameters()
    assert [r.sensitivity_l1 for r in stated.releases] == [4, 4000, 2]
    assert [r.sensitivity_l2_squared for r in stated.releases] == [6, 4000**2, 2]
    assert (stated.epsilon_total_micro, stated.group_size) == (1_000_000, 1)
    for mode in ("average", "legacy"):
        average = privacy_parameters(Budget(), [gpu_class(FakeSource(sampler_mode=mode))], SCHEDULE)
        assert (average.epsilon_total_micro, average.group_size) == (11_000_000, 11)


def test_event_cost_agrees_with_one_reading_and_grows_with_the_event() -> None:
    budget = Budget(w_event_windows=2)
    assert event_epsilon_micro(budget, 1) == 1_000_000
    assert event_epsilon_micro(budget, 100) == 101 * 50_000 + 100 * (550_000 + 350_000)
    assert parameters(budget).w_event_epsilon_micro == event_epsilon_micro(budget, 200)


def test_the_widest_clip_range_sets_the_scale_of_all_classes() -> None:
    classes = [gpu_class(high=400), gpu_class(high=700, model="H100")]
    for order in (classes, classes[::-1]):
        found = privacy_parameters(default_budget(energy=True), order, SCHEDULE).releases
        assert [one.sensitivity_l1 for one in found] == [4, 7000, 2, energy_residual_l1(0, 700, 100), 2]


def test_a_configuration_that_may_overflow_is_refused() -> None:
    for budget in (Budget(pane_sums_micro=100), Budget(pane_sums_micro=1)):
        with pytest.raises(ConfigError, match="32 bits"):
            parameters(budget)
    many = [gpu_class(FakeSource(gpus=60_000))]
    with pytest.raises(ConfigError, match="32 bits"):
        privacy_parameters(Budget(), many, Schedule(window_ms=60_000, pane_ms=60_000))
    with pytest.raises(ConfigError):
        Budget(transitions_micro=0)


def test_forked_processes_do_not_share_noise() -> None:
    """Equal noise in two processes would cancel in a difference and leave the readings bare."""
    privatiser = Privatiser(parameters())
    draw(privatiser, 25)  # whatever state the generator has, it has it now
    seen = {draw(privatiser, 25, 8).pane_sums.tobytes()}
    for _ in range(3):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, draw(privatiser, 25, 8).pane_sums.tobytes())
            os._exit(0)
        seen.add(os.read(reader, 32))
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
    seen.add(draw(privatiser, 25, 8).pane_sums.tobytes())
    assert len(seen) == 5
