"""The mutator: hostile evidence made from genuine evidence, every input named by (seed, integer, index).

Half of the changes are blind (`fuzzing_raw`), half know the format: DER with lengths that follow, PEM with base64 that
follows, JSON by its values, quotes with consistent lengths, collateral with every format inside its strings.
"""

from __future__ import annotations

import base64
import json
import random
import re
import urllib.parse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from tests.verifier.fuzzing_amd import mutate_hcl, mutate_snp, mutate_table
from tests.verifier.fuzzing_der import mutate_der
from tests.verifier.fuzzing_json import mutate_json
from tests.verifier.fuzzing_raw import raw
from tests.verifier.fuzzing_reports import mutate_opaque, mutate_report
from tests.verifier.fuzzing_transcripts import mutate_capture, mutate_message, mutate_transcript
from tests.verifier.fuzzing_xml import mutate_xml

_BLOCK = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END [A-Z0-9 ]+-----\s*", re.S)
_LABELS = (
    b"CERTIFICATE",
    b"X509 CRL",
    b"TRUSTED CERTIFICATE",
    b"PRIVATE KEY",
    b"certificate",
    b"",
    b"CERTIFICATE" * 99,
)
_BETWEEN = (b"", b"\n", b"\r\n", b" ", b"\x00", b"garbage\n", b"\n" * 9_000, b"-----", b"Subject: a\n", b"\xff")
_BODY_SIZES = {1: 384, 2: 584, 3: 648, 4: 885}


@dataclass(frozen=True, slots=True)
class Seed:
    """Genuine bytes to start from. `kind` names the mutation that understands them, `group` what they belong to."""

    name: str
    kind: str
    data: bytes
    group: str = ""


def mutated(seed: Seed, pool: Sequence[Seed], integer: int, index: int) -> tuple[random.Random, bytes]:
    """Input `index` of the batch that `integer` names, from `seed`; `pool` has strangers to mix with.

    Returns the generator too, so that whoever signs the input anew can draw on. The same arguments give the same.
    """
    rng = random.Random(integer << 20 | index)
    strangers = [one for one in pool if one.kind == seed.kind] or [seed]
    other = rng.choice(strangers).data
    return rng, mutate(rng, seed.kind, seed.data, other)


def mutate(rng: random.Random, kind: str, data: bytes, other: bytes) -> bytes:
    """`data` of `kind` changed once or twice."""
    data = _UNDERSTANDING[kind](rng, data, other) if rng.random() < 0.65 else raw(rng, data, other)
    return raw(rng, data, other) if rng.random() < 0.1 else data


# --- PEM


