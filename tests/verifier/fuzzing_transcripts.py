"""Mutations that understand SPDM: transcripts by messages, messages by fields, captures by records."""

from __future__ import annotations

import json
import random
import struct

from tests.verifier.fuzzing_der import mutate_der
from tests.verifier.fuzzing_json import mutate_json
from tests.verifier.fuzzing_raw import raw

CODES = (0x01, 0x02, 0x03, 0x04, 0x60, 0x61, 0x63, 0x7F, 0x81, 0x82, 0x83, 0x84, 0xE0, 0xE1, 0xE3, 0xFE, 0xFF)
NUMBERS = (0, 1, 2, 3, 5, 7, 8, 15, 16, 31, 32, 64, 127, 128, 200, 254, 255)
SIZES = (0, 1, 3, 4, 7, 48, 0xFF, 0x100, 0x7FFF, 0xFFFF)
_CLASSIC_HEADER, _RECORD = 24, 16


def mutate_message(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Header, lengths, blocks or bytes of one message changed."""
    kind = rng.randrange(8)
    if len(data) < 8 or kind == 0:
        return raw(rng, data, other)
    changed = bytearray(data)
    if kind == 1:
        changed[rng.randrange(4)] = rng.choice(NUMBERS)
    elif kind == 2:
        changed[1] = rng.choice(CODES)
    elif kind == 3:
        changed[0] = rng.choice((0x10, 0x11, 0x12, 0x13, 0x14, 0x15, 0x20))
    elif kind == 4:
        at = rng.choice((4, 6, 5, rng.randrange(4, len(changed) - 1)))
        changed[at : at + 2] = rng.choice(SIZES).to_bytes(2, "little")
    elif kind == 5:
        at = rng.randrange(len(changed))
        changed[at:at] = rng.randbytes(rng.choice((1, 2, 3, 4, 8, 32)))
    elif kind == 6:
        at, size = rng.randrange(len(changed)), rng.choice((1, 2, 4, 7, 32))
        del changed[at : at + size]
    elif 0x30 in changed[8:]:
        at = changed.index(0x30, 8)
        changed[at:] = mutate_der(rng, bytes(changed[at:]), other)
    return bytes(changed)


def mutate_messages(rng: random.Random, messages: list[bytes], others: list[bytes]) -> list[bytes]:
    """Exchanges left out, doubled, moved, put in from another transcript, or one message changed."""
    messages = list(messages)
    if not messages:
        return others[:2]
    kind, at = rng.randrange(8), 2 * rng.randrange((len(messages) + 1) // 2)
    if kind < 3:
        at = rng.randrange(len(messages))
        messages[at] = mutate_message(rng, messages[at], rng.choice(others) if others else b"")
    elif kind == 3:
        del messages[at : at + rng.choice((1, 2, 2, 2, 4))]
    elif kind == 4:
        messages[at:at] = messages[at : at + 2] * rng.choice((1, 1, 2, 20))
    elif kind == 5:
        pair = messages[at : at + 2]
        del messages[at : at + 2]
        there = 2 * rng.randrange(len(messages) // 2 + 1)
        messages[there:there] = pair
    elif kind == 6 and others:
        there = 2 * rng.randrange((len(others) + 1) // 2)
        messages[at : at + rng.choice((0, 2))] = others[there : there + rng.choice((2, 4))]
    else:
        more = rng.choice((("127f0300",), ("12e00000", "127f0100"), ("12fe0000", "127e0000"), ("12ff8305", "127f0100")))
        messages[at:at] = [bytes.fromhex(one) for one in more]
    return messages


def messages_of(data: bytes) -> list[bytes]:
    """The messages of a transcript in JSON; none if it is not one."""
    try:
        return [bytes.fromhex(one) for one in json.loads(data)["messages"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []


def transcript_of(messages: list[bytes]) -> bytes:
    """Messages as a transcript in JSON."""
    return json.dumps({"transport": "mctp", "messages": [one.hex() for one in messages]}).encode()


def mutate_transcript(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A transcript's messages changed, now and then its JSON."""
    if rng.random() < 0.1:
        return mutate_json(rng, data, other)
    messages = messages_of(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        messages = mutate_messages(rng, messages, messages_of(other))
    return transcript_of(messages)


def mutate_capture(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A classic capture's header or records changed, left out, doubled; other captures blindly."""
    starts = _records(data)
    if not starts or rng.random() < 0.2:
        return raw(rng, data, other)
    changed, kind = bytearray(data), rng.randrange(6)
    at = rng.choice(starts)
    size = _RECORD + int.from_bytes(data[at + 8 : at + 12], "little")
    if kind == 0:
        struct.pack_into("<I", changed, rng.choice((0, 16, 20)), rng.choice((0, 1, 291, 292, 0xFFFFFFFF, 0xA1B23C4D)))
    elif kind == 1:
        struct.pack_into("<I", changed, at + rng.choice((8, 12)), rng.choice((*SIZES, size - 15, size - 17)))
    elif kind == 2:
        changed[at + _RECORD + rng.randrange(5)] = rng.choice((0, 1, 5, 6, 0x40, 0x80, 0xC0, 0xFF))
    elif kind == 3:
        del changed[at : at + size]
    elif kind == 4:
        changed[at:at] = changed[at : at + size] * rng.choice((1, 2, 40))
    else:
        message = mutate_message(rng, bytes(changed[at + _RECORD + 5 : at + size]), other)
        changed[at + _RECORD + 5 : at + size] = message
        struct.pack_into("<II", changed, at + 8, len(message) + 5, len(message) + 5)
    return bytes(changed)


def _records(data: bytes) -> list[int]:
    if not data.startswith(b"\xd4\xc3\xb2\xa1"):
        return []
    found, at = [], _CLASSIC_HEADER
    while at + _RECORD + 5 <= len(data):
        found.append(at)
        at += _RECORD + int.from_bytes(data[at + 8 : at + 12], "little")
    return found
