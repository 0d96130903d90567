"""Policies and control records: what they may change, from when, and who is believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.core.fleet import LIMITS, OTHER_IMAGE, T0
from tests.core.replay import remembered
from tests.core.story import Story, W, code_of, made_of, small_policy

SMALL = replace(LIMITS, lateness_ms=W, evidence_interval_windows=2)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def everyone(story: Story, window: int) -> None:
    for number in range(3):
        story.report(f"h{number}", window)


def test_an_older_policy_is_a_rollback() -> None:
    old, new = small_policy(limits=SMALL), small_policy(limits=SMALL, counter=2)
    same = small_policy(limits=SMALL, counter=2, not_after_ms=T0 + 10**8)
    story = Story(old, new, same)
    story.control("POLICY_SWITCH", new)
    assert code_of(story.control("POLICY_SWITCH", old)) == "POLICY_ROLLBACK"
    assert code_of(story.control("POLICY_SWITCH", same)) == "POLICY_ROLLBACK"
    assert code_of(story.control("IDLE_CLOSE", old, closed=0)) == "POLICY_ROLLBACK"
    assert story.state.active.digest == new.digest


def test_a_policy_that_nobody_trusts_is_refused() -> None:
    story = Story(small_policy(limits=SMALL))
    stranger = small_policy(limits=SMALL, counter=9)
    assert code_of(story.control("POLICY_SWITCH", stranger)) == "POLICY_UNTRUSTED"


def test_an_expired_policy_fails_closed() -> None:
    view = small_policy(limits=SMALL, not_after_ms=T0 + 3 * W)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    everyone(story, 0)
    everyone(story, 2)
    assert code_of(story.report("h0", 3)) == "POLICY_EXPIRED"
    story.now_ms = T0 + 3 * W + 1
    assert code_of(story.control("POLICY_SWITCH", view)) == "POLICY_EXPIRED"
    assert code_of(story.control("IDLE_CLOSE", view, closed=2)) == "POLICY_EXPIRED"


def test_a_policy_rules_from_its_first_window_on() -> None:
    old = small_policy(limits=SMALL)
    new = small_policy(limits=SMALL, counter=2, images=(OTHER_IMAGE,), effective_from_ms=T0 + 4 * W - 1)
    story = Story(old, new)
    story.control("POLICY_SWITCH", old)
    story.control("POLICY_SWITCH", new)
    for window in range(4):
        everyone(story, window)
    assert story.run.rejections == []
    assert code_of(story.report("h0", 4)) == "MEASUREMENT_UNKNOWN"
    assert [output.policy_counter for output in story.outputs] == [1] * 3


def test_a_switch_waits_for_windows_that_reports_have_reached() -> None:
    old, new = small_policy(limits=SMALL), small_policy(2, limits=SMALL, counter=2)
    story = Story(old, new)
    story.control("POLICY_SWITCH", old)
    story.report("h0", 5)
    story.control("POLICY_SWITCH", new)
    assert story.report("h2", 5) == []
    assert code_of(story.report("h2", 6)) == "HOST_NOT_ENROLLED"


def test_another_core_version_is_refused() -> None:
    view = small_policy(limits=SMALL, core_version="0")
    story = Story(view)
    assert code_of(story.control("POLICY_SWITCH", view)) == "CORE_VERSION"
    assert code_of(story.report("h0", 0)) == "NO_POLICY"


def test_a_control_record_kept_for_later_is_stale() -> None:
    view = small_policy(limits=SMALL)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    everyone(story, 0)
    story.now_ms = T0 + 30 * W
    kept = story.control("IDLE_CLOSE", view, closed=30)
    assert made_of(kept)
    value = story.run.log[-1].value
    assert code_of(story.put("d", b"junk")) == "MALFORMED"
    chained = story.state.last_output
    story.put("d", value)
    # At once, it says nothing new: what is counted goes on, and so does the chain of outputs.
    assert story.state.tally.refused["MALFORMED"] == 1
    assert story.state.last_output == chained
    limit = view.policy.limits.max_control_age_ms
    assert code_of(story.put("d", value, story.run.log[0].timestamp_ms + 10 * limit)) == "CONTROL_STALE"
    assert code_of(story.control("IDLE_CLOSE", view, closed=31, issued_ms=story.now_ms + limit + 1)) == "CONTROL_STALE"


def test_an_idle_close_is_final() -> None:
    view = small_policy(limits=replace(SMALL, lateness_ms=10 * W))
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    story.report("h0", 0)
    story.now_ms = T0 + 2 * W
    (output,) = made_of(story.control("IDLE_CLOSE", view, closed=2))
    assert (output.source.close_reason, output.accepted) == ("idle_close", 1)
    for window in (0, 1):
        assert code_of(story.report("h1", window)) == "LATE"
    assert story.report("h1", 2) == []


def test_an_idle_close_of_the_future_is_refused() -> None:
    view = small_policy(limits=SMALL)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    assert code_of(story.control("IDLE_CLOSE", view, closed=2)) == "CONTROL_INVALID"


def test_two_workers_that_write_the_same_do_no_harm() -> None:
    view = small_policy(limits=SMALL)
    story = Story(view)
    (wanted,) = story.wanted(view)
    for _ in range(2):
        story.write(wanted)
    for window in range(12):
        everyone(story, window)
        for one in story.wanted(view):
            story.write(one)
            story.write(one)
    assert story.run.rejections == []
    assert len({(one.window_start_ms, one.revision) for one in story.outputs}) == len(story.outputs)


def test_wanted_is_quiet_when_nothing_is_due() -> None:
    view = small_policy(limits=SMALL)
    story = Story(view)
    assert [one.reason for one in story.wanted(view)] == ["newest policy"]
    story.write(story.wanted(view)[0])
    assert story.wanted(view, {"d": story.now_ms}) == []
    everyone(story, 0)
    (again,) = story.wanted(view, {"d": story.now_ms})
    assert "restart" in again.reason
    story.write(again)
    assert story.wanted(view, {"d": story.now_ms}) == []
    idle = story.wanted(view, {"d": story.now_ms - view.policy.limits.max_idle_ms})
    assert [one.kind for one in idle] == ["IDLE_CLOSE"]
    story.write(idle[0])
    assert story.wanted(view, {"d": story.now_ms - view.policy.limits.max_idle_ms}) == []


def test_a_domain_that_left_the_policy_is_closed_under_its_own() -> None:
    """Nobody wrote for it any more, and its resume offset held the partition's for ever."""
    both = small_policy(domains=("a", "b"), limits=SMALL)
    one = small_policy(domains=("a",), limits=SMALL, counter=2)
    story = Story(both, one)
    for wanted in story.wanted(both):
        story.write(wanted)
    for window in range(3):
        for number in range(3):
            story.report(f"bh{number}", window, domain="b")
    story.now_ms += 100 * W
    idle = {"b": T0}
    wanted = story.wanted(one, idle)
    assert [(each.kind, each.domain) for each in wanted] == [("POLICY_SWITCH", "a"), ("IDLE_CLOSE", "b")]
    story.write(wanted[1])
    held = story.run.core.domains["b"].resume_offset
    story.now_ms += 100 * W
    (last,) = [each for each in story.wanted(one, idle) if each.domain == "b"]
    story.write(last)
    assert story.run.rejections == []
    assert story.run.core.domains["b"].resume_offset > held
