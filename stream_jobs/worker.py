"""The worker: an attested aggregator that reads, decides, publishes and commits, until it is told to stop."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry

from attester.quote import QuoteProvider
from attester.session import Session
from schemas.codec import SINGLE_OBJECT, Framing
from schemas.contract import PROTOCOL
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import SessionBinding
from schemas.topics import TopicNames
from stream_jobs.beacons import BeaconIssuer
from stream_jobs.collateral_store import CollateralMetrics, CollateralStore, set_ends_ms
from stream_jobs.collector import tune_collector
from stream_jobs.core.policies import CORE_VERSION, PolicyView
from stream_jobs.hold import SchemaGate
from stream_jobs.job import JobContext
from stream_jobs.log_slots import Turn
from stream_jobs.metrics import EvidenceChecks, JobMetrics, Stages, about
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts
from stream_jobs.policy_store import PolicyMetrics, PolicyStore, PolicyTrust
from stream_jobs.reading import ReadFailed, open_reader
from stream_jobs.settings import LogSettings
from stream_jobs.tail import TailReader
from stream_jobs.tracing import NO_TRACER, Tracer
from verifier.cache import SessionCache

logger = logging.getLogger(__name__)

POLICY_WAIT_S = 60.0
"""How long a starting worker waits for the first trusted policy, s; without one it fails closed."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a running worker rests on; asked by whoever watches it, on a thread that may wait for a read."""

    policies: PolicyStore
    collateral: CollateralStore

    def policy_end_ms(self) -> int | None:
        """End of the newest trusted policy, Unix time; None without any."""
        newest = self.policies.newest
        return None if newest is None else newest.policy.not_after_ms

    def collateral_end_ms(self) -> int | None:
        """When the newest set of collateral first lacks something, Unix time; None where nothing ends."""
        newest = self.collateral.newest(0)
        return None if newest is None else set_ends_ms(newest.view.held)


class WorkerObserver(Protocol):
    """What watches a worker: health, the program around it. `turned` is called on the event loop: it must not block."""

    def started(self, facts: WorkerFacts) -> None:
        """The policy is there, the group is joined next."""

    def turned(self, turn: Turn) -> None:
        """The loop went round once, about once a second."""

    def ended(self, failure: EnclaveScaleError | None) -> None:
        """The worker has stopped; `failure` says why, None after a clean stop."""


class NoObserver:
    """Nobody watches."""

    def started(self, facts: WorkerFacts) -> None:
        """Do nothing."""

    def turned(self, turn: Turn) -> None:
        """Do nothing."""

    def ended(self, failure: EnclaveScaleError | None) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What a worker is told. `kafka`: librdkafka properties; `provider`: the TEE that quotes its session;
    `beacon_interval_ms`: how often it issues a beacon where nobody else does, None for never."""

    kafka: Mapping[str, str] = field(repr=False)
    host_id: str
    group: str
    provider: QuoteProvider
    trust: PolicyTrust
    topics: TopicNames = field(default_factory=TopicNames)
    framing: Framing = SINGLE_OBJECT
    gate: SchemaGate | None = None
    settings: LogSettings = field(default_factory=LogSettings)
    policy_wait_s: float = POLICY_WAIT_S
    beacon_interval_ms: int | None = None
    observer: WorkerObserver = field(default_factory=NoObserver)
    tracer: Tracer = NO_TRACER


def aggregator_binding(config: WorkerConfig, cluster_id: str | None, now_ms: int) -> Callable[[bytes], SessionBinding]:
    """Binding of an aggregator's session: whose policies it obeys, which core decides, what it reads and writes."""
    topics = config.topics
    names = (topics.reports, topics.output, topics.manifests, topics.rejections, topics.policy)
    effective = {"topics": names, "group": config.group, "core": CORE_VERSION, "min_counter": config.trust.min_counter}
    digest = hashlib.sha256(json.dumps(effective, sort_keys=True).encode()).digest()

    def bind(point: bytes) -> SessionBinding:
        return SessionBinding(
            protocol=PROTOCOL,
            role="aggregator",
            session_public_key=point,
            host_id=config.host_id,
            domain_absent_reason="an aggregator serves every domain",
            source="none",
            sampler_mode_absent_reason="an aggregator samples nothing",
            config_digest=digest,
            sample_hz_absent_reason="an aggregator samples nothing",
            window_ms_absent_reason="the policy says",
            pane_ms_absent_reason="the policy says",
            privacy_absent_reason="an aggregator releases nothing of its own",
            clip_ranges=(),
            state_grids=(),
            gpu_identities_digest_absent_reason="an aggregator has no GPUs",
            beacon_absent_reason="no beacon was given",
            created_at_ms=now_ms,
            policy_signers=config.trust.signers,
            core_version=CORE_VERSION,
            cluster_id=cluster_id,
            cluster_id_absent_reason=None if cluster_id else "the cluster states none",
            topic_ids=names,
        )

    return bind


