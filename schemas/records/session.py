"""Session records: what a key stands for and the evidence behind it. Field docs are in `avsc/SignedRecord.v1.avsc`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyRelease:
    """One differentially private release inside a report."""

    release: str
    unit: str
    sensitivity_l1: int
    sensitivity_l2_squared: int
    epsilon_micro: int
    scale_micro: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrivacyParameters:
    """What the privacy mechanism promises for one report."""

    mode: str
    mechanism: str
    unit_of_privacy: str
    releases: tuple[PrivacyRelease, ...]
    epsilon_total_micro: int
    group_size: int
    w_event_windows: int
    w_event_epsilon_micro: int
    delta_pico: int | None = None
    delta_pico_absent_reason: str | None = None
    rho_micro: int | None = None
    rho_micro_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRange:
    """Range to which readings of one GPU model are clipped before summing; from enrolment only."""

    model: str
    low_w: int
    high_w: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateGrid:
    """Power states of one GPU model. k edges make k+1 states; one more cell is reserved for missing readings."""

    model: str
    edges_w: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beacon:
    """A fresh random value signed by an aggregator; bounds the age of evidence that names it."""

    nonce: bytes
    issued_at_ms: int
    session_id: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionBinding:
    """What a session's key stands for. Its digest is the report data of the hardware quote."""

    protocol: str
    role: str
    session_public_key: bytes
    host_id: str
    domain: str | None = None
    domain_absent_reason: str | None = None
    source: str
    sampler_mode: str | None = None
    sampler_mode_absent_reason: str | None = None
    config_digest: bytes
    sample_hz: int | None = None
    sample_hz_absent_reason: str | None = None
    window_ms: int | None = None
    window_ms_absent_reason: str | None = None
    pane_ms: int | None = None
    pane_ms_absent_reason: str | None = None
    privacy: PrivacyParameters | None = None
    privacy_absent_reason: str | None = None
    clip_ranges: tuple[ClipRange, ...]
    state_grids: tuple[StateGrid, ...]
    gpu_identities_digest: bytes | None = None
    gpu_identities_digest_absent_reason: str | None = None
    beacon: Beacon | None = None
    beacon_absent_reason: str | None = None
    created_at_ms: int
    policy_signers: tuple[bytes, ...]
    core_version: str | None = None
    core_version_absent_reason: str | None = None
    cluster_id: str | None = None
    cluster_id_absent_reason: str | None = None
    topic_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceItem:
    """One piece of attestation evidence."""

    kind: str
    data: bytes
    subject: str | None = None
    subject_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionEvidence:
    """Proof that a session's key lives in measured code on genuine hardware."""

    binding: SessionBinding
    items: tuple[EvidenceItem, ...]
