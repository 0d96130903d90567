"""Sessions in the log: evidence rides in front of what it proves, so there is no join and no clock."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from schemas.codec import DecodedRecord, report_data_of, session_id_of
from schemas.errors import EnclaveScaleError
from schemas.records import Policy, SessionBinding, SessionEvidence, WindowReport
from schemas.repeats import opened
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.refusals import Refused
from stream_jobs.core.terms import Terms
from stream_jobs.core.windows import ChainHead, DomainState, SessionState, Verified
from verifier.policy.subjects import SESSION_KIND, Subject, subject
from verifier.signature import load_session_key, verify_record_signature
from verifier.trust.store import Collateral

CheckedSignature = tuple[ec.EllipticCurvePublicKey, EnclaveScaleError | None]
"""A key under which a record's signature was checked before the record's turn, and why it does not hold, None if so."""


MAX_VERDICTS = 8
"""Verdicts kept of one session's evidence: windows of a few policies are open at once, under one set of collateral."""


class SessionVerifier(Protocol):
    """Verifies a session's evidence; must depend on its arguments only. Raises `VerificationError`."""

    def __call__(
        self,
        *,
        evidence: SessionEvidence,
        binding_bytes: bytes,
        report_data: bytes,
        session_id: bytes,
        policy: Policy,
        policy_digest: bytes,
        role: str,
        now_ms: int,
        collateral: Collateral | None = None,
    ) -> Verified:
        """Return the verified session."""


def session_order(binding: SessionBinding, session_id: bytes) -> tuple[int, int, bytes]:
    """Sort key of a host's sessions: the beacon's time, else the session's own; of those that name one beacon the
    session's own; ties by session id."""
    moment = binding.beacon.issued_at_ms if binding.beacon else binding.created_at_ms
    return moment, binding.created_at_ms, session_id


def verify_evidence(
    verify: SessionVerifier,
    evidence: SessionEvidence,
    binding_bytes: bytes,
    *,
    session_id: bytes,
    view: PolicyView,
    role: str,
    now_ms: int,
    collateral: CollateralView | None = None,
) -> Verified:
    """Verify evidence as received for `role` under `view` and `collateral` at `now_ms`."""
    return verify(
        evidence=opened(evidence),
        binding_bytes=binding_bytes,
        report_data=report_data_of(binding_bytes),
        session_id=session_id,
        policy=view.policy,
        policy_digest=view.digest,
        role=role,
        now_ms=now_ms,
        collateral=None if collateral is None else collateral.held,
    )


def check_ahead(state: DomainState, decoded: DecodedRecord, body: WindowReport) -> CheckedSignature | None:
    """Check the signature of a record of a window that is not closed for good, before its turn: if its session is
    known and it looks as if it would be asked for.

    A signature rests on nothing but key and bytes: whether the key is the session's is asked when it is used.
    """
    session = state.sessions.get(body.session_id)
    if session is None:
        return None
    window = state.windows.get(body.window_start_ms)
    if window is not None and body.host_id in window.entries:
        return None  # refused for less: a log that is sent twice costs no second check
    try:
        verify_record_signature(session.key, decoded.preimage, decoded.signature, digest=decoded.digest)
    except EnclaveScaleError as error:
        return session.key, error
    return session.key, None


def prove_session(
    verify: SessionVerifier,
    terms: Terms,
    decoded: DecodedRecord,
    body: WindowReport,
    *,
    offset: int,
    append_ms: int,
    checked: CheckedSignature | None = None,
) -> tuple[SessionState, Verified]:
    """Check the signature, then the session behind it; registers or refreshes the session.

    `checked`: what `check_ahead` found for this record; it counts for the key it was asked of.

    The record's time for verification is its window's end, bounded by the broker's append time: a host cannot date
    itself back behind an expired certificate's end, nor forward.
    """
    state, view, freshness, closed_ms = terms.state, terms.view, terms.freshness_ms, terms.closed_ms
    session = state.sessions.get(body.session_id)
    if session is not None and session.evidence_window_ms + freshness <= closed_ms:
        session = None  # out of reach; judged at every record, so that it does not show when one is dropped
    if decoded.evidence is None or decoded.binding_bytes is None:
        if session is None:
            raise Refused("SESSION_UNKNOWN", "no evidence for this session is known")
        host_id, key = session.host_id, session.key
    elif session is not None and decoded.evidence is session.evidence:  # the same again
        host_id, key = session.host_id, session.key
    else:
        if session_id_of(decoded.binding_bytes) != body.session_id:
            raise Refused("SESSION_MISMATCH", "the evidence binds another session")
        if session is not None:
            host_id, key = session.host_id, session.key
        else:
            binding = decoded.evidence.binding
            host_id, key = binding.host_id, load_session_key(binding.session_public_key)
    if checked is None or checked[0] is not key:
        verify_record_signature(key, decoded.preimage, decoded.signature, digest=decoded.digest)
    elif checked[1] is not None:
        raise checked[1]
    if host_id != body.host_id:
        raise Refused("BINDING_MISMATCH", "host_id differs from the session binding", field="host_id")
    now_ms = body.window_end_ms if body.window_end_ms < append_ms else append_ms
    check_collateral_age(state, view, now_ms)
    if session is None:
        session = _new_session(verify, state, view, decoded, body, key=key, now_ms=now_ms)
        state.seen(body.window_start_ms, offset)
    elif decoded.evidence is not None:
        _refresh(verify, state, session, view, decoded, body=body, now_ms=now_ms)
        state.seen(body.window_start_ms, offset)
    verified = session.verified.get(terms.basis)
    if verified is None or not _certain(verified, now_ms):
        verified = _under(verify, state, session, view, body.session_id, now_ms)
    check_not_revoked(verified.subjects, terms.denied)
    check_beacon(state, view, verified.binding, body.window_end_ms)
    if body.window_start_ms - session.evidence_window_ms > freshness:
        raise Refused("EVIDENCE_STALE", "the session's newest evidence is too old for this window")
    if len(known := state.by_host[body.host_id]) > 1:
        _check_newest(verify, terms, session, known, body=body, now_ms=now_ms)
    return session, verified


