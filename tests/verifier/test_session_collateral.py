"""Sessions judged against collateral: every Intel kind, TCB rules, and a cache that never outlives them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode_binding, report_data_of, session_id_of
from schemas.records import (
    EvidenceItem,
    HostEnrolment,
    Measurement,
    RegisterRule,
    SessionEvidence,
    TcbRule,
    TrustRoot,
)
from tests.forge.dcap.judge import collateral_of
from tests.forge.dcap.world import DAY, MRENCLAVE, MRTD, NOW, SGX3, TDX4, TDX5_15, World
from tests.forge.world import DOMAIN, HOST_ID, binding, policy
from verifier.cache import SessionCache
from verifier.errors import CollateralMissing, TcbStatusRefused, TcbUnevaluated, VerificationError
from verifier.session import ProvenSession, VerifiedSession, verify_session
from verifier.trust.store import Collateral

DIGEST = bytes(32)
KINDS = {"tdx_quote_v4": TDX4, "tdx_quote_v5": TDX5_15, "sgx_quote_v3": SGX3}


def rule(tee: str, **changes: Any) -> TcbRule:
    base = TcbRule(
        tee=tee,
        accepted_statuses=("UpToDate",),
        grace_days=0,
        allowed_advisories=(),
        min_tcb_evaluation_number=1,
    )
    return replace(base, **changes)


def arguments(kind: str, world: World, *others: World, tcb: TcbRule | None = None, **changes: Any) -> dict[str, Any]:
    """Keyword arguments of `verify_session` for a host whose quote `world` makes, beside other worlds' collateral."""
    bound = binding()
    binding_bytes = encode_binding(bound)
    report_data = report_data_of(binding_bytes)
    minted = world.but(body={**world.body, "report_data": report_data}).mint()
    register = RegisterRule(register="mrtd", value=MRTD)
    if world.tee == "sgx":
        register = RegisterRule(register="mrenclave", value=MRENCLAVE)
    host = HostEnrolment(
        host_id=HOST_ID, domain=DOMAIN, tenant="t", failure_domain="r", platform_ids=(world.platform.ppid.hex(),),
        gpu_key_digests=(), classes=(),
    )  # fmt: skip
    demanded = policy(
        minted.root,
        hosts=(host,),
        measurements=(Measurement(label="agent", role="host", tee=world.tee, registers=(register,)),),
        trust_roots=(TrustRoot(label="forge", tee=world.tee, certificate_der=minted.root, simulated=False),),
        tcb_rules=(tcb or rule(world.tee),),
        unsafe_allow_unevaluated_tcb=False,
    )
    base: dict[str, Any] = {
        "evidence": SessionEvidence(
            binding=bound, items=(EvidenceItem(kind=kind, data=minted.quote, subject_absent_reason="cpu"),)
        ),
        "binding_bytes": binding_bytes,
        "report_data": report_data,
        "session_id": session_id_of(binding_bytes),
        "policy": demanded,
        "role": "host",
        "now_ms": NOW * 1000,
        "collateral": collateral_of([minted, *(one.mint() for one in others)]),
    }
    return {**base, **changes}


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_of_every_intel_kind(kind: str) -> None:
    session = verify_session(**arguments(kind, KINDS[kind]))
    quote = session.claims.quote
    assert quote.tcb is not None
    assert (quote.tcb.status, session.simulated, session.warnings) == ("UpToDate", False, ())
    assert session.expires_ms == last_ms(session)


def test_without_collateral_it_is_refused_and_an_empty_set_is_not_no_set() -> None:
    given = arguments("tdx_quote_v4", TDX4)
    with pytest.raises(TcbUnevaluated):
        verify_session(**{**given, "collateral": None})
    lax = replace(given["policy"], unsafe_allow_unevaluated_tcb=True)
    with pytest.raises(CollateralMissing):
        verify_session(**{**given, "policy": lax, "collateral": Collateral.empty()})
    assert verify_session(**{**given, "policy": lax, "collateral": None}).warnings


