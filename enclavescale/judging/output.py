"""Judge a record that a worker published: an output of the fleet-power topic, or a manifest beside its output.

Anyone can who holds the signed policy and knows its signer: no broker, no worker and no collateral is asked. Programs
on hosts may call `judge_output` on what they read, as `enclavescale verify` does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from schemas.codec import SINGLE_OBJECT, Framing
from schemas.errors import EnclaveScaleError
from schemas.mapping import to_jsonable
from schemas.records import FleetPower, Policy, SessionEvidence
from stream_jobs.audit.outputs import (
    STAGES,
    CheckedManifest,
    CheckedOutput,
    check_manifest,
    check_output,
    collateral_of,
    read_output,
)
from stream_jobs.policy_store import PolicyTrust, open_policy
from verifier.errors import VerificationError
from verifier.session import VerifiedSession, verify_session
from verifier.trust.store import Collateral
from verifier.verdicts.ear import AFFIRMING, CONTRAINDICATED, STATUS_OF_TIER, WARNING, ear, submodule
from verifier.verdicts.session import accepted
from verifier.verdicts.shell import moment

OUTPUT, MANIFEST = "output", "manifest"
RECORDS = (OUTPUT, MANIFEST)
"""Kinds of records that are judged here."""

_SCHEMAS = {"SignedFleetPower": OUTPUT, "SignedWindowManifest": MANIFEST}


def record_kind(data: bytes, framing: Framing = SINGLE_OBJECT) -> str | None:
    """Which of `RECORDS` framed bytes look like; None for anything else."""
    for name, kind in _SCHEMAS.items():
        if data.startswith(framing.prefix(name)):
            return kind
    return None


def is_signed_policy(data: bytes, framing: Framing = SINGLE_OBJECT) -> bool:
    """Whether framed bytes look like a value of the policy topic."""
    return data.startswith(framing.prefix("SignedPolicy"))


def judge_output(
    value: bytes,
    *,
    policy: bytes,
    signers: Sequence[bytes],
    collateral: Sequence[bytes] = (),
    framing: Framing = SINGLE_OBJECT,
) -> dict[str, Any]:
    """The verdict on one value of the output topic, EAR-shaped as those on evidence.

    `policy`: the signed policy that the output names, framed bytes as on the policy topic; `signers`: trusted policy
    signers, P-256 points of 65 bytes; `collateral`: items of the set that the output names, framed bytes as on the
    collateral topic, none if it names none. Holds no state. Raises nothing on account of what the bytes hold:
    `accepted` is False then and `errors` says why, with a stable code.
    """
    try:
        checked = _checked(value, policy, signers, collateral, framing)
    except EnclaveScaleError as error:
        return _refused(OUTPUT, error, _at_of(value, framing))
    return _verdict(OUTPUT, checked, _output_claims(checked))


def judge_manifest(
    value: bytes,
    *,
    output: bytes,
    policy: bytes,
    signers: Sequence[bytes],
    collateral: Sequence[bytes] = (),
    framing: Framing = SINGLE_OBJECT,
) -> dict[str, Any]:
    """The verdict on one value of the manifests topic beside the output it is for, which carries the evidence."""
    try:
        checked = _checked(output, policy, signers, collateral, framing)
        manifest = check_manifest(value, checked, framing)
    except EnclaveScaleError as error:
        return _refused(MANIFEST, error, _at_of(output, framing))
    return _verdict(MANIFEST, checked, _manifest_claims(manifest))


def _checked(
    value: bytes, policy: bytes, signers: Sequence[bytes], collateral: Sequence[bytes], framing: Framing
) -> CheckedOutput:
    view = open_policy(policy, PolicyTrust(tuple(signers)), framing)
    return check_output(value, view, _verify, framing, collateral=collateral_of(collateral, framing))


def _verify(
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
) -> VerifiedSession:
    return verify_session(
        evidence=evidence,
        binding_bytes=binding_bytes,
        report_data=report_data,
        session_id=session_id,
        policy=policy,
        role=role,
        now_ms=now_ms,
        collateral=collateral,
    )


def _at_of(value: bytes, framing: Framing) -> int | None:
    """The window's end, as an output that may be forged states it; None if it states nothing."""
    try:
        return read_output(value, framing)[0].output.window_end_ms
    except EnclaveScaleError:
        return None


