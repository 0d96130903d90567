"""The one place where the benchmark meets the core: reports in, `FleetPower` out.

`CoreFleet` keeps what a domain keeps between windows, so that windows of one trial must be given in order.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from enclavescale.bench.trace_fleet import TraceFleet, TraceHost
from producers.config import ClassProfile, Schedule
from producers.distil import Distilled
from producers.privatise import NOT_IN_BUDGET
from producers.sample.source import NO_CONDITIONS, Conditions, Readings
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.records import (
    ClassEnrolment,
    ConfidentialCompute,
    DomainRule,
    FleetPower,
    GpuClass,
    HostEnrolment,
    Limits,
    ModelRule,
    Policy,
    PrivacyParameters,
    SessionBinding,
    WindowReport,
)
from stream_jobs.core.aggregate import add_report
from stream_jobs.core.emit import emission
from stream_jobs.core.history import Histories
from stream_jobs.core.influence import host_bounds_w
from stream_jobs.core.policies import CORE_VERSION, PolicyView
from stream_jobs.core.reject import judge
from stream_jobs.core.windows import Tally, Window

DOMAIN, TENANTS = "bench", 4
HISTOGRAM = "histogram"
START_MS = 1_767_225_600_000
SAMPLER_MODES = {"instant": "instant", "average": "average"}
"""Sampler mode in reports by the kind of reading of a trace; what is unknown is `legacy`."""


@dataclass(frozen=True, slots=True)
class TraceReadings:
    """What a class profile asks of its source; the readings themselves come from the fleet."""

    gpus: int
    sampler_mode: str
    kind: str = "trace"

    def window(self, start_ms: int, end_ms: int) -> Readings:
        """A fleet gives readings by tick. Raises `NotImplementedError`."""
        raise NotImplementedError

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        """Nothing is known beside the readings."""
        return NO_CONDITIONS


@dataclass(frozen=True, slots=True)
class _Proven:
    """What the core reads of a verified session; figures rest on no binding."""

    binding: SessionBinding
    root_label: str = "simulated"
    simulated: bool = True
    first_mile: str = "NONE"
    valid_from_ms: int = 0
    expires_ms: int = 2**62
    subjects: tuple[tuple[str, str], ...] = ()


_PROVEN = _Proven(cast(SessionBinding, None))


@dataclass(frozen=True, slots=True)
class HostReport:
    """Statistics of one host and window as they leave it, noisy or not, and the statement that says how noisy.

    `histogram`: None where the statement releases none.
    """

    transitions: npt.NDArray[np.int64]
    pane_sums: npt.NDArray[np.int64]
    readings_taken: int
    privacy: PrivacyParameters
    histogram: npt.NDArray[np.int64] | None = None


def profile_of(host: TraceHost, rule: ModelRule) -> ClassProfile:
    """The host's one GPU class as enrolled."""
    return ClassProfile(
        model=rule.model,
        capacity_w=host.rows.size * host.trace.tdp_w,
        edges_w=rule.edges_w,
        clip_low_w=rule.clip_low_w,
        clip_high_w=rule.clip_high_w,
        source=TraceReadings(host.rows.size, SAMPLER_MODES.get(host.trace.mode, "legacy")),
    )


def exact_report(exact: Distilled, privacy: PrivacyParameters) -> HostReport:
    """A report without noise; `privacy` must say so."""
    return HostReport(
        exact.transitions,
        exact.pane_sums,
        exact.readings_taken,
        privacy,
        exact.histogram if releases(privacy, HISTOGRAM) else None,
    )


def releases(privacy: PrivacyParameters, release: str) -> bool:
    """Whether the statement names the release."""
    return any(one.release == release for one in privacy.releases)


