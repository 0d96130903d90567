"""The same figures in every environment: two fixed logs, and digests of all that their outputs state.

Nothing here comes from a library's random generator. Keys and quotes are new in every run; no figure depends on them.
`python -m tests.core.golden` writes the digests anew: only together with a new core version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from schemas.contract import HISTOGRAM_BINS, HISTOGRAM_CELLS
from schemas.records import ClassEnrolment, FleetPower, GpuClass, ModelRule
from stream_jobs.core.policies import CORE_VERSION, PolicyView
from stream_jobs.log_record import LogRecord
from tests.core import fleet
from tests.core.arrivals import FLEET, HISTOGRAM, POSITION_FIELDS, Arrival, Told, drawn, end_ms, mixed_policy
from tests.core.fleet import LIMITS, T0, new_session, report_of, seal
from tests.core.replay import Run, new_core, remembered
from tests.core.story import Story

PATH = Path(__file__).with_name("golden_figures.json")

INTEGER_CLASS_FIELDS = (
    "model",
    "sampler_mode",
    "edges_w",
    "hosts",
    "gpus",
    "capacity_w",
    "enrolled_capacity_w",
    "readings_taken",
    "transitions_sum",
    "transitions_shape",
    "pane_sums_sum",
    "pane_sums_shape",
    "pane_sum_quantum_mw",
)
INTEGER_FIELDS = ("window_start_ms", "revision", "coverage", "dilution", "accepted", "late_accepted", "duplicates",
                  "late_refused", "refused", "flagged", "privacy")  # fmt: skip
KEYED_FIELDS = POSITION_FIELDS | {"policy_digest"}
"""Fields that hold digests or positions; what they are made of is compared elsewhere."""


def integers(output: FleetPower) -> dict[str, Any]:
    """What is summed and counted: exact everywhere."""
    classes = [{name: getattr(one, name) for name in INTEGER_CLASS_FIELDS} for one in output.classes]
    counted = {name: asdict(output)[name] for name in INTEGER_FIELDS}
    return {**counted, "classes": classes}


def derived(output: FleetPower) -> dict[str, Any]:
    """Everything else, new fields included: computed in floating point and rounded to its quantum."""
    result = {
        name: one for name, one in asdict(output).items() if name not in KEYED_FIELDS and name not in INTEGER_FIELDS
    }
    for one in result["classes"]:
        for name in INTEGER_CLASS_FIELDS:
            del one[name]
    return result


def digest(parts: Sequence[Any]) -> str:
    total = hashlib.sha256()
    for part in parts:
        total.update(repr(part).encode())
    return total.hexdigest()


def figures(run: Run) -> dict[str, Any]:
    """Digests of a run's outputs, and what the last one says of the mean and the margin, for people."""
    outputs = [made.output for _, made in run.emissions]
    last = asdict(outputs[-1])
    return {
        "outputs": len(outputs),
        "integers": digest([integers(one) for one in outputs]),
        "derived": digest([derived(one) for one in outputs]),
        "last": {name: last[name] for name in ("mean", "quantiles", "ramps", "margin", "forecasts")},
    }


# -- the logs ----------------------------------------------------------------------------------------------------


def mixed_log() -> Story:
    """Three classes of a small fleet, late and lost reports, copies, revisions."""
    view = mixed_policy(1, 3)
    hosts, windows = tuple(FLEET), 12
    arrivals = []
    much = drawn("mixed log", 0, 99, len(hosts) * windows).reshape(windows, len(hosts))
    for window in range(windows):
        for number, host in enumerate(hosts):
            what = int(much[window, number])
            at_ms = end_ms(window) + what * 19
            if what < 10:
                continue  # lost
            if what < 22:
                at_ms += 4_000  # late
            arrivals.append(Arrival(at_ms, number, host, window))
            if what > 85:
                arrivals.append(Arrival(at_ms + 100 * (what - 85), 9, host, window))
    return Told.begin(view).put_all(arrivals).story


WINDOW_MS, PANE_MS, GPUS, HOSTS, WINDOWS = 60_000, 1_000, 8, 24, 7
TICKS, PANES = WINDOW_MS // 100, WINDOW_MS // PANE_MS
LARGE = ModelRule(model="large", edges_w=tuple(range(70, 770, 70)), clip_low_w=0, clip_high_w=770)
CELLS = len(LARGE.edges_w) + 2
LIAR = "own23"
"""Claims, from the sixth window on, what it never drew before."""
SCALE = 7_700 * 10 // 7
"""Noise scale of the pane sums, units of 0.1 W, at an epsilon of 0.7."""


