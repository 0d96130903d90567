"""Check a proof offline: pure functions of the document and of whose policies are trusted."""

from __future__ import annotations

from dataclasses import dataclass, fields

from schemas.codec import SINGLE_OBJECT, Framing, decode_signed_policy, decode_signed_record
from schemas.mapping import to_jsonable
from schemas.records import FleetPower, Interval, WindowReport
from stream_jobs.audit.document import ACCEPTED, OUTPUTS, EquivocationProof, Path, Proof, ReportProof, Said
from stream_jobs.audit.errors import InclusionInvalid, NotEquivocation, PolicySignerNeeded, ProofMismatch
from stream_jobs.audit.outputs import (
    CheckedManifest,
    CheckedOutput,
    PolicyOpener,
    check_manifest,
    check_output,
    collateral_of,
)
from stream_jobs.core.emit import MANIFEST_CHUNK_DIGESTS
from stream_jobs.core.merkle import is_included, path_root
from stream_jobs.core.sessions import SessionVerifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """What is known of a verified output. Powers in W, times in UTC ms; `digest`, `session_id` of 32 bytes."""

    domain: str
    window_start_ms: int
    window_end_ms: int
    revision: int
    digest: bytes
    mean: Interval | None
    mean_absent_reason: str | None
    margin: Interval | None
    margin_absent_reason: str | None
    limit_w: int
    accepted: int
    refused: int
    topic: str
    partition: int
    close_offset: int
    core_version: str
    worker: str
    session_id: bytes
    root: str
    simulated: bool
    policy_counter: int
    policy_digest: bytes
    policy_signer: bytes
    collateral_digest: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportStatement:
    """What a `ReportProof` proves. `host_id` and `seq` are None unless the report itself is in the proof."""

    digest: bytes
    verdict: str
    index: int
    count: int
    published: Published
    host_id: str | None
    seq: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EquivocationStatement:
    """What an `EquivocationProof` proves: `first` and `second` differ in `fields`."""

    records: str
    first: Published
    second: Published
    fields: tuple[str, ...]


Statement = ReportStatement | EquivocationStatement


@dataclass(frozen=True, slots=True, kw_only=True)
class Checker:
    """What proofs are checked with. `open_policy` refuses policies of untrusted signers; None trusts nobody."""

    open_policy: PolicyOpener | None
    verify: SessionVerifier
    framing: Framing = SINGLE_OBJECT

    def check(self, proof: Proof) -> Statement:
        """What `proof` proves. Raises VerificationError, SchemaError or ConfigError with a code for all else."""
        if isinstance(proof, ReportProof):
            return self._report(proof)
        return self._equivocation(proof)

    def check_said(self, said: Said) -> CheckedOutput:
        """One side of a contradiction: its output, and its manifest if it has one. Raises as `check`."""
        output = self._output(said)
        if said.manifest is not None:
            check_manifest(said.manifest, output, self.framing)
        return output

    def _output(self, proof: ReportProof | Said) -> CheckedOutput:
        if self.open_policy is None:
            signer = proof.policy_signer.hex()
            raise PolicySignerNeeded(f"the proof rests on policies of signer {signer}", field="policy_signer")
        view = self.open_policy(proof.policy)
        if decode_signed_policy(proof.policy, self.framing)[0].signer_public_key != proof.policy_signer:
            raise ProofMismatch("the policy is signed by another key than the proof says", field="policy_signer")
        collateral = collateral_of(proof.collateral, self.framing)
        return check_output(proof.output, view, self.verify, self.framing, collateral=collateral)

    def _report(self, proof: ReportProof) -> ReportStatement:
        output = self._output(proof)
        manifest = check_manifest(proof.manifest, output, self.framing)
        if proof.verdict == ACCEPTED:
            _check_accepted(proof, manifest)
        else:
            _check_refused(proof, manifest)
        report = self._own(proof, output.output)
        return ReportStatement(
            digest=proof.digest,
            verdict=proof.verdict,
            index=proof.path.index,
            count=proof.path.count,
            published=published_of(output, proof.policy_signer),
            host_id=report.host_id if report else None,
            seq=report.seq if report else None,
        )

    def _own(self, proof: ReportProof, output: FleetPower) -> WindowReport | None:
        """The report in the proof, if it has one. `ProofMismatch` where it is another one than was counted."""
        if proof.report is None:
            return None
        decoded = decode_signed_record(proof.report, self.framing)
        if decoded.digest != proof.digest:
            raise ProofMismatch("the report in the proof has another digest", field="report")
        body = decoded.body if isinstance(decoded.body, WindowReport) else None
        if proof.verdict == ACCEPTED and (
            body is None or (body.domain, body.window_start_ms) != (output.domain, output.window_start_ms)
        ):
            raise ProofMismatch("the report in the proof is of another domain or window", field="report")
        return body

    def _equivocation(self, proof: EquivocationProof) -> EquivocationStatement:
        one, other = (self._output(said) for said in proof.said)
        key, other_key = (_key(checked.output) for checked in (one, other))
        if key != other_key:
            raise NotEquivocation("the outputs are of different domains, windows or revisions", field="said")
        if proof.records == OUTPUTS:
            if one.digest == other.digest:
                raise NotEquivocation("both outputs are the same", field="said")
            differing = _differing(one.output, other.output)
        else:
            differing = self._manifests(proof.said, (one, other))
        first, second = (
            published_of(checked, said.policy_signer) for checked, said in zip((one, other), proof.said, strict=True)
        )
        return EquivocationStatement(records=proof.records, first=first, second=second, fields=differing)

    def _manifests(self, said: tuple[Said, Said], outputs: tuple[CheckedOutput, CheckedOutput]) -> tuple[str, ...]:
        one, other = (
            check_manifest(each.manifest or b"", output, self.framing)
            for each, output in zip(said, outputs, strict=True)
        )
        if one.manifest.chunk != other.manifest.chunk or one.digest == other.digest:
            raise NotEquivocation("the manifests are of different chunks, or the same", field="said")
        return _differing(one.manifest, other.manifest)


