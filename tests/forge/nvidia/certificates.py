"""Certificates, revocation lists and OCSP responses as NVIDIA's PKI issues them, each field open to a lie."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from tests.forge.dcap.certificates import utc
from tests.forge.dcap.keys import key_of
from verifier.abi import der
from verifier.abi.ocsp import HASHES, OcspEntry, OcspResponse, encode_response

DIGESTS: dict[str, SHA256 | SHA384] = {"sha256": SHA256(), "sha384": SHA384()}
ALGORITHM_IDS = {
    "sha256": bytes.fromhex("300a06082a8648ce3d040302"),
    "sha384": bytes.fromhex("300a06082a8648ce3d040303"),
}
OCSP_SIGNING = x509.ObjectIdentifier("1.3.6.1.5.5.7.3.9")

CERTS = (False, True, True)
DATA = (True, False, False)
"""Key usage as (digital signature, certificate signing, CRL signing)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cert:
    """What a certificate shall say; times are Unix seconds. None leaves an extension out.

    `extensions` are (dotted OID, value, critical); `issuer_name` and `signed_with` replace the issuer's.
    """

    common_name: str
    key: str
    serial: int
    not_before: int = 1_600_000_000
    not_after: int = 253_402_300_799
    is_ca: bool | None = True
    path_length: int | None = None
    usage: tuple[bool, bool, bool] | None = CERTS
    curve: str = "p384"
    digest: str = "sha384"
    extensions: tuple[tuple[str, bytes, bool], ...] = ()
    purposes: tuple[x509.ObjectIdentifier, ...] = ()
    issuer_name: str | None = None
    signed_with: str | None = None


def spki_of(name: str, curve: str = "p384") -> bytes:
    return key_of(name, curve).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sign(name: str, message: bytes, digest: str = "sha384", curve: str = "p384") -> bytes:
    """DER signature, the same on every run."""
    return key_of(name, curve).sign(message, ec.ECDSA(DIGESTS[digest], deterministic_signing=True))


def raw(signature: bytes, order: str = "big") -> bytes:
    """r‖s of a DER signature on P-384."""
    r, s = decode_dss_signature(signature)
    return r.to_bytes(48, order) + s.to_bytes(48, order)  # type: ignore[arg-type]


def name_of(common_name: str) -> x509.Name:
    return x509.Name([
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, "NVIDIA Corporation"),
    ])  # fmt: skip


