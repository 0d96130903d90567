"""The facts of one X.509 certificate that chains are judged by (RFC 5280 §4); nothing in it is verified yet.

Read here, not by `cryptography`: its x509 module would write parts anew, and later releases refuse what AMD issues
(serial number zero). It still makes the public key, and checks that it is one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from verifier.abi import der, x509
from verifier.abi.der import DerError
from verifier.abi.pck import PCK_EXTENSION_OID
from verifier.errors import CertChainInvalid
from verifier.limits import MAX_CERTIFICATE_BYTES, MAX_CERTIFICATES_REMEMBERED, MAX_DEVICE_CERTIFICATES_REMEMBERED
from verifier.signature import PublicKey, load_public_key, verify_signed

_VERSION_3 = bytes.fromhex("a003020102")
_EXTENSIONS = 0xA3
SIGNATURE_ALGORITHM = "ecdsa-sha256"
"""The only one in chains, collateral and lists in Intel's format."""

_READ = frozenset({x509.BASIC_CONSTRAINTS, x509.KEY_USAGE, x509.SUBJECT_KEY, PCK_EXTENSION_OID})
"""Extensions that may be critical because somebody here reads them."""

_COMMON_ARCS = ("2.5.29.", "1.3.6.1.5.5.7.")
"""PKIX's own extensions; certificates of one device carry its vendor's as well."""

_SHOWN_CHARACTERS = 128
"""Of what a certificate makes us say of it, at most."""

_FOREIGN = (ValueError, TypeError, OverflowError, UnsupportedAlgorithm, Warning)
"""What bytes that are no certificate cause: `DerError`, and what `cryptography` raises for keys that are none."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Certificate:
    """A parsed certificate, version 3; nothing in it is verified yet.

    `der` is the whole certificate, and equality is that of these bytes; `tbs` its signed part, `spki` its
    SubjectPublicKeyInfo, `subject` and `issuer` its names, all DER as in the certificate. `algorithm` is the one of
    `signature`, by its name in `verifier.signature.ALGORITHMS`. `common_name` is the subject's only CN ("" if there
    is not exactly one). Times are UTC milliseconds, inclusive. `extensions` are the contents of extnValue by dotted
    OID, `critical` those that are. `is_ca`, `sign_certificates`, `sign_crls`, `sign_data` and the key identifiers
    (bytes) are None where the extension is absent; `unknown_critical` names critical extensions not read here.
    """

    der: bytes
    tbs: bytes
    algorithm: str
    signature: bytes
    subject: bytes
    issuer: bytes
    common_name: str
    serial_number: int
    not_before_ms: int
    not_after_ms: int
    public_key: PublicKey
    spki: bytes
    extensions: Mapping[str, bytes]
    critical: frozenset[str]
    is_ca: bool | None
    path_length: int | None
    sign_certificates: bool | None
    sign_crls: bool | None
    sign_data: bool | None
    subject_key_identifier: bytes | None
    authority_key_identifier: bytes | None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Certificate) and self.der == other.der

    def __hash__(self) -> int:
        return hash(self.der)

    @property
    def unknown_critical(self) -> tuple[str, ...]:
        """Critical extensions that are not read here, in the order of the certificate."""
        return tuple(oid for oid in self.extensions if oid in self.critical and oid not in _READ)

    @property
    def pck_extension(self) -> bytes | None:
        """Intel's extension, DER, or None."""
        return self.extensions.get(PCK_EXTENSION_OID)

    def signed_by(self, issuer: Certificate) -> bool:
        """Whether `issuer`'s key made this certificate's signature, with the algorithm it names."""
        return verify_signed(issuer.public_key, self.algorithm, self.tbs, self.signature)


def parse_certificate(data: bytes) -> Certificate:
    """The certificate of DER `data`. Raises `CertChainInvalid` for anything that is not one.

    Certificates of issuers and signers are remembered, parsed and no more: each host's chain carries the same ones.
    So are those of devices, apart, whose chains come again with every report; PCK certificates are not. What anybody
    sends is remembered, and makes what was not used for longest leave.
    """
    found = _SEEN.get(data) or _SEEN_DEVICES.get(data)
    if found is not None:
        return found
    try:
        certificate = _parse(data)
    except _FOREIGN as error:
        shown = str(error)[:_SHOWN_CHARACTERS]
        raise CertChainInvalid(f"not a usable certificate: {shown}", field="certificate") from error
    if all(oid.startswith(_COMMON_ARCS) for oid in certificate.extensions):
        _SEEN.keep(certificate)
    elif certificate.pck_extension is None:
        _SEEN_DEVICES.keep(certificate)
    return certificate


