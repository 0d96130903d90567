"""A day of a host at the highest speed: eight GPUs from NVML's C boundary to sealed reports, faults all along."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producers.config import Schedule
from tests.producers.fake_gpu import GPU_IS_LOST, NO_PERMISSION, UNKNOWN
from tests.producers.fake_host import Host, flags_of, open_host
from tests.producers.fake_nvml import StepClock, gpus_of
from tests.results import write_result

SCHEDULE = Schedule()
DAY = 1440
"""Windows of a minute."""
WARM = 120
"""Windows until everything has been allocated that ever is: every fault has happened twice."""
GROWTH_KIB = 4096


def lost(host: Host, begins: bool) -> None:
    host.gpus[3].status = GPU_IS_LOST if begins else 0


def denied(host: Host, begins: bool) -> None:
    host.gpus[5].status = NO_PERMISSION if begins else 0


def nonsense(host: Host, begins: bool) -> None:
    for gpu in host.gpus:
        gpu.status = UNKNOWN if begins else 0


def reload(host: Host, begins: bool) -> None:
    host.fake.loaded = not begins
    if not begins:
        host.fake.reload()


def hang(host: Host, begins: bool) -> None:
    host.gpus[2].call_ns = 700_000_000 if begins else 30_000


def xid(host: Host, begins: bool) -> None:
    if begins:
        host.gpus[7].xids += [79, 48]


def clock(host: Host, begins: bool) -> None:
    """Forth, and back the next time."""
    if begins:
        ahead = host.clock.utc_ns() - host.clock.monotonic_ns() > START_OFFSET_NS
        host.clock.offset_ns += -250_000_000 if ahead else 250_000_000


FAULTS: tuple[Callable[[Host, bool], None], ...] = (lost, denied, nonsense, reload, hang, xid, clock)
START_OFFSET_NS = StepClock().offset_ns
EVERY = 8
"""Windows between two faults."""


def resident_kib() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log records: pytest would keep them all."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.soak
@pytest.mark.usefixtures("quiet")
@pytest.mark.timeout(1800)
def test_a_day_leaves_nothing_behind(tmp_path: Path) -> None:
    gpus = gpus_of(8, energy_mj_s=450_000.0)
    flags: Counter[str] = Counter()
    whole = 0
    with open_host(gpus, tmp_path, schedule=SCHEDULE) as host:
        began = time.perf_counter()
        sizes: list[int] = []
        for window in range(1, DAY + 1):
            fault = FAULTS[window // EVERY % len(FAULTS)]
            if window % EVERY == 0:
                host.run(window + 0.2)
                fault(host, True)
                host.run(window + 0.4)
                fault(host, False)
            report = host.report(window)
            host.reports.clear()
            flags.update(flags_of(report).keys())
            whole += report.classes[0].readings_taken >= 0.94 * 8 * SCHEDULE.ticks
            if window == WARM:
                open_files = descriptors()
            if window >= WARM and window % 60 == 0:
                sizes.append(resident_kib())
        seconds = time.perf_counter() - began
        stats = host.sampler.stats()
        assert descriptors() == open_files
    assert max(sizes[1:]) - sizes[0] <= GROWTH_KIB
    assert set(flags) == {"gap", "gpu_lost", "permission", "driver_reload", "stall", "xid", "clock_step"}
    assert stats.failures == 0
    assert whole >= 0.85 * DAY
    result = {
        "windows": DAY,
        "gpus": 8,
        "polls": stats.polls,
        "seconds": round(seconds, 1),
        "resident_kib": sizes,
        "descriptors": open_files,
        "windows_with_flag": dict(sorted(flags.items())),
        "missed_ticks": stats.missed_ticks,
        "stalls": stats.stalls,
        "clock_steps": stats.clock_steps,
    }
    write_result("sampler-day", result, seeds={})
