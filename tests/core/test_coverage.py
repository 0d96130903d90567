"""Who speaks for a domain: readings cover it, reports alone do not; what nobody reports is in the intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from schemas.records import ClassEnrolment, FleetPower, Interval, ModelRule
from stream_jobs.core.aggregate import add_report
from stream_jobs.core.influence import host_bounds_w
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.reject import judge
from tests.core import fleet
from tests.core.claims import (
    CAPACITY_W,
    COUNTS,
    GPUS,
    MODEL,
    PANES,
    PRIVACY,
    TICKS,
    Domain,
    enrolled,
    laplace,
    output_of,
    view_of,
)
from tests.core.test_estimator import Proven

HOSTS = 8
POWERS = {host: 1_500.0 + 100 * host for host in range(HOSTS)}
ENROLLED_W = HOSTS * CAPACITY_W


def output(domain: Domain, powers: Mapping[int, float], dark: Mapping[int, int] | None = None) -> FleetPower:
    """The next window's output; `dark`: hosts that report so many readings, and noise."""
    window = domain.window(powers)
    for host, readings in (dark or {}).items():
        domain.add(window, host, laplace(domain.rng, (PANES,)), 50 + host, readings_taken=readings)
    domain.histories.close(window)
    return output_of(window)


def holds(interval: Interval | None, watts: float) -> bool:
    assert interval is not None
    return interval.low_w <= watts <= interval.high_w


@pytest.mark.parametrize(("told", "met"), [(4, True), (3, False)])
def test_quorum_counts_readings(told: int, met: bool) -> None:
    """Half of the capacity is enough for a quorum of a half; hosts that report no reading add nothing to it."""
    made = output(
        Domain(view_of(HOSTS, quorum_ppm=500_000)),
        {host: POWERS[host] for host in range(told)},
        dict.fromkeys(range(told, HOSTS), 0),
    )
    assert made.accepted == HOSTS
    assert (made.coverage.reporting_hosts, made.coverage.reporting_gpus) == (told, told * GPUS)
    assert made.coverage.reporting_capacity_w == told * CAPACITY_W
    assert made.coverage.quorum_met == met
    assert (made.margin.margin is not None) == met
    assert made.margin.margin_absent_reason == (None if met else "coverage below quorum")


def test_hosts_without_readings_hide_nobody() -> None:
    made = output(Domain(view_of(HOSTS, k_min_hosts=2)), {0: POWERS[0]}, dict.fromkeys(range(1, HOSTS), 0))
    assert (made.dilution.hosts, made.dilution.tenants, made.dilution.met) == (1, 1, False)
    assert made.dilution.largest_host_share_ppm == 1_000_000
    assert made.mean is None
    assert not any((made.classes, made.set_aside, made.power_by, made.quantiles))
    domain = Domain(view_of(HOSTS, k_min_hosts=8))
    domain.past(POWERS)
    made = output(domain, {host: POWERS[host] for host in range(5)}, dict.fromkeys(range(5, HOSTS), 3))
    assert (made.mean, made.set_aside, made.power_by) == (None, (), ())


