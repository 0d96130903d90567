"""A verdict as JSON, in the shape of an EAT Attestation Result (draft-ietf-rats-ear; AR4SI trust vector).

"EAR-shaped": the claims' names and tiers are EAR's, unsigned, one submodule `cpu`; ours stand under `enclavescale`.
"""

from __future__ import annotations

from typing import Any

from verifier.errors import VerificationError
from verifier.formats.dcap import VerifiedQuote
from verifier.session import VerifiedSession
from verifier.tcb.status import TcbStatus

EAR_PROFILE = "tag:github.com,2023:veraison/ear"
VERIFIER_ID = {"developer": "EnclaveScale", "build": "enclavescale-verifier/1"}

AFFIRMING, WARNING, CONTRAINDICATED, NO_CLAIM = 2, 32, 96, 0
"""AR4SI tiers, as the number that opens each."""

STATUS_OF_TIER = {AFFIRMING: "affirming", WARNING: "warning", CONTRAINDICATED: "contraindicated", NO_CLAIM: "none"}


def ear(now_ms: int, status: str, vector: dict[str, int], policy_digest: bytes, ours: dict[str, Any]) -> dict[str, Any]:
    """An attestation result issued at `now_ms` (UTC milliseconds) under the policy of `policy_digest` (32 bytes)."""
    return {
        "eat_profile": EAR_PROFILE,
        "iat": now_ms // 1000,
        "ear.verifier-id": dict(VERIFIER_ID),
        "submods": {
            "cpu": {
                "ear.status": status,
                "ear.trustworthiness-vector": vector,
                "ear.appraisal-policy-id": f"sha256:{policy_digest.hex()}",
                "enclavescale": ours,
            }
        },
    }


def hardware_tier(quote: VerifiedQuote) -> int:
    """AR4SI's claim on the hardware: affirming only where launch and current TCB are UpToDate, and no simulation."""
    if quote.simulated:
        return CONTRAINDICATED
    if quote.tcb is None or {quote.tcb.status, quote.tcb.current.status} != {TcbStatus.UP_TO_DATE}:
        return WARNING
    return AFFIRMING


def accepted(session: VerifiedSession, *, policy_digest: bytes, now_ms: int) -> dict[str, Any]:
    """The verdict on a verified session at `now_ms` (UTC milliseconds) under the policy of `policy_digest` (32 bytes).

    `affirming` only for hardware whose TCB is UpToDate and with no unsafe switch in use; else `warning`.
    """
    quote = session.claims.quote
    hardware = hardware_tier(quote)
    doubt = hardware != AFFIRMING or bool(session.warnings)
    vector = {
        "instance-identity": WARNING if session.warnings else AFFIRMING,
        "configuration": AFFIRMING,
        "executables": AFFIRMING,
        "hardware": WARNING if hardware == AFFIRMING and doubt else hardware,
        "sourced-data": NO_CLAIM if session.first_mile == "NONE" else AFFIRMING,
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
        "tee": quote.tee,
        "quote_version": quote.quote_version,
        "tcb_evaluated": quote.tcb_evaluated,
        "tcb_status": None if quote.tcb is None else str(quote.tcb.status),
        "advisory_ids": [] if quote.tcb is None else list(quote.tcb.advisory_ids),
        "platform_ids": list(quote.platform_ids),
        "fmspc": quote.pck.fmspc.hex(),
        "pck_serial": quote.pck_serial_hex,
        "measurements": {name: value.hex() for name, value in quote.registers.items()},
        "evidence_digest": session.evidence_digest.hex(),
        "valid_from_ms": session.valid_from_ms,
        "expires_ms": session.expires_ms,
        "warnings": list(session.warnings),
    }
    return ear(now_ms, "warning" if doubt else "affirming", vector, policy_digest, ours)


def refused(error: VerificationError, *, policy_digest: bytes, now_ms: int) -> dict[str, Any]:
    """The verdict on evidence refused with `error`: `contraindicated`, with code, field, message and remedy."""
    ours = {"accepted": False, **error_json(error)}
    return ear(now_ms, "contraindicated", {"hardware": CONTRAINDICATED}, policy_digest, ours)


def error_json(error: VerificationError) -> dict[str, str | None]:
    """A refusal: code, failing field, what happened, what to do."""
    return {"code": error.code, "field": error.field, "message": str(error), "remedy": error.remedy}
