"""Follow a domain's chain of outputs backwards: each names the one before it by its digest, and revisions theirs.

What links two outputs is SHA-256 over signed bytes: whoever has seen the later one has what the earlier one must be.
Digests alone would say that the chain is whole; every output on the way is verified as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from schemas.codec import decode_signed_record
from schemas.errors import EnclaveScaleError
from schemas.records import ControlRecord
from stream_jobs.audit.errors import UNSOUND, ChainBroken, ChainRestartUnexplained, RecordNotFound, RevisionBroken
from stream_jobs.audit.outputs import CheckedOutput, PolicyOpener, check_output, collateral_of
from stream_jobs.audit.topics import AuditTopics, OutputRecord
from stream_jobs.core.control import check_author
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.refusals import Refused
from stream_jobs.core.sessions import SessionVerifier
from stream_jobs.log_record import LogRecord
from verifier.errors import VerificationError

MAX_SETS = 8
"""Sets of collateral kept parsed."""

REPEATED = 64
"""Outputs looked at before a chain that begins anew."""

MAX_NAMED = 16
"""Records named that were passed over; the others are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One output of a chain. `partition` and `offset` on the output topic; `close_offset` on the reports topic."""

    partition: int
    offset: int
    digest: bytes
    domain: str
    window_start_ms: int
    revision: int
    close_offset: int
    worker: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Restart:
    """A chain that begins anew at `link`: the reason it states, and the offset of the idle close that explains it.

    `before`: the domain's output before, which nothing links to it; None if there is none on the topic.
    """

    link: Link
    reason: str
    before: Link | None
    idle_close_offset: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Where a chain does not hold: what is wrong at `link`, the last output that could be reached."""

    link: Link
    code: str
    message: str
    field: str | None
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """What was found from `newest` back to `oldest`. `outputs`: verified and linked; `revisions`: of them, those whose
    predecessor was met and is the one they name; `workers`: who signed them; `broken`: the first break, or None.
    `passed`: records above `newest` that no attested worker signed, the last of them in `passed_over`.
    """

    domain: str
    newest: Link
    oldest: Link
    outputs: int
    revisions: int
    workers: tuple[str, ...]
    restarts: tuple[Restart, ...]
    broken: Break | None
    passed: int = 0
    passed_over: tuple[Break, ...] = ()

    @property
    def whole(self) -> bool:
        """True if every output is linked to the one before it, and every new begin is explained."""
        return self.broken is None


def link_of(found: OutputRecord) -> Link:
    """An output's place and identity, not verified."""
    output = found.output
    return Link(
        partition=found.record.partition,
        offset=found.record.offset,
        digest=found.digest,
        domain=output.domain,
        window_start_ms=output.window_start_ms,
        revision=output.revision,
        close_offset=output.source.close_offset,
        worker=found.signed.worker.host_id,
    )


@dataclass(slots=True)
class _Walk:
    """What is known on the way. `below`: the topic from there on backwards; an output stands above those it follows.
    `owed`: digests that revisions met so far name, by window and revision.
    """

    newest: Link
    at: OutputRecord
    below: Iterator[LogRecord]
    outputs: int = 0
    revisions: int = 0
    workers: set[str] = field(default_factory=set)
    restarts: list[Restart] = field(default_factory=list)
    owed: dict[tuple[int, int], bytes] = field(default_factory=dict)


