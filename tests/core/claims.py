"""Windows made of claims: hosts of one class with chosen powers, real noise of the stated law, no signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from schemas.records import ClassEnrolment, FleetPower, HostEnrolment, ModelRule
from stream_jobs.core.aggregate import add_report
from stream_jobs.core.emit import emission
from stream_jobs.core.history import Histories
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.reject import Judgement, judge
from stream_jobs.core.windows import Tally, Window
from tests.core import fleet
from tests.core.test_estimator import Proven

WINDOW_MS, PANES, TICKS, GPUS, TDP_W = 60_000, 60, 600, 8, 500
MODEL = ModelRule(model="toy", edges_w=(100, 200, 300, 400), clip_low_w=0, clip_high_w=600)
CAPACITY_W = GPUS * TDP_W
SCALE = MODEL.clip_high_w * 10 / 0.7
PRIVACY = replace(
    fleet.PRIVACY,
    releases=tuple(
        replace(one, scale_micro=round(SCALE * 1e6)) if one.release == "pane_sums" else one
        for one in fleet.PRIVACY.releases
    ),
)
COUNTS = np.zeros((6, 6), np.int64)
COUNTS[2, 2] = GPUS * (TICKS - 1)
SIGMA_W = SCALE * 2**0.5 * PANES**0.5 / TICKS / 10
"""Standard deviation of the noise in a host's mean power, W."""


def laplace(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Discrete Laplace noise of pane sums."""
    p = -np.expm1(-1 / SCALE)
    return rng.geometric(p, shape) - rng.geometric(p, shape)


def enrolled(number: int, **changes: Any) -> HostEnrolment:
    one = fleet.enrolment(f"h{number:03d}", "d", f"t{number % 3}")
    classes = (ClassEnrolment(model=MODEL.model, gpus=GPUS, capacity_w=CAPACITY_W),)
    return replace(one, failure_domain=f"rack{number % 4}", classes=classes, **changes)


def view_of(hosts: int, **rule: Any) -> PolicyView:
    base = fleet.domain_rule(
        "d", window_ms=WINDOW_MS, pane_ms=WINDOW_MS // PANES, limit_w=10**6, quorum_ppm=0, history_windows=30
    )
    return fleet.policy_of([enrolled(number) for number in range(hosts)], [replace(base, **rule)], models=(MODEL,))


@dataclass
class Domain:
    """A domain whose hosts claim what a test says. `seed` fixes the noise; `noisy` False draws none."""

    view: PolicyView
    seed: int = 1
    noisy: bool = True
    histories: Histories = field(default_factory=Histories)
    number: int = 0

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.seed)

    def window(self, power_w: Mapping[int, Any], order: Sequence[int] | None = None, **stated: Any) -> Window:
        """The next window: power of each reporting host, W, a number or one per pane; not closed yet."""
        start = fleet.T0 // WINDOW_MS * WINDOW_MS + self.number * WINDOW_MS
        rule = self.view.domains["d"]
        window = Window(start, start + WINDOW_MS, self.view, rule)
        noise = {
            host: laplace(self.rng, (PANES,)) if self.noisy else np.zeros(PANES, np.int64) for host in sorted(power_w)
        }
        for offset, host in enumerate(order if order is not None else sorted(power_w)):
            panes = np.broadcast_to(np.asarray(power_w[host], np.float64), (PANES,)) * (10 * TICKS // PANES)
            self.add(window, host, np.rint(panes).astype(np.int64) + noise[host], offset, **stated)
        self.number += 1
        return window

    def add(self, window: Window, host: int, sums: np.ndarray, offset: int, **stated: Any) -> None:
        """One report with these pane sums."""
        one = fleet.gpu_class(
            model=MODEL.model, gpus=GPUS, capacity_w=CAPACITY_W, edges_w=MODEL.edges_w, clip_high_w=MODEL.clip_high_w,
            transitions=COUNTS.astype("<i4").tobytes(), transitions_shape=COUNTS.shape,
            pane_sums=sums.astype("<i4").tobytes(), pane_sums_shape=(PANES,),
            **{"readings_taken": GPUS * TICKS} | stated,
        )  # fmt: skip
        enrolment = self.view.policy.hosts[host]
        body = fleet.report_of(
            fleet.session_of("h0", "d"), window.start_ms, host_id=enrolment.host_id, classes=(one,), privacy=PRIVACY,
            window_end_ms=window.end_ms,
        )  # fmt: skip
        digest = offset.to_bytes(32, "big")
        add_report(window, body, [one], enrolment, Proven(), digest=digest, offset=offset, flags=())  # type: ignore[arg-type]

    def close(self, window: Window) -> Judgement:
        self.histories.close(window)
        return judge(window)

    def past(self, power_w: Mapping[int, Any], windows: int = 30) -> None:
        """Windows in which the hosts claim the same."""
        for _ in range(windows):
            self.close(self.window(power_w))


def output_of(window: Window) -> FleetPower:
    """The window's next output."""
    return emission(
        window, Tally(), topic="t", partition=0, close_offset=99, close_reason="watermark", prev_output=None
    ).output


def codes_of(judgement: Judgement) -> dict[str, int]:
    """Hosts by code, those without left out."""
    return {code: hosts for code, hosts in judgement.hosts.items() if hosts}
