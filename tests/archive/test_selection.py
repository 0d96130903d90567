"""What an export takes is enough to recompute the windows it is for."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from pathlib import Path

import pytest

from schemas.codec import encode_policy, encode_signed_policy
from stream_jobs.archive import Request, needed_context_ms, open_archive
from stream_jobs.archive.selection import ASKED, GENEROUS, LEAST_CONTEXT_MS, PUBLISHING_MS, WINDOWED, select
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from stream_jobs.reading import ReadFailed
from stream_jobs.replay.source import Extent
from tests.archive.memory import NAMES, MemorySource, export, record
from tests.core.fleet import T0
from tests.core.replay import remembered
from tests.core.scenario import Scenario
from tests.core.story import W, small_policy

HOUR_MS = 3_600_000


def test_the_context_reaches_below_every_resume_offset() -> None:
    """A restart from the resume offset before an output makes it again: what an export begins with lies below it."""
    judged, too_late = dict.fromkeys((GENEROUS, 0.5), 0), dict.fromkeys((GENEROUS, 0.5), 0)
    for seed in (2, 5, 6):  # of one domain each: the resume offset is that of the slowest
        with remembered():
            scenario = Scenario(seed)
            scenario.windows = 150
            run = scenario.build()
        context_ms = needed_context_ms(view.policy for view in scenario.policies)
        (state,) = run.core.domains.values()
        assert context_ms >= state.context_ms()
        times = [one.timestamp_ms for one in run.log]
        offsets = [one.offset for one in run.log]
        assert times == sorted(times)
        for factor in judged:
            for at, made in run.emissions:
                resume = run.resume[bisect_left(offsets, at) - 1]
                index = bisect_left(times, made.output.window_start_ms - factor * context_ms)
                too_late[factor] += offsets[index] > (offsets[0] if resume is None else resume)
                judged[factor] += index > 0
    assert judged[GENEROUS] > 50, "some begin in the middle"
    assert too_late[GENEROUS] == 0
    assert too_late[0.5] > 50, "a quarter of it would not do"


def views(*policies: PolicyView) -> list[LogRecord]:
    found = []
    for number, view in enumerate(policies):
        value = encode_signed_policy(encode_policy(view.policy), b"\x01" * 64, b"\x04" * 65)
        found.append(record(number, value, topic=NAMES.policy, time_ms=T0 - 100 * HOUR_MS))
    return found


def cluster(*policies: PolicyView) -> MemorySource:
    """Ten hours of records, one a minute."""
    log = [record(n, b"%d" % n, time_ms=T0 + 60_000 * n) for n in range(600)]
    logs = {getattr(NAMES, role): [[replace(one, topic=getattr(NAMES, role)) for one in log]] for role in WINDOWED}
    source = MemorySource(logs)
    source.logs[NAMES.policy] = [[record(0, b"junk", topic=NAMES.policy, time_ms=0), *views(*policies)[0:]]]
    source.logs[NAMES.policy][0] = [replace(one, offset=n) for n, one in enumerate(source.logs[NAMES.policy][0])]
    source.logs[NAMES.collateral] = [[record(0, b"old", topic=NAMES.collateral, time_ms=0)]]
    return source


def taken(source: MemorySource, asked: Request) -> dict[str, list[tuple[int, int]]]:
    index = select(source, NAMES, asked)
    return {topic.role: [(one.first, one.end) for one in topic.partitions] for topic in index.topics}


def test_a_range_takes_its_context_and_what_follows() -> None:
    found = taken(cluster(), Request(T0 + 5 * HOUR_MS, T0 + 6 * HOUR_MS, 30 * 60_000, None))
    assert [found[role] for role in WINDOWED] == [[(270, 600)]] * 4
    assert (found["policy"], found["collateral"], found["beacons"]) == ([(0, 1)], [(0, 1)], [])


def test_until_leaves_out_reports_and_later_what_follows_from_them() -> None:
    found = taken(cluster(), Request(T0 + 5 * HOUR_MS, None, 0, T0 + 7 * HOUR_MS))
    assert found["reports"] == [(300, 420)]
    assert [found[role] for role in WINDOWED[1:]] == [[(300, 420 + PUBLISHING_MS // 60_000)]] * 3
    assert taken(cluster(), Request(T0 + 5 * HOUR_MS, None, 0, T0))["reports"] == [(0, 0)]
    assert taken(cluster(), Request(T0 - HOUR_MS, None, 0, None))["reports"] == [(0, 600)]
    assert taken(cluster(), Request(T0 + 99 * HOUR_MS, None, 0, None))["reports"] == [(600, 600)]


def test_the_context_is_that_of_the_policy_that_asks_for_most() -> None:
    short = small_policy()
    long = small_policy(limits=replace(short.policy.limits, lateness_ms=3 * HOUR_MS))
    asked = Request(T0 + 9 * HOUR_MS, None, None, None)
    least = select(cluster(), NAMES, asked).request.context_ms
    assert least == LEAST_CONTEXT_MS
    wanted = needed_context_ms([short.policy, long.policy])
    assert wanted > 6 * HOUR_MS + W
    assert select(cluster(short, long), NAMES, asked).request.context_ms == GENEROUS * wanted


def test_ends_are_fixed_so_that_nothing_taken_rests_on_what_is_not() -> None:
    class Growing(MemorySource):
        """Everything grows by one record whenever an end is asked for."""

        asked: list[str] = []  # noqa: RUF012

        def extents(self, topic: str) -> list[Extent]:
            self.asked.append(topic)
            return [Extent(topic, 0, 0, 100 + len(self.asked))]

    source = Growing({getattr(NAMES, role): [[]] for role in ASKED})
    found = taken(source, Request(None, None, None, None))
    assert found["output"] < found["manifests"] < found["rejections"] < found["reports"] < found["policy"]
    assert len(source.asked) == len(ASKED)


def test_topics_that_are_not_there_are_no_empty_archive(tmp_path: Path) -> None:
    with pytest.raises(ReadFailed, match=r"there is no topic t\.window-reports"):
        export(MemorySource(), tmp_path / "a")
    assert not (tmp_path / "a" / "unfinished.json").exists()


def test_everything_is_everything(tmp_path: Path) -> None:
    made = export(cluster(small_policy()), tmp_path)
    assert made.records == 4 * 600 + 3
    assert open_archive(tmp_path).index.request == Request(None, None, None, None)
