"""Why the core refuses a record: every code with what a person can do about it."""

from __future__ import annotations

from schemas.errors import EnclaveScaleError

CODES: dict[str, str] = {
    "TOMBSTONE": "A record without a value: nothing publishes those here; look for a foreign producer on the topic.",
    "NO_POLICY": "No policy was in force for this window. Start a worker, wait for its POLICY_SWITCH, then producers.",
    "DOMAIN_UNKNOWN": "The domain is in no policy seen in this partition. Check the host's configuration.",
    "WRONG_PARTITION": "Key, report and policy must name the same domain and partition. Check the host's policy.",
    "HOST_NOT_ENROLLED": "The policy in force does not enrol this host in this domain.",
    "LATE": "The window is closed for good. Raise lateness_ms or look for what delayed the host.",
    "CLOCK_SKEW": "The window ends after the broker's append time. Synchronise the host's clock.",
    "WINDOW_MISALIGNED": "Window bounds must be multiples of the policy's window length.",
    "DUPLICATE": "The same record again; nothing was counted twice.",
    "EQUIVOCATION": "Two different reports of one host for one window: treat the host as compromised.",
    "SESSION_UNKNOWN": "No evidence for this session is known. It comes with the next record that carries evidence.",
    "SESSION_MISMATCH": "The evidence belongs to another session than the record names.",
    "SUPERSEDED_SESSION": "A newer session of this host replaced this one.",
    "BEACON_UNKNOWN": "The evidence names no beacon of this domain's aggregators. Let the host hear the beacons topic.",
    "BEACON_STALE": "The beacon in the evidence is older than max_beacon_age_ms: see why the host does not renew it.",
    "REVOKED": "A policy revokes this host, its session, code, machine, devices or root of trust.",
    "EVIDENCE_STALE": "Evidence must be repeated every evidence_interval_windows.",
    "BINDING_MISMATCH": "The report says other things than its session binding.",
    "CLASS_MISMATCH": "GPU classes differ from enrolment or from the policy's model rules.",
    "SHAPE_INVALID": "Lengths and shapes of the statistics do not fit the grid and the window.",
    "COUNTS_IMPLAUSIBLE": "Counts cannot come from the schedule, even with the noise at its largest.",
    "POWER_IMPLAUSIBLE": "Power sums cannot come from the enrolled GPUs, even with the noise at its largest.",
    "ENERGY_IMPLAUSIBLE": "The energy residual exceeds what clipped readings and a clipped counter can differ by.",
    "PRIVACY_REFUSED": "Mode, budget or noise scale differ from what the policy allows.",
    "FIRST_MILE_OVERCLAIMED": "The report claims a better first mile than its evidence proves.",
    "DEVICE_MODE": "GPUs of an attested session must be in confidential mode, with developer tools off.",
    "CONTROL_STALE": "A control record was issued too long before it was appended.",
    "CONTROL_INVALID": "A control record lacks what its kind needs.",
    "COLLATERAL_UNKNOWN": "The collateral topic lacks a set that a control record names, or items of it: import it.",
    "COLLATERAL_STALE": "The collateral in force is older than max_collateral_age_ms. Fetch and import it again.",
    "CONTROL_UNSUPPORTED": "This release does not act on control records of this kind.",
    "POLICY_ROLLBACK": "The policy's counter is lower than that of the policy in force.",
    "POLICY_UNTRUSTED": "The policy is not signed by a trusted policy signer.",
    "POLICY_EXPIRED": "The policy is past its not_after: sign and apply a renewal.",
    "CORE_VERSION": "The policy names another core version than this program has.",
}


class Refused(EnclaveScaleError):
    """A record the core refuses; `code` is a key of `CODES`."""

    def __init__(self, code: str, message: str, *, field: str | None = None):
        super().__init__(message, code=code, field=field, remedy=CODES[code])
