"""What ties devices to a session: the nonces their reports must carry, and the digest of who they are.

A GPU signs any 32-byte nonce for anyone, so a nonce of its own proves nothing about the session. Here every nonce is
a hash of the session's report data, which the CPU quote signs and which is itself H(binding): a report that carries
it was made for this key, host and beacon, and for this subject. What it does not prove is that the device is attached
to that CPU; enrolment says which devices are (docs/evidence/composite.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

NVIDIA = "nvidia"
SPDM = "spdm"
DEVICE_KINDS = (NVIDIA, SPDM)
"""Kinds of device evidence, as a nonce names them."""

CHALLENGE_INDEX, MEASUREMENTS_INDEX = 0, 1
"""Nonces of one SPDM transcript: of its CHALLENGE, and of its last signed GET_MEASUREMENTS."""

_NONCE_TAG = b"enclavescale/device-nonce/1\x00"
_DEVICES_TAG = b"enclavescale/devices/1\x00"
_DIGEST_BYTES = 32
_REPORT_DATA_BYTES = 64


def device_nonce(report_data: bytes, kind: str, subject: str, index: int = 0) -> bytes:
    """The nonce (32 bytes) for the evidence of one device in the session of `report_data` (64 bytes).

    `kind` is "nvidia" or "spdm", `subject` the evidence item's, `index` tells the nonces of one device apart.
    SHA-256 over a tag, the report data, kind and subject each behind its length, and the index; numbers are 4 bytes,
    little-endian. `ValueError` for arguments that no input can cause.
    """
    if len(report_data) != _REPORT_DATA_BYTES or kind not in DEVICE_KINDS or not 0 <= index < 1 << 32:
        raise ValueError("report data of 64 bytes, a kind of device evidence, an index of 32 bits")
    digest = hashlib.sha256(_NONCE_TAG + report_data)
    for text in (kind.encode(), subject.encode()):
        digest.update(len(text).to_bytes(4, "little") + text)
    digest.update(index.to_bytes(4, "little"))
    return digest.digest()


def gpu_identities_digest(key_digests: Iterable[bytes]) -> bytes:
    """What a binding says of its devices: SHA-256 over a tag and their key digests (32 bytes each), sorted.

    `ValueError` for a digest of another length.
    """
    ordered = sorted(key_digests)
    if any(len(one) != _DIGEST_BYTES for one in ordered):
        raise ValueError("a key digest has 32 bytes")
    return hashlib.sha256(_DEVICES_TAG + b"".join(ordered)).digest()