@lru_cache(maxsize=256)
def pem_blocks(text: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """(label, DER) of the PEM blocks of `text`; what is no base64 counts as empty."""
    found = []
    for match in _BLOCK.finditer(text):
        try:
            found.append((match.group(1), base64.b64decode(match.group(2))))
        except ValueError:
            found.append((match.group(1), b""))
    return tuple(found)


def mutate_pem(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Blocks changed inside, in order, number, label or layout."""
    blocks = list(pem_blocks(data))
    if not blocks:
        return raw(rng, data, other)
    strangers = pem_blocks(other) or blocks
    kind, at = rng.randrange(10), rng.randrange(len(blocks))
    label, der = blocks[at]
    if kind < 5:
        blocks[at] = label, mutate_der(rng, der, rng.choice(strangers)[1])
    elif kind == 5:
        rng.shuffle(blocks)
    elif kind == 6:
        blocks[at:at] = [rng.choice(strangers)] * rng.choice((1, 1, 2, 20, 60))
    elif kind == 7:
        del blocks[at]
    elif kind == 8:
        blocks[at] = rng.choice(_LABELS), der
    width, between = 64, b"\n"
    if kind == 9:
        width, between = rng.choice((1, 60, 76, 100_000)), rng.choice(_BETWEEN)
    return between.join(_odd_pem(rng, label, der, width) for label, der in blocks) + rng.choice((b"", b"\n", b"\x00"))


def pem_text(label: bytes, der: bytes, width: int = 64) -> bytes:
    """One PEM block."""
    return _pem(label, base64.b64encode(der), width) + b"\n"


def _odd_pem(rng: random.Random, label: bytes, der: bytes, width: int) -> bytes:
    body = base64.b64encode(der)
    if rng.random() < 0.03:  # not canonical: other padding, other alphabet, stray bits
        body = rng.choice((body.rstrip(b"="), body + b"=", body.replace(b"+", b"-"), body[:-1] + b"B", b"\n\n" + body))
    return _pem(label, body, width)


def _pem(label: bytes, body: bytes, width: int) -> bytes:
    lines = b"\n".join(body[i : i + width] for i in range(0, len(body), width))
    return b"-----BEGIN " + label + b"-----\n" + lines + b"\n-----END " + label + b"-----"


# --- Quotes


class Parts(NamedTuple):
    """A quote taken apart; `outer` is the type of v4's and v5's outer certification data, -1 in v3."""

    header: bytes
    descriptor: bytes
    body: bytes
    quote_signature: bytes
    key: bytes
    outer: int
    qe_report: bytes
    qe_signature: bytes
    auth: bytes
    kind: int
    certification: bytes
    tail: bytes


@lru_cache(maxsize=256)
def parts_of(quote: bytes) -> Parts | None:
    """The parts of a consistent quote; None for any other."""
    version, tee = int.from_bytes(quote[:2], "little"), int.from_bytes(quote[4:8], "little")
    at = 48
    descriptor = quote[48:54] if version == 5 else b""
    size = int.from_bytes(descriptor[2:], "little") if descriptor else 584 if tee else 384
    at += len(descriptor)
    body, at = quote[at : at + size], at + size
    section_end = at + 4 + int.from_bytes(quote[at : at + 4], "little")
    at += 4
    signature, key, at = quote[at : at + 64], quote[at + 64 : at + 128], at + 128
    outer = -1
    if version != 3:
        outer, at = int.from_bytes(quote[at : at + 2], "little"), at + 6
    report, qe_signature, at = quote[at : at + 384], quote[at + 384 : at + 448], at + 448
    size = int.from_bytes(quote[at : at + 2], "little")
    auth, at = quote[at + 2 : at + 2 + size], at + 2 + size
    kind, size = int.from_bytes(quote[at : at + 2], "little"), int.from_bytes(quote[at + 2 : at + 6], "little")
    data, at = quote[at + 6 : at + 6 + size], at + 6 + size
    parts = Parts(
        quote[:48], descriptor, body, signature, key, outer, report, qe_signature, auth, kind, data, quote[at:]
    )
    return parts if at == section_end and join_parts(parts) == quote else None


def join_parts(parts: Parts, lie: int = -1, by: int = 0) -> bytes:
    """A quote of `parts` with lengths that fit; number `lie` of them (0 to 3, outside in) is wrong by `by`."""
    off = [by if lie == n else 0 for n in range(4)]
    certification = _sized(parts.kind, parts.certification, off[2])
    inner = parts.qe_report + parts.qe_signature + _le(len(parts.auth) + off[3], 2) + parts.auth + certification
    if parts.outer >= 0:
        inner = _sized(parts.outer, inner, off[1])
    section = parts.quote_signature + parts.key + inner
    return parts.header + parts.descriptor + parts.body + _le(len(section) + off[0], 4) + section + parts.tail


def _le(value: int, size: int) -> bytes:
    return (value % (1 << 8 * size)).to_bytes(size, "little")


def _sized(kind: int, data: bytes, off: int) -> bytes:
    return _le(kind, 2) + _le(len(data) + off, 4) + data


def mutate_quote(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One part changed, the lengths right again; or one length wrong."""
    parts = parts_of(data)
    if parts is None:
        return raw(rng, data, other)
    if rng.random() < 0.15:
        by = rng.choice((-1, 1, 2, 64, 4096, -64, 1 << 15, 1 << 31, -(1 << 31)))
        return join_parts(parts, rng.randrange(4), by)
    return join_parts(mutate_parts(rng, parts, parts_of(other) or parts))


def mutate_parts(rng: random.Random, parts: Parts, other: Parts) -> Parts:
    """`parts` with one of them changed, or taken from `other`."""
    kind = rng.randrange(15)
    if kind < 4:
        return parts._replace(certification=mutate_pem(rng, parts.certification, other.certification))
    if kind == 4:
        return parts._replace(kind=rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 255, 65535)))
    if kind == 5:
        data = rng.randbytes(rng.choice((0, 1, 16, 36, 260, 404, 500, 16_385)))
        return parts._replace(kind=rng.choice((1, 2, 3, 4, 5)), certification=data)
    if kind == 6:
        return parts._replace(auth=rng.randbytes(rng.choice((0, 1, 31, 33, 64, 1024, 1025, 65535))))
    if kind == 7:
        return parts._replace(
            tail=rng.choice((b"\x00", b"\x00" * 3_000, b"\x00" * 40_000, b"\x01", b"\x00" * 99 + b"\x02"))
        )
    if kind == 8:
        return parts._replace(outer=rng.choice((-1, 5, 6, 6, 7, 0)))
    if kind == 9:
        return _other_layout(rng, parts)
    if kind == 10:
        field = rng.choice(("header", "body", "qe_report", "auth", "certification", "key", "kind", "descriptor"))
        return parts._replace(**{field: getattr(other, field)})
    field = rng.choice(("header", "body", "body", "qe_report", "qe_report", "key", "quote_signature", "qe_signature"))
    return parts._replace(**{field: _same_size(rng, getattr(parts, field))})


def _same_size(rng: random.Random, data: bytes) -> bytes:
    """Bytes of a fixed-size structure changed in place; once in ten its size as well."""
    if rng.random() < 0.1:
        return raw(rng, data, data)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed))
        size = min(rng.choice((1, 1, 1, 8, 16)), len(changed) - at)
        changed[at : at + size] = rng.choice((b"\x00", b"\xff", b"\x01", rng.randbytes(1))) * size
    return bytes(changed)


