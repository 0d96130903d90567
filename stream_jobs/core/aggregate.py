"""Aggregation: raw noisy integers are summed first, and projected once per class and window."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from power_model import exact
from power_model.grid import midpoints_w
from power_model.noise import discrete_laplace_variance
from power_model.pooled import ClassRows, Floats
from power_model.stationary import stationary
from power_model.transitions import occupancy, project_counts, to_ppm, transition_matrix
from schemas.contract import PANE_SUM_QUANTUM_MW
from schemas.records import GpuClass, HostEnrolment, OutputClass, WindowReport
from stream_jobs.core.aside import Correction, JudgedClass
from stream_jobs.core.columns import ClassSum, Ints
from stream_jobs.core.rows import class_rows, histogram_sum, reconciled_mean
from stream_jobs.core.windows import Verified, Window
from verifier.policy.subjects import Subject


def add_report(
    window: Window,
    report: WindowReport,
    classes: Sequence[GpuClass],
    host: HostEnrolment,
    verified: Verified,
    *,
    digest: bytes,
    offset: int,
    flags: tuple[str, ...],
) -> None:
    """Add one admitted report to its window: integer sums per class, and what is kept per host."""
    entries, host_id, label = window.entries, report.host_id, report.group_label
    scales = entries.scales_of(report.privacy)
    for stated in classes:
        key = stated.model, stated.sampler_mode
        total = window.sums.get(key)
        if total is None:
            total = window.sums[key] = ClassSum(stated.edges_w, window.roster)
        total.add(host_id, stated, label, scales)
    again = window.revision >= 0
    origin = report.source, verified.root_label, verified.simulated, report.first_mile
    entries.add(host_id, digest, offset, origin, flags, again, verified.subjects, report.privacy)
    window.dirty = again


def remove_revoked(window: Window, denied: frozenset[Subject]) -> bool:
    """Take back the reports that rest on something denied, as if they had never come; True if there were any.

    What earlier windows tell of a host, in `history`, stays: it is of the first revisions, which nothing changes.
    """
    gone = window.entries.revoked(denied)
    if not gone:
        return False
    window.entries = window.entries.without(gone)
    for key in list(window.sums):
        if not window.sums[key].remove(one for one in window.sums[key].host_ids if one in gone):
            del window.sums[key]
    window.dirty = window.revision >= 0
    return True


@dataclass(frozen=True, slots=True, eq=False)
class HostFigures:
    """What every enrolled host reports, float64[hosts] by row of the roster, 0 for those that are silent.

    `capacity_w`, `gpus`; `counted_w`, `counted_gpus`: of the classes whose readings count; `mean_w`: mean power, W,
    `variance_w2` of the known noise in it. `rows`: of the hosts that report, in log order.
    """

    rows: Ints
    capacity_w: Ints
    gpus: Ints
    counted_w: Ints
    counted_gpus: Ints
    mean_w: Floats
    variance_w2: Floats


def host_figures(window: Window, classes: Sequence[JudgedClass]) -> HostFigures:
    """Figures of every host, its `classes` added in order."""
    hosts = len(window.roster.hosts)
    capacity_w, gpus, counted_w, counted_gpus = (np.zeros(hosts, np.int64) for _ in range(4))
    mean_w, variance_w2 = np.zeros(hosts), np.zeros(hosts)
    for one in classes:
        total = one.total
        capacity_w[total.rows] += total.capacity_of_w
        gpus[total.rows] += total.gpus_of
        counted_w[total.rows] += np.where(one.absent, 0, total.capacity_of_w)
        counted_gpus[total.rows] += np.where(one.absent, 0, total.gpus_of)
        readings = total.readings_of
        to_w = np.where(readings > 0, PANE_SUM_QUANTUM_MW / 1000 * total.gpus_of / np.maximum(1, readings), 0.0)
        matrix = total.panes
        noise = np.array([_variance_of(scale) for _, _, scale, _ in total.scales])[total.scale_codes]
        mean_w[total.rows] += matrix.sum(axis=1, dtype=np.int64) * to_w
        variance_w2[total.rows] += matrix.shape[1] * noise * to_w * to_w
    rows = window.roster.rows_of(window.entries.host_ids())
    return HostFigures(rows, capacity_w, gpus, counted_w, counted_gpus, mean_w, variance_w2)


@lru_cache(maxsize=256)
def _variance_of(scale_micro: int) -> float:
    """Variance of discrete Laplace noise, unit squared, 0 without. Hosts of a fleet share a handful of scales."""
    if scale_micro <= 0:
        return 0.0
    return discrete_laplace_variance(scale_micro / 1e6)


def _noise_variance(total: ClassSum, place: int) -> float:
    """Variance of the noise in the sum over the hosts of what `ClassSum.scales` has at `place`."""
    counts = np.bincount(total.scale_codes, minlength=len(total.scales)).tolist()
    return math.fsum(count * _variance_of(one[place]) for count, one in zip(counts, total.scales, strict=True))


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
    apart = middles[:, np.newaxis] - middles[np.newaxis, :]
    counts = projected[: middles.size, : middles.size]
    mass = exact.total(counts)
    return exact.dot(counts, apart * apart) / mass / 2 if mass else 0.0


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
    sums = total.pane_sums
    pane_w = watts / (ticks_per_pane * taken) if taken else 0.0
    panes = len(sums)
    mean_w = math.fsum(correction.pane_sums.tolist()) * pane_w / panes
    shift_w = (mean_w + correction.absent_w) * level - mean_w * factor
    rows = class_rows(
        total,
        correction,
        model,
        ticks_per_pane=ticks_per_pane,
        pane_w=pane_w,
        scale=factor,
        step_w2=_step_variance_w2(projected, midpoints_w(total.edges_w, model.clip_low_w, model.clip_high_w)),
        past=window.history.groups.of(key, total.host_ids) if window.history else None,
    )
    moved_w, spared_w2 = reconciled_mean(rows)
    noise_w2 = correction.pane_variance / panes * pane_w * pane_w
    # Readings are rounded to the quantum; GPUs in step that stand still are all rounded the same way.
    rounding_w = correction.gpus * watts
    histogram = histogram_sum(total)
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
        pane_sums_sum=sums.astype("<i8").tobytes(),
        pane_sums_shape=sums.shape,
        pane_sum_quantum_mw=PANE_SUM_QUANTUM_MW,
        transitions_noise_variance_micro=round(_noise_variance(total, 1) * 1e6),
        pane_noise_variance_w2=round(_noise_variance(total, 2) * pane_w * pane_w),
        histogram_sum=None if histogram is None else histogram.astype("<i8").tobytes(),
        histogram_sum_absent_reason="not released by every host" if histogram is None else None,
        transition_matrix_ppm=to_ppm(matrix).astype("<i4").tobytes(),
        stationary_ppm=to_ppm(stationary(matrix, occupancy(projected))).astype("<i4").tobytes(),
    )
    return ClassFigures(
        mean_w=(mean_w + moved_w + correction.absent_w) * level,
        mean_variance_w2=(max(0.0, noise_w2 - spared_w2) + rounding_w * rounding_w / 12) * level * level,
        panes_w=tuple((correction.pane_sums * pane_w * factor + shift_w).tolist()),
        pane_variance_w2=correction.pane_variance * pane_w * pane_w * factor * factor,
        rows=rows,
        aside_up_w=correction.aside_up_w,
        aside_down_w=correction.aside_down_w,
        aside_panes_w=tuple((correction.aside * pane_w * level).tolist()),
        record=record,
    )
