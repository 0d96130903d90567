"""A site for an agent of the command line: policy, signer, simulated TEE, and the core's word on what it published."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from cryptography.hazmat.primitives.asymmetric import ec

from attester.session import Session
from attester.signing import public_point
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.agent.file import ProduceSpec, load_spec
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE, demo_fleet, sign_policy
from schemas.records import Policy
from schemas.topics import TopicNames
from stream_jobs.core.effects import ControlWanted, Rejection
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.worker import WorkerConfig, aggregator_binding
from tests.core.fleet import control_of, seal
from verifier.cache import SessionCache

WINDOW_MS = 1_000
HOST = "hall-a-host000"
MODEL = "NVIDIA A100-PCIE-40GB"


@dataclasses.dataclass
class Site:
    """A directory with a policy, its signer's key and a simulated TEE; `table` is the agent's file."""

    directory: Path
    tee: SimulatedTee
    key: ec.EllipticCurvePrivateKey
    policy: Policy

    def sign(self, **changes: Any) -> bytes:
        value = sign_policy(dataclasses.replace(self.policy, **changes), self.key)
        (self.directory / "policy.avro").write_bytes(value)
        return value

    @property
    def signer(self) -> bytes:
        return public_point(self.key.public_key())

    def table(self, **changes: Any) -> dict[str, Any]:
        base = {
            "policy": str(self.directory / "policy.avro"),
            "policy_signers": [self.signer.hex()],
            "spool": str(self.directory / "spool.db"),
            "tee": "simulated",
            "tee_directory": str(self.directory / "tee"),
            "hosts": [{"host_id": HOST, "source": "simulated"}],
        }
        return base | changes

    def spec(self, **changes: Any) -> ProduceSpec:
        return load_spec(self.table(**changes))


def make_site(tmp_path: Path, *sources: str) -> Site:
    """A site whose policy accepts readings of these sources."""
    tee = SimulatedTee.create(tmp_path / "tee")
    now_ms = int(time.time() * 1000)
    fleet = demo_fleet(tee, hosts=2, gpus=8, window_ms=WINDOW_MS, now_ms=now_ms, create_time=True)
    policy = dataclasses.replace(fleet.policy, accepted_sources=sources)
    made = Site(tmp_path, tee, ec.generate_private_key(ec.SECP256R1()), policy)
    made.sign()
    return made


def judge(site: Site, value: bytes, reports: list[bytes]) -> list[str]:
    """Codes with which the core refuses the reports, the policy `value` in force."""
    view = open_policy(value, PolicyTrust((site.signer,)))
    provider = SimulatedTee.create(
        site.directory / "tee",
        platform_id=simulated_platform_id(AGGREGATOR_ID),
        mrtd=simulated_measurement(AGGREGATOR_IMAGE),
    )
    worker = WorkerConfig(kafka={}, host_id=AGGREGATOR_ID, group="g", provider=provider, trust=PolicyTrust((b"x",)))
    now_ms = int(time.time() * 1000)
    session = Session(provider, aggregator_binding(worker, None, now_ms))
    switch = ControlWanted(
        kind="POLICY_SWITCH",
        domain="hall-a",
        policy_digest=view.digest,
        content_digest=view.digest,
        effective_from_ms=None,
        closed_through_ms=None,
        reason="test",
    )
    values = [seal(session, control_of(session, switch, now_ms)).value(session.evidence), *reports]
    topic = TopicNames().reports
    core = PartitionCore(
        CoreConfig(topic, 0, lambda digest: view if digest == view.digest else None, SessionCache().verify)
    )
    log = [LogRecord(topic, 0, offset, now_ms, 1, b"hall-a", one, ()) for offset, one in enumerate(values)]
    return [effect.code for record in log for effect in core.process(record) if isinstance(effect, Rejection)]


def published(bootstrap: str, topic: str) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "t", "auto.offset.reset": "earliest"})
    place = TopicPartition(topic, 0, 0)
    _, end = consumer.get_watermark_offsets(place, 10)
    consumer.assign([place])
    found: list[bytes] = []
    while len(found) < end:
        found += [message.value() or b"" for message in consumer.consume(end - len(found), 5)]
    consumer.close()
    return found
