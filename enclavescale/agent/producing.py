"""What `enclavescale produce` runs: an agent from its file, under a signed policy, reloaded without a gap."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaException

from enclavescale.agent.aggregators import AggregatorCheck
from enclavescale.agent.file import SIMULATED_TEE, BudgetSpec, HostSpec, ProduceSpec
from enclavescale.agent.policy import check_grade, check_tee, enrolment_of, profile_of, read_trusted_policy, schedule_of
from enclavescale.agent.sessions import MakeSession, cpu_quotes, host_devices, session_maker
from enclavescale.agent.sources import BoundedState, HostSources, SourcePool
from enclavescale.agent.watch import HostWatch, Instruments, WatchedHost
from enclavescale.gate import Gate, GatedPacer
from enclavescale.registry.ids import open_framing
from enclavescale.registry.options import RegistryOptions
from producers.agent import Agent, AgentConfig, RunSummary
from producers.beacons import BeaconFollower
from producers.config import HostProfile, Schedule, SessionFacts, session_facts
from producers.host import AgentHost
from producers.pacer import Pacer, RealTimePacer, ReplayPacer
from producers.privacy import Budget, check_budget, privacy_parameters
from producers.publish import PublishConfig, partitions_of
from producers.renewal import Place, SessionKeeper, wall_clock_ms
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import Beacon, Policy, SignedPolicy
from schemas.topics import TopicNames
from stream_jobs.policy_store import PolicyTrust

log = logging.getLogger(__name__)

RESTART_FIELDS = (
    "spool",
    "spool_max_mib",
    "spool_max_age_s",
    "listen",
    "windows",
    "speed",
    "start_ms",
    "origin_ms",
    "gated",
)
"""Fields of the file that a reload does not change."""

BEACON_S, DEMANDED_BEACON_S = 3.0, 30.0
"""Longest wait for a beacon before the first session, s; and where the policy demands one."""

NO_PLACE = Place(0, 0, None)
"""Every session comes after it."""


@dataclass(frozen=True, slots=True)
class HostPlan:
    """One host as policy and file describe it, before it has a session."""

    profile: HostProfile
    schedule: Schedule
    budget: Budget
    facts: SessionFacts
    sources: HostSources


def plan_host(policy: Policy, host: HostSpec, pool: SourcePool, budget: BudgetSpec | None = None) -> HostPlan:
    """What a host is and releases, its sources open.

    Raises ConfigError where the policy would have every report refused (grade of the first mile, source, sampler mode,
    loss of privacy), and what the sources raise.
    """
    enrolment = enrolment_of(policy, host.host_id)
    check_grade(policy, host)
    schedule = schedule_of(policy, enrolment.domain)
    sources = pool.get(host, policy, enrolment, schedule)
    profile = profile_of(policy, enrolment, sources.sources, first_mile=host.first_mile, group_label=host.group_label)
    split = (budget or BudgetSpec()).budget(energy=sources.energy)
    parameters = privacy_parameters(split, profile.classes, schedule)
    check_budget(parameters, policy.limits.max_epsilon_micro)
    return HostPlan(profile, schedule, split, session_facts(profile, schedule, parameters), sources)


@dataclass(frozen=True, slots=True)
class Assembly:
    """A configuration that may go into force: for the agent, and what stands behind it."""

    config: AgentConfig
    hosts: tuple[WatchedHost, ...]
    policy: SignedPolicy
    beacons: BeaconFollower | None = None
    aggregators: AggregatorCheck | None = None

    @property
    def sources(self) -> list[HostSources]:
        """What its hosts read."""
        return [host.sources for host in self.hosts]

    def close(self) -> None:
        """End what renews its sessions; sources belong to the pool."""
        for one in (self.beacons, self.aggregators):
            if one is not None:
                one.close()
        for host in self.hosts:
            host.keeper.close()


class Production:
    """One agent process: assembles what the file says, runs it, and replaces it on `reload`. A context manager.

    Raises ConfigError, SpoolError, TraceError, NvmlFault, TSM errors, SchemaError and VerificationError if it cannot
    begin; nothing was sent then.
    """

    def __init__(
        self,
        spec: ProduceSpec,
        kafka: Mapping[str, str],
        gate: Gate | None = None,
        wall_ms: Callable[[], int] = wall_clock_ms,
        pool: SourcePool | None = None,
    ) -> None:
        self._spec, self._gate, self._wall_ms = spec, gate, wall_ms
        self._pool = SourcePool() if pool is None else pool
        self._reloading = threading.Lock()
        self._current: Assembly | None = None  # the newest, which the agent may not have taken over yet
        self._in_force: Assembly | None = None
        self.instruments = Instruments()
        try:
            if spec.listen:
                self.instruments.listen(spec.listen)
            self._current = self._assemble(spec, kafka, {})
            self._agent = Agent(self._current.config)
            self._in_force = self._current  # also for a reload that comes before `run`
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Production:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, stop: threading.Event) -> RunSummary:
        """Run until the windows are done or `stop` is set."""
        return self._agent.run(stop)

    def reload(self, load: Callable[[], tuple[ProduceSpec, Mapping[str, str]]]) -> bool:
        """Go over to what `load` returns with the next window; False, and nothing changes, where that cannot be.

        May be called from any thread; never raises for what is wrong with the new configuration, which is logged.
        """
        with self._reloading:
            self.instruments.notifier.reloading()
            try:
                spec, kafka = load()
                self._check_reload(spec)
                made = self._assemble(spec, kafka, self._hold())
                # Before the agent hears of it, which may go over to it at once.
                before, self._current = self._current, made
                try:
                    self._agent.replace(made.config)
                except BaseException:
                    self._current = before
                    made.close()
                    raise
            except (EnclaveScaleError, KafkaException) as error:
                log.error("not reloaded: %s: %s %s", code_of(error), error, getattr(error, "remedy", ""))
                return self._refused(code_of(error))
            except Exception:
                log.exception("not reloaded")
                return self._refused("INTERNAL")
            if before is not None and before is not self._in_force:
                before.close()  # replaced before it came into force
            self._spec = spec
            self.instruments.notifier.ready("reloaded, in force with the next window")
            return True

    def close(self) -> None:
        """End every thread. Does not wait for the broker: `run` has."""
        for one in self._assemblies():
            one.close()
        self._pool.close()
        self.instruments.close()

    def _hold(self) -> dict[str, Place]:
        """Have nobody renew a session while another configuration waits for its window: by host, after which session
        the first of that must come. Workers take the newest session of a host for the valid one."""
        newest: dict[str, Place] = {}
        for one in self._assemblies():
            for host in one.hosts:
                place = host.keeper.hold()
                if host.host_id not in newest or newest[host.host_id].before(place):
                    newest[host.host_id] = place
        return newest

    def _resume(self) -> None:
        """Renew again, in the newest configuration alone: one whose window is still awaited stays the newest."""
        for host in self._current.hosts if self._current is not None else ():
            host.keeper.resume()

    def _assemblies(self) -> list[Assembly]:
        return [one for one in (self._in_force, self._current) if one is not None]

    def _refused(self, code: str) -> bool:
        self._resume()
        self.instruments.reload_refused(code)
        self._close_unused()
        return False

    def _taken_over(self, assembly: Assembly, done: bool) -> None:
        """The agent has gone over to `assembly`, or could not: end the other one, away from the agent's thread."""
        if done:
            before, self._in_force = self._in_force, assembly
            if before is assembly:
                return  # the first one
        else:
            before = assembly
            if self._current is assembly:
                self._current = self._in_force
                if not self._reloading.locked():  # a reload that runs decides itself, at its end
                    self._resume()
        if before is not None:
            threading.Thread(target=self._release, args=(before,), daemon=True).start()

    def _release(self, before: Assembly) -> None:
        before.close()
        with self._reloading:
            self._close_unused()

    def _close_unused(self) -> None:
        self._pool.retain(source for one in self._assemblies() for source in one.sources)

    def _check_reload(self, spec: ProduceSpec) -> None:
        for name in RESTART_FIELDS:
            if getattr(spec, name) != getattr(self._spec, name):
                raise ConfigError(f"another {name} takes a restart", field=name)

    def _check_counter(self, policy: Policy, signers: Sequence[str]) -> None:
        """A policy with a lower counter was replaced: whoever puts it there undoes what its successor changed.

        Counters of a signer who is trusted no longer do not count: his successor may begin anew.
        """
        trusted = {one.lower() for one in signers}
        known = [one.policy for one in self._assemblies()]
        counters = [one.policy.counter for one in known if not trusted or one.signer_public_key.hex() in trusted]
        before = max(counters, default=policy.counter)
        if policy.counter < before:
            raise ConfigError(
                f"the policy has counter {policy.counter}; the one in force has {before}",
                code="POLICY_ROLLBACK",
                field="policy",
                remedy="Fetch the newest policy. To take an older one deliberately, have it signed with a new counter.",
            )

    def _assemble(self, spec: ProduceSpec, kafka: Mapping[str, str], newest: Mapping[str, Place]) -> Assembly:
        signed = read_trusted_policy(Path(spec.policy), spec.policy_signers)
        policy = signed.policy
        self._check_counter(policy, spec.policy_signers)
        check_tee(policy, spec)
        if policy.not_after_ms <= self._wall_ms():
            # No reason to stop: what is in force is on the log, and this file may be what is old.
            log.error("the policy has ended: reports are refused unless workers have its successor")
        plans = {host: plan_host(policy, host, self._pool, spec.budget) for host in spec.hosts}
        if len({plan.schedule for plan in plans.values()}) != 1 or len({plan.budget for plan in plans.values()}) != 1:
            raise ConfigError(
                "the hosts of one agent need one schedule and one budget; run an agent for each", field="hosts"
            )
        first = next(iter(plans.values()))
        if spec.evidence_max_age_s * 1000 < 2 * first.schedule.window_ms:
            raise ConfigError("evidence must last for two windows at least", field="evidence_max_age_s")
        hosts, watched = [], []
        beacons = _follow(spec, kafka) if spec.follow_beacons else None
        aggregators: AggregatorCheck | None = None
        try:
            heard = _first_beacon(beacons, policy)
            for host, plan in plans.items():
                maker = session_maker(cpu_quotes(spec, host.host_id), plan.facts, host_devices(host, plan.sources.nvml))
                before = newest.get(host.host_id, NO_PLACE)
                keeper, agent_host = _keep(maker, plan, before.next(heard, self._wall_ms()), spec.evidence_max_age_s)
                watched.append(WatchedHost(host.host_id, plan.sources, keeper))
                hosts.append(agent_host)
                if beacons is not None:
                    beacons.tell(keeper.demand)
            config = self._config(spec, kafka, policy, first, tuple(hosts))
            if spec.check_aggregator:
                aggregators = _check(spec, kafka, policy, {plan.profile.domain for plan in plans.values()})
        except BaseException:
            if beacons is not None:
                beacons.close()
            for one in watched:
                one.keeper.close()
            raise
        watch = HostWatch(
            self.instruments,
            policy,
            watched,
            tee=spec.tee,
            in_force=lambda done: self._taken_over(assembly, done),
            aggregators=aggregators,
        )
        made = dataclasses.replace(config, observer=watch)
        assembly = Assembly(made, tuple(watched), signed, beacons, aggregators)
        return assembly

    def _config(
        self,
        spec: ProduceSpec,
        kafka: Mapping[str, str],
        policy: Policy,
        plan: HostPlan,
        hosts: tuple[AgentHost, ...],
    ) -> AgentConfig:
        names = TopicNames.with_prefix(spec.topic_prefix)
        return AgentConfig(
            hosts=hosts,
            framing=open_framing(spec.registry or RegistryOptions(), names),
            pacer=_pacer(spec, plan.schedule, self._gate, self._wall_ms()),
            publish=PublishConfig(
                partitions=partitions_of(policy.domains),
                kafka=kafka,
                topic=names.reports,
            ),
            spool_path=Path(spec.spool),
            schedule=plan.schedule,
            budget=plan.budget,
            evidence_interval=spec.evidence_interval or policy.limits.evidence_interval_windows,
            spool_max_bytes=spec.spool_max_mib << 20,
            spool_max_age_ms=spec.spool_max_age_s * 1000,
            windows=spec.windows or None,
        )


