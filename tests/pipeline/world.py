"""A small fleet and the log it writes: real sessions, real noise, real signatures, and everything that goes wrong."""

from __future__ import annotations

import dataclasses
import random
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.agent.file import BUNDLED, HostSpec, TraceSpec
from enclavescale.agent.producing import plan_host
from enclavescale.agent.sessions import session_maker
from enclavescale.agent.sources import SourcePool
from enclavescale.fleet import AGGREGATOR_ID, HOST_IMAGE, MODELS, demo_fleet, sign_policy
from producers.host import AgentHost, HostAgent, Sealing
from producers.spool import Spool
from schemas.records import ClassEnrolment, HostEnrolment, Policy

WINDOW_MS = 10_000
LATENESS_MS = 30_000
MODEL = MODELS[0]
GPUS = 2


@dataclass(frozen=True)
class Item:
    """One record to append: partition, key, value."""

    partition: int
    key: bytes
    value: bytes


def world_policy(
    tee: SimulatedTee, domains: dict[str, int], hosts_per_domain: int, now_ms: int, max_idle_ms: int
) -> Policy:
    """Domains on partitions as given, `hosts_per_domain` hosts of two GPUs in each."""
    base = demo_fleet(
        tee,
        hosts=2,
        gpus=GPUS,
        window_ms=WINDOW_MS,
        now_ms=now_ms,
        create_time=False,
        evidence_interval=3,
        lateness_ms=LATENESS_MS,
        max_idle_ms=max_idle_ms,
    ).policy
    rule = base.domains[0]
    hosts = tuple(
        HostEnrolment(
            host_id=f"{domain}-h{index:02d}",
            domain=domain,
            tenant=f"tenant-{index % 2}",
            failure_domain=f"{domain}-rack",
            platform_ids=(simulated_platform_id(f"{domain}-h{index:02d}").hex(),),
            gpu_key_digests=(),
            classes=(ClassEnrolment(model=MODEL.model, gpus=GPUS, capacity_w=GPUS * MODEL.tdp_w),),
        )
        for domain in sorted(domains)
        for index in range(hosts_per_domain)
    )
    return dataclasses.replace(
        base,
        hosts=hosts,
        domains=tuple(
            dataclasses.replace(
                rule,
                domain=name,
                partition=domains[name],
                limit_w=hosts_per_domain * GPUS * 200,
                history_windows=4,  # so that resume offsets move within a test
            )
            for name in sorted(domains)
        ),
        aggregators=tuple(
            dataclasses.replace(
                base.aggregators[0],
                host_id=f"aggregator-{n}",
                platform_ids=(simulated_platform_id(f"aggregator-{n}").hex(),),
            )
            for n in range(8)
        ),
    )


class World:
    """The fleet's hosts as they run: `window` makes the reports of one window, faults included."""

    def __init__(
        self,
        directory: Path,
        domains: dict[str, int],
        hosts_per_domain: int,
        seed: int,
        *,
        max_idle_ms: int = 3_600_000,
    ):
        self.directory = directory
        self.random = random.Random(seed)
        self.now_ms = int(time.time() * 1000)
        self.tee_directory = directory / "tee"
        self.tee = SimulatedTee.create(self.tee_directory)
        self.policy = world_policy(self.tee, domains, hosts_per_domain, self.now_ms, max_idle_ms)
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.policy_value = sign_policy(self.policy, self.key)
        self.signer = public_point(self.key.public_key()).hex()
        self.domains = domains
        self.spool = Spool(directory / "spool.db", max_bytes=1 << 30, max_age_ms=10**9)
        self.agents = {host.host_id: self._agent(host.host_id) for host in self.policy.hosts}
        self.held: list[tuple[int, Item]] = []
        self.restarts = 0
        self.sent = 0

    def _agent(self, host_id: str) -> HostAgent:
        spec = HostSpec(host_id=host_id, traces=(TraceSpec(trace=BUNDLED + "a100_square", seed=host_id),))
        self.now_ms += 1  # a later session is a newer one
        plan = plan_host(self.policy, spec, SourcePool())
        quotes = SimulatedTee.create(
            self.tee_directory,
            platform_id=simulated_platform_id(host_id),
            mrtd=simulated_measurement(HOST_IMAGE),
        )
        host = AgentHost(profile=plan.profile, session=session_maker(quotes, plan.facts)(None, self.now_ms))
        sealing = Sealing(
            schedule=plan.schedule,
            budget=plan.budget,
            evidence_interval=self.policy.limits.evidence_interval_windows,
        )
        return HostAgent(host, sealing, self.spool)

    def clean(self, start_ms: int) -> list[Item]:
        """One window's reports, all of them, in order, none late."""
        result = []
        for agent in self.agents.values():
            domain = agent.profile.domain
            result.append(Item(self.domains[domain], domain.encode(), agent.produce(start_ms).sealed.value))
        self.sent += len(result)
        return result

    def window(self, start_ms: int) -> list[Item]:
        """One window's reports with faults: late ones, restarts, duplicates, equivocation, junk."""
        due = [item for at, item in self.held if at <= start_ms]
        self.held = [(at, item) for at, item in self.held if at > start_ms]
        fresh: list[Item] = []
        for host_id in list(self.agents):
            if self.random.random() < 0.01:
                self.agents[host_id] = self._agent(host_id)
                self.restarts += 1
            agent = self.agents[host_id]
            domain = agent.profile.domain
            item = Item(self.domains[domain], domain.encode(), agent.produce(start_ms).sealed.value)
            chance = self.random.random()
            if chance < 0.05:
                self.held.append((start_ms + self.random.randint(1, 6) * WINDOW_MS, item))
                continue
            fresh.append(item)
            if chance < 0.08:
                fresh.append(item)
            elif chance < 0.09:
                fresh.append(Item(item.partition, item.key, agent.produce(start_ms).sealed.value))
            elif chance < 0.12:
                cut = self.random.randrange(len(item.value))
                fresh.append(Item(item.partition, item.key, item.value[:cut]))
        self.random.shuffle(fresh)
        self.sent += len(fresh) + len(due)
        return due + fresh


__all__ = ["AGGREGATOR_ID", "WINDOW_MS", "Item", "World", "world_policy"]
