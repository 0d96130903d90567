"""The list of attack classes: what each is, which rows of the threat model it tries, and how it is run.

The list is committed: a test holds it against `docs/threat-model.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

from enclavescale.bench import attacks_records as records
from enclavescale.bench import attacks_sessions as sessions
from enclavescale.bench.attacks_scene import Maker

RECORD, STREAM, RESTART, WITHHELD, DOCUMENT, READINGS = (
    "record",
    "stream",
    "restart",
    "withheld",
    "document",
    "readings",
)
"""How a class is run: records put into the log; the log changed; a restart; renewals withheld; signed documents read;
readings made up by attested hosts."""


@dataclass(frozen=True, slots=True)
class AttackClass:
    """`threats`: rows of docs/threat-model.md. `make`: of the classes that put records into the log."""

    title: str
    kind: str
    threats: tuple[str, ...]
    make: Maker | None = None


def _record(title: str, make: Maker, *threats: str) -> AttackClass:
    return AttackClass(title, RECORD, threats, make)


CLASSES: dict[str, AttackClass] = {
    "unattested": _record("no evidence, or none that is any", sessions.unattested, "T12", "T18"),
    "forged_root": _record("chains under the attacker's own root", sessions.forged_root, "T11", "T13"),
    "wrong_measurement": _record("modified code on a genuine machine", sessions.wrong_measurement, "T14"),
    "debug": _record("a TEE in debug mode", sessions.debug, "T15"),
    "old_tcb": _record("a machine that is out of date", sessions.old_tcb, "T20"),
    "revoked": _record("a stolen host, a revoked certificate", sessions.revoked, "T48", "T99"),
    "collateral_rollback": _record("older or no collateral put in force", records.collateral_rollback, "T51", "T96"),
    "quote_relay": _record("one host's quote for another", sessions.quote_relay, "T16", "T17", "T54"),
    "session_key_substitution": _record("another key in a genuine session's name", sessions.key_substitution, "T16"),
    "quote_tampering": _record("a quote with one bit changed", sessions.quote_tampering, "T9", "T10"),
    "report_tampering": _record("a report with any field changed", records.report_tampering, "T6"),
    "byte_tampering": _record("any record with any bit changed", records.byte_tampering, "T5", "T6"),
    "signature_malleability": _record("one record in another frame", records.signature_malleability, "T7", "T8"),
    "truncated_bytes": _record("records cut or lengthened", records.truncated_bytes, "T1", "T4"),
    "decompression_bomb": _record("few bytes that claim gigabytes", records.decompression_bomb, "T2", "T3", "T44"),
    "replay_same_session": _record("a report again", records.replay_same_session, "T24"),
    "replay_other_session": _record("a report in another session", records.replay_other_session, "T24"),
    "replay_other_domain": _record("a report in another domain", records.replay_other_domain, "T26"),
    "replay_after_restart": AttackClass("old records while a worker restarts", RESTART, ("T24", "T31", "T98")),
    "replay_after_a_month": _record("last month's records", records.replay_after_a_month, "T22", "T24"),
    "broker_duplicate": _record("records delivered twice", records.duplicated_by_the_broker, "T24"),
    "broker_drop": AttackClass("reports that the broker drops", STREAM, ("T35",)),
    "broker_reorder": AttackClass("reports that the broker holds back", STREAM, ("T35",)),
    "chain_truncation": AttackClass("parts of a session's chain cut out", STREAM, ("T35",)),
    "splice_of_chains": _record("a report moved within or between chains", records.splice_of_chains, "T6"),
    "equivocation": _record("two reports of one host for a window", records.equivocation, "T25"),
    "clock_attack": _record("windows to come, of no schedule, long closed", records.clock_attack, "T27"),
    "capacity_inflation": _record("more GPUs or capacity than enrolled", records.capacity_inflation, "T36"),
    "implausible_power": _record("power that the GPUs cannot draw", records.implausible_power, "T36"),
    "understated_noise": _record("less noise than the policy wants", records.understated_noise, "T39"),
    "sybil": _record("machines and hosts that nobody enrolled", sessions.sybil, "T17"),
    "wrong_domain": _record("an enrolled host in another domain", records.wrong_domain, "T26"),
    "policy_rollback": _record("the older policy put back", records.policy_rollback, "T30"),
    "policy_below_the_floor": AttackClass("a genuine policy below the floor", DOCUMENT, ("T30",)),
    "policy_tampering": AttackClass("a policy changed or signed by others", DOCUMENT, ("T29",)),
    "forged_policy": _record("a switch to a policy that nobody signed", records.forged_policy, "T29"),
    "forged_control": _record("control records of hosts and strangers", records.forged_control, "T29", "T100", "T101"),
    "forged_output": AttackClass("outputs of hosts, strangers, modified workers", DOCUMENT, ("T45",)),
    "policy_withholding": AttackClass("a policy's renewal withheld", WITHHELD, ("T82",)),
    "collateral_withholding": AttackClass("collateral expired or withheld", WITHHELD, ("T95",)),
    "evidence_flood": _record("new sessions without end", sessions.evidence_flood, "T28"),
    "dead_letter_flood": _record("junk under any key", records.junk_flood, "T1", "T46"),
    "byzantine_values": AttackClass("plausible lies of attested hosts", READINGS, ("T37",)),
}

_NOT_TRIED = {
    "needs devices, and is tried with forged ones": "T23 T52 T53 T55 T56 T57 T58 T59 T60 T61 T62 T63 T69",
    "the verifier alone, tried by its own corpus": "T19 T21 T49 T50",
    "the broker or the machine fails, nobody lies": "T32 T33 T34 T47 T66 T68 T94",
    "privacy: nothing is put into a log": "T38 T40 T41 T42 T43 T64 T65 T73",
    "the policy's signer himself": "T80 T81 T83",
    "after the fact, tried by replay, audit and archive": "T84 T85 T86 T87 T88 T89 T90 T91 T92 T93 T97",
    "the host's own interfaces": "T67 T70 T71 T72",
    "the brokers' own rights and the registry, tried on real ones": "T102 T103",
    "the page, tried in a browser": "T104 T105 T106 T107 T108 T109",
}
NOT_TRIED = {reason: tuple(rows.split()) for reason, rows in _NOT_TRIED.items()}
"""Rows of the threat model that no class here tries, by the reason."""
