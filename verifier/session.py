"""Verify a session: does its key live in measured code, on the enrolled machine with its devices, for this purpose?

The steps, cheapest first (DESIGN §3); the same numbers stand at the code:

 1. The binding speaks our protocol, in the role asked for, with a P-256 key.
 2. The policy enrols its host (or aggregator), in the domain it names, and nothing of that host for another one.
 3. The evidence is of kinds we verify, one CPU quote first, devices by their subjects, within limits.
 4. The CPU's report data is H(binding), and its evidence verifies under the roots built in or named by the policy
    and the collateral given (`verifier.composite`).
 5. The policy's rules on the CPU hold: platform, TCB, code, source.
 6. Every device is enrolled for the host, by the leaf key that its evidence presents, and stands once.
 7. The devices' evidence verifies; its nonces derive from the report data.
 8. What CPU and devices show earns the session its first mile (`verifier.policy.grade`).
 9. The policy's rules on devices and on the first mile hold.

Before all this the caller has checked the record's own signature under the binding's key
(`verifier.signature.verify_record_signature`): a flood without keys costs no quote verification.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace

from cryptography.hazmat.primitives.asymmetric import ec

from schemas.contract import FIRST_MILE_GRADES, PROTOCOL
from schemas.records import AggregatorEnrolment, EvidenceItem, HostEnrolment, Policy, SessionBinding, SessionEvidence
from verifier.claimed import ClaimedDevice, ClaimedDevices
from verifier.claims import CpuEvidence, SessionClaims
from verifier.composite import Memory, VerifiedComposite, verify_composite
from verifier.errors import (
    DomainMismatch,
    EvidenceKindUnsupported,
    EvidenceMissing,
    HostNotEnrolled,
    ProtocolUnsupported,
    RoleMismatch,
    VerificationError,
)
from verifier.evidence import SortedEvidence, sort_evidence
from verifier.policy.default import (
    AGGREGATOR,
    HOST,
    certain_between,
    cpu_rules,
    devices_enrolled,
    graded_expectations,
    host_rules,
    policy_warnings,
)
from verifier.policy.enrolment import check_aggregators, enrolment_of
from verifier.policy.grade import earned_grade
from verifier.policy.subjects import Subject, subjects_of
from verifier.signature import load_session_key
from verifier.trust.roots import Root, anchor_of
from verifier.trust.store import Collateral
from verifier.trust.vendors import ROOTS_BY_USE


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenSession:
    """What is remembered of a session whose evidence passed: the verdict without the parsed evidence behind it.

    `public_key` verifies the session's records; `domain` is None for an aggregator; `first_mile` is the grade the
    evidence earns; times are UTC milliseconds, inclusive; `warnings` lists what `unsafe_…` switches let pass;
    `subjects` is all by which a policy may revoke it.
    """

    session_id: bytes
    host_id: str
    domain: str | None
    role: str
    public_key: ec.EllipticCurvePublicKey
    binding: SessionBinding
    root_label: str
    simulated: bool
    first_mile: str
    evidence_digest: bytes
    valid_from_ms: int
    expires_ms: int
    warnings: tuple[str, ...]
    subjects: tuple[Subject, ...]

    def valid_at(self, now_ms: int) -> bool:
        """Whether certificates and collateral behind this session are valid at `now_ms`, and no grace has ended."""
        return self.valid_from_ms <= now_ms <= self.expires_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedSession(ProvenSession):
    """A session whose evidence passed. Only `verify_session` makes one. `claims`: all that the rules saw, some 5 KB."""

    claims: SessionClaims

    def proven(self) -> ProvenSession:
        """The same without its claims."""
        return ProvenSession(**{one.name: getattr(self, one.name) for one in fields(ProvenSession)})


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
    memory: Memory | None = None,
) -> VerifiedSession:
    """Verify the evidence of a session at `now_ms` (UTC milliseconds) under `policy` and `collateral`.

    `binding_bytes` are the Avro bytes `evidence.binding` was decoded from, `report_data` (64 bytes) and `session_id`
    (32 bytes) what `schemas.codec` computes from them; `role` is "host" or "aggregator"; `memory` remembers what time
    cannot change. Without collateral (None) no TCB is evaluated, no manifest compared and no revocation checked, which
    the policy refuses unless it says `unsafe_allow_unevaluated_tcb`; with it, an Intel item that is missing always
    refuses. Raises a subclass of `VerificationError`; `ValueError` only for arguments that no input can cause.
    """
    if len(report_data) != 64 or len(session_id) != 32 or role not in (HOST, AGGREGATOR):
        raise ValueError("report_data is 64 bytes, session_id 32, role host or aggregator")
    binding = evidence.binding
    # (1)
    check_binding(binding, role)
    key = load_session_key(binding.session_public_key)
    # (2)
    enrolled = enrolled_as(binding, policy, role)
    # (3)
    items = sort_evidence(evidence.items)
    check_items(items, role)
    # (4) to (7)
    admission = SessionAdmission(
        policy=policy, role=role, enrolled=enrolled, binding=binding, report_data=report_data, now_ms=now_ms
    )
    composite = verify_composite(
        items=items,
        collateral=collateral,
        trust_roots=PolicyRoots(policy),
        now_ms=now_ms,
        report_data=report_data,
        memory=memory,
        admission=admission,
    )
    # (8)
    claims = session_claims(composite, admission)
    cpu = claims.quote
    # (9)
    host = admission.host
    try:
        for rule in host_rules(policy, role=role, host=host):
            rule.check(claims)
    except VerificationError as error:
        # At another time the same evidence might fail earlier, for its validity, or a grace begin or end.
        raise error.holding(composite.valid_from_ms, composite.expires_ms) from None
    return VerifiedSession(
        session_id=session_id,
        host_id=binding.host_id,
        domain=binding.domain,
        role=role,
        public_key=key,
        binding=binding,
        claims=claims,
        root_label=cpu.root_label,
        simulated=cpu.simulated or any(one.evidence.simulated for one in claims.devices),
        first_mile=claims.first_mile,
        evidence_digest=evidence_digest(evidence.items, binding_bytes),
        valid_from_ms=composite.valid_from_ms,
        expires_ms=composite.expires_ms,
        warnings=policy_warnings(
            policy,
            platform_ids=enrolled.platform_ids,
            tcb_evaluated=cpu.tcb_evaluated,
            devices=claims.devices,
            key_digests=() if host is None else host.gpu_key_digests,
        ),
        subjects=subjects_of(claims, policy, role, session_id),
    )


_ANY_TEXT = "surrogatepass"


class PolicyRoots(Mapping[str, Sequence[Root]]):
    """Roots by their use: the vendors' own, then those the policy names for it. `TrustRootInvalid` when they are asked.

    A root counts for its use only: one for "snp" vouches for no quote, one for "nvidia" for no manifest ("rim").
    """

    def __init__(self, policy: Policy) -> None:
        self._roots = policy.trust_roots

    def __getitem__(self, use: str) -> tuple[Root, ...]:
        return (*ROOTS_BY_USE[use], *(anchor_of(root) for root in self._roots if root.tee == use))

    def __iter__(self) -> Iterator[str]:
        return iter(ROOTS_BY_USE)

    def __len__(self) -> int:
        return len(ROOTS_BY_USE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionAdmission:
    """What a session's policy demands while its evidence is verified: steps 5 and 6."""

    policy: Policy
    role: str
    enrolled: HostEnrolment | AggregatorEnrolment
    binding: SessionBinding
    report_data: bytes
    now_ms: int

    @property
    def host(self) -> HostEnrolment | None:
        """The host's enrolment; None for an aggregator."""
        return self.enrolled if isinstance(self.enrolled, HostEnrolment) else None

    def cpu(self, cpu: CpuEvidence) -> tuple[int, int]:
        """Step 5."""
        rules = cpu_rules(
            self.policy, role=self.role, tee=cpu.tee, platform_ids=self.enrolled.platform_ids, host=self.host
        )
        from_ms, until_ms = certain_between(cpu, self.policy, self.now_ms)
        try:
            rules.check(self.claims(cpu))
        except VerificationError as error:
            # At another time the same evidence might fail earlier, for its validity, or a grace begin or end.
            raise error.holding(from_ms, until_ms) from None
        return from_ms, until_ms

    def device(self, claimed: ClaimedDevice) -> None:
        """Step 6."""
        if self.host is not None:
            devices_enrolled(self.policy, self.host).check(ClaimedDevices((claimed,)))

    def claims(self, cpu: CpuEvidence) -> SessionClaims:
        """What is known of the session as soon as its CPU is: no device, no grade."""
        return SessionClaims(
            quote=cpu,
            now_ms=self.now_ms,
            binding=self.binding,
            report_data=self.report_data,
            first_mile=FIRST_MILE_GRADES[0],
            first_mile_reason="an aggregator measures nothing",
        )