class ChainWalker:
    """Walks chains. `open_policy` refuses policies of untrusted signers."""

    def __init__(self, topics: AuditTopics, open_policy: PolicyOpener, verify: SessionVerifier):
        self._topics, self._open_policy, self._verify = topics, open_policy, verify
        self._views: dict[bytes, PolicyView] = {}
        self._sets: dict[bytes | None, list[CollateralView | None]] = {}

    def view(self, digest: bytes) -> PolicyView:
        """The trusted policy of a digest. Raises RecordNotFound, or why none on the topic is trusted."""
        if digest not in self._views:
            failure: EnclaveScaleError | None = None
            for value, _ in self._topics.policies(digest):
                try:
                    self._views[digest] = self._open_policy(value)
                    break
                except UNSOUND as error:
                    failure = error
            else:
                raise failure or RecordNotFound(f"no policy {digest.hex()}")
        return self._views[digest]

    def check(self, found: OutputRecord) -> CheckedOutput:
        """Verify an output under the policy it names. Raises our errors."""
        view = self.view(found.output.policy_digest)
        *others, last = self._collateral(found.output.collateral_digest)
        for collateral in others:
            with contextlib.suppress(VerificationError):
                return check_output(found.value, view, self._verify, self._topics.framing, collateral=collateral)
        return check_output(found.value, view, self._verify, self._topics.framing, collateral=last)

    def _collateral(self, digest: bytes | None) -> list[CollateralView | None]:
        """Sets by which a worker's evidence may be judged (`AuditTopics.collateral`). Raises RecordNotFound."""
        if digest not in self._sets:
            if len(self._sets) >= MAX_SETS:
                self._sets.clear()
            found = self._topics.collateral(digest)
            self._sets[digest] = [collateral_of(values, self._topics.framing) for values in found]
        return self._sets[digest]

    def follow(
        self, domain: str, oldest: OutputRecord | None = None, step: Callable[[int], None] = lambda count: None
    ) -> Chain:
        """As `walk`, from a domain's newest output that holds: anybody who may write there can put a record on top.

        Where none holds, from the last one. Raises RecordNotFound where there is none.
        """
        newest: OutputRecord | None = None
        passed: list[Break] = []
        count = 0
        for found in self._topics.outputs_backwards(domain):
            newest = newest or found
            try:
                self.check(found)
            except UNSOUND as error:
                count += 1
                if len(passed) < MAX_NAMED:
                    passed.append(_break(found, error))
                continue
            return replace(self.walk(found, oldest, step), passed=count, passed_over=tuple(passed))
        if newest is None:
            raise RecordNotFound(f"the output topic has no output of domain {domain}")
        return self.walk(newest, oldest, step)

    def walk(
        self, newest: OutputRecord, oldest: OutputRecord | None = None, step: Callable[[int], None] = lambda count: None
    ) -> Chain:
        """From `newest` back to `oldest`, or as far as the topic goes. Stops at the first break.

        `step` is called with the number of outputs after each. Raises ReadFailed, and RecordNotFound where `oldest` is
        no output before `newest` of the same domain.
        """
        if oldest is not None and oldest.output.domain != newest.output.domain:
            raise RecordNotFound(
                f"{oldest.output.domain} and {newest.output.domain} are two domains, with a chain each"
            )
        walk = _Walk(link_of(newest), newest, self._below(newest))
        while True:
            try:
                self._take(walk)
            except UNSOUND as error:
                return _ended(walk, error)
            step(walk.outputs)
            if oldest is not None and walk.at.digest == oldest.digest:
                return _ended(walk, None)
            try:
                before = self._before(walk)
            except UNSOUND as error:
                return _ended(walk, error)
            if before is None:
                if oldest is not None:
                    raise RecordNotFound(
                        f"output {oldest.digest.hex()} is not among those that lead to {newest.digest.hex()}"
                    )
                return _ended(walk, None)
            walk.at = before

    def _take(self, walk: _Walk) -> None:
        """Verify the output at hand, and that it is what later revisions say it is."""
        self.check(walk.at)
        output = walk.at.output
        named = walk.owed.pop((output.window_start_ms, output.revision), None)
        if named is not None:
            if named != walk.at.digest:
                raise RevisionBroken(
                    f"revision {output.revision + 1} of window {output.window_start_ms} ms follows {named.hex()}, "
                    f"this one is {walk.at.digest.hex()}",
                    field="prev_revision_digest",
                )
            walk.revisions += 1
        if output.prev_revision_digest is not None:
            walk.owed[output.window_start_ms, output.revision - 1] = output.prev_revision_digest
        walk.outputs += 1
        walk.workers.add(walk.at.signed.worker.host_id)

    def _below(self, at: OutputRecord) -> Iterator[LogRecord]:
        return self._topics.backwards(at.record.topic, at.record.partition, at.record.offset)

    def _before(self, walk: _Walk) -> OutputRecord | None:
        """The output before the one at hand, None where there is none."""
        at, output = walk.at, walk.at.output
        wanted = output.prev_output_digest
        if wanted is None:
            before = self._unlinked(at)
            self._restarted(walk, before)
            if before is not None:
                walk.below = self._below(before)
            return before
        for record in walk.below:
            found = self._topics.as_output(record, output.domain)
            if found is not None and found.digest == wanted:
                if found.output.source.close_offset > output.source.close_offset:
                    raise ChainBroken("the output before closed later in the log", field="source.close_offset")
                return found
        raise ChainBroken(
            f"no output {wanted.hex()} stands before offset {at.record.offset} of "
            f"{at.record.topic}[{at.record.partition}]",
            field="prev_output_digest",
        )

    def _unlinked(self, at: OutputRecord) -> OutputRecord | None:
        """The domain's last output before one that names none.

        A worker that lost the partition may have repeated older ones above it: the last is the one that closed last
        and that none of them follows.
        """
        found: list[OutputRecord] = []
        for record in self._below(at):
            one = self._topics.as_output(record, at.output.domain)
            if one is None or one.digest == at.digest:
                continue
            if one.output.source.close_offset <= at.output.source.close_offset and self._holds(one):
                found.append(one)
                if len(found) == REPEATED:
                    break
        followed = {one.output.prev_output_digest for one in found}
        heads = [one for one in found if one.digest not in followed]
        return max(heads, key=lambda one: one.output.source.close_offset, default=None)

    def _holds(self, found: OutputRecord) -> bool:
        try:
            self.check(found)
        except UNSOUND:
            return False
        return True

    def _restarted(self, walk: _Walk, before: OutputRecord | None) -> None:
        """Note a new begin. `ChainRestartUnexplained` where outputs stand before it and the log has no idle close."""
        closed = None if before is None else self._idle_close(walk.at, before)
        walk.restarts.append(
            Restart(
                link=link_of(walk.at),
                reason=walk.at.output.prev_output_digest_absent_reason or "",
                before=None if before is None else link_of(before),
                idle_close_offset=closed,
            )
        )
        if before is not None and closed is None:
            raise ChainRestartUnexplained(
                f"the output begins a chain, after {before.digest.hex()}; the log between their closes, offsets "
                f"{before.output.source.close_offset} to {walk.at.output.source.close_offset}, has no idle close",
                field="prev_output_digest",
            )

    def _idle_close(self, at: OutputRecord, before: OutputRecord) -> int | None:
        """Offset of the domain's last idle close between two outputs that an attested aggregator wrote."""
        source, last = at.output.source, None
        first = before.output.source.close_offset + 1
        for record in self._topics.between(source.topic, source.partition, first, source.close_offset):
            if record.key != at.output.domain.encode():
                continue
            try:
                decoded = decode_signed_record(record.value or b"", self._topics.framing)
                body = decoded.body
                if isinstance(body, ControlRecord) and (body.kind, body.domain) == ("IDLE_CLOSE", at.output.domain):
                    view, held = self.view(body.policy_digest), self._collateral(body.collateral_digest)[0]
                    check_author(self._verify, decoded, body, view, record.timestamp_ms, held)
                    last = record.offset
            except (*UNSOUND, Refused):
                continue
        return last


def _ended(walk: _Walk, error: EnclaveScaleError | None) -> Chain:
    at = link_of(walk.at)
    return Chain(
        domain=walk.newest.domain,
        newest=walk.newest,
        oldest=at,
        outputs=walk.outputs,
        revisions=walk.revisions,
        workers=tuple(sorted(walk.workers)),
        restarts=tuple(walk.restarts),
        broken=None if error is None else _break(walk.at, error),
    )


def _break(at: OutputRecord, error: EnclaveScaleError) -> Break:
    return Break(link=link_of(at), code=error.code, message=str(error), field=error.field, remedy=error.remedy)
