"""Results of replays that never ran: as many windows as wanted, names as hostile as wanted."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from enclavescale.report import Gathered, Made, report_facts
from schemas.topics import TopicNames
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.replay.beside_facts import CollateralFacts, PolicyFacts
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.met import SessionFacts
from stream_jobs.replay.partitions import ReplayResult
from stream_jobs.replay.verdicts import (
    Difference,
    Figures,
    Finding,
    PartitionResult,
    Severity,
    Verdict,
    WindowVerdict,
)

T0 = 1_763_700_000_000
W = 10_000
MADE = Made(at_ms=T0 + 86_400_000, source="a sample", release="0.1.0", core_version="2")
REQUEST = ReplayRequest(topics=TopicNames(), trust=PolicyTrust((b"\x04" + bytes(64),)), from_ms=T0, to_ms=T0 + 10**9)

Naming = Callable[[str], str]
"""Gives every text that a record may claim; the identity unless hostile."""


def plain(text: str) -> str:
    return text


def figures_at(number: int, rng: random.Random, name: Naming = plain, **changes: Any) -> Figures:
    mean = 900_000 + rng.randrange(200_000)
    full = Figures(
        window_end_ms=T0 + (number + 1) * W,
        mean_w=(mean, mean - 50_000, mean + 60_000),
        margin_w=(1_500_000 - mean, 1_400_000 - mean, 1_600_000 - mean),
        limit_w=1_500_000,
        reporting_capacity_w=1_400_000 - rng.randrange(300_000),
        enrolled_capacity_w=1_400_000,
        reporting_hosts=60,
        enrolled_hosts=64,
        quorum_met=True,
        accepted=60,
        refused=((name("LATE"), rng.randrange(3)), (name("DUPLICATE"), 1)) if rng.random() < 0.4 else (),
        epsilon_micro=1_000_000,
        policy_counter=1,
        policy_digest="0a" * 32,
        simulated_w=0,
        mean_absent_reason=None,
        margin_absent_reason=None,
        quorum_ppm=800_000,
        late_accepted=0,
        privacy_mode=name("EDGE"),
        w_event_windows=6,
        w_event_epsilon_micro=6_000_000,
        tenants=4,
        k_min_hosts=2,
        k_min_tenants=2,
        largest_host_share_ppm=20_000,
        largest_tenant_share_ppm=300_000,
        dilution_met=True,
        collateral_digest="ab" * 32,
    )
    return replace(full, **changes)


def verdict_at(
    number: int, figures: Figures | None, verdict: Verdict = Verdict.IDENTICAL, **changes: Any
) -> WindowVerdict:
    full = WindowVerdict(
        verdict=verdict,
        domain="hall",
        window_start_ms=T0 + number * W,
        revision=0,
        partition=0,
        offset=number,
        close_offset=100 * number,
        published_digest="cd" * 32,
        computed_digest="cd" * 32,
        worker="aggregator-0",
        figures=figures,
    )
    return replace(full, **changes)


def verdicts_of(windows: int, domain: str = "hall", seed: int = 0, name: Naming = plain) -> list[WindowVerdict]:
    """A domain's verdicts: now and then one of each other kind, a revision, a window without a mean."""
    rng = random.Random(seed)
    found = []
    for number in range(windows):
        figures = figures_at(number, rng, name)
        kind = Verdict.IDENTICAL
        changes: dict[str, Any] = {"domain": name(domain), "worker": name("aggregator-0")}
        if number % 17 == 5:
            figures = replace(figures, mean_w=None, margin_w=None, quorum_met=False, mean_absent_reason=name("quorum"))
        if number % 29 == 11:
            others = [one for one in Verdict if one is not Verdict.IDENTICAL]
            kind = others[number // 29 % len(others)]
            changes["message"] = name("why")
        if kind is Verdict.DIFFERS:
            changes["differences"] = (Difference(field="mean.value_w", published=name("1"), computed="2"),)
        found.append(verdict_at(number, figures, kind, **changes))
        if number % 23 == 7:
            found.append(replace(found[-1], revision=1, offset=number + 1))
    return found


def sessions_of(name: Naming = plain) -> list[SessionFacts]:
    host = SessionFacts(
        session_id="01" * 32,
        role="host",
        host_id=name("host-0"),
        domain=name("hall"),
        source="nvml",
        created_at_ms=T0,
        beacon_issued_at_ms=None,
        policy_counter=1,
        code=None,
        tee="tdx",
        root_label=name("Intel SGX Root CA"),
        simulated=False,
        first_mile="MEASURED_READER",
        tcb_status="SWHardeningNeeded",
        tcb_date="2024-03-13",
        advisories=("INTEL-SA-00615", name("INTEL-SA-00657")),
        valid_from_ms=T0 - W,
        expires_ms=T0 + 10**9,
        warnings=(name("UNSAFE: something"),),
        topic="enclavescale.window-reports.v1",
        first_offset=3,
        last_offset=90,
        copies=12,
    )
    nothing = dict.fromkeys(("tee", "tcb_status", "root_label", "simulated", "first_mile"))
    refused = replace(host, session_id="02" * 32, host_id=name("host-1"), code="CERT_EXPIRED", advisories=(), **nothing)
    worker = replace(host, session_id="03" * 32, role="aggregator", host_id=name("aggregator-0"), domain=None)
    return [host, refused, worker]


def policies_of(name: Naming = plain) -> list[PolicyFacts]:
    return [
        PolicyFacts(
            counter=1,
            digest="0a" * 32,
            signer="04" + "0b" * 64,
            issued_at_ms=T0,
            effective_from_ms=T0,
            not_after_ms=T0 + 10**8,
            core_version="2",
            min_first_mile=name("NONE"),
            hosts=64,
            aggregators=2,
            domains=1,
            max_epsilon_micro=1_000_000,
            revoked=0,
            unsafe=("unsafe_allow_create_time",),
            partition=0,
            offset=0,
        )
    ]


def collateral_of(name: Naming = plain) -> list[CollateralFacts]:
    item = CollateralFacts(
        kind="tcb-info",
        id=name("00906ED50000"),
        digest="0c" * 32,
        fetched_at_ms=T0,
        not_before_ms=T0,
        next_update_ms=T0 + W,
        partition=0,
        offset=1,
    )
    return [item, replace(item, kind="set", digest="ab" * 32, not_before_ms=None, offset=2, members=3, missing=1)]


def findings_of(name: Naming = plain) -> list[Finding]:
    alarm = Finding(
        code="RECORD_ALTERED",
        severity=Severity.ALARM,
        topic="enclavescale.window-reports.v1",
        partition=0,
        offset=7,
        message=name("another digest"),
        domain=name("hall"),
        window_start_ms=T0,
    )
    return [alarm, replace(alarm, code="UNSIGNED_TEXT", severity=Severity.NOTICE, offset=-1, window_start_ms=None)]


def facts_of(
    verdicts: Sequence[WindowVerdict], findings: Sequence[Finding] = (), name: Naming = plain, made: Made = MADE
) -> dict[str, Any]:
    """The facts of a replay that said this."""
    gathered = Gathered()
    partition = PartitionResult(partition=0, records=1_000, met=sessions_of(name))
    for one in verdicts:
        gathered.verdict(one)
        partition.verdicts[one.verdict.value] += 1
    for finding in findings:
        gathered.finding(finding)
    partition.alarms = sum(one.severity is Severity.ALARM for one in findings)
    partition.notices = len(findings) - partition.alarms
    result = ReplayResult(
        partitions=(partition,),
        verdicts=partition.verdicts,
        alarms=partition.alarms,
        notices=partition.notices,
        policies=1,
    )
    return report_facts(gathered, REQUEST, result, policies_of(name), collateral_of(name), made)
