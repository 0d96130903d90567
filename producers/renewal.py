"""Sessions one after the other: the next is made on a thread of its own before the evidence of the last is too old.

When: at 75 to 85 % of the greatest age, less the window for which a new session waits; drawn anew each time, so that
hosts that started together drift apart. Or some seconds after a beacon newer than the session was heard, drawn from
`spread_ms` for the same reason. Beacons are not verified here (docs/adr/0018), so they cost one session per
`min_interval_ms` at most.

Order: workers take the session with the newest moment for a host's valid one, the beacon's where it has one, else its
own; of those that name one beacon the newest. They refuse the reports of the others as superseded. So each session
made here comes after the one before it, and none is ahead of this machine's clock, or a restart could not go on: a
beacon of the next seconds waits for its time, and a clock that was set back is not followed. Every session names the
newest beacon that was heard, again if there is no newer one: a policy may demand one.
"""

from __future__ import annotations

import logging
import random as randomness
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self

from producers.backoff import full_jitter
from producers.seal import Session
from schemas.records import Beacon, SessionBinding

log = logging.getLogger(__name__)

EARLIEST, LATEST = 0.75, 0.85
"""Parts of the greatest age between which evidence is renewed. The rest is for attempts that fail."""

MIN_INTERVAL_MS = 60_000
SPREAD_MS = 60_000

LOOK_S = 30.0
"""The thread looks at its clocks this often at least: a wait does not go on while the machine sleeps."""

CLOSE_S = 2.0
"""How long closing waits for the thread. A TEE may take a minute to answer, and nobody needs its answer any more."""

Make = Callable[[Beacon | None, int], Session]
"""Make a session that names the beacon (or none) and `created_at_ms`. Called on the keeper's thread."""


