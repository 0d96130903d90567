"""Hostile bytes: whatever is done to a quote, only a `VerificationError` escapes, and no signed part can change."""

from __future__ import annotations

import functools
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attester.simulated import SimulatedTee
from tests.forge.mint import edit
from tests.verifier.vectors import CARRIED
from verifier.abi.pck import parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.tdx import parse_tdx_quote_v4
from verifier.errors import RootUntrusted, VerificationError
from verifier.formats.tdx import verify_tdx_quote
from verifier.trust.certificate import parse_certificate
from verifier.trust.roots import INTEL_SGX_ROOT, trust_anchors

pytestmark = [pytest.mark.every_tier, pytest.mark.timeout(7200)]
CASES = {"test": 2_000, "soak": 50_000, "accept": 1_000_000}[os.environ.get("ENCLAVESCALE_TIER", "test")]
bounded = settings(max_examples=CASES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

REAL = CARRIED[0]
PEM_START = REAL.quote.index(b"-----BEGIN")
SIMULATED = SimulatedTee.create()
SIMULATED_QUOTE = SIMULATED.mint(bytes(64))
ANCHORS = trust_anchors([SIMULATED.trust_root()], "tdx")


def survives(quote: bytes, now_ms: int = REAL.at_ms) -> bool:
    """Whether the quote verifies; any other exception than ours fails the test."""
    try:
        verify_tdx_quote(quote=quote, trust_roots=ANCHORS, now_ms=now_ms)
    except VerificationError:
        return False
    return True


@functools.cache
def signed_offsets() -> tuple[int, ...]:
    """Every byte that some signature, digest or length vouches for: all up to the PEM text, and its base64."""
    offsets = set(range(PEM_START))
    quote, inside = REAL.quote, False
    position = PEM_START
    for line in quote[PEM_START:].split(b"\n"):
        if line.startswith(b"-----"):
            inside = line.startswith(b"-----BEGIN")
        elif inside:
            offsets |= set(range(position, position + len(line)))
        position += len(line) + 1
    return tuple(sorted(offsets))


def test_the_unchanged_quotes_verify() -> None:
    assert survives(REAL.quote)
    assert survives(SIMULATED_QUOTE)


@bounded
@given(st.data())
def test_no_signed_byte_can_change(data: st.DataObject) -> None:
    offset = data.draw(st.sampled_from(signed_offsets()))
    old = REAL.quote[offset]
    new = data.draw(st.integers(0, 255).filter(lambda value: value != old))
    assert not survives(edit(offset, bytes([new]))(REAL.quote))


@bounded
@given(st.data())
def test_splices_raise_only_our_error(data: st.DataObject) -> None:
    quote = data.draw(st.sampled_from([REAL.quote, SIMULATED_QUOTE]))
    start = data.draw(st.integers(0, len(quote)))
    stop = data.draw(st.integers(start, min(len(quote), start + 200)))
    survives(quote[:start] + data.draw(st.binary(max_size=200)) + quote[stop:])


@bounded
@given(st.binary(max_size=1500))
def test_random_bytes_raise_only_our_error(data: bytes) -> None:
    for parse in (parse_tdx_quote_v4, split_chain, parse_certificate, parse_pck_extension):
        try:
            parse(data)
        except VerificationError:
            continue


@bounded
@given(st.data())
def test_mutated_certificates_raise_only_our_error(data: st.DataObject) -> None:
    chain = split_chain(parse_tdx_quote_v4(REAL.quote).signature.pck_chain)
    certificate = bytearray(data.draw(st.sampled_from(chain)))
    for _ in range(data.draw(st.integers(1, 4))):
        certificate[data.draw(st.integers(0, len(certificate) - 1))] = data.draw(st.integers(0, 255))
    try:
        parsed = parse_certificate(bytes(certificate))
        if parsed.pck_extension is not None:
            parse_pck_extension(parsed.pck_extension)
    except VerificationError:
        pass


def test_intel_root_alone_does_not_take_the_simulated_quote() -> None:
    with pytest.raises(RootUntrusted):
        verify_tdx_quote(quote=SIMULATED_QUOTE, trust_roots=[INTEL_SGX_ROOT], now_ms=REAL.at_ms)
