"""What the reports of one window are held against: found once, and the same for all until anything changes."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.records import DomainRule, WindowReport
from stream_jobs.core.checks import check_window
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.refusals import Refused
from stream_jobs.core.windows import DomainState
from stream_jobs.log_record import LogRecord
from verifier.policy.subjects import Subject

MAX_TERMS = 8
"""Windows of a partition whose terms are kept at a time: reports of few windows come mixed."""


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """Of reports of one window in one domain, found in order but for what is in them.

    `skew_ms`: how far a window may end after its record's append time. `denied`: what is revoked. `basis`: names what
    verdicts on evidence rest on beside evidence and time. `closed_ms`: end of the newest window that takes no more
    reports; `freshness_ms`: how long evidence counts.
    """

    state: DomainState
    key: bytes | None
    end_ms: int
    view: PolicyView
    rule: DomainRule
    skew_ms: int
    denied: frozenset[Subject]
    basis: bytes
    closed_ms: int
    freshness_ms: int


class TermsOf:
    """Terms by domain and window, until the state behind them changes: a control record, or a watermark that moves."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._known: dict[tuple[str, int], Terms] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._known = {}

    def of(self, state: DomainState | None, body: WindowReport, record: LogRecord) -> Terms:
        """Terms of a report. Raises Refused: its window is closed or not in order, its domain is not the record's."""
        known = self._known.get((body.domain, body.window_start_ms))
        if known is None or known.key != record.key or known.end_ms != body.window_end_ms:
            return self._found(state, body, record)
        if body.window_end_ms > record.timestamp_ms + known.skew_ms:
            check_window(body, known.rule, record.timestamp_ms, known.skew_ms)
        return known

    def _found(self, state: DomainState | None, body: WindowReport, record: LogRecord) -> Terms:
        if state is not None and state.closed_for_good(body.window_end_ms):
            # Before the policy is asked for: superseded policies are forgotten together with their windows.
            raise Refused("LATE", f"window {body.window_start_ms} ms is closed for good")
        view = state.view_for(body.window_start_ms) if state else None
        if state is None or view is None:
            raise Refused("NO_POLICY", "no policy is in force for this window")
        rule = placed(record, body.domain, view, self._partition)
        skew_ms = view.policy.limits.clock_skew_tolerance_ms
        check_window(body, rule, record.timestamp_ms, skew_ms)
        if body.window_end_ms > view.policy.not_after_ms:
            raise Refused("POLICY_EXPIRED", "the window ends after the policy's not_after")
        if len(self._known) >= MAX_TERMS:
            self.clear()
        terms = self._known[body.domain, body.window_start_ms] = Terms(
            state=state,
            key=record.key,
            end_ms=body.window_end_ms,
            view=view,
            rule=rule,
            skew_ms=skew_ms,
            denied=state.denied(view),
            basis=state.basis(view),
            closed_ms=state.closed_ms,
            freshness_ms=state.freshness_ms(view),
        )
        return terms


def placed(record: LogRecord, domain: str, view: PolicyView, partition: int) -> DomainRule:
    """The rule of `domain`, if a record of it belongs into `partition` and is keyed by it. Raises Refused."""
    rule = view.domains.get(domain)
    if rule is None:
        raise Refused("DOMAIN_UNKNOWN", "the domain is not in the policy", field="domain")
    if record.key != domain.encode() or rule.partition != partition:
        raise Refused("WRONG_PARTITION", f"partition {partition}, policy says {rule.partition}")
    return rule
