"""`bench attestation`: what it costs to prove where a sample comes from, in µs of CPU time per sample.

Own cost is what this product adds: a session's key, binding and evidence put together on the host, its verification by
the worker, one signature and one verification per report, evidence that is repeated. What the TEE's hardware takes for
a quote, and GPUs for their reports, stands apart: it is entered or measured where there is hardware, never left out of
sight. Ceilings are the bare operations of the same run.
"""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from attester.gpu import nvidia_gpus
from attester.host_evidence import HostEvidence
from attester.session import Session
from attester.simulated import simulated_platform_id
from attester.tsm import TsmQuotes
from attester.tsm_entries import REPORT_DIRECTORY, ConfigfsEntries
from enclavescale.agent.producing import plan_host
from enclavescale.agent.sources import SourcePool
from enclavescale.bench.attacks_world import LawfulNoise
from enclavescale.bench.attestation_gpus import GpuVendor, HostGpus
from enclavescale.bench.attestation_vendor import DAY_MS, TCB_RULE, Machine, Told, Vendor
from enclavescale.fleet import HOST_IMAGE, demo_fleet
from power_model.grid import Grid
from producers.config import SessionFacts, host_binding, session_facts
from producers.distil import Gaps, distil
from producers.privacy import privacy_parameters
from producers.seal import ClassWindow, Sealer
from schemas.codec import decode_signed_record, report_data_of
from schemas.records import EvidenceItem, Policy
from schemas.repeats import RepeatDecoder
from verifier.cache import SessionCache
from verifier.signature import load_session_key, verify_record_signature
from verifier.trust.store import Collateral

GPUS, HZ = 8, 10
SESSIONS_S = (600, 1_800, 3_600, 14_400, 86_400)
WINDOWS_S = (10, 60)
EVIDENCE_INTERVAL = 10
"""Windows between repetitions of a session's evidence, the agent's default."""

JUDGED = (60, 3_600)
"""Window and session by which the goals are judged, s."""

GOALS_US = {"cpu": 0.025, "eight_gpus": 0.04}
RESEARCH_US = 0.23
NOW_MS = 1_770_000_000_000
SLICE_S = 0.03


@dataclass(slots=True)
class Timed:
    """A `QuoteProvider` that says what its machine itself took: `hardware_s`, s of CPU time."""

    machine: Machine
    hardware_s: float = 0.0

    @property
    def kind(self) -> str:
        """Kind of its quotes."""
        return self.machine.kind

    @property
    def simulated(self) -> bool:
        """Whether they are simulated."""
        return self.machine.simulated

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """Evidence over `report_data` (64 bytes)."""
        begin = time.process_time()
        items = self.machine.quote(report_data)
        self.hardware_s += time.process_time() - begin
        return items


class Host:
    """One host with its machine and, if it has evidence of them, its GPUs."""

    def __init__(self, number: int, vendor: Vendor, gpus: GpuVendor | None, facts: SessionFacts) -> None:
        self.facts = replace(facts, host_id=f"host-{number}")
        self.cpu = Timed(Machine(vendor, self.facts.host_id, HOST_IMAGE))
        self.gpus = None if gpus is None else HostGpus(gpus, GPUS)
        self.evidence = HostEvidence(self.cpu, lambda: () if self.gpus is None else nvidia_gpus(self.gpus))

    def session(self, created_ms: int) -> Session:
        """A new session, as an agent makes it."""
        evidence = self.evidence
        return Session(
            evidence,
            lambda point: host_binding(
                self.facts,
                point,
                created_at_ms=created_ms,
                beacon=None,
                gpu_identities_digest=evidence.identities_digest(),
            ),
        )

    @property
    def hardware_s(self) -> float:
        """What the made-up hardware took so far, s of CPU time."""
        return self.cpu.hardware_s + (self.gpus.hardware_s if self.gpus else 0.0)