class Renewal(Protocol):
    """Where a host's sessions come from. Used from the agent's thread."""

    def due(self, start_ms: int) -> Session | None:
        """The session to use from the window at `start_ms` on; None: the one in use. Never blocks."""

    def close(self) -> None:
        """No further sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewalState:
    """Where a keeper stands, for metrics and readiness.

    `age_ms` of the evidence in use; `renewals`: sessions taken into use after the first; `failures`: attempts that
    failed; `last_error`: code of the newest of them, None once a session was made.
    """

    age_ms: int
    max_age_ms: int
    renewals: int
    failures: int
    last_error: str | None

    @property
    def overdue(self) -> bool:
        """The evidence in use is older than it may be."""
        return self.age_ms > self.max_age_ms


def wall_clock_ms() -> int:
    """Unix time in ms."""
    return time.time_ns() // 1_000_000


def elapsed_clock_s() -> float:
    """Seconds that nobody sets, and that pass while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def moment_ms(binding: SessionBinding) -> int:
    """What workers order a host's sessions by first (stream_jobs.core.sessions), UTC ms."""
    return binding.beacon.issued_at_ms if binding.beacon else binding.created_at_ms


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session stands among those of its host: after it comes one with a later moment, or with an equal one
    that was created later. UTC ms."""

    moment_ms: int
    created_at_ms: int
    beacon: Beacon | None

    @classmethod
    def of(cls, binding: SessionBinding) -> Place:
        """That of a session with this binding."""
        return cls(moment_ms(binding), binding.created_at_ms, binding.beacon)

    def before(self, other: Place) -> bool:
        """Whether workers take `other` for the newer one."""
        return (self.moment_ms, self.created_at_ms) < (other.moment_ms, other.created_at_ms)

    def next(self, heard: Beacon | None, now_ms: int) -> tuple[Beacon | None, int]:
        """Beacon and `created_at_ms` of a session that comes after this one: the newest beacon that lets it."""
        offered = [one for one in (self.beacon, heard) if one is not None and one.issued_at_ms >= self.moment_ms]
        named = max(offered, key=lambda one: one.issued_at_ms, default=None)
        return named, max(now_ms, self.created_at_ms + 1)


class SessionKeeper:
    """A `Renewal` that makes sessions with `make`, the first of which, just made, is `first`. `due` is asked once in
    `window_ms`.

    `demand` may be called from any thread. `turn` is one round of the thread that `start` begins. `wall_ms` is Unix
    time, `elapsed_s` a clock that is never set, `random` draws from [0, 1), `pause` gives seconds to wait after the
    n-th failure in a row.
    """

    def __init__(
        self,
        make: Make,
        first: Session,
        *,
        max_age_ms: int,
        window_ms: int = 0,
        min_interval_ms: int = MIN_INTERVAL_MS,
        spread_ms: int = SPREAD_MS,
        wall_ms: Callable[[], int] = wall_clock_ms,
        elapsed_s: Callable[[], float] = elapsed_clock_s,
        random: Callable[[], float] = randomness.random,
        pause: Callable[[int], float] = full_jitter,
    ) -> None:
        self._make = make
        self._max_age_s, self._min_interval_s, self._spread_s = (
            value / 1000 for value in (max_age_ms, min_interval_ms, spread_ms)
        )
        self._lasts_s = max(max_age_ms - window_ms, 0) / 1000
        self._wall_ms, self._elapsed_s, self._random, self._pause = wall_ms, elapsed_s, random, pause
        self._lock = threading.Lock()
        self._wake, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
        self._held = False
        self._ready: Session | None = None
        self._beacon: Beacon | None = None
        self._asked_s = self._not_before_s = 0.0
        self._renewals = self._failures = self._in_a_row = 0
        self._last_error: str | None = None
        self._made(first, self._elapsed_s())
        self._in_use_s = self._made_s

    def start(self) -> Self:
        """Begin the thread. Returns the keeper."""
        self._thread.start()
        return self

    def due(self, start_ms: int) -> Session | None:
        """The newest session that was made and not yet handed out. Never blocks."""
        with self._lock:
            if self._held:
                return None
            session, self._ready = self._ready, None
            if session is not None:
                self._in_use_s = self._made_s
                self._renewals += 1
            return session

    def demand(self, beacon: Beacon) -> None:
        """Renew soon, with this beacon, unless the newest session has seen it or a newer one."""
        with self._lock:
            if beacon.issued_at_ms <= self._place.moment_ms:
                return
            if self._beacon is None:
                self._beacon = beacon
                self._asked_s = self._elapsed_s() + self._random() * self._spread_s
            elif self._beacon.issued_at_ms < beacon.issued_at_ms <= self._wall_ms():
                # Not one of the future: a series of those would put off what waits for ever.
                self._beacon = beacon
        self._wake.set()

    def hold(self) -> Place:
        """Hand out no session until `resume`; return where the newest one stands.

        For a configuration that replaces this one some time later: its first session must still be the newest then.
        """
        with self._lock:
            self._held = True
            return self._place

    def resume(self) -> None:
        """Hand out sessions again: the replacement came to nothing."""
        with self._lock:
            self._held = False

    def state(self) -> RenewalState:
        """Where it stands."""
        with self._lock:
            return RenewalState(
                age_ms=int((self._elapsed_s() - self._in_use_s) * 1000),
                max_age_ms=int(self._max_age_s * 1000),
                renewals=self._renewals,
                failures=self._failures,
                last_error=self._last_error,
            )

    def turn(self) -> float:
        """Make a session if it is time; return the seconds until it is time again. Raises nothing."""
        with self._lock:
            wait_s, beacon = self._plan()
            if wait_s > 0:
                return wait_s
            named, created_at_ms = self._place.next(beacon, self._wall_ms())
            begun_s = self._elapsed_s()
        try:
            session = self._make(named, created_at_ms)
            if not self._place.before(Place.of(session.binding)):
                raise ValueError("the session names neither the beacon nor the moment it was given")
        except Exception as error:  # whatever it is, the host's windows go on and so do the attempts
            self._failed(error)
        else:
            with self._lock:
                self._made(session, begun_s)
                self._ready = session
        with self._lock:
            return self._plan()[0]

    def close(self) -> None:
        """End the thread, or leave it to its last answer if that takes long. What was made is dropped."""
        self._closed.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def _plan(self) -> tuple[float, Beacon | None]:
        """Seconds until the next session is to be made, 0 if now, and the beacon that waits and may be named now."""
        now, beacon = self._elapsed_s(), self._beacon
        at = self._expires_s
        if beacon is not None:
            early_s = max(0, beacon.issued_at_ms - self._wall_ms()) / 1000
            at = min(at, max(self._asked_s, self._made_s + self._min_interval_s, now + early_s))
            if early_s:
                beacon = None
        return max(0.0, max(at, self._not_before_s) - now), beacon

    def _made(self, session: Session, begun_s: float) -> None:
        self._made_s = begun_s
        self._expires_s = self._made_s + self._lasts_s * (EARLIEST + (LATEST - EARLIEST) * self._random())
        self._place = Place.of(session.binding)
        if self._beacon is not None and self._beacon.issued_at_ms <= self._place.moment_ms:
            self._beacon = None
        self._in_a_row, self._last_error, self._not_before_s = 0, None, 0.0

    def _failed(self, error: Exception) -> None:
        with self._lock:
            self._failures += 1
            self._in_a_row += 1
            self._last_error = getattr(error, "code", "RENEWAL_FAILED")
            wait_s = self._pause(self._in_a_row)
            self._not_before_s = self._elapsed_s() + wait_s
        known = hasattr(error, "code")
        log.warning(
            "evidence not renewed, next attempt in %.1f s: %s: %s",
            wait_s,
            self._last_error,
            error,
            exc_info=None if known else error,
        )

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(min(self.turn(), LOOK_S))
            self._wake.clear()
