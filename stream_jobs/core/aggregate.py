"""Aggregation: raw noisy integers are summed first, and projected once per class and window."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from power_model.grid import midpoints_w
from power_model.noise import discrete_laplace_variance, summed_variance
from power_model.stationary import stationary
from power_model.swing import ClassRows
from power_model.transitions import occupancy, project_counts, to_ppm, transition_matrix
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.records import GpuClass, HostEnrolment, OutputClass, WindowReport
from stream_jobs.core.aside import Correction
from stream_jobs.core.rows import class_rows, histogram_matrix, reconciled_mean
from stream_jobs.core.windows import ClassSum, Entry, Verified, Window


def scale_micro_of(report: WindowReport, release: str) -> int:
    """Noise scale of one release, millionths of its unit; 0 if it is not stated. The checks demand what must be."""
    return next((stated.scale_micro for stated in report.privacy.releases if stated.release == release), 0)


def add_report(
    window: Window,
    report: WindowReport,
    classes: list[tuple[GpuClass, np.ndarray, np.ndarray]],
    host: HostEnrolment,
    verified: Verified,
    *,
    digest: bytes,
    offset: int,
    flags: tuple[str, ...],
) -> None:
    """Add one admitted report to its window: integer sums per class, and what is kept per host."""
    transition_scale = pane_scale = pane_epsilon = histogram_scale = 0
    for one in reversed(report.privacy.releases):  # of a name stated twice, the checks look at the first
        if one.release == "transitions":
            transition_scale = one.scale_micro
        elif one.release == "pane_sums":
            pane_scale, pane_epsilon = one.scale_micro, one.epsilon_micro
        elif one.release == "histogram":
            histogram_scale = one.scale_micro
    mean_w, variance_w2, capacity_w, gpus = [], [], 0, 0
    for stated, counts, sums in classes:
        total = window.sums.get((stated.model, stated.sampler_mode))
        if total is None:
            total = ClassSum(stated.edges_w, np.zeros_like(counts), np.zeros_like(sums))
            window.sums[(stated.model, stated.sampler_mode)] = total
        total.transitions += counts
        total.pane_sums += sums
        total.host_ids.append(report.host_id)
        total.host_gpus.append(stated.gpus)
        total.host_capacity_w.append(stated.capacity_w)
        limit_w = stated.enforced_limit_w
        total.host_effective_w.append(stated.capacity_w if limit_w is None else min(limit_w, stated.capacity_w))
        total.host_readings.append(stated.readings_taken)
        total.panes.append(stated.pane_sums)
        total.histograms.append(stated.histogram)
        total.histogram_scales_micro.append(histogram_scale)
        total.labels.append(report.group_label)
        total.transition_scales_micro.append(transition_scale)
        total.pane_scales_micro.append(pane_scale)
        total.pane_epsilons_micro.append(pane_epsilon)
        capacity_w += stated.capacity_w
        gpus += stated.gpus
        if stated.readings_taken:
            to_w = PANE_SUM_QUANTUM_MW / 1000 * stated.gpus / stated.readings_taken
            mean_w.append(sum(sums.tolist()) * to_w)
            variance_w2.append(len(sums) * _variance_of(pane_scale) * to_w * to_w)
    window.entries[report.host_id] = Entry(
        host_id=report.host_id,
        digest=digest,
        offset=offset,
        late=window.revision >= 0,
        flags=flags,
        tenant=host.tenant,
        source=report.source,
        root=verified.root_label,
        simulated=verified.simulated,
        first_mile=report.first_mile,
        capacity_w=capacity_w,
        gpus=gpus,
        mean_w=math.fsum(mean_w),
        mean_variance_w2=math.fsum(variance_w2),
        epsilon_micro=report.privacy.epsilon_total_micro,
        w_event_windows=report.privacy.w_event_windows,
        w_event_epsilon_micro=report.privacy.w_event_epsilon_micro,
    )
    window.dirty = window.revision >= 0


@lru_cache(maxsize=256)
def _variance_of(scale_micro: int) -> float:
    """Variance of discrete Laplace noise, unit squared. Hosts of a fleet share a handful of scales."""
    return discrete_laplace_variance(scale_micro / 1e6)


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """Figures of one class, scaled by capacity from the hosts that count to all that are enrolled.

    `mean_w`, `panes_w` [panes]: power; `*_variance_w2`: variance of the known noise in them. `rows`: what the swing is
    estimated from. `aside_up_w`, `aside_down_w`: how far the mean would
    lie higher and lower with the claims that are set aside, `aside_panes_w` [panes] what they would add to the panes.
    `record`: the output's sums and chain.
    """

    mean_w: float
    mean_variance_w2: float
    panes_w: tuple[float, ...]
    pane_variance_w2: float
    rows: ClassRows
    aside_up_w: float
    aside_down_w: float
    aside_panes_w: tuple[float, ...]
    record: OutputClass


def _step_variance_w2(projected: np.ndarray, middles: np.ndarray) -> float:
    """Half the mean squared step between successive readings of one GPU, W^2 (0 without transitions)."""
    mass, moved = [], []
    for i, from_w in enumerate(middles):
        for j, to_w in enumerate(middles):
            count = float(projected[i, j])
            if count:
                mass.append(count)
                moved.append(count * (float(to_w) - float(from_w)) ** 2)
    total = math.fsum(mass)
    return math.fsum(moved) / total / 2 if total else 0.0


def class_figures(
    window: Window, key: tuple[str, str], enrolled_capacity_w: int, correction: Correction
) -> ClassFigures:
    """Derive one class's figures; floats are summed exactly (fsum) so that order and SIMD width do not matter.

    Hosts that count at their references without a claim add to the level, not to the swing.
    """
    total = window.sums[key]
    policy = window.view.policy
    ticks = policy.sample_hz * window.rule.window_ms // 1000
    ticks_per_pane = policy.sample_hz * window.rule.pane_ms // 1000
    model = window.view.models[key[0]]
    projected = project_counts(total.transitions, total.gpus * (ticks - 1))
    matrix = transition_matrix(projected)
    watts = PANE_SUM_QUANTUM_MW / 1000
    taken = correction.readings / (correction.gpus * ticks) if correction.gpus else 0.0
    factor = enrolled_capacity_w / correction.capacity_w if taken else 0.0  # of the swing
    level = correction.factor
    variance = summed_variance(total.pane_scales_micro)
    pane_w = watts / (ticks_per_pane * taken) if taken else 0.0
    panes = len(total.pane_sums)
    mean_w = math.fsum(correction.pane_sums) * pane_w / panes
    shift_w = (mean_w + correction.absent_w) * level - mean_w * factor
    rows = class_rows(
        total,
        correction,
        model,
        ticks_per_pane=ticks_per_pane,
        pane_w=pane_w,
        scale=factor,
        step_w2=_step_variance_w2(projected, midpoints_w(total.edges_w, model.clip_low_w, model.clip_high_w)),
    )
    moved_w, spared_w2 = reconciled_mean(rows)
    histograms = histogram_matrix(total)
    record = OutputClass(
        model=key[0],
        sampler_mode=key[1],
        edges_w=total.edges_w,
        hosts=total.hosts,
        gpus=total.gpus,
        capacity_w=total.capacity_w,
        enrolled_capacity_w=enrolled_capacity_w,
        readings_taken=total.readings_taken,
        transitions_sum=total.transitions.astype("<i8").tobytes(),
        transitions_shape=total.transitions.shape,
        pane_sums_sum=total.pane_sums.astype("<i8").tobytes(),
        pane_sums_shape=total.pane_sums.shape,
        pane_sum_quantum_mw=PANE_SUM_QUANTUM_MW,
        transitions_noise_variance_micro=round(summed_variance(total.transition_scales_micro) * 1e6),
        pane_noise_variance_w2=round(variance * pane_w * pane_w),
        histogram_sum=None if histograms is None else histograms.sum(axis=0).astype("<i8").tobytes(),
        histogram_sum_absent_reason="not released by every host" if histograms is None else None,
        transition_matrix_ppm=to_ppm(matrix).astype("<i4").tobytes(),
        stationary_ppm=to_ppm(stationary(matrix, occupancy(projected))).astype("<i4").tobytes(),
    )
    return ClassFigures(
        mean_w=(mean_w + moved_w + correction.absent_w) * level,
        mean_variance_w2=max(0.0, correction.pane_variance / panes * pane_w * pane_w - spared_w2) * level * level,
        panes_w=tuple(float(one) * pane_w * factor + shift_w for one in correction.pane_sums),
        pane_variance_w2=correction.pane_variance * pane_w * pane_w * factor * factor,
        rows=rows,
        aside_up_w=correction.aside_up_w,
        aside_down_w=correction.aside_down_w,
        aside_panes_w=tuple(float(one) * pane_w * level for one in correction.aside),
        record=record,
    )