def _verdict(kind: str, checked: CheckedOutput, claims: Mapping[str, Any]) -> dict[str, Any]:
    output, session = checked.output, checked.worker
    if not isinstance(session, VerifiedSession):
        raise TypeError("a session verified here")
    warnings = [*session.warnings, *_doubts(output, session)]
    result = accepted(session, policy_digest=checked.view.digest, now_ms=output.window_end_ms)
    hardware = int(result["submods"]["cpu"]["ear.trustworthiness-vector"]["hardware"])
    vector = {
        "instance-identity": WARNING if warnings else AFFIRMING,
        "executables": AFFIRMING,
        "hardware": hardware,
    }
    status = STATUS_OF_TIER[min(max(vector.values()), WARNING)]
    ours = {"accepted": True, "codes": [], "digest": checked.digest.hex()}
    result["submods"][kind] = submodule(status, vector, checked.view.digest, ours)
    return {
        **result,
        "kind": kind,
        "status": status,
        "accepted": True,
        "at": moment(output.window_end_ms),
        "codes": [],
        "stages": list(STAGES),
        "verified": list(STAGES),
        "claims": dict(claims),
        "worker": _worker(checked, session),
        "policy": {
            "name": f"counter {checked.view.policy.counter}",
            "digest": f"sha256:{checked.view.digest.hex()}",
        },
        "warnings": warnings,
        "errors": [],
    }


def _doubts(output: FleetPower, session: VerifiedSession) -> list[str]:
    found = []
    if session.simulated:
        found.append("the worker's TEE is simulated: it proves nothing")
    if output.window_end_ms > session.expires_ms:
        found.append("the evidence held when the session was bound, and had expired when the window ended")
    if any(share.simulated and share.mean_w for share in output.power_by):
        found.append("some of the power was reported by hosts with a simulated TEE")
    return found


def _refused(kind: str, error: EnclaveScaleError, at_ms: int | None) -> dict[str, Any]:
    reached = error.verified if isinstance(error, VerificationError) else ()
    digest = bytes(32)
    ours = {"accepted": False, "codes": [error.code]}
    result = ear(at_ms or 0, "contraindicated", {"hardware": CONTRAINDICATED}, digest, ours, kind)
    return {
        **result,
        "kind": kind,
        "status": "contraindicated",
        "accepted": False,
        "at": None if at_ms is None else moment(at_ms),
        "codes": [error.code],
        "stages": list(STAGES),
        "verified": list(reached),
        "claims": None,
        "worker": None,
        "policy": None,
        "warnings": [],
        "errors": [{"code": error.code, "field": error.field, "message": str(error), "remedy": error.remedy}],
    }


def _worker(checked: CheckedOutput, session: VerifiedSession) -> dict[str, Any]:
    return {
        "host_id": session.host_id,
        "session_id": checked.session_id.hex(),
        "root": session.root_label,
        "simulated": session.simulated,
        "evidence_as_of": moment(session.binding.created_at_ms),
        "valid_from": moment(session.valid_from_ms),
        "expires": moment(session.expires_ms),
        "cluster_id": session.binding.cluster_id,
        "policy_signers": [one.hex() for one in session.binding.policy_signers],
    }


def _output_claims(checked: CheckedOutput) -> dict[str, Any]:
    output = checked.output
    return {
        "digest": checked.digest.hex(),
        "domain": output.domain,
        "window_start": moment(output.window_start_ms),
        "window_end": moment(output.window_end_ms),
        "revision": output.revision,
        "mean_w": None if output.mean is None else asdict(output.mean),
        "margin_w": None if output.margin.margin is None else asdict(output.margin.margin),
        "limit_w": output.margin.limit_w,
        "coverage": asdict(output.coverage),
        "accepted": output.accepted,
        "refused": {one.code: one.count for one in output.refused},
        "prev_output_digest": to_jsonable(output.prev_output_digest),
        "prev_output_digest_absent_reason": output.prev_output_digest_absent_reason,
        "prev_revision_digest": to_jsonable(output.prev_revision_digest),
        "manifest_root": to_jsonable(output.manifest_root),
        "refused_root": to_jsonable(output.refused_root),
        "source": to_jsonable(output.source),
        "core_version": output.core_version,
        "policy_counter": output.policy_counter,
        "policy_digest": output.policy_digest.hex(),
        "collateral_digest": to_jsonable(output.collateral_digest),
    }


def _manifest_claims(checked: CheckedManifest) -> dict[str, Any]:
    manifest = checked.manifest
    return {
        "digest": checked.digest.hex(),
        "domain": manifest.domain,
        "window_start": moment(manifest.window_start_ms),
        "window_end": moment(manifest.window_end_ms),
        "revision": manifest.revision,
        "chunk": manifest.chunk,
        "chunks": manifest.chunks,
        "accepted": manifest.accepted_count,
        "accepted_root": manifest.accepted_root.hex(),
        "refused": {one.code: one.count for one in manifest.refused},
        "refused_root": manifest.refused_root.hex(),
        "close_offset": manifest.close_offset,
    }
