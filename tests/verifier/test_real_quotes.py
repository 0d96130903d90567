"""Real Intel TDX v4 quotes: they parse, verify at their time, and the default policy refuses them unevaluated."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest

from tests.forge.world import binding, policy
from tests.verifier.vectors import CARRIED, DATA, Carried, shared_anchors, shared_quote, shared_tdx_v4
from verifier.abi.quote import parse_quote
from verifier.claims import SessionClaims
from verifier.errors import CertExpired, CertNotYetValid, RootUntrusted, TcbUnevaluated, VerificationError
from verifier.formats.dcap import verify_quote
from verifier.policy import policy_rules
from verifier.trust.roots import INTEL_SGX_ROOT

CARRIED_IDS = [case.file for case in CARRIED]
CRYPTO_REASONS = {
    "quote:STATUS_INVALID_QUOTE_SIGNATURE": {"QUOTE_SIGNATURE"},
    "quote:STATUS_INVALID_QE_REPORT_DATA": {"QE_BINDING"},
    "quote:STATUS_INVALID_QE_REPORT_SIGNATURE": {"QE_REPORT_SIGNATURE"},
    "quote:STATUS_UNSUPPORTED_QUOTE_FORMAT": {"QUOTE_MALFORMED", "QE_VENDOR_UNKNOWN"},
    "quote does not parse": {"QUOTE_MALFORMED", "QUOTE_VERSION_UNSUPPORTED", "TEE_TYPE_UNSUPPORTED"},
}
"""What the corpus says of the quote alone; its other reasons judge collateral."""

REAL = [case for case in shared_tdx_v4() if case["origin"] == "collected" and case["trust_root"].startswith("intel")]
DERIVED = [case for case in shared_tdx_v4() if case["expected"].get("reason") in CRYPTO_REASONS]
SYNTHETIC = [case for case in shared_tdx_v4() if case["synthetic"]]


def case_id(case: dict[str, Any]) -> str:
    return str(case["id"])


def claims_of(quote: bytes, now_ms: int) -> SessionClaims:
    verified = verify_quote(collateral=None, quote=quote, trust_roots=[INTEL_SGX_ROOT], now_ms=now_ms)
    return SessionClaims(
        quote=verified, now_ms=now_ms, binding=binding(), report_data=verified.report_data, first_mile="NONE"
    )


@pytest.mark.parametrize("case", CARRIED, ids=CARRIED_IDS)
def test_carried_quote_verifies(case: Carried) -> None:
    verified = claims_of(case.quote, case.at_ms).quote
    assert verified.pck.fmspc.hex() == case.fmspc
    assert (verified.simulated, verified.tcb_evaluated, verified.root_label) == (False, False, "intel-sgx-root-ca")
    assert verified.attributes.sept_ve_disable
    assert len(verified.platform_ids) == 2


@pytest.mark.parametrize("case", CARRIED, ids=CARRIED_IDS)
def test_default_policy_refuses_it_unevaluated(case: Carried) -> None:
    claims = claims_of(case.quote, case.at_ms)
    rules = policy_rules(
        policy(b"", unsafe_allow_unevaluated_tcb=False), role="host", tee="tdx", platform_ids=claims.quote.platform_ids
    )
    with pytest.raises(TcbUnevaluated):
        rules.check(claims)


@pytest.mark.parametrize("case", CARRIED, ids=CARRIED_IDS)
def test_validity_has_two_sides(case: Carried) -> None:
    verified = claims_of(case.quote, case.at_ms).quote
    claims_of(case.quote, verified.valid_from_ms)
    claims_of(case.quote, verified.expires_ms)
    with pytest.raises(CertNotYetValid):
        claims_of(case.quote, verified.valid_from_ms - 1)
    with pytest.raises(CertExpired):
        claims_of(case.quote, verified.expires_ms + 1)


@pytest.mark.parametrize("case", CARRIED, ids=CARRIED_IDS)
def test_the_pin_decides_not_the_quotes_root(case: Carried) -> None:
    other = replace(INTEL_SGX_ROOT, spki=INTEL_SGX_ROOT.spki[:-1] + b"\x00")
    with pytest.raises(RootUntrusted):
        verify_quote(collateral=None, quote=case.quote, trust_roots=[other], now_ms=case.at_ms)


@pytest.mark.parametrize("case", CARRIED, ids=CARRIED_IDS)
@pytest.mark.parametrize("padding", [0, 1, 3064])
def test_round_trip_is_exact(case: Carried, padding: int) -> None:
    quote = case.quote + bytes(padding)
    assert parse_quote(quote).encode() == quote
    claims_of(quote, case.at_ms)


@pytest.mark.skipif(not REAL, reason="the shared corpus is not mounted")
@pytest.mark.parametrize("case", REAL, ids=case_id)
def test_shared_real_quote(case: dict[str, Any]) -> None:
    quote = shared_quote(case)
    assert parse_quote(quote).encode() == quote
    claims = claims_of(quote, case["at"] * 1000)
    assert claims.quote.report_data.hex() == case["report_data"]
    assert claims.quote.pck.fmspc.hex() == case["fmspc"]
    flags = case["flags"]
    expected = "TCB_UNEVALUATED"
    if flags["td_debug"]:
        expected = "DEBUG_ENABLED"
    elif not flags["sept_ve_disable"]:
        expected = "TD_ATTRIBUTES"
    with pytest.raises(VerificationError) as caught:
        policy_rules(
            policy(b"", unsafe_allow_unevaluated_tcb=False), role="host", tee="tdx", platform_ids=("00",)
        ).check(claims)
    assert caught.value.code == expected


@pytest.mark.skipif(not DERIVED, reason="the shared corpus is not mounted")
@pytest.mark.parametrize("case", DERIVED, ids=case_id)
def test_shared_derived_quote_is_refused_for_its_reason(case: dict[str, Any]) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_quote(
            collateral=None, quote=shared_quote(case), trust_roots=shared_anchors(case), now_ms=case["at"] * 1000
        )
    assert caught.value.code in CRYPTO_REASONS[case["expected"]["reason"]]


@pytest.mark.skipif(not SYNTHETIC, reason="the shared corpus is not mounted")
@pytest.mark.parametrize("case", SYNTHETIC, ids=case_id)
def test_shared_synthetic_quote_needs_its_own_root(case: dict[str, Any]) -> None:
    quote, now_ms = shared_quote(case), case["at"] * 1000
    verified = verify_quote(collateral=None, quote=quote, trust_roots=shared_anchors(case), now_ms=now_ms)
    assert verified.root_label == "corpus"
    with pytest.raises(RootUntrusted):
        verify_quote(collateral=None, quote=quote, trust_roots=[INTEL_SGX_ROOT], now_ms=now_ms)


@pytest.mark.parametrize("case", CARRIED, ids=CARRIED_IDS)
def test_carried_quote_is_the_one_in_the_notice(case: Carried) -> None:
    assert hashlib.sha256(case.quote).hexdigest() in (DATA / "NOTICE").read_text()
