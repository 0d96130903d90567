"""What stops the worker on a real broker, and with which code; what a first start and a gap look like."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from tests.broker import KafkaBroker
from tests.conftest import MakeTopic
from tests.log.fleet import Fleet, committed_offsets, produce, wait_for

pytestmark = pytest.mark.broker


@pytest.fixture
def member(kafka: KafkaBroker, tmp_path: Path):  # type: ignore[no-untyped-def]
    made: list[Fleet] = []

    def make(topic: str, **config: object) -> Fleet:
        fleet = Fleet(kafka.bootstrap, topic, f"group-{topic}", tmp_path, **config)
        made.append(fleet)
        return fleet

    yield make
    for fleet in made:
        fleet.stop()


MakeMember = Callable[..., Fleet]


def commit(kafka: KafkaBroker, fleet: Fleet, offset: int) -> None:
    """As an operator would reset a group."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": fleet.group})
    consumer.commit(offsets=[TopicPartition(fleet.topic, 0, offset, metadata="job:test")], asynchronous=False)
    consumer.close()


def delete_below(kafka: KafkaBroker, topic: str, offset: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    target = TopicPartition(topic, 0, offset)
    for future in admin.delete_records([target]).values():
        future.result(30)


def ends_with(fleet: Fleet, process: subprocess.Popen[bytes], code: str, timeout_s: float = 30) -> None:
    """The member ends by itself, with exit code 1 and the failure's code in its log."""
    wait_for(lambda: process.poll() is not None, f"the end with {code}", timeout_s)
    fleet.running.remove(process)
    assert process.returncode == 1
    assert f"CRITICAL stream_jobs.log {code}:" in fleet.log(len(fleet.paths) - 1)


@pytest.mark.parametrize("deleted", [0, 6])
def test_log_first_start_commits_the_start_of_the_log(
    kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember, deleted: int
) -> None:
    fleet = member(make_topics("first"), behaviour={"keep_back": 1000})
    produce(kafka.bootstrap, fleet.topic, {0: 10})
    if deleted:
        delete_below(kafka, fleet.topic, deleted)
    process = fleet.start()
    wait_for(lambda: fleet.count() == 10 - deleted, "what is in the log")
    assert committed_offsets(kafka.bootstrap, fleet.group) == {(fleet.topic, 0): (deleted, "start")}
    assert fleet.terminate(process) < 5.0
    assert fleet.events().gaps == []


@pytest.mark.parametrize(("committed", "deleted"), [(1000, 0), (2, 6)], ids=["beyond-the-end", "below-the-start"])
def test_log_commit_outside_the_log_is_input_lost(
    kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember, committed: int, deleted: int
) -> None:
    fleet = member(make_topics("lost"))
    fleet.config["settings"] = {**fleet.config["settings"], "start_timeout_s": 2.0}
    produce(kafka.bootstrap, fleet.topic, {0: 10})
    if deleted:
        delete_below(kafka, fleet.topic, deleted)
    commit(kafka, fleet, committed)
    ends_with(fleet, fleet.start(), "INPUT_LOST")
    assert fleet.events().processed == []
    assert committed_offsets(kafka.bootstrap, fleet.group)[fleet.topic, 0][0] == committed


def test_log_retention_overtaking_the_worker_is_input_lost(
    kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember
) -> None:
    fleet = member(make_topics("overtaken"))
    produce(kafka.bootstrap, fleet.topic, {0: 10})
    process = fleet.start()
    wait_for(lambda: fleet.count() == 10, "the first records")
    process.send_signal(signal.SIGSTOP)
    produce(kafka.bootstrap, fleet.topic, {0: 10})  # the answer to the fetch that is waiting at the broker
    produce(kafka.bootstrap, fleet.topic, {0: 10})  # gone before the worker looks again
    delete_below(kafka, fleet.topic, 29)
    process.send_signal(signal.SIGCONT)
    ends_with(fleet, process, "INPUT_LOST")
    assert fleet.events().gaps == []


def test_log_create_time_stops_the_start(kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember) -> None:
    topic = make_topics("create-time", 1, {"message.timestamp.type": "CreateTime"})
    produce(kafka.bootstrap, topic, {0: 10})
    fleet = member(topic)
    ends_with(fleet, fleet.start(), "TIMESTAMP_TYPE")
    assert fleet.events().processed == []
    fleet.config["settings"] = {**fleet.config["settings"], "unsafe_allow_create_time": True}
    process = fleet.start()
    wait_for(lambda: fleet.count() == 10, "the records, under the bypass")
    fleet.terminate(process)


def test_log_failing_job_stops_the_worker_uncommitted(
    kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember
) -> None:
    fleet = member(make_topics("raises"), behaviour={"raise_at": 5, "keep_back": 0})
    produce(kafka.bootstrap, fleet.topic, {0: 10})
    ends_with(fleet, fleet.start(), "JOB_FAILED")
    assert fleet.events().offsets(0) == [0, 1, 2, 3, 4]
    offset, _ = committed_offsets(kafka.bootstrap, fleet.group)[fleet.topic, 0]
    assert offset <= 5


def test_log_stalled_worker_ends_itself(kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember) -> None:
    fleet = member(make_topics("stalls"), behaviour={"block_at": 5})
    fleet.config["settings"] = {**fleet.config["settings"], "stall_timeout_s": 3.0}
    produce(kafka.bootstrap, fleet.topic, {0: 10})
    ends_with(fleet, fleet.start(), "STALLED")


@pytest.mark.quiet
def test_log_sigterm_is_quick_while_a_job_hangs(kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember) -> None:
    fleet = member(make_topics("hangs"), behaviour={"block_at": 5, "keep_back": 0})
    produce(kafka.bootstrap, fleet.topic, {0: 10})
    process = fleet.start()
    wait_for(lambda: fleet.count() == 5, "the records before the one that hangs")
    fleet.running.remove(process)
    began = time.monotonic()
    process.terminate()
    assert process.wait(10) == 1  # by force: the job's thread does not come back
    assert time.monotonic() - began < 6.0


def test_log_persistent_gaps_are_told_to_the_job(
    kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember
) -> None:
    fleet = member(make_topics("gaps"))
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": fleet.topic})
    producer.init_transactions(30)
    for _ in range(3):  # each commit marker takes an offset that no consumer ever sees
        producer.begin_transaction()
        for _ in range(4):
            producer.produce(fleet.topic, b"v", key=b"k", partition=0)
        producer.commit_transaction(30)
    process = fleet.start()
    wait_for(lambda: fleet.count() == 12, "the records around the gaps")
    fleet.terminate(process)
    events = fleet.events()
    assert [(first, after) for _, _, _, first, after in events.gaps] == [(4, 5), (9, 10)]
    assert events.offsets(0) == [0, 1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13]


def test_log_tombstones_and_headers_arrive(kafka: KafkaBroker, make_topics: MakeTopic, member: MakeMember) -> None:
    topic = make_topics("tombstones")
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "compression.type": "zstd"})
    producer.produce(topic, None, key=b"k", partition=0, headers=[("a", b"1"), ("b", None)])
    producer.produce(topic, b"", key=None, partition=0)
    assert producer.flush(10) == 0
    fleet = member(topic, behaviour={"describe": True})
    process = fleet.start()
    wait_for(lambda: fleet.count() == 2, "both")
    fleet.terminate(process)
    text = fleet.paths[0].read_text()
    assert "R key=b'k' value=None headers=(('a',b'1'),('b',None))" in text
    assert "R key=None value=b'' headers=()" in text
