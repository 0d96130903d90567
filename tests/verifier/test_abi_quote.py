"""Quotes of every version: read to the byte, written back to the byte, refused where Intel's library refuses."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.forge.dcap.quotes import BODIES, HEADER_BYTES, SGX, TDX, Header, Section, encode, offset_of, size_of
from tests.forge.mint import edit
from tests.verifier.vectors import CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5, SHARED, manifest
from verifier.abi.quote import BODY_BYTES, Quote, parse_quote
from verifier.abi.sgx import SgxReport
from verifier.abi.tdx import TdReport
from verifier.errors import (
    CertificationUnsupported,
    QuoteMalformed,
    QuoteVersionUnsupported,
    TeeTypeUnsupported,
    VerificationError,
)
from verifier.limits import MAX_CERTIFICATION_BYTES, MAX_QUOTE_BYTES

LAYOUTS = [(3, SGX, None), (4, SGX, None), (4, TDX, None), (5, SGX, 1), (5, TDX, 2), (5, TDX, 3), (5, TDX, 4)]
"""(version, TEE type, body type of the descriptor) of all quotes there are."""

REAL = [*CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5]
MALFORMED = {"quote does not parse", "quote:STATUS_UNSUPPORTED_QUOTE_FORMAT"}
"""The corpus' reasons for quotes that Intel's library does not parse."""

NOT_THE_LAYOUT = {"vendor-zero", "synth-sgx3-vendor", "synth-sgx3-chain-short"}
"""Of these, the ones whose layout is sound: the vendor, the chain's text."""


def body_layout(tee: int, body_type: int | None) -> tuple[tuple[str, int], ...]:
    return BODIES[body_type if body_type is not None else 1 if tee == SGX else 2]


def header(version: int, tee: int, body_type: int | None) -> Header:
    return Header(version=version, tee_type=tee, body_type=body_type)


def section(**changes: Any) -> Section:
    base = Section(
        quote_signature=b"\x01" * 64,
        attestation_key=b"\x02" * 64,
        qe_report=b"\x03" * 384,
        qe_report_signature=b"\x04" * 64,
        auth_data=bytes(32),
        kind=5,
        data=b"a chain",
    )
    return replace(base, **changes)


def quote_bytes(head: Header, body: bytes, signature: Section, size: int | None = None) -> bytes:
    encoded = signature.encode(head.version)
    length = len(encoded) if size is None else size
    return head.encode(body) + body + length.to_bytes(4, "little") + encoded


def sample(version: int, tee: int, body_type: int | None, **changes: Any) -> bytes:
    body = bytes(i % 251 for i in range(size_of(body_layout(tee, body_type))))
    return quote_bytes(header(version, tee, body_type), body, section(**changes))


