"""Is it alive, and does it do its work? Named checks of agent or worker, with the time of their last success by a
monotonic clock.

Three needs, from hard to soft: `LIVE` (a restart would help: the loop no longer turns), `READY` (the work is not done
as it should) and `SHOWN` (something is wrong that the agent rides out, such as brokers away: the answer says so and
stays good, because neither a restart nor a halted rollout would bring the brokers back).

Details are public: callers give codes and counts, never a reading and never the text of a foreign error.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

State = Literal["ok", "waiting", "stale", "failing"]
"""`waiting`: no success yet, in its time of grace; `stale`: the last one is too long ago; `failing`: said so."""


class Need(Enum):
    """What a check is needed for; one for `LIVE` counts for readiness as well."""

    LIVE = "live"
    READY = "ready"
    SHOWN = "shown"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """One check as it stands. `age_s`: since its last success, None if there was none; `code` where it fails."""

    name: str
    need: Need
    state: State
    code: str | None
    detail: str
    age_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a probe: `good` or not, `degraded` if good with something wrong, and every check behind it."""

    good: bool
    degraded: bool
    checks: tuple[CheckState, ...]

    @property
    def status(self) -> str:
        """One word: ok, degraded or failing."""
        return "failing" if not self.good else "degraded" if self.degraded else "ok"


@dataclass(slots=True)
class _Check:
    need: Need
    within_s: float
    grace_s: float
    since: float
    last_ok: float | None = None
    code: str | None = None
    detail: str = ""


@dataclass(slots=True)
class Health:
    """Checks by name, told by the threads that work and read by the endpoint's. `now`: a monotonic clock, s."""

    now: Callable[[], float] = time.monotonic
    _checks: dict[str, _Check] = field(default_factory=dict, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def expect(self, name: str, need: Need, *, within_s: float, grace_s: float | None = None) -> None:
        """Demand a success of `name` every `within_s`, the first one after `grace_s` (default: the same).

        Expecting a name again changes its terms and keeps what it has told.
        """
        with self._lock:
            check = self._checks.get(name)
            grace = within_s if grace_s is None else grace_s
            if check is None:
                self._checks[name] = _Check(need, within_s, grace, self.now())
            else:
                check.need, check.within_s, check.grace_s = need, within_s, grace

    def forget(self, name: str) -> None:
        """Demand nothing of `name` any more."""
        with self._lock:
            self._checks.pop(name, None)

    def ok(self, name: str, detail: str = "") -> None:
        """`name` works now. Raises KeyError if nothing is expected of it."""
        with self._lock:
            check = self._checks[name]
            check.last_ok, check.code, check.detail = self.now(), None, detail

    def fail(self, name: str, code: str, detail: str = "") -> None:
        """`name` does not work, until `ok` is told. Raises KeyError if nothing is expected of it."""
        with self._lock:
            check = self._checks[name]
            check.code, check.detail = code, detail

    def live(self) -> Answer:
        """Would a restart help? Only what is needed to be alive counts and is shown; waiting is no reason yet."""
        checks = tuple(one for one in self._states() if one.need is Need.LIVE)
        return Answer(good=all(one.state in ("ok", "waiting") for one in checks), degraded=False, checks=checks)

    def ready(self) -> Answer:
        """Does it do its work? False also while a check waits for its first success."""
        checks = self._states()
        good = all(one.state == "ok" for one in checks if one.need is not Need.SHOWN)
        wrong = any(one.state in ("stale", "failing") for one in checks)
        return Answer(good=good, degraded=good and wrong, checks=checks)

    def _states(self) -> tuple[CheckState, ...]:
        with self._lock:
            now = self.now()
            return tuple(_state(name, check, now) for name, check in self._checks.items())


def _state(name: str, check: _Check, now: float) -> CheckState:
    age = None if check.last_ok is None else now - check.last_ok
    state: State = "ok"
    code = check.code
    if code is not None:
        state = "failing"
    elif age is None:
        state = "waiting" if now - check.since <= check.grace_s else "stale"
    elif age > check.within_s:
        state = "stale"
    if state == "stale":
        code = "NO_SUCCESS"
    return CheckState(name=name, need=check.need, state=state, code=code, detail=check.detail, age_s=age)
