"""Mutations that understand JSON text: values, members and elements are changed where they stand, the rest is kept."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from typing import NamedTuple

from tests.verifier.fuzzing_raw import raw

_REMEMBERED_CHARACTERS = 20_000
"""Genuine documents are shorter; what a mutation has blown up comes once and fills memory."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')
STATUSES = ("UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate",
            "OutOfDateConfigurationNeeded", "Revoked", "TDRelaunchAdvised", "uptodate", "")  # fmt: skip
WORDS = ("SGX", "TDX", "QE", "TD_QE", "QVE", "TDX_01", "TDX_03", "TDX_", "TDX_fF", "sgx", "b0c06f000000", "0000")
DATES = ("2025-02-29T00:00:00Z", "2024-02-29T24:00:00Z", "0000-00-00T00:00:00Z", "9999-12-31T23:59:60Z", "2025-08-13",
         "2025-08-13T00:00:00", "2025-08-13T00:00:00+00:00", "2025-08-13 00:00:00Z", "٢٠٢٥-08-13T00:00:00Z",
         "2025-08-13T00:00:00.000Z", "1600-01-01T00:00:00Z", "+2025-8-13T0:0:0Z", "")  # fmt: skip
NUMBERS = ("0", "-0", "-1", "1", "1e2", "2", "3", "16", "255", "256", "65535", "65536", "4294967296", "1.0",
           "1E400", "-1.5e-7", "01", "+1", "0x10", "1_0", "NaN", "Infinity", "-Infinity", "1" * 20, "9" * 4300,
           "9" * 20_000, "-" + "9" * 400, "1e" + "9" * 50, "٣", "")  # fmt: skip
VALUES = ("null", "true", "false", "[]", "{}", '""', '"\\u0000"', '"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"',
          '"\\x41"', '"\\', '"tab\there"', "'a'", "[" * 40 + "]" * 40, "[" * 900 + "]" * 900, "[" * 60_000,
          '{"a":' * 500 + "1" + "}" * 500, '{"svn":1,"svn":2}', '"' + "A" * 70_000 + '"', '"' + "\\u0041" * 5_000 + '"',
          "[" + "0," * 9_000 + "0]", "[" + "{}," * 5_000 + "{}]", "undefined", "/*c*/1", "nul")  # fmt: skip
SPACES = (" ", "\n", "\t\r\n ", "\x0b", "\u00a0", "\ufeff", "\x00", ",", "/**/", " " * 5_000)


class Node(NamedTuple):
    """One value: its kind ("{", "[", '"' or "0"), where it lies, where its member with the key begins, its parent."""

    kind: str
    start: int
    end: int
    member: int
    parent: int


def nodes_of(text: str) -> tuple[Node, ...]:
    """Every value of JSON `text`, in order; what is no JSON gives what was understood of it."""
    return _seed_nodes(text) if len(text) < _REMEMBERED_CHARACTERS else _nodes(text)


@lru_cache(maxsize=64)
def _seed_nodes(text: str) -> tuple[Node, ...]:
    return _nodes(text)


def _nodes(text: str) -> tuple[Node, ...]:
    found: list[Node] = []
    open_: list[int] = []
    key: int | None = None
    after_colon = False
    for token in _TOKEN.finditer(text):
        word, start, end = token.group(), token.start(), token.end()
        if word in "}]":
            if not open_:
                break
            index = open_.pop()
            found[index] = found[index]._replace(end=end)
            key, after_colon = None, False
        elif word == ",":
            key, after_colon = None, False
        elif word == ":":
            after_colon = True
        elif open_ and found[open_[-1]].kind == "{" and not after_colon:
            key = start
        else:
            kind = word[0] if word[0] in '{["' else "0"
            member = start if key is None else key
            found.append(Node(kind, start, end, member, open_[-1] if open_ else -1))
            if kind in "{[":
                open_.append(len(found) - 1)
            key, after_colon = None, False
    return tuple(found)


