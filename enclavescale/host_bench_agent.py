"""A real agent that measures itself: CPU share, resident memory, jitter of sampling. A process of `bench host`.

`python -m enclavescale.host_bench_agent JSON` runs it and prints one JSON object. It imports what `enclavescale
produce` imports, so that its memory is that of the agent an operator runs. With real GPUs it compares every window's
energy with the counters': a figure without noise, for the operator at this terminal alone.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import enclavescale.cli  # noqa: F401  the whole front door, as in production
from enclavescale.host_bench import (
    DOMAIN,
    LIMIT_W,
    MODEL,
    NVML,
    SIMULATED,
    bench_host,
    bench_job,
    bench_profile,
)
from producers.agent import Agent, AgentConfig, NoObserver
from producers.config import Schedule
from producers.host import HostWindow
from producers.pacer import RealTimePacer
from producers.privacy import default_budget
from producers.publish import PublishConfig
from producers.sample.clock import Clock, SystemClock
from producers.sample.nvml import Nvml
from producers.sample.nvml_sampler import open_sampler
from producers.sample.plan import MODES
from producers.sample.sampler import Sampler
from producers.sample.simulated import SimulatedReader
from producers.sample.source import Conditions, Readings
from schemas.errors import ConfigError

SETTLE_S = 2.0
"""Before the clock runs, at most: connecting to the broker and the first session are no part of an agent's day."""
_MEMORY = {"rss_mib": "VmRSS", "rss_peak_mib": "VmHWM"}


@dataclass(slots=True)
class Mark:
    """Times at one moment, s: wall, CPU of the process, CPU of the agent's own thread."""

    wall_s: float = field(default_factory=time.monotonic)
    cpu_s: float = field(default_factory=time.process_time)
    loop_s: float = field(default_factory=time.thread_time)


class Meter(NoObserver):
    """Watches an agent from within for `seconds`, then asks it to stop."""

    def __init__(self, seconds: float, schedule: Schedule, stop: threading.Event) -> None:
        self._seconds = seconds
        self._schedule = schedule
        self._stop = stop
        self._began: Mark | None = None
        self._settled_s = time.monotonic() + min(SETTLE_S, seconds / 5)
        self._ended: Mark | None = None
        self._energy: list[float] = []

    def turned(self, agent: Agent) -> None:
        """Begin when the agent has settled, end when the time is over."""
        if self._began is None and time.monotonic() >= self._settled_s:
            self._began = Mark()
        if self._began is not None and self._ended is None and time.monotonic() - self._began.wall_s >= self._seconds:
            self._ended = Mark()
            self._stop.set()

    def window(self, agent: Agent, done: Sequence[HostWindow], spooled: bool) -> None:
        """Compare the window's energy with its counters'."""
        for one in done:
            start_ms = one.sealed.window_start_ms
            for item in agent.hosts[0].profile.classes:
                end_ms = start_ms + self._schedule.window_ms
                window, found = item.source.window(start_ms, end_ms), item.source.conditions(start_ms, end_ms)
                difference = energy_difference(window, found, self._schedule.tick_ms)
                self._energy += [] if difference is None else [difference]

    def result(self) -> dict[str, Any]:
        """What was measured; raises `ConfigError` if the agent ended before its time."""
        if self._began is None or self._ended is None:
            raise ConfigError("the agent ended before it was measured")
        wall_s = self._ended.wall_s - self._began.wall_s
        worst = max(map(abs, self._energy), default=None)
        return {
            "seconds": round(wall_s, 1),
            "cpu_percent": round(100 * (self._ended.cpu_s - self._began.cpu_s) / wall_s, 3),
            "loop_cpu_percent": round(100 * (self._ended.loop_s - self._began.loop_s) / wall_s, 3),
            "energy_difference_percent": None if worst is None else round(100 * worst, 3),
        }


