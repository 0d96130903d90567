"""Outputs that no worker made: any figure, any name, any place."""

from __future__ import annotations

import dataclasses
import hashlib
from types import SimpleNamespace
from typing import Any

from schemas.records import FleetPower, Interval, SignedFleetPower
from schemas.records.output import (
    CodeCount,
    Coverage,
    Dilution,
    EpsilonStatement,
    Forecast,
    Margin,
    OutputSource,
    PowerShare,
    Quantile,
    WorkerIdentity,
)
from stream_jobs.web.judging import Judged

T0 = 1_763_700_000_000
W = 10_000
NOW = T0 + 100 * W


def around(watts: int, half: int = 50_000) -> Interval:
    return Interval(value_w=watts, low_w=watts - half, high_w=watts + half)


def output(
    domain: str = "hall-a",
    window: int = 90,
    *,
    partition: int = 0,
    margin_w: int | None = 400_000,
    limit_w: int = 2_000_000,
    hosts: int = 16,
    refused: dict[str, int] | None = None,
    before: bytes | None = None,
    **changes: Any,
) -> FleetPower:
    """An output in which everything is fine, but for `changes`. Its mean is 100 kW below its p99."""
    p99_w = limit_w - (margin_w or 0)
    made = FleetPower(
        domain=domain,
        window_start_ms=T0 + window * W,
        window_end_ms=T0 + (window + 1) * W,
        revision=0,
        prev_revision_digest_absent_reason="first output of this window",
        prev_output_digest=before,
        prev_output_digest_absent_reason=None if before else "first output",
        classes=(),
        mean=around(p99_w - 100_000),
        quantiles=(
            Quantile(quantile_ppm=500_000, estimate=around(p99_w - 100_000)),
            Quantile(quantile_ppm=990_000, estimate=around(p99_w)),
        ),
        ramps=(),
        margin=Margin(
            limit_w=limit_w,
            quantile_ppm=990_000,
            confidence_ppm=950_000,
            horizon_ms=0,
            margin=None if margin_w is None else around(margin_w),
            margin_absent_reason="too few hosts" if margin_w is None else None,
        ),
        forecasts=tuple(
            Forecast(horizon_ms=at, quantile_ppm=ppm, estimate=around(p99_w - (0 if ppm > 500_000 else 100_000)))
            for at in (1_000, 10_000, 60_000)
            for ppm in (500_000, 990_000)
        ),
        coverage=Coverage(
            enrolled_hosts=16,
            reporting_hosts=hosts,
            enrolled_gpus=128,
            reporting_gpus=8 * hosts,
            enrolled_capacity_w=1_600_000,
            reporting_capacity_w=100_000 * hosts,
            quorum_ppm=800_000,
            quorum_met=hosts >= 13,
        ),
        power_by=(
            PowerShare(
                dimension="first_mile", key="GPU_ATTESTED", simulated=False, hosts=hosts, capacity_w=1, mean_w=p99_w,
                low_w_absent_reason="none", high_w_absent_reason="none",
            ),
        ),
        accepted=hosts,
        late_accepted=0,
        duplicates=0,
        late_refused=0,
        refused=tuple(CodeCount(code=code, count=count) for code, count in (refused or {}).items()),
        flagged=(),
        influence=(),
        synchrony_absent_reason="none",
        dilution=Dilution(
            hosts=16, tenants=2, k_min_hosts=2, k_min_tenants=1, largest_host_share_ppm=62_500,
            largest_tenant_share_ppm=500_000, met=True,
        ),
        privacy=EpsilonStatement(
            mode="EDGE", epsilon_max_micro=1_000_000, w_event_windows=1, w_event_epsilon_max_micro=1_000_000
        ),
        policy_digest=bytes(32),
        policy_counter=1,
        collateral_digest_absent_reason="no collateral is in force",
        core_version="2",
        source=OutputSource(
            topic="enclavescale.window-reports.v1", partition=partition, first_offset=1, close_offset=window,
            close_reason="watermark", gap_ranges=0, gap_records=0, records=16, log_digest=bytes(32),
        ),
        manifest_root=bytes(32),
        refused_root=bytes(32),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def session(*, simulated: bool = False, expires_ms: int = NOW + 365 * 86_400_000) -> Any:
    """What the board reads of a verified session."""
    binding = SimpleNamespace(created_at_ms=T0)
    return SimpleNamespace(root_label="Intel SGX", simulated=simulated, expires_ms=expires_ms, binding=binding)


def judged(made: FleetPower, worker: Any | None = None, *, checked: bool = True, code: str = "") -> Judged:
    """A verified output; unverified with a `code`, or unchecked."""
    digest = hashlib.sha256(repr(made).encode()).digest()
    identity = WorkerIdentity(host_id="aggregator-0", session_id=bytes(32), evidence_absent_reason="a sample")
    signed = SignedFleetPower(output=made, signature=bytes(64), worker=identity)
    verified = (worker or session()) if checked and not code else None
    return Judged(signed=signed, digest=digest, worker=verified, code=code, reason="a sample" if code else "")
