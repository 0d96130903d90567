"""Intel's extension of a PCK certificate: as Intel writes it, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attester.simulated import platform
from tests.verifier.vectors import CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5
from verifier.abi import der, pck
from verifier.abi.der import Der
from verifier.abi.pck import PckExtension, parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.errors import PckExtensionInvalid
from verifier.trust.certificate import parse_certificate

EXTENSION = platform(bytes(range(1, 17)))
ENCODED = EXTENSION.encode()
ARC = bytes.fromhex("2a864886f84d010d01")
Pairs = list[Der]


def sized(size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size)


flags = st.sampled_from([True, False, None])
extensions = st.builds(
    PckExtension,
    ppid=sized(16),
    component_svns=st.tuples(*[st.integers(0, 255)] * 16),
    pce_svn=st.integers(0, 0xFFFF),
    cpu_svn=sized(16),
    pce_id=sized(2),
    fmspc=sized(6),
    sgx_type=st.integers(0, 2),
    platform_instance_id=st.none() | sized(16),
    configuration=st.none() | st.tuples(flags, flags, flags),
)


@given(extensions)
def test_round_trip(extension: PckExtension) -> None:
    assert parse_pck_extension(extension.encode()) == extension


@pytest.mark.parametrize("case", [*CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5], ids=lambda case: case.file)
def test_real_extensions_round_trip(case: Any) -> None:
    chain = [parse_certificate(data) for data in split_chain(parse_quote(case.quote).signature.certification.pck_chain)]
    found = [one.pck_extension for one in chain if one.pck_extension is not None]
    assert len(found) == 1
    extension = parse_pck_extension(found[0])
    assert extension.fmspc.hex() == case.fmspc
    assert extension.encode() == found[0]


def pair(number: int, value: Der, arc: bytes = ARC) -> Der:
    return der.sequence(Der(der.OBJECT_ID, arc + bytes([number])), value)


def edited(change: Callable[[Pairs], object], field: int | None = None) -> bytes:
    """The extension with the pairs of its sequence, or of the sequence in its `field`, changed in place."""
    pairs = list(der.read_sequence(der.read_all(ENCODED, "e"), "e"))
    if field is None:
        change(pairs)
        return der.sequence(*pairs).encode()
    oid, value = der.read_sequence(pairs[field - 1], "pair")
    inner = list(der.read_sequence(value, "inner"))
    change(inner)
    pairs[field - 1] = der.sequence(oid, der.sequence(*inner))
    return der.sequence(*pairs).encode()


def put(index: int, value: Der) -> Callable[[Pairs], object]:
    return lambda pairs: pairs.__setitem__(index, value)


TCB, CONFIGURATION = 2, 7
LARGE = ARC + b"\x02"
REFUSED: list[tuple[str, bytes]] = [
    ("empty", b""),
    ("trailing byte", ENCODED + b"\x00"),
    ("truncated", ENCODED[:-1]),
    ("a set", b"\x31" + ENCODED[1:]),
    ("indefinite length", b"\x30\x80" + ENCODED[4:] + b"\x00\x00"),
    *((f"without field {n}", edited(lambda pairs, n=n: pairs.pop(n - 1))) for n in range(1, 6)),
    *((f"field {n} twice", edited(lambda pairs, n=n: pairs.append(pairs[n - 1]))) for n in range(1, 8)),
    *((f"without TCB {n}", edited(lambda pairs, n=n: pairs.pop(n - 1), TCB)) for n in range(1, 19)),
    ("TCB field twice", edited(lambda pairs: pairs.append(pairs[0]), TCB)),
    ("flag twice", edited(lambda pairs: pairs.append(pairs[0]), CONFIGURATION)),
    ("PPID of 15 bytes", edited(put(0, pair(1, der.octets(bytes(15)))))),
    ("PPID of 17 bytes", edited(put(0, pair(1, der.octets(bytes(17)))))),
    ("PPID a number", edited(put(0, pair(1, der.unsigned(1))))),
    ("TCB no sequence", edited(put(1, pair(2, der.octets(b""))))),
    ("TCB empty", edited(put(1, pair(2, der.sequence())))),
    ("PCEID of 3 bytes", edited(put(2, pair(3, der.octets(bytes(3)))))),
    ("FMSPC of 5 bytes", edited(put(3, pair(4, der.octets(bytes(5)))))),
    ("SGX type an INTEGER", edited(put(4, pair(5, der.unsigned(1))))),
    ("SGX type 3", edited(put(4, pair(5, der.unsigned(3, der.ENUMERATED))))),
    ("instance id of 15 bytes", edited(put(5, pair(6, der.octets(bytes(15)))))),
    ("configuration no sequence", edited(put(6, pair(7, der.octets(b""))))),
    ("flag a number", edited(put(0, pair(1, der.unsigned(1), ARC + b"\x07")), CONFIGURATION)),
    ("flag 01", edited(put(0, pair(1, Der(der.BOOLEAN, b"\x01"), ARC + b"\x07")), CONFIGURATION)),
    ("SVN 256", edited(put(0, pair(1, der.unsigned(256), LARGE)), TCB)),
    ("SVN -1", edited(put(0, pair(1, Der(der.INTEGER, b"\xff"), LARGE)), TCB)),
    ("SVN not minimal", edited(put(0, pair(1, Der(der.INTEGER, b"\x00\x01"), LARGE)), TCB)),
    ("SVN empty", edited(put(0, pair(1, Der(der.INTEGER, b""), LARGE)), TCB)),
    ("SVN an octet", edited(put(0, pair(1, der.octets(b"\x01"), LARGE)), TCB)),
    ("PCESVN 65536", edited(put(16, pair(17, der.unsigned(65536), LARGE)), TCB)),
    ("CPUSVN of 15 bytes", edited(put(17, pair(18, der.octets(bytes(15)), LARGE)), TCB)),
    ("OID from elsewhere", edited(lambda pairs: pairs.append(pair(8, der.unsigned(1), ARC[:-1] + b"\x02")))),
    ("OID too long", edited(lambda pairs: pairs.append(pair(8, der.unsigned(1), ARC + b"\x08")))),
    ("OID too short", edited(lambda pairs: pairs.append(pair(8, der.unsigned(1), ARC[:-1])))),
    ("OID of two octets", edited(lambda pairs: pairs.append(pair(0x81, der.unsigned(1))))),
    ("TCB's OID outside it", edited(lambda pairs: pairs.append(pair(1, der.unsigned(1), LARGE)))),
    ("pair without a value", edited(lambda pairs: pairs.append(der.sequence(Der(der.OBJECT_ID, ARC + b"\x08"))))),
    (
        "pair of three",
        edited(
            lambda pairs: pairs.append(
                der.sequence(Der(der.OBJECT_ID, ARC + b"\x08"), der.unsigned(1), der.unsigned(1))
            )
        ),
    ),
    ("pair a set", edited(lambda pairs: pairs.append(Der(der.SET, pairs[0].content)))),
    ("too many fields", edited(lambda pairs: pairs.extend(pair(n, der.unsigned(1)) for n in range(8, 80)))),
]


@pytest.mark.parametrize("data", [one[1] for one in REFUSED], ids=[one[0] for one in REFUSED])
def test_refused(data: bytes) -> None:
    with pytest.raises(PckExtensionInvalid) as caught:
        parse_pck_extension(data)
    assert caught.value.field == "pck_extension"


def test_order_does_not_matter_and_unknown_fields_are_passed_over() -> None:
    assert parse_pck_extension(edited(lambda pairs: pairs.reverse())) == EXTENSION
    assert parse_pck_extension(edited(lambda pairs: pairs.reverse(), TCB)) == EXTENSION
    unknown = pair(99, der.octets(bytes(300)))
    assert parse_pck_extension(edited(lambda pairs: pairs.insert(0, unknown))) == EXTENSION


def test_flags_may_be_absent() -> None:
    assert EXTENSION.configuration is not None
    two = replace(EXTENSION, configuration=(*EXTENSION.configuration[:2], None))
    assert parse_pck_extension(edited(lambda pairs: pairs.pop(), CONFIGURATION)) == two


def test_every_truncation() -> None:
    for size in range(len(ENCODED)):
        with pytest.raises(PckExtensionInvalid):
            parse_pck_extension(ENCODED[:size])


@given(st.integers(0, len(ENCODED) - 1), st.binary(max_size=3))
def test_any_bytes_raise_only_our_error(at: int, junk: bytes) -> None:
    for data in (junk, ENCODED[:at] + junk + ENCODED[at + 1 :]):
        try:
            found = parse_pck_extension(data)
        except PckExtensionInvalid:
            continue
        assert parse_pck_extension(found.encode()) == found


@given(extensions)
def test_the_usual_form_is_read_as_field_by_field(extension: PckExtension) -> None:
    small = replace(
        extension,
        component_svns=tuple(one & 0x7F for one in extension.component_svns),
        pce_svn=extension.pce_svn & 0x7F,
    )
    assert pck._USUAL_TCB.search(small.encode())
    for one in (small, extension):
        assert parse_pck_extension(one.encode()) == one
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pck, "_USUAL_TCB", re.compile(b"(?!)"))
            assert parse_pck_extension(one.encode()) == one
