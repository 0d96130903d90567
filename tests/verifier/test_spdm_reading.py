"""Recorded transcripts: JSON, pcap, pcapng, over MCTP and PCI DOE; all forms of one hold the same messages."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence

import pytest

from tests.forge.spdm.judge import judge
from tests.forge.spdm.world import V13, Minted
from verifier.abi.pcap import LINK_MCTP, LINK_PCI_DOE
from verifier.errors import SpdmError, SpdmMalformed, SpdmSequence, SpdmTooLarge, SpdmUnsupported
from verifier.formats.spdm import read_transcript
from verifier.limits import MAX_SPDM_CAPTURE_BYTES, MAX_SPDM_MESSAGES, MAX_SPDM_TRANSCRIPT_BYTES

MESSAGES = V13.mint().messages


def mctp(message: bytes, kind: int = 5, flags: int = 0xC0, ends: bytes = b"\x08\x09") -> bytes:
    return b"\x01" + ends + bytes((flags, kind)) + message


def doe(message: bytes, kind: int = 1) -> bytes:
    body = message + bytes(-len(message) % 4)
    return struct.pack("<HBBI", 1, kind, 0, 2 + len(body) // 4) + body


def classic(packets: Sequence[bytes], link: int = LINK_MCTP, order: str = "<", magic: int = 0xA1B2C3D4) -> bytes:
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65536, link)
    return head + b"".join(struct.pack(order + "IIII", 0, 0, len(one), len(one)) + one for one in packets)


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    return struct.pack(order + "II", kind, 12 + len(body)) + body + struct.pack(order + "I", 12 + len(body))


def next_generation(packets: Sequence[bytes], link: int = LINK_MCTP, order: str = "<", simple: bool = False) -> bytes:
    head = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    head += block(1, struct.pack(order + "HHI", link, 0, 65536), order) + block(5, bytes(12), order)
    if simple:
        return head + b"".join(block(3, struct.pack(order + "I", len(one)) + one, order) for one in packets)
    return head + b"".join(
        block(6, struct.pack(order + "IIIII", 0, 0, 0, len(one), len(one)) + one, order) for one in packets
    )


def as_json(messages: Sequence[bytes], **more: object) -> bytes:
    return json.dumps({"messages": [one.hex() for one in messages], **more}).encode()


FORMS: dict[str, Callable[[Sequence[bytes]], bytes]] = {
    "JSON": lambda messages: as_json(messages, transport="mctp", note="…", extra={"a": [1.5, None]}),
    "pcap": lambda messages: classic([mctp(one) for one in messages]),
    "pcap, nanoseconds, big-endian": lambda messages: classic([mctp(one) for one in messages], order=">",
                                                              magic=0xA1B23C4D),
    "pcapng": lambda messages: next_generation([mctp(one) for one in messages]),
    "pcapng, big-endian": lambda messages: next_generation([mctp(one) for one in messages], order=">"),
    "pcapng, simple packets": lambda messages: next_generation([mctp(one) for one in messages], simple=True),
    "both directions": lambda messages: classic([
        mctp(one, ends=b"\x08\x09" if index % 2 else b"\x09\x08") for index, one in enumerate(messages)]),
    "other traffic between": lambda messages: classic([
        packet for one in messages for packet in (mctp(one), mctp(b"other", kind=1), mctp(b"sealed", kind=6))]),
    "fragments": lambda messages: classic([
        packet for one in messages for packet in (
            mctp(one[:2], flags=0x80), b"\x01\x08\x09\x10" + one[2:3], b"\x01\x08\x09\x60" + one[3:])]),
}  # fmt: skip


@pytest.mark.parametrize("form", list(FORMS))
def test_every_form_holds_the_same_messages(form: str) -> None:
    assert read_transcript(FORMS[form](MESSAGES)) == MESSAGES


@pytest.mark.parametrize("container", [classic, next_generation])
def test_pci_doe_keeps_its_padding_and_verifies(container: Callable[..., bytes]) -> None:
    minted = V13.mint()
    packets = [doe(one) for one in minted.messages]
    read = read_transcript(container([doe(b"\0\0\0\0", kind=0), *packets, doe(b"sealed", kind=2)], link=LINK_PCI_DOE))
    assert read == tuple(one + bytes(-len(one) % 4) for one in minted.messages)
    judged = judge(Minted(messages=read, root=minted.root, nonces=minted.nonces, at=minted.at), nonces=minted.nonces)
    assert judged.grade == "SPDM_MEASURED"
    assert judged == judge(minted, nonces=minted.nonces)


ONE = mctp(MESSAGES[0])
REFUSED: dict[str, tuple[type[SpdmError], bytes]] = {
    "nothing": (SpdmMalformed, b""),
    "no JSON": (SpdmMalformed, b"\xff{}"),
    "no messages": (SpdmMalformed, b"{}"),
    "messages of another type": (SpdmMalformed, b'{"messages": "10840000"}'),
    "a number for a message": (SpdmMalformed, b'{"messages": [10840000]}'),
    "no hexadecimal": (SpdmMalformed, b'{"messages": ["1084000g"]}'),
    "spaces between": (SpdmMalformed, b'{"messages": ["10 84 00 00"]}'),
    "half a byte": (SpdmMalformed, b'{"messages": ["1084000"]}'),
    "an empty message": (SpdmMalformed, b'{"messages": [""]}'),
    "messages twice": (SpdmMalformed, b'{"messages": [], "messages": ["10840000"]}'),
    "a key twice inside": (SpdmMalformed, b'{"messages": [], "note": {"a": 1, "a": 2}}'),
    "nested too deep": (SpdmMalformed, b'{"messages": [], "note": ' + b"[" * 40 + b"]" * 40 + b"}"),
    "too many messages": (SpdmTooLarge, as_json([b"\0"] * (MAX_SPDM_MESSAGES + 1))),
    "too much JSON": (SpdmTooLarge, b" " * MAX_SPDM_TRANSCRIPT_BYTES + b"{}"),
    "too large a capture": (SpdmTooLarge, classic([ONE]) + bytes(MAX_SPDM_CAPTURE_BYTES)),
    "too many messages captured": (SpdmTooLarge, classic([ONE] * (MAX_SPDM_MESSAGES + 1))),
    "too large a message": (SpdmTooLarge, classic([mctp(bytes(60_000), flags=0x80), mctp(bytes(60_000), flags=0x40)])),
    "a header cut off": (SpdmMalformed, classic([])[:20]),
    "a record cut off": (SpdmMalformed, classic([ONE])[:-12]),
    "a packet cut off": (SpdmMalformed, classic([ONE])[:-1]),
    "a packet captured in part": (SpdmMalformed, classic([ONE])[:36] + b"\x99" + classic([ONE])[37:]),
    "Ethernet": (SpdmUnsupported, classic([ONE], link=1)),
    "Linux cooked, in pcapng": (SpdmUnsupported, next_generation([ONE], link=113)),
    "no MCTP packet": (SpdmMalformed, classic([b"\x01\x08\x09"])),
    "an empty message over MCTP": (SpdmMalformed, classic([mctp(b"")])),
    "an empty message over PCI DOE": (SpdmMalformed, classic([doe(b"")], link=LINK_PCI_DOE)),
    "an end without a beginning": (SpdmSequence, classic([mctp(b"", flags=0x40)])),
    "a beginning inside": (SpdmSequence, classic([mctp(b"ab", flags=0x80), ONE])),
    "several endpoints": (SpdmSequence, classic([ONE, mctp(MESSAGES[1], ends=b"\x08\x0a")])),
    "a data object cut off": (SpdmMalformed, classic([doe(MESSAGES[0])[:-4]], link=LINK_PCI_DOE)),
    "a data object's head only": (SpdmMalformed, classic([b"\x01\x00\x01"], link=LINK_PCI_DOE)),
    "pcapng without byte order": (SpdmMalformed, b"\x0a\x0d\x0d\x0a" + bytes(24)),
    "pcapng, lengths differ": (SpdmMalformed, next_generation([ONE])[:-4] + bytes(4)),
    "pcapng, a short block": (SpdmMalformed, next_generation([]) + struct.pack("<II", 6, 8)),
    "pcapng, no interface": (SpdmMalformed, block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1)) + block(
        6, struct.pack("<IIIII", 0, 0, 0, len(ONE), len(ONE)) + ONE)),
    "pcapng, an interface cut off": (SpdmMalformed, next_generation([]) + block(1, b"\x23\x01\x00\x00")),
    "pcapng, too many interfaces": (SpdmMalformed, next_generation([]) + block(1, bytes(8)) * 20),
    "pcapng, a packet cut off": (SpdmMalformed, next_generation([]) + block(6, bytes(8))),
    "pcapng, a packet beyond its block": (SpdmMalformed, next_generation([]) + block(
        6, struct.pack("<IIIII", 0, 0, 0, 100, 100))),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    error, data = REFUSED[name]
    with pytest.raises(SpdmError) as caught:
        read_transcript(data)
    assert type(caught.value) is error, caught.value
    assert caught.value.field


@pytest.mark.parametrize("link", [1, 113])
def test_a_capture_of_tcp_says_what_to_do_instead(link: int) -> None:
    with pytest.raises(SpdmUnsupported, match=f"link type {link}") as caught:
        read_transcript(classic([ONE], link=link))
    assert "TCP or Ethernet" in caught.value.remedy
    assert "JSON" in caught.value.remedy
