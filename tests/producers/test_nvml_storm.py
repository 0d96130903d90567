"""Faults at random, one over the other: no report is invalid, nothing is raised, and all comes back."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.producers.fake_gpu import FakeGpu
from tests.producers.fake_host import Host, flags_of, open_host
from tests.producers.fake_nvml import gpus_of

RUNS = {"test": 8, "soak": 500, "accept": 2000}[os.environ.get("ENCLAVESCALE_TIER", "test")]
PARTS = 4
"""Parametrised apart, so that no one test runs into its time-out."""
STATUSES = (0, 0, 1, 2, 3, 4, 6, 10, 15, 16, 18, 21, 999)
FUNCTIONS: tuple[set[str], ...] = (
    set(),
    {"nvmlDeviceGetFieldValues"},
    {"nvmlEventSetCreate"},
    {"nvmlDeviceGetSamples"},
    {"nvmlDeviceGetEnforcedPowerLimit", "nvmlDeviceGetMigMode"},
)
FIELDS: tuple[dict[int | tuple[int, int], int], ...] = (
    {},
    {186: 3},
    {186: 4},
    {186: 15},
    {186: 999},
    {83: 3},
    {186: 3, 83: 3},
)


def events(host: Host, gpu: FakeGpu, dice: random.Random) -> tuple[Callable[[], object], ...]:
    """What may happen."""
    return (
        lambda: setattr(gpu, "status", dice.choice(STATUSES)),
        lambda: setattr(gpu, "field_status", dice.choice(FIELDS)),
        lambda: setattr(gpu, "call_ns", dice.choice((30_000, 60_000_000, 700_000_000))),
        lambda: setattr(gpu, "energy_back_mj", dice.randrange(10**7)),
        lambda: setattr(gpu, "not_available", dice.random() < 0.3),
        lambda: setattr(gpu, "mig", not gpu.mig),
        lambda: setattr(gpu, "limit_status", dice.choice((0, 3, 999))),
        lambda: gpu.xids.append(dice.choice((13, 48, 79))),
        lambda: setattr(host.fake, "loaded", not host.fake.loaded),
        lambda: setattr(host.fake, "generation", host.fake.generation + 1),
        lambda: setattr(host.fake, "hidden", dice.choice(FUNCTIONS)),
        lambda: setattr(host.clock, "offset_ns", host.clock.offset_ns + dice.randrange(-(10**9), 10**9)),
        host.fake.reload,
    )


def calm(host: Host) -> None:
    """Everything works again."""
    for gpu in host.gpus:
        gpu.status, gpu.limit_status, gpu.field_status = 0, 0, {}
        gpu.call_ns, gpu.not_available = 30_000, False
    host.fake.loaded, host.fake.hidden = True, set()
    host.clock.late_ns = lambda: 0


def storm(seed: int, tmp_path: Path) -> None:
    dice = random.Random(seed)
    count = dice.choice((1, 2, 4))
    gpus = gpus_of(
        count,
        field_time=dice.choice(("query", "sensor")),
        ring=dice.choice(("sensor", "other", "empty", "unsupported")),
    )
    tmp_path.mkdir()
    with open_host(gpus, tmp_path, enrolled=count + dice.choice((0, 0, 1))) as host:
        host.clock.late_ns = lambda: dice.randrange(dice.choice((1, 10**6, 2 * 10**8)))
        for window in range(1, 5):
            for part in range(dice.randrange(6)):
                host.run(window + part / 6)
                dice.choice(events(host, dice.choice(gpus), dice))()
            host.report(window)
        calm(host)
        last = host.report(12)
        assert last.classes[0].readings_taken >= 0.85 * count * 100, (seed, flags_of(last))
        assert host.sampler.stats().failures == 0, seed


@pytest.mark.every_tier
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_every_report_is_valid_and_all_comes_back(part: int, tmp_path: Path) -> None:
    for seed in range(part, RUNS, PARTS):
        storm(seed, tmp_path / str(seed))
