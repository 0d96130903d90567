"""Keys, certificates and signatures of a forged device; elliptic keys are the same on every run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = 1_790_000_000
DAY = 86_400
CURVES: dict[str, ec.EllipticCurve] = {
    "p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "p521": ec.SECP521R1(), "k256": ec.SECP256K1(),
}  # fmt: skip
DIGESTS: dict[str, HashAlgorithm] = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}
RESPONDER_AUTH = "1.3.6.1.4.1.412.274.3"
REQUESTER_AUTH = "1.3.6.1.4.1.412.274.4"
CERT_SIGN, DATA_SIGN, KEY_AGREEMENT = (False, True), (True, False), (False, False)
"""Key usage as (digital signature, certificate signing)."""

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@cache
def key_of(name: str, kind: str = "p256") -> PrivateKey:
    """The key called `name`; RSA keys ("rsa2048") are new in every run."""
    if kind.startswith("rsa"):
        return rsa.generate_private_key(65537, int(kind[3:]))
    secret = int.from_bytes(hashlib.sha256(f"forge/spdm/{kind}/{name}".encode()).digest(), "big")
    return ec.derive_private_key(secret % (1 << 255) + 1, CURVES[kind])


def sign(key: PrivateKey, scheme: str, hash_name: str, message: bytes) -> bytes:
    """A signature as SPDM carries it: r‖s, or RSA's; `scheme` is "ecdsa", "rsa" or "rsa-pss"."""
    digest = DIGESTS[hash_name]
    if isinstance(key, rsa.RSAPrivateKey):
        if scheme == "rsa-pss":
            return key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        return key.sign(message, padding.PKCS1v15(), digest)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest, deterministic_signing=True)))
    size = (key.key_size + 7) // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cert:
    """What a certificate shall say; times are Unix seconds. None leaves an extension out.

    `issuer_name` and `signed_with` replace the issuer's name and key.
    """

    name: str
    key: str
    kind: str = "p256"
    serial: int = 7
    not_before: int = NOW - 100 * DAY
    not_after: int = NOW + 100 * DAY
    is_ca: bool | None = False
    path_length: int | None = None
    usage: tuple[bool, bool] | None = DATA_SIGN
    purposes: tuple[str, ...] = ()
    critical_extra: str | None = None
    issuer_name: str | None = None
    signed_with: str | None = None
    padding: int = 0


@lru_cache(maxsize=4096)
def mint(cert: Cert, issuer: Cert) -> bytes:
    """DER of `cert`, signed by `issuer` unless it says otherwise."""
    signer = key_of(cert.signed_with or issuer.key, issuer.kind)
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(cert.name))
        .issuer_name(_name(cert.issuer_name or issuer.name))
        .public_key(key_of(cert.key, cert.kind).public_key())
        .serial_number(cert.serial)
        .not_valid_before(datetime.fromtimestamp(cert.not_before, UTC))
        .not_valid_after(datetime.fromtimestamp(cert.not_after, UTC))
    )
    if cert.is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(cert.is_ca, cert.path_length), critical=True)
    if cert.usage is not None:
        data, certs = cert.usage
        usage = x509.KeyUsage(data, False, False, False, not data and not certs, certs, False, False, False)
        builder = builder.add_extension(usage, critical=True)
    if cert.purposes:
        oids = [x509.ObjectIdentifier(one) for one in cert.purposes]
        builder = builder.add_extension(x509.ExtendedKeyUsage(oids), critical=True)
    if cert.critical_extra is not None:
        extra = x509.UnrecognizedExtension(x509.ObjectIdentifier(cert.critical_extra), b"\x05\x00")
        builder = builder.add_extension(extra, critical=True)
    if cert.padding:
        filler = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.99999.1"), bytes(cert.padding))
        builder = builder.add_extension(filler, critical=False)
    digest = SHA512() if issuer.kind == "p521" else SHA256()
    return builder.sign(signer, digest).public_bytes(Encoding.DER)


def spki_of(name: str, kind: str) -> bytes:
    """DER of the public key called `name`."""
    return key_of(name, kind).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH.dotted_string
