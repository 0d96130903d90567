"""Find the records that prove what became of a report, and put them together.

Nothing on the topics is believed: what does not hold when checked is passed over, and the next candidate is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

from schemas.codec import (
    decode_signed_manifest,
    decode_signed_record,
)
from schemas.errors import EnclaveScaleError, SchemaError
from schemas.records import ControlRecord, WindowManifest, WindowReport
from stream_jobs.audit.document import ACCEPTED, REFUSED, Path, ReportProof
from stream_jobs.audit.errors import UNSOUND, RecordNotFound, RefusedTreeUnproven
from stream_jobs.audit.refused import RefusedRecord, refused_tree
from stream_jobs.audit.topics import AuditTopics, OutputRecord
from stream_jobs.core.log_digest import MAX_WITNESSES, record_witness
from stream_jobs.core.merkle import inclusion_path, merkle_root
from stream_jobs.log_record import LogRecord

SLACK_MS = 2 * 3600 * 1000
"""How far before a record's append time others are looked for that were written about when it was, ms."""

NEAR = 512
"""Chunks of one manifest stand together, in between at most those of a second worker: offsets looked at each way."""

MAX_COMBINATIONS = 256
"""Combinations of candidates for the chunks of one manifest that are tried."""

MAX_LETTERS = 16
"""Dead letters of one record that are tried: it may have been refused again and again."""

_DIGEST = "enclavescale.record.digest"
_PLACE = "__connect.errors.offset"
_SOURCE = ("__connect.errors.topic", "__connect.errors.partition")


@dataclass(frozen=True, slots=True)
class _Manifest:
    """A manifest on its topic, not verified."""

    record: LogRecord
    manifest: WindowManifest
    session_id: bytes


@dataclass(frozen=True, slots=True)
class _Letter:
    """A dead letter on its topic."""

    record: LogRecord
    offset: int
    digest: bytes
    code: str


