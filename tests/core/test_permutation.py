"""Order does not matter: the same reports give the same estimates, and the same log gives the same bytes.

Honest reports of a mixed fleet are permuted, duplicated, delayed and dropped. What a window's first output and its last
revision hold is compared with a log of exactly the same reports in plain order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from stream_jobs.core.policies import PolicyView
from tests.core.arrivals import FLEET, Arrival, Told, W, end_ms, estimates, in_order, mixed_policy
from tests.core.replay import Run, new_core, remembered
from tests.results import write_result

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
EXAMPLES = {"test": 48, "soak": 1_000, "accept": 10_000}[TIER]
SEED = 20_260
WINDOWS, TAIL = 5, 4
HOSTS = tuple(FLEET)
PLACES = [(host, window) for window in range(WINDOWS) for host in HOSTS]

pytestmark = [pytest.mark.every_tier, pytest.mark.timeout(7200)]


@pytest.fixture(autouse=True, scope="module")
def _fast() -> Iterator[None]:
    with remembered():
        yield


@dataclass
class Plan:
    """What the network does to each report of the first windows; those of the tail come on time and close them.

    `delay_ms`: None if the report is lost. `again`: delays of further copies.
    """

    grace_windows: int
    late_windows: int
    delay_ms: dict[tuple[str, int], int | None]
    again: list[tuple[str, int, int]]
    carriers: int = 1

    @property
    def view(self) -> PolicyView:
        return mixed_policy(self.grace_windows, self.late_windows)

    @property
    def grace_ms(self) -> int:
        return self.grace_windows * W

    @property
    def late_ms(self) -> int:
        """From this delay on a report may find its window closed for good."""
        return (self.grace_windows + self.late_windows) * W

    def arrivals(self) -> list[Arrival]:
        """The log. Where not every report carries evidence, a host's reports come in its own order."""
        result, reached = [], Counter[str]()
        for tie, ((host, window), delay) in enumerate(self.delay_ms.items()):
            if delay is None:
                continue
            at = end_ms(window) + delay
            if self.carriers > 1:
                at = reached[host] = max(at, reached[host])
            result.append(Arrival(at, tie, host, window, window % self.carriers == 0))
        for tie, (host, window, delay) in enumerate(self.again):
            result.append(Arrival(end_ms(window) + delay, 1000 + tie, host, window, tie % 2 == 0))
        for window in range(WINDOWS, WINDOWS + TAIL + self.grace_windows):
            result += [Arrival(end_ms(window), number, host, window) for number, host in enumerate(HOSTS)]
        return result


KINDS = ("in time",) * 8 + ("late",) * 3 + ("lost", "lost", "too late", "twice", "twice")


