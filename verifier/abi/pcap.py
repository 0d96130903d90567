"""Captures of SPDM: classic pcap and pcapng, link types MCTP (291) and PCI DOE (292), as DMTF's tools write them.

A capture is read into the SPDM messages it holds, in order, without their transport. Messages of other protocols, and
messages of secured sessions, which nobody reads without the session's keys, are left out. A packet that was cut off,
or two conversations in one capture, are refused: leaving out the right part of a transcript is not ours to guess.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

from verifier.errors import SpdmMalformed, SpdmSequence, SpdmTooLarge, SpdmUnsupported
from verifier.limits import MAX_SPDM_CAPTURE_BYTES, MAX_SPDM_MESSAGE_BYTES, MAX_SPDM_MESSAGES

LINK_MCTP, LINK_PCI_DOE = 291, 292

_OTHER_LINK = (
    "Only captures of MCTP and PCI DOE are read, none of TCP or Ethernet: record with the requester "
    "(enclavescale spdm), or convert the messages to JSON."
)

_CLASSIC = {
    b"\xd4\xc3\xb2\xa1": "little", b"\x4d\x3c\xb2\xa1": "little",
    b"\xa1\xb2\xc3\xd4": "big", b"\xa1\xb2\x3c\x4d": "big",
}  # fmt: skip
"""First four bytes of classic captures, times in microseconds or nanoseconds: which byte order."""

_CLASSIC_HEADER_BYTES, _CLASSIC_RECORD_BYTES = 24, 16
_NG_SECTION, _NG_INTERFACE, _NG_SIMPLE, _NG_PACKET = 0x0A0D0D0A, 1, 3, 6
_NG_ORDER = {b"\x4d\x3c\x2b\x1a": "little", b"\x1a\x2b\x3c\x4d": "big"}
_NG_MIN_BLOCK_BYTES = 12
_MAX_INTERFACES = 16

_MCTP_HEADER_BYTES = 4
_MCTP_START, _MCTP_END = 0x80, 0x40
_MCTP_SPDM = 5
_DOE_HEADER_BYTES = 8
_DOE_PCI_SIG, _DOE_SPDM = 0x0001, 1
_DOE_MAX_LENGTH = 1 << 18


def is_capture(data: bytes) -> bool:
    """Whether `data` begins like a capture of either kind."""
    return data[:4] in _CLASSIC or data[:4] == _NG_SECTION.to_bytes(4, "big")


def parse_capture(data: bytes) -> tuple[bytes, ...]:
    """The SPDM messages of a capture. `SpdmMalformed`, `SpdmTooLarge`, `SpdmUnsupported`, `SpdmSequence`."""
    if len(data) > MAX_SPDM_CAPTURE_BYTES:
        raise SpdmTooLarge(f"a capture of {len(data)} bytes, at most {MAX_SPDM_CAPTURE_BYTES}", field="capture")
    packets = _classic(data) if data[:4] in _CLASSIC else _next_generation(data)
    found: list[bytes] = []
    conversation = _Conversation()
    for link, packet in packets:
        if link == LINK_MCTP:
            message = conversation.mctp(packet)
        elif link == LINK_PCI_DOE:
            message = _doe(packet)
        else:
            raise SpdmUnsupported(f"link type {link}", field="capture.link_type", remedy=_OTHER_LINK)
        if message is not None:
            if len(found) == MAX_SPDM_MESSAGES:
                raise SpdmTooLarge(f"more than {MAX_SPDM_MESSAGES} messages", field="capture")
            found.append(message)
    return tuple(found)


def _classic(data: bytes) -> Iterator[tuple[int, bytes]]:
    order = _CLASSIC[data[:4]]
    if len(data) < _CLASSIC_HEADER_BYTES:
        _refuse("a header cut off")
    link = _number(data[20:24], order) & 0x0FFF_FFFF
    at = _CLASSIC_HEADER_BYTES
    while at < len(data):
        if at + _CLASSIC_RECORD_BYTES > len(data):
            _refuse(f"a record cut off at byte {at}")
        held, length = _number(data[at + 8 : at + 12], order), _number(data[at + 12 : at + 16], order)
        at += _CLASSIC_RECORD_BYTES
        yield link, _packet(data, at, held, length)
        at += held


def _next_generation(data: bytes) -> Iterator[tuple[int, bytes]]:
    if data[:4] != _NG_SECTION.to_bytes(4, "big"):
        _refuse("neither pcap nor pcapng")
    order, at = "", 0
    links: list[int] = []
    while at < len(data):
        if data[at : at + 4] == _NG_SECTION.to_bytes(4, "big"):
            order, links = _NG_ORDER.get(data[at + 8 : at + 12], ""), []
        if not order:
            _refuse("no byte order")
        kind, size = _number(data[at : at + 4], order), _number(data[at + 4 : at + 8], order)
        if size < _NG_MIN_BLOCK_BYTES or size % 4 or at + size > len(data):
            _refuse(f"a block of {size} bytes at byte {at}")
        body = data[at + 8 : at + size - 4]
        if _number(data[at + size - 4 : at + size], order) != size:
            _refuse(f"two lengths of the block at byte {at}")
        if kind == _NG_INTERFACE:
            if len(body) < 8 or len(links) == _MAX_INTERFACES:
                _refuse("an interface cut off, or too many")
            links.append(_number(body[:2], order))
        elif kind in (_NG_PACKET, _NG_SIMPLE):
            yield _ng_packet(kind, body, order, links)
        at += size


def _ng_packet(kind: int, body: bytes, order: str, links: list[int]) -> tuple[int, bytes]:
    head = 20 if kind == _NG_PACKET else 4
    if len(body) < head:
        _refuse("a packet cut off")
    interface = _number(body[:4], order) if kind == _NG_PACKET else 0
    if interface >= len(links):
        _refuse(f"a packet of interface {interface}, which nothing describes")
    length = _number(body[head - 4 : head], order)
    held = _number(body[12:16], order) if kind == _NG_PACKET else length
    return links[interface], _packet(body, head, held, length)


def _packet(data: bytes, at: int, held: int, length: int) -> bytes:
    if held != length:
        _refuse(f"{held} of a packet's {length} bytes were captured")
    if at + held > len(data):
        _refuse(f"a packet of {held} bytes at byte {at}")
    return data[at : at + held]


class _Conversation:
    """Puts messages of MCTP together: one packet each, or several from start to end (DSP0236 §8)."""

    def __init__(self) -> None:
        self._endpoints: frozenset[int] | None = None
        self._begun: bytearray | None = None

    def mctp(self, packet: bytes) -> bytes | None:
        """The SPDM message that `packet` completes, if any."""
        if len(packet) <= _MCTP_HEADER_BYTES:
            _refuse(f"an MCTP packet of {len(packet)} bytes")
        flags, payload = packet[3], packet[_MCTP_HEADER_BYTES:]
        if flags & _MCTP_START:
            if self._begun is not None:
                raise SpdmSequence("an MCTP message begins inside another", field="capture.mctp")
            self._begun = bytearray()
        if self._begun is None:
            raise SpdmSequence("an MCTP message without its beginning", field="capture.mctp")
        self._begun += payload
        if len(self._begun) > MAX_SPDM_MESSAGE_BYTES:
            raise SpdmTooLarge(f"a message of {len(self._begun)} bytes", field="capture.mctp")
        if not flags & _MCTP_END:
            return None
        message, self._begun = bytes(self._begun), None
        if message[0] != _MCTP_SPDM:
            return None
        if len(message) == 1:
            _refuse("an empty message")
        endpoints = frozenset(packet[1:3])
        if self._endpoints not in (None, endpoints):
            raise SpdmSequence("SPDM between several pairs of endpoints", field="capture.mctp")
        self._endpoints = endpoints
        return message[1:]


def _doe(packet: bytes) -> bytes | None:
    """The SPDM message of a PCI DOE data object, zeros at its end included (PCIe 6.0 §6.30)."""
    if len(packet) < _DOE_HEADER_BYTES:
        _refuse(f"a data object of {len(packet)} bytes")
    vendor, kind = int.from_bytes(packet[:2], "little"), packet[2]
    length = int.from_bytes(packet[4:8], "little") or _DOE_MAX_LENGTH
    if 4 * length != len(packet):
        _refuse(f"a data object of {len(packet)} bytes says {4 * length}")
    if (vendor, kind) != (_DOE_PCI_SIG, _DOE_SPDM):
        return None
    if len(packet) == _DOE_HEADER_BYTES:
        _refuse("an empty message")
    return packet[_DOE_HEADER_BYTES:]


def _number(data: bytes, order: str) -> int:
    return int.from_bytes(data, "big" if order == "big" else "little")


def _refuse(why: str) -> NoReturn:
    raise SpdmMalformed(f"capture: {why}", field="capture")
