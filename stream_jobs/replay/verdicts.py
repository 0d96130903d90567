"""What a replay says: a verdict per window, findings that name a place, totals. Plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.records import FleetPower
from stream_jobs.replay.met import SessionFacts


class Verdict(StrEnum):
    """What became of one output."""

    IDENTICAL = "identical"
    DIFFERS = "differs"
    MISSING = "missing"
    EXTRA = "extra"
    INPUT_LOST = "input lost"
    PENDING = "pending"


class Severity(StrEnum):
    """`ALARM`: something was altered, forged or left out. `NOTICE`: a run without fault may show it, too."""

    ALARM = "alarm"
    NOTICE = "notice"


CODES = {
    "OUTPUT_INVALID": "No attested worker signed this record: see who may write to the output topic.",
    "OUTPUT_EXTRA": "A worker signed an output that does not follow from the log: keep it, and the log, as evidence.",
    "OUTPUT_EQUIVOCATION": "Two different outputs for one window and revision, both signed: keep both as evidence.",
    "MANIFEST_INVALID": "No attested worker signed this record: see who may write to the manifests topic.",
    "MANIFEST_DIFFERS": "A signed manifest that does not follow from the log: keep it, and the log, as evidence.",
    "MANIFEST_UNPROVEN": "Its session signed no output here, so its signature cannot be checked; a worker that ended "
    "between the two leaves such a record. Another copy is what counts.",
    "DEAD_LETTER_MISSING": "A record is refused, and the rejections topic does not have it: compare its retention.",
    "DEAD_LETTER_PENDING": "A record at the log's end is refused, and its dead letter is not there yet: replay again.",
    "DEAD_LETTER_DIFFERS": "The dead letter is not the record that was refused: one of the two was altered.",
    "DEAD_LETTER_EXTRA": "A dead letter of a record that is not refused, or of none: see who may write to the topic.",
    "POLICY_REFUSED": "A record of the policy topic that no worker may follow; its own code says why.",
    "BEACON_REFUSED": "A record of the beacons topic that no attested worker signed.",
    "BEACON_UNPROVEN": "Its session signed nothing in this range: replay a longer one to check its signature.",
    "COLLATERAL_REFUSED": "A record of the collateral topic that is not what its key says.",
    "ENVELOPE_DIFFERS": "Key or headers are not those that belong to the record: they were altered on the way.",
    "RECORD_ALTERED": "The record is not the one that the worker read: its digest in the signed manifest differs.",
    "UNSIGNED_TEXT": "Text that no signature covers is not what our programs write: it may have been altered.",
    "EVIDENCE_IGNORED": "Evidence that does not verify came with a report whose session stands on other evidence.",
    "EVIDENCE_VARIES": "Two different copies of one session's evidence: one may have been altered.",
    "TIME_BACKWARDS": "The append time is before that of an earlier record: compare the brokers' clocks.",
    "CORE_DIFFERS": "Another version of the core made these outputs: replay them with the release that has it.",
    "EVIDENCE_ENDED": "Evidence that held at its time is past its validity now.",
    "POLICY_ENDED": "A policy that held at its time is past its not_after now.",
    "COLLATERAL_ENDED": "An item of collateral is past its next update now.",
}
"""Codes of findings, each with what to do."""

MAX_TEXT = 240
"""Longest value shown of a field that differs, characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something about one record that a person must see. `offset` -1: about the topic."""

    code: str
    severity: Severity
    topic: str
    partition: int
    offset: int
    message: str
    domain: str | None = None
    window_start_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One field, as published and as computed: JSON texts, cut at `MAX_TEXT`. `field`: dotted path."""

    field: str
    published: str
    computed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What an output says, for plots and tables. Powers in W, shares in ppm, `epsilon_micro` in millionths."""

    window_end_ms: int
    mean_w: tuple[int, int, int] | None
    margin_w: tuple[int, int, int] | None
    limit_w: int
    reporting_capacity_w: int
    enrolled_capacity_w: int
    reporting_hosts: int
    enrolled_hosts: int
    quorum_met: bool
    accepted: int
    refused: tuple[tuple[str, int], ...]
    epsilon_micro: int
    policy_counter: int
    policy_digest: str
    simulated_w: int
    mean_absent_reason: str | None
    margin_absent_reason: str | None
    quorum_ppm: int
    late_accepted: int
    privacy_mode: str
    w_event_windows: int
    w_event_epsilon_micro: int
    tenants: int
    k_min_hosts: int
    k_min_tenants: int
    largest_host_share_ppm: int
    largest_tenant_share_ppm: int
    dilution_met: bool
    collateral_digest: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowVerdict:
    """The verdict on one output: of a domain's window and revision.

    `offset`: where it stands on the output topic, None where it does not; `close_offset`: of the record that closed the
    window; digests are hexadecimal; `worker`: host_id of who signed it. Of a record that cannot be decoded only its
    place is known: domain and window are None.
    """

    verdict: Verdict
    domain: str | None
    window_start_ms: int | None
    revision: int | None
    partition: int
    offset: int | None = None
    close_offset: int | None = None
    published_digest: str | None = None
    computed_digest: str | None = None
    worker: str | None = None
    message: str = ""
    differences: tuple[Difference, ...] = ()
    figures: Figures | None = None


@dataclass(slots=True, kw_only=True)
class PartitionResult:
    """One partition of the reports topic: totals. `first_offset`, `end_offset`: what was read of it.

    `attempts`: begins, each further back than the one before. `sessions`: public keys (65 bytes) of the workers met, by
    session id. `log_start`: first offset that is still there. `met`: facts of every session whose evidence was met;
    `met_left_out`: copies of evidence of sessions beyond those.
    """

    partition: int
    first_offset: int = 0
    end_offset: int = 0
    log_start: int = 0
    attempts: int = 0
    records: int = 0
    bytes_read: int = 0
    outputs: int = 0
    manifests: int = 0
    dead_letters: int = 0
    evidence: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    alarms: int = 0
    notices: int = 0
    sessions: dict[bytes, bytes] = field(default_factory=dict)
    met: list[SessionFacts] = field(default_factory=list)
    met_left_out: int = 0


def figures_of(output: FleetPower) -> Figures:
    """The figures of an output."""
    margin = output.margin.margin
    return Figures(
        window_end_ms=output.window_end_ms,
        mean_w=None if output.mean is None else (output.mean.value_w, output.mean.low_w, output.mean.high_w),
        margin_w=None if margin is None else (margin.value_w, margin.low_w, margin.high_w),
        limit_w=output.margin.limit_w,
        reporting_capacity_w=output.coverage.reporting_capacity_w,
        enrolled_capacity_w=output.coverage.enrolled_capacity_w,
        reporting_hosts=output.coverage.reporting_hosts,
        enrolled_hosts=output.coverage.enrolled_hosts,
        quorum_met=output.coverage.quorum_met,
        accepted=output.accepted,
        refused=tuple((one.code, one.count) for one in output.refused),
        epsilon_micro=output.privacy.epsilon_max_micro,
        policy_counter=output.policy_counter,
        policy_digest=output.policy_digest.hex(),
        simulated_w=sum(one.mean_w for one in output.power_by if one.dimension == "root" and one.simulated),
        mean_absent_reason=output.mean_absent_reason,
        margin_absent_reason=output.margin.margin_absent_reason,
        quorum_ppm=output.coverage.quorum_ppm,
        late_accepted=output.late_accepted,
        privacy_mode=output.privacy.mode,
        w_event_windows=output.privacy.w_event_windows,
        w_event_epsilon_micro=output.privacy.w_event_epsilon_max_micro,
        tenants=output.dilution.tenants,
        k_min_hosts=output.dilution.k_min_hosts,
        k_min_tenants=output.dilution.k_min_tenants,
        largest_host_share_ppm=output.dilution.largest_host_share_ppm,
        largest_tenant_share_ppm=output.dilution.largest_tenant_share_ppm,
        dilution_met=output.dilution.met,
        collateral_digest=None if output.collateral_digest is None else output.collateral_digest.hex(),
    )


def jsonable(value: Any) -> Any:
    """A verdict, finding or result as JSON takes it; bytes become hexadecimal."""
    if isinstance(value, Counter):
        return dict(sorted(value.items()))
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple | list):
        return [jsonable(one) for one in value]
    if isinstance(value, dict):
        return {jsonable(name): jsonable(one) for name, one in value.items()}
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is not None:
        return {name: jsonable(getattr(value, name)) for name in fields}
    return str(value) if isinstance(value, StrEnum) else value
