"""Certificates: the same facts as `cryptography` reads, from stricter bytes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from attester import pki
from tests.verifier.vectors import CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5
from verifier.abi import der
from verifier.abi.der import Der
from verifier.abi.pck import PCK_EXTENSION_OID
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.errors import CertChainInvalid
from verifier.limits import MAX_CERTIFICATE_BYTES
from verifier.trust.certificate import Certificate, _Remembered, parse_certificate

REAL = sorted(
    {
        data
        for case in (*CARRIED, CARRIED_SGX_V3, CARRIED_TDX_V5)
        for data in split_chain(parse_quote(case.quote).signature.certification.pck_chain)
    }
)
RSA = rsa.generate_private_key(65537, 2048)
NONE = object()
"""No digest: what Ed25519 signs with."""

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])


def build(
    *,
    name: x509.Name = NAME,
    key: Any = KEY,
    extensions: Any = (),
    digest: Any = None,
    signer: Any = KEY,
    rsa_padding: Any = None,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(NAME)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2060, 1, 1, tzinfo=UTC))
    )
    for value, critical in extensions:
        builder = builder.add_extension(value, critical)
    chosen = None if digest is NONE else digest or SHA256()
    return builder.sign(signer, chosen, rsa_padding=rsa_padding).public_bytes(Encoding.DER)


def rewritten(change: Any, data: bytes | None = None) -> bytes:
    """A certificate whose parts (version, serial, algorithm, ...) `change` edits in place; nobody signs it anew."""
    tbs, algorithm, signature = der.read_sequence(der.read_all(data or build(), "c"), "c")
    parts = [list(der.read_sequence(tbs, "tbs")), algorithm, signature]
    change(parts)
    return der.sequence(der.sequence(*parts[0]), *parts[1:]).encode()


def named(*attributes: tuple[Any, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in attributes])


@pytest.mark.parametrize("data", REAL, ids=lambda data: parse_certificate(data).common_name)
def test_real_certificates_say_what_cryptography_says(data: bytes) -> None:
    ours, theirs = parse_certificate(data), x509.load_der_x509_certificate(data)
    assert ours.der == data
    assert ours.tbs == theirs.tbs_certificate_bytes
    assert ours.signature == theirs.signature
    assert (ours.subject, ours.issuer) == (theirs.subject.public_bytes(), theirs.issuer.public_bytes())
    assert [ours.common_name] == [a.value for a in theirs.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    assert ours.serial_number == theirs.serial_number
    assert ours.not_before_ms == theirs.not_valid_before_utc.timestamp() * 1000
    assert ours.not_after_ms == theirs.not_valid_after_utc.timestamp() * 1000
    assert ours.public_key == theirs.public_key()
    assert ours.spki == theirs.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    extensions = theirs.extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (ours.is_ca, ours.path_length) == (constraints.ca, constraints.path_length)
    assert (ours.sign_certificates, ours.sign_data) == (usage.key_cert_sign, usage.digital_signature)
    subject_key = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    authority_key = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert ours.subject_key_identifier == subject_key.digest
    assert ours.authority_key_identifier == authority_key.key_identifier
    assert ours.unknown_critical == ()
    assert (ours.pck_extension is None) == (ours.is_ca is True)


def test_chains_of_real_quotes_are_signed_as_named() -> None:
    certificates = [parse_certificate(data) for data in REAL]
    for child in certificates:
        issuers = [one for one in certificates if one.subject == child.issuer and child.signed_by(one)]
        assert issuers
        assert all(one.subject_key_identifier == child.authority_key_identifier for one in issuers)


def test_equality_is_that_of_the_bytes() -> None:
    one, other = parse_certificate(REAL[0]), parse_certificate(REAL[1])
    assert one == parse_certificate(bytes(bytearray(REAL[0])))
    assert len({one, parse_certificate(REAL[0]), other}) == 2
    assert one != other
    assert one != REAL[0]
    assert "der" in {field.name for field in fields(Certificate)}


def test_absent_extensions_are_none() -> None:
    found = parse_certificate(build())
    assert (found.is_ca, found.path_length, found.sign_certificates, found.sign_data) == (None,) * 4
    assert (found.subject_key_identifier, found.authority_key_identifier, found.pck_extension) == (None,) * 3
    assert found.unknown_critical == ()


def unknown(oid: str) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        (unknown("1.2.3.4"), "1.2.3.4"),
        (x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")]), "2.5.29.37"),
        (x509.SubjectAlternativeName([x509.DNSName("example.org")]), "2.5.29.17"),
        (x509.AuthorityKeyIdentifier(b"k", None, None), "2.5.29.35"),
        (unknown("1.2.840.113741.1.13.2"), "1.2.840.113741.1.13.2"),
    ],
)
def test_critical_extensions_nobody_reads_are_reported(value: Any, reported: str) -> None:
    assert parse_certificate(build(extensions=[(value, True)])).unknown_critical == (reported,)
    assert parse_certificate(build(extensions=[(value, False)])).unknown_critical == ()


@pytest.mark.parametrize(
    ("value", "critical"),
    [
        (x509.BasicConstraints(ca=True, path_length=3), True),
        (x509.SubjectKeyIdentifier(b"key"), True),
        (unknown(PCK_EXTENSION_OID), True),
    ],
)
def test_critical_extensions_we_read_are_not_reported(value: Any, critical: bool) -> None:
    assert parse_certificate(build(extensions=[(value, critical)])).unknown_critical == ()


@pytest.mark.parametrize(
    ("name", "common_name"),
    [
        (named((NameOID.COMMON_NAME, "Intel")), "Intel"),
        (named((NameOID.COMMON_NAME, "Größe")), "Größe"),
        (named((NameOID.ORGANIZATION_NAME, "O"), (NameOID.COMMON_NAME, "CN"), (NameOID.COUNTRY_NAME, "US")), "CN"),
        (named((NameOID.COMMON_NAME, "a"), (NameOID.COMMON_NAME, "b")), ""),
        (named((NameOID.ORGANIZATION_NAME, "\x06\x03U\x04\x03\x0c\x01x")), ""),
        (x509.Name([]), ""),
        (
            x509.Name(
                [
                    x509.RelativeDistinguishedName(
                        [
                            x509.NameAttribute(NameOID.COMMON_NAME, "one"),
                            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "two"),
                        ]
                    )
                ]
            ),
            "one",
        ),
        (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x", x509.name._ASN1Type.BMPString)]), ""),
    ],
)  # fmt: skip
def test_common_name_is_the_only_one_or_none(name: x509.Name, common_name: str) -> None:
    found = parse_certificate(build(name=name))
    assert found.common_name == common_name
    assert found.subject == name.public_bytes()


def set_part(index: int, value: Der) -> Any:
    return lambda parts: parts[0].__setitem__(index, value)


def bad_text(parts: Any) -> None:
    attribute = der.sequence(Der(der.OBJECT_ID, b"\x55\x04\x03"), Der(0x0C, b"\xff"))
    parts[0][5] = der.sequence(Der(der.SET, attribute.encode()))


def sha384_inside(parts: Any) -> None:
    parts[0][2] = der.sequence(Der(der.OBJECT_ID, bytes.fromhex("2a8648ce3d040303")))


def sha384_outside(parts: Any) -> None:
    parts[1] = der.sequence(Der(der.OBJECT_ID, bytes.fromhex("2a8648ce3d040303")))


def with_parameters(parts: Any) -> None:
    parts[0][2] = parts[1] = der.sequence(Der(der.OBJECT_ID, bytes.fromhex("2a8648ce3d040302")), Der(0x05, b""))


def extension_twice(parts: Any) -> None:
    extensions = der.read_sequence(der.read_all(parts[0][7].content, "e"), "e")
    parts[0][7] = Der(parts[0][7].tag, der.sequence(*extensions, extensions[0]).encode())


REWRITTEN: list[tuple[str, Any]] = [
    ("unchanged but for a trailing part", lambda parts: parts.append(Der(0x05, b""))),
    ("no version", lambda parts: parts[0].pop(0)),
    ("version 1", set_part(0, Der(0xA0, b"\x02\x01\x00"))),
    ("version 2", set_part(0, Der(0xA0, b"\x02\x01\x01"))),
    ("version 4", set_part(0, Der(0xA0, b"\x02\x01\x03"))),
    ("serial negative", set_part(1, Der(der.INTEGER, b"\x80"))),
    ("serial not minimal", set_part(1, Der(der.INTEGER, b"\x00\x07"))),
    ("serial empty", set_part(1, Der(der.INTEGER, b""))),
    ("serial of 161 bits", set_part(1, der.unsigned(1 << 160))),
    ("serial of another type", set_part(1, Der(der.OCTET_STRING, b"\x07"))),
    ("SHA-384 inside", sha384_inside),
    ("SHA-384 outside", sha384_outside),
    ("algorithm with parameters", with_parameters),
    ("issuer of another type", set_part(3, Der(der.SET, b""))),
    ("validity of another type", set_part(4, Der(der.SET, b""))),
    ("month 13", set_part(4, der.sequence(Der(0x17, b"201301000000Z"), Der(0x17, b"210101000000Z")))),
    ("common name that is no text", bad_text),
    ("key of another type", set_part(6, der.sequence())),
    ("without a key", lambda parts: parts[0].pop(6)),
    ("extension twice", extension_twice),
]


@pytest.mark.parametrize("change", [one[1] for one in REWRITTEN], ids=[one[0] for one in REWRITTEN])
def test_refused(change: Any) -> None:
    data = rewritten(change, REAL[0])
    with pytest.raises(CertChainInvalid) as caught:
        parse_certificate(data)
    assert caught.value.field == "certificate"


def test_a_serial_of_160_bits_is_read() -> None:
    data = rewritten(set_part(1, der.unsigned((1 << 160) - 1)), REAL[0])
    assert parse_certificate(data).serial_number == (1 << 160) - 1
    assert rewritten(lambda parts: None, REAL[0]) == REAL[0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x00",
        REAL[0] + b"\x00",
        REAL[0][:-1],
        b"\x30\x80" + REAL[0][4:] + b"\x00\x00",
        build(key=rsa.generate_private_key(65537, 1024)),
        build(key=rsa.generate_private_key(3, 2048)),
        build(key=ed25519.Ed25519PrivateKey.generate()),
        build(signer=ed25519.Ed25519PrivateKey.generate(), digest=NONE),
        REAL[0] + bytes(MAX_CERTIFICATE_BYTES),
        pki.issue(pki.ROOT).certificate.public_bytes(Encoding.PEM),
    ],
)  # fmt: skip
def test_no_certificate(data: bytes) -> None:
    with pytest.raises(CertChainInvalid):
        parse_certificate(data)


@pytest.mark.parametrize(
    ("signer", "options", "algorithm"),
    [
        (KEY, {"digest": SHA256()}, "ecdsa-sha256"),
        (ec.generate_private_key(ec.SECP384R1()), {"digest": SHA384()}, "ecdsa-sha384"),
        (ec.generate_private_key(ec.SECP521R1()), {"digest": SHA512()}, "ecdsa-sha512"),
        (RSA, {"digest": SHA256()}, "rsa-sha256"),
        (RSA, {"digest": SHA384()}, "rsa-sha384"),
        (RSA, {"digest": SHA256(), "rsa_padding": PSS(MGF1(SHA256()), 32)}, "rsa-pss-sha256"),
        (RSA, {"digest": SHA384(), "rsa_padding": PSS(MGF1(SHA384()), 48)}, "rsa-pss-sha384"),
        (RSA, {"digest": SHA512(), "rsa_padding": PSS(MGF1(SHA512()), 64)}, "rsa-pss-sha512"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_algorithm_is_read_and_verified(signer: Any, options: Any, algorithm: str) -> None:
    issuer = parse_certificate(build(key=signer))
    found = parse_certificate(build(signer=signer, **options))
    assert found.algorithm == algorithm
    assert found.signed_by(issuer)
    assert not found.signed_by(parse_certificate(build()) if signer is not KEY else parse_certificate(build(key=RSA)))
    altered = replace(found, signature=found.signature[:-1] + bytes([found.signature[-1] ^ 1]))
    assert not altered.signed_by(issuer)


@pytest.mark.parametrize(
    "pss", [PSS(MGF1(SHA256()), 20), PSS(MGF1(SHA384()), 32), PSS(MGF1(SHA256()), 48)], ids=["salt", "mask", "long"]
)
def test_unusual_pss_is_refused(pss: PSS) -> None:
    with pytest.raises(CertChainInvalid):
        parse_certificate(build(signer=RSA, digest=SHA256(), rsa_padding=pss))


def test_a_serial_of_zero_is_read() -> None:
    data = rewritten(set_part(1, der.unsigned(0)), REAL[0])
    assert parse_certificate(data).serial_number == 0


@pytest.mark.parametrize("data", REAL[:2])
def test_every_truncation_and_every_byte(data: bytes) -> None:
    for size in range(len(data)):
        with pytest.raises(CertChainInvalid):
            parse_certificate(data[:size])
    whole = parse_certificate(data)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        try:
            assert parse_certificate(changed) != whole
        except CertChainInvalid:
            continue


def test_the_certificate_used_longest_ago_is_forgotten() -> None:
    """Whoever sends many certificates pushes out others, and never the ones that are in use."""
    held = _Remembered(3)
    used, *others = (replace(parse_certificate(REAL[0]), der=bytes([number])) for number in range(9))
    held.keep(used)
    for one in others:
        held.keep(one)
        assert held.get(used.der) is used
        assert len(held) <= 3
    assert others[-1].der in held
    assert others[-3].der not in held
    assert held.get(b"never seen") is None
    held.clear()
    assert used.der not in held


def test_threads_may_share_what_is_remembered() -> None:
    held = _Remembered(2)
    several = [replace(parse_certificate(REAL[0]), der=bytes([number])) for number in range(5)]

    def use(shift: int) -> None:
        for turn in range(2_000):
            one = several[(turn * shift) % 5]
            assert held.get(one.der) in (None, one)
            held.keep(one)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, range(1, 5)))
    assert len(held) == 2
