"""The riskiest assumption, on a real broker: the log as the state, through kills, joins and leaves."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from tests.broker import KafkaBroker
from tests.conftest import MakeTopic
from tests.log.fleet import Fleet, check_history, produce, wait_for

pytestmark = pytest.mark.broker
STOP_LIMIT_S = 8.0  # 5 s after which the process ends itself, and a loaded machine's delay in noticing


@pytest.fixture
def fleets(kafka: KafkaBroker, tmp_path: Path) -> Iterator[object]:
    made: list[Fleet] = []

    def make(topic: str, **config: object) -> Fleet:
        fleet = Fleet(kafka.bootstrap, topic, f"group-{topic}", tmp_path, **config)
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.stop()


class Feed:
    """Appends to all partitions in the background, evenly, until stopped."""

    def __init__(self, bootstrap: str, topic: str, partitions: int, per_second: int) -> None:
        self.produced = dict.fromkeys(range(partitions), 0)
        self._stop = threading.Event()
        self._arguments = bootstrap, topic, per_second
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        bootstrap, topic, per_second = self._arguments
        producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "enable.idempotence": True})
        while not self._stop.wait(0.05):  # the pace of the feed, not a wait for anything
            for partition in self.produced:
                for _ in range(max(1, per_second // 20 // len(self.produced))):
                    producer.produce(topic, b"v", key=b"k", partition=partition)
                    self.produced[partition] += 1
            producer.poll(0)
        assert producer.flush(30) == 0

    def stop(self) -> dict[int, int]:
        self._stop.set()
        self._thread.join(60)
        return self.produced


def finish(fleet: Fleet, produced: dict[int, int]) -> None:
    """Wait for the end of the log, stop everybody in time, check every promise."""

    def complete() -> bool:
        fleet.check_alive()
        events = fleet.events()
        return all(len(events.offsets(partition)) == count for partition, count in produced.items())

    wait_for(complete, "every record processed", 60)
    for process in list(fleet.running):
        assert fleet.terminate(process) < STOP_LIMIT_S
    check_history(fleet.events(), produced, fleet.committed(len(produced)))


def committed_sum(fleet: Fleet) -> int:
    return sum(max(0, offset) for offset, _ in fleet.committed(2).values())


def test_log_one_worker_killed_five_times(kafka: KafkaBroker, make_topics: MakeTopic, fleets: type[Fleet]) -> None:
    topic = make_topics("killed", 2)
    fleet = fleets(topic)
    feed = Feed(kafka.bootstrap, topic, 2, 1000)
    try:
        for _ in range(5):
            before, process = committed_sum(fleet), fleet.start()
            wait_for(lambda known=before: committed_sum(fleet) > known, "a commit before the kill")
            target = fleet.count() + 100
            wait_for(lambda goal=target: fleet.count() >= goal, "progress behind the commit")
            fleet.kill(process)
    finally:
        produced = feed.stop()
    fleet.start()
    finish(fleet, produced)
    resumed = [start for _, _, _, start, _, _ in fleet.events().starts if start > 0]
    assert resumed, "no job ever resumed from a commit of ours: the test proves nothing"


def churn(kafka: KafkaBroker, topic: str, fleet: Fleet, seconds: float, seed: int) -> None:
    """Two or three members come, leave and die at random while 8 partitions fill up."""
    rng = random.Random(seed)
    feed = Feed(kafka.bootstrap, topic, 8, 1500)
    actions = []
    try:
        fleet.start()
        fleet.start()
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            # Sometimes in the middle of the rebalance the last action caused, sometimes long after it.
            target, patience = fleet.count() + rng.choice([50, 500, 3000, 8000]), time.monotonic() + 20
            while fleet.count() < target:
                fleet.check_alive()
                assert time.monotonic() < patience, f"no progress after {actions[-3:]}"
                time.sleep(0.05)
            choices = ["start"] if len(fleet.running) == 1 else ["kill", "terminate"]
            action = rng.choice([*choices, "start", "kill", "terminate"] if len(fleet.running) == 2 else choices)
            actions.append(action)
            if action == "start":
                fleet.start()
            elif action == "kill":
                fleet.kill(rng.choice(fleet.running))
            else:
                assert fleet.terminate(rng.choice(fleet.running)) < STOP_LIMIT_S
    finally:
        produced = feed.stop()
    finish(fleet, produced)
    events = fleet.events()
    print(f"{len(actions)} actions, {len(events.starts)} jobs, {len(events.processed)} processed")
    assert len(events.starts) > 8 * 4, "hardly a rebalance happened: the test proves nothing"


def test_log_members_join_leave_and_die(kafka: KafkaBroker, make_topics: MakeTopic, fleets: type[Fleet]) -> None:
    topic = make_topics("churn", 8)
    churn(kafka, topic, fleets(topic), 60, seed=1)


@pytest.mark.soak
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [2, 3])
def test_log_members_join_leave_and_die_for_long(
    kafka: KafkaBroker, make_topics: MakeTopic, fleets: type[Fleet], seed: int
) -> None:
    topic = make_topics("churn", 8)
    churn(kafka, topic, fleets(topic), 300, seed)


def test_log_worker_outlives_a_broker_restart(tmp_path: Path) -> None:
    (tmp_path / "broker").mkdir()
    with KafkaBroker.start(tmp_path / "broker") as broker:
        from tests.conftest import make_topic_on

        topic = make_topic_on(broker.bootstrap, "restart", 2)
        fleet = Fleet(broker.bootstrap, topic, "restart", tmp_path)
        try:
            produce(broker.bootstrap, topic, {0: 100, 1: 100})
            fleet.start()
            wait_for(lambda: fleet.count() >= 200, "everything before the restart")
            broker.kill()
            broker.launch()
            produce(broker.bootstrap, topic, {0: 100, 1: 100})
            finish(fleet, {0: 200, 1: 200})
        finally:
            fleet.stop()
