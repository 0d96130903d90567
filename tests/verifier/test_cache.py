"""The cache answers what verification would, at every `now`, and is bounded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.forge.cases import CASES
from tests.forge.world import GENUINE, NOW_MS, Case
from verifier.cache import SessionCache
from verifier.errors import VerificationError
from verifier.session import ProvenSession, verify_session

DIGEST = bytes(32)
VALIDITY = [case for case in CASES if case.step == "validity"]
SAMPLE = [GENUINE, *VALIDITY, *CASES[::7]]
ARGUMENTS = [case.arguments() for case in SAMPLE]
TIMES = (0, 1_577_836_799_999, 1_577_836_800_000, 1_609_459_200_001, NOW_MS, 2_208_988_800_000, 2_524_607_999_001)


def answer(function: Any, arguments: dict[str, Any]) -> tuple[str, Any]:
    try:
        session = function(**arguments)
    except VerificationError as error:
        return error.code, (str(error), error.field, error.remedy, error.holds_from_ms, error.holds_until_ms)
    return "", (session.session_id, session.expires_ms, session.warnings, session.evidence_digest)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.sampled_from(TIMES)), min_size=1, max_size=30))
def test_any_history_gives_the_answers_of_no_cache(history: list[tuple[int, int]]) -> None:
    cache = SessionCache(entries=4)
    for index, now_ms in history:
        arguments = {**ARGUMENTS[index], "now_ms": now_ms}
        assert answer(cache.verify, {**arguments, "policy_digest": DIGEST}) == answer(verify_session, arguments)
    assert len(cache) <= 4


def judge(cache: SessionCache, arguments: dict[str, Any], **changes: Any) -> tuple[str, Any]:
    return answer(cache.verify, {"policy_digest": DIGEST, **arguments, **changes})


def test_hits_are_counted_and_bytes_matter() -> None:
    cache, arguments = SessionCache(), GENUINE.arguments()
    assert [judge(cache, arguments)[0] for _ in range(3)] == ["", "", ""]
    assert (cache.hits, cache.misses) == (2, 1)
    judge(cache, arguments, policy_digest=b"\x01" * 32)
    assert cache.misses == 2
    evidence = arguments["evidence"]
    forged = replace(evidence, items=(replace(evidence.items[0], data=evidence.items[0].data[:-9]),))
    assert judge(cache, arguments, evidence=forged)[0] != ""


def test_a_negative_answer_is_remembered_as_a_fresh_error() -> None:
    cache = SessionCache()
    arguments = next(case for case in CASES if case.code == "QUOTE_SIGNATURE").arguments()
    caught = []
    for _ in range(2):
        with pytest.raises(VerificationError) as info:
            cache.verify(**arguments, policy_digest=DIGEST)
        caught.append(info.value)
    assert cache.hits == 1
    assert caught[0] is not caught[1]
    assert type(caught[0]) is type(caught[1])


def test_an_answer_does_not_outlive_its_certificates() -> None:
    cache, arguments = SessionCache(), GENUINE.arguments()
    session = verify_session(**arguments)
    assert judge(cache, arguments)[0] == ""
    assert judge(cache, arguments, now_ms=session.expires_ms)[0] == ""
    assert judge(cache, arguments, now_ms=session.expires_ms + 1)[0] == "CERT_EXPIRED"
    assert not session.valid_at(session.expires_ms + 1)


def test_least_recently_used_leaves_first() -> None:
    cache = SessionCache(entries=2)
    a, b, c = (Case(name=n, code="", step=None).arguments() for n in "abc")
    for arguments in (a, b, a, c, a):
        judge(cache, arguments)
    assert (cache.hits, cache.misses, len(cache)) == (2, 3, 2)


def test_what_is_remembered_has_no_claims() -> None:
    """The parsed evidence is most of a verdict's size: the first answer has none either."""
    cache, arguments = SessionCache(), GENUINE.arguments()
    for _ in range(2):
        session = cache.verify(**arguments, policy_digest=DIGEST)
        assert type(session) is ProvenSession
        assert session == verify_session(**arguments).proven()


def test_a_cache_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        SessionCache(0)
