"""Rules on a platform's TCB: status, grace, advisories, evaluation set (ATTESTATION.md §5 to §7).

Grace forgives that a platform is behind, for a number of days from the day the first of its parts was superseded: the
tcbDate of the oldest level newer than the part's own. It forgives nothing else: not collateral that has expired, not a
revoked TCB, not a configuration that the policy does not accept, no part that nobody can date, and no other part of a
status that the policy does not accept, which convergence hides behind OutOfDate. While it lasts, the advisories of the
part that is behind are forgiven with it, since they are what the update brings.

So a verdict may turn on a day: `grace_ends_ms` says on which, and caches must not carry an answer across it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from verifier.claims import Claims
from verifier.errors import (
    AdvisoryRefused,
    PolicyEmpty,
    TcbEvaluationTooOld,
    TcbRevoked,
    TcbStatusRefused,
    TcbUnevaluated,
)
from verifier.policy.base import AllOf, Rule
from verifier.tcb.status import PartStatus, TcbReport, TcbState, TcbStatus

DAY_MS = 86_400_000
_OR_ACCEPT = "or have the policy accept this status."
_CONFIGURE = f"Configure the platform (BIOS, hyper-threading) as its advisories say, {_OR_ACCEPT}"
_REMEDIES: dict[str, str] = {
    TcbStatus.SW_HARDENING_NEEDED: f"Harden the code in the TEE as the advisories say, {_OR_ACCEPT}",
    TcbStatus.CONFIGURATION_NEEDED: _CONFIGURE,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED: _CONFIGURE,
    TcbStatus.TD_RELAUNCH_ADVISED: f"Launch the TD again: its TDX module was updated under it, {_OR_ACCEPT}",
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED: (
        f"Launch the TD again: its TDX module was updated under it; configure the platform, {_OR_ACCEPT}"
    ),
}
"""What helps against a status; for the others the error's own remedy, an update, is right."""

ANY_ADVISORY = "*"
"""In a list of advisories: all of them."""

CONFIGURABLE = frozenset({TcbStatus.CONFIGURATION_NEEDED, TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED})
_BEHIND = frozenset({TcbStatus.OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})
_FORGIVABLE = _BEHIND | {TcbStatus.TD_RELAUNCH_ADVISED, TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED}
_TO_CONFIGURE = frozenset({
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
    TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED,
})  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbRequirement:
    """What a platform's TCB must be.

    `accepted_statuses` None: any but Revoked, which no requirement accepts, at launch or now; empty: `PolicyEmpty`.
    `allowed_advisories` None, or with "*" in it: any. Advisories of parts that are UpToDate are reported and never
    judged: the vendor says that they need nothing. `judge_current` accepts the module that runs now only as it accepts
    the launch's.
    """

    accepted_statuses: tuple[str, ...] | None
    grace_days: int = 0
    allowed_advisories: tuple[str, ...] | None = None
    min_evaluation_number: int = 0
    judge_current: bool = False

    def rules(self) -> AllOf[Claims]:
        """The rules it stands for, in order."""
        judged: list[Rule[Claims]] = [NotRevoked(), EvaluationAtLeast(self.min_evaluation_number)]
        if self.accepted_statuses is not None:
            judged.append(StatusAccepted(self))
        if self.allowed_advisories is not None:
            judged.append(AdvisoriesAllowed(self))
        return AllOf(judged, "tcb")


@dataclass(frozen=True, slots=True)
class NotRevoked:
    """The TCB is revoked neither as reported nor as it runs now, which the status reported may hide."""

    def check(self, claims: Claims) -> None:
        """`TcbRevoked`, `TcbUnevaluated`."""
        tcb = evaluated(claims)
        for field, status in (("tcb_status", tcb.status), ("tcb.current.status", tcb.current.status)):
            if status is TcbStatus.REVOKED:
                raise TcbRevoked("the vendor has revoked this TCB", field=field)


@dataclass(frozen=True, slots=True)
class EvaluationAtLeast:
    """TCB info and quoting enclave's identity are both of this TCB evaluation data set or a later one."""

    number: int

    def check(self, claims: Claims) -> None:
        """`TcbEvaluationTooOld`, `TcbUnevaluated`."""
        tcb = evaluated(claims)
        held = (("tcb_info", tcb.tcb_evaluation_number), ("qe_identity", tcb.qe_evaluation_number))
        for field, number in held:
            if number < self.number:
                raise TcbEvaluationTooOld(f"TCB evaluation {number}, at least {self.number} is demanded", field=field)