def wait_for_policy(
    store: PolicyStore,
    wait_s: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> PolicyView:
    """The newest trusted policy; waits up to `wait_s`, then raises ConfigError NO_POLICY, or ReadFailed."""
    deadline = clock() + wait_s
    while True:
        unread = None
        try:
            store.refresh()
        except ReadFailed as error:  # brokers or a topic that are only just coming up
            unread = error
        if store.newest is not None:
            return store.newest
        if clock() >= deadline:
            raise unread or ConfigError(
                "no trusted policy on the policy topic",
                code="NO_POLICY",
                remedy="Publish a policy signed by one of the trusted signers, then start the worker again.",
            )
        pause(0.5)


def run_worker(config: WorkerConfig, registry: CollectorRegistry = REGISTRY) -> int:
    """Run until SIGTERM; exit code 0, or 1 after a failure. Raises our errors for what is wrong before the start."""
    from stream_jobs.agents import LogWorker  # noqa: PLC0415  slow to load: Faust is for who runs a worker

    reader = open_reader(config.kafka)
    cluster_id = reader.list_topics(timeout=20).cluster_id or None
    session = Session(config.provider, aggregator_binding(config, cluster_id, int(time.time() * 1000)))
    if session.simulated:
        logger.warning("SIMULATED TEE: this worker's session proves nothing; for demonstrations only")
    store = PolicyStore(config.kafka, config.topics.policy, config.trust, framing=config.framing)
    collateral = CollateralStore(config.kafka, config.topics.collateral, framing=config.framing)
    about(
        registry,
        version=version("enclavescale"),
        core_version=CORE_VERSION,
        tee=config.provider.kind,
        simulated=session.simulated,
    )
    registry.register(PolicyMetrics(store))
    registry.register(CollateralMetrics(collateral))
    policy = wait_for_policy(store, config.policy_wait_s)
    settings = config.settings
    if policy.policy.unsafe_allow_create_time and not settings.unsafe_allow_create_time:
        logger.warning("the policy tolerates producers' timestamps, this worker does not")
    stages = Stages(registry)
    verify = EvidenceChecks(SessionCache(), stages, registry).verify
    identity = WorkerIdentityFacts(session, config.host_id)
    publisher = OutputPublisher(config.kafka, config.topics, identity, framing=config.framing, stages=stages)
    interval_ms, beacons = config.beacon_interval_ms, None
    if interval_ms is not None:
        beacons = BeaconIssuer(config.kafka, config.topics, identity, interval_ms=interval_ms, framing=config.framing)
    context = JobContext(
        topics=config.topics,
        framing=config.framing,
        gate=config.gate,
        policies=store,
        verify=verify,
        publisher=publisher,
        tail=TailReader(
            reader, framing=config.framing, verify=verify, policies=store.lookup, sets=collateral.candidates
        ),
        collateral=collateral,
        beacons=beacons,
        metrics=JobMetrics(registry, stages),
        tracer=config.tracer,
    )
    config.observer.started(WorkerFacts(store, collateral))
    worker = LogWorker(
        topic=config.topics.reports,
        group=config.group,
        kafka=config.kafka,
        factory=context.make_job,
        settings=settings,
        registry=registry,
        stages=stages,
        on_turn=config.observer.turned,
    )
    tune_collector()
    code = worker.run()
    config.observer.ended(worker.failure)
    if worker.failure is not None:
        logger.critical("%s: %s. %s", worker.failure.code, worker.failure, worker.failure.remedy)
    store.close()
    collateral.close()
    reader.close()
    return code
