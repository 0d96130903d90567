"""Judge one output or one manifest: who signed it, in what measured code, under which policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from schemas.codec import (
    SINGLE_OBJECT,
    Framing,
    decode_collateral,
    decode_signed_manifest,
    decode_signed_output,
    encode_binding,
    record_digest,
    session_id_of,
)
from schemas.collateral import item_digest, item_parts, set_digest
from schemas.records import FleetPower, SignedFleetPower, SignedWindowManifest, WindowManifest
from stream_jobs.audit.errors import (
    ChainFieldsInvalid,
    CollateralOther,
    ManifestMismatch,
    PolicyNotInForce,
    PolicyOther,
    WorkerMismatch,
)
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.sessions import SessionVerifier, verify_evidence
from stream_jobs.core.windows import Verified
from verifier.errors import EvidenceMissing, VerificationError
from verifier.signature import load_session_key, verify_record_signature
from verifier.trust.store import Collateral

STAGES = ("format", "policy", "worker", "signature", "evidence", "chain")
"""Of the verification of an output, in order."""

PolicyOpener = Callable[[bytes], PolicyView]
"""A signed policy's framed bytes to the policy, if its signer is trusted; raises our errors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedOutput:
    """An output that an attested aggregator signed. `digest`: its identity, 32 bytes; `worker`: the session's evidence,
    verified; `session_id`: 32 bytes."""

    signed: SignedFleetPower
    digest: bytes
    view: PolicyView
    worker: Verified
    session_id: bytes

    @property
    def output(self) -> FleetPower:
        """What was signed."""
        return self.signed.output


def read_output(value: bytes, framing: Framing = SINGLE_OBJECT) -> tuple[SignedFleetPower, bytes]:
    """The output in framed bytes, not verified, and its digest. Raises SchemaError."""
    signed, preimage = decode_signed_output(value, framing)
    return signed, record_digest(preimage)


def collateral_of(values: Iterable[bytes], framing: Framing = SINGLE_OBJECT) -> CollateralView | None:
    """The set of these items, framed bytes as on the collateral topic; None for none. Raises SchemaError, and
    VerificationError for too many.
    """
    items = {item_digest(item): item for item in (decode_collateral(value, framing) for value in values)}
    if not items:
        return None
    parts = [part for _, item in sorted(items.items()) for part in item_parts(item)]
    return CollateralView(set_digest(items), Collateral.of(parts))


def check_output(
    value: bytes,
    view: PolicyView,
    verify: SessionVerifier,
    framing: Framing = SINGLE_OBJECT,
    *,
    collateral: CollateralView | None = None,
) -> CheckedOutput:
    """Verify an output, framed bytes as on the topic, under `view`. Raises SchemaError or VerificationError.

    `collateral`: the set that the output names; any, or none, if it names none. `check_worker` says as of when the
    evidence is judged.
    """
    signed, preimage = decode_signed_output(value, framing)
    reached = ["format"]
    try:
        check_policy(signed.output, view)
        check_collateral(signed.output, collateral)
        reached.append("policy")
        sets = () if collateral is None else (collateral,)
        worker = check_worker(signed, preimage, view, verify, sets, reached=reached)
        check_chain_fields(signed.output)
    except VerificationError as error:
        error.verified = tuple(reached)
        raise
    session_id = signed.worker.session_id
    return CheckedOutput(signed=signed, digest=record_digest(preimage), view=view, worker=worker, session_id=session_id)


def check_worker(
    signed: SignedFleetPower,
    preimage: bytes,
    view: PolicyView,
    verify: SessionVerifier,
    sets: Sequence[CollateralView] = (),
    *,
    reached: list[str] | None = None,
) -> Verified:
    """The evidence of the attested aggregator that signed an output, verified under `view`. Raises VerificationError.

    It is judged as of when its session was bound; under collateral, of which one of `sets` must do, as of the window's
    end where that is later: a set that is in force need not hold what was current before. `reached` takes the stages
    that were passed.
    """
    reached = [] if reached is None else reached
    evidence = signed.worker.evidence
    if evidence is None:
        raise EvidenceMissing("the output carries no evidence of its worker", field="worker.evidence")
    binding_bytes, created_ms = encode_binding(evidence.binding), evidence.binding.created_at_ms
    session_id = session_id_of(binding_bytes)
    if evidence.binding.host_id != signed.worker.host_id:
        raise WorkerMismatch("the worker's host_id differs from its session binding", field="worker.host_id")
    if session_id != signed.worker.session_id:
        raise WorkerMismatch("the worker's session_id is not its binding's", field="worker.session_id")
    reached.append("worker")
    verify_record_signature(load_session_key(evidence.binding.session_public_key), preimage, signed.signature)
    reached.append("signature")
    failures: list[VerificationError] = []
    for collateral in sets or (None,):
        try:
            worker = verify_evidence(
                verify,
                evidence,
                binding_bytes,
                session_id=session_id,
                view=view,
                role="aggregator",
                now_ms=created_ms if collateral is None else max(created_ms, signed.output.window_end_ms),
                collateral=collateral,
            )
        except VerificationError as error:
            failures.append(error)
        else:
            reached.append("evidence")
            return worker
    raise failures[0]


