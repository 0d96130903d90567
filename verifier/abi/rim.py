"""A reference integrity manifest as NVIDIA writes it: a SWID tag with measurements (ISO 19770-2, TCG RIM; §9.3).

Entry `index` n holds the values that measurement block n + 1 of a report may have. Nothing here is verified:
`verifier.formats.rim` does that, and reads the very bytes that were signed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from verifier.abi.xml import Element, parse_xml
from verifier.errors import RimMalformed, RimTooLarge
from verifier.limits import MAX_RIM_ALTERNATIVES, MAX_RIM_INDEX, MAX_RIM_TEXT_CHARACTERS

SWID = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd"
TCG = "https://trustedcomputinggroup.org/resource/tcg-reference-integrity-manifest-rim-information-model/"
HASH = "http://www.w3.org/2001/04/xmlenc#sha384"
DSIG = "http://www.w3.org/2000/09/xmldsig#"

DRIVER, VBIOS = "driver", "vbios"

_DRIVER_VERSION = re.compile(r"[0-9]{3,4}(\.[0-9]{1,5}){1,3}")
_VBIOS_VERSION = re.compile(r"[0-9A-Fa-f]{2}(\.[0-9A-Fa-f]{2}){4}")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,9}")
_MAX_MANUFACTURER = 0xFFFF_FFFF
_MAX_VALUE_BYTES, _MAX_COUNT = 64, 999
_ENTRY_ATTRIBUTES = frozenset({"type", "index", "active", "alternatives", "name", "size"})
_ROOT = f"{{{SWID}}}SoftwareIdentity"
_OPENING = re.compile(rb"\s*(<\?xml[^>]{0,100}\?>\s*)?<([A-Za-z0-9]{1,16}:)?SoftwareIdentity[\s>]")


@dataclass(frozen=True, slots=True, kw_only=True)
class RimEntry:
    """What one measurement may be: `alternatives` of `size` bytes each. One that is not `active` says nothing.

    `index` counts from 0; the measurement block of a report is `index` + 1.
    """

    index: int
    name: str
    active: bool
    size: int
    alternatives: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RimDocument:
    """What a manifest says, unsigned: for which product and version, and its entries by ascending index.

    `kind` is "driver" or "vbios", told by the form of the version (550.144.03, 96.00.5E.00.01); `edition` "GPU" or
    "SWITCH"; `product` a chip ("GH100"); `tag_id` an identifier its author chose; `manufacturer_id` an IANA number.
    """

    kind: str
    version: str
    product: str
    edition: str
    tag_id: str
    creator: str
    manufacturer_id: int
    entries: tuple[RimEntry, ...]

    @property
    def golden(self) -> dict[int, RimEntry]:
        """The active entries by index."""
        return {entry.index: entry for entry in self.entries if entry.active}

    def encode(self) -> bytes:
        """The manifest as XML, unsigned. Raises `ValueError` for text that would need escaping."""
        resources = "".join(map(_written, self.entries))
        names = (entry.name for entry in self.entries)
        texts = (self.version, self.product, self.edition, self.tag_id, self.creator, *names)
        if any(sign in text for text in texts for sign in '&<"'):
            raise ValueError("a text that XML would have to escape")
        return (
            f'<SoftwareIdentity xmlns="{SWID}" xmlns:h="{HASH}" name="{self.product}" tagId="{self.tag_id}">'
            f'<Entity name="{self.creator}" role="softwareCreator tagCreator"/><Meta xmlns:t="{TCG}" '
            f'colloquialVersion="{self.version}" edition="{self.edition}" product="{self.product}" '
            f'PayloadType="direct" t:BindingSpec="RIMIM" t:FirmwareManufacturerId="{self.manufacturer_id}"/>'
            f"<Payload>{resources}</Payload></SoftwareIdentity>"
        ).encode()


def is_rim(data: bytes) -> bool:
    """Whether `data` begins like a manifest; whether it is one, `parse_rim` says."""
    return _OPENING.match(data[:512]) is not None


def driver_rim_id(product: str, version: str) -> str:
    """What NVIDIA's RIM service calls the manifest of a driver on the chip `product`."""
    return f"NV_GPU_{'DRIVER' if product == 'GH100' else 'CC_DRIVER'}_{product}_{version}"


def vbios_rim_id(project: str, project_sku: str, chip_sku: str, version: str, *, switch: bool = False) -> str:
    """What NVIDIA's RIM service calls the manifest of a VBIOS; ids as the report has them."""
    kind = "SWITCH_BIOS" if switch else "GPU_VBIOS"
    return f"NV_{kind}_{project}_{project_sku}_{chip_sku}_{version.replace('.', '').upper()}"


def parse_rim(data: bytes) -> RimDocument:
    """The manifest of the XML text `data`; a signature in it is passed over.

    Raises `RimTooLarge`, `RimMalformed`.
    """
    root = parse_xml(data)
    if root.tag != _ROOT:
        raise RimMalformed("not a SWID tag", field="SoftwareIdentity")
    check_elements(root)
    entity, meta, payload = (root.find(f"{{{SWID}}}{name}") for name in ("Entity", "Meta", "Payload"))
    check_binding(entity, meta)
    version = _text(meta, "colloquialVersion")
    entries = tuple(sorted(map(_entry, payload), key=lambda entry: entry.index))
    check_entries(entries)
    return RimDocument(
        kind=kind_of(version),
        version=version,
        product=_text(meta, "product"),
        edition=_text(meta, "edition"),
        tag_id=_text(root, "tagId"),
        creator=_text(entity, "name"),
        manufacturer_id=_number(meta, f"{{{TCG}}}FirmwareManufacturerId", _MAX_MANUFACTURER),
        entries=entries,
    )


