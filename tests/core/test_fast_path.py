"""What a session's usual reports are spared decides nothing: with and without it every effect is the same."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from schemas.codec import DecodedRecord
from schemas.records import ConfidentialCompute, SensorFlag
from stream_jobs.core.checks import ClassPlan
from stream_jobs.core.partition import PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.routine import Routine
from stream_jobs.log_record import LogRecord
from tests.core import fleet
from tests.core.fleet import (
    GPUS,
    LIMITS,
    PRIVACY,
    T0,
    TICKS,
    gpu_class,
    new_session,
    report_of,
    seal,
    session_of,
    spoilt,
)
from tests.core.replay import Run, new_core, remembered
from tests.core.scenario import Scenario
from tests.core.story import Story, W, code_of, small_policy
from tests.core.test_hostile import encodable, mutate

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
LOGS = {"test": 3, "soak": 200, "accept": 1_000}[TIER]
STORIES = {"test": 12, "soak": 1_000, "accept": 5_000}[TIER]


@pytest.fixture(autouse=True, scope="module")
def _fast() -> Iterator[None]:
    with remembered():
        yield


class NoRoutine(Routine):
    """Every report takes the usual way."""

    def decode(self, value: bytes) -> DecodedRecord | None:
        return None

    def plans(self, *_: Any) -> tuple[ClassPlan, ...] | None:
        return None


class Counting(Routine):
    """How many reports were read by a layout, and how many were spared their constant checks."""

    def __init__(self) -> None:
        super().__init__()
        self.read = self.spared = 0

    def decode(self, value: bytes) -> DecodedRecord | None:
        found = super().decode(value)
        self.read += found is not None
        return found

    def plans(self, *given: Any) -> tuple[ClassPlan, ...] | None:
        found = super().plans(*given)
        self.spared += found is not None
        return found


def with_routine(core: PartitionCore, routine: Routine) -> PartitionCore:
    core._routine = routine
    return core


def counted(story: Story) -> Counting:
    routine = Counting()
    with_routine(story.run.core, routine)
    return routine


def same(log: Sequence[LogRecord], policies: Sequence[PolicyView]) -> Counting:
    """Read `log` both ways and compare all there is."""
    routine = Counting()
    ours = Run(with_routine(new_core(policies), routine)).feed_all(log)
    theirs = Run(with_routine(new_core(policies), NoRoutine())).feed_all(log)
    assert ours.rejections == theirs.rejections
    assert [(at, one.digest, one.manifests) for at, one in ours.emissions] == [
        (at, one.digest, one.manifests) for at, one in theirs.emissions
    ]
    assert ours.emissions == theirs.emissions
    assert ours.resume == theirs.resume
    return routine


@pytest.mark.every_tier
def test_logs_of_all_that_happens() -> None:
    """Policies that switch, sessions that follow one another, evidence spoilt on the way, domains that fall idle."""
    read = spared = 0
    for seed in range(7_000, 7_000 + LOGS):
        scenario = Scenario(seed)
        routine = same(scenario.build().log, scenario.policies)
        read, spared = read + routine.read, spared + routine.spared
    assert read > LOGS
    assert spared > LOGS


def hostile_log(seed: int) -> tuple[list[LogRecord], list[PolicyView]]:
    """Hosts that report as usual, lie now and then under their own key, and lines that change bytes."""
    rng = random.Random(seed)
    limits = replace(LIMITS, lateness_ms=W, evidence_interval_windows=3)
    first = small_policy(limits=limits, grace_ms=0)
    other = small_policy(
        limits=replace(limits, max_epsilon_micro=rng.choice((1_000_000, 999_999))),
        accepted_sampler_modes=rng.choice((("instant",), ("average",))),
        models=(replace(fleet.MODEL, edges_w=rng.choice(((100, 200), (100, 201)))),),
        grace_ms=0,
        counter=2,
    )
    story = Story(first, other)
    story.control("POLICY_SWITCH", first)
    switch = rng.randrange(4, 16)
    order = [0, 0, 0]
    for window in range(10):
        if window == switch:
            story.control("POLICY_SWITCH", other)
        for host in range(3):
            order[host] += rng.random() < 0.05
            session = session_of(f"h{host}", "d", order[host])
            body = report_of(
                session, T0 + window * W, window, draw=rng.randrange(64), samples_taken=rng.randrange(TICKS)
            )
            if rng.random() < 0.3:
                body = mutate(rng, body)
            if not encodable(body):
                continue
            evidence = rng.choice((None, None, session.evidence, spoilt(session.evidence)))
            value = bytearray(seal(session, body).value(session.evidence if window < 1 else evidence))
            if rng.random() < 0.2:
                value[rng.randrange(len(value))] ^= 1 << rng.randrange(8)
            story.put("d", bytes(value), T0 + (window + 1) * W)
    return story.run.log, [first, other]


@pytest.mark.every_tier
def test_logs_of_liars() -> None:
    spared = sum(same(*hostile_log(seed)).spared for seed in range(STORIES))
    assert spared > 5 * STORIES


LONG = replace(LIMITS, lateness_ms=20 * W, evidence_interval_windows=10)


def usual(windows: int = 4, **changes: Any) -> tuple[Story, Counting]:
    """A story in which h0 has reported as usual for some windows."""
    story = Story(small_policy(limits=LONG), SWITCHED)
    routine = counted(story)
    story.control("POLICY_SWITCH", story.policies[0])
    for window in range(windows):
        assert story.report("h0", window, evidence=None if window else fleet_evidence(), **changes) == []
    return story, routine


def fleet_evidence() -> Any:
    return session_of("h0", "d").evidence


SWITCHED = small_policy(limits=replace(LONG, max_epsilon_micro=999_999), counter=2, effective_from_ms=T0 + 4 * W)


def test_the_second_report_of_a_session_and_all_after_it_are_spared() -> None:
    _, routine = usual(9)
    assert (routine.read, routine.spared) == (8, 8)


def test_evidence_again_is_spared_and_counts() -> None:
    story, routine = usual(4)
    assert story.report("h0", 4, evidence=fleet_evidence()) == []
    assert routine.spared == 4
    (session,) = story.state.sessions.values()
    assert session.evidence_window_ms == T0 + 4 * W
    assert story.report("h0", 4 + 2 * LONG.evidence_interval_windows, evidence=None) == []
    assert code_of(story.report("h0", 5 + 2 * LONG.evidence_interval_windows, evidence=None)) == "EVIDENCE_STALE"


def test_a_policy_that_switches_is_asked() -> None:
    story, routine = usual(4)
    story.control("POLICY_SWITCH", SWITCHED)
    assert code_of(story.report("h0", 4, evidence=None)) == "PRIVACY_REFUSED"
    assert code_of(story.report("h0", 5, evidence=None)) == "PRIVACY_REFUSED"
    assert routine.spared == 3
    assert story.report("h0", 3, seq=9, evidence=None, dropped_reports=0)
    assert story.run.rejections[-1].code == "EQUIVOCATION", "under the earlier policy it is still in order"


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("COUNTS_IMPLAUSIBLE", {"classes": (gpu_class(transitions=b"\xff\xff\xff\x7f" * 16),)}),
        ("COUNTS_IMPLAUSIBLE", {"classes": (gpu_class(readings_taken=GPUS * TICKS + 1),)}),
        ("COUNTS_IMPLAUSIBLE", {"classes": (gpu_class(readings_taken=-1),)}),
        ("COUNTS_IMPLAUSIBLE", {"samples_taken": TICKS + 1}),
        ("POWER_IMPLAUSIBLE", {"classes": (gpu_class(pane_sums=b"\xff\xff\xff\x7f" * 2),)}),
        ("WINDOW_MISALIGNED", {"window_start_ms": T0 + 4 * W + 1, "window_end_ms": T0 + 5 * W + 1}),
        ("WINDOW_MISALIGNED", {"window_end_ms": T0 + 6 * W}),
        ("CLASS_MISMATCH", {"classes": (gpu_class(gpus=GPUS + 1),)}),
        ("CLASS_MISMATCH", {"classes": (gpu_class(edges_w=(100, 201)),)}),
        ("CLASS_MISMATCH", {"classes": (gpu_class(enforced_limit_w=0),)}),
        ("BINDING_MISMATCH", {"source": "nvml "}),
        ("BINDING_MISMATCH", {"privacy": replace(PRIVACY, group_size=2)}),
        ("FIRST_MILE_OVERCLAIMED", {"first_mile": "TDIS"}),
    ],
)
def test_what_changes_is_checked(code: str, changes: dict[str, Any]) -> None:
    """The same lie in a session's first report and in one that could be spared."""
    story, _ = usual(4)
    assert code_of(story.report("h0", 4, evidence=None, **changes)) == code
    fresh = Story(small_policy(limits=LIMITS))
    fresh.control("POLICY_SWITCH", fresh.policies[0])
    assert code_of(fresh.report("h0", 4, **changes)) == code


