"""Keys and signatures of a forged world, the same on every run: keys follow from names, nonces from RFC 6979."""

from __future__ import annotations

import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

CURVES: dict[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1(), "k256": ec.SECP256K1()}
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_SMALLEST_ORDER = 1 << 255


@cache
def key_of(name: str, curve: str = "p256") -> ec.EllipticCurvePrivateKey:
    """The key called `name`."""
    secret = int.from_bytes(hashlib.sha256(f"forge/{curve}/{name}".encode()).digest(), "big")
    return ec.derive_private_key(secret % _SMALLEST_ORDER + 1, CURVES[curve])


@cache
def point_of(name: str, curve: str = "p256") -> bytes:
    """X‖Y of its public key: 64 bytes on a 256-bit curve."""
    numbers, size = key_of(name, curve).public_key().public_numbers(), key_of(name, curve).key_size // 8
    return numbers.x.to_bytes(size, "big") + numbers.y.to_bytes(size, "big")


def sign(name: str, message: bytes, curve: str = "p256") -> bytes:
    """r‖s over SHA-256 of `message`."""
    key = key_of(name, curve)
    r, s = decode_dss_signature(key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
    size = key.key_size // 8
    return r.to_bytes(size, "big") + s.to_bytes(size, "big")


def other_s(signature: bytes) -> bytes:
    """(r, n - s): the other valid signature of the same key over the same message."""
    return signature[:32] + (P256_ORDER - int.from_bytes(signature[32:], "big")).to_bytes(32, "big")