def kind_of(version: str) -> str:
    """Whether a driver or a VBIOS has such a version. `RimMalformed`."""
    if _VBIOS_VERSION.fullmatch(version):
        return VBIOS
    if _DRIVER_VERSION.fullmatch(version):
        return DRIVER
    raise RimMalformed("a version of neither a driver nor a VBIOS", field="Meta.colloquialVersion")


def check_elements(root: Element) -> None:
    """Entity, Meta and Payload, each once, perhaps a signature; resources in the payload; no text. `RimMalformed`."""
    names = [str(child.tag) for child in root if child.tag != f"{{{DSIG}}}Signature"]
    if sorted(names) != [f"{{{SWID}}}{name}" for name in ("Entity", "Meta", "Payload")]:
        raise RimMalformed("not one Entity, one Meta and one Payload", field="SoftwareIdentity")
    payload = root.find(f"{{{SWID}}}Payload")
    if any(child.tag != f"{{{SWID}}}Resource" for child in payload):
        raise RimMalformed("something else than a Resource", field="Payload")
    plain = [child for child in root if child.tag != f"{{{DSIG}}}Signature" and child is not payload]
    if any(len(element) for element in (*plain, *payload)):
        raise RimMalformed("elements where none belong", field="SoftwareIdentity")
    for element in (root, *plain, payload, *payload):
        if (element.text or "").strip() or (element is not root and (element.tail or "").strip()):
            raise RimMalformed("text between elements", field="SoftwareIdentity")


def check_binding(entity: Element, meta: Element) -> None:
    """A tag with a creator, a TCG RIM whose payload is the tag's own. `RimMalformed`."""
    if "tagCreator" not in str(entity.get("role")).split():
        raise RimMalformed("an entity that did not create the tag", field="Entity.role")
    if meta.get("PayloadType") != "direct":
        raise RimMalformed("its payload is elsewhere", field="Meta.PayloadType")
    if meta.get(f"{{{TCG}}}BindingSpec") != "RIMIM":
        raise RimMalformed("not a TCG reference integrity manifest", field="Meta.BindingSpec")


def check_entries(entries: tuple[RimEntry, ...]) -> None:
    """Every index once, and an entry that is active: a manifest without one would match anything. `RimMalformed`."""
    if len({entry.index for entry in entries}) != len(entries):
        raise RimMalformed("two entries for one index", field="Payload.index")
    if not any(entry.active for entry in entries):
        raise RimMalformed("no active entry", field="Payload")


def _entry(resource: Element) -> RimEntry:
    index = _number(resource, "index", MAX_RIM_INDEX)
    field = f"Payload[{index}]"
    if resource.get("type") != "Measurement":
        raise RimMalformed("not a measurement", field=f"{field}.type")
    if resource.get("active") not in ("True", "False"):
        raise RimMalformed("neither True nor False", field=f"{field}.active")
    size, count = _number(resource, "size", _MAX_VALUE_BYTES), _number(resource, "alternatives", _MAX_COUNT)
    if not size:
        raise RimMalformed("values of no bytes", field=f"{field}.size")
    if not 1 <= count <= MAX_RIM_ALTERNATIVES:
        raise RimTooLarge(f"{count} values, 1 to {MAX_RIM_ALTERNATIVES} are read", field=f"{field}.alternatives")
    check_values(resource, count, field)
    return RimEntry(
        index=index,
        name=_text(resource, "name"),
        active=resource.get("active") == "True",
        size=size,
        alternatives=tuple(_value(resource.get(f"{{{HASH}}}Hash{one}"), size, field) for one in range(count)),
    )


def check_values(resource: Element, count: int, field: str) -> None:
    """Values 0 to `count` - 1 and no other, nothing else unknown on the entry. `RimMalformed`."""
    named = {f"{{{HASH}}}Hash{one}" for one in range(count)}
    if set(resource.attrib) != named | _ENTRY_ATTRIBUTES:
        raise RimMalformed("not exactly the values it counts", field=f"{field}.alternatives")


def _value(text: str | None, size: int, field: str) -> bytes:
    try:
        value = bytes.fromhex(text) if text is not None and len(text) == 2 * size else b""
    except ValueError:
        value = b""
    if len(value) != size:
        raise RimMalformed(f"a value that is not {size} bytes of hexadecimal", field=f"{field}.Hash")
    return value


def _number(element: Element, name: str, maximum: int) -> int:
    text, field = element.get(name), name.rpartition("}")[2]
    if text is None or _NUMBER.fullmatch(text) is None or int(text) > maximum:
        raise RimMalformed(f"not a number up to {maximum}", field=field)
    return int(text)


def _text(element: Element, name: str) -> str:
    text = element.get(name)
    if not text or len(text) > MAX_RIM_TEXT_CHARACTERS or not text.isascii() or not text.isprintable():
        raise RimMalformed("missing, too long, or not printable ASCII", field=name)
    if '"' in text:  # the canonical form would have to escape it
        raise RimMalformed("a quotation mark in a name", field=name)
    return str(text)


def _written(entry: RimEntry) -> str:
    values = "".join(f' h:Hash{at}="{value.hex()}"' for at, value in enumerate(entry.alternatives))
    return (
        f'<Resource type="Measurement" index="{entry.index}" active="{entry.active}" '
        f'alternatives="{len(entry.alternatives)}"{values} name="{entry.name}" size="{entry.size}"/>'
    )
