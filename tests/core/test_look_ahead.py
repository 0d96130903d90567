"""What is done for records before their turn decides nothing: every effect is the same as without."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import EnclaveScaleError
from schemas.records import WindowReport
from stream_jobs.core.checks import ClassPlan, check_numbers, numbers_hold, plan_classes
from stream_jobs.core.effects import Effect
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from tests.core.fleet import LIMITS, T0, gpu_class, report_of, seal, session_of
from tests.core.replay import Run, new_core, remembered
from tests.core.scenario import Scenario
from tests.core.story import Story, W, code_of, small_policy
from tests.core.test_fast_path import hostile_log
from verifier.signature import verify_record_signature

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
LOGS = {"test": 2, "soak": 100, "accept": 500}[TIER]
STORIES = {"test": 8, "soak": 500, "accept": 2_500}[TIER]


@pytest.fixture(autouse=True, scope="module")
def _fast() -> Iterator[None]:
    with remembered():
        yield


def read_ahead(log: Sequence[LogRecord], policies: Sequence[PolicyView], rng: random.Random) -> Run:
    """Some records ahead, a few or many; some of them never come, as when a partition is lost."""
    run = Run(new_core(policies))
    at = 0
    while at < len(log):
        size = rng.choice((1, 2, 5, 30))
        run.core.look_ahead(log[at : at + size])
        for record in log[at : at + rng.randint(1, size)]:
            run.feed(record)
            at += 1
    return run


def same(log: Sequence[LogRecord], policies: Sequence[PolicyView], seed: int) -> Run:
    ours = read_ahead(log, policies, random.Random(seed))
    theirs = Run(new_core(policies)).feed_all(log)
    assert ours.rejections == theirs.rejections
    assert ours.emissions == theirs.emissions
    assert ours.resume == theirs.resume
    return ours


@pytest.mark.every_tier
def test_logs_of_all_that_happens() -> None:
    outputs = 0
    for seed in range(7_500, 7_500 + LOGS):
        scenario = Scenario(seed)
        outputs += len(same(scenario.build().log, scenario.policies, seed).emissions)
    assert outputs > LOGS


@pytest.mark.every_tier
def test_logs_of_liars() -> None:
    refused: set[str] = set()
    for seed in range(STORIES):
        refused |= {one.code for one in same(*hostile_log(seed), seed).rejections}
    assert {"CLASS_MISMATCH", "SIGNATURE_INVALID", "EVIDENCE_STALE"} <= refused


def told(windows: int = 4) -> tuple[Story, list[LogRecord]]:
    """A story in which h0 has reported, and records of the windows after, not yet read."""
    story = Story(small_policy(limits=replace(LIMITS, lateness_ms=20 * W)))
    story.control("POLICY_SWITCH", story.policies[0])
    assert story.report("h0", 0, evidence=session_of("h0", "d").evidence) == []
    session = session_of("h0", "d")
    values = [seal(session, report_of(session, T0 + at * W, at)).value(None) for at in range(1, windows)]
    first = story.run.log[-1]
    end = T0 + windows * W
    records = [
        replace(first, offset=first.offset + 1 + at, value=one, timestamp_ms=end) for at, one in enumerate(values)
    ]
    return story, records


def counting(calls: list[bytes]) -> Any:
    """In place of the check of signatures: the same, noted."""

    def check(key: Any, preimage: bytes, signature: bytes, *, digest: bytes) -> None:
        calls.append(digest)
        verify_record_signature(key, preimage, signature, digest=digest)

    return patch("stream_jobs.core.sessions.verify_record_signature", check)


def fed(story: Story, records: Sequence[LogRecord]) -> list[Effect]:
    return [effect for record in records for effect in story.run.core.process(record)]


def test_a_signature_is_checked_once() -> None:
    story, records = told()
    calls: list[bytes] = []
    with counting(calls):
        story.run.core.look_ahead(records)
        assert len(calls) == len(records)
        assert fed(story, records) == []
    assert len(calls) == len(set(calls)) == len(records)


def test_a_log_sent_twice_costs_no_second_check() -> None:
    story, records = told()
    assert fed(story, records) == []
    again = [replace(one, offset=one.offset + 100) for one in (*records, *records)]
    calls: list[bytes] = []
    with counting(calls):
        story.run.core.look_ahead(again)
        assert {code_of([effect]) for effect in fed(story, again)} == {"DUPLICATE"}
    assert calls == []


def test_the_same_record_twice_in_one_look_is_checked_once() -> None:
    story, records = told(2)
    twice = [records[0], replace(records[0], offset=records[0].offset + 1)]
    calls: list[bytes] = []
    with counting(calls):
        story.run.core.look_ahead(twice)
        assert [code_of([effect]) for effect in fed(story, twice)] == ["DUPLICATE"]
    assert len(calls) == 1


def test_a_false_signature_is_refused_at_its_turn_after_one_check() -> None:
    story, records = told(3)
    value = bytearray(records[0].value or b"")
    value[-40] ^= 1
    spoilt = replace(records[0], value=bytes(value))
    calls: list[bytes] = []
    with counting(calls):
        story.run.core.look_ahead([spoilt, records[1]])
        assert story.run.core.domains["d"].tally.refused == {}
        assert code_of(story.run.core.process(spoilt)) == "SIGNATURE_INVALID"
        assert story.run.core.process(records[1]) == []
    assert len(calls) == 2


def test_what_was_looked_at_counts_for_that_record_only() -> None:
    """Another record at the same offset, as after a partition was lost and came back, is read anew."""
    story, records = told(3)
    story.run.core.look_ahead(records)
    value = bytearray(records[0].value or b"")
    value[-40] ^= 1
    assert code_of(story.run.core.process(replace(records[0], value=bytes(value)))) == "SIGNATURE_INVALID"
    assert story.run.core.process(records[1]) == []


def test_nothing_is_kept_of_records_that_never_came() -> None:
    story, records = told()
    story.run.core.look_ahead(records)
    story.run.core.look_ahead(records[:1])
    assert fed(story, records[:1]) == []
    assert story.run.core._ahead == {}


def test_a_session_that_is_forgotten_and_comes_back_within_one_look_is_learned_anew() -> None:
    story = Story(small_policy(limits=replace(LIMITS, lateness_ms=W, evidence_interval_windows=1), grace_ms=0))
    story.control("POLICY_SWITCH", story.policies[0])
    for window in range(2):
        for number in range(3):
            story.report(f"h{number}", window)
    core, first = story.run.core, story.run.log[-1]
    told = [(host, window) for window in range(2, 9) for host in ("h1", "h2")] + [("h0", 9)]
    records = []
    for at, (host, window) in enumerate(told, 1):
        session = session_of(host, "d")
        value = seal(session, report_of(session, T0 + window * W, window)).value(session.evidence)
        end_ms = T0 + (window + 1) * W
        records.append(replace(first, offset=first.offset + at, value=value, timestamp_ms=end_ms))
    core.look_ahead(records)
    fed(story, records[:-1])
    assert len(core._routine._decoder) == len(story.state.sessions) == 2
    assert fed(story, records[-1:]) == []
    assert len(core._routine._decoder) == len(core._routine._standing) == len(story.state.sessions) == 3
    came = story.state.sessions[session_of("h0", "d").session_id]
    assert came.evidence is core._routine._decoder.evidence_of(session_of("h0", "d").session_id)


def int32(numbers: Sequence[int]) -> bytes:
    return np.array(numbers, "<i4").tobytes()


SMALL = st.integers(-3, 3)
FOUR, TWO, ONE = (st.lists(SMALL, min_size=size, max_size=size) for size in (4, 2, 1))


@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(-1, 5), st.integers(-1, 5), FOUR, TWO, TWO, ONE, SMALL), min_size=1, max_size=12),
)
def test_numbers_of_many_reports_hold_where_each_one_s_do(histogram: bool, residual: bool, drawn: list[Any]) -> None:
    """Numbers so small that every bound is met, passed by one, and missed by one."""
    size = 9 if histogram else 6
    plan = ClassPlan(
        ticks=4,
        cells=2,
        readings=4,
        starts=(0, 4, 6, 8) if histogram else (0, 4),
        low=np.full(size, -2, "<i4"),
        high=np.full(size, 2, "<i4"),
        counts=1,
        counts_slack=3,
        reading_low=-1,
        reading_high=1,
        window_slack=1,
        bins_slack=2,
        missing_slack=2,
        residual_mj=2 if residual else None,
    )
    body = report_of(session_of("h0", "d"), T0)
    reports = []
    for samples, taken, counts, panes, bins, missing, more in drawn:
        stated = gpu_class(
            readings_taken=taken,
            transitions=int32(counts),
            pane_sums=int32(panes),
            histogram=int32([*bins, *missing]) if histogram else None,
            energy_residual_mj=more if residual else None,
        )
        reports.append(replace(body, samples_taken=samples, classes=(stated, stated)))
    wide = replace(plan, readings=5, low=plan.low - 1, high=plan.high + 1, window_slack=2)
    for plans in ((plan, plan), (wide, plan), (plan, wide)):
        assert numbers_hold(reports, plans).tolist() == [in_order(one, plans) for one in reports]


def test_numbers_at_the_ends_of_their_range_hold_or_not() -> None:
    """Sums that 32 bits do not hold."""
    view = small_policy()
    body = report_of(session_of("h0", "d"), T0)
    (stated,) = body.classes
    (plan,) = plans = plan_classes(
        body, session_of("h0", "d").evidence.binding, view.hosts["h0"], view, view.domains["d"]
    )
    reports = [body]
    for end in (-(2**31), 2**31 - 1):
        reports.append(replace(body, classes=(replace(stated, transitions=int32([end] * plan.cells**2)),)))
        reports.append(replace(body, classes=(replace(stated, pane_sums=int32([end] * stated.pane_sums_shape[0])),)))
    assert numbers_hold(reports, plans).tolist() == [True, False, False, False, False]
    free = replace(plan, low=np.full_like(plan.low, -(2**31)), high=np.full_like(plan.high, 2**31 - 1))
    assert numbers_hold(reports, (free,)).tolist() == [in_order(one, (free,)) for one in reports]


def in_order(report: WindowReport, plans: Any) -> bool:
    try:
        check_numbers(report, plans)
    except EnclaveScaleError:
        return False
    return True


EDGES = st.sampled_from((-(2**31), -(2**31) + 1, -1, 0, 1, 2**31 - 2, 2**31 - 1))


@given(EDGES, EDGES, st.lists(EDGES, min_size=6, max_size=6))
def test_bounds_hold_at_the_ends_of_what_a_number_can_be(one: int, other: int, numbers: list[int]) -> None:
    low, high = sorted((one, other))
    plan = ClassPlan(
        ticks=4,
        cells=2,
        readings=4,
        starts=(0, 4),
        low=np.full(6, low, "<i4"),
        high=np.full(6, high, "<i4"),
        counts=0,
        counts_slack=2**40,
        reading_low=0,
        reading_high=0,
        window_slack=2**40,
        bins_slack=0,
        missing_slack=0,
        residual_mj=None,
    )
    stated = gpu_class(transitions=int32(numbers[:4]), pane_sums=int32(numbers[4:]), readings_taken=4, histogram=None)
    body = replace(report_of(session_of("h0", "d"), T0), samples_taken=4, classes=(stated,))
    assert numbers_hold([body], (plan,)).tolist() == [all(low <= number <= high for number in numbers)]