class CoreFleet:
    """One domain of the core: windows of a fleet's reports become outputs.

    `profiles`: the hosts' classes as enrolled; `view`, `rule`: policy and domain rule, with the fields in
    `rule_changes` other than the bench's own.
    """

    def __init__(self, fleet: TraceFleet, schedule: Schedule, *, labels: bool = False, **rule_changes: Any) -> None:
        rules = {rule.model: rule for rule in fleet.rules}
        self.profiles = tuple(profile_of(host, rules[host.trace.model]) for host in fleet.hosts)
        self._labels = tuple(host.group if labels else None for host in fleet.hosts)
        self._schedule = schedule
        self.view = _view(self.profiles, fleet, schedule, rule_changes)
        self.rule = self.view.domains[DOMAIN]
        self._number = 0
        self._digest: bytes | None = None
        self._histories = Histories()
        self._window: Window | None = None

    def fork(self) -> CoreFleet:
        """Another core with the same past, whose windows go on independently."""
        other = copy.copy(self)
        other._histories = copy.deepcopy(self._histories)
        return other

    def output(self, reports: Sequence[HostReport | None]) -> FleetPower:
        """Close the next window on one report per host, in the fleet's order; None: the host did not report."""
        start_ms = START_MS + self._number * self._schedule.window_ms
        window = Window(start_ms, start_ms + self._schedule.window_ms, self.view, self.rule)
        for index, report in enumerate(reports):
            if report is None:
                continue
            body, stated = self.statement(index, report)
            add_report(
                window,
                body,
                [stated],
                self.view.hosts[body.host_id],
                _PROVEN,
                digest=hashlib.sha256(b"%d/%d" % (self._number, index)).digest(),
                offset=self._number * len(reports) + index,
                flags=(),
            )
        self._window = window
        self._histories.close(window)
        self._histories.forget(start_ms - self.rule.history_windows * self.rule.window_ms)
        made = emission(
            window,
            Tally(),
            topic="bench",
            partition=0,
            close_offset=(self._number + 1) * len(reports),
            close_reason="watermark",
            prev_output=self._digest,
        )
        self._number += 1
        self._digest = made.digest
        return made.output

    def host_bounds_w(self) -> list[tuple[float, float]]:
        """Influence bounds of every host on mean and margin of the last window, W, in the fleet's order."""
        if self._window is None:
            return []
        bounds = host_bounds_w(self._window, judge(self._window))
        return [bounds[host_id(index)] for index in range(len(self.profiles))]

    def statement(self, index: int, report: HostReport) -> tuple[WindowReport, GpuClass]:
        """What host `index` states in the next window."""
        start_ms = START_MS + self._number * self._schedule.window_ms
        profile, schedule = self.profiles[index], self._schedule
        stated = GpuClass(
            model=profile.model,
            sampler_mode=profile.source.sampler_mode,
            gpus=profile.source.gpus,
            capacity_w=profile.capacity_w,
            enforced_limit_w_absent_reason="not_reported_by_source",
            readings_taken=report.readings_taken,
            edges_w=profile.edges_w,
            transitions=report.transitions.astype("<i4").tobytes(),
            transitions_shape=report.transitions.shape,
            pane_sums=report.pane_sums.astype("<i4").tobytes(),
            pane_sums_shape=report.pane_sums.shape,
            pane_sum_quantum_mw=PANE_SUM_QUANTUM_MW,
            clip_low_w=profile.clip_low_w,
            clip_high_w=profile.clip_high_w,
            histogram=None if report.histogram is None else report.histogram.astype("<i4").tobytes(),
            histogram_absent_reason=NOT_IN_BUDGET if report.histogram is None else None,
            histogram_shape=() if report.histogram is None else report.histogram.shape,
            energy_residual_mj_absent_reason="no_counter",
        )
        label = self._labels[index]
        body = WindowReport(
            host_id=host_id(index),
            domain=DOMAIN,
            session_id=hashlib.sha256(host_id(index).encode()).digest(),
            seq=self._number,
            prev_digest_absent_reason="not kept by the benchmark",
            window_start_ms=start_ms,
            window_end_ms=start_ms + schedule.window_ms,
            pane_ms=schedule.pane_ms,
            sample_hz=schedule.sample_hz,
            samples_scheduled=schedule.ticks,
            samples_taken=schedule.ticks,
            stalls_coarse=0,
            classes=(stated,),
            privacy=report.privacy,
            first_mile="NONE",
            confidential_compute=ConfidentialCompute(),
            source="trace",
            dropped_reports=0,
            sensor_flags=(),
            group_label=label,
            group_label_absent_reason="not_configured" if label is None else None,
            agent_version="bench",
        )
        return body, stated


def host_id(index: int) -> str:
    """Identity of a host by its place in the fleet."""
    return f"host{index:05d}"


def _view(
    profiles: Sequence[ClassProfile], fleet: TraceFleet, schedule: Schedule, rule_changes: Mapping[str, Any]
) -> PolicyView:
    hosts = tuple(
        HostEnrolment(
            host_id=host_id(index),
            domain=DOMAIN,
            tenant=f"tenant-{index % TENANTS}",
            failure_domain=f"rack-{index // TENANTS}",
            platform_ids=(),
            gpu_key_digests=(),
            classes=(ClassEnrolment(model=one.model, gpus=one.source.gpus, capacity_w=one.capacity_w),),
        )
        for index, one in enumerate(profiles)
    )
    rule = DomainRule(
        domain=DOMAIN,
        partition=0,
        limit_w=fleet.capacity_w,
        window_ms=schedule.window_ms,
        pane_ms=schedule.pane_ms,
        grace_ms=0,
        quantile_ppm=990_000,
        confidence_ppm=950_000,
        horizon_ms=0,
        quorum_ppm=0,
        k_min_hosts=1,
        k_min_tenants=1,
    )
    rule = replace(rule, **rule_changes)
    limits = Limits(
        lateness_ms=10 * schedule.window_ms,
        max_idle_ms=10 * schedule.window_ms,
        evidence_interval_windows=10,
        clock_skew_tolerance_ms=1_000,
        evidence_checks_per_window=64,
        max_epsilon_micro=1_000_000_000,
        max_control_age_ms=60_000,
    )
    policy = Policy(
        version=1,
        counter=1,
        issued_at_ms=0,
        effective_from_ms=0,
        not_after_ms=2**62,
        core_version=CORE_VERSION,
        accepted_sources=("trace",),
        accepted_sampler_modes=("instant", "average", "legacy"),
        min_first_mile="NONE",
        sample_hz=schedule.sample_hz,
        domains=(rule,),
        hosts=hosts,
        aggregators=(),
        models=fleet.rules,
        measurements=(),
        trust_roots=(),
        tcb_rules=(),
        limits=limits,
        unsafe_allow_unevaluated_tcb=True,
        unsafe_allow_unenrolled_platform=True,
        unsafe_allow_create_time=True,
    )
    return PolicyView(policy, hashlib.sha256(b"bench policy").digest())
