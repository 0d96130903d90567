"""The facts of one X.509 certificate that a PCK chain is judged by; `cryptography`'s errors end here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtensionOID, NameOID

from verifier.abi import der
from verifier.abi.der import Der, DerError
from verifier.abi.pck import PCK_EXTENSION_OID
from verifier.errors import CertChainInvalid
from verifier.limits import MAX_CERTIFICATE_BYTES

_ECDSA_SHA256 = bytes.fromhex("06082a8648ce3d040302")
"""Content of the AlgorithmIdentifier ecdsa-with-SHA256 (RFC 5758): its OID, no parameters."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """A parsed certificate with an EC key, signed with ecdsa-with-SHA256; nothing in it is verified yet.

    `subject` and `issuer` are DER names, `common_name` the subject's only CN ("" if there is not exactly one).
    Times are UTC milliseconds, inclusive. `is_ca`, `sign_certificates` and `sign_data` are None where the
    extension is absent; `unknown_critical` names critical extensions nobody here understands.
    """

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
    sign_data: bool | None
    unknown_critical: tuple[str, ...]
    pck_extension: bytes | None

    def signed_by(self, issuer: Certificate) -> bool:
        """Whether `issuer`'s key made this certificate's signature."""
        try:
            issuer.public_key.verify(self.signature, self.tbs, ec.ECDSA(SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True


def parse_certificate(data: bytes) -> Certificate:
    """The certificate of DER `data`. Raises `CertChainInvalid` for anything that is not one."""
    try:
        _precheck(data)
        return _facts(x509.load_der_x509_certificate(data))
    except _FOREIGN as error:
        raise CertChainInvalid(f"not a usable certificate: {error}", field="certificate") from error


def _precheck(data: bytes) -> None:
    """Refuse what `cryptography` only warns about: odd serial numbers and signature parameters."""
    if len(data) > MAX_CERTIFICATE_BYTES:
        raise DerError(f"certificate of {len(data)} bytes")
    certificate = der.read_sequence(der.read_all(data, "certificate"), "certificate")
    if len(certificate) != 3:
        raise DerError("certificate: not three elements")
    tbs = der.read_sequence(certificate[0], "tbs", 1)
    if len(tbs) < 7 or tbs[0] != Der(der.CONTEXT_0, b"\x02\x01\x02"):
        raise DerError("certificate: not version 3")
    if der.read_unsigned(tbs[1], "serial", 1 << 160) == 0:
        raise DerError("certificate: serial number 0")
    for algorithm in (tbs[2], certificate[1]):
        if algorithm.expect(der.SEQUENCE, "signature algorithm") != _ECDSA_SHA256:
            raise DerError("certificate: not signed with ecdsa-with-SHA256")


def _facts(certificate: x509.Certificate) -> Certificate:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DerError("certificate: not an EC key")
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    is_ca = path_length = sign_certificates = sign_data = pck_extension = None
    unknown_critical = []
    for extension in certificate.extensions:
        value = extension.value
        if isinstance(value, x509.BasicConstraints):
            is_ca, path_length = value.ca, value.path_length
        elif isinstance(value, x509.KeyUsage):
            sign_certificates, sign_data = value.key_cert_sign, value.digital_signature
        elif extension.oid.dotted_string == PCK_EXTENSION_OID and isinstance(value, x509.UnrecognizedExtension):
            pck_extension = value.value
        elif extension.critical and extension.oid != ExtensionOID.SUBJECT_KEY_IDENTIFIER:
            unknown_critical.append(extension.oid.dotted_string)
    return Certificate(
        tbs=certificate.tbs_certificate_bytes,
        signature=certificate.signature,
        subject=certificate.subject.public_bytes(),
        issuer=certificate.issuer.public_bytes(),
        common_name=str(names[0].value) if len(names) == 1 else "",
        serial_number=certificate.serial_number,
        not_before_ms=_ms(certificate.not_valid_before_utc),
        not_after_ms=_ms(certificate.not_valid_after_utc),
        public_key=key,
        spki=key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        is_ca=is_ca,
        path_length=path_length,
        sign_certificates=sign_certificates,
        sign_data=sign_data,
        unknown_critical=tuple(unknown_critical),
        pck_extension=pck_extension,
    )


def _ms(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000
