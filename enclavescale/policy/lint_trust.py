"""Lint of what is trusted: sources, grades, platforms, measured code, TCBs, roots, revocations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from enclavescale.agent.file import DCGM, NVML, SOURCES
from enclavescale.policy.document import utc
from enclavescale.policy.finding import Finding, caution, fault, refused
from producers.sample.plan import MODES
from schemas.contract import FIRST_MILE_GRADES
from schemas.records import Measurement, Policy, RegisterRule, TcbRule, TrustRoot
from verifier.errors import VerificationError
from verifier.policy.default import AGGREGATOR, HOST
from verifier.policy.quote_policy import CODE_REGISTERS
from verifier.policy.snp import REPORTED_TCB_AT_LEAST
from verifier.policy.tcb import ANY_ADVISORY
from verifier.tcb.status import TcbStatus
from verifier.trust.certificate import parse_certificate
from verifier.trust.roots import anchor_of

TEES = ("tdx", "sgx", "snp")
DEVICES = ("nvidia", "spdm")
REVOCABLE = ("host", "session", "measurement", "platform", "gpu", "root")
MAX_GRACE_DAYS = 30

_HEX = re.compile("([0-9a-fA-F]{2})+")
_PLATFORM_DIGITS = (32, 128)
_DIGEST_DIGITS = 64
_HEX_KINDS = ("session", "platform", "gpu")
_TDX = dict.fromkeys(
    ("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3", "mrconfigid", "mrowner", "mrownerconfig", "mrseam", "mrservicetd"), 48
)
_SGX = {"mrenclave": 32, "mrsigner": 32, "isvprodid": 2, "isvsvn": 2}
_SIZES = {"tdx": _TDX, "sgx": _SGX}
"""Registers that measurements of Intel's TEEs may name, and their bytes."""

_CODE = {"tdx": {"mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"}, "sgx": {"mrenclave", "mrsigner"}, "snp": CODE_REGISTERS}
_KERNEL = {"rtmr1", "rtmr2"}
_REACHABLE = "SPDM_MEASURED"


def lint_trust(policy: Policy, now_ms: int) -> Iterator[Finding]:
    """Findings on what is trusted, as of `now_ms` (UTC milliseconds)."""
    yield from _accepted(policy)
    yield from _grade(policy)
    yield from _platforms(policy)
    yield from _measurements(policy)
    for number, rule in enumerate(policy.tcb_rules):
        yield from _tcb(f"tcb_rules[{number}]", rule)
    labels = Counter((one.tee, one.label) for one in policy.trust_roots)
    for number, root in enumerate(policy.trust_roots):
        if labels[root.tee, root.label] > 1:
            yield fault("POLICY_DUPLICATE", f"trust_roots[{number}].label", f"{root.label} stands twice")
        yield from _root(f"trust_roots[{number}]", root, now_ms)
    for number, subject in enumerate(policy.revoked):
        where = f"revoked[{number}]"
        if subject.kind not in REVOCABLE:
            yield fault("POLICY_REVOKED", f"{where}.kind", f"{subject.kind!r} is nothing that can be revoked")
        elif not subject.id or (subject.kind in _HEX_KINDS and not _HEX.fullmatch(subject.id)):
            yield fault("POLICY_REVOKED", f"{where}.id", f"{subject.id[:40]!r} is the id of no {subject.kind}")


def _accepted(policy: Policy) -> Iterator[Finding]:
    for field, code, given, known, best in (
        ("accepted_sources", "POLICY_SOURCES", policy.accepted_sources, SOURCES, (NVML, DCGM)),
        ("accepted_sampler_modes", "POLICY_MODES", policy.accepted_sampler_modes, MODES, MODES[:1]),
    ):
        if not given:
            yield fault(code, field, "empty: every host is refused")
        for number, one in enumerate(given):
            if one not in known:
                yield fault(code, f"{field}[{number}]", f"{one!r} is none of {', '.join(known)}")
            elif one not in best:
                yield caution(code, f"{field}[{number}]", f"{one} is accepted")
    if policy.limits.max_beacon_age_ms is None and not policy.limits.max_beacon_age_ms_absent_reason:
        found = "no beacon is demanded: evidence may have been made in advance"
        yield caution("POLICY_BEACON", "limits.max_beacon_age_ms", found)


