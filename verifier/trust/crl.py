"""The facts of one X.509 revocation list (RFC 5280 §5).

The outline, the times and the list's extensions are read here; `cryptography` checks that the entries are DER and
looks serial numbers up. A list that says more than we understand is refused: a critical extension of the list or of an
entry can turn its meaning round (indirect lists, deltas, scopes).
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import CertificateRevocationList, load_der_x509_crl

from verifier.abi import der, x509
from verifier.abi.der import DerError
from verifier.errors import CollateralMalformed, CollateralTooLarge
from verifier.limits import MAX_CRL_BYTES
from verifier.signature import PublicKey, verify_signed

_VERSION_2 = bytes.fromhex("020101")
_EXTENSIONS = 0xA0
_TRUE = bytes.fromhex("0101ff")
"""DER of the BOOLEAN that makes an extension critical."""

_MAX_NUMBER = 1 << 160
_SHOWN_CHARACTERS = 128
"""Of what a list makes `cryptography` say of it, at most."""

_FOREIGN = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, Warning)
"""What `cryptography` raises for bytes that are no revocation list."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Crl:
    """A parsed revocation list; nothing in it is verified yet.

    `der` is the whole list, `tbs` its signed part, `algorithm` its signature's (`verifier.signature.ALGORITHMS`),
    `issuer` the issuer's DER name. Times are UTC milliseconds:
    `issued_ms` is thisUpdate; at `next_update_ms` and later the list is out of date. `number` is its crlNumber
    and `authority_key_identifier` bytes, None where absent; `entries` how many certificates it revokes.
    """

    der: bytes
    tbs: bytes
    algorithm: str
    signature: bytes
    issuer: bytes
    issued_ms: int
    next_update_ms: int
    number: int | None
    authority_key_identifier: bytes | None
    entries: int
    _entries: CertificateRevocationList | None

    def signed_by(self, key: PublicKey) -> bool:
        """Whether `key` made this list's signature, with the algorithm it names."""
        return verify_signed(key, self.algorithm, self.tbs, self.signature)

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
    algorithm, behind = x509.algorithm_of(data, end, whole)
    issuer = start + len(_VERSION_2) + behind - end
    if data[start:issuer] != _VERSION_2 + data[end:behind]:
        raise DerError("not version 2, or signed with another algorithm than it says")
    _, at = der.span_of(data, issuer, end, der.SEQUENCE, "issuer")
    issuer_name = data[issuer:at]
    issued_ms, at = x509.time_of(data, at, end)
    next_update_ms, at = x509.time_of(data, at, end)
    revoked = listed = at
    if data[at : at + 1] == b"\x30":
        _, listed = der.span_of(data, at, end, der.SEQUENCE, "entries")
    number, authority_key = _list_extensions(data, listed, end)
    if data.find(_TRUE, revoked, listed) >= 0:  # as a rule not even by chance, in 60 random serial numbers
        _refuse_critical_entries(data, revoked, listed)
    signature, stop = der.span_of(data, behind, whole, x509.BIT_STRING, "signature")
    if stop != whole or whole != len(data) or data[signature : signature + 1] != b"\x00":
        raise DerError("signature: unused bits, or something behind it")
    entries = load_der_x509_crl(data) if revoked < listed else None
    return Crl(
        der=data,
        tbs=data[tbs:end],
        algorithm=algorithm,
        signature=data[signature + 1 : whole],
        issuer=issuer_name,
        issued_ms=issued_ms,
        next_update_ms=next_update_ms,
        number=number,
        authority_key_identifier=authority_key,
        entries=0 if entries is None else len(entries),
        _entries=entries,
    )


def _list_extensions(data: bytes, at: int, end: int) -> tuple[int | None, bytes | None]:
    """(crlNumber, key identifier of the authority), None where they are absent."""
    start, stop = der.span_of(data, at, end, _EXTENSIONS, "list extensions")
    if stop != end:
        raise DerError("list extensions: something behind them")
    found = x509.extensions_of(data, start, stop, "list extensions")
    if any(critical and oid not in (x509.CRL_NUMBER, x509.AUTHORITY_KEY) for oid, (critical, _) in found.items()):
        raise DerError("list extensions: a critical one nobody here understands")
    number = authority_key = None
    if x509.CRL_NUMBER in found:
        value = der.read_all(found[x509.CRL_NUMBER][1], "crlNumber")
        number = der.read_unsigned(value, "crlNumber", _MAX_NUMBER)
    if x509.AUTHORITY_KEY in found:
        authority_key = x509.authority_key(found[x509.AUTHORITY_KEY][1])
    return number, authority_key


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
                _, critical, _, inner = x509.extension_of(data, inner, last)
                if critical:
                    raise DerError("an entry with a critical extension")
        at = stop
