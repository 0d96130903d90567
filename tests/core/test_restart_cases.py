"""Restarts that once went wrong, each as the shortest log that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.core.fleet import LIMITS, T0, new_session, report_of, seal, session_of, spoilt
from tests.core.replay import remembered
from tests.core.story import Story, W, code_of, made_of, small_policy

TIGHT = replace(LIMITS, lateness_ms=0, evidence_interval_windows=1)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def everyone(story: Story, window: int, hosts: int = 3, **changes: object) -> None:
    for number in range(hosts):
        story.report(f"h{number}", window, **changes)  # type: ignore[arg-type]


def reaffirm(story: Story, view: object) -> None:
    """What a live worker writes, if it wants anything."""
    for wanted in story.wanted(view):  # type: ignore[arg-type]
        story.write(wanted)


def test_the_chain_of_outputs_survives_a_leap_of_the_watermark() -> None:
    """The last output's window lay below the horizon of the very position that published it."""
    view = small_policy(limits=TIGHT)
    story = Story(view)
    reaffirm(story, view)
    for window in range(4):
        everyone(story, window)
    story.now_ms += 60 * W
    assert made_of(story.control("IDLE_CLOSE", view, effective_ms=0, closed=60))
    everyone(story, 61)
    story.report("h7", 61)  # counted in the next output
    everyone(story, 62)
    everyone(story, 63)
    assert all(output.prev_output_digest for output in story.outputs[1:])
    story.crash_everywhere()


def test_hosts_that_return_after_hours_without_a_worker() -> None:
    """The reports themselves make the watermark leap."""
    view = small_policy(limits=TIGHT)
    story = Story(view)
    reaffirm(story, view)
    for window in (0, 1, 2, 3, 80, 81, 82, 83):
        story.report("h9", window)
        everyone(story, window)
        reaffirm(story, view)
    story.crash_everywhere()


def test_an_idle_domain_lets_go_of_the_log() -> None:
    """With nothing to publish the resume offset still moves; the chain of outputs begins anew, and says so."""
    view = small_policy(limits=TIGHT)
    story = Story(view)
    reaffirm(story, view)
    for window in range(4):
        everyone(story, window)
    for closed in (40, 80, 120):
        story.now_ms = T0 + (closed + 1) * W
        story.report("h9", closed)
        story.put("nowhere", b"junk")
        story.control("IDLE_CLOSE", view, effective_ms=0, closed=closed)
    assert story.run.core.resume_offset == story.next_offset - 1
    for window in range(122, 127):
        everyone(story, window)
    output = next(output for output in story.outputs if output.window_start_ms == T0 + 122 * W)
    assert output.prev_output_digest is None
    assert "idle" in (output.prev_output_digest_absent_reason or "")
    assert output.refused == ()
    story.crash_everywhere()


def test_what_was_refused_before_the_first_policy_is_counted_once() -> None:
    """The first control record was a resume offset before anything had been counted."""
    view = small_policy(limits=TIGHT)
    story = Story(view)
    everyone(story, 0)
    story.put("d", b"junk")
    assert story.run.core.resume_offset is None
    reaffirm(story, view)
    assert story.run.core.resume_offset is None
    for window in range(3):
        everyone(story, window)
    assert {one.code: one.count for one in story.outputs[0].refused} == {"MALFORMED": 1, "NO_POLICY": 3}
    story.crash_everywhere()


def test_a_sequence_number_from_the_future_is_forgotten() -> None:
    """One report with a huge number stood as the chain's head for ever, in the log's first reader only."""
    view = small_policy(hosts=1, limits=TIGHT, grace_ms=0)
    story = Story(view)
    reaffirm(story, view)
    for window in range(40):
        story.report("h0", window, seq=2**62 if window == 3 else window)
        reaffirm(story, view)
    story.crash_everywhere()


def test_a_flood_of_sessions_does_not_decide_what_a_restart_accepts() -> None:
    """A budget of checks spared sessions known before, and a restart knows none."""
    view = small_policy(limits=replace(TIGHT, evidence_checks_per_window=1))
    story = Story(view)
    reaffirm(story, view)
    for window in range(16):
        for rogue in range(3):
            other = session_of("h0", "d", 900 + rogue, "rogue")
            body = report_of(other, T0 + window * W)
            story.put("d", seal(other, body).value(other.evidence), T0 + (window + 1) * W)
        everyone(story, window)
        reaffirm(story, view)
    assert all(output.accepted == 3 for output in story.outputs)
    assert story.run.core.resume_offset
    story.crash_everywhere()


def test_a_session_lives_on_its_own_hosts_records_only() -> None:
    """Evidence on a report in another host's name kept a session alive that a restart had never met."""
    view = small_policy(limits=TIGHT)
    story = Story(view)
    reaffirm(story, view)
    mine = session_of("h0", "d")
    for window in range(30):
        story.report("h0", window, evidence=mine.evidence if window < 1 else None)
        assert code_of(story.report("h1", window, session=mine, host_id="h1")) == "BINDING_MISMATCH"
        story.report("h1", window)
        story.report("h2", window)
        reaffirm(story, view)
    assert code_of(story.report("h0", 30, evidence=None)) == "SESSION_UNKNOWN"
    story.crash_everywhere()


