"""Which device each piece of evidence speaks of, read before any of its signatures is verified (DESIGN §3).

To read a leaf certificate costs little, to verify a chain and a report much. So a stranger's device, or one device
under two names, is found out first. Nothing here is verified: it refuses, and it never admits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from verifier.abi.pem_blocks import CERTIFICATE, split_blocks
from verifier.errors import CertChainInvalid, CollateralMalformed, CollateralTooLarge, VerificationError
from verifier.evidence import DeviceItems
from verifier.formats.spdm_reading import read_transcript
from verifier.formats.spdm_transcript import Connection, follow
from verifier.nonces import NVIDIA
from verifier.trust.certificate import parse_certificate


@dataclass(frozen=True, slots=True)
class ClaimedDevice:
    """A device as unverified evidence presents it; `key_digest` is SHA-256 of the leaf's SubjectPublicKeyInfo."""

    subject: str
    key_digest: bytes


@dataclass(frozen=True, slots=True)
class ClaimedDevices:
    """Several of them."""

    devices: tuple[ClaimedDevice, ...]


def claimed_device(items: DeviceItems) -> ClaimedDevice | None:
    """The device that the evidence presents; None where nothing can be read, which verification then refuses."""
    try:
        leaves = chain_blocks(items.certificates or b"")[:1] if items.kind == NVIDIA else _spdm_leaves(items.data)
        keys = {parse_certificate(leaf).spki for leaf in leaves}
    except VerificationError:
        return None
    if len(keys) != 1:  # no signature at all, or those of several devices
        return None
    return ClaimedDevice(items.subject, hashlib.sha256(keys.pop()).digest())


def chain_blocks(text: bytes) -> Sequence[bytes]:
    """The certificates (DER) of a device's chain in PEM, in the order delivered. `CertChainInvalid`."""
    where = "device_chain"
    try:
        blocks = split_blocks(text, where)
    except (CollateralMalformed, CollateralTooLarge) as error:
        raise CertChainInvalid(str(error), field=where) from None
    if not blocks or any(kind != CERTIFICATE for kind, _ in blocks):
        raise CertChainInvalid("not a chain of certificates in PEM", field=where)
    return [der for _, der in blocks]


def _spdm_leaves(data: bytes) -> set[bytes]:
    """The leaves (DER) that signed exchanges rest on."""
    connection = Connection()
    follow(read_transcript(data), connection)
    return {one.chain.certificates[-1] for one in connection.exchanges if one.chain is not None}
