"""The host agent: for every window sample, distil, privatise, seal, spool, publish; for one host or several.

Only public facts are logged: windows, counts, sizes. No value that depends on a reading leaves except with its noise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from confluent_kafka import KafkaException

from producers.config import Schedule
from producers.errors import SpoolError
from producers.host import AgentHost, HostAgent, HostWindow, Sealing
from producers.pacer import Pacer
from producers.privacy import Budget
from producers.publish import PublishConfig, Publisher, make_kafka_producer
from producers.spool import Spool
from schemas.codec import SINGLE_OBJECT, Framing
from schemas.errors import ConfigError, EnclaveScaleError

log = logging.getLogger(__name__)

PUMP_S = 0.25
"""Longest time delivery reports wait for the agent between windows."""


class AgentObserver(Protocol):
    """What watches an agent: metrics, health, the service manager. Called on the agent's thread; must not block."""

    def started(self, agent: Agent) -> None:
        """Everything is open; the first window is awaited."""

    def turned(self, agent: Agent) -> None:
        """The loop went round once: several times a second while a window is awaited."""

    def window(self, agent: Agent, done: Sequence[HostWindow], spooled: bool) -> None:
        """One window of all hosts is sealed; `spooled`: and on disk."""

    def reloaded(self, agent: Agent) -> None:
        """A new configuration is in force: this observer's."""

    def reload_refused(self, agent: Agent, error: Exception) -> None:
        """This observer's configuration could not be put in force; the one before stays."""

    def stopping(self, agent: Agent) -> None:
        """No further window; what is spooled is flushed."""


class NoObserver:
    """Nobody watches."""

    def started(self, agent: Agent) -> None:
        """Do nothing."""

    def turned(self, agent: Agent) -> None:
        """Do nothing."""

    def window(self, agent: Agent, done: Sequence[HostWindow], spooled: bool) -> None:
        """Do nothing."""

    def reloaded(self, agent: Agent) -> None:
        """Do nothing."""

    def reload_refused(self, agent: Agent, error: Exception) -> None:
        """Do nothing."""

    def stopping(self, agent: Agent) -> None:
        """Do nothing."""


NO_OBSERVER = NoObserver()


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentConfig:
    """Everything one agent process needs. `windows` bounds a replay; None runs until stopped."""

    hosts: tuple[AgentHost, ...]
    pacer: Pacer
    publish: PublishConfig
    spool_path: Path
    schedule: Schedule = field(default_factory=Schedule)
    budget: Budget = field(default_factory=Budget)
    framing: Framing = SINGLE_OBJECT
    evidence_interval: int = 10
    spool_max_bytes: int = 256 << 20
    spool_max_age_ms: int = 24 * 3_600_000
    windows: int | None = None
    flush_s: float = 30.0
    observer: AgentObserver = NO_OBSERVER

    @property
    def sealing(self) -> Sealing:
        """How its hosts seal."""
        return Sealing(
            schedule=self.schedule,
            budget=self.budget,
            framing=self.framing,
            evidence_interval=self.evidence_interval,
        )


@dataclass(slots=True)
class RunSummary:
    """What a run did: windows, reports sealed, reports lost before the spool or dropped from it, acknowledged, left."""

    windows: int = 0
    reports: int = 0
    lost: int = 0
    acknowledged: int = 0
    left_in_spool: int = 0


