"""One partition's job without a broker: what it remembers, what it waits for, what stops it."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from attester.session import Session
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.fleet import AGGREGATOR_IMAGE
from schemas.codec import SINGLE_OBJECT, decode_signed_record
from schemas.errors import ConfigError
from schemas.topics import MAX_MESSAGE_BYTES, TopicNames
from stream_jobs.core.effects import ControlWanted, Rejection
from stream_jobs.job import METADATA_PREFIX, DomainJob, JobContext, LogRemade, OutputLost
from stream_jobs.log_record import LOG_APPEND_TIME, LogRecord, PublishFailed
from stream_jobs.metrics import JobMetrics
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.reading import ReadFailed
from stream_jobs.tail import Published
from stream_jobs.worker import WorkerConfig, aggregator_binding
from tests.pipeline.world import World
from verifier.cache import SessionCache

TOPICS = TopicNames()


class Producer:
    """Takes everything; acknowledges at `flush`, or fails with `error`."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.waiting: list[Any] = []
        self.error: Any = None

    def produce(self, topic: str, **what: Any) -> None:
        self.sent.append({"topic": topic, **what})
        self.waiting.append((topic, what["partition"], what["on_delivery"]))

    def poll(self, _: float) -> None:
        pass

    def flush(self, _: float) -> int:
        for topic, partition, done in self.waiting:
            done(self.error, SimpleNamespace(topic=lambda t=topic: t, partition=lambda p=partition: p))
        self.waiting.clear()
        return 0


class Tail:
    """What a job finds published; `end` is the end of the reports topic when asked again."""

    def __init__(self, last_close: int = -1, end: int = 0, gone: bool = False) -> None:
        self.last_close, self.end, self.gone = last_close, end, gone

    def outputs(self, *_: object) -> Published:
        return Published(last_close=self.last_close)

    def last_rejection(self, *_: object) -> int:
        return -1

    def end_of(self, *_: object) -> int:
        return self.end

    def expired(self, *_: object) -> bool:
        return self.gone


class Bench:
    """A job on partition 0 and all that it talks to."""

    def __init__(
        self, directory: Path, *, tail: Tail | None = None, high_watermark: int = 0, metadata: str = ""
    ) -> None:
        self.world = World(directory, {"hall-a": 0}, 3, 1, max_idle_ms=3_000)
        self.view = open_policy(self.world.policy_value, PolicyTrust((bytes.fromhex(self.world.signer),)))
        self.unreadable = False
        self.producer = Producer()
        tee = SimulatedTee.create(
            self.world.tee_directory,
            platform_id=simulated_platform_id("aggregator-0"),
            mrtd=simulated_measurement(AGGREGATOR_IMAGE),
        )
        config = WorkerConfig(
            kafka={},
            host_id="aggregator-0",
            group="g",
            provider=tee,
            trust=PolicyTrust((bytes.fromhex(self.world.signer),)),
        )
        session = Session(tee, aggregator_binding(config, None, int(time.time() * 1000)))
        self.clock = 0.0
        self.publisher = OutputPublisher(
            {},
            TOPICS,
            WorkerIdentityFacts(session, "aggregator-0"),
            framing=SINGLE_OBJECT,
            make_producer=lambda _: self.producer,
            clock=lambda: self.clock,
        )
        policies: Any = SimpleNamespace(refresh=lambda: None, lookup=self._lookup, newest=self.view)
        tailing: Any = tail or Tail()
        self.context = JobContext(
            topics=TOPICS,
            framing=SINGLE_OBJECT,
            policies=policies,
            verify=SessionCache().verify,
            publisher=self.publisher,
            tail=tailing,
            metrics=JobMetrics(CollectorRegistry()),
        )
        self.job = DomainJob(self.context, TOPICS.reports, 0, 0, metadata=metadata, high_watermark=high_watermark)
        self.offset = 0

    def _lookup(self, digest: bytes) -> Any:
        if self.unreadable:
            raise ReadFailed("no leader")
        return self.view if digest == self.view.digest else None

    def give(self, value: bytes, key: bytes = b"hall-a") -> None:
        record = LogRecord(TOPICS.reports, 0, self.offset, int(time.time() * 1000), LOG_APPEND_TIME, key, value, ())
        self.offset += 1
        self.job.process(record)

    def control(self, kind: str = "POLICY_SWITCH", closed_ms: int | None = None) -> bytes:
        digest = self.view.digest
        content = digest if kind == "POLICY_SWITCH" else None
        self.publisher.control(ControlWanted(kind, "hall-a", digest, content, None, closed_ms, "test"), 0)
        value: bytes = self.producer.sent.pop()["value"]
        assert decode_signed_record(value).body.domain == "hall-a"
        return value


