"""Checks of one report against its binding, the policy and physics. Pure; each raises `Refused`."""

from __future__ import annotations

import math

import numpy as np

from schemas.contract import FIRST_MILE_GRADES, PANE_SUM_QUANTUM_MW, group_size_of
from schemas.records import (
    ClassEnrolment,
    DomainRule,
    GpuClass,
    HostEnrolment,
    PrivacyParameters,
    PrivacyRelease,
    SessionBinding,
    WindowReport,
)
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.refusals import Refused

NOISE_TAIL = 1e-9
"""Probability with which an honest report may exceed a bound of the physics layer through noise alone, per bound."""

SENSITIVITY_L1 = {"transitions": 4}
"""Fixed L1 sensitivities to replacing one reading (design, section 8); a pane sum's is its clip range."""

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
            if stated.sensitivity_l1 != sensitivity or stated.epsilon_micro <= 0:
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


def noise_bound(scale: float, count: int) -> float:
    """Bound that the sum of `count` discrete Laplace draws exceeds with probability at most `NOISE_TAIL`.

    Bernstein's inequality for sums of sub-exponential variables; the discrete law's tails lie below the continuous
    one's for the same scale up to one unit per draw, which the second term covers.
    """
    log = math.log(2 / NOISE_TAIL)
    return scale * (2 * math.sqrt(count * log) + 2 * log) + count


def class_arrays(stated: GpuClass) -> tuple[np.ndarray, np.ndarray]:
    """Transition counts [k+2, k+2] and pane sums [panes] as int64. Raises Refused SHAPE_INVALID."""
    cells = len(stated.edges_w) + 2
    panes = stated.pane_sums_shape[0] if len(stated.pane_sums_shape) == 1 else -1
    if stated.transitions_shape != (cells, cells) or len(stated.transitions) != 4 * cells * cells:
        raise Refused("SHAPE_INVALID", "transitions", field="transitions")
    if panes < 1 or len(stated.pane_sums) != 4 * panes:
        raise Refused("SHAPE_INVALID", "pane sums", field="pane_sums")
    counts = np.frombuffer(stated.transitions, "<i4").astype(np.int64).reshape(cells, cells)
    return counts, np.frombuffer(stated.pane_sums, "<i4").astype(np.int64)


def check_class(
    stated: GpuClass,
    enrolled: ClassEnrolment,
    view: PolicyView,
    report: WindowReport,
    *,
    rule: DomainRule,
    widest: int,
) -> tuple[np.ndarray, np.ndarray]:
    """One GPU class against enrolment, model rule, schedule and physics; returns its arrays (see `class_arrays`).

    `widest`: largest clip range on the host, units of 0.1 W: the sensitivity of its pane sums.
    """
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
    counts, sums = class_arrays(stated)
    ticks = report.sample_hz * rule.window_ms // 1000
    ticks_per_pane = report.sample_hz * report.pane_ms // 1000
    if len(sums) * report.pane_ms != rule.window_ms or report.samples_scheduled != ticks:
        raise Refused("SHAPE_INVALID", "panes and samples do not fill the window", field="pane_sums")
    if not 0 <= stated.readings_taken <= stated.gpus * ticks or not 0 <= report.samples_taken <= ticks:
        raise Refused("COUNTS_IMPLAUSIBLE", "readings taken exceed the schedule", field="readings_taken")
    scale = _scale(report.privacy, "transitions", SENSITIVITY_L1["transitions"])
    excess = abs(int(counts.sum()) - stated.gpus * (ticks - 1))
    if excess > noise_bound(scale, counts.size) or int(np.abs(counts).max()) > stated.gpus * ticks + noise_bound(
        scale, 1
    ):
        raise Refused("COUNTS_IMPLAUSIBLE", "transition counts do not match the schedule", field="transitions")
    units = 1000 // stated.pane_sum_quantum_mw
    slack = noise_bound(_scale(report.privacy, "pane_sums", widest), 1)
    top = stated.gpus * ticks_per_pane * stated.clip_high_w * units
    # Missing readings add nothing, so the floor is the lower clip bound only for the readings taken.
    floor = min(0, stated.gpus * ticks_per_pane * stated.clip_low_w * units)
    if int(sums.max()) > top + slack or int(sums.min()) < floor - slack:
        raise Refused("POWER_IMPLAUSIBLE", "pane sums lie outside the enrolled range", field="pane_sums")
    return counts, sums


def check_classes(
    report: WindowReport, binding: SessionBinding, host: HostEnrolment, view: PolicyView, rule: DomainRule
) -> list[tuple[GpuClass, np.ndarray, np.ndarray]]:
    """All GPU classes of a report; returns (class, transitions, pane sums) in the report's order."""
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
    ranges = [view.models[one.model].clip_high_w - view.models[one.model].clip_low_w for one in report.classes]
    widest = max(ranges, default=0) * 10
    result = []
    for one in report.classes:
        if one.sampler_mode != binding.sampler_mode:
            raise Refused("BINDING_MISMATCH", "sampler mode differs from the session binding", field="sampler_mode")
        result.append((one, *check_class(one, enrolled[one.model], view, report, rule=rule, widest=widest)))
    return result
