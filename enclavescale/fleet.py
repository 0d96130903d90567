"""The demo's fleet: 32 hosts of 8 GPUs in two domains, replaying bundled traces, under a policy of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from attester.signing import public_point, sign_raw
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.agent.file import BUNDLED, HostSpec, TraceSpec
from enclavescale.agent.sources import trace_source
from schemas.codec import encode_policy, encode_signed_policy, policy_preimage
from schemas.records import (
    AggregatorEnrolment,
    ClassEnrolment,
    DomainRule,
    HostEnrolment,
    Limits,
    Measurement,
    ModelRule,
    Policy,
    RegisterRule,
)
from stream_jobs.core.policies import CORE_VERSION

HOST_IMAGE = "enclavescale-host"
AGGREGATOR_IMAGE = "enclavescale-aggregator"
ROGUE_IMAGE = "enclavescale-host-modified"
AGGREGATOR_ID = "aggregator-0"
SAMPLE_HZ = 10
PANE_MS = 1_000


@dataclass(frozen=True, slots=True)
class DemoModel:
    """A GPU model of the demo: `tdp_w` nominal (data sheet), clip bound above the overshoot seen in traces."""

    model: str
    tdp_w: int
    clip_high_w: int
    traces: tuple[str, ...]

    def rule(self) -> ModelRule:
        """Model rule: ten states of equal width up to the nominal limit, the last one open to the clip bound."""
        return ModelRule(
            model=self.model,
            edges_w=tuple(self.tdp_w * i // 10 for i in range(1, 10)),
            clip_low_w=0,
            clip_high_w=self.clip_high_w,
        )


MODELS = (
    DemoModel("NVIDIA A100-PCIE-40GB", 250, 400, ("a100_square", "a100_step")),
    DemoModel("Tesla V100-SXM2-16GB", 300, 450, ("v100_square",)),
    DemoModel("NVIDIA GeForce RTX 3090", 350, 525, ("rtx3090_square",)),
    DemoModel("NVIDIA GeForce RTX 4090", 450, 675, ("rtx4090_step",)),
)
DOMAINS = (("hall-a", (MODELS[0],)), ("hall-b", MODELS[1:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A demo fleet: its policy and what every host replays."""

    policy: Policy
    hosts: tuple[HostSpec, ...]

    def truth_w(self, domain: str, start_ms: int, end_ms: int) -> float:
        """Mean power of a domain in one window from the raw readings, W: what no reader of the topics ever sees."""
        enrolled = {host.host_id: host for host in self.policy.hosts}
        total = 0.0
        for spec in self.hosts:
            host = enrolled[spec.host_id]
            if host.domain == domain:
                for trace, one in zip(spec.traces, host.classes, strict=True):
                    readings = trace_source(trace, one.gpus).window(start_ms, end_ms).astype(np.float64)
                    total += float(np.nanmean(readings)) * one.gpus
        return total

    def domain_of(self, host_id: str) -> str:
        """Domain a host is enrolled in."""
        return next(host.domain for host in self.policy.hosts if host.host_id == host_id)


