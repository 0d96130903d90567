"""All hosts restart at once: nobody who proves himself is refused, and the benchmark's arithmetic of waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.core import write_log
from benchmarks.restart import AFTER, BEFORE, Taken, measure, queue


def test_every_host_is_admitted_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write_log(log, 40, BEFORE + AFTER, 10_000, BEFORE)
    said = measure(log, 40, 10.0, 1.0)
    assert said["refused"] == {}
    assert said["accepted_after"] == 40
    assert said["restart_window_processor_s"] > 2 * max(said["steady_window_processor_s"])  # all evidence was checked


@pytest.mark.parametrize(
    ("costs", "in_step_s", "longest_s"),
    [
        ([[1.0, 1.0], [0.1, 0.1]], 4.0, 1.0),  # done before the next window
        ([[6.0, 6.0], [0.5, 0.5], [0.5, 0.5]], 14.5, 10.5),  # the next window waits, the one after does not
        ([[6.0, 6.0], [0.5, 0.5]], 14.5, 10.5),  # never seen to catch up: when the last one was done
    ],
)
def test_who_waits_and_how_long(costs: list[list[float]], in_step_s: float, longest_s: float) -> None:
    windows = [Taken(one, {}, 0) for one in costs]
    assert queue(windows, window_s=10.0, spread_s=3.0) == (in_step_s, longest_s)
