"""Verify a session: does its key live in measured code, on the enrolled machine, for this purpose?

The steps, cheapest first (DESIGN §3); the same numbers stand at the code:

 1. The binding speaks our protocol, in the role asked for, with a P-256 key.
 2. The policy enrols its host (or aggregator), in the domain it names.
 3. The evidence is of kinds we verify, one CPU quote first, within limits.
 4. The quote's report data is H(binding), and the quote verifies under the roots built in or named by the policy and
    the collateral given (`verifier.formats`).
 5. The policy's rules hold for the verified claims.

Before all this the caller has checked the record's own signature under the binding's key
(`verifier.signature.verify_record_signature`): a flood without keys costs no quote verification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from schemas.contract import FIRST_MILE_GRADES, PROTOCOL
from schemas.records import EvidenceItem, Policy, SessionBinding, SessionEvidence
from verifier.claims import SessionClaims
from verifier.errors import (
    DomainMismatch,
    EvidenceAmbiguous,
    EvidenceKindUnknown,
    EvidenceKindUnsupported,
    EvidenceMissing,
    EvidenceTooLarge,
    HostNotEnrolled,
    ProtocolUnsupported,
    QuoteVersionUnsupported,
    RoleMismatch,
    VerificationError,
)
from verifier.formats.dcap import VerifiedQuote, verify_quote
from verifier.limits import MAX_EVIDENCE_BYTES, MAX_EVIDENCE_ITEMS
from verifier.policy.default import AGGREGATOR, HOST, certain_between, policy_rules, policy_warnings
from verifier.signature import load_session_key
from verifier.trust.pck_chain import ChainCache
from verifier.trust.roots import trust_anchors
from verifier.trust.store import Collateral

CPU_QUOTE_KINDS = frozenset({"tdx_quote_v4", "tdx_quote_v5", "sgx_quote_v3", "snp_report"})
OTHER_KINDS = frozenset({"snp_certificates", "nvidia_gpu_report", "nvidia_gpu_certificates", "spdm_transcript"})

_DCAP_KINDS = {"tdx_quote_v4": ("tdx", 4), "tdx_quote_v5": ("tdx", 5), "sgx_quote_v3": ("sgx", 3)}
"""CPU quotes this release verifies: the TEE, whose roots and measurements count for them, and the quote's version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSession:
    """A session whose evidence passed. Only `verify_session` makes one.

    `public_key` verifies the session's records; `domain` is None for an aggregator; `first_mile` is the grade the
    evidence earns; times are UTC milliseconds, inclusive; `warnings` lists what `unsafe_…` switches let pass.
    """

    session_id: bytes
    host_id: str
    domain: str | None
    role: str
    public_key: ec.EllipticCurvePublicKey
    binding: SessionBinding
    claims: SessionClaims
    root_label: str
    simulated: bool
    first_mile: str
    evidence_digest: bytes
    valid_from_ms: int
    expires_ms: int
    warnings: tuple[str, ...]

    def valid_at(self, now_ms: int) -> bool:
        """Whether certificates and collateral behind this session are valid at `now_ms`, and no grace has ended."""
        return self.valid_from_ms <= now_ms <= self.expires_ms


def verify_session(
    *,
    evidence: SessionEvidence,
    binding_bytes: bytes,
    report_data: bytes,
    session_id: bytes,
    policy: Policy,
    role: str,
    now_ms: int,
    collateral: Collateral | None = None,
    chains_seen: ChainCache | None = None,
) -> VerifiedSession:
    """Verify the evidence of a session at `now_ms` (UTC milliseconds) under `policy` and `collateral`.

    `binding_bytes` are the Avro bytes `evidence.binding` was decoded from, `report_data` (64 bytes) and `session_id`
    (32 bytes) what `schemas.codec` computes from them; `role` is "host" or "aggregator". Without collateral (None) no
    TCB is evaluated, which the policy refuses unless it says `unsafe_allow_unevaluated_tcb`; with it, an item that is
    missing always refuses. Raises a subclass of `VerificationError`; `ValueError` only for arguments that no input can
    cause.
    """
    if len(report_data) != 64 or len(session_id) != 32 or role not in (HOST, AGGREGATOR):
        raise ValueError("report_data is 64 bytes, session_id 32, role host or aggregator")
    binding = evidence.binding
    # (1)
    check_binding(binding, role)
    key = load_session_key(binding.session_public_key)
    # (2)
    platform_ids = enrolled_platforms(binding, policy, role)
    # (3)
    item = cpu_quote_of(evidence.items)
    # (4)
    tee, version = _DCAP_KINDS[item.kind]
    quote = verify_quote(
        quote=item.data,
        collateral=collateral,
        trust_roots=trust_anchors(policy.trust_roots, tee),
        now_ms=now_ms,
        report_data=report_data,
        tee=tee,
        chains_seen=chains_seen,
    )
    # (5)
    claims = SessionClaims(
        quote=quote, now_ms=now_ms, binding=binding, report_data=report_data, first_mile=FIRST_MILE_GRADES[0]
    )
    from_ms, until_ms = certain_between(quote, policy, now_ms)
    try:
        check_version(quote, version)
        policy_rules(policy, role=role, tee=tee, platform_ids=platform_ids).check(claims)
    except VerificationError as error:
        # At another time the same evidence might fail earlier, for its validity, or a grace begin or end.
        raise error.holding(from_ms, until_ms) from None
    return VerifiedSession(
        session_id=session_id,
        host_id=binding.host_id,
        domain=binding.domain,
        role=role,
        public_key=key,
        binding=binding,
        claims=claims,
        root_label=quote.root_label,
        simulated=quote.simulated,
        first_mile=claims.first_mile,
        evidence_digest=evidence_digest(evidence.items, binding_bytes),
        valid_from_ms=from_ms,
        expires_ms=until_ms,
        warnings=policy_warnings(policy, platform_ids=platform_ids, tcb_evaluated=quote.tcb_evaluated),
    )