def test_a_signature_is_checked_every_time() -> None:
    story, routine = usual(4)
    session = session_of("h0", "d")
    value = bytearray(seal(session, report_of(session, T0 + 4 * W, 4)).value(None))
    value[-40] ^= 1
    assert code_of(story.put("d", bytes(value), T0 + 5 * W)) == "SIGNATURE_INVALID"
    assert routine.read == 4


def test_gaps_now_and_then_cost_one_walk() -> None:
    """A window with a gap has another layout; both are remembered."""
    story, routine = usual(3)
    flags = (SensorFlag(flag="gap", gpus=1),)
    for window in range(3, 11):
        story.report("h0", window, evidence=None, sensor_flags=flags if window % 2 else ())
    assert story.run.rejections == []
    assert routine.read == 2 + 7


def test_hosts_of_a_kind_learn_from_one_another() -> None:
    """What changes for all of them at once, as their mode here, is walked once."""
    story = Story(small_policy(3, limits=LONG))
    routine = counted(story)
    story.control("POLICY_SWITCH", story.policies[0])
    for window in range(4):
        for number in range(3):
            mode = ConfidentialCompute(gpu_cc_mode="on" if window > 1 else "off")
            story.report(
                f"h{number}",
                window,
                evidence=None if window else session_of(f"h{number}", "d").evidence,
                confidential_compute=mode,
            )
    assert story.run.rejections == []
    assert routine.read == 3 * 3 - 1


def test_sessions_that_die_are_forgotten() -> None:
    story = Story(small_policy(1, limits=replace(LIMITS, lateness_ms=W, evidence_interval_windows=1), grace_ms=0))
    routine = counted(story)
    story.control("POLICY_SWITCH", story.policies[0])
    for window in range(40):
        story.report("h0", window, order=window, session=new_session("h0", "d", T0 + window, fleet.IMAGE))
    assert story.run.rejections == []
    assert len(story.state.sessions) < 20
    assert len(routine._decoder) == len(routine._standing) == len(story.state.sessions)
    assert set(routine._standing) == set(story.state.sessions)
    assert len(routine._decoder._layouts) == 1
