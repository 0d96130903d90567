"""The screen of `enclavescale bench host`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from enclavescale.screen_parts import BAD, GOOD, NONE, QUIET, Row, block

GOAL_SAMPLES_PER_S, GOAL_CPU_PERCENT, GOAL_RSS_MIB, GOAL_JITTER_MS = 1_500_000, 1.0, 120.0, 5.0
"""What the host side is held to: on one core; at 8 GPUs and 10 Hz."""
GOAL_ENERGY_PERCENT = 1.0


def bench_screen(result: Mapping[str, Any]) -> RenderableType:
    """What was measured beside what is wanted."""
    stages = result["stages_us"]
    rate, paper = result["samples_per_s"], result["paper_samples_per_s"]
    shape = f"{result['gpus']} GPUs × {result['sample_hz']} Hz, {result['window_ms'] // 1000}-s windows"
    seal = f"  (encode {stages['encode']:,.0f}, sign {stages['sign']:,.0f})"
    rows: list[Row] = [
        ("on one core", _against(f"{rate:,} samples/s", rate >= GOAL_SAMPLES_PER_S, f"≥ {GOAL_SAMPLES_PER_S:,}")),
        ("", Text(f"{rate / paper:,.1f} × the paper's enclave ({paper:,})", QUIET)),
        ("a report", f"{result['report_us']:,.0f} µs for {result['samples_per_report']:,} samples: {shape}"),
        *((stage, f"{stages[stage]:,.0f} µs") for stage in ("distil", "gaps", "privatise")),
        ("seal", f"{stages['seal']:,.0f} µs{seal}"),
        ("bare OpenDP", f"{result['opendp_ns_per_draw']:,} ns per draw × {result['draws_per_report']} draws"),
        ("", Text(f"nothing but draws: {result['opendp_ceiling_samples_per_s']:,} samples/s", QUIET)),
    ]
    agents = [block(f"The agent, {name} readings", _agent(one)) for name, one in result["agent"].items()]
    return Group(block("Distil, privatise, seal, encode", rows), *agents)


def _agent(one: Mapping[str, Any]) -> list[Row]:
    jitter, cpu, peak, energy = (
        one["jitter_ms"],
        one["cpu_percent"],
        one["rss_peak_mib"],
        one["energy_difference_percent"],
    )
    return [
        ("processor", _against(f"{cpu:.2f} % of one core", cpu <= GOAL_CPU_PERCENT, f"≤ {GOAL_CPU_PERCENT:g} %")),
        ("memory", _limit(peak, f"MiB at most, {one['rss_mib']} MiB now", GOAL_RSS_MIB)),
        (
            "jitter",
            _against(
                f"p50 {jitter['p50']:.2f}, p99 {jitter['p99']:.2f}, max {jitter['max']:.2f} ms",
                jitter["p99"] <= GOAL_JITTER_MS,
                f"p99 ≤ {GOAL_JITTER_MS:g} ms",
            ),
        ),
        ("energy", _limit(energy, "% off the counters at most", GOAL_ENERGY_PERCENT)),
        ("ran", f"{one['seconds']:g} s, {one['polls']:,} polls, {one['missed_ticks']} ticks missed"),
        ("reports", f"{one['acknowledged']} of {one['windows']} acknowledged, {one['left_in_spool']} left"),
    ]


def _against(text: str, good: bool, goal: str) -> Text:
    return Text.assemble((text, GOOD if good else BAD), (f"   {goal}", QUIET))


def _limit(value: float | None, what: str, limit: float) -> Text:
    return Text(NONE, QUIET) if value is None else _against(f"{value} {what}", value <= limit, f"≤ {limit:g}")
