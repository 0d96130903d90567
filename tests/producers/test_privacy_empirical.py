"""Nobody can tell neighbours apart by more than the stated epsilon, and hosts that leak are caught.

The long counts use the shipped budget; besides, and in the default tier alone, a loud one of 3 per release is tried, at
which few runs tell a broken host from a sound one. What is batched: the exact values of a pair go through the host's
code once (they are the same in every run), and OpenDP draws many runs in one call of the host's own measurement, a
longer vector of independent draws. The noise comes from the operating system: there is no seed.
"""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from producers.distil import Distilled
from producers.privacy import MICRO, RELEASES, Budget, default_budget
from producers.privatise import Privatiser
from stream_jobs.core.checks import event_epsilon_micro
from tests.producers.privacy_attack import (
    CarriesTheState,
    DrawsAgain,
    FilesTheMissingByValue,
    HalfTheNoise,
    HoldsTheReading,
    Host,
    Neighbours,
    ResendsTheSame,
    losses,
    lower_bound,
)
from tests.producers.privacy_pairs import AVERAGES, EVENT, HELD, NEIGHBOURS, NEXT_WINDOW, SAME_CELL, SPIKES
from tests.results import write_result

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
pytestmark = [pytest.mark.every_tier, pytest.mark.timeout(7200)]

RUNS = {"test": 3_000, "soak": 100_000, "accept": 1_000_000}[TIER]
"""Runs on each of the neighbours."""
LOUD_RUNS = min(RUNS, 100_000)
MUTANT_RUNS = {"test": 10_000, "soak": 30_000, "accept": 1_000_000}[TIER]
ENOUGH = 0.9999
"""Confidence of every bound: a sound host fails one check in ten thousand."""
CONFIDENCE = {"test": 1.0 - 1e-6}.get(TIER, ENOUGH)
LOUD = Budget(
    transitions_micro=3 * MICRO,
    pane_sums_micro=3 * MICRO,
    histogram_micro=3 * MICRO,
    energy_residual_micro=3 * MICRO,
    glitches_micro=3 * MICRO,
)
LOUD_GROUP = Budget(
    transitions_micro=MICRO // 4,
    pane_sums_micro=MICRO // 4,
    histogram_micro=MICRO // 4,
    energy_residual_micro=MICRO // 4,
    glitches_micro=MICRO // 4,
)
SHIPPED = default_budget(energy=True)
AVERAGED = LOUD_GROUP if TIER == "test" else SHIPPED
"""For events of eleven readings: no count of runs shows the 33 that would be claimed with `LOUD`, whatever leaked."""
BUDGETS = {"test": ((LOUD, LOUD_RUNS),)}.get(TIER, ((LOUD, LOUD_RUNS), (SHIPPED, RUNS)))
BUDGET = SHIPPED if TIER == "accept" else LOUD
"""Budget of the broken hosts."""


def claims(host: Host, readings: int) -> dict[str, float]:
    """Stated loss of `readings` readings in a row, as a worker reads the statement: per release and in total."""
    found = {one.release: event_epsilon_micro(one, readings) / MICRO for one in host.stated.releases}
    return found | {"total": sum(found.values())}


def check(host: Host, pairs: tuple[Neighbours, ...], runs: int) -> dict[str, dict[str, list[float]]]:
    """Claim and lower bound of every pair and release; each bound is below its claim."""
    table: dict[str, dict[str, list[float]]] = {}
    for pair in pairs:
        stated = claims(host, pair.readings)
        found = losses(host, pair, runs, CONFIDENCE)
        table[pair.name] = {name: [round(stated[name], 6), round(bound, 4)] for name, bound in found.items()}
        for name, bound in found.items():
            assert bound <= stated[name], f"{pair.name}: {name} loses {bound:.4f} at least, {stated[name]} is stated"
    return table


RESULT: dict[str, dict[str, object]] = {"claims": {}, "broken_hosts": {}}


def keep(section: str, name: str, found: dict[str, object]) -> None:
    """Add to the result of this run; each bound stands beside what is stated."""
    RESULT[section][name] = found | {"confidence": CONFIDENCE if section == "claims" else ENOUGH}
    write_result("privacy-empirical", RESULT, seeds={})


