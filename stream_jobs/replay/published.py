"""What is on the output and manifests topics, as a replay meets it: verified, by window and revision."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.codec import (
    Framing,
    decode_signed_manifest,
    decode_signed_output,
    record_digest,
)
from schemas.errors import EnclaveScaleError
from schemas.records import SignedFleetPower, SignedWindowManifest
from stream_jobs.audit.outputs import check_worker
from stream_jobs.core.partition import OutputKey
from stream_jobs.core.sessions import SessionVerifier
from stream_jobs.log_record import LogRecord
from stream_jobs.output import cloud_event
from stream_jobs.replay.ahead import Place
from stream_jobs.replay.desk import Desk, ReplayRequest
from stream_jobs.replay.evidence import Basis, EvidenceWatch
from stream_jobs.replay.exact import Close
from stream_jobs.replay.sets import CollateralSets
from stream_jobs.replay.side import Side
from stream_jobs.replay.trusted import TrustedPolicies
from stream_jobs.replay.verdicts import Verdict, WindowVerdict
from stream_jobs.tail import ForeignOutput

OUTPUT_EVENT = "org.enclavescale.fleet-power.v1"


@dataclass(frozen=True, slots=True)
class PublishedOutput:
    """A verified output on its topic."""

    record: LogRecord
    signed: SignedFleetPower
    digest: bytes

    @property
    def key(self) -> OutputKey:
        """Domain, window start, revision."""
        output = self.signed.output
        return output.domain, output.window_start_ms, output.revision

    @property
    def close_offset(self) -> int:
        """Offset of the record that closed the window."""
        return self.signed.output.source.close_offset


@dataclass(frozen=True, slots=True)
class PublishedManifest:
    """A manifest on its topic; its signature is judged when its session is known."""

    record: LogRecord
    signed: SignedWindowManifest
    preimage: bytes

    @property
    def key(self) -> OutputKey:
        """Domain, window start, revision."""
        manifest = self.signed.manifest
        return manifest.domain, manifest.window_start_ms, manifest.revision


def window_of(key: bytes | None) -> tuple[str, int] | None:
    """Domain and window start that the key of an output or manifest names; None where it names none."""
    domain, found, start = (key or b"").decode("utf-8", "replace").rpartition("/")
    return (domain, int(start)) if found and start.isascii() and start.isdigit() and len(start) < 19 else None


def output_headers(one: PublishedOutput) -> tuple[tuple[str, bytes | None], ...]:
    """Headers that the publisher writes with an output."""
    output = one.signed.output
    pairs = cloud_event(one.digest, output.domain, OUTPUT_EVENT, output.window_end_ms, output.revision)
    return tuple((name, text.encode()) for name, text in pairs)


class OutputSide(Side[OutputKey, PublishedOutput]):
    """The outputs of one partition, by window and revision.

    `chain` is the core's `published`: digests that stand for what is computed, so that every window is judged on its
    own.
    """

    def __init__(
        self,
        request: ReplayRequest,
        partition: int,
        policies: TrustedPolicies,
        sets: CollateralSets,
        verify: SessionVerifier,
        desk: Desk,
        watch: EvidenceWatch,
    ):
        super().__init__()
        self._request, self._partition, self._policies, self._verify = request, partition, policies, verify
        self._sets, self._desk, self._watch = sets, desk, watch
        self._whole = True
        self.chain: dict[OutputKey, bytes] = {}
        self.closes: dict[int, dict[str, Close]] = {}
        """Close offset -> domain -> what was published there."""
        self.last_close = -1
        self.first_close: int | None = None

    def pop(self, key: OutputKey) -> list[PublishedOutput]:
        """Outputs of a window's revision, in the order of their offsets; they are judged now."""
        self.chain.pop(key, None)
        return super().pop(key)

    def settle(self, position: int) -> None:
        """What closed before `position` and was not asked for is a straggler."""
        super().settle(position)
        for close in [close for close in self.closes if close < position]:
            del self.closes[close]

    def rest(self) -> int:
        """Read to the topic's end: only windows that were asked for still count. Returns their highest close offset."""
        self._whole = False
        self._rest()
        wanted = [one for found in self.found.values() for one in found if self._counts(one)]
        return max((one.close_offset for one in wanted), default=-1)

    def _counts(self, one: PublishedOutput) -> bool:
        return self._request.wants(*one.key[:2])

    def _at(self, one: PublishedOutput) -> int:
        return one.close_offset

    def _take(self, record: LogRecord) -> int | None:
        named = window_of(record.key)
        if named is not None and not self._whole and not self._request.wants(*named):
            return None
        self._desk.result.outputs += 1
        self._desk.result.bytes_read += len(record.value or b"")
        try:
            one = self._open(record)
        except EnclaveScaleError as error:
            if named is None or self._request.wants(*named):
                self._refuse(record, named, f"{error.code}: {error}")
            return None
        output = one.signed.output
        close = one.close_offset
        self.first_close = close if self.first_close is None else min(self.first_close, close)
        self.last_close = max(self.last_close, close)
        closes = self.closes.setdefault(close, {})
        known = closes.get(output.domain)
        end_ms = output.window_end_ms if known is None else min(known.end_ms, output.window_end_ms)
        closes[output.domain] = Close(end_ms, output.collateral_digest)
        if self._counts(one):
            check_envelope(self._desk, record, manifest_key(one.key), output_headers(one))
        if close >= self._now:
            self.chain.setdefault(one.key, one.digest)
        return self._keep(one.key, one)

    def _open(self, record: LogRecord) -> PublishedOutput:
        signed, preimage = decode_signed_output(record.value or b"", self._request.framing)
        output = signed.output
        if (output.source.topic, output.source.partition) != (self._request.topics.reports, self._partition):
            raise ForeignOutput("an output of another source")
        view = self._policies.lookup(output.policy_digest)
        if view is None:
            raise ForeignOutput("an output of a policy that is not on the policy topic, or not trusted")
        check_worker(signed, preimage, view, self._verify, self._sets.judging(output.collateral_digest))
        if (evidence := signed.worker.evidence) is not None:  # `check_worker` has seen to it
            self._desk.result.sessions[signed.worker.session_id] = evidence.binding.session_public_key
            digest = output.collateral_digest
            self._watch.worker(record, evidence, Basis(view, None if digest is None else self._sets.lookup(digest)))
        return PublishedOutput(record, signed, record_digest(preimage))

    def _refuse(self, record: LogRecord, named: tuple[str, int] | None, message: str) -> None:
        domain, start_ms = named or (None, None)
        self._desk.finding("OUTPUT_INVALID", record, message, domain=domain, window_start_ms=start_ms)
        self._desk.verdict(
            WindowVerdict(
                verdict=Verdict.EXTRA,
                domain=domain,
                window_start_ms=start_ms,
                revision=None,
                partition=self._partition,
                offset=record.offset,
                message=message,
            )
        )