class _Remembered:
    """Parsed certificates by their DER, at most `most`; nothing about them is verified: that is for whoever uses them.

    The least recently used leaves. Threads may share it.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._map: OrderedDict[bytes, Certificate] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._map)

    def __contains__(self, data: bytes) -> bool:
        return data in self._map

    def get(self, data: bytes) -> Certificate | None:
        """The certificate of `data`, now the last to leave."""
        with self._lock:
            found = self._map.get(data)
            if found is not None:
                self._map.move_to_end(data)
            return found

    def keep(self, certificate: Certificate) -> None:
        """Remember it; the least recently used one leaves where there is no place."""
        with self._lock:
            self._map[certificate.der] = certificate
            self._map.move_to_end(certificate.der)
            while len(self._map) > self._most:
                self._map.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._map.clear()


_SEEN = _Remembered(MAX_CERTIFICATES_REMEMBERED)
_SEEN_DEVICES = _Remembered(MAX_DEVICE_CERTIFICATES_REMEMBERED)


def forget_certificates() -> None:
    """Forget every parsed certificate; for measurements of what parsing costs."""
    _SEEN.clear()
    _SEEN_DEVICES.clear()


def on_p256(one: Certificate) -> bool:
    """Whether its key is on P-256; other curves have no place in Intel's chains, and some take ten times as long."""
    return isinstance(one.public_key, ec.EllipticCurvePublicKey) and isinstance(one.public_key.curve, ec.SECP256R1)


def key_kind(one: Certificate) -> str:
    """What its key is, for people: the curve's name, or "rsa" and its bits."""
    key = one.public_key
    return key.curve.name if isinstance(key, ec.EllipticCurvePublicKey) else f"rsa{key.key_size}"


def _parse(data: bytes) -> Certificate:
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise DerError(f"certificate of {len(data)} bytes")
    tbs, whole = der.span_of(data, 0, len(data), der.SEQUENCE, "certificate")
    at, end = der.span_of(data, tbs, whole, der.SEQUENCE, "tbs")
    algorithm, behind = x509.algorithm_of(data, end, whole)
    signature, stop = der.span_of(data, behind, whole, x509.BIT_STRING, "signature")
    if stop != whole or whole != len(data) or data[signature : signature + 1] != b"\x00":
        raise DerError("certificate: unused bits in its signature, or something behind it")
    if not data.startswith(_VERSION_3, at):
        raise DerError("certificate: not version 3")
    serial, at = x509.serial_of(data, at + len(_VERSION_3), end)
    issuer = at + behind - end
    if data[at:issuer] != data[end:behind]:
        raise DerError("certificate: signed with another algorithm than it says")
    _, validity = der.span_of(data, issuer, end, der.SEQUENCE, "issuer")
    at, subject = der.span_of(data, validity, end, der.SEQUENCE, "validity")
    not_before_ms, at = x509.time_of(data, at, subject)
    not_after_ms, at = x509.time_of(data, at, subject)
    if at != subject:
        raise DerError("validity: something behind it")
    _, spki = der.span_of(data, subject, end, der.SEQUENCE, "subject")
    _, rest = der.span_of(data, spki, end, der.SEQUENCE, "public key")
    extensions = _extensions(data, rest, end)
    is_ca = path_length = sign_data = sign_certificates = sign_crls = None
    if (value := extensions.get(x509.BASIC_CONSTRAINTS)) is not None:
        is_ca, path_length = x509.basic_constraints(value[1])
    if (value := extensions.get(x509.KEY_USAGE)) is not None:
        sign_data, sign_certificates, sign_crls = x509.key_usage(value[1])
    subject_key, authority_key = extensions.get(x509.SUBJECT_KEY), extensions.get(x509.AUTHORITY_KEY)
    return Certificate(
        der=data,
        tbs=data[tbs:end],
        algorithm=algorithm,
        signature=data[signature + 1 : whole],
        subject=data[subject:spki],
        issuer=data[issuer:validity],
        common_name=x509.common_name(data[subject:spki]),
        serial_number=serial,
        not_before_ms=not_before_ms,
        not_after_ms=not_after_ms,
        public_key=load_public_key(data[spki:rest]),
        spki=data[spki:rest],
        extensions={oid: value for oid, (_, value) in extensions.items()},
        critical=frozenset(oid for oid, (critical, _) in extensions.items() if critical),
        is_ca=is_ca,
        path_length=path_length,
        sign_certificates=sign_certificates,
        sign_crls=sign_crls,
        sign_data=sign_data,
        subject_key_identifier=None if subject_key is None else x509.subject_key(subject_key[1]),
        authority_key_identifier=None if authority_key is None else x509.authority_key(authority_key[1]),
    )


def _extensions(data: bytes, at: int, end: int) -> dict[str, tuple[bool, bytes]]:
    if at == end:
        return {}
    start, stop = der.span_of(data, at, end, _EXTENSIONS, "extensions")
    if stop != end:
        raise DerError("certificate: something behind its extensions")
    return x509.extensions_of(data, start, stop, "extensions")