def _usage(flags: tuple[bool, bool, bool]) -> x509.KeyUsage:
    data, certificates, lists = flags
    return x509.KeyUsage(
        digital_signature=data, key_cert_sign=certificates, crl_sign=lists, content_commitment=False,
        key_encipherment=False, data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip


@lru_cache(maxsize=4096)
def issue(cert: Cert, issuer: Cert | None = None) -> bytes:
    """DER of the certificate; without `issuer` it is self-signed."""
    above = issuer or cert
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of(cert.common_name))
        .issuer_name(name_of(cert.issuer_name or above.common_name))
        .public_key(key_of(cert.key, cert.curve).public_key())
        .serial_number(cert.serial)
        .not_valid_before(utc(cert.not_before))
        .not_valid_after(utc(cert.not_after))
    )
    if cert.is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(cert.is_ca, cert.path_length), critical=True)
    if cert.usage is not None:
        builder = builder.add_extension(_usage(cert.usage), critical=True)
    if cert.purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(cert.purposes), critical=True)
    for oid, value, critical in cert.extensions:
        builder = builder.add_extension(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value), critical)
    signer = key_of(cert.signed_with or above.key, "p384" if cert.signed_with else above.curve)
    return builder.sign(signer, DIGESTS[cert.digest], ecdsa_deterministic=True).public_bytes(Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class List:
    """A revocation list of `issuer` (its place below the root); times are Unix seconds."""

    issuer: int
    this_update: int
    next_update: int
    revoked: tuple[int, ...] = ()
    signed_with: str | None = None


def issue_list(what: List, issuer: Cert) -> bytes:
    """DER of the list."""
    public = key_of(issuer.key, issuer.curve).public_key()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name_of(issuer.common_name))
        .last_update(utc(what.this_update))
        .next_update(utc(what.next_update))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    for serial in what.revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(utc(what.this_update)).build()
        builder = builder.add_revoked_certificate(entry)
    signer = key_of(what.signed_with or issuer.key, "p384")
    return builder.sign(signer, SHA384(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def same_bytes(data: bytes) -> bytes:
    return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An OCSP response about the certificate at place `about` below the root; times are Unix seconds.

    `by_issuer`: the issuer answers itself. `responder` are fields of the responder's certificate that differ,
    `responder_issuer` another issuer's place. `signed_with` is another key; `tbs` and `sent` change bytes before and
    after signing; `certificates` are brought along or not.
    """

    about: int
    this_update: int
    next_update: int | None
    status: str = "good"
    reason: int | None = None
    produced: int | None = None
    hash_name: str = "sha384"
    by_issuer: bool = False
    by_key: bool = False
    responder: dict[str, object] = field(default_factory=dict, hash=False)
    responder_issuer: int | None = None
    signed_with: str | None = None
    digest: str = "sha384"
    issuer_key: bytes | None = None
    extensions: bytes = b""
    certificates: bool = True
    tbs: Callable[[bytes], bytes] = same_bytes
    sent: Callable[[bytes], bytes] = same_bytes


def key_bits(name: str, curve: str = "p384") -> bytes:
    point = key_of(name, curve).public_key()
    return point.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def answer_bytes(answer: Answer, chain: tuple[Cert, ...]) -> bytes:
    """DER of the response; `chain` is root first."""
    subject, issuer = chain[answer.about], chain[answer.about - 1]
    fields: dict[str, object] = {
        "common_name": "NVIDIA OCSP Responder", "key": "responder", "serial": 0x0C5, "is_ca": None, "usage": DATA,
        "not_before": answer.this_update - 86_400, "not_after": answer.this_update + 30 * 86_400,
        "purposes": (OCSP_SIGNING,),
    }  # fmt: skip
    responder = issuer if answer.by_issuer else Cert(**(fields | answer.responder))  # type: ignore[arg-type]
    above = issuer if answer.responder_issuer is None else chain[answer.responder_issuer]
    digest = hashlib.new(answer.hash_name)

    def hashed(data: bytes) -> bytes:
        found = digest.copy()
        found.update(data)
        return found.digest()

    oid = next(oid for oid, name in HASHES.items() if name == answer.hash_name)
    entry = OcspEntry(
        hash_id=der.sequence(der.Der(der.OBJECT_ID, oid)).encode(),
        issuer_name_hash=hashed(name_of(issuer.common_name).public_bytes()),
        issuer_key_hash=hashed(answer.issuer_key or key_bits(issuer.key, issuer.curve)),
        serial_number=subject.serial,
        status=answer.status,
        revoked_ms=(answer.this_update - 60) * 1000 if answer.status == "revoked" else None,
        reason=answer.reason,
        this_update_ms=answer.this_update * 1000,
        next_update_ms=None if answer.next_update is None else answer.next_update * 1000,
        extensions=b"",
    )
    key = hashlib.sha1(key_bits(responder.key, responder.curve), usedforsecurity=False).digest()
    tbs = OcspResponse(
        der=b"", tbs=b"", algorithm="", signature=b"",
        responder_name=None if answer.by_key else name_of(responder.common_name).public_bytes(),
        responder_key=key if answer.by_key else None,
        produced_ms=(answer.this_update if answer.produced is None else answer.produced) * 1000,
        entries=(entry,), nonce=None, extensions=answer.extensions, certificates=(),
    ).encode_tbs()  # fmt: skip
    tbs = answer.tbs(tbs)
    signer, curve = answer.signed_with or responder.key, responder.curve if answer.signed_with is None else "p384"
    signature = sign(signer, tbs, answer.digest, curve)
    brought = () if answer.by_issuer or not answer.certificates else (issue(responder, above),)
    return answer.sent(encode_response(tbs, ALGORITHM_IDS[answer.digest], signature, brought))