@pytest.mark.parametrize(("budget", "runs"), BUDGETS, ids=[f"total {one.total_micro / MICRO:g}" for one, _ in BUDGETS])
def test_no_event_loses_more_than_stated(budget: Budget, runs: int) -> None:
    sound = Host(budget)
    table = check(sound, NEIGHBOURS, runs)
    assert {name for row in table.values() for name in row} == {*RELEASES, "total"}, "an attack on every release"
    table |= check(ResendsTheSame(budget), (replace(EVENT, name="resent after a crash", only=("pane_sums",)),), runs)
    unseen = losses(sound, NEXT_WINDOW, runs, CONFIDENCE, direction=CarriesTheState(budget))["total"]
    table[NEXT_WINDOW.name] = {"total": [0.0, round(unseen, 4)]}
    assert unseen <= 0.0, "a report depends on the readings of its own window alone"
    found = {"runs_per_neighbour": runs, "epsilon_stated_and_lower_bound": table}
    keep("claims", f"total epsilon {budget.total_micro / MICRO:g}", found)


def test_no_event_of_an_averaging_sensor_loses_more_than_stated() -> None:
    table = check(Host(AVERAGED, "average"), AVERAGES, RUNS)
    assert {name for row in table.values() for name in row} == {*RELEASES, "total"}, "an attack on every release"
    found = {"runs_per_neighbour": RUNS, "epsilon_stated_and_lower_bound": table}
    keep("claims", f"averages, total epsilon {AVERAGED.total_micro / MICRO:g}", found)


def half(release: str) -> Host:
    """A host with half the noise on one release."""

    class Half(HalfTheNoise):
        pass

    Half.release = release
    return Half(BUDGET)


BROKEN = (
    *(("half the sensitivity", half(one), EVENT, one) for one in RELEASES[:4]),
    ("half the sensitivity", half("glitches"), SPIKES, "glitches"),
    ("state carried over the edge", CarriesTheState(BUDGET), NEXT_WINDOW, "transitions"),
    ("noise drawn again after a crash", DrawsAgain(BUDGET), SAME_CELL, "transitions"),
    ("noise drawn again after a crash", DrawsAgain(BUDGET), EVENT, "pane_sums"),
    ("stale tick held", HoldsTheReading(BUDGET), HELD, "pane_sums"),
    ("missing tick filed by value", FilesTheMissingByValue(BUDGET), HELD, "histogram"),
    ("averages stated as instants", Host(BUDGET, "average"), replace(AVERAGES[1], readings=1), "pane_sums"),
)
"""What is wrong, the host, where it shows; claimed is what is stated for the readings of the pair."""


@pytest.mark.parametrize(
    ("name", "host", "pair", "release"), BROKEN, ids=[f"{name}: {release}" for name, _, _, release in BROKEN]
)
def test_a_broken_host_is_caught(name: str, host: Host, pair: Neighbours, release: str) -> None:
    claim = 0.0 if pair is NEXT_WINDOW else claims(host, pair.readings)[release]
    bound = losses(host, replace(pair, only=(release,)), MUTANT_RUNS, ENOUGH)[release]
    assert bound > claim
    found = {"runs_per_neighbour": MUTANT_RUNS, "epsilon_stated_and_lower_bound": [claim, round(bound, 4)]}
    keep("broken_hosts", f"{name}: {release}", found)


def test_the_attack_draws_what_the_host_draws() -> None:
    """`privatise` adds noise through `add_noise`, to every value, once: the attack may draw only what differs."""

    class Counting(Privatiser):
        def add_noise(self, release: str, exact: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
            drawn.append(release)
            return exact + 1

    drawn: list[str] = []
    host = Host(default_budget(energy=True))
    (exact,) = host.distil(EVENT.before)
    noisy = Counting(host.stated).privatise(exact)
    assert sorted(drawn) == sorted(RELEASES)
    assert isinstance(exact, Distilled)
    assert (noisy.transitions == exact.transitions + 1).all()
    assert (noisy.pane_sums == exact.pane_sums + 1).all()
    assert noisy.histogram is not None
    assert (noisy.histogram == exact.histogram + 1).all()
    assert exact.energy_residual_mj is not None
    assert (noisy.energy_residual_mj, noisy.glitches) == (exact.energy_residual_mj + 1, exact.glitches + 1)


def test_the_bound_on_known_distributions() -> None:
    """Randomised response with probabilities 3 : 1 has epsilon log 3; equal distributions have none."""
    rng = np.random.default_rng(1)
    no, yes = (rng.random(20_000) < 0.25).astype(float), (rng.random(20_000) < 0.75).astype(float)
    assert 0.9 < lower_bound(no, yes, 0.9999) < np.log(3)
    assert 0.9 < lower_bound(-yes, -no, 0.9999) < np.log(3)
    assert lower_bound(yes, (rng.random(20_000) < 0.75).astype(float), 0.9999) <= 0.0
