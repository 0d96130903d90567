"""The facts of one X.509 certificate that a PCK chain is judged by; `cryptography`'s errors end here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from verifier.abi import der
from verifier.abi.der import DerError
from verifier.abi.pck import PCK_EXTENSION_OID
from verifier.errors import CertChainInvalid
from verifier.limits import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES_REMEMBERED, MAX_LABEL_CHARACTERS
from verifier.signature import verify_der

_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
"""DER of the AlgorithmIdentifier ecdsa-with-SHA256 (RFC 5758): its OID, no parameters."""

_BIT_STRING = 0x03
_VERSION_3 = bytes.fromhex("a003020102")
_COMMON_NAME = bytes.fromhex("0603550403")
"""DER of the OID id-at-commonName, 2.5.4.3."""

_TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii"}
"""Encodings of UTF8String, PrintableString, IA5String; a role's name comes in none of the others."""

_PCK_EXTENSION = x509.ObjectIdentifier(PCK_EXTENSION_OID)
_SERIAL_BITS = 160
_SHOWN_CHARACTERS = 128
"""Of what a certificate makes us say of it, at most."""

_FOREIGN = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    Warning,  # where warnings are errors, a deprecated encoding raises one
)
"""What `cryptography` raises for bytes that are no certificate."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """A parsed certificate with an EC key, signed with ecdsa-with-SHA256; nothing in it is verified yet.

    `der` is the whole certificate, and equality is that of these bytes; `tbs` its signed part, `spki` its
    SubjectPublicKeyInfo, `subject` and `issuer` its names, all DER as in the certificate. `common_name` is the
    subject's only CN ("" if there is not exactly one). Times are UTC milliseconds, inclusive. `is_ca`,
    `sign_certificates`, `sign_crls`, `sign_data` and the key identifiers (bytes) are None where the extension is
    absent; `unknown_critical` names critical extensions nobody here understands.
    """

    der: bytes
    tbs: bytes
    signature: bytes
    subject: bytes
    issuer: bytes
    common_name: str
    serial_number: int
    not_before_ms: int
    not_after_ms: int
    public_key: ec.EllipticCurvePublicKey
    spki: bytes
    is_ca: bool | None
    path_length: int | None
    sign_certificates: bool | None
    sign_crls: bool | None
    sign_data: bool | None
    subject_key_identifier: bytes | None
    authority_key_identifier: bytes | None
    unknown_critical: tuple[str, ...]
    pck_extension: bytes | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    def signed_by(self, issuer: Certificate) -> bool:
        """Whether `issuer`'s key made this certificate's signature."""
        return verify_der(issuer.public_key, self.tbs, self.signature)


def parse_certificate(data: bytes) -> Certificate:
    """The certificate of DER `data`. Raises `CertChainInvalid` for anything that is not one.

    Certificates of issuers and signers are remembered, parsed and no more: each host's chain carries the same ones.
    """
    found = _SEEN.get(data)
    if found is not None:
        return found
    try:
        certificate = _parse(data)
    except _FOREIGN as error:
        shown = str(error)[:_SHOWN_CHARACTERS]
        raise CertChainInvalid(f"not a usable certificate: {shown}", field="certificate") from error
    if certificate.pck_extension is None:
        if len(_SEEN) >= MAX_CERTIFICATES_REMEMBERED:
            _SEEN.clear()
        _SEEN[certificate.der] = certificate
    return certificate


_SEEN: dict[bytes, Certificate] = {}
"""Parsed certificates by their DER. Nothing about them is verified: that is for whoever uses them."""


def on_p256(one: Certificate) -> bool:
    """Whether its key is on P-256; other curves have no place here, and some take ten times as long."""
    return isinstance(one.public_key.curve, ec.SECP256R1)


@dataclass(frozen=True, slots=True)
class _Outline:
    """What we read ourselves: the parts as they stand in the certificate, which `cryptography` would write anew."""

    tbs: bytes
    issuer: bytes
    subject: bytes
    spki: bytes


def _parse(data: bytes) -> Certificate:
    outline = _outline(data)
    certificate = x509.load_der_x509_certificate(data)
    serial = certificate.serial_number
    if not 0 < serial < 1 << _SERIAL_BITS:
        raise DerError(f"certificate: serial number of {serial.bit_length()} bits, or none above zero")
    # Not certificate.public_key(): the same key, but its first verification takes 25 us longer.
    key = load_der_public_key(outline.spki)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DerError("certificate: not an EC key")
    is_ca = path_length = sign_certificates = sign_crls = sign_data = None
    pck_extension = subject_key = authority_key = None
    unknown_critical = []
    for extension in certificate.extensions:
        value: Any = extension.value
        kind = type(value)  # no subclasses here, and isinstance of an abstract class is slow
        if kind is x509.BasicConstraints:
            is_ca, path_length = value.ca, value.path_length
        elif kind is x509.KeyUsage:
            sign_certificates, sign_crls = value.key_cert_sign, value.crl_sign
            sign_data = value.digital_signature
        elif kind is x509.SubjectKeyIdentifier:
            subject_key = value.digest
        elif kind is x509.UnrecognizedExtension and extension.oid == _PCK_EXTENSION:
            pck_extension = value.value
        else:
            if kind is x509.AuthorityKeyIdentifier:
                authority_key = value.key_identifier
            if extension.critical:
                unknown_critical.append(extension.oid.dotted_string[:_SHOWN_CHARACTERS])
    return Certificate(
        der=data,
        tbs=outline.tbs,
        signature=certificate.signature,
        subject=outline.subject,
        issuer=outline.issuer,
        common_name=_common_name(outline.subject),
        serial_number=serial,
        not_before_ms=_ms(certificate.not_valid_before_utc),
        not_after_ms=_ms(certificate.not_valid_after_utc),
        public_key=key,
        spki=outline.spki,
        is_ca=is_ca,
        path_length=path_length,
        sign_certificates=sign_certificates,
        sign_crls=sign_crls,
        sign_data=sign_data,
        subject_key_identifier=subject_key,
        authority_key_identifier=authority_key,
        unknown_critical=tuple(unknown_critical),
        pck_extension=pck_extension,
    )


def _outline(data: bytes) -> _Outline:
    """Version 3, signed with ecdsa-with-SHA256 in both places (RFC 5280 §4.1); `cryptography` checks the rest."""
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise DerError(f"certificate of {len(data)} bytes")
    tbs, whole = der.span_of(data, 0, len(data), der.SEQUENCE, "certificate")
    start, end = der.span_of(data, tbs, whole, der.SEQUENCE, "tbs")
    if not data.startswith(_VERSION_3, start):
        raise DerError("certificate: not version 3")
    _, serial = der.span_of(data, start + len(_VERSION_3), end, der.INTEGER, "serial")
    if not data.startswith(_ALGORITHM, serial) or not data.startswith(_ALGORITHM, end):
        raise DerError("certificate: not signed with ecdsa-with-SHA256")
    signature, _ = der.span_of(data, end + len(_ALGORITHM), whole, _BIT_STRING, "signature")
    if data[signature : signature + 1] != b"\x00":
        raise DerError("certificate: unused bits in its signature")
    issuer = serial + len(_ALGORITHM)
    _, validity = der.span_of(data, issuer, end, der.SEQUENCE, "issuer")
    _, subject = der.span_of(data, validity, end, der.SEQUENCE, "validity")
    _, spki = der.span_of(data, subject, end, der.SEQUENCE, "subject")
    _, rest = der.span_of(data, spki, end, der.SEQUENCE, "public key")
    return _Outline(tbs=data[tbs:end], issuer=data[issuer:validity], subject=data[subject:spki], spki=data[spki:rest])


@lru_cache(maxsize=32)
def _common_name(name: bytes) -> str:
    """The only CN of a DER name; "" if it has none, several, or one that is not short and printable.

    Remembered: a vendor's certificates have few names between them.
    """
    found = []
    at, end = der.span_of(name, 0, len(name), der.SEQUENCE, "name")
    while at < end:
        inner, at = der.span_of(name, at, end, der.SET, "relative name")
        while inner < at:
            attribute, inner = der.span_of(name, inner, at, der.SEQUENCE, "attribute")
            if name.startswith(_COMMON_NAME, attribute):
                found.append(der.span(name, attribute + len(_COMMON_NAME), inner, "common name"))
    if len(found) != 1 or found[0][0] not in _TEXT:
        return ""
    tag, start, stop = found[0]
    text = name[start:stop].decode(_TEXT[tag])
    return text if len(text) <= MAX_LABEL_CHARACTERS and text.isprintable() else ""


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
