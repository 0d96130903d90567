"""The Kafka side of the pipeline tests: topics, appending, reading whole topics, workers as processes."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from enclavescale.topic_admin import create_topics
from schemas.codec import decode_signed_output, output_preimage
from schemas.topics import TopicNames
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.reading import open_reader, read_range, watermarks
from tests.pipeline.world import Item, World
from verifier.cache import SessionCache

Key = tuple[str, int, int]
WAIT_S = 60.0


def wait_until(done: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Poll a condition, bounded."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:.0f} s for {what}")
        time.sleep(0.05)


class Side:
    """Topics of one test on the broker."""

    def __init__(self, bootstrap: str, world: World, partitions: int):
        self.bootstrap = bootstrap
        self.kafka = {"bootstrap.servers": bootstrap, "log_level": "0"}
        self.prefix = f"es-{uuid.uuid4().hex[:8]}"
        self.topics = TopicNames.with_prefix(self.prefix)
        self.partitions = partitions
        self.world = world
        create_topics(self.kafka, self.topics, partitions=partitions, replication=1)
        self._reader = open_reader(self.kafka)
        self.producer = Producer({**self.kafka, "enable.idempotence": "true", "linger.ms": "5", "batch.size": "200000"})
        self.errors: list[str] = []
        self.producer.produce(self.topics.policy, value=world.policy_value, key="policy/1", partition=0)
        assert self.producer.flush(20) == 0

    def append(self, items: Iterable[Item]) -> None:
        """Append and wait for every acknowledgement."""
        for item in items:
            self.producer.produce(
                self.topics.reports,
                value=item.value,
                key=item.key,
                partition=item.partition,
                on_delivery=lambda error, _: self.errors.append(str(error)) if error else None,
            )
            self.producer.poll(0)
        assert self.producer.flush(30) == 0
        assert not self.errors

    def read(self, topic: str) -> list[Message]:
        """Everything on a topic now, partition by partition."""
        consumer = self._reader
        found = []
        count = len(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
        for partition in range(count):
            low, high = watermarks(consumer, topic, partition, 20)
            found += read_range(consumer, topic, partition, low, high, 20)
        return found

    def ends(self, topic: str) -> list[int]:
        return [watermarks(self._reader, topic, p, 20)[1] for p in range(self.partitions)]

    def output_names(self, suffix: str) -> TopicNames:
        """Output topics of another run over the same reports topic."""
        other = TopicNames.with_prefix(f"{self.prefix}-{suffix}")
        create_topics(self.kafka, other, partitions=self.partitions, replication=1)
        return dataclasses.replace(other, reports=self.topics.reports, policy=self.topics.policy)

    def recreate(self, topic: str) -> None:
        """Make a topic anew, empty."""
        create_topics(self.kafka, self.topics, partitions=self.partitions, replication=1)
        wait_until(lambda: topic in self._reader.list_topics(timeout=10).topics, "the topic")

    def close(self) -> None:
        self._reader.close()

    def committed(self, group: str) -> list[TopicPartition]:
        consumer = Consumer({**self.kafka, "group.id": group, "enable.auto.commit": "false"})
        result = consumer.committed([TopicPartition(self.topics.reports, p) for p in range(self.partitions)], 20)
        consumer.close()
        return result

    def view(self) -> PolicyView:
        return open_policy(self.world.policy_value, PolicyTrust((bytes.fromhex(self.world.signer),)))


class WorkerProcess:
    """`enclavescale worker` as a process."""

    def __init__(self, side: Side, group: str, log: Path, *, index: int = 0, names: TopicNames | None = None):
        names = names or side.topics
        arguments = ["--bootstrap", side.bootstrap, "--group", group, "--host-id", f"aggregator-{index}"]
        arguments += ["--policy-signer", side.world.signer, "--simulated-tee", str(side.world.tee_directory)]
        arguments += ["--session-timeout", "1.5", "--topic-prefix", side.prefix]
        for one in dataclasses.fields(names):
            arguments += ["--topic-name", f"{one.name}={getattr(names, one.name)}"]
        self.log = log
        self._file = log.open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "enclavescale", "worker", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=self._file,
            stderr=self._file,
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._file.close()

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(20)
        self._file.close()
        return code

    def alive(self) -> bool:
        return self.process.poll() is None

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def outputs_of(messages: Iterable[Message]) -> dict[Key, bytes]:
    """Pre-images of outputs by (domain, window, revision); asserts that copies of one key are equal bits."""
    found: dict[Key, bytes] = {}
    for message in messages:
        signed, preimage = decode_signed_output(message.value() or b"")
        key = (signed.output.domain, signed.output.window_start_ms, signed.output.revision)
        assert found.setdefault(key, preimage) == preimage, f"two different outputs for {key}"
    return found


def header(message: Message, name: str) -> str:
    return dict(message.headers() or [])[name].decode()


def reference(side: Side) -> tuple[dict[Key, bytes], dict[tuple[int, int], str]]:
    """What an undisturbed pure core makes of the log: output pre-images, and codes by (partition, offset)."""
    view = side.view()
    outputs: dict[Key, bytes] = {}
    refused: dict[tuple[int, int], str] = {}
    cache = SessionCache()
    cores = {
        p: PartitionCore(
            CoreConfig(side.topics.reports, p, lambda digest: view if digest == view.digest else None, cache.verify)
        )
        for p in range(side.partitions)
    }
    for message in side.read(side.topics.reports):
        partition, offset = message.partition() or 0, message.offset() or 0
        kind, stamp = message.timestamp()
        record = LogRecord(
            side.topics.reports, partition, offset, stamp, int(kind == 2), message.key(), message.value(), ()
        )
        for effect in cores[partition].process(record):
            if isinstance(effect, Rejection):
                refused[partition, offset] = effect.code
            elif isinstance(effect, Emission):
                output = effect.output
                outputs[output.domain, output.window_start_ms, output.revision] = output_preimage(effect.output_bytes)
    return outputs, refused
