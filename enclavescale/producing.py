"""What `enclavescale produce` runs: hosts from a configuration file, under a signed policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attester.session import Session
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.gate import Gate, GatedPacer
from producers.agent import AgentConfig, RunSummary, run
from producers.config import ClassProfile, HostProfile, Schedule, host_binding, session_facts
from producers.host import AgentHost
from producers.pacer import Pacer, RealTimePacer, ReplayPacer
from producers.privacy import Budget, privacy_parameters
from producers.publish import PublishConfig, partitions_of
from producers.sample.trace import TraceSource, load_bundled, read_nvidia_smi
from schemas.codec import decode_signed_policy
from schemas.errors import ConfigError
from schemas.mapping import from_jsonable
from schemas.records import HostEnrolment, Policy
from schemas.topics import TopicNames

BUNDLED = "bundled:"


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSpec:
    """Where one host's readings of one GPU model come from.

    `trace`: `bundled:NAME` or the path of an nvidia-smi CSV log; `seed`: hosts with one seed run in step;
    `spread_ticks`: largest offset between GPUs, -1 for independent ones.
    """

    trace: str
    seed: str
    spread_ticks: int = 0

    def source(self, gpus: int) -> TraceSource:
        """The source of `gpus` GPUs. Raises TraceError or ConfigError."""
        if self.trace.startswith(BUNDLED):
            trace = load_bundled(self.trace.removeprefix(BUNDLED))
        else:
            trace, _, _ = read_nvidia_smi(Path(self.trace))
        return TraceSource(
            trace, gpus=gpus, seed=self.seed, spread_ticks=None if self.spread_ticks < 0 else self.spread_ticks
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSpec:
    """One host to run and the source of each of its enrolled GPU models, in the enrolment's order."""

    host_id: str
    traces: tuple[TraceSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceSpec:
    """The configuration file of `enclavescale produce`.

    `policy`: path of a signed policy (a value of the policy topic). `tee_directory`: key material of the simulated
    TEE; `tee_image`: the image it claims to measure. `speed` 0 means real time; else event time runs `speed` times
    as fast from `start_ms`, which corresponds to the Unix time `origin_ms`. `windows` 0 means until stopped.
    `gated`: windows wait until they are released on stdin (`enclavescale.gate`), and the run ends with stdin.
    Kafka properties stand in the same file, in a table `kafka`.
    """

    policy: str
    hosts: tuple[HostSpec, ...]
    spool: str
    tee_directory: str
    tee_image: str = "enclavescale-host"
    windows: int = 0
    speed: int = 0
    start_ms: int = 0
    origin_ms: int = 0
    evidence_interval: int = 0
    topic_prefix: str = "enclavescale"
    gated: bool = False


def load_spec(table: Mapping[str, object]) -> ProduceSpec:
    """Read a `ProduceSpec` from a configuration table, Kafka properties left aside. Raises ConfigError."""
    own = {name: value for name, value in table.items() if name != "kafka" and not name.startswith("kafka.")}
    try:
        return from_jsonable(ProduceSpec, own)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"produce configuration: {error}", remedy="docs/operations.md has a complete example of this file."
        ) from error


def read_policy(path: Path) -> Policy:
    """A policy from a file that holds a value of the policy topic. Its signature is the verifiers' business."""
    try:
        return decode_signed_policy(path.read_bytes())[0].policy
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", field="policy") from error


def schedule_of(policy: Policy, domain: str) -> Schedule:
    """Window, pane and rate that the policy demands of a domain's hosts."""
    for rule in policy.domains:
        if rule.domain == domain:
            return Schedule(window_ms=rule.window_ms, pane_ms=rule.pane_ms, sample_hz=policy.sample_hz)
    raise ConfigError(f"domain {domain} is not in the policy", field="domain")


def profile_of(policy: Policy, enrolment: HostEnrolment, spec: HostSpec) -> HostProfile:
    """A host's profile: everything but the source of its readings comes from its enrolment."""
    models = {rule.model: rule for rule in policy.models}
    if len(spec.traces) != len(enrolment.classes):
        raise ConfigError(f"{spec.host_id}: give one trace per enrolled GPU model", field="traces")
    classes = []
    for enrolled, trace in zip(enrolment.classes, spec.traces, strict=True):
        rule = models[enrolled.model]
        classes.append(
            ClassProfile(
                model=enrolled.model,
                capacity_w=enrolled.capacity_w,
                edges_w=rule.edges_w,
                clip_low_w=rule.clip_low_w,
                clip_high_w=rule.clip_high_w,
                source=trace.source(enrolled.gpus),
            )
        )
    return HostProfile(host_id=enrolment.host_id, domain=enrolment.domain, classes=tuple(classes))


def agent_host(
    policy: Policy, spec: HostSpec, tee_directory: Path, image: str, budget: Budget, now_ms: int
) -> AgentHost:
    """A host with a fresh session, quoted by the simulated TEE of its enrolled platform."""
    enrolment = next((host for host in policy.hosts if host.host_id == spec.host_id), None)
    if enrolment is None:
        raise ConfigError(f"{spec.host_id} is not enrolled in the policy", field="host_id")
    profile = profile_of(policy, enrolment, spec)
    schedule = schedule_of(policy, enrolment.domain)
    facts = session_facts(profile, schedule, privacy_parameters(budget, profile.classes, schedule))
    tee = SimulatedTee.create(
        tee_directory, platform_id=simulated_platform_id(spec.host_id), mrtd=simulated_measurement(image)
    )
    return AgentHost(
        profile=profile, session=Session(tee, lambda point: host_binding(facts, point, created_at_ms=now_ms))
    )


def agent_config(
    spec: ProduceSpec, kafka: Mapping[str, str], wall_ms: int | None = None, gate: Gate | None = None
) -> AgentConfig:
    """Everything an agent process needs, from its specification."""
    policy = read_policy(Path(spec.policy))
    domains = {host.host_id: host.domain for host in policy.hosts}
    budget = Budget()
    now_ms = int(time.time() * 1000) if wall_ms is None else wall_ms
    hosts = tuple(
        agent_host(policy, host, Path(spec.tee_directory), spec.tee_image, budget, now_ms) for host in spec.hosts
    )
    schedules = {schedule_of(policy, domains[host.host_id]) for host in spec.hosts}
    if len(schedules) != 1:
        raise ConfigError("the hosts of one agent need one schedule; run one agent per schedule", field="hosts")
    schedule = schedules.pop()
    pacer: Pacer = RealTimePacer(schedule.window_ms)
    if spec.speed:
        pacer = ReplayPacer(
            schedule.window_ms, start_ms=spec.start_ms, speed=spec.speed, origin_s=(spec.origin_ms or now_ms) / 1000
        )
    return AgentConfig(
        hosts=hosts,
        pacer=GatedPacer(pacer, gate) if gate is not None else pacer,
        publish=PublishConfig(
            partitions=partitions_of(policy.domains),
            kafka=kafka,
            topic=TopicNames.with_prefix(spec.topic_prefix).reports,
        ),
        spool_path=Path(spec.spool),
        schedule=schedule,
        budget=budget,
        evidence_interval=spec.evidence_interval or policy.limits.evidence_interval_windows,
        windows=spec.windows or None,
    )


def produce(spec: ProduceSpec, kafka: Mapping[str, str], stop: threading.Event, gate: Gate | None = None) -> RunSummary:
    """Run the agent until its windows are done or `stop` is set."""
    return run(agent_config(spec, kafka, gate=gate), stop)
