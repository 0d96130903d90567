"""The world that `bench attacks` attacks: two domains of honest hosts, their vendor, their log.

Everything honest is real: sessions with full evidence under a policy that demands TCB and enrolment, noise of the
stated law, signatures, chains, control records of an attested aggregator. The log of each domain tells

    a policy comes into force, windows pass, sessions are renewed,
    a second policy revokes one host, newer collateral comes into force, windows pass,
    a month goes by, sessions begin anew, windows pass.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from attester.session import Session
from attester.signing import public_point
from attester.simulated import SimulatedTee, simulated_platform_id
from enclavescale.agent.producing import HostPlan, plan_host
from enclavescale.agent.sessions import session_maker
from enclavescale.agent.sources import SourcePool
from enclavescale.bench.attestation_vendor import DAY_MS, REVOKED_SVN, TCB_RULE, Machine, Told, Vendor
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE, HOST_IMAGE, demo_fleet, sign_policy
from power_model.grid import Grid
from producers.config import HostProfile
from producers.distil import Distilled, Gaps, distil
from producers.privacy import privacy_parameters
from producers.privatise import Noisy, Privatiser
from producers.seal import ClassWindow, Sealer
from schemas.codec import encode_body, encode_collateral, encode_signed_record, record_digest, record_preimage
from schemas.collateral import item_digest, set_digest, set_item
from schemas.records import (
    CollateralItem,
    ControlRecord,
    ControlSubject,
    Limits,
    Policy,
    PrivacyParameters,
    RevokedSubject,
    WindowReport,
)
from schemas.topics import TopicNames
from stream_jobs.collateral_store import CollateralIndex
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyTrust, open_policy
from stream_jobs.worker import WorkerConfig, aggregator_binding

TOPIC = TopicNames().reports
T0_MS = 1_770_000_000_000
"""Event time of the first window; a multiple of every window length used here."""

WINDOW_MS, GPUS, TEMPLATES = 10_000, 8, 8
GRACE_WINDOWS, LATENESS_MS, EVIDENCE_INTERVAL = 1, 30_000, 2
MONTH_MS = 30 * DAY_MS
PHASES = (4, 5, 4)
"""Windows before the second policy, after it, and a month later."""

STRIDE = 1 << 20
"""Offsets between two honest records: what an attacker puts between them moves no honest record's offset."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A record on its way into a partition: appended at `at_ms`."""

    partition: int
    at_ms: int
    key: bytes
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Honest(Placed):
    """An honest record: whose, of which window (number of its begin from `T0_MS`, None for control records)."""

    author: str = ""
    start_ms: int | None = None
    session: Session | None = field(default=None, compare=False, repr=False)
    phase: int = 0


class LawfulNoise(Privatiser):
    """Noise of the stated law from a seeded generator: reproducible, and good for nothing but measuring."""

    def __init__(self, parameters: PrivacyParameters, rng: np.random.Generator) -> None:
        super().__init__(parameters)
        self._scales = {one.release: one.scale_micro / 1e6 for one in parameters.releases}
        self._rng = rng

    def add_noise(self, release: str, exact: np.ndarray) -> np.ndarray:
        """Add discrete Laplace noise."""
        p = -np.expm1(-1 / self._scales[release])
        return exact + self._rng.geometric(p, exact.shape) - self._rng.geometric(p, exact.shape)


