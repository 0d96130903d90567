"""A worker that starts again reads its last outputs first and continues the chain: at the job, wherever it dies."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from schemas.codec import SINGLE_OBJECT
from stream_jobs.audit.chain import ChainWalker
from stream_jobs.core.policies import PolicyView
from stream_jobs.job import DomainJob, JobContext
from stream_jobs.log_record import START_METADATA, LogRecord, PublishFailed
from stream_jobs.metrics import JobMetrics
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts
from stream_jobs.tail import TailReader
from tests.audit.site import NAMES, Site, Topics, checker, site_of, worker_session
from tests.audit.stories import HOSTS, tell
from tests.audit.test_chain import idle_story, resigned
from tests.core.fleet import AGGREGATORS, PARTITION
from tests.core.replay import CACHE, remembered
from tests.core.story import Story, small_policy

STEP = 3 if os.environ.get("ENCLAVESCALE_TIER", "test") == "test" else 1
"""Every so many writes the worker dies at: one step meets dead letters, manifests and outputs alike."""


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


@dataclass
class Broker:
    """Takes records for `topics` until `left` have been written; then it fails."""

    topics: Topics
    left: int = 1 << 30
    errors: list[Any] = field(default_factory=list)

    def produce(self, topic: str, *, on_delivery: Callable[..., None], **given: Any) -> None:
        if self.left <= 0:
            message = SimpleNamespace(topic=lambda: topic, partition=lambda: 0)
            on_delivery(SimpleNamespace(str=lambda: "broker gone"), message)
            return
        self.left -= 1
        key, headers = given["key"], [(name, value.encode()) for name, value in given["headers"]]
        raw = key.encode() if isinstance(key, str) else key
        self.topics.append(topic, given["partition"], 0, raw, given["value"], headers)

    def poll(self, timeout_s: float) -> None:
        """Nothing to wait for."""

    def flush(self, timeout_s: float) -> int:
        """All is written, or failed."""
        return 0


class Policies:
    """Holds the story's policies."""

    def __init__(self, views: tuple[PolicyView, ...]):
        self._views = {view.digest: view for view in views}
        self.newest = max(views, key=lambda view: view.policy.counter)

    def refresh(self) -> None:
        """Nothing new."""

    def lookup(self, digest: bytes) -> PolicyView | None:
        return self._views.get(digest)


def message(record: LogRecord) -> SimpleNamespace:
    return SimpleNamespace(
        value=lambda: record.value, offset=lambda: record.offset, headers=lambda: list(record.headers)
    )


@pytest.fixture
def tails(monkeypatch: pytest.MonkeyPatch) -> Callable[[Topics], None]:
    """Tails are read from topics in memory."""

    def use(topics: Topics) -> None:
        def backwards(_: object, topic: str, partition: int, timeout_s: float, chunk: int = 2) -> Iterator[list[Any]]:
            held = list(topics.records.get((topic, partition), []))
            while held:
                held, part = held[:-chunk], held[-chunk:]
                yield [message(one) for one in part]

        monkeypatch.setattr("stream_jobs.tail.backwards", backwards)

    return use


def job_of(site: Site, worker: int, start: int, metadata: str, broker: Broker) -> DomainJob:
    policies: Any = Policies(site.story.policies)
    consumer: Any = None
    identity = WorkerIdentityFacts(worker_session(worker), AGGREGATORS[worker])
    publisher = OutputPublisher({}, NAMES, identity, framing=SINGLE_OBJECT, make_producer=lambda _: broker)
    context = JobContext(
        topics=NAMES,
        framing=SINGLE_OBJECT,
        policies=policies,
        verify=CACHE.verify,
        publisher=publisher,
        tail=TailReader(consumer, framing=SINGLE_OBJECT, verify=CACHE.verify, policies=policies.lookup),
        metrics=JobMetrics(CollectorRegistry()),
    )
    end = site.topics.of(NAMES.reports)[-1].offset + 1
    return DomainJob(context, NAMES.reports, PARTITION, start, metadata=metadata, high_watermark=end)