def last_ms(session: VerifiedSession) -> int:
    """The last moment at which everything used is current: up to nextUpdate for documents, before it for CRLs."""
    return min(one.next_update_ms - one.kind.endswith("crl") for one in session.claims.quote.windows)


def older(world: World, days: int) -> World:
    """The same platform's collateral of another day, with another evaluation number."""
    return world.but(
        number=world.number - 1,
        tcb_info_window=(NOW - days * DAY, NOW - days * DAY + 30 * DAY),
        qe_identity_window=(NOW - days * DAY, NOW - days * DAY + 30 * DAY),
    )


def behind(world: World) -> World:
    """The same platform on its second-best level, which is OutOfDate."""
    return world.but(platform=replace(world.platform, components=(4, 4, 2, 2, 3, 1, 0, 3, *(0,) * 8)))


GRACE = rule("tdx", grace_days=180, allowed_advisories=("*",))
WORLDS = [
    arguments("tdx_quote_v4", TDX4, older(TDX4, 20), older(TDX4, 35)),
    arguments("tdx_quote_v4", TDX4, older(TDX4, -10)),
    arguments("tdx_quote_v4", behind(TDX4), older(behind(TDX4), 20), tcb=GRACE),
    arguments("tdx_quote_v4", TDX4.but(pck_crl=replace(TDX4.pck_crl, revoked=(TDX4.pck.serial,)))),
    arguments("sgx_quote_v3", SGX3, older(SGX3, 20)),
]
EDGES = sorted(
    {
        (NOW + days * DAY) * 1000 + shift
        for days in (-201, -35, -20, -10, -5, -3, -2, 0, 5, 8, 9, 10, 20, 25, 27, 28, 30, 40, 2001)
        for shift in (-1, 0, 1, 1000)
    }
)


def answer(function: Any, given: dict[str, Any]) -> tuple[Any, ...]:
    try:
        session: ProvenSession = function(**given)
    except VerificationError as error:
        return error.code, str(error), error.field
    return "", session.proven() if isinstance(session, VerifiedSession) else session


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(range(len(WORLDS))), st.sampled_from(EDGES)), min_size=2, max_size=25))
def test_the_cache_never_outlives_collateral_grace_or_the_choice_of_items(history: list[tuple[int, int]]) -> None:
    cache = SessionCache()
    for index, now_ms in history:
        given = {**WORLDS[index], "now_ms": now_ms}
        assert answer(cache.verify, {**given, "policy_digest": DIGEST}) == answer(verify_session, given)


def test_a_session_says_how_long_it_is_certain() -> None:
    given = WORLDS[1]
    session = verify_session(**given)
    for now_ms in (session.valid_from_ms, session.expires_ms):
        assert answer(verify_session, {**given, "now_ms": now_ms}) == answer(verify_session, given)
    for now_ms in (session.valid_from_ms - 1, session.expires_ms + 1):
        assert answer(verify_session, {**given, "now_ms": now_ms}) != answer(verify_session, given)


def test_another_set_of_collateral_is_another_question() -> None:
    cache, given = SessionCache(), {**WORLDS[0], "policy_digest": DIGEST}
    cache.verify(**given)
    with pytest.raises(CollateralMissing):
        cache.verify(**{**given, "collateral": Collateral.empty()})
    assert (cache.hits, cache.misses) == (0, 2)


def test_grace_ends_on_its_day() -> None:
    given = WORLDS[2]
    session = verify_session(**given)
    report = session.claims.quote.tcb
    assert report is not None
    assert report.status == "OutOfDate"
    (since,) = {part.superseded_ms for part in report.launch.parts if part.superseded_ms is not None}
    end = since + 180 * DAY * 1000
    assert end > NOW * 1000
    assert session.expires_ms == min(end - 1, last_ms(session))
    short = {**given, "policy": replace(given["policy"], tcb_rules=(replace(GRACE, grace_days=100),))}
    with pytest.raises(TcbStatusRefused):
        verify_session(**short)
