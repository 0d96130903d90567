"""Beacons are heard from their last record on; what is no beacon, or none of today, asks for nothing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from hypothesis import given
from hypothesis import strategies as st

from enclavescale.embedded import MockCluster
from producers.beacons import (
    FUTURE_MS,
    BeaconFollower,
    consumer_properties,
    read_beacon,
)
from producers.publish import producer_properties
from producers.renewal import SessionKeeper
from schemas.codec import decode_any, encode_beacon, encode_signed_beacon
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import Beacon
from tests.broker import KafkaBroker
from tests.conftest import MakeTopic
from tests.producers.forge import START_MS
from tests.producers.test_renewal import session

NOW_MS = START_MS
WAIT_S = 20.0
TOPIC = "enclavescale.beacons.v1"


def beacon(issued_at_ms: int = NOW_MS, nonce: bytes = bytes(range(32))) -> Beacon:
    return Beacon(nonce=nonce, issued_at_ms=issued_at_ms, session_id=bytes(32))


def value(of: Beacon) -> bytes:
    """As an aggregator writes it; the signature is nobody's, since no host looks at it."""
    return encode_signed_beacon(encode_beacon(of), bytes(64))


@pytest.fixture(scope="module")
def cluster() -> MockCluster:
    """librdkafka's own broker, in this process."""
    return MockCluster({f"{TOPIC}-{number}": 2 for number in range(7)})


Write = Callable[..., None]


@pytest.fixture(scope="module")
def write(cluster: MockCluster) -> Iterator[Write]:
    producer = Producer({"bootstrap.servers": cluster.bootstrap})

    def put(topic: str, *values: bytes | None, partition: int = 0) -> None:
        for one in values:
            producer.produce(topic, value=one, partition=partition)
        assert producer.flush(WAIT_S) == 0

    yield put
    producer.flush(WAIT_S)


def until(what: Callable[[], bool]) -> None:
    end_s, pause = time.monotonic() + WAIT_S, threading.Event()
    while not what() and time.monotonic() < end_s:
        pause.wait(0.01)
    assert what()


def follower(cluster: MockCluster, topic: str, *demands: Callable[[Beacon], None]) -> BeaconFollower:
    return BeaconFollower({"bootstrap.servers": cluster.bootstrap}, topic, demands, now_ms=lambda: NOW_MS)


def test_a_beacon_is_read_as_it_was_written() -> None:
    assert read_beacon(value(beacon()), NOW_MS) == beacon()
    assert decode_any(value(beacon())).beacon == beacon()


