"""Replay of one partition: the same core over the same log, beside what was published.

The log is read once, in order; outputs, manifests and dead letters are read beside it, just far enough ahead. Memory
does not grow with the history. Where a replay begins in the middle, `exact` says from where on it may judge; if that is
too late for the windows asked for, it begins again, twice as far back.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from schemas.codec import decode_signed_record
from schemas.errors import EnclaveScaleError
from schemas.records import ControlRecord
from stream_jobs.core.effects import Effect, Emission, Rejection
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.core.sessions import SessionVerifier
from stream_jobs.log_record import LOG_APPEND_TIME, LogRecord
from stream_jobs.replay.ahead import PROBE, begin_at
from stream_jobs.replay.desk import Desk, ReplayRequest
from stream_jobs.replay.evidence import PLAIN_END, Basis, EvidenceWatch
from stream_jobs.replay.exact import Exactness
from stream_jobs.replay.judge import Judge, key_of
from stream_jobs.replay.letters import LetterSide
from stream_jobs.replay.published import ManifestSide, OutputSide, manifest_place, output_place
from stream_jobs.replay.sets import CollateralSets
from stream_jobs.replay.side import END
from stream_jobs.replay.source import Extent, RecordSource
from stream_jobs.replay.trusted import Reach, TrustedPolicies
from stream_jobs.replay.verdicts import Finding, PartitionResult, Severity, Verdict, WindowVerdict

BATCH = 48
"""Records handed to the core at once to look ahead at."""

PENDING_MS = 60_000
"""What is due from the last so many ms of a log may not be published yet: a worker is perhaps at it."""

Progress = Callable[[int, int, int], None]
"""(partition, offsets done, offsets in all), now and then."""


class _BeginEarlier(Exception):
    """The first window asked for came before decisions were exact."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is there of one partition of every topic. The reports' end is the last that was asked for."""

    output: Extent
    manifests: Extent
    rejections: Extent
    reports: Extent

    @classmethod
    def of(cls, source: RecordSource, request: ReplayRequest, partition: int) -> Bounds:
        """Ask `source`: what is published by then rests on records that are there."""
        names = request.topics
        topics = (names.output, names.manifests, names.rejections, names.reports)
        return cls(*(_extent(source, topic, partition) for topic in topics))


def _extent(source: RecordSource, topic: str, partition: int) -> Extent:
    found = [one for one in source.extents(topic) if one.partition == partition]
    return found[0] if found else Extent(topic, partition, 0, 0)


class PartitionReplay:
    """Replays one partition; says verdicts and findings as they come. `run` may raise ReadFailed."""

    def __init__(
        self,
        source: RecordSource,
        request: ReplayRequest,
        partition: int,
        policies: TrustedPolicies,
        sets: CollateralSets,
        verify: SessionVerifier,
        *,
        on_verdict: Callable[[WindowVerdict], None],
        on_finding: Callable[[Finding], None],
        progress: Progress = lambda _partition, _done, _total: None,
    ):
        self.source, self.request, self.partition = source, request, partition
        self.policies, self.sets, self.verify, self.progress = policies, sets, verify, progress
        self._on_verdict, self._on_finding = on_verdict, on_finding
        self.bounds = Bounds.of(source, request, partition)

    def run(self) -> PartitionResult:
        """Replay; returns the totals."""
        result = PartitionResult(partition=self.partition)
        log = self.bounds.reports
        span_ms = self._first_span()
        retry: set[str] | None = None
        attempts, judges = 0, list[Judge]()
        while True:
            begin = self._begin(span_ms)
            attempts += 1
            fresh = PartitionResult(partition=self.partition) if retry is None else result
            desk = Desk(fresh, self._on_verdict, self._on_finding, only=retry)
            attempt = _Attempt(self, desk, begin, retry, judges)
            try:
                retry = attempt.run()
                result = fresh
                judges.append(attempt.judge)
            except _BeginEarlier:
                pass
            else:
                if not retry:
                    break
            span_ms *= 2
        result.attempts, result.log_start, result.end_offset = attempts, log.first, log.end
        return result

    def _begin(self, span_ms: int) -> int:
        log = self.bounds.reports
        first = next(self.source.read(log.topic, log.partition, log.first, min(log.end, log.first + PROBE)), None)
        if first is None or first.timestamp_type != LOG_APPEND_TIME:
            return log.first  # producers' times say nothing about the order of the log
        at_ms = self.request.from_ms - span_ms
        if at_ms <= first.timestamp_ms:
            return log.first
        return max(log.first, min(log.end, self.source.offset_at(log.topic, log.partition, at_ms)))

    def _first_span(self) -> int:
        reaches = [
            Reach.of(domain, views).first_guess_ms
            for domain in self.policies.domains_of(self.partition)
            if self.request.domain in (None, domain) and (views := self.policies.of_domain(domain, self.partition))
        ]
        return max(reaches, default=0) + self.request.clock_slack_ms + 1


