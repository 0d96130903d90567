"""Layers 2 to 4: who is flagged, what counts, and what honest fleets pay."""

from __future__ import annotations

import copy
import itertools
import os
import random
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import FleetPower
from stream_jobs.core.balance import Balance
from stream_jobs.core.reject import CODES, LAYERS, judge
from stream_jobs.core.tails import HONEST_TAIL, draw_excess, square_sum_excess, sum_excess
from tests.core.claims import (
    CAPACITY_W,
    GPUS,
    MODEL,
    PANES,
    SIGMA_W,
    Domain,
    codes_of,
    laplace,
    output_of,
    view_of,
)
from tests.results import write_result

HOSTS = 32
ENROLLED_W = HOSTS * CAPACITY_W
CAP_W = ENROLLED_W * 7_500 / 1e6
KEY = (MODEL.model, "instant")
MIXED = {host: 600.0 + 60 * host for host in range(HOSTS)}


@cache
def _past(powers: tuple[tuple[int, float], ...], seed: int) -> Domain:
    domain = Domain(view_of(HOSTS), seed=seed)
    domain.past(dict(powers))
    return domain


def with_past(powers: dict[int, float] = MIXED, seed: int = 1) -> Domain:
    """A domain whose hosts have always drawn the same."""
    domain = _past(tuple(powers.items()), seed)
    return copy.deepcopy(domain, {id(domain.view): domain.view})


def mean_of(output: FleetPower) -> int:
    assert output.mean is not None
    assert output.mean.low_w <= output.mean.value_w <= output.mean.high_w
    return output.mean.value_w


def closed(domain: Domain, powers: Mapping[int, Any]) -> FleetPower:
    window = domain.window(powers)
    domain.histories.close(window)
    return output_of(window)


def test_honest_windows_are_left_alone() -> None:
    output = closed(with_past(), MIXED)
    assert {one.code for one in output.layers if one.hosts} == set()
    assert output.set_aside == ()
    assert abs(mean_of(output) - sum(MIXED.values())) < 5 * SIGMA_W * HOSTS**0.5


@pytest.mark.parametrize(("claim", "code"), [(4_600.0, "HISTORY_UP"), (0.0, "HISTORY_DOWN")])
def test_a_few_liars_move_the_mean_by_the_drift_cap_at_most(claim: float, code: str) -> None:
    liars = range(10, 15)
    output = closed(with_past(), MIXED | dict.fromkeys(liars, claim))
    truth, lie = sum(MIXED.values()), sum(claim - MIXED[host] for host in liars)
    assert {one.code: one.hosts for one in output.layers if one.hosts} == {code: 5}
    assert abs(mean_of(output) - truth) <= CAP_W + 3 * SIGMA_W * HOSTS**0.5
    assert output.mean is not None
    # The claim itself lies inside the interval.
    assert output.mean.low_w <= truth + lie <= output.mean.high_w
    (aside,) = output.set_aside
    assert (aside.code, aside.hosts, aside.gpus) == (code, 5, 5 * GPUS)
    assert abs(aside.claimed_w - 5 * claim) < 5 * SIGMA_W * 5**0.5
    assert abs(aside.reference_w - sum(MIXED[host] for host in liars)) < 5 * SIGMA_W * 5**0.5
    assert output.margin.margin is not None
    if claim > 1_000:  # no margin is promised that a claim denies
        assert output.margin.margin.low_w <= output.margin.limit_w - (truth + lie)


