"""What certificates and revocation lists share, in strict DER (RFC 5280): algorithms, times, names, extensions.

Everything raises `DerError`, which callers turn into the refusal of their format. Nothing here is verified.
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache

from verifier.abi import der
from verifier.abi.der import DerError
from verifier.limits import MAX_DER_ELEMENTS, MAX_LABEL_CHARACTERS

BASIC_CONSTRAINTS = "2.5.29.19"
KEY_USAGE = "2.5.29.15"
EXTENDED_KEY_USAGE = "2.5.29.37"
SUBJECT_KEY = "2.5.29.14"
AUTHORITY_KEY = "2.5.29.35"
CRL_NUMBER = "2.5.29.20"

BIT_STRING, UTC_TIME, GENERALIZED_TIME = 0x03, 0x17, 0x18
_KEY_IDENTIFIER = 0x80
_COMMON_NAME = bytes.fromhex("0603550403")
"""DER of the OID id-at-commonName, 2.5.4.3."""

_TEXT = {0x0C: "utf-8", 0x13: "ascii", 0x16: "ascii"}
"""Encodings of UTF8String, PrintableString, IA5String; a role's name comes in none of the others."""

_TRUE, _FALSE = bytes.fromhex("0101ff"), bytes.fromhex("010100")
"""DER of the BOOLEAN that makes an extension critical, and of the one that older issuers write for the default."""

_FIXED_ALGORITHMS = {
    bytes.fromhex("300a06082a8648ce3d040302"): "ecdsa-sha256",
    bytes.fromhex("300a06082a8648ce3d040303"): "ecdsa-sha384",
    bytes.fromhex("300a06082a8648ce3d040304"): "ecdsa-sha512",
    bytes.fromhex("300d06092a864886f70d01010b0500"): "rsa-sha256",
    bytes.fromhex("300d06092a864886f70d01010c0500"): "rsa-sha384",
    bytes.fromhex("300d06092a864886f70d01010d0500"): "rsa-sha512",
}
"""AlgorithmIdentifiers that have one encoding (RFC 5758 §3.2, RFC 4055 §5)."""

_PSS = bytes.fromhex("06092a864886f70d01010a")
_MGF1 = bytes.fromhex("06092a864886f70d010108")
_HASHES = {
    bytes.fromhex("0609608648016503040201"): ("sha256", 32),
    bytes.fromhex("0609608648016503040202"): ("sha384", 48),
    bytes.fromhex("0609608648016503040203"): ("sha512", 64),
}
_NULL = b"\x05\x00"
_SERIAL_BITS = 160


def algorithm_of(data: bytes, at: int, end: int) -> tuple[str, int]:
    """(name as in `verifier.signature.ALGORITHMS`, where it ends) of the AlgorithmIdentifier at `at`.

    RSASSA-PSS with one hash throughout and a salt of its length (RFC 4055 §3.1), as vendors use it; no others.
    """
    _, stop = der.span_of(data, at, end, der.SEQUENCE, "algorithm")
    return _algorithm(data[at:stop]), stop


@lru_cache(maxsize=64)
def _algorithm(identifier: bytes) -> str:
    found = _FIXED_ALGORITHMS.get(identifier)
    return found if found is not None else _pss(identifier)


def _pss(identifier: bytes) -> str:
    name, parameters = _members(der.read_all(identifier, "algorithm").content, 2)
    if name != _PSS:
        raise DerError("a signature algorithm that nobody here accepts")
    sequence = der.read_all(parameters, "parameters").expect(der.SEQUENCE, "parameters")
    fields: dict[int, bytes] = {}
    while sequence:
        value, sequence = der.read_one(sequence, "parameters")
        if value.tag in fields:
            raise DerError("parameters: one twice")
        fields[value.tag] = value.content
    if not {0xA0, 0xA1, 0xA2} <= set(fields) <= {0xA0, 0xA1, 0xA2, 0xA3}:
        raise DerError("parameters: hash, mask or salt is missing")
    hash_name, size = _hash(fields[0xA0])
    mask, mask_hash = _members(der.read_all(fields[0xA1], "mask").expect(der.SEQUENCE, "mask"), 2)
    salt = der.read_unsigned(der.read_all(fields[0xA2], "salt"), "salt", 1 << 16)
    trailer = der.read_unsigned(der.read_all(fields.get(0xA3, b"\x02\x01\x01"), "trailer"), "trailer", 255)
    if mask != _MGF1 or _hash(mask_hash) != (hash_name, size) or salt != size or trailer != 1:
        raise DerError("RSASSA-PSS with another mask, salt or trailer than its hash's")
    return f"rsa-pss-{hash_name}"


def _hash(identifier: bytes) -> tuple[str, int]:
    content = der.read_all(identifier, "hash").expect(der.SEQUENCE, "hash")
    found = _HASHES.get(content.removesuffix(_NULL))
    if found is None:
        raise DerError("a hash that nobody here accepts")
    return found


def _members(content: bytes, count: int) -> tuple[bytes, ...]:
    """The encodings of exactly `count` values."""
    found: list[bytes] = []
    at = 0
    while at < len(content) and len(found) < count:
        _, _, stop = der.span(content, at, len(content), "member")
        found.append(content[at:stop])
        at = stop
    if len(found) != count or at != len(content):
        raise DerError(f"not {count} members")
    return tuple(found)


