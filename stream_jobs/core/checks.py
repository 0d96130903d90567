"""Checks of one report against its binding, the policy and physics. Pure; each raises `Refused`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from power_model.noise import discrete_laplace_bound
from schemas.contract import FIRST_MILE_GRADES, HISTOGRAM_BINS, HISTOGRAM_CELLS, PANE_SUM_QUANTUM_MW, group_size_of
from schemas.records import (
    ClassEnrolment,
    DomainRule,
    GpuClass,
    HostEnrolment,
    ModelRule,
    PrivacyParameters,
    PrivacyRelease,
    SessionBinding,
    WindowReport,
)
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.refusals import Refused
from stream_jobs.core.tails import sum_excess

NOISE_TAIL = 1e-9
"""Probability with which an honest report may exceed a bound of the physics layer through noise alone, per bound.

A bound on every count or every pane is one bound: it holds for all of them together.
"""

SENSITIVITY_L1 = {"transitions": 4, "histogram": 2}
"""Fixed L1 sensitivities to replacing one reading (design, section 8); a pane sum's is its clip range."""

MAX_LIMIT_FACTOR = 4
"""Enforced power limits beyond this multiple of the enrolled capacity are no limits of these GPUs."""

_INT32 = np.dtype("<i4")
_LEAST, _MOST = -(2**31), 2**31 - 1

CC_ON = "on"
"""`ConfidentialCompute.gpu_cc_mode` of GPUs in production; the others are "off" and "devtools"."""


def check_window(report: WindowReport, rule: DomainRule, append_ms: int, tolerance_ms: int) -> None:
    """Bounds are aligned to the policy's window and do not lie in the future of the broker's append time."""
    aligned = report.window_start_ms % rule.window_ms == 0
    if not aligned or report.window_start_ms < 0 or report.window_end_ms - report.window_start_ms != rule.window_ms:
        raise Refused("WINDOW_MISALIGNED", f"window {report.window_start_ms}..{report.window_end_ms} ms")
    if report.window_end_ms > append_ms + tolerance_ms:
        raise Refused("CLOCK_SKEW", f"window ends {report.window_end_ms - append_ms} ms after its append time")


def check_binding(report: WindowReport, binding: SessionBinding, first_mile: str) -> None:
    """The report repeats what its binding promised, and claims no better first mile than was verified."""
    pairs = (
        ("host_id", report.host_id, binding.host_id),
        ("domain", report.domain, binding.domain),
        ("source", report.source, binding.source),
        ("sample_hz", report.sample_hz, binding.sample_hz),
        ("pane_ms", report.pane_ms, binding.pane_ms),
        ("window_ms", report.window_end_ms - report.window_start_ms, binding.window_ms),
        ("privacy", report.privacy, binding.privacy),
    )
    for name, said, bound in pairs:
        if said != bound:
            raise Refused("BINDING_MISMATCH", f"{name} differs from the session binding", field=name)
    if report.first_mile not in FIRST_MILE_GRADES or FIRST_MILE_GRADES.index(
        report.first_mile
    ) > FIRST_MILE_GRADES.index(first_mile):
        raise Refused("FIRST_MILE_OVERCLAIMED", f"claims {report.first_mile}, evidence proves {first_mile}")


def check_confidential_compute(report: WindowReport, first_mile: str) -> None:
    """Where device evidence earned `first_mile`, the agent's own word must not take it back.

    The mode at the time of the evidence is signed by the device; what it is now only the agent, measured code, can
    say. What it cannot say (null, with its reason) is no refusal.
    """
    if first_mile == FIRST_MILE_GRADES[0]:
        return
    stated = report.confidential_compute
    if stated.gpu_dev_tools:
        raise Refused("DEVICE_MODE", "developer tools are enabled", field="confidential_compute.gpu_dev_tools")
    if stated.gpu_cc_mode not in (None, CC_ON):
        raise Refused(
            "DEVICE_MODE", f"GPUs in mode {stated.gpu_cc_mode[:40]!r}", field="confidential_compute.gpu_cc_mode"
        )


def _scale(privacy: PrivacyParameters, release: str, sensitivity: int) -> float:
    """Noise scale of `release` after checking that it delivers the privacy it states."""
    for stated in privacy.releases:
        if stated.release == release:
            if stated.sensitivity_l1 != sensitivity or min(stated.epsilon_micro, stated.scale_micro) <= 0:
                raise Refused("PRIVACY_REFUSED", f"{release}: sensitivity {stated.sensitivity_l1}, not {sensitivity}")
            # Scale = sensitivity / epsilon, rounded to the millionth on the host. A larger one would buy influence.
            if abs(stated.scale_micro * stated.epsilon_micro - sensitivity * 10**12) > 2 * stated.epsilon_micro:
                raise Refused("PRIVACY_REFUSED", f"{release}: noise scale does not fit its epsilon")
            return stated.scale_micro / 1e6
    raise Refused("PRIVACY_REFUSED", f"no statement for release {release}")


