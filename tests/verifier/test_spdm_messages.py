"""SPDM messages: what is written is read, what is read is written, and no length is believed."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from verifier.abi import spdm
from verifier.abi.spdm_algorithms import HASHES, SCHEMES
from verifier.abi.spdm_chain import encode_chain, parse_chain
from verifier.abi.spdm_fields import VERSIONS
from verifier.abi.spdm_signed import context_bytes
from verifier.errors import SpdmError, SpdmMalformed, SpdmMeasurements
from verifier.limits import MAX_SPDM_ALGORITHMS_BYTES

U8, U16, U32 = st.integers(0, 0xFF), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)
SLOTS = st.integers(0, 7)
VERSION = st.sampled_from(VERSIONS)
NONCES = st.binary(min_size=32, max_size=32)


def tables() -> st.SearchStrategy[tuple[spdm.AlgorithmTable, ...]]:
    table = st.builds(
        spdm.AlgorithmTable,
        U8,
        st.binary(max_size=4),
        st.lists(st.binary(min_size=4, max_size=4), max_size=2).map(tuple),
    )
    return st.lists(table, max_size=4).map(tuple)


def extended() -> st.SearchStrategy[tuple[bytes, ...]]:
    return st.lists(st.binary(min_size=4, max_size=4), max_size=3).map(tuple)


@st.composite
def suites(draw: Any, version: int) -> spdm.Suite:
    return spdm.Suite(
        version=version,
        base_hash=draw(st.sampled_from(list(HASHES.values()))),
        scheme=draw(st.sampled_from(list(SCHEMES.values()))),
        measurement_hash="sha256",
        measurement_hash_bytes=32,
        measurement_specification=1,
        multi_key=version >= 0x13 and draw(st.booleans()),
    )


@st.composite
def exchanges(draw: Any) -> tuple[Any, Any, spdm.Suite]:
    """A request, a response to it, and the suite they were made under."""
    version = draw(VERSION)
    suite = draw(suites(version))
    context, size = context_bytes(version), suite.hash_bytes
    kind = draw(st.integers(0, 6))
    request: Any
    response: Any
    sizes = {name: draw(U32) for name in ("data_transfer_size", "max_message_size")} if version >= 0x12 else {}
    old = {"flags": draw(U32), "ct_exponent": draw(U8), "extended_flags": draw(U16), **sizes}
    if kind == 0:
        request = spdm.GetVersion(param1=draw(U8), param2=draw(U8))
        response = spdm.Version(entries=tuple(draw(st.lists(U16, min_size=1, max_size=255))))
    elif kind == 1:
        request = spdm.GetCapabilities(version=version, **(old if version >= 0x11 else {}))
        response = spdm.Capabilities(version=version, param2=draw(U8), **old)
    elif kind == 2:
        request = spdm.NegotiateAlgorithms(
            version=version, measurement_specification=draw(U8), base_asym=draw(U32), base_hash=draw(U32),
            other_params=draw(U8), pqc_asym=draw(U32), reserved=draw(st.binary(min_size=8, max_size=8)),
            mel_specification=draw(U8), extended_asym=draw(extended()), extended_hash=draw(extended()),
            tables=draw(tables()), param2=draw(U8),
        )  # fmt: skip
        response = spdm.Algorithms(
            version=version, measurement_specification=draw(U8), measurement_hash=draw(U32), base_asym=draw(U32),
            base_hash=draw(U32), other_params=draw(U8), extended_asym=draw(extended()), tables=draw(tables()),
        )  # fmt: skip
    elif kind == 3:
        request = spdm.GetDigests(version=version)
        slots = draw(st.sets(SLOTS, min_size=1))
        many = len(slots) if suite.multi_key else 0
        response = spdm.Digests(
            version=version, digests={slot: draw(st.binary(min_size=size, max_size=size)) for slot in sorted(slots)},
            supported_slots=draw(U8), key_pairs=tuple(draw(U8) for _ in range(many)),
            certificate_infos=tuple(draw(U8) for _ in range(many)), key_usages=tuple(draw(U16) for _ in range(many)),
        )  # fmt: skip
    elif kind == 4:
        large = version >= 0x14 and draw(st.booleans())
        request = spdm.GetCertificate(
            version=version, slot=draw(SLOTS), offset=draw(U16), length=draw(U32 if large else U16), large=large
        )
        response = spdm.Certificate(
            version=version, slot=draw(SLOTS), portion=draw(st.binary(max_size=300)), remainder=draw(U16),
            attributes=draw(U8), large=large,
        )  # fmt: skip
    elif kind == 5:
        request = spdm.Challenge(
            version=version, slot=draw(SLOTS), nonce=draw(NONCES), summary=draw(st.sampled_from([0, 1, 0xFF])),
            context=draw(st.binary(min_size=context, max_size=context)),
        )  # fmt: skip
        response = spdm.ChallengeAuth(
            version=version, slot=draw(st.integers(0, 15)), slot_mask=draw(U8), chain_hash=bytes(size),
            nonce=draw(NONCES), summary_hash=bytes(size) if request.summary else b"",
            opaque=draw(st.binary(max_size=200)), context=draw(st.binary(min_size=context, max_size=context)),
            signature=bytes(suite.signature_bytes), attributes=draw(st.sampled_from([0, 0x80, 0xF0])),
        )  # fmt: skip
    else:
        signed = draw(st.booleans())
        request = spdm.GetMeasurements(
            version=version, operation=draw(U8), signed=signed, nonce=draw(NONCES) if signed else b"",
            slot=draw(SLOTS) if signed and version >= 0x11 else 0,
            context=draw(st.binary(min_size=context, max_size=context)), other_attributes=draw(st.sampled_from([0, 2])),
        )  # fmt: skip
        response = spdm.Measurements(
            version=version, count=draw(U8), record=draw(st.binary(max_size=300)), nonce=draw(NONCES),
            slot=draw(st.integers(0, 15)) if version >= 0x11 else 0, total=draw(U8),
            content_changed=draw(st.sampled_from([0, 0x10, 0x20])) if version >= 0x12 else 0,
            opaque=draw(st.binary(max_size=100)), context=draw(st.binary(min_size=context, max_size=context)),
            signature=bytes(suite.signature_bytes) if signed else b"",
        )  # fmt: skip
    return request, response, suite


def fits(message: Any) -> bool:
    """Messages of algorithms have a bound of their own."""
    kinds = (spdm.NegotiateAlgorithms, spdm.Algorithms)
    return not isinstance(message, kinds) or len(message.encode()) <= MAX_SPDM_ALGORITHMS_BYTES


@given(exchanges())
def test_what_is_written_is_read(exchange: tuple[Any, Any, spdm.Suite]) -> None:
    request, response, suite = exchange
    if not fits(request) or not fits(response):
        with pytest.raises(SpdmMalformed, match="at most"):
            type(request).read(request.encode()), type(response).read(response.encode())
        return
    assert spdm.parse_request(request.encode()) == (request, request.encode())
    assert spdm.parse_response(response.encode(), request, suite) == (response, response.encode())


@given(exchanges(), st.data())
def test_no_cut_is_read(exchange: tuple[Any, Any, spdm.Suite], data: st.DataObject) -> None:
    """Shorter is refused; longer too, but for the zeros of PCI DOE."""
    request, response, suite = exchange
    assume(fits(response))
    written = response.encode()
    cut = data.draw(st.integers(0, len(written) - 1))
    with pytest.raises(SpdmError):
        spdm.parse_response(written[:cut], request, suite)
    more = data.draw(st.binary(min_size=1, max_size=8))
    padding = len(more) < 4 and not any(more) and (len(written) + len(more)) % 4 == 0
    if padding:
        assert spdm.parse_response(written + more, request, suite)[1] == written
    else:
        with pytest.raises(SpdmError):
            spdm.parse_response(written + more, request, suite)


@given(VERSION, U8, U8, st.binary(max_size=32))
def test_errors_round_trip(version: int, code: int, data: int, extended_data: bytes) -> None:
    if code == 0x42:
        extended_data = extended_data[:4].ljust(4, b"\0")
    message = spdm.ErrorResponse(version=version, error=code, data=data, extended=extended_data)
    request = spdm.GetDigests(version=version)
    assert spdm.parse_response(message.encode(), request) == (message, message.encode())
    assert message.name


BLOCKS = st.builds(
    spdm.MeasurementBlock,
    index=st.integers(1, 254),
    type=st.integers(0x80, 0xFF),
    value=st.binary(max_size=200),
)


@given(st.lists(BLOCKS, max_size=8, unique_by=lambda block: block.index), suites(0x12))
def test_records_round_trip(blocks: list[spdm.MeasurementBlock], suite: spdm.Suite) -> None:
    record = b"".join(block.encode() for block in blocks)
    assert spdm.parse_record(record, len(blocks), suite) == tuple(blocks)
    for wrong in (len(blocks) + 1, len(blocks) - 1):
        if wrong >= 0 and (wrong or record):
            with pytest.raises(SpdmMeasurements):
                spdm.parse_record(record, wrong, suite)


@given(st.lists(st.binary(min_size=252, max_size=900), min_size=1, max_size=8), st.sampled_from(list(HASHES.values())))
def test_chains_round_trip(bodies: list[bytes], hash_name: str) -> None:
    certificates = tuple(b"\x30\x82" + len(body).to_bytes(2, "big") + body for body in bodies)
    raw = encode_chain(certificates, hash_name)
    chain = parse_chain(raw, hash_name)
    assert chain.certificates == certificates
    assert chain.root_hash == hashlib.new(hash_name, certificates[0]).digest()
    assert chain.digest(hash_name) == hashlib.new(hash_name, raw).digest()


def test_numbers_that_do_not_fit_are_the_writer_s_mistake() -> None:
    for message in (
        spdm.GetCertificate(version=0x12, slot=0, offset=0x10000),
        spdm.GetCertificate(version=0x14, slot=0, offset=1 << 32, large=True),
        spdm.GetCertificate(version=0x13, slot=0, large=True),
        spdm.Certificate(version=0x13, slot=0, portion=b"", remainder=0, large=True),
        spdm.Challenge(version=0x12, slot=0, nonce=bytes(31)),
        spdm.Challenge(version=0x12, slot=0, nonce=bytes(32), context=bytes(8)),
        spdm.GetMeasurements(version=0x13, operation=0),
        spdm.NegotiateAlgorithms(version=0x12, measurement_specification=1, base_asym=1, base_hash=1, reserved=b""),
    ):
        with pytest.raises(ValueError, match="bytes"):
            message.encode()  # type: ignore[attr-defined]


def test_the_caller_gives_what_a_response_needs() -> None:
    request = spdm.GetDigests(version=0x12)
    with pytest.raises(ValueError, match="suite"):
        spdm.parse_response(bytes.fromhex("12010001") + bytes(32), request)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (4, spdm.GetMeasurements(version=0x10, operation=0)),
        (36, spdm.GetMeasurements(version=0x10, operation=1, signed=True, nonce=bytes(32))),
        (37, spdm.GetMeasurements(version=0x12, operation=1, signed=True, nonce=bytes(32))),
        (12, spdm.GetMeasurements(version=0x13, operation=0, context=bytes(8))),
        (45, spdm.GetMeasurements(version=0x14, operation=1, signed=True, nonce=bytes(32), context=bytes(8))),
        (36, spdm.Challenge(version=0x12, slot=0, nonce=bytes(32))),
        (44, spdm.Challenge(version=0x13, slot=0, nonce=bytes(32), context=bytes(8))),
        (4, spdm.GetCapabilities(version=0x10)),
        (12, spdm.GetCapabilities(version=0x11)),
        (20, spdm.GetCapabilities(version=0x12)),
        (12, spdm.Capabilities(version=0x11)),
        (20, spdm.Capabilities(version=0x14)),
        (8, spdm.GetCertificate(version=0x14, slot=0)),
        (16, spdm.GetCertificate(version=0x14, slot=0, large=True)),
        (8, spdm.Certificate(version=0x14, slot=0, portion=b"", remainder=0)),
        (16, spdm.Certificate(version=0x14, slot=0, portion=b"", remainder=0, large=True)),
    ],
)
def test_sizes_are_the_specification_s(size: int, message: Any) -> None:
    assert len(message.encode()) == size


def test_the_large_form_is_libspdm_s() -> None:
    """As libspdm's requester and responder write it: 16-bit numbers 0, 32-bit ones behind them."""
    request = bytes.fromhex("14828400 00000000 00010000 f07f0200")
    asked = spdm.GetCertificate(version=0x14, slot=4, offset=0x100, length=0x27FF0, large=True)
    assert spdm.parse_request(request) == (asked, request)
    response = bytes.fromhex("14028401 00000000 04000000 78060000 01020304")
    portion = spdm.Certificate(version=0x14, slot=4, portion=b"\1\2\3\4", remainder=0x678, attributes=1, large=True)
    assert spdm.parse_response(response, asked) == (portion, response)


def test_a_message_is_bounded() -> None:
    with pytest.raises(SpdmMalformed):
        spdm.parse_request(bytes.fromhex("12810000") + bytes(100_000))
