"""Simulated GPUs: a training job's power as a function of time, for trials, tests and benchmarks without a GPU."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from producers.sample.clock import Clock
from producers.sample.reader import GpuReading
from producers.sample.source import Conditions, EnergySpan, Readings
from schemas.errors import ConfigError

Ticks = npt.NDArray[np.int64]

STEP_S = (0.6, 1.6)
"""Shortest and longest training step, s: the 0.6 to 1.7 Hz that swing a hall."""
COMPUTE_SHARE = 0.7
"""Part of a step in which the GPU computes; in the rest it waits for the others."""
COMPUTE_LEVEL, EXCHANGE_LEVEL, CHECKPOINT_LEVEL, IDLE_LEVEL = 0.93, 0.48, 0.33, 0.14
"""Power of the phases as parts of the nominal limit: an H100 SXM in 8-GPU training draws about these."""
CHECKPOINT_S, CHECKPOINT_EVERY_S = 4.0, 90.0
JOB_S, PAUSE_S = 3300.0, 300.0
"""A job runs, then the GPUs idle until the next one."""
SPREAD = 0.02
"""Largest deviation of one GPU from the job, as a part of the limit: such GPUs correlate at 0.99."""
BLOCK_TICKS = 600
"""Ticks that the reader works out at once: a poll is then a look-up, and what is measured of the sampler is its own."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))
_LAST_SHIFT, _TOP_BITS = np.uint64(31), np.uint64(11)


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedJob:
    """Power of `gpus` GPUs with nominal limit `limit_w` (W) that run one synchronised job.

    What a GPU draws at a tick is a function of `seed`, GPU and tick alone, the same on every machine: nothing is
    drawn, nothing is kept. Jobs of one seed run in step, like the hosts of one training run.
    """

    gpus: int
    limit_w: int
    seed: str
    tick_ms: int = 100

    def __post_init__(self) -> None:
        if self.gpus < 1 or self.limit_w < 1 or self.tick_ms < 1:
            raise ConfigError("a simulated job needs a GPU, a limit and a tick", field="gpus")

    def power_w(self, ticks: Ticks) -> Readings:
        """Return float32[gpus, len(ticks)] in W for ticks since the epoch (UTC ms / tick_ms)."""
        step = self._ticks(STEP_S[0] + (STEP_S[1] - STEP_S[0]) * self._fraction("step"))
        job, pause = self._ticks(JOB_S), self._ticks(PAUSE_S)
        in_job = (ticks + self._offset("job", job + pause)) % (job + pause)
        in_step = (ticks + self._offset("phase", step)) % step
        level = np.where(in_step < COMPUTE_SHARE * step, COMPUTE_LEVEL, EXCHANGE_LEVEL)
        level = np.where(in_job % self._ticks(CHECKPOINT_EVERY_S) < self._ticks(CHECKPOINT_S), CHECKPOINT_LEVEL, level)
        level = np.where(in_job >= job, IDLE_LEVEL, level)
        own = np.stack([_noise(ticks, self._seed(f"gpu {gpu}")) for gpu in range(self.gpus)])
        return (self.limit_w * (level + SPREAD * own)).astype(np.float32)

    def _ticks(self, seconds: float) -> int:
        return max(round(seconds * 1000 / self.tick_ms), 1)

    def _seed(self, what: str) -> int:
        return int.from_bytes(hashlib.sha256(f"{self.seed}\0{what}".encode()).digest()[:8], "big")

    def _fraction(self, what: str) -> float:
        return self._seed(what) / 2.0**64

    def _offset(self, what: str, bound: int) -> int:
        return self._seed(what) % bound


def _noise(ticks: Ticks, seed: int) -> npt.NDArray[np.float64]:
    """Numbers in [-1, 1), one per tick: SplitMix64 of the tick (Steele, Lea, Flood 2014), so that any can be asked."""
    with np.errstate(over="ignore"):
        mixed = ticks.astype(np.uint64) * _GOLDEN + np.uint64(seed)
        for shift, factor in _MIX:
            mixed = (mixed ^ (mixed >> shift)) * factor
    return ((mixed ^ (mixed >> _LAST_SHIFT)) >> _TOP_BITS).astype(np.float64) * 2.0**-52 - 1.0