class Setting:
    """Hosts, the policy that enrols them, the collateral in force, and one sealed report."""

    def __init__(self, hosts: int, *, with_gpus: bool, window_s: int) -> None:
        vendor, gpus = Vendor(), GpuVendor() if with_gpus else None
        fleet = demo_fleet(
            vendor,  # type: ignore[arg-type]  # asked for its root alone
            hosts=2, gpus=GPUS, window_ms=1000 * window_s, now_ms=NOW_MS, create_time=False,
            evidence_interval=EVIDENCE_INTERVAL,
        )  # fmt: skip
        plan = plan_host(fleet.policy, fleet.hosts[0], SourcePool())
        self.hosts = [Host(number, vendor, gpus, plan.facts) for number in range(hosts)]
        self.policy = self._policy(fleet.policy, vendor, gpus)
        self.collateral: Collateral = vendor.held(Told(number=20, from_ms=NOW_MS - DAY_MS, until_ms=NOW_MS + DAY_MS))
        privacy = privacy_parameters(plan.budget, plan.profile.classes, plan.schedule)
        profile = replace(plan.profile, host_id=self.hosts[0].facts.host_id)
        self.hosts[0].facts = session_facts(profile, plan.schedule, privacy)
        self.first = self.hosts[0].session(NOW_MS)
        sealer = Sealer(
            self.first, profile, plan.schedule, privacy, last_digest=None, evidence_interval=EVIDENCE_INTERVAL
        )
        item = profile.classes[0]
        readings = item.source.window(NOW_MS, NOW_MS + plan.schedule.window_ms)
        exact = distil(readings, Grid(item.edges_w), item.clip_low_w, item.clip_high_w, plan.schedule.ticks_per_pane)
        noisy = LawfulNoise(privacy, np.random.default_rng(1)).privatise(exact)
        seen = Gaps(samples_taken=plan.schedule.ticks, stalls_coarse=0, gpus_with_gaps=0, gpus_silent=0)
        released = (ClassWindow(item, exact.readings_taken, noisy),)
        start_ms = NOW_MS // plan.schedule.window_ms * plan.schedule.window_ms
        self.carrier = sealer.seal(start_ms, released, seen, 0).value
        self.plain = sealer.seal(start_ms + plan.schedule.window_ms, released, seen, 0).value

    def _policy(self, policy: Policy, vendor: Vendor, gpus: GpuVendor | None) -> Policy:
        """Without manifests no device is compared with one: that is a policy's `unsafe_allow_unevaluated_tcb`."""
        hosts = tuple(
            replace(
                policy.hosts[0],
                host_id=one.facts.host_id,
                platform_ids=(simulated_platform_id(one.facts.host_id).hex(),),
                gpu_key_digests=one.gpus.digests if one.gpus else (),
            )
            for one in self.hosts
        )
        roots = (vendor.trust_root(), *((gpus.trust_root(),) if gpus else ()))
        return replace(
            policy, hosts=hosts, trust_roots=roots, tcb_rules=(TCB_RULE,), unsafe_allow_unevaluated_tcb=gpus is not None
        )

    def verify(self, session: Session, cache: SessionCache) -> None:
        """What a worker does with the evidence of a session that it does not know. Raises VerificationError."""
        cache.verify(
            evidence=session.evidence,
            binding_bytes=session.binding_bytes,
            report_data=report_data_of(session.binding_bytes),
            session_id=session.session_id,
            policy=self.policy,
            policy_digest=bytes(32),
            role="host",
            now_ms=NOW_MS,
            collateral=self.collateral,
        )


def micros(function: Callable[[], Any], seconds: float = SLICE_S) -> float:
    """CPU time of one call, µs, over about `seconds`."""
    calls, clock = 0, time.process_time
    begin = clock()
    while True:
        function()
        calls += 1
        took = clock() - begin
        if took >= seconds:
            return 1e6 * took / calls


def _costs(setting: Setting, rounds: int) -> dict[str, float]:
    """Medians over rounds, µs: of a session, and of a report."""
    cache = SessionCache()
    found: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        found.setdefault(name, []).append(value)

    plain, carrier = decode_signed_record(setting.plain), setting.first
    key = load_session_key(carrier.binding.session_public_key)
    repeats = RepeatDecoder()
    repeats.learn(setting.carrier, decode_signed_record(setting.carrier), evidence_counts=True)
    for number in range(rounds):
        host = setting.hosts[number % len(setting.hosts)]
        for name in ("verify_first", "verify_renewed"):
            before = host.hardware_s
            begin = time.process_time()
            session = host.session(NOW_MS + number)
            took = 1e6 * (time.process_time() - begin)
            note("generate", took - 1e6 * (host.hardware_s - before))
            note("made_up_hardware", 1e6 * (host.hardware_s - before))
            if name == "verify_first" and number >= len(setting.hosts):
                continue  # its certificates are known by now
            begin = time.process_time()
            setting.verify(session, cache)
            note(name, 1e6 * (time.process_time() - begin))
        note("sign", micros(lambda: carrier.sign(plain.preimage)))
        note(
            "verify",
            micros(lambda: verify_record_signature(key, plain.preimage, plain.signature, digest=plain.digest)),
        )
        without = micros(lambda: repeats.decode(setting.plain))
        note("repeat", max(0.0, micros(lambda: repeats.decode(setting.carrier)) - without))
    return {name: statistics.median(values) for name, values in found.items()}


def ceilings(rounds: int) -> dict[str, float]:
    """Bare operations of this machine, µs of CPU time: medians over rounds."""
    p256, p384, message = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1()), bytes(1024)
    two, three = ec.ECDSA(SHA256()), ec.ECDSA(SHA384())
    first, second = p256.sign(message, two), p384.sign(message, three)
    open256, open384 = p256.public_key(), p384.public_key()
    operations: dict[str, Callable[[], Any]] = {
        "p256_sign": lambda: p256.sign(message, two),
        "p256_verify": lambda: open256.verify(first, message, two),
        "p384_verify": lambda: open384.verify(second, message, three),
    }
    return {
        name: round(statistics.median(micros(function) for _ in range(rounds)), 2)
        for name, function in operations.items()
    }


