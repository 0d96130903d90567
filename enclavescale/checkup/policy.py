"""The policy: is it the signer's, is it in force, and what does it make of the hosts, sources and budget configured?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from enclavescale.agent.file import NVML, SIMULATED, TRACE, HostSpec, ProduceSpec
from enclavescale.agent.policy import (
    check_accepted,
    check_grade,
    check_signature,
    check_tee,
    classes_of,
    reachable_grade,
    read_signed_policy,
    schedule_of,
)
from enclavescale.checkup.finding import Finding, fail, failed, ok, some, warn
from producers.config import Schedule
from producers.privacy import MICRO, check_budget, privacy_parameters
from producers.sample.plan import accepted_modes
from producers.sample.source import NO_CONDITIONS, Conditions, Readings
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import HostEnrolment, Policy, SignedPolicy
from stream_jobs.core.policies import CORE_VERSION
from stream_jobs.core.policy_ranges import check_ranges

DAY_MS = 86_400_000
SOON_MS = 7 * DAY_MS
"""From so long before its end a policy is marked, ms."""

UNSAFE = ("unsafe_allow_unevaluated_tcb", "unsafe_allow_unenrolled_platform", "unsafe_allow_create_time")


@dataclass(frozen=True, slots=True)
class _Nominal:
    """The public facts of a source, for the privacy statement; it reads nothing."""

    gpus: int
    kind: str
    sampler_mode: str

    def window(self, start_ms: int, end_ms: int) -> Readings:
        raise NotImplementedError

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        return NO_CONDITIONS


def check_policy(spec: ProduceSpec, now_ms: int) -> Iterator[Finding]:
    """Everything that the policy alone decides; nothing follows on a policy that cannot be read."""
    try:
        signed, preimage = read_signed_policy(Path(spec.policy))
    except EnclaveScaleError as error:
        yield failed("policy.file", error)
        return
    policy = signed.policy
    counts = f"counter {policy.counter}, {some(len(policy.hosts), 'host')} in {some(len(policy.domains), 'domain')}"
    yield ok("policy.file", f"{spec.policy}: {counts}")
    yield _signature(spec, signed, preimage)
    yield _in_force(policy, now_ms)
    yield _core(policy)
    try:
        check_ranges(policy)
    except ConfigError as error:
        yield failed("policy.ranges", error)
    unsafe = [name for name in UNSAFE if getattr(policy, name)]
    if unsafe:
        yield warn("policy.unsafe", ", ".join(unsafe), "Never outside a demonstration: have the policy signed anew.")
    for host in spec.hosts:
        yield from _host(spec, policy, host)


def _signature(spec: ProduceSpec, signed: SignedPolicy, preimage: bytes) -> Finding:
    signer = signed.signer_public_key
    if not spec.policy_signers:
        return warn(
            "policy.signature",
            "policy_signers is empty: whoever can write the file decides",
            "Put the signer's public key into policy_signers, from the security team, not from the file.",
        )
    try:
        check_signature(signed, preimage, spec.policy_signers)
    except EnclaveScaleError as error:
        return failed("policy.signature", error)
    return ok("policy.signature", f"signed by {signer.hex()[:16]}…")


def _in_force(policy: Policy, now_ms: int) -> Finding:
    start, end = moment(policy.effective_from_ms), moment(policy.not_after_ms)
    successor = "Put its successor in place (the agent reads it again on SIGHUP)."
    if now_ms >= policy.not_after_ms:
        return fail("policy.validity", f"ended {end}: every report is refused", successor, code="POLICY_EXPIRED")
    if now_ms < policy.effective_from_ms:
        return warn("policy.validity", f"not in force before {start}", "Until then the policy before it decides.")
    if policy.not_after_ms - now_ms < SOON_MS:
        return warn("policy.validity", f"ends soon, {end}", successor)
    return ok("policy.validity", f"in force until {end}")


def _core(policy: Policy) -> Finding:
    if policy.core_version == CORE_VERSION:
        return ok("policy.core", f"core version {policy.core_version}, as this release")
    found = f"core version {policy.core_version}; this release has {CORE_VERSION}"
    return warn("policy.core", found, "Workers of this release cannot judge by it; install the release it names.")


def _host(spec: ProduceSpec, policy: Policy, host: HostSpec) -> Iterator[Finding]:
    about = host.host_id
    enrolment = next((one for one in policy.hosts if one.host_id == host.host_id), None)
    if enrolment is None:
        remedy = "Correct host_id, or have the host enrolled and the policy signed anew."
        yield fail("policy.enrolment", "not enrolled", remedy, about, code="HOST_NOT_ENROLLED")
        return
    gpus = ", ".join(f"{one.gpus} × {one.model}" for one in enrolment.classes)
    rule = next((one for one in policy.domains if one.domain == enrolment.domain), None)
    if rule is None:
        remedy = "Have the domain added to the policy: every report needs its partition."
        yield fail(
            "policy.enrolment", f"domain {enrolment.domain} is not in the policy", remedy, about, code="DOMAIN_UNKNOWN"
        )
        return
    yield ok("policy.enrolment", f"domain {enrolment.domain}, partition {rule.partition}: {gpus}", about)
    yield from _readings(policy, host, enrolment)
    yield from _grade(spec, policy, host, enrolment)
    yield _budget(spec, policy, host, enrolment, schedule_of(policy, rule.domain))


def _readings(policy: Policy, host: HostSpec, enrolment: HostEnrolment) -> Iterator[Finding]:
    about, mode = host.host_id, mode_of(host, policy)
    if host.source == TRACE and len(host.traces) != len(enrolment.classes):
        found = f"{some(len(host.traces), 'trace')} for {some(len(enrolment.classes), 'enrolled GPU model')}"
        yield fail("policy.source", found, "Give one trace per enrolled GPU model, in the enrolment's order.", about)
    try:
        check_accepted(policy, host.source, mode)
    except ConfigError as error:
        yield failed("policy.source", error, about)
    else:
        yield ok("policy.source", f"{host.source}, {mode}: accepted", about)


def _grade(spec: ProduceSpec, policy: Policy, host: HostSpec, enrolment: HostEnrolment) -> Iterator[Finding]:
    """The grade of the first mile that this configuration can reach at most, and the identities it needs."""
    about = host.host_id
    reachable, check = reachable_grade(host), "policy.first_mile"
    try:
        check_grade(policy, host)
    except ConfigError as error:
        yield failed(check, error, about)
    else:
        if host.first_mile != reachable:
            remedy = f'Set first_mile = "{reachable}", or its power counts as {host.first_mile} in every output.'
            yield warn(check, f"claims {host.first_mile}; its evidence proves {reachable}", remedy, about)
        else:
            yield ok(check, f"claims and proves {reachable}; the policy demands {policy.min_first_mile}", about)
    if host.gpu_evidence and not enrolment.gpu_key_digests:
        remedy = "Have the digests of the GPUs' leaf keys enrolled (gpu_key_digests)."
        yield warn("policy.identities", "gpu_evidence is set, and no GPU key is enrolled", remedy, about)
    if not enrolment.platform_ids and not policy.unsafe_allow_unenrolled_platform:
        remedy = "Have the platform's identity enrolled (platform_ids): a genuine machine is not yet this host."
        yield fail("policy.identities", "no platform is enrolled for it", remedy, about, code="PLATFORM_NOT_ENROLLED")
    try:
        check_tee(policy, spec)
    except ConfigError as error:
        yield failed("policy.tee", error, about)


def _budget(spec: ProduceSpec, policy: Policy, host: HostSpec, enrolment: HostEnrolment, schedule: Schedule) -> Finding:
    about = host.host_id
    mode = mode_of(host, policy)
    try:
        classes = classes_of(policy, enrolment, [_Nominal(one.gpus, host.source, mode) for one in enrolment.classes])
    except ConfigError as error:
        return fail("policy.budget", str(error), error.remedy, about)
    try:
        stated = privacy_parameters(spec.budget.budget(energy=has_energy(host)), classes, schedule)
        check_budget(stated, policy.limits.max_epsilon_micro)
    except EnclaveScaleError as error:
        return failed("policy.budget", error, about)
    total, most = stated.epsilon_total_micro / MICRO, policy.limits.max_epsilon_micro / MICRO
    lasting = f"{stated.w_event_epsilon_micro / MICRO:g} for {some(stated.w_event_windows, 'whole window')}"
    return ok("policy.budget", f"ε {total:g} per window of at most {most:g}; {lasting}", about)


def mode_of(host: HostSpec, policy: Policy) -> str:
    """The sampler mode that a host's configuration leads to; of NVML's the best one that the policy accepts."""
    if host.dcgm is not None:
        return host.dcgm.sampler_mode
    accepted = accepted_modes(policy.accepted_sampler_modes)
    return accepted[0] if host.source == NVML and accepted else "instant"


def has_energy(host: HostSpec) -> bool:
    """Whether the source has energy counters, which decides the default budget."""
    return host.source in (NVML, SIMULATED)


def moment(ms: int) -> str:
    """UTC milliseconds as a date and time to the minute."""
    return datetime.fromtimestamp(min(ms, 253_402_300_799_000) / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")
