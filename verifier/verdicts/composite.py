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
from verifier.verdict import AFFIRMING, CONTRAINDICATED, NO_CLAIM, STATUS_OF_TIER, WARNING, hardware_tier
from verifier.verdicts import nvidia, quote, snp, spdm
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

    Beside the CPU's submodule stands one for each device, called by its subject.
    """
    return evidence_verdict(
        kind="composite",
        policy=policy,
        now_ms=now_ms,
        stages=STAGES,
        vector=None if host is None else _vector(host, grade[0], failures),
        claims=None if host is None else claims_json(host, grade, now_ms),
        failures=failures,
        warnings=warnings,
        submods=None if host is None else {one.subject: device_submod(one, failures) for one in host.devices},
    )


def _vector(host: VerifiedComposite, grade: str, failures: Sequence[VerificationError]) -> dict[str, int]:
    hardware = WARNING if host.cpu is None else hardware_tier(host.cpu)
    vector = vector_of(hardware, {}, failures, ASPECTS)
    vector.setdefault("sourced-data", NO_CLAIM if grade == "NONE" else AFFIRMING)
    return vector


def device_submod(device: VerifiedDevice, failures: Sequence[VerificationError]) -> dict[str, Any]:
    """A device in the shape of an EAR's submodule: contraindicated where a refusal names its subject."""
    wrong = [error for error in failures if (error.field or "").startswith(device.subject)]
    tier = CONTRAINDICATED if wrong or device.evidence.simulated else WARNING
    if not wrong and isinstance(device.evidence, VerifiedNvidiaReport) and not device.evidence.simulated:
        reference = device.evidence.reference
        tier = AFFIRMING if reference is not None and reference.matched and device.fresh else WARNING
    return {
        "ear.status": STATUS_OF_TIER[tier],
        "ear.trustworthiness-vector": {"hardware": tier},
        "enclavescale": {
            "kind": device.kind,
            "key_digest": device.key_digest.hex(),
            "codes": [error.code for error in wrong],
        },
    }


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
