"""The agent of `enclavescale produce`, measured from within: CPU share, resident memory, jitter of sampling.

`python -m enclavescale.bench.host_agent JSON` runs one under a policy made for the occasion and prints one JSON object.
It is assembled as an operator's is: sampler, sessions and who renews them, beacons, metrics and their endpoint; and it
imports what `enclavescale produce` imports, so that its memory is that of the agent an operator runs. Every window's
energy is compared with the counters': a figure without noise, for the operator at this terminal alone.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

import enclavescale.cli  # noqa: F401  the whole front door, as in production
from attester.simulated import SimulatedTee, simulated_platform_id
from enclavescale.agent.file import SIMULATED_TEE, HostSpec, ProduceSpec
from enclavescale.agent.policy import enrolment_of, schedule_of
from enclavescale.agent.producing import Production
from enclavescale.agent.sources import HostSources, SourcePool
from enclavescale.bench.host import DOMAIN, HOST_ID, LIMIT_W, MODEL, NVML, READERS, bench_edges
from enclavescale.fleet import demo_fleet, sign_policy
from producers.config import Schedule
from producers.sample.nvml import Nvml
from producers.sample.plan import MODES
from producers.sample.source import Conditions, Readings
from schemas.errors import ConfigError
from schemas.records import ClassEnrolment, ModelRule, Policy

SETTLE_S = 2.0
"""Before the clock runs, at most: connecting to the broker and the first session are no part of an agent's day."""
AFTER_WINDOW_S = 0.5
"""How long after a window's end its energy is compared: the agent has it first."""
_MEMORY = {"rss_mib": "VmRSS", "rss_peak_mib": "VmHWM"}
_TASKS = Path("/proc/self/task")


def thread_times(tasks: Path = _TASKS) -> dict[int, tuple[str, float]]:
    """Name and CPU time, s, of every thread of this process, librdkafka's too; {} where the kernel does not say."""
    names = {thread.native_id: thread.name for thread in threading.enumerate()}
    times: dict[int, tuple[str, float]] = {}
    for task in tasks.iterdir() if tasks.is_dir() else ():
        try:
            spent_ns, comm = int((task / "schedstat").read_text().split()[0]), (task / "comm").read_text().strip()
        except (OSError, ValueError, IndexError):
            continue  # it has ended meanwhile
        times[int(task.name)] = names.get(int(task.name), comm), spent_ns / 1e9
    return times


@dataclass(slots=True)
class Mark:
    """Times at one moment, s: wall, CPU of the process, CPU of each of its threads."""

    wall_s: float = field(default_factory=time.monotonic)
    cpu_s: float = field(default_factory=time.process_time)
    threads: dict[int, tuple[str, float]] = field(default_factory=thread_times)