def parsed_fields(quote: Quote) -> dict[str, bytes]:
    body = quote.body
    if isinstance(body, TdReport):
        return {name: value for name in TdReport.__slots__ if (value := getattr(body, name)) is not None}
    return {
        "cpusvn": body.cpusvn,
        "miscselect": body.miscselect,
        "attributes": body.flags + body.xfrm,
        "mrenclave": body.mrenclave,
        "mrsigner": body.mrsigner,
        "isvprodid": body.isv_prod_id.to_bytes(2, "little"),
        "isvsvn": body.isv_svn.to_bytes(2, "little"),
        "report_data": body.report_data,
    }


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@given(data=st.data())
def test_every_version_is_read_and_written_back(layout: tuple[int, int, int | None], data: st.DataObject) -> None:
    version, tee, body_type = layout
    fields = {name: data.draw(st.binary(min_size=n, max_size=n), name) for name, n in body_layout(tee, body_type)}
    raw64, raw384 = st.binary(min_size=64, max_size=64), st.binary(min_size=384, max_size=384)
    made = Section(
        quote_signature=data.draw(raw64),
        attestation_key=data.draw(raw64),
        qe_report=data.draw(raw384),
        qe_report_signature=data.draw(raw64),
        auth_data=data.draw(st.binary(max_size=300)),
        kind=data.draw(st.integers(1, 5)),
        data=data.draw(st.binary(max_size=500)),
    )
    head = replace(
        header(version, tee, body_type),
        key_type=data.draw(st.integers(0, 0xFFFF)),
        reserved=data.draw(st.binary(min_size=4, max_size=4)),
        vendor=data.draw(st.binary(min_size=16, max_size=16)),
        user_data=data.draw(st.binary(min_size=20, max_size=20)),
    )
    body = encode(body_layout(tee, body_type), fields)
    padding = data.draw(st.integers(0, 50))
    written = quote_bytes(head, body, made) + bytes(padding)
    quote = parse_quote(written)
    assert quote.encode() == written
    assert quote.tee == ("sgx" if tee == SGX else "tdx")
    assert (quote.body_type, quote.padding) == (body_type, padding)
    assert quote.signed_bytes == head.encode(body) + body
    assert quote.body.encode() == body
    assert parsed_fields(quote).items() <= fields.items()
    assert (quote.header.key_type, quote.header.qe_vendor_id) == (head.key_type, head.vendor)
    assert (quote.header.reserved, quote.header.user_data) == (head.reserved, head.user_data)
    found = quote.signature
    assert (found.quote_signature, found.attestation_key) == (made.quote_signature, made.attestation_key)
    assert (found.qe_report.raw, found.qe_report_signature) == (made.qe_report, made.qe_report_signature)
    assert (found.auth_data, found.certification.kind, found.certification.data) == (
        made.auth_data, made.kind, made.data
    )  # fmt: skip
    again = Quote.of(
        header=quote.header, body=quote.body, signature=quote.signature, body_type=body_type, padding=padding
    )
    assert again == quote


@pytest.mark.parametrize("body_type", BODIES)
def test_our_sizes_are_the_tables(body_type: int) -> None:
    assert BODY_BYTES[body_type] == size_of(BODIES[body_type])


def test_fields_of_a_later_report_are_absent_from_an_earlier_one() -> None:
    bodies = [parse_quote(sample(5, TDX, body_type)).body for body_type in (2, 3, 4)]
    have = [[name for name in TdReport.__slots__ if getattr(body, name) is not None] for body in bodies]
    assert [len(names) for names in have] == [15, 17, 27]
    registers = [set(body.registers()) for body in bodies]
    assert registers[1] - registers[0] == {"mrservicetd"}
    assert registers[1] == registers[2]


def test_registers_of_an_enclave() -> None:
    report = parse_quote(CARRIED_SGX_V3.quote).body
    assert isinstance(report, SgxReport)
    numbers = {"isvprodid": report.isv_prod_id.to_bytes(2, "little"), "isvsvn": report.isv_svn.to_bytes(2, "little")}
    assert report.registers() == {"mrenclave": report.mrenclave, "mrsigner": report.mrsigner, **numbers}
    assert report.debug == bool(report.flags[0] & 2)


@pytest.mark.parametrize("case", REAL, ids=lambda case: case.file)
@pytest.mark.parametrize("padding", [0, 1, 3064])
def test_carried_quotes_round_trip(case: Any, padding: int) -> None:
    quote = parse_quote(case.quote + bytes(padding))
    assert quote.encode() == case.quote + bytes(padding)
    assert quote.padding == padding
    assert quote.signature.certification.pck_chain.startswith(b"-----BEGIN CERTIFICATE-----")


@pytest.mark.parametrize("case", REAL, ids=lambda case: case.file)
def test_every_truncation_of_a_real_quote_is_malformed(case: Any) -> None:
    quote = case.quote
    for size in range(len(quote)):
        with pytest.raises(QuoteMalformed) as caught:
            parse_quote(quote[:size])
        assert caught.value.field


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_truncation_of_every_layout_is_malformed(layout: tuple[int, int, int | None]) -> None:
    quote = sample(*layout)
    for size in range(len(quote)):
        with pytest.raises(QuoteMalformed):
            parse_quote(quote[:size])


def changed(layout: tuple[int, int, int | None], **changes: Any) -> bytes:
    _, tee, body_type = layout
    body = bytes(size_of(body_layout(tee, body_type)))
    return quote_bytes(replace(header(*layout), **changes), body, section())