def serial_of(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(number, where it ends) of a CertificateSerialNumber; zero is one, AMD's VCEKs have it, negative ones are not."""
    start, stop = der.span_of(data, at, end, der.INTEGER, "serial")
    return der.unsigned_of(data[start:stop], "serial", (1 << _SERIAL_BITS) - 1), stop


def time_of(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(UTC milliseconds, where it ends) of a UTCTime or GeneralizedTime as RFC 5280 §4.1.2.5 writes them."""
    tag, start, stop = der.span(data, at, end, "time")
    text = data[start:stop]
    if tag == UTC_TIME and len(text) == 13:
        text = (b"20" if text < b"50" else b"19") + text
    elif tag != GENERALIZED_TIME or len(text) != 15:
        raise DerError("time: neither UTCTime nor GeneralizedTime with seconds")
    if not text[:14].isdigit() or text[14:] != b"Z":
        raise DerError("time: not in UTC with seconds")
    try:
        moment = datetime.fromisoformat(f"{text[:8].decode()}T{text[8:14].decode()}Z")
    except ValueError:
        raise DerError("time: no moment of the calendar") from None
    return int(moment.timestamp()) * 1000, stop


@lru_cache(maxsize=256)
def common_name(name: bytes) -> str:
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
    try:
        text = name[start:stop].decode(_TEXT[tag])
    except ValueError:
        raise DerError("common name: not in its encoding") from None
    return text if len(text) <= MAX_LABEL_CHARACTERS and text.isprintable() else ""


def extensions_of(data: bytes, at: int, end: int, what: str) -> dict[str, tuple[bool, bytes]]:
    """(critical, content of extnValue) by dotted OID, of the SEQUENCE of extensions that fills `at` to `end`."""
    start, stop = der.span_of(data, at, end, der.SEQUENCE, what)
    if stop != end:
        raise DerError(f"{what}: something behind them")
    found: dict[str, tuple[bool, bytes]] = {}
    while start < stop:
        oid, critical, value, start = extension_of(data, start, stop)
        name = dotted(oid)
        if name in found or len(found) == MAX_DER_ELEMENTS:
            raise DerError(f"{what}: one twice, or too many")
        found[name] = critical, value
    return found


def extension_of(data: bytes, at: int, end: int) -> tuple[bytes, bool, bytes, int]:
    """(OID content, critical, content of extnValue, where it ends) of the extension at `at`."""
    start, stop = der.span_of(data, at, end, der.SEQUENCE, "extension")
    first, last = der.span_of(data, start, stop, der.OBJECT_ID, "extension")
    critical = data.startswith(_TRUE, last)
    flag = len(_TRUE) if critical or data.startswith(_FALSE, last) else 0
    content, done = der.span_of(data, last + flag, stop, der.OCTET_STRING, "extension")
    if done != stop:
        raise DerError("extension: something behind its value")
    return data[first:last], critical, data[content:done], stop


@lru_cache(maxsize=256)
def dotted(oid: bytes) -> str:
    """The text of an OID's content octets (X.690 §8.19)."""
    numbers, number = [], 0
    if not oid or len(oid) > 64 or oid[-1] & 0x80:
        raise DerError("an OID that is empty, long or truncated")
    for position, octet in enumerate(oid):
        if number == 0 and octet == 0x80 and (position == 0 or not oid[position - 1] & 0x80):
            raise DerError("an OID with leading zeros")
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            numbers.append(number)
            number = 0
    first = min(numbers[0] // 40, 2)
    return ".".join(map(str, (first, numbers[0] - 40 * first, *numbers[1:])))


def basic_constraints(value: bytes) -> tuple[bool, int | None]:
    """(CA, path length or None)."""
    at, end = der.span_of(value, 0, len(value), der.SEQUENCE, "basic constraints")
    if end != len(value):
        raise DerError("basic constraints: something behind them")
    ca = value.startswith(_TRUE, at)
    at += len(_TRUE) if ca or value.startswith(_FALSE, at) else 0
    if at == end:
        return ca, None
    start, stop = der.span_of(value, at, end, der.INTEGER, "path length")
    if stop != end or not ca:
        raise DerError("basic constraints: a path length of no CA, or something behind it")
    return ca, der.unsigned_of(value[start:stop], "path length", 0xFF)


def key_usage(value: bytes) -> tuple[bool, bool, bool]:
    """(digitalSignature, keyCertSign, cRLSign) of a KeyUsage."""
    start, stop = der.span_of(value, 0, len(value), BIT_STRING, "key usage")
    bits = value[start:stop]
    if stop != len(value) or not 1 <= len(bits) <= 3 or bits[0] > 7 or (bits[0] and len(bits) == 1):
        raise DerError("key usage: no bit string, or too long")
    first = bits[1] if len(bits) > 1 else 0
    return bool(first & 0x80), bool(first & 0x04), bool(first & 0x02)


def subject_key(value: bytes) -> bytes:
    """The identifier of a SubjectKeyIdentifier."""
    return der.read_all(value, "subject key").expect(der.OCTET_STRING, "subject key")


def authority_key(value: bytes) -> bytes | None:
    """The keyIdentifier of an AuthorityKeyIdentifier, None if it has none."""
    at, end = der.span_of(value, 0, len(value), der.SEQUENCE, "authority key")
    if end != len(value):
        raise DerError("authority key: something behind it")
    identifier = None
    while at < end:
        tag, start, at = der.span(value, at, end, "authority key")
        if tag == _KEY_IDENTIFIER:
            identifier = value[start:at]
    return identifier