def _check_newest(
    verify: SessionVerifier,
    terms: Terms,
    session: SessionState,
    known: tuple[bytes, ...],
    *,
    body: WindowReport,
    now_ms: int,
) -> None:
    """None of the `known` sessions of its host is newer than `session` and counts. Raises Refused."""
    state = terms.state
    for other_id in known:
        other = state.sessions[other_id]
        if (
            other.order > session.order
            and body.window_start_ms - other.evidence_window_ms <= terms.freshness_ms
            and other.evidence_window_ms + terms.freshness_ms > terms.closed_ms
            and not (terms.denied and _revoked(verify, state, terms.view, other_id, now_ms, terms.denied))
        ):
            raise Refused("SUPERSEDED_SESSION", "a newer session of this host replaced this one")


def _new_session(
    verify: SessionVerifier,
    state: DomainState,
    view: PolicyView,
    decoded: DecodedRecord,
    body: WindowReport,
    *,
    key: ec.EllipticCurvePublicKey,
    now_ms: int,
) -> SessionState:
    """Verify and register an unknown session.

    Every unknown session is verified: after a restart the proven ones are unknown, too, so that any limit on these
    checks would let a flood decide which of them are accepted, and differently than before the restart.
    """
    evidence, binding_bytes = decoded.evidence, decoded.binding_bytes
    if evidence is None or binding_bytes is None:
        raise Refused("SESSION_UNKNOWN", "no evidence for this session is known")
    verified = verify_evidence(
        verify,
        evidence,
        binding_bytes,
        session_id=body.session_id,
        view=view,
        role="host",
        now_ms=now_ms,
        collateral=state.collateral_view,
    )
    session = SessionState(
        host_id=body.host_id,
        key=key,
        order=session_order(verified.binding, body.session_id),
        evidence=evidence,
        binding_bytes=binding_bytes,
        evidence_window_ms=body.window_start_ms,
        verified={state.basis(view): verified},
    )
    state.sessions[body.session_id] = session
    known = state.by_host.get(body.host_id, ())
    if body.session_id not in known:
        state.by_host[body.host_id] = (*known, body.session_id)
    return session


def _refresh(
    verify: SessionVerifier,
    state: DomainState,
    session: SessionState,
    view: PolicyView,
    decoded: DecodedRecord,
    *,
    body: WindowReport,
    now_ms: int,
) -> None:
    """Take newer evidence of a known session. Evidence is not under the record's signature, so evidence that does
    not verify is ignored and the session stands on what it had: nobody on the way can spoil an honest report.
    """
    evidence, binding_bytes = decoded.evidence, decoded.binding_bytes
    if evidence is None or binding_bytes is None or body.window_start_ms <= session.evidence_window_ms:
        return
    basis = state.basis(view)
    verified = session.verified.get(basis)
    if evidence is session.evidence and verified is not None and _certain(verified, now_ms):
        # The same again, as nearly always: a verdict depends on nothing but its arguments.
        session.evidence_window_ms = body.window_start_ms
        session.verified = {basis: verified}
        return
    try:
        verified = verify_evidence(
            verify,
            evidence,
            binding_bytes,
            session_id=body.session_id,
            view=view,
            role="host",
            now_ms=now_ms,
            collateral=state.collateral_view,
        )
    except EnclaveScaleError:
        return
    session.evidence = evidence
    session.evidence_window_ms = body.window_start_ms
    session.verified = {basis: verified}


