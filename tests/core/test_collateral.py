"""Collateral in force by position: who is judged under which set, what restarts know, when it no longer counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import ControlSubject
from stream_jobs.core.policies import CollateralView
from stream_jobs.core.standing import COLLATERAL, CollateralOffer, adopt, is_newer, standing_of
from stream_jobs.core.windows import CollateralStart, DomainState
from tests.core import fleet
from tests.core.fleet import AGGREGATORS, LIMITS, T0, session_of
from tests.core.replay import Crash, remembered, restart
from tests.core.sets import FIRST, HARSH, NARROW, OTHER, POOL, SETS, offer
from tests.core.story import Story, W, code_of, made_of, small_policy

QUICK = replace(LIMITS, lateness_ms=0, evidence_interval_windows=1)
VIEW = small_policy(limits=QUICK)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def since(view: CollateralView, at_ms: int) -> dict[str, object]:
    """What a record says that repeats a set."""
    subject = ControlSubject(kind=COLLATERAL, id=view.digest.hex(), at_ms=at_ms)
    return {"collateral_digest": view.digest, "subjects": (subject,), "effective_ms": 0}


def switch(story: Story, view: CollateralView, **changes: object) -> list[object]:
    named = {"content_digest": view.digest, "collateral_digest": view.digest, "effective_ms": 0}
    return list(story.control("COLLATERAL_SWITCH", story.policies[0], **{**named, **changes}))  # type: ignore[arg-type]


def restarted(story: Story, *places: int) -> None:
    """Restarts after these records of the log differ in nothing."""
    for at in places:
        _, difference = restart(story.run, story.policies, Crash(at, at))
        assert difference is None, difference


def windows(story: Story, *numbers: int, hosts: int = 3) -> None:
    for number in numbers:
        for host in range(hosts):
            story.report(f"h{host}", number)


def test_a_set_counts_from_its_position_and_stands_in_every_output_since() -> None:
    story = Story(VIEW)
    story.control("POLICY_SWITCH", VIEW)
    windows(story, 0, 1)
    assert [(one.collateral_digest, one.collateral_digest_absent_reason) for one in story.outputs] == [
        (None, "no collateral is in force")
    ]
    switch(story, FIRST)
    windows(story, 3)
    assert code_of(switch(story, NARROW, worker=1)) == "TCB_STATUS_REFUSED"  # judged under the set it names
    switch(story, HARSH)
    assert code_of(story.report("h0", 4)) == "TCB_STATUS_REFUSED"
    assert story.report("h1", 4) == []
    assert [one.digest for one in POOL[:1]] == [story.outputs[-1].collateral_digest]
    switch(story, OTHER)
    assert made_of(story.report("h0", 4, evidence=None))  # its evidence is judged anew, without being sent again
    windows(story, 5, 6)
    assert {one.collateral_digest for one in story.outputs[-2:]} == {OTHER.digest}
    story.crash_everywhere()


def test_the_first_control_record_may_bring_the_set_along() -> None:
    story = Story(VIEW)
    (wanted,) = story.wanted(VIEW, collateral=offer(HARSH))
    assert (wanted.kind, wanted.collateral_digest, wanted.subjects) == ("POLICY_SWITCH", HARSH.digest, ())
    story.write(wanted)
    assert code_of(story.report("h0", 0)) == "TCB_STATUS_REFUSED"


def test_what_a_worker_wants_of_collateral() -> None:
    story = Story(VIEW, small_policy(limits=QUICK, counter=2))
    story.control("POLICY_SWITCH", VIEW)
    assert story.wanted(VIEW) == []
    (wanted,) = story.wanted(VIEW, collateral=offer(FIRST))
    assert (wanted.kind, wanted.content_digest, wanted.effective_from_ms) == ("COLLATERAL_SWITCH", FIRST.digest, 0)
    assert story.write(wanted) == []
    since_ms = story.state.collateral.since_ms
    assert story.wanted(VIEW, collateral=offer(FIRST)) == story.wanted(VIEW, collateral=offer(FIRST, since_ms)) == []
    story.now_ms += 5_000
    (renewed,) = story.wanted(VIEW, collateral=offer(FIRST, since_ms + 1))
    story.write(renewed)
    assert story.state.collateral.since_ms == since_ms + 5_000
    # Whatever else is written repeats it, or brings the newer one along.
    (repeat,) = story.wanted(story.policies[1], collateral=offer(FIRST))
    assert repeat.kind == "POLICY_SWITCH"
    assert [(one.kind, one.id, one.at_ms) for one in repeat.subjects] == [
        ("collateral", FIRST.digest.hex(), since_ms + 5_000)
    ]
    (both,) = story.wanted(story.policies[1], collateral=offer(OTHER))
    assert (both.kind, both.collateral_digest, both.subjects) == ("POLICY_SWITCH", OTHER.digest, ())


def test_a_copy_of_a_switch_changes_nothing() -> None:
    """Whoever may write to the log may repeat what an aggregator wrote a moment ago."""
    story = Story(VIEW)
    story.control("POLICY_SWITCH", VIEW)
    switch(story, FIRST)
    copied = story.run.log[-1].value
    story.now_ms += 1_000
    switch(story, HARSH)
    assert story.put("d", copied, story.now_ms + 1_000) == []
    assert story.state.collateral.view is HARSH
    assert not story.state.controls[-1].complete


def test_a_record_by_an_old_view_of_the_log_is_no_place_to_begin_at() -> None:
    """Nobody writes after it for long: a restart that began there would judge under the old set for ever."""
    story = Story(VIEW)
    story.control("POLICY_SWITCH", VIEW)
    switch(story, FIRST)
    windows(story, *range(12))
    at_ms = story.state.collateral.since_ms
    switch(story, HARSH)
    story.control("POLICY_SWITCH", VIEW, **since(FIRST, at_ms))  # type: ignore[arg-type]
    assert story.state.collateral.view is HARSH
    windows(story, *range(12, 40))
    assert story.run.resume[-1] == story.run.log[-1].offset - 28 * 3 - 1  # the switch, not what came behind it
    restarted(story, len(story.run.log) - 1, len(story.run.log) - 20)


def test_a_domain_that_was_begun_too_early_learns_what_is_in_force() -> None:
    """Two domains: a restart begins where one of them needs it, before the other's own begin."""
    view = small_policy(2, ("a", "b"), limits=QUICK)
    story = Story(view)
    for domain in ("a", "b"):
        story.control("POLICY_SWITCH", view, domain=domain)
        switch(story, FIRST, domain=domain)
    at_ms = T0
    for number in range(32):
        for host in range(2):
            if number < 4 or number == 31:
                story.report(f"ah{host}", number, domain="a")
            story.report(f"bh{host}", number, domain="b")
        if number == 10:
            switch(story, HARSH, domain="b")
            story.control("POLICY_SWITCH", view, domain="b", **since(FIRST, at_ms))  # type: ignore[arg-type]
        if number == 20:
            in_force = story.run.core.domains["b"].collateral
            assert in_force is not None
            story.control("POLICY_SWITCH", view, domain="b", **since(HARSH, in_force.since_ms))  # type: ignore[arg-type]
    restarted(story, *range(len(story.run.log) - 8, len(story.run.log)))


