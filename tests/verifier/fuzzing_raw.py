"""Mutations that understand nothing: bytes are flipped, set, cut, doubled, moved, mixed with others."""

from __future__ import annotations

import random

INTERESTING = bytes.fromhex("0001020a0d20222c2d303d5c7b7d7f8081ff")
CHUNKS = (b"\x00" * 64, b"\xff" * 64, b"-----BEGIN CERTIFICATE-----\n", b"-----END CERTIFICATE-----\n", b"\r\n\r\n",
          b'{"', b'":', b"[[[[", b"\x30\x80", b"\x00\x00", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\x80",
          b"%00", b"=")  # fmt: skip
LARGEST = 300_000
"""Bytes that repetition grows an input to: beyond every limit on what a parser takes."""


def raw(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """`data` after one to six changes; `other` is a stranger to mix it with."""
    changed = bytearray(data)
    for _ in range(1 if rng.random() < 0.5 else rng.randrange(2, 7)):
        if not changed:
            changed += other[:64] or b"\x00"
        _CHANGES[int(rng.random() * len(_CHANGES))](rng, changed, other)
    return bytes(changed)


def _at(rng: random.Random, data: bytearray) -> int:
    return int(rng.random() * len(data))


def _range(rng: random.Random, data: bytearray) -> tuple[int, int]:
    start = _at(rng, data)
    return start, start + 1 + int(rng.random() ** 3 * (len(data) - start))


def _flip(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[_at(rng, data)] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, other: bytes) -> None:
    data[_at(rng, data)] = rng.choice(INTERESTING) if rng.random() < 0.7 else rng.randrange(256)


def _truncate(rng: random.Random, data: bytearray, other: bytes) -> None:
    del data[_at(rng, data) :]


def _cut(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, stop = _range(rng, data)
    del data[start:stop]


def _double(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, stop = _range(rng, data)
    data[stop:stop] = data[start:stop]


def _repeat(rng: random.Random, data: bytearray, other: bytes) -> None:
    if rng.random() < 0.9:  # mostly a few times; large inputs are slow to make and refused for their size
        start, stop = _range(rng, data)
        data[stop:stop] = (data[start:stop] * rng.randrange(2, 9))[:LARGEST]
    else:
        start, stop = _range(rng, data)
        data[stop:stop] = data[start:stop] * (LARGEST // (stop - start))


def _insert(rng: random.Random, data: bytearray, other: bytes) -> None:
    at = _at(rng, data)
    data[at:at] = rng.choice(CHUNKS) if rng.random() < 0.6 else rng.randbytes(rng.randrange(1, 40))


def _overwrite(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, stop = _range(rng, data)
    stop = min(stop, start + 200)
    data[start:stop] = rng.randbytes(stop - start)


def _swap(rng: random.Random, data: bytearray, other: bytes) -> None:
    start, stop = _range(rng, data)
    part = data[start:stop]
    del data[start:stop]
    at = _at(rng, data) if data else 0
    data[at:at] = part


def _length(rng: random.Random, data: bytearray, other: bytes) -> None:
    """Take some bytes for a length and make it lie."""
    size, at, order = rng.choice((1, 2, 3, 4, 8)), _at(rng, data), rng.choice(("little", "big"))
    now = int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]
    value = rng.choice((0, 1, now - 1, now + 1, now * 2, len(data), len(data) - at, 1 << (8 * size - 1), -1))
    data[at : at + size] = (value % (1 << (8 * size))).to_bytes(size, order)  # type: ignore[arg-type]


def _cross(rng: random.Random, data: bytearray, other: bytes) -> None:
    """The front of this with the back of the other, or a piece of the other in the middle of this."""
    if not other:
        return
    stranger = bytearray(other)
    if rng.random() < 0.5:
        data[_at(rng, data) :] = stranger[_at(rng, stranger) :]
    else:
        (start, stop), (begin, end) = _range(rng, data), _range(rng, stranger)
        data[start:stop] = stranger[begin:end]


_CHANGES = (_flip, _flip, _set, _set, _truncate, _cut, _double, _repeat, _insert, _overwrite, _swap, _length, _length,
            _cross)  # fmt: skip
