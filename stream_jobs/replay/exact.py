"""From where on a replay that began in the middle of a log decides as one that read all of it.

A core that begins at offset s knows nothing of what lies below. ADR 11 says what it must have read so that, after an
output at position P, it decides as a core that was never away: everything from the last control record before the first
record that mattered to a window which ends above the watermark at P, minus the context. That record cannot be looked up
without reading the log, but it can be bounded: a report's window ends at most `ahead_ms` after its append time, and
append times only grow. So if the first control record of a domain after s, appended at t, has t + ahead <= the end of a
window published at P - context, nothing of what mattered at P lies below s.

What is in force beside the policy is repeated by control records, by those of a lagging worker not in full. So a begin
counts only from where nothing is learnt later that was in force before, and the outputs name the same collateral.

P itself must be a position at which the worker published: the replay's own outputs may be wrong before it is exact.
What a domain counts also holds records of no domain. As long as there is a domain of which the replay does not know
enough, such a record may belong to it: the next output of another domain is then not certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from schemas.records import ControlRecord
from stream_jobs.core.partition import PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.windows import DomainState
from stream_jobs.log_record import LOG_APPEND_TIME, LogRecord
from stream_jobs.replay.trusted import Reach, TrustedPolicies

NEWS = frozenset({"COLLATERAL_SWITCH", "REVOCATION", "BEACON"})
"""Kinds of control records that bring something into force; the others repeat what is."""


@dataclass(frozen=True, slots=True)
class Close:
    """What was published for a domain at one position: the earliest end of its windows (ms), the collateral named."""

    end_ms: int
    collateral_digest: bytes | None


@dataclass(slots=True)
class _Begin:
    """Where the core began to know what is in force in a domain. `settled`: a later control record says that the same
    policy is in force; `confirmed`: an output says that the same collateral is."""

    state: DomainState
    append_ms: int
    log_time: bool
    counter: int
    standing: object
    settled: bool = False
    confirmed: bool = False


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
        known = self._begins.get(body.domain)
        if known is None or known.state is not state:
            log_time = record.timestamp_type == LOG_APPEND_TIME
            counter = state.active.policy.counter
            self._begins[body.domain] = _Begin(state, record.timestamp_ms, log_time, counter, _standing(state))
            self._exact.discard(body.domain)
            return
        standing = _standing(state)
        if standing != known.standing and (not known.confirmed or body.kind not in NEWS):
            # What is in force since before the replay began, and what it began at did not say.
            known.append_ms, known.confirmed = record.timestamp_ms, False
        known.standing = standing
        known.settled = known.settled or body.effective_from_ms is not None

    def stray(self) -> None:
        """A record was counted for no domain."""
        if not self.whole and not self._exact >= self.policies.domains_of(self.partition):
            self._uncertain = True

    def published(self, record: LogRecord, state: DomainState, closes: Mapping[str, Close] | None) -> None:
        """The core published for a domain. `closes`: what workers published at this position, by domain."""
        close = None if closes is None else closes.get(state.name)
        if self.whole or close is None:
            return
        if state.name in self._exact:
            self._uncertain = False
            return
        begin, views = self._begins.get(state.name), self.policies.of_domain(state.name, self.partition)
        if begin is None or begin.state is not state or not views or not begin.log_time:
            return
        in_force = None if state.collateral is None else state.collateral.view.digest
        if close.collateral_digest != in_force:
            begin.append_ms, begin.confirmed = record.timestamp_ms, False
            return
        begin.confirmed = True
        reach = Reach.of(state.name, views)
        horizon_ms = close.end_ms - reach.context_ms
        if (
            begin.append_ms + reach.ahead_ms + self.clock_slack_ms <= horizon_ms
            and (begin.settled or begin.counter == _highest(views))
            and state.policies[0].effective_ms <= horizon_ms
        ):
            self._exact.add(state.name)
            self._uncertain = False


def _standing(state: DomainState) -> object:
    """What is in force beside the policy: collateral, beacons, revocations."""
    collateral = None if state.collateral is None else (state.collateral.since_ms, state.collateral.view.digest)
    revoking = [start.view.digest for start in state.policies if start.revokes]
    return collateral, tuple(sorted(state.beacons.items())), tuple(sorted(revoking))


def _highest(views: list[PolicyView]) -> int:
    return max(view.policy.counter for view in views)
