"""A session with devices is remembered for exactly the time in which every part of its evidence says the same."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from tests.forge.nvidia.certificates import Answer, List
from tests.forge.nvidia.world import good_answers
from tests.forge.rim import world as rim
from tests.forge.snp import world as snp
from tests.forge.snp.certificates import Crl
from verifier.cache import SessionCache
from verifier.composite import Memory
from verifier.errors import VerificationError
from verifier.session import VerifiedSession, verify_session

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
    "a sensor alone": TDX.but(gpus=(), sensors=(SENSOR,)),
}  # fmt: skip
GIVEN = {name: Case(name=name, code="", step=None, host=host).arguments() for name, host in HOSTS.items()}
REFUSED = {case.name: case.arguments() for case in CASES[::6]}
WORLDS = [*GIVEN.values(), *REFUSED.values()]
EDGES = sorted(
    {
        (NOW + days * DAY) * 1000 + shift
        for days in (-401, -60, -50, -40, -9, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 8, 9, 30, 90, 201, 301, 2001)
        for shift in (-1, 0, 1, 1000)
    }
)


def answer(function: Any, given: dict[str, Any]) -> tuple[Any, ...]:
    try:
        session: VerifiedSession = function(**given)
    except VerificationError as error:
        return error.code, str(error), error.field
    return "", session.session_id, session.first_mile, session.warnings, session.claims.first_mile_reason


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
