"""Certificates and lists as AMD issues them, each field open to a lie before it is signed; DER written here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from tests.forge.snp.keys import ec_spki, rsa_sign, rsa_spki

HASH_OIDS = {"sha256": "0609608648016503040201", "sha384": "0609608648016503040202"}
BASIC_CONSTRAINTS, KEY_USAGE = "0603551d13", "0603551d0f"
CERTS_AND_CRLS, ONLY_CERTS, ONLY_CRLS, ONLY_DATA = "03020106", "03020204", "03020102", "03020780"
"""KeyUsage as DER: keyCertSign and cRLSign, one of them, digitalSignature."""

AMD_ARC = bytes.fromhex("2b060104019c7801")


def tlv(tag: int, *parts: bytes) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(octets)]) + octets + content


def integer(number: int) -> bytes:
    return tlv(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def amd_oid(*numbers: int) -> bytes:
    """An OID under 1.3.6.1.4.1.3704.1, as a whole value."""
    return tlv(0x06, AMD_ARC + bytes(numbers))


def pss(hash_name: str) -> bytes:
    """AlgorithmIdentifier of RSASSA-PSS, salt as long as the hash."""
    digest = tlv(0x30, bytes.fromhex(HASH_OIDS[hash_name]), b"\x05\x00")
    mgf1 = tlv(0x30, bytes.fromhex("06092a864886f70d010108"), digest)
    salt = integer(48 if hash_name == "sha384" else 32)
    parameters = tlv(0x30, tlv(0xA0, digest), tlv(0xA1, mgf1), tlv(0xA2, salt))
    return tlv(0x30, bytes.fromhex("06092a864886f70d01010a"), parameters)


@lru_cache(maxsize=256)
def name_of(common_name: str) -> bytes:
    """A name in AMD's order."""
    parts = (("55040b", "Engineering"), ("550406", "US"), ("550407", "Santa Clara"), ("550408", "CA"),
             ("55040a", "Advanced Micro Devices"), ("550403", common_name))  # fmt: skip
    pairs = (
        tlv(0x30, tlv(0x06, bytes.fromhex(oid)), tlv(0x13 if text == "US" else 0x0C, text.encode()))
        for oid, text in parts
    )
    return tlv(0x30, *(tlv(0x31, pair) for pair in pairs))


def moment(seconds: int) -> bytes:
    when = datetime.fromtimestamp(seconds, UTC)
    if when.year < 2050:
        return tlv(0x17, when.strftime("%y%m%d%H%M%SZ").encode())
    return tlv(0x18, when.strftime("%Y%m%d%H%M%SZ").encode())


@dataclass(frozen=True, kw_only=True)
class Cert:
    """What a certificate shall say; times are Unix seconds.

    `key` names an RSA key, or with `curve` one on it. `ca` is (CA, path length), None for no BasicConstraints;
    `usage` a KeyUsage in DER hex, None for none. `extensions` are whole values by OID (as a whole value). An
    `issuer_name` or `signed_with` stands in the place of the issuer's own.
    """

    common_name: str
    key: str
    serial: int
    not_before: int
    not_after: int
    curve: str | None = None
    ca: tuple[bool, int | None] | None = None
    usage: str | None = None
    extensions: Mapping[bytes, bytes] = field(default_factory=dict, hash=False)
    critical_extra: bytes | None = None
    digest: str = "sha384"
    issuer_name: str | None = None
    signed_with: str | None = None

    @property
    def spki(self) -> bytes:
        return rsa_spki(self.key) if self.curve is None else ec_spki(self.key, self.curve)


@dataclass(frozen=True, kw_only=True)
class Crl:
    """What a revocation list shall say; `revoked` are serial numbers, times Unix seconds."""

    this_update: int
    next_update: int
    revoked: tuple[int, ...] = ()
    issuer_name: str | None = None
    signed_with: str | None = None


def extension(oid: bytes, value: bytes, critical: bool = False) -> bytes:
    return tlv(0x30, oid, b"\x01\x01\xff" if critical else b"", tlv(0x04, value))


def issue(cert: Cert, issuer: Cert | None = None) -> bytes:
    """DER of the certificate; without `issuer` it is self-signed."""
    above = issuer or cert
    extensions = [extension(oid, value) for oid, value in cert.extensions.items()]
    if cert.usage is not None:
        extensions.append(extension(bytes.fromhex(KEY_USAGE), bytes.fromhex(cert.usage), True))
    if cert.ca is not None:
        is_ca, length = cert.ca
        value = tlv(0x30, b"\x01\x01\xff" if is_ca else b"", b"" if length is None else integer(length))
        extensions.append(extension(bytes.fromhex(BASIC_CONSTRAINTS), value, True))
    if cert.critical_extra is not None:
        extensions.append(extension(cert.critical_extra, b"\x05\x00", True))
    tbs = tlv(
        0x30,
        tlv(0xA0, integer(2)),
        integer(cert.serial),
        pss(cert.digest),
        name_of(cert.issuer_name or above.common_name),
        tlv(0x30, moment(cert.not_before), moment(cert.not_after)),
        name_of(cert.common_name),
        cert.spki,
        tlv(0xA3, tlv(0x30, *extensions)),
    )
    return _signed(tbs, cert.signed_with or above.key, cert.digest)


def issue_crl(crl: Crl, issuer: Cert) -> bytes:
    """DER of the list, issued by `issuer`."""
    entries = [tlv(0x30, integer(serial), moment(crl.this_update)) for serial in crl.revoked]
    number = extension(bytes.fromhex("0603551d14"), integer(3))
    tbs = tlv(
        0x30,
        integer(1),
        pss("sha384"),
        name_of(crl.issuer_name or issuer.common_name),
        moment(crl.this_update),
        moment(crl.next_update),
        tlv(0x30, *entries) if entries else b"",
        tlv(0xA0, tlv(0x30, number)),
    )
    return _signed(tbs, crl.signed_with or issuer.key, "sha384")


@lru_cache(maxsize=4096)
def _signed(tbs: bytes, key: str, hash_name: str) -> bytes:
    return tlv(0x30, tbs, pss(hash_name), tlv(0x03, b"\x00", rsa_sign(key, tbs, hash_name)))
