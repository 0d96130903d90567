"""A running pipeline for the page: broker, a small fleet's log, a worker as a process."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen

from confluent_kafka import Message, Producer
from confluent_kafka.admin import AdminClient, NewPartitions

from enclavescale.fleet import sign_policy
from schemas.codec import decode_signed_output, encode_output, encode_signed_output
from schemas.records import Interval, SignedFleetPower
from schemas.topics import TOPICS, TopicNames
from stream_jobs.reading import open_reader, read_range, watermarks
from tests.pipeline.kafka_side import wait_until
from tests.pipeline.world import GPUS, WINDOW_MS, Item, World

DOMAINS = {"hall-a": 0, "hall-b": 1, "hall-c": 1}
FORGED = Interval(value_w=9_999_000, low_w=9_999_000, high_w=9_999_000)
"""The mean of outputs that nobody signed."""


def mock_world(directory: Path, hosts: int = 4, limit_w: int = 200) -> World:
    """A fleet whose policy accepts the mock broker's timestamps. `limit_w`: of a domain, per GPU."""
    world = World(directory, DOMAINS, hosts, seed=1)
    rules = tuple(dataclasses.replace(one, limit_w=hosts * GPUS * limit_w) for one in world.policy.domains)
    world.policy = dataclasses.replace(world.policy, unsafe_allow_create_time=True, domains=rules)
    world.policy_value = sign_policy(world.policy, world.key)
    return world


@contextmanager
def mock_broker(topics: TopicNames, partitions: int) -> Iterator[str]:
    """The demo's broker as a process; its bootstrap address."""
    names = [f"{getattr(topics, one.role)}={partitions if one.role != 'policy' else 1}" for one in TOPICS]
    with Popen([sys.executable, "-m", "enclavescale.embedded", *names], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.kill()


class Fleet:
    """Appends a fleet's windows to its reports topic and reads what came out."""

    def __init__(self, bootstrap: str, world: World, topics: TopicNames, *, create_time: bool):
        self.bootstrap, self.world, self.topics, self.create_time = bootstrap, world, topics, create_time
        self.kafka = {"bootstrap.servers": bootstrap, "log_level": "0"}
        self._producer = Producer({**self.kafka, "enable.idempotence": "true"})
        self._reader = open_reader(self.kafka)
        self._letters, self.page_pid = 0, 0
        self.start_ms = world.now_ms // WINDOW_MS * WINDOW_MS - 20 * WINDOW_MS
        self._producer.produce(topics.policy, value=world.policy_value, key="policy/1", partition=0)
        assert self._producer.flush(20) == 0

    def windows(self, count: int, extra: tuple[Item, ...] = ()) -> None:
        """The next windows' reports, then `extra`."""
        for _ in range(count):
            for item in self.world.clean(self.start_ms):
                self.put(self.topics.reports, item)
            self.start_ms += WINDOW_MS
        for item in extra:
            self.put(self.topics.reports, item)
        assert self._producer.flush(20) == 0

    def put(self, topic: str, item: Item, headers: Mapping[str, str] | None = None) -> None:
        stamp = self.start_ms + WINDOW_MS if self.create_time else 0
        self._producer.produce(
            topic,
            value=item.value,
            key=item.key,
            partition=item.partition,
            timestamp=stamp,
            headers=dict(headers or {}),
        )
        self._producer.poll(0)

    def flush(self) -> None:
        assert self._producer.flush(20) == 0

    def outputs(self) -> dict[tuple[int, int], SignedFleetPower]:
        """Every output by partition and offset."""
        found = {}
        for partition in range(2):
            low, high = watermarks(self._reader, self.topics.output, partition, 20)
            for message in read_range(self._reader, self.topics.output, partition, low, high, 20):
                found[partition, message.offset() or 0] = decode_signed_output(message.value() or b"")[0]
        return found

    def wait_for_policy(self) -> None:
        """Until the worker has written every domain's POLICY_SWITCH: what comes before it is NO_POLICY."""

        def written() -> int:
            return sum(watermarks(self._reader, self.topics.reports, partition, 20)[1] for partition in range(2))

        wait_until(lambda: written() >= len(DOMAINS), "the policy in force")

    def wait_for(self, outputs: int) -> None:
        wait_until(lambda: len(self.outputs()) >= outputs, f"{outputs} outputs")

    def letter(self) -> Message:
        """The newest dead letter of all partitions, once there is one more than at the last call."""

        def letters() -> list[Message]:
            found = []
            for partition in range(2):
                low, high = watermarks(self._reader, self.topics.rejections, partition, 20)
                found += read_range(self._reader, self.topics.rejections, partition, low, high, 20)
            return found

        wait_until(lambda: len(letters()) > self._letters, "a dead letter")
        found = letters()
        self._letters = len(found)
        return max(found, key=lambda one: one.timestamp()[1])

    def forge(self, domain: str) -> None:
        """Put an output on the topic that nobody signed: the newest one with another domain's name and more power."""
        signed = list(self.outputs().values())[-1]
        forged = encode_output(dataclasses.replace(signed.output, domain=domain, mean=FORGED))
        value = encode_signed_output(forged, signed.signature, signed.worker)
        self.put(self.topics.output, Item(signed.output.source.partition, domain.encode(), value))
        self.flush()

    def grow(self, partitions: int) -> None:
        """Give the output topic more partitions."""
        admin = AdminClient(self.kafka)
        made = admin.create_partitions([NewPartitions(self.topics.output, partitions)])
        made[self.topics.output].result(20)

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()


@contextmanager
def worker(fleet: Fleet, log: Path) -> Iterator[Popen[bytes]]:
    """`enclavescale worker` as a process."""
    arguments = ["--bootstrap", fleet.bootstrap, "--group", "page", "--host-id", "aggregator-0"]
    arguments += [
        "--beacon-interval",
        "0",
        "--policy-signer",
        fleet.world.signer,
        "--simulated-tee",
        str(fleet.world.tee_directory),
    ]
    for one in dataclasses.fields(TopicNames):
        arguments += ["--topic-name", f"{one.name}={getattr(fleet.topics, one.name)}"]
    if fleet.create_time:
        arguments.append("--unsafe-allow-create-time")
    with log.open("ab") as file:
        process = Popen([sys.executable, "-m", "enclavescale", "worker", *arguments], stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@contextmanager
def page(
    fleet: Fleet, *arguments: str, signer: bool = True, environment: Mapping[str, str] | None = None
) -> Iterator[str]:
    """`enclavescale serve` as a process; its URL."""
    command = [sys.executable, "-m", "enclavescale", "serve", "--bootstrap", fleet.bootstrap, "--listen", "127.0.0.1:0"]
    command += ["--policy-signer", fleet.world.signer] if signer else []
    for one in dataclasses.fields(TopicNames):
        command += ["--topic-name", f"{one.name}={getattr(fleet.topics, one.name)}"]
    with Popen(
        [*command, "--json", *arguments], stdout=PIPE, text=True, env={**os.environ, **(environment or {})}
    ) as process:
        assert process.stdout is not None
        fleet.page_pid = process.pid
        try:
            line = process.stdout.readline()
            yield str(json.loads(line)["url"])
        finally:
            process.terminate()
            assert process.wait(20) == 0


def rss_kib(pid: int) -> int:
    """Resident memory of a process, KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])
