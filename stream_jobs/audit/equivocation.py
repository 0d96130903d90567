"""Find aggregators that signed two different things for one window and revision, and make the evidence.

The core is a function of the log: two honest workers that publish the same window publish the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import combinations, product

from schemas.codec import decode_signed_manifest, record_digest
from schemas.errors import EnclaveScaleError, SchemaError
from stream_jobs.audit.document import MANIFESTS, OUTPUTS, EquivocationProof, Said
from stream_jobs.audit.errors import UNSOUND, NotEquivocation
from stream_jobs.audit.topics import AuditTopics, OutputRecord
from stream_jobs.log_record import LogRecord

MAX_VERSIONS = 8
"""Different records kept of one window and revision: a flood of forged ones costs no memory."""

Key = tuple[str, int, int, int]
"""Domain, window start (ms), revision, chunk (0 for outputs)."""

Place = tuple[str, int, int]
"""Topic, partition, offset."""


@dataclass(slots=True)
class Sighting:
    """What a scan saw. `outputs`, `manifests`: records read; `contested`: windows and revisions with several versions;
    `unproven`: pairs of versions of which at least one does not verify, with the code of the first failure.
    """

    outputs: int = 0
    manifests: int = 0
    contested: int = 0
    unproven: list[tuple[Place, Place, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Version:
    place: Place
    digest: bytes
    session_id: bytes


class EquivocationFinder:
    """Looks for contradicting records. `check` refuses a proof that does not hold (`audit.check.Checker`)."""

    def __init__(self, topics: AuditTopics, check: Callable[[EquivocationProof], object]):
        self._topics, self._check = topics, check
        self.seen = Sighting()

    def find(
        self, domain: str | None = None, from_ms: int = 0, to_ms: int | None = None
    ) -> Iterator[EquivocationProof]:
        """Evidence about windows of one domain or of all that begin in [from_ms, to_ms), one proof for each."""

        def wanted(name: str, start_ms: int) -> bool:
            return domain in (None, name) and from_ms <= start_ms and (to_ms is None or start_ms < to_ms)

        yield from self._contradictions(OUTPUTS, self._outputs(wanted))
        yield from self._contradictions(MANIFESTS, self._manifests(wanted))

    def _outputs(self, wanted: Callable[[str, int], bool]) -> Iterator[tuple[Key, _Version]]:
        for record in self._topics.all_of(self._topics.names.output):
            self.seen.outputs += 1
            found = self._topics.as_output(record)
            if found is not None and wanted(found.output.domain, found.output.window_start_ms):
                output = found.output
                key = (output.domain, output.window_start_ms, output.revision, 0)
                yield key, _Version(_place(record), found.digest, found.signed.worker.session_id)

    def _manifests(self, wanted: Callable[[str, int], bool]) -> Iterator[tuple[Key, _Version]]:
        for record in self._topics.all_of(self._topics.names.manifests):
            self.seen.manifests += 1
            try:
                signed, preimage = decode_signed_manifest(record.value or b"", self._topics.framing)
            except SchemaError:
                continue
            one = signed.manifest
            if wanted(one.domain, one.window_start_ms):
                key = (one.domain, one.window_start_ms, one.revision, one.chunk)
                yield key, _Version(_place(record), record_digest(preimage), signed.session_id)

    def _contradictions(self, records: str, versions: Iterator[tuple[Key, _Version]]) -> Iterator[EquivocationProof]:
        first: dict[Key, _Version] = {}
        contested: dict[Key, list[_Version]] = {}
        for key, version in versions:
            known = first.setdefault(key, version)
            if known.digest != version.digest:
                held = contested.setdefault(key, [known])
                if len(held) < MAX_VERSIONS and all(one.digest != version.digest for one in held):
                    held.append(version)
        self.seen.contested += len(contested)
        for key in sorted(contested):
            yield from self._proofs(records, contested[key])

    def _proofs(self, records: str, versions: list[_Version]) -> Iterator[EquivocationProof]:
        """One proof of a window, if any two of its versions make one."""
        for one, other in combinations(versions, 2):
            failure: EnclaveScaleError = NotEquivocation("no output of the manifests' sessions is on the topic")
            for proof in self._candidates(records, one, other):
                try:
                    self._check(proof)
                except UNSOUND as error:
                    failure = error
                    continue
                yield proof
                return
            self.seen.unproven.append((one.place, other.place, failure.code))

    def _candidates(self, records: str, one: _Version, other: _Version) -> Iterator[EquivocationProof]:
        for first in self._said(records, one):
            for second in self._said(records, other):
                yield EquivocationProof(records=records, said=(first, second))

    def _said(self, records: str, version: _Version) -> Iterator[Said]:
        topic, partition, offset = version.place
        for record in self._topics.between(topic, partition, offset, offset + 1):
            if records == OUTPUTS:
                found = self._topics.as_output(record)
                outputs, manifest = [found] if found else [], None
            else:
                outputs, manifest = list(self._outputs_of(record, version.session_id)), record.value or b""
            for output in outputs:
                try:
                    policies = self._topics.policies(output.output.policy_digest)
                    sets = self._topics.collateral(output.output.collateral_digest)
                except UNSOUND:
                    continue
                for (policy, signer), collateral in product(policies, sets):
                    yield Said(
                        output=output.value,
                        manifest=manifest,
                        policy=policy,
                        policy_signer=signer,
                        collateral=collateral,
                    )

    def _outputs_of(self, manifest: LogRecord, session_id: bytes) -> Iterator[OutputRecord]:
        """Outputs under the key of a manifest that its session signed."""
        for record in self._topics.between(self._topics.names.output, manifest.partition, 0):
            found = self._topics.as_output(record) if record.key == manifest.key else None
            if found is not None and found.signed.worker.session_id == session_id:
                yield found


def _place(record: LogRecord) -> Place:
    return record.topic, record.partition, record.offset