MIN_EPSILON_MICRO = 10_000
"""Smallest budget of one release, millionths: with less, noise would drown every bound of the physics layer."""


def event_epsilon_micro(release: PrivacyRelease, readings: int) -> int:
    """Loss of `readings` readings in a row, millionths: they touch at most readings + 1 transitions (2 each way)."""
    if release.release == "transitions":
        return -(-release.epsilon_micro * (readings + 1) // 2)
    return release.epsilon_micro * readings


def check_privacy(privacy: PrivacyParameters, max_epsilon_micro: int, sensor_group: int) -> None:
    """Mode, mechanism and budget are what the policy allows; losses add up as stated."""
    if any(stated.epsilon_micro < MIN_EPSILON_MICRO for stated in privacy.releases):
        raise Refused("PRIVACY_REFUSED", "a release has less than the smallest budget")
    if privacy.mode != "EDGE" or privacy.mechanism != "discrete_laplace" or privacy.unit_of_privacy != "reading":
        raise Refused("PRIVACY_REFUSED", f"{privacy.mode} / {privacy.mechanism} / {privacy.unit_of_privacy}")
    if privacy.group_size < sensor_group:
        raise Refused("PRIVACY_REFUSED", f"group size {privacy.group_size} < {sensor_group}")
    total = sum(event_epsilon_micro(stated, privacy.group_size) for stated in privacy.releases)
    if privacy.epsilon_total_micro < total or privacy.epsilon_total_micro > max_epsilon_micro:
        stated_total = privacy.epsilon_total_micro / 1e6
        raise Refused("PRIVACY_REFUSED", f"epsilon {stated_total:g}, policy allows {max_epsilon_micro / 1e6:g}")


@lru_cache(maxsize=1024)
def noise_bound(scale: float, count: int) -> float:
    """Bound that the sum of `count` discrete Laplace draws exceeds, on either side, with at most `NOISE_TAIL`."""
    return scale * sum_excess(count, NOISE_TAIL / 2)


def draw_bound(scale: float, count: int) -> int:
    """Bound that any of `count` discrete Laplace draws exceeds, on either side, with at most `NOISE_TAIL`."""
    return discrete_laplace_bound(NOISE_TAIL / count, scale)


def energy_residual_l1(models: Iterable[ModelRule], sample_hz: int) -> int:
    """Sensitivity of energy residuals, mJ: the widest class's (`producers.privacy` has the proof); `sample_hz` > 0.

    One reading moves a GPU's integrated energy by the clip range over a tick, in a window that has nine in ten of its
    readings at least, and the counter by the energy of one update of the sensor, a quarter longer than a tick.
    """
    tick_ms = 1000 // sample_hz
    update_ms = -(-max(tick_ms, 100) * 5 // 4)
    return max(
        -(-(one.clip_high_w - one.clip_low_w) * tick_ms * 100 // 90) + one.clip_high_w * update_ms for one in models
    )


@dataclass(frozen=True, slots=True, eq=False)
class ClassPlan:
    """What the numbers of one class are held against: schedule, enrolled range, and the stated noise at its largest.

    Transitions, pane sums and, if it is stated, the histogram's bins and its last cell are checked end to end: each
    part begins at one of `starts`, and every number lies between `low` and `high` (int32), which are `span` (uint32)
    apart. `cells`: k + 2. `readings`:
    most readings. `counts`: sum of the transitions. `reading_low`, `reading_high`: sum of the panes per reading taken,
    units of 0.1 W times sample. `*_slack`: how far noise moves a sum. `residual_mj`: the energy residual's size, None
    where none is stated.
    """

    ticks: int
    cells: int
    readings: int
    starts: tuple[int, ...]
    low: np.ndarray
    high: np.ndarray
    counts: int
    counts_slack: int
    reading_low: int
    reading_high: int
    window_slack: int
    bins_slack: int
    missing_slack: int
    residual_mj: int | None
    span: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "span", (self.high.astype(np.int64) - self.low).astype(np.uint32))


BOUNDS_PER_CLASS = 4
"""Bounds of `ClassPlan` that noise can break: sum of counts, every count, every pane, sum of panes."""

BOUNDS_PER_HISTOGRAM = 3
"""Sum of the bins, every bin, and the cell of ticks without a reading."""


def physics_false_reject(report: WindowReport) -> float:
    """Probability, at most, with which the physics layer refuses an honest `report` on account of its noise."""
    bounds = 0
    for one in report.classes:
        bounds += BOUNDS_PER_CLASS
        bounds += BOUNDS_PER_HISTOGRAM if one.histogram is not None else 0
        bounds += 1 if one.energy_residual_mj is not None else 0
    return NOISE_TAIL * bounds


def effective_capacity_w(stated: GpuClass, enrolled: ClassEnrolment) -> int:
    """Capacity that counts, W: as enrolled, or the enforced limits' sum where that is lower (design, section 9)."""
    limit = stated.enforced_limit_w
    return enrolled.capacity_w if limit is None else min(limit, enrolled.capacity_w)


def class_arrays(stated: GpuClass) -> tuple[np.ndarray, np.ndarray]:
    """Transition counts [k+2, k+2] and pane sums [panes] as int64. Raises Refused SHAPE_INVALID."""
    cells = _check_shapes(stated)
    counts = np.frombuffer(stated.transitions, _INT32).astype(np.int64).reshape(cells, cells)
    return counts, np.frombuffer(stated.pane_sums, _INT32).astype(np.int64)


def _check_shapes(stated: GpuClass) -> int:
    """Lengths fit shapes, shapes the grid; returns k + 2."""
    cells = len(stated.edges_w) + 2
    panes = stated.pane_sums_shape[0] if len(stated.pane_sums_shape) == 1 else -1
    if stated.transitions_shape != (cells, cells) or len(stated.transitions) != 4 * cells * cells:
        raise Refused("SHAPE_INVALID", "transitions", field="transitions")
    if panes < 1 or len(stated.pane_sums) != 4 * panes:
        raise Refused("SHAPE_INVALID", "pane sums", field="pane_sums")
    expected = () if stated.histogram is None else (HISTOGRAM_CELLS,)
    if stated.histogram_shape != expected or len(stated.histogram or b"") != 4 * sum(expected):
        raise Refused("SHAPE_INVALID", "histogram", field="histogram")
    return cells


def _check_claims(stated: GpuClass, enrolled: ClassEnrolment, view: PolicyView) -> None:
    """The class is the one enrolled, with the model's grid and range."""
    model = view.models[stated.model]
    if (
        stated.gpus != enrolled.gpus
        or stated.capacity_w != enrolled.capacity_w
        or stated.edges_w != model.edges_w
        or (stated.clip_low_w, stated.clip_high_w) != (model.clip_low_w, model.clip_high_w)
        or stated.pane_sum_quantum_mw != PANE_SUM_QUANTUM_MW
        or stated.sampler_mode not in view.policy.accepted_sampler_modes
    ):
        raise Refused("CLASS_MISMATCH", f"class {stated.model} differs from enrolment or policy", field="classes")
    limit = stated.enforced_limit_w
    if limit is not None and not 0 < limit <= MAX_LIMIT_FACTOR * enrolled.capacity_w:
        raise Refused("CLASS_MISMATCH", f"an enforced limit of {limit} W", field="enforced_limit_w")


def _plan_class(stated: GpuClass, report: WindowReport, rule: DomainRule, models: Sequence[ModelRule]) -> ClassPlan:
    """Shapes and schedule of one class fit; returns what its numbers are held against.

    `models`: of all classes of the host, which share one noise scale per release, that of the widest.
    """
    cells = _check_shapes(stated)
    panes = stated.pane_sums_shape[0]
    ticks = report.sample_hz * rule.window_ms // 1000
    if ticks < 1 or panes * report.pane_ms != rule.window_ms or report.samples_scheduled != ticks:
        raise Refused("SHAPE_INVALID", "panes and samples do not fill the window", field="pane_sums")
    statement = report.privacy
    residual_scale = None
    if stated.energy_residual_mj is not None:
        residual_scale = _scale(statement, "energy_residual", energy_residual_l1(models, report.sample_hz))
    return _class_plan(
        stated.gpus,
        (stated.clip_low_w, stated.clip_high_w),
        cells=cells,
        panes=panes,
        ticks=ticks,
        window_ms=rule.window_ms,
        count_scale=_scale(statement, "transitions", SENSITIVITY_L1["transitions"]),
        pane_scale=_scale(statement, "pane_sums", max(one.clip_high_w - one.clip_low_w for one in models) * 10),
        histogram_scale=_histogram_scale(stated, statement),
        residual_scale=residual_scale,
    )


@lru_cache(maxsize=256)
def _class_plan(
    gpus: int,
    clip_w: tuple[int, int],
    *,
    cells: int,
    panes: int,
    ticks: int,
    window_ms: int,
    count_scale: float,
    pane_scale: float,
    histogram_scale: float | None,
    residual_scale: float | None,
) -> ClassPlan:
    """The plan of a class, the same object for all hosts of a kind. Scales are of noise, in their release's unit."""
    low, high = (bound * 1000 // PANE_SUM_QUANTUM_MW for bound in clip_w)
    per_pane, readings = gpus * -(-ticks // panes), gpus * ticks
    count, pane = draw_bound(count_scale, cells * cells), draw_bound(pane_scale, panes)
    parts = [
        (cells * cells, -count, gpus * (ticks - 1) + count),
        # Missing readings add nothing, so the floor is the lower clip bound only for the readings taken.
        (panes, min(0, per_pane * low) - pane, per_pane * high + pane),
    ]
    bins_slack = missing_slack = 0
    if histogram_scale is not None:
        one = draw_bound(histogram_scale, HISTOGRAM_BINS)
        bins_slack = math.floor(noise_bound(histogram_scale, HISTOGRAM_BINS))
        missing_slack = draw_bound(histogram_scale, 1)
        parts += [(HISTOGRAM_BINS, -one, readings + one), (1, -missing_slack, readings + missing_slack)]
    residual = None
    if residual_scale is not None:
        residual = gpus * (clip_w[1] - clip_w[0]) * window_ms + draw_bound(residual_scale, 1)
    sizes = [size for size, _, _ in parts]
    return ClassPlan(
        ticks=ticks,
        cells=cells,
        readings=readings,
        starts=tuple(itertools.accumulate(sizes, initial=0))[:-1],
        low=_bounds(sizes, [one for _, one, _ in parts]),
        high=_bounds(sizes, [one for _, _, one in parts]),
        counts=gpus * (ticks - 1),
        counts_slack=math.floor(noise_bound(count_scale, cells * cells)),
        reading_low=low,
        reading_high=high,
        window_slack=math.floor(noise_bound(pane_scale, panes)),
        bins_slack=bins_slack,
        missing_slack=missing_slack,
        residual_mj=residual,
    )


def _bounds(sizes: list[int], bounds: list[int]) -> np.ndarray:
    """One bound per number; what no int32 exceeds is none."""
    held = np.repeat(np.array([min(max(bound, _LEAST), _MOST) for bound in bounds], _INT32), sizes)
    held.flags.writeable = False
    return held


def _histogram_scale(stated: GpuClass, privacy: PrivacyParameters) -> float | None:
    """Noise scale of the histogram. It comes with a statement of its noise, and the statement with a histogram."""
    if stated.histogram is not None:
        return _scale(privacy, "histogram", SENSITIVITY_L1["histogram"])
    if any(one.release == "histogram" for one in privacy.releases):
        raise Refused("SHAPE_INVALID", "no histogram where one is stated", field="histogram")
    return None


def plan_classes(
    report: WindowReport, binding: SessionBinding, host: HostEnrolment, view: PolicyView, rule: DomainRule
) -> tuple[ClassPlan, ...]:
    """Check all of a report's classes but their numbers; returns what those are held against, in the report's order.

    Rests on nothing that changes from window to window (`schemas.layout.VARIABLE`).
    """
    enrolled = {one.model: one for one in host.classes}
    keys = [(one.model, one.sampler_mode) for one in report.classes]
    if keys != sorted(set(keys)) or {model for model, _ in keys} != set(enrolled) or len(keys) != len(enrolled):
        raise Refused("CLASS_MISMATCH", "GPU classes differ from enrolment", field="classes")
    if report.pane_ms != rule.pane_ms or report.sample_hz != view.policy.sample_hz:
        raise Refused("BINDING_MISMATCH", "pane or sampling rate differs from the policy's", field="pane_ms")
    group = max((group_size_of(one.sampler_mode) for one in report.classes), default=1)
    check_privacy(report.privacy, view.policy.limits.max_epsilon_micro, group)
    for one in report.classes:
        if one.model not in view.models:
            raise Refused("CLASS_MISMATCH", f"the policy has no rule for model {one.model}", field="classes")
        if one.sampler_mode != binding.sampler_mode:
            raise Refused("BINDING_MISMATCH", "sampler mode differs from the session binding", field="sampler_mode")
        _check_claims(one, enrolled[one.model], view)
    models = [view.models[one.model] for one in report.classes]
    return tuple(_plan_class(one, report, rule, models) for one in report.classes)


def check_numbers(report: WindowReport, plans: Sequence[ClassPlan]) -> None:
    """Hold a report's numbers against its plans."""
    for stated, plan in zip(report.classes, plans, strict=True):
        _check_class(stated, report.samples_taken, plan)


def numbers_hold(reports: Sequence[WindowReport], plans: Sequence[ClassPlan]) -> np.ndarray:
    """Whether `check_numbers` finds each of these reports in order, bool[reports]: all of them at once.

    The reports have one layout, that of a report which the plans were made for.
    """
    samples = np.array([one.samples_taken for one in reports], np.int64)
    hold = np.ones(len(reports), np.bool_)
    for at, plan in enumerate(plans):
        stated = [one.classes[at] for one in reports]
        raw = b"".join([part for one in stated for part in (one.transitions, one.pane_sums, one.histogram or b"")])
        numbers = np.frombuffer(raw, _INT32).reshape(len(stated), -1)
        taken = np.array([one.readings_taken for one in stated], np.int64)
        sums = np.add.reduceat(numbers.astype(np.int64), plan.starts, axis=1)
        hold &= (taken >= 0) & (taken <= plan.readings) & (samples >= 0) & (samples <= plan.ticks)
        beyond = (numbers - plan.low).view(np.uint32) > plan.span  # what is too low wraps around
        if np.count_nonzero(beyond):
            hold &= ~beyond.any(axis=1)
        hold &= np.abs(sums[:, 0] - plan.counts) <= plan.counts_slack
        hold &= taken * plan.reading_low - plan.window_slack <= sums[:, 1]
        hold &= sums[:, 1] <= taken * plan.reading_high + plan.window_slack
        if len(plan.starts) > 2:
            hold &= np.abs(sums[:, 2] - taken) <= plan.bins_slack
            hold &= np.abs(sums[:, 3] - (plan.readings - taken)) <= plan.missing_slack
        if plan.residual_mj is not None:
            hold &= np.array([abs(one.energy_residual_mj or 0) <= plan.residual_mj for one in stated], np.bool_)
    return hold


def _check_class(stated: GpuClass, samples_taken: int, plan: ClassPlan) -> None:
    taken = stated.readings_taken
    if not 0 <= taken <= plan.readings or not 0 <= samples_taken <= plan.ticks:
        raise Refused("COUNTS_IMPLAUSIBLE", "readings taken exceed the schedule", field="readings_taken")
    raw = stated.transitions + stated.pane_sums + (stated.histogram or b"")
    as_stated = np.frombuffer(raw, _INT32)
    # On arrays this small a call costs more than its work: as few as can be.
    if np.count_nonzero(as_stated > plan.high) or np.count_nonzero(as_stated < plan.low):
        raise _outside(as_stated, plan)
    counted, total, *binned = np.add.reduceat(as_stated.astype(np.int64), plan.starts).tolist()
    if abs(counted - plan.counts) > plan.counts_slack:
        raise Refused("COUNTS_IMPLAUSIBLE", "transition counts do not match the schedule", field="transitions")
    if not taken * plan.reading_low - plan.window_slack <= total <= taken * plan.reading_high + plan.window_slack:
        raise Refused("POWER_IMPLAUSIBLE", "the readings taken cannot add up to the pane sums", field="pane_sums")
    if binned and (
        abs(binned[0] - taken) > plan.bins_slack or abs(binned[1] - (plan.readings - taken)) > plan.missing_slack
    ):
        raise Refused("COUNTS_IMPLAUSIBLE", "the histogram does not match the readings taken", field="histogram")
    if plan.residual_mj is not None and abs(stated.energy_residual_mj or 0) > plan.residual_mj:
        raise Refused("ENERGY_IMPLAUSIBLE", "the energy residual exceeds the clip range", field="energy_residual_mj")


def _outside(numbers: np.ndarray, plan: ClassPlan) -> Refused:
    """Why: the first part that has a number beyond its bounds."""
    at = int(np.flatnonzero((numbers > plan.high) | (numbers < plan.low))[0])
    if at < plan.starts[1]:
        return Refused("COUNTS_IMPLAUSIBLE", "transition counts do not match the schedule", field="transitions")
    if len(plan.starts) == 2 or at < plan.starts[2]:
        return Refused("POWER_IMPLAUSIBLE", "pane sums lie outside the enrolled range", field="pane_sums")
    return Refused("COUNTS_IMPLAUSIBLE", "the histogram does not match the readings taken", field="histogram")
