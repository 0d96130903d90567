"""SPDM messages before anything is signed: version, capabilities, digests, certificates, errors (DSP0274 §10).

`verifier.abi.spdm` says what the classes of all messages have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from verifier.abi.spdm_algorithms import Suite
from verifier.abi.spdm_fields import (
    CAPABILITIES,
    CERTIFICATE,
    DIGESTS,
    ERROR,
    GET_CAPABILITIES,
    GET_CERTIFICATE,
    GET_DIGESTS,
    GET_VERSION,
    MAX_SLOT,
    RESPOND_IF_READY,
    VERSION,
    VERSION_10,
    VERSION_11,
    VERSION_12,
    VERSION_13,
    VERSION_14,
    Fields,
    Header,
    begin,
    unsigned,
)
from verifier.errors import SpdmMalformed, SpdmUnsupported, SpdmVersionMismatch
from verifier.limits import MAX_SPDM_CHAIN_BYTES

ERROR_BUSY, ERROR_RESPONSE_NOT_READY, ERROR_REQUEST_RESYNCH = 0x03, 0x42, 0x43
ERROR_NAMES = {
    0x01: "InvalidRequest", 0x03: "Busy", 0x04: "UnexpectedRequest", 0x05: "Unspecified", 0x06: "DecryptError",
    0x07: "UnsupportedRequest", 0x08: "RequestInFlight", 0x09: "InvalidResponseCode", 0x0A: "SessionLimitExceeded",
    0x0B: "SessionRequired", 0x0C: "ResetRequired", 0x0D: "ResponseTooLarge", 0x0E: "RequestTooLarge",
    0x0F: "LargeResponse", 0x10: "MessageLost", 0x11: "InvalidPolicy", 0x12: "DataTooLarge", 0x41: "VersionMismatch",
    0x42: "ResponseNotReady", 0x43: "RequestResynch", 0x44: "OperationFailed", 0x45: "NoPendingRequests",
    0x46: "RequestSessionTerminated", 0x47: "InvalidState", 0xFF: "VendorDefined",
}  # fmt: skip
"""Error codes by number (DSP0274, table of ERROR)."""

MAX_EXTENDED_ERROR_BYTES = 32
LARGE_CHAIN = 0x80
"""Bit 7 of param1 of GET_CERTIFICATE and CERTIFICATE (1.4): the large form, numbers of 32 bits."""

SLOT_SIZE_REQUESTED = 0x01
SUPPORTED_ALGORITHMS = 0x01


@dataclass(frozen=True, slots=True, kw_only=True)
class GetVersion:
    """GET_VERSION (0x84): always 1.0, four bytes."""

    version: int = VERSION_10
    param1: int = 0
    param2: int = 0

    def encode(self) -> bytes:
        """Four bytes."""
        return Header(self.version, GET_VERSION, self.param1, self.param2).encode()

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, GET_VERSION, "GET_VERSION")
        return cls(version=header.version, param1=header.param1, param2=header.param2), fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """VERSION (0x04): entries of 16 bits; major, minor, update number, alpha, four bits each from the highest down."""

    entries: tuple[int, ...]
    version: int = VERSION_10
    param1: int = 0
    param2: int = 0
    reserved: int = 0

    @property
    def offered(self) -> tuple[int, ...]:
        """The version bytes of later messages that the responder speaks, as it lists them."""
        return tuple(entry >> 8 for entry in self.entries)

    def encode(self) -> bytes:
        """6 bytes, and 2 for each entry."""
        head = Header(self.version, VERSION, self.param1, self.param2).encode()
        counts = bytes((self.reserved, len(self.entries)))
        return head + counts + b"".join(unsigned(entry, 2) for entry in self.entries)

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`; `SpdmVersionMismatch` without entries."""
        header, fields = begin(data, VERSION, "VERSION")
        reserved, count = fields.number(1, "reserved"), fields.number(1, "count")
        if not count:
            raise SpdmVersionMismatch("VERSION offers none", field="VERSION.count")
        entries = tuple(fields.number(2, "entry") for _ in range(count))
        message = cls(
            entries=entries, version=header.version, param1=header.param1, param2=header.param2, reserved=reserved
        )
        return message, fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class GetCapabilities:
    """GET_CAPABILITIES (0xE1): 4 bytes in 1.0, 12 in 1.1, 20 from 1.2 on.

    `data_transfer_size` and `max_message_size` (bytes) exist from 1.2 on; what a version does not have is 0 here.
    """

    version: int
    flags: int = 0
    ct_exponent: int = 0
    data_transfer_size: int = 0
    max_message_size: int = 0
    extended_flags: int = 0
    reserved: int = 0
    param1: int = 0
    param2: int = 0

    def encode(self) -> bytes:
        """4, 12 or 20 bytes."""
        head = Header(self.version, GET_CAPABILITIES, self.param1, self.param2).encode()
        return head if self.version < VERSION_11 else head + _capabilities(self)

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, GET_CAPABILITIES, "GET_CAPABILITIES")
        known = {"version": header.version, "param1": header.param1, "param2": header.param2}
        if header.version < VERSION_11:
            return cls(**known), fields.offset
        known |= {"reserved": fields.number(1, "reserved"), "ct_exponent": fields.number(1, "ct_exponent")}
        known |= {"extended_flags": fields.number(2, "extended_flags"), "flags": fields.number(4, "flags")}
        if header.version >= VERSION_12:
            known |= {"data_transfer_size": fields.number(4, "data_transfer_size")}
            known |= {"max_message_size": fields.number(4, "max_message_size")}
        return cls(**known), fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """CAPABILITIES (0x61): 12 bytes in 1.0 and 1.1, 20 from 1.2 on.

    Flags by bit: 1 certificates, 2 CHALLENGE, 3 measurements without and 4 with signature, 17 chunks, 18 alias
    certificates. The time the responder needs for a signature is 2 ** `ct_exponent` microseconds.
    """

    version: int
    flags: int = 0
    ct_exponent: int = 0
    data_transfer_size: int = 0
    max_message_size: int = 0
    extended_flags: int = 0
    reserved: int = 0
    param1: int = 0
    param2: int = 0

    CERTIFICATES, CHALLENGE, MEASUREMENTS, SIGNED_MEASUREMENTS = 1 << 1, 1 << 2, 1 << 3, 1 << 4

    def encode(self) -> bytes:
        """12 or 20 bytes."""
        return Header(self.version, CAPABILITIES, self.param1, self.param2).encode() + _capabilities(self)

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`, `SpdmUnsupported`."""
        header, fields = begin(data, CAPABILITIES, "CAPABILITIES")
        if header.version >= VERSION_13 and header.param1 & SUPPORTED_ALGORITHMS:
            raise SpdmUnsupported("CAPABILITIES: a block of supported algorithms", field="CAPABILITIES.param1")
        known = {"version": header.version, "param1": header.param1, "param2": header.param2}
        known |= {"reserved": fields.number(1, "reserved"), "ct_exponent": fields.number(1, "ct_exponent")}
        known |= {"extended_flags": fields.number(2, "extended_flags"), "flags": fields.number(4, "flags")}
        if header.version >= VERSION_12:
            known |= {"data_transfer_size": fields.number(4, "data_transfer_size")}
            known |= {"max_message_size": fields.number(4, "max_message_size")}
        return cls(**known), fields.offset


def _capabilities(message: GetCapabilities | Capabilities) -> bytes:
    body = unsigned(message.reserved, 1) + unsigned(message.ct_exponent, 1)
    body += unsigned(message.extended_flags, 2) + unsigned(message.flags, 4)
    if message.version >= VERSION_12:
        body += unsigned(message.data_transfer_size, 4) + unsigned(message.max_message_size, 4)
    return body


@dataclass(frozen=True, slots=True, kw_only=True)
class GetDigests:
    """GET_DIGESTS (0x81): four bytes."""

    version: int
    param1: int = 0
    param2: int = 0

    def encode(self) -> bytes:
        """Four bytes."""
        return Header(self.version, GET_DIGESTS, self.param1, self.param2).encode()

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, GET_DIGESTS, "GET_DIGESTS")
        return cls(version=header.version, param1=header.param1, param2=header.param2), fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """DIGESTS (0x01): the hash of the chain of each slot that has one, by slot.

    `supported_slots` is the mask of slots the responder has (1.3 and later, 0 before). On a multi-key connection
    `key_pairs`, `certificate_infos` and `key_usages` follow, in the order of the slots; empty tuples elsewhere.
    """

    version: int
    digests: dict[int, bytes]
    supported_slots: int = 0
    key_pairs: tuple[int, ...] = ()
    certificate_infos: tuple[int, ...] = ()
    key_usages: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """4 bytes, the digests, and 4 bytes per slot on a multi-key connection."""
        mask = sum(1 << slot for slot in self.digests)
        head = Header(self.version, DIGESTS, self.supported_slots, mask).encode()
        keys = bytes(self.key_pairs) + bytes(self.certificate_infos)
        usages = b"".join(unsigned(usage, 2) for usage in self.key_usages)
        return head + b"".join(self.digests[slot] for slot in sorted(self.digests)) + keys + usages

    @classmethod
    def read(cls, data: bytes, suite: Suite) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes; at least one digest. `SpdmMalformed`."""
        header, fields = begin(data, DIGESTS, "DIGESTS")
        slots = [slot for slot in range(MAX_SLOT + 1) if header.param2 >> slot & 1]
        if not slots:
            raise SpdmMalformed("DIGESTS: no slot", field="DIGESTS.param2")
        digests = {slot: fields.take(suite.hash_bytes, f"slot {slot}") for slot in slots}
        many = slots if suite.multi_key else []
        message = cls(
            version=header.version,
            digests=digests,
            supported_slots=header.param1,
            key_pairs=tuple(fields.number(1, "key_pair") for _ in many),
            certificate_infos=tuple(fields.number(1, "certificate_info") for _ in many),
            key_usages=tuple(fields.number(2, "key_usage") for _ in many),
        )
        return message, fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class GetCertificate:
    """GET_CERTIFICATE (0x82): `length` bytes of a slot's chain from `offset` on, 16 bits each; 8 bytes.

    In the `large` form (1.4) these have 32 bits and stand behind the 16-bit ones, which are 0; 16 bytes. libspdm's
    requester uses it for every chain, however short, where the responder has the capability.
    """

    version: int
    slot: int
    offset: int = 0
    length: int = 0xFFFF
    param2: int = 0
    large: bool = False

    def encode(self) -> bytes:
        """8 bytes, 16 in the large form. `ValueError` for the large form before 1.4."""
        head = Header(self.version, GET_CERTIFICATE, _param1(self), self.param2).encode()
        return head + _pair(self.offset, self.length, self.large)

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`, `SpdmUnsupported`."""
        header, fields = begin(data, GET_CERTIFICATE, "GET_CERTIFICATE")
        slot, large = _slot_and_form(header, "GET_CERTIFICATE")
        if header.version >= VERSION_13 and header.param2 & SLOT_SIZE_REQUESTED:
            raise SpdmUnsupported("GET_CERTIFICATE: the size of a slot", field="GET_CERTIFICATE.param2")
        offset, length = _read_pair(fields, large, "offset", "length")
        if offset > MAX_SPDM_CHAIN_BYTES:
            raise SpdmUnsupported(f"GET_CERTIFICATE: from byte {offset} on", field="GET_CERTIFICATE.offset")
        message = cls(
            version=header.version, slot=slot, offset=offset, length=length, param2=header.param2, large=large
        )
        return message, fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """CERTIFICATE (0x02): a portion of a slot's chain and how many bytes of it follow.

    `attributes` is param2: from 1.3 on its bits 0 to 2 say which kind of certificate the slot holds. `large`: the form
    of 1.4 with 32-bit numbers, as in `GetCertificate`.
    """

    version: int
    slot: int
    portion: bytes
    remainder: int
    attributes: int = 0
    large: bool = False

    def encode(self) -> bytes:
        """8 bytes, 16 in the large form, and the portion. `ValueError` for the large form before 1.4."""
        head = Header(self.version, CERTIFICATE, _param1(self), self.attributes).encode()
        return head + _pair(len(self.portion), self.remainder, self.large) + self.portion

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`, `SpdmUnsupported`."""
        header, fields = begin(data, CERTIFICATE, "CERTIFICATE")
        slot, large = _slot_and_form(header, "CERTIFICATE")
        size, remainder = _read_pair(fields, large, "portion_length", "remainder")
        if max(size, remainder) > MAX_SPDM_CHAIN_BYTES:
            raise SpdmUnsupported(
                f"CERTIFICATE: {size} bytes of a chain and {remainder} more", field="CERTIFICATE.portion_length"
            )
        message = cls(
            version=header.version, slot=slot, portion=fields.take(size, "portion"), remainder=remainder,
            attributes=header.param2, large=large,
        )  # fmt: skip
        return message, fields.offset


