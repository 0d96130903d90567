"""One trial of `bench byzantine`: a fleet drawn anew, an honest history, and every attack that branches off from it.

All branches share readings and noise, so that what an attack moves is the attack and nothing else. Reports enter where
admitted reports enter the core, after the core's own physics checks: what physics refuses is not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from enclavescale.bench.byzantine_strategies import STRATEGIES, Lie, Scene
from enclavescale.bench.estimators import of_output, upper_quantile
from enclavescale.bench.margin_core import CoreFleet, HostReport, exact_report
from enclavescale.bench.margin_trial import NAMEPLATE_MW, TICKS_PER_S, Noise, scaled_budget
from enclavescale.bench.trace_fleet import Pools, TraceFleet, draw_fleet
from power_model.grid import Grid
from producers.config import Schedule
from producers.distil import Distilled, distil
from producers.privacy import Budget, privacy_parameters
from schemas.records import FleetPower, ModelRule, SessionBinding
from stream_jobs.core.checks import check_numbers, plan_classes
from stream_jobs.core.refusals import Refused

PUSH_BITS = 29
"""Pushes beyond the clip range are sought below 2^29 deciwatt samples: sums stay inside 32 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByzantineSpec:
    """What is attacked. `history`: honest windows before; `windows`: of the attack. `rule`: other domain rules."""

    hosts: int
    gpus: int
    epsilon: float
    window_s: int
    windows: int
    history: int
    seed: int
    rule: dict[str, Any] = field(default_factory=dict)

    @property
    def schedule(self) -> Schedule:
        """Windows and panes as the hosts keep them."""
        return Schedule(window_ms=1000 * self.window_s, pane_ms=1000, sample_hz=TICKS_PER_S)

    @property
    def budget(self) -> Budget:
        """The default split of a source without an energy counter, scaled to `epsilon`."""
        return scaled_budget(self.epsilon)


@dataclass(frozen=True, slots=True)
class Branch:
    """Outputs of the attack's windows, and reports of colluders that physics refused, by code.

    `bounds_w`: by window and host, influence bounds on mean and margin, W.
    """

    outputs: list[FleetPower]
    refused: Counter[str]
    bounds_w: list[list[tuple[float, float]]]


