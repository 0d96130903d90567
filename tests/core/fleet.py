"""A forge of real records for the core: sessions pooled, statistics drawn cheaply, signatures real."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from attester.session import Session
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from schemas.codec import encode_body, encode_policy, encode_signed_record, policy_preimage, record_digest
from schemas.codec import record_preimage as preimage_of
from schemas.records import (
    AggregatorEnrolment,
    Beacon,
    ClassEnrolment,
    ConfidentialCompute,
    ControlRecord,
    DomainRule,
    EvidenceItem,
    GpuClass,
    HostEnrolment,
    Limits,
    Measurement,
    ModelRule,
    Policy,
    PrivacyParameters,
    PrivacyRelease,
    RegisterRule,
    SessionBinding,
    SessionEvidence,
    WindowReport,
)
from stream_jobs.core.effects import ControlWanted
from stream_jobs.core.policies import CORE_VERSION, PolicyView
from stream_jobs.log_record import LogRecord

T0 = 1_763_700_000_000
"""Event time at which every scenario begins; a multiple of every window used here."""

WINDOW_MS, PANE_MS, HZ, GPUS = 2_000, 1_000, 10, 2
TICKS = WINDOW_MS * HZ // 1000
MODEL = ModelRule(model="toy", edges_w=(100, 200), clip_low_w=0, clip_high_w=300)
CELLS = len(MODEL.edges_w) + 2
TOPIC, PARTITION = "enclavescale.window-reports.v1", 0
IMAGE, OTHER_IMAGE, AGGREGATOR_IMAGE = "toy-host", "toy-host-2", "toy-aggregator"
AGGREGATORS = ("aggregator-0", "aggregator-1")
TEE = SimulatedTee.create()
PRIVACY = PrivacyParameters(
    mode="EDGE",
    mechanism="discrete_laplace",
    unit_of_privacy="reading",
    releases=(
        PrivacyRelease(
            release="transitions",
            unit="count",
            sensitivity_l1=4,
            sensitivity_l2_squared=6,
            epsilon_micro=300_000,
            scale_micro=13_333_334,
        ),
        PrivacyRelease(
            release="pane_sums",
            unit="deciwatt_sample",
            sensitivity_l1=3_000,
            sensitivity_l2_squared=9_000_000,
            epsilon_micro=700_000,
            scale_micro=4_285_714_286,
        ),
    ),
    epsilon_total_micro=1_000_000,
    group_size=1,
    w_event_windows=1,
    w_event_epsilon_micro=17_150_000,
    delta_pico_absent_reason="pure_epsilon",
    rho_micro_absent_reason="pure_epsilon",
)


def enrolment(host_id: str, domain: str, tenant: str = "t0") -> HostEnrolment:
    return HostEnrolment(
        host_id=host_id,
        domain=domain,
        tenant=tenant,
        failure_domain="rack",
        platform_ids=(simulated_platform_id(host_id).hex(),),
        gpu_key_digests=(),
        classes=(ClassEnrolment(model=MODEL.model, gpus=GPUS, capacity_w=GPUS * 300),),
    )


def domain_rule(name: str, **changes: Any) -> DomainRule:
    base = DomainRule(
        domain=name,
        partition=PARTITION,
        limit_w=5_000,
        window_ms=WINDOW_MS,
        pane_ms=PANE_MS,
        grace_ms=WINDOW_MS,
        quantile_ppm=990_000,
        confidence_ppm=950_000,
        horizon_ms=0,
        quorum_ppm=500_000,
        k_min_hosts=1,
        k_min_tenants=1,
        history_windows=3,
        forecast_horizons_ms=(WINDOW_MS,),
    )
    return replace(base, **changes)


LIMITS = Limits(
    lateness_ms=3 * WINDOW_MS,
    max_idle_ms=6 * WINDOW_MS,
    evidence_interval_windows=2,
    clock_skew_tolerance_ms=500,
    evidence_checks_per_window=64,
    max_epsilon_micro=1_000_000,
    max_control_age_ms=60_000,
)


def policy_of(hosts: Sequence[HostEnrolment], domains: Sequence[DomainRule], **changes: Any) -> PolicyView:
    """A trusted policy. Its digest is real; its signature is the policy store's business."""
    images = changes.pop("images", (IMAGE, OTHER_IMAGE))
    policy = Policy(
        version=1,
        counter=1,
        issued_at_ms=T0,
        effective_from_ms=0,
        not_after_ms=T0 + 10**9,
        core_version=CORE_VERSION,
        accepted_sources=("trace",),
        accepted_sampler_modes=("instant",),
        min_first_mile="NONE",
        sample_hz=HZ,
        domains=tuple(domains),
        hosts=tuple(hosts),
        aggregators=tuple(
            AggregatorEnrolment(host_id=one, platform_ids=(simulated_platform_id(one).hex(),)) for one in AGGREGATORS
        ),
        models=(MODEL,),
        measurements=tuple(
            Measurement(
                label=image,
                role="aggregator" if image == AGGREGATOR_IMAGE else "host",
                tee="tdx",
                registers=(RegisterRule(register="mrtd", value=simulated_measurement(image)),),
            )
            for image in (*images, AGGREGATOR_IMAGE)
        ),
        trust_roots=(TEE.trust_root(),),
        tcb_rules=(),
        limits=LIMITS,
        unsafe_allow_unevaluated_tcb=True,
        unsafe_allow_unenrolled_platform=False,
        unsafe_allow_create_time=False,
    )
    policy = replace(policy, **changes)
    return PolicyView(policy, record_digest(policy_preimage(encode_policy(policy))))


