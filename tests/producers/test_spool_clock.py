"""The age of reports by a clock that may be wrong: one reading alone makes nothing too old, two in a row do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.spool import MIN_BYTES, Spool
from tests.producers.forge import report
from tests.producers.spool_damage import memory_directory

NOW = 1_000_000_000
HOUR = 3_600_000
WINDOW_MS = 10_000
AHEAD = 25 * HOUR


@pytest.fixture
def directory() -> Iterator[Path]:
    with memory_directory() as made:
        yield made


class Host:
    """A spool whose host has a clock that nobody sets; the other one is that and an error."""

    def __init__(self, path: Path, **more: int) -> None:
        self.path, self.more = path, more
        self.passed_ms = self.count = 0
        self.start()

    def start(self) -> None:
        """Open the spool: what a process knew of its clocks is gone."""
        self.spool = Spool(self.path, now=lambda: self.passed_ms / 1000, **self.more)

    def restart(self) -> None:
        """Another process."""
        self.spool.close()
        self.start()

    def append(self, error_ms: int = 0, *, after_ms: int = WINDOW_MS, size: int = 100) -> int:
        """One report more; return how many wait then."""
        self.passed_ms += after_ms
        self.spool.append([report(self.count, size=size)], NOW + self.passed_ms + error_ms)
        self.count += 1
        return self.spool.depth()[0]


def test_one_wrong_reading_of_the_clock_drops_nothing(directory: Path) -> None:
    host = Host(directory / "s")
    waiting = [host.append(AHEAD if number == 10 else 0) for number in range(20)]
    assert waiting == list(range(1, 21))
    assert host.spool.dropped("host-1") == 0
    times = [entry.appended_ms for entry in host.spool.pending()]
    assert times == [NOW + (number + 1) * WINDOW_MS for number in range(20)], "nor is a report kept for a day longer"


def test_a_jump_that_the_next_reading_confirms_counts_and_is_counted(directory: Path) -> None:
    host = Host(directory / "s")
    assert [host.append(AHEAD * (number >= 10)) for number in range(13)] == [*range(1, 12), 1, 2]
    assert host.spool.dropped("host-1") == 11
    assert host.append(AHEAD, after_ms=30 * HOUR) == 1  # and time that passes counts at once
    assert host.spool.dropped("host-1") == 13


def test_after_a_start_a_second_reading_must_agree(directory: Path) -> None:
    host = Host(directory / "s")
    host.append()
    host.restart()
    assert host.append(AHEAD) == 2
    assert host.append() == 3
    assert host.append() == 4
    other = Host(directory / "other")
    other.append()
    other.restart()
    assert other.append(after_ms=AHEAD) == 2
    assert other.append() == 2, "the first one went"
    assert other.spool.dropped("host-1") == 1


def test_the_bound_in_bytes_does_not_ask_what_time_it_is(directory: Path) -> None:
    host = Host(directory / "s", max_bytes=MIN_BYTES)
    assert host.append(size=MIN_BYTES // 2) == 1
    assert host.append(AHEAD, size=MIN_BYTES // 2) == 2
    assert host.append(size=MIN_BYTES // 2) == 2
    host.restart()
    assert host.append(AHEAD, size=MIN_BYTES // 2) == 2


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9 * HOUR), st.sampled_from((0, 0, HOUR, AHEAD, 10_000 * HOUR))), max_size=20))
def test_with_single_wrong_readings_reports_go_when_they_are_too_old_and_never_before(
    steps: list[tuple[int, int]],
) -> None:
    with memory_directory() as directory:
        host = Host(directory / "s")
        host.append()
        made, wrong = [host.passed_ms], False
        for after_ms, error_ms in steps:
            wrong = error_ms > 0 and not wrong
            host.append(error_ms * wrong, after_ms=after_ms)
            made.append(host.passed_ms)
            young = [number for number, at_ms in enumerate(made) if at_ms >= host.passed_ms - 24 * HOUR]
            assert [int.from_bytes(entry.digest, "big") for entry in host.spool.pending()] == young
        host.spool.close()