@dataclass(frozen=True, slots=True)
class StatusAccepted:
    """Every judged status is accepted, or forgiven for the time of grace. An empty list: `PolicyEmpty`."""

    requirement: TcbRequirement

    def check(self, claims: Claims) -> None:
        """`TcbStatusRefused`, `TcbUnevaluated`."""
        accepted = self.requirement.accepted_statuses
        if not accepted:
            raise PolicyEmpty("no TCB status is accepted", field="tcb.accepted_statuses")
        tcb = evaluated(claims)
        for field, state, status in _judged(tcb, self.requirement):
            if status in accepted:
                continue
            end = _grace_of(state, status, self.requirement)
            if end is not None and claims.now_ms < end:
                continue
            raise TcbStatusRefused(f"{status}{_since(state, end)}", field=field, remedy=_REMEDIES.get(status))


@dataclass(frozen=True, slots=True)
class AdvisoriesAllowed:
    """Every advisory of a part that is not UpToDate is allowed, or forgiven with the part for the time of grace."""

    requirement: TcbRequirement

    def check(self, claims: Claims) -> None:
        """`AdvisoryRefused`, `TcbUnevaluated`."""
        tcb = evaluated(claims)
        refused: set[str] = set()
        for _, state, _ in _judged(tcb, self.requirement):
            for part in state.parts:
                end = _end_of(part, self.requirement)
                if end is None or claims.now_ms >= end:
                    refused.update(_not_allowed(part, self.requirement))
        if refused:
            raise AdvisoryRefused(f"not allowed: {', '.join(sorted(refused))}", field="tcb.advisory_ids")


def evaluated(claims: Claims) -> TcbReport:
    """The TCB report of a quote. `TcbUnevaluated` where no collateral was evaluated."""
    if claims.quote.tcb is None:
        raise TcbUnevaluated("no collateral was evaluated for this platform", field="tcb")
    return claims.quote.tcb


def grace_ends_ms(tcb: TcbReport | None, requirement: TcbRequirement) -> tuple[int, ...]:
    """The moments (UTC milliseconds) from which grace forgives something no longer; none where nothing needs forgiving.

    Only at these the requirement may begin to answer differently about one and the same quote.
    """
    if tcb is None or requirement.grace_days <= 0:
        return ()
    ends: set[int] = set()
    accepted = requirement.accepted_statuses
    for _, state, status in _judged(tcb, requirement):
        found = [_end_of(part, requirement) for part in state.parts if _not_allowed(part, requirement)]
        if accepted is not None and status not in accepted:
            found.append(_grace_of(state, status, requirement))
        ends.update(end for end in found if end is not None)
    return tuple(sorted(ends))


def _judged(tcb: TcbReport, requirement: TcbRequirement) -> Iterator[tuple[str, TcbState, TcbStatus]]:
    """Field, state and status of what is judged: the launch's as Intel reports it, then the current one."""
    yield "tcb_status", tcb.launch, tcb.status
    if requirement.judge_current and tcb.current is not tcb.launch:
        yield "tcb.current.status", tcb.current, tcb.current.status


def _grace_of(state: TcbState, status: TcbStatus, requirement: TcbRequirement) -> int | None:
    """When grace for a state of this status ends (exclusive); None where there is none."""
    if status not in _FORGIVABLE:
        return None
    accepted = requirement.accepted_statuses or ()
    if status in _TO_CONFIGURE and CONFIGURABLE.isdisjoint(accepted):
        return None
    for part in state.parts:  # what is not behind is judged as it would be alone
        if part.status not in _BEHIND and part.status is not TcbStatus.UP_TO_DATE and part.status not in accepted:
            return None
    ends = [_end_of(part, requirement) for part in state.parts if part.status in _BEHIND]
    dated = [end for end in ends if end is not None]
    return min(dated) if dated and len(dated) == len(ends) else None


def _end_of(part: PartStatus, requirement: TcbRequirement) -> int | None:
    if part.status not in _BEHIND or part.superseded_ms is None or requirement.grace_days <= 0:
        return None
    return part.superseded_ms + requirement.grace_days * DAY_MS


def _not_allowed(part: PartStatus, requirement: TcbRequirement) -> list[str]:
    allowed = requirement.allowed_advisories
    if allowed is None or ANY_ADVISORY in allowed or part.status is TcbStatus.UP_TO_DATE:
        return []
    return [one for one in part.advisory_ids if one not in allowed]


def _since(state: TcbState, end: int | None) -> str:
    """Since when which parts are behind, in words."""
    words = []
    for part in state.parts:
        if part.status is not TcbStatus.UP_TO_DATE:
            since = f" since {_day(part.superseded_ms)}" if part.superseded_ms is not None else ""
            words.append(f"{part.part} {part.status}{since}")
    grace = "" if end is None else f"; grace ended {_day(end)}"
    return f" ({', '.join(words)}{grace})" if words else grace


def _day(moment_ms: int) -> str:
    # Dates in collateral are bounded by its parser; a count of days is the policy's own, and may be any.
    try:
        return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d")
    except (OverflowError, OSError, ValueError):
        return "later than can be said"
