"""OCSP responses: read as another implementation writes them, written as they were read, chosen by what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from tests.forge.dcap.certificates import utc
from tests.forge.dcap.keys import key_of
from tests.forge.nvidia.judge import verify
from tests.forge.nvidia.world import DAY, HOPPER, NOW, good_answers
from verifier.abi.ocsp import parse_ocsp
from verifier.errors import OcspMalformed, OcspNotYetValid, OcspSignature, VerificationError
from verifier.limits import MAX_OCSP_ANSWERS
from verifier.trust.certificate import parse_certificate
from verifier.trust.ocsp import find_answer, verify_answer

MINTED = HOPPER.mint()
CHAIN = tuple(reversed(MINTED.chain))
NONCE = bytes(range(32))
NEXT_CENTURY = 4_102_444_800
STATUSES = {
    "good": ocsp.OCSPCertStatus.GOOD, "revoked": ocsp.OCSPCertStatus.REVOKED, "unknown": ocsp.OCSPCertStatus.UNKNOWN,
}  # fmt: skip


def built(place: int, *, status: str = "good", by_key: bool = False, hash_name: Any = None) -> bytes:
    """A response about the certificate at `place` below the root, by its issuer, as `cryptography` writes it."""
    subject, issuer = (x509.load_der_x509_certificate(CHAIN[at]) for at in (place, place - 1))
    key = key_of(HOPPER.certificates()[place - 1].key, "p384")
    encoding = ocsp.OCSPResponderEncoding.HASH if by_key else ocsp.OCSPResponderEncoding.NAME
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=subject, issuer=issuer, algorithm=hash_name or SHA384(), cert_status=STATUSES[status],
        this_update=utc(NOW - DAY), next_update=utc(NEXT_CENTURY),
        revocation_time=utc(NOW - DAY) if status == "revoked" else None,
        revocation_reason=x509.ReasonFlags.certificate_hold if status == "revoked" else None,
    ).responder_id(encoding, issuer).add_extension(x509.OCSPNonce(NONCE), critical=False)  # fmt: skip
    return builder.sign(key, SHA384()).public_bytes(Encoding.DER)


@pytest.mark.parametrize("by_key", [False, True])
@pytest.mark.parametrize("hash_name", [SHA1(), SHA256(), SHA384()], ids=lambda one: one.name)
def test_what_another_implementation_writes_is_believed(by_key: bool, hash_name: Any) -> None:
    response = parse_ocsp(built(3, by_key=by_key, hash_name=hash_name))
    subject, issuer = parse_certificate(CHAIN[3]), parse_certificate(CHAIN[2])
    answer, foreign = find_answer([response], subject, issuer, response.produced_ms)  # the library takes the clock's
    assert answer is not None
    assert foreign is None
    assert answer.nonce == NONCE
    assert answer.responder == issuer.common_name
    assert response.encode_tbs() == response.tbs


@pytest.mark.parametrize("status", STATUSES)
def test_statuses_of_another_implementation(status: str) -> None:
    response = parse_ocsp(built(2, status=status))
    (entry,) = response.entries
    assert entry.status == status
    assert entry.reason == (6 if status == "revoked" else None)
    assert entry.revoked_ms == ((NOW - DAY) * 1000 if status == "revoked" else None)
    assert response.encode_tbs() == response.tbs


@given(data=st.data())
def test_forged_responses_round_trip(data: Any) -> None:
    answer = replace(
        data.draw(st.sampled_from(good_answers())),
        status=data.draw(st.sampled_from(sorted(STATUSES))),
        reason=data.draw(st.none() | st.integers(0, 10)),
        this_update=data.draw(st.integers(0, 4_000_000_000)),
        next_update=data.draw(st.none() | st.integers(0, 4_000_000_000)),
        hash_name=data.draw(st.sampled_from(["sha1", "sha256", "sha384", "sha512"])),
        by_key=data.draw(st.booleans()),
        by_issuer=True,
    )
    response = parse_ocsp(HOPPER.but(answers=(answer,)).mint().ocsp[0])
    assert response.encode_tbs() == response.tbs
    (entry,) = response.entries
    assert (entry.this_update_ms, entry.status) == (answer.this_update * 1000, answer.status)
    assert entry.next_update_ms == (None if answer.next_update is None else answer.next_update * 1000)
    assert (response.responder_key is not None) is answer.by_key


@pytest.mark.parametrize("status", range(1, 7))
def test_an_error_of_the_responder_is_said(status: int) -> None:
    with pytest.raises(OcspMalformed, match="the responder reports"):
        parse_ocsp(bytes([0x30, 3, 0x0A, 1, status]))


@given(st.binary(max_size=400))
def test_any_bytes_cause_our_error(data: bytes) -> None:
    with pytest.raises(VerificationError):
        parse_ocsp(data)


@given(st.integers(0, len(MINTED.ocsp[2]) - 1), st.integers(0, 7))
def test_no_bit_of_an_answer_is_idle(at: int, bit: int) -> None:
    """A changed bit is refused, or stands in what is not signed and was not used."""
    changed = bytearray(MINTED.ocsp[2])
    changed[at] ^= 1 << bit
    minted = replace(MINTED, ocsp=(*MINTED.ocsp[:2], bytes(changed)))
    try:
        device = verify(minted)
    except VerificationError:
        return
    assert device.revocation.state == "unchecked" or parse_ocsp(bytes(changed)).tbs == parse_ocsp(MINTED.ocsp[2]).tbs


def test_the_leaf_is_answered_for_where_someone_does() -> None:
    answers = [parse_ocsp(one) for one in MINTED.ocsp]
    leaf, brom = parse_certificate(MINTED.chain[0]), parse_certificate(MINTED.chain[1])
    assert find_answer(answers, leaf, brom, NOW * 1000) == (None, None)
    own = parse_ocsp(built(4))
    found, _ = find_answer([*answers, own], leaf, brom, own.produced_ms)
    assert found is not None
    assert found.serial_hex == f"{leaf.serial_number:x}"


def test_foreign_responses_stand_beside_the_genuine_one() -> None:
    """However many, and though they are newer and say that the certificate is revoked; alone they say what they are."""
    genuine = good_answers()[2]
    forged = tuple(
        replace(genuine, status="revoked", this_update=genuine.this_update + number, **how)
        for number in range(1, MAX_OCSP_ANSWERS + 3)
        for how in ({"signed_with": "stranger"}, {"responder": {"signed_with": "stranger"}}, {"certificates": False})
    )
    brom, provisioner = parse_certificate(CHAIN[3]), parse_certificate(CHAIN[2])
    alone = [parse_ocsp(one) for one in HOPPER.but(answers=forged).mint().ocsp]
    found, foreign = find_answer([*alone, parse_ocsp(MINTED.ocsp[2])], brom, provisioner, NOW * 1000)
    assert (found is not None, foreign) == (True, None)
    found, foreign = find_answer(alone, brom, provisioner, NOW * 1000)
    assert found is None
    assert foreign is not None
    assert foreign.holds_from_ms == foreign.holds_until_ms == NOW * 1000
    with pytest.raises(OcspSignature):
        verify_answer(alone[:1], brom, provisioner, NOW * 1000)


def test_a_foreign_response_does_not_hide_one_of_the_future() -> None:
    ahead = replace(good_answers()[2], this_update=NOW + DAY)
    foreign = replace(good_answers()[2], signed_with="stranger")
    responses = [parse_ocsp(one) for one in HOPPER.but(answers=(foreign, ahead)).mint().ocsp]
    with pytest.raises(OcspNotYetValid):
        find_answer(responses, parse_certificate(CHAIN[3]), parse_certificate(CHAIN[2]), NOW * 1000)
