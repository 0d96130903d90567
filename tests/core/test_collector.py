"""The collector is asked seldom, and what was there before is set aside."""

from __future__ import annotations

import gc

from stream_jobs.collector import OLDER, OLDEST, YOUNG, tune_collector


def test_the_collector_is_asked_seldom() -> None:
    before = gc.get_threshold()
    try:
        tune_collector()
        assert gc.get_threshold() == (YOUNG, OLDER, OLDEST)
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)
    assert gc.get_freeze_count() == 0
