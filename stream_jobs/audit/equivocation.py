"""Find aggregators that signed two different things for one window and revision, and make the evidence.

The core is a function of the log: two honest workers that publish the same window publish the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

from schemas.codec import decode_signed_manifest, record_digest
from schemas.errors import EnclaveScaleError, SchemaError
from stream_jobs.audit.check import Checker
from stream_jobs.audit.document import MANIFESTS, OUTPUTS, EquivocationProof, Said
from stream_jobs.audit.errors import UNSOUND, NotEquivocation
from stream_jobs.audit.topics import AuditTopics, OutputRecord
from stream_jobs.log_record import LogRecord

MAX_VERSIONS = 8
"""Different records kept of one window and revision, of those that verify and of those that do not."""

MAX_SAID = 64
"""Verified outputs kept of one window and revision, by session, for manifests that contradict each other."""

Key = tuple[str, int, int, int]
"""Domain, window start (ms), revision, chunk (0 for outputs)."""

Window = tuple[str, int, int]
"""Domain, window start (ms), revision."""

Place = tuple[str, int, int]
"""Topic, partition, offset."""

Wanted = Callable[[str, int], bool]
"""Whether windows of a domain that begin at a time (ms) are looked at."""


@dataclass(slots=True)
class Sighting:
    """What a scan saw. `outputs`, `manifests`: records read; `contested`: windows and revisions with several versions;
    `unproven`: another version, one that does not verify, and the code of why, of windows that give no proof.
    """

    outputs: int = 0
    manifests: int = 0
    contested: int = 0
    unproven: list[tuple[Place, Place, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Version:
    """One record of a window; `digest` is that of what was signed, so that copies of several workers have one."""

    key: Key
    place: Place
    digest: bytes
    session_id: bytes
    record: LogRecord


@dataclass(slots=True)
class _Contested:
    """A window and revision of which there are several versions: places of two, what verifies, what does not."""

    first: Place
    second: Place
    sound: dict[bytes, Said] = field(default_factory=dict)
    unsound: list[tuple[Place, str]] = field(default_factory=list)

    def unproven(self) -> Iterator[tuple[Place, Place, str]]:
        """Pairs of which the latter does not verify."""
        for place, code in self.unsound:
            yield (self.second if place == self.first else self.first), place, code


class EquivocationFinder:
    """Looks for contradicting records. `checker` refuses what does not hold."""

    def __init__(self, topics: AuditTopics, checker: Checker):
        self._topics, self._checker = topics, checker
        self.seen = Sighting()

    def find(
        self, domain: str | None = None, from_ms: int = 0, to_ms: int | None = None
    ) -> Iterator[EquivocationProof]:
        """Evidence about windows of one domain or of all that begin in [from_ms, to_ms), one proof for each.

        The topics are read once, and where a window has several versions, a second time to verify them: a version
        that does not verify neither is evidence nor keeps one that is from being found, however many there are.
        """

        def wanted(name: str, start_ms: int) -> bool:
            return domain in (None, name) and from_ms <= start_ms and (to_ms is None or start_ms < to_ms)

        outputs = _contested(self._outputs(wanted, count=True))
        manifests = _contested(self._manifests(wanted, count=True))
        self.seen.contested = len(outputs) + len(manifests)
        said = self._verified_outputs(outputs, {key[:3] for key in manifests}, wanted)
        self._verify_manifests(manifests, said, wanted)
        for records, found in ((OUTPUTS, outputs), (MANIFESTS, manifests)):
            for _, one in sorted(found.items()):
                yield from self._proof(records, one)

    def _proof(self, records: str, found: _Contested) -> Iterator[EquivocationProof]:
        if len(found.sound) < 2:
            self.seen.unproven += found.unproven()
            return
        first, second, *_ = found.sound.values()
        proof = EquivocationProof(records=records, said=(first, second))
        self._checker.check(proof)
        yield proof

    # -- what there is -----------------------------------------------------------------------------------------

    def _outputs(self, wanted: Wanted, *, count: bool = False) -> Iterator[_Version]:
        for record in self._topics.all_of(self._topics.names.output):
            self.seen.outputs += count
            found = self._topics.as_output(record)
            if found is not None and wanted(found.output.domain, found.output.window_start_ms):
                output = found.output
                key = (output.domain, output.window_start_ms, output.revision, 0)
                yield _Version(key, _place(record), found.digest, found.signed.worker.session_id, record)

    def _manifests(self, wanted: Wanted, *, count: bool = False) -> Iterator[_Version]:
        for record in self._topics.all_of(self._topics.names.manifests):
            self.seen.manifests += count
            try:
                signed, preimage = decode_signed_manifest(record.value or b"", self._topics.framing)
            except SchemaError:
                continue
            one = signed.manifest
            if wanted(one.domain, one.window_start_ms):
                key = (one.domain, one.window_start_ms, one.revision, one.chunk)
                yield _Version(key, _place(record), record_digest(preimage), signed.session_id, record)

    # -- what of it verifies -----------------------------------------------------------------------------------

    def _verified_outputs(
        self, contested: dict[Key, _Contested], windows: set[Window], wanted: Wanted
    ) -> dict[Window, dict[tuple[bytes, bytes], Said]]:
        """Verify the outputs of contested windows, and of those `windows` whose manifests are: those are returned, by
        session and digest."""
        kept: dict[Window, dict[tuple[bytes, bytes], Said]] = {window: {} for window in windows}
        if not contested and not windows:
            return kept
        for version in self._outputs(wanted):
            found, said = contested.get(version.key), kept.get(version.key[:3])
            known = found is None or version.digest in found.sound or len(found.sound) == MAX_VERSIONS
            mine = (version.session_id, version.digest)
            if known and (said is None or mine in said or len(said) == MAX_SAID):
                continue
            output = self._topics.as_output(version.record)
            one = None if output is None else self._first(found, version, self._said_of(output, None))
            if one is not None:
                if not known and found is not None:
                    found.sound[version.digest] = one
                if said is not None:
                    said[mine] = one
        return kept

    def _verify_manifests(
        self,
        contested: dict[Key, _Contested],
        outputs: dict[Window, dict[tuple[bytes, bytes], Said]],
        wanted: Wanted,
    ) -> None:
        """Verify the manifests of contested windows, each beside an output of its session."""
        for version in self._manifests(wanted) if contested else ():
            found = contested.get(version.key)
            if found is None or version.digest in found.sound or len(found.sound) == MAX_VERSIONS:
                continue
            value = version.record.value or b""
            candidates = (
                Said(
                    output=one.output,
                    manifest=value,
                    policy=one.policy,
                    policy_signer=one.policy_signer,
                    collateral=one.collateral,
                )
                for (session_id, _), one in outputs[version.key[:3]].items()
                if session_id == version.session_id
            )
            if (said := self._first(found, version, candidates)) is not None:
                found.sound[version.digest] = said

    def _first(self, found: _Contested | None, version: _Version, candidates: Iterable[Said]) -> Said | None:
        """The first candidate that verifies; None is noted with the first reason."""
        failure: EnclaveScaleError | None = None
        try:
            for said in candidates:
                try:
                    self._checker.check_said(said)
                except UNSOUND as error:
                    failure = failure or error
                else:
                    return said
        except UNSOUND as error:
            failure = failure or error
        if found is not None and len(found.unsound) < MAX_VERSIONS:
            found.unsound.append((version.place, (failure or NotEquivocation("no output of its session")).code))
        return None

    def _said_of(self, output: OutputRecord, manifest: bytes | None) -> Iterator[Said]:
        """An output with every policy and set of collateral that it may mean. Raises RecordNotFound."""
        policies = self._topics.policies(output.output.policy_digest)
        sets = self._topics.collateral(output.output.collateral_digest)
        for (policy, signer), collateral in product(policies, sets):
            yield Said(
                output=output.value, manifest=manifest, policy=policy, policy_signer=signer, collateral=collateral
            )


def _contested(versions: Iterator[_Version]) -> dict[Key, _Contested]:
    """Windows and revisions of which there are records with different digests."""
    first: dict[Key, tuple[bytes, Place]] = {}
    found: dict[Key, _Contested] = {}
    for version in versions:
        digest, place = first.setdefault(version.key, (version.digest, version.place))
        if digest != version.digest and version.key not in found:
            found[version.key] = _Contested(place, version.place)
    return found


def _place(record: LogRecord) -> Place:
    return record.topic, record.partition, record.offset