@dataclass(frozen=True)
class Provider:
    """Quotes for one platform and image of the shared simulated TEE."""

    platform_id: bytes
    mrtd: bytes
    kind: str = "tdx_quote_v4"
    simulated: bool = True

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        data = TEE.mint(report_data, mrtd=self.mrtd, platform_id=self.platform_id)
        return [EvidenceItem(kind=self.kind, data=data, subject_absent_reason="cpu")]


def binding_of(point: bytes, host_id: str, domain: str | None, created_ms: int, **changes: Any) -> SessionBinding:
    host = domain is not None
    base = SessionBinding(
        protocol="enclavescale/1",
        role="host" if host else "aggregator",
        session_public_key=point,
        host_id=host_id,
        domain=domain,
        domain_absent_reason=None if host else "an aggregator",
        source="trace" if host else "none",
        sampler_mode="instant" if host else None,
        config_digest=bytes(32),
        sample_hz=HZ if host else None,
        window_ms=WINDOW_MS if host else None,
        pane_ms=PANE_MS if host else None,
        privacy=PRIVACY if host else None,
        clip_ranges=(),
        state_grids=(),
        gpu_identities_digest_absent_reason="none",
        beacon_absent_reason="none",
        created_at_ms=created_ms,
        policy_signers=(),
        core_version_absent_reason="none",
        cluster_id_absent_reason="none",
        topic_ids=(),
    )
    return replace(base, **changes)


def new_session(host_id: str, domain: str | None, created_ms: int, image: str, **changes: Any) -> Session:
    """A fresh session with changes to its binding."""
    provider = Provider(simulated_platform_id(changes.pop("platform", host_id)), simulated_measurement(image))
    return Session(provider, lambda point: binding_of(point, host_id, domain, created_ms, **changes))


def session_of(
    host_id: str, domain: str | None, order: int = 0, image: str = IMAGE, beacon: int | None = None
) -> Session:
    """The pooled session number `order` of a host (or aggregator: domain None), which names a beacon or none."""
    return _pooled(host_id, domain, order, image, beacon)


@cache
def _pooled(host_id: str, domain: str | None, order: int, image: str, beacon: int | None) -> Session:
    given: dict[str, Any] = {} if beacon is None else {"beacon": beacon_of(beacon), "beacon_absent_reason": None}
    return new_session(host_id, domain, T0 + order, AGGREGATOR_IMAGE if domain is None else image, **given)


def beacon_of(window: int) -> Beacon:
    """The beacon that an aggregator issued as a window began."""
    nonce = hashlib.sha256(b"beacon" + window.to_bytes(4, "big")).digest()
    return Beacon(nonce=nonce, issued_at_ms=T0 + window * WINDOW_MS, session_id=bytes(32))


