"""Workers as processes through a rotation: with the old key, with both, with the new one."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer
from cryptography.hazmat.primitives.asymmetric import ec

from attester.simulated import SimulatedTee
from enclavescale.embedded import MockCluster
from enclavescale.fleet import AGGREGATOR_ID, demo_fleet, sign_policy
from schemas.codec import decode_signed_record
from schemas.records import ControlRecord
from schemas.topics import TOPICS, TopicNames
from stream_jobs.reading import open_reader, read_range, watermarks
from tests.cli.conftest import ENVIRONMENT, PROGRAM
from tests.policy.samples import point_of

NAMES = TopicNames()
LIMIT_S = 60.0


@contextmanager
def worker(bootstrap: str, directory: Path, *signers: bytes) -> Iterator[None]:
    """A worker process that trusts `signers`; it must end well."""
    command = [*PROGRAM, "worker", "--bootstrap", bootstrap, "--group", "g", "--host-id", AGGREGATOR_ID]
    command += ["--simulated-tee", str(directory), "--unsafe-allow-create-time", "--session-timeout", "6"]
    for signer in signers:
        command += ["--policy-signer", signer.hex()]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()
            assert process.wait(LIMIT_S) == 0


def switches(bootstrap: str) -> list[bytes | None]:
    """Digests of the policies that the control records on partition 0 switch to."""
    with closing(open_reader({"bootstrap.servers": bootstrap})) as reader:
        low, end = watermarks(reader, NAMES.reports, 0, LIMIT_S)
        messages = read_range(reader, NAMES.reports, 0, low, end, LIMIT_S)
    bodies = [decode_signed_record(message.value() or b"").body for message in messages]
    return [body.content_digest for body in bodies if isinstance(body, ControlRecord)]


def codes(bootstrap: str) -> list[bytes]:
    """Codes of the dead letters on partition 0."""
    with closing(open_reader({"bootstrap.servers": bootstrap})) as reader:
        low, end = watermarks(reader, NAMES.rejections, 0, LIMIT_S)
        messages = read_range(reader, NAMES.rejections, 0, low, end, LIMIT_S)
    return [dict(message.headers() or [])["enclavescale.error.code"] for message in messages]


def wait_until(said: str, done: object) -> None:
    assert callable(done)
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline, said
        time.sleep(0.2)


@pytest.mark.soak
def test_workers_follow_the_new_key_and_then_know_it_alone(tmp_path: Path) -> None:
    cluster = MockCluster({getattr(NAMES, one.role): 1 for one in TOPICS})
    tee = SimulatedTee.create(tmp_path)
    now_ms = time.time_ns() // 1_000_000
    fleet = demo_fleet(
        tee, hosts=2, gpus=2, window_ms=10_000, now_ms=now_ms, create_time=True, partitions=(0, 0)
    ).policy
    first = replace(fleet, domains=fleet.domains[:1], hosts=fleet.hosts[:1])
    old, new = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    producer = Producer({"bootstrap.servers": cluster.bootstrap})

    def publish(value: bytes) -> None:
        producer.produce(NAMES.policy, value)
        assert producer.flush(20) == 0

    publish(sign_policy(first, old))
    with worker(cluster.bootstrap, tmp_path, point_of(old)):
        wait_until("no switch to the old key's policy", lambda: len(switches(cluster.bootstrap)) == 1)
    publish(sign_policy(replace(first, counter=2), new))
    with worker(cluster.bootstrap, tmp_path, point_of(old), point_of(new)):
        wait_until("no switch to the new key's policy", lambda: len(set(switches(cluster.bootstrap))) == 2)
    assert codes(cluster.bootstrap) == []
    with worker(cluster.bootstrap, tmp_path, point_of(new)):
        # Far too soon: what rests on the old key's policy is refused, and the worker goes on with the new one.
        wait_until("the old key's switch is not refused", lambda: b"POLICY_UNTRUSTED" in codes(cluster.bootstrap))
    assert set(codes(cluster.bootstrap)) == {b"POLICY_UNTRUSTED"}
