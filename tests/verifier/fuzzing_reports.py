"""Mutations that understand NVIDIA reports: headers, lengths, blocks, opaque fields; mostly, lengths follow."""

from __future__ import annotations

import random

from tests.verifier.fuzzing_raw import raw

SIZES = (0, 1, 2, 3, 31, 47, 48, 49, 55, 0x7F, 0xFF, 0x7FFF, 0xFFFF)
RECORD, BLOCK, SIGNATURE_BYTES = 45, 55, 96
"""Where the record begins, and the sizes of a genuine block and of the signature."""


def mutate_report(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One header, length, block or opaque field changed; counts and lengths around it follow, as a rule."""
    size = int.from_bytes(data[42:45], "little")
    if len(data) < 200 or len(data) < RECORD + size + 34 + SIGNATURE_BYTES or rng.random() < 0.1:
        return raw(rng, data, other)
    blocks = [bytearray(data[at : at + BLOCK]) for at in range(RECORD, RECORD + size, BLOCK)] or [bytearray(BLOCK)]
    opaque_at = RECORD + size + 34
    head, opaque, signature = bytearray(data[:RECORD]), data[opaque_at:-SIGNATURE_BYTES], data[-SIGNATURE_BYTES:]
    nonce = data[RECORD + size : opaque_at - 2]
    kind, at = rng.randrange(7), rng.randrange(len(blocks))
    if kind == 0:
        place = rng.choice((0, 1, 2, 3, 36, 37, 38, 39, 40))
        head[place] = rng.randrange(256)
    elif kind == 1:
        blocks[at][rng.randrange(7)] = rng.randrange(256)
    elif kind == 2:
        blocks[at][7:] = rng.randbytes(len(blocks[at]) - 7)
    elif kind == 3:
        blocks.insert(at, bytearray(blocks[rng.randrange(len(blocks))]))
    elif kind == 4:
        del blocks[at]
    elif kind == 5:
        value = rng.randbytes(rng.choice(SIZES[:10]))
        blocks[at] = bytearray([blocks[at][0], 1]) + (len(value) + 3).to_bytes(2, "little")
        blocks[at] += bytes([rng.choice((1, 0x81))]) + len(value).to_bytes(2, "little") + value
    else:
        opaque = mutate_opaque(rng, opaque, other[-300:-SIGNATURE_BYTES])[:0xFFFF]
    record = b"".join(blocks)
    count, length, opaque_length = len(blocks) & 0xFF, len(record), len(opaque)
    if rng.random() < 0.1:
        count = rng.randrange(256)
    if rng.random() < 0.1:
        length = rng.choice((0, length - 1, length + 1, 0xFFFFFF))
    if rng.random() < 0.1:
        opaque_length = rng.choice(SIZES)
    head[41], head[42:45] = count, max(0, length).to_bytes(3, "little")
    return bytes(head) + record + nonce + opaque_length.to_bytes(2, "little") + opaque + signature


def mutate_opaque(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One field changed, doubled, left out, added; its size follows, as a rule."""
    fields, at = [], 0
    while at + 4 <= len(data):
        size = int.from_bytes(data[at + 2 : at + 4], "little")
        fields.append((int.from_bytes(data[at : at + 2], "little"), data[at + 4 : at + 4 + size]))
        at += 4 + size
    if not fields:
        return raw(rng, data, other)
    place, kind = rng.randrange(len(fields)), rng.randrange(6)
    number, value = fields[place]
    if kind == 0:
        fields[place] = number, raw(rng, value, other)[:0xFFFF]
    elif kind == 1:
        fields[place] = rng.choice((*range(37), 255, 0xFFFF)), value
    elif kind == 2:
        fields.insert(place, fields[place])
    elif kind == 3:
        del fields[place]
    elif kind == 4:
        fields += [(rng.randrange(1 << 16), b"")] * rng.choice((1, 70, 3000))
    else:
        fields[place] = number, rng.randbytes(rng.choice(SIZES[:10]))
    return b"".join(map(_field, fields))


def _field(one: tuple[int, bytes]) -> bytes:
    number, value = one
    return number.to_bytes(2, "little") + (len(value) & 0xFFFF).to_bytes(2, "little") + value
