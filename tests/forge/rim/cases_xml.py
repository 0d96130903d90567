"""Hostile XML: what a parser may be made to do, and what one text may be made to mean twice (ATTESTATION.md §9.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.forge.rim.edits import INDEX7, ahead, case, root_tag, sent, swap
from tests.forge.rim.world import DRIVER_ENTRIES, VBIOS_ENTRIES, Entry

MALFORMED, LARGE = "RIM_MALFORMED", "RIM_TOO_LARGE"

ENTITY = '<!DOCTYPE SoftwareIdentity [<!ENTITY v "550.144.03">]>'
LAUGHS = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 9))
LAUGHING = f'<!DOCTYPE SoftwareIdentity [<!ENTITY a0 "ha">{LAUGHS}]>'
EXTERNAL = '<!DOCTYPE SoftwareIdentity [<!ENTITY x SYSTEM "file:///etc/hostname">]>'
DEFAULTS = '<!DOCTYPE SoftwareIdentity [<!ATTLIST ns0:Resource active CDATA "True">]>'


def both(first: str, old: str, new: str) -> Callable[[bytes], bytes]:
    """Something in front, and a replacement."""
    return lambda data: ahead(first)(sent(old, new)(data))


MARKUP = [
    case("document type", MALFORMED, "markup", sent=ahead("<!DOCTYPE SoftwareIdentity>\n")),
    case("document type with an entity nobody uses", MALFORMED, "markup", sent=ahead(ENTITY)),
    case("entity as a version", MALFORMED, None, sent=both(ENTITY, "550.144.03", "&v;")),
    case("entities a billion times", MALFORMED, None, sent=both(LAUGHING, "Measurement_7", "&a8;")),
    case("external entity", MALFORMED, None, sent=both(EXTERNAL, "Measurement_7", "&x;")),
    case("external document type", MALFORMED, None,
         sent=ahead('<!DOCTYPE SoftwareIdentity SYSTEM "http://127.0.0.1:9/rim.dtd">')),
    case("attribute that a document type supplies", MALFORMED, None, sent=both(DEFAULTS, ' active="True"', "")),
    case("comment between entries", MALFORMED, "markup", body=swap(INDEX7, f"<!-- ok -->{INDEX7}")),
    case("comment between entries, after signing", MALFORMED, "markup", sent=sent(INDEX7, f"<!-- ok -->{INDEX7}")),
    case("comment in the digest", MALFORMED, None, sent=sent("</ds:DigestValue>", "<!-- --></ds:DigestValue>")),
    case("comment before the document", MALFORMED, "markup", sent=ahead("<!-- NVIDIA -->")),
    case("comment behind the document", MALFORMED, "markup", sent=lambda data: data + b"<!-- NVIDIA -->"),
    case("processing instruction before the document", MALFORMED, "markup", sent=ahead("<?xml-stylesheet href='x'?>")),
    case("processing instruction between entries", MALFORMED, None, body=swap(INDEX7, f"<?go on?>{INDEX7}")),
    case("CDATA section", MALFORMED, "markup", body=swap(INDEX7, f"~{INDEX7}"),
         digested=swap("~", " "), sent=sent("~", "<![CDATA[ ]]>")),
    case("character reference in a value", MALFORMED, "markup", sent=sent('index="7"', 'index="&#55;"')),
    case("character reference in a certificate", MALFORMED, "markup",
         sent=sent("</ds:X509Certificate>", "&#10;</ds:X509Certificate>")),
    case("another encoding named", MALFORMED, "markup", sent=ahead('<?xml version="1.0" encoding="ISO-8859-1"?>')),
    case("UTF-16", MALFORMED, None, sent=lambda data: data.decode().encode("utf-16")),
    case("UTF-16 without a mark", MALFORMED, None, sent=lambda data: data.decode().encode("utf-16-le")),
    case("UTF-16 without a mark, a document type in it", MALFORMED, None,
         sent=lambda data: both(ENTITY, "550.144.03", "&v;")(data).decode().encode("utf-16-le")),
    case("UTF-32", MALFORMED, None, sent=lambda data: data.decode().encode("utf-32-le")),
    case("EBCDIC", MALFORMED, None, sent=lambda data: data.decode().encode("cp037")),
    case("byte order mark", MALFORMED, "markup", sent=lambda data: b"\xef\xbb\xbf" + data),
    case("XML 1.1", MALFORMED, None, sent=ahead('<?xml version="1.1"?><')),
]  # fmt: skip

TEXT = [
    case("not UTF-8", MALFORMED, None, sent=lambda data: data.replace(b'"r1"', b'"r\xff"')),
    case("NUL behind the document", MALFORMED, None, sent=lambda data: data + b"\x00"),
    case("nothing", MALFORMED, None, sent=lambda data: b""),
    case("JSON", MALFORMED, None, sent=lambda data: b'{"rim": "..."}'),
    case("truncated", MALFORMED, None, sent=lambda data: data[:-30]),
    case("two documents", MALFORMED, None, sent=lambda data: data + data),
    case("an attribute twice", MALFORMED, None, sent=sent(INDEX7, f'{INDEX7} size="48"')),
    case("a namespace prefix nobody declared", MALFORMED, None, sent=sent(INDEX7, f'{INDEX7} q:size="48"')),
    case("a namespace with a relative name", MALFORMED, None,
         sent=sent("<SoftwareIdentity ", '<SoftwareIdentity xmlns:r="relative" ')),
    case("xml:lang on the root", MALFORMED, "xml_attributes", body=root_tag('xml:lang="en"')),
    case("xml:base on the root", MALFORMED, "xml_attributes", body=root_tag('xml:base="http://a/"')),
    case("xml:space on the payload", MALFORMED, "xml_attributes",
         body=swap("<ns0:Payload ", '<ns0:Payload xml:space="preserve" ')),
]  # fmt: skip

SIZES = [
    case("too many bytes", LARGE, "sizes", body=swap(INDEX7, " " * 300_000 + INDEX7)),
    case("too many namespaces", LARGE, "sizes",
         body=root_tag(" ".join(f'xmlns:x{n}="urn:{n}"' for n in range(99)))),
    case("too many attributes", LARGE, "sizes", body=root_tag(" ".join(f'x{n}="1"' for n in range(9000)))),
    case("too many tags", LARGE, None, body=swap(INDEX7, "<a/>" * 5000 + INDEX7)),
    case("nested too deeply", LARGE, None, sent=sent(INDEX7, "<a>" * 600 + "</a>" * 600 + INDEX7)),
    case("nested as deeply as tags allow", MALFORMED, None, sent=sent(INDEX7, "<a>" * 450 + "</a>" * 450 + INDEX7)),
    case("nested as deeply as the parser follows", MALFORMED, None,
         body=swap(INDEX7, "<a>" * 240 + "</a>" * 240 + INDEX7)),
]  # fmt: skip

STRUCTURE = [
    case("another root element", MALFORMED, None, sent=lambda data: data.replace(b"wareIdentity", b"wareIdentities"),
         digested=lambda body: body.replace("wareIdentity", "wareIdentities")),
    case("another namespace", MALFORMED, None, body=swap("19770/-2/2015", "19770/-2/2009")),
    case("no Meta", MALFORMED, None, body=lambda text: text[: text.index("    <ns0:Meta")] + text[text.index(
        "    <ns0:Payload"):]),
    case("two Metas", MALFORMED, "elements",
         body=swap("    <ns0:Payload ", '<ns0:Meta colloquialVersion="1"/><ns0:Payload ')),
    case("two Payloads", MALFORMED, "elements",
         body=swap("</SoftwareIdentity>", "<ns0:Payload></ns0:Payload></SoftwareIdentity>")),
    case("two Entities", MALFORMED, "elements", body=swap("    <ns0:Meta", '<ns0:Entity name="A" role="x"/><ns0:Meta')),
    case("an element nobody asked for", MALFORMED, "elements", body=swap("</SoftwareIdentity>",
         '<ns0:Link rel="see-also" href="http://a/"/></SoftwareIdentity>')),
    case("a nested tag", MALFORMED, "elements", body=swap("</SoftwareIdentity>",
         "<SoftwareIdentity><ns0:Payload/></SoftwareIdentity></SoftwareIdentity>", 1)),
    case("text between entries", MALFORMED, "elements", body=swap(INDEX7, f"and {INDEX7}")),
    case("something else than a Resource", MALFORMED, None, body=swap(INDEX7, f'<ns0:File name="a"/>{INDEX7}')),
    case("elements inside an entry", MALFORMED, "elements", body=swap('name="Measurement_7" size="48"/>',
         'name="Measurement_7" size="48"><ns0:Resource/></ns0:Resource>')),
    case("creator of the software only", MALFORMED, "binding", body=swap("softwareCreator tagCreator",
         "softwareCreator")),
    case("payload elsewhere", MALFORMED, "binding", body=swap('PayloadType="direct"', 'PayloadType="indirect"')),
    case("another binding", MALFORMED, "binding", body=swap('"RIMIM"', '"PC-Client"')),
    case("no version", MALFORMED, None, body=swap("colloquialVersion=", "version=")),
    case("a version of nothing", MALFORMED, None, version="1.0"),
    case("a version with a tail", MALFORMED, None, version="550.144.03 "),
    case("an empty product", MALFORMED, None, product=""),
    case("a tag id of 200 characters", MALFORMED, None, tag="a" * 200),
    case("a tag id that steers terminals", MALFORMED, None, tag="\x7f[2J"),
    case("a product with a quotation mark", MALFORMED, None, body=swap('product="GH100"', "product='GH\"100'")),
    case("manufacturer in words", MALFORMED, None, body=swap('FirmwareManufacturerId="5703"',
         'FirmwareManufacturerId="NVIDIA"')),
    case("manufacturer without its namespace", MALFORMED, None, body=swap("ns1:FirmwareManufacturerId=",
         "FirmwareManufacturerId=")),
]  # fmt: skip


def entry(at: int, /, **attributes: str | None) -> tuple[Entry, ...]:
    """The driver's entries with some attributes of one replaced; None drops one."""
    named = tuple((name.replace("Hash", "ns2:Hash"), value) for name, value in attributes.items())
    return tuple(replace(one, attributes=named) if one.index == at else one for one in DRIVER_ENTRIES)