def test_an_old_set_no_longer_counts_and_a_renewal_of_the_same_does() -> None:
    view = small_policy(limits=replace(QUICK, max_collateral_age_ms=4 * W))
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    assert code_of(story.report("h0", 0)) == "COLLATERAL_STALE"
    switch(story, FIRST)  # at T0 + W
    windows(story, 1, 2, 3, 4)
    assert code_of(story.report("h0", 5)) == "COLLATERAL_STALE"
    assert code_of(story.report("h1", 5, evidence=None)) == "COLLATERAL_STALE"
    assert is_newer(story.state, CollateralOffer(FIRST, story.now_ms))
    switch(story, FIRST)
    assert story.report("h0", 5) == []
    story.crash_everywhere()


def test_a_set_that_one_worker_cannot_read_is_refused_and_changes_nothing() -> None:
    story = Story(VIEW)
    story.control("POLICY_SWITCH", VIEW)
    switch(story, FIRST)
    unknown = CollateralView(bytes(32), FIRST.held)
    assert code_of(switch(story, unknown)) == "COLLATERAL_UNKNOWN"
    assert story.state.collateral.view is FIRST


STARTS = st.builds(CollateralStart, st.integers(0, 4), st.sampled_from(POOL))


@settings(max_examples=200, deadline=None)
@given(st.lists(STARTS, min_size=1, max_size=12), st.data())
def test_whatever_order_and_however_few_the_last_that_knows_all_is_enough(
    named: list[CollateralStart], data: st.DataObject
) -> None:
    """Any reader who meets one complete record is where all others are."""
    ours = DomainState("d", 0)
    complete = [adopt(ours, standing(one)) for one in named]
    assert True in complete
    assert ours.collateral is not None
    last = len(complete) - 1 - complete[::-1].index(True)
    begin = data.draw(st.integers(0, last))
    theirs = DomainState("d", 0)
    for one in named[begin:]:
        adopt(theirs, standing(one))
    assert theirs.collateral == ours.collateral


def standing(start: CollateralStart) -> object:
    """As a repeat of it says."""
    story = fleet.control_of(
        session_of(AGGREGATORS[0], None),
        fleet.ControlWanted("POLICY_SWITCH", "d", bytes(32), bytes(32), 0, None, "told"),
        9,
        collateral_digest=start.view.digest,
        subjects=(ControlSubject(kind=COLLATERAL, id=start.view.digest.hex(), at_ms=start.since_ms),),
    )
    return standing_of(story, SETS.get, 10)