@pytest.mark.parametrize("direction", [1, -1])
def test_claims_count_up_to_the_cap_and_less_and_less_beyond_it(direction: int) -> None:
    """A host steps ever further: all of it counts, then as much less as it is above the cap, then nothing."""
    truth, seen = sum(MIXED.values()), []
    for claimed_w in (250, 450, 1_100, 1_700):
        domain = with_past()
        window = domain.window(MIXED | {30: MIXED[30] + direction * claimed_w})
        domain.histories.close(window)
        judgement = judge(window)
        balance = judgement.up if direction > 0 else judgement.down
        moved = float((balance.shares * balance.watts).sum())
        wanted = max(0.0, min(moved, 2 * balance.cap_w[0] - moved))
        assert balance.admitted_w(ENROLLED_W // 4) == pytest.approx(wanted)
        assert abs((mean_of(output_of(window)) - truth) * direction - wanted) < 4 * SIGMA_W * HOSTS**0.5
        seen.append(wanted)
    assert seen[1] > seen[0] > 0
    assert seen[1] > seen[2] > seen[3] == 0


@settings(max_examples=100, deadline=None)
@given(
    others=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 5)), max_size=8),
    subject=st.tuples(st.integers(0, 60), st.integers(1, 5)),
    limit=st.integers(0, 12),
    cap=st.integers(0, 60),
)
def test_nobody_changes_what_counts_of_others_by_more_than_stated(
    others: list[tuple[int, int]], subject: tuple[int, int], limit: int, cap: int
) -> None:
    """What counts of the others' claims, by their share of all, with any claim of the subject and without it."""

    def balance(claims: list[tuple[int, int]]) -> Balance:
        ordered = sorted(claims, reverse=True)
        capacity_w = np.array([w for _, w in ordered], np.int64)
        shares = np.array([share / 60 for share, _ in ordered], float)
        return Balance(shares, capacity_w, capacity_w.astype(float), (cap / 60, cap / 60), 0.0)

    def counts(claims: list[tuple[int, int]]) -> float:
        whole, part = balance(claims), balance(others)
        borne = whole.borne_out(limit)
        beyond, mine = (float((np.maximum(one.shares - borne, 0) * one.watts).sum()) for one in (whole, part))
        free = max(0.0, min(beyond, 2 * whole.cap_w[0] - beyond)) / beyond if beyond else 0.0
        return float((np.minimum(part.shares, borne) * part.watts).sum()) + free * mine

    found = [counts([*others, (share, subject[1])]) for share in (0, subject[0], 60)] + [counts(others)]
    assert max(found) - min(found) <= balance(others).range_w(limit, subject[1], subject[1]) + 1e-9


def test_a_job_on_more_hosts_than_may_collude_counts_in_full() -> None:
    job = range(9)
    output = closed(with_past(), MIXED | {host: MIXED[host] + 2_000.0 for host in job})
    assert {one.code: one.hosts for one in output.layers if one.hosts} == {"HISTORY_UP": 9}
    assert output.set_aside == ()
    assert abs(mean_of(output) - sum(MIXED.values()) - 9 * 2_000) < 5 * SIGMA_W * HOSTS**0.5


def test_liars_who_ride_on_a_job_gain_what_it_moves() -> None:
    job, liars = range(9), range(20, 24)
    powers = MIXED | {host: MIXED[host] + 1_000.0 for host in job} | dict.fromkeys(liars, 4_500.0)
    moved = mean_of(closed(with_past(), powers)) - sum(MIXED.values()) - 9 * 1_000
    assert moved <= 4 * 1_000 + CAP_W + 5 * SIGMA_W * HOSTS**0.5


@pytest.mark.parametrize("claim", [0.0, 4_600.0, None])
@pytest.mark.parametrize("job_w", [1_900.0, 900.0, 3_600.0])
def test_liars_in_a_job_do_not_speak_for_it_wherever_it_goes(claim: float | None, job_w: float) -> None:
    """Twelve hosts in step between 1,500 and 2,500 W, five of which lie or leave while the job draws `job_w`."""
    job, liars = range(12), range(5)
    domain = Domain(view_of(HOSTS), seed=5)
    for number in range(30):
        domain.close(domain.window(MIXED | dict.fromkeys(job, 1_500.0 + 1_000 * (number % 3 == 0))))
    truth = MIXED | dict.fromkeys(job, job_w)
    claims = {host: truth[host] if host not in liars else claim for host in truth}
    output = closed(domain, {host: power for host, power in claims.items() if power is not None})
    assert abs(mean_of(output) - sum(truth.values())) <= 8 * SIGMA_W * HOSTS**0.5
    assert {one.code for one in output.set_aside} <= {"HISTORY_UP", "HISTORY_DOWN", "ABSENT"}
    assert sum(one.hosts for one in output.set_aside) == len(liars)


@pytest.mark.parametrize("step_share", [0.01, 0.04])
def test_frog_boiling_gains_no_more_than_the_drift_cap(step_share: float) -> None:
    """Five of 32 drift over ten windows; what they gain never exceeds the cap and the noise."""
    domain, quiet = with_past(seed=4), with_past(seed=4)
    gains = []
    for step in range(1, 11):
        drifted = {host: min(4_700.0, MIXED[host] + step * step_share * CAPACITY_W) for host in range(5)}
        gains.append(mean_of(closed(domain, MIXED | drifted)) - mean_of(closed(quiet, MIXED)))
    assert max(gains) <= CAP_W
    assert max(gains) > 0.2 * CAP_W


