"""How many ticks a sensor without timestamps costs, by GPUs and length of calls, and that ADR 17 says so truly."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from power_model.grid import Grid
from producers.config import Schedule
from producers.distil import distil
from producers.sample.nvml_sampler import open_sampler
from tests.producers.fake_gpu import H100, busy
from tests.producers.fake_nvml import FakeNvml, gpus_of
from tests.producers.test_sampler_freshness import A100

ADR = Path(__file__).parents[2] / "docs/adr/0017-a-reading-counts-once.md"
ROW = re.compile(r"^\| (\d) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", re.MULTILINE)
SCHEDULE = Schedule(window_ms=30_000)
SENSORS = ((100.0,), busy), (A100, busy), ((100.0,), lambda _: 70.0)
"""One of 100 ms, an A100's, and one that did not move while it was probed."""


def lost_percent(count: int, call_us: int, update_ms: tuple[float, ...], signal: Callable[[float], float]) -> float:
    """Ticks of a window that are missing; calls take between half and one and a half times `call_us`. Fails where the
    energy residual is missing from it."""
    gpus = gpus_of(count, update_ms=update_ms, signal=signal, call_ns=0, energy_mj_s=450_000.0)
    fake = FakeNvml(gpus)
    clock, dice = fake.clock, random.Random(1)

    def take() -> None:
        clock.now_ns += dice.randrange(500 * call_us, 1500 * call_us)

    for gpu in gpus:
        gpu.on_call = take
    with fake.installed():
        sampler = open_sampler({H100: count}, SCHEDULE, clock=clock)
        start_ms = (clock.utc_ns() // 1_000_000 // SCHEDULE.window_ms + 1) * SCHEDULE.window_ms
        end_ms = start_ms + SCHEDULE.window_ms
        while clock.utc_ns() < end_ms * 1_000_000:
            sampler.step()
        source = sampler.source(H100)
        readings, energy = source.window(start_ms, end_ms), source.conditions(start_ms, end_ms).energy
        times = source.times_ms(start_ms, end_ms)
        sampler.close()
    assert np.nanmax(times.max(axis=0) - times.min(axis=0)) < 1.5 * count * call_us / 1000  # rounds do not spread
    assert distil(readings, Grid((100, 200, 300)), 0, 700, 10, energy=energy).energy_residual_mj is not None
    return 100.0 * float(np.isnan(readings).mean())


TABLE = [(int(row[0]), float(row[1]), [float(one) for one in row[2:]]) for row in ROW.findall(ADR.read_text())]


def test_the_table_is_there() -> None:
    assert [(gpus, call_ms) for gpus, call_ms, _ in TABLE] == [(n, ms) for n in (1, 8) for ms in (0.05, 0.2, 0.5, 1.0)]


@pytest.mark.parametrize(("gpus", "call_ms", "stated"), TABLE)
def test_ticks_are_lost_as_stated_and_the_energy_residual_stands(
    gpus: int, call_ms: float, stated: list[float]
) -> None:
    found = [lost_percent(gpus, round(1000 * call_ms), *sensor) for sensor in SENSORS]
    assert found == pytest.approx(stated, abs=0.5)