class Meter:
    """Watches an agent for `seconds` in a thread of its own, then asks it to stop."""

    def __init__(self, seconds: float, sources: HostSources, schedule: Schedule, stop: threading.Event) -> None:
        self._seconds = seconds
        self._sources = sources
        self._schedule = schedule
        self._stop = stop
        self._began: Mark | None = None
        self._ended: Mark | None = None
        self._energy: list[float] = []
        self._thread = threading.Thread(target=self._run, name="meter", daemon=True)

    def start(self) -> None:
        """Begin to wait until the agent has settled."""
        self._thread.start()

    def _run(self) -> None:
        window_s = self._schedule.window_ms / 1000
        try:
            if self._stop.wait(min(SETTLE_S, self._seconds / 5)):
                return
            began = self._began = Mark()
            while (left := began.wall_s + self._seconds - time.monotonic()) > 0:
                until_next = window_s - (time.time() - AFTER_WINDOW_S) % window_s
                if self._stop.wait(min(left, until_next)):
                    return
                if until_next <= left:
                    self._compare()
            self._ended = Mark()
        finally:
            self._stop.set()

    def _compare(self) -> None:
        """The energy of the window that has just ended beside its counters'."""
        end_ms = int(time.time() * 1000) // self._schedule.window_ms * self._schedule.window_ms
        for source in self._sources.sources:
            span = end_ms - self._schedule.window_ms, end_ms
            difference = energy_difference(source.window(*span), source.conditions(*span), self._schedule.tick_ms)
            self._energy += [] if difference is None else [difference]

    def result(self) -> dict[str, Any]:
        """What was measured; raises `ConfigError` if the agent ended before its time."""
        began, ended = self._began, self._ended
        if began is None or ended is None:
            raise ConfigError("the agent ended before it was measured")
        wall_s = ended.wall_s - began.wall_s
        spent: dict[str, float] = {}
        for task, (name, cpu_s) in ended.threads.items():
            spent[name] = spent.get(name, 0.0) + cpu_s - began.threads.get(task, ("", 0.0))[1]
        worst = max(map(abs, self._energy), default=None)
        return {
            "seconds": round(wall_s, 1),
            "cpu_percent": round(100 * (ended.cpu_s - began.cpu_s) / wall_s, 3),
            "threads_percent": {name: round(100 * cpu_s / wall_s, 3) for name, cpu_s in sorted(spent.items())},
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


def gpus_here(reader: str, gpus: int) -> dict[str, tuple[int, int]]:
    """Number of GPUs and limit of one, W, by model: `gpus` simulated ones, or all that NVML names.

    Raises `ConfigError` for another reader or a machine without a GPU, and what NVML raises.
    """
    if reader not in READERS:
        raise ConfigError(f"no reader {reader!r}", field="reader")
    if reader != NVML:
        return {MODEL: (gpus, LIMIT_W)}
    with Nvml() as nvml:
        found = nvml.gpus()
        limits = {gpu.name: nvml.enforced_limit_mw(nvml.handle(gpu.uuid)) // 1000 for gpu in found}
    if not found:
        raise ConfigError("no GPU on this machine", field="reader")
    return {model: (count, limits[model]) for model, count in sorted(Counter(gpu.name for gpu in found).items())}


def bench_policy(tee: SimulatedTee, models: Mapping[str, tuple[int, int]], window_ms: int) -> Policy:
    """A policy that enrols one host with these GPUs in one domain, partition 0."""
    now_ms = int(time.time() * 1000)
    base = demo_fleet(tee, hosts=2, gpus=1, window_ms=window_ms, now_ms=now_ms, create_time=True).policy
    host = replace(
        base.hosts[0],
        host_id=HOST_ID,
        domain=DOMAIN,
        platform_ids=(simulated_platform_id(HOST_ID).hex(),),
        classes=tuple(
            ClassEnrolment(model=name, gpus=gpus, capacity_w=gpus * limit_w) for name, (gpus, limit_w) in models.items()
        ),
    )
    rules = tuple(
        ModelRule(model=name, edges_w=bench_edges(limit_w), clip_low_w=0, clip_high_w=limit_w * 3 // 2)
        for name, (_, limit_w) in models.items()
    )
    return replace(
        base,
        accepted_sources=READERS,
        accepted_sampler_modes=MODES,
        domains=(replace(base.domains[0], domain=DOMAIN, partition=0),),
        hosts=(host,),
        models=rules,
    )


def measure(spec: dict[str, Any]) -> dict[str, Any]:
    """Run an agent as `spec` says: seconds, gpus, reader, window_ms, bootstrap, directory."""
    directory = Path(spec["directory"])
    models = gpus_here(spec["reader"], spec["gpus"])
    policy = bench_policy(SimulatedTee.create(directory / "tee"), models, spec["window_ms"])
    (directory / "policy.bin").write_bytes(sign_policy(policy, ec.generate_private_key(ec.SECP256R1())))
    host = HostSpec(host_id=HOST_ID, source=spec["reader"])
    produce = ProduceSpec(
        policy=str(directory / "policy.bin"),
        hosts=(host,),
        spool=str(directory / "spool.db"),
        tee=SIMULATED_TEE,
        tee_directory=str(directory / "tee"),
        follow_beacons=True,
        listen="127.0.0.1:0",
    )
    stop, pool = threading.Event(), SourcePool()
    schedule = schedule_of(policy, DOMAIN)
    with Production(produce, {"bootstrap.servers": spec["bootstrap"]}, pool=pool) as production:
        sources = pool.get(host, policy, enrolment_of(policy, HOST_ID), schedule)
        meter = Meter(spec["seconds"], sources, schedule, stop)
        meter.start()
        summary = production.run(stop)
        memory = resident_mib()
    return {
        "reader": spec["reader"],
        "gpus": sum(gpus for gpus, _ in models.values()),
        "window_ms": schedule.window_ms,
        **meter.result(),
        **memory,
        **sampling(sources),
        "windows": summary.windows,
        "acknowledged": summary.acknowledged,
        "left_in_spool": summary.left_in_spool,
    }


def sampling(sources: HostSources) -> dict[str, Any]:
    """Lateness of the polls, ms, and how many there were. Raises `ConfigError` without a sampler."""
    if sources.sampler is None:
        raise ConfigError("nothing is sampled", field="reader")
    jitter, stats = sources.sampler.jitter(), sources.sampler.stats()
    lateness = {"p50": round(jitter.p50_ms, 3), "p99": round(jitter.p99_ms, 3), "max": round(jitter.max_ms, 3)}
    return {"jitter_ms": lateness, "polls": stats.polls, "missed_ticks": stats.missed_ticks}


def main(arguments: list[str]) -> None:
    """Measure as the JSON argument says and print the result as JSON."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    sys.stdout.write(json.dumps(measure(json.loads(arguments[0]))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
