"""Keys and signatures of a forged world, the same on every run: RSA-PSS with a salt of the message, RFC 6979."""

from __future__ import annotations

import hashlib
from functools import cache

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.forge.snp.primes import PRIMES

CURVES: dict[str, ec.EllipticCurve] = {"p384": ec.SECP384R1(), "p256": ec.SECP256R1()}
P384_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
EXPONENT = 65537


@cache
def ec_key(name: str, curve: str = "p384") -> ec.EllipticCurvePrivateKey:
    """The key called `name`."""
    secret = int.from_bytes(hashlib.sha256(f"forge/snp/{curve}/{name}".encode()).digest(), "big")
    return ec.derive_private_key((secret >> 1) + 1, CURVES[curve])


def ec_spki(name: str, curve: str = "p384") -> bytes:
    return ec_key(name, curve).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def ec_sign(name: str, message: bytes) -> tuple[int, int]:
    """(r, s) over SHA-384 of `message`, by a key on P-384."""
    return decode_dss_signature(ec_key(name).sign(message, ec.ECDSA(SHA384(), deterministic_signing=True)))


@cache
def rsa_spki(name: str) -> bytes:
    p, q = PRIMES[name]
    return rsa.RSAPublicNumbers(EXPONENT, p * q).public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip


def rsa_sign(name: str, message: bytes, hash_name: str = "sha384") -> bytes:
    """RSASSA-PSS (RFC 8017 §8.1.1), its salt a digest of the message."""
    p, q = PRIMES[name]
    modulus = p * q
    size, digest = (modulus.bit_length() + 7) // 8, hashlib.new(hash_name, message).digest()
    salt = hashlib.new(hash_name, b"salt" + digest).digest()
    inner = hashlib.new(hash_name, bytes(8) + digest + salt).digest()
    block = bytes(size - len(salt) - len(inner) - 2) + b"\x01" + salt
    masked = bytearray(a ^ b for a, b in zip(block, _mask(inner, len(block), hash_name), strict=True))
    masked[0] &= 0x7F
    number = int.from_bytes(bytes(masked) + inner + b"\xbc", "big")
    exponent = pow(EXPONENT, -1, (p - 1) * (q - 1))
    low, high = pow(number % q, exponent % (q - 1), q), pow(number % p, exponent % (p - 1), p)
    return (low + q * ((high - low) * pow(q, -1, p) % p)).to_bytes(size, "big")


def _mask(seed: bytes, size: int, hash_name: str) -> bytes:
    """MGF1."""
    found = b""
    for counter in range(-(-size // hashlib.new(hash_name).digest_size)):
        found += hashlib.new(hash_name, seed + counter.to_bytes(4, "big")).digest()
    return found[:size]
