"""The agent's metrics: names and units, totals that begin again, nothing said before it is known."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from producers.metrics import AgentMetrics

PREFIX = "enclavescale_agent_"
UNITS = {"seconds", "bytes", "joules", "total", "info"}
COUNTS = {  # plain numbers of things, and epsilon, which has no unit
    "policy_number",
    "policy_max_epsilon",
    "spool_entries",
    "publisher_in_flight",
    "publisher_recovering",
    "publisher_stranded",
    "sampler_flagged_gpus",
    "privacy_epsilon_per_window",
    "privacy_epsilon_per_w_event",
    "noisy_glitches",
    "noisy_glitches_sum",
}
PUBLISHER = {"acknowledged": 0, "failed": 0, "resent": 0, "refused": 0, "in_flight": 0, "last_ack_age_s": None}
SPOOL = {"entries": 0, "size": 0, "max_bytes": 1 << 20, "oldest_age_ms": None}


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> AgentMetrics:
    return AgentMetrics(registry)


def names(registry: CollectorRegistry) -> set[str]:
    """The names under which the metrics are queried."""
    return {family.name + ("_total" if family.type == "counter" else "") for family in registry.collect()}


def test_names_say_their_units(registry: CollectorRegistry, metrics: AgentMetrics) -> None:
    assert len(names(registry)) > 30
    for name in names(registry):
        assert name.startswith(PREFIX)
        own = name.removeprefix(PREFIX)
        assert own in COUNTS or own.rpartition("_")[2] in UNITS, name


def test_the_page_of_the_agent_lists_every_metric(registry: CollectorRegistry, metrics: AgentMetrics) -> None:
    page = (Path(__file__).parents[2] / "docs" / "agent.md").read_text()
    listed = set(re.findall(rf"`({PREFIX}\w+)`", page))
    assert listed - {PREFIX + "aggregator_attested"} == names(registry)  # that one is the front door's, made on request


def test_nothing_is_claimed_before_it_is_known(registry: CollectorRegistry, metrics: AgentMetrics) -> None:
    for name in ("spool_entries", "publisher_last_ack_age_seconds", "policy_not_after_timestamp_seconds"):
        assert math.isnan(registry.get_sample_value(PREFIX + name) or 0.0)
    metrics.publisher(**PUBLISHER)  # type: ignore[arg-type]
    assert math.isnan(registry.get_sample_value(PREFIX + "publisher_last_ack_age_seconds") or 0.0)
    assert registry.get_sample_value(PREFIX + "publisher_in_flight") == 0


@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), min_size=1, max_size=5))
def test_counters_count_on_through_owners_that_begin_again(lives: list[list[int]]) -> None:
    """`lives`: what was added between two looks, in the life of each publisher. A new one is looked at at 0 first."""
    registry = CollectorRegistry()
    metrics = AgentMetrics(registry)
    for steps in lives:
        total = 0
        for step in (0, *steps):
            total += step
            metrics.publisher(**{**PUBLISHER, "acknowledged": total})  # type: ignore[arg-type]
    counted = registry.get_sample_value(PREFIX + "publisher_acknowledged_total")
    assert counted == sum(sum(steps) for steps in lives)


def test_a_condition_that_is_over_is_nought_and_stays_counted(
    registry: CollectorRegistry, metrics: AgentMetrics
) -> None:
    metrics.conditions("h", "A100", [("gpu_lost", 2), ("gap", 1)])
    metrics.conditions("h", "A100", [("gap", 1)])

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(PREFIX + name, labels)

    assert value("sampler_flagged_gpus", host="h", model="A100", flag="gpu_lost") == 0
    assert value("sampler_flagged_gpus", host="h", model="A100", flag="gap") == 1
    assert value("sampler_flagged_windows_total", flag="gpu_lost") == 1
    assert value("sampler_flagged_windows_total", flag="gap") == 2


def test_noise_is_passed_on_as_it_is(registry: CollectorRegistry, metrics: AgentMetrics) -> None:
    """Negative counts are right: rounding them up here would bias the sum."""
    label = {"host": "h", "model": "A100"}
    metrics.noisy("h", "A100", glitches=-40, energy_residual_mj=-2_500)
    metrics.noisy("h", "A100", glitches=10, energy_residual_mj=None)
    assert registry.get_sample_value(PREFIX + "noisy_glitches", label) == 10
    assert registry.get_sample_value(PREFIX + "noisy_glitches_sum", label) == -30
    assert math.isnan(registry.get_sample_value(PREFIX + "noisy_energy_residual_joules", label) or 0.0)


def test_units_are_the_base_units(registry: CollectorRegistry, metrics: AgentMetrics) -> None:
    metrics.about(version="0.0.1", source="trace", sampler_mode="instant", tee="simulated")
    metrics.about(version="1.2.3", source="nvml", sampler_mode="instant", tee="tsm")
    metrics.policy(counter=7, not_after_ms=1_800_000_000_500, max_epsilon_micro=1_000_000)
    metrics.window(end_ms=1_772_625_660_000, sealed=2, lost=1)
    metrics.spool(**{**SPOOL, "oldest_age_ms": 1_500}, dropped=3, failures=2, quarantined=1)  # type: ignore[arg-type]
    metrics.publisher(**{**PUBLISHER, "last_ack_age_s": 2.5})  # type: ignore[arg-type]
    metrics.sampler(polls=600, missed_ticks=3, stalls=1, stale=2, clock_steps=1, failures=4)
    metrics.lateness(p50_ms=0.1, p99_ms=4.0, max_ms=20.0)
    metrics.session("h", age_ms=90_000, max_age_ms=3_600_000, renewals=1, failures=2)
    metrics.session("h", age_ms=1_000, max_age_ms=None, renewals=2, failures=2)
    metrics.privacy("h", epsilon_micro=1_000_000, w_event_epsilon_micro=510_000_000)
    metrics.reloaded(True)
    metrics.reloaded(False)
    expected = {
        ("info", ("version", "1.2.3"), ("source", "nvml"), ("sampler_mode", "instant"), ("tee", "tsm")): 1,
        ("policy_number",): 7,
        ("policy_not_after_timestamp_seconds",): 1_800_000_000.5,
        ("policy_max_epsilon",): 1.0,
        ("windows_total",): 1,
        ("window_end_timestamp_seconds",): 1_772_625_660.0,
        ("reports_sealed_total",): 2,
        ("reports_lost_total",): 1,
        ("spool_oldest_age_seconds",): 1.5,
        ("spool_dropped_total",): 3,
        ("spool_failures_total",): 2,
        ("spool_quarantined_total",): 1,
        ("publisher_last_ack_age_seconds",): 2.5,
        ("sampler_polls_total",): 600,
        ("sampler_missed_ticks_total",): 3,
        ("sampler_stalls_total",): 1,
        ("sampler_stale_polls_total",): 2,
        ("sampler_clock_steps_total",): 1,
        ("sampler_failures_total",): 4,
        ("sampler_lateness_seconds", ("level", "0.99")): 0.004,
        ("sampler_lateness_seconds", ("level", "1")): 0.02,
        ("session_age_seconds", ("host", "h")): 1.0,
        ("session_renewals_total", ("host", "h")): 2,
        ("session_renewal_failures_total", ("host", "h")): 2,
        ("privacy_epsilon_per_window", ("host", "h")): 1.0,
        ("privacy_epsilon_per_w_event", ("host", "h")): 510.0,
        ("reloads_total", ("result", "ok")): 1,
        ("reloads_total", ("result", "refused")): 1,
    }
    found = {key: registry.get_sample_value(PREFIX + key[0], dict(key[1:])) for key in expected}  # type: ignore[arg-type]
    assert found == expected
    old = {"version": "0.0.1", "source": "trace", "sampler_mode": "instant", "tee": "simulated"}
    assert registry.get_sample_value(PREFIX + "info", old) is None
