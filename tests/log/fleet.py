"""Drives `tests.log.member` processes against a real broker and reads back what they wrote."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError
from confluent_kafka import Producer

# Quick takeover: a killed member's partitions are free after the session.
FAST = {"session_timeout_s": 2.0, "heartbeat_interval_s": 0.4, "rebalance_timeout_s": 6.0, "nudge_s": 2.0}


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Bounded wait on a condition."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.02)


def produce(bootstrap: str, topic: str, per_partition: dict[int, int]) -> None:
    """Append so many records to each partition and wait until all are acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True})
    for partition, count in per_partition.items():
        for number in range(count):
            producer.produce(topic, str(number).encode(), key=b"k", partition=partition)
            producer.poll(0)
    assert producer.flush(30) == 0


def committed_offsets(bootstrap: str, group: str) -> dict[tuple[str, int], tuple[int, str]]:
    """Every commit of `group`: offset and metadata.

    Not through confluent-kafka: it reads the metadata without its length, on into whatever lies behind it.
    """

    async def ask() -> dict[tuple[str, int], tuple[int, str]]:
        admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
        await admin.start()
        deadline = time.monotonic() + 30
        try:
            while True:
                try:
                    found = await admin.list_consumer_group_offsets(group)
                    break
                except GroupCoordinatorNotAvailableError:  # a fresh broker makes the offsets topic at the first group
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.1)
        finally:
            await admin.close()
        return {tuple(tp): (value.offset, value.metadata) for tp, value in found.items()}

    return asyncio.run(ask())


@dataclass
class Events:
    """What all members wrote, by time."""

    starts: list[tuple[int, str, int, int, int, str]] = field(default_factory=list)
    processed: list[tuple[int, str, int, int]] = field(default_factory=list)
    gaps: list[tuple[int, str, int, int, int]] = field(default_factory=list)

    def offsets(self, partition: int) -> list[int]:
        return sorted({offset for _, _, where, offset in self.processed if where == partition})


class Fleet:
    """Members of one group on one topic."""

    def __init__(self, bootstrap: str, topic: str, group: str, directory: Path, **config: Any) -> None:
        self.bootstrap, self.topic, self.group, self.directory = bootstrap, topic, group, directory
        self.config = {"settings": FAST, **config}
        self.running: list[subprocess.Popen[bytes]] = []
        self.paths: list[Path] = []
        self._seen: dict[Path, int] = defaultdict(int)
        self._count = 0

    def start(self, **config: Any) -> subprocess.Popen[bytes]:
        number = len(self.paths)
        path = self.directory / f"member-{number}.events"
        path.touch()
        self.paths.append(path)
        full = {"bootstrap": self.bootstrap, "topic": self.topic, "group": self.group, "out": str(path)}
        full |= self.config | config
        log = (self.directory / f"member-{number}.log").open("wb")
        command = [sys.executable, "-m", "tests.log.member", json.dumps(full)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        log.close()
        self.running.append(process)
        # Until then it has no signal handlers and the group does not know it.
        wait_for(lambda: "faust.worker" in self.log(number) or process.poll() is not None, "a member's start")
        return process

    def log(self, number: int) -> str:
        return (self.directory / f"member-{number}.log").read_text()

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        self.running.remove(process)
        process.kill()
        assert process.wait(10) == -9, "the member had ended by itself"

    def terminate(self, process: subprocess.Popen[bytes]) -> float:
        """SIGTERM; the exit code must be 0. Returns seconds until the end."""
        self.running.remove(process)
        began = time.monotonic()
        process.terminate()
        assert process.wait(10) == 0
        return time.monotonic() - began

    def check_alive(self) -> None:
        for process in self.running:
            assert process.poll() is None, f"a member ended by itself: {process.returncode}"

    def stop(self) -> None:
        for process in self.running:
            process.kill()
            process.wait(10)
        self.running.clear()

    def count(self) -> int:
        """How many records were processed so far, cheaply (counts new lines only)."""
        for path in self.paths:
            with path.open("rb") as lines:
                lines.seek(self._seen[path])
                data = lines.read()
            self._seen[path] += len(data)
            self._count += data.count(b"\nP") + data.startswith(b"P")
        return self._count

    def events(self) -> Events:
        found = Events()
        for path in self.paths:
            text = path.read_text()
            for line in text[: text.rfind("\n") + 1].splitlines():
                if line.startswith("R "):
                    continue
                kind, when, job, partition, *rest = line.split()
                if kind == "S":
                    found.starts.append((int(when), job, int(partition), int(rest[0]), int(rest[1]), rest[2]))
                elif kind == "P":
                    found.processed.append((int(when), job, int(partition), int(rest[0])))
                else:
                    found.gaps.append((int(when), job, int(partition), int(rest[0]), int(rest[1])))
        found.starts.sort()
        found.processed.sort()
        return found

    def committed(self, partitions: int) -> dict[int, tuple[int, str]]:
        """Offset and metadata the broker holds for the group now; (-1, "") where nothing is committed."""
        found = committed_offsets(self.bootstrap, self.group)
        return {number: found.get((self.topic, number), (-1, "")) for number in range(partitions)}


def check_history(events: Events, produced: dict[int, int], committed: dict[int, tuple[int, str]]) -> None:
    """The promises of the log adapter, on everything that was written.

    1. Each job starts exactly at the committed offset the broker names, and is contiguous from there.
    2. Every commit a job started from is ours (metadata; Faust's would be empty) and covered: everything below
       it had been processed before.
    3. At the end every record was processed, and the last commits are ours and covered as well.
    """
    by_job: dict[str, list[int]] = defaultdict(list)
    for _, job, _, offset in events.processed:
        by_job[job].append(offset)
    first_at: dict[tuple[int, int], int] = {}
    for when, _, partition, offset in events.processed:
        first_at.setdefault((partition, offset), when)
    for when, job, partition, start, known, metadata in events.starts:
        assert start == known, f"job {job} of partition {partition} starts at {start}, committed was {known}"
        assert metadata == "start" or metadata.startswith("job:"), f"a commit that is not ours: {metadata!r}"
        offsets = by_job[job]
        assert offsets == list(range(start, start + len(offsets))), f"job {job} of partition {partition} has a hole"
        uncovered = [offset for offset in range(start) if first_at.get((partition, offset), when + 1) > when]
        assert not uncovered, f"partition {partition}: committed {start}, never processed {uncovered[:5]}"
    for partition, count in produced.items():
        assert events.offsets(partition) == list(range(count)), f"partition {partition} is not complete"
        offset, metadata = committed[partition]
        assert 0 <= offset <= count
        assert metadata == "start" or metadata.startswith("job:")