def work(job: DomainJob, log: list[LogRecord]) -> list[tuple[int, str]]:
    """Process until the end or the death of the broker; what could have been committed after each record."""
    commits = []
    for record in log:
        try:
            job.process(record)
        except PublishFailed:
            break
        if job.resume_offset is not None:
            commits.append((job.resume_offset, job.commit_metadata))
    return commits


def emptied(site: Site) -> Site:
    """The log and the policies, nothing published."""
    published = (NAMES.output, NAMES.manifests, NAMES.rejections)
    records = {key: list(held) for key, held in site.topics.records.items() if key[0] not in published}
    return Site(Topics(records), site.story)


def whole(site: Site, workers: set[str]) -> None:
    opener = checker().open_policy
    assert opener is not None
    newest = next(site.audit.outputs_backwards("d"))
    found = ChainWalker(site.audit, opener, CACHE.verify).walk(newest)
    assert found.broken is None, found.broken
    assert set(found.workers) <= workers


def digests(site: Site) -> list[bytes]:
    """Of the outputs on the topic, each once, in the order of the first copies."""
    found = [one for record in site.outputs() if (one := site.audit.as_output(record))]
    return list(dict.fromkeys(one.digest for one in found))


def many_at_once() -> Story:
    """Several windows close at one record: the watermark leaps."""
    view = small_policy(3, grace_ms=0)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    for window in range(3):
        story.report("h0", window)
    for window in (0, 2):
        story.report("h1", window)
    for window in range(3, 6):
        for host in HOSTS:
            story.report(host, window)
    return story


@pytest.mark.parametrize("make", [tell, many_at_once, lambda: idle_story(closed=True)], ids=["told", "leap", "idle"])
def test_a_successor_continues_the_chain_wherever_the_worker_died(
    make: Callable[[], Story], tails: Callable[[Topics], None]
) -> None:
    """Another worker, from the last commit or the one before: each output once more or for the first time, equal."""
    genuine = site_of(make())
    log = genuine.topics.of(NAMES.reports)
    written = sum(len(genuine.topics.of(name)) for name in (NAMES.output, NAMES.manifests, NAMES.rejections))
    seen: set[str] = set()
    for left in range(0, written, STEP):
        site = emptied(genuine)
        tails(site.topics)
        commits = work(job_of(site, 0, 0, START_METADATA, Broker(site.topics, left)), log)
        held = [(0, START_METADATA), *commits]
        start, metadata = held[-1] if left % 2 else held[max(0, len(held) - 3)]
        successor = job_of(site, 1, start, metadata, Broker(site.topics))
        work(successor, [one for one in log if one.offset >= start])
        assert digests(site) == digests(genuine)
        assert len(site.outputs()) == len(genuine.outputs()), "nothing is published twice by a successor"
        whole(site, {"aggregator-0", "aggregator-1"})
        seen.update(one.signed.worker.host_id for record in site.outputs() if (one := site.audit.as_output(record)))
    assert seen == {"aggregator-0", "aggregator-1"}


def test_what_readers_saw_is_what_the_chain_continues_from(tails: Callable[[Topics], None]) -> None:
    """The outputs on the topic count, not what the successor would compute for them: readers hold their digests."""
    genuine = site_of(tell())
    log = genuine.topics.of(NAMES.reports)
    site = emptied(genuine)
    tails(site.topics)
    work(job_of(site, 0, 0, START_METADATA, Broker(site.topics)), [one for one in log if one.offset < 14])
    first, second = site.outputs()
    site.topics.replace(second, value=resigned(second, lambda made: replace(made, duplicates=7), site))
    kept = digests(site)
    assert kept != digests(genuine)[:2]
    work(job_of(site, 1, 0, START_METADATA, Broker(site.topics)), log)
    assert digests(site)[:2] == kept
    third = site.audit.as_output(site.outputs()[2])
    assert third is not None
    assert (third.output.prev_output_digest, third.signed.worker.host_id) == (kept[1], "aggregator-1")
    assert third.output.prev_revision_digest == kept[1]  # the late revision of the same window
    whole(site, {"aggregator-0", "aggregator-1"})
    assert first in site.outputs()
