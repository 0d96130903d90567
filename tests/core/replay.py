"""Runs of the core over a log: undisturbed, and with crashes as the adapter meets them (`stream_jobs/job.py`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point
from schemas.codec import DecodedRecord, Framing, decode_signed_record
from schemas.errors import EnclaveScaleError
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.partition import CoreConfig, OutputKey, PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from tests.core.fleet import PARTITION, TOPIC
from tests.core.sets import SETS, judging
from verifier.cache import SessionCache
from verifier.signature import verify_record_signature

CACHE = SessionCache(entries=100_000)


_SIGNATURES: dict[tuple[bytes, bytes, bytes], EnclaveScaleError | None] = {}


def _verify_once(key: ec.EllipticCurvePublicKey, preimage: bytes, signature: bytes, *, digest: bytes) -> None:
    assert digest == sha256(preimage).digest()
    asked = public_point(key), preimage, signature
    if asked not in _SIGNATURES:
        try:
            verify_record_signature(key, preimage, signature)
            _SIGNATURES[asked] = None
        except EnclaveScaleError as error:
            _SIGNATURES[asked] = error
    if (known := _SIGNATURES[asked]) is not None:
        raise known.with_traceback(None)


@contextmanager
def remembered() -> Iterator[None]:
    """Decode and verify every record for real once: the replays of one log ask the same questions again."""
    once = lru_cache(maxsize=1 << 14)(decode_signed_record)

    def decode(value: bytes, _framing: Framing) -> DecodedRecord:
        return once(value)

    _SIGNATURES.clear()
    with (
        patch("stream_jobs.core.partition.decode_signed_record", decode),
        patch("stream_jobs.core.sessions.verify_record_signature", _verify_once),
        patch("stream_jobs.core.control.verify_record_signature", _verify_once),
    ):
        yield


def new_core(policies: Sequence[PolicyView], published: dict[OutputKey, bytes] | None = None) -> PartitionCore:
    lookup = {view.digest: view for view in policies}
    config = CoreConfig(TOPIC, PARTITION, lookup.get, judging(CACHE.verify), collateral=SETS.get)
    return PartitionCore(config, published)


def key_of(made: Emission) -> OutputKey:
    return made.output.domain, made.output.window_start_ms, made.output.revision


@dataclass
class Run:
    """What one core decided, record by record. `resume[i]`: resume offset after record i."""

    core: PartitionCore
    log: list[LogRecord] = field(default_factory=list)
    emissions: list[tuple[int, Emission]] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    resume: list[int | None] = field(default_factory=list)

    def feed(self, record: LogRecord) -> None:
        if self.log and record.offset > self.log[-1].offset + 1:
            self.core.gap(self.log[-1].offset + 1, record.offset)
        for effect in self.core.process(record):
            if isinstance(effect, Emission):
                assert effect.output.source.close_offset == record.offset
                self.emissions.append((record.offset, effect))
            else:
                assert effect.offset == record.offset
                self.rejections.append(effect)
        self.log.append(record)
        self.resume.append(self.core.resume_offset)

    def feed_all(self, log: Sequence[LogRecord]) -> Run:
        for record in log:
            self.feed(record)
        return self


@dataclass(frozen=True)
class Crash:
    """A crash after record index `at`; the last commit was made after record index `commit` <= at.

    `kept`: how many of the outputs at the last position that had any were published.
    """

    commit: int
    at: int
    kept: int | None = None


def restart(
    run: Run, policies: Sequence[PolicyView], crash: Crash, resumed: int | None = None
) -> tuple[Run, str | None]:
    """Start again after `crash` and compare with the undisturbed `run`; returns the new run and what differs.

    `resumed`: the resume offset that was committed, if not the undisturbed run's own.
    """
    offset = run.log[crash.at].offset
    outputs = [(at, made) for at, made in run.emissions if at <= offset]
    last = max((at for at, _ in outputs), default=-1)
    if crash.kept is not None and last == offset and crash.commit < crash.at:
        at_last = [made for at, made in outputs if at == last][: max(1, crash.kept)]
        outputs = [(at, made) for at, made in outputs if at < last] + [(last, made) for made in at_last]
    published = {key_of(made): made.digest for _, made in outputs}
    # The adapter settles rejections before it commits and before every output above them.
    settled = run.log[crash.commit].offset
    rejected = max((one.offset for one in run.rejections if one.offset <= settled), default=-1)
    begin = run.resume[crash.commit] if resumed is None else resumed
    log = [record for record in run.log if begin is None or record.offset >= begin]
    again = Run(new_core(policies, dict(published))).feed_all(log)

    def fresh(at: int, made: Emission) -> bool:
        return at > last or (at == last and key_of(made) not in published)

    want = [(at, made) for at, made in run.emissions if fresh(at, made)]
    have = [(at, made) for at, made in again.emissions if fresh(at, made)]
    limit = max(last, rejected)
    context = f"{crash}, resumed at {begin}, outputs up to {last}, rejections up to {rejected}"
    return again, _difference(
        want,
        have,
        [one for one in run.rejections if one.offset > limit],
        [one for one in again.rejections if one.offset > limit],
        context,
    )


def _difference(
    want: list[tuple[int, Emission]],
    have: list[tuple[int, Emission]],
    want_rejected: list[Rejection],
    have_rejected: list[Rejection],
    context: str,
) -> str | None:
    for (at, one), (at_again, other) in zip(want, have, strict=False):
        if (at, one.digest, one.output_bytes, one.manifests) != (
            at_again,
            other.digest,
            other.output_bytes,
            other.manifests,
        ):
            fields = [
                f"{name}: {getattr(one.output, name)!r:.200} / {getattr(other.output, name)!r:.200}"
                for name in type(one.output).__dataclass_fields__
                if getattr(one.output, name) != getattr(other.output, name)
            ]
            return f"{context}: output at {at} / {at_again} {key_of(one)} / {key_of(other)}: " + "; ".join(fields)
    if len(want) != len(have):
        rest = [(at, key_of(made)) for at, made in (want[len(have) :] or have[len(want) :])][:4]
        return f"{context}: {len(want)} outputs / {len(have)}: {rest}"
    if want_rejected != have_rejected:
        ours, theirs = set(want_rejected) - set(have_rejected), set(have_rejected) - set(want_rejected)
        first = sorted((one.offset, one.code, which) for which, group in (("-", ours), ("+", theirs)) for one in group)
        return f"{context}: rejections differ: {first[:4]}"
    return None
