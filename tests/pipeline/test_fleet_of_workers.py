"""Three workers share eight partitions; one joins or is killed every so often: same outputs, no long gap."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, WorkerProcess, outputs_of, reference, wait_until
from tests.pipeline.test_kill import SEED
from tests.pipeline.world import WINDOW_MS, World
from tests.results import write_result

DOMAINS = {f"hall-{n}": n for n in range(8)}
MAX_GAP_S = 15.0


class Crowd:
    """Up to four workers of one group, of which one is killed or joined at a time."""

    def __init__(self, side: Side, directory: Path):
        self.side, self.directory = side, directory
        self.running: list[WorkerProcess] = []
        self.made = self.killed = 0

    def join(self) -> None:
        path = self.directory / f"worker-{self.made}.log"
        group = f"{self.side.prefix}-crowd"
        self.running.append(WorkerProcess(self.side, group, path, index=self.made % 8))
        self.made += 1

    def kill(self, rng: random.Random) -> None:
        self.running.pop(rng.randrange(len(self.running))).kill()
        self.killed += 1

    def check(self) -> None:
        for worker in self.running:
            assert worker.alive(), worker.log.read_text()[-3000:]

    def stop(self) -> None:
        for worker in self.running:
            assert worker.stop() == 0, worker.log.read_text()[-3000:]


class Arrivals:
    """When each domain's outputs arrived, by this process's clock."""

    def __init__(self, side: Side):
        self._consumer = Consumer({**side.kafka, "group.id": f"{side.prefix}-arrivals", "enable.auto.commit": "false"})
        self._consumer.assign([TopicPartition(side.topics.output, p, 0) for p in range(side.partitions)])
        self.last: dict[int, float] = {}
        self.longest = 0.0
        self.seen: set[bytes | None] = set()

    def look(self) -> None:
        for message in self._consumer.consume(500, 0.05):
            if message.error() is None and message.key() not in self.seen:
                self.seen.add(message.key())
                partition, now = message.partition() or 0, time.monotonic()
                self.longest = max(self.longest, now - self.last.get(partition, now))
                self.last[partition] = now

    def close(self) -> None:
        self._consumer.close()


def run_crowd(side: Side, directory: Path, seconds: float, every_s: float, rng: random.Random) -> dict[str, float]:
    """Feed one window a second while workers come and go; returns what happened."""
    world, crowd = side.world, Crowd(side, directory)
    for _ in range(3):
        crowd.join()
    wait_until(lambda: sum(side.ends(side.topics.reports)) >= len(DOMAINS), "the first control records")
    arrivals = Arrivals(side)
    begin = time.monotonic()
    windows = int(seconds)
    start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - (windows + 60) * WINDOW_MS
    next_change = begin + every_s
    for window in range(windows):
        side.append(world.window(start_ms + window * WINDOW_MS))
        while time.monotonic() < begin + window + 1:
            arrivals.look()
        crowd.check()
        if time.monotonic() >= next_change:
            next_change += every_s
            if len(crowd.running) >= 3:
                crowd.kill(rng)
            else:
                crowd.join()
    expected, _ = reference(side)
    while len(crowd.running) < 1:
        crowd.join()
    wait_until(lambda: set(outputs_of(side.read(side.topics.output))) >= set(expected), "all outputs", 90)
    arrivals.look()
    arrivals.close()
    time.sleep(2.5)
    crowd.stop()
    return {
        "seconds": seconds,
        "workers": crowd.made,
        "killed": crowd.killed,
        "windows": windows,
        "outputs": len(expected),
        "longest_gap_s": round(arrivals.longest, 2),
    }


@pytest.mark.broker
@pytest.mark.parametrize(
    ("seconds", "every_s"),
    [(50, 12), pytest.param(300, 20, marks=[pytest.mark.soak, pytest.mark.timeout(900)])],
)
def test_workers_that_come_and_go_lose_nothing(
    kafka: KafkaBroker, tmp_path: Path, seconds: float, every_s: float
) -> None:
    world = World(tmp_path, DOMAINS, 3, SEED)
    side = Side(kafka.bootstrap, world, 8)
    facts = run_crowd(side, tmp_path, seconds, every_s, random.Random(SEED))
    expected, _ = reference(side)
    assert outputs_of(side.read(side.topics.output)) == expected
    assert facts["killed"] >= 2
    assert facts["longest_gap_s"] <= MAX_GAP_S
    write_result(f"crowd-{int(seconds)}s", facts, seeds={"world": SEED})
