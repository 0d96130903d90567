"""A worker's real parts without a broker: core, job, publisher, log adapter's slots and metrics, health, one clock."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import generate_latest

from attester.session import Session
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.fleet import AGGREGATOR_IMAGE, sign_policy
from enclavescale.worker_watch import WorkerWatch
from schemas.codec import SINGLE_OBJECT
from schemas.records import Policy
from schemas.topics import TopicNames
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.job import DomainJob, JobContext
from stream_jobs.log_jobs import process_batch, tick_jobs
from stream_jobs.log_metrics import LogMetrics
from stream_jobs.log_record import LOG_APPEND_TIME, LogRecord
from stream_jobs.log_slots import Slot, SlotState, TopicPartition
from stream_jobs.metrics import EvidenceChecks, JobMetrics, Stages, about
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts
from stream_jobs.policy_store import PolicyMetrics, PolicyTrust, open_policy
from stream_jobs.worker import WorkerConfig, aggregator_binding
from tests.observe.promtool import Recording
from tests.pipeline.test_job import Producer, Tail
from tests.pipeline.world import WINDOW_MS, Item, World
from verifier.cache import SessionCache

TOPICS = TopicNames()
SCRAPE_MS = 15_000
DAY_MS = 86_400_000
TP = TopicPartition(TOPICS.reports, 0)


class Policies:
    """A policy store without a topic: what it trusts, what it ignored."""

    def __init__(self, value: bytes, signer: str) -> None:
        self.trust = PolicyTrust((bytes.fromhex(signer),))
        self.ignored: dict[str, int] = {}
        self.views: dict[bytes, Any] = {}
        self.take(value)

    def take(self, value: bytes) -> None:
        view = open_policy(value, self.trust)
        self.views[view.digest] = view

    @property
    def newest(self) -> Any:
        return max(self.views.values(), key=lambda one: one.policy.counter)

    def refresh(self) -> None:
        pass

    def lookup(self, digest: bytes) -> Any:
        return self.views.get(digest)


class WorkerBench:
    """One worker on one partition, `hosts` hosts in `hall-a`. `log` is the reports topic; time goes when told."""

    def __init__(
        self,
        directory: Path,
        *,
        hosts: int = 3,
        limit_w: int = 10_000,
        days: float = 30,
        runs_core: str = CORE_VERSION,
        tee: str = "tdx",
        **policy: Any,
    ) -> None:
        """`limit_w` of the domain, W; `days` for which the policy holds; `runs_core`, `tee`: as the worker says."""
        self.world = World(directory, {"hall-a": 0}, hosts, 1)
        self.now_ms = self.world.now_ms // WINDOW_MS * WINDOW_MS
        rules = tuple(dataclasses.replace(rule, limit_w=limit_w) for rule in self.world.policy.domains)
        not_after_ms = self.now_ms + round(days * DAY_MS)
        named: Policy = dataclasses.replace(self.world.policy, domains=rules, not_after_ms=not_after_ms, **policy)
        self.policies = Policies(sign_policy(named, self.world.key), self.world.signer)
        self.watch = WorkerWatch(now=lambda: self.now_ms / 1000, wall_ms=lambda: self.now_ms)
        self.registry, self.producer = self.watch.registry, Producer()
        self.scraped_ms = self.now_ms
        self.stages = Stages(self.registry, clock=lambda: self.now_ms / 1000)
        quotes = SimulatedTee.create(
            self.world.tee_directory,
            platform_id=simulated_platform_id("aggregator-0"),
            mrtd=simulated_measurement(AGGREGATOR_IMAGE),
        )
        config = WorkerConfig(kafka={}, host_id="aggregator-0", group="g", provider=quotes, trust=self.policies.trust)
        session = Session(quotes, aggregator_binding(config, None, self.now_ms))
        store: Any = self.policies
        tail: Any = Tail()
        publisher = OutputPublisher(
            {},
            TOPICS,
            WorkerIdentityFacts(session, "aggregator-0"),
            framing=SINGLE_OBJECT,
            wall=lambda: self.now_ms / 1000,
            make_producer=lambda _: self.producer,
            stages=self.stages,
        )
        self.checks = EvidenceChecks(SessionCache(), self.stages, self.registry)
        self.metrics = JobMetrics(self.registry, self.stages)
        self.log_metrics = LogMetrics(self.registry, self.stages)
        self.context = JobContext(
            topics=TOPICS,
            framing=SINGLE_OBJECT,
            policies=store,
            verify=self.checks.verify,
            publisher=publisher,
            tail=tail,
            metrics=self.metrics,
        )
        self.registry.register(PolicyMetrics(store))
        about(self.registry, version="0", core_version=runs_core, tee=tee, simulated=tee == "simulated")
        self.log: list[LogRecord] = []
        self.outputs: list[bytes] = []
        self.slot = Slot(TP, 1)
        self.slot.ready(DomainJob(self.context, TP.topic, 0, 0, metadata="", high_watermark=0), 0, 0)
        self.stuck = self.uncommitted = False
        self.tick()
        self.append_written()

    def append(self, value: bytes | None, key: bytes = b"hall-a") -> None:
        """The broker appends a record now."""
        self.log.append(LogRecord(TP.topic, 0, len(self.log), self.now_ms, LOG_APPEND_TIME, key, value, ()))

    def append_written(self) -> None:
        """What the worker wrote to the reports topic gets its place in the log, and is read."""
        for one in self.producer.sent:
            if one["topic"] == TOPICS.reports:
                self.append(one["value"], one["key"])
            elif one["topic"] == TOPICS.output:
                self.outputs.append(one["value"])
        self.producer.sent.clear()
        self.read()

    def read(self) -> None:
        """Process what the log holds, unless the worker is stuck; then the round that comes once a second."""
        if not self.stuck:
            process_batch([(self.slot, one, None) for one in self.log[self.slot.done :]])
        self.tick()

    def tick(self) -> None:
        """One round of the adapter: ends, ticks, commits, metrics."""
        self.slot.offered, self.slot.high_watermark = max(self.slot.offered, self.slot.done), len(self.log)
        if not self.stuck:
            tick_jobs([self.slot], self.now_ms)
        if (point := self.slot.to_commit) is not None and not self.uncommitted:
            self.slot.committed = point[0]
        self.log_metrics.publish(self.slot, self.now_ms)
        self.log_metrics.count_states([self.slot])

    def window(self, items: list[Item] | None = None) -> None:
        """A window goes by; its reports (by default all of them) arrive when it has ended, and are read."""
        start = self.now_ms // WINDOW_MS * WINDOW_MS
        given = self.world.clean(start) if items is None else items
        self.now_ms = start + WINDOW_MS
        for item in given:
            self.append(item.value, item.key)
        self.read()
        self.append_written()

    def run(
        self,
        recording: Recording,
        scrapes: int,
        during: Callable[[int], list[Item]] | None = None,
        **others: str | None,
    ) -> None:
        """So many scrapes, 15 s apart, with all the windows between them; `during` gives a window's reports; `others`
        are scraped beside it."""
        if not recording.scrapes:
            self.window()  # sessions that are new to the worker are no restart
            recording.epoch_s, self.scraped_ms = self.now_ms / 1000, self.now_ms
        for _ in range(scrapes):
            while self.now_ms // WINDOW_MS * WINDOW_MS + WINDOW_MS <= self.scraped_ms:
                self.window(None if during is None else during(self.now_ms // WINDOW_MS * WINDOW_MS))
            self.now_ms = max(self.now_ms, self.scraped_ms)
            self.tick()
            self.scraped_ms += SCRAPE_MS
            recording.scrape(worker=self.text(), **others)

    def lose(self) -> None:
        """The partition goes to another worker."""
        self.slot.state = SlotState.LOST
        assert self.slot.job is not None
        self.slot.job.close()
        self.log_metrics.remove(TP)
        self.log_metrics.count_states([])

    def text(self) -> str:
        """What /metrics serves."""
        return generate_latest(self.registry).decode()
