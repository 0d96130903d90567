"""Certificates and CRLs as Intel issues them, each field of them open to a lie before it is signed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.forge.dcap.keys import key_of
from tests.forge.dcap.platforms import integer, sequence, tlv

ROOT_NAME = "Intel SGX Root CA"
PLATFORM_CA_NAME = "Intel SGX PCK Platform CA"
PROCESSOR_CA_NAME = "Intel SGX PCK Processor CA"
PCK_NAME = "Intel SGX PCK Certificate"
TCB_SIGNER_NAME = "Intel SGX TCB Signing"
SGX_EXTENSION = "1.2.840.113741.1.13.1"

CERTS_AND_CRLS = (False, False, True, True)
ONLY_CERTS = (False, False, True, False)
ONLY_CRLS = (False, False, False, True)
DATA = (True, True, False, False)
"""Key usage as (digital signature, content commitment, certificate signing, CRL signing)."""

_VERSION = bytes.fromhex("a003020102")
_DIGESTS: dict[str, HashAlgorithm] = {"sha256": SHA256(), "sha384": SHA384()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cert:
    """What a certificate shall say; times are Unix seconds. None leaves an extension out.

    `issuer_name` and `signed_with` replace the issuer's name and key, without which the certificate is its issuer's.
    """

    common_name: str
    key: str
    serial: int
    not_before: int
    not_after: int
    is_ca: bool | None = False
    path_length: int | None = None
    usage: tuple[bool, bool, bool, bool] | None = DATA
    organization: str = "Intel Corporation"
    extension: bytes | None = None
    extension_oid: str = SGX_EXTENSION
    critical_extra: str | None = None
    curve: str = "p256"
    digest: str = "sha256"
    issuer_name: str | None = None
    signed_with: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Crl:
    """What a revocation list shall say; `revoked` are serial numbers, times Unix seconds."""

    this_update: int
    next_update: int
    revoked: tuple[int, ...] = ()
    number: int | None = 1
    authority_key: bool = True
    critical_extra: str | None = None
    issuer_name: str | None = None
    signed_with: str | None = None
    digest: str = "sha256"


def utc(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def name_of(common_name: str, organization: str = "Intel Corporation") -> x509.Name:
    """A name in Intel's order."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            x509.NameAttribute(NameOID.LOCALITY_NAME, "Santa Clara"),
            x509.NameAttribute(NameOID.STATE_OR_PROVINCE_NAME, "CA"),
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
        ]
    )


def _usage(flags: tuple[bool, bool, bool, bool]) -> x509.KeyUsage:
    digital_signature, content_commitment, key_cert_sign, crl_sign = flags
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=content_commitment,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _extra(oid: str) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), b"\x05\x00")


@lru_cache(maxsize=4096)
def issue(cert: Cert, issuer: Cert | None = None) -> bytes:
    """DER of the certificate; without `issuer` it is self-signed."""
    above = issuer or cert
    public = key_of(cert.key, cert.curve).public_key()
    named = name_of(cert.issuer_name) if cert.issuer_name else name_of(above.common_name, above.organization)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(cert.common_name, cert.organization))
        .issuer_name(named)
        .public_key(public)
        .serial_number(cert.serial or 1)
        .not_valid_before(utc(cert.not_before))
        .not_valid_after(utc(cert.not_after))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key_of(above.key, above.curve).public_key()), False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
    )
    if cert.usage is not None:
        builder = builder.add_extension(_usage(cert.usage), critical=True)
    if cert.is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(cert.is_ca, cert.path_length), critical=True)
    if cert.extension is not None:
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(cert.extension_oid), cert.extension)
        builder = builder.add_extension(value, critical=False)
    if cert.critical_extra is not None:
        builder = builder.add_extension(_extra(cert.critical_extra), critical=True)
    signer = key_of(cert.signed_with) if cert.signed_with else key_of(above.key, above.curve)
    made = builder.sign(signer, _DIGESTS[cert.digest], ecdsa_deterministic=True)
    if cert.serial:
        return made.public_bytes(Encoding.DER)
    # The builder makes no serial number of zero: it is written into the signed part, which is signed anew.
    at = made.tbs_certificate_bytes.index(_VERSION + integer(1)) + len(_VERSION)
    tbs = made.tbs_certificate_bytes[:at] + integer(0) + made.tbs_certificate_bytes[at + len(integer(1)) :]
    whole = made.public_bytes(Encoding.DER)
    algorithm = whole[whole.index(made.tbs_certificate_bytes) + len(tbs) :]
    algorithm = algorithm[: algorithm.index(tlv(0x03, b"\x00" + made.signature))]
    signature = signer.sign(tbs, ec.ECDSA(_DIGESTS[cert.digest], deterministic_signing=True))
    return sequence(tbs, algorithm, tlv(0x03, b"\x00" + signature))


@lru_cache(maxsize=4096)
def issue_crl(crl: Crl, issuer: Cert) -> bytes:
    """DER of the list, issued by `issuer`."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name_of(crl.issuer_name) if crl.issuer_name else name_of(issuer.common_name, issuer.organization))
        .last_update(utc(crl.this_update))
        .next_update(utc(crl.next_update))
    )
    if crl.number is not None:
        builder = builder.add_extension(x509.CRLNumber(crl.number), critical=False)
    if crl.authority_key:
        public = key_of(issuer.key, issuer.curve).public_key()
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    if crl.critical_extra is not None:
        builder = builder.add_extension(_extra(crl.critical_extra), critical=True)
    for serial in crl.revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(utc(crl.this_update)).build()
        builder = builder.add_revoked_certificate(entry)
    signer = key_of(crl.signed_with) if crl.signed_with else key_of(issuer.key, issuer.curve)
    return builder.sign(signer, _DIGESTS[crl.digest], ecdsa_deterministic=True).public_bytes(Encoding.DER)
