"""Replay of every partition: one after the other, or several at once in processes of their own."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from queue import Empty
from typing import Any, Protocol

from stream_jobs.collector import tune_collector
from stream_jobs.core.sessions import SessionVerifier
from stream_jobs.replay.beside import check_beacons, check_collateral, check_policies
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.engine import PartitionReplay, Progress
from stream_jobs.replay.sets import CollateralSets, TopicSets
from stream_jobs.replay.source import RecordSource
from stream_jobs.replay.trusted import TrustedPolicies
from stream_jobs.replay.verdicts import Finding, PartitionResult, Severity, Verdict, WindowVerdict
from verifier.cache import SessionCache

OnVerdict = Callable[[WindowVerdict], None]
OnFinding = Callable[[Finding], None]

POLL_S = 0.1
"""How often the parent looks for what its processes say, s."""

QUEUED = 10_000
"""Messages a process may be ahead of its parent."""


class SourceSpec(Protocol):
    """Says how to open a source; travels to other processes."""

    def open(self) -> RecordSource:
        """Open it."""


@dataclass(slots=True, kw_only=True)
class ReplayResult:
    """Totals of a replay. `alarms` and `notices` count findings of all topics."""

    partitions: tuple[PartitionResult, ...]
    verdicts: Counter[str] = field(default_factory=Counter)
    alarms: int = 0
    notices: int = 0
    policies: int = 0
    beacons: int = 0
    collateral: int = 0

    @property
    def proven(self) -> bool:
        """Whether every window is identical and nothing was found altered."""
        return not self.alarms and set(+self.verdicts) <= {Verdict.IDENTICAL.value}


class _Tally:
    """Counts the findings beside the log on their way."""

    def __init__(self, on_finding: OnFinding):
        self._on_finding = on_finding
        self.counts: Counter[Severity] = Counter()

    def __call__(self, finding: Finding) -> None:
        self.counts[finding.severity] += 1
        self._on_finding(finding)


def partitions_to_replay(source: RecordSource, request: ReplayRequest, policies: TrustedPolicies) -> list[int]:
    """Numbers of the partitions of the reports topic; with a domain only those a policy places it in."""
    names = request.topics
    for topic in (names.output, names.manifests, names.rejections):
        source.extents(topic)  # the ends of what was published first: it rests on records that are there
    numbers = [extent.partition for extent in source.extents(names.reports)]
    if request.domain is None:
        return numbers
    return [number for number in numbers if policies.of_domain(request.domain, number)] or numbers


def replay_source(
    source: RecordSource,
    request: ReplayRequest,
    verify: SessionVerifier | None = None,
    sets: CollateralSets | None = None,
    *,
    on_verdict: OnVerdict,
    on_finding: OnFinding,
    progress: Progress = lambda _partition, _done, _total: None,
) -> ReplayResult:
    """Replay everything from `source` in this process. Raises ReadFailed.

    `verify`, `sets`: in place of a cache of one's own and of the collateral topic.
    """
    tally = _Tally(on_finding)
    policies = check_policies(source, request, tally)
    numbers = partitions_to_replay(source, request, policies)
    verify, sets = verify or SessionCache().verify, sets or TopicSets.read(source, request)
    results = [
        PartitionReplay(
            source,
            request,
            number,
            policies,
            sets,
            verify,
            on_verdict=on_verdict,
            on_finding=on_finding,
            progress=progress,
        ).run()
        for number in numbers
    ]
    return _together(source, request, policies, results, tally)


def replay_parallel(
    spec: SourceSpec,
    request: ReplayRequest,
    jobs: int,
    *,
    on_verdict: OnVerdict,
    on_finding: OnFinding,
    progress: Progress = lambda _partition, _done, _total: None,
) -> ReplayResult:
    """Replay partitions in up to `jobs` processes, each with a source of its own. Raises ReadFailed.

    Verdicts of one partition come in order, those of different ones as they are made.
    """
    tune_collector()
    source = spec.open()
    try:
        policies = TrustedPolicies.read(source, request)
        numbers = partitions_to_replay(source, request, policies)
        jobs = min(jobs, len(numbers))
        if jobs <= 1:
            return replay_source(source, request, on_verdict=on_verdict, on_finding=on_finding, progress=progress)
        tally = _Tally(on_finding)
        check_policies(source, request, tally)
        results = _in_processes(spec, request, numbers, jobs, (on_verdict, on_finding, progress))
        return _together(source, request, policies, results, tally)
    finally:
        source.close()


def _together(
    source: RecordSource,
    request: ReplayRequest,
    policies: TrustedPolicies,
    results: Sequence[PartitionResult],
    tally: _Tally,
) -> ReplayResult:
    sessions: dict[bytes, bytes] = {}
    verdicts: Counter[str] = Counter()
    for one in results:
        sessions |= one.sessions
        verdicts += one.verdicts
    beacons = check_beacons(source, request, sessions, tally)
    collateral = check_collateral(source, request, tally)
    return ReplayResult(
        partitions=tuple(results),
        verdicts=verdicts,
        alarms=sum(one.alarms for one in results) + tally.counts[Severity.ALARM],
        notices=sum(one.notices for one in results) + tally.counts[Severity.NOTICE],
        policies=len(policies.views),
        beacons=beacons,
        collateral=collateral,
    )


# -- processes -------------------------------------------------------------------------------------------------------

_QUEUE: Any = None


def _set_up(queue: Any) -> None:
    global _QUEUE  # noqa: PLW0603  what an initializer hands to its process
    _QUEUE = queue
    tune_collector()


def _one_partition(spec: SourceSpec, request: ReplayRequest, number: int) -> PartitionResult:
    source = spec.open()
    try:
        policies = TrustedPolicies.read(source, request)
        return PartitionReplay(
            source,
            request,
            number,
            policies,
            TopicSets.read(source, request),
            SessionCache().verify,
            on_verdict=_QUEUE.put,
            on_finding=_QUEUE.put,
            progress=lambda *moved: _QUEUE.put(moved),
        ).run()
    finally:
        source.close()
        _QUEUE.put(None)  # nothing comes behind it


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes begun within leave Ctrl-C, which all of a terminal's get, to this one: it ends them."""
    if threading.current_thread() is not threading.main_thread():  # nobody else may say what signals do
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _in_processes(
    spec: SourceSpec,
    request: ReplayRequest,
    numbers: Sequence[int],
    jobs: int,
    sinks: tuple[OnVerdict, OnFinding, Progress],
) -> list[PartitionResult]:
    context = multiprocessing.get_context("spawn")
    queue = context.Queue(QUEUED)
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=_set_up, initargs=(queue,)) as pool:
        others = set(multiprocessing.active_children())
        with _interrupts_ignored():
            futures = [pool.submit(_one_partition, spec, request, number) for number in numbers]
        try:
            left = len(numbers)
            while left:
                ended = all(future.done() for future in futures)
                count, ends = _drain(queue, sinks)
                left -= ends
                if ended and not count and any(future.exception() for future in futures):
                    break  # a process that was killed said no more
        except BaseException:
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()  # it only reads; otherwise it would go on to the end of its partition
            raise
        return [future.result() for future in futures]


def _drain(queue: Any, sinks: tuple[OnVerdict, OnFinding, Progress]) -> tuple[int, int]:
    """Pass on what the processes said, waiting up to `POLL_S` for more; returns how much it was, and how many ended."""
    on_verdict, on_finding, progress = sinks
    count = ends = 0
    while True:
        try:
            said = queue.get(timeout=POLL_S)
        except Empty:
            return count, ends
        count += 1
        if said is None:
            ends += 1
        elif isinstance(said, WindowVerdict):
            on_verdict(said)
        elif isinstance(said, Finding):
            on_finding(said)
        else:
            progress(*said)
