"""SPDM's algorithms: their bits, NEGOTIATE_ALGORITHMS and ALGORITHMS, and what the two agree on (DSP0274 §10.4).

Both messages have the same shape from 1.0 to 1.4. What newer versions added stands in bytes that were reserved: the
format of opaque data and multi-key connections (`other_params`), post-quantum signatures (`pqc_asym`, 1.4) and the
measurement extension log (`mel_specification`, 1.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn, Self

from verifier.abi.spdm_fields import (
    ALGORITHMS,
    NEGOTIATE_ALGORITHMS,
    VERSION_12,
    VERSION_13,
    Fields,
    Header,
    begin,
    unsigned,
)
from verifier.errors import SpdmAlgorithms, SpdmMalformed
from verifier.limits import MAX_SPDM_ALGORITHMS_BYTES

DMTF_MEASUREMENTS = 0x01
"""Measurement specification, bit 0: blocks in DMTF's format."""

OPAQUE_FORMAT_MASK = 0x03
OPAQUE_FORMAT_1 = 0x02
MULTI_KEY_CONNECTION = 0x10
"""Bits of `other_params`: opaque data as DSP0274 1.2 structures it; a key pair per slot (1.3)."""

RAW_BIT_STREAM_ONLY = 0x01
"""Measurement hash, bit 0: the device delivers no digests."""

HASHES = {0x01: "sha256", 0x02: "sha384", 0x04: "sha512"}
"""Base hashes we verify, by their bit. SHA-3 and SM3 (bits 3 to 6) are refused."""

MEASUREMENT_HASHES = {
    0x02: ("sha256", 32), 0x04: ("sha384", 48), 0x08: ("sha512", 64), 0x10: ("sha3_256", 32), 0x20: ("sha3_384", 48),
    0x40: ("sha3_512", 64), 0x80: ("sm3", 32),
}  # fmt: skip
"""Measurement hashes, name and bytes, by their bit. Measured values are compared, not computed: any will do."""

HASH_BYTES = {"sha256": 32, "sha384": 48, "sha512": 64}


@dataclass(frozen=True, slots=True)
class SignatureScheme:
    """A base asymmetric algorithm: `kind` "ecdsa", "rsa-pss" or "rsa" (PKCS#1 v1.5), key bits, signature bytes."""

    name: str
    kind: str
    key_bits: int
    signature_bytes: int


SCHEMES = {
    0x001: SignatureScheme("rsassa-2048", "rsa", 2048, 256),
    0x002: SignatureScheme("rsapss-2048", "rsa-pss", 2048, 256),
    0x004: SignatureScheme("rsassa-3072", "rsa", 3072, 384),
    0x008: SignatureScheme("rsapss-3072", "rsa-pss", 3072, 384),
    0x010: SignatureScheme("ecdsa-p256", "ecdsa", 256, 64),
    0x020: SignatureScheme("rsassa-4096", "rsa", 4096, 512),
    0x040: SignatureScheme("rsapss-4096", "rsa-pss", 4096, 512),
    0x080: SignatureScheme("ecdsa-p384", "ecdsa", 384, 96),
    0x100: SignatureScheme("ecdsa-p521", "ecdsa", 521, 132),
}
"""Signatures we verify, by their bit. SM2, Ed25519 and Ed448 (bits 9 to 11) are refused."""


@dataclass(frozen=True, slots=True)
class AlgorithmTable:
    """An algorithm structure (1.1 and later): kind 2 DHE, 3 AEAD, 4 requester's signature, 5 key schedule, ….

    `fixed` is the bit field as it stands in the message, `extended` the four-byte identifiers after it.
    """

    kind: int
    fixed: bytes
    extended: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """2 + len(fixed) + 4 × len(extended) bytes."""
        if len(self.fixed) > 15 or len(self.extended) > 15:
            raise ValueError("an algorithm structure counts in four bits")
        return bytes((self.kind, len(self.fixed) << 4 | len(self.extended))) + self.fixed + b"".join(self.extended)


