"""What a host agent takes from the policy: is it the signer's, who is enrolled, what is accepted, when are windows?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from enclavescale.agent.file import SIMULATED_TEE, HostSpec, ProduceSpec
from producers.config import ClassProfile, HostProfile, Schedule
from producers.sample.source import ReadingSource
from schemas.codec import decode_signed_policy
from schemas.contract import FIRST_MILE_GRADES
from schemas.errors import ConfigError
from schemas.records import HostEnrolment, Policy, SignedPolicy
from verifier.signature import load_session_key, verify_record_signature


def read_signed_policy(path: Path) -> tuple[SignedPolicy, bytes]:
    """A value of the policy topic from a file, and the bytes its signature covers. Raises ConfigError, SchemaError."""
    try:
        return decode_signed_policy(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}",
            field="policy",
            remedy="Fetch a value of the policy topic: docs/agent.md says how.",
        ) from error


def check_signature(signed: SignedPolicy, preimage: bytes, signers: Sequence[str]) -> None:
    """Raise ConfigError POLICY_UNTRUSTED unless one of `signers` (hexadecimal points) signed, VerificationError if the
    signature does not hold."""
    if signed.signer_public_key.hex() not in {one.lower() for one in signers}:
        raise ConfigError(
            f"the policy is signed by {signed.signer_public_key.hex()[:16]}…, who is not among policy_signers",
            code="POLICY_UNTRUSTED",
            field="policy_signers",
            remedy="Fetch the policy again, or have its signer confirmed by the security team.",
        )
    verify_record_signature(load_session_key(signed.signer_public_key), preimage, signed.signature)


def read_trusted_policy(path: Path, signers: Sequence[str] = ()) -> SignedPolicy:
    """The signed policy in a file; without `signers` its signature is the workers' business alone.

    Raises ConfigError, SchemaError, VerificationError.
    """
    signed, preimage = read_signed_policy(path)
    if signers:
        check_signature(signed, preimage, signers)
    return signed


def read_policy(path: Path, signers: Sequence[str] = ()) -> Policy:
    """The policy in a file, as `read_trusted_policy`."""
    return read_trusted_policy(path, signers).policy


def enrolment_of(policy: Policy, host_id: str) -> HostEnrolment:
    """A host's enrolment. Raises ConfigError HOST_NOT_ENROLLED."""
    for host in policy.hosts:
        if host.host_id == host_id:
            return host
    raise ConfigError(
        f"{host_id} is not enrolled in the policy",
        code="HOST_NOT_ENROLLED",
        field="host_id",
        remedy="Correct host_id, or have the host enrolled and the policy signed anew.",
    )


def schedule_of(policy: Policy, domain: str) -> Schedule:
    """Window, pane and rate that the policy demands of a domain's hosts. Raises ConfigError."""
    for rule in policy.domains:
        if rule.domain == domain:
            return Schedule(window_ms=rule.window_ms, pane_ms=rule.pane_ms, sample_hz=policy.sample_hz)
    raise ConfigError(f"domain {domain} is not in the policy", field="domain")


def classes_of(policy: Policy, enrolment: HostEnrolment, sources: Sequence[ReadingSource]) -> tuple[ClassProfile, ...]:
    """A host's GPU classes with their grids and clip ranges; one source for each, in order. Raises ConfigError."""
    rules = {rule.model: rule for rule in policy.models}
    if missing := [one.model for one in enrolment.classes if one.model not in rules]:
        raise ConfigError(
            f"GPU model {missing[0]} is not in the policy",
            field="models",
            remedy="Have the model's grid and clip range added to the policy.",
        )
    return tuple(
        ClassProfile(
            model=enrolled.model,
            capacity_w=enrolled.capacity_w,
            edges_w=rules[enrolled.model].edges_w,
            clip_low_w=rules[enrolled.model].clip_low_w,
            clip_high_w=rules[enrolled.model].clip_high_w,
            source=source,
        )
        for enrolled, source in zip(enrolment.classes, sources, strict=True)
    )


def profile_of(
    policy: Policy,
    enrolment: HostEnrolment,
    sources: Sequence[ReadingSource],
    *,
    first_mile: str = FIRST_MILE_GRADES[0],
    group_label: str | None = None,
) -> HostProfile:
    """A host's profile: everything but `sources`, one per enrolled class in its order, comes from its enrolment.

    Raises ConfigError; SOURCE_NOT_ACCEPTED or SAMPLER_MODE_NOT_ACCEPTED where every report would be refused.
    """
    profile = HostProfile(
        host_id=enrolment.host_id,
        domain=enrolment.domain,
        classes=classes_of(policy, enrolment, sources),
        first_mile=first_mile,
        group_label=group_label,
    )
    check_accepted(policy, sources[0].kind, sources[0].sampler_mode)
    return profile


def check_accepted(policy: Policy, kind: str, sampler_mode: str) -> None:
    """Raise ConfigError unless the policy accepts readings of this kind and mode."""
    if kind not in policy.accepted_sources:
        raise ConfigError(
            f"source {kind}; the policy accepts {', '.join(policy.accepted_sources) or 'none'}",
            code="SOURCE_NOT_ACCEPTED",
            field="source",
            remedy="Change `source`, or have the policy accept it.",
        )
    if sampler_mode not in policy.accepted_sampler_modes:
        raise ConfigError(
            f"sampler mode {sampler_mode}; the policy accepts {', '.join(policy.accepted_sampler_modes) or 'none'}",
            code="SAMPLER_MODE_NOT_ACCEPTED",
            field="sampler_mode",
            remedy="Use a sensor with instant power, or have the policy accept the mode: one event then costs more.",
        )


def reachable_grade(host: HostSpec) -> str:
    """The best grade of the first mile that a host's evidence can earn."""
    return "SPDM_MEASURED" if host.spdm else "GPU_ATTESTED" if host.gpu_evidence else FIRST_MILE_GRADES[0]


def check_grade(policy: Policy, host: HostSpec) -> None:
    """Raise ConfigError where the evidence can never reach what the policy demands or what the reports claim."""
    grade, reachable = FIRST_MILE_GRADES.index, reachable_grade(host)
    if grade(policy.min_first_mile) > grade(reachable):
        raise ConfigError(
            f"{host.host_id} reaches first mile {reachable} at most; the policy demands {policy.min_first_mile}",
            code="FIRST_MILE_TOO_LOW",
            field="first_mile",
            remedy="Set gpu_evidence, or configure [[hosts.spdm]].",
        )
    if grade(host.first_mile) > grade(reachable):
        raise ConfigError(
            f"{host.host_id} claims first mile {host.first_mile}; its evidence proves {reachable} at most",
            code="FIRST_MILE_OVERCLAIMED",
            field="first_mile",
            remedy=f'Set first_mile = "{reachable}": a claim beyond the evidence is refused.',
        )


def check_tee(policy: Policy, spec: ProduceSpec) -> None:
    """Raise ConfigError ROOT_UNTRUSTED for a simulated TEE that the policy vouches for nowhere."""
    if spec.tee == SIMULATED_TEE and not any(root.simulated for root in policy.trust_roots):
        raise ConfigError(
            "the TEE is simulated, and the policy trusts no simulated root",
            code="ROOT_UNTRUSTED",
            field="tee",
            remedy='Set tee = "tsm" on a TDX or SEV-SNP guest; a simulated TEE serves demonstrations only.',
        )
