"""ECDSA P-256 with SHA-256 over raw r‖s: the one signature on the hot path (DESIGN §5)."""

from __future__ import annotations

from hashlib import sha256

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from verifier.errors import SessionKeyInvalid, SignatureInvalid, SignatureNotLowS

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order n of the group (SEC 2, secp256r1)."""

RAW_SIGNATURE_BYTES = 64
UNCOMPRESSED_POINT_BYTES = 65

_HALF_ORDER = P256_ORDER // 2
_ECDSA_SHA256 = ec.ECDSA(Prehashed(SHA256()))
_P256 = ec.SECP256R1()


def load_session_key(point: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key of an uncompressed point, 65 bytes 04‖X‖Y, checked to be on the curve.

    Keep the object: making it costs a tenth of a verification. Raises `SessionKeyInvalid`.
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


def verify_der(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (DER, as certificates and revocation lists carry it) over `message` verifies under `key`."""
    try:
        # Hashed here: hashlib takes less time than the object that the library would make for it.
        key.verify(signature, sha256(message).digest(), _ECDSA_SHA256)
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_raw(key: ec.EllipticCurvePublicKey, message: bytes, signature: bytes) -> bool:
    """Whether `signature` (r‖s, 64 bytes big-endian, either s) over `message` verifies under `key`."""
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    return verify_der(key, message, encode_dss_signature(r, s))


def verify_record_signature(key: ec.EllipticCurvePublicKey, preimage: bytes, signature: bytes) -> None:
    """Check a session's signature over `preimage` (as `schemas.codec` makes it; hashed here).

    `signature` is r‖s, 64 bytes big-endian, s in the lower half, so that a record has one signature per nonce.
    Raises `SignatureInvalid` or `SignatureNotLowS`.
    """
    if len(signature) != RAW_SIGNATURE_BYTES:
        raise SignatureInvalid(f"a signature of {len(signature)} bytes instead of 64", field="signature")
    if int.from_bytes(signature[32:], "big") > _HALF_ORDER:
        raise SignatureNotLowS("s lies in the upper half", field="signature")
    if not verify_raw(key, preimage, signature):
        raise SignatureInvalid("the signature does not verify under the session key", field="signature")