def session_claims(composite: VerifiedComposite, admission: SessionAdmission) -> SessionClaims:
    """What the rules see: the verified evidence, and the first mile it earns. `EvidenceMissing` without a CPU's."""
    if composite.cpu is None:
        raise EvidenceMissing("the session carries no CPU quote", field="items")
    claims = replace(admission.claims(composite.cpu), devices=composite.devices)
    if admission.host is None:
        return claims
    expected = graded_expectations(admission.policy, admission.host, composite.cpu.tee)
    grade, reason = earned_grade(claims, expected)
    return replace(claims, first_mile=grade, first_mile_reason=reason)


def check_binding(binding: SessionBinding, role: str) -> None:
    """Protocol and role. `ProtocolUnsupported`, `RoleMismatch`."""
    if binding.protocol != PROTOCOL:
        raise ProtocolUnsupported(f"protocol {binding.protocol!r}", field="protocol")
    if binding.role != role:
        raise RoleMismatch(f"a session of role {binding.role!r} where {role!r} is needed", field="role")


def enrolled_as(binding: SessionBinding, policy: Policy, role: str) -> HostEnrolment | AggregatorEnrolment:
    """What the binding's identity is enrolled as.

    `HostNotEnrolled`, `DomainMismatch`; `EnrolmentAmbiguous` and `PolicyInvalid` for an enrolment that is not one.
    """
    if role == HOST:
        enrolment = enrolment_of(policy)
        host = enrolment.hosts.get(binding.host_id)
        if host is not None:
            _check_domain(binding, host.domain)
            enrolment.check(host)
            return host
    else:
        check_aggregators(policy, binding.host_id)
        for aggregator in policy.aggregators:
            if aggregator.host_id == binding.host_id:
                _check_domain(binding, None)
                return aggregator
    raise HostNotEnrolled(f"{role} {binding.host_id!r} is not enrolled", field="host_id")


