"""Real traces as releases: what hosts that run one in step would report, summed as the aggregator does."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from enclavescale.agent.file import BUNDLED
from enclavescale.bench.trace_files import BenchTrace, Skipped, nominal_limit_w, read_trace, read_traces
from enclavescale.bench.trace_log import UNKNOWN, Unusable
from enclavescale.synthesize_outputs import Released
from power_model.grid import Grid
from power_model.noise import discrete_laplace_variance
from power_model.synthesis import ReleasedModel, ReleasedWindow
from producers.config import ClassProfile, Schedule
from producers.distil import distil
from producers.errors import TraceError
from producers.privacy import MICRO, Budget, privacy_parameters
from producers.privatise import Privatiser
from producers.sample.source import Readings
from producers.sample.trace import SUFFIX, Trace, TraceSource, load_bundled, parse_trace
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.errors import ConfigError

SAMPLE_HZ = 10
STATES = 10
TOP_PERCENT = 110
"""Clip bound of a release made here, of the nominal limit, or what covers the trace."""
MIN_SECONDS = 13
"""Shortest trace that can be compared."""


@dataclass(frozen=True, slots=True)
class RealTrace:
    """A real trace: `power_w` float32[gpus, ticks] at 10 Hz, NaN = missing, nominal limit W."""

    name: str
    gpu_model: str
    sampler_mode: str
    tdp_w: int
    power_w: Readings


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """Who releases: `count` hosts of `gpus` GPUs run the trace in step, GPU g its row g (modulo the rows).

    Each adds its own noise at `epsilon`; None: without noise.
    """

    count: int = 32
    gpus: int = 8
    epsilon: float | None = 1.0
    window_s: int = 60


def real_traces(
    where: str, tdp_w: int | None = None, *, skip: Callable[[Skipped], None] = lambda one: None
) -> list[RealTrace]:
    """Traces of a file, a directory (as `bench margin` reads it), or `bundled:NAME`, sorted by name.

    Files: this project's traces, nvidia-smi logs, Parquet. `skip` is told what a directory holds that cannot be used.
    Raises TraceError, ConfigError for an unknown bundled one.
    """
    if where.startswith(BUNDLED):
        name = where.removeprefix(BUNDLED)
        return [_of_trace(name, load_bundled(name), tdp_w)]
    path = Path(where)
    if path.is_dir():
        own = [_of_trace(one.name.removesuffix(SUFFIX), _parsed(one), tdp_w) for one in sorted(path.glob(f"*{SUFFIX}"))]
        if own:
            return own
        found = read_traces(path, tdp_w=tdp_w)
        for one in found.skipped:
            skip(one)
        return sorted(map(_of_log, found.traces), key=lambda one: one.name)
    if path.suffix == ".json":
        return [_of_trace(path.name.removesuffix(SUFFIX).removesuffix(".json"), _parsed(path), tdp_w)]
    if path.suffix.lower() not in {".csv", ".parquet"}:
        raise TraceError(f"{path.name}: not a trace (.trace.json, .csv or .parquet)", field="traces")
    try:
        return [_of_log(read_trace(path, path.stem, {}, tdp_w))]
    except Unusable as error:
        raise TraceError(f"{path.name}: {error}", field="traces") from error


def _parsed(path: Path) -> Trace:
    try:
        return parse_trace(path.read_bytes())
    except OSError as error:
        raise TraceError(f"{path.name}: {error.strerror}", field="traces") from error


def _of_trace(name: str, trace: Trace, tdp_w: int | None) -> RealTrace:
    if trace.sample_hz != SAMPLE_HZ:
        raise TraceError(f"{name}: sampled at {trace.sample_hz} Hz; {SAMPLE_HZ} Hz are compared", field="traces")
    if np.isnan(trace.power_w).all(axis=1).any():
        raise TraceError(f"{name}: a GPU without any reading", field="traces")
    limit_w = tdp_w or nominal_limit_w(trace.power_w[~np.isnan(trace.power_w)])
    return RealTrace(name, trace.gpu_model, trace.sampler_mode, limit_w, trace.power_w)


def _of_log(log: BenchTrace) -> RealTrace:
    mode = log.mode if log.mode != UNKNOWN else "legacy"
    return RealTrace(log.name, log.gpu, mode, log.tdp_w, log.power_w)


def covered(trace: RealTrace, hosts: Hosts) -> Readings:
    """The part of a trace that whole windows cover. Raises TraceError for one too short to be compared."""
    seconds = trace.power_w.shape[1] // SAMPLE_HZ
    if seconds < MIN_SECONDS:
        raise TraceError(f"{trace.name}: {seconds} s are too short, {MIN_SECONDS} s are needed", field="traces")
    window_s = min(hosts.window_s, seconds)
    return trace.power_w[:, : seconds // window_s * window_s * SAMPLE_HZ]


def released_of_trace(trace: RealTrace, hosts: Hosts) -> Released:
    """What is released where `hosts` run the trace in step: distilled, privatised by each host, summed.

    The noise is OpenDP's and different each time. Raises TraceError for a trace too short, ConfigError for an epsilon
    or number of hosts out of range.
    """
    power_w = covered(trace, hosts)
    schedule = Schedule(window_ms=1000 * min(hosts.window_s, power_w.shape[1] // SAMPLE_HZ), sample_hz=SAMPLE_HZ)
    edges = tuple(trace.tdp_w * i // STATES for i in range(1, STATES))
    high = 10 * max(-(-TOP_PERCENT * trace.tdp_w // 1000), math.ceil(float(np.nanmax(power_w)) / 10))
    profile = _profile(trace, edges, high)
    power_w = power_w[np.arange(max(hosts.gpus, power_w.shape[0])) % power_w.shape[0]]
    rows, grid = power_w.shape[0], Grid(edges)
    privatiser, variance = _privatiser(profile, schedule, hosts)
    counts = np.zeros((grid.cells, grid.cells), dtype=np.int64)
    windows = []
    for start in range(0, power_w.shape[1], schedule.ticks):
        exact = distil(power_w[:, start : start + schedule.ticks], grid, 0, high, schedule.ticks_per_pane)
        if not exact.readings_taken:
            continue
        window_counts, sums = hosts.count * exact.transitions, hosts.count * exact.pane_sums
        if privatiser is not None:
            for _ in range(hosts.count):
                window_counts = window_counts + privatiser.add_noise("transitions", np.zeros_like(exact.transitions))
                sums = sums + privatiser.add_noise("pane_sums", np.zeros_like(exact.pane_sums))
        counts += window_counts
        to_w = PANE_SUM_QUANTUM_MW / 1000 * sums.size / (hosts.count * exact.readings_taken)
        noise_w2 = hosts.count * variance["pane_sums"] * to_w * to_w
        windows.append(ReleasedWindow(start * schedule.tick_ms, sums.astype(np.float64) * to_w, noise_w2))
    model = ReleasedModel(
        edges_w=edges,
        low_w=0,
        high_w=high,
        sample_hz=SAMPLE_HZ,
        ticks_per_pane=schedule.ticks_per_pane,
        gpus=rows * hosts.count,
        transitions=counts,
        transitions_total=hosts.count * rows * (schedule.ticks - 1) * len(windows),
        transitions_noise=hosts.count * variance["transitions"] * len(windows),
        windows=tuple(windows),
    )
    noise = "no noise" if hosts.epsilon is None else f"epsilon {hosts.epsilon:g}"
    return Released(
        model, trace.gpu_model, trace.sampler_mode, f"{trace.name} on {hosts.count} hosts × {rows} GPUs, {noise}", 0
    )


def _profile(trace: RealTrace, edges: tuple[int, ...], high: int) -> ClassProfile:
    replayed = Trace(trace.power_w, SAMPLE_HZ, trace.sampler_mode, trace.gpu_model, {})
    gpus = trace.power_w.shape[0]
    return ClassProfile(
        model=trace.gpu_model,
        capacity_w=gpus * trace.tdp_w,
        edges_w=edges,
        clip_low_w=0,
        clip_high_w=high,
        source=TraceSource(replayed, gpus=gpus, seed=trace.name),
    )


def _privatiser(profile: ClassProfile, schedule: Schedule, hosts: Hosts) -> tuple[Privatiser | None, dict[str, float]]:
    """The mechanism at the shipped split of epsilon, and the variance of one draw of each release."""
    if hosts.epsilon is None:
        return None, {"transitions": 0.0, "pane_sums": 0.0}
    if not 0 < hosts.epsilon <= 1000:
        raise ConfigError("epsilon is above 0 and at most 1000", field="epsilon")
    shipped = Budget()
    budget = Budget(
        transitions_micro=round(shipped.transitions_micro * hosts.epsilon),
        pane_sums_micro=round(shipped.pane_sums_micro * hosts.epsilon),
    )
    parameters = privacy_parameters(budget, (profile,), schedule)
    scales = {one.release: one.scale_micro / MICRO for one in parameters.releases}
    return Privatiser(parameters), {name: discrete_laplace_variance(scale) for name, scale in scales.items()}
