"""From where on a replay that began in the middle of a log decides as one that read all of it.

A core that begins at offset s knows nothing of what lies below. ADR 11 says what it must have read so that, after an
output at position P, it decides as a core that was never away: everything from the last control record before the first
record that mattered to a window which ends above the watermark at P, minus the context. That record cannot be looked up
without reading the log, but it can be bounded: a report's window ends at most `ahead_ms` after its append time, and
append times only grow. So if the first control record of a domain after s, appended at t, has t + ahead <= the end of a
window published at P - context, nothing of what mattered at P lies below s.

P itself must be a position at which the worker published: the replay's own outputs may be wrong before it is exact.
What a domain counts also holds records of no domain. As long as there is a domain of which the replay does not know
enough, such a record may belong to it: the next output of another domain is then not certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.records import ControlRecord
from stream_jobs.core.partition import PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.windows import DomainState
from stream_jobs.log_record import LOG_APPEND_TIME, LogRecord
from stream_jobs.replay.trusted import Reach, TrustedPolicies


@dataclass(slots=True)
class _Begin:
    """Where the core began with a domain. `settled`: a later control record says the same policy is in force."""

    state: DomainState
    append_ms: int
    log_time: bool
    counter: int
    settled: bool = False


@dataclass(slots=True)
class Exactness:
    """Which domains are decided exactly. `whole`: the log is read from its very beginning, so that all are."""

    policies: TrustedPolicies
    partition: int
    whole: bool
    clock_slack_ms: int
    _begins: dict[str, _Begin] = field(default_factory=dict)
    _exact: set[str] = field(default_factory=set)
    _uncertain: bool = False

    def is_exact(self, domain: str) -> bool:
        """Whether decisions about the domain's records are exact from here on."""
        return self.whole or domain in self._exact

    def counts_exactly(self, domain: str) -> bool:
        """Whether the domain's next output is exact, with all it counts."""
        return self.whole or (domain in self._exact and not self._uncertain)

    def control(self, core: PartitionCore, record: LogRecord, body: ControlRecord) -> None:
        """The core accepted a control record."""
        state = core.domains[body.domain]
        view = state.active
        known = self._begins.get(body.domain)
        if known is None or known.state is not state:
            log_time = record.timestamp_type == LOG_APPEND_TIME
            known = self._begins[body.domain] = _Begin(state, record.timestamp_ms, log_time, view.policy.counter)
            self._exact.discard(body.domain)
        elif body.effective_from_ms is not None:
            known.settled = True

    def stray(self) -> None:
        """A record was counted for no domain."""
        if not self.whole and not self._exact >= self.policies.domains_of(self.partition):
            self._uncertain = True

    def published(self, domain: str, state: DomainState, ends: dict[str, int] | None) -> None:
        """The core published for a domain. `ends`: what the worker published at this position: domain -> window end."""
        if self.whole or (ends is not None and domain not in ends) or ends is None:
            return
        if domain in self._exact:
            self._uncertain = False
            return
        begin, views = self._begins.get(domain), self.policies.of_domain(domain, self.partition)
        if begin is None or begin.state is not state or not views or not begin.log_time:
            return
        reach = Reach.of(domain, views)
        horizon_ms = ends[domain] - reach.context_ms
        if (
            begin.append_ms + reach.ahead_ms + self.clock_slack_ms <= horizon_ms
            and (begin.settled or begin.counter == _highest(views))
            and state.policies[0].effective_ms <= horizon_ms
        ):
            self._exact.add(domain)


def _highest(views: list[PolicyView]) -> int:
    return max(view.policy.counter for view in views)