def test_more_lateness_does_not_open_what_was_closed_for_good() -> None:
    """A longer limit let a late report open a forgotten window again: a second first output for it."""
    first = small_policy(limits=TIGHT)
    second = small_policy(limits=replace(TIGHT, lateness_ms=8 * W), counter=2)
    story = Story(first, second)
    reaffirm(story, first)
    for window in range(6):
        everyone(story, window)
    story.control("POLICY_SWITCH", second)
    assert code_of(story.report("h0", 1, seq=77)) == "LATE"
    for window in range(6, 30):
        everyone(story, window)
        if window in {12, 20}:
            story.report("h0", window - 4, seq=500 + window, dropped_reports=1)
        reaffirm(story, second)
    keys = [(output.window_start_ms, output.revision) for output in story.outputs]
    assert len(keys) == len(set(keys))
    story.crash_everywhere()


def test_a_policy_that_a_restart_reads_first_may_have_followed_another() -> None:
    """Reports for windows before the newest policy are LATE however much of the history was read."""
    first = small_policy(limits=TIGHT)
    second = small_policy(limits=TIGHT, counter=2)
    story = Story(first, second)
    story.control("POLICY_SWITCH", first)
    for window in range(4):
        everyone(story, window)
    story.control("POLICY_SWITCH", second)
    for window in range(4, 30):
        everyone(story, window)
        if window > 6:
            assert code_of(story.report("h0", 2, seq=window)) == "LATE"
        if window % 6 == 5:
            reaffirm(story, second)
    assert story.run.core.resume_offset
    story.crash_everywhere()


def test_a_late_report_for_a_window_nobody_saw_under_the_policy_before() -> None:
    """The resume offset asked which policy the seen windows need, not which an unseen one may."""
    limits = replace(TIGHT, lateness_ms=6 * W)
    first, second = small_policy(limits=limits), small_policy(limits=limits, counter=2)
    story = Story(first, second)
    story.control("POLICY_SWITCH", first)
    for window in (0, 1, 2, 3, 60):
        everyone(story, window)
    story.control("POLICY_SWITCH", second)
    for window in range(61, 66):
        everyone(story, window)
    assert story.report("h0", 59, seq=59) == []
    for window in range(66, 110):
        everyone(story, window)
        reaffirm(story, second)
    assert any(output.window_start_ms == T0 + 59 * W for output in story.outputs)
    story.crash_everywhere()


def test_another_domains_records_from_before_its_own_resume_offset() -> None:
    """A restart met a control record refused long ago as the first of its domain, and built on it."""
    names = ("a", "b")
    first = small_policy(domains=names, limits=TIGHT)
    second = small_policy(domains=names, limits=TIGHT, counter=2)
    story = Story(first, second)
    for name in names:
        story.control("POLICY_SWITCH", first, domain=name)
    for window in range(3):
        for name in names:
            for number in range(3):
                story.report(f"{name}h{number}", window, domain=name)
    for name in names:
        story.control("POLICY_SWITCH", second, domain=name)
    effective = {name: story.run.core.domains[name].policies[-1].effective_ms for name in names}
    for window in range(3, 24):
        for number in range(3):
            story.report(f"ah{number}", window, domain="a")
        for wanted in story.wanted(second):
            if wanted.domain == "a":
                story.write(wanted)
    switched = next(n for n, record in enumerate(story.run.log) if n > 20 and record.key == b"b")
    late = story.control("IDLE_CLOSE", first, domain="b", effective_ms=0, closed=3)
    assert code_of(late) == "POLICY_ROLLBACK"
    story.now_ms = T0 + 62 * W
    story.control("IDLE_CLOSE", second, domain="b", effective_ms=effective["b"], closed=60)
    story.control("IDLE_CLOSE", second, domain="b", effective_ms=effective["b"], closed=61)
    assert switched < (story.run.core.resume_offset or 0) < story.next_offset - 3
    for window in range(62, 68):
        for number in range(3):
            story.report(f"bh{number}", window, domain="b")
    assert story.outputs[-1].policy_counter == 2
    story.crash_everywhere()


def test_what_an_idle_close_made_final_stays_final() -> None:
    """A control record after it repeats the watermark, not that no report may come late."""
    limits = replace(TIGHT, lateness_ms=12 * W)
    first, second = small_policy(limits=limits), small_policy(limits=limits, counter=2)
    story = Story(first, second)
    story.control("POLICY_SWITCH", first)
    for window in range(3):
        everyone(story, window)
    story.now_ms = T0 + 81 * W
    story.control("IDLE_CLOSE", first, effective_ms=0, closed=40)
    story.control("IDLE_CLOSE", first, effective_ms=0, closed=80)
    story.control("POLICY_SWITCH", first, effective_ms=0, closed=80)
    for window in range(81, 86):
        everyone(story, window)
        assert code_of(story.report("h0", window - 7, seq=window)) == "LATE"
    story.crash_everywhere()


def test_evidence_taken_anew_is_judged_anew_under_every_policy() -> None:
    """A verdict of older evidence outlived the evidence."""
    view = small_policy(limits=TIGHT)
    story = Story(view)
    reaffirm(story, view)
    session = new_session("h0", "d", T0, "toy-host")
    for window in range(12):
        evidence = (session.evidence, None, spoilt(session.evidence))[window % 3]
        story.report("h0", window, session=session, evidence=evidence)
        story.report("h1", window)
        story.report("h2", window)
        reaffirm(story, view)
    story.crash_everywhere()
