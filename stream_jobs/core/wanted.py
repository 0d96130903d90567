"""What a live worker at the end of the log should write: the control records that its domains need now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from schemas.records import ControlSubject, DomainRule
from stream_jobs.core.effects import ControlWanted
from stream_jobs.core.policies import CORE_VERSION, PolicyView
from stream_jobs.core.standing import CollateralOffer, beacon_subjects, is_newer, repeated
from stream_jobs.core.windows import MAX_BEACONS, DomainState, PolicyStart

MAX_SUBJECTS_NAMED = 256
"""Subjects that a REVOCATION names; all of its policy's come into force."""


def wanted_controls(
    domains: Mapping[str, DomainState],
    partition: int,
    current: PolicyView,
    *,
    now_ms: int,
    idle_since_ms: Mapping[str, int],
    collateral: CollateralOffer | None,
    beacons: Mapping[bytes, int],
) -> list[ControlWanted]:
    """Control records that should be written now, at most one per domain, and beacons.

    `domains`: states by name; `current`: the newest trusted policy; `now_ms`: wall clock; `idle_since_ms`: wall clock
    of the last record per domain; `collateral`: the newest set; `beacons`: those of this worker, time of issue (ms) by
    nonce. Several workers may write the same: the first in the log counts.
    """
    if now_ms > current.policy.not_after_ms or current.policy.core_version != CORE_VERSION:
        return []  # whatever rests on it would be refused
    rules = {rule.domain: rule for rule in current.policy.domains if rule.partition == partition}
    result = []
    for domain, rule in rules.items():
        state = domains.get(domain)
        wanted = _wanted(state, domain, rule, current, now_ms, idle_since_ms.get(domain, now_ms), collateral)
        if wanted is not None:
            result.append(_with_standing(wanted, state, collateral))
        if state is not None and (missing := _unknown(state, beacons)):
            result.append(beacon_control(domain, state.active.digest, missing))
    for domain, state in domains.items():
        if domain not in rules and now_ms <= state.active.policy.not_after_ms:
            # No longer here by the newest policy: closed under its own, so that a restart need not read it.
            rule = state.active.domains[domain]
            if idle_close := _idle_close(state, rule, now_ms, idle_since_ms.get(domain, now_ms)):
                result.append(_with_standing(idle_close, state, collateral))
    return result


def _wanted(
    state: DomainState | None,
    domain: str,
    rule: DomainRule,
    current: PolicyView,
    now_ms: int,
    idle_since_ms: int,
    collateral: CollateralOffer | None,
) -> ControlWanted | None:
    if state is None or (
        state.active.digest != current.digest and state.active.policy.counter < current.policy.counter
    ):
        return _switch_to(current, domain, None, None, "newest policy")
    newest = state.policies[-1]
    if newest.view.revoked and not newest.revokes and len(state.policies) > 1:
        return _revocation(newest, domain)
    if idle_close := _idle_close(state, rule, now_ms, idle_since_ms):
        return idle_close
    start = state.policies[-1].effective_ms
    if collateral is not None and is_newer(state, collateral):
        return ControlWanted(
            kind="COLLATERAL_SWITCH",
            domain=domain,
            policy_digest=state.active.digest,
            content_digest=collateral.view.digest,
            effective_from_ms=start,
            closed_through_ms=None,
            reason="newest collateral",
        )
    if state.watermark_ms - state.control_watermark_ms < state.freshness_ms(state.active) or start > state.watermark_ms:
        return None
    closed = state.watermark_ms if state.watermark_ms >= 0 else None
    return _switch_to(state.active, domain, start, closed, "so that a restart begins here")


def _revocation(newest: PolicyStart, domain: str) -> ControlWanted:
    """What the newest policy revokes is denied in windows under older ones, too. `subjects` names some for readers."""
    named = sorted(newest.view.revoked)[:MAX_SUBJECTS_NAMED]
    return ControlWanted(
        kind="REVOCATION",
        domain=domain,
        policy_digest=newest.view.digest,
        content_digest=newest.view.digest,
        effective_from_ms=newest.effective_ms,
        closed_through_ms=None,
        reason="the newest policy revokes",
        subjects=tuple(ControlSubject(kind=kind, id=one, at_ms_absent_reason="revoked") for kind, one in named),
    )


def _unknown(state: DomainState, beacons: Mapping[bytes, int]) -> dict[bytes, int]:
    """Beacons that a domain has not heard of, and would keep."""
    oldest = min(state.beacons.values()) if len(state.beacons) >= MAX_BEACONS else -1
    return {nonce: at_ms for nonce, at_ms in beacons.items() if nonce not in state.beacons and at_ms > oldest}


def beacon_control(domain: str, policy_digest: bytes, beacons: Mapping[bytes, int]) -> ControlWanted:
    """The control record by which a domain learns of beacons."""
    return ControlWanted(
        kind="BEACON",
        domain=domain,
        policy_digest=policy_digest,
        content_digest=None,
        effective_from_ms=None,
        closed_through_ms=None,
        reason="a fresh value for evidence to name",
        subjects=beacon_subjects(beacons),
    )


def _with_standing(
    wanted: ControlWanted, state: DomainState | None, collateral: CollateralOffer | None
) -> ControlWanted:
    digest, subjects = repeated(state, collateral)
    return replace(wanted, collateral_digest=digest, subjects=(*wanted.subjects, *subjects))


def _switch_to(
    view: PolicyView, domain: str, effective_ms: int | None, closed_ms: int | None, reason: str
) -> ControlWanted:
    return ControlWanted(
        kind="POLICY_SWITCH",
        domain=domain,
        policy_digest=view.digest,
        content_digest=view.digest,
        effective_from_ms=effective_ms,
        closed_through_ms=closed_ms,
        reason=reason,
    )


def _idle_close(state: DomainState, rule: DomainRule, now_ms: int, since_ms: int) -> ControlWanted | None:
    """Close a domain whose hosts are silent, all of them or so many that the watermark stands still.

    All: everything that was reported, and in real time also what was not. A majority: what the others reported so
    long ago, in event time, that the silent ones would be too late for it as well.
    """
    limits = state.active.policy.limits
    if now_ms - since_ms >= limits.max_idle_ms:
        through = max(state.highest_end_ms, (now_ms - limits.max_idle_ms) // rule.window_ms * rule.window_ms)
        reason = f"no record for {(now_ms - since_ms) // 1000} s"
    else:
        # The newest end may be as far ahead of the truth as one host's clock may be.
        behind_ms = rule.grace_ms + max(limits.max_idle_ms, limits.lateness_ms) + limits.clock_skew_tolerance_ms
        through = (state.highest_end_ms - behind_ms) // rule.window_ms * rule.window_ms
        reason = "most hosts are silent"
        if through <= state.watermark_ms:
            return None
    if through <= state.final_ms:
        return None
    return ControlWanted(
        kind="IDLE_CLOSE",
        domain=state.name,
        policy_digest=state.active.digest,
        content_digest=None,
        effective_from_ms=state.policies[-1].effective_ms,
        closed_through_ms=through,
        reason=reason,
    )
