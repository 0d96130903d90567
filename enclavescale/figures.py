"""The demo's summary: what its final JSON says. `docs/operations.md` describes every field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from enclavescale.fleet import SAMPLE_HZ, Fleet
from enclavescale.live import mw, quantile_of
from schemas.records import FleetPower, Interval

Windows = Mapping[tuple[str, int], FleetPower]
P99_PPM = 990_000


def _value(estimate: Interval | None) -> float | None:
    return mw(estimate.value_w) if estimate else None


def _ends(estimate: Interval | None) -> list[float] | None:
    return [mw(estimate.low_w), mw(estimate.high_w)] if estimate else None


def window_rows(fleet: Fleet, newest: Windows, window_ms: int) -> list[dict[str, Any]]:
    """One row per window: what the raw readings say (which no reader of the topics ever sees) and what we said.

    `covered` is None where the output withholds its mean.
    """
    rows = []
    for (domain, start), output in newest.items():
        truth_w = fleet.truth_w(domain, start, start + window_ms)
        inside = None if output.mean is None else bool(output.mean.low_w <= truth_w <= output.mean.high_w)
        rows.append(
            {
                "domain": domain,
                "window_start_ms": start,
                "truth_mw": mw(truth_w),  # not rounded: `covered` must follow from the row itself
                "mean_mw": _value(output.mean),
                "mean_ci_mw": _ends(output.mean),
                "covered": inside,
            }
        )
    return rows


def _domain(domain: str, newest: Windows, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Figures of a domain's last window."""
    output = newest[max(key for key in newest if key[0] == domain)]
    margin = output.margin.margin
    mine = [row for row in rows if row["domain"] == domain]
    return {
        "mean_mw": _value(output.mean),
        "mean_ci_mw": _ends(output.mean),
        "truth_mw": mine[-1]["truth_mw"],
        "p99_mw": _value(quantile_of(output, P99_PPM)),
        "limit_mw": mw(output.margin.limit_w),
        "margin_mw": _value(margin),
        "margin_ci_mw": _ends(margin),
        "margin_absent_reason": output.margin.margin_absent_reason,
        "windows": len(mine),
        "covered": sum(row["covered"] is True for row in mine),
    }


def summary(
    fleet: Fleet, newest: Windows, rows: list[dict[str, Any]], refused: Mapping[str, int], elapsed_s: float
) -> dict[str, Any]:
    """Everything but what the demo knows of itself (brokers, attackers)."""
    accepted = sum(output.accepted for output in newest.values())
    samples = sum(
        output.coverage.reporting_gpus * SAMPLE_HZ * (output.window_end_ms - output.window_start_ms) // 1000
        for output in newest.values()
    )
    return {
        "windows": len(newest),
        "reports": accepted + sum(refused.values()),
        "samples": samples,
        "hosts": len(fleet.hosts),
        "gpus": sum(one.gpus for host in fleet.policy.hosts for one in host.classes),
        "accepted": accepted,
        "refused": dict(sorted(refused.items())),
        "domains": {rule.domain: _domain(rule.domain, newest, rows) for rule in fleet.policy.domains},
        "samples_per_s": round(samples / max(elapsed_s, 1e-3), 1),
        "elapsed_s": round(elapsed_s, 2),
        "interval_95": {
            "windows": sum(row["covered"] is not None for row in rows),
            "covered": sum(row["covered"] is True for row in rows),
        },
    }