def _check_domain(binding: SessionBinding, domain: str | None) -> None:
    if binding.domain != domain:
        raise DomainMismatch(f"domain {binding.domain!r}, enrolled in {domain!r}", field="domain")


def check_items(evidence: SortedEvidence, role: str) -> None:
    """A CPU's quote is there, and devices only at hosts. `EvidenceMissing`, `EvidenceKindUnsupported`."""
    if evidence.cpu is None:
        raise EvidenceMissing("the session carries no CPU quote", field="items")
    if role != HOST and evidence.devices:
        raise EvidenceKindUnsupported(
            "device evidence in a session of an aggregator",
            field="kind",
            remedy="Leave it out: nobody enrols devices of aggregators.",
        )


def evidence_digest(items: Sequence[EvidenceItem], binding_bytes: bytes) -> bytes:
    """SHA-256 over the binding and every item, each part with its length; 32 bytes."""
    digest = hashlib.sha256(b"enclavescale/evidence/1\x00")
    parts = [binding_bytes]
    for item in items:
        # A null subject and an empty one are two things: the first byte tells them apart. Both texts are the sender's,
        # and may be no Unicode at all.
        subject = b"\x00" if item.subject is None else b"\x01" + item.subject.encode(errors=_ANY_TEXT)
        parts += [item.kind.encode(errors=_ANY_TEXT), item.data, subject]
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
