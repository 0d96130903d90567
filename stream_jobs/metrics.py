"""What a worker shows of its decisions: counts by code, durations of stages, the newest figures of every domain.

All of it stands on topics anyway, or is time that the worker took; no label is anything that a host can choose: codes
are ours, domains and quantiles the policy's, stages and kinds a fixed list.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from schemas.records import FleetPower, Interval
from stream_jobs.core.refusals import CODES
from stream_jobs.core.sessions import SessionVerifier
from stream_jobs.core.windows import Verified
from verifier.cache import SessionCache
from verifier.errors import VerificationError

PPM = 1_000_000
STAGES = ("consume", "decode", "verify", "admit", "close", "sign", "publish", "commit")
"""What is done with a record, in order: it waits since the broker appended it (`consume`, the oldest of a batch), is
decoded with its signature checked (`decode`, a batch), its session's evidence is verified (`verify`, one piece), it is
admitted (`admit`, a batch), it closes windows (`close`); outputs are signed, and acknowledged (`publish`); an offset is
committed."""

BUCKETS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
"""From one signature to the watchdog's time-out, s."""

Clock = Callable[[], float]


class Stages:
    """Durations of stages. One observation is a batch or a rare piece of work, never one record."""

    def __init__(self, registry: CollectorRegistry | None = None, clock: Clock = time.perf_counter) -> None:
        """Without a registry nothing is shown."""
        made = Histogram(
            "enclavescale_stage_duration_seconds",
            "Durations of the stages of a worker's work, a batch or one piece each",
            ["stage"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._stages = {stage: made.labels(stage) for stage in STAGES}
        self.clock = clock

    def observe(self, stage: str, seconds: float) -> None:
        """Note one duration, s; below 0 (clocks of two machines) is 0."""
        self._stages[stage].observe(max(0.0, seconds))

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Note how long the body takes, also where it raises."""
        began = self.clock()
        try:
            yield
        finally:
            self.observe(stage, self.clock() - began)


class EvidenceChecks:
    """A `SessionVerifier` over a cache that counts its checks and times those that were run."""

    def __init__(self, cache: SessionCache, stages: Stages, registry: CollectorRegistry | None = None) -> None:
        self._cache, self._stages = cache, stages
        self._checks = Counter(
            "enclavescale_evidence_checks",
            "Checks of a session's evidence: run, or remembered from before; accepted or refused",
            ["how", "result"],
            registry=registry,
        )
        for how in ("run", "remembered"):
            for result in ("accepted", "refused"):
                self._checks.labels(how, result)
        self.verify: SessionVerifier = self._verify

    def _verify(self, **question: Any) -> Verified:
        began, misses = self._stages.clock(), self._cache.misses
        result = "accepted"
        try:
            return self._cache.verify(**question)
        except VerificationError:
            result = "refused"
            raise
        finally:
            run = self._cache.misses != misses
            self._checks.labels("run" if run else "remembered", result).inc()
            if run:
                self._stages.observe("verify", self._stages.clock() - began)


class DomainMetrics:
    """The figures of each domain's newest window, as published; gauges leave with the partition."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            made = Gauge(f"enclavescale_domain_{name}", text, ("domain", *labels), registry=registry)
            self._gauges.append(made)
            return made

        def interval(name: str, text: str, *labels: str) -> tuple[Gauge, Gauge, Gauge]:
            return (
                gauge(f"{name}_watts", f"{text}; NaN where it is withheld", *labels),
                gauge(f"{name}_low_watts", f"{text}: lower end of its interval", *labels),
                gauge(f"{name}_high_watts", f"{text}: upper end of its interval", *labels),
            )

        self._gauges: list[Gauge] = []
        self._newest: dict[str, int] = {}
        self._window_end = gauge("window_end_timestamp_seconds", "End of the newest published window, Unix time")
        self._watermark = gauge("watermark_timestamp_seconds", "Event time up to which windows are closed, Unix time")
        self._window = gauge("window_seconds", "Length of the newest window")
        self._reach = gauge("reach_seconds", "How far below the watermark records matter: a restart reads so much")
        self._mean = interval("mean", "Mean power over the newest window")
        self._quantile = interval("quantile", "Quantile of the power over the newest window", "level")
        self._margin = interval("margin", "Limit less the policy's quantile of the power")
        self._limit = gauge("limit_watts", "The domain's limit, as the policy says")
        self._withheld = gauge("margin_withheld", "1 where the newest window has no margin")
        self._hosts = gauge("hosts", "Hosts enrolled and reporting in the newest window", "state")
        self._coverage = gauge("coverage_ratio", "Enrolled capacity that the newest window's figures rest on")
        self._quorum = gauge("quorum_ratio", "Coverage below which figures are withheld, as the policy says")
        self._epsilon = gauge("epsilon_per_window", "Largest privacy loss that a report of the newest window states")
        self._set_aside = gauge("set_aside_hosts", "Hosts of the newest window whose claims count in part", "code")
        self._flagged = Counter(
            "enclavescale_domain_flagged_reports",
            "Accepted reports with a flag (CHAIN_GAP, CHAIN_UNLINKED) in the first outputs of windows",
            ("domain", "code"),
            registry=registry,
        )

    def output(self, output: FleetPower) -> None:
        """Show an output unless a newer window is shown; a revision of the same window replaces it."""
        name = output.domain
        if output.window_start_ms < self._newest.get(name, -1):
            return
        self._newest[name] = output.window_start_ms
        self._window_end.labels(name).set(output.window_end_ms / 1000)
        self._window.labels(name).set((output.window_end_ms - output.window_start_ms) / 1000)
        _show(self._mean, output.mean, name)
        for one in output.quantiles:
            _show(self._quantile, one.estimate, name, f"{one.quantile_ppm / PPM:g}")
        _show(self._margin, output.margin.margin, name)
        self._limit.labels(name).set(output.margin.limit_w)
        self._withheld.labels(name).set(output.margin.margin is None)
        coverage = output.coverage
        self._hosts.labels(name, "enrolled").set(coverage.enrolled_hosts)
        self._hosts.labels(name, "reporting").set(coverage.reporting_hosts)
        self._coverage.labels(name).set(coverage.reporting_capacity_w / max(1, coverage.enrolled_capacity_w))
        self._quorum.labels(name).set(coverage.quorum_ppm / PPM)
        self._epsilon.labels(name).set(output.privacy.epsilon_max_micro / PPM)
        self._set_aside.remove_by_labels({"domain": name})
        for aside in output.set_aside:
            self._set_aside.labels(name, aside.code).inc(aside.hosts)

    def published(self, output: FleetPower) -> None:
        """Count what an output says that is published for the first time."""
        for flag in ("CHAIN_GAP", "CHAIN_UNLINKED"):
            self._flagged.labels(output.domain, flag)
        if output.revision == 0:
            for one in output.flagged:
                self._flagged.labels(output.domain, one.code).inc(one.count)

    def watermark(self, domain: str, *, watermark_ms: int, reach_ms: int) -> None:
        """Say where a domain's watermark is (Unix time), and how far below it records still matter, ms."""
        self._watermark.labels(domain).set(watermark_ms / 1000)
        self._reach.labels(domain).set(reach_ms / 1000)

    def remove(self, domain: str) -> None:
        """Forget a domain whose partition is another worker's now: a frozen margin helps nobody."""
        self._newest.pop(domain, None)
        for gauge in self._gauges:
            gauge.remove_by_labels({"domain": domain})


def _show(gauges: Sequence[Gauge], interval: Interval | None, *labels: str) -> None:
    values = (math.nan,) * 3 if interval is None else (interval.value_w, interval.low_w, interval.high_w)
    for gauge, value in zip(gauges, values, strict=True):
        gauge.labels(*labels).set(value)


class JobMetrics:
    """What jobs count: decisions by code, outputs, control records; with stages and domains."""

    def __init__(self, registry: CollectorRegistry | None = REGISTRY, stages: Stages | None = None):
        self.stages = stages or Stages(registry)
        self.domains = DomainMetrics(registry)
        self.outputs = Counter("enclavescale_outputs", "Outputs published", ["domain"], registry=registry)
        self.controls = Counter(
            "enclavescale_control_records", "Control records written by this worker", ["kind"], registry=registry
        )
        self.refused = Counter("enclavescale_refused", "Records refused, by code", ["code"], registry=registry)
        for code in CODES:  # a counter that appears with its first refusal would hide that one from increase()
            self.refused.labels(code)
        self.offers_refused = Gauge(
            "enclavescale_collateral_refused",
            "1 while the newest set of collateral is not used because this worker's own evidence is refused under it",
            registry=registry,
        )


def about(registry: CollectorRegistry, *, version: str, core_version: str, tee: str, simulated: bool) -> None:
    """Say what runs: release, deciding core, kind of the TEE's quotes."""
    info = Gauge(
        "enclavescale_worker_info",
        "Always 1; the labels say what runs",
        ["version", "core_version", "tee"],
        registry=registry,
    )
    info.labels(version, core_version, tee).set(1)
    Gauge(
        "enclavescale_worker_simulated_tee",
        "1 where no hardware stands behind this worker's evidence",
        registry=registry,
    ).set(simulated)
