"""Influence bounds: no set of reports that a subject may send moves mean or margin by more than the output says."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from schemas.records import FleetPower
from stream_jobs.core.influence import host_bounds_w
from stream_jobs.core.reject import judge
from stream_jobs.core.tails import draw_excess, sum_excess
from tests.core.claims import CAPACITY_W, GPUS, MODEL, PANES, SCALE, TICKS, Domain, output_of, view_of

HOSTS = 12
POWERS = {host: 800.0 + 150 * host for host in range(HOSTS)}
RANGE_W = GPUS * MODEL.clip_high_w
SLACK_W = 1.5 * SCALE * sum_excess(PANES) / TICKS / 10
SPIKE_W = 1.5 * SCALE * draw_excess(PANES) / (TICKS // PANES) / 10


def bounds_of(output: FleetPower) -> dict[str, tuple[int, int]]:
    return {one.subject: (one.mean_w or 0, one.margin_w or 0) for one in output.influence}


def figures(domain: Domain, claims: Mapping[int, Any]) -> tuple[int, int]:
    """Mean and margin of the next window, were these the claims; the domain stays where it is."""
    once = copy.deepcopy(domain, {id(domain.view): domain.view})
    window = once.window(claims)
    once.histories.close(window)
    output = output_of(window)
    assert output.mean is not None
    assert output.margin.margin is not None
    return output.mean.value_w, output.margin.margin.value_w


def test_without_a_past_the_bound_is_the_range_and_the_noise() -> None:
    domain = Domain(view_of(HOSTS))
    bounds = bounds_of(output_of(domain.window(POWERS)))
    assert bounds["host"] == (math.ceil(RANGE_W + 2 * SLACK_W), math.ceil(RANGE_W + SLACK_W + SPIKE_W))
    assert bounds["tenant"][0] == pytest.approx(4 * (RANGE_W + 2 * SLACK_W), abs=2)
    assert bounds["failure_domain"][1] == pytest.approx(3 * (RANGE_W + SLACK_W + SPIKE_W), abs=2)
    assert bounds["colluding"][0] == pytest.approx(3 * (RANGE_W + 2 * SLACK_W), abs=2)


def test_absence_is_among_what_a_host_may_do() -> None:
    """Among idle hosts a busy one that leaves takes what it brought; among busy ones the others stand for it."""
    domain = Domain(view_of(2), noisy=False)
    window = domain.window({0: 100.0, 1: 3_000.0})
    mean_w, _ = host_bounds_w(window, judge(window))["h001"]
    present_high, absent = 100 + RANGE_W + SLACK_W, 2 * 100
    assert mean_w == pytest.approx(max(present_high, absent) - (100 - SLACK_W), abs=1)
    alone = Domain(view_of(2), noisy=False).window({0: 100.0})
    mean_w, _ = host_bounds_w(alone, judge(alone))["h001"]
    assert mean_w == pytest.approx(RANGE_W + 2 * SLACK_W, abs=1)
    mean_w, _ = host_bounds_w(alone, judge(alone))["h000"]  # nobody else: without it there is no figure
    assert mean_w == pytest.approx(2 * (RANGE_W + 2 * SLACK_W), abs=1)


def test_partial_coverage_widens_the_bound() -> None:
    full = bounds_of(output_of(Domain(view_of(HOSTS)).window(POWERS)))
    half = bounds_of(output_of(Domain(view_of(HOSTS)).window({h: p for h, p in POWERS.items() if h % 2})))
    assert half["host"][0] == pytest.approx(2 * full["host"][0], rel=0.01)


def test_what_others_have_set_aside_is_in_the_bound() -> None:
    """A host more may bear out a job that is set aside: that is in its bound, too."""
    domain = Domain(view_of(HOSTS))
    domain.past(POWERS)
    job = POWERS | dict.fromkeys(range(3), 4_000.0)
    window = domain.window(job)
    domain.histories.close(window)
    output = output_of(window)
    assert [one.code for one in output.set_aside] == ["HISTORY_UP"]
    aside = output.set_aside[0]
    held = (1 - aside.weight_ppm / 1e6) * (aside.claimed_w - aside.reference_w)
    assert bounds_of(output)["host"][0] >= RANGE_W + 0.5 * held


@pytest.mark.parametrize("past", [False, True])
def test_attacks_stay_within_the_bounds(past: bool) -> None:
    """Every pair of a few hundred ways to lie, each against each."""
    domain = Domain(view_of(HOSTS))
    if past:
        domain.past(POWERS)
    rng = random.Random(3)
    for liars, subject in (((4,), "host"), (tuple(range(0, HOSTS, 3)), "tenant"), ((3, 7, 11), "failure_domain")):
        found = [figures(domain, POWERS), figures(domain, {h: p for h, p in POWERS.items() if h not in liars})]
        wave = np.where(np.arange(PANES) % 2, 1.0, 0.0)
        spike = np.zeros(PANES)
        spike[rng.randrange(PANES)] = 1.0
        for low in (0.0, RANGE_W):
            for shape in (wave, 1 - wave, spike, np.full(PANES, rng.random())):
                found.append(figures(domain, POWERS | dict.fromkeys(liars, low + (RANGE_W - 2 * low) * shape)))
        window = domain.window(POWERS)
        domain.histories.close(window)
        bounds = bounds_of(output_of(window))[subject]
        for number in (0, 1):
            values = [one[number] for one in found]
            assert max(values) - min(values) <= bounds[number], (subject, number)
            if not past and number == 0:
                assert max(values) - min(values) >= bounds[number] / 1.5, (subject, number)


def test_bounds_are_the_largest_of_the_hosts() -> None:
    domain = Domain(view_of(HOSTS))
    window = domain.window(POWERS)
    each = host_bounds_w(window, judge(window))
    bounds = bounds_of(output_of(window))
    assert len(each) == HOSTS
    assert bounds["host"][0] == math.ceil(max(mean for mean, _ in each.values()))
    assert bounds["host"][0] < bounds["failure_domain"][0] < bounds["tenant"][0]
    assert HOSTS * CAPACITY_W * 0.25 == 3 * CAPACITY_W


def test_who_holds_half_of_a_job_speaks_for_the_rest_and_the_bound_says_so() -> None:
    """Two hosts swing in step with a tenant's own four: whatever the tenant claims is expected of them, too."""
    domain = Domain(view_of(HOSTS))
    job = [0, 1, 3, 6, 8, 9]
    for number in range(30):
        domain.close(domain.window(POWERS | dict.fromkeys(job, 1_000.0 + 2_500 * (number % 3 == 0))))
    here = POWERS | dict.fromkeys(job, 3_500.0)
    once = copy.deepcopy(domain, {id(domain.view): domain.view})
    window = once.window(here)
    once.histories.close(window)
    bounds = bounds_of(output_of(window))
    tenant = [0, 3, 6, 9]
    assert bounds["tenant"][0] >= (len(tenant) + 2) * RANGE_W
    found = [figures(domain, here | dict.fromkeys(tenant, claim)) for claim in (0.0, 1_000.0, 3_500.0, RANGE_W)]
    found.append(figures(domain, {host: power for host, power in here.items() if host not in tenant}))
    means = [mean for mean, _ in found]
    assert max(means) - min(means) > len(tenant) * RANGE_W, "the others' claims are set aside with theirs in mind"
    for number in (0, 1):
        values = [one[number] for one in found]
        assert max(values) - min(values) <= bounds["tenant"][number]


