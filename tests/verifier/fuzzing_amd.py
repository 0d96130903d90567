"""Mutations that understand SNP evidence: fields of reports, Azure's blob with its sizes, certificate tables."""

from __future__ import annotations

import random
import struct

from tests.forge.snp.reports import LAYOUT, SIZE
from tests.verifier.fuzzing_der import mutate_der
from tests.verifier.fuzzing_json import mutate_json
from tests.verifier.fuzzing_raw import raw

NUMBERS = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    0x1F,
    0x20,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0xFFFF,
    0x30000,
    0x7FFFFFFF,
    0xFFFFFFFF,
    1 << 63,
)
SIZES = (0, 1, 23, 24, 25, 48, 72, 0x4A0, 0x4000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)
HEAD, RUNTIME_AT = 32, 32 + SIZE + 20


def mutate_snp(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One to three fields of a report set to numbers, bits, noise or a stranger's; now and then its length."""
    if len(data) < SIZE or rng.random() < 0.05:
        return raw(rng, data, other)
    if rng.random() < 0.05:
        return data + rng.choice((bytes(1), bytes(2816), bytes(40_000), b"\x01", bytes(48), other[:400]))
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        offset, size = LAYOUT[rng.choice(list(LAYOUT))]
        kind = rng.randrange(4)
        if kind == 0:
            value = (rng.choice(NUMBERS) % (1 << 8 * size)).to_bytes(size, "little")
        elif kind == 1:
            value = (int.from_bytes(changed[offset : offset + size], "little") ^ 1 << rng.randrange(8 * size)).to_bytes(
                size, "little"
            )
        elif kind == 2:
            value = rng.randbytes(size)
        else:
            value = other[offset : offset + size].ljust(size, b"\x00")
        changed[offset : offset + size] = value
    return bytes(changed)


def mutate_hcl(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """The blob's head, report, sizes or runtime data changed; sizes follow, as a rule."""
    kind = rng.randrange(6)
    if len(data) < RUNTIME_AT or kind == 0:
        return raw(rng, data, other)
    changed = bytearray(data)
    if kind == 1:
        at = 4 * rng.choice((0, 1, 2, 3, 4, 5, 6, 7, *range((HEAD + SIZE) // 4, RUNTIME_AT // 4)))
        changed[at : at + 4] = (rng.choice(NUMBERS) & 0xFFFFFFFF).to_bytes(4, "little")
    elif kind == 2:
        changed[HEAD : HEAD + SIZE] = mutate_snp(rng, bytes(changed[HEAD : HEAD + SIZE]), other)[:SIZE].ljust(SIZE)
    elif kind == 3:
        return bytes(changed[:-1]) + rng.choice((b"", b"\x01", bytes(9_000), bytes(60_000)))
    else:
        size = int.from_bytes(changed[RUNTIME_AT - 4 : RUNTIME_AT], "little")
        text = mutate_json(rng, bytes(changed[RUNTIME_AT : RUNTIME_AT + size]), b'{"user-data": "00"}')
        changed[RUNTIME_AT : RUNTIME_AT + size] = text
        if rng.random() < 0.8:
            changed[8:12] = struct.pack("<I", RUNTIME_AT + len(text))
            changed[HEAD + SIZE : HEAD + SIZE + 4] = struct.pack("<I", 20 + len(text))
            changed[RUNTIME_AT - 4 : RUNTIME_AT] = struct.pack("<I", len(text))
    return bytes(changed)


def mutate_table(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """An entry's GUID, offset, size or contents changed; entries doubled or left out."""
    heads = []
    for at in range(0, len(data) - 23, 24):
        if not any(data[at : at + 24]):
            break
        heads.append(at)
    kind = rng.randrange(6)
    if not heads or kind == 0:
        return raw(rng, data, other)
    changed, at = bytearray(data), rng.choice(heads)
    offset, size = struct.unpack_from("<II", data, at + 16)
    if kind == 1:
        struct.pack_into(
            "<I", changed, at + rng.choice((16, 20)), rng.choice((*SIZES, offset, offset + 1, size - 1, size))
        )
    elif kind == 2:
        changed[at : at + 16] = rng.choice(
            (rng.randbytes(16), other[:16].ljust(16), bytes(changed[at : at + 16])[::-1])
        )
    elif kind == 3:
        changed[at:at] = changed[at : at + 24]
    elif kind == 4:
        del changed[at : at + 24]
    elif offset + size <= len(data):
        changed[offset : offset + size] = mutate_der(rng, bytes(changed[offset : offset + size]), other)
    return bytes(changed)
