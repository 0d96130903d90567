"""Control records: decisions of aggregators that stand in the domain's own partition."""

from __future__ import annotations

import math

from schemas.codec import DecodedRecord, session_id_of
from schemas.records import ControlRecord
from stream_jobs.core.aggregate import remove_revoked
from stream_jobs.core.policies import CORE_VERSION, CollateralView, PolicyLookup, PolicyView
from stream_jobs.core.refusals import Refused
from stream_jobs.core.sessions import SessionVerifier, check_not_revoked, verify_evidence
from stream_jobs.core.standing import Standing, adopt, beacons_of
from stream_jobs.core.windows import ControlMark, DomainState, PolicyStart
from verifier.errors import EvidenceMissing
from verifier.policy.subjects import KINDS as REVOCABLE
from verifier.policy.subjects import subject
from verifier.signature import load_session_key, verify_record_signature

KINDS = ("POLICY_SWITCH", "COLLATERAL_SWITCH", "REVOCATION", "IDLE_CLOSE")
"""What this release acts on."""


def policy_named(body: ControlRecord, policies: PolicyLookup) -> PolicyView:
    """The trusted policy a control record rests on. Raises Refused."""
    if body.kind not in KINDS:
        raise Refused("CONTROL_UNSUPPORTED", f"control record of kind {body.kind[:40]}", field="kind")
    digest = body.content_digest if body.kind == "POLICY_SWITCH" else body.policy_digest
    missing = {"IDLE_CLOSE": body.closed_through_ms, "REVOCATION": body.content_digest}
    if digest is None or (body.kind in missing and missing[body.kind] is None):
        raise Refused("CONTROL_INVALID", f"{body.kind} without its content")
    if body.kind == "REVOCATION" and body.content_digest != digest:
        raise Refused("CONTROL_INVALID", "a revocation by another policy than the one in force", field="content_digest")
    view = policies(digest)
    if view is None:
        raise Refused("POLICY_UNTRUSTED", f"no trusted policy has digest {digest.hex()}", field="content_digest")
    if view.policy.core_version != CORE_VERSION:
        raise Refused("CORE_VERSION", f"policy wants core {view.policy.core_version}, this is {CORE_VERSION}")
    return view


def check_signed(decoded: DecodedRecord, body: ControlRecord, view: PolicyView, append_ms: int) -> None:
    """The key that its evidence binds signed the record, and just now. Raises our errors.

    Every control record carries its evidence: they are rare, and a restart may begin at any of them.
    """
    if abs(append_ms - body.issued_at_ms) > view.policy.limits.max_control_age_ms:
        raise Refused("CONTROL_STALE", f"issued {append_ms - body.issued_at_ms} ms before it was appended")
    if decoded.evidence is None or decoded.binding_bytes is None:
        raise EvidenceMissing("a control record carries its author's evidence")
    if session_id_of(decoded.binding_bytes) != body.session_id:
        raise Refused("SESSION_MISMATCH", "the evidence binds another session")
    if decoded.evidence.binding.host_id != body.host_id:
        raise Refused("BINDING_MISMATCH", "host_id differs from the session binding", field="host_id")
    key = load_session_key(decoded.evidence.binding.session_public_key)
    verify_record_signature(key, decoded.preimage, decoded.signature, digest=decoded.digest)


def check_author(
    verify: SessionVerifier,
    decoded: DecodedRecord,
    body: ControlRecord,
    view: PolicyView,
    append_ms: int,
    collateral: CollateralView | None = None,
) -> None:
    """The author is an attested aggregator under policy and collateral named, and wrote this just now.

    Raises our errors.
    """
    check_signed(decoded, body, view, append_ms)
    if decoded.evidence is None or decoded.binding_bytes is None:
        raise EvidenceMissing("a control record carries its author's evidence")
    author = verify_evidence(
        verify,
        decoded.evidence,
        decoded.binding_bytes,
        session_id=body.session_id,
        view=view,
        role="aggregator",
        now_ms=append_ms,
        collateral=collateral,
    )
    check_not_revoked(author.subjects, view.revoked)


