"""One host's windows: read, distil, privatise, seal; session after session, in one chain."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from power_model.grid import Grid
from producers.config import ClassProfile, HostProfile, Schedule
from producers.distil import Gaps, distil, gaps
from producers.privacy import Budget, privacy_parameters
from producers.privatise import Noisy, Privatiser
from producers.sample.source import Readings, ReadingSource
from producers.seal import ClassWindow, SealedReport, Sealer, Session
from producers.spool import Spool
from schemas.codec import SINGLE_OBJECT, Framing
from schemas.errors import ConfigError
from schemas.records import ConfidentialCompute

if TYPE_CHECKING:
    from producers.renewal import Renewal

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentHost:
    """A host and its first session, which must be bound to the host's configuration (`config.session_facts`).

    `renewal` gives the sessions after it (None: the first one is kept); `confidential_compute` reads the state of
    the host's GPUs once per window (None: the profile's).
    """

    profile: HostProfile
    session: Session
    renewal: Renewal | None = None
    confidential_compute: Callable[[], ConfidentialCompute] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealing:
    """How the hosts of one agent seal: schedule, budget, framing, windows between repetitions of evidence."""

    schedule: Schedule
    budget: Budget
    framing: Framing = SINGLE_OBJECT
    evidence_interval: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HostWindow:
    """One host's window, done: the sealed report, and what is public of it or private by its noise."""

    sealed: SealedReport
    seen: Gaps
    classes: tuple[ClassWindow, ...]


class HostAgent:
    """Turns a window into a sealed report. Pure but for the noise and the session's signature.

    `before`: the sources read until now, if this host takes over from another configuration. The first reading of a
    source that is not among them may be the last one of the source that it replaces, and is left out.
    """

    def __init__(
        self, host: AgentHost, sealing: Sealing, spool: Spool, before: Sequence[ReadingSource] | None = None
    ) -> None:
        self.profile = host.profile
        self.privacy = privacy_parameters(sealing.budget, host.profile.classes, sealing.schedule)
        self._host = host
        self._spool = spool
        self._sealing = sealing
        self._grids = [Grid(item.edges_w) for item in host.profile.classes]
        self._privatiser = Privatiser(self.privacy)
        self._sealer = self._seal_with(host.session, spool.last_digest(host.profile.host_id))
        self._dropped_before = self._dropped_seen = 0
        self._count_anew()
        known = {id(source) for source in before or ()}
        self._anew = {c.model for c in host.profile.classes if before is not None and id(c.source) not in known}
        self.renewals = 0

    def produce(self, start_ms: int) -> HostWindow:
        """Return the sealed report of the window that begins at `start_ms`. Call once per window.

        Raises `ConfigError` if a source does not sample as configured.
        """
        self._renew(start_ms)
        classes, readings = [], []
        for item, grid in zip(self.profile.classes, self._grids, strict=True):
            window = self._read(item, start_ms)
            classes.append(self._release(item, grid, window, start_ms))
            readings.append(window)
        # Fewer than before where a torn spool has forgotten that it dropped some, which then wait again.
        dropped = max(self._spool.dropped(self.profile.host_id) - self._dropped_before, 0)
        if dropped > self._dropped_seen:
            self._dropped_seen = dropped
            self._sealer.require_evidence()  # what was dropped may have carried it
        seen = gaps(readings)
        state = None if self._host.confidential_compute is None else self._host.confidential_compute()
        sealed = self._sealer.seal(start_ms, tuple(classes), seen, dropped, state)
        return HostWindow(sealed=sealed, seen=seen, classes=tuple(classes))

    def _renew(self, start_ms: int) -> None:
        """Go over to the next session where one is ready: between two windows, so that none is missed."""
        fresh = self._host.renewal.due(start_ms) if self._host.renewal else None
        if fresh is None:
            return
        self._sealer = self._seal_with(fresh, self._sealer.last_digest)
        self._count_anew()
        self.renewals += 1
        log.info("%s: session %s from window %d on", self.profile.host_id, fresh.session_id.hex()[:16], start_ms)

    def _count_anew(self) -> None:
        """A session states what was dropped and no report that brokers have acknowledged states."""
        self._dropped_before = self._spool.heard(self.profile.host_id)
        self._dropped_seen = 0

    def _seal_with(self, session: Session, last_digest: bytes | None) -> Sealer:
        return Sealer(
            session,
            self.profile,
            self._sealing.schedule,
            self.privacy,
            last_digest=last_digest,
            evidence_interval=self._sealing.evidence_interval,
            framing=self._sealing.framing,
        )

    def _read(self, item: ClassProfile, start_ms: int) -> Readings:
        schedule = self._sealing.schedule
        window = item.source.window(start_ms, start_ms + schedule.window_ms)
        if window.shape != (item.source.gpus, schedule.ticks):
            raise ConfigError("the source does not sample at the configured rate", field="sample_hz")
        if item.model in self._anew:
            self._anew.discard(item.model)
            window = window.copy()
            window[np.arange(len(window)), np.argmax(~np.isnan(window), axis=1)] = np.nan
        return window

    def _release(self, item: ClassProfile, grid: Grid, window: Readings, start_ms: int) -> ClassWindow:
        schedule = self._sealing.schedule
        found = item.source.conditions(start_ms, start_ms + schedule.window_ms)
        exact = distil(
            window,
            grid,
            item.clip_low_w,
            item.clip_high_w,
            schedule.ticks_per_pane,
            tick_ms=schedule.tick_ms,
            energy=found.energy,
        )
        noisy: Noisy = self._privatiser.privatise(exact)
        return ClassWindow(item, exact.readings_taken, noisy, found)
