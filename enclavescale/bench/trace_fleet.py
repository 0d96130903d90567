"""A fleet drawn from traces: who runs which trace, from where on, and what it draws at every tick.

Of every 32 hosts 12 run one training job in step, 8 another, and the rest run inference or stand idle, each from a
place of its own. GPU g follows row g of its host's trace (modulo the rows); where a trace has one row, every GPU of
an inference host has a place of its own. A trace that is shorter than the time that is wanted runs to and fro: its
end joined to its start would be a step of the whole job that nobody measured. Where no trace's GPUs move in step, all
GPUs of a job follow one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from enclavescale.bench.trace_files import IDLE, INFERENCE, TRAINING, BenchTrace, clip_high_w, in_step
from producers.errors import TraceError
from schemas.records import ModelRule

FIRST_JOB, SECOND_JOB, OF = 12, 8, 32
"""Hosts in the two training jobs, of how many."""
IDLE_CHANCE = 0.25
"""Share of the other hosts that stand idle, where there are traces of idle GPUs."""
JITTER_TICKS = 2
"""Hosts of one job start within so many ticks: their clocks and pollers are not the same."""
EDGES = 9


@dataclass(frozen=True, slots=True)
class TraceHost:
    """A host: its trace, the group it runs with (None: alone), row and first tick of every GPU."""

    trace: BenchTrace
    group: str | None
    rows: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]

    def power_w(self, first: int, ticks: int) -> npt.NDArray[np.float32]:
        """Return float32[gpus, ticks], W, from tick `first` of the fleet on."""
        length = self.trace.power_w.shape[1]
        at = (self.starts[:, None] + np.arange(first, first + ticks, dtype=np.int64)) % (2 * length)
        found: npt.NDArray[np.float32] = self.trace.power_w[
            self.rows[:, None], np.where(at < length, at, 2 * length - 1 - at)
        ]
        return found


@dataclass(frozen=True, slots=True)
class TraceFleet:
    """Hosts in a fixed order; `jobs`: names of the traces of the two jobs."""

    hosts: tuple[TraceHost, ...]
    jobs: tuple[str, str]
    rules: tuple[ModelRule, ...]

    @property
    def capacity_w(self) -> int:
        """Nameplate power of all GPUs, W."""
        return sum(one.trace.tdp_w * one.rows.size for one in self.hosts)

    def total_w(self, first: int, ticks: int) -> npt.NDArray[np.float64]:
        """Return the fleet's power at every tick, float64[ticks], W."""
        total = np.zeros(ticks)
        for host in self.hosts:
            total += host.power_w(first, ticks).astype(np.float64).sum(axis=0)
        return total


@dataclass(frozen=True, slots=True)
class Pools:
    """Traces by what they are used for; `job_workload`: workload of the traces that jobs are made of.

    `one_row`: every GPU of a job follows the same row, because the rows of its trace do not move in step.
    """

    jobs: tuple[BenchTrace, ...]
    job_workload: str
    inference: tuple[BenchTrace, ...]
    idle: tuple[BenchTrace, ...]
    one_row: bool = False


def pools_of(traces: Sequence[BenchTrace], mode: str | None = None) -> Pools:
    """Sort traces by workload, of one kind of reading or (None) of any.

    Without a trace of training, jobs are made of inference whose GPUs move in step, as those of a job do, or without
    such a trace of single rows of inference; without one of inference, the other hosts run training, each by itself.
    Raises `TraceError` if there is neither.
    """
    of = {
        kind: tuple(one for one in traces if one.workload == kind and mode in (None, one.mode))
        for kind in (TRAINING, INFERENCE, IDLE)
    }
    if not of[TRAINING] and not of[INFERENCE]:
        raise TraceError(
            "no trace of training or inference" + (f" with {mode} readings" if mode else ""), field="traces"
        )
    workload, jobs = (TRAINING, of[TRAINING]) if of[TRAINING] else (INFERENCE, of[INFERENCE])
    together = jobs if workload == TRAINING else tuple(one for one in jobs if in_step(one.power_w))
    return Pools(together or jobs, workload, of[INFERENCE] or of[TRAINING], of[IDLE], one_row=not together)


def model_rules(traces: Sequence[BenchTrace]) -> dict[str, ModelRule]:
    """Model rule of every GPU class: ten states of equal width up to the nominal limit, clipped above what is seen."""
    classes: dict[str, list[BenchTrace]] = {}
    for one in traces:
        classes.setdefault(one.model, []).append(one)
    return {
        model: ModelRule(
            model=model,
            edges_w=tuple(members[0].tdp_w * i // (EDGES + 1) for i in range(1, EDGES + 1)),
            clip_low_w=0,
            clip_high_w=clip_high_w(members),
        )
        for model, members in sorted(classes.items())
    }


def draw_fleet(
    pools: Pools, rules: dict[str, ModelRule], rng: np.random.Generator, *, hosts: int, gpus: int, ticks: int
) -> TraceFleet:
    """Draw a fleet of `hosts` hosts with `gpus` GPUs each for `ticks` ticks."""
    order = rng.permutation(len(pools.jobs))
    first, second = pools.jobs[order[0]], pools.jobs[order[-1]]
    counts = (hosts * FIRST_JOB // OF, hosts * SECOND_JOB // OF)
    members: list[TraceHost] = []
    for name, trace, count in zip(("job-a", "job-b"), (first, second), counts, strict=True):
        start = _start(trace, rng, ticks)
        rows = np.arange(gpus) % len(trace.power_w)
        if pools.one_row:
            rows = np.full(gpus, rng.integers(len(trace.power_w)))
        for _ in range(count):
            jitter = int(rng.integers(JITTER_TICKS))
            starts = np.full(gpus, start + jitter, dtype=np.int64)
            members.append(TraceHost(trace, name, rows, starts))
    for _ in range(hosts - len(members)):
        idle = bool(pools.idle) and bool(rng.random() < IDLE_CHANCE)
        pool = pools.idle if idle else pools.inference
        trace = pool[int(rng.integers(len(pool)))]
        rows = np.arange(gpus) % len(trace.power_w)
        alone = len(trace.power_w) == 1
        drawn = [_start(trace, rng, ticks) for _ in range(gpus if alone else -(-gpus // len(trace.power_w)))]
        # GPUs of one log keep their common time; a log with fewer rows than GPUs is drawn again for the next ones.
        starts = np.array([drawn[g if alone else g // len(trace.power_w)] for g in range(gpus)], dtype=np.int64)
        members.append(TraceHost(trace, None, rows, starts))
    used = {host.trace.model for host in members}
    return TraceFleet(tuple(members), (first.name, second.name), tuple(rules[one] for one in sorted(used)))


def _start(trace: BenchTrace, rng: np.random.Generator, ticks: int) -> int:
    """A place from which the trace lasts for `ticks`, or any place (of the way to and fro) if it is too short."""
    length = trace.power_w.shape[1]
    room = length - ticks - JITTER_TICKS
    return int(rng.integers(room + 1)) if room >= 0 else int(rng.integers(2 * length))
