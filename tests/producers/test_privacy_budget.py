"""The budget: what the defaults add up to, what is refused at the start, and that a worker judges the same way."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from enclavescale.agent.file import BudgetSpec
from power_model.noise import discrete_laplace_pmf
from producers.distil import Distilled
from producers.privacy import (
    MICRO,
    MIN_EPSILON_MICRO,
    RELEASES,
    Budget,
    check_budget,
    default_budget,
    energy_residual_l1,
    event_epsilon_micro,
    event_ms,
    privacy_parameters,
)
from producers.privatise import NOT_IN_BUDGET, Noisy, Privatiser
from schemas.contract import HISTOGRAM_CELLS, group_size_of
from schemas.errors import ConfigError
from schemas.records import PrivacyParameters
from stream_jobs.core import checks
from stream_jobs.core.refusals import Refused
from tests.producers.forge import SCHEDULE, FakeSource, gpu_class

SIGNIFICANCE = 1e-6
MODES = st.sampled_from(["instant", "average", "legacy"])
BUDGETS = st.builds(
    Budget,
    transitions_micro=st.integers(9_000, 2_000_000),
    pane_sums_micro=st.integers(9_000, 2_000_000),
    histogram_micro=st.just(0) | st.integers(9_000, 2_000_000),
    energy_residual_micro=st.just(0) | st.integers(9_000, 500_000),
    glitches_micro=st.just(0) | st.integers(9_000, 500_000),
    w_event_windows=st.integers(1, 5),
)


def stated(budget: Budget, mode: str = "instant") -> PrivacyParameters:
    return privacy_parameters(budget, [gpu_class(FakeSource(sampler_mode=mode))], SCHEDULE)


def refusal(of: PrivacyParameters, limit: int) -> str | None:
    try:
        check_budget(of, limit)
    except ConfigError as error:
        return error.code
    return None


@pytest.mark.parametrize("energy", [False, True])
def test_the_defaults_add_up_to_one_and_a_worker_takes_them(energy: bool) -> None:
    parameters = stated(default_budget(energy=energy))
    assert parameters.epsilon_total_micro == MICRO
    assert {one.release for one in parameters.releases} == set(RELEASES if energy else RELEASES[:3])
    assert refusal(parameters, MICRO) is None
    checks.check_privacy(parameters, MICRO, 1)
    assert default_budget(energy=energy).transitions_micro == 100_000, "what one grid of counts gets, everywhere"


def test_one_millionth_too_much_does_not_start() -> None:
    parameters = stated(default_budget(energy=True))
    assert refusal(parameters, MICRO - 1) == "BUDGET_EXCEEDED"
    with pytest.raises(ConfigError, match=r"epsilon 1 per window and event; the policy allows 0\.5"):
        check_budget(parameters, MICRO // 2)


@pytest.mark.parametrize("mode", ["average", "legacy"])
def test_an_averaging_sensor_states_and_pays_its_group_cost(mode: str) -> None:
    parameters = stated(default_budget(energy=True), mode)
    assert (parameters.group_size, parameters.epsilon_total_micro) == (11, 11 * MICRO)
    with pytest.raises(ConfigError, match="11 readings per event") as caught:
        check_budget(parameters, MICRO)
    assert caught.value.code == "BUDGET_EXCEEDED"
    assert refusal(parameters, 11 * MICRO) is None


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_with_too_little_is_named(release: str) -> None:
    budget = replace(default_budget(energy=True), **{f"{release}_micro": MIN_EPSILON_MICRO - 1})
    with pytest.raises(ConfigError) as caught:
        check_budget(stated(budget), MICRO)
    assert (caught.value.code, caught.value.field) == ("BUDGET_TOO_SMALL", f"budget.{release}_micro")


@pytest.mark.parametrize("energy", [False, True])
def test_a_configured_budget_has_what_it_names_and_no_more(energy: bool) -> None:
    """A total that an operator chose stays that total, whatever else could be released."""
    named = BudgetSpec(transitions_micro=300_000, pane_sums_micro=700_000).budget(energy=energy)
    assert {one.release for one in stated(named).releases} == {"transitions", "pane_sums"}
    assert named.total_micro == MICRO
    more = BudgetSpec(transitions_micro=300_000, pane_sums_micro=600_000, histogram_micro=100_000).budget(energy=energy)
    assert [one.epsilon_micro for one in stated(more).releases] == [300_000, 600_000, 100_000]
    assert BudgetSpec().budget(energy=energy) == default_budget(energy=energy)


def test_negative_budgets_are_refused() -> None:
    for name in ("histogram_micro", "energy_residual_micro", "glitches_micro", "transitions_micro"):
        with pytest.raises(ConfigError):
            Budget(**{name: -1})


@given(BUDGETS, MODES, st.integers(10_000, 60 * MICRO))
def test_a_host_starts_exactly_where_a_worker_takes_its_reports(budget: Budget, mode: str, limit: int) -> None:
    parameters = stated(budget, mode)
    try:
        checks.check_privacy(parameters, limit, group_size_of(mode))
        taken = True
    except Refused:
        taken = False
    assert (refusal(parameters, limit) is None) == taken


@given(BUDGETS, st.integers(1, 5_000))
def test_the_cost_of_an_event_is_the_sum_that_a_worker_computes(budget: Budget, readings: int) -> None:
    releases = stated(budget).releases
    assert event_epsilon_micro(budget, readings) == sum(checks.event_epsilon_micro(one, readings) for one in releases)


@given(BUDGETS, MODES)
def test_the_w_event_covers_every_reading_of_its_windows(budget: Budget, mode: str) -> None:
    parameters = stated(budget, mode)
    ticks = budget.w_event_windows * SCHEDULE.ticks + parameters.group_size - 1  # an average sees it as long after
    assert parameters.w_event_epsilon_micro >= event_epsilon_micro(budget, ticks)
    assert parameters.epsilon_total_micro >= event_epsilon_micro(budget, parameters.group_size)


def test_an_update_behind_a_reading_is_never_shorter_than_the_slowest_sensor() -> None:
    assert [event_ms(tick) for tick in (10, 50, 100, 200)] == [125, 125, 125, 250]
    assert energy_residual_l1(0, 700, 100) == math.ceil(700 * 100 / 0.9) + 700 * 125


def exact(residual: int | None = 5_000, reason: str | None = None, glitches: int = 3) -> Distilled:
    side = np.zeros((5, 5), np.int64)
    return Distilled(side, np.zeros(2, np.int64), np.zeros(HISTOGRAM_CELLS, np.int64), 50, residual, reason, glitches)


def test_what_is_not_in_the_budget_is_not_drawn_and_says_so() -> None:
    noisy = Privatiser(stated(replace(default_budget(energy=False), histogram_micro=0))).privatise(exact())
    assert noisy.histogram is None
    assert (noisy.energy_residual_mj, noisy.energy_absent_reason, noisy.glitches) == (None, NOT_IN_BUDGET, None)
    live = Privatiser(stated(default_budget(energy=True)))
    assert live.privatise(exact()).histogram is not None
    for reason in ("no_counter", "incomplete"):
        absent = live.privatise(exact(None, reason))
        assert (absent.energy_residual_mj, absent.energy_absent_reason) == (None, reason)
        assert absent.glitches is not None
    assert live.privatise(exact()).energy_absent_reason is None


def test_an_unknown_release_is_refused() -> None:
    parameters = stated(default_budget(energy=True))
    odd = replace(parameters.releases[4], release="peaks")
    with pytest.raises(ValueError, match="releases"):
        Privatiser(replace(parameters, releases=(*parameters.releases[:4], odd)))


def test_residual_and_spikes_carry_the_noise_they_state() -> None:
    """Windows of the real thing, one after the other, against the distributions that the report names."""
    parameters = stated(default_budget(energy=True))
    privatiser = Privatiser(parameters)
    seen: list[Noisy] = [privatiser.privatise(exact()) for _ in range(1_500)]
    residuals = np.array([one.energy_residual_mj for one in seen], dtype=np.float64) - 5_000
    scale = {one.release: one.scale_micro / MICRO for one in parameters.releases}
    laplace = stats.laplace(scale=scale["energy_residual"])
    assert stats.kstest(residuals, laplace.cdf).pvalue > SIGNIFICANCE
    assert stats.kstest(residuals * 2, laplace.cdf).pvalue < SIGNIFICANCE
    spikes = np.array([one.glitches for one in seen]) - 3
    reach = 400
    law = np.cumsum([discrete_laplace_pmf(x, scale["glitches"]) for x in range(-reach, reach + 1)])
    found = np.array([(spikes <= x).mean() for x in range(-reach, reach + 1)])
    # Dvoretzky-Kiefer-Wolfowitz: beyond this with probability `SIGNIFICANCE`.
    assert np.abs(found - law).max() < math.sqrt(math.log(2 / SIGNIFICANCE) / (2 * len(seen)))
