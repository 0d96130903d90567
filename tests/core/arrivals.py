"""A mixed fleet's honest reports, and logs of them as networks deliver: late, twice, in any order, or not at all."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np

from attester.session import Session
from schemas.contract import HISTOGRAM_CELLS
from schemas.records import (
    ClassEnrolment,
    FleetPower,
    GpuClass,
    HostEnrolment,
    ModelRule,
    PrivacyParameters,
    PrivacyRelease,
)
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.policies import PolicyView
from tests.core import fleet
from tests.core.fleet import GPUS, LIMITS, MODEL, T0, TICKS, Sealed, new_session, report_of, seal
from tests.core.story import Story

W = fleet.WINDOW_MS
TINY = ModelRule(model="tiny", edges_w=(20, 60, 90), clip_low_w=0, clip_high_w=120)
MODELS = {one.model: one for one in (MODEL, TINY)}
PANES = W // fleet.PANE_MS

HISTOGRAM = PrivacyRelease(
    release="histogram",
    unit="count",
    sensitivity_l1=2,
    sensitivity_l2_squared=2,
    epsilon_micro=200_000,
    scale_micro=10_000_000,
)
PANE_EPSILON_MICRO = 7_000_000
"""Little noise: in windows of two panes a lie must stand out from it."""
LABELS = {"h0": "job", "h3": "job"}
LIAR, LIES = "h1", 4
"""Its every fourth report claims nearly all that its GPUs could draw; it is accepted, and should be set aside."""

FLEET: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "h0": (("toy",), "instant", "t0"),
    "h1": (("toy",), "instant", "t1"),
    "h2": (("tiny",), "instant", "t0"),
    "h3": (("tiny", "toy"), "instant", "t1"),
    "h4": (("toy",), "average", "t2"),
}
"""Host -> (models, sampler mode, tenant): two classes apart and on one host, two sampler modes of one model."""

POSITION_FIELDS = frozenset(
    (
        "revision",
        "prev_revision_digest",
        "prev_revision_digest_absent_reason",
        "prev_output_digest",
        "prev_output_digest_absent_reason",
        "late_accepted",
        "duplicates",
        "late_refused",
        "refused",
        "source",
        "manifest_root",
        "manifest_root_absent_reason",
        "refused_root",
        "refused_root_absent_reason",
    )
)
"""Fields of an output that say where in the log it stands and what was refused there, not what the fleet draws."""


# -- the fleet ---------------------------------------------------------------------------------------------------


def capacity_w(model: str) -> int:
    return GPUS * MODELS[model].clip_high_w


def enrolment(host_id: str) -> HostEnrolment:
    models, _, tenant = FLEET[host_id]
    classes = tuple(ClassEnrolment(model=one, gpus=GPUS, capacity_w=capacity_w(one)) for one in models)
    return replace(fleet.enrolment(host_id, "d", tenant), classes=classes, failure_domain=f"rack-{tenant}")


@cache
def mixed_policy(
    grace_windows: int = 1,
    late_windows: int = 3,
    hosts: tuple[str, ...] = tuple(FLEET),
    quorum_ppm: int = 600_000,
    **changes: Any,
) -> PolicyView:
    """A policy of the mixed fleet, or of some of its hosts."""
    limits = replace(LIMITS, lateness_ms=late_windows * W, max_epsilon_micro=200_000_000)
    rule = fleet.domain_rule(
        "d",
        grace_ms=grace_windows * W,
        quorum_ppm=quorum_ppm,
        k_min_hosts=2,
        k_min_tenants=2,
        forecast_horizons_ms=(3_000,),
    )
    return fleet.policy_of(
        [enrolment(one) for one in hosts],
        [rule],
        limits=limits,
        models=tuple(MODELS.values()),
        accepted_sampler_modes=("average", "instant"),
        **changes,
    )


def privacy_of(models: Sequence[str], mode: str) -> PrivacyParameters:
    """What a host states: its widest clip range is the pane sums' sensitivity, an average a group of eleven."""
    widest = max(MODELS[one].clip_high_w - MODELS[one].clip_low_w for one in models) * 10
    group = 1 if mode == "instant" else 11
    counts, sums = fleet.PRIVACY.releases
    others = () if mode == "average" else (HISTOGRAM,)
    sums = replace(
        sums,
        sensitivity_l1=widest,
        sensitivity_l2_squared=widest**2,
        epsilon_micro=PANE_EPSILON_MICRO,
        scale_micro=round(widest * 10**12 / PANE_EPSILON_MICRO),
    )
    total = -(-counts.epsilon_micro * (group + 1) // 2) + sum(one.epsilon_micro * group for one in (sums, *others))
    releases = (counts, *others, sums)
    return replace(fleet.PRIVACY, releases=releases, group_size=group, epsilon_total_micro=total)


@cache
def session(host_id: str) -> Session:
    models, mode, _ = FLEET[host_id]
    return new_session(host_id, "d", T0, fleet.IMAGE, sampler_mode=mode, privacy=privacy_of(models, mode))


def drawn(name: str, low: int, high: int, count: int) -> np.ndarray:
    """`count` integers in low..high that depend on `name` and on no library's generator."""
    words = np.frombuffer(hashlib.shake_256(name.encode()).digest(8 * count), "<u8")
    return (words % np.uint64(high - low + 1)).astype(np.int64) + low


def statistics(host_id: str, window: int, model: str) -> GpuClass:
    """Noisy counts and sums of one class; GPUs of one model swing together; every fifth report lacks readings."""
    name, cells, top = f"{host_id} {window} {model}", len(MODELS[model].edges_w) + 2, MODELS[model].clip_high_w
    at = np.abs(drawn(name + "path", -1, cells - 2, GPUS * TICKS)).reshape(GPUS, TICKS)
    counts = drawn(name + "noise", -30, 30, cells * cells).reshape(cells, cells)
    np.add.at(counts, (at[:, :-1].ravel(), at[:, 1:].ravel()), 1)
    missing = int(drawn(name + "missing", 1, 7, 1)[0]) if (window + int(host_id[1:])) % 5 == 4 else 0
    level = drawn(f"{window} {model}", 2 * top, 4 * top, PANES) * (GPUS * TICKS - missing) // PANES
    if host_id == LIAR and window % LIES == LIES - 1:
        level = level * 0 + 9 * top * GPUS * TICKS // PANES
    taken = GPUS * TICKS - missing
    bins = drawn(name + "bins", -9, 9, HISTOGRAM_CELLS)
    bins[drawn(name + "bin", 8, 30, 1)[0]] += taken
    bins[-1] += missing
    released = FLEET[host_id][1] == "instant"
    sums = level + drawn(name + "sums", -top, top, PANES)
    return fleet.gpu_class(
        model=model,
        sampler_mode=FLEET[host_id][1],
        capacity_w=capacity_w(model),
        readings_taken=taken,
        edges_w=MODELS[model].edges_w,
        clip_low_w=MODELS[model].clip_low_w,
        clip_high_w=top,
        transitions=counts.astype("<i4").tobytes(),
        transitions_shape=(cells, cells),
        pane_sums=sums.astype("<i4").tobytes(),
        pane_sums_shape=(PANES,),
        histogram=bins.astype("<i4").tobytes() if released else None,
        histogram_absent_reason=None if released else "none",
        histogram_shape=(HISTOGRAM_CELLS,) if released else (),
    )


@cache
def report(host_id: str, window: int) -> Sealed:
    """The one report of a host and window, linked to the one before."""
    previous = report(host_id, window - 1).digest if window else None
    signer = session(host_id)
    classes = tuple(statistics(host_id, window, model) for model in FLEET[host_id][0])
    body = report_of(
        signer, T0 + window * W, window, classes=classes, prev_digest=previous, group_label=LABELS.get(host_id)
    )
    if previous:
        body = replace(body, prev_digest_absent_reason=None)
    return seal(signer, body)


def end_ms(window: int) -> int:
    return T0 + (window + 1) * W


# -- logs of them ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, order=True)
class Arrival:
    """A report that reaches the log. `tie`: order among those that arrive in the same millisecond."""

    at_ms: int
    tie: int
    host_id: str
    window: int
    carries: bool = True

    @property
    def value(self) -> bytes:
        return value_of(self.host_id, self.window, self.carries)


@cache
def value_of(host_id: str, window: int, carries: bool) -> bytes:
    return report(host_id, window).value(session(host_id).evidence if carries else None)


@dataclass
class Told:
    """A log as the core took it. `taken`: accepted (host, window) with its position, in order."""

    story: Story
    taken: list[tuple[int, str, int]] = field(default_factory=list)
    refused: list[tuple[Arrival, str]] = field(default_factory=list)

    @classmethod
    def begin(cls, view: PolicyView) -> Told:
        told = cls(Story(view))
        told.story.control("POLICY_SWITCH", view)
        return told

    def put(self, one: Arrival) -> list[Emission]:
        position = self.story.next_offset
        before = len(self.story.run.emissions)
        effects = self.story.put("d", one.value, one.at_ms)
        if effects and isinstance(effects[-1], Rejection):
            self.refused.append((one, effects[-1].code))
        else:
            self.taken.append((position, one.host_id, one.window))
        return [made for _, made in self.story.run.emissions[before:]]

    def put_all(self, arrivals: Iterable[Arrival]) -> Told:
        for one in sorted(arrivals):
            self.put(one)
        return self

    def hosts(self, window: int, position: int) -> tuple[str, ...]:
        """Hosts whose report of `window` was accepted at or before `position`, by name."""
        return tuple(sorted(host for at, host, number in self.taken if number == window and at <= position))

    def outputs(self) -> dict[int, list[tuple[int, Emission]]]:
        """Window -> its outputs with their positions, windows in the order of their first output."""
        result: dict[int, list[tuple[int, Emission]]] = {}
        for position, made in self.story.run.emissions:
            result.setdefault((made.output.window_start_ms - T0) // W, []).append((position, made))
        return result


def estimates(output: FleetPower) -> dict[str, Any]:
    """Every field that is a function of the accepted reports alone, fields of later releases included.

    Flags of chains say in which order a session's reports came.
    """
    names = [name for name in type(output).__dataclass_fields__ if name not in POSITION_FIELDS]
    result = {name: getattr(output, name) for name in names}
    result["flagged"] = tuple(one for one in output.flagged if not one.code.startswith("CHAIN_"))
    return result


def in_order(told: Told, view: PolicyView) -> Told:
    """The accepted reports of `told` once more, host by host and window by window, every one with evidence.

    What was in a window's first output comes before the window closes. What came later comes after as many windows were
    published as before its last revision: outputs rest on the first outputs of the windows before them. So does a
    window of which nobody reported before later ones were published. Where that order publishes two windows at once
    that were published one after the other, what is late for both would be late for good: first reports then come in
    the order in which they came.
    """
    again = _again(told, view, by_name=True)
    return again if _together(again) == _together(told) else _again(told, view, by_name=False)


def _together(told: Told) -> list[list[int]]:
    """Windows by the position of their first output."""
    positions: dict[int, list[int]] = {}
    for window, made in told.outputs().items():
        positions.setdefault(made[0][0], []).append(window)
    return [sorted(windows) for _, windows in sorted(positions.items())]


def _again(told: Told, view: PolicyView, *, by_name: bool) -> Told:
    again, outputs = Told.begin(view), told.outputs()
    firsts = sorted(made[0][0] for made in outputs.values())
    ready: list[tuple[str, int]] = []
    waiting: list[tuple[int, int, tuple[str, ...]]] = []
    newest = -1
    for window, made in outputs.items():
        (first_at, _), (last_at, _) = made[0], made[-1]
        first, last = told.hosts(window, first_at), told.hosts(window, last_at)
        if window > newest:
            ready += [(host, window) for host in first]
        else:
            waiting.append((bisect_left(firsts, first_at), window, first))
        # What is published at one position goes in the order of the windows: it was all there before.
        waiting.append((bisect_left(firsts, last_at), window, tuple(sorted(set(last) - set(first)))))
        newest = max(newest, window)
    if not by_name:
        at = {(host, window): position for position, host, window in told.taken}
        ready.sort(key=at.__getitem__)
    ready += [(host, window) for _, host, window in sorted(told.taken) if window not in outputs]

    def put(host: str, window: int) -> None:
        again.put(Arrival(max(end_ms(window), again.story.now_ms), 0, host, window))

    for host, window in ready:
        put(host, window)
        published = sum(made.output.revision == 0 for _, made in again.story.run.emissions)
        for one in sorted(one for one in waiting if one[0] <= published):
            waiting.remove(one)
            for late in one[2]:
                put(late, one[1])
    return again