REFUSED: list[tuple[str, bytes, type[VerificationError], str]] = [
    ("version 2", changed((3, SGX, None), version=2), QuoteVersionUnsupported, "version"),
    ("version 6", changed((5, TDX, 3), version=6), QuoteVersionUnsupported, "version"),
    ("v3 of TDX", changed((3, SGX, None), tee_type=TDX), TeeTypeUnsupported, "tee_type"),
    ("v3 with a reserved byte", changed((3, SGX, None), tee_type=1 << 24), TeeTypeUnsupported, "tee_type"),
    ("v4 of an unknown TEE", changed((4, TDX, None), tee_type=0x82), TeeTypeUnsupported, "tee_type"),
    ("v5 of an unknown TEE", changed((5, TDX, 3), tee_type=1), TeeTypeUnsupported, "tee_type"),
    ("body of type 0", changed((5, TDX, 3), body_type=0), QuoteVersionUnsupported, "body_type"),
    ("body of type 5", changed((5, TDX, 3), body_type=5), QuoteVersionUnsupported, "body_type"),
    ("SGX body in a TD's quote", changed((5, TDX, 1)), QuoteMalformed, "body_type"),
    *(
        (f"TD body {kind} in an enclave's quote", changed((5, SGX, kind)), QuoteMalformed, "body_type")
        for kind in (2, 3, 4)
    ),
    *(
        (f"body {kind} of {size} bytes", changed((5, SGX if kind == 1 else TDX, kind), size=size), QuoteMalformed,
         "body_size")
        for kind, own in BODY_BYTES.items() for size in {0, *BODY_BYTES.values(), 0xFFFFFFFF} - {own}
    ),
    *(
        (f"v{version}, outer type {kind}", sample(version, TDX, body_type, outer_kind=kind), QuoteMalformed,
         "outer_certification_type")
        for version, body_type in ((4, None), (5, 3)) for kind in (0, 1, 5, 7, 0x0600)
    ),
    *(
        (f"v{version}, inner type {kind}", sample(version, tee, body_type, kind=kind), QuoteMalformed,
         "certification_type")
        for version, tee, body_type in ((3, SGX, None), (4, TDX, None), (5, TDX, 3)) for kind in (0, 6, 7, 0x0105)
    ),
    *(
        (f"v{version}, bytes behind the certification data", sample(version, tee, body_type, tail=b"\x00"),
         QuoteMalformed, f"{field}certification")
        for version, tee, body_type, field in ((3, SGX, None, ""), (4, TDX, None, "outer_"), (5, TDX, 3, "outer_"))
    ),
    *(
        (f"v{version} without a section", changed((version, tee, body_type))[: -len(section().encode(version)) - 4]
         + bytes(100), QuoteMalformed, "quote_signature")
        for version, tee, body_type in LAYOUTS
    ),
    ("one byte behind", sample(4, TDX, None) + b"\x01", QuoteMalformed, "padding"),
    ("one byte behind zeros", sample(3, SGX, None) + bytes(1000) + b"\x01", QuoteMalformed, "padding"),
    ("one byte before zeros", sample(5, TDX, 3) + b"\x80" + bytes(1000), QuoteMalformed, "padding"),
    ("too long", sample(4, TDX, None).ljust(MAX_QUOTE_BYTES + 1, b"\x00"), QuoteMalformed, "quote"),
    ("shorter than a header", bytes(HEADER_BYTES - 1), QuoteMalformed, "quote"),
    ("certification data too long", sample(4, TDX, None, data=bytes(MAX_CERTIFICATION_BYTES + 1)), QuoteMalformed,
     "certification_size"),
]  # fmt: skip