def _certain(verified: Verified, now_ms: int) -> bool:
    """Whether the verdict holds at `now_ms`, whenever it was reached."""
    return verified.valid_from_ms <= now_ms <= verified.expires_ms


def check_not_revoked(subjects: Collection[Subject], denied: frozenset[Subject]) -> None:
    """Nothing of what a session is may be revoked. Raises Refused.

    Asked for every record and not when evidence is met: a revocation changes no verdict on evidence, and sessions are
    known, proven and forgotten as if there were none.
    """
    if denied and not denied.isdisjoint(subjects):
        kind, identifier = min(denied.intersection(subjects))
        raise Refused("REVOKED", f"{kind} {identifier} is revoked")


def _revoked(
    verify: SessionVerifier,
    state: DomainState,
    view: PolicyView,
    session_id: bytes,
    now_ms: int,
    denied: frozenset[Subject],
) -> bool:
    """Whether a known session is revoked: it replaces no other then.

    By its own id it is whatever its evidence is worth by now: a policy that revokes it may well refuse its code, too.
    """
    if subject(SESSION_KIND, session_id.hex()) in denied:
        return True
    try:
        verified = _under(verify, state, state.sessions[session_id], view, session_id, now_ms)
    except EnclaveScaleError:
        return False
    return not denied.isdisjoint(verified.subjects)


def check_collateral_age(state: DomainState, view: PolicyView, now_ms: int) -> None:
    """Collateral counts for `max_collateral_age_ms`: a renewal that somebody withholds is not waited for for ever.

    Raises Refused, also where a policy that limits the age has no collateral at all.
    """
    limit_ms, in_force = view.policy.limits.max_collateral_age_ms, state.collateral
    if limit_ms is None:
        return
    if in_force is None:
        raise Refused("COLLATERAL_STALE", "no collateral is in force")
    if now_ms - in_force.since_ms > limit_ms:
        raise Refused("COLLATERAL_STALE", f"the collateral is in force since {in_force.since_ms} ms")


def check_beacon(state: DomainState, view: PolicyView, binding: SessionBinding, window_end_ms: int) -> None:
    """Evidence counts while the beacon that it binds is fresh, where the policy demands one. Raises Refused.

    Asked for every record, like revocations: that a beacon is not known yet leaves no trace in what is known of
    sessions.
    """
    limit_ms = view.policy.limits.max_beacon_age_ms
    if limit_ms is None:
        return
    if binding.beacon is None:
        raise Refused("BEACON_UNKNOWN", "the evidence names no beacon")
    at_ms = state.beacons.get(binding.beacon.nonce)
    if at_ms != binding.beacon.issued_at_ms:
        raise Refused("BEACON_UNKNOWN", "the evidence names a beacon that no aggregator wrote into this partition")
    if window_end_ms - at_ms > limit_ms:
        raise Refused("BEACON_STALE", f"the evidence's beacon was issued {window_end_ms - at_ms} ms before the end")


def _under(
    verify: SessionVerifier, state: DomainState, session: SessionState, view: PolicyView, session_id: bytes, now_ms: int
) -> Verified:
    """The session as judged under `view` at `now_ms`; a switch of policy or collateral judges its evidence anew."""
    basis = state.basis(view)
    verified = session.verified.get(basis)
    if verified is None or not _certain(verified, now_ms):
        verified = verify_evidence(
            verify,
            session.evidence,
            session.binding_bytes,
            session_id=session_id,
            view=view,
            role="host",
            now_ms=now_ms,
            collateral=state.collateral_view,
        )
        if len(session.verified) >= MAX_VERDICTS:
            session.verified.clear()
        session.verified[basis] = verified
    return verified


def link(session: SessionState, body: WindowReport, digest: bytes, freshness_ms: int) -> tuple[str, ...]:
    """Link an admitted record into its session's hash chain; returns the flags to count.

    The predecessor is the record with the newest window: a host has one per window, and unlike a sequence number a
    window can not be ahead of the log for long. One older than the evidence's freshness counts as unknown. Both make
    a restart that reads back only so far flag the same.
    """
    head, start_ms = session.chain, body.window_start_ms
    if head is None:
        session.chain = ChainHead(body.seq, digest, start_ms)
        return () if body.seq == 0 else ("CHAIN_UNLINKED",)
    known = start_ms - head.window_start_ms <= freshness_ms
    linked = body.seq == head.seq + 1 and body.prev_digest == head.digest
    if start_ms > head.window_start_ms:
        head.seq, head.digest, head.window_start_ms = body.seq, digest, start_ms
    if not known:
        return () if body.seq == 0 else ("CHAIN_UNLINKED",)
    return () if linked else ("CHAIN_GAP",)
