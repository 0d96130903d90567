"""Published logs for the replay's tests, made once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache

from tests.core.fleet import T0
from tests.core.replay import remembered
from tests.core.scenario import Scenario
from tests.core.story import Story, W, small_policy
from tests.replay.topics import Published, publish

FULL = os.environ.get("ENCLAVESCALE_TIER", "test") != "test"

SPOILT: Mapping[str, str] = {"EVIDENCE_IGNORED": "notice", "EVIDENCE_VARIES": "notice"}
"""What an honest replay of a scenario may find: some of its hosts send evidence that was touched on the way."""


def start_ms(window: int) -> int:
    """Start of a window, counted from `T0`."""
    return T0 + window * W


@cache
def scenario(seed: int, windows: int | None = None) -> Published:
    """A random log with everything in it, published by two workers, one after the other."""
    with remembered():
        made = Scenario(seed)
        made.windows = windows or made.windows
        run = made.build()
        return publish(run, made.policies, restarts=[run.log[len(run.log) // 2].offset])


@cache
def quiet(windows: int = 12, reaffirmed: int = 4) -> Published:
    """Three hosts, every window reported by all; some junk; a control record every so many windows."""
    with remembered():
        view = small_policy()
        story = Story(view)
        story.control("POLICY_SWITCH", view)
        for window in range(windows):
            for host in range(3):
                story.report(f"h{host}", window)
            if window % 3 == 1:
                story.put("d", b"junk")
            if window % reaffirmed == reaffirmed - 1:
                story.control("POLICY_SWITCH", view, effective_ms=0, closed=window - 2)
        for window in range(windows, windows + 3):  # so that all before are closed, and what was refused is published
            for host in range(3):
                story.report(f"h{host}", window)
        return publish(story.run, [view])
