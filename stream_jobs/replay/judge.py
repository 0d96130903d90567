"""The verdict on one window: what was computed beside what is on the topics."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from schemas.codec import (
    SINGLE_OBJECT,
    decode_signed_manifest,
    encode_signed_manifest,
    manifest_preimage,
    record_digest,
)
from schemas.errors import EnclaveScaleError
from schemas.records import WindowManifest
from stream_jobs.core.effects import Emission
from stream_jobs.core.partition import OutputKey
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.log_record import LogRecord
from stream_jobs.replay.ahead import Seen
from stream_jobs.replay.compare import difference, differences
from stream_jobs.replay.desk import Desk
from stream_jobs.replay.published import PublishedManifest, PublishedOutput
from stream_jobs.replay.verdicts import Difference, Severity, Verdict, WindowVerdict, figures_of
from verifier.signature import load_session_key, verify_record_signature


class Judge:
    """Compares, and remembers in little what it has judged, so that copies that come later are known again."""

    def __init__(self, desk: Desk, reports_topic: str):
        self._desk, self._reports_topic = desk, reports_topic
        self._digests, self._keys = Seen(), Seen()

    def has_judged(self, key: OutputKey) -> bool:
        """Whether something was said about this window's revision. Asked once all is judged: it sorts."""
        return _tag(key) in self._keys

    def window(
        self, made: Emission, outputs: Sequence[PublishedOutput], manifests: Sequence[PublishedManifest]
    ) -> None:
        """Say the verdict on a window of which there is an output at least."""
        output, key = made.output, key_of(made)
        self._digests.add(made.digest)
        self._keys.add(_tag(key))
        for one in outputs:
            self._digests.add(one.digest)
        match = next((one for one in outputs if one.digest == made.digest), None)
        shown = match or outputs[0]
        if len({one.digest for one in outputs}) > 1:
            self._equivocation(outputs, shown, match is not None)
        found: tuple[Difference, ...] = ()
        if match is None:
            found = differences(shown.signed.output, output)
        found += self._manifests(made, manifests)
        message = ""
        if shown.signed.output.core_version != CORE_VERSION:
            message = f"made by core {shown.signed.output.core_version}, this is core {CORE_VERSION}"
            self._desk.finding("CORE_DIFFERS", shown.record, message, domain=key[0], window_start_ms=key[1])
        self._say(Verdict.DIFFERS if found else Verdict.IDENTICAL, made, shown, message, found)

    def absent(self, made: Emission, verdict: Verdict, message: str) -> None:
        """Say the verdict on a window of which there is no output, or none that can be judged."""
        self._digests.add(made.digest)
        self._keys.add(_tag(key_of(made)))
        self._say(verdict, made, None, message, ())

    def unproven(self, made: Emission, outputs: Sequence[PublishedOutput], message: str) -> None:
        """Say that what the window rests on is gone."""
        self._digests.add(made.digest)
        for one in outputs:
            self._digests.add(one.digest)
        self._keys.add(_tag(key_of(made)))
        self._say(Verdict.INPUT_LOST, made, outputs[0] if outputs else None, message, ())

    def straggler(self, one: PublishedOutput, *, provable: bool, begin: int) -> None:
        """An output that belonged to nothing when its place came: a copy, or one that does not follow from the log.

        `provable`: its place lies where decisions are exact; `begin`: first offset of the log.
        """
        if one.digest in self._digests:
            return
        output = one.signed.output
        if not provable:
            message = f"what it rests on lies below offset {begin}, where the log begins now"
            self._published(one, Verdict.INPUT_LOST, message)
            return
        code = "OUTPUT_EQUIVOCATION" if _tag(one.key) in self._keys else "OUTPUT_EXTRA"
        message = "signed by an attested worker, but it does not follow from the log"
        start_ms = output.window_start_ms
        self._desk.finding(code, one.record, message, domain=output.domain, window_start_ms=start_ms)
        self._published(one, Verdict.EXTRA, message)
        self._digests.add(one.digest)

    def stray_manifest(self, one: PublishedManifest) -> None:
        """A manifest that belonged to nothing when its place came: a copy, or one that does not follow from the log."""
        if record_digest(one.preimage) in self._digests:
            self._signature(one)
            return
        manifest = one.signed.manifest
        self._desk.finding(
            "MANIFEST_DIFFERS",
            one.record,
            "no manifest like it follows from the log",
            domain=manifest.domain,
            window_start_ms=manifest.window_start_ms,
        )

    def _published(self, one: PublishedOutput, verdict: Verdict, message: str) -> None:
        output = one.signed.output
        self._desk.verdict(
            WindowVerdict(
                verdict=verdict,
                domain=output.domain,
                window_start_ms=output.window_start_ms,
                revision=output.revision,
                partition=one.record.partition,
                offset=one.record.offset,
                close_offset=one.close_offset,
                published_digest=one.digest.hex(),
                worker=one.signed.worker.host_id,
                message=message,
                figures=figures_of(output),
            )
        )

    def _say(
        self,
        verdict: Verdict,
        made: Emission,
        shown: PublishedOutput | None,
        message: str,
        found: tuple[Difference, ...],
    ) -> None:
        output = made.output
        self._desk.verdict(
            WindowVerdict(
                verdict=verdict,
                domain=output.domain,
                window_start_ms=output.window_start_ms,
                revision=output.revision,
                partition=output.source.partition,
                offset=None if shown is None else shown.record.offset,
                close_offset=output.source.close_offset,
                published_digest=None if shown is None else shown.digest.hex(),
                computed_digest=made.digest.hex(),
                worker=None if shown is None else shown.signed.worker.host_id,
                message=message,
                differences=found,
                figures=figures_of(output if shown is None else shown.signed.output),
            )
        )

    def _equivocation(self, outputs: Sequence[PublishedOutput], shown: PublishedOutput, follows: bool) -> None:
        for one in outputs:
            if one.digest != shown.digest:
                which = "does" if follows else "does not"
                text = f"another output for this window is at offset {shown.record.offset}, and that one {which} follow"
                output = one.signed.output
                self._desk.finding(
                    "OUTPUT_EQUIVOCATION",
                    one.record,
                    text + " from the log",
                    domain=output.domain,
                    window_start_ms=output.window_start_ms,
                )

    # -- manifests -----------------------------------------------------------------------------------------------

    def _manifests(self, made: Emission, published: Sequence[PublishedManifest]) -> tuple[Difference, ...]:
        found: list[Difference] = []
        for number, data in enumerate(made.manifests):
            preimage = manifest_preimage(data)
            self._digests.add(record_digest(preimage))
            copies = [one for one in published if one.signed.manifest.chunk == number]
            valid = [self._signature(one) for one in copies if one.preimage == preimage]  # every copy is looked at
            if not any(valid):
                found += self._manifest(number, data, copies)
        expected = {manifest_preimage(data) for data in made.manifests}
        for one in published:
            if one.preimage not in expected:
                manifest = one.signed.manifest
                self._signature(one)
                self._desk.finding(
                    "MANIFEST_DIFFERS",
                    one.record,
                    f"chunk {manifest.chunk} is not what follows from the log",
                    domain=manifest.domain,
                    window_start_ms=manifest.window_start_ms,
                )
        return tuple(found)

    def _manifest(self, number: int, data: bytes, copies: Sequence[PublishedManifest]) -> tuple[Difference, ...]:
        path = f"manifests[{number}]"
        if not copies:
            return (difference(path, "none", "a manifest"),)
        value = encode_signed_manifest(data, bytes(64), bytes(32), SINGLE_OBJECT)
        computed = decode_signed_manifest(value)[0].manifest
        shown = copies[0].signed.manifest
        self._witnesses(shown, computed, copies[0].record)
        return differences(shown, computed, path) or (difference(path, "no valid signature", "a manifest"),)

    def _witnesses(self, published: WindowManifest, computed: WindowManifest, record: LogRecord) -> None:
        """Name the records of the log that are not what the worker read."""
        theirs: dict[int, bytes] = {one.offset: one.digest for one in getattr(published, "witnesses", ())}
        ours: dict[int, bytes] = {one.offset: one.digest for one in getattr(computed, "witnesses", ())}
        for offset in sorted(theirs.keys() | ours.keys()):
            if theirs.get(offset) != ours.get(offset):
                place = LogRecord(self._reports_topic, record.partition, offset, 0, 0, None, None, ())
                text = f"the manifest at offset {record.offset} has another digest of it, or none"
                self._desk.finding("RECORD_ALTERED", place, text, domain=published.domain)

    def _signature(self, one: PublishedManifest) -> bool:
        """Whether an attested worker signed it; a finding otherwise."""
        point = self._desk.result.sessions.get(one.signed.session_id)
        manifest = one.signed.manifest
        code, severity, text = "MANIFEST_INVALID", Severity.ALARM, ""
        if point is None:
            code, severity = "MANIFEST_UNPROVEN", Severity.NOTICE
            text = f"no output or control record here is of session {one.signed.session_id.hex()}"
        else:
            try:
                verify_record_signature(load_session_key(point), one.preimage, one.signed.signature)
            except EnclaveScaleError as error:
                text = f"{error.code}: {error}"
        if text:
            start_ms = manifest.window_start_ms
            self._desk.finding(
                code, one.record, text, severity=severity, domain=manifest.domain, window_start_ms=start_ms
            )
        return not text


def key_of(made: Emission) -> OutputKey:
    """Domain, window start, revision."""
    return made.output.domain, made.output.window_start_ms, made.output.revision


def _tag(key: OutputKey) -> bytes:
    return hashlib.sha256(repr(key).encode()).digest()
