"""Mutations that understand DER: one value of a certificate or CRL is changed, every length around it follows."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import NamedTuple

from tests.verifier.fuzzing_raw import raw

BIT_STRING, OCTET_STRING = 0x03, 0x04
TAGS = bytes.fromhex("0102030405060a0c131617181e303180a0a31f")
INTEGERS = (b"", b"\x00", b"\x01", b"\xff", b"\x7f", b"\x80", b"\x00\x00", b"\x00\x7f", b"\x00\xff", b"\xff" * 20,
            b"\x7f" + b"\xff" * 19, b"\x01" + bytes(20), b"\x00" + b"\xff" * 40, b"\x7f" * 4000)  # fmt: skip
TIMES = (b"500101000000Z", b"491231235959Z", b"000000000000Z", b"991332256161Z", b"2501010000Z", b"250101000000+0100",
         b"20500101000000Z", b"99991231235959Z", b"00000101000000Z", b"20250101000000.5Z", b"250230Z")  # fmt: skip
OIDS = (b"", b"\x80", b"\x55\x1d\x13", b"\x55\x1d\x0f", b"\x55\x1d\x14", b"\x55\x1d\x23", b"\x55\x04\x03",
        b"\x2a\x86\x48\x86\xf8\x4d\x01\x0d\x01", b"\x2a\x86\x48\xce\x3d\x04\x03\x02", b"\xff" * 30)  # fmt: skip


class Node(NamedTuple):
    """One DER value inside a text: where it, its content and its end lie; `parent` is an index, -1 at the top."""

    tag: int
    start: int
    body: int
    end: int
    parent: int


@lru_cache(maxsize=256)
def nodes_of(data: bytes) -> tuple[Node, ...]:
    """Every value of `data` in order, also those inside OCTET and BIT STRINGs; empty where it is no DER."""
    found: list[Node] = []
    _walk(data, 0, len(data), -1, found)
    return tuple(found)


def _walk(data: bytes, start: int, end: int, parent: int, found: list[Node]) -> bool:
    here = len(found)
    while start < end:
        node = _node(data, start, end, parent)
        if node is None:
            del found[here:]
            return False
        index = len(found)
        found.append(node)
        if node.tag & 0x20:
            _walk(data, node.body, node.end, index, found)
        elif node.tag in (OCTET_STRING, BIT_STRING) and node.end - node.body > 4:
            _walk(data, node.body + (node.tag == BIT_STRING), node.end, index, found)
        start = node.end
    return True


def _node(data: bytes, start: int, end: int, parent: int) -> Node | None:
    if end - start < 2:
        return None
    size, body = data[start + 1], start + 2
    if size & 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 3 or body + octets > end:
            return None
        size, body = int.from_bytes(data[body : body + octets], "big"), body + octets
    return Node(data[start], start, body, body + size, parent) if body + size <= end else None


def tlv(tag: int, content: bytes) -> bytes:
    """One DER value with a minimal length."""
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def replaced(data: bytes, nodes: tuple[Node, ...], index: int, new: bytes) -> bytes:
    """`data` with the value at `index` replaced by `new`, the lengths around it right again."""
    _, start, _, end, parent = nodes[index]
    while parent >= 0:
        tag, outer_start, body, outer_end, above = nodes[parent]
        new = tlv(tag, data[body:start] + new + data[end:outer_end])
        start, end, parent = outer_start, outer_end, above
    return data[:start] + new + data[end:]


def mutate_der(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One value of `data` changed; `other` gives values to graft. No DER falls back to bytes."""
    nodes = nodes_of(data)
    if not nodes:
        return raw(rng, data, other)
    # Front and back hold what is judged (names, times, extensions), the middle what there is most of.
    place = rng.random()
    index = int((place, place * place, 1 - place * place)[rng.randrange(3)] * len(nodes)) % len(nodes)
    node = nodes[index]
    content = data[node.body : node.end]
    return replaced(data, nodes, index, _changed(rng, data, node, content, other))


def _changed(rng: random.Random, data: bytes, node: Node, content: bytes, other: bytes) -> bytes:
    value, kind = data[node.start : node.end], rng.randrange(17)
    if kind < 3:
        return tlv(node.tag, raw(rng, content, other))
    if kind == 3:
        return tlv(rng.choice(TAGS) if rng.random() < 0.8 else rng.randrange(256), content)
    if kind == 4:
        return b""
    if kind == 5:
        return value * rng.choice((2, 2, 3, 20, 100))
    if kind == 6:
        nodes = nodes_of(other)
        graft = rng.choice(nodes) if nodes else node
        return other[graft.start : graft.end] if nodes else value
    if kind == 7:
        for _ in range(rng.choice((1, 2, 8, 9, 40, 200))):
            value = tlv(0x30, value)
        return value
    if kind == 8:
        return tlv(node.tag, rng.choice((b"\x00", b"\xff", b"\x30\x00", b"A")) * rng.choice((50, 300, 4_000, 20_000)))
    if kind == 9:
        octets = rng.randrange(1, 6)
        return bytes((node.tag, 0x80 | octets)) + (len(content) % 256**octets).to_bytes(octets, "big") + content
    if kind == 10:
        return bytes((node.tag, 0x80)) + content + b"\x00\x00"
    if kind == 11:
        return tlv(node.tag, b"")
    if kind == 12:
        return bytes((node.tag, max(0, min(127, len(content) + rng.choice((-1, 1, 2)))))) + content
    if kind == 13:
        return tlv(0x06, rng.choice(OIDS))
    if kind == 14:
        return tlv(rng.choice((0x17, 0x18)), rng.choice(TIMES))
    return tlv(0x02 if rng.random() < 0.7 else node.tag, rng.choice(INTEGERS))
