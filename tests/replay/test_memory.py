"""What a replay keeps does not grow with the history; where it begins to read the other topics."""

from __future__ import annotations

import tracemalloc
from collections import Counter

from stream_jobs.log_record import LogRecord
from stream_jobs.replay.ahead import DEPTH, MARGIN, Ahead, Seen, begin_at
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.partitions import replay_source
from stream_jobs.replay.source import Extent
from tests.core.fleet import PARTITION
from tests.replay.logs import quiet
from tests.replay.topics import NAMES, TRUST, MemorySource


def peak_bytes(windows: int) -> int:
    """Most memory a replay of so many windows held, beside the topics."""
    made = quiet(windows)
    request = ReplayRequest(topics=NAMES, trust=TRUST, from_ms=0, to_ms=1 << 50)
    verdicts: Counter[str] = Counter()
    tracemalloc.start()
    replay_source(
        made.source,
        request,
        on_verdict=lambda one: verdicts.update([one.verdict.value]),
        on_finding=lambda one: None,
    )
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert verdicts == {"identical": made.outputs}
    return peak


def test_memory_does_not_grow_with_the_history() -> None:
    peak_bytes(10)  # what is imported and cached once
    short, long = peak_bytes(30), peak_bytes(70)
    assert long < 1.1 * short + 50_000, (short, long)


def placed(numbers: list[int | None]) -> tuple[MemorySource, Extent]:
    """A topic whose records say where they belong."""
    source = MemorySource([])
    for number in numbers:
        source.append(NAMES.output, b"" if number is None else str(number).encode())
    return source, source.extents(NAMES.output)[0] if numbers else Extent(NAMES.output, PARTITION, 0, 0)


def place(record: LogRecord) -> int | None:
    return int(record.value) if record.value else None


def test_a_search_never_skips_what_belongs_further_on() -> None:
    numbers: list[int | None] = [10 * (number // 3) if number % 7 else None for number in range(4_000)]
    source, extent = placed(numbers)
    for wanted in (-1, 0, 5, 3_000, 9_999, 13_000, 20_000):
        begin = begin_at(source, extent, wanted, place)
        assert all(at is None or at < wanted for at in numbers[:begin])
        first = next((number for number, at in enumerate(numbers) if at is not None and at >= wanted), len(numbers))
        assert first - begin <= 2 * MARGIN
    assert begin_at(*placed([]), 5, place) == 0


def test_it_reads_just_so_far_ahead_that_disorder_does_not_matter() -> None:
    numbers: list[int | None] = [number ^ 3 for number in range(600)]  # in fours, backwards
    source, extent = placed(numbers)
    taken: list[int] = []

    def take(record: LogRecord) -> int | None:
        taken.append(place(record) or 0)
        return place(record)

    ahead = Ahead(source.read(extent.topic, PARTITION, 0, extent.end), take)
    for position in range(0, 600, 50):
        ahead.reach(position)
        assert set(range(position + 1)) <= set(taken)
        assert len(taken) <= position + 2 * DEPTH
    ahead.reach(10_000)
    assert ahead.ended
    assert sorted(taken) == list(range(600))


def test_digests_are_known_again() -> None:
    seen = Seen()
    for number in range(100):
        seen.add(number.to_bytes(32, "little"))
    assert all(number.to_bytes(32, "little") in seen for number in range(100))
    assert (100).to_bytes(32, "little") not in seen