@pytest.mark.parametrize("readings", [0, GPUS * TICKS * 45 // 100])
def test_a_past_alone_makes_no_figures(readings: int) -> None:
    domain = Domain(view_of(HOSTS))
    domain.past(POWERS)
    made = output(domain, {}, dict.fromkeys(POWERS, readings))
    assert made.coverage.reporting_hosts == 0
    assert made.mean_absent_reason == "no class has readings"
    assert made.margin.margin is None


def test_hosts_alike_do_not_make_the_rest_certain() -> None:
    """Two hosts that draw the same say little of six others."""
    domain = Domain(view_of(HOSTS), noisy=False)
    one, few, all_but_one = (output(domain, dict.fromkeys(range(told), 1_000.0)).mean for told in (1, 2, HOSTS - 1))
    assert one is not None
    assert few is not None
    assert all_but_one is not None
    assert few.value_w == all_but_one.value_w == HOSTS * 1_000
    assert few.high_w - few.value_w > 0.2 * ENROLLED_W
    assert all_but_one.high_w - all_but_one.value_w < 0.05 * ENROLLED_W
    assert one.low_w == 0, "GPUs give no power back"


def test_absent_hosts_range_as_far_as_they_did() -> None:
    widths = []
    for swing_w in (0.0, 1_000.0):
        domain = Domain(view_of(HOSTS), noisy=False)
        for number in range(30):
            domain.close(domain.window(POWERS | {host: POWERS[host] + swing_w * (number % 2) for host in (0, 3)}))
        made = output(domain, {host: power for host, power in POWERS.items() if host not in (0, 3)}).mean
        assert made is not None
        widths.append(made.high_w - made.low_w)
    # Two hosts in step, anywhere in their range: 1.96 standard deviations of a uniform law to both sides.
    assert widths[1] ** 2 - widths[0] ** 2 == pytest.approx((2 * 1.96 * 2_000) ** 2 / 12, rel=0.02)


def modes(
    domain: Domain, instant: Mapping[int, float], average: Mapping[int, float], readings: int = GPUS * TICKS
) -> FleetPower:
    """One GPU model in two sampler modes; `readings` of the hosts in average mode."""
    window = domain.window(instant)
    for host, power in average.items():
        sums = np.full(PANES, round(power * 10 * TICKS / PANES)) + laplace(domain.rng, (PANES,))
        domain.add(window, host, sums, 50 + host, sampler_mode="average", readings_taken=readings)
    domain.histories.close(window)
    return output_of(window)


@pytest.mark.parametrize("left", [None, 0, 1])
def test_a_class_that_falls_silent_counts_at_its_own_past(left: int | None) -> None:
    """Hosts of one model in two modes: those that are gone are not like the others. `left`: None report no reading."""
    domain = Domain(view_of(HOSTS, history_windows=12))
    instant, average = dict.fromkeys(range(4), 800.0), dict.fromkeys(range(4, 8), 3_600.0)
    for _ in range(12):
        modes(domain, instant, average)
    made = (
        modes(domain, instant, average, 0)
        if left is None
        else modes(domain, instant, dict(list(average.items())[:left]))
    )
    truth = 4 * 800 + 4 * 3_600
    assert made.mean is not None
    assert abs(made.mean.value_w - truth) < 0.01 * ENROLLED_W
    assert [(one.code, one.sampler_mode, one.hosts) for one in made.set_aside] == [
        ("ABSENT", "average", 4 - (left or 0))
    ]
    assert made.coverage.reporting_hosts == 4 + (left or 0)
    if not left:  # nobody of their mode is a witness
        assert holds(made.mean, 4 * 800)
        assert made.mean.high_w - made.mean.value_w < 4 * CAPACITY_W
        (median,) = (one.estimate for one in made.forecasts if one.quantile_ppm == 500_000)
        assert abs(median.value_w - truth) < 0.02 * ENROLLED_W
    bounds = {one.subject: one.mean_w for one in made.influence}
    assert (bounds["host"] or 0) >= GPUS * MODEL.clip_high_w


OTHER = ModelRule(model="other", edges_w=MODEL.edges_w, clip_low_w=0, clip_high_w=1_100)


def mixed_view(**rule: int) -> PolicyView:
    """Eight hosts of one model and four of another, twice as large."""
    base = view_of(HOSTS, **rule)
    classes = (ClassEnrolment(model=OTHER.model, gpus=GPUS, capacity_w=2 * CAPACITY_W),)
    hosts = [*base.policy.hosts, *(replace(enrolled(number), classes=classes) for number in range(HOSTS, HOSTS + 4))]
    return fleet.policy_of(hosts, base.policy.domains, models=(MODEL, OTHER))


def test_a_model_of_which_nothing_is_known_may_draw_anything() -> None:
    made = output(Domain(mixed_view()), dict.fromkeys(range(HOSTS), 400.0))
    assert made.mean is not None
    assert abs(made.mean.value_w - 2 * HOSTS * 400) < 0.02 * ENROLLED_W, "used as much as the others"
    assert holds(made.mean, HOSTS * 400)
    assert holds(made.mean, HOSTS * 400 + 4 * 2 * CAPACITY_W)
    assert made.margin.margin is not None
    assert made.margin.margin.low_w <= made.margin.limit_w - HOSTS * 400 - 4 * 2 * CAPACITY_W


def test_forecasts_reach_to_the_claims_that_are_set_aside() -> None:
    domain = Domain(view_of(32, forecast_horizons_ms=(1_000, 10_000), horizon_ms=10_000))
    powers = dict.fromkeys(range(32), 1_000.0)
    domain.past(powers)
    claim = powers | dict.fromkeys(range(5), 4_000.0)
    made = output(domain, claim)
    assert [one.code for one in made.set_aside] == ["HISTORY_UP"]
    assert len(made.forecasts) == 6
    for one in made.forecasts:
        assert one.estimate.low_w <= sum(powers.values()) * 1.01
        assert one.estimate.high_w >= sum(claim.values())
    ahead = next(one.estimate for one in made.forecasts if (one.horizon_ms, one.quantile_ppm) == (10_000, 990_000))
    now = next(one.estimate for one in made.quantiles if one.quantile_ppm == 990_000)
    margin = made.margin.margin
    assert margin is not None
    assert margin.value_w == made.margin.limit_w - ahead.value_w < made.margin.limit_w - now.value_w
    assert abs(margin.low_w - (made.margin.limit_w - ahead.high_w)) <= 2


def test_a_lower_power_limit_lowers_what_a_host_may_claim() -> None:
    for limit_w, capped in ((CAPACITY_W // 2, 1), (CAPACITY_W, 0), (2 * CAPACITY_W, 0)):
        domain = Domain(view_of(HOSTS))
        window = domain.window({host: power for host, power in POWERS.items() if host})
        sums = np.full(PANES, 3_600 * 10 * TICKS // PANES)
        domain.add(window, 0, sums, 50, enforced_limit_w=limit_w, enforced_limit_w_absent_reason=None)
        found = {one.code: one.hosts for one in output_of(window).layers}
        assert found["INFLUENCE_CAPPED"] == capped


def test_a_host_of_a_model_of_which_nothing_is_known_is_in_the_bounds() -> None:
    """It may speak for all of its model; and the others speak for it while it does not."""
    view = mixed_view()
    means: list[int] = []
    quantiles: list[int] = []
    for claim_w, others_w in ((None, 400.0), (None, 4_000.0), (0.0, 400.0), (float(GPUS * OTHER.clip_high_w), 400.0)):
        window = Domain(view).window(dict.fromkeys(range(1, HOSTS), 400.0) | {0: others_w})
        if claim_w is not None:
            sums = np.full(PANES, round(claim_w * 10 * TICKS / PANES))
            one = fleet.gpu_class(
                model=OTHER.model, gpus=GPUS, capacity_w=2 * CAPACITY_W, edges_w=OTHER.edges_w, clip_high_w=1_100,
                readings_taken=GPUS * TICKS, pane_sums=sums.astype("<i4").tobytes(), pane_sums_shape=(PANES,),
                transitions=COUNTS.astype("<i4").tobytes(), transitions_shape=COUNTS.shape,
            )  # fmt: skip
            body = fleet.report_of(
                fleet.session_of("h0", "d"), window.start_ms, host_id="h008", classes=(one,), privacy=PRIVACY,
                window_end_ms=window.end_ms,
            )  # fmt: skip
            host = view.policy.hosts[8]
            add_report(window, body, [one], host, Proven(), digest=bytes(32), offset=90, flags=())  # type: ignore[arg-type]
        made = output_of(window)
        if not means:
            own_w, _ = host_bounds_w(window, judge(window))["h000"]
            bound = next(one for one in made.influence if one.subject == "host")
        assert made.mean is not None
        assert made.margin.margin is not None
        means.append(made.mean.value_w)
        quantiles.append(made.margin.margin.value_w)
    assert bound.mean_w is not None
    assert bound.margin_w is not None
    assert max(means) - min(means) > 4 * GPUS * 1_000, "one of four hosts moves all four"
    assert own_w >= abs(means[1] - means[0]) > 1.9 * 3_600, "one of the others moves them, too"
    assert own_w > 2 * GPUS * MODEL.clip_high_w
    for mean_w, quantile_w in zip(means, quantiles, strict=True):
        assert abs(mean_w - means[0]) <= bound.mean_w
        assert abs(quantile_w - quantiles[0]) <= bound.margin_w


def test_a_margin_that_looks_ahead_has_no_bound_and_says_why() -> None:
    for horizon_ms in (0, 10_000):
        domain = Domain(view_of(HOSTS, horizon_ms=horizon_ms))
        for one in output(domain, POWERS).influence:
            assert one.mean_w is not None
            assert (one.margin_w is None) == (one.margin_w_absent_reason is not None) == (horizon_ms > 0)
