"""The job-presence attack: can a reader of the output tell whether one job runs, and how well.

Two futures branch off from one past in which the job's hosts stand idle: in one the job starts and stays, in the
other it does not; everything else is the same, except that every window is compared with every other. The observer
knows the fleet, has seen half of the windows of both futures, picks from them the figure of the output that tells the
two apart best, with a threshold, and is judged on the other half. AUC: chance that a window with the job scores above
one without. Advantage: share of windows with the job above the threshold, less that of windows without.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from enclavescale.bench.byzantine_trial import ByzantineSpec, Trial, figures_of
from enclavescale.bench.margin_core import HostReport
from enclavescale.bench.trace_fleet import Pools, TraceHost
from schemas.records import FleetPower, ModelRule

JOB_HOSTS = (1, 2, 4, 8)
WINDOWS = 24
"""Windows of either future: half to learn from, half to be judged on."""
IDLE_SHARE = 0.15
"""Power of a GPU without work, of its nominal limit, where its trace never goes lower."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Seen:
    """One fleet and job: scores by figure, float64[2, windows]; index 0 without the job, 1 with it."""

    scores: dict[str, Floats]
    chains: Floats
    share_of_capacity: float
    dilution: dict[str, Any]


def presence_trial(spec: ByzantineSpec, pools: Pools, rules: dict[str, ModelRule], index: int) -> dict[int, Seen]:
    """Let jobs of 1, 2, 4 and 8 hosts of fleet `index` run or not; by hosts, as far as the fleet has such a job."""
    trial = Trial(replace(spec, windows=WINDOWS), pools, rules, index)
    members = [one for one, host in enumerate(trial.fleet.hosts) if host.group == "job-b"]
    return {count: watch(trial, members[:count]) for count in JOB_HOSTS if count <= len(members)}


def idle_w(host: TraceHost) -> float:
    """What a GPU of this host draws without work, W."""
    return min(float(np.quantile(host.trace.power_w, 0.01)), IDLE_SHARE * host.trace.tdp_w)


def watch(trial: Trial, job: Sequence[int]) -> Seen:
    """What the core says while `job`, a set of hosts, stands idle, and while it runs."""
    spec = trial.spec

    def without(window: int) -> list[HostReport | None]:
        reports: list[HostReport | None] = list(trial.honest_reports(window))
        for host in job:
            shape = trial.profiles[host].source.gpus, spec.schedule.ticks
            reports[host] = trial.report(host, window, np.full(shape, idle_w(trial.fleet.hosts[host])))
        return reports

    core = trial.core()
    for window in range(spec.history):
        core.output(without(window))
    idle, busy = core.fork(), core.fork()
    futures: list[list[FleetPower]] = [[], []]
    for window in range(spec.history, spec.history + spec.windows):
        futures[0].append(idle.output(without(window)))
        futures[1].append(busy.output(list(trial.honest_reports(window))))
    capacity_w = [host.trace.tdp_w * host.rows.size for host in trial.fleet.hosts]
    dilution = futures[1][-1].dilution
    return Seen(
        scores={name: np.array([[score(one) for one in side] for side in futures]) for name, score in SCORES.items()},
        chains=np.array([[_chain(one) for one in side] for side in futures]),
        share_of_capacity=sum(capacity_w[one] for one in job) / sum(capacity_w),
        dilution={
            "hosts": dilution.hosts,
            "tenants": dilution.tenants,
            "k_min_hosts": dilution.k_min_hosts,
            "k_min_tenants": dilution.k_min_tenants,
            "largest_host_share_ppm": dilution.largest_host_share_ppm,
            "largest_tenant_share_ppm": dilution.largest_tenant_share_ppm,
            "met": dilution.met,
        },
    )


def _ramp_up(output: FleetPower) -> float:
    return float(next((one.rate_w_per_s or 0 for one in output.ramps if one.direction == "up"), 0))


def _held_back(output: FleetPower) -> float:
    return float(sum(one.claimed_w - one.reference_w for one in output.set_aside))


SCORES: dict[str, Callable[[FleetPower], float]] = {
    "mean": lambda output: figures_of(output)[0],
    "p99": lambda output: figures_of(output)[1],
    "swing": lambda output: figures_of(output)[1] - figures_of(output)[0],
    "ramp": _ramp_up,
    "set_aside": _held_back,
}
"""Figures of an output that an observer may look at; `chain` is added to them, see `_chain_scores`."""


def _chain(output: FleetPower) -> list[float]:
    """Occupancy of all states of all classes, GPUs."""
    shares = [np.frombuffer(one.stationary_ppm, "<i4") * (one.gpus / 1e6) for one in output.classes]
    return np.concatenate(shares).tolist() if shares else []


def _chain_scores(seen: Seen, learn: slice) -> Floats:
    """Occupancies along the line between the two futures' averages, as learnt from the windows `learn`."""
    along = seen.chains[1, learn].mean(axis=0) - seen.chains[0, learn].mean(axis=0)
    return np.asarray((seen.chains * along).sum(axis=2))


def auc(without: Floats, with_job: Floats) -> float:
    """Chance that a window with the job scores higher than one without it, ties one half."""
    above = np.sign(with_job[:, None] - without[None, :])
    return float((above.mean() + 1) / 2)


def best_threshold(without: Floats, with_job: Floats) -> float:
    """The threshold with the largest share of windows with the job above it, less that of windows without."""
    marks = np.unique(np.concatenate([without, with_job]))
    middles = np.concatenate([[marks[0] - 1], (marks[1:] + marks[:-1]) / 2])
    gains = [float((with_job > one).mean() - (without > one).mean()) for one in middles]
    return float(middles[int(np.argmax(gains))])


def presence_figures(trials: Sequence[dict[int, Seen]], hosts: int) -> list[dict[str, Any]]:
    """Return AUC and advantage per size of the job, averaged over the fleets, beside what the output says of it."""
    result = []
    for count in sorted({size for one in trials for size in one}):
        fleets = [one[count] for one in trials if count in one]
        by_feature = {name: [_judged(one, name) for one in fleets] for name in (*SCORES, "chain")}
        # The observer looks where the windows it learns from tell the futures apart best.
        best = max(by_feature, key=lambda name: float(np.mean([learnt for learnt, _, _ in by_feature[name]])))
        result.append(
            {
                "hosts": count,
                "of": hosts,
                "auc": round(float(np.mean([one for _, one, _ in by_feature[best]])), 3),
                "advantage": round(max(0.0, float(np.mean([one for _, _, one in by_feature[best]]))), 3),
                "feature": best,
                "auc_by_feature": {
                    name: round(float(np.mean([one for _, one, _ in judged])), 3) for name, judged in by_feature.items()
                },
                "share_of_capacity": round(float(np.mean([one.share_of_capacity for one in fleets])), 4),
                "dilution": fleets[0].dilution,
            }
        )
    return result


def _judged(seen: Seen, name: str) -> tuple[float, float, float]:
    """AUC on the windows that are learnt from; AUC and advantage on the others, with sign and threshold learnt."""
    learn, judge = slice(0, None, 2), slice(1, None, 2)
    scores = _chain_scores(seen, learn) if name == "chain" else seen.scores[name]
    learnt = auc(scores[0, learn], scores[1, learn])
    sign = 1.0 if learnt >= 0.5 else -1.0
    threshold = best_threshold(sign * scores[0, learn], sign * scores[1, learn])
    above = sign * scores[:, judge] > threshold
    return (
        max(learnt, 1 - learnt),
        auc(sign * scores[0, judge], sign * scores[1, judge]),
        float(above[1].mean() - above[0].mean()),
    )