def test_keys_that_anybody_chooses_are_not_remembered(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.give(bench.control())
    for number in range(100):
        bench.give(b"noise", key=b"nobody-%d" % number)
    bench.job.tick(1_000, True, bench.offset)
    assert set(bench.job._idle_since) == {"hall-a"}


def test_refused_records_keep_no_silent_domain_open(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    now_ms = int(time.time() * 1000)
    bench.give(bench.control())
    bench.job.tick(now_ms, True, bench.offset)
    for _ in range(4):
        now_ms += 1_000
        bench.give(b"noise")
        bench.job.tick(now_ms, True, bench.offset)
    last = decode_signed_record(bench.producer.sent[-1]["value"])
    assert (bench.producer.sent[-1]["topic"], last.body.kind) == (TOPICS.reports, "IDLE_CLOSE")  # type: ignore[union-attr]


def test_an_idle_close_waits_for_the_rejections_below_it(tmp_path: Path) -> None:
    """It moves the resume offset without an output: what it passes must be acknowledged first."""
    bench = Bench(tmp_path)
    bench.give(bench.control())
    close = bench.control("IDLE_CLOSE", closed_ms=int(time.time() * 1000) // 10_000 * 10_000)
    bench.give(b"noise")
    assert bench.producer.waiting
    bench.give(close)
    assert bench.job.resume_offset == 2
    assert not bench.producer.waiting


def test_a_policy_topic_that_cannot_be_read_is_no_refusal(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    value = bench.control()
    bench.unreadable = True
    with pytest.raises(ReadFailed, match="offset 0"):
        bench.give(value)
    assert not bench.producer.sent


def test_outputs_of_a_log_made_anew_stop_the_worker(tmp_path: Path) -> None:
    with pytest.raises(LogRemade):
        Bench(tmp_path / "a", tail=Tail(last_close=500, end=100), high_watermark=100)
    # Another worker was ahead of us for a moment: nothing wrong.
    Bench(tmp_path / "b", tail=Tail(last_close=500, end=501), high_watermark=100)


def test_outputs_that_retention_took_are_not_lost(tmp_path: Path) -> None:
    """A domain silent for longer than the retention; a topic that is empty for another reason is."""
    told = METADATA_PREFIX + "7"
    bench = Bench(tmp_path / "a", tail=Tail(gone=True), high_watermark=100, metadata=told)
    assert bench.job.commit_metadata == told
    with pytest.raises(OutputLost):
        Bench(tmp_path / "b", tail=Tail(), high_watermark=100, metadata=told)
    Bench(tmp_path / "c", tail=Tail(), metadata=METADATA_PREFIX + "-1")


def test_rejections_are_acknowledged_at_least_every_second(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.give(b"noise")
    bench.clock = 0.5
    bench.give(b"noise")
    assert len(bench.producer.waiting) == 2
    bench.clock = 1.0
    bench.producer.error = SimpleNamespace(str=lambda: "timed out")
    with pytest.raises(PublishFailed):
        bench.give(b"noise")


def test_the_largest_record_fits_as_a_dead_letter(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    record = LogRecord("t" * 249, 0, 2**62, 0, 1, b"k" * 2_000_000, b"v" * 2_000_000, ())
    bench.publisher.reject(record, Rejection(2**62, "X" * 40, "\U0001f600" * 4000, None, bytes(32)))
    sent = bench.producer.sent[0]
    headers = sum(len(name) + len(text.encode()) + 10 for name, text in sent["headers"])
    assert len(sent["key"]) + len(sent["value"]) + headers < MAX_MESSAGE_BYTES + 16 * 1024


@pytest.mark.parametrize("name", ["enable.idempotence", "acks"])
def test_order_and_acknowledgements_are_not_the_operators(tmp_path: Path, name: str) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(ConfigError, match="must stay"):
        OutputPublisher({name: "0"}, TOPICS, bench.publisher._identity, framing=SINGLE_OBJECT)
