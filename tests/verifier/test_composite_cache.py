"""A session with devices is remembered for exactly the time in which every part of its evidence says the same."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.records import EvidenceItem, Policy
from tests.forge.composite.cases import CASES
from tests.forge.composite.world import (
    DAY,
    DRIVER_RIM,
    GPU_0,
    NOW,
    SENSOR,
    SNP,
    TDX,
    VBIOS_RIM,
    Case,
    Host,
    rim_entries,
)
from tests.forge.dcap import certificates as dcap
from tests.forge.dcap.cases_policy import behind
from tests.forge.dcap.certificates import Cert
from tests.forge.dcap.world import TDX4
from tests.forge.nvidia.certificates import Answer, List
from tests.forge.nvidia.world import good_answers
from tests.forge.rim import world as rim
from tests.forge.snp import world as snp
from tests.forge.snp.certificates import Crl
from verifier.cache import SessionCache
from verifier.composite import Memory
from verifier.errors import VerificationError
from verifier.session import ProvenSession, VerifiedSession, verify_session

MEMORY = Memory()
LONG = {"not_before": NOW - 500 * DAY, "not_after": NOW + 500 * DAY}


def answers(begin: int, end: int, status: str = "good") -> tuple[Answer, ...]:
    """The boot ROM's certificate, answered for from day `begin` to day `end`."""
    return (
        *(
            replace(one, this_update=NOW - 400 * DAY, next_update=NOW + 400 * DAY, responder=LONG)
            for one in good_answers()[:2]
        ),
        Answer(about=3, this_update=NOW + begin * DAY, next_update=NOW + end * DAY, status=status, responder=LONG),
    )


def with_answers(*more: Answer) -> Host:
    return TDX.but(gpus=(GPU_0.but(answers=more),), sensors=())


def signed(begin: int, end: int, **changes: Any) -> rim.World:
    """The VBIOS manifest, by a signer whose certificate is valid from day `begin` to day `end`."""
    signer = replace(rim.SIGNER, not_before=NOW + begin * DAY, not_after=NOW + end * DAY, serial=0x6000 + 1000 + begin)
    return VBIOS_RIM.but(signer=signer, **changes)


def rim_list(issuer: Cert, begin: int, end: int, **changes: Any) -> bytes:
    """A list about the manifests' signers or issuers, current from day `begin` to day `end`."""
    what = dcap.Crl(this_update=NOW + begin * DAY, next_update=NOW + end * DAY, digest="sha384", **changes)
    return dcap.issue_crl(what, issuer)


def with_lists(*lists: bytes) -> Host:
    return TDX.but(sensors=(), gpus=(GPU_0.but(answers=answers(-9, 40)),), held=lambda found: [*found, *lists])


HOSTS = {
    "everything": TDX,
    "answers renewed": with_answers(*answers(-2, 3), *answers(2, 9)),
    "revoked later": with_answers(*answers(-2, 9), *answers(4, 6, "revoked")[2:]),
    "a gap between answers": with_answers(*answers(-2, 1), *answers(3, 9)),
    "on a list later": with_answers(*answers(-9, 9)).but(
        gpus=(
            GPU_0.but(
                answers=answers(-9, 9),
                lists=(List(issuer=2, this_update=NOW + DAY, next_update=NOW + 8 * DAY, revoked=(0x4143,)),),
            ),
        )
    ),
    "manifests signed again": TDX.but(rims=(DRIVER_RIM, signed(-50, 2), signed(1, 90)), sensors=()),
    "a gap between manifests": TDX.but(rims=(DRIVER_RIM, signed(-50, 1), signed(4, 90)), sensors=()),
    "a contradicting manifest later": TDX.but(
        rims=(DRIVER_RIM, signed(-50, 90), signed(3, 90, entries=rim_entries((3, 4), {5: bytes(48)}))), sensors=()
    ),
    "AMD's lists renewed": SNP.but(
        cpu=snp.GENOA.but(
            crls=(
                Crl(this_update=NOW - 9 * DAY, next_update=NOW + 2 * DAY),
                Crl(this_update=NOW + DAY, next_update=NOW + 5 * DAY, revoked=(0x10001,)),
            )
        ),
        gpus=(),
        sensors=(),
    ),
    "lists about the manifests' signers end": with_lists(rim_list(rim.L3, -9, 3)),
    "lists about the manifests' signers renewed": with_lists(
        rim_list(rim.L3, -9, 3), rim_list(rim.L3, 2, 8), rim_list(rim.CA, -9, 5), rim_list(rim.ROOT, -9, 6)
    ),
    "a list revokes the manifests' signer later": with_lists(
        rim_list(rim.L3, -9, 9), rim_list(rim.L3, 3, 8, revoked=(rim.SIGNER.serial,))
    ),
    "a sensor alone": TDX.but(gpus=(), sensors=(SENSOR,)),
}  # fmt: skip
BEHIND = TDX.but(cpu=TDX4.but(tcb_info_edit=behind("2026-01-05")))
"""Its grace of 30 days ends two days from now."""


def lenient(policy: Policy) -> Policy:
    return replace(policy, unsafe_allow_unevaluated_tcb=True)


def forgiving(policy: Policy) -> Policy:
    rules = tuple(replace(one, grace_days=30, allowed_advisories=("*",)) for one in policy.tcb_rules)
    return replace(policy, tcb_rules=rules)


def damaged(items: list[EvidenceItem]) -> list[EvidenceItem]:
    return [items[0], replace(items[1], data=items[1].data[:-1]), *items[2:]]