def _grade(policy: Policy) -> Iterator[Finding]:
    least, grades = policy.min_first_mile, FIRST_MILE_GRADES
    if least not in grades or grades.index(least) > grades.index(_REACHABLE):
        yield fault("POLICY_GRADE", "min_first_mile", f"{least!r} is no grade that evidence earns")
    elif least != grades[0]:
        for number, host in enumerate(policy.hosts):
            if not host.gpu_key_digests:
                found = f"{host.host_id} has no devices enrolled and cannot earn {least}"
                yield fault("POLICY_GRADE", f"hosts[{number}].gpu_key_digests", found)
    else:
        yield caution("POLICY_GRADE", "min_first_mile", "NONE: no device has to attest, power is what the agent says")


def _platforms(policy: Policy) -> Iterator[Finding]:
    owners = {text.lower(): host.host_id for host in policy.hosts for text in host.platform_ids}
    hosts = [(f"hosts[{number}]", one.host_id, one.platform_ids) for number, one in enumerate(policy.hosts)]
    workers = [
        (f"aggregators[{number}]", one.host_id, one.platform_ids) for number, one in enumerate(policy.aggregators)
    ]
    for where, name, ids in hosts + workers:
        if not ids and not policy.unsafe_allow_unenrolled_platform:
            yield fault("POLICY_PLATFORM", f"{where}.platform_ids", f"{name} has no platform: it is refused")
        for place, text in enumerate(ids):
            if not _HEX.fullmatch(text) or len(text) not in _PLATFORM_DIGITS:
                yield fault("POLICY_PLATFORM", f"{where}.platform_ids[{place}]", f"{text[:40]!r} is no platform id")
    for where, name, ids in workers:
        for place, text in enumerate(ids):
            if text.lower() in owners:
                found = f"{name} runs on the machine of host {owners[text.lower()]}"
                yield caution("POLICY_PLATFORM_SHARED", f"{where}.platform_ids[{place}]", found)


def _measurements(policy: Policy) -> Iterator[Finding]:
    tees = {one.tee for one in policy.measurements} & {"tdx", "sgx"}
    for role in (HOST, AGGREGATOR):
        if not any(one.role == role and one.tee in TEES for one in policy.measurements):
            found = f"no code is trusted as {role}: every session of one is refused"
            yield fault("POLICY_MEASUREMENT_MISSING", "measurements", found)
    labels = Counter((one.role, one.tee, one.label) for one in policy.measurements)
    for number, one in enumerate(policy.measurements):
        where = f"measurements[{number}]"
        if labels[one.role, one.tee, one.label] > 1:
            yield fault("POLICY_DUPLICATE", f"{where}.label", f"{one.label} stands twice for {one.role} on {one.tee}")
        yield from _measurement(where, one, policy.unsafe_allow_unevaluated_tcb)
    ruled = {rule.tee for rule in policy.tcb_rules}
    if not policy.unsafe_allow_unevaluated_tcb:
        for tee in sorted(tees - ruled):
            yield fault("POLICY_TCB_MISSING", "tcb_rules", f"code is trusted on {tee}, and no rule judges its TCB")


def _measurement(where: str, one: Measurement, lax: bool) -> Iterator[Finding]:
    if one.role not in (HOST, AGGREGATOR):
        yield fault("POLICY_MEASUREMENT", f"{where}.role", f"role {one.role!r}")
    if one.tee not in (*TEES, *DEVICES) or (one.role == AGGREGATOR and one.tee in DEVICES):
        yield fault("POLICY_MEASUREMENT", f"{where}.tee", f"{one.role} on {one.tee!r}")
        return
    names = {rule.register for rule in one.registers}
    if one.tee in _CODE and names.isdisjoint(_CODE[one.tee]):
        found = f"{one.label} names no code: none of {', '.join(sorted(_CODE[one.tee]))}"
        yield fault("POLICY_MEASUREMENT", f"{where}.registers", found)
    if not one.registers:
        yield fault("POLICY_MEASUREMENT", f"{where}.registers", f"{one.label} names nothing")
    if one.tee == "snp" and not lax and REPORTED_TCB_AT_LEAST not in names:
        yield fault("POLICY_MEASUREMENT", f"{where}.registers", f"{one.label} names no {REPORTED_TCB_AT_LEAST}")
    if one.tee == "snp" and REPORTED_TCB_AT_LEAST in names and "product" not in names:
        yield fault("POLICY_MEASUREMENT", f"{where}.registers", f"{one.label}: a minimum TCB without its product")
    if one.tee == "tdx" and "mrtd" in names and not names >= _KERNEL:
        found = f"{one.label} names mrtd without {' and '.join(sorted(_KERNEL - names))}: other kernels pass"
        yield caution("POLICY_MEASUREMENT_PARTIAL", f"{where}.registers", found)
    for name, count in Counter(rule.register for rule in one.registers).items():
        if count > 1:
            yield fault("POLICY_DUPLICATE", f"{where}.registers", f"{name} stands {count} times")
    for number, rule in enumerate(one.registers):
        yield from _register(f"{where}.registers[{number}]", one.tee, rule)


