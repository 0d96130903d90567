"""What lint finds: a stable code, how bad it is, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass

from schemas.errors import EnclaveScaleError

ERROR, WARNING = "error", "warning"
"""A policy with an error is not signed: it would refuse what it should accept, or be refused itself. A warning is for
whoever signs to decide."""

CODES: dict[str, str] = {
    "POLICY_VERSION": "Write version = 1.",
    "CORE_VERSION": "Install the release that has this core, or write the version of this one.",
    "POLICY_COUNTER": "Sign with a counter of 1 or more.",
    "POLICY_ENDED": "Sign its successor with a later not_after_ms: workers fail closed at the end.",
    "POLICY_ENDS_SOON": "Sign and apply its successor now: workers fail closed at the end.",
    "POLICY_LONG": "Sign for less time and more often: it leaves its topic before its end.",
    "POLICY_TIMES": "Let it take effect and be issued before its end, and not in the future.",
    "POLICY_UNSAFE": "Never outside a demonstration: set the switch to false.",
    "POLICY_NAME": "Give a name that can be shown: not empty, no control characters, no spaces around it.",
    "POLICY_UNSORTED": "Sort the list by name; `policy sign` does.",
    "POLICY_DUPLICATE": "Name it once.",
    "POLICY_DOMAINS_EMPTY": "Add [[domains]].",
    "POLICY_HOSTS_EMPTY": "Enrol [[hosts]].",
    "POLICY_AGGREGATORS_EMPTY": "Enrol the workers under [[aggregators]]: nobody else may write control records.",
    "POLICY_DOMAIN_UNKNOWN": "Add the domain to the policy, or correct the host's.",
    "POLICY_DOMAIN_EMPTY": "Enrol hosts in the domain, or take it out.",
    "POLICY_PARTITION": "Give each domain a partition of its own that the reports topic has.",
    "POLICY_WINDOW": "Take a window that divides a day, or windows begin at another time each day.",
    "POLICY_TIMING": "Let max_idle_ms exceed window and grace, lateness_ms and beacons the window, it the skew.",
    "POLICY_K_MIN": "Lower k_min, or enrol more: figures of fewer hosts or tenants are withheld.",
    "POLICY_K_MIN_LOW": "Raise k_min_hosts: figures of single hosts are published.",
    "POLICY_LIMIT": "Check limit_w: below what is enrolled it would bind, as it is it never does.",
    "POLICY_QUORUM": "Raise quorum_ppm: intervals widen by whatever did not report.",
    "POLICY_COLLUDING": "Lower max_colluding_ppm: against half of the capacity and more, nothing robust can be said.",
    "POLICY_EPSILON": "Lower max_epsilon_micro: a privacy loss so large protects little.",
    "POLICY_CLASSES": "Enrol the host's GPUs under classes.",
    "POLICY_CAPACITY": "Raise the model's clip_high_w above what one of its GPUs may draw: readings beyond are cut.",
    "POLICY_SOURCES": "Accept nvml or dcgm; an empty list refuses everything, and other sources measure nothing.",
    "POLICY_MODES": "Accept instant; an empty list refuses everything, and averages cost more privacy.",
    "POLICY_GRADE": "Take NONE, GPU_ATTESTED or SPDM_MEASURED; for the latter two enrol gpu_key_digests.",
    "POLICY_BEACON": "Set limits.max_beacon_age_ms, or say in max_beacon_age_ms_absent_reason why none is demanded.",
    "POLICY_PLATFORM": "Enrol machines by PPID, platform instance id (16 bytes) or CHIP_ID (64 bytes), hexadecimal.",
    "POLICY_PLATFORM_SHARED": "Keep workers off the machines they judge: one TEE that breaks then breaks both.",
    "POLICY_MEASUREMENT_MISSING": "Name measured code for this role under [[measurements]].",
    "POLICY_MEASUREMENT": "Correct the measurement: role, TEE, registers and their sizes; of TEEs, code must be named.",
    "POLICY_MEASUREMENT_PARTIAL": "Name rtmr1 and rtmr2 as well: mrtd is the firmware, those are the kernel and more.",
    "POLICY_TCB_MISSING": "Add [[tcb_rules]] for this TEE: without one every quote of it is refused.",
    "POLICY_TCB": "Correct the rule: statuses of Intel by name, never Revoked, and none for snp.",
    "POLICY_TCB_LAX": "Accept UpToDate alone, name advisories one by one, and give little grace.",
    "POLICY_ROOT": "Give the certificate of a root for tdx, sgx, snp, nvidia or spdm; check its validity.",
    "POLICY_ROOT_SIMULATED": "Never outside a demonstration: take the simulated root out.",
    "POLICY_REVOKED": "Revoke by kind host, session, measurement, platform, gpu or root; digests in hexadecimal.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that is wrong with a policy. `field`: path of a field of the document, "" for the whole."""

    code: str
    severity: str
    field: str
    message: str
    remedy: str


def fault(code: str, field: str, message: str) -> Finding:
    """A finding for which a policy is not signed."""
    return Finding(code=code, severity=ERROR, field=field, message=message, remedy=CODES[code])


def caution(code: str, field: str, message: str) -> Finding:
    """A finding for whoever signs to decide."""
    return Finding(code=code, severity=WARNING, field=field, message=message, remedy=CODES[code])


def refused(cause: EnclaveScaleError, field: str) -> Finding:
    """What the program itself refuses, with its own code and remedy."""
    return Finding(code=cause.code, severity=ERROR, field=field, message=str(cause), remedy=cause.remedy)
