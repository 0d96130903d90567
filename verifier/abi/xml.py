"""XML without its dangers: elements, attributes, namespaces and text, nothing else (XML 1.0; ATTESTATION.md §9.3).

No document type, so no entities; no references, comments, processing instructions or CDATA; UTF-8 only. What is left
has one meaning, and one canonical form that does not depend on what else stands in the document. lxml parses and
canonicalises; every bound is checked before it sees a byte.
"""

from __future__ import annotations

import re
from typing import Any

from lxml import etree

from verifier.errors import RimMalformed, RimTooLarge
from verifier.limits import MAX_RIM_BYTES, MAX_XML_ATTRIBUTES, MAX_XML_NAMESPACES, MAX_XML_TAGS

Element = Any
"""An lxml element: `tag` is "{namespace}name", `attrib` a mapping, its children by iteration. lxml has no types."""

C14N_11 = "http://www.w3.org/2006/12/xml-c14n11"
EXCLUSIVE_C14N = "http://www.w3.org/2001/10/xml-exc-c14n#"

CANONICAL_FORMS = frozenset({C14N_11, EXCLUSIVE_C14N})
"""Canonical forms made here, both without comments. NVIDIA signs Canonical XML 1.1."""

_DECLARATION = re.compile(rb"""<\?xml version=["']1\.0["'](?: encoding=["'](?:UTF|utf)-8["'])?[ ]?\?>""")
_XML_ATTRIBUTE = "{http://www.w3.org/XML/1998/namespace}"


def parse_xml(data: bytes) -> Element:
    """The root element of `data`. Raises `RimTooLarge`, `RimMalformed`."""
    check_sizes(data)
    check_markup(data)
    try:
        root = etree.fromstring(data, _parser())
    except (etree.LxmlError, ValueError) as error:
        raise RimMalformed("not well-formed XML", field="xml") from error
    check_attributes_of_xml(root)
    return root


def canonical(element: Element, form: str) -> bytes:
    """The canonical form of `element` and all below it; `form` is one of `CANONICAL_FORMS`. Raises `RimMalformed`.

    lxml makes Canonical XML 1.0 for 1.1: they differ in what `xml:` attributes hand down, and there are none. A
    namespace with a relative name has no canonical form.
    """
    exclusive = form == EXCLUSIVE_C14N
    try:
        return bytes(etree.tostring(element, method="c14n", exclusive=exclusive, with_comments=False))
    except etree.LxmlError as error:
        raise RimMalformed("a document without a canonical form", field="xml") from error


def without(root: Element, child: Element) -> Element:
    """`root` after its `child` is taken out; the text behind the child stays."""
    tail, before = child.tail or "", child.getprevious()
    root.remove(child)
    if before is None:
        root.text = (root.text or "") + tail
    else:
        before.tail = (before.tail or "") + tail
    return root


def check_sizes(data: bytes) -> None:
    """Bytes, tags, attributes, namespace declarations: what parsing and canonicalising cost. `RimTooLarge`."""
    if len(data) > MAX_RIM_BYTES:
        raise RimTooLarge(f"{len(data)} bytes, at most {MAX_RIM_BYTES}", field="xml")
    for sign, most, what in (
        (b"<", MAX_XML_TAGS, "tags"),
        (b"=", MAX_XML_ATTRIBUTES, "attributes"),
        (b"xmlns", MAX_XML_NAMESPACES, "namespaces"),
    ):
        if data.count(sign) > most:
            raise RimTooLarge(f"more than {most} {what}", field="xml")


def check_markup(data: bytes) -> None:
    """UTF-8, and no markup but tags: no DTD, comment, CDATA section, processing instruction, reference. `RimMalformed`.

    In well-formed XML these five begin with "<!", "<?" and "&", and those stand nowhere else. A zero byte would be
    part of another encoding, in which they look otherwise.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RimMalformed("not UTF-8", field="xml") from error
    if b"\x00" in data:
        raise RimMalformed("a zero byte", field="xml")
    declaration = _DECLARATION.match(data)
    body = data[declaration.end() :] if declaration else data
    if not body.lstrip(b" \t\r\n").startswith(b"<"):
        raise RimMalformed("no XML", field="xml")
    for sign, what in ((b"<!", "a document type, comment or CDATA section"), (b"<?", "a processing instruction")):
        if sign in body:
            raise RimMalformed(f"{what} in the document", field="xml")
    if b"&" in body:
        raise RimMalformed("a character or entity reference in the document", field="xml")


def check_attributes_of_xml(root: Element) -> None:
    """No `xml:` attribute: the versions of Canonical XML hand them down in different ways. `RimMalformed`."""
    for element in root.iter():
        if any(name.startswith(_XML_ATTRIBUTE) for name in element.attrib):
            raise RimMalformed("an attribute of the xml namespace", field="xml")


def _parser() -> Any:
    """A parser that reads nothing but what it is given, as UTF-8, and stops at libxml2's own limits."""
    return etree.XMLParser(
        encoding="utf-8", resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False,
        attribute_defaults=False, huge_tree=False, recover=False, remove_blank_text=False, collect_ids=False,
    )  # fmt: skip