def test_a_fake_swing_is_flagged_and_held() -> None:
    wave = np.where(np.arange(PANES) % 20 < 10, 1.0, -1.0)
    powers = MIXED | {host: MIXED[host] + 0.9 * MIXED[host] * wave for host in range(20, 25)}
    output = closed(with_past(), powers)
    assert {one.code: one.hosts for one in output.layers if one.hosts} == {"HISTORY_SWING": 5}
    (aside,) = output.set_aside
    admitted = aside.weight_ppm / 1e6 * sum(0.9 * MIXED[host] for host in range(20, 25))
    assert admitted <= CAP_W * 1.05


@pytest.mark.parametrize("liars", [0, 3])
def test_a_job_that_begins_to_swing_is_no_fake_swing(liars: int) -> None:
    """Six hosts in step swing as never before: a job of less than may collude. Three others swing with them and lie."""
    job = range(6)
    domain = Domain(view_of(HOSTS), seed=5)
    for number in range(30):
        domain.close(domain.window(MIXED | dict.fromkeys(job, 1_500.0 + 1_000 * (number % 3 == 0))))
    wave = np.where(np.arange(PANES) % 20 < 10, 1.0, -1.0)
    now = MIXED | dict.fromkeys(job, 1_500.0 + 900 * wave)
    output = closed(domain, now | {host: MIXED[host] * (1 + 0.9 * wave) for host in range(20, 20 + liars)})
    assert {one.code: one.hosts for one in output.layers if one.hosts} == ({"HISTORY_SWING": liars} if liars else {})
    assert sum(one.hosts for one in output.set_aside) == liars


def test_absent_hosts_count_at_their_own_level() -> None:
    """Idle hosts leave: the others' utilisation must not stand for them."""
    gone = range(5)
    output = closed(with_past(), {host: power for host, power in MIXED.items() if host not in gone})
    assert abs(mean_of(output) - sum(MIXED.values())) < 6 * SIGMA_W * HOSTS**0.5
    (aside,) = output.set_aside
    assert (aside.code, aside.hosts, aside.weight_ppm) == ("ABSENT", 5, 0)
    few = with_past()
    window = few.window({host: power for host, power in MIXED.items() if host not in gone})
    for host in gone:  # so do hosts that state next to no readings
        few.add(window, host, laplace(few.rng, (PANES,)), 90 + host, readings_taken=3)
    few.histories.close(window)
    assert abs(mean_of(output_of(window)) - sum(MIXED.values())) < 6 * SIGMA_W * HOSTS**0.5


def test_newcomers_are_held_against_their_cohort() -> None:
    known = {host: power for host, power in MIXED.items() if host < 28}
    domain = with_past(known)
    output = closed(domain, known | {28: 4_700.0, 29: 4_700.0, 30: 1_200.0, 31: 0.0})
    found = {one.code: one.hosts for one in output.layers if one.hosts}
    assert found == {"COHORT_UP": 2, "COHORT_DOWN": 1}
    assert [one.code for one in output.set_aside] == ["COHORT_DOWN", "COHORT_UP"]
    new = with_past({0: 1_000.0})
    assert {one.code for one in closed(new, MIXED).layers if one.hosts} <= {"HISTORY_DOWN"}


def test_no_host_counts_with_more_than_its_gpus_can_draw() -> None:
    domain = Domain(view_of(HOSTS))
    output = closed(domain, MIXED | {3: 1.2 * MODEL.clip_high_w * GPUS})
    assert {one.code: one.hosts for one in output.layers if one.hosts} == {"INFLUENCE_CAPPED": 1}
    top_w = MODEL.clip_high_w * GPUS + sum_excess(PANES) * SIGMA_W / (2 * PANES) ** 0.5
    assert abs(mean_of(output) - sum(MIXED.values()) + MIXED[3] - top_w) < 5 * SIGMA_W * HOSTS**0.5
    spike = np.full(PANES, 2_000.0)
    spike[7] = 20_000.0
    window = domain.window(MIXED | {3: spike})
    assert codes_of(judge(window)) == {"INFLUENCE_CAPPED": 1}


