"""The facts of one X.509 revocation list (RFC 5280 §5; Intel "SGX PCK Certificate and CRL Profile").

The outline, the times and the list's extensions are read here; `cryptography` checks that the entries are DER and
looks serial numbers up. A list that says more than we understand is refused: a critical extension of the list or of an
entry can turn its meaning round (indirect lists, deltas, scopes).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from verifier.abi import der
from verifier.abi.der import DerError
from verifier.errors import CollateralMalformed, CollateralTooLarge
from verifier.limits import MAX_CRL_BYTES, MAX_DER_ELEMENTS
from verifier.signature import verify_der

_ALGORITHM = bytes.fromhex("300a06082a8648ce3d040302")
"""DER of the AlgorithmIdentifier ecdsa-with-SHA256 (RFC 5758): its OID, no parameters."""

_VERSION_2 = bytes.fromhex("020101")
_UTC_TIME, _GENERALIZED_TIME, _EXTENSIONS, _BIT_STRING, _KEY_IDENTIFIER = 0x17, 0x18, 0xA0, 0x03, 0x80
_CRL_NUMBER = bytes.fromhex("551d14")
_AUTHORITY_KEY = bytes.fromhex("551d23")
_TRUE = bytes.fromhex("0101ff")
"""DER of the BOOLEAN that makes an extension critical."""

_MAX_NUMBER = 1 << 160
_SHOWN_CHARACTERS = 128
"""Of what a list makes `cryptography` say of it, at most."""

_FOREIGN = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, Warning)
"""What `cryptography` raises for bytes that are no revocation list."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crl:
    """A parsed revocation list, signed with ecdsa-with-SHA256; nothing in it is verified yet.

    `der` is the whole list, `tbs` its signed part, `issuer` the issuer's DER name. Times are UTC milliseconds:
    `issued_ms` is thisUpdate; at `next_update_ms` and later the list is out of date. `number` is its crlNumber,
    `authority_key_identifier` bytes or None, `entries` how many certificates it revokes.
    """

    der: bytes
    tbs: bytes
    signature: bytes
    issuer: bytes
    issued_ms: int
    next_update_ms: int
    number: int
    authority_key_identifier: bytes | None
    entries: int
    _entries: x509.CertificateRevocationList | None

    def signed_by(self, key: ec.EllipticCurvePublicKey) -> bool:
        """Whether `key` made this list's signature."""
        return verify_der(key, self.tbs, self.signature)

    def revokes(self, serial_number: int) -> bool:
        """Whether the list names this serial number of its issuer."""
        # Bytes that stand nowhere in the list are no entry's serial number either, and looking for them is quick.
        mark = serial_number.to_bytes((serial_number.bit_length() + 7) // 8, "big")
        return (
            self._entries is not None
            and mark in self.tbs
            and self._entries.get_revoked_certificate_by_serial_number(serial_number) is not None
        )


def parse_crl(data: bytes) -> Crl:
    """The revocation list of DER `data`. Raises `CollateralMalformed` or `CollateralTooLarge`."""
    if len(data) > MAX_CRL_BYTES:
        raise CollateralTooLarge(f"a revocation list of {len(data)} bytes, at most {MAX_CRL_BYTES}", field="crl")
    try:
        return _parse(data)
    except _FOREIGN as error:
        shown = str(error)[:_SHOWN_CHARACTERS]
        raise CollateralMalformed(f"not a usable revocation list: {shown}", field="crl") from None


def _parse(data: bytes) -> Crl:
    tbs, whole = der.span_of(data, 0, len(data), der.SEQUENCE, "list")
    start, end = der.span_of(data, tbs, whole, der.SEQUENCE, "tbs")
    issuer = start + len(_VERSION_2) + len(_ALGORITHM)
    if not data.startswith(_VERSION_2 + _ALGORITHM, start) or not data.startswith(_ALGORITHM, end):
        raise DerError("not version 2, or not signed with ecdsa-with-SHA256")
    _, at = der.span_of(data, issuer, end, der.SEQUENCE, "issuer")
    issuer_name = data[issuer:at]
    issued_ms, at = _time(data, at, end)
    next_update_ms, at = _time(data, at, end)
    revoked = listed = at
    if data[at : at + 1] == b"\x30":
        _, listed = der.span_of(data, at, end, der.SEQUENCE, "entries")
    number, authority_key = _list_extensions(data, listed, end)
    if data.find(_TRUE, revoked, listed) >= 0:  # as a rule not even by chance, in 60 random serial numbers
        _refuse_critical_entries(data, revoked, listed)
    signature, behind = der.span_of(data, end + len(_ALGORITHM), whole, _BIT_STRING, "signature")
    if behind != whole or whole != len(data) or data[signature : signature + 1] != b"\x00":
        raise DerError("signature: unused bits, or something behind it")
    entries = x509.load_der_x509_crl(data) if revoked < listed else None
    return Crl(
        der=data,
        tbs=data[tbs:end],
        signature=data[signature + 1 : whole],
        issuer=issuer_name,
        issued_ms=issued_ms,
        next_update_ms=next_update_ms,
        number=number,
        authority_key_identifier=authority_key,
        entries=0 if entries is None else len(entries),
        _entries=entries,
    )


def _time(data: bytes, at: int, end: int) -> tuple[int, int]:
    """(UTC milliseconds, where it ends) of a UTCTime or GeneralizedTime as RFC 5280 §5.1.2.4 writes them."""
    tag, start, stop = der.span(data, at, end, "time")
    text = data[start:stop]
    if tag == _UTC_TIME and len(text) == 13:
        text = (b"20" if text < b"50" else b"19") + text
    elif tag != _GENERALIZED_TIME or len(text) != 15:
        raise DerError("time: neither UTCTime nor GeneralizedTime, or no next update")
    if not text[:14].isdigit() or text[14:] != b"Z":
        raise DerError("time: not in UTC with seconds")
    moment = datetime.fromisoformat(f"{text[:8].decode()}T{text[8:14].decode()}Z")
    return int(moment.timestamp()) * 1000, stop


def _list_extensions(data: bytes, at: int, end: int) -> tuple[int, bytes | None]:
    """(crlNumber, key identifier of the authority); a list without these two extensions is refused, as Intel does."""
    start, stop = der.span_of(data, at, end, _EXTENSIONS, "list extensions")
    if stop != end:
        raise DerError("list extensions: something behind them")
    at, end = der.span_of(data, start, stop, der.SEQUENCE, "list extensions")
    found: dict[bytes, bytes] = {}
    while at < end:
        oid, critical, value, at = _extension(data, at, end)
        if critical and oid not in (_CRL_NUMBER, _AUTHORITY_KEY):
            raise DerError("list extensions: a critical one nobody here understands")
        if oid in found or len(found) == MAX_DER_ELEMENTS:
            raise DerError("list extensions: one twice, or too many")
        found[oid] = value
    if end != stop or _CRL_NUMBER not in found or _AUTHORITY_KEY not in found:
        raise DerError("list extensions: without crlNumber or authorityKeyIdentifier")
    return _number(found[_CRL_NUMBER]), _key_identifier(found[_AUTHORITY_KEY])


def _number(value: bytes) -> int:
    start, stop = der.span_of(value, 0, len(value), der.INTEGER, "crlNumber")
    if stop != len(value):
        raise DerError("crlNumber: something behind it")
    return der.unsigned_of(value[start:], "crlNumber", _MAX_NUMBER)


def _key_identifier(value: bytes) -> bytes | None:
    at, end = der.span_of(value, 0, len(value), der.SEQUENCE, "authority key")
    if end != len(value):
        raise DerError("authority key: something behind it")
    identifier = None
    while at < end:
        tag, start, at = der.span(value, at, end, "authority key")
        if tag == _KEY_IDENTIFIER:
            identifier = value[start:at]
    return identifier


def _extension(data: bytes, at: int, end: int) -> tuple[bytes, bool, bytes, int]:
    """(OID content, critical, value, where it ends) of an extension."""
    start, stop = der.span_of(data, at, end, der.SEQUENCE, "extension")
    first, last = der.span_of(data, start, stop, der.OBJECT_ID, "extension")
    critical = data.startswith(_TRUE, last)
    content, done = der.span_of(data, last + len(_TRUE) * critical, stop, der.OCTET_STRING, "extension")
    if done != stop:
        raise DerError("extension: something behind its value")
    return data[first:last], critical, data[content:done], stop


def _refuse_critical_entries(data: bytes, at: int, end: int) -> None:
    """An entry with a critical extension may speak of another issuer's certificate (RFC 5280 §5.3.3)."""
    at, end = der.span_of(data, at, end, der.SEQUENCE, "entries")
    while at < end:
        inner, stop = der.span_of(data, at, end, der.SEQUENCE, "entry")
        _, inner = der.span_of(data, inner, stop, der.INTEGER, "entry")
        _, _, inner = der.span(data, inner, stop, "entry")
        if inner < stop:
            inner, last = der.span_of(data, inner, stop, der.SEQUENCE, "entry extensions")
            while inner < last:
                _, critical, _, inner = _extension(data, inner, last)
                if critical:
                    raise DerError("an entry with a critical extension")
        at = stop
