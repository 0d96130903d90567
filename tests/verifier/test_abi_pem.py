"""PEM chains: one text per chain as far as the certificates go, and nothing beside them."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.verifier.vectors import CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5, SHARED, manifest
from verifier.abi import der
from verifier.abi.pem import join_chain, split_chain
from verifier.abi.quote import parse_quote
from verifier.errors import CertChainInvalid, VerificationError
from verifier.limits import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATION_BYTES

REAL = [
    parse_quote(case.quote).signature.certification.pck_chain for case in (*CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5)
]
BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
chains = st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=3).map(tuple)


def block(body: bytes, begin: bytes = BEGIN + b"\n", end: bytes = b"\n" + END + b"\n") -> bytes:
    return begin + body + end


@given(chains)
def test_round_trip(certificates: tuple[bytes, ...]) -> None:
    assert split_chain(join_chain(certificates)) == certificates


@pytest.mark.parametrize("text", REAL)
def test_real_chains(text: bytes) -> None:
    certificates = split_chain(text)
    assert len(certificates) == 3
    assert split_chain(join_chain(certificates)) == certificates
    expected = [base64.b64decode(part.partition(BEGIN)[2]) for part in text.split(END)[:3]]
    assert list(certificates) == expected


@pytest.mark.parametrize(
    "text",
    [
        block(b"YWJj"),
        block(b"YWJj") + b"\x00",
        block(b"YWJj") + b"\x00" * 5,
        block(b"YWJj", end=END),
        block(b"YWJj", end=b"\r\n" + END + b"\r\n"),
        block(b"YWJj", begin=BEGIN + b" \t\r\n"),
        block(b"YW\nJj"),
        block(b"YW\r\nJj\r\n"),
        block(b"\nYWJj\n\n"),
        b" \t\r\n" + block(b"YWJj") + b"\n \n",
    ],
)
def test_layouts_that_writers_use(text: bytes) -> None:
    assert split_chain(text) == (b"abc",)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\x00",
        b" \n",
        b"YWJj",
        block(b""),
        block(b"\n"),
        block(b"YWJj") + b"\x00\x00\n",
        b"\x00" + block(b"YWJj"),
        block(b"YWJj") + b"\x00" + block(b"YWJj"),
        b"x" + block(b"YWJj"),
        block(b"YWJj") + b"x",
        block(b"YWJj") + b"x" + block(b"YWJj"),
        block(b"YWJj") + BEGIN,
        block(b"YWJj") + END,
        END + block(b"YWJj"),
        BEGIN + b"\nYWJj",
        BEGIN + BEGIN + b"\nYWJj\n" + END,
        BEGIN + b"\n" + BEGIN + b"\nYWJj\n" + END,
        BEGIN + END,
        BEGIN + b"YWJj\n" + END,
        BEGIN + b"YWJj" + END,
        block(b"YWJj", begin=BEGIN + b"\r\r\n"),
        block(b"YWJj", begin=BEGIN + b"\x0b\n"),
        block(b"YWJj", begin=b"-----BEGIN CERTIFICATE----\n"),
        block(b"YWJj", begin=b"-----BEGIN X509 CERTIFICATE-----\n"),
        block(b"YWJ"),
        block(b"YWJjZ"),
        block(b"YWI"),
        block(b"YWI="[:3] + b"\n"),
        block(b"YWJ="),
        block(b"YR=="),
        block(b"YQ=\n"),
        block(b"YQ==YQ=="),
        block(b"=YWJj"),
        block(b"YWJj="),
        block(b"YW Jj"),
        block(b"YW\tJj"),
        block(b"YW-Jj"),
        block(b"YW_jYWJj"),
        block(b"YWJj\x00"),
        block(b"YWJj") * 4,
        block(b"YWJj") * 9,
        block(base64.b64encode(bytes(MAX_CERTIFICATE_BYTES + 1))),
        block(b"YWJj").ljust(MAX_CERTIFICATION_BYTES + 1, b"\n"),
    ],
)
def test_refused(text: bytes) -> None:
    with pytest.raises(CertChainInvalid) as caught:
        split_chain(text)
    assert caught.value.field == "certification_data"


@pytest.mark.parametrize("text", REAL)
def test_der_in_a_row_as_in_intels_sample(text: bytes) -> None:
    certificates = split_chain(text)
    assert split_chain(b"".join(certificates)) == certificates
    assert split_chain(certificates[0]) == certificates[:1]


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-1],
        lambda data: data + b"\x00",
        lambda data: data + b"\n",
        lambda data: data + data,
        lambda data: data + b"\x31\x00",
        lambda data: b"\x30\x80" + data[4:] + b"\x00\x00",
        lambda data: der.octets(bytes(MAX_CERTIFICATE_BYTES)).encode().replace(b"\x04", b"\x30", 1),
        lambda data: b"\x30\x00" * 4,
        lambda data: data + block(b"YWJj"),
    ],
)
def test_der_in_a_row_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(CertChainInvalid) as caught:
        split_chain(change(b"".join(split_chain(REAL[0]))))
    assert caught.value.field == "certification_data"


def test_the_longest_certificate_and_text() -> None:
    longest = bytes(MAX_CERTIFICATE_BYTES)
    assert split_chain(join_chain((longest,))) == (longest,)
    assert split_chain(block(b"YWJj").ljust(MAX_CERTIFICATION_BYTES, b"\n")) == (b"abc",)


@given(st.sampled_from(REAL), st.data())
def test_another_text_is_refused_or_differs_in_white_space_only(text: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.binary(max_size=2)) + text[at + 1 :]
    try:
        certificates = split_chain(changed)
    except VerificationError:
        return
    same = changed.rstrip(b"\x00").translate(None, b" \t\r\n\x0b\x0c") == join_chain(certificates).rstrip(
        b"\x00"
    ).translate(None, b" \t\r\n\x0b\x0c")
    assert same


@given(st.binary(max_size=400))
def test_any_bytes_raise_only_our_error(junk: bytes) -> None:
    for text in (junk, BEGIN + b"\n" + junk + END, block(base64.b64encode(junk)) + junk):
        try:
            split_chain(text)
        except CertChainInvalid:
            continue


@pytest.mark.skipif(not manifest(), reason="the shared corpus is not mounted")
def test_every_chain_of_the_shared_corpus() -> None:
    cases = [case for case in manifest() if case["evidence_type"][:4] in ("sgx_", "tdx_")]
    texts = set()
    for case in cases:
        if case["origin"] == "collected" and case["cert_data_type"] == 5:
            quote = parse_quote((SHARED / case["files"]["quote"]).read_bytes())
            texts.add(quote.signature.certification.pck_chain)
    for text in texts:
        assert len(split_chain(text)) == 3
