"""Seal: a window's private statistics become a signed, chained record. The noise is final from here on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Protocol

from producers.config import ClassProfile, HostProfile, Schedule, check_binding, session_facts
from producers.distil import Gaps
from producers.privatise import NOT_IN_BUDGET, Noisy
from producers.sample.source import NO_CONDITIONS, Conditions
from schemas.codec import SINGLE_OBJECT, Framing, encode_body, encode_signed_record, record_digest, record_preimage
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.records import (
    ConfidentialCompute,
    GpuClass,
    PrivacyParameters,
    SensorFlag,
    SessionBinding,
    SessionEvidence,
    WindowReport,
)


class Session(Protocol):
    """A key in an enclave, what it is bound to and the evidence for it (`attester.session.Session`)."""

    @property
    def session_id(self) -> bytes:
        """SHA-256 of the binding's pre-image, 32 bytes."""

    @property
    def binding(self) -> SessionBinding:
        """What the key stands for."""

    @property
    def evidence(self) -> SessionEvidence:
        """The evidence to publish with a record."""

    def sign(self, preimage: bytes) -> bytes:
        """Return the 64-byte ECDSA P-256 signature, low s."""


@dataclass(frozen=True, slots=True)
class ClassWindow:
    """One GPU class in one window: who it is, how many readings were taken, what is released, what else is public."""

    profile: ClassProfile
    readings_taken: int
    noisy: Noisy
    conditions: Conditions = NO_CONDITIONS


@dataclass(frozen=True, slots=True)
class SealedReport:
    """Final bytes of one report. `digest` identifies it; `value` is the framed Kafka value."""

    host_id: str
    domain: str
    seq: int
    digest: bytes
    window_start_ms: int
    window_end_ms: int
    value: bytes
    has_evidence: bool


class Sealer:
    """Signs the reports of one host in one session, in order.

    `last_digest` is the newest digest the spool knows of this host (None on a new host): the first report of the
    session names it, so that a restart shows whether reports were lost. Evidence rides on the first report and every
    `evidence_interval` windows, also where windows were slept through. Raises `ConfigError` if the session is bound to
    another configuration.
    """

    def __init__(
        self,
        session: Session,
        profile: HostProfile,
        schedule: Schedule,
        privacy: PrivacyParameters,
        *,
        last_digest: bytes | None,
        evidence_interval: int = 10,
        framing: Framing = SINGLE_OBJECT,
    ) -> None:
        check_binding(session.binding, session_facts(profile, schedule, privacy))
        self._session = session
        self._profile = profile
        self._schedule = schedule
        self._privacy = privacy
        self._framing = framing
        self._interval = max(evidence_interval, 1)
        self._previous = last_digest
        self._seq = 0
        self._evidence_due = 0
        self._evidence_due_ms = 0

    def require_evidence(self) -> None:
        """Attach evidence to the next report: the report that carried it was lost."""
        self._evidence_due = self._seq

    @property
    def last_digest(self) -> bytes | None:
        """Digest of the newest report of the chain; what the next session's first report must name."""
        return self._previous

    def seal(
        self,
        start_ms: int,
        classes: tuple[ClassWindow, ...],
        seen: Gaps,
        dropped: int,
        confidential_compute: ConfidentialCompute | None = None,
    ) -> SealedReport:
        """Sign the window that begins at `start_ms`; `dropped` = reports lost from the spool so far.

        `confidential_compute` is what was read in this window; None: the profile's.
        """
        stated = confidential_compute or self._profile.confidential_compute
        report = self._report(start_ms, classes, seen, dropped, stated)
        body = encode_body(report)
        preimage = record_preimage(body)
        digest = record_digest(preimage)
        due = self._seq >= self._evidence_due or start_ms >= self._evidence_due_ms
        evidence = self._session.evidence if due else None
        value = encode_signed_record(body, self._session.sign(preimage), evidence, self._framing)
        if evidence is not None:
            self._evidence_due = self._seq + self._interval
            self._evidence_due_ms = start_ms + self._interval * self._schedule.window_ms
        sealed = SealedReport(
            host_id=report.host_id,
            domain=report.domain,
            seq=self._seq,
            digest=digest,
            window_start_ms=start_ms,
            window_end_ms=report.window_end_ms,
            value=value,
            has_evidence=evidence is not None,
        )
        self._previous = digest
        self._seq += 1
        return sealed

    def _report(
        self, start_ms: int, classes: tuple[ClassWindow, ...], seen: Gaps, dropped: int, stated: ConfidentialCompute
    ) -> WindowReport:
        profile, schedule = self._profile, self._schedule
        ordered = sorted(classes, key=lambda c: (c.profile.model, c.profile.source.sampler_mode))
        return WindowReport(
            host_id=profile.host_id,
            domain=profile.domain,
            session_id=self._session.session_id,
            seq=self._seq,
            prev_digest=self._previous,
            prev_digest_absent_reason="first_record" if self._previous is None else None,
            window_start_ms=start_ms,
            window_end_ms=start_ms + schedule.window_ms,
            pane_ms=schedule.pane_ms,
            sample_hz=schedule.sample_hz,
            samples_scheduled=schedule.ticks,
            samples_taken=seen.samples_taken,
            stalls_coarse=seen.stalls_coarse,
            classes=tuple(_gpu_class(item) for item in ordered),
            privacy=self._privacy,
            first_mile=profile.first_mile,
            confidential_compute=stated,
            source=ordered[0].profile.source.kind,
            dropped_reports=dropped,
            sensor_flags=_flags(seen, ordered),
            group_label=profile.group_label,
            group_label_absent_reason="not_configured" if profile.group_label is None else None,
            agent_version=agent_version(),
        )