def _param1(message: GetCertificate | Certificate) -> int:
    if message.large and message.version < VERSION_14:
        raise ValueError("32-bit numbers do not fit into certificate messages before 1.4, which count in two bytes")
    return message.slot | (LARGE_CHAIN if message.large else 0)


def _pair(first: int, second: int, large: bool) -> bytes:
    return bytes(4) + unsigned(first, 4) + unsigned(second, 4) if large else unsigned(first, 2) + unsigned(second, 2)


def _slot_and_form(header: Header, name: str) -> tuple[int, bool]:
    """Slot, and whether the message has the large form. `SpdmMalformed` for other bits of param1."""
    large = header.version >= VERSION_14 and bool(header.param1 & LARGE_CHAIN)
    slot = header.param1 & ~LARGE_CHAIN if large else header.param1
    if slot > MAX_SLOT:
        raise SpdmMalformed(f"{name}: slot {slot}", field=f"{name}.slot")
    return slot, large


def _read_pair(fields: Fields, large: bool, first: str, second: str) -> tuple[int, int]:
    """The two numbers of either form; in the large one the 16-bit fields are 0, so that only one pair counts."""
    pair = fields.number(2, first), fields.number(2, second)
    if not large:
        return pair
    if any(pair):
        raise SpdmMalformed(f"{fields.name}: numbers of both sizes", field=f"{fields.name}.{first}")
    return fields.number(4, first), fields.number(4, second)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse:
    """ERROR (0x7F) in place of any response.

    ResponseNotReady carries four bytes: the exponent of the time to wait (2 ** RDTExponent microseconds), the request's
    code, a token for RESPOND_IF_READY, and the factor of the longest time to wait.
    """

    version: int
    error: int
    data: int = 0
    extended: bytes = b""

    @property
    def name(self) -> str:
        """What DSP0274 calls it."""
        return ERROR_NAMES.get(self.error, f"{self.error:#04x}")

    def encode(self) -> bytes:
        """4 bytes and the extended data."""
        return Header(self.version, ERROR, self.error, self.data).encode() + self.extended

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data`, all of it: extended data have no length. `SpdmMalformed`."""
        header, fields = begin(data, ERROR, "ERROR")
        # Four bytes are ResponseNotReady's; zeros after other errors may be PCI DOE's, and nobody reads them.
        size = 4 if header.param1 == ERROR_RESPONSE_NOT_READY else fields.remaining
        if size > MAX_EXTENDED_ERROR_BYTES:
            raise SpdmMalformed(f"ERROR: {size} bytes of extended data", field="ERROR.extended")
        extended = fields.take(size, "extended")
        return cls(version=header.version, error=header.param1, data=header.param2, extended=extended), fields.offset


@dataclass(frozen=True, slots=True, kw_only=True)
class RespondIfReady:
    """RESPOND_IF_READY (0xFF): asks again for the answer to request `code`, by the token of ResponseNotReady."""

    version: int
    code: int
    token: int

    def encode(self) -> bytes:
        """Four bytes."""
        return Header(self.version, RESPOND_IF_READY, self.code, self.token).encode()

    @classmethod
    def read(cls, data: bytes) -> tuple[Self, int]:
        """The message at the front of `data` and its bytes. `SpdmMalformed`."""
        header, fields = begin(data, RESPOND_IF_READY, "RESPOND_IF_READY")
        return cls(version=header.version, code=header.param1, token=header.param2), fields.offset
