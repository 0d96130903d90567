"""`bench margin`: how far estimates of a fleet's mean and margin are off, on fleets drawn from traces.

Trials run in processes of their own; fleets, readings and simulated noise depend on the seed alone, not on how many
processes there are. OpenDP's noise comes from the operating system and differs from run to run.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, fields
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np

from enclavescale.bench.host import BenchFailed
from enclavescale.bench.margin_score import estimator_figures, forecast_figures, paper_variants
from enclavescale.bench.margin_trial import Bench, MarginSpec, WindowFigures, bench_of, run_trial
from enclavescale.bench.trace_files import WORKLOADS, BenchTrace, Skipped, read_traces
from enclavescale.bench.trace_log import AVERAGE, INSTANT
from producers.errors import TraceError
from producers.privacy import Budget

ANY, ALL = "any", "all"
MODE_CHOICES = (ALL, ANY, INSTANT, AVERAGE)
ALONE_SHARE, MOST_ALONE = 4, 240
"""Fleets of one kind of reading are measured in a quarter of the windows of the mixed ones, and no more than these."""
PAST_WINDOWS, PAST_PER_FLEET, PAST_SHARE, MOST_PAST_FLEETS = 30, 10, 50, 12
"""Fleets with a past of so many windows, of which so many more are measured; one for every fifty windows in all."""
PAST_FIRST = 1 << 40
"""Index of the first of them: they are other fleets than those without a past."""
FEW_REPORTS = 2_000
"""Fewer reports than this are made sooner in this process than in new ones."""

Task = tuple[str | None, int, int, int]
_shared: list[tuple[Bench, Event]] = []


def _adopt(bench: Bench, stop: Event) -> None:
    _shared[:] = [(bench, stop)]


def _work(task: Task) -> list[WindowFigures]:
    bench, stop = _shared[0]
    return [] if stop.is_set() else run_trial(bench, *task)


@dataclass(frozen=True, slots=True)
class Part:
    """Fleets of one kind: `mode` of their readings (None: any), windows measured, in each fleet, and before them."""

    mode: str | None
    windows: int
    per_fleet: int
    run_up: int
    first: int = 0

    @property
    def fleets(self) -> int:
        """How many fleets that makes."""
        return -(-self.windows // self.per_fleet)

    def tasks(self) -> list[Task]:
        """One task per fleet: kind of reading, index, windows measured and before them."""
        return [
            (self.mode, self.first + index, min(self.per_fleet, self.windows - index * self.per_fleet), self.run_up)
            for index in range(self.fleets)
        ]


def _run(bench: Bench, tasks: Sequence[Task], workers: int) -> Iterator[list[WindowFigures]]:
    """Results in the tasks' order, whoever makes them."""
    spec = bench.spec
    reports = spec.hosts * sum(run_up + windows for _, _, windows, run_up in tasks)
    if workers == 1 or reports < FEW_REPORTS:
        for task in tasks:
            yield run_trial(bench, *task)
        return
    context = get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_adopt, initargs=(bench, stop))
    try:
        # Processes that start now inherit the mask: an interrupt ends this one, which lets them finish a trial.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            results = pool.map(_work, tasks)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        yield from results
    except BrokenProcessPool as error:
        raise BenchFailed("a process of the benchmark died", remedy="Try fewer --workers: memory?") from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def bench_margin(
    directory: Path,
    spec: MarginSpec,
    *,
    mode: str = ALL,
    gpu: str | None = None,
    tdp_w: int | None = None,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Measure and return a JSON-ready document; powers in MW of a fleet with 100 MW nameplate.

    `gpu`: only traces whose GPU's name has this in it. `workers` 0: one process per core. `progress` is told the
    windows done and those in all. Raises `TraceError`, `BenchFailed`.
    """
    found = read_traces(directory, tdp_w=tdp_w)
    traces = [one for one in found.traces if gpu is None or gpu.lower() in one.gpu.lower()]
    if not traces:
        raise TraceError(f"no trace of a GPU named {gpu!r}", field="gpu")
    plan = _plan(traces, spec, mode)
    past = _past(plan[0]) if mode == ALL else None
    bench = bench_of(spec, traces, [part.mode for part in plan])
    found_of = _measure(bench, [*plan, *([past] if past else [])], workers or os.cpu_count() or 1, progress)
    main = found_of[plan[0]]
    return {
        "estimators": estimator_figures(main, spec.seed),
        "paper_variants": paper_variants(main),
        "forecast": forecast_figures(main, spec.seed),
        "fleet": _fleet(bench, plan[0], main),
        "by_mode": {part.mode: _figures(bench, part, found_of[part]) for part in plan if part.mode is not None},
        "with_past": _figures(bench, past, found_of[past]) if past else None,
        "seed": spec.seed,
        "noise": spec.noise,
        "epsilon": spec.epsilon,
        "epsilon_split": {
            one.name.removesuffix("_micro"): getattr(spec.budget, one.name) / 1e6
            for one in fields(Budget)
            if one.name.endswith("_micro") and getattr(spec.budget, one.name)
        },
        "skipped": [{"file": one.file, "reason": one.reason} for one in (*found.skipped, *_unused(traces))],
    }


def _unused(traces: Sequence[BenchTrace]) -> list[Skipped]:
    """Traces of which a manifest says something that no fleet is made of."""
    return [
        Skipped(one.name, f"workload {one.workload!r} is none of {', '.join(WORKLOADS)}")
        for one in traces
        if one.workload not in WORKLOADS
    ]


def _measure(
    bench: Bench, parts: Sequence[Part], workers: int, progress: Callable[[int, int], None]
) -> dict[Part, list[WindowFigures]]:
    """Windows measured, by part."""
    tasks = [(part, task) for part in parts for task in part.tasks()]
    measured: dict[Part, list[WindowFigures]] = {part: [] for part in parts}
    count, total = 0, sum(part.windows for part in parts)
    for (part, _), figures in zip(tasks, _run(bench, [task for _, task in tasks], workers), strict=True):
        measured[part].extend(figures)
        count += len(figures)
        progress(count, total)
    return measured


def _figures(bench: Bench, part: Part, windows: Sequence[WindowFigures]) -> dict[str, Any]:
    return {
        "estimators": estimator_figures(windows, bench.spec.seed),
        "forecast": forecast_figures(windows, bench.spec.seed),
        "fleet": _fleet(bench, part, windows),
    }


def _past(main: Part) -> Part | None:
    """Fleets with a past, so that hosts have references and the outlier layers work; None for a short run."""
    fleets = min(main.windows // PAST_SHARE, MOST_PAST_FLEETS)
    if not fleets or main.run_up >= PAST_WINDOWS:
        return None
    return Part(main.mode, fleets * PAST_PER_FLEET, PAST_PER_FLEET, PAST_WINDOWS, PAST_FIRST)


def _plan(traces: Sequence[BenchTrace], spec: MarginSpec, mode: str) -> list[Part]:
    """Kinds of fleets and windows of each; with `all` those kinds of reading of which there are fleets."""

    def part(kind: str | None, windows: int) -> Part:
        return Part(kind, windows, spec.per_fleet, spec.run_up)

    if mode in (INSTANT, AVERAGE):
        return [part(mode, spec.windows)]
    plan = [part(None, spec.windows)]
    if mode == ALL:
        alone = max(min(-(-spec.windows // ALONE_SHARE), MOST_ALONE), spec.per_fleet)
        for kind in (INSTANT, AVERAGE):
            if any(one.mode == kind and one.workload in {"training", "inference"} for one in traces):
                plan.append(part(kind, alone))
    return plan


def _fleet(bench: Bench, part: Part, windows: Sequence[WindowFigures]) -> dict[str, Any]:
    """What the fleets were made of and how their true power moved."""
    spec, pools = bench.spec, bench.pools[part.mode]
    margin = np.array([(one.p99_w - one.mean_w) * one.mw_per_w for one in windows])
    used = {id(one): one for one in (*pools.jobs, *pools.inference, *pools.idle)}.values()
    return {
        "hosts": spec.hosts,
        "gpus_per_host": spec.gpus,
        "window_s": spec.window_s,
        "pane_ms": spec.pane_ms,
        "windows": len(windows),
        "fleets": part.fleets,
        "run_up_windows": part.run_up,
        "group_labels": spec.labels,
        "nameplate_mw": 100.0,
        "true_mean_mw": float(np.mean([one.mean_w * one.mw_per_w for one in windows])),
        "true_margin_mw": float(margin.mean()),
        "true_margin_p95_mw": float(np.quantile(margin, 0.95)),
        "jobs_from": pools.job_workload,
        "job_traces": len(pools.jobs),
        "job_on_one_row": pools.one_row,
        "inference_traces": len(pools.inference),
        "idle_traces": len(pools.idle),
        "readings": dict(sorted(Counter(one.mode for one in used).items())),
        "ticks_filled_ppm": round(float(np.mean([one.filled_ppm for one in used]))),
        "classes": {
            model: {"clip_high_w": rule.clip_high_w}
            for model, rule in bench.rules.items()
            if any(one.model == model for one in used)
        },
    }
