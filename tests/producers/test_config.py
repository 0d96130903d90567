"""Configurations that do not hold together are refused before anything is sampled."""

from typing import Any

import pytest

from producers.config import ClassProfile, HostProfile, Schedule
from schemas.errors import ConfigError
from tests.producers.forge import FakeSource, gpu_class


@pytest.mark.parametrize(
    "options",
    [
        {"sample_hz": 0},
        {"sample_hz": 3},
        {"pane_ms": 0},
        {"pane_ms": 1_050},
        {"window_ms": 0},
        {"window_ms": 10_500},
        {"window_ms": 100, "pane_ms": 100},
    ],
)
def test_schedules(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        Schedule(**options)


def test_a_schedule_counts() -> None:
    found = Schedule()
    assert (found.tick_ms, found.ticks, found.ticks_per_pane) == (100, 600, 10)


@pytest.mark.parametrize(
    "options", [{"edges_w": (3, 2)}, {"clip_low_w": 101}, {"clip_low_w": -1}, {"clip_high_w": 299}, {"capacity_w": 0}]
)
def test_classes(options: dict[str, Any]) -> None:
    good: dict[str, Any] = {"model": "A", "capacity_w": 1, "edges_w": (100, 300), "clip_low_w": 0, "clip_high_w": 300}
    with pytest.raises(ConfigError):
        ClassProfile(**{**good, **options}, source=FakeSource())


@pytest.mark.parametrize(
    "options",
    [
        {"host_id": ""},
        {"domain": ""},
        {"classes": ()},
        {"first_mile": "TRUST_ME"},
        {"classes": (gpu_class(), gpu_class())},
        {"classes": (gpu_class(), gpu_class(FakeSource(kind="nvml"), model="B"))},
        {"classes": (gpu_class(), gpu_class(FakeSource(sampler_mode="average"), model="B"))},
    ],
)
def test_hosts(options: dict[str, Any]) -> None:
    good: dict[str, Any] = {"host_id": "h", "domain": "d", "classes": (gpu_class(),)}
    with pytest.raises(ConfigError):
        HostProfile(**{**good, **options})
