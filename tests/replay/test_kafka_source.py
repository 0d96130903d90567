"""Topics of a cluster as records: the client library's own mock cluster, which cannot look up times."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from stream_jobs.reading import ReadFailed
from stream_jobs.replay.kafka_source import KafkaSource, KafkaSpec
from stream_jobs.replay.source import RecordSource

TOPIC, COUNT, T0 = "reports", 60, 1_763_700_000_000


@pytest.fixture(scope="module")
def kafka() -> Iterator[dict[str, str]]:
    """A mock cluster with records every 10 ms in one partition."""
    broker = Producer({"test.mock.num.brokers": "1", "bootstrap.servers": "unused", "log_level": "0"})
    address = ",".join(str(one) for one in broker.list_topics(timeout=10).brokers.values())
    properties = {"bootstrap.servers": address, "log_level": "0"}
    producer = Producer({**properties, "linger.ms": "0"})
    for number in range(COUNT):
        producer.produce(
            TOPIC,
            value=None if number == 7 else b"%d" % number,
            key=b"k" if number % 2 else None,
            partition=0,
            timestamp=T0 + 10 * number,
            headers=[("a", b"1"), ("b", None), ("a", b"2")] if number == 3 else [],
        )
    assert producer.flush(20) == 0
    yield properties
    del broker


@pytest.fixture
def source(kafka: dict[str, str]) -> Iterator[RecordSource]:
    opened = KafkaSpec(kafka, timeout_s=10.0).open()
    yield opened
    opened.close()


def test_records_come_as_they_stand(source: RecordSource) -> None:
    extent = next(one for one in source.extents(TOPIC) if one.partition == 0)
    assert (extent.first, extent.end) == (0, COUNT)
    records = list(source.read(TOPIC, 0, 0, COUNT))
    assert [one.offset for one in records] == list(range(COUNT))
    assert [one.value for one in records] == [None if n == 7 else b"%d" % n for n in range(COUNT)]
    assert [one.key for one in records[:2]] == [None, b"k"]
    assert [one.timestamp_ms for one in records] == [T0 + 10 * n for n in range(COUNT)]
    assert {one.timestamp_type for one in records} == {0}
    assert records[3].headers == (("a", b"1"), ("b", None), ("a", b"2"))
    assert records[4].headers == ()


def test_parts_and_reads_side_by_side(source: RecordSource) -> None:
    assert [one.offset for one in source.read(TOPIC, 0, 50, COUNT)] == list(range(50, COUNT))
    assert list(source.read(TOPIC, 0, 5, 5)) == []
    first, second = source.read(TOPIC, 0, 0, 20), source.read(TOPIC, 0, 10, 30)
    both = [(a.offset, b.offset) for a, b in zip(first, second, strict=True)]
    assert both == [(n, n + 10) for n in range(20)]


def test_a_time_is_found_by_looking(source: RecordSource) -> None:
    for number in (0, 1, 31, 59):
        assert source.offset_at(TOPIC, 0, T0 + 10 * number) == number
        assert source.offset_at(TOPIC, 0, T0 + 10 * number - 9) == number
    assert source.offset_at(TOPIC, 0, T0 + 10_000) == COUNT
    assert source.offset_at(TOPIC, 0, 0) == 0


def test_the_end_is_fixed_when_it_is_first_asked_for(kafka: dict[str, str]) -> None:
    source = KafkaSource(kafka, timeout_s=10.0)
    producer = Producer(kafka)
    producer.produce("growing", value=b"1", partition=0)
    assert producer.flush(20) == 0
    before = next(one for one in source.extents("growing") if one.partition == 0)
    producer.produce("growing", value=b"2", partition=0)
    assert producer.flush(20) == 0
    assert next(one for one in source.extents("growing") if one.partition == 0) == before
    assert [one.value for one in source.read("growing", 0, before.first, before.end)] == [b"1"]
    source.close()


def test_nobody_there() -> None:
    source = KafkaSource({"bootstrap.servers": "127.0.0.1:1", "log_level": "0"}, timeout_s=0.5)
    with pytest.raises(ReadFailed):
        source.extents(TOPIC)
    source.close()