def _register(where: str, tee: str, rule: RegisterRule) -> Iterator[Finding]:
    sizes = _SIZES.get(tee)
    if sizes is not None and rule.register not in sizes:
        yield fault("POLICY_MEASUREMENT", f"{where}.register", f"{tee} has no register {rule.register!r}")
    elif sizes is not None and len(rule.value) != sizes[rule.register]:
        found = f"{rule.register} has {sizes[rule.register]} bytes, not {len(rule.value)}"
        yield fault("POLICY_MEASUREMENT", f"{where}.value", found)
    elif not rule.value:
        yield fault("POLICY_MEASUREMENT", f"{where}.value", f"{rule.register} is empty")
    if rule.mask is not None and (len(rule.mask) != len(rule.value) or not any(rule.mask)):
        found = f"{rule.register}: a mask is as long as the value, and some of its bits are set"
        yield fault("POLICY_MEASUREMENT", f"{where}.mask", found)


def _tcb(where: str, rule: TcbRule) -> Iterator[Finding]:
    if rule.tee not in ("tdx", "sgx"):
        yield fault("POLICY_TCB", f"{where}.tee", f"no TCB levels are published for {rule.tee!r}")
    if not rule.accepted_statuses:
        yield fault("POLICY_TCB", f"{where}.accepted_statuses", "empty: every platform is refused")
    for number, status in enumerate(rule.accepted_statuses):
        field = f"{where}.accepted_statuses[{number}]"
        if status not in list(TcbStatus) or status == TcbStatus.REVOKED:
            yield fault("POLICY_TCB", field, f"{status!r} is no status that can be accepted")
        elif status.startswith(TcbStatus.OUT_OF_DATE):
            yield caution("POLICY_TCB_LAX", field, f"{status} is accepted for ever; grace_days would end it")
    if rule.grace_days < 0 or rule.min_tcb_evaluation_number < 0:
        yield fault("POLICY_TCB", f"{where}.grace_days", "numbers of a rule are not negative")
    elif rule.grace_days > MAX_GRACE_DAYS:
        yield caution("POLICY_TCB_LAX", f"{where}.grace_days", f"{rule.grace_days} days of grace")
    if ANY_ADVISORY in rule.allowed_advisories:
        yield caution("POLICY_TCB_LAX", f"{where}.allowed_advisories", "every advisory is allowed")


def _root(where: str, root: TrustRoot, now_ms: int) -> Iterator[Finding]:
    if root.tee not in (*TEES, *DEVICES):
        yield fault("POLICY_ROOT", f"{where}.tee", f"{root.tee!r} has no roots")
    try:
        if root.tee in ("tdx", "sgx"):
            anchor_of(root)
        certificate = parse_certificate(root.certificate_der)
    except VerificationError as cause:
        yield refused(cause, f"{where}.certificate_der")
        return
    if not certificate.not_before_ms <= now_ms <= certificate.not_after_ms:
        until = f"valid {utc(certificate.not_before_ms)} to {utc(certificate.not_after_ms)}"
        yield caution("POLICY_ROOT", f"{where}.certificate_der", f"{root.label}: {until}")
    if root.simulated:
        yield caution("POLICY_ROOT_SIMULATED", f"{where}.simulated", f"{root.label} is no hardware")
