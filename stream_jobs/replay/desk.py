"""Where verdicts and findings of one partition go, and what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from schemas.codec import SINGLE_OBJECT, Framing
from schemas.topics import TopicNames
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.replay.verdicts import Finding, PartitionResult, Severity, WindowVerdict

MAX_HELD = 10_000
"""Verdicts and findings held while it is open whether a replay began early enough."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayRequest:
    """What is replayed: windows that start in [`from_ms`, `to_ms`), UTC milliseconds, of `domain` or of all.

    `as_of_ms`: judge evidence, policies and collateral at this time in addition. `clock_slack_ms`: how far an append
    time may lie before an earlier one, where another broker took over. `sessions`: gather facts of every session met,
    which verifies its evidence once more.
    """

    topics: TopicNames
    trust: PolicyTrust
    from_ms: int
    to_ms: int
    domain: str | None = None
    framing: Framing = SINGLE_OBJECT
    as_of_ms: int | None = None
    clock_slack_ms: int = 5_000
    sessions: bool = False

    def wants(self, domain: str, window_start_ms: int) -> bool:
        """Whether an output of this window is asked for."""
        return self.from_ms <= window_start_ms < self.to_ms and self.domain in (None, domain)


class Desk:
    """Counts what is said, and hands it on once it is certain that the replay began early enough.

    With `only`, for a second look at some domains: nothing is said that is not about one of them.
    """

    def __init__(
        self,
        result: PartitionResult,
        on_verdict: Callable[[WindowVerdict], None],
        on_finding: Callable[[Finding], None],
        only: Collection[str] | None = None,
    ):
        self.result = result
        self._on_verdict, self._on_finding, self._only = on_verdict, on_finding, only
        self._held: list[WindowVerdict | Finding] | None = []

    def verdict(self, verdict: WindowVerdict) -> None:
        """Say what became of one output."""
        self._say(verdict)

    def finding(
        self,
        code: str,
        record: LogRecord,
        message: str,
        *,
        severity: Severity = Severity.ALARM,
        domain: str | None = None,
        window_start_ms: int | None = None,
    ) -> None:
        """Say something about a record."""
        self._say(
            Finding(
                code=code,
                severity=severity,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                message=message,
                domain=domain,
                window_start_ms=window_start_ms,
            )
        )

    def release(self) -> None:
        """Hand on what was held."""
        held, self._held = self._held, None
        for one in held or ():
            self._pass_on(one)

    def _say(self, one: WindowVerdict | Finding) -> None:
        if self._only is not None and one.domain not in self._only:
            return
        if self._held is None or len(self._held) >= MAX_HELD:
            self.release()
            self._pass_on(one)
        else:
            self._held.append(one)

    def _pass_on(self, one: WindowVerdict | Finding) -> None:
        if isinstance(one, WindowVerdict):
            self.result.verdicts[one.verdict.value] += 1
            self._on_verdict(one)
            return
        if one.severity is Severity.ALARM:
            self.result.alarms += 1
        else:
            self.result.notices += 1
        self._on_finding(one)