class Trial:
    """A fleet, what its hosts report when they are honest, and every attack on it."""

    def __init__(self, spec: ByzantineSpec, pools: Pools, rules: dict[str, ModelRule], index: int) -> None:
        self.spec, self._index = spec, index
        rng = np.random.default_rng([spec.seed, index])
        self._ticks = spec.schedule.ticks
        count = spec.history + spec.windows
        self.fleet: TraceFleet = draw_fleet(
            pools, rules, rng, hosts=spec.hosts, gpus=spec.gpus, ticks=count * self._ticks
        )
        self.mw_per_w = NAMEPLATE_MW / self.fleet.capacity_w
        self.order: list[int] = rng.permutation(spec.hosts).tolist()
        self._total_w = self.fleet.total_w(0, count * self._ticks).reshape(count, self._ticks)
        self._reports: list[list[HostReport]] = []
        self.pushes: dict[tuple[int, int], int] = {}
        core = self.core()
        self.profiles, self.rule = core.profiles, core.rule
        self._privacy = [privacy_parameters(spec.budget, [one], spec.schedule) for one in core.profiles]

    @cached_property
    def honest(self) -> Branch:
        """What the core makes of the fleet while no host lies."""
        return self._branch(self._after_history.fork())

    @cached_property
    def _after_history(self) -> CoreFleet:
        return self._through_history(self.core())

    def _through_history(self, core: CoreFleet) -> CoreFleet:
        for window in range(self.spec.history):
            core.output(self.honest_reports(window))
        return core

    def _branch(
        self, core: CoreFleet, lies: Callable[[int, int], Lie] | None = None, liars: Sequence[int] = ()
    ) -> Branch:
        """Go through the attack's windows; `lies(host, number)` says what a liar reports in window `number`."""
        outputs, refused, bounds_w = [], Counter[str](), []
        for number in range(self.spec.windows):
            window = self.spec.history + number
            reports: list[HostReport | None] = list(self.honest_reports(window))
            for host in liars:
                try:
                    if lies is None:
                        physics(core, host, self.honest_reports(window)[host])
                    else:
                        reports[host] = self._admitted(core, host, window, lies(host, number))
                except Refused as why:
                    reports[host] = None
                    refused[why.code] += 1
            outputs.append(core.output(reports))
            bounds_w.append([] if liars else core.host_bounds_w())
        return Branch(outputs, refused, bounds_w)

    def attack(self, name: str, step: float, liars: Sequence[int]) -> Branch:
        """Outputs of the attack's windows where `liars` follow strategy `name` with parameter `step`."""
        strategy = STRATEGIES[name]
        return self._branch(
            self._after_history.fork(), lambda host, number: strategy(self._scene(host, number, step)), liars
        )

    def checked(self) -> Branch:
        """The honest fleet where every report goes through the physics checks."""
        return self._branch(self._after_history.fork(), None, range(self.spec.hosts))

    def under(self, changes: Mapping[str, Any]) -> Branch:
        """The honest fleet under another domain rule, from the beginning of its history on."""
        return self._branch(self._through_history(self.core(**changes)))

    def core(self, **changes: Any) -> CoreFleet:
        """A core of this fleet that has seen nothing yet, under the domain rule with these changes."""
        return CoreFleet(self.fleet, self.spec.schedule, **{**self.spec.rule, **changes})

    def true_w(self, number: int) -> tuple[float, float]:
        """Mean and p99 of the fleet's true power in window `number` of the attack, W."""
        power_w = self._total_w[self.spec.history + number]
        return float(power_w.mean()), upper_quantile(power_w)

    def liars(self, fraction: float) -> list[int]:
        """The colluders: a share of the hosts, drawn at random; those of a larger share are among them."""
        return sorted(self.order[: round(fraction * self.spec.hosts)])

    # -- reports -----------------------------------------------------------------------------------------------

    def own_w(self, host: int, window: int) -> npt.NDArray[np.float64]:
        """True readings of a host, float64[gpus, ticks], W."""
        return self.fleet.hosts[host].power_w(window * self._ticks, self._ticks).astype(np.float64)

    def honest_reports(self, window: int) -> list[HostReport]:
        """What honest hosts report of window `window`, counted from the first of the history."""
        while len(self._reports) <= window:
            at = len(self._reports)
            self._reports.append([self.report(one, at, self.own_w(one, at)) for one in range(self.spec.hosts)])
        return self._reports[window]

    def report(self, host: int, window: int, power_w: npt.NDArray[np.float64]) -> HostReport:
        """Distil readings and add the noise of this host and window: the same for truth and lies."""
        noise = Noise(np.random.default_rng([self.spec.seed, self._index, window, host]))
        return noise.report(self._exact(host, power_w), self._privacy[host])

    def _exact(self, host: int, power_w: npt.NDArray[np.float64]) -> Distilled:
        profile, panes = self.profiles[host], self.spec.schedule.ticks_per_pane
        return distil(power_w, Grid(profile.edges_w), profile.clip_low_w, profile.clip_high_w, panes)

    def _scene(self, host: int, number: int, step: float) -> Scene:
        profile, window = self.profiles[host], self.spec.history + number
        return Scene(
            own_w=self.own_w(host, window),
            fleet_share=self._total_w[window] / self.fleet.capacity_w,
            gpu_capacity_w=profile.capacity_w / profile.source.gpus,
            clip_low_w=profile.clip_low_w,
            clip_high_w=profile.clip_high_w,
            window=number,
            windows=self.spec.windows,
            step=step,
        )

    def _admitted(self, core: CoreFleet, host: int, window: int, lie: Lie) -> HostReport:
        """The report of a lie as the core admits it. Raises `Refused` where physics refuses it."""
        report = self.report(host, window, lie.readings_w)
        if lie.push:
            plain = exact_report(self._exact(host, lie.readings_w), self._privacy[host])
            push = self.pushes.get((host, lie.push))
            if push is None:
                push = self.pushes[host, lie.push] = strongest_push(core, host, plain, lie.push)
            report = replace(plain, pane_sums=plain.pane_sums + lie.push * push)
        physics(core, host, report, lie.capacity_factor)
        return report


@dataclass(frozen=True, slots=True)
class _Binding:
    """What the physics checks read of a session's binding."""

    sampler_mode: str


def physics(core: CoreFleet, host: int, report: HostReport, capacity_factor: int = 1) -> None:
    """The core's checks of GPU classes, on what the host states. Raises `Refused`."""
    body, stated = core.statement(host, report)
    claimed = replace(stated, capacity_w=stated.capacity_w * capacity_factor)
    body = replace(body, classes=(claimed,))
    binding = cast(SessionBinding, _Binding(stated.sampler_mode))
    check_numbers(body, plan_classes(body, binding, core.view.hosts[body.host_id], core.view, core.rule))


def strongest_push(core: CoreFleet, host: int, report: HostReport, sign: int, panes: int | None = None) -> int:
    """The largest shift of the first `panes` pane sums (None: all), up or down, that physics admits (0: none).

    In deciwatt samples.
    """
    shifted = np.arange(report.pane_sums.size) < (report.pane_sums.size if panes is None else panes)

    def admitted(push: int) -> bool:
        try:
            physics(core, host, replace(report, pane_sums=report.pane_sums + sign * push * shifted))
        except Refused:
            return False
        return True

    low, high = 0, 1 << PUSH_BITS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if admitted(middle) else (low, middle)
    return low


def figures_of(output: FleetPower) -> tuple[float, float]:
    """Mean and quantile (limit minus margin) of an output, W; NaN where it gives none."""
    estimate = of_output(output)
    return estimate.mean_w, estimate.p99_w