def energy_difference(window: Readings, found: Conditions, tick_ms: int) -> float | None:
    """Energy of the readings over the counters' span, less the counters', as a part of the counters'.

    GPUs without a counter are left out; a missing reading counts as the mean of the GPU's others. None without any.
    """
    span = found.energy
    if span is None or not span.valid.any():
        return None
    inside = window[span.valid, span.first_tick : span.last_tick].astype(np.float64)
    present = ~np.isnan(inside)
    if not present.any(axis=1).all():
        return None
    means = np.where(present, inside, 0.0).sum(axis=1) / present.sum(axis=1)
    counted = float(span.delta_mj[span.valid].sum())
    integrated = float(means.sum()) * (span.last_tick - span.first_tick) * tick_ms
    return (integrated - counted) / counted if counted > 0 else None


def resident_mib(status: Path = Path("/proc/self/status")) -> dict[str, float | None]:
    """Resident memory now and at most, MiB; None where the kernel does not say.

    Not getrusage: its maximum begins with that of the process which started this one.
    """
    try:
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
    except OSError:
        fields = {}
    kib = {name: int(fields[key].split()[0]) for name, key in _MEMORY.items() if key in fields}
    return {name: round(kib[name] / 1024, 1) if name in kib else None for name in _MEMORY}


def open_reader(reader: str, gpus: int, schedule: Schedule, clock: Clock | None = None) -> tuple[Sampler, str, int]:
    """A sampler over `gpus` simulated GPUs or all real ones, the model to measure and its limit, W.

    Of real models it is that of most GPUs. Raises `ConfigError` for another reader or a machine without a GPU, and
    what NVML raises.
    """
    if reader == SIMULATED:
        simulated = SimulatedReader([(MODEL, bench_job(gpus, schedule))], clock or SystemClock())
        return Sampler(simulated, schedule, clock), MODEL, LIMIT_W
    if reader != NVML:
        raise ConfigError(f"no reader {reader!r}", field="reader")
    with Nvml() as nvml:
        found = nvml.gpus()
        models = Counter(gpu.name for gpu in found)
        if not models:
            raise ConfigError("no GPU on this machine", field="reader")
        model = models.most_common(1)[0][0]
        limits = [nvml.enforced_limit_mw(nvml.handle(gpu.uuid)) // 1000 for gpu in found if gpu.name == model]
    return open_sampler(models, schedule, modes=MODES, clock=clock), model, max(limits)


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Run an agent as `spec` says: seconds, gpus, reader, window_ms, bootstrap, topic, spool."""
    schedule = Schedule(window_ms=spec["window_ms"])
    budget = default_budget(energy=True)
    sampler, model, limit_w = open_reader(spec["reader"], spec["gpus"], schedule)
    stop = threading.Event()
    meter = Meter(spec["seconds"], schedule, stop)
    profile = bench_profile(sampler.source(model), model, limit_w)
    config = AgentConfig(
        hosts=(bench_host(profile, schedule, budget),),
        pacer=RealTimePacer(schedule.window_ms),
        publish=PublishConfig(
            partitions={DOMAIN: 0}, kafka={"bootstrap.servers": spec["bootstrap"]}, topic=spec["topic"]
        ),
        spool_path=Path(spec["spool"]),
        schedule=schedule,
        budget=budget,
        observer=meter,
    )
    sampler.start()
    try:
        summary = Agent(config).run(stop)
    finally:
        sampler.close()
    jitter, stats = sampler.jitter(), sampler.stats()
    return {
        "reader": spec["reader"],
        "gpus": profile.classes[0].source.gpus,
        "window_ms": schedule.window_ms,
        **meter.result(),
        **resident_mib(),
        "jitter_ms": {"p50": round(jitter.p50_ms, 3), "p99": round(jitter.p99_ms, 3), "max": round(jitter.max_ms, 3)},
        "polls": stats.polls,
        "missed_ticks": stats.missed_ticks,
        "windows": summary.windows,
        "acknowledged": summary.acknowledged,
        "left_in_spool": summary.left_in_spool,
    }


def main(arguments: list[str]) -> None:
    """Measure as the JSON argument says and print the result as JSON."""
    sys.stdout.write(json.dumps(measure(json.loads(arguments[0]))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
