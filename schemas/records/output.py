"""Output records: the fleet-power topic. Field docs are in `avsc/SignedFleetPower.v1.avsc`."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records.session import SessionEvidence


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputClass:
    """Integer sums and derived chain of one GPU class over the accepted hosts."""

    model: str
    sampler_mode: str
    edges_w: tuple[int, ...]
    hosts: int
    gpus: int
    capacity_w: int
    enrolled_capacity_w: int
    readings_taken: int
    transitions_sum: bytes
    transitions_shape: tuple[int, ...]
    pane_sums_sum: bytes
    pane_sums_shape: tuple[int, ...]
    pane_sum_quantum_mw: int
    transitions_noise_variance_micro: int
    pane_noise_variance_w2: int
    histogram_sum: bytes | None = None
    histogram_sum_absent_reason: str | None = None
    transition_matrix_ppm: bytes
    stationary_ppm: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A derived figure with its 95 % interval."""

    value_w: int
    low_w: int
    high_w: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A quantile of the domain's power over the window at the sampling rate."""

    quantile_ppm: int
    estimate: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Ramp:
    """Change of power per second that one in a hundred seconds of the window exceeds, noise subtracted."""

    direction: str
    rate_w_per_s: int | None = None
    rate_w_per_s_absent_reason: str | None = None
    low_w_per_s: int | None = None
    low_w_per_s_absent_reason: str | None = None
    high_w_per_s: int | None = None
    high_w_per_s_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Quantile of the power some time after the window's end."""

    horizon_ms: int
    quantile_ppm: int
    estimate: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Margin:
    """What is left below the domain's limit."""

    limit_w: int
    quantile_ppm: int
    confidence_ppm: int
    horizon_ms: int
    margin: Interval | None = None
    margin_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """How much of the enrolled domain the figures rest on."""

    enrolled_hosts: int
    reporting_hosts: int
    enrolled_gpus: int
    reporting_gpus: int
    enrolled_capacity_w: int
    reporting_capacity_w: int
    quorum_ppm: int
    quorum_met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerShare:
    """Mean power by one dimension."""

    dimension: str
    key: str
    simulated: bool
    hosts: int
    capacity_w: int
    mean_w: int
    low_w: int | None = None
    low_w_absent_reason: str | None = None
    high_w: int | None = None
    high_w_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeCount:
    """Number of records with one code."""

    code: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerResult:
    """What one check of the outlier layers found among the accepted reports of this revision."""

    layer: str
    code: str
    hosts: int
    capacity_w: int
    honest_rate_pico: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """Hosts of one class whose claims count only in part: the rest is their own history's level."""

    model: str
    sampler_mode: str
    code: str
    hosts: int
    gpus: int
    capacity_w: int
    readings_taken: int
    pane_sums_sum: bytes
    claimed_w: int
    reference_w: int
    weight_ppm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Synchrony:
    """How far the domain swings in step."""

    groups: int
    grouped_capacity_ppm: int
    largest_group_ppm: int
    slow_w: int
    fast_w: int
    lag_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Influence:
    """Largest effect a liar can have on this output."""

    subject: str
    mean_w: int | None = None
    mean_w_absent_reason: str | None = None
    margin_w: int | None = None
    margin_w_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Dilution:
    """How many hosts and tenants hide each other."""

    hosts: int
    tenants: int
    k_min_hosts: int
    k_min_tenants: int
    largest_host_share_ppm: int
    largest_tenant_share_ppm: int
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonStatement:
    """Privacy spent in this window."""

    mode: str
    epsilon_max_micro: int
    w_event_windows: int
    w_event_epsilon_max_micro: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSource:
    """Where in the log this output comes from."""

    topic: str
    partition: int
    first_offset: int | None = None
    first_offset_absent_reason: str | None = None
    close_offset: int
    close_reason: str
    gap_ranges: int
    gap_records: int
    records: int
    log_digest: bytes | None = None
    log_digest_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetPower:
    """Power, swing and margin of one domain in one window."""

    domain: str
    window_start_ms: int
    window_end_ms: int
    revision: int
    prev_revision_digest: bytes | None = None
    prev_revision_digest_absent_reason: str | None = None
    prev_output_digest: bytes | None = None
    prev_output_digest_absent_reason: str | None = None
    classes: tuple[OutputClass, ...]
    mean: Interval | None = None
    mean_absent_reason: str | None = None
    quantiles: tuple[Quantile, ...]
    ramps: tuple[Ramp, ...]
    margin: Margin
    forecasts: tuple[Forecast, ...]
    coverage: Coverage
    power_by: tuple[PowerShare, ...]
    accepted: int
    late_accepted: int
    duplicates: int
    late_refused: int
    refused: tuple[CodeCount, ...]
    flagged: tuple[CodeCount, ...]
    layers: tuple[LayerResult, ...] = ()
    set_aside: tuple[SetAside, ...] = ()
    synchrony: Synchrony | None = None
    synchrony_absent_reason: str | None = None
    history_windows: int = 0
    influence: tuple[Influence, ...]
    dilution: Dilution
    privacy: EpsilonStatement
    policy_digest: bytes
    policy_counter: int
    collateral_digest: bytes | None = None
    collateral_digest_absent_reason: str | None = None
    core_version: str
    source: OutputSource
    manifest_root: bytes | None = None
    manifest_root_absent_reason: str | None = None
    refused_root: bytes | None = None
    refused_root_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerIdentity:
    """Who computed it; outside the compared bytes."""

    host_id: str
    session_id: bytes
    evidence: SessionEvidence | None = None
    evidence_absent_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFleetPower:
    """The value of the output topic. signature covers the bytes of output as received."""

    output: FleetPower
    signature: bytes
    worker: WorkerIdentity
