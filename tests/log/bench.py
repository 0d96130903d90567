"""A bench for the log adapter: a fake group client, a recording job, an injected clock."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry

from stream_jobs.log import LogAdapter
from stream_jobs.log_metrics import LogMetrics
from stream_jobs.log_record import LogRecord
from stream_jobs.log_slots import TopicPartition
from stream_jobs.settings import LogSettings

TP = TopicPartition("t", 0)
QUIET = {"commit_interval_s": 3600.0, "tick_interval_s": 3600.0, "revoke_wait_s": 0.2}


def record(offset: int, timestamp_type: int = 1, partition: int = 0) -> LogRecord:
    return LogRecord("t", partition, offset, 1, timestamp_type, b"k", b"v", ())


class FakeClient:
    """A broker's answers, settable; what was asked, kept."""

    def __init__(self) -> None:
        self.held: dict[TopicPartition, tuple[int, str]] = {TP: (10, "job:a")}
        self.limits: dict[TopicPartition, tuple[int, int]] = {TP: (0, 100)}
        self.first: int | None = None
        self.hollow_to = 0
        self.seeks: list[int] = []
        self.commits: list[tuple[int, str]] = []
        self.errors: list[Exception] = []

    async def committed(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, str]]:
        return {tp: self.held[tp] for tp in tps if tp in self.held}

    async def bounds(self, tps: Iterable[TopicPartition]) -> dict[TopicPartition, tuple[int, int]]:
        return {tp: self.limits[tp] for tp in tps}

    async def commit(
        self, offsets: Mapping[TopicPartition, tuple[int, str]], generation: int, timeout_s: float
    ) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.commits.append(offsets[TP])
        self.held.update(offsets)

    async def seek(self, tp: TopicPartition, offset: int) -> None:
        self.seeks.append(offset)

    async def empty_until(self, tp: TopicPartition, offset: int) -> int:
        return self.hollow_to

    async def first_at(self, tp: TopicPartition, offset: int) -> int | None:
        return self.first


class Job:
    """Keeps what it was given; may be told to wait or to fail."""

    def __init__(self, start: int) -> None:
        self.seen: list[object] = []
        self.looked: list[list[int]] = []
        self.next = start
        self.ahead = 0
        self.ticks: list[tuple[bool, int]] = []
        self.closed = False
        self.hold: threading.Event | None = None
        self.entered = threading.Event()
        self.error: Exception | None = None

    def look_ahead(self, records: Sequence[LogRecord]) -> None:
        self.looked.append([one.offset for one in records])

    def process(self, given: LogRecord) -> None:
        self.entered.set()
        if self.hold is not None:
            self.hold.wait(10)
        if self.error is not None:
            raise self.error
        self.seen.append(given.offset)
        self.next = given.offset + 1

    def gap(self, first_missing: int, next_offset: int) -> None:
        self.seen.append((first_missing, next_offset))

    def tick(self, now_ms: int, caught_up: bool, high_watermark: int) -> None:
        self.ticks.append((caught_up, high_watermark))

    @property
    def resume_offset(self) -> int | None:
        return self.next + self.ahead

    @property
    def commit_metadata(self) -> str:
        return "job:b"

    def close(self) -> None:
        self.closed = True


class Bench:
    """An adapter on a fake client, its jobs, its failures, its clock."""

    def __init__(self, **settings: Any) -> None:
        self.client, self.jobs = FakeClient(), list[Job]()
        self.made_with: list[tuple[Any, ...]] = []
        self.failures: list[str] = []
        self.now = 1000.0
        self.registry = CollectorRegistry()
        self.adapter = LogAdapter(
            self.client,
            self.factory,
            LogSettings(**{**QUIET, **settings}),
            LogMetrics(self.registry),
            on_failure=lambda error: self.failures.append(error.code),
            clock=lambda: self.now,
            wall=lambda: 5.0,
        )
        self.adapter.start()

    def factory(self, *arguments: Any) -> Job:
        self.made_with.append(arguments)
        self.jobs.append(Job(arguments[2]))
        return self.jobs[-1]

    async def assign(self, generation: int = 1) -> Job:
        await self.adapter.assigned([TP], generation)
        await until(lambda: bool(self.failures) or self.state() == "ready")
        return self.jobs[-1] if self.jobs else Job(0)

    def state(self) -> str:
        stats = self.adapter.stats().get(TP)
        return stats.state if stats else "none"

    async def offer(self, *offsets: int) -> None:
        for offset in offsets:
            await self.adapter.offer(record(offset))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


def run(test: Callable[[Bench], Coroutine[Any, Any, None]], **settings: Any) -> Bench:
    async def main() -> Bench:
        bench = Bench(**settings)
        try:
            await test(bench)
        finally:
            await bench.adapter.stop()
        return bench

    return asyncio.run(main())