def mutate_json(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """`data` with one to four values changed, or spaces and garbage between its tokens."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return raw(rng, data, other)
    nodes = nodes_of(text)
    if not nodes:
        return raw(rng, data, other)
    edits: list[tuple[int, int, str]] = []
    for _ in range(1 if rng.random() < 0.6 else rng.randrange(2, 5)):
        # Containers are few and leaves many: half of the picks look near the top.
        place = rng.random()
        index = int((place if rng.random() < 0.5 else place**4) * len(nodes))
        start, end, new = _edit(rng, text, nodes, index)
        if all(end <= begin or stop <= start for begin, stop, _ in edits):
            edits.append((start, end, new))
    for start, end, new in sorted(edits, reverse=True):
        text = text[:start] + new + text[end:]
    return text.encode("utf-8", "surrogatepass")


def _edit(rng: random.Random, text: str, nodes: tuple[Node, ...], index: int) -> tuple[int, int, str]:
    """(start, end, new text) of one change."""
    node = nodes[index]
    kind = rng.randrange(12)
    member = text[node.member : node.end]
    if kind == 0:
        return node.start, node.end, rng.choice(VALUES)
    if kind == 1 and node.parent >= 0:
        return _removal(text, node)
    if kind == 2 and node.parent >= 0:  # the same key twice, or an element
        return node.end, node.end, "," + member
    if kind == 3 and node.parent >= 0 and len(member) < 4_000:
        return node.end, node.end, ("," + member) * rng.choice((2, 15, 16, 64, 300, 120_000 // (len(member) + 1)))
    if kind == 4:
        stranger = rng.choice(nodes)
        return node.start, node.end, text[stranger.start : stranger.end]
    if kind == 5:
        at = rng.choice((node.start, node.end, node.member))
        return at, at, rng.choice(SPACES)
    if kind == 6:
        return (
            node.start,
            node.end,
            rng.choice(("[%s]", '{"a":%s}', '"%s"', "%s,", "%s%s")).replace("%s", text[node.start : node.end]),
        )
    if kind == 7 and node.member < node.start:
        return node.member, node.start, f'"{rng.choice((*WORDS, "id", "version", "__proto__", ""))}":'
    if node.kind == '"':
        return node.start, node.end, _string(rng, text[node.start + 1 : node.end - 1])
    if node.kind == "0":
        return node.start, node.end, _number(rng, text[node.start : node.end])
    return node.start, node.end, text[node.start : node.end - 1] + rng.choice((",", "", "]", "}", ',"a":1}', ",1]"))


def _removal(text: str, node: Node) -> tuple[int, int, str]:
    end = node.end + 1 if text[node.end : node.end + 1] == "," else node.end
    start = node.member - 1 if end == node.end and text[node.member - 1 : node.member] == "," else node.member
    return start, end, ""


def _number(rng: random.Random, now: str) -> str:
    if rng.random() < 0.3 and now.isdigit() and len(now) < 20:
        return str(int(now) + rng.choice((-1, 1, 256)))
    return rng.choice(NUMBERS)


def _string(rng: random.Random, now: str) -> str:
    kind, at = rng.randrange(10), rng.randrange(len(now) + 1)
    if kind == 0:
        now = rng.choice(STATUSES)
    elif kind == 1:
        now = rng.choice(DATES)
    elif kind == 2:
        now = rng.choice(WORDS)
    elif kind == 3:
        now = now.swapcase()
    elif kind == 4:
        now = now[:at] + rng.choice("0fgZ \x7f\u0660é\ud800\U0001f600") + now[at:]
    elif kind == 5:
        now = now[: at - 1] + now[at:] if at else now[1:]
    elif kind == 6 and at < len(now):
        now = now[:at] + f"\\u{ord(now[at]) & 0xFFFF:04x}" + now[at + 1 :]
    elif kind == 7:
        now = now * rng.choice((2, 40, 1 + 60_000 // (len(now) + 1)))
    elif kind == 8 and at < len(now):
        now = now[:at] + rng.choice('0123456789abcdefABCDEF-:TZ"\\\n') + now[at + 1 :]
    else:
        return rng.choice(NUMBERS + VALUES)
    return f'"{now}"'
