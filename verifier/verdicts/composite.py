"""The verdict on all evidence of one host: its CPU's claims, each device's, and the grade the first mile earns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from verifier.claims import VerifiedDevice
from verifier.composite import VerifiedComposite
from verifier.errors import VerificationError
from verifier.formats.nvidia import VerifiedNvidiaReport
from verifier.formats.snp import VerifiedSnpReport
from verifier.policy.quote_policy import QuotePolicy
from verifier.trust.vendors import is_vendors
from verifier.verdicts import nvidia, quote, snp, spdm
from verifier.verdicts.ear import CONTRAINDICATED, NO_CLAIM, STATUS_OF_TIER, WARNING
from verifier.verdicts.session import device_submodule, hardware_tier
from verifier.verdicts.shell import evidence_verdict, moment, vector_of

STAGES = ("format", "cpu", "devices")
"""Stages of verification in order; `verified` names those that held."""

ASPECTS = quote.ASPECTS | snp.ASPECTS | nvidia.ASPECTS | spdm.ASPECTS | {"FIRST_MILE_TOO_LOW": "sourced-data"}
"""What of the trust vector a refusal by policy speaks of; all others speak of the hardware."""


def composite_verdict(
    *,
    policy: QuotePolicy,
    now_ms: int,
    host: VerifiedComposite | None,
    grade: tuple[str, str],
    failures: Sequence[VerificationError],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The verdict at `now_ms` (UTC milliseconds); `grade` is the first mile's and what it rests on.

    The submodule `host` is about all of it; beside it stands one for each device.
    """
    return evidence_verdict(
        kind="composite",
        policy=policy,
        now_ms=now_ms,
        stages=STAGES,
        vector=None if host is None else _vector(host, failures),
        claims=None if host is None else claims_json(host, grade, now_ms),
        failures=failures,
        warnings=warnings,
        submods=None if host is None else device_submodules(host, policy.digest(), failures),
        name="host",
    )


def _vector(host: VerifiedComposite, failures: Sequence[VerificationError]) -> dict[str, int]:
    """AR4SI tiers of the host as a whole: no better than its CPU's hardware and than the worst of its devices."""
    tiers = [_cpu_tier(host), *(device_tier(one) for one in host.devices)]
    # Devices may be attested, but no grade of this release vouches for what they measure.
    return {"sourced-data": NO_CLAIM, **vector_of(max(tiers), {}, failures, ASPECTS)}


def _cpu_tier(host: VerifiedComposite) -> int:
    if host.cpu is None:
        return WARNING
    tier = hardware_tier(host.cpu)
    return tier if is_vendors(host.cpu.tee, host.cpu.root_label) else max(tier, WARNING)


def device_tier(device: VerifiedDevice) -> int:
    """AR4SI's claim on a device: as its submodule says it, and in doubt under a root that is not its vendor's."""
    _, found = device_submodule(device, b"")
    tier: int = max(found["ear.trustworthiness-vector"].values())
    return tier if is_vendors(device.kind, device.evidence.root_label) and device.fresh else max(tier, WARNING)


def device_submodules(
    host: VerifiedComposite, policy_digest: bytes, failures: Sequence[VerificationError]
) -> dict[str, Any]:
    """A submodule for each device, called by its kind and subject as in a session's verdict.

    Contraindicated where a refusal names its subject; `affirming` only if its tier is.
    """
    subjects = [one.subject for one in host.devices]
    found = {}
    for device in host.devices:
        name, module = device_submodule(device, policy_digest)
        wrong = [error for error in failures if subject_of(error, subjects) == device.subject]
        tier = CONTRAINDICATED if wrong else device_tier(device)
        module["ear.status"] = STATUS_OF_TIER[CONTRAINDICATED if wrong else min(tier, WARNING)]
        module["ear.trustworthiness-vector"]["hardware"] = tier
        module["enclavescale"]["codes"] = [error.code for error in wrong]
        found[name] = module
    return found


def subject_of(error: VerificationError, subjects: Sequence[str]) -> str | None:
    """The device that the field of a refusal names: the longest subject that it is, or that a dot follows in it."""
    field = error.field or ""
    named = [one for one in subjects if field == one or field.startswith(f"{one}.")]
    return max(named, key=len, default=None)


def claims_json(host: VerifiedComposite, grade: tuple[str, str], now_ms: int) -> dict[str, Any]:
    """Everything that is verified; each part's claims as in a verdict on it alone."""
    digest = host.identities_digest
    return {
        "first_mile": grade[0],
        "first_mile_reason": grade[1],
        "nonces": host.nonces,
        "gpu_identities_digest": None if digest is None else digest.hex(),
        "cpu": _cpu(host, now_ms),
        "devices": [_device(one) for one in host.devices],
        "valid_from": moment(host.valid_from_ms),
        "expires": moment(host.expires_ms),
    }


def _cpu(host: VerifiedComposite, now_ms: int) -> Mapping[str, Any] | None:
    if host.cpu is None:
        return None
    if isinstance(host.cpu, VerifiedSnpReport):
        return {"kind": "snp", "claims": snp.claims_json(host.cpu), "tcb": snp.tcb_json(host.cpu)}
    tcb = host.cpu.tcb
    return {
        "kind": host.cpu.tee,
        "claims": quote.claims_json(host.cpu),
        "tcb": None if tcb is None else quote.tcb_json(tcb, now_ms),
    }


def _device(device: VerifiedDevice) -> dict[str, Any]:
    evidence = device.evidence
    if isinstance(evidence, VerifiedNvidiaReport):
        reference = evidence.reference
        return {
            "kind": f"nvidia-{evidence.kind}",
            "subject": device.subject,
            "fresh": device.fresh,
            "claims": nvidia.claims_json(evidence),
            "reference": None if reference is None else nvidia.reference_json(reference),
        }
    return {
        "kind": "spdm",
        "subject": device.subject,
        "fresh": device.fresh,
        "claims": spdm.claims_json(evidence),
    }
