"""A slot's certificate chain as SPDM delivers it: length, root hash, DER certificates from the root down (§10.6).

The length has 16 bits and two reserved bytes behind it up to 1.3, 32 bits in 1.4; a chain of less than 64 KB looks the
same in both.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from verifier.abi.spdm_algorithms import HASH_BYTES
from verifier.errors import SpdmChain
from verifier.limits import MAX_SPDM_CHAIN_CERTIFICATES

_LENGTH_BYTES = 4
_DER_SEQUENCE = 0x30
_DER_HEADER_BYTES = 4
_LONG_LENGTH = 0x82


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotChain:
    """The chain of a slot: `root_hash` as it says, `certificates` DER, root first, `raw` all of its bytes."""

    raw: bytes
    root_hash: bytes
    certificates: tuple[bytes, ...]

    def digest(self, hash_name: str) -> bytes:
        """What DIGESTS and CHALLENGE_AUTH say of it: the hash of all its bytes."""
        return hashlib.new(hash_name, self.raw).digest()


def encode_chain(certificates: tuple[bytes, ...], hash_name: str, root_hash: bytes | None = None) -> bytes:
    """A slot's chain of DER `certificates`, root first; `root_hash` is the first one's unless given."""
    if root_hash is None:
        root_hash = hashlib.new(hash_name, certificates[0]).digest()
    body = root_hash + b"".join(certificates)
    return (_LENGTH_BYTES + len(body)).to_bytes(_LENGTH_BYTES, "little") + body


def parse_chain(raw: bytes, hash_name: str) -> SlotChain:
    """The chain that is all of `raw`. `SpdmChain` where its lengths disagree, or certificates are no DER sequences."""
    size = HASH_BYTES[hash_name]
    if len(raw) < _LENGTH_BYTES + size:
        raise SpdmChain(f"a chain of {len(raw)} bytes has no root hash", field="chain.length")
    length = int.from_bytes(raw[:_LENGTH_BYTES], "little")
    if length != len(raw):
        raise SpdmChain(f"the chain says {length} bytes, {len(raw)} were delivered", field="chain.length")
    return SlotChain(
        raw=raw,
        root_hash=raw[_LENGTH_BYTES : _LENGTH_BYTES + size],
        certificates=_split(raw[_LENGTH_BYTES + size :]),
    )


def check_root_hash(chain: SlotChain, hash_name: str) -> None:
    """The root hash is that of the first certificate, which so is the root itself. `SpdmChain`."""
    if hashlib.new(hash_name, chain.certificates[0]).digest() != chain.root_hash:
        raise SpdmChain("the root hash is not that of the chain's first certificate", field="chain.root_hash")


def _split(data: bytes) -> tuple[bytes, ...]:
    found: list[bytes] = []
    at = 0
    while at < len(data):
        # Certificates have between 256 and 65535 bytes: DER then writes their length in two bytes.
        size = int.from_bytes(data[at + 2 : at + _DER_HEADER_BYTES], "big") + _DER_HEADER_BYTES
        head = data[at : at + 2]
        if head != bytes((_DER_SEQUENCE, _LONG_LENGTH)) or at + size > len(data):
            raise SpdmChain(f"no certificate at byte {at} of {len(data)}", field=f"chain.certificates[{len(found)}]")
        if len(found) == MAX_SPDM_CHAIN_CERTIFICATES:
            raise SpdmChain(f"more than {MAX_SPDM_CHAIN_CERTIFICATES} certificates", field="chain.certificates")
        found.append(data[at : at + size])
        at += size
    if not found:
        raise SpdmChain("a chain without a certificate", field="chain.certificates")
    return tuple(found)
