"""Signatures: ECDSA P-256 with SHA-256 over raw r‖s, the one on the hot path (DESIGN §5), and what vendors use."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_public_key

from verifier.errors import SessionKeyInvalid, SignatureInvalid, SignatureNotLowS

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order n of the group (SEC 2, secp256r1)."""

RAW_SIGNATURE_BYTES = 64
UNCOMPRESSED_POINT_BYTES = 65

_HALF_ORDER = P256_ORDER // 2
_ECDSA_SHA256 = ec.ECDSA(Prehashed(SHA256()))
_ECDSA = {"sha256": _ECDSA_SHA256, "sha384": ec.ECDSA(Prehashed(SHA384())), "sha512": ec.ECDSA(Prehashed(SHA512()))}
_P256 = ec.SECP256R1()

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey
"""Keys that certificates may hold; `load_public_key` says which curves and sizes."""

_HASHES: dict[str, HashAlgorithm] = {"sha256": SHA256(), "sha384": SHA384(), "sha512": SHA512()}
_RSA_BITS = range(2048, 4096 + 1)
_RSA_EXPONENT = 65537

ALGORITHMS = tuple(f"{scheme}-{name}" for scheme in ("ecdsa", "rsa-pss", "rsa") for name in _HASHES)
"""Signature algorithms by name: ECDSA (DER signatures), RSASSA-PSS (salt as long as the hash), RSASSA-PKCS1-v1_5."""


@lru_cache(maxsize=64)
def load_session_key(point: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key of an uncompressed point, 65 bytes 04‖X‖Y, checked to be on the curve.

    Keep the object: making it costs a tenth of a verification, and it takes 2 KB. The last ones are remembered, so that
    whoever checks the same session's signature and its evidence holds one. Raises `SessionKeyInvalid`.
    """
    if len(point) != UNCOMPRESSED_POINT_BYTES or point[0] != 0x04:
        raise SessionKeyInvalid("not an uncompressed P-256 point of 65 bytes", field="session_public_key")
    key = p256_key(point[1:])
    if key is None:
        raise SessionKeyInvalid("the point is not on P-256", field="session_public_key")
    return key


def p256_key(xy: bytes) -> ec.EllipticCurvePublicKey | None:
    """The P-256 key of X‖Y, 64 bytes big-endian, or None if that is no point of the curve."""
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(_P256, b"\x04" + xy)
    except ValueError:
        return None


def load_public_key(spki: bytes) -> PublicKey:
    """The key of a DER SubjectPublicKeyInfo: EC on any named curve, or RSA of 2048 to 4096 bits with e = 65537.

    Which curves and sizes may sign what, profiles of chains say, before they use one: some are slow. Raises
    `ValueError`, and what `cryptography` raises for bytes that are no key.
    """
    key = load_der_public_key(spki)
    if isinstance(key, ec.EllipticCurvePublicKey):
        return key
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS and key.public_numbers().e == _RSA_EXPONENT:
        return key
    raise ValueError("neither an EC key nor an RSA key of 2048 to 4096 bits with the usual exponent")


def verify_signed(key: PublicKey, algorithm: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` over `message` verifies under `key` with `algorithm`, one of `ALGORITHMS`.

    ECDSA signatures are DER, as certificates and revocation lists carry them. A key of another kind: False.
    """
    scheme, _, hash_name = algorithm.rpartition("-")
    chosen = _HASHES[hash_name]
    # Hashed here: hashlib takes less time than the object that the library would make for it.
    digest = hashlib.new(hash_name, message).digest()
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            if scheme != "ecdsa":
                return False
            key.verify(signature, digest, _ECDSA[hash_name])
        elif scheme == "rsa-pss":
            pss = padding.PSS(padding.MGF1(chosen), chosen.digest_size)
            key.verify(signature, digest, pss, Prehashed(chosen))
        elif scheme == "rsa":
            key.verify(signature, digest, padding.PKCS1v15(), Prehashed(chosen))
        else:
            return False
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_raw_ecdsa(key: PublicKey, hash_name: str, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (r‖s big-endian, each as long as the curve's field) verifies under `key`.

    `hash_name` is "sha256", "sha384" or "sha512". False for an RSA key or a signature of another length.
    """
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    size = (key.key_size + 7) // 8
    if len(signature) != 2 * size:
        return False
    r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
    return verify_signed(key, f"ecdsa-{hash_name}", message, encode_dss_signature(r, s))


def verify_raw(key: PublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (r‖s, 64 bytes big-endian, either s) over `message` verifies under `key`, with SHA-256."""
    return _verify_digest(key, sha256(message).digest(), signature)


def _verify_digest(key: PublicKey, digest: bytes, signature: bytes) -> bool:
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(encode_dss_signature(r, s), digest, _ECDSA_SHA256)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_record_signature(
    key: ec.EllipticCurvePublicKey, preimage: bytes, signature: bytes, *, digest: bytes | None = None
) -> None:
    """Check a session's signature over `preimage` (as `schemas.codec` makes it).

    `digest`: SHA-256 of `preimage` where the caller has it; else it is hashed here. `signature` is r‖s, 64 bytes
    big-endian, s in the lower half, so that a record has one signature per nonce.
    Raises `SignatureInvalid` or `SignatureNotLowS`.
    """
    if len(signature) != RAW_SIGNATURE_BYTES:
        raise SignatureInvalid(f"a signature of {len(signature)} bytes instead of 64", field="signature")
    if int.from_bytes(signature[32:], "big") > _HALF_ORDER:
        raise SignatureNotLowS("s lies in the upper half", field="signature")
    if not _verify_digest(key, sha256(preimage).digest() if digest is None else digest, signature):
        raise SignatureInvalid("the signature does not verify under the session key", field="signature")
