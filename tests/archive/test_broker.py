"""Export from a real Apache Kafka: the archive has the topics byte for byte."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from enclavescale.cli import main
from enclavescale.topic_admin import create_topics
from schemas.topics import TopicNames
from stream_jobs.archive import Directory, Request, export_archive, open_archive
from stream_jobs.archive.cluster import ClusterSource
from stream_jobs.archive.index import ROLES
from stream_jobs.archive.segment import Limits
from stream_jobs.reading import open_reader, read_range, watermarks
from stream_jobs.replay.source import Extent
from tests.archive.memory import contents
from tests.broker import KafkaBroker
from tests.conftest import MakeTopic

pytestmark = pytest.mark.broker
PARTITIONS = 2
PER_PARTITION = 300


@pytest.fixture(scope="module")
def filled(kafka: KafkaBroker) -> TopicNames:
    names = TopicNames.with_prefix("archive-test")
    properties = {"bootstrap.servers": kafka.bootstrap, "log_level": "0"}
    create_topics(properties, names, partitions=PARTITIONS, replication=1)
    producer = Producer({**properties, "compression.type": "zstd"})
    failed: list[str] = []
    for role in ROLES:
        if role == "beacons":
            continue
        for number in range(PER_PARTITION):
            producer.produce(
                getattr(names, role),
                value=None if number % 50 == 7 else bytes([number % 256]) * (number * 7 % 1500),
                key=None if number % 3 == 0 else b"\xff%d" % number,
                headers=[("ce_id", b"%d" % number), ("none", None), ("empty", b"")] if number % 4 == 0 else None,
                partition=number % PARTITIONS if role in ("reports", "output") else 0,
                on_delivery=lambda error, _: failed.append(str(error)) if error else None,
            )
    assert producer.flush(30) == 0
    assert failed == []
    return names


@pytest.fixture
def source(kafka: KafkaBroker) -> Iterator[ClusterSource]:
    with contextlib.closing(ClusterSource({"bootstrap.servers": kafka.bootstrap, "log_level": "0"})) as found:
        yield found


def test_the_archive_has_the_topics_byte_for_byte(
    kafka: KafkaBroker, filled: TopicNames, source: ClusterSource, tmp_path: Path
) -> None:
    made = export_archive(
        source, filled, Directory(tmp_path / "a"), Request(None, None, None, None), limits=Limits(4000, 30_000, 90)
    )
    assert made.records == (len(ROLES) - 1) * PER_PARTITION
    archive = open_archive(tmp_path / "a")
    consumer = open_reader({"bootstrap.servers": kafka.bootstrap, "log_level": "0"})
    for role in ROLES:
        topic = getattr(filled, role)
        for extent in archive.extents(topic):
            low, high = watermarks(consumer, topic, extent.partition, 20)
            assert (extent.first, extent.end) == (low, high)
            messages = read_range(consumer, topic, extent.partition, low, high, 20)
            found = list(archive.read(topic, extent.partition, 0, 1 << 62))
            assert len(found) == len(messages)
            for record, message in zip(found, messages, strict=True):
                kind, time_ms = message.timestamp()
                assert (record.offset, record.key, record.value) == (message.offset(), message.key(), message.value())
                assert (record.timestamp_type, record.timestamp_ms) == (kind - 1, time_ms)
                assert list(record.headers) == (message.headers() or [])
            for record in found[:: len(found) // 5 or 1]:
                at = source.offset_at(topic, extent.partition, record.timestamp_ms)
                assert archive.offset_at(topic, extent.partition, record.timestamp_ms) == at
    consumer.close()
    assert archive.extents(filled.reports)[0].end == PER_PARTITION // PARTITIONS
    assert next(archive.read(filled.reports, 1, 0, 1)).timestamp_type == 1


def test_retention_is_noticed_and_ends_stay(kafka: KafkaBroker, make_topics: MakeTopic) -> None:
    properties = {"bootstrap.servers": kafka.bootstrap, "log_level": "0"}
    topic = make_topics("retained")
    producer = Producer(properties)

    def append() -> None:
        for number in range(10):
            producer.produce(topic, value=b"%d" % number)
        assert producer.flush(30) == 0

    append()
    with contextlib.closing(ClusterSource(properties)) as source:
        assert source.extents(topic) == (Extent(topic, 0, 0, 10),)
        append()
        admin = AdminClient(properties)
        for deleted in admin.delete_records([TopicPartition(topic, 0, 4)]).values():
            deleted.result(30)
        assert source.extents(topic) == [Extent(topic, 0, 4, 10)]
        assert [one.offset for one in source.read(topic, 0, 2, 10)] == [4, 5, 6, 7, 8, 9]
        assert source.extents("nowhere") == ()


def test_the_command_exports_twice_alike_and_checks(kafka: KafkaBroker, filled: TopicNames, tmp_path: Path) -> None:
    cluster = ["--bootstrap", kafka.bootstrap, "--topic-prefix", "archive-test", "--json"]
    first = CliRunner().invoke(main, ["export", str(tmp_path / "a"), "--everything", *cluster])
    assert first.exit_code == 0, first.output
    second = CliRunner().invoke(main, ["export", str(tmp_path / "b"), "--everything", *cluster])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    told = json.loads(first.stdout)
    assert {**told, "directory": ""} == {**json.loads(second.stdout), "directory": ""}
    assert told["records"] == (len(ROLES) - 1) * PER_PARTITION
    checked = CliRunner().invoke(main, ["export", str(tmp_path / "a"), "--check", "--json"])
    assert (checked.exit_code, json.loads(checked.stdout)["digest"]) == (0, told["digest"])
    name = next(name for name in contents(tmp_path / "a") if name.endswith(".avro"))
    (tmp_path / "a" / name).write_bytes(b"")
    refused = CliRunner().invoke(main, ["export", str(tmp_path / "a"), "--check", "--json"])
    assert (refused.exit_code, json.loads(refused.stdout)["error"]) == (3, "ARCHIVE_DAMAGED")