def _check_accepted(proof: ReportProof, checked: CheckedManifest) -> None:
    manifest, path = checked.manifest, proof.path
    if proof.outer is not None:
        raise ProofMismatch("an accepted report stands in one tree", field="outer")
    if path.count != manifest.accepted_count:
        raise InclusionInvalid(f"a tree of {path.count}; {manifest.accepted_count} were accepted", field="path.count")
    chunk, at = divmod(path.index, MANIFEST_CHUNK_DIGESTS)
    if chunk != manifest.chunk or manifest.accepted_digests[32 * at : 32 * at + 32] != proof.digest:
        raise InclusionInvalid("the manifest has another report at this place", field="manifest")
    if not is_included(proof.digest, path.index, path.count, path.siblings, manifest.accepted_root):
        raise InclusionInvalid("the path does not lead to the root of accepted reports", field="path")


def _check_refused(proof: ReportProof, checked: CheckedManifest) -> None:
    manifest, last = checked.manifest, proof.outer or proof.path
    if last.count != manifest.refused_count:
        raise InclusionInvalid(f"a tree of {last.count}; it has {manifest.refused_count} entries", field="path.count")
    entry = proof.digest
    if proof.outer is not None:
        found = path_root(proof.digest, proof.path.index, proof.path.count, proof.path.siblings)
        if found is None or proof.outer.index != proof.outer.count - 1:
            raise InclusionInvalid("the path is none of the tree of records of no domain", field="path")
        entry = found
    if not is_included(entry, last.index, last.count, last.siblings, manifest.refused_root):
        raise InclusionInvalid("the path does not lead to the root of refused records", field="path")


def _key(output: FleetPower) -> tuple[str, int, int]:
    return output.domain, output.window_start_ms, output.revision


def _differing(one: object, other: object) -> tuple[str, ...]:
    """Fields in which two records of one type differ."""
    names = [field.name for field in fields(one)]  # type: ignore[arg-type]
    return tuple(name for name in names if to_jsonable(getattr(one, name)) != to_jsonable(getattr(other, name)))


def published_of(checked: CheckedOutput, policy_signer: bytes) -> Published:
    """What a verified output says, and who said it."""
    output = checked.output
    return Published(
        domain=output.domain,
        window_start_ms=output.window_start_ms,
        window_end_ms=output.window_end_ms,
        revision=output.revision,
        digest=checked.digest,
        mean=output.mean,
        mean_absent_reason=output.mean_absent_reason,
        margin=output.margin.margin,
        margin_absent_reason=output.margin.margin_absent_reason,
        limit_w=output.margin.limit_w,
        accepted=output.accepted,
        refused=sum(one.count for one in output.refused),
        topic=output.source.topic,
        partition=output.source.partition,
        close_offset=output.source.close_offset,
        core_version=output.core_version,
        worker=checked.signed.worker.host_id,
        session_id=checked.session_id,
        root=checked.worker.root_label,
        simulated=checked.worker.simulated,
        policy_counter=output.policy_counter,
        policy_digest=output.policy_digest,
        policy_signer=policy_signer,
        collateral_digest=output.collateral_digest,
    )


__all__ = [
    "Checker",
    "EquivocationStatement",
    "Path",
    "Published",
    "ReportStatement",
    "Statement",
    "published_of",
]