def _other_layout(rng: random.Random, parts: Parts) -> Parts:
    """Another version, TEE or body type, with a body that fits it more often than not."""
    version, tee = rng.choice((2, 3, 4, 4, 5, 5, 6, 65535)), rng.choice((0, 0, 0x81, 0x81, 1, 0x81000000))
    body_type = rng.choice((0, 1, 2, 3, 4, 5, 65535))
    size = _BODY_SIZES.get(body_type, 384)
    if version != 5:
        size = 584 if tee == 0x81 else 384
    descriptor = _le(body_type, 2) + _le(size + rng.choice((0, 0, 0, 1, -1)), 4) if version == 5 else b""
    header = _le(version, 2) + parts.header[2:4] + _le(tee, 4) + parts.header[8:]
    body = parts.body if rng.random() < 0.2 else (parts.body + bytes(600))[:size]
    return parts._replace(header=header, descriptor=descriptor, body=body, outer=-1 if version == 3 else 6)


# --- Collateral and what web servers answer


@lru_cache(maxsize=256)
def _members(text: bytes) -> tuple[tuple[str, str], ...]:
    """The members of a JSON object of strings; empty for anything else."""
    try:
        found = json.loads(text)
    except ValueError:
        return ()
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        return ()
    return tuple(found.items())


def mutate_collateral(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """A QuoteCollateralV3 with one document inside changed, or exchanged for another set's; else its JSON changed."""
    members, strangers = dict(_members(data)), dict(_members(other))
    if not members or rng.random() < 0.15:
        return mutate_json(rng, data, other)
    key = rng.choice(list(members))
    value, stranger = members[key], strangers.get(key, members[key])
    if rng.random() < 0.1:
        members[key] = stranger
    else:
        changed = mutate_text(rng, value.encode(), stranger.encode())
        try:
            members[key] = changed.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            members[key] = changed.decode("latin-1")
    return json.dumps(members, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def mutate_text(rng: random.Random, value: bytes, other: bytes) -> bytes:
    """PEM, JSON or hex of DER, each in its own way."""
    if value.startswith(b"-----"):
        return mutate_pem(rng, value, other)
    if value.startswith(b"{"):
        return mutate_json(rng, value, other)
    try:
        der, stranger = bytes.fromhex(value.decode()), bytes.fromhex(other.decode())
    except ValueError:
        return raw(rng, value, other)
    if rng.random() < 0.1:
        return raw(rng, value, other)
    changed = mutate_der(rng, der, stranger) if der[:1] == b"\x30" else raw(rng, der, stranger)
    return rng.choice((bytes.hex(changed), bytes.hex(changed).upper())).encode()


def mutate_http(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """An HTTP response or header dump: its lines, the chains in its headers, its body."""
    head, gap, body = data.partition(b"\r\n\r\n")
    lines, kind = head.split(b"\r\n"), rng.randrange(9)
    at = rng.randrange(len(lines))
    name, _, value = lines[at].partition(b": ")
    if kind < 3 and b"BEGIN" in value:
        text = mutate_pem(rng, urllib.parse.unquote_to_bytes(value), b"")
        lines[at] = name + b": " + urllib.parse.quote(text, safe=rng.choice(("", "/", "/+="))).encode()
    elif kind < 5:
        body = mutate_text(rng, body, other.partition(b"\r\n\r\n")[2])
    elif kind == 5:
        lines[at:at] = [lines[at]] * rng.choice((1, 2, 50, 300))
    elif kind == 6:
        lines[at] = rng.choice(
            (lines[at].upper(), lines[at].lower(), b" " + lines[at], name + b":" + value, name, b":")
        )
    elif kind == 7:
        lines[at] = rng.choice((name + b": " + b"%2" * 20_000, b"a" * 70_000, name + b": %zz%00%ff", b"HTTP/2 200"))
    else:
        gap = rng.choice((b"", b"\n\n", b"\r\n", b"\r\n\r\n\r\n", b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"))
    return rng.choice((b"\r\n", b"\r\n", b"\n")).join(lines) + gap + body


_UNDERSTANDING: dict[str, Callable[[random.Random, bytes, bytes], bytes]] = {
    "der": mutate_der,
    "pem": mutate_pem,
    "json": mutate_json,
    "quote": mutate_quote,
    "collateral": mutate_collateral,
    "http": mutate_http,
    "text": mutate_text,
    "nvidia": mutate_report,
    "opaque": mutate_opaque,
    "snp": mutate_snp,
    "hcl": mutate_hcl,
    "table": mutate_table,
    "xml": mutate_xml,
    "spdm": mutate_message,
    "transcript": mutate_transcript,
    "capture": mutate_capture,
    "bytes": raw,
}
"""How seeds of each kind are changed by those who understand them."""