ENTRIES = [
    case("an index twice", MALFORMED, "entries", entries=(Entry(index=7), Entry(index=21), Entry(index=7))),
    case("an index active and inactive", MALFORMED, "entries",
         entries=(Entry(index=7), Entry(index=7, active=False))),
    case("no active entry", MALFORMED, "entries", entries=tuple(replace(one, active=False) for one in VBIOS_ENTRIES)),
    case("no entry", MALFORMED, "entries", entries=()),
    case("a value more than counted", MALFORMED, "values", entries=entry(7, Hash1="00" * 48)),
    case("an attribute nobody knows", MALFORMED, "values", entries=entry(7, unless="debug")),
    case("a value in no namespace", MALFORMED, "values", body=swap("ns2:Hash0=", "Hash0=\"\" ns2:Hash0=", 1)),
    case("a value less than counted", MALFORMED, None, entries=entry(23, Hash1=None)),
    case("values with a gap", MALFORMED, None, entries=entry(23, Hash1=None, Hash2="00" * 48)),
    case("alternatives of zero", LARGE, None, entries=entry(7, alternatives="0", Hash0=None)),
    case("alternatives of 65", LARGE, None, entries=(Entry(index=7, alternatives=65),)),
    case("alternatives without end", MALFORMED, None, entries=entry(7, alternatives="99999999999")),
    case("alternatives of minus one", MALFORMED, None, entries=entry(7, alternatives="-1")),
    case("a value too short", MALFORMED, None, entries=entry(7, Hash0="00" * 47)),
    case("a value too long", MALFORMED, None, entries=entry(7, Hash0="00" * 49)),
    case("a value with spaces", MALFORMED, None, entries=entry(7, Hash0="00 " * 32)),
    case("a value that is no hexadecimal", MALFORMED, None, entries=entry(7, Hash0="0x" + "00" * 47)),
    case("an empty value", MALFORMED, None, entries=entry(7, Hash0="")),
    case("size of zero", MALFORMED, None, entries=entry(7, size="0", Hash0="")),
    case("size of 65", MALFORMED, None, entries=entry(7, size="65", Hash0="00" * 65)),
    case("size with a sign", MALFORMED, None, entries=entry(7, size="+48")),
    case("size of another value", MALFORMED, None, entries=entry(7, size="32")),
    case("index of 239", MALFORMED, None, entries=entry(7, index="239")),
    case("index with a leading zero", MALFORMED, None, entries=entry(7, index="07")),
    case("index of minus one", MALFORMED, None, entries=entry(7, index="-1")),
    case("index in Arabic digits", MALFORMED, None, entries=entry(7, index="\u0667")),
    case("no index", MALFORMED, None, entries=entry(7, index=None)),
    case("active in small letters", MALFORMED, None, entries=entry(7, active="true")),
    case("active as a number", MALFORMED, None, entries=entry(7, active="1")),
    case("no active", MALFORMED, None, entries=entry(7, active=None)),
    case("another type", MALFORMED, None, entries=entry(7, type="Certificate")),
    case("no name", MALFORMED, None, entries=entry(7, name=None)),
]  # fmt: skip

CASES = [*MARKUP, *TEXT, *SIZES, *STRUCTURE, *ENTRIES]