@cache
def job_w(job: str, window: int) -> np.ndarray:
    """Power of one GPU of a job, W per tick [TICKS]: steps between two levels with a period of some seconds."""
    ticks = np.arange(window * TICKS, (window + 1) * TICKS)
    if job == LIAR and window >= 5:
        return np.full(TICKS, 700)
    if not job.startswith("job"):
        return 150 + np.repeat(drawn(f"{job} {window}", 0, 400, TICKS // 20), 20)
    period = 47 + 22 * int(job[3:])
    return np.where(ticks % period < period // 2, 640, 260) + drawn(f"{job} {window}", -25, 25, TICKS)


def large_class(number: int, window: int) -> GpuClass:
    """Host `number`: twelve of 32 hosts in one training job, eight in another, the rest by themselves."""
    place = number % 8
    job = "job0" if place < 3 else "job1" if place < 5 else f"own{number}"
    power = np.stack(
        [np.clip(job_w(job, window) + drawn(f"{number} {window} {gpu}", -30, 30, TICKS), 0, 769) for gpu in range(GPUS)]
    )
    states = power // 70
    counts = drawn(f"counts {number} {window}", -40, 40, CELLS * CELLS).reshape(CELLS, CELLS)
    np.add.at(counts, (states[:, :-1].ravel(), states[:, 1:].ravel()), 1)
    sums = power.reshape(GPUS, PANES, -1).sum(axis=(0, 2)) * 10
    for half in ("a", "b"):  # a triangular law with the right variance
        sums = sums + drawn(f"sums {half} {number} {window}", -2 * SCALE, 2 * SCALE, PANES) * 866 // 1000
    bins = drawn(f"bins {number} {window}", -25, 25, HISTOGRAM_CELLS)
    np.add.at(bins, (power * HISTOGRAM_BINS // LARGE.clip_high_w).ravel(), 1)
    return fleet.gpu_class(
        model=LARGE.model,
        gpus=GPUS,
        capacity_w=GPUS * 700,
        readings_taken=GPUS * TICKS,
        edges_w=LARGE.edges_w,
        clip_low_w=LARGE.clip_low_w,
        clip_high_w=LARGE.clip_high_w,
        transitions=counts.astype("<i4").tobytes(),
        transitions_shape=(CELLS, CELLS),
        pane_sums=sums.astype("<i4").tobytes(),
        pane_sums_shape=(PANES,),
        histogram=bins.astype("<i4").tobytes(),
        histogram_absent_reason=None,
        histogram_shape=(HISTOGRAM_CELLS,),
    )


def large_log() -> Story:
    """Windows of 60 s with 12 x 12 transitions and 60 panes: arrays longer than any vector register.

    The hosts of one job name it, and the margin looks ahead.
    """
    counts, sums = fleet.PRIVACY.releases
    sums = replace(sums, sensitivity_l1=7_700, sensitivity_l2_squared=7_700**2, scale_micro=SCALE * 10**6)
    privacy = replace(fleet.PRIVACY, releases=(counts, sums, HISTOGRAM), epsilon_total_micro=1_200_000)
    enrolled = (ClassEnrolment(model=LARGE.model, gpus=GPUS, capacity_w=GPUS * 700),)
    hosts = [
        replace(fleet.enrolment(f"h{n}", "d", f"t{n % 3}"), classes=enrolled, failure_domain=f"rack{n % 4}")
        for n in range(HOSTS)
    ]
    rule = fleet.domain_rule(
        "d", window_ms=WINDOW_MS, pane_ms=PANE_MS, grace_ms=0, limit_w=HOSTS * GPUS * 700, horizon_ms=10_000
    )
    limits = replace(LIMITS, lateness_ms=2 * WINDOW_MS, max_epsilon_micro=1_200_000)
    story = Story(fleet.policy_of(hosts, [rule], models=(LARGE,), limits=limits))
    story.control("POLICY_SWITCH", story.policies[0])
    begin = -(-T0 // WINDOW_MS) * WINDOW_MS
    signers = [
        new_session(one.host_id, "d", T0, fleet.IMAGE, window_ms=WINDOW_MS, pane_ms=PANE_MS, privacy=privacy)
        for one in hosts
    ]
    for window in range(WINDOWS):
        for number, signer in enumerate(signers):
            start = begin + window * WINDOW_MS
            body = report_of(
                signer,
                start,
                window,
                window_end_ms=start + WINDOW_MS,
                samples_scheduled=TICKS,
                samples_taken=TICKS,
                classes=(large_class(number, window),),
                group_label="job" if number % 8 < 3 else None,
            )
            story.put("d", seal(signer, body).value(signer.evidence), start + WINDOW_MS + number)
    return story


@cache
def logs() -> dict[str, tuple[tuple[PolicyView, ...], list[LogRecord]]]:
    """The fixed logs by name."""
    with remembered():
        stories = {"mixed": mixed_log(), "large": large_log()}
    for name, story in stories.items():
        codes = {one.code for one in story.run.rejections}
        assert codes <= {"LATE", "DUPLICATE"}, (name, codes)
    return {name: (tuple(story.policies), story.run.log) for name, story in stories.items()}


def all_figures() -> dict[str, Any]:
    """What `golden_figures.json` holds."""
    with remembered():
        runs = {name: Run(new_core(policies)).feed_all(log) for name, (policies, log) in logs().items()}
        return {"core_version": CORE_VERSION, **{name: figures(run) for name, run in runs.items()}}


if __name__ == "__main__":
    PATH.write_text(json.dumps(all_figures(), indent=1) + "\n")