@st.composite
def plans(
    draw: st.DrawFn,
    kinds: tuple[str, ...] = KINDS,
    carriers: tuple[int, ...] = (1, 1, 2),
    graces: tuple[int, ...] = (0, 1, 2),
) -> Plan:
    """Three bytes decide about each report: what happens, how much, and a copy's delay after it."""
    plan = Plan(draw(st.sampled_from(graces)), draw(st.integers(0, 3)), {}, [], draw(st.sampled_from(carriers)))
    data = draw(st.binary(min_size=3 * len(PLACES), max_size=3 * len(PLACES)))
    for (host, window), what, much, more in zip(PLACES, data[::3], data[1::3], data[2::3], strict=True):
        kind = kinds[what % len(kinds)]
        delay: int | None = much * plan.grace_ms // 256
        if kind == "late":
            delay = plan.grace_ms + much * plan.late_windows * W // 256
        elif kind == "too late":
            delay = plan.late_ms + much * 3 * W // 256
        elif kind == "twice":
            plan.again.append((host, window, (delay or 0) + more * (plan.late_ms + 3 * W) // 256))
        plan.delay_ms[host, window] = None if kind == "lost" else delay
    return plan


@dataclass
class Seen:
    """What the examples of one test held."""

    examples: int = 0
    records: int = 0
    outputs: int = 0
    revisions: int = 0
    codes: Counter[str] = field(default_factory=Counter)

    def note(self, told: Told) -> None:
        self.examples += 1
        self.records += told.story.next_offset
        outputs = told.story.outputs
        self.outputs += len(outputs)
        self.revisions += sum(output.revision > 0 for output in outputs)
        self.codes.update(code for _, code in told.refused)


def same_bytes(told: Told) -> None:
    again = Run(new_core(told.story.policies)).feed_all(told.story.run.log)
    assert [(at, made.output_bytes, made.manifests) for at, made in again.emissions] == [
        (at, made.output_bytes, made.manifests) for at, made in told.story.run.emissions
    ]
    assert again.rejections == told.story.run.rejections


def same_estimates(told: Told, other: Told) -> None:
    """Every window's first output and last revision, of both logs, over the same reports."""
    ours, theirs = told.outputs(), other.outputs()
    for window, made in ours.items():
        for which in (0, -1):
            (at, mine), (at_theirs, yours) = made[which], theirs[window][which]
            hosts = told.hosts(window, at)
            assert hosts == other.hosts(window, at_theirs), (window, which)
            assert mine.output.accepted == len(hosts)
            differing = differences(estimates(mine.output), estimates(yours.output))
            assert not differing, (window, which, differing)


def differences(mine: dict[str, object], yours: dict[str, object]) -> dict[str, tuple[object, object]]:
    assert mine.keys() == yours.keys()
    return {name: (mine[name], yours[name]) for name in mine if mine[name] != yours[name]}


def refused_as_by_the_rules(plan: Plan, told: Told) -> None:
    """Nothing that came early enough is late; copies are copies; every record is in exactly one count."""
    for one, code in told.refused:
        delay = one.at_ms - end_ms(one.window)
        if code == "LATE":
            assert delay >= plan.late_ms, one
        elif code == "DUPLICATE":
            assert any((one.host_id, one.window) == (host, window) for _, host, window in told.taken)
        else:
            assert plan.carriers > 1, (one, code)
            assert code in {"SESSION_UNKNOWN", "EVIDENCE_STALE"}
    counted = Counter({one.code: 0 for one in told.story.run.rejections})
    for output in told.story.outputs:
        counted.update({one.code: one.count for one in output.refused})
    last = max(at for at, _ in told.story.run.emissions)
    assert counted == Counter(one.code for one in told.story.run.rejections if one.offset <= last)


def examples(first_seed: int, count: int, one: Callable[[Plan], Told], strategy: st.SearchStrategy[Plan]) -> Seen:
    """Run `one` on `count` plans; returns what they held."""
    seen = Seen()

    @seed(first_seed)
    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(plan=strategy)
    def every(plan: Plan) -> None:
        seen.note(one(plan))

    every()
    return seen


def disturbed(plan: Plan) -> Told:
    told = Told.begin(plan.view).put_all(plan.arrivals())
    refused_as_by_the_rules(plan, told)
    if TIER != "test" or len(plan.again) % 2:
        same_bytes(told)
    same_estimates(told, in_order(told, plan.view))
    return told


def within_grace(plan: Plan) -> Told:
    told = Told.begin(plan.view).put_all(plan.arrivals())
    undisturbed = Plan(plan.grace_windows, plan.late_windows, dict.fromkeys(PLACES, 0), [])
    same_estimates(told, Told.begin(plan.view).put_all(undisturbed.arrivals()))
    assert all(output.revision == 0 and output.accepted == len(HOSTS) for output in told.story.outputs)
    assert len(told.refused) == len(plan.again)
    return told


def test_whatever_the_network_does_the_same_reports_give_the_same_estimates() -> None:
    seen = examples(SEED, EXAMPLES, disturbed, plans())
    assert seen.examples >= EXAMPLES
    assert seen.revisions > EXAMPLES
    assert {"DUPLICATE", "LATE", "SESSION_UNKNOWN"} <= set(seen.codes)
    counts = {"examples": seen.examples, "records": seen.records, "outputs": seen.outputs}
    result = {**counts, "revisions": seen.revisions, "refused": dict(seen.codes), "differences": 0}
    write_result("core-permutations", result, seeds={"first": SEED})


def test_within_grace_order_and_copies_change_nothing() -> None:
    """Nothing is lost or late: every first output is the one of the undisturbed log, and there is no revision."""
    kinds, graces = ("in time", "in time", "twice"), (1, 2)
    seen = examples(SEED + 1, EXAMPLES // 4, within_grace, plans(kinds=kinds, carriers=(1,), graces=graces))
    assert set(seen.codes) <= {"DUPLICATE", "LATE"}
