"""Signatures as records carry them: ECDSA P-256 with SHA-256, raw r‖s, s in the lower half (DESIGN §5)."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from verifier.signature import P256_ORDER

_ECDSA_SHA256 = ec.ECDSA(SHA256())


def sign_raw(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    """Signature of `message` (hashed here): r‖s, 64 bytes big-endian, low s."""
    r, s = decode_dss_signature(key.sign(message, _ECDSA_SHA256))
    return r.to_bytes(32, "big") + min(s, P256_ORDER - s).to_bytes(32, "big")


def public_point(key: ec.EllipticCurvePublicKey) -> bytes:
    """The key as an uncompressed point, 04‖X‖Y, 65 bytes."""
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