def check_collateral(output: FleetPower, collateral: CollateralView | None) -> None:
    """Where the output names a set of collateral, `collateral` is that set. `CollateralOther`."""
    named = output.collateral_digest
    if named is not None and (collateral is None or collateral.digest != named):
        at_hand = "none" if collateral is None else collateral.digest.hex()
        raise CollateralOther(f"the output names set {named.hex()}; this is {at_hand}", field="collateral_digest")


def check_policy(output: FleetPower, view: PolicyView) -> None:
    """The output rests on `view`, which was in force for its window. `PolicyOther`, `PolicyNotInForce`."""
    if output.policy_digest != view.digest or output.policy_counter != view.policy.counter:
        raise PolicyOther(
            f"the output names policy {output.policy_digest.hex()}, counter {output.policy_counter}; "
            f"this is {view.digest.hex()}, counter {view.policy.counter}",
            field="policy_digest",
        )
    rule = view.domains.get(output.domain)
    if rule is None or rule.partition != output.source.partition:
        raise PolicyNotInForce("the policy has no such domain in this partition", field="domain")
    if output.window_start_ms < view.policy.effective_from_ms or output.window_end_ms > view.policy.not_after_ms:
        raise PolicyNotInForce("the window lies outside of the policy's validity", field="window_start_ms")
    if output.window_end_ms - output.window_start_ms != rule.window_ms or output.window_start_ms % rule.window_ms:
        raise PolicyNotInForce("the window is none of the policy's", field="window_end_ms")


def check_chain_fields(output: FleetPower) -> None:
    """The fields that link an output to what was published before are there. `ChainFieldsInvalid`."""
    if (output.prev_output_digest is None) == (output.prev_output_digest_absent_reason is None):
        raise ChainFieldsInvalid("neither a digest nor a reason, or both", field="prev_output_digest")
    if (output.prev_revision_digest is None) == (output.prev_revision_digest_absent_reason is None):
        raise ChainFieldsInvalid("neither a digest nor a reason, or both", field="prev_revision_digest")
    if output.revision < 0 or (output.revision == 0) != (output.prev_revision_digest is None):
        raise ChainFieldsInvalid(f"revision {output.revision} does not fit", field="prev_revision_digest")
    if output.manifest_root is None:
        raise ChainFieldsInvalid("no root over the accepted reports", field="manifest_root")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedManifest:
    """A manifest chunk signed by the worker of an output, which it fits. `digest`: its identity, 32 bytes."""

    signed: SignedWindowManifest
    digest: bytes

    @property
    def manifest(self) -> WindowManifest:
        """What was signed."""
        return self.signed.manifest


def check_manifest(value: bytes, output: CheckedOutput, framing: Framing = SINGLE_OBJECT) -> CheckedManifest:
    """Verify a manifest, framed bytes as on the topic, of a verified output. Raises SchemaError, VerificationError."""
    signed, preimage = decode_signed_manifest(value, framing)
    evidence = output.signed.worker.evidence
    if evidence is None or signed.session_id != output.session_id:
        raise WorkerMismatch("the manifest is of another session than the output", field="session_id")
    verify_record_signature(load_session_key(evidence.binding.session_public_key), preimage, signed.signature)
    manifest, made = signed.manifest, output.output
    pairs = (
        ("domain", manifest.domain, made.domain),
        ("window_start_ms", manifest.window_start_ms, made.window_start_ms),
        ("window_end_ms", manifest.window_end_ms, made.window_end_ms),
        ("revision", manifest.revision, made.revision),
        ("close_offset", manifest.close_offset, made.source.close_offset),
        ("accepted_count", manifest.accepted_count, made.accepted),
        ("accepted_root", manifest.accepted_root, made.manifest_root),
        ("refused", manifest.refused, made.refused),
        ("refused_root", manifest.refused_root, made.refused_root),
    )
    for field, mine, other in pairs:
        if mine != other:
            raise ManifestMismatch(f"{field} differs from the output's", field=field)
    if not 0 <= manifest.chunk < manifest.chunks or len(manifest.accepted_digests) % 32:
        raise ManifestMismatch(f"chunk {manifest.chunk} of {manifest.chunks}", field="chunk")
    return CheckedManifest(signed=signed, digest=record_digest(preimage))
