"""The verdict on a session, accepted or refused.

"EAR-shaped": the claims' names and tiers are EAR's, unsigned, with a submodule `cpu` and, in sessions, one for each
device, called `gpu:`, `switch:` or `spdm:` and its subject; ours stand under `enclavescale`.
"""

from __future__ import annotations

from typing import Any

from verifier.claims import CpuEvidence, VerifiedDevice
from verifier.errors import VerificationError
from verifier.formats.nvidia import BOUND, VerifiedNvidiaReport
from verifier.formats.snp import CHECKED, VerifiedSnpReport
from verifier.session import VerifiedSession
from verifier.tcb.status import TcbStatus
from verifier.verdicts.ear import (
    AFFIRMING,
    CONTRAINDICATED,
    NO_CLAIM,
    STATUS_OF_TIER,
    WARNING,
    ear,
    error_json,
    submodule,
)


def hardware_tier(quote: CpuEvidence) -> int:
    """AR4SI's claim on the hardware: affirming only where launch and current TCB are UpToDate, and no simulation.

    AMD publishes no status: there it is affirming where the list that revokes its keys was at hand.
    """
    if quote.simulated:
        return CONTRAINDICATED
    if isinstance(quote, VerifiedSnpReport):
        return AFFIRMING if quote.revocation == CHECKED else WARNING
    if quote.tcb is None or {quote.tcb.status, quote.tcb.current.status} != {TcbStatus.UP_TO_DATE}:
        return WARNING
    return AFFIRMING


def accepted(session: VerifiedSession, *, policy_digest: bytes, now_ms: int) -> dict[str, Any]:
    """The verdict on a verified session at `now_ms` (UTC milliseconds) under the policy of `policy_digest` (32 bytes).

    `affirming` only for hardware whose TCB is UpToDate and with no unsafe switch in use; else `warning`. Nothing is
    claimed of readings ("sourced-data"): no device signs them.
    """
    quote = session.claims.quote
    hardware = hardware_tier(quote)
    doubt = hardware != AFFIRMING or bool(session.warnings)
    vector = {
        "instance-identity": WARNING if session.warnings else AFFIRMING,
        "configuration": AFFIRMING,
        "executables": AFFIRMING,
        "hardware": WARNING if hardware == AFFIRMING and doubt else hardware,
        # Devices may be attested, but no grade of this release vouches for what they measure.
        "sourced-data": NO_CLAIM,
    }
    ours = {
        "accepted": True,
        "code": None,
        "session_id": session.session_id.hex(),
        "host_id": session.host_id,
        "domain": session.domain,
        "role": session.role,
        "source": session.binding.source,
        "root": session.root_label,
        "simulated": session.simulated,
        "first_mile": session.first_mile,
        "first_mile_reason": session.claims.first_mile_reason,
        "gpu_key_digests": sorted(one.key_digest.hex() for one in session.claims.devices),
        "tee": quote.tee,
        "quote_version": quote.quote_version,
        **_vendor_json(quote),
        "platform_ids": list(quote.platform_ids),
        "measurements": {name: value.hex() for name, value in quote.registers.items()},
        "evidence_digest": session.evidence_digest.hex(),
        "valid_from_ms": session.valid_from_ms,
        "expires_ms": session.expires_ms,
        "warnings": list(session.warnings),
    }
    verdict = ear(now_ms, "warning" if doubt else "affirming", vector, policy_digest, ours)
    verdict["submods"] |= dict(device_submodule(one, policy_digest) for one in session.claims.devices)
    return verdict


def _vendor_json(quote: CpuEvidence) -> dict[str, Any]:
    """What only one vendor's evidence says, under the same names for both where they mean the same."""
    if isinstance(quote, VerifiedSnpReport):
        return {
            "tcb_evaluated": False,
            "tcb_status": None,
            "advisory_ids": [],
            "product": quote.product,
            "reported_tcb": str(quote.reported_tcb),
            "key_type": quote.key_type,
            "ek_serial": quote.ek_serial_hex,
            "revocation": quote.revocation,
        }
    return {
        "tcb_evaluated": quote.tcb_evaluated,
        "tcb_status": None if quote.tcb is None else str(quote.tcb.status),
        "advisory_ids": [] if quote.tcb is None else list(quote.tcb.advisory_ids),
        "fmspc": quote.pck.fmspc.hex(),
        "pck_serial": quote.pck_serial_hex,
    }


def device_submodule(device: VerifiedDevice, policy_digest: bytes) -> tuple[str, dict[str, Any]]:
    """The name and the claims of one device: accepted, since its session is."""
    evidence = device.evidence
    ours: dict[str, Any] = {
        "subject": device.subject,
        "key_digest": device.key_digest.hex(),
        "nonce_checked": device.fresh,
        "root": evidence.root_label,
        "simulated": evidence.simulated,
    }
    if isinstance(evidence, VerifiedNvidiaReport):
        found, kind = evidence.reference, evidence.kind
        executables = AFFIRMING if found is not None and found.matched and not found.override else WARNING
        checked, bound = evidence.revocation.state == CHECKED, evidence.fwid_bound == BOUND
        ours |= {
            "architecture": evidence.architecture,
            "driver_version": evidence.driver_version,
            "vbios_version": evidence.vbios_version,
            "mode": evidence.mode,
            "fwid_bound": evidence.fwid_bound,
            "reference": None if found is None else found.outcome,
            "reference_override": found is not None and found.override,
            "revocation": evidence.revocation.state,
        }
    else:
        kind, executables, checked, bound = device.kind, AFFIRMING, False, evidence.vca_authenticated
        ours |= {
            "spdm_version": evidence.version,
            "grade": evidence.grade,
            "measurements": {name: value.hex() for name, value in evidence.registers.items()},
            "revocation": evidence.revocation,
        }
    hardware = CONTRAINDICATED if evidence.simulated else AFFIRMING if checked and bound else WARNING
    vector = {"instance-identity": AFFIRMING, "executables": executables, "hardware": hardware}
    status = STATUS_OF_TIER[min(max(vector.values()), WARNING)]
    return f"{kind}:{device.subject}", submodule(status, vector, policy_digest, ours)


def refused(error: VerificationError, *, policy_digest: bytes, now_ms: int) -> dict[str, Any]:
    """The verdict on evidence refused with `error`: `contraindicated`, with code, field, message and remedy."""
    ours = {"accepted": False, **error_json(error)}
    return ear(now_ms, "contraindicated", {"hardware": CONTRAINDICATED}, policy_digest, ours)