def _hosts(count: int, gpus: int) -> tuple[list[HostEnrolment], list[HostSpec]]:
    enrolled, specs = [], []
    for index in range(count):
        place = index % len(DOMAINS)
        domain, models = DOMAINS[place]
        rank = index // len(DOMAINS)
        model = models[rank % len(models)]
        trace = model.traces[(rank // len(models)) % len(model.traces)]
        host_id = f"{domain}-host{rank:03d}"
        # Two hosts in three run one synchronised job per model and domain; the others have offsets of their own.
        together = rank % 3 < 2
        specs.append(
            HostSpec(
                host_id=host_id,
                traces=(
                    TraceSpec(
                        trace=BUNDLED + trace,
                        seed=f"{domain}/{trace}" if together else host_id,
                        spread_ticks=2 if together else -1,
                    ),
                ),
            )
        )
        enrolled.append(
            HostEnrolment(
                host_id=host_id,
                domain=domain,
                tenant=f"tenant-{rank % 4}",
                failure_domain=f"{domain}-rack{rank // 4}",
                platform_ids=(simulated_platform_id(host_id).hex(),),
                gpu_key_digests=(),
                classes=(ClassEnrolment(model=model.model, gpus=gpus, capacity_w=gpus * model.tdp_w),),
            )
        )
    return enrolled, specs


def _rules(
    enrolled: list[HostEnrolment], window_ms: int, grace_windows: int, partitions: tuple[int, int]
) -> tuple[DomainRule, ...]:
    """A limit of 80 % of the enrolled capacity in each domain that has hosts."""
    capacity = {name: 0 for name, _ in DOMAINS}
    for host in enrolled:
        capacity[host.domain] += host.classes[0].capacity_w
    return tuple(
        DomainRule(
            domain=name,
            partition=partition,
            limit_w=capacity[name] * 8 // 10,
            window_ms=window_ms,
            pane_ms=PANE_MS,
            grace_ms=grace_windows * window_ms,
            quantile_ppm=990_000,
            confidence_ppm=950_000,
            horizon_ms=0,
            quorum_ppm=800_000,
            k_min_hosts=2,
            k_min_tenants=1,
        )
        for (name, _), partition in zip(DOMAINS, partitions, strict=True)
        if capacity[name]
    )


def _measurements() -> tuple[Measurement, ...]:
    return tuple(
        Measurement(
            label=image,
            role=role,
            tee="tdx",
            registers=(
                RegisterRule(register="mrtd", value=simulated_measurement(image), mask_absent_reason="all bits count"),
            ),
        )
        for role, image in (("host", HOST_IMAGE), ("aggregator", AGGREGATOR_IMAGE))
    )


def demo_fleet(
    tee: SimulatedTee,
    *,
    hosts: int,
    gpus: int,
    window_ms: int,
    now_ms: int,
    create_time: bool,
    evidence_interval: int = 6,
    lateness_ms: int = 600_000,
    grace_windows: int = 1,
    partitions: tuple[int, int] = (0, 1),
    max_idle_ms: int = 120_000,
    max_beacon_age_ms: int | None = None,
) -> Fleet:
    """Enrol `hosts` hosts of `gpus` GPUs in two domains. `create_time`: the broker stamps no append times;
    `max_beacon_age_ms`: demand evidence that names a beacon."""
    enrolled, specs = _hosts(hosts, gpus)
    policy = Policy(
        version=1,
        counter=1,
        issued_at_ms=now_ms,
        effective_from_ms=0,
        not_after_ms=now_ms + 7 * 24 * 3600 * 1000,
        core_version=CORE_VERSION,
        accepted_sources=("trace",),
        accepted_sampler_modes=("instant",),
        min_first_mile="NONE",
        sample_hz=SAMPLE_HZ,
        domains=_rules(enrolled, window_ms, grace_windows, partitions),
        hosts=tuple(sorted(enrolled, key=lambda host: host.host_id)),
        aggregators=(
            AggregatorEnrolment(host_id=AGGREGATOR_ID, platform_ids=(simulated_platform_id(AGGREGATOR_ID).hex(),)),
        ),
        models=tuple(sorted((model.rule() for model in MODELS), key=lambda rule: rule.model)),
        measurements=_measurements(),
        trust_roots=(tee.trust_root(),),
        tcb_rules=(),
        limits=Limits(
            lateness_ms=lateness_ms,
            max_idle_ms=max_idle_ms,
            evidence_interval_windows=evidence_interval,
            clock_skew_tolerance_ms=5_000,
            evidence_checks_per_window=256,
            max_epsilon_micro=1_000_000,
            max_control_age_ms=60_000,
            max_beacon_age_ms=max_beacon_age_ms,
        ),
        unsafe_allow_unevaluated_tcb=True,
        unsafe_allow_unenrolled_platform=False,
        unsafe_allow_create_time=create_time,
    )
    return Fleet(policy=policy, hosts=tuple(specs))


def sign_policy(policy: Policy, key: ec.EllipticCurvePrivateKey) -> bytes:
    """A value of the policy topic, signed."""
    policy_bytes = encode_policy(policy)
    return encode_signed_policy(
        policy_bytes, sign_raw(key, policy_preimage(policy_bytes)), public_point(key.public_key())
    )
