"""No bit that a signature, digest or length vouches for can change; spliced and random bytes raise only our error.

The bits are all tried in `make accept`, a sample of them before. `test_fuzz_verifier.py` fuzzes every entrance.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attester.simulated import SimulatedTee
from tests.results import write_result
from tests.verifier.corpus import Case, cases
from verifier.abi.pck import parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.errors import RootUntrusted, VerificationError
from verifier.formats.dcap import verify_quote
from verifier.trust.certificate import parse_certificate
from verifier.trust.roots import INTEL_SGX_ROOT, trust_anchors
from verifier.trust.store import Collateral

pytestmark = [pytest.mark.every_tier, pytest.mark.timeout(7200)]
TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
BITS = {"test": 150, "soak": 10_000, "accept": None}[TIER]
"""Bits tried per case and part; None: every one."""

EXAMPLES = {"test": 1_000, "soak": 10_000, "accept": 50_000}[TIER]
SEED = 1
bounded = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow])

REAL = ("tdx_v4-dcapqvl-f1c85033-e17", "tdx_v5-gotdx-cf77a6e9-e18", "sgx_v3-dcapqvl-f8b81014-e17")
"""Carried cases, one for each version of quotes."""

TRIED: dict[str, int] = {}
SIMULATED = SimulatedTee.create()
SIMULATED_QUOTE = SIMULATED.mint(bytes(64))
ANCHORS = trust_anchors([SIMULATED.trust_root()], "tdx")


@dataclass(frozen=True)
class Real:
    """A case as bytes."""

    quote: bytes
    collateral: bytes
    at_ms: int


@functools.cache
def real(name: str) -> Real:
    case: Case = next(one for one in cases() if one.name == name)
    quote, collateral = case.path("quote"), case.path("collateral")
    assert quote is not None
    assert collateral is not None
    return Real(quote.read_bytes(), collateral.read_bytes(), case.at * 1000)


@functools.cache
def held(name: str) -> Collateral:
    return Collateral.from_json(real(name).collateral)


def survives(name: str, quote: bytes, collateral: Collateral) -> bool:
    """Whether the evidence verifies; any other exception than ours fails the test."""
    try:
        verify_quote(quote=quote, collateral=collateral, trust_roots=[INTEL_SGX_ROOT], now_ms=real(name).at_ms)
    except VerificationError:
        return False
    return True


def signed_offsets(quote: bytes) -> Iterator[int]:
    """Every byte of a quote that something vouches for: all up to the PEM text, and its base64."""
    position = quote.index(b"-----BEGIN")
    yield from range(position)
    inside = False
    for line in quote[position:].split(b"\n"):
        if line.startswith(b"-----"):
            inside = line.startswith(b"-----BEGIN")
        elif inside:
            yield from range(position, position + len(line))
        position += len(line) + 1


def bits_of(offsets: list[int]) -> list[tuple[int, int]]:
    """(offset, bit): all of them, or a sample."""
    bits = [(offset, bit) for offset in offsets for bit in range(8)]
    return bits if BITS is None or len(bits) <= BITS else random.Random(SEED).sample(bits, BITS)


def flipped(data: bytes, offset: int, bit: int) -> bytes:
    return data[:offset] + bytes([data[offset] ^ 1 << bit]) + data[offset + 1 :]


@pytest.mark.parametrize("name", REAL)
def test_the_unchanged_evidence_verifies(name: str) -> None:
    assert survives(name, real(name).quote, held(name))


@pytest.mark.parametrize("name", REAL)
def test_no_signed_byte_can_change(name: str) -> None:
    quote = real(name).quote
    bits = bits_of(list(signed_offsets(quote)))
    collateral = held(name)
    assert [at for at in bits if survives(name, flipped(quote, *at), collateral)] == []
    TRIED[f"{name} quote"] = len(bits)


def parts_of(members: dict[str, str]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    """(members it stands in, bytes) of everything in collateral that a signature covers, and of the signatures."""
    for key in ("tcb_info", "qe_identity"):
        yield (key,), members[key].encode()
        yield (f"{key}_signature",), bytes.fromhex(members[f"{key}_signature"])
    for key in ("pck_crl", "root_ca_crl"):
        yield (key,), bytes.fromhex(members[key])


@pytest.mark.parametrize("name", REAL)
def test_no_signed_byte_of_collateral_can_change(name: str) -> None:
    case, members = real(name), json.loads(real(name).collateral)
    survived, tried = [], 0
    for keys, data in parts_of(members):
        for at in bits_of(list(range(len(data)))):
            changed = flipped(data, *at)
            text = changed.decode("latin-1") if keys[0] in ("tcb_info", "qe_identity") else changed.hex()
            damaged = Collateral.from_json(json.dumps(members | dict.fromkeys(keys, text)))
            tried += 1
            if survives(name, case.quote, damaged):
                survived.append((keys, at))
    assert survived == []
    TRIED[f"{name} collateral"] = tried


@pytest.mark.parametrize("name", REAL)
def test_no_byte_of_the_signer_can_change(name: str) -> None:
    """The signer's certificate stands in two chains; one whole copy is enough, so both are damaged alike."""
    case, members = real(name), json.loads(real(name).collateral)
    chain = members["tcb_info_issuer_chain"]
    assert members["qe_identity_issuer_chain"] == chain
    end = chain.index("-----END")
    offsets = [at for at in range(chain.index("\n") + 1, end) if chain[at] != "\n"]
    bits = bits_of(offsets)
    for at in bits:
        damaged = flipped(chain.encode(), *at).decode("latin-1")
        both = members | {"tcb_info_issuer_chain": damaged, "qe_identity_issuer_chain": damaged}
        assert not survives(name, case.quote, Collateral.from_json(json.dumps(both))), at
    TRIED[f"{name} signer"] = len(bits)


def test_every_bit_was_counted() -> None:
    if len(TRIED) != 3 * len(REAL):
        pytest.skip("only some parts ran")
    write_result("signed-bits", {"bits": sum(TRIED.values()), "parts": TRIED, "survived": 0}, seeds={"sample": SEED})


@bounded
@given(st.data())
def test_splices_raise_only_our_error(data: st.DataObject) -> None:
    quote = data.draw(st.sampled_from([real(name).quote for name in REAL] + [SIMULATED_QUOTE]))
    start = data.draw(st.integers(0, len(quote)))
    stop = data.draw(st.integers(start, min(len(quote), start + 200)))
    spliced = quote[:start] + data.draw(st.binary(max_size=200)) + quote[stop:]
    with contextlib.suppress(VerificationError):
        verify_quote(quote=spliced, collateral=None, trust_roots=ANCHORS, now_ms=real(REAL[0]).at_ms)


@bounded
@given(st.binary(max_size=1500))
def test_random_bytes_raise_only_our_error(data: bytes) -> None:
    for parse in (parse_quote, split_chain, parse_certificate, parse_pck_extension):
        try:
            parse(data)
        except VerificationError:
            continue


def test_intel_root_alone_does_not_take_the_simulated_quote() -> None:
    with pytest.raises(RootUntrusted):
        verify_quote(collateral=None, quote=SIMULATED_QUOTE, trust_roots=[INTEL_SGX_ROOT], now_ms=real(REAL[0]).at_ms)