class Agent:
    """One process's agent: `run` blocks; `replace` may be called from any thread.

    Raises `ConfigError` if the configuration does not hold together, `SpoolError` if the spool cannot be opened.
    `now` is the wall clock in Unix seconds.
    """

    def __init__(
        self,
        config: AgentConfig,
        make_producer: Callable[[dict[str, str]], Any] = make_kafka_producer,
        now: Callable[[], float] = time.time,
    ) -> None:
        _check(config)
        self._make_producer = make_producer
        self._now = now
        self._next: AgentConfig | None = None
        self._handing_over = threading.Lock()
        self._acknowledged_before = 0
        self._deaf: set[type[Exception]] = set()
        self.summary = RunSummary()
        self.config = config
        self.spool = Spool(config.spool_path, max_bytes=config.spool_max_bytes, max_age_ms=config.spool_max_age_ms)
        try:
            self.hosts = [HostAgent(host, config.sealing, self.spool) for host in config.hosts]
            self.publisher = Publisher(config.publish, self.spool, make_producer)
        except BaseException:
            self.spool.close()
            raise

    def replace(self, config: AgentConfig) -> None:
        """Use `config` from the next window on. The spool stays the one in use.

        Raises `ConfigError`, and changes nothing, if it does not hold together or names another spool or schedule:
        those take a restart.
        """
        _check(config)
        if config.spool_path != self.config.spool_path:
            raise ConfigError("another spool takes a restart", field="spool")
        if config.schedule != self.config.schedule:
            raise ConfigError("another schedule takes a restart", field="schedule")
        with self._handing_over:
            before, self._next = self._next, config
        if before is not None:
            _close_renewals(before, config)  # never came into force

    def run(self, stop: threading.Event) -> RunSummary:
        """Produce window after window until `stop` is set or `config.windows` are done; then flush and return.

        What is not acknowledged within `flush_s` stays in the spool and is sent first by the next run.
        """
        try:
            start_ms = self._earliest_ms()
            if start_ms > self.config.pacer.first_start_ms():
                log.warning("windows before %d ms were sealed already: going on from there", start_ms)
            self._tell(self.config.observer.started)
            while self.config.windows is None or self.summary.windows < self.config.windows:
                over_ms = self._await(start_ms, stop)
                if over_ms is None:
                    break
                self._window(over_ms)
                self._pump()
                start_ms = self.config.pacer.next_start_ms(over_ms + self.config.schedule.window_ms)
                self._reload(start_ms)
            self._tell(self.config.observer.stopping)
            self._flush()
        finally:
            self.spool.close()
        log.info("stopped: %s", self.summary)
        return self.summary

    def _earliest_ms(self) -> int:
        """The pacer's first window, but none that was sealed before: after a restart of a replay, or with the clock
        set back, another noise for the same readings would cost privacy and look like equivocation."""
        first_ms, width_ms = self.config.pacer.first_start_ms(), self.config.schedule.window_ms
        sealed_ms = max(self.spool.sealed_ms(host.profile.host_id) for host in self.hosts)
        if sealed_ms <= first_ms:
            return first_ms
        return self.config.pacer.next_start_ms(-(-sealed_ms // width_ms) * width_ms)

    def _await(self, start_ms: int, stop: threading.Event) -> int | None:
        """Serve Kafka until the window from `start_ms` on is over and return its start; None if asked to stop.

        An earlier window is returned where one wrong reading of the clock had put the agent far ahead.
        """
        told, width_ms = False, self.config.schedule.window_ms
        while not stop.is_set():
            left = self.config.pacer.seconds_until(start_ms + width_ms)
            if left <= 0:
                return start_ms
            if left * 1000 > 2 * width_ms:
                earliest_ms = self._earliest_ms()
                if earliest_ms < start_ms:
                    log.warning("the clock was wrong: going on from %d ms instead of %d ms", earliest_ms, start_ms)
                    start_ms = earliest_ms
                    continue
                if not told:
                    told = True
                    log.warning("the next window ends in %d s: was the clock set back? None is sealed twice", left)
            self._pump()
            stop.wait(min(left, PUMP_S))
        return None

    def _window(self, start_ms: int) -> None:
        done = [host.produce(start_ms) for host in self.hosts]
        spooled = True
        try:
            self.spool.append([one.sealed for one in done], int(self._now() * 1000))
        except SpoolError:
            # Not on disk, so it must not be sent; drawing the noise again would spend the budget twice.
            log.error("window %d lost: the spool failed", start_ms)  # which has said how
            self.summary.lost += len(done)
            spooled = False
        else:
            self.summary.reports += len(done)
            log.info("window %d: %d reports sealed", start_ms, len(done))
        self.summary.windows += 1
        self._tell(self.config.observer.window, done, spooled)

    def _pump(self) -> None:
        try:
            self.publisher.pump()
        except SpoolError:
            log.exception("publishing waits: the spool failed")
        self.summary.acknowledged = self._acknowledged_before + self.publisher.acknowledged
        self._tell(self.config.observer.turned)

    def _reload(self, start_ms: int) -> None:
        """Between two windows: hosts and sessions of the new configuration go on with the chains of the old."""
        with self._handing_over:
            config, self._next = self._next, None
        if config is None:
            return
        try:
            self._check_unsealed(config, start_ms)
            read = [item.source for host in self.config.hosts for item in host.profile.classes]
            hosts = [HostAgent(host, config.sealing, self.spool, read) for host in config.hosts]
            if config.publish != self.config.publish:
                publisher = Publisher(config.publish, self.spool, self._make_producer)
                self.publisher.close()
                self._acknowledged_before += self.publisher.acknowledged
                self.publisher = publisher  # what the old one had in flight is still in the spool and goes again
        except Exception as error:  # whatever it is, windows go on
            known = isinstance(error, EnclaveScaleError | KafkaException)
            log.error(
                "the new configuration cannot be used, the old one stays: %s", error, exc_info=None if known else error
            )
            _close_renewals(config, self.config)
            self._tell(config.observer.reload_refused, error)
            return
        _close_renewals(self.config, config)
        self.config, self.hosts = config, hosts
        log.info("configuration reloaded: %d hosts", len(hosts))
        self._tell(config.observer.reloaded)

    def _check_unsealed(self, config: AgentConfig, start_ms: int) -> None:
        """A host whose windows are sealed beyond `start_ms` would have the spool refuse the windows of all."""
        for host in config.hosts:
            if self.spool.sealed_ms(host.profile.host_id) > start_ms:
                raise ConfigError(
                    f"{host.profile.host_id}: windows after {start_ms} ms were sealed before",
                    field="hosts",
                    remedy="Add the host with a restart: it goes on from the last window that was sealed.",
                )

    def _tell(self, method: Callable[..., None], *details: object) -> None:
        """Whatever is wrong with a metric, windows go on."""
        try:
            method(self, *details)
        except Exception as error:
            if type(error) not in self._deaf:
                self._deaf.add(type(error))
                log.exception("an observer failed; said once")

    def _flush(self) -> None:
        try:
            self.publisher.flush(self.config.flush_s)
            self.summary.left_in_spool = self.spool.depth()[0]
        except SpoolError:
            log.exception("could not flush: the spool failed")
        self.summary.acknowledged = self._acknowledged_before + self.publisher.acknowledged
        _close_renewals(self.config, None)


def run(
    config: AgentConfig, stop: threading.Event, make_producer: Callable[[dict[str, str]], Any] = make_kafka_producer
) -> RunSummary:
    """Run one agent to its end (`Agent.run`). Raises `ConfigError` before anything is produced, `SpoolError`."""
    return Agent(config, make_producer).run(stop)


def _close_renewals(old: AgentConfig, new: AgentConfig | None) -> None:
    kept = {id(host.renewal) for host in new.hosts} if new else set()
    for host in old.hosts:
        if host.renewal is not None and id(host.renewal) not in kept:
            host.renewal.close()


def _check(config: AgentConfig) -> None:
    ids = [host.profile.host_id for host in config.hosts]
    if not ids or len(set(ids)) != len(ids):
        raise ConfigError("an agent needs hosts with different ids", field="hosts")
    for host in config.hosts:
        if host.profile.domain not in config.publish.partitions:
            raise ConfigError(f"the policy names no partition for domain {host.profile.domain}", field="partitions")