def check_binding(binding: SessionBinding, role: str) -> None:
    """Protocol and role. `ProtocolUnsupported`, `RoleMismatch`."""
    if binding.protocol != PROTOCOL:
        raise ProtocolUnsupported(f"protocol {binding.protocol!r}", field="protocol")
    if binding.role != role:
        raise RoleMismatch(f"a session of role {binding.role!r} where {role!r} is needed", field="role")


def enrolled_platforms(binding: SessionBinding, policy: Policy, role: str) -> tuple[str, ...]:
    """Platform ids enrolled for the binding's identity. `HostNotEnrolled`, `DomainMismatch`."""
    if role == HOST:
        for host in policy.hosts:
            if host.host_id == binding.host_id:
                _check_domain(binding, host.domain)
                return host.platform_ids
    else:
        for aggregator in policy.aggregators:
            if aggregator.host_id == binding.host_id:
                _check_domain(binding, None)
                return aggregator.platform_ids
    raise HostNotEnrolled(f"{role} {binding.host_id!r} is not enrolled", field="host_id")


def _check_domain(binding: SessionBinding, domain: str | None) -> None:
    if binding.domain != domain:
        raise DomainMismatch(f"domain {binding.domain!r}, enrolled in {domain!r}", field="domain")


def cpu_quote_of(items: Sequence[EvidenceItem]) -> EvidenceItem:
    """The CPU quote of a session's evidence; every item must be of a kind that is verified here.

    Raises `EvidenceMissing`, `EvidenceTooLarge`, `EvidenceKindUnknown`, `EvidenceKindUnsupported` or
    `EvidenceAmbiguous`. Optional evidence never passes unread.
    """
    if not items:
        raise EvidenceMissing("the session carries no evidence", field="items")
    if len(items) > MAX_EVIDENCE_ITEMS or sum(len(item.data) for item in items) > MAX_EVIDENCE_BYTES:
        raise EvidenceTooLarge(f"{len(items)} evidence items", field="items")
    for item in items:
        if item.kind not in CPU_QUOTE_KINDS | OTHER_KINDS:
            raise EvidenceKindUnknown(f"evidence kind {item.kind!r}", field="kind")
        if item.kind not in _DCAP_KINDS:
            raise EvidenceKindUnsupported(f"evidence kind {item.kind!r}", field="kind")
    if len(items) != 1:
        raise EvidenceAmbiguous(f"{len(items)} CPU quotes", field="items")
    return items[0]


def evidence_digest(items: Sequence[EvidenceItem], binding_bytes: bytes) -> bytes:
    """SHA-256 over the binding and every item, each part with its length; 32 bytes."""
    digest = hashlib.sha256(b"enclavescale/evidence/1\x00")
    parts = [binding_bytes]
    for item in items:
        # A null subject and an empty one are two things: the first byte tells them apart.
        subject = b"\x00" if item.subject is None else b"\x01" + item.subject.encode()
        parts += [item.kind.encode(), item.data, subject]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()


def check_version(quote: VerifiedQuote, version: int) -> None:
    """The quote is of the version its evidence kind names. `QuoteVersionUnsupported`."""
    if quote.quote_version != version:
        raise QuoteVersionUnsupported(f"a quote of version {quote.quote_version}, labelled {version}", field="kind")