def test_companions_that_lie_are_in_the_bound() -> None:
    """Hosts of one job that swing in step: two racks of it hold half of what is expected of the others."""
    domain = Domain(view_of(HOSTS))
    for number in range(30):
        domain.close(domain.window(dict.fromkeys(range(HOSTS), 1_000.0 + 2_500 * (number % 3 == 0))))
    here = dict.fromkeys(range(HOSTS), 1_000.0)
    complete = domain.window(here)
    domain.histories.close(complete)
    known = next(iter(complete.history.references.values())) if complete.history else None
    assert known is not None
    assert known.companions is not None
    assert (known.companions.rows >= 0).any(axis=1).all()
    honest, lying = bounds_of(output_of(complete)), Domain(view_of(HOSTS))
    plain = bounds_of(output_of(lying.window(here)))
    assert honest["host"][0] == plain["host"][0]
    assert honest["tenant"][0] <= plain["tenant"][0] + HOSTS * 2_600
    moved = figures(domain, here | dict.fromkeys(range(0, HOSTS, 3), 3_500.0))
    quiet = figures(domain, here)
    assert abs(moved[0] - quiet[0]) <= honest["tenant"][0]
    gone = figures(domain, {host: power for host, power in here.items() if host % 3})
    assert abs(gone[0] - quiet[0]) < 1_500
