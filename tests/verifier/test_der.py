"""Strict DER: what it reads it writes back, and every departure is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from verifier.abi import der
from verifier.abi.der import Der, DerError


@given(st.binary(max_size=70_000))
def test_round_trip(content: bytes) -> None:
    value = Der(der.OCTET_STRING, content)
    assert der.read_all(value.encode(), "v") == value


@given(st.integers(0, 2**64))
def test_unsigned_round_trip(number: int) -> None:
    assert der.read_unsigned(der.unsigned(number), "n", 2**64) == number


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\x04", b"\x04\x02a", b"\x04\x80ab\x00\x00", b"\x04\x81\x01a", b"\x04\x82\x00\x81" + bytes(129),
        b"\x04\x84\x00\x00\x00\x01a", b"\x1f\x01a", b"\x04\x01ab",
    ],
    ids=["empty", "no length", "short", "indefinite", "long form", "leading zero", "four octets", "high tag", "rest"],
)  # fmt: skip
def test_not_der(data: bytes) -> None:
    with pytest.raises(DerError):
        der.read_all(data, "v")


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x00\x01", b"\x01\x00"])
def test_unsigned_refuses(content: bytes) -> None:
    with pytest.raises(DerError):
        der.read_unsigned(Der(der.INTEGER, content), "n", 255)


def test_boolean_and_octets_refuse() -> None:
    with pytest.raises(DerError):
        der.read_boolean(Der(der.BOOLEAN, b"\x01"), "b")
    with pytest.raises(DerError):
        der.read_octets(der.octets(b"abc"), "o", 4)
    with pytest.raises(DerError):
        der.read_octets(der.unsigned(1), "o", 1)


def test_bounds_on_depth_and_elements() -> None:
    with pytest.raises(DerError):
        der.read_sequence(der.sequence(), "s", 8)
    with pytest.raises(DerError):
        der.read_sequence(der.sequence(*[der.unsigned(1)] * 65), "s")
