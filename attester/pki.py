"""A PCK hierarchy of our own, shaped like Intel's: root → Platform CA → PCK certificate with Intel's extension."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

from schemas.errors import ConfigError
from verifier.abi.pck import PCK_EXTENSION_OID, PckExtension
from verifier.trust.roots import SIMULATED_ROLES

NOT_BEFORE = datetime(2020, 1, 1, tzinfo=UTC)
NOT_AFTER = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
ROOT_FILE = "simulated-root.pem"
"""Root key and certificate of a simulated TEE, mode 0600."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a certificate shall say. `is_ca` and `sign_certificates` None leave the extension out."""

    common_name: str
    is_ca: bool | None
    path_length: int | None = None
    sign_certificates: bool | None = None
    organization: str = "EnclaveScale SIMULATION, not hardware"
    not_before: datetime = NOT_BEFORE
    not_after: datetime = NOT_AFTER
    pck_extension: bytes | None = None
    critical_extra: str | None = None


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        """The certificate's DER."""
        return self.certificate.public_bytes(Encoding.DER)


ROOT = Template(common_name=SIMULATED_ROLES.root, is_ca=True, path_length=1, sign_certificates=True)
PLATFORM_CA = Template(common_name=SIMULATED_ROLES.issuers[0], is_ca=True, path_length=0, sign_certificates=True)
PCK = Template(common_name=SIMULATED_ROLES.leaf, is_ca=False, sign_certificates=False)


def issue(
    template: Template,
    issuer: Issued | None = None,
    *,
    curve: ec.EllipticCurve | None = None,
    issuer_name: x509.Name | None = None,
) -> Issued:
    """A fresh key (P-256 unless `curve` says otherwise) and its certificate, self-signed without `issuer`."""
    key = ec.generate_private_key(curve or ec.SECP256R1())
    subject = _name(template)
    named = issuer_name or (issuer.certificate.subject if issuer else subject)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(template.not_before)
        .not_valid_after(template.not_after)
    )
    if template.is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(template.is_ca, template.path_length), critical=True)
    if template.sign_certificates is not None:
        builder = builder.add_extension(_key_usage(template.sign_certificates), critical=True)
    if template.pck_extension is not None:
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(PCK_EXTENSION_OID), template.pck_extension)
        builder = builder.add_extension(value, critical=False)
    if template.critical_extra is not None:
        extra = x509.UnrecognizedExtension(x509.ObjectIdentifier(template.critical_extra), b"\x05\x00")
        builder = builder.add_extension(extra, critical=True)
    return Issued(builder.sign(issuer.key if issuer else key, SHA256()), key)


def pck_template(extension: PckExtension) -> Template:
    """Template of a simulated PCK certificate for the platform of `extension`."""
    return replace(PCK, pck_extension=extension.encode())


def load_or_create_root(directory: Path) -> Issued:
    """The simulated root kept in `directory`, made on first use; processes that race for it agree on one.

    Raises `ConfigError` if the file there is something else.
    """
    path = directory / ROOT_FILE
    if not path.exists():
        directory.mkdir(parents=True, exist_ok=True)
        _publish(path, issue(ROOT))
    pem = path.read_bytes()
    try:
        key, certificate = load_pem_private_key(pem, password=None), x509.load_pem_x509_certificate(pem)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{ROOT_FILE} does not hold a key and a certificate", field="directory") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(f"{ROOT_FILE} does not hold an EC key and its certificate", field="directory")
    return Issued(certificate, key)


def _publish(path: Path, root: Issued) -> None:
    """Write beside `path` and link into place: readers see a whole file, and the first writer wins."""
    pem = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem + root.certificate.public_bytes(Encoding.PEM))
        try:
            os.link(temporary, path)
        except FileExistsError:
            return  # another process was first; its root is the one
    finally:
        temporary.unlink()


def _name(template: Template) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, template.common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, template.organization),
        ]
    )


def _key_usage(sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=not sign_certificates,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )
