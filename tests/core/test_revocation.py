"""Revocations: what a policy revokes is denied from a position on, and leaves the windows that may still be revised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attester.simulated import ROOT_LABEL, simulated_platform_id
from schemas.records import ControlSubject, FleetPower, RevokedSubject
from stream_jobs.core.kept import KeptCounts
from stream_jobs.core.policies import PolicyView
from tests.core import fleet
from tests.core.fleet import AGGREGATORS, LIMITS, session_of
from tests.core.replay import remembered
from tests.core.story import Story, W, code_of, made_of, small_policy

LONG = replace(LIMITS, lateness_ms=20 * W)
HOSTS = 5
BASE: dict[str, Any] = {"hosts": HOSTS, "limits": LONG}
VIEW = small_policy(**BASE)
POSITION = frozenset(
    (
        "revision",
        "prev_revision_digest",
        "prev_revision_digest_absent_reason",
        "prev_output_digest",
        "prev_output_digest_absent_reason",
        "refused",
        "refused_root",
        "source",
    )
)
"""Fields that say where in the log an output stands."""


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def revoking(*subjects: tuple[str, str], **changes: Any) -> PolicyView:
    revoked = tuple(RevokedSubject(kind=kind, id=one, reason="stolen") for kind, one in subjects)
    return small_policy(**{**BASE, "counter": 2, "revoked": revoked, **changes})


def story_of(newer: PolicyView, windows: int, silent: Sequence[str] = ()) -> Story:
    """Some windows under the first policy, and the switch to a newer one."""
    story = Story(VIEW, newer)
    story.control("POLICY_SWITCH", VIEW)
    for window in range(windows):
        for number in range(HOSTS):
            if f"h{number}" not in silent:
                story.report(f"h{number}", window)
    story.control("POLICY_SWITCH", newer)
    return story


def figures(output: FleetPower) -> dict[str, Any]:
    names = set(type(output).__dataclass_fields__) - POSITION
    return {name: getattr(output, name) for name in names}


ALL = {
    "host": "h1",
    "platform": simulated_platform_id("h1").hex().upper(),
    "session": session_of("h1", "d").session_id.hex(),
}


@pytest.mark.parametrize("kind", ALL)
def test_one_host_leaves_every_window_as_if_it_had_never_reported(kind: str) -> None:
    newer = revoking((kind, ALL[kind]))
    told, without = story_of(newer, 3), story_of(newer, 3, silent=("h1",))
    assert told.outputs[0].accepted == HOSTS
    (wanted,) = told.wanted(newer)
    assert (wanted.kind, len(wanted.subjects)) == ("REVOCATION", 1)
    made = made_of(told.write(wanted))
    assert [(one.revision, one.accepted, one.source.close_reason) for one in made] == [(1, HOSTS - 1, "revision")] * 2
    assert [figures(one) for one in made[:1]] == [figures(one) for one in without.outputs[:1]]
    sums = [[(c.transitions_sum, c.pane_sums_sum, c.readings_taken) for c in one.classes] for one in made]
    assert sums == [
        [(c.transitions_sum, c.pane_sums_sum, c.readings_taken) for c in one.classes] for one in without.outputs
    ]
    assert told.wanted(newer) == []
    assert code_of(told.report("h1", 1, seq=9)) == "REVOKED"  # late, for a window under the older policy
    assert code_of(told.report("h1", 3)) == "REVOKED"  # under the newer one
    assert told.report("h2", 3) == []
    told.crash_everywhere()


def test_a_measurement_takes_everybody_with_it() -> None:
    newer = revoking(("measurement", fleet.IMAGE))
    story = story_of(newer, 3)
    made = made_of(story.control("REVOCATION", newer, content_digest=newer.digest))
    assert [(one.revision, one.accepted, one.source.first_offset, one.classes) for one in made] == [
        (1, 0, None, ())
    ] * 2
    assert {one.mean_absent_reason for one in made} == {"no class has readings"}
    story.crash_everywhere()


def test_a_revoked_root_takes_the_aggregators_with_it() -> None:
    """Where there is no other root nobody can say so in the log: the switch to the policy is refused already."""
    newer = revoking(("root", ROOT_LABEL))
    story = Story(VIEW, newer)
    story.control("POLICY_SWITCH", VIEW)
    assert code_of(story.control("POLICY_SWITCH", newer)) == "REVOKED"


def test_a_window_that_was_not_published_loses_them_silently() -> None:
    newer = revoking(("host", "h0"))
    story = Story(VIEW, newer)
    story.control("POLICY_SWITCH", VIEW)
    story.report("h0", 0)
    story.control("POLICY_SWITCH", newer)
    assert story.control("REVOCATION", newer, content_digest=newer.digest) == []
    assert story.state.windows == {}
    for window in (0, 1, 2):
        for number in range(1, HOSTS):
            story.report(f"h{number}", window)
    assert (story.outputs[0].accepted, story.outputs[0].revision) == (HOSTS - 1, 0)
    story.crash_everywhere()


def test_a_revoked_session_replaces_no_other() -> None:
    stolen = session_of("h1", "d", 5)
    newer = revoking(("session", stolen.session_id.hex()))
    story = story_of(newer, 3, silent=("h1",))
    story.report("h1", 0, order=5)
    assert code_of(story.report("h1", 1)) == "SUPERSEDED_SESSION"
    story.control("REVOCATION", newer, content_digest=newer.digest)
    assert code_of(story.report("h1", 2, order=5)) == "REVOKED"
    assert story.report("h1", 1) == []
    story.crash_everywhere()


def test_a_revoked_session_whose_code_is_refused_too_replaces_no_other() -> None:
    """Under the newer policy its evidence is worth nothing: that must not be what keeps it in front of the other."""
    stolen = session_of("h1", "d", 5, fleet.OTHER_IMAGE)
    newer = revoking(("session", stolen.session_id.hex()), images=(fleet.IMAGE,))
    story = Story(VIEW, newer)
    story.control("POLICY_SWITCH", VIEW)
    story.report("h1", 0, session=stolen)
    assert code_of(story.report("h1", 1)) == "SUPERSEDED_SESSION"
    story.control("POLICY_SWITCH", newer)
    assert story.report("h1", 1) == []
    assert code_of(story.report("h1", 2, session=stolen)) == "MEASUREMENT_UNKNOWN"
    story.crash_everywhere()


def test_who_may_revoke_and_what() -> None:
    newer = revoking(("host", "h1"))
    story = Story(VIEW, newer)
    story.control("POLICY_SWITCH", VIEW)
    story.report("h0", 0)
    # By a policy that is not in force here, by one that revokes nothing, what it does not revoke, by no policy.
    assert code_of(story.control("REVOCATION", newer, content_digest=newer.digest)) == "POLICY_ROLLBACK"
    assert code_of(story.control("REVOCATION", VIEW, content_digest=VIEW.digest)) == "CONTROL_INVALID"
    assert code_of(story.control("REVOCATION", VIEW)) == "CONTROL_INVALID"
    assert code_of(story.control("REVOCATION", VIEW, content_digest=newer.digest)) == "CONTROL_INVALID"
    story.control("POLICY_SWITCH", newer)
    honest = (ControlSubject(kind="host", id="h2"),)
    assert code_of(story.control("REVOCATION", newer, content_digest=newer.digest, subjects=honest)) == (
        "CONTROL_INVALID"
    )
    assert story.report("h1", 0) == []
    assert story.control("REVOCATION", newer, content_digest=newer.digest) == []
    assert story.control("REVOCATION", newer, content_digest=newer.digest) == []  # a second worker's
    assert code_of(story.report("h1", 0)) == "REVOKED"


def test_a_revoked_aggregator_writes_nothing_more() -> None:
    newer = revoking(("host", AGGREGATORS[1]))
    story = story_of(newer, 1)
    assert code_of(story.control("REVOCATION", newer, content_digest=newer.digest, worker=1)) == "REVOKED"
    assert code_of(story.control("POLICY_SWITCH", newer, worker=1)) == "REVOKED"
    assert story.control("POLICY_SWITCH", newer) == []


def test_only_the_newest_policy_s_word_counts_for_its_own_windows() -> None:
    """It denies in older windows; a newer policy that does not revoke speaks for its own."""
    newer = revoking(("host", "h1"))
    last = small_policy(**{**BASE, "counter": 3})
    story = Story(VIEW, newer, last)
    story.control("POLICY_SWITCH", VIEW)
    story.report("h0", 0)
    story.control("POLICY_SWITCH", newer)
    story.control("REVOCATION", newer, content_digest=newer.digest)
    story.report("h0", 1)
    story.control("POLICY_SWITCH", last)
    assert [one.kind for one in story.wanted(last)] == ["IDLE_CLOSE"]
    assert code_of(story.report("h1", 0)) == "REVOKED"
    assert code_of(story.report("h1", 1)) == "REVOKED"
    assert story.report("h1", 2) == []


COUNTS = st.lists(
    st.lists(st.one_of(st.integers(-130, 300), st.integers(-(2**31), 2**31 - 1)), min_size=4, max_size=4),
    min_size=1,
    max_size=6,
)


@settings(max_examples=150, deadline=None)
@given(COUNTS, st.data())
def test_counts_kept_in_bytes_are_the_counts(counts: list[list[int]], data: st.DataObject) -> None:
    matrix = np.array(counts, np.int32)
    kept = KeptCounts.of(np.arange(len(counts), dtype=np.int32), matrix)
    first = np.array(data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))), np.bool_)
    assert kept.sum_where(first).tolist() == matrix[first].sum(axis=0, dtype=np.int64).tolist()
    rest = kept.where(~first)
    assert rest.rows.tolist() == np.flatnonzero(~first).tolist()
    everyone = np.ones(rest.rows.size, np.bool_)
    assert rest.sum_where(everyone).tolist() == matrix[~first].sum(axis=0, dtype=np.int64).tolist()
