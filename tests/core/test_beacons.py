"""Beacons: what evidence must name, how long it counts by it, and what a domain remembers of those issued."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attester.session import Session
from schemas.records import Beacon, ControlSubject
from stream_jobs.core.effects import Effect
from stream_jobs.core.standing import beacon_subjects
from stream_jobs.core.windows import MAX_BEACONS, DomainState
from tests.core.fleet import IMAGE, LIMITS, T0, beacon_of, new_session, session_of
from tests.core.replay import remembered
from tests.core.story import Story, W, code_of, small_policy

DEMANDING = small_policy(limits=replace(LIMITS, max_beacon_age_ms=4 * W))
LAX = small_policy()


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def issued(*windows: int) -> dict[bytes, int]:
    return {beacon.nonce: beacon.issued_at_ms for beacon in map(beacon_of, windows)}


def beacon(story: Story, *windows: int, **changes: Any) -> list[Effect]:
    return story.control("BEACON", story.policies[0], **{"subjects": beacon_subjects(issued(*windows)), **changes})


def begun(view: Any = DEMANDING) -> Story:
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    return story


def naming(host: str, window: int) -> Session:
    return session_of(host, "d", 0, IMAGE, window)


def test_evidence_counts_as_long_as_its_beacon_is_fresh() -> None:
    story = begun()
    assert code_of(story.report("h0", 0, session=naming("h0", 0))) == "BEACON_UNKNOWN"
    assert beacon(story, 0) == []
    for window in range(4):
        assert [one for one in story.report("h0", window, session=naming("h0", 0)) if not hasattr(one, "output")] == []
    assert code_of(story.report("h0", 4, session=naming("h0", 0))) == "BEACON_STALE"
    story.now_ms = max(story.now_ms, T0 + 4 * W)
    assert beacon(story, 4) == []
    assert story.report("h0", 4, session=naming("h0", 4)) == []
    story.crash_everywhere()


def test_what_does_not_count() -> None:
    story = begun()
    beacon(story, 0)
    other_time = Beacon(nonce=beacon_of(0).nonce, issued_at_ms=T0 + 1, session_id=bytes(32))
    backdated = new_session("h0", "d", T0, IMAGE, beacon=other_time, beacon_absent_reason=None)
    assert code_of(story.report("h0", 0)) == "BEACON_UNKNOWN"  # names none
    assert code_of(story.report("h0", 0, session=naming("h0", 1))) == "BEACON_UNKNOWN"  # not issued
    assert code_of(story.report("h0", 0, session=backdated)) == "BEACON_UNKNOWN"
    assert story.report("h1", 0, session=naming("h1", 0)) == []


def test_of_two_sessions_with_one_beacon_the_newer_counts() -> None:
    """A host that restarts names the newest beacon again; its session before must not outlive it, whatever its id."""
    for number in range(4):
        story = begun()
        beacon(story, 0)
        named = {"beacon": beacon_of(0), "beacon_absent_reason": None}
        old, new = (new_session("h0", "d", T0 + later, IMAGE, **named) for later in (number, number + 1))
        assert story.report("h0", 0, session=old) == []
        assert story.report("h0", 1, session=new) == []
        assert code_of(story.report("h0", 2, session=old)) == "SUPERSEDED_SESSION"
        assert story.report("h0", 2, session=new) == []


def test_where_no_beacon_is_demanded_none_is_needed() -> None:
    story = begun(LAX)
    assert story.report("h0", 0) == []
    assert story.report("h1", 0, session=naming("h1", 3)) == []


def test_an_unknown_beacon_is_forgiven_once_it_is_known() -> None:
    """The session was met already: nothing of it is lost but the window."""
    story = begun()
    assert code_of(story.report("h0", 0, session=naming("h0", 0))) == "BEACON_UNKNOWN"
    beacon(story, 0)
    assert story.report("h0", 1, session=naming("h0", 0), evidence=None) == []
    story.crash_everywhere()


def test_forged_beacons_are_refused() -> None:
    assert code_of(beacon(Story(DEMANDING), 0)) == "NO_POLICY"  # and they begin no domain
    story = begun()
    host = naming("h0", 0)
    cases: list[tuple[str, dict[str, Any]]] = [
        ("CONTROL_INVALID", {"subjects": ()}),
        ("CONTROL_INVALID", {"subjects": (ControlSubject(kind="beacon", id="00" * 31, at_ms=T0),)}),
        ("CONTROL_INVALID", {"subjects": (ControlSubject(kind="beacon", id="AB" * 32, at_ms=T0),)}),
        ("CONTROL_INVALID", {"subjects": (ControlSubject(kind="beacon", id="\0", at_ms=T0),)}),
        ("CONTROL_INVALID", {"subjects": (ControlSubject(kind="beacon", id="ab" * 32),)}),
        ("CONTROL_INVALID", {"subjects": (ControlSubject(kind="beacon", id="ab" * 32, at_ms=T0 + 10**9),)}),
        ("CONTROL_STALE", {"issued_ms": T0 - 10**6}),
        ("SESSION_MISMATCH", {"session_id": host.session_id}),
        ("BINDING_MISMATCH", {"host_id": "h0"}),
    ]
    for code, changes in cases:
        assert code_of(beacon(story, 0, **changes)) == code, changes
    assert story.state.beacons == {}
    story.control("POLICY_SWITCH", DEMANDING, subjects=beacon_subjects(issued(0)))
    assert story.state.beacons == issued(0)  # a repeat tells as much


def test_what_a_worker_wants_of_beacons() -> None:
    story = begun()
    known = issued(0)
    (wanted,) = story.run.core.wanted(DEMANDING, story.now_ms, {}, None, known)
    assert (wanted.kind, wanted.subjects) == ("BEACON", beacon_subjects(known))
    assert story.write(wanted) == []
    assert story.run.core.wanted(DEMANDING, story.now_ms, {}, None, known) == []
    later = small_policy(limits=DEMANDING.policy.limits, counter=2)
    (switch,) = story.run.core.wanted(later, story.now_ms, {}, None, known)
    assert (switch.kind, switch.subjects) == ("POLICY_SWITCH", beacon_subjects(known))


def test_a_record_that_knows_fewer_is_no_place_to_begin_at() -> None:
    story = begun()
    beacon(story, 0)
    story.control("POLICY_SWITCH", DEMANDING, effective_ms=0)
    assert [mark.complete for mark in story.state.controls] == [True, False]
    story.control("POLICY_SWITCH", DEMANDING, effective_ms=0, subjects=beacon_subjects(issued(0)))
    assert story.state.controls[-1].complete


NAMED = st.lists(st.dictionaries(st.binary(min_size=32, max_size=32), st.integers(0, 9), max_size=40), max_size=6)


@settings(max_examples=100, deadline=None)
@given(NAMED, st.randoms(use_true_random=False))
def test_the_newest_are_kept_in_whatever_order_they_were_named(named: list[dict[bytes, int]], rng: Any) -> None:
    ours, theirs = DomainState("d", 0), DomainState("d", 0)
    for beacons in named:
        ours.note_beacons(beacons)
    shuffled = [*named, *named[:1]]
    rng.shuffle(shuffled)
    for beacons in shuffled:
        theirs.note_beacons(beacons)
    assert ours.beacons == theirs.beacons
    newest: dict[bytes, int] = {}
    for beacons in named:
        for nonce, at_ms in beacons.items():
            newest[nonce] = max(at_ms, newest.get(nonce, 0))
    assert len(ours.beacons) == min(MAX_BEACONS, len(newest))
    ranked = sorted(newest.items(), key=lambda one: (one[1], one[0]))
    assert dict(ranked[-MAX_BEACONS:]) == ours.beacons