REFUSED: dict[str, tuple[bytes | None, str]] = {
    "a tombstone": (None, "BEACON_INVALID"),
    "nothing": (b"", "MALFORMED"),
    "text": (b"renew, please", "MALFORMED"),
    "cut short": (value(beacon())[:-1], "MALFORMED"),
    "something behind it": (value(beacon()) + b"x", "TRAILING_BYTES"),
    "a short nonce": (value(beacon(nonce=bytes(31))), "BEACON_INVALID"),
    "a nonce of a page": (value(beacon(nonce=bytes(4096))), "BEACON_INVALID"),
    "of the future": (value(beacon(NOW_MS + FUTURE_MS + 1)), "BEACON_INVALID"),
    "of the end of time": (value(beacon((1 << 63) - 1)), "BEACON_INVALID"),
    "before time began": (value(beacon(-5)), "BEACON_INVALID"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_beacon_is_refused_with_a_code(name: str) -> None:
    given_value, code = REFUSED[name]
    with pytest.raises(EnclaveScaleError) as refused:
        read_beacon(given_value, NOW_MS)
    assert refused.value.code == code


def test_clocks_may_differ_by_some_seconds() -> None:
    assert read_beacon(value(beacon(NOW_MS + FUTURE_MS)), NOW_MS).issued_at_ms == NOW_MS + FUTURE_MS


@given(st.binary(max_size=300), st.integers(0, 160))
def test_any_bytes_are_a_beacon_or_an_error(noise: bytes, at: int) -> None:
    right = value(beacon())
    for data in (noise, right[:at] + noise, right[:at] + noise + right[at + len(noise) :]):
        try:
            found = read_beacon(data, NOW_MS)
        except EnclaveScaleError as error:
            assert error.code  # noqa: PT017  either outcome is right, each has its own check
        else:
            assert len(found.nonce) == 32
            assert 0 < found.issued_at_ms <= NOW_MS + FUTURE_MS


def test_a_consumer_leaves_no_trace_and_takes_what_is_meant_for_both() -> None:
    operators = {
        "kafka.bootstrap.servers": "broker:9093",
        "kafka.security.protocol": "SSL",
        "kafka.enable.auto.commit": "true",
        "group.id": "somebody",
    }
    found = consumer_properties(producer_properties(operators, 86_400_000))
    assert (found["bootstrap.servers"], found["security.protocol"]) == ("broker:9093", "SSL")
    assert found["enable.auto.commit"] == "false"
    assert found["group.id"].startswith("enclavescale-beacons-")
    assert not {"acks", "linger.ms", "batch.size", "enable.idempotence"} & set(found)
    with pytest.raises(ConfigError) as refused:
        consumer_properties({"kafka.security.protocol": "SSL"})
    assert refused.value.field == "kafka.bootstrap.servers"


def test_it_begins_with_the_last_record_of_each_partition_and_goes_on(cluster: MockCluster, write: Write) -> None:
    topic, heard = f"{TOPIC}-0", list[Beacon]()
    old = [beacon(NOW_MS - 9_000 + number) for number in range(5)]
    other = beacon(NOW_MS - 3)
    write(topic, *map(value, old))
    write(topic, value(other), partition=1)
    one = follower(cluster, topic, heard.append)
    while len(heard) < 2:
        assert one.turn(WAIT_S) == 0
    assert sorted(found.issued_at_ms for found in heard) == [old[-1].issued_at_ms, other.issued_at_ms]
    new = beacon(NOW_MS - 1)
    write(topic, value(new))
    one.turn(WAIT_S)
    assert heard[2:] == [new]
    assert one.state().last_issued_ms == new.issued_at_ms
    assert one.state().last_error is None
    one.close()


@pytest.mark.broker
def test_kafka_knows_no_group_of_it(kafka: KafkaBroker, make_topics: MakeTopic) -> None:
    """A real broker, a topic of two partitions, one empty: the last one is heard, nothing is written."""
    topic, heard = make_topics("beacons", 2), list[Beacon]()
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for number in range(3):
        producer.produce(topic, value=value(beacon(NOW_MS - 3 + number)), partition=1)
    assert producer.flush(WAIT_S) == 0
    one = BeaconFollower({"bootstrap.servers": kafka.bootstrap}, topic, [heard.append], now_ms=lambda: NOW_MS)
    one.turn(WAIT_S)
    assert heard == [beacon(NOW_MS - 1)]
    groups = AdminClient({"bootstrap.servers": kafka.bootstrap}).list_consumer_groups().result(WAIT_S)
    assert not [group for group in groups.valid if group.group_id.startswith("enclavescale-beacons")]
    one.close()


def test_everybody_is_told(cluster: MockCluster, write: Write) -> None:
    topic, first, second = f"{TOPIC}-1", list[Beacon](), list[Beacon]()
    write(topic, value(beacon()))
    one = follower(cluster, topic, first.append, second.append)
    one.turn(WAIT_S)
    assert first == second == [beacon()]
    one.close()


def test_the_newest_is_kept_for_who_asks_and_who_comes_later(cluster: MockCluster, write: Write) -> None:
    topic, later = f"{TOPIC}-5", list[Beacon]()
    write(topic, value(beacon(NOW_MS - 5)))
    write(topic, value(beacon(NOW_MS - 9)), partition=1)
    one = follower(cluster, topic)
    assert one.newest(0.0) is None, "nothing was read yet"
    one.start()
    assert one.newest(WAIT_S) is not None
    until(lambda: one.state().heard == 2)
    one.tell(later.append)
    assert later == [one.newest(0.0)] == [beacon(NOW_MS - 5)]
    write(topic, value(beacon(NOW_MS - 1)))
    until(lambda: len(later) == 2)
    assert later[1] == one.newest(0.0) == beacon(NOW_MS - 1)
    one.close()


def test_nobody_waits_for_a_beacon_that_is_not_there_but_who_needs_one(cluster: MockCluster, write: Write) -> None:
    topic = f"{TOPIC}-6"
    one = follower(cluster, topic).start()
    assert one.newest(WAIT_S) is None
    threading.Timer(0.2, write, (topic, value(beacon()))).start()
    assert one.newest(WAIT_S, or_none=False) == beacon()
    one.close()
    away = BeaconFollower({"bootstrap.servers": "127.0.0.1:1"}, TOPIC)
    assert away.newest(0.05) is None, "where no broker answers the wait has an end"


def test_what_is_refused_is_counted_and_said_once(
    cluster: MockCluster, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    topic, heard = f"{TOPIC}-2", list[Beacon]()
    one = follower(cluster, topic, heard.append)
    one.turn(0.0)
    write(topic, *(item for item, _ in REFUSED.values()), value(beacon()))
    with caplog.at_level(logging.INFO):
        while not heard:
            one.turn(WAIT_S)
    assert (one.state().heard, one.state().refused) == (1, len(REFUSED))
    assert len(caplog.records) == 1
    one.close()


def test_a_beacon_renews_the_session(cluster: MockCluster, write: Write) -> None:
    """From the topic to the session that names it, on both threads."""
    topic, made = f"{TOPIC}-3", threading.Event()

    def make(named: Beacon | None, created_at_ms: int) -> Any:
        made.set()
        return session(named, created_at_ms)

    keeper = SessionKeeper(
        make,
        session(None, NOW_MS - 10_000),
        max_age_ms=3_600_000,
        min_interval_ms=0,
        spread_ms=0,
        wall_ms=lambda: NOW_MS,
    ).start()
    one = follower(cluster, topic, keeper.demand).start()
    write(topic, value(beacon(NOW_MS - 20_000)), value(beacon(NOW_MS - 5)))
    assert made.wait(WAIT_S)
    one.close()
    keeper.close()
    found = keeper.due(NOW_MS)
    assert found is not None
    assert found.binding.beacon == beacon(NOW_MS - 5)
    assert not one._thread.is_alive()


def test_without_the_topic_or_a_broker_it_goes_on_trying(
    cluster: MockCluster, write: Write, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("producers.beacons.ASK_S", 0.2)
    heard = list[Beacon]()
    away = BeaconFollower({"bootstrap.servers": "127.0.0.1:1"}, TOPIC, [heard.append], now_ms=lambda: NOW_MS)
    with caplog.at_level(logging.INFO, logger="producers.beacons"):
        waits = [away.turn(0.0) for _ in range(3)]
    assert all(0 <= wait <= 4 for wait in waits)
    assert away.state().last_error == "_TRANSPORT"
    assert len(caplog.records) == 1, "an outage has one line"
    monkeypatch.setattr("producers.beacons.ASK_S", WAIT_S)
    absent = follower(cluster, f"{TOPIC}-absent", heard.append)
    absent.turn(0.0)
    assert absent.state().last_error == "UNKNOWN_TOPIC_OR_PART"
    absent._topic = f"{TOPIC}-4"
    write(f"{TOPIC}-4", value(beacon()))
    assert absent.turn(WAIT_S) == 0
    assert heard == [beacon()]
    assert absent.state().last_error is None
    for one in (away, absent):
        one.close()


class Scripted:
    """A consumer whose polls fail as told; what a broker says of groups and partitions."""

    def __init__(self, *errors: int) -> None:
        self.errors, self.closed = list(errors), 0

    def list_topics(self, topic: str, _timeout: float) -> Any:
        return type("Found", (), {"topics": {topic: type("Topic", (), {"error": None, "partitions": {}})()}})()

    def assign(self, _places: object) -> None:
        """Nothing to read."""

    def poll(self, _timeout: float) -> Any:
        error = KafkaError(self.errors.pop(0))
        return type("Message", (), {"error": lambda _self: error, "value": lambda _self: b"not a value"})()

    def close(self) -> None:
        self.closed += 1


def scripted(*errors: int) -> tuple[BeaconFollower, Scripted]:
    consumer = Scripted(*errors)
    return BeaconFollower({"bootstrap.servers": "x:1"}, TOPIC, [], make_consumer=lambda _: consumer), consumer


def test_a_group_that_may_not_be_used_is_not_needed() -> None:
    one, consumer = scripted(KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.COORDINATOR_NOT_AVAILABLE)
    assert [one.turn(), one.turn()] == [0, 0]
    assert (one.state().last_error, one.state().refused, consumer.closed) == (None, 0, 0)


def test_any_other_error_begins_with_another_consumer() -> None:
    one, consumer = scripted(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    one.turn()
    assert (one.state().last_error, consumer.closed) == ("TOPIC_AUTHORIZATION_FAILED", 1)


def test_properties_that_librdkafka_refuses_do_not_end_the_agent() -> None:
    def refuse(_properties: dict[str, str]) -> Any:
        raise KafkaException(KafkaError(KafkaError._INVALID_ARG))

    one = BeaconFollower({"bootstrap.servers": "x:1"}, TOPIC, [], make_consumer=refuse)
    assert one.turn() >= 0
    assert one.state().last_error == "_INVALID_ARG"