@cache
def agent_version() -> str:
    """Version of the installed package, "unknown" when run from a bare checkout."""
    try:
        return version("enclavescale")
    except PackageNotFoundError:
        return "unknown"


def _gpu_class(item: ClassWindow) -> GpuClass:
    profile, noisy, counts = item.profile, item.noisy, item.noisy.histogram
    limit = profile.enforced_limit_w if item.conditions.enforced_limit_w is None else item.conditions.enforced_limit_w
    return GpuClass(
        model=profile.model,
        sampler_mode=profile.source.sampler_mode,
        gpus=profile.source.gpus,
        capacity_w=profile.capacity_w,
        enforced_limit_w=limit,
        enforced_limit_w_absent_reason="not_reported_by_source" if limit is None else None,
        readings_taken=item.readings_taken,
        edges_w=profile.edges_w,
        transitions=noisy.transitions.astype("<i4").tobytes(),
        transitions_shape=noisy.transitions.shape,
        pane_sums=noisy.pane_sums.astype("<i4").tobytes(),
        pane_sums_shape=noisy.pane_sums.shape,
        pane_sum_quantum_mw=PANE_SUM_QUANTUM_MW,
        clip_low_w=profile.clip_low_w,
        clip_high_w=profile.clip_high_w,
        histogram=None if counts is None else counts.astype("<i4").tobytes(),
        histogram_absent_reason=NOT_IN_BUDGET if counts is None else None,
        histogram_shape=() if counts is None else counts.shape,
        energy_residual_mj=noisy.energy_residual_mj,
        energy_residual_mj_absent_reason=noisy.energy_absent_reason,
    )


def _flags(seen: Gaps, classes: Sequence[ClassWindow]) -> tuple[SensorFlag, ...]:
    """One flag per condition, sorted by name; a GPU that was silent all through is lost, whoever noticed it."""
    found: Counter[str] = Counter()
    for item in classes:
        found.update(dict(item.conditions.flags))
    found["gap"] = seen.gpus_with_gaps - seen.gpus_silent
    found["gpu_lost"] = max(found["gpu_lost"], seen.gpus_silent)
    return tuple(SensorFlag(flag=name, gpus=gpus) for name, gpus in sorted(found.items()) if gpus)