class SimulatedSource:
    """A class of GPUs that run a simulated job: no thread, no clock, every window at any time.

    `counters`: the GPUs have energy counters, which agree with the readings exactly.
    """

    kind = "simulated"
    sampler_mode = "instant"

    def __init__(self, job: SimulatedJob, *, counters: bool = True) -> None:
        self.job = job
        self._counters = counters

    @property
    def gpus(self) -> int:
        """Number of GPUs."""
        return self.job.gpus

    def window(self, start_ms: int, end_ms: int) -> Readings:
        """Return float32[gpus, ticks] of [start_ms, end_ms); raises `ValueError` unless both lie on a tick."""
        tick_ms = self.job.tick_ms
        if start_ms % tick_ms or end_ms % tick_ms or end_ms <= start_ms:
            raise ValueError("a window begins and ends on a tick")
        return self.job.power_w(np.arange(start_ms // tick_ms, end_ms // tick_ms, dtype=np.int64))

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        """Return the counters' span, from the second tick to the last, and the limit of all GPUs."""
        return Conditions(
            energy=self._span(start_ms, end_ms) if self._counters else None,
            enforced_limit_w=self.job.gpus * self.job.limit_w,
        )

    def _span(self, start_ms: int, end_ms: int) -> EnergySpan:
        watts = self.window(start_ms, end_ms)
        first, last = 1, watts.shape[1] - 1
        inside = watts[:, first:last].astype(np.float64).sum(axis=1) * self.job.tick_ms
        return EnergySpan(
            delta_mj=np.rint(inside).astype(np.int64),
            valid=np.ones(self.job.gpus, dtype=np.bool_),
            first_tick=first,
            last_tick=last,
        )


class SimulatedReader:
    """Polls GPUs that are not there: a `PowerReader` for the sampler, for trials and measurements without a GPU.

    `classes`: model and job of every class, all with one tick. A GPU's counter holds the energy of all ticks before
    the one that is read, from the block of the first poll on; it begins again where the clock is set back further.
    """

    kind = "simulated"
    sampler_mode = "instant"
    spacing_ns = 0

    def __init__(self, classes: Sequence[tuple[str, SimulatedJob]], clock: Clock) -> None:
        if not classes or len({job.tick_ms for _, job in classes}) != 1:
            raise ConfigError("simulated GPUs need a class and one tick for all", field="classes")
        self.models = tuple(model for model, job in classes for _ in range(job.gpus))
        self._jobs = [job for _, job in classes]
        self._limits = tuple(job.limit_w * 1000 for job in self._jobs for _ in range(job.gpus))
        self._clock = clock
        self._block: int | None = None
        self._watts: list[list[float]] = []
        self._millijoules: list[list[int]] = []
        self._next_mj = np.zeros(len(self.models), np.int64)

    def read_all(self, tick: int) -> list[GpuReading]:
        """Return every GPU's power and counter at `tick` (UTC ms / tick_ms)."""
        began = self._clock.monotonic_ns()
        block, at = divmod(tick, BLOCK_TICKS)
        if block != self._block:
            self._go_to(block)
        watts, millijoules = self._watts[at], self._millijoules[at]
        ended = self._clock.monotonic_ns()
        return [GpuReading(*read, began, ended) for read in zip(watts, millijoules, strict=True)]

    def enforced_limits_mw(self) -> tuple[int, ...]:
        """Return the nominal limits, mW."""
        return self._limits

    def close(self) -> None:
        """Do nothing: there is no device."""

    def _go_to(self, block: int) -> None:
        if self._block is None or block < self._block:
            self._block, self._next_mj = block - 1, np.zeros_like(self._next_mj)
        for one in range(self._block + 1, block + 1):
            ticks = np.arange(one * BLOCK_TICKS, (one + 1) * BLOCK_TICKS, dtype=np.int64)
            watts = np.concatenate([job.power_w(ticks) for job in self._jobs]).astype(np.float64)
            after = self._next_mj[:, None] + np.rint(np.cumsum(watts, axis=1) * self._jobs[0].tick_ms).astype(np.int64)
            before = np.concatenate([self._next_mj[:, None], after[:, :-1]], axis=1)
            self._watts, self._millijoules = watts.T.tolist(), before.T.tolist()
            self._block, self._next_mj = one, after[:, -1]