class AttackWorld:
    """One fleet with its honest log. `seed` fixes readings and noise; keys are new ones in every world."""

    def __init__(
        self,
        seed: int,
        *,
        hosts: int = 8,
        start_ms: int = T0_MS,
        phases: tuple[int, ...] = PHASES,
        live_ms: int | None = None,
    ) -> None:
        """`live_ms`: when all of it will be appended, where a broker and not this world stamps the records."""
        self.live_ms = live_ms
        self.seed, self.rng = seed, random.Random(seed)
        self.numpy = np.random.default_rng(seed)
        self.start_ms, self.phases = start_ms, phases
        self.vendor, self.stranger, self.simulated_tee = Vendor(), Vendor(), SimulatedTee.create()
        self.signing_key = ec.generate_private_key(ec.SECP256R1())
        self.trust = PolicyTrust((public_point(self.signing_key.public_key()),))
        first = self._policy(hosts)
        self.revoked_host = self.rng.choice([one.host_id for one in first.hosts])
        second = replace(
            first,
            counter=2,
            issued_at_ms=start_ms + phases[0] * WINDOW_MS,
            revoked=(RevokedSubject(kind="host", id=self.revoked_host, reason="stolen"),),
        )
        self.policy_values = [sign_policy(one, self.signing_key) for one in (first, second)]
        self.views = [open_policy(value, self.trust) for value in self.policy_values]
        self.policies = {view.digest: view for view in self.views}
        self.domains = {one.domain: one.partition for one in first.domains}
        self._hosts(first)
        self._collateral()
        self.honest: list[Honest] = sorted(self._log(), key=lambda one: one.at_ms)

    # -- what there is ----------------------------------------------------------------------------------------

    def _policy(self, hosts: int) -> Policy:
        both = demo_fleet(
            _Rooted(self.vendor),  # type: ignore[arg-type]
            hosts=2 * hosts,
            gpus=GPUS,
            window_ms=WINDOW_MS,
            now_ms=self.start_ms,
            create_time=False,
            evidence_interval=EVIDENCE_INTERVAL,
            lateness_ms=LATENESS_MS,
            grace_windows=GRACE_WINDOWS,
        )
        policy = both.policy
        self.specs = {one.host_id: one for one in both.hosts}
        limits: Limits = replace(policy.limits, max_collateral_age_ms=45 * DAY_MS)
        return replace(
            policy,
            not_after_ms=self.start_ms + 60 * DAY_MS,
            tcb_rules=(TCB_RULE,),
            unsafe_allow_unevaluated_tcb=False,
            limits=limits,
            domains=tuple(
                replace(one, history_windows=4, k_min_hosts=1, forecast_horizons_ms=()) for one in policy.domains
            ),
        )

    def told(self, number: int, since_ms: int | None = None, **changes: object) -> Told:
        """What the vendor says from `since_ms` on, good for half a year."""
        begin = self.start_ms - DAY_MS if since_ms is None else since_ms
        base = Told(number=number, from_ms=begin, until_ms=begin + 180 * DAY_MS, revoked=self.revoked_serials)
        return replace(base, **changes)  # type: ignore[arg-type]

    def _collateral(self) -> None:
        """Two sets: an older one, and the one that comes into force with the second policy."""
        self.index = CollateralIndex()
        self.sets: list[bytes] = []
        switch_ms = self.start_ms + self.phases[0] * WINDOW_MS
        for place, told in enumerate((self.told(20), self.told(21, self.start_ms - DAY_MS // 2))):
            self.sets.append(self.add_set(self.vendor.collateral(told), switch_ms + place))

    def add_set(self, bundle: bytes, fetched_at_ms: int) -> bytes:
        """Put one answer of a PCCS on the collateral topic as a set; returns the set's digest."""
        item = CollateralItem(kind="bundle", id="x", data=bundle, fetched_at_ms=fetched_at_ms)
        digests = [item_digest(item)]
        for number, one in enumerate((item, set_item(digests, fetched_at_ms))):
            self.index.take(encode_collateral(one), (fetched_at_ms, 0, number))
        return set_digest(digests)

    def _hosts(self, policy: Policy) -> None:
        pool = SourcePool()
        self.plans: dict[str, HostPlan] = {
            one.host_id: plan_host(policy, self.specs[one.host_id], pool) for one in policy.hosts
        }
        self._templates: dict[str, list[Distilled]] = {}
        stolen = (self.vendor.pck(simulated_platform_id(name), REVOKED_SVN) for name in self.plans)
        self.revoked_serials = tuple(one.certificate.serial_number for one in stolen)

    def session(
        self, host_id: str, created_ms: int, *, machine: Callable[[Machine], Machine] = lambda one: one
    ) -> Session:
        """A session of an enrolled host; `machine` lies about where it lives."""
        plan = self.plans[host_id]
        return session_maker(machine(Machine(self.vendor, host_id, HOST_IMAGE)), plan.facts)(None, created_ms)

    def aggregator(self, created_ms: int) -> Session:
        """A session of the enrolled aggregator."""
        machine = Machine(self.vendor, AGGREGATOR_ID, AGGREGATOR_IMAGE)
        config = WorkerConfig(kafka={}, host_id=AGGREGATOR_ID, group="bench", provider=machine, trust=self.trust)
        return Session(machine, aggregator_binding(config, None, created_ms))

    # -- the honest log ---------------------------------------------------------------------------------------

    def phase_start_ms(self, phase: int) -> int:
        """When a phase's first window begins."""
        if phase == 0:
            return self.start_ms
        if phase == 1:
            return self.start_ms + self.phases[0] * WINDOW_MS
        return self.start_ms + MONTH_MS

    def _log(self) -> Iterator[Honest]:
        worker = self.aggregator(self.start_ms)
        for domain, partition in self.domains.items():
            switches = [("POLICY_SWITCH", 0, 0, self.start_ms)]
            if len(self.phases) > 1:
                at = self.phase_start_ms(1) + 1
                switches += [("POLICY_SWITCH", 1, 0, at), ("REVOCATION", 1, 0, at + 1)]
                switches += [("COLLATERAL_SWITCH", 1, 1, at + 2)]
            for kind, policy, collateral, at_ms in switches:
                value = self.control(worker, kind, domain, self.views[policy], self.sets[collateral], at_ms)
                phase = 0 if at_ms == self.start_ms else 1
                yield Honest(partition, at_ms, domain.encode(), value, AGGREGATOR_ID, None, worker, phase)
        for host_id in self.plans:
            yield from self._reports(host_id)

    def _reports(self, host_id: str) -> Iterator[Honest]:
        plan = self.plans[host_id]
        domain, last = plan.profile.domain, None
        for phase, windows in enumerate(self.phases):
            if phase and host_id == self.revoked_host:
                return  # from now on it is a thief's
            begin = self.phase_start_ms(phase)
            session = self.session(host_id, begin)
            sealer = self.sealer(session, plan, last)
            for number in range(windows):
                start = begin + number * WINDOW_MS
                at_ms = start + WINDOW_MS + self.rng.randint(3, WINDOW_MS // 2)
                value = sealer.seal(start, self.drawn(host_id), _complete(plan), 0).value
                yield Honest(self.domains[domain], at_ms, domain.encode(), value, host_id, start, session, phase)
            last = sealer.last_digest

    def sealer(self, session: Session, plan: HostPlan, last_digest: bytes | None) -> Sealer:
        """Seals a host's windows as its agent does."""
        privacy = privacy_parameters(plan.budget, plan.profile.classes, plan.schedule)
        return Sealer(
            session,
            plan.profile,
            plan.schedule,
            privacy,
            last_digest=last_digest,
            evidence_interval=EVIDENCE_INTERVAL,
        )

    def drawn(self, host_id: str) -> tuple[ClassWindow, ...]:
        """One window's private statistics of a host."""
        plan = self.plans[host_id]
        profile: HostProfile = plan.profile
        noise = LawfulNoise(privacy_parameters(plan.budget, profile.classes, plan.schedule), self.numpy)
        exact = self.rng.choice(self._exact(host_id))
        noisy: Noisy = noise.privatise(exact)
        return (ClassWindow(profile.classes[0], exact.readings_taken, noisy),)

    def _exact(self, host_id: str) -> list[Distilled]:
        plan = self.plans[host_id]
        schedule, item = plan.schedule, plan.profile.classes[0]
        if host_id not in self._templates:
            grid, found = Grid(item.edges_w), []
            for number in range(TEMPLATES):
                begin = self.start_ms + number * schedule.window_ms
                readings = item.source.window(begin, begin + schedule.window_ms)
                found.append(distil(readings, grid, item.clip_low_w, item.clip_high_w, schedule.ticks_per_pane))
            self._templates[host_id] = found
        return self._templates[host_id]

    def control(
        self,
        session: Session,
        kind: str,
        domain: str,
        view: PolicyView,
        collateral: bytes | None,
        at_ms: int,
        *,
        host_id: str = AGGREGATOR_ID,
        closed_through_ms: int | None = None,
        subjects: tuple[ControlSubject, ...] | None = None,
        policy_digest: bytes | None = None,
        evidence: bool = True,
    ) -> bytes:
        """A control record as a worker writes it, signed by `session`."""
        digest = policy_digest or view.digest
        content = {"POLICY_SWITCH": digest, "COLLATERAL_SWITCH": collateral, "REVOCATION": digest}.get(kind)
        named = subjects if subjects is not None else self._subjects(kind, view)
        body = ControlRecord(
            kind=kind,
            domain=domain,
            host_id=host_id,
            session_id=session.session_id,
            seq=0,
            prev_digest_absent_reason="first record of the session",
            issued_at_ms=at_ms,
            policy_digest=digest,
            content_digest=content,
            content_digest_absent_reason=None if content else "names no content",
            effective_from_ms_absent_reason="as the policy says",
            closed_through_ms=closed_through_ms,
            closed_through_ms_absent_reason=None if closed_through_ms is not None else "closes nothing",
            collateral_digest=collateral,
            collateral_digest_absent_reason=None if collateral else "no collateral is in force",
            subjects=named,
            reason="benchmark",
        )
        return seal_body(session, body, with_evidence=evidence)

    def _subjects(self, kind: str, view: PolicyView) -> tuple[ControlSubject, ...]:
        if kind != "REVOCATION":
            return ()
        return tuple(
            ControlSubject(kind=one.kind, id=one.id, at_ms_absent_reason="none") for one in view.policy.revoked
        )


@dataclass(frozen=True)
class _Rooted:
    """What `demo_fleet` asks a TEE for: the policy's entry for its root."""

    vendor: Vendor

    def trust_root(self) -> object:
        return self.vendor.trust_root()


def _complete(plan: HostPlan) -> Gaps:
    return Gaps(samples_taken=plan.schedule.ticks, stalls_coarse=0, gpus_with_gaps=0, gpus_silent=0)


def seal_body(session: Session, body: WindowReport | ControlRecord, *, with_evidence: bool) -> bytes:
    """A record's framed value: the body signed by the session's key."""
    body_bytes = encode_body(body)
    signature = session.sign(record_preimage(body_bytes))
    return encode_signed_record(body_bytes, signature, session.evidence if with_evidence else None)


def digest_of(body: WindowReport | ControlRecord) -> bytes:
    """Identity of a record with this body."""
    return record_digest(record_preimage(encode_body(body)))


def log_record(offset: int, placed: Placed) -> LogRecord:
    """A placed record at its offset, stamped by the broker."""
    return LogRecord(TOPIC, placed.partition, offset, placed.at_ms, 1, placed.key, placed.value, ())
