"""The facts of a report: one JSON object, of which the page is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from enclavescale.live import moment
from enclavescale.report.columns import columns_of
from enclavescale.report.explain import FOREIGN, explanations
from enclavescale.report.gather import DomainStory, Gathered
from stream_jobs.replay.beside_facts import CollateralFacts, PolicyFacts
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.document import request_facts, result_facts
from stream_jobs.replay.partitions import ReplayResult
from stream_jobs.replay.verdicts import Severity, Verdict, jsonable

MAX_SHOWN = 1_000
"""Outputs that are not identical, and findings of each severity, on the page."""

FAILED = {
    Verdict.DIFFERS: ("output differs", "outputs differ"),
    Verdict.MISSING: ("output is missing", "outputs are missing"),
    Verdict.EXTRA: ("output is extra", "outputs are extra"),
}
OPEN = {
    Verdict.INPUT_LOST: ("cannot be judged", "cannot be judged"),
    Verdict.PENDING: ("is pending", "are pending"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """When, of what and by what a report was made. `source`: the cluster or archive, in words."""

    at_ms: int
    source: str
    release: str
    core_version: str


def report_facts(
    gathered: Gathered,
    request: ReplayRequest,
    result: ReplayResult,
    policies: Sequence[PolicyFacts],
    collateral: Sequence[CollateralFacts],
    made: Made,
) -> dict[str, Any]:
    """All facts, as JSON takes them; what report.json has in full stands under `shown`, up to `MAX_SHOWN`."""
    domains = [_domain(story) for story in gathered.domains]
    refused: Counter[str] = Counter()
    for story in gathered.domains:
        refused += story.refused
    sessions, left_out = _sessions(result, made.at_ms)
    windows, alarms, notices = gathered.windows, *(gathered.findings(one) for one in (Severity.ALARM, Severity.NOTICE))
    return {
        "made": jsonable(made) | {"at": moment(made.at_ms)},
        "headline": headline(result),
        "request": request_facts(request),
        "result": result_facts(result),
        "domains": domains,
        "refused": _with_meanings(refused),
        "finding_codes": _with_meanings(gathered.finding_codes),
        "sessions": sessions,
        "policies": [_policy(one, gathered, made.at_ms) for one in policies],
        "collateral": [_collateral(one, made.at_ms) for one in collateral],
        "collateral_sets": _sets(gathered, collateral),
        "left_out": {"outputs_of_domains": gathered.domains_left_out, "evidence_of_sessions": left_out},
        "shown": {
            "windows": jsonable(windows[:MAX_SHOWN]),
            "alarms": jsonable(alarms[:MAX_SHOWN]),
            "notices": jsonable(notices[:MAX_SHOWN]),
        },
    }


def headline(result: ReplayResult) -> dict[str, Any]:
    """The result in a sentence: `state` is proven, altered or open."""
    counts = result.verdicts
    total, identical = counts.total(), counts[Verdict.IDENTICAL.value]
    all_of = {0: "No outputs are", 1: "The one output is"}.get(total, f"All {total:,} outputs are")
    same = f"{all_of} identical" if identical == total else f"{identical:,} of {total:,} outputs are identical"
    failed = [_count(counts[one.value], *words) for one, words in FAILED.items() if counts[one.value]]
    unproven = [_count(counts[one.value], *words) for one, words in OPEN.items() if counts[one.value]]
    if failed:
        return {"state": "altered", "text": f"{_listed(failed)}; {same}"}
    if result.alarms:
        return {"state": "altered", "text": f"{same}, but {_count(result.alarms, 'alarm', 'alarms')}"}
    if not total:
        return {"state": "open", "text": "No output of the range is on the topics, nor follows from them"}
    if unproven:
        return {"state": "open", "text": f"{same}, {_listed(unproven)}"}
    return {"state": "proven", "text": same}


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _count(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"


def _domain(story: DomainStory) -> dict[str, Any]:
    columns = story.series.columns
    return {
        "domain": story.domain,
        "partition": story.partition,
        "first_start_ms": columns[0].start_ms if columns else None,
        "last_end_ms": max((one.end_ms for one in columns), default=None),
        "outputs": story.verdicts.total(),
        "verdicts": jsonable(story.verdicts),
        "identical_runs": jsonable(story.runs),
        "identical_runs_left_out": story.runs_left_out,
        "accepted": story.accepted,
        "late_accepted": story.late_accepted,
        "refused": jsonable(story.refused),
        "below_quorum": story.below_quorum,
        "without_mean": jsonable(story.without_mean),
        "with_simulated_hosts": story.simulated,
        "dilution": jsonable(story.dilution),
        "privacy": jsonable(story.privacy),
        "privacy_left_out": story.privacy_left_out,
        "epsilon_sum_micro": story.epsilon_sum_micro,
        "columns": columns_of(story.series),
    }


def _with_meanings(counts: Counter[str]) -> list[dict[str, Any]]:
    known = explanations()
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    return [{"code": code, "count": count, "meaning": known.get(code, FOREIGN)} for code, count in ordered]


_PLACE = ("topic", "partition", "first_offset", "last_offset")


def _sessions(result: ReplayResult, at_ms: int) -> tuple[list[dict[str, Any]], int]:
    """Sessions by role and host, each with every place where its evidence was met; copies of evidence beyond them."""
    found: dict[str, dict[str, Any]] = {}
    for partition in result.partitions:
        for one in partition.met:
            facts = jsonable(one)
            place = {name: facts.pop(name) for name in _PLACE}
            ended = one.expires_ms is not None and one.expires_ms < at_ms
            known = found.setdefault(one.session_id, {**facts, "ended": ended, "copies": 0, "places": []})
            known["copies"] += one.copies
            known["places"].append(place)
    for known in found.values():
        known["places"].sort(key=lambda place: (place["topic"], place["partition"]))
    names = ("role", "host_id", "created_at_ms", "session_id")
    ordered = sorted(found.values(), key=lambda one: tuple(one[name] for name in names))
    return ordered, sum(one.met_left_out for one in result.partitions)


def _policy(policy: PolicyFacts, gathered: Gathered, at_ms: int) -> dict[str, Any]:
    outputs = sum(story.policies[policy.digest] for story in gathered.domains)
    return {**jsonable(policy), "outputs": outputs, "ended": policy.not_after_ms < at_ms}


def _collateral(item: CollateralFacts, at_ms: int) -> dict[str, Any]:
    return {**jsonable(item), "due": item.next_update_ms is not None and item.next_update_ms < at_ms}


def _sets(gathered: Gathered, collateral: Sequence[CollateralFacts]) -> list[dict[str, Any]]:
    """Sets that outputs name; what is on the topic of each."""
    counts: Counter[str] = Counter()
    for story in gathered.domains:
        counts += story.collateral
    known = {one.digest: one for one in collateral if one.members is not None}
    return [
        {
            "digest": digest,
            "outputs": count,
            "members": known[digest].members if digest in known else None,
            "next_update_ms": known[digest].next_update_ms if digest in known else None,
        }
        for digest, count in sorted(counts.items())
    ]
