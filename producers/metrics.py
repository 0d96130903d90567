"""The agent's Prometheus metrics: timing, counts and states that no power value decides, and releases with their noise.

Nothing here may depend on a reading unless it carries the noise of the report (docs/privacy.md has a row for each). So
there are no durations of a window's work, no sizes after compression and no texts of errors. Counters are given as the
totals their owners keep: an owner that was made anew (a reload, a new spool) starts at nought, and the counter goes on.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

MICRO = 1_000_000
_HOST = ("host",)
_CLASS = ("host", "model")
_UNKNOWN = math.nan
"""What a gauge says before anything is known: nought would be a claim."""

_MakeGauge = Callable[..., Gauge]
_MakeCounter = Callable[..., Counter]


class _Totals:
    """Counters that follow totals kept elsewhere; a total that falls was begun again, and counts from nought."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}

    def follow(self, counter: Counter, total: float) -> None:
        """Raise `counter` by what `total` rose since it was given last."""
        before = self._seen.get(id(counter), 0.0)
        counter.inc(total - before if total >= before else total)
        self._seen[id(counter)] = total


class AgentMetrics:
    """All metrics of one agent process, on one registry. Cheap enough for every turn of the agent's loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            made = Gauge(f"enclavescale_agent_{name}", text, labels, registry=registry)
            if not labels:
                made.set(_UNKNOWN)
            return made

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"enclavescale_agent_{name}", text, labels, registry=registry)

        self._totals = _Totals()
        self._flagged: dict[tuple[str, str], set[str]] = {}
        self._make_work(gauge, counter)
        self._make_sampler(gauge, counter)
        self._make_session(gauge, counter)
        self._make_privacy(gauge)

    def _make_work(self, gauge: _MakeGauge, counter: _MakeCounter) -> None:
        self._info = gauge("info", "Always 1; the labels say what runs", "version", "source", "sampler_mode", "tee")
        self._windows = counter("windows", "Windows produced")
        self._window_end = gauge("window_end_timestamp_seconds", "End of the newest window produced, Unix time")
        self._sealed = counter("reports_sealed", "Reports sealed and on disk")
        self._lost = counter("reports_lost", "Reports whose spool failed: sealed, never sent")
        self._reloads = counter("reloads", "Reloads of the configuration by result (ok, refused)", "result")
        for result in ("ok", "refused"):
            self._reloads.labels(result)
        self._policy_counter = gauge("policy_number", "Counter of the policy in use")
        self._policy_end = gauge("policy_not_after_timestamp_seconds", "End of the policy in use, Unix time")
        self._spool_entries = gauge("spool_entries", "Reports that wait for an acknowledgement")
        self._spool_bytes = gauge("spool_bytes", "Bytes of the reports that wait")
        self._spool_max_bytes = gauge("spool_max_bytes", "Bound of the spool, bytes")
        self._spool_age = gauge("spool_oldest_age_seconds", "Age of the oldest report that waits; 0 with none")
        self._dropped = counter("spool_dropped", "Reports dropped from a full spool, oldest first, or too large")
        self._spool_failures = counter("spool_failures", "Operations on the spool that failed")
        self._quarantined = counter("spool_quarantined", "Spools that could not be read and were set aside")
        self._acknowledged = counter("publisher_acknowledged", "Reports the broker has acknowledged")
        self._failed = counter("publisher_failed", "Deliveries that failed and are tried again")
        self._resent = counter("publisher_resent", "Reports sent again after a failure, the same bytes")
        self._refused = counter("publisher_refused", "Reports no broker will ever take")
        self._stranded = gauge("publisher_stranded", "Reports held back, as the policy names no partition for them")
        self._recovering = gauge("publisher_recovering", "1 while a backlog leaves at a measured pace")
        self._in_flight = gauge("publisher_in_flight", "Reports sent and not yet acknowledged")
        self._ack_age = gauge("publisher_last_ack_age_seconds", "Time since the last acknowledgement; NaN before it")

    def _make_sampler(self, gauge: _MakeGauge, counter: _MakeCounter) -> None:
        self._polls = counter("sampler_polls", "Polls of all GPUs")
        self._missed = counter("sampler_missed_ticks", "Ticks slept through or lost to slow calls")
        self._stalls = counter("sampler_stalls", "Stretches of missed ticks that count as a stall")
        self._stale = counter("sampler_stale_polls", "Polls of one GPU without a reading newer than the last")
        self._clock_steps = counter("sampler_clock_steps", "Corrections of the clock by more than half a tick")
        self._poll_failures = counter("sampler_failures", "Polls that failed as a whole")
        self._lateness = gauge(
            "sampler_lateness_seconds",
            "Lateness of the last minutes' polls, monotonic clock; 1 is the worst",
            "level",
        )
        self._flags = counter("sampler_flagged_windows", "Windows in which a condition was met on any GPU", "flag")
        self._flagged_gpus = gauge(
            "sampler_flagged_gpus", "GPUs on which a condition was met in the newest window", *_CLASS, "flag"
        )

    def _make_session(self, gauge: _MakeGauge, counter: _MakeCounter) -> None:
        self._session_age = gauge("session_age_seconds", "Age of the evidence in use", *_HOST)
        self._session_max_age = gauge("session_max_age_seconds", "Age at which evidence must be renewed", *_HOST)
        self._renewals = counter("session_renewals", "Sessions begun after the first", *_HOST)
        self._renewal_failures = counter("session_renewal_failures", "Attempts at a new session that failed", *_HOST)

    def _make_privacy(self, gauge: _MakeGauge) -> None:
        self._epsilon = gauge("privacy_epsilon_per_window", "Privacy loss of a reading in a window", *_HOST)
        self._epsilon_w = gauge("privacy_epsilon_per_w_event", "Privacy loss of an event of w windows", *_HOST)
        self._epsilon_max = gauge("policy_max_epsilon", "Largest privacy loss per window the policy allows")
        self._glitches = gauge("noisy_glitches", "Isolated spikes in the newest window, with noise", *_CLASS)
        self._glitches_sum = gauge(
            "noisy_glitches_sum", "Isolated spikes with noise, summed since the start or the last reload", *_CLASS
        )
        self._residual = gauge(
            "noisy_energy_residual_joules", "Readings minus energy counter in the newest window, with noise", *_CLASS
        )

    def about(self, *, version: str, source: str, sampler_mode: str, tee: str) -> None:
        """Say what runs: release, source of the readings, sampler mode, TEE. Replaces what was said before."""
        self._info.clear()
        self._info.labels(version, source, sampler_mode, tee).set(1)

    def restart_hosts(self) -> None:
        """Forget what was said of hosts and their GPU models: a configuration may have others. Counters go on."""
        for gauge in (
            self._flagged_gpus,
            self._session_age,
            self._session_max_age,
            self._epsilon,
            self._epsilon_w,
            self._glitches,
            self._glitches_sum,
            self._residual,
        ):
            gauge.clear()
        self._flagged.clear()

    def policy(self, *, counter: int, not_after_ms: int, max_epsilon_micro: int) -> None:
        """Say which policy is in use, until when (Unix time, ms), and its bound on epsilon per window (millionths)."""
        self._policy_counter.set(counter)
        self._policy_end.set(not_after_ms / 1000)
        self._epsilon_max.set(max_epsilon_micro / MICRO)

    def window(self, *, end_ms: int, sealed: int, lost: int) -> None:
        """Count one window that ended at `end_ms` (Unix time, ms), with its reports on disk and those that are lost."""
        self._windows.inc()
        self._window_end.set(end_ms / 1000)
        self._sealed.inc(sealed)
        self._lost.inc(lost)

    def conditions(self, host: str, model: str, flags: Sequence[tuple[str, int]]) -> None:
        """Say on how many GPUs of a class each condition was met in its newest window; what was met before is set to
        0."""
        now = dict(flags)
        seen = self._flagged.setdefault((host, model), set())
        seen.update(now)
        for flag in seen:
            self._flagged_gpus.labels(host, model, flag).set(now.get(flag, 0))
        for flag, gpus in now.items():
            self._flags.labels(flag).inc(gpus > 0)

    def noisy(self, host: str, model: str, *, glitches: int | None, energy_residual_mj: int | None) -> None:
        """Take what a class released of its newest window, noise included; None where it releases none."""
        if glitches is not None:
            self._glitches.labels(host, model).set(glitches)
            self._glitches_sum.labels(host, model).inc(glitches)
        residual = _UNKNOWN if energy_residual_mj is None else energy_residual_mj / 1000
        self._residual.labels(host, model).set(residual)

    def privacy(self, host: str, *, epsilon_micro: int, w_event_epsilon_micro: int) -> None:
        """Say what a host's readings lose in a window and in an event of w windows, millionths of epsilon."""
        self._epsilon.labels(host).set(epsilon_micro / MICRO)
        self._epsilon_w.labels(host).set(w_event_epsilon_micro / MICRO)

    def spool(
        self,
        *,
        entries: int,
        size: int,
        max_bytes: int,
        oldest_age_ms: int | None,
        dropped: int,
        failures: int,
        quarantined: int,
    ) -> None:
        """Take the spool's state: entries and bytes that wait, its bound, age of the oldest; and its totals."""
        self._spool_entries.set(entries)
        self._spool_bytes.set(size)
        self._spool_max_bytes.set(max_bytes)
        self._spool_age.set((oldest_age_ms or 0) / 1000)
        self._totals.follow(self._dropped, dropped)
        self._totals.follow(self._spool_failures, failures)
        self._totals.follow(self._quarantined, quarantined)

    def publisher(
        self,
        *,
        acknowledged: int,
        failed: int,
        resent: int,
        refused: int,
        in_flight: int,
        last_ack_age_s: float | None,
        stranded: int = 0,
        recovering: bool = False,
    ) -> None:
        """Take the publisher's totals, what is in flight, and the time since its last acknowledgement."""
        self._totals.follow(self._acknowledged, acknowledged)
        self._totals.follow(self._failed, failed)
        self._totals.follow(self._resent, resent)
        self._totals.follow(self._refused, refused)
        self._stranded.set(stranded)
        self._recovering.set(recovering)
        self._in_flight.set(in_flight)
        self._ack_age.set(_UNKNOWN if last_ack_age_s is None else last_ack_age_s)

    def sampler(
        self, *, polls: int, missed_ticks: int, stalls: int, stale: int, clock_steps: int, failures: int
    ) -> None:
        """Take the sampler's totals (`producers.sample.sampler.SamplerStats`)."""
        self._totals.follow(self._polls, polls)
        self._totals.follow(self._missed, missed_ticks)
        self._totals.follow(self._stalls, stalls)
        self._totals.follow(self._stale, stale)
        self._totals.follow(self._clock_steps, clock_steps)
        self._totals.follow(self._poll_failures, failures)

    def lateness(self, *, p50_ms: float, p99_ms: float, max_ms: float) -> None:
        """Take how late the last polls were (`producers.sample.sampler.Jitter`), ms."""
        for level, late_ms in (("0.5", p50_ms), ("0.99", p99_ms), ("1", max_ms)):
            self._lateness.labels(level).set(late_ms / 1000)

    def session(self, host: str, *, age_ms: int, max_age_ms: int | None, renewals: int, failures: int) -> None:
        """Take the age of a host's evidence, when it must be renewed (None: never), and its totals."""
        self._session_age.labels(host).set(age_ms / 1000)
        self._session_max_age.labels(host).set(_UNKNOWN if max_age_ms is None else max_age_ms / 1000)
        self._totals.follow(self._renewals.labels(host), renewals)
        self._totals.follow(self._renewal_failures.labels(host), failures)

    def reloaded(self, ok: bool) -> None:
        """Count one reload: in force, or refused and the old configuration kept."""
        self._reloads.labels("ok" if ok else "refused").inc()
