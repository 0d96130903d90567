"""Mutations of signed XML: attributes, elements, names, base64 inside, and what a strict parser must refuse."""

from __future__ import annotations

import base64
import random
import re

from tests.verifier.fuzzing_der import mutate_der
from tests.verifier.fuzzing_raw import raw

_ATTRIBUTE = re.compile(rb'\s([A-Za-z0-9:]+)="([^"]*)"')
_ELEMENT = re.compile(rb"<([A-Za-z0-9:]+)[^<>]*?(/>|>[^<]*</\1>)")
_TEXT = re.compile(rb">([A-Za-z0-9+/=\s]{40,})<")
_TAG = re.compile(rb"</?[A-Za-z0-9:]+[^<>]*>")
_VALUES = (
    b"", b"0", b"-1", b"1", b"2", b"64", b"65", b"238", b"239", b"99999999999999999999", b"True", b"False", b"true",
    b"00" * 48, b"ff" * 48, b"Measurement", b"#rim", b"http://a/", b"relative", b"x" * 5000, b"\xc3\xa9", b" 7 ",
    b"&#55;", b"&v;", b"http://www.w3.org/2001/10/xml-exc-c14n#", b"http://www.w3.org/2006/12/xml-c14n11",
    b"http://www.w3.org/2000/09/xmldsig#sha1", b"http://www.w3.org/2000/09/xmldsig#", b"550.144.03", b"96.00.74.00.1A",
)  # fmt: skip
_INSERTED = (
    b"<!-- -->", b"<?a b?>", b"<![CDATA[ ]]>", b"&#10;", b"&amp;", b"<a/>", b"<a><b/></a>", b"text", b"\t\r\n", b"\x00",
    b'<ds:Object xmlns:ds="http://www.w3.org/2000/09/xmldsig#"/>', b"\xef\xbf\xbf", b"\xff", b"]]>", b"<a>" * 300,
    b"<a/>" * 2000, b" " * 20_000,
)  # fmt: skip
_AHEAD = (
    b'<?xml version="1.0" encoding="UTF-8"?>', b'<?xml version="1.0" encoding="UTF-16"?>', b"\xef\xbb\xbf",
    b'<!DOCTYPE SoftwareIdentity [<!ENTITY v "1"><!ENTITY w "&v;&v;&v;&v;">]>', b"<!DOCTYPE a SYSTEM 'file:///etc/x'>",
    b"<!-- -->", b"\n\n",
)  # fmt: skip
_SPACES = b" ".join(b'xmlns:n%d="urn:%d"' % (one, one) for one in range(40))


def mutate_xml(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One thing in the text changed; mostly it stays well-formed."""
    kind = rng.randrange(12)
    if kind < 4:
        return _attribute(rng, data)
    if kind < 7:
        return _element(rng, data, other)
    if kind == 7:
        return _encoded(rng, data, other)
    if kind == 8:
        found = list(_TAG.finditer(data))
        at = rng.choice(found).start() if found else 0
        return data[:at] + rng.choice(_INSERTED) + data[at:]
    if kind == 9:
        return rng.choice(_AHEAD) + data
    if kind == 10:
        return _rename(rng, data)
    return raw(rng, data, other)


def _attribute(rng: random.Random, data: bytes) -> bytes:
    found = list(_ATTRIBUTE.finditer(data))
    if not found:
        return data
    one, another = rng.choice(found), rng.choice(found)
    kind = rng.randrange(6)
    if kind == 0:
        return data[: one.start()] + data[one.end() :]
    if kind == 1:
        return data[: one.end()] + another[0] + data[one.end() :]
    if kind == 2:
        return data[: one.start(1)] + another[1] + data[one.end(1) :]
    if kind == 3:
        extra = rng.choice((b' xml:lang="en"', b' Id="rim"', b" " + _SPACES, b' a="1"' * 2, b' ns2:Hash9="00"'))
        return data[: one.end()] + extra + data[one.end() :]
    value = rng.choice(_VALUES) if kind == 4 else raw(rng, one[2], another[2]).replace(b'"', b"'")
    return data[: one.start(2)] + value + data[one.end(2) :]


def _element(rng: random.Random, data: bytes, other: bytes) -> bytes:
    found = list(_ELEMENT.finditer(data))
    if not found:
        return data
    one, another = rng.choice(found), rng.choice(found)
    strangers = list(_ELEMENT.finditer(other)) or found
    kind = rng.randrange(6)
    if kind == 0:
        return data[: one.start()] + data[one.end() :]
    if kind == 1:
        return data[: one.end()] + one[0] * rng.choice((1, 1, 1, 30, 300)) + data[one.end() :]
    if kind == 2:
        return data[: one.start()] + another[0] + data[one.end() :]
    if kind == 3:
        return data[: one.start()] + rng.choice(strangers)[0] + data[one.end() :]
    if kind == 4:
        return data[: another.start()] + one[0] + data[another.start() :]
    return data[: one.start()] + b"<a>" + one[0] + b"</a>" + data[one.end() :]


def _encoded(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """Something in base64: a certificate, a signature, a digest."""
    found = list(_TEXT.finditer(data))
    if not found:
        return data
    one = rng.choice(found)
    try:
        inner = base64.b64decode(one[1])
    except ValueError:
        return data
    changed = mutate_der(rng, inner, inner) if inner[:1] == b"\x30" else raw(rng, inner, inner)
    return data[: one.start(1)] + base64.b64encode(changed) + data[one.end(1) :]


def _rename(rng: random.Random, data: bytes) -> bytes:
    found = list(_TAG.finditer(data))
    if not found:
        return data
    name = rng.choice(found)[0].strip(b"</>").split()[0]
    instead = rng.choice(found)[0].strip(b"</>").split()[0]
    return data.replace(name, instead, rng.choice((1, 2, -1)))
