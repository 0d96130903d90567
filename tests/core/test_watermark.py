"""The watermark is the median of what was verified: neither a fast clock nor a silent host decides alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.core.fleet import LIMITS, T0
from tests.core.replay import remembered
from tests.core.story import Story, W, made_of, small_policy

CALM = replace(LIMITS, lateness_ms=4 * W, evidence_interval_windows=50, clock_skew_tolerance_ms=10**9)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def begin(hosts: int) -> Story:
    view = small_policy(hosts, limits=CALM, grace_ms=0)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    return story


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 5])
def test_a_window_closes_when_more_than_half_have_passed_it(hosts: int) -> None:
    story = begin(hosts)
    needed = hosts // 2 + 1
    for number in range(hosts):
        made = made_of(story.report(f"h{number}", 0))
        assert bool(made) == (number + 1 == needed)
    assert story.state.watermark_ms == T0 + W


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 5])
def test_just_under_half_with_clocks_ahead_close_nothing(hosts: int) -> None:
    story = begin(hosts)
    ahead = (hosts - 1) // 2
    for number in range(ahead):
        assert made_of(story.report(f"h{number}", 40)) == []
    assert story.state.watermark_ms == -1
    for window in range(4):
        made = [made for number in range(ahead, hosts) for made in made_of(story.report(f"h{number}", window))]
        assert [one.window_start_ms for one in made if one.revision == 0] == [T0 + window * W]
    assert story.state.watermark_ms == T0 + 4 * W


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 5])
def test_just_under_half_with_clocks_behind_stall_nothing(hosts: int) -> None:
    story = begin(hosts)
    behind = (hosts - 1) // 2
    for number in range(behind):
        story.report(f"h{number}", 0)
    for window in range(3, 8):
        for number in range(behind, hosts):
            story.report(f"h{number}", window)
        assert story.state.watermark_ms == T0 + (window + 1) * W


@pytest.mark.parametrize("hosts", [3, 4, 5])
def test_a_few_that_are_first_at_start_up_close_nothing(hosts: int) -> None:
    story = begin(hosts)
    for number in range(hosts // 2):
        for window in range(20):
            assert made_of(story.report(f"h{number}", window)) == []
    assert story.state.watermark_ms == -1
    assert not made_of(story.report(f"h{hosts}", 19))  # nor does one that is not enrolled
    assert story.state.watermark_ms == -1


def test_the_watermark_never_goes_back() -> None:
    story = begin(3)
    seen = [-1]
    for host, window in (("h0", 5), ("h1", 5), ("h0", 3), ("h1", 2), ("h2", 4), ("h2", 9), ("h0", 6), ("h1", 7)):
        story.report(host, window)
        seen.append(story.state.watermark_ms)
    assert seen == sorted(seen)


def test_hosts_that_leave_the_policy_leave_the_median() -> None:
    first = small_policy(5, limits=CALM, grace_ms=0)
    second = small_policy(2, limits=CALM, grace_ms=0, counter=2)
    story = Story(first, second)
    story.control("POLICY_SWITCH", first)
    for number in range(3):
        story.report(f"h{number}", 0)
    story.control("POLICY_SWITCH", second)
    story.report("h0", 1)
    assert story.state.watermark_ms == T0 + W
    story.report("h1", 1)
    assert story.state.watermark_ms == T0 + 2 * W


def test_a_silent_majority_is_closed_by_a_wanted_control_record() -> None:
    """Others go on reporting, so the domain is never idle, and its windows stayed open for ever."""
    view = small_policy(5, limits=replace(CALM, clock_skew_tolerance_ms=500), grace_ms=0)
    story = Story(view)
    for wanted in story.wanted(view):
        story.write(wanted)
    for number in range(5):
        story.report(f"h{number}", 0)
    written = 0
    for window in range(1, 20):
        for number in range(2):
            story.report(f"h{number}", window)
        for wanted in story.wanted(view, {"d": story.now_ms}):
            written += wanted.kind == "IDLE_CLOSE"
            assert wanted.kind != "IDLE_CLOSE" or "silent" in wanted.reason
            story.write(wanted)
    assert written > 6
    assert story.state.watermark_ms >= T0 + 12 * W
    assert len(story.state.windows) <= 12
    assert {output.coverage.reporting_hosts for output in story.outputs[1:]} <= {2, 5}
    assert story.outputs[-1].margin.margin is None
    for window in (20, 21, 22, 23):  # the others come back
        for number in range(5):
            story.report(f"h{number}", window)
    assert story.outputs[-1].coverage.reporting_hosts >= 3
    story.crash_everywhere()


def test_a_normal_lag_is_no_silence() -> None:
    view = small_policy(3, limits=CALM)
    story = Story(view)
    for wanted in story.wanted(view):
        story.write(wanted)
    for window in range(12):
        for number in range(3):
            story.report(f"h{number}", max(0, window - (3 if number else 0)))
        assert all(one.kind != "IDLE_CLOSE" for one in story.wanted(view, {"d": story.now_ms}))