class ManifestSide(Side[OutputKey, PublishedManifest]):
    """The manifests of one partition, by window and revision."""

    def __init__(self, request: ReplayRequest, desk: Desk):
        super().__init__()
        self._request, self._desk, self._whole = request, desk, True

    def rest(self) -> None:
        """Read to the topic's end: only windows that were asked for still count."""
        self._whole = False
        self._rest()

    def _counts(self, one: PublishedManifest) -> bool:
        return self._request.wants(*one.key[:2])

    def _at(self, one: PublishedManifest) -> int:
        return one.signed.manifest.close_offset

    def _take(self, record: LogRecord) -> int | None:
        named = window_of(record.key)
        wanted = named is None or self._request.wants(*named)
        if not self._whole and not wanted:
            return None
        self._desk.result.manifests += 1
        self._desk.result.bytes_read += len(record.value or b"")
        try:
            signed, preimage = decode_signed_manifest(record.value or b"", self._request.framing)
        except EnclaveScaleError as error:
            if wanted:
                self._desk.finding("MANIFEST_INVALID", record, f"{error.code}: {error}")
            return None
        one = PublishedManifest(record, signed, preimage)
        if self._counts(one):
            check_envelope(self._desk, record, manifest_key(one.key), ())
        return self._keep(one.key, one)


def manifest_place(framing: Framing) -> Place:
    """Where manifests belong, for a search."""

    def place(record: LogRecord) -> int | None:
        try:
            return decode_signed_manifest(record.value or b"", framing)[0].manifest.close_offset
        except EnclaveScaleError:
            return None

    return place


def output_place(framing: Framing) -> Place:
    """Where outputs belong, for a search."""

    def place(record: LogRecord) -> int | None:
        try:
            return decode_signed_output(record.value or b"", framing)[0].output.source.close_offset
        except EnclaveScaleError:
            return None

    return place


def manifest_key(key: OutputKey) -> bytes:
    """Key of the records of a window on the output and manifests topics."""
    return f"{key[0]}/{key[1]}".encode()


def check_envelope(
    desk: Desk, record: LogRecord, key: bytes | None, headers: tuple[tuple[str, bytes | None], ...]
) -> None:
    """Key and headers are those that the publisher writes; a finding otherwise."""
    if record.key != key:
        desk.finding("ENVELOPE_DIFFERS", record, f"the key is {record.key!r}, not {key!r}")
    if record.headers != headers:
        names = [name for name, _ in set(record.headers) ^ set(headers)] or ["their order"]
        desk.finding("ENVELOPE_DIFFERS", record, f"headers differ: {', '.join(sorted(set(names)))}")
