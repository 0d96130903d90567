"""Report records: the reports topic. Field docs are in `avsc/SignedRecord.v1.avsc`."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records.session import PrivacyParameters, SessionEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidentialCompute:
    """Confidential-computing state of the host's GPUs."""

    gpu_cc_mode: str | None = None
    gpu_cc_mode_absent_reason: str | None = None
    gpu_dev_tools: bool | None = None
    gpu_dev_tools_absent_reason: str | None = None
    gpu_ready: bool | None = None
    gpu_ready_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SensorFlag:
    """A condition of the sampler during the window that does not depend on power values."""

    flag: str
    gpus: int


@dataclass(frozen=True, kw_only=True)  # no slots: `schemas.layout` makes one per report
class GpuClass:
    """Statistics of the GPUs of one model, sampler mode and grid on one host."""

    model: str
    sampler_mode: str
    gpus: int
    capacity_w: int
    enforced_limit_w: int | None = None
    enforced_limit_w_absent_reason: str | None = None
    readings_taken: int
    edges_w: tuple[int, ...]
    transitions: bytes
    transitions_shape: tuple[int, ...]
    pane_sums: bytes
    pane_sums_shape: tuple[int, ...]
    pane_sum_quantum_mw: int
    clip_low_w: int
    clip_high_w: int
    histogram: bytes | None = None
    histogram_absent_reason: str | None = None
    histogram_shape: tuple[int, ...]
    energy_residual_mj: int | None = None
    energy_residual_mj_absent_reason: str | None = None


@dataclass(frozen=True, kw_only=True)  # no slots: `schemas.layout` makes one per report
class WindowReport:
    """One host's private summary of one window."""

    host_id: str
    domain: str
    session_id: bytes
    seq: int
    prev_digest: bytes | None = None
    prev_digest_absent_reason: str | None = None
    window_start_ms: int
    window_end_ms: int
    pane_ms: int
    sample_hz: int
    samples_scheduled: int
    samples_taken: int
    stalls_coarse: int | None = None
    stalls_coarse_absent_reason: str | None = None
    classes: tuple[GpuClass, ...]
    privacy: PrivacyParameters
    first_mile: str
    confidential_compute: ConfidentialCompute
    source: str
    dropped_reports: int
    sensor_flags: tuple[SensorFlag, ...]
    group_label: str | None = None
    group_label_absent_reason: str | None = None
    agent_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSubject:
    """What a control record speaks of."""

    kind: str
    id: str
    at_ms: int | None = None
    at_ms_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlRecord:
    """A decision of an aggregator placed in the domain's own partition, so that live and replay agree."""

    kind: str
    domain: str
    host_id: str
    session_id: bytes
    seq: int
    prev_digest: bytes | None = None
    prev_digest_absent_reason: str | None = None
    issued_at_ms: int
    policy_digest: bytes
    content_digest: bytes | None = None
    content_digest_absent_reason: str | None = None
    effective_from_ms: int | None = None
    effective_from_ms_absent_reason: str | None = None
    closed_through_ms: int | None = None
    closed_through_ms_absent_reason: str | None = None
    collateral_digest: bytes | None = None
    collateral_digest_absent_reason: str | None = None
    subjects: tuple[ControlSubject, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedRecord:
    """The value of the reports topic. signature covers the bytes of body as received."""

    body: WindowReport | ControlRecord
    signature: bytes
    evidence: SessionEvidence | None = None
    evidence_absent_reason: str | None = None