@cache
def _statistics() -> list[tuple[bytes, bytes]]:
    """Some pairs of noisy transition counts and pane sums."""
    rng = np.random.default_rng(11)

    def laplace(scale: float, shape: tuple[int, ...]) -> np.ndarray:
        p = -np.expm1(-1 / scale)
        return rng.geometric(p, shape) - rng.geometric(p, shape)

    result = []
    for _ in range(64):
        states = rng.integers(0, CELLS - 1, (GPUS, TICKS))
        counts = np.zeros((CELLS, CELLS), np.int64)
        np.add.at(counts, (states[:, :-1].ravel(), states[:, 1:].ravel()), 1)
        sums = rng.integers(0, 3_000, (GPUS, TICKS)).reshape(GPUS, -1, TICKS // 2).sum(axis=(0, 2))
        counts += laplace(13.333334, counts.shape)
        sums += laplace(4285.714286, sums.shape)
        result.append((counts.astype("<i4").tobytes(), sums.astype("<i4").tobytes()))
    return result


def gpu_class(draw: int = 0, **changes: Any) -> GpuClass:
    counts, sums = _statistics()[draw % len(_statistics())]
    base = GpuClass(
        model=MODEL.model,
        sampler_mode="instant",
        gpus=GPUS,
        capacity_w=GPUS * 300,
        enforced_limit_w_absent_reason="none",
        readings_taken=GPUS * TICKS,
        edges_w=MODEL.edges_w,
        transitions=counts,
        transitions_shape=(CELLS, CELLS),
        pane_sums=sums,
        pane_sums_shape=(2,),
        pane_sum_quantum_mw=100,
        clip_low_w=MODEL.clip_low_w,
        clip_high_w=MODEL.clip_high_w,
        histogram_absent_reason="none",
        histogram_shape=(),
        energy_residual_mj_absent_reason="none",
    )
    return replace(base, **changes)


def report_of(session: Session, start_ms: int, seq: int = 0, *, draw: int = 0, **changes: Any) -> WindowReport:
    binding = session.binding
    base = WindowReport(
        host_id=binding.host_id,
        domain=binding.domain or "",
        session_id=session.session_id,
        seq=seq,
        prev_digest_absent_reason="first_record",
        window_start_ms=start_ms,
        window_end_ms=start_ms + WINDOW_MS,
        pane_ms=PANE_MS,
        sample_hz=HZ,
        samples_scheduled=TICKS,
        samples_taken=TICKS,
        stalls_coarse=0,
        classes=(gpu_class(draw),),
        privacy=binding.privacy or PRIVACY,
        first_mile="NONE",
        confidential_compute=ConfidentialCompute(),
        source=binding.source,
        dropped_reports=0,
        sensor_flags=(),
        group_label_absent_reason="none",
        agent_version="test",
    )
    return replace(base, **changes)


def control_of(session: Session, wanted: ControlWanted, issued_ms: int, **changes: Any) -> ControlRecord:
    """The control record a worker writes for `wanted` (as `stream_jobs.output` does)."""
    base = ControlRecord(
        kind=wanted.kind,
        domain=wanted.domain,
        host_id=session.binding.host_id,
        session_id=session.session_id,
        seq=0,
        prev_digest_absent_reason="first record of the session",
        issued_at_ms=issued_ms,
        policy_digest=wanted.policy_digest,
        content_digest=wanted.content_digest,
        content_digest_absent_reason=None if wanted.content_digest else "names no content",
        effective_from_ms=wanted.effective_from_ms,
        effective_from_ms_absent_reason=None if wanted.effective_from_ms is not None else "as the policy says",
        closed_through_ms=wanted.closed_through_ms,
        closed_through_ms_absent_reason=None if wanted.closed_through_ms is not None else "closes nothing",
        collateral_digest=wanted.collateral_digest,
        collateral_digest_absent_reason=None if wanted.collateral_digest else "no collateral is in force",
        subjects=wanted.subjects,
        reason=wanted.reason,
    )
    return replace(base, **changes)


@dataclass(frozen=True)
class Sealed:
    """A signed body that can be framed with or without evidence: the same record either way."""

    body: WindowReport | ControlRecord
    body_bytes: bytes
    signature: bytes
    digest: bytes

    def value(self, evidence: SessionEvidence | None) -> bytes:
        return encode_signed_record(self.body_bytes, self.signature, evidence)


def seal(session: Session, body: WindowReport | ControlRecord) -> Sealed:
    body_bytes = encode_body(body)
    preimage = preimage_of(body_bytes)
    return Sealed(body, body_bytes, session.sign(preimage), record_digest(preimage))


def spoilt(evidence: SessionEvidence, byte: int = -40) -> SessionEvidence:
    """Evidence whose quote was touched on the way."""
    item = evidence.items[0]
    data = bytearray(item.data)
    data[700 + byte] ^= 1
    return replace(evidence, items=(replace(item, data=bytes(data)),))


def log_record(offset: int, at_ms: int, key: bytes | str | None, value: bytes | None) -> LogRecord:
    return LogRecord(TOPIC, PARTITION, offset, at_ms, 1, key.encode() if isinstance(key, str) else key, value, ())