GIVEN = {name: Case(name=name, code="", step=None, host=host).arguments() for name, host in HOSTS.items()} | {
    "a grade as soon as AMD's list is there": Case(
        name="x", code="", step=None, policy=lenient,
        host=SNP.but(cpu=snp.GENOA.but(crls=(Crl(this_update=NOW + DAY, next_update=NOW + 5 * DAY),)), sensors=()),
    ).arguments(),
    "grace ends": Case(name="x", code="", step=None, host=BEHIND, policy=forgiving).arguments(),
}  # fmt: skip
BROKEN = Case(name="x", code="", step=None, host=BEHIND.but(items=damaged), policy=forgiving).arguments()
REFUSED = {case.name: case.arguments() for case in CASES[::6]}
WORLDS = [*GIVEN.values(), *REFUSED.values(), BROKEN]
EDGES = sorted(
    {
        (NOW + days * DAY) * 1000 + shift
        for days in (-401, -60, -50, -40, -9, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 9, 30, 90, 201, 301, 2001)
        for shift in (-1, 0, 1, 1000)
    }
)


def answer(function: Any, given: dict[str, Any]) -> tuple[Any, ...]:
    try:
        session: ProvenSession = function(**given)
    except VerificationError as error:
        return error.code, str(error), error.field
    return "", session.proven() if isinstance(session, VerifiedSession) else session


def digest(index: int) -> bytes:
    """Stands for the digest of the policy of a world."""
    return hashlib.sha256(bytes([index])).digest()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(WORLDS) - 1), st.sampled_from(EDGES)), min_size=2, max_size=20))
def test_any_history_gives_the_answers_of_no_memory(history: list[tuple[int, int]]) -> None:
    cache = SessionCache()
    for index, now_ms in history:
        given = {**WORLDS[index], "now_ms": now_ms}
        assert answer(cache.verify, {**given, "policy_digest": digest(index)}) == answer(verify_session, given)


@cache
def answers_of(name: str) -> dict[int, tuple[Any, ...]]:
    """What is said of a world at every edge."""
    return {at: answer(verify_session, {**GIVEN[name], "now_ms": at, "memory": MEMORY}) for at in EDGES}


def certain(given: dict[str, Any]) -> tuple[int | None, int | None]:
    """From when until when an answer says that it holds."""
    try:
        session = verify_session(**given)
    except VerificationError as error:
        return error.holds_from_ms, error.holds_until_ms
    return session.valid_from_ms, session.expires_ms


@pytest.mark.parametrize("name", GIVEN)
def test_what_is_certain_is_certain_up_to_both_ends(name: str) -> None:
    """Inside of the interval an answer gives, no other answer is right; both for acceptances and refusals."""
    answers_at = answers_of(name)
    for now_ms, here in answers_at.items():
        begin, end = certain({**GIVEN[name], "now_ms": now_ms, "memory": MEMORY})
        assert begin is not None
        assert end is not None
        assert begin <= now_ms <= end
        for other, there in answers_at.items():
            if begin <= other <= end:
                assert there == here, (now_ms, other)


def test_both_outcomes_are_met() -> None:
    for name in GIVEN:
        codes = {one[0] for one in answers_of(name).values()}
        assert "" in codes, name
        assert len(codes) > 1, name


def test_a_device_s_refusal_does_not_outlive_the_grace_of_its_cpu() -> None:
    """After it, the same evidence is refused for the CPU, which is judged first."""
    inside = certain(BROKEN)
    assert inside[1] is not None
    assert answer(verify_session, {**BROKEN, "now_ms": inside[1]})[0] == "NVIDIA_REPORT_MALFORMED"
    assert answer(verify_session, {**BROKEN, "now_ms": inside[1] + 1})[0] == "TCB_STATUS_REFUSED"
    assert inside[1] == (NOW + 2 * DAY) // DAY * DAY * 1000 - 1


def test_texts_that_are_no_unicode_are_refused_and_remembered() -> None:
    whole = GIVEN["everything"]
    cache = SessionCache()
    for changes in ({"subject": "\ud800"}, {"kind": "\ud800"}):
        items = (*whole["evidence"].items[:-1], replace(whole["evidence"].items[-1], **changes))
        given = {**whole, "evidence": replace(whole["evidence"], items=items)}
        assert answer(cache.verify, {**given, "policy_digest": digest(0)}) == answer(verify_session, given)
    assert len(cache) == 2


def test_what_fails_behind_the_signatures_is_said_of_now_only() -> None:
    host = TDX.but(nonces=lambda kind, subject, index, right: bytes(32) if kind == "spdm" else right)
    assert certain(Case(name="x", code="", step=None, host=host).arguments()) == (NOW * 1000, NOW * 1000)


def test_manifests_and_answers_are_part_of_the_question() -> None:
    """The same evidence with another set of collateral is asked anew."""
    cache = SessionCache()
    cache.verify(**GIVEN["everything"], policy_digest=digest(0))
    fewer = Case(name="x", code="", step=None, host=TDX.but(rims=())).arguments()["collateral"]
    with pytest.raises(VerificationError) as caught:
        cache.verify(**{**GIVEN["everything"], "collateral": fewer}, policy_digest=digest(0))
    assert caught.value.code == "REFERENCE_MISSING"
    assert (cache.hits, cache.misses) == (0, 2)


def test_a_hit_costs_no_verification() -> None:
    cache = SessionCache()
    first = cache.verify(**GIVEN["everything"], policy_digest=digest(0))
    assert cache.verify(**GIVEN["everything"], policy_digest=digest(0)) is first
    assert first.first_mile == "SPDM_MEASURED"