def apply_beacon(
    verify: SessionVerifier, state: DomainState | None, decoded: DecodedRecord, body: ControlRecord, append_ms: int
) -> None:
    """Learn of a beacon, of whatever aggregator the policy in force enrols; nothing else rests on the record.

    One aggregator issues for all domains, also for those that it knows nothing of. Raises our errors.
    """
    if state is None:
        raise Refused("NO_POLICY", "no policy is in force in this domain")
    check_author(verify, decoded, body, state.active, append_ms, state.collateral_view)
    state.note_beacons(beacons_of(body, append_ms + state.active.policy.limits.max_control_age_ms))


def apply_control(
    state: DomainState, body: ControlRecord, view: PolicyView, named: Standing, *, offset: int, append_ms: int
) -> bool:
    """Apply a checked control record to its domain; True if it closes the domain for idleness.

    A policy applies from the first window after its control record that starts at or after its effective_from. A
    record that says from which window its policy is in force repeats what an earlier one decided, perhaps one that a
    restart did not read.
    """
    if append_ms > view.policy.not_after_ms:
        raise Refused("POLICY_EXPIRED", "the policy is past its not_after")
    if (body.closed_through_ms or 0) > append_ms + view.policy.limits.clock_skew_tolerance_ms:
        raise Refused("CONTROL_INVALID", "closes windows that lie in the future", field="closed_through_ms")
    if not state.policies:
        start = max(view.policy.effective_from_ms, body.effective_from_ms or 0)
        state.policies.append(PolicyStart(start, view))
    elif state.active.digest != view.digest:
        _switch(state, body, view)
    if body.kind == "REVOCATION":
        _revoke(state, body)
    mark = ControlMark(offset, state.effective_from(view.digest), None, adopt(state, named))
    state.controls.append(mark)
    raised = False
    if body.closed_through_ms is not None:
        moved = raised = state.raise_watermark(body.closed_through_ms)
        if body.kind == "IDLE_CLOSE" and body.closed_through_ms > state.final_ms:
            state.final_ms, moved = body.closed_through_ms, True
        mark.closed_ms = body.closed_through_ms if moved else None
    if mark.complete:
        state.control_watermark_ms = state.watermark_ms
    # A copy of an earlier close, or a second worker's, moves nothing and must not restart what is counted.
    return body.kind == "IDLE_CLOSE" and raised


def _revoke(state: DomainState, body: ControlRecord) -> None:
    """From here on what the policy in force revokes is denied in windows under older policies, too.

    Those that may still be revised lose the reports that rest on it. It needs no repeating: who begins to read behind
    it knows no older policy, or meets it again.
    """
    start = state.policies[-1]
    named = {subject(one.kind, one.id) for one in body.subjects if one.kind in REVOCABLE}
    if not start.view.revoked or not named <= start.view.revoked:
        raise Refused("CONTROL_INVALID", "revokes what its policy does not", field="subjects")
    start.revokes = True
    for window in list(state.windows.values()):
        removed = remove_revoked(window, state.denied(window.view))
        if removed and window.revision < 0 and not len(window.entries):
            del state.windows[window.start_ms]


def begins_between(state: DomainState, body: ControlRecord, view: PolicyView) -> bool:
    """True if `state` was begun too early: the record repeats the start of a policy that the state has not met.

    A restart reads a partition from where its neediest domain needs it. Of another domain it may meet records from
    before that domain's own resume offset, where their context is missing, and must not build on them.
    """
    return body.effective_from_ms is not None and view.policy.counter > state.active.policy.counter


def _switch(state: DomainState, body: ControlRecord, view: PolicyView) -> None:
    if body.kind != "POLICY_SWITCH":
        # Written under a policy that a switch has replaced since: the record's window close still counts only under
        # the policy in force, so the author must look again.
        raise Refused("POLICY_ROLLBACK", "the record rests on a policy that is no longer the newest")
    if view.policy.counter <= state.active.policy.counter:
        raise Refused("POLICY_ROLLBACK", f"counter {view.policy.counter}, in force {state.active.policy.counter}")
    start = max(
        view.policy.effective_from_ms, state.highest_end_ms, state.watermark_ms, state.policies[-1].effective_ms + 1
    )
    # Aligned to the windows of both, so that no window of the one overlaps one of the other.
    width = math.lcm(view.domains[state.name].window_ms, state.active.domains[state.name].window_ms)
    state.policies.append(PolicyStart(-(-start // width) * width, view))