@dataclass(frozen=True, slots=True, kw_only=True)
class NegotiateAlgorithms:
    """NEGOTIATE_ALGORITHMS (0xE3): what the requester supports, as bit fields."""

    version: int
    measurement_specification: int
    base_asym: int
    base_hash: int
    other_params: int = 0
    pqc_asym: int = 0
    reserved: bytes = bytes(8)
    mel_specification: int = 0
    reserved_3: int = 0
    extended_asym: tuple[bytes, ...] = ()
    extended_hash: tuple[bytes, ...] = ()
    tables: tuple[AlgorithmTable, ...] = ()
    param2: int = 0

    def encode(self) -> bytes:
        """32 bytes and the structures."""
        rest = (
            unsigned(self.measurement_specification, 1)
            + unsigned(self.other_params, 1)
            + unsigned(self.base_asym, 4)
            + unsigned(self.base_hash, 4)
            + unsigned(self.pqc_asym, 4)
            + _exactly(self.reserved, 8)
            + bytes((len(self.extended_asym), len(self.extended_hash), self.reserved_3, self.mel_specification))
            + b"".join(self.extended_asym + self.extended_hash)
            + b"".join(table.encode() for table in self.tables)
        )
        header = Header(self.version, NEGOTIATE_ALGORITHMS, len(self.tables), self.param2)
        return header.encode() + unsigned(len(rest) + 6, 2) + rest

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, NEGOTIATE_ALGORITHMS, "NEGOTIATE_ALGORITHMS")
        length = _length(fields)
        specification, other = fields.number(1, "measurement_specification"), fields.number(1, "other_params")
        asym, hashes = fields.number(4, "base_asym"), fields.number(4, "base_hash")
        pqc, reserved = fields.number(4, "pqc_asym"), fields.take(8, "reserved")
        asym_count, hash_count = fields.number(1, "extended_asym_count"), fields.number(1, "extended_hash_count")
        reserved_3, mel = fields.number(1, "reserved_3"), fields.number(1, "mel_specification")
        message = cls(
            version=header.version, measurement_specification=specification, base_asym=asym, base_hash=hashes,
            other_params=other, pqc_asym=pqc, reserved=reserved, mel_specification=mel, reserved_3=reserved_3,
            extended_asym=_extended(fields, asym_count), extended_hash=_extended(fields, hash_count),
            tables=_tables(fields, header.param1), param2=header.param2,
        )  # fmt: skip
        return message, _checked(fields, length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithms:
    """ALGORITHMS (0x63): what the responder chose, at most one bit of each field."""

    version: int
    measurement_specification: int
    measurement_hash: int
    base_asym: int
    base_hash: int
    other_params: int = 0
    pqc_asym: int = 0
    reserved: bytes = bytes(7)
    mel_specification: int = 0
    reserved_3: bytes = bytes(2)
    extended_asym: tuple[bytes, ...] = ()
    extended_hash: tuple[bytes, ...] = ()
    tables: tuple[AlgorithmTable, ...] = ()
    param2: int = 0

    def encode(self) -> bytes:
        """36 bytes and the structures."""
        rest = (
            unsigned(self.measurement_specification, 1)
            + unsigned(self.other_params, 1)
            + unsigned(self.measurement_hash, 4)
            + unsigned(self.base_asym, 4)
            + unsigned(self.base_hash, 4)
            + unsigned(self.pqc_asym, 4)
            + _exactly(self.reserved, 7)
            + bytes((self.mel_specification, len(self.extended_asym), len(self.extended_hash)))
            + _exactly(self.reserved_3, 2)
            + b"".join(self.extended_asym + self.extended_hash)
            + b"".join(table.encode() for table in self.tables)
        )
        header = Header(self.version, ALGORITHMS, len(self.tables), self.param2)
        return header.encode() + unsigned(len(rest) + 6, 2) + rest

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, ALGORITHMS, "ALGORITHMS")
        length = _length(fields)
        specification, other = fields.number(1, "measurement_specification"), fields.number(1, "other_params")
        measurement_hash = fields.number(4, "measurement_hash")
        asym, hashes = fields.number(4, "base_asym"), fields.number(4, "base_hash")
        pqc, reserved, mel = fields.number(4, "pqc_asym"), fields.take(7, "reserved"), fields.number(1, "mel")
        asym_count, hash_count = fields.number(1, "extended_asym_count"), fields.number(1, "extended_hash_count")
        message = cls(
            version=header.version, measurement_specification=specification, measurement_hash=measurement_hash,
            base_asym=asym, base_hash=hashes, other_params=other, pqc_asym=pqc, reserved=reserved,
            mel_specification=mel, reserved_3=fields.take(2, "reserved_3"),
            extended_asym=_extended(fields, asym_count), extended_hash=_extended(fields, hash_count),
            tables=_tables(fields, header.param1), param2=header.param2,
        )  # fmt: skip
        return message, _checked(fields, length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """What a connection has agreed on; the layout of later messages follows from it.

    `base_hash` is a name of hashlib. `measurement_hash` names the hash of measurements, None where the device has no
    measurements or delivers raw bit streams only; `measurement_hash_bytes` is its length, 0 without one.
    """

    version: int
    base_hash: str
    scheme: SignatureScheme
    measurement_hash: str | None
    measurement_hash_bytes: int
    measurement_specification: int
    multi_key: bool = False

    @property
    def hash_bytes(self) -> int:
        """Bytes of a digest: DIGESTS, root hash, CertChainHash, measurement summary hash."""
        return HASH_BYTES[self.base_hash]

    @property
    def signature_bytes(self) -> int:
        """Bytes of a signature field."""
        return self.scheme.signature_bytes

    @property
    def has_context(self) -> bool:
        """Whether requests and responses carry a requester context of 8 bytes."""
        return self.version >= VERSION_13


def agreed(request: NegotiateAlgorithms, response: Algorithms) -> Suite:
    """The suite that `response` chose from what `request` offers. `SpdmAlgorithms`.

    Every choice is one single bit, one that was offered, and one that we verify.
    """
    # First: where a post-quantum algorithm was chosen, base_asym is 0, which alone would say little.
    if response.pqc_asym or response.extended_asym or response.extended_hash:
        _refuse("extended", "extended or post-quantum algorithms were chosen")
    check_chosen(response.base_asym, request.base_asym, "base_asym", needed=True)
    check_chosen(response.base_hash, request.base_hash, "base_hash", needed=True)
    check_chosen(response.measurement_specification, request.measurement_specification, "measurement_specification")
    check_chosen(response.measurement_hash, 0xFFFF_FFFF, "measurement_hash")
    check_chosen(response.mel_specification, request.mel_specification, "mel_specification")
    scheme, base_hash = SCHEMES.get(response.base_asym), HASHES.get(response.base_hash)
    if scheme is None:
        _refuse("base_asym", f"signature algorithm {response.base_asym:#x} is not verified here")
    if base_hash is None:
        _refuse("base_hash", f"hash {response.base_hash:#x} is not verified here")
    check_tables(request, response)
    name, size = MEASUREMENT_HASHES.get(response.measurement_hash, (None, 0))
    if name is None and response.measurement_hash not in (0, RAW_BIT_STREAM_ONLY):
        _refuse("measurement_hash", f"measurement hash {response.measurement_hash:#x} is unknown")
    if response.version >= VERSION_12:
        check_chosen(
            response.other_params & OPAQUE_FORMAT_MASK, request.other_params & OPAQUE_FORMAT_MASK, "other_params"
        )
    # The requester's bit asks for several keys of the responder; the bit in the response is about the requester's.
    multi_key = response.version >= VERSION_13 and bool(request.other_params & MULTI_KEY_CONNECTION)
    return Suite(
        version=response.version,
        base_hash=base_hash,
        scheme=scheme,
        measurement_hash=name,
        measurement_hash_bytes=size,
        measurement_specification=response.measurement_specification,
        multi_key=multi_key,
    )


def check_tables(request: NegotiateAlgorithms, response: Algorithms) -> None:
    """Each structure stands once, and chooses at most one bit of those offered in its kind. `SpdmAlgorithms`."""
    offered = {table.kind: int.from_bytes(table.fixed, "little") for table in request.tables}
    if len(offered) != len(request.tables):
        _refuse("tables", "the requester offers one kind of algorithm twice")
    seen: set[int] = set()
    for table in response.tables:
        if table.kind in seen or table.kind not in offered:
            _refuse("tables", f"kind {table.kind} was chosen twice or not offered")
        if table.extended:
            _refuse("tables", f"kind {table.kind}: an extended algorithm was chosen")
        seen.add(table.kind)
        check_chosen(int.from_bytes(table.fixed, "little"), offered[table.kind], "tables")


def check_chosen(chosen: int, offered: int, field: str, *, needed: bool = False) -> None:
    """At most one bit, at least one where `needed`, of those offered. `SpdmAlgorithms`."""
    if chosen.bit_count() > 1 or (needed and not chosen):
        _refuse(field, f"{field} {chosen:#x} is not a single algorithm")
    if chosen & ~offered:
        _refuse(field, f"{field} {chosen:#x} was not offered")


def _refuse(field: str, why: str) -> NoReturn:
    raise SpdmAlgorithms(why, field=f"ALGORITHMS.{field}")


def _length(fields: Fields) -> int:
    length = fields.number(2, "length")
    if length > MAX_SPDM_ALGORITHMS_BYTES:
        raise SpdmMalformed(f"{fields.name}: {length} bytes, at most {MAX_SPDM_ALGORITHMS_BYTES}", field=fields.name)
    return length


def _checked(fields: Fields, length: int) -> int:
    if fields.offset != length:
        raise SpdmMalformed(f"{fields.name}: says {length} bytes, holds {fields.offset}", field=f"{fields.name}.length")
    return length


def _extended(fields: Fields, count: int) -> tuple[bytes, ...]:
    return tuple(fields.take(4, "extended_algorithm") for _ in range(count))


def _tables(fields: Fields, count: int) -> tuple[AlgorithmTable, ...]:
    found = []
    for _ in range(count):
        kind, sizes = fields.number(1, "table.kind"), fields.number(1, "table.count")
        fixed = fields.take(sizes >> 4, "table.fixed")
        found.append(AlgorithmTable(kind, fixed, _extended(fields, sizes & 0x0F)))
    return tuple(found)


def _exactly(value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise ValueError(f"{len(value)} bytes instead of {size}")
    return value
