"""Writes a log of one domain for `benchmarks/core.py`: a control record, then windows of reports, signed for real.

`python benchmarks/core_log.py FILE [--hosts N] [--windows N] [--window-ms MS] [--restart-at WINDOW]`: pickles, one
after another: a policy, its signer, the append time, then every record's value. At `--restart-at` every host begins a
new session. Sessions and quotes are those of the simulated TEE. Statistics are a few windows of the demo's traces under
noise of the stated law, drawn by numpy, not by OpenDP: quickly, and good for nothing else.
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from attester.session import Session
from attester.signing import public_point
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.agent.producing import HostPlan, plan_host
from enclavescale.agent.sessions import session_maker
from enclavescale.agent.sources import SourcePool
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE, HOST_IMAGE, demo_fleet, sign_policy
from power_model.grid import Grid
from producers.config import HostProfile, session_facts
from producers.distil import Distilled, Gaps, distil
from producers.privacy import privacy_parameters
from producers.privatise import Privatiser
from producers.seal import ClassWindow, Sealer
from schemas.codec import encode_body, encode_signed_record, record_preimage
from schemas.records import ControlRecord, EvidenceItem, PrivacyParameters
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.worker import WorkerConfig, aggregator_binding

DOMAIN = "hall-a"
EVIDENCE_INTERVAL = 10
"""Windows between repetitions of a session's evidence, the agent's default."""

TEMPLATES = 16
"""Windows of readings that all hosts take turns with."""


class QuickNoise(Privatiser):
    """Noise of the same law from numpy."""

    def __init__(self, parameters: PrivacyParameters, rng: np.random.Generator) -> None:
        super().__init__(parameters)
        self._scales = {one.release: one.scale_micro / 1e6 for one in parameters.releases}
        self._rng = rng

    def add_noise(self, release: str, exact: np.ndarray) -> np.ndarray:
        p = -np.expm1(-1 / self._scales[release])
        return exact + self._rng.geometric(p, exact.shape) - self._rng.geometric(p, exact.shape)


@dataclass(frozen=True)
class Platform:
    """Quotes for one host, under the one platform CA that real platforms share."""

    tee: SimulatedTee
    host_id: str
    kind: str = "tdx_quote_v4"
    simulated: bool = True

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        data = self.tee.mint(
            report_data, mrtd=simulated_measurement(HOST_IMAGE), platform_id=simulated_platform_id(self.host_id)
        )
        return [EvidenceItem(kind=self.kind, data=data, subject_absent_reason="cpu")]


@dataclass(frozen=True)
class Log:
    """What is written: the policy's framed value, who signed it, when the broker appends, the records' values."""

    policy_value: bytes
    signer: bytes
    append_ms: int
    values: Iterator[bytes]


def make_log(directory: Path, hosts: int, windows: int, window_ms: int, restart_at: int | None = None) -> Log:
    """A domain of `hosts` hosts that all report `windows` windows of `window_ms`, in order; from window `restart_at` on
    every host has a new session, whose first report names the last one of the old."""
    now_ms = int(time.time() * 1000)
    tee = SimulatedTee.create(directory)
    both = demo_fleet(
        tee, hosts=2 * hosts, gpus=8, window_ms=window_ms, now_ms=now_ms, create_time=True,
        evidence_interval=EVIDENCE_INTERVAL,
    )  # fmt: skip
    policy = replace(
        both.policy,
        hosts=tuple(one for one in both.policy.hosts if one.domain == DOMAIN),
        domains=tuple(one for one in both.policy.domains if one.domain == DOMAIN),
    )
    key = ec.generate_private_key(ec.SECP256R1())
    signer = public_point(key.public_key())
    policy_value = sign_policy(policy, key)
    digest = open_policy(policy_value, PolicyTrust((signer,))).digest
    spec = next(one for one in both.hosts if one.host_id == policy.hosts[0].host_id)
    plan = plan_host(policy, spec, SourcePool())
    start_ms = now_ms // window_ms * window_ms - (windows + 2) * window_ms

    def values() -> Iterator[bytes]:
        yield control_value(directory, digest, signer, now_ms)
        sealers = [sealer(tee, plan, one.host_id, now_ms) for one in policy.hosts]
        privacy = privacy_parameters(plan.budget, plan.profile.classes, plan.schedule)
        noise = QuickNoise(privacy, np.random.default_rng(1))
        exact = list(templates(plan, start_ms))
        seen = Gaps(samples_taken=plan.schedule.ticks, stalls_coarse=0, gpus_with_gaps=0, gpus_silent=0)
        for window in range(windows):
            if window == restart_at:
                began_ms = now_ms + 1  # what a host begins later supersedes what it began before
                sealers = [
                    sealer(tee, plan, one.host_id, began_ms, last.last_digest)
                    for one, last in zip(policy.hosts, sealers, strict=True)
                ]
            for number, one in enumerate(sealers):
                drawn = exact[(number + window) % len(exact)]
                released = ClassWindow(plan.profile.classes[0], drawn.readings_taken, noise.privatise(drawn))
                yield one.seal(start_ms + window * window_ms, (released,), seen, 0).value

    return Log(policy_value, signer, now_ms, values())


def templates(plan: HostPlan, start_ms: int) -> Iterator[Distilled]:
    """Exact statistics of some windows of one host."""
    schedule, item = plan.schedule, plan.profile.classes[0]
    grid = Grid(item.edges_w)
    for number in range(TEMPLATES):
        begin = start_ms + number * schedule.window_ms
        readings = item.source.window(begin, begin + schedule.window_ms)
        yield distil(readings, grid, item.clip_low_w, item.clip_high_w, schedule.ticks_per_pane)


def sealer(tee: SimulatedTee, plan: HostPlan, host_id: str, now_ms: int, last_digest: bytes | None = None) -> Sealer:
    """A host like the planned one, with a session of its own."""
    profile: HostProfile = replace(plan.profile, host_id=host_id)
    privacy = privacy_parameters(plan.budget, profile.classes, plan.schedule)
    session = session_maker(Platform(tee, host_id), session_facts(profile, plan.schedule, privacy))(None, now_ms)
    return Sealer(
        session, profile, plan.schedule, privacy, last_digest=last_digest, evidence_interval=EVIDENCE_INTERVAL
    )


def control_value(directory: Path, digest: bytes, signer: bytes, now_ms: int) -> bytes:
    """The POLICY_SWITCH that puts the policy in force."""
    provider = SimulatedTee.create(
        directory, platform_id=simulated_platform_id(AGGREGATOR_ID), mrtd=simulated_measurement(AGGREGATOR_IMAGE)
    )
    config = WorkerConfig(
        kafka={}, host_id=AGGREGATOR_ID, group="benchmark", provider=provider, trust=PolicyTrust((signer,))
    )
    session = Session(provider, aggregator_binding(config, None, now_ms))
    body = encode_body(
        ControlRecord(
            kind="POLICY_SWITCH",
            domain=DOMAIN,
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


def main() -> None:
    """Write the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--hosts", type=int, default=100)
    parser.add_argument("--windows", type=int, default=10)
    parser.add_argument("--window-ms", type=int, default=60_000)
    parser.add_argument("--restart-at", type=int)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, options.file.open("wb") as out:
        log = make_log(Path(name), options.hosts, options.windows, options.window_ms, options.restart_at)
        for one in (log.policy_value, log.signer, log.append_ms):
            pickle.dump(one, out)
        for value in log.values:
            pickle.dump(value, out)


if __name__ == "__main__":
    main()