def amortised(costs: dict[str, float], window_s: int, session_s: int) -> dict[str, float]:
    """Own cost per sample, µs, by where it arises.

    `total` is that of a machine whose certificates the worker has met; `total_first` that of its first session.
    """
    per_report = GPUS * HZ * window_s
    per_session = GPUS * HZ * session_s
    parts = {
        "generation": costs["generate"] / per_session,
        "evidence": costs["verify_renewed"] / per_session,
        "repeated_evidence": costs["repeat"] / (EVIDENCE_INTERVAL * per_report),
        "signing": costs["sign"] / per_report,
        "verification": costs["verify"] / per_report,
    }
    total = sum(parts.values())
    first = total + (costs["verify_first"] - costs["verify_renewed"]) / per_session
    return {name: round(value, 6) for name, value in (parts | {"total": total, "total_first": first}).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What hardware takes for one session, ms, None where it is not known; `how` the quote's time was found."""

    quote_ms: float | None
    how: str
    gpu_report_ms: float | None


def hardware(quote_ms: float | None, gpu_report_ms: float | None, directory: Path = Path(REPORT_DIRECTORY)) -> Hardware:
    """What the TEE's and the GPUs' hardware takes for one session, ms: entered, or measured on this machine's TSM."""
    how = None if quote_ms is None else "entered"
    if quote_ms is None and directory.is_dir():
        provider = TsmQuotes(ConfigfsEntries(directory))
        begin = time.perf_counter()
        provider.quote(bytes(64))
        quote_ms, how = 1000 * (time.perf_counter() - begin), "measured"
    return Hardware(quote_ms=quote_ms, how=how or "not known here", gpu_report_ms=gpu_report_ms)


def bench_attestation(
    *,
    windows_s: Sequence[int] = WINDOWS_S,
    sessions_s: Sequence[int] = SESSIONS_S,
    rounds: int = 15,
    quote_ms: float | None = None,
    gpu_report_ms: float | None = None,
) -> dict[str, Any]:
    """Measure both kinds of evidence; a JSON-ready document. Raises what a TSM that is there raises."""
    limits = ceilings(rounds)
    machine = hardware(quote_ms, gpu_report_ms)
    kinds: dict[str, Any] = {}
    curve: list[dict[str, Any]] = []
    for kind, with_gpus in (("cpu", False), ("eight_gpus", True)):
        for window_s in windows_s:
            setting = Setting(rounds, with_gpus=with_gpus, window_s=window_s)
            costs = _costs(setting, rounds)
            size = sum(len(one.data) for one in setting.first.evidence.items)
            if window_s == max(windows_s):
                kinds[kind] = {
                    "us": {name: round(value, 1) for name, value in costs.items()},
                    "evidence_bytes": size,
                    "report_to_ceiling": round(
                        (limits["p256_sign"] + limits["p256_verify"]) / (costs["sign"] + costs["verify"]), 3
                    ),
                }
            for session_s in sessions_s:
                point: dict[str, Any] = {"kind": kind, "window_s": window_s, "session_s": session_s}
                point |= {"us": amortised(costs, window_s, session_s)}
                curve.append(point | {"hardware_us": _hardware_us(machine, with_gpus, session_s)})
    goals: dict[str, Any] = {}
    for kind, goal in GOALS_US.items():
        for one in curve:
            if (one["kind"], one["window_s"], one["session_s"]) == (kind, *JUDGED):
                total = one["us"]["total"]
                goals[kind] = {"us_per_sample": total, "goal": goal, "met": total <= goal}
    return {
        "goals": goals,
        "research_us_per_sample": RESEARCH_US,
        "kinds": kinds,
        "curve": curve,
        "ceilings_us": limits,
        "hardware": {"quote_ms": machine.quote_ms, "quote": machine.how, "gpu_report_ms": machine.gpu_report_ms},
        "gpus": GPUS,
        "sample_hz": HZ,
        "evidence_interval": EVIDENCE_INTERVAL,
        "rounds": rounds,
        "python": platform.python_version(),
        "met": all(one["met"] for one in goals.values()) if goals else None,
    }


def _hardware_us(machine: Hardware, with_gpus: bool, session_s: int) -> float | None:
    """Hardware's own time per sample, µs; None where it is not known. GPUs are asked twice: who they are, then over
    the session's nonce."""
    total_ms = machine.quote_ms
    if with_gpus and total_ms is not None:
        total_ms = None if machine.gpu_report_ms is None else total_ms + 2 * GPUS * machine.gpu_report_ms
    return None if total_ms is None else round(1000 * total_ms / (GPUS * HZ * session_s), 6)