def _keep(
    make: MakeSession, plan: HostPlan, named: tuple[Beacon | None, int], max_age_s: int
) -> tuple[SessionKeeper, AgentHost]:
    """A host with its first session, of that beacon and time, and who makes the next ones."""
    first = make(*named)
    keeper = SessionKeeper(make, first, max_age_ms=max_age_s * 1000, window_ms=plan.schedule.window_ms).start()
    nvml = plan.sources.nvml
    return keeper, AgentHost(
        profile=plan.profile,
        session=first,
        renewal=keeper,
        confidential_compute=None if nvml is None else BoundedState(nvml.confidential_compute),
    )


def _follow(spec: ProduceSpec, kafka: Mapping[str, str]) -> BeaconFollower:
    """Beacons are followed on a connection of their own."""
    names = TopicNames.with_prefix(spec.topic_prefix)
    framing = open_framing(spec.registry or RegistryOptions(), names)
    return BeaconFollower(kafka, names.beacons, framing=framing).start()


def _check(spec: ProduceSpec, kafka: Mapping[str, str], policy: Policy, domains: Set[str]) -> AggregatorCheck:
    """The aggregators of these domains are looked at with consumers of its own."""
    trust = PolicyTrust(tuple(bytes.fromhex(one) for one in spec.policy_signers))
    places = {rule.domain: rule.partition for rule in policy.domains if rule.domain in domains}
    names = TopicNames.with_prefix(spec.topic_prefix)
    framing = open_framing(spec.registry or RegistryOptions(), names)
    return AggregatorCheck(kafka, names, trust, places, framing=framing).start()