@pytest.mark.parametrize(("quote", "error", "field"), [one[1:] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_refused(quote: bytes, error: type[VerificationError], field: str) -> None:
    with pytest.raises(error) as caught:
        parse_quote(quote)
    assert type(caught.value) is error
    assert caught.value.field == field


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("wrong", [-1, 1, 1 << 30, "all"])
@pytest.mark.parametrize("length", ["signature", "auth_size", "data_size", "outer_size"])
def test_a_wrong_length_is_malformed_and_allocates_nothing(
    layout: tuple[int, int, int | None], wrong: int | str, length: str
) -> None:
    version, tee, body_type = layout
    made, body = section(), bytes(size_of(body_layout(tee, body_type)))
    inner = 384 + 64 + 2 + len(made.auth_data) + 6 + len(made.data)
    right = {
        "signature": len(made.encode(version)), "auth_size": 32, "data_size": len(made.data), "outer_size": inner
    }  # fmt: skip
    maximum = 0xFFFF if length == "auth_size" else 0xFFFFFFFF
    value = maximum if wrong == "all" else min(maximum, right[length] + int(wrong))
    head = header(version, tee, body_type)
    if length == "signature":
        quote = quote_bytes(head, body, made, value)
    else:
        quote = quote_bytes(head, body, replace(made, **{length: value}))
    if length == "outer_size" and version == 3:
        parse_quote(quote)  # v3 has no outer certification data
        return
    tracemalloc.start()
    try:
        with pytest.raises(QuoteMalformed) as caught:
            parse_quote(quote)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert caught.value.field


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("size", [0, 1, 31, 33, 100, 1024, 20_000])
def test_authentication_data_has_any_length(layout: tuple[int, int, int | None], size: int) -> None:
    quote = sample(*layout, auth_data=bytes(size))
    assert parse_quote(quote).encode() == quote
    assert len(parse_quote(quote).signature.auth_data) == size


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("kind", "size"), [(1, 34), (1, 0), (2, 276), (3, 404), (4, 1800), (5, 0), (5, 16_384)])
def test_certification_data_of_every_kind(layout: tuple[int, int, int | None], kind: int, size: int) -> None:
    quote = parse_quote(sample(*layout, kind=kind, data=bytes(size)))
    assert quote.encode() == sample(*layout, kind=kind, data=bytes(size))
    if kind == 5:
        assert quote.signature.certification.pck_chain == bytes(size)
        return
    with pytest.raises(CertificationUnsupported):
        _ = quote.signature.certification.pck_chain


def test_zeros_fill_a_quote_up_to_the_limit() -> None:
    quote = sample(5, TDX, 4)
    filled = quote.ljust(MAX_QUOTE_BYTES, b"\x00")
    assert parse_quote(filled).padding == MAX_QUOTE_BYTES - len(quote)


def outcome(quote: bytes) -> str:
    """Whether it parses, and then to exactly what came in; only our own errors, with their field, refuse."""
    try:
        return "accepted" if parse_quote(quote).encode() == quote else "altered"
    except VerificationError as error:
        return "refused" if error.field else "refused without a field"


@given(st.binary(max_size=1500), st.sampled_from(LAYOUTS), st.integers(0, 1500))
def test_any_bytes_raise_only_our_error(junk: bytes, layout: tuple[int, int, int | None], at: int) -> None:
    for quote in (junk, edit(at, junk[:200])(sample(*layout))):
        assert outcome(quote) in ("accepted", "refused")


def test_what_is_signed_is_what_came_in() -> None:
    quote = CARRIED_TDX_V5.quote
    assert parse_quote(quote).signed_bytes == quote[: 48 + 6 + 648]
    assert offset_of(BODIES[3], "mrservicetd") == 600


SHARED_CASES = [case for case in manifest() if case["evidence_type"][:4] in ("sgx_", "tdx_")]


@pytest.mark.skipif(not SHARED_CASES, reason="the shared corpus is not mounted")
def test_the_shared_corpus_parses_where_intels_library_does() -> None:
    for case in SHARED_CASES:
        data = (SHARED / case["files"]["quote"]).read_bytes()
        sound = case["expected"].get("reason") not in MALFORMED or any(name in case["id"] for name in NOT_THE_LAYOUT)
        if case["expected"].get("reason", "").startswith("quote does not parse /"):
            sound = True
        assert outcome(data) == ("accepted" if sound else "refused"), case["id"]
        if not sound:
            continue
        quote = parse_quote(data)
        assert quote.tee == case["evidence_type"][:3]
        assert quote.header.version == int(case["evidence_type"][-1])
        assert quote.body.report_data.hex() == case.get("report_data", quote.body.report_data.hex())
        assert quote.signature.certification.kind == case.get("cert_data_type", 5)
