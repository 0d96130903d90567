"""The host agent: for every window sample, distil, privatise, seal, spool, publish; for one host or several.

Only public facts are logged: windows, counts, sizes. No value that depends on a reading leaves except with its noise.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from power_model.grid import Grid
from producers.config import HostProfile, Schedule
from producers.distil import distil, gaps
from producers.errors import SpoolError
from producers.pacer import Pacer
from producers.privacy import Budget, privacy_parameters
from producers.privatise import Privatiser
from producers.publish import PublishConfig, Publisher, make_kafka_producer
from producers.seal import ClassWindow, SealedReport, Sealer, Session
from producers.spool import Spool
from schemas.codec import SINGLE_OBJECT, Framing
from schemas.errors import ConfigError

log = logging.getLogger(__name__)

PUMP_S = 0.1
"""Longest time delivery reports wait for the agent between windows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHost:
    """A host and its session, which must be bound to the host's configuration (`config.session_facts`)."""

    profile: HostProfile
    session: Session


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


@dataclass(slots=True)
class RunSummary:
    """What a run did: windows, reports sealed, reports lost before the spool or dropped from it, acknowledged, left."""

    windows: int = 0
    reports: int = 0
    lost: int = 0
    acknowledged: int = 0
    left_in_spool: int = 0


class HostAgent:
    """One host: turns a window into a sealed report. Pure but for the noise and the session's signature."""

    def __init__(self, host: AgentHost, config: AgentConfig, spool: Spool) -> None:
        self.profile = host.profile
        self._spool = spool
        self._schedule = config.schedule
        self._grids = [Grid(item.edges_w) for item in host.profile.classes]
        privacy = privacy_parameters(config.budget, host.profile.classes, config.schedule)
        self._privatiser = Privatiser(privacy)
        self._sealer = Sealer(
            host.session,
            host.profile,
            config.schedule,
            privacy,
            last_digest=spool.last_digest(host.profile.host_id),
            evidence_interval=config.evidence_interval,
            framing=config.framing,
        )
        self._dropped_before = spool.dropped(host.profile.host_id)
        self._dropped_seen = 0
        self._lost = 0

    def produce(self, start_ms: int) -> SealedReport:
        """Return the sealed report of the window that begins at `start_ms`. Call once per window."""
        schedule = self._schedule
        classes, readings = [], []
        for item, grid in zip(self.profile.classes, self._grids, strict=True):
            window = item.source.window(start_ms, start_ms + schedule.window_ms)
            if window.shape != (item.source.gpus, schedule.ticks):
                raise ConfigError("the source does not sample at the configured rate", field="sample_hz")
            exact = distil(window, grid, item.clip_low_w, item.clip_high_w, schedule.ticks_per_pane)
            classes.append(ClassWindow(item, exact.readings_taken, self._privatiser.privatise(exact)))
            readings.append(window)
        dropped = self._spool.dropped(self.profile.host_id) - self._dropped_before + self._lost
        if dropped > self._dropped_seen:
            self._dropped_seen = dropped
            self._sealer.require_evidence()  # what was dropped may have carried it
        return self._sealer.seal(start_ms, tuple(classes), gaps(readings), dropped)

    def lost(self) -> None:
        """Note that the last report never reached the spool; its noise is spent, it is never sealed again."""
        self._lost += 1


def run(
    config: AgentConfig, stop: threading.Event, make_producer: Callable[[dict[str, str]], Any] = make_kafka_producer
) -> RunSummary:
    """Produce window after window until `stop` is set or `config.windows` are done; then flush and return.

    What is not acknowledged within `flush_s` stays in the spool and is sent first by the next run. Raises
    `ConfigError` before anything is produced if the configuration does not hold together, `SpoolError` if the spool
    cannot be opened or fails for good.
    """
    _check(config)
    summary = RunSummary()
    with Spool(config.spool_path, max_bytes=config.spool_max_bytes, max_age_ms=config.spool_max_age_ms) as spool:
        agents = [HostAgent(host, config, spool) for host in config.hosts]
        publisher = Publisher(config.publish, spool, make_producer)
        start_ms = _first_start_ms(config, spool)
        while config.windows is None or summary.windows < config.windows:
            if not _wait(config.pacer, start_ms + config.schedule.window_ms, publisher, stop):
                break
            _window(agents, start_ms, spool, summary)
            publisher.pump()
            start_ms = config.pacer.next_start_ms(start_ms + config.schedule.window_ms)
        publisher.flush(config.flush_s)
        summary.acknowledged = publisher.acknowledged
        summary.left_in_spool = spool.depth()[0]
    log.info("stopped: %s", summary)
    return summary


def _first_start_ms(config: AgentConfig, spool: Spool) -> int:
    """The pacer's first window, but none that was sealed before: after a restart of a replay, or with the clock set
    back, another noise for the same readings would cost privacy and look like equivocation."""
    first_ms, width_ms = config.pacer.first_start_ms(), config.schedule.window_ms
    sealed_ms = max(spool.sealed_ms(host.profile.host_id) for host in config.hosts)
    if sealed_ms <= first_ms:
        return first_ms
    log.warning("windows up to %d ms were sealed before: going on from there", sealed_ms)
    return config.pacer.next_start_ms(-(-sealed_ms // width_ms) * width_ms)


def _check(config: AgentConfig) -> None:
    ids = [host.profile.host_id for host in config.hosts]
    if not ids or len(set(ids)) != len(ids):
        raise ConfigError("an agent needs hosts with different ids", field="hosts")
    for host in config.hosts:
        if host.profile.domain not in config.publish.partitions:
            raise ConfigError(f"the policy names no partition for domain {host.profile.domain}", field="partitions")


def _wait(pacer: Pacer, end_ms: int, publisher: Publisher, stop: threading.Event) -> bool:
    """Serve Kafka until the window is over; False if asked to stop."""
    while not stop.is_set():
        left = pacer.seconds_until(end_ms)
        if left <= 0:
            return True
        publisher.pump()
        stop.wait(min(left, PUMP_S))
    return False


def _window(agents: list[HostAgent], start_ms: int, spool: Spool, summary: RunSummary) -> None:
    sealed = [agent.produce(start_ms) for agent in agents]
    try:
        spool.append(sealed, int(time.time() * 1000))
    except SpoolError:
        # Not on disk, so it must not be sent; drawing the noise again would spend the budget twice.
        log.exception("window %d lost: the spool failed", start_ms)
        for agent in agents:
            agent.lost()
        summary.lost += len(sealed)
    else:
        summary.reports += len(sealed)
    summary.windows += 1
    entries, size = spool.depth()
    log.info("window %d: %d reports sealed, %d waiting (%d bytes)", start_ms, len(sealed), entries, size)