def _first_beacon(beacons: BeaconFollower | None, policy: Policy) -> Beacon | None:
    """The beacon for sessions to begin with: a policy that demands one is worth waiting for it."""
    if beacons is None:
        return None
    if policy.limits.max_beacon_age_ms is None:
        return beacons.newest(BEACON_S)
    found = beacons.newest(DEMANDED_BEACON_S, or_none=False)
    if found is None:
        log.warning("no beacon was heard, and the policy demands one: reports are refused until one is")
    return found


def _pacer(spec: ProduceSpec, schedule: Schedule, gate: Gate | None, now_ms: int) -> Pacer:
    pacer: Pacer = RealTimePacer(schedule.window_ms)
    if spec.speed:
        pacer = ReplayPacer(
            schedule.window_ms, start_ms=spec.start_ms, speed=spec.speed, origin_s=(spec.origin_ms or now_ms) / 1000
        )
    return GatedPacer(pacer, gate) if gate is not None else pacer


def code_of(error: Exception) -> str:
    """The stable code of an error of ours; CONFIG_INVALID for the client library's."""
    return error.code if isinstance(error, EnclaveScaleError) else "CONFIG_INVALID"


def produce(spec: ProduceSpec, kafka: Mapping[str, str], stop: threading.Event, gate: Gate | None = None) -> RunSummary:
    """Run the agent until its windows are done or `stop` is set."""
    with Production(spec, kafka, gate) as production:
        return production.run(stop)


def is_simulated(spec: ProduceSpec) -> bool:
    """Whether no hardware stands behind its evidence."""
    return spec.tee == SIMULATED_TEE
