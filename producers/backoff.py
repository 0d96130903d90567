"""How a publisher comes back after an outage: when it tries again, and how fast its backlog leaves.

Ten thousand hosts lose their brokers in the same second and find them again in the same second. So:

- After a failed delivery a host waits at random between 0 and 1, 2, 4 … 30 s ("full jitter") and then tries with one
  report. While the brokers are away that is all it does.
- Each acknowledgement lets one more report be in flight: 1, 2, 4 … up to the publisher's limit.
- A backlog is played back CATCH_UP times as fast as it was made, in order. At 60-s windows a host sends one report in
  6 s, 10,000 hosts 1,670 a second (about 18 MB/s): ten times the steady load, whatever the length of the outage. An
  hour is made good in 7 minutes, a day in 2 h 40 min. That is also what the lateness that workers allow (10 minutes of
  event time) can bear: hosts that begin up to 40 s apart (30 s here, 10 s between librdkafka's reconnects) are
  at most 10 * 40 = 400 s of event time apart.

No measured value takes part in any of this.
"""

from __future__ import annotations

from collections.abc import Callable

from tenacity import RetryCallState, Retrying, wait_random_exponential

FIRST_S = 1.0
LONGEST_S = 30.0
CATCH_UP = 10.0
LONGEST_GAP_MS = 60_000
"""A pause between two reports (machine off, clock set) counts as this much at most: nothing was made in it."""
SLACK_S = 1.0
"""How late the sender may be and still make up for it: it looks only several times a second."""

_FULL_JITTER = wait_random_exponential(multiplier=FIRST_S, max=LONGEST_S)


def full_jitter(attempt: int) -> float:
    """Seconds to wait after the `attempt`-th failure in a row (from 1): anything up to 1, 2, 4 … LONGEST_S."""
    state = RetryCallState(Retrying(), None, (), {})
    state.attempt_number = attempt
    return _FULL_JITTER(state)


class Recovery:
    """The way back after a failure, or after a start with a backlog. `now` is a monotonic clock in seconds.

    While `active`, fewer than `max_in_flight` reports may be in flight and they leave at a measured pace.
    """

    def __init__(self, max_in_flight: int, now: Callable[[], float], *, active: bool) -> None:
        self._max_in_flight = max_in_flight
        self._now = now
        self._attempt = 0
        self._limit = 1
        self._not_before = 0.0
        self.active = active
        self.restart()

    def restart(self) -> None:
        """Begin again with the oldest report."""
        self._due: float | None = None
        self._last_ms = 0

    def failed(self) -> None:
        """A delivery failed: wait, then begin small."""
        if self._now() >= self._not_before:  # several failures of one try are one failure
            self._attempt += 1
            self._not_before = self._now() + full_jitter(self._attempt)
        self._limit = 1
        self.active = True

    def acknowledged(self) -> None:
        """A report arrived: one more may be in flight."""
        self._attempt = 0
        self._limit = min(self._limit + 1, self._max_in_flight)

    @property
    def failing(self) -> bool:
        """Whether nothing arrived since a delivery failed."""
        return self._attempt > 0

    def caught_up(self) -> None:
        """Nothing waits any more."""
        self.active = False

    def waits(self) -> bool:
        """Whether it is too early to try again."""
        return self._now() < self._not_before

    def room(self, in_flight: int) -> int:
        """How many more may be in flight."""
        return (self._limit if self.active else self._max_in_flight) - in_flight

    def may_send(self, appended_ms: int) -> bool:
        """Whether a report that was made at `appended_ms` (UTC ms) may leave now; if so, it is taken as sent."""
        if not self.active:
            return True
        now = self._now()
        if self._due is not None:
            gap_ms = min(max(appended_ms - self._last_ms, 0), LONGEST_GAP_MS)
            due = max(self._due + gap_ms / 1000 / CATCH_UP, now - SLACK_S)
            if due > now:
                return False
            self._due = due
        else:
            self._due = now
        self._last_ms = appended_ms
        return True
