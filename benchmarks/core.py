"""Reports per second through the pure core on one core, beside the ceiling of the same run: P-256 verifications alone.

`python benchmarks/core.py [--hosts N] [--windows N]` prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attester.session import Session
from attester.signing import public_point, sign_raw
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.agent.producing import plan_host
from enclavescale.agent.sessions import session_maker
from enclavescale.agent.sources import SourcePool
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE, HOST_IMAGE, demo_fleet, sign_policy
from producers.host import AgentHost, HostAgent, Sealing
from producers.spool import Spool
from schemas.codec import decode_signed_record, encode_body, encode_signed_record, record_preimage
from schemas.records import ControlRecord
from schemas.topics import TopicNames
from stream_jobs.core.effects import Emission
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.worker import WorkerConfig, aggregator_binding
from verifier.cache import SessionCache
from verifier.signature import verify_record_signature

WINDOW_MS = 10_000


def make_log(directory: Path, hosts: int, windows: int) -> tuple[bytes, bytes, list[LogRecord]]:
    """A signed policy, its signer, and a log of one domain: a control record, then `windows` windows of reports."""
    now_ms = int(time.time() * 1000)
    tee_directory = directory / "tee"
    tee = SimulatedTee.create(tee_directory)
    fleet = demo_fleet(tee, hosts=2 * hosts, gpus=8, window_ms=WINDOW_MS, now_ms=now_ms, create_time=True)
    key = ec.generate_private_key(ec.SECP256R1())
    signer = public_point(key.public_key())
    policy_value = sign_policy(fleet.policy, key)
    view = open_policy(policy_value, PolicyTrust((signer,)))
    values = [control_value(tee_directory, view.digest, signer, now_ms)]
    spool = Spool(directory / "spool.db", max_bytes=1 << 30, max_age_ms=10**9)
    agents = []
    for spec in fleet.hosts:
        if fleet.domain_of(spec.host_id) == "hall-a":
            plan = plan_host(fleet.policy, spec, SourcePool())
            quotes = SimulatedTee.create(
                tee_directory,
                platform_id=simulated_platform_id(spec.host_id),
                mrtd=simulated_measurement(HOST_IMAGE),
            )
            host = AgentHost(profile=plan.profile, session=session_maker(quotes, plan.facts)(None, now_ms))
            sealing = Sealing(
                schedule=plan.schedule,
                budget=plan.budget,
                evidence_interval=fleet.policy.limits.evidence_interval_windows,
            )
            agents.append(HostAgent(host, sealing, spool))
    start_ms = now_ms // WINDOW_MS * WINDOW_MS - (windows + 2) * WINDOW_MS
    for window in range(windows):
        values += [agent.produce(start_ms + window * WINDOW_MS).sealed.value for agent in agents]
    topic = TopicNames().reports
    return policy_value, signer, [LogRecord(topic, 0, n, now_ms, 1, b"hall-a", v, ()) for n, v in enumerate(values)]


def control_value(tee_directory: Path, digest: bytes, signer: bytes, now_ms: int) -> bytes:
    """The POLICY_SWITCH that puts the policy in force."""
    provider = SimulatedTee.create(
        tee_directory,
        platform_id=simulated_platform_id(AGGREGATOR_ID),
        mrtd=simulated_measurement(AGGREGATOR_IMAGE),
    )
    config = WorkerConfig(
        kafka={}, host_id=AGGREGATOR_ID, group="benchmark", provider=provider, trust=PolicyTrust((signer,))
    )
    session = Session(provider, aggregator_binding(config, None, now_ms))
    body = encode_body(
        ControlRecord(
            kind="POLICY_SWITCH",
            domain="hall-a",
            host_id=AGGREGATOR_ID,
            session_id=session.session_id,
            seq=0,
            issued_at_ms=now_ms,
            policy_digest=digest,
            content_digest=digest,
            subjects=(),
            reason="benchmark",
        )
    )
    return encode_signed_record(body, session.sign(record_preimage(body)), session.evidence)


def ceiling(log: list[LogRecord]) -> float:
    """P-256 verifications per second over the same pre-images, keys at hand."""
    preimages = [decode_signed_record(record.value or b"").preimage for record in log]
    key = ec.generate_private_key(ec.SECP256R1())
    signed = [(preimage, sign_raw(key, preimage)) for preimage in preimages]
    public = key.public_key()
    begin = time.perf_counter()
    for preimage, signature in signed:
        verify_record_signature(public, preimage, signature)
    return len(signed) / (time.perf_counter() - begin)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=50)
    parser.add_argument("--windows", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        policy_value, signer, log = make_log(Path(name), options.hosts, options.windows)
    view = open_policy(policy_value, PolicyTrust((signer,)))
    core = PartitionCore(
        CoreConfig(
            TopicNames().reports, 0, lambda digest: view if digest == view.digest else None, SessionCache().verify
        )
    )
    emitted = 0
    begin = time.perf_counter()
    for record in log:
        emitted += sum(isinstance(effect, Emission) for effect in core.process(record))
    rate = len(log) / (time.perf_counter() - begin)
    top = ceiling(log)
    print(
        json.dumps(
            {
                "reports": len(log),
                "outputs": emitted,
                "bytes_per_report": round(sum(len(record.value or b"") for record in log) / len(log)),
                "reports_per_s": round(rate),
                "p256_verifications_per_s": round(top),
                "ratio": round(rate / top, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
