"""What an operator sees of a running agent: its metrics, its health and what the service manager is told.

Everything said here is public: totals, ages and states that no reading decides, and the releases of a window with
their noise, once the window is on disk (`docs/privacy.md`).
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Gauge, disable_created_metrics

from enclavescale.agent.aggregators import CHECK_S, AggregatorCheck
from enclavescale.agent.notify import Notifier
from enclavescale.agent.sources import HostSources
from enclavescale.endpoint import Endpoint, endpoint_app
from enclavescale.health import Health, Need
from producers.agent import Agent
from producers.host import HostWindow
from producers.metrics import AgentMetrics
from producers.renewal import SessionKeeper, wall_clock_ms
from producers.sample.reader import FLAG_NAMES, GPU_LOST
from producers.sample.sampler import SamplerStats
from schemas.records import Policy

LOOP_S = 120.0
"""The loop must turn so often, or a restart would help, s."""

BROKER_S = 180.0
"""So long may acknowledgements stay away before the answer says so, s."""

AGGREGATOR_S = 5 * CHECK_S
"""So long may nothing be found that proves the aggregator before the answer says so, s."""

LOOK_S = 1.0
"""Between two looks at spool, publisher, sampler and session: the loop turns more often, a scraper does not look so
often."""


@dataclass(frozen=True, slots=True)
class WatchedHost:
    """One host as assembled: its readings and who renews its session."""

    host_id: str
    sources: HostSources
    keeper: SessionKeeper


@dataclass(slots=True)
class Instruments:
    """One process's metrics, health, notifier and endpoint; they outlive every reload. A context manager."""

    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    health: Health = field(default_factory=Health)
    notifier: Notifier = field(default_factory=Notifier.from_environment)
    metrics: AgentMetrics = field(init=False)
    attested: Gauge = field(init=False)
    endpoint: Endpoint | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter that nobody asks for
        self.metrics = AgentMetrics(self.registry)
        self.attested = Gauge(
            "enclavescale_agent_aggregator_attested",
            "1 where the newest output of every domain here is an attested aggregator's",
            registry=self.registry,
        )
        self.attested.set(math.nan)
        self.health.expect("start", Need.READY, within_s=math.inf)  # probes come before everything is open

    def listen(self, address: str) -> None:
        """Serve metrics and health at HOST:PORT. Raises ConfigError."""
        self.endpoint = Endpoint(address, endpoint_app(self.registry, self.health))

    def reload_refused(self, code: str) -> None:
        """Say that a reload changed nothing, and why."""
        self.metrics.reloaded(False)
        self.notifier.ready(f"reload refused: {code}")

    def __enter__(self) -> Instruments:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Answer nobody any more."""
        if self.endpoint is not None:
            self.endpoint.close()


class HostWatch:
    """An `AgentObserver` of one configuration; a reload makes another over the same instruments.

    `aggregators` is shown as it stands.
    `in_force` is called when the agent has gone over to this configuration (True) or could not (False). `now`: a
    monotonic clock, s; `wall_ms`: Unix time, ms.
    """

    def __init__(
        self,
        instruments: Instruments,
        policy: Policy,
        hosts: Sequence[WatchedHost],
        *,
        tee: str,
        in_force: Callable[[bool], None],
        aggregators: AggregatorCheck | None = None,
        now: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._aggregators, self._looks_before = aggregators, 0
        self._instruments = instruments
        self._metrics, self._health = instruments.metrics, instruments.health
        self._notifier = instruments.notifier
        self._policy, self._hosts, self._tee = policy, tuple(hosts), tee
        self._in_force, self._now, self._wall_ms = in_force, now, wall_ms
        self._next_look, self._began = 0.0, now()
        self._polls_before: dict[str, int] = {}
        self._polled: dict[str, float] = {}

    # -- AgentObserver -----------------------------------------------------------------------------------------------

    def started(self, agent: Agent) -> None:
        """Say who runs, and that it does."""
        self._take_over(agent)
        self._health.ok("start")
        self._notifier.ready("waiting for the end of the first window")

    def turned(self, agent: Agent) -> None:
        """A sign of life; once in a while the state of everything."""
        self._notifier.alive()
        self._health.ok("loop")
        if self._now() >= self._next_look:
            self._next_look = self._now() + LOOK_S
            self._look(agent)

    def window(self, agent: Agent, done: Sequence[HostWindow], spooled: bool) -> None:
        """Count a window; what it releases only once it is on disk, or its noise would have left without it."""
        self._metrics.window(
            end_ms=done[0].sealed.window_end_ms,
            sealed=len(done) if spooled else 0,
            lost=0 if spooled else len(done),
        )
        if spooled:
            self._health.ok("windows")
        for one in done:
            for gpus in one.classes:
                host, model = one.sealed.host_id, gpus.profile.model
                self._metrics.conditions(host, model, gpus.conditions.flags)
                if spooled:
                    self._metrics.noisy(
                        host, model, glitches=gpus.noisy.glitches, energy_residual_mj=gpus.noisy.energy_residual_mj
                    )
        self._look_at_samplers(done)
        self._look(agent)
        waits = agent.spool.depth()[0]
        self._notifier.status(f"{agent.summary.windows} windows, {waits} reports wait for the broker")

    def reloaded(self, agent: Agent) -> None:
        """The reload is in force."""
        self._take_over(agent)
        self._metrics.reloaded(True)

    def reload_refused(self, agent: Agent, error: Exception) -> None:
        """The reload failed at the last moment."""
        self._in_force(False)
        self._instruments.reload_refused(getattr(error, "code", "CONFIG_INVALID"))

    def stopping(self, agent: Agent) -> None:
        """The last reports are sent."""
        self._notifier.stopping("sending what is spooled")

    # -- looks -------------------------------------------------------------------------------------------------------

    def _take_over(self, agent: Agent) -> None:
        self._expect(agent.config.schedule.window_ms / 1000)
        self._metrics.restart_hosts()
        profile = agent.config.hosts[0].profile.classes[0].source
        self._metrics.about(
            version=version("enclavescale"), source=profile.kind, sampler_mode=profile.sampler_mode, tee=self._tee
        )
        policy = self._policy
        self._metrics.policy(
            counter=policy.counter,
            not_after_ms=policy.not_after_ms,
            max_epsilon_micro=policy.limits.max_epsilon_micro,
        )
        for host in agent.hosts:
            self._metrics.privacy(
                host.profile.host_id,
                epsilon_micro=host.privacy.epsilon_total_micro,
                w_event_epsilon_micro=host.privacy.w_event_epsilon_micro,
            )
        self._in_force(True)

    def _expect(self, window_s: float) -> None:
        """What must succeed how often; the first window ends up to two windows after the start."""
        within, grace = 2.5 * window_s, 3 * window_s
        self._health.expect("loop", Need.LIVE, within_s=max(2 * window_s, LOOP_S))
        for name in ("windows", "spool", "session"):
            self._health.expect(name, Need.READY, within_s=within, grace_s=grace)
        if any(host.sources.live for host in self._hosts):
            self._health.expect("sampler", Need.READY, within_s=within, grace_s=grace)
        else:
            self._health.forget("sampler")
        self._health.expect("broker", Need.SHOWN, within_s=max(3 * window_s, BROKER_S))
        if self._aggregators is not None:
            self._health.expect("aggregator", Need.SHOWN, within_s=AGGREGATOR_S)
        else:
            self._health.forget("aggregator")

    def _look(self, agent: Agent) -> None:
        self._look_at_spool(agent)
        self._look_at_publisher(agent)
        self._look_at_sessions(agent)
        self._look_at_aggregator()

    def _look_at_aggregator(self) -> None:
        state = None if self._aggregators is None else self._aggregators.state()
        if state is None or state.looks == self._looks_before:
            return
        self._looks_before = state.looks
        self._instruments.attested.set(state.code is None)
        if state.code is None:
            self._health.ok("aggregator", f"{state.passed} records passed over" if state.passed else "")
        else:
            self._health.fail("aggregator", state.code, state.detail)

    def _look_at_spool(self, agent: Agent) -> None:
        stats = agent.spool.stats(self._wall_ms())
        self._metrics.spool(
            entries=stats.entries,
            size=stats.bytes,
            max_bytes=agent.config.spool_max_bytes,
            oldest_age_ms=stats.oldest_age_ms,
            dropped=stats.dropped,
            failures=stats.failures,
            quarantined=stats.quarantined,
        )
        if stats.writable:
            self._health.ok("spool")
        else:
            self._health.fail("spool", "SPOOL_FAILED")

    def _look_at_publisher(self, agent: Agent) -> None:
        stats = agent.publisher.stats()
        self._metrics.publisher(
            acknowledged=stats.acknowledged,
            failed=stats.failed,
            resent=stats.resent,
            refused=stats.refused,
            in_flight=stats.in_flight,
            last_ack_age_s=stats.last_ack_age_s,
            stranded=stats.stranded,
            recovering=stats.recovering,
        )
        waits = agent.spool.depth()[0]
        if not waits or (stats.last_ack_age_s is not None and stats.last_ack_age_s < BROKER_S and not stats.failing):
            self._health.ok("broker")
        elif stats.failing:
            self._health.fail("broker", "NOT_ACKNOWLEDGED", f"{waits} reports wait")

    def _look_at_sessions(self, agent: Agent) -> None:
        worst = ""
        renewals = {host.profile.host_id: host.renewals for host in agent.hosts}
        for host in self._hosts:
            state = host.keeper.state()
            self._metrics.session(
                host.host_id,
                age_ms=state.age_ms,
                max_age_ms=state.max_age_ms,
                renewals=renewals[host.host_id],
                failures=state.failures,
            )
            if state.age_ms > state.max_age_ms:
                worst = state.last_error or "EVIDENCE_OLD"
        if worst:
            self._health.fail("session", worst)
        else:
            self._health.ok("session")

    def _look_at_samplers(self, done: Sequence[HostWindow]) -> None:
        """Once a window: polls must have risen, unless they are further apart, and not every GPU be gone."""
        samplers = {host.host_id: one for host in self._hosts if (one := host.sources.sampler) is not None}
        stats = {host_id: sampler.stats() for host_id, sampler in samplers.items()}
        if samplers:
            totals = [dataclasses.astuple(one) for one in stats.values()]
            names = [one.name for one in dataclasses.fields(SamplerStats)]
            self._metrics.sampler(**dict(zip(names, map(sum, zip(*totals, strict=True)), strict=True)))
            worst = max((sampler.jitter() for sampler in samplers.values()), key=lambda one: one.p99_ms)
            self._metrics.lateness(p50_ms=worst.p50_ms, p99_ms=worst.p99_ms, max_ms=worst.max_ms)
        polls = {host_id: one.polls for host_id, one in stats.items()}
        for host in self._hosts:
            if host.sources.scraper is not None:
                polls[host.host_id] = host.sources.scraper.stats().scrapes
        if not polls:
            return
        now, window_s = self._now(), (done[0].sealed.window_end_ms - done[0].sealed.window_start_ms) / 1000
        for host_id, count in polls.items():
            if count > self._polls_before.get(host_id, 0):
                self._polled[host_id] = now
        allowed = {one.host_id: window_s / 2 + 1.5 * one.sources.spacing_s for one in self._hosts}
        if any(now - self._polled.setdefault(host_id, self._began) > allowed[host_id] for host_id in polls):
            self._health.fail("sampler", "NOT_SAMPLING")
        elif any(_all_lost(one) for one in done):
            self._health.fail("sampler", "GPU_LOST")
        else:
            self._health.ok("sampler")
        self._polls_before = polls


def _all_lost(window: HostWindow) -> bool:
    """Whether every GPU of a host was lost in its window."""
    name = FLAG_NAMES[GPU_LOST]
    return all(dict(one.conditions.flags).get(name, 0) >= one.profile.source.gpus for one in window.classes)