@dataclass(slots=True)
class _Moments:
    """Append times met: the newest, and whether something was said about their kind."""

    newest_ms: int = 0
    kind_said: bool = False


@dataclass(slots=True)
class _Scope:
    """What of the log is judged. Offsets in [`first`, `end`) have their dead letters compared."""

    first: int
    end: int
    last_append_ms: int
    exact_from: dict[str, int] = field(default_factory=dict)
    retry: set[str] = field(default_factory=set)
    judged: bool = False


class _Attempt:
    """One pass over the log from `begin`; with `only`, for these domains, and what `judges` have not judged yet."""

    def __init__(self, replay: PartitionReplay, desk: Desk, begin: int, only: set[str] | None, judges: Sequence[Judge]):
        self._replay, self._desk, self._begin, self._only = replay, desk, begin, only
        self._request, self._source = replay.request, replay.source
        self._bounds, partition, policies = replay.bounds, replay.partition, replay.policies
        log, request = self._bounds.reports, self._request
        self._watch = EvidenceWatch(replay.verify, replay.sets, desk, request.as_of_ms, facts=request.sessions)
        self._outputs = OutputSide(request, partition, policies, replay.sets, replay.verify, desk, self._watch)
        self._manifests = ManifestSide(request, desk)
        self._letters = LetterSide(request, partition, desk)
        self.judge = Judge(desk, log.topic)
        self._judges = tuple(judges)
        whole = begin == log.first == 0
        self._exact = Exactness(policies, partition, whole, request.clock_slack_ms)
        config = CoreConfig(
            log.topic, partition, policies.lookup, replay.verify, request.framing, collateral=replay.sets.lookup
        )
        self._core = PartitionCore(config)
        self._core.published = self._outputs.chain
        self._moments = _Moments()
        self._next = begin
        self._create_time = any(view.policy.unsafe_allow_create_time for view in policies.views.values())

    def run(self) -> set[str]:
        """Read and judge; returns domains whose windows came before decisions were exact."""
        log, request = self._bounds.reports, self._request
        tail = list(self._source.read(log.topic, log.partition, max(log.first, log.end - PROBE), log.end))
        self._scope = _Scope(
            first=max(log.first, self._source.offset_at(log.topic, log.partition, request.from_ms)),
            end=min(log.end, self._source.offset_at(log.topic, log.partition, request.to_ms)),
            last_append_ms=max((record.timestamp_ms for record in tail), default=0),
        )
        self._open_sides()
        until = log.end
        self._desk.result.first_offset = self._begin
        records = self._source.read(log.topic, log.partition, self._begin, log.end)
        while batch := list(itertools.islice(records, BATCH)):
            self._core.look_ahead(batch)
            for record in batch:
                self._step(record)
            self._replay.progress(self._replay.partition, self._next - self._begin, log.end - self._begin)
            if until == log.end and self._done():
                # Whatever was published for a window asked for must still be met.
                until = max(self._next, self._outputs.rest() + 1)
            if self._next >= until:
                break
        self._replay.progress(self._replay.partition, log.end - self._begin, log.end - self._begin)
        self._finish()
        if (book := self._watch.book) is not None:
            self._desk.result.met, self._desk.result.met_left_out = list(book.sessions.values()), book.left_out
        return self._scope.retry

    def _open_sides(self) -> None:
        output, manifests, rejections = self._bounds.output, self._bounds.manifests, self._bounds.rejections
        self._outputs.begin(self._from(output, output_place(self._request.framing)))
        self._manifests.begin(self._from(manifests, manifest_place(self._request.framing)))
        self._letters.begin(self._from(rejections, self._letters.place))

    def _from(self, extent: Extent, place: Callable[[LogRecord], int | None]) -> Iterator[LogRecord]:
        if extent.first >= extent.end:
            return iter(())  # perhaps there is no such partition
        begin = extent.first
        if self._begin > self._bounds.reports.first:
            begin = begin_at(self._source, extent, self._begin, place)
        return self._source.read(extent.topic, extent.partition, begin, extent.end)

    # -- one record ------------------------------------------------------------------------------------------------

    def _step(self, record: LogRecord) -> None:
        offset = record.offset
        if offset > self._next:
            self._core.gap(self._next, offset)
            if not self._core.domains:
                self._exact.stray()
        self._next = offset + 1
        if record.timestamp_ms != self._moments.newest_ms or record.timestamp_type != LOG_APPEND_TIME:
            self._time(record)
        self._outputs.reach(offset)
        effects = self._core.process(record)
        value = record.value or b""
        # Most records carry no evidence and have no effect: for those, nothing is left to do.
        if effects or record.headers or not value.endswith(PLAIN_END):
            self._effects(record, effects)
        result = self._desk.result
        result.records += 1
        result.bytes_read += len(value)

    def _effects(self, record: LogRecord, effects: Sequence[Effect]) -> None:
        refused = [effect for effect in effects if isinstance(effect, Rejection)]
        for rejection in refused:
            self._refused(record, rejection)
        if not refused and (record.headers or not (record.value or b"").endswith(PLAIN_END)):
            self._accepted(record)
        made = [effect for effect in effects if isinstance(effect, Emission)]
        if made:
            self._made(record, made)

    def _time(self, record: LogRecord) -> None:
        if record.timestamp_type != LOG_APPEND_TIME and not self._moments.kind_said:
            self._moments.kind_said = True
            severity = Severity.NOTICE if self._create_time else Severity.ALARM
            text = "its time is its producer's, not the broker's; said once"
            self._desk.finding("TIMESTAMP_TYPE", record, text, severity=severity)
        if record.timestamp_ms < self._moments.newest_ms - self._request.clock_slack_ms and not self._create_time:
            text = f"appended {self._moments.newest_ms - record.timestamp_ms} ms before an earlier record"
            self._desk.finding("TIME_BACKWARDS", record, text, severity=Severity.NOTICE)
        self._moments.newest_ms = max(self._moments.newest_ms, record.timestamp_ms)

    def _refused(self, record: LogRecord, rejection: Rejection) -> None:
        if rejection.domain is None:
            self._exact.stray()
        domain = (record.key or b"").decode("utf-8", "replace")
        asked = self._request.domain in (None, domain) and self._only is None
        inside = asked and self._scope.first <= record.offset < self._scope.end
        if not inside or not self._decided(record, rejection):
            self._letters.refused(record, rejection, judged=False)
            return
        if self._letters.refused(record, rejection, judged=True):
            return
        recent = record.timestamp_ms >= self._scope.last_append_ms - PENDING_MS
        text = f"{rejection.code}, and no dead letter"
        if recent and record.offset > self._letters.highest:
            self._desk.finding("DEAD_LETTER_PENDING", record, text, severity=Severity.NOTICE)
        else:
            self._desk.finding("DEAD_LETTER_MISSING", record, text)

    def _decided(self, record: LogRecord, rejection: Rejection) -> bool:
        """Whether the record was refused for this reason in any reading of the log: all that it names is known."""
        if self._exact.whole or rejection.digest is None:
            return True
        names = {(record.key or b"").decode("utf-8", "replace")}
        with contextlib.suppress(EnclaveScaleError):
            names.add(decode_signed_record(record.value or b"", self._request.framing).body.domain)
        known = names & self._replay.policies.domains_of(self._replay.partition)
        return all(self._exact.is_exact(name) for name in known)

    def _accepted(self, record: LogRecord) -> None:
        state = self._core.domains.get((record.key or b"").decode("utf-8", "replace"))
        plain = state is not None and not record.headers and len(state.policies) == 1
        if plain and state is not None and self._watch.repeats(record, Basis.of(state)):
            return
        decoded = decode_signed_record(record.value or b"", self._request.framing)
        body = decoded.body
        if record.headers:
            self._watch.headers(record, decoded)
        state = self._core.domains[body.domain]
        if isinstance(body, ControlRecord):
            self._exact.control(self._core, record, body)
            if decoded.evidence is not None:
                self._desk.result.sessions[body.session_id] = decoded.evidence.binding.session_public_key
                self._watch.control(record, decoded, Basis.of(state))
            return
        view = state.view_for(body.window_start_ms)
        if view is not None:
            self._watch.report(record, decoded, Basis.of(state, view))

    # -- outputs -----------------------------------------------------------------------------------------------------

    def _made(self, record: LogRecord, made: list[Emission]) -> None:
        self._manifests.reach(record.offset)
        domain = made[0].output.domain
        certain = self._exact.counts_exactly(domain)
        for one in made:
            self._window(record, one, certain)
        self._exact.published(record, self._core.domains[domain], self._outputs.closes.get(record.offset))
        if self._exact.is_exact(domain):
            self._scope.exact_from.setdefault(domain, record.offset)
        self._outputs.settle(record.offset)
        self._manifests.settle(record.offset)
        self._letters.settle(record.offset)

    def _window(self, record: LogRecord, made: Emission, certain: bool) -> None:
        key = key_of(made)
        outputs, manifests = self._outputs.pop(key), self._manifests.pop(key)
        if not self._asked(*key[:2]) or any(judge.has_judged(key) for judge in self._judges):
            return
        begin = self._bounds.reports.first
        if not certain and self._begin > begin:
            if not self._scope.judged:
                raise _BeginEarlier
            self._scope.retry.add(key[0])
            return
        self._scope.judged = True
        self._desk.release()
        if not certain:
            agrees = any(one.digest == made.digest for one in outputs)
            more = "; what is left of the log gives the same bits" if agrees else ""
            text = f"what it rests on may lie below offset {begin}, where the log begins now{more}"
            self.judge.unproven(made, outputs, text)
        elif outputs:
            self.judge.window(made, outputs, manifests)
        else:
            self._absent(record, made)

    def _absent(self, record: LogRecord, made: Emission) -> None:
        extent, first = self._bounds.output, self._outputs.first_close
        if extent.first > 0 and (first is None or record.offset < first):
            text = f"the output topic begins at offset {extent.first} now: what lay below is gone"
            self.judge.absent(made, Verdict.INPUT_LOST, text)
        elif (
            record.offset > self._outputs.last_close and record.timestamp_ms >= self._scope.last_append_ms - PENDING_MS
        ):
            text = "due at the end of the log, and not published yet"
            self.judge.absent(made, Verdict.PENDING, text)
        else:
            self.judge.absent(made, Verdict.MISSING, f"follows from the log at offset {record.offset}, not published")

    def _asked(self, domain: str, window_start_ms: int) -> bool:
        return self._request.wants(domain, window_start_ms) and (self._only is None or domain in self._only)

    # -- the end -----------------------------------------------------------------------------------------------------

    def _done(self) -> bool:
        """Whether no later record can change a window that is asked for, nor need a dead letter that is."""
        if self._next < self._scope.end:
            return False
        states = [state for name, state in self._core.domains.items() if self._request.domain in (None, name)]
        return bool(states) and all(state.closed_for_good(self._request.to_ms) for state in states)

    def _finish(self) -> None:
        self._desk.release()
        self._outputs.rest()
        self._manifests.rest()
        self._outputs.settle(END)
        self._manifests.settle(END)
        begin = self._bounds.reports.first
        for one in self._outputs.stragglers:
            domain, start_ms, _ = one.key
            judged = any(judge.has_judged(one.key) for judge in self._judges)
            if judged or not self._asked(domain, start_ms) or domain in self._scope.retry:
                continue
            provable = self._provable(domain, one.close_offset)
            if not provable and self._begin > begin:
                self._scope.retry.add(domain)
            else:
                self.judge.straggler(one, provable=provable, begin=begin)
        for manifest in self._manifests.stragglers:
            domain, start_ms, _ = manifest.key
            if self._asked(domain, start_ms) and self._provable(domain, manifest.signed.manifest.close_offset):
                self.judge.stray_manifest(manifest)
        if self._only is None:
            to_the_end = self._scope.end >= self._bounds.reports.end
            self._letters.finish(self._scope.first, self._scope.end, to_the_end=to_the_end, provable=self._provable)

    def _provable(self, domain: str, close_offset: int) -> bool:
        """Whether decisions at this position were exact."""
        if self._exact.whole or domain not in self._replay.policies.domains_of(self._replay.partition):
            return True
        since = self._scope.exact_from.get(domain)
        return since is not None and close_offset > since
