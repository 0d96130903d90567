"""Differences: none between equals, every field seen, and what weakens a policy marked, one way and not the other."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enclavescale.policy.changes import ADDED, CHANGED, REMOVED, Change, changes, weaker
from schemas.records import Policy, RevokedSubject
from tests.policy.samples import TEE, any_policy, demo, strict
from tests.policy.test_lint import entry, limit, twice, whole

GONE = RevokedSubject(kind="host", id="h0", reason="")
WEAKER = [
    ("unsafe_allow_create_time", whole(unsafe_allow_create_time=True)),
    ("min_first_mile", whole(min_first_mile="NONE")),
    ("accepted_sources", whole(accepted_sources=("nvml", "trace"))),
    ("accepted_sampler_modes", whole(accepted_sampler_modes=("average", "instant"))),
    ("counter", whole(counter=-1)),
    ("limits.max_epsilon_micro", limit(max_epsilon_micro=2_000_000)),
    ("limits.max_beacon_age_ms", limit(max_beacon_age_ms=None)),
    ("limits.lateness_ms", limit(lateness_ms=10**9)),
    ("domains[hall-a].k_min_hosts", entry("domains", k_min_hosts=4)),
    ("domains[hall-a].quorum_ppm", entry("domains", quorum_ppm=1)),
    ("domains[hall-a].limit_w", entry("domains", limit_w=10**6)),
    ("domains[hall-a].drift_cap_ppm", entry("domains", drift_cap_ppm=10**6)),
    ("hosts[x]", twice("hosts", host_id="x")),
    ("hosts[h0].platform_ids", entry("hosts", platform_ids=(*strict().hosts[0].platform_ids, "ff" * 16))),
    ("hosts[h0].gpu_key_digests", entry("hosts", gpu_key_digests=(*strict().hosts[0].gpu_key_digests, "ff" * 32))),
    ("aggregators[w1]", twice("aggregators", host_id="w1")),
    ("measurements[host/tdx/other]", twice("measurements", label="other")),
    (
        "measurements[host/tdx/agent].registers[rtmr2]",
        entry("measurements", registers=strict().measurements[0].registers[:2]),
    ),
    ("trust_roots[tdx/simulated]", lambda p: replace(p, trust_roots=(*p.trust_roots, TEE.trust_root()))),
    ("tcb_rules[tdx].accepted_statuses", entry("tcb_rules", accepted_statuses=("OutOfDate", "UpToDate"))),
    ("tcb_rules[tdx].grace_days", entry("tcb_rules", grace_days=1)),
    ("tcb_rules[tdx].allowed_advisories", entry("tcb_rules", allowed_advisories=("INTEL-SA-00001",))),
    ("tcb_rules[sgx]", twice("tcb_rules", tee="sgx")),
]


@pytest.mark.parametrize(("path", "change"), WEAKER)
def test_what_weakens_is_marked_and_its_reverse_is_not(path: str, change: Any) -> None:
    before, after = strict(), change(strict())
    (found,) = weaker(changes(before, after))
    assert found.path == path
    assert weaker(changes(after, before)) == ()


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (
            "hosts[h0].classes[H100].capacity_w",
            entry("hosts", classes=(replace(strict().hosts[0].classes[0], capacity_w=1),)),
        ),
        ("models[H100].clip_high_w", entry("models", clip_high_w=700)),
        ("hosts[h0].tenant", entry("hosts", tenant="t9")),
        ("domains[hall-a].partition", entry("domains", partition=3)),
        ("trust_roots[spdm/sensors].certificate_der", entry("trust_roots", certificate_der=b"x")),
        ("measurements[host/tdx/agent].registers[mrtd].value", lambda p: _mrtd(p, value=bytes(48))),
        ("measurements[host/tdx/agent].registers[mrtd].mask", lambda p: _mrtd(p, mask=b"\xff" * 48)),
    ],
)
def test_other_claims_and_other_code_are_marked_both_ways(path: str, change: Any) -> None:
    before, after = strict(), change(strict())
    for one, other in ((before, after), (after, before)):
        assert [found.path for found in weaker(changes(one, other))] == [path]


def _mrtd(policy: Policy, **fields: Any) -> Policy:
    first, *rest = policy.measurements[0].registers
    return entry("measurements", registers=(replace(first, **fields), *rest))(policy)


def test_what_was_revoked_must_stay_revoked() -> None:
    with_it = replace(strict(), revoked=(GONE,))
    assert [one.kind for one in weaker(changes(with_it, strict()))] == [REMOVED]
    assert weaker(changes(strict(), with_it)) == ()


def test_a_change_says_what_it_was_and_what_it_is() -> None:
    after = entry("domains", grace_ms=1)(replace(strict(), hosts=strict().hosts[1:], not_after_ms=0))
    gone = changes(strict(), after)
    assert Change(path="domains[hall-a].grace_ms", kind=CHANGED, before=30_000, after=1) in gone
    assert [(one.path, one.kind) for one in gone if one.kind != CHANGED] == [("hosts[h0]", REMOVED)]
    assert [one.kind for one in changes(after, strict())].count(ADDED) == 1
    assert "not_after_ms" not in {one.path for one in gone}, "a document that is not signed has none"


def test_names_that_stand_twice_are_told_apart() -> None:
    found = changes(strict(), twice("tcb_rules", grace_days=5)(strict()))
    assert [(one.path, one.kind) for one in found] == [("tcb_rules[tdx#2]", ADDED)]


@settings(max_examples=40, deadline=None)
@given(any_policy(), any_policy())
def test_any_two_policies_can_be_compared(one: Policy, other: Policy) -> None:
    assert changes(one, one) == ()
    there, back = changes(one, other), changes(other, one)
    assert {found.path for found in there} == {found.path for found in back}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(list(Policy.__dataclass_fields__)), st.data())
def test_no_field_is_overlooked(name: str, data: st.DataObject) -> None:
    other = data.draw(any_policy())
    changed = replace(demo(), **{name: getattr(other, name)})
    found = changes(demo(), changed)
    if getattr(other, name) == getattr(demo(), name) or 0 in (getattr(other, name), getattr(demo(), name)):
        return
    assert found
    assert all(one.path.startswith(name) for one in found)
