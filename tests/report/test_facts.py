"""What the report says of a replay: the sentence at its head, sums, folds, limits."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from dataclasses import replace

import pytest

from enclavescale.report import Gathered, report_facts
from enclavescale.report.explain import FOREIGN, explanations
from enclavescale.report.facts import headline
from enclavescale.report.gather import MAX_DOMAINS, MAX_FOREIGN, MAX_WINDOWS, RUN_OUTPUTS
from schemas.codec import encode_collateral
from schemas.collateral import collateral_key, item_digest, set_item
from schemas.records import CollateralItem
from stream_jobs.core.refusals import CODES as REFUSALS
from stream_jobs.replay.beside_facts import collateral_facts, policy_facts
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.partitions import ReplayResult
from stream_jobs.replay.verdicts import CODES as FINDINGS
from stream_jobs.replay.verdicts import PartitionResult, Severity, Verdict
from tests.replay.logs import quiet
from tests.replay.topics import NAMES, TRUST, MemorySource
from tests.report.samples import (
    MADE,
    REQUEST,
    T0,
    W,
    facts_of,
    figures_at,
    findings_of,
    sessions_of,
    verdict_at,
    verdicts_of,
)


@pytest.mark.parametrize(
    ("counts", "alarms", "state", "text"),
    [
        ({"identical": 212}, 0, "proven", "All 212 outputs are identical"),
        ({"identical": 1}, 0, "proven", "The one output is identical"),
        ({"identical": 209, "differs": 3}, 0, "altered", "3 outputs differ; 209 of 212 outputs are identical"),
        (
            {"identical": 2000, "differs": 1, "missing": 2, "extra": 1},
            5,
            "altered",
            "1 output differs, 2 outputs are missing and 1 output is extra; 2,000 of 2,004 outputs are identical",
        ),
        ({"identical": 7}, 1, "altered", "All 7 outputs are identical, but 1 alarm"),
        ({"identical": 7, "pending": 2}, 2, "altered", "7 of 9 outputs are identical, but 2 alarms"),
        ({"identical": 7, "input lost": 3}, 0, "open", "7 of 10 outputs are identical, 3 cannot be judged"),
        ({"pending": 1}, 0, "open", "0 of 1 outputs are identical, 1 is pending"),
        ({}, 0, "open", "No output of the range is on the topics, nor follows from them"),
    ],
)
def test_the_headline(counts: dict[str, int], alarms: int, state: str, text: str) -> None:
    result = ReplayResult(partitions=(), verdicts=Counter(counts), alarms=alarms)
    assert headline(result) == {"state": state, "text": text}
    assert (state == "proven") == (result.proven and bool(counts))


def test_every_code_has_a_meaning() -> None:
    known = explanations()
    assert {*REFUSALS, *FINDINGS, "CERT_EXPIRED", "MALFORMED"} <= known.keys()
    assert all(known.values())
    facts = facts_of([verdict_at(0, figures_at(0, random.Random(0), refused=(("NOBODY_KNOWS", 2),)))])
    assert facts["refused"] == [{"code": "NOBODY_KNOWS", "count": 2, "meaning": FOREIGN}]


def test_identical_outputs_are_folded_and_the_others_are_not() -> None:
    verdicts = verdicts_of(2_500)
    facts = facts_of(verdicts)
    (domain,) = facts["domains"]
    counts = Counter(one.verdict.value for one in verdicts)
    assert domain["verdicts"] == dict(sorted(counts.items()))
    assert sum(run["outputs"] for run in domain["identical_runs"]) == counts["identical"]
    assert max(run["outputs"] for run in domain["identical_runs"]) <= RUN_OUTPUTS
    others = [one for one in verdicts if one.verdict is not Verdict.IDENTICAL]
    assert [one["offset"] for one in facts["shown"]["windows"]] == [one.offset for one in others][:MAX_WINDOWS]
    assert sum(run["revisions"] for run in domain["identical_runs"]) == sum(
        one.revision == 1 for one in verdicts if one.verdict is Verdict.IDENTICAL
    )
    believed = [one for one in verdicts if one.verdict is not Verdict.EXTRA]
    refused: Counter[str] = Counter()
    for one in believed:
        assert one.figures
        refused.update(dict(one.figures.refused))
    assert domain["refused"] == dict(sorted(refused.items()))


def test_a_revision_costs_no_privacy_twice_and_accepts_no_report_twice() -> None:
    rng = random.Random(0)
    first = figures_at(0, rng, accepted=3, epsilon_micro=500_000)
    later = replace(first, accepted=4, late_accepted=1, epsilon_micro=700_000)
    other = figures_at(1, rng, accepted=4, epsilon_micro=700_000)
    facts = facts_of([verdict_at(0, first), verdict_at(1, other), verdict_at(0, later, revision=1)])
    (domain,) = facts["domains"]
    assert (domain["accepted"], domain["late_accepted"], domain["epsilon_sum_micro"]) == (8, 1, 1_400_000)
    assert [(run["windows"], run["epsilon_micro"]) for run in domain["privacy"]] == [(1, 500_000), (1, 700_000)]


def test_a_forged_output_says_nothing_about_the_domain() -> None:
    rng = random.Random(0)
    true, forged = figures_at(0, rng, mean_w=(5, 4, 6)), figures_at(0, rng, mean_w=(9, 9, 9), accepted=10**9)
    facts = facts_of([verdict_at(0, true), verdict_at(0, forged, Verdict.EXTRA)])
    (domain,) = facts["domains"]
    assert domain["columns"]["mean_w"] == [[5, 5, 4, 6]]
    assert domain["accepted"] == true.accepted
    assert facts["shown"]["windows"][0]["figures"]["mean_w"] == [9, 9, 9]


@pytest.mark.parametrize("end_ms", [T0, -(2**62), 2**63 - 1])
def test_a_forged_output_before_all_others_does_not_set_the_scale(end_ms: int) -> None:
    forged = verdict_at(0, figures_at(0, random.Random(1), window_end_ms=end_ms), Verdict.EXTRA)
    genuine = verdicts_of(30)
    (domain,) = facts_of([forged, *genuine])["domains"]
    (alone,) = facts_of(genuine)["domains"]
    for name in ("window_ms", "column_ms", "start_ms", "mean_w", "windows"):
        assert domain["columns"][name] == alone["columns"][name], name
    assert domain["verdicts"]["extra"] == alone["verdicts"].get("extra", 0) + 1


def test_forged_outputs_of_many_names_do_not_take_the_place_of_domains() -> None:
    names = [f"a{number:05}" for number in range(MAX_DOMAINS + 5)]
    figures = figures_at(0, random.Random(1))
    forged = [verdict_at(0, figures, Verdict.EXTRA, domain=name) for name in names]
    facts = facts_of([*forged, *verdicts_of(3)])
    assert [one["domain"] for one in facts["domains"]] == ["hall", *names[:MAX_FOREIGN]]
    assert facts["left_out"]["outputs_of_domains"] == len(names) - MAX_FOREIGN


def test_two_policies_with_one_counter_are_told_apart() -> None:
    """A signer's key was lost, and the successor's counters begin at 1 again."""
    other = [
        replace(one, figures=replace(one.figures, policy_digest="0e" * 32)) for one in verdicts_of(3) if one.figures
    ]
    (policy,) = facts_of([*verdicts_of(5, "other"), *other])["policies"]
    assert (policy["counter"], policy["outputs"]) == (1, 5)


def test_the_order_in_which_partitions_come_does_not_matter() -> None:
    streams = [[replace(one, partition=number) for one in verdicts_of(60, "hall", seed=number)] for number in range(3)]
    streams = [[replace(one, domain=f"hall-{number}") for one in stream] for number, stream in enumerate(streams)]
    said = []
    for order in itertools.permutations(streams):
        mixed = [one for together in itertools.zip_longest(*order) for one in together if one is not None]
        said.append(facts_of(mixed, findings_of()[::-1]))
    assert all(one == said[0] for one in said)


def test_facts_of_a_replay_are_those_of_its_outputs() -> None:
    published = quiet()
    request = ReplayRequest(topics=NAMES, trust=TRUST, from_ms=0, to_ms=1 << 50, clock_slack_ms=0)
    gathered = Gathered()
    assert not any(one.met for one in published.replay().result.partitions)  # facts cost a verification each
    said = published.replay(sessions=True)
    for one in said.verdicts:
        gathered.verdict(one)
    policies = policy_facts(published.source, request)
    facts = report_facts(gathered, request, said.result, policies, collateral_facts(published.source, request), MADE)
    assert facts["headline"]["text"] == f"All {published.outputs} outputs are identical"
    (policy,) = facts["policies"]
    assert policy["outputs"] == published.outputs
    assert policy["digest"] == published.policies[0].digest.hex()
    assert policy["unsafe"] == ["unsafe_allow_unevaluated_tcb"]
    assert policy["signer"] == TRUST.signers[0].hex()
    hosts = [one for one in facts["sessions"] if one["role"] == "host"]
    assert [one["host_id"] for one in hosts] == ["h0", "h1", "h2"]
    assert {(one["code"], one["tee"], one["simulated"], one["tcb_status"]) for one in hosts} == {
        (None, "tdx", True, "not evaluated")
    }
    assert all(one["places"][0]["first_offset"] < one["places"][0]["last_offset"] for one in hosts)
    workers = [one for one in facts["sessions"] if one["role"] == "aggregator"]
    assert workers
    assert facts["refused"] == [{"code": "MALFORMED", "count": 4, "meaning": explanations()["MALFORMED"]}]
    assert not gathered.findings(Severity.ALARM)
    (domain,) = facts["domains"]
    assert domain["columns"]["start_ms"][0] == T0 // W * W


def test_a_session_met_in_two_partitions_is_one() -> None:
    worker = sessions_of()[2]
    there = replace(worker, partition=1, first_offset=7, copies=5)
    parts = tuple(PartitionResult(partition=number, met=[one]) for number, one in ((1, there), (0, worker)))
    result = ReplayResult(partitions=parts)
    (said,) = report_facts(Gathered(), REQUEST, result, (), (), MADE)["sessions"]
    assert said["copies"] == worker.copies + 5
    assert [(place["partition"], place["first_offset"]) for place in said["places"]] == [(0, 3), (1, 7)]


def test_without_outputs_there_is_a_report_too() -> None:
    facts = facts_of([])
    assert facts["headline"]["state"] == "open"
    assert facts["domains"] == []


def test_sets_of_collateral_say_what_is_there_and_what_is_due() -> None:
    def item(number: int, due_ms: int | None) -> CollateralItem:
        return CollateralItem(kind="crl", id=f"{number}", data=b"x", next_update_ms=due_ms, fetched_at_ms=T0,
                              next_update_ms_absent_reason=None if due_ms else "none",
                              issuer_chain_absent_reason="none", not_before_ms_absent_reason="none")  # fmt: skip

    items = [item(0, T0 + 5), item(1, T0 + 2), item(2, None), item(3, T0 + 1)]
    whole = set_item([item_digest(one) for one in items], T0)
    source = MemorySource([])
    for one in (*items[:3], whole, items[0], replace(whole, data=b"short")):
        source.append(NAMES.collateral, encode_collateral(one), collateral_key(one))
    source.append(NAMES.collateral, b"noise")
    request = ReplayRequest(topics=NAMES, trust=TRUST, from_ms=0, to_ms=1)
    found = collateral_facts(source, request)
    assert [(one.kind, one.offset, one.members, one.missing, one.next_update_ms) for one in found] == [
        ("crl", 1, None, None, T0 + 2),
        ("crl", 2, None, None, None),
        ("set", 3, 4, 1, T0 + 2),
        ("crl", 4, None, None, T0 + 5),
        ("set", 5, None, None, None),
    ]
    assert found[2].digest == whole.id
    figures = figures_at(0, random.Random(0), collateral_digest=whole.id)
    facts = facts_of([verdict_at(0, figures)])
    assert facts["collateral_sets"] == [{"digest": whole.id, "outputs": 1, "members": None, "next_update_ms": None}]
    sample = facts_of([verdict_at(0, figures_at(0, random.Random(0)))])
    assert sample["collateral_sets"] == [{"digest": "ab" * 32, "outputs": 1, "members": 3, "next_update_ms": T0 + W}]