def test_stated_noise_is_no_excuse() -> None:
    """A host that states a tenth of the others' budget could hide any claim in its noise."""
    domain = with_past()
    window = domain.window(MIXED | {3: 4_700.0})
    total = window.sums[KEY]
    total.pane_epsilons_micro[3] //= 10
    total.pane_scales_micro[3] *= 10
    domain.histories.close(window)
    judgement = judge(window)
    assert codes_of(judgement) == {"NOISE_EXCESS": 1}
    assert judgement.corrections[KEY].weights[3] == 0.0
    assert abs(mean_of(output_of(window)) - sum(MIXED.values())) < 6 * SIGMA_W * HOSTS**0.5


def test_every_check_is_listed_with_its_honest_rate() -> None:
    output = closed(with_past(), MIXED)
    assert set(LAYERS) <= {one.code for one in output.layers}
    assert set(LAYERS) < set(CODES)
    assert {one.layer for one in output.layers} == {"physics", "history", "cohort", "influence"}
    assert all(0 <= one.honest_rate_pico <= 10_000_000 for one in output.layers)
    assert list(output.layers) == sorted(output.layers, key=lambda one: (one.layer, one.code))


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_order_of_the_hosts_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    powers = {host: rng.choice((100.0, 900.0, 2_500.0, 4_700.0)) for host in range(HOSTS) if rng.random() < 0.9}
    outputs = []
    for _ in range(2):
        domain = with_past(MIXED, seed=2)
        order = list(powers)
        rng.shuffle(order)
        window = domain.window(powers, order)
        domain.histories.close(window)
        outputs.append(output_of(window))
    for field in ("mean", "quantiles", "margin", "layers", "set_aside", "influence"):
        assert getattr(outputs[0], field) == getattr(outputs[1], field), field


@settings(max_examples=30, deadline=None)
@given(
    shares=st.lists(st.tuples(st.integers(0, 40), st.integers(1, 5)), min_size=1, max_size=10),
    limit=st.integers(0, 12),
)
def test_borne_out_is_what_more_than_the_liars_reach(shares: list[tuple[int, int]], limit: int) -> None:
    """By trying every deviation: the least one that hosts of at most the limit exceed."""
    ordered = sorted(shares, reverse=True)
    balance = Balance(
        np.array([share for share, _ in ordered], float),
        np.array([w for _, w in ordered]),
        np.ones(len(ordered)),
        (0.0, 0.0),
        0.0,
    )
    expected = next(d for d in itertools.count() if sum(w for share, w in shares if share > d) <= limit)
    assert balance.borne_out(limit) == expected


@pytest.mark.parametrize("count", [2, 10, 60])
def test_tails_hold_at_a_rate_that_can_be_counted(count: int) -> None:
    """At one in a thousand: 100,000 draws must show the bounds, and that they are not far too wide."""
    rng = np.random.default_rng(count)
    draws = rng.laplace(size=(100_000, count))
    for found, bound, floor in (
        (draws.sum(axis=1), sum_excess(count, 1e-3), 3e-5),
        ((draws * draws).sum(axis=1) - 2 * count, square_sum_excess(count, 1e-3), 1e-6),
        (np.abs(draws).max(axis=1), draw_excess(count, 1e-3), 3e-4),
    ):
        rate = float((found > bound).mean())
        assert rate <= 1e-3 + 4 * (1e-3 / len(draws)) ** 0.5
        assert rate >= floor or (found > 0.5 * bound).mean() > 1e-3


def test_honest_hosts_are_flagged_no_more_often_than_published() -> None:
    """Constant power, noise of the stated law, histories of five to fifteen claims; counts by tier."""
    tier = os.environ.get("ENCLAVESCALE_TIER", "test")
    windows = {"test": 5, "soak": 200, "accept": 500}[tier]
    hosts = 200 if tier == "test" else 1_000
    domain = Domain(view_of(hosts), seed=9)
    rng = np.random.default_rng(3)
    powers = {host: float(rng.uniform(300, 4_000)) for host in range(hosts)}
    domain.past(powers, 20 if tier == "test" else 30)
    flagged = checked = 0
    for _ in range(windows):
        judgement = domain.close(domain.window(powers))
        checked += hosts
        flagged += sum(judgement.hosts.values())
        assert judgement.set_aside == ()
        domain.histories.forget(0)
    expected = checked * HONEST_TAIL * len(LAYERS)
    assert flagged <= expected + 4 * expected**0.5 + 1
    if tier == "accept":
        write_result(
            "core-honest-flags",
            {"host_windows": checked, "flagged": flagged, "published": expected},
            seeds={"noise": 9},
        )
