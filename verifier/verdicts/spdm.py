"""The verdict on an SPDM transcript: who signed what, the measurements, the grade it earns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from verifier.errors import VerificationError
from verifier.formats.spdm import VerifiedSpdm
from verifier.policy.quote_policy import QuotePolicy
from verifier.verdicts.ear import CONTRAINDICATED, WARNING
from verifier.verdicts.shell import evidence_verdict, moment, vector_of

STAGES = ("format", "signatures", "slot_chain", "nonces", "measurements", "device_chain", "validity")
"""Stages of verification in order; `verified` names those that held."""

ASPECTS = {
    "MEASUREMENT_UNKNOWN": "executables",
    "NONCE_UNCHECKED": "instance-identity",
    "PLATFORM_NOT_ENROLLED": "instance-identity",
}
"""What of the trust vector a refusal by policy speaks of; all others speak of the hardware."""


def spdm_verdict(
    *,
    policy: QuotePolicy,
    now_ms: int,
    device: VerifiedSpdm | None,
    failures: Sequence[VerificationError],
    warnings: Sequence[str] = (),
) -> dict[str, Any]:
    """The verdict at `now_ms` (UTC milliseconds). See `evidence_verdict`.

    `events` says of every signature whether it holds, also where the transcript is refused.
    """
    events = device.events if device is not None else getattr(failures[0], "events", ()) if failures else ()
    return evidence_verdict(
        kind="spdm",
        name="spdm",
        policy=policy,
        now_ms=now_ms,
        stages=STAGES,
        vector=None if device is None else device_vector(policy, device, failures),
        claims=None if device is None else claims_json(device),
        failures=failures,
        warnings=warnings,
        facts={"events": [list(event) for event in events]},
    )


def device_vector(policy: QuotePolicy, device: VerifiedSpdm, failures: Sequence[VerificationError]) -> dict[str, int]:
    """AR4SI tiers. No source of revocation exists: the hardware is no better than a warning."""
    judged = {
        "instance-identity": device.fresh and device.challenged,
        "executables": any(one.tee == "spdm" for one in policy.measurements or ()),
    }
    return vector_of(CONTRAINDICATED if device.simulated else WARNING, judged, failures, ASPECTS)


def claims_json(device: VerifiedSpdm) -> dict[str, Any]:
    """Every verified claim; byte strings in hexadecimal."""
    return {
        "spdm_version": device.version,
        "base_hash": device.base_hash,
        "signature_algorithm": device.signature_algorithm,
        "measurement_hash": device.measurement_hash,
        "slot": device.slot,
        "challenged": device.challenged,
        "vca_authenticated": device.vca_authenticated,
        "exchanges": [
            {"kind": one.kind, "slot": one.slot, "nonce": one.nonce.hex(), "responder_nonce": one.responder_nonce.hex()}
            for one in device.exchanges
        ],
        "measurements": [
            {"index": block.index, "type": block.kind, "raw": block.raw, "value": block.value.hex()}
            for block in device.measurements
        ],
        "complete": device.complete,
        "summary_hash": device.summary,
        "device_mode": None
        if device.device_mode is None
        else asdict(device.device_mode)
        | {"debug_active": device.device_mode.debug_active, "debug_seen": device.device_mode.debug_seen},
        "fresh": device.fresh,
        "grade": device.grade,
        "grade_reason": device.grade_reason,
        "key_digest": device.key_digest.hex(),
        "leaf_serial": device.leaf_serial_hex,
        "chain": list(device.chain_names),
        "passed_over": list(device.passed_over),
        "revocation": device.revocation,
        "root": device.root_label,
        "simulated": device.simulated,
        "valid_from": moment(device.valid_from_ms),
        "expires": moment(device.expires_ms),
    }


def spdm_warnings(device: VerifiedSpdm) -> tuple[str, ...]:
    """What an acceptance does not mean, in words a person must see."""
    found = []
    if device.simulated:
        found.append("SIMULATED: the root of trust is not hardware")
    if device.device_mode is not None and device.device_mode.debug_active:
        found.append("DEBUG: the device signs that a debug mode of it is active")
    found += [f"the first mile is graded {device.grade}: {why}" for why in (device.lacking, device.stale) if why]
    if not device.vca_authenticated:
        found.append("the negotiation is not signed: an attacker may have forced version or algorithms down")
    found.append("revocation of the device's certificates is not checked: SPDM has no source of it")
    return tuple(found)
