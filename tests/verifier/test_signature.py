"""The hot path's signature: one form, one key, one answer."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from attester.signing import public_point, sign_raw
from verifier.errors import SessionKeyInvalid, SignatureInvalid, SignatureNotLowS, VerificationError
from verifier.signature import P256_ORDER, load_session_key, verify_record_signature

KEY = ec.generate_private_key(ec.SECP256R1())
POINT = public_point(KEY.public_key())
PUBLIC = load_session_key(POINT)
MESSAGE = b"a record's pre-image"
SIGNATURE = sign_raw(KEY, MESSAGE)


def test_it_verifies() -> None:
    verify_record_signature(PUBLIC, MESSAGE, SIGNATURE)


@given(st.binary(max_size=200))
def test_whatever_is_signed_verifies_with_low_s(message: bytes) -> None:
    signature = sign_raw(KEY, message)
    assert int.from_bytes(signature[32:], "big") <= P256_ORDER // 2
    verify_record_signature(PUBLIC, message, signature)


def test_the_other_s_is_refused() -> None:
    s = P256_ORDER - int.from_bytes(SIGNATURE[32:], "big")
    with pytest.raises(SignatureNotLowS):
        verify_record_signature(PUBLIC, MESSAGE, SIGNATURE[:32] + s.to_bytes(32, "big"))


@pytest.mark.parametrize(
    "signature",
    [b"", SIGNATURE[:63], SIGNATURE + b"\x00", bytes(64), b"\xff" * 32 + bytes(32)],
    ids=["empty", "short", "long", "zeros", "r above the order"],
)
def test_malformed_is_refused(signature: bytes) -> None:
    with pytest.raises(SignatureInvalid):
        verify_record_signature(PUBLIC, MESSAGE, signature)


@given(st.binary(min_size=64, max_size=64), st.binary(max_size=40))
def test_random_signatures_raise_only_our_error(signature: bytes, message: bytes) -> None:
    with pytest.raises(VerificationError):
        verify_record_signature(PUBLIC, message, signature)


def test_another_message_or_key_is_refused() -> None:
    with pytest.raises(SignatureInvalid):
        verify_record_signature(PUBLIC, MESSAGE + b"!", SIGNATURE)
    other = load_session_key(public_point(ec.generate_private_key(ec.SECP256R1()).public_key()))
    with pytest.raises(SignatureInvalid):
        verify_record_signature(other, MESSAGE, SIGNATURE)


@pytest.mark.parametrize(
    "point",
    [b"", b"\x00", POINT[:-1], POINT + b"\x00", b"\x02" + POINT[1:33], b"\x06" + POINT[1:], b"\x04" + bytes(64)],
    ids=["empty", "infinity", "short", "long", "compressed", "hybrid", "off the curve"],
)
def test_keys_that_are_no_points(point: bytes) -> None:
    with pytest.raises(SessionKeyInvalid):
        load_session_key(point)