class Prover:
    """Proves what became of reports. `check` refuses a proof that does not hold (`audit.check.Checker`)."""

    def __init__(self, topics: AuditTopics, check: Callable[[ReportProof], object]):
        self._topics, self._names, self._framing, self._check = topics, topics.names, topics.framing, check

    def prove(
        self,
        digest: bytes,
        *,
        verdict: str | None = None,
        revision: int | None = None,
        report: bytes | None = None,
    ) -> ReportProof:
        """A proof about the record of `digest`, 32 bytes.

        `verdict`: "accepted" or "refused", None for the first of them that there is; `revision`: of the output, None
        for the newest that counts it. `report`: the record's framed bytes, to go into the proof. Raises
        RecordNotFound, `RefusedTreeUnproven`, ReadFailed, or why the only candidate does not hold.
        """
        failures: list[EnclaveScaleError] = []
        for make in (
            *([self._accepted] if verdict in (None, ACCEPTED) else []),
            *([self._refused] if verdict in (None, REFUSED) else []),
        ):
            candidates = make(digest, revision, report)
            while True:
                try:
                    proof = next(candidates, None)
                    if proof is None:
                        break
                    self._check(proof)
                    return proof
                except UNSOUND as error:
                    failures.append(error)
        if failures:
            raise failures[0]
        raise RecordNotFound(self._why_none(digest, verdict))

    def _why_none(self, digest: bytes, verdict: str | None) -> str:
        letters = [] if verdict == ACCEPTED else self._letters_of(digest)
        if letters:
            place = f"offset {letters[0].offset}"
            return f"record {digest.hex()} was refused at {place} with {letters[0].code}; no output counts it (yet)"
        if verdict is None:
            return f"no manifest counts {digest.hex()} as accepted, and no dead letter has it"
        return f"the topics show no record {digest.hex()} as {verdict}"

    def reports_of(self, host_id: str, window_start_ms: int) -> Iterator[tuple[bytes, bytes]]:
        """(digest, framed bytes) of every report on the topic that claims to be of this host and window, in order.

        Anybody who may write to the topic can claim that.
        """
        for extent in self._topics.source.extents(self._names.reports):
            first = self._topics.source.offset_at(extent.topic, extent.partition, window_start_ms)
            for record in self._topics.between(extent.topic, extent.partition, first):
                if record.value is None or host_id.encode() not in record.value:
                    continue
                try:
                    decoded = decode_signed_record(record.value, self._framing)
                except SchemaError:
                    continue
                body = decoded.body
                if (
                    isinstance(body, WindowReport)
                    and body.host_id == host_id
                    and body.window_start_ms == window_start_ms
                ):
                    yield decoded.digest, record.value

    # -- accepted ----------------------------------------------------------------------------------------------

    def _accepted(self, digest: bytes, revision: int | None, report: bytes | None) -> Iterator[ReportProof]:
        hits = [
            (one, at)
            for one in self._manifests_with(digest)
            if (at := _place_of(digest, one.manifest)) is not None
            and (revision is None or one.manifest.revision == revision)
        ]
        for hit, at in sorted(hits, key=lambda one: -one[0].manifest.revision):
            chunks = self._chunks(hit)
            if not chunks:
                continue
            before = sum(len(chunks[chunk]) // 32 for chunk in range(hit.manifest.chunk))
            digests = _digests_in([part for _, part in sorted(chunks.items())])
            path = Path(index=before + at, count=len(digests), siblings=inclusion_path(digests, before + at))
            for output in self._outputs_of(hit):
                yield from self._assembled(
                    digest, ACCEPTED, path, None, output=output, manifest=hit.record, report=report
                )

    def _manifests_with(self, digest: bytes) -> Iterator[_Manifest]:
        """Manifests that hold these bytes anywhere: decoded only then."""
        for record in self._topics.all_of(self._names.manifests):
            if record.value is not None and digest in record.value and (one := self._manifest(record)):
                yield one

    def _manifest(self, record: LogRecord) -> _Manifest | None:
        try:
            signed = decode_signed_manifest(record.value or b"", self._framing)[0]
        except SchemaError:
            return None
        return _Manifest(record, signed.manifest, signed.session_id)

    def _chunks(self, hit: _Manifest) -> dict[int, bytes]:
        """Accepted digests of all chunks of the same output and session, by chunk; empty where they are not there.

        Of several candidates for a chunk, which anybody may have put there, those with the root that all of them name.
        """
        found: dict[int, dict[bytes, None]] = {hit.manifest.chunk: {hit.manifest.accepted_digests: None}}
        if hit.manifest.chunks > 1:
            place = hit.record
            near = self._topics.between(place.topic, place.partition, place.offset - NEAR, place.offset + NEAR + 1)
            for record in near:
                one = self._manifest(record) if record.key == place.key else None
                if one is not None and _same_output(one, hit) and one.manifest.chunk != hit.manifest.chunk:
                    found.setdefault(one.manifest.chunk, {})[one.manifest.accepted_digests] = None
        if sorted(found) != list(range(hit.manifest.chunks)):
            return {}
        for parts in islice(product(*(found[chunk] for chunk in range(hit.manifest.chunks))), MAX_COMBINATIONS):
            if merkle_root(_digests_in(parts)) == hit.manifest.accepted_root:
                return dict(enumerate(parts))
        return {}

    def _outputs_of(self, hit: _Manifest) -> Iterator[OutputRecord]:
        """Outputs of the window and revision that the session of a manifest signed, in order."""
        manifest, place = hit.manifest, hit.record
        for output in self._outputs(place.partition, place.timestamp_ms, manifest.domain):
            made = output.output
            if (made.domain, made.window_start_ms, made.revision) == (
                manifest.domain,
                manifest.window_start_ms,
                manifest.revision,
            ) and output.signed.worker.session_id == hit.session_id:
                yield output

    def _outputs(self, partition: int, near_ms: int, domain: str | None = None) -> Iterator[OutputRecord]:
        """Outputs of a partition from shortly before an append time on, of one domain or of all."""
        first = self._topics.source.offset_at(self._names.output, partition, near_ms - SLACK_MS)
        for record in self._topics.between(self._names.output, partition, first):
            if found := self._topics.as_output(record, domain):
                yield found

    # -- refused -----------------------------------------------------------------------------------------------

    def _refused(self, digest: bytes, revision: int | None, report: bytes | None) -> Iterator[ReportProof]:
        unproven = None
        for letter in self._letters_of(digest)[:MAX_LETTERS]:
            for output, closes, after in self._outputs_after(letter):
                if revision is not None and output.output.revision != revision:
                    continue
                for manifest in self._first_chunks(output, letter.record.partition, letter.record.timestamp_ms):
                    letters = self._letters(letter.record.partition, manifest.manifest, after)
                    try:
                        paths = refused_tree(manifest.manifest, letters, closes).path_of(digest)
                    except RefusedTreeUnproven as error:
                        unproven = unproven or error
                        continue
                    if paths is not None:
                        yield from self._assembled(
                            digest, REFUSED, *paths, output=output, manifest=manifest.record, report=report
                        )
        if unproven is not None:
            raise unproven

    def _letters_of(self, digest: bytes) -> list[_Letter]:
        wanted = digest.hex().encode()
        return [
            letter
            for record in self._topics.all_of(self._names.rejections)
            if (_DIGEST, wanted) in record.headers and (letter := self._letter(record)) is not None
        ]

    def _letter(self, record: LogRecord) -> _Letter | None:
        """A dead letter of the reports topic with a digest; None for any other record."""
        headers = {name: value or b"" for name, value in record.headers}
        offset, digest = headers.get(_PLACE, b""), headers.get(_DIGEST, b"")
        source = tuple(headers.get(name) for name in _SOURCE)
        if source != (self._names.reports.encode(), str(record.partition).encode()) or not offset.isdigit():
            return None
        try:
            code = headers.get("enclavescale.error.code", b"").decode("utf-8", "replace")
            return _Letter(record, int(offset), bytes.fromhex(digest.decode("ascii")), code) if digest else None
        except ValueError:
            return None

    def _letters(self, partition: int, manifest: WindowManifest, after: int) -> dict[int, RefusedRecord]:
        """Dead letters that a manifest may count, by source offset: those it names, else all since offset `after`.

        Of copies the first counts, but one that is as the manifest says before any other.
        """
        named = {one.offset: one.digest for one in manifest.witnesses}
        flood = len(named) >= MAX_WITNESSES
        found: dict[int, RefusedRecord] = {}
        for record in self._topics.between(self._names.rejections, partition, 0):
            letter = self._letter(record)
            if letter is None or not (
                after < letter.offset < manifest.close_offset if flood else letter.offset in named
            ):
                continue
            # Headers of the original are not in its dead letter; hardly any record has some.
            exact = named.get(letter.offset) == record_witness(replace(record, headers=()))
            if letter.offset in found and not exact:
                continue
            domain, stray = self._whose(letter) if flood else ("", False)
            found[letter.offset] = RefusedRecord(letter.offset, letter.digest, domain, stray)
        return found

    def _whose(self, letter: _Letter) -> tuple[str, bool]:
        """Domain of a dead letter, and whether it may have been of no domain; of none for what cannot be decoded."""
        try:
            body = decode_signed_record(letter.record.value or b"", self._framing).body
        except SchemaError:
            return "", False
        return body.domain, isinstance(body, ControlRecord) or letter.code == "NO_POLICY"

    def _outputs_after(self, letter: _Letter) -> Iterator[tuple[OutputRecord, list[int], int]]:
        """Outputs that may count a dead letter: those closed next after it, its domain's first.

        With the closes before, and the close of the same domain's output before, -1 if that is not known.
        """
        partition = letter.record.partition
        domain, _ = self._whose(letter)
        outputs = [
            one
            for one in self._outputs(partition, letter.record.timestamp_ms)
            if one.output.source.partition == partition
        ]
        closes = {one.digest: one.output.source.close_offset for one in outputs}
        names = sorted({one.output.domain for one in outputs}, key=lambda name: (name != domain, name))
        for name in names:
            mine = [one for one in outputs if one.output.domain == name]
            later = [closes[one.digest] for one in mine if closes[one.digest] > letter.offset]
            if not later:
                continue
            close = min(later)
            after = max((closes[one.digest] for one in mine if closes[one.digest] < close), default=-1)
            earlier = [at for at in closes.values() if at < close]
            yield from ((one, earlier, after) for one in mine if closes[one.digest] == close)

    def _first_chunks(self, output: OutputRecord, partition: int, near_ms: int) -> Iterator[_Manifest]:
        """First chunks of an output's manifest that name its session and say what it says of refused records: several
        where somebody put forged ones there."""
        made, topic = output.output, self._names.manifests
        key = f"{made.domain}/{made.window_start_ms}".encode()
        first = self._topics.source.offset_at(topic, partition, near_ms - SLACK_MS)
        for record in self._topics.between(topic, partition, first):
            if record.key != key or (one := self._manifest(record)) is None:
                continue
            if (
                one.manifest.chunk == 0
                and one.manifest.revision == made.revision
                and one.session_id == output.signed.worker.session_id
                and one.manifest.refused_root == made.refused_root
                and one.manifest.refused_count > 0
            ):
                yield one

    # -- together ----------------------------------------------------------------------------------------------

    def _assembled(
        self,
        digest: bytes,
        verdict: str,
        path: Path,
        outer: Path | None,
        *,
        output: OutputRecord,
        manifest: LogRecord,
        report: bytes | None,
    ) -> Iterator[ReportProof]:
        policies = self._topics.policies(output.output.policy_digest)
        sets = self._topics.collateral(output.output.collateral_digest)
        for (policy, signer), collateral in product(policies, sets):
            yield ReportProof(
                digest=digest,
                verdict=verdict,
                path=path,
                outer=outer,
                output=output.value,
                manifest=manifest.value or b"",
                policy=policy,
                policy_signer=signer,
                collateral=collateral,
                report=report,
            )


def _place_of(digest: bytes, manifest: WindowManifest) -> int | None:
    """Which of a chunk's digests this one is; None if it is none."""
    held = manifest.accepted_digests
    at = held.find(digest)
    while at >= 0 and at % 32:
        at = held.find(digest, at + 1)
    return None if at < 0 else at // 32


def _digests_in(parts: Sequence[bytes]) -> list[bytes]:
    return [part[i : i + 32] for part in parts for i in range(0, len(part), 32)]


def _same_output(one: _Manifest, other: _Manifest) -> bool:
    mine, theirs = one.manifest, other.manifest
    return one.session_id == other.session_id and (
        (mine.domain, mine.window_start_ms, mine.revision, mine.chunks, mine.accepted_root)
        == (theirs.domain, theirs.window_start_ms, theirs.revision, theirs.chunks, theirs.accepted_root)
    )
