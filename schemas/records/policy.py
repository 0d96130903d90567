"""Policy records: what is trusted, enrolled and demanded. Field docs are in `avsc/SignedPolicy.v1.avsc`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassEnrolment:
    """GPUs of one model enrolled on a host."""

    model: str
    gpus: int
    capacity_w: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEnrolment:
    """A host and what it may claim."""

    host_id: str
    domain: str
    tenant: str
    failure_domain: str
    platform_ids: tuple[str, ...]
    gpu_key_digests: tuple[str, ...]
    classes: tuple[ClassEnrolment, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorEnrolment:
    """An aggregator allowed to write control records and outputs."""

    host_id: str
    platform_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainRule:
    """One power domain."""

    domain: str
    partition: int
    limit_w: int
    window_ms: int
    pane_ms: int
    grace_ms: int
    quantile_ppm: int
    confidence_ppm: int
    horizon_ms: int
    quorum_ppm: int
    k_min_hosts: int
    k_min_tenants: int
    max_colluding_ppm: int = 250_000
    drift_cap_ppm: int = 7_500
    history_windows: int = 30
    forecast_horizons_ms: tuple[int, ...] = (1_000, 10_000, 60_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRule:
    """What is fixed per GPU model."""

    model: str
    edges_w: tuple[int, ...]
    clip_low_w: int
    clip_high_w: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterRule:
    """One measured register."""

    register: str
    value: bytes
    mask: bytes | None = None
    mask_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """Measured code that is trusted."""

    label: str
    role: str
    tee: str
    registers: tuple[RegisterRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRoot:
    """A root of trust."""

    label: str
    tee: str
    certificate_der: bytes
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbRule:
    """What a platform's TCB must be."""

    tee: str
    accepted_statuses: tuple[str, ...]
    grace_days: int
    allowed_advisories: tuple[str, ...]
    min_tcb_evaluation_number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Numbers that bound state and work."""

    lateness_ms: int
    max_idle_ms: int
    evidence_interval_windows: int
    clock_skew_tolerance_ms: int
    evidence_checks_per_window: int
    max_epsilon_micro: int
    max_control_age_ms: int
    max_beacon_age_ms: int | None = None
    max_beacon_age_ms_absent_reason: str | None = None
    max_collateral_age_ms: int | None = None
    max_collateral_age_ms_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedSubject:
    """What is trusted no longer, not even in windows that may still be revised."""

    kind: str
    id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is trusted, enrolled and demanded."""

    version: int
    counter: int
    issued_at_ms: int
    effective_from_ms: int
    not_after_ms: int
    core_version: str
    accepted_sources: tuple[str, ...]
    accepted_sampler_modes: tuple[str, ...]
    min_first_mile: str
    sample_hz: int
    domains: tuple[DomainRule, ...]
    hosts: tuple[HostEnrolment, ...]
    aggregators: tuple[AggregatorEnrolment, ...]
    models: tuple[ModelRule, ...]
    measurements: tuple[Measurement, ...]
    trust_roots: tuple[TrustRoot, ...]
    tcb_rules: tuple[TcbRule, ...]
    limits: Limits
    unsafe_allow_unevaluated_tcb: bool
    unsafe_allow_unenrolled_platform: bool
    unsafe_allow_create_time: bool
    revoked: tuple[RevokedSubject, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPolicy:
    """The value of the policy topic."""

    policy: Policy
    signature: bytes
    signer_public_key: bytes
