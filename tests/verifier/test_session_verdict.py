"""A session from the attester to the verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from attester.quote import QuoteProvider
from attester.session import Session
from attester.simulated import SimulatedTee
from schemas.codec import report_data_of
from tests.forge.mint import HOST_ID, MRTD, PLATFORM_ID
from tests.forge.world import GENUINE, NOW_MS, binding, policy
from tests.verifier.quote_claims import UP_TO_DATE
from verifier.errors import RoleMismatch
from verifier.session import VerifiedSession, evidence_digest, verify_session
from verifier.signature import verify_record_signature
from verifier.verdicts import session as verdict

DIGEST = bytes(range(32))
TEE = SimulatedTee.create(platform_id=PLATFORM_ID, mrtd=MRTD)


def verified(session: Session) -> VerifiedSession:
    return verify_session(
        evidence=session.evidence,
        binding_bytes=session.binding_bytes,
        report_data=report_data_of(session.binding_bytes),
        session_id=session.session_id,
        policy=policy(TEE.root_der),
        role="host",
        now_ms=NOW_MS,
    )


def test_session_end_to_end() -> None:
    provider: QuoteProvider = TEE
    session = Session(provider, lambda point: binding(session_public_key=point))
    result = verified(session)
    assert (result.host_id, result.simulated, result.root_label) == (HOST_ID, True, "simulated")
    assert result.warnings == ("UNSAFE: TCB status not evaluated (policy.unsafe_allow_unevaluated_tcb)",)
    verify_record_signature(result.public_key, b"record", session.sign(b"record"))


def test_a_session_must_bind_its_own_key() -> None:
    with pytest.raises(ValueError, match="own public key"):
        Session(TEE, lambda point: binding())


def test_a_programmers_mistake_is_a_value_error() -> None:
    arguments = GENUINE.arguments()
    for change in ({"session_id": b"x"}, {"report_data": b"x"}, {"role": "guest"}):
        with pytest.raises(ValueError, match="64 bytes"):
            verify_session(**{**arguments, **change})


def test_accepted_verdict_is_json_and_shows_the_simulation() -> None:
    text = json.dumps(verdict.accepted(GENUINE.judge(), policy_digest=DIGEST, now_ms=NOW_MS))
    cpu = json.loads(text)["submods"]["cpu"]
    assert cpu["ear.status"] == "warning"
    assert cpu["ear.trustworthiness-vector"]["hardware"] == 96
    assert cpu["ear.trustworthiness-vector"]["sourced-data"] == 0
    assert cpu["enclavescale"]["simulated"] is True
    assert cpu["enclavescale"]["warnings"]


def test_affirming_needs_evaluated_hardware_and_no_switch() -> None:
    session = GENUINE.judge()
    quote = replace(session.claims.quote, tcb=UP_TO_DATE, simulated=False)
    clean = replace(session, claims=replace(session.claims, quote=quote), simulated=False, warnings=())
    cpu = verdict.accepted(clean, policy_digest=DIGEST, now_ms=NOW_MS)["submods"]["cpu"]
    assert cpu["ear.status"] == "affirming"
    assert cpu["ear.trustworthiness-vector"]["hardware"] == 2


def test_refused_verdict_carries_code_and_remedy() -> None:
    text = json.dumps(verdict.refused(RoleMismatch("wrong", field="role"), policy_digest=DIGEST, now_ms=NOW_MS))
    cpu = json.loads(text)["submods"]["cpu"]
    assert cpu["ear.status"] == "contraindicated"
    assert cpu["enclavescale"]["code"] == "ROLE_MISMATCH"
    assert cpu["enclavescale"]["remedy"]


def test_evidence_digest_separates_its_parts() -> None:
    item = GENUINE.arguments()["evidence"].items[0]
    digests = {
        evidence_digest([item], b"b"),
        evidence_digest([replace(item, subject="")], b"b"),
        evidence_digest([replace(item, kind=item.kind + "x", data=item.data[1:])], b"b"),
        evidence_digest([item, item], b"b"),
        evidence_digest([item], b"bb"),
    }
    assert len(digests) == 5


def test_enrolled_unsafe_platform_is_shown() -> None:
    arguments = GENUINE.arguments()
    hosts = (replace(arguments["policy"].hosts[0], platform_ids=()),)
    unsafe = replace(arguments["policy"], hosts=hosts, unsafe_allow_unenrolled_platform=True)
    warnings = verify_session(**{**arguments, "policy": unsafe}).warnings
    assert any("not enrolled" in warning for warning in warnings)


def test_the_unsafe_switch_does_not_lift_an_enrolment() -> None:
    from verifier.errors import PlatformNotEnrolled

    arguments = GENUINE.arguments()
    hosts = (replace(arguments["policy"].hosts[0], platform_ids=("ab" * 16,)),)
    unsafe = replace(arguments["policy"], hosts=hosts, unsafe_allow_unenrolled_platform=True)
    with pytest.raises(PlatformNotEnrolled):
        verify_session(**{**arguments, "policy": unsafe})


def test_masked_register() -> None:
    from schemas.records import Measurement, RegisterRule

    mask = b"\x00" * 47 + b"\xff"
    rule = RegisterRule(register="mrtd", value=bytes(47) + MRTD[-1:], mask=mask)
    arguments = GENUINE.arguments()
    measurements = (Measurement(label="m", role="host", tee="tdx", registers=(rule,)),)
    verify_session(**{**arguments, "policy": replace(arguments["policy"], measurements=measurements)})
