"""Nobody can tell neighbours apart by more than the stated epsilon, and hosts that leak are caught.

The counts grow by tier; the long ones use the shipped budget, the default one a budget of 2 per release, at which few
runs tell a broken host from a sound one. The noise comes from the operating system: there is no seed.
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
    HalfTheNoise,
    HoldsTheReading,
    Host,
    Neighbours,
    ResendsTheSame,
    losses,
    lower_bound,
)
from tests.producers.privacy_pairs import AVERAGES, EVENT, HELD, NEIGHBOURS, NEXT_WINDOW, SPIKES
from tests.results import write_result

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
pytestmark = [pytest.mark.every_tier, pytest.mark.timeout(7200)]

RUNS = {"test": 3_000, "soak": 100_000, "accept": 1_000_000}[TIER]
"""Runs on each of the neighbours."""
MUTANT_RUNS = {"test": 10_000, "soak": 100_000, "accept": 300_000}[TIER]
CONFIDENCE = {"test": 1.0 - 1e-6}.get(TIER, 0.9999)
LOUD = Budget(
    transitions_micro=2 * MICRO, pane_sums_micro=2 * MICRO, energy_residual_micro=2 * MICRO, glitches_micro=2 * MICRO
)
BUDGET = LOUD if TIER == "test" else default_budget(energy=True)


def claims(host: Host, readings: int) -> dict[str, float]:
    """Stated loss of `readings` readings in a row, as a worker reads the statement: per release and in total."""
    found = {one.release: event_epsilon_micro(one, readings) / MICRO for one in host.stated.releases}
    return found | {"total": sum(found.values())}


def check(host: Host, pairs: tuple[Neighbours, ...]) -> dict[str, dict[str, list[float]]]:
    """Claim and lower bound of every pair and release; each bound is below its claim."""
    table: dict[str, dict[str, list[float]]] = {}
    for pair in pairs:
        stated = claims(host, pair.readings)
        found = losses(host, pair, RUNS, CONFIDENCE)
        table[pair.name] = {name: [round(stated[name], 6), round(bound, 4)] for name, bound in found.items()}
        for name, bound in found.items():
            assert bound <= stated[name], f"{pair.name}: {name} loses {bound:.4f} at least, {stated[name]} is stated"
    return table


def test_no_event_loses_more_than_stated() -> None:
    sound = Host(BUDGET)
    table = check(sound, NEIGHBOURS)
    assert {name for row in table.values() for name in row} == {*RELEASES, "total"}, "an attack on every release"
    table |= check(ResendsTheSame(BUDGET), (replace(EVENT, name="resent after a crash", only=("pane_sums",)),))
    table |= check(Host(BUDGET, "average"), AVERAGES)
    unseen = losses(sound, NEXT_WINDOW, RUNS, CONFIDENCE, direction=CarriesTheState(BUDGET))["total"]
    table[NEXT_WINDOW.name] = {"total": [0.0, round(unseen, 4)]}
    assert unseen <= 0.0, "a report depends on the readings of its own window alone"
    write_result(
        "privacy-claims",
        {"runs_per_neighbour": RUNS, "confidence": CONFIDENCE, "epsilon_stated_and_lower_bound": table},
        seeds={},
    )


def half(release: str) -> Host:
    """A host with half the noise on one release."""

    class Half(HalfTheNoise):
        pass

    Half.release = release
    return Half(BUDGET)


CAUGHT: dict[str, list[float]] = {}


BROKEN = (
    *(("half the sensitivity", half(one), EVENT, one) for one in RELEASES[:3]),
    ("half the sensitivity", half("glitches"), SPIKES, "glitches"),
    ("state carried over the edge", CarriesTheState(BUDGET), NEXT_WINDOW, "transitions"),
    ("noise drawn again after a crash", DrawsAgain(BUDGET), EVENT, "transitions"),
    ("noise drawn again after a crash", DrawsAgain(BUDGET), EVENT, "pane_sums"),
    ("stale tick held", HoldsTheReading(BUDGET), HELD, "pane_sums"),
)


@pytest.mark.parametrize(
    ("name", "host", "pair", "release"), BROKEN, ids=[f"{name}: {release}" for name, _, _, release in BROKEN]
)
def test_a_broken_host_is_caught(name: str, host: Host, pair: Neighbours, release: str) -> None:
    claim = 0.0 if pair is NEXT_WINDOW else claims(host, 1)[release]
    bound = losses(host, replace(pair, only=(release,)), MUTANT_RUNS, CONFIDENCE)[release]
    assert bound > claim
    CAUGHT[f"{name}: {release}"] = [claim, round(bound, 4)]
    write_result(
        "privacy-mutants",
        {"runs_per_neighbour": MUTANT_RUNS, "confidence": CONFIDENCE, "epsilon_stated_and_lower_bound": CAUGHT},
        seeds={},
    )


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
    assert exact.energy_residual_mj is not None
    assert (noisy.energy_residual_mj, noisy.glitches) == (exact.energy_residual_mj + 1, exact.glitches + 1)


def test_the_bound_on_known_distributions() -> None:
    """Randomised response with probabilities 3 : 1 has epsilon log 3; equal distributions have none."""
    rng = np.random.default_rng(1)
    no, yes = (rng.random(20_000) < 0.25).astype(float), (rng.random(20_000) < 0.75).astype(float)
    assert 0.9 < lower_bound(no, yes, 0.9999) < np.log(3)
    assert 0.9 < lower_bound(-yes, -no, 0.9999) < np.log(3)
    assert lower_bound(yes, (rng.random(20_000) < 0.75).astype(float), 0.9999) <= 0.0
