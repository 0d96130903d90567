"""What AMD puts beside a report: TCB versions, extensions of endorsement keys, the certificate table (§8.2, §8.3).

AMD 57230 "VCEK Certificate and KDS Interface" defines the extensions, 1.3.6.1.4.1.3704.1: `.1` struct version, `.2`
product name, `.3.1` to `.3.9` security patch levels, `.4` HWID, `.5` CSP id; AMD 56421 "GHCB" defines the table.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from verifier.abi import der
from verifier.abi.der import Der, DerError
from verifier.errors import EkExtensionInvalid, SnpMalformed
from verifier.limits import MAX_CERTIFICATE_TABLE_ENTRIES, MAX_LABEL_CHARACTERS, MAX_SNP_EVIDENCE_BYTES

MILAN, GENOA, TURIN = "Milan", "Genoa", "Turin"
PRODUCTS = (MILAN, GENOA, TURIN)
"""Product lines: each has its own ARK. Bergamo and Siena are of Genoa's."""

TCB_BYTES = 8
CHIP_ID_BYTES = 64
TURIN_HWID_BYTES = 8

_LAYOUT = ("boot_loader", "tee", "", "", "", "", "snp", "microcode")
_TURIN_LAYOUT = ("fmc", "boot_loader", "tee", "snp", "", "", "", "microcode")
"""TCB_VERSION by bytes; "" is reserved."""

_ARC = "1.3.6.1.4.1.3704.1."
_LEVELS = {"boot_loader": "3.1", "tee": "3.2", "snp": "3.3", "microcode": "3.8", "fmc": "3.9"}
_RESERVED_LEVELS, _TURIN_RESERVED_LEVELS = ("3.4", "3.5", "3.6", "3.7"), ("3.5", "3.6", "3.7")
_KNOWN = ("1", "2", *_LEVELS.values(), *_RESERVED_LEVELS, "4", "5")

EK_EXTENSION_OIDS = frozenset(_ARC + name for name in _KNOWN)
"""Dotted OIDs of the extensions that are read here."""

_IA5_STRING = 0x16
_SHORT = bytes([der.INTEGER, 1])
"""How an INTEGER of one octet begins."""

_LINES = {MILAN: MILAN, GENOA: GENOA, TURIN: TURIN, "Bergamo": GENOA, "Siena": GENOA}


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbVersion:
    """A TCB_VERSION: security patch levels, 0 to 255. `fmc` is None but for Turin; `reserved` 4 bytes, Turin's 3."""

    fmc: int | None = None
    boot_loader: int
    tee: int
    snp: int
    microcode: int
    reserved: bytes = bytes(4)

    @classmethod
    def of(cls, number: int, product: str) -> TcbVersion:
        """The TCB_VERSION of a 64-bit number in the layout of `product`."""
        return cls.decode(number.to_bytes(TCB_BYTES, "little"), product)

    @classmethod
    def decode(cls, data: bytes, product: str) -> TcbVersion:
        """The TCB_VERSION of 8 bytes, as a report of `product` has them."""
        if product == TURIN:
            fmc, boot_loader, tee, snp, *reserved, microcode = data
            return cls(
                fmc=fmc, boot_loader=boot_loader, tee=tee, snp=snp, microcode=microcode, reserved=bytes(reserved)
            )
        boot_loader, tee, *reserved, snp, microcode = data
        return cls(boot_loader=boot_loader, tee=tee, snp=snp, microcode=microcode, reserved=bytes(reserved))

    def encode(self) -> bytes:
        """8 bytes, as a report has them."""
        if self.fmc is None:
            return bytes((self.boot_loader, self.tee, *self.reserved, self.snp, self.microcode))
        return bytes((self.fmc, self.boot_loader, self.tee, self.snp, *self.reserved, self.microcode))

    def below(self, other: TcbVersion) -> tuple[str, ...]:
        """Names of the components that are lower than `other`'s; "layout" where the two cannot be compared."""
        if (self.fmc is None) != (other.fmc is None):
            return ("layout",)
        layout = _LAYOUT if self.fmc is None else _TURIN_LAYOUT
        levels = zip(layout, self.encode(), other.encode(), strict=True)
        return tuple(name or "reserved" for name, mine, theirs in levels if mine < theirs)

    def __str__(self) -> str:
        fmc = "" if self.fmc is None else f"fmc {self.fmc}, "
        return f"{fmc}boot loader {self.boot_loader}, tee {self.tee}, snp {self.snp}, microcode {self.microcode}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EkExtensions:
    """What a VCEK or VLEK certificate says beside its key.

    `tcb` is the TCB it was issued for. `hwid` is the chip's id, 64 bytes or, for Turin, 8; `csp_id` the cloud provider
    of a VLEK. A VCEK has the first and no second, a VLEK the reverse: whoever knows which it is checks.
    """

    struct_version: int
    product_name: str
    tcb: TcbVersion
    hwid: bytes | None = None
    csp_id: str | None = None

    @property
    def product(self) -> str | None:
        """The product line of `product_name` ("Milan-B0" is of Milan), None if nobody knows it."""
        return _LINES.get(self.product_name.partition("-")[0])

    def encode(self) -> dict[str, bytes]:
        """Contents of extnValue by dotted OID, in AMD's order."""
        turin = self.tcb.fmc is not None
        found = {"1": der.unsigned(self.struct_version), "2": Der(_IA5_STRING, self.product_name.encode("ascii"))}
        if self.tcb.fmc is not None:
            found["3.9"] = der.unsigned(self.tcb.fmc)
        found |= {_LEVELS[name]: der.unsigned(getattr(self.tcb, name)) for name in ("boot_loader", "tee", "snp")}
        names = _TURIN_RESERVED_LEVELS if turin else _RESERVED_LEVELS
        found |= {name: der.unsigned(level) for name, level in zip(names, self.tcb.reserved, strict=True)}
        found["3.8"] = der.unsigned(self.tcb.microcode)
        written = {_ARC + name: value.encode() for name, value in found.items()}
        if self.hwid is not None:
            written[_ARC + "4"] = self.hwid
        if self.csp_id is not None:
            written[_ARC + "5"] = Der(_IA5_STRING, self.csp_id.encode("ascii")).encode()
        return written


def parse_ek_extensions(extensions: Mapping[str, bytes]) -> EkExtensions:
    """AMD's extensions among a certificate's (dotted OID -> content of extnValue). Raises `EkExtensionInvalid`.

    A patch level that is not known here is refused: nobody would compare it. Other extensions are passed over.
    """
    values = {oid.removeprefix(_ARC): value for oid, value in extensions.items() if oid.startswith(_ARC)}
    try:
        return _ek_extensions(values)
    except DerError as error:
        raise EkExtensionInvalid(f"endorsement key: {error}", field="ek_extensions") from error


def _ek_extensions(values: Mapping[str, bytes]) -> EkExtensions:
    unknown = [name for name in values if name.startswith("3.") and name not in _KNOWN]
    if unknown:
        raise DerError("a patch level nobody here knows")
    fmc = _number(values, "3.9") if "3.9" in values else None
    if fmc is not None and _number(values, "3.4", 0):
        raise DerError("patch level 3.4 beside an FMC")
    reserved = _RESERVED_LEVELS if fmc is None else _TURIN_RESERVED_LEVELS
    return EkExtensions(
        struct_version=_number(values, "1"),
        product_name=_text(_present(values, "2"), "product name"),
        tcb=TcbVersion(
            fmc=fmc,
            boot_loader=_number(values, _LEVELS["boot_loader"]),
            tee=_number(values, _LEVELS["tee"]),
            snp=_number(values, _LEVELS["snp"]),
            microcode=_number(values, _LEVELS["microcode"]),
            reserved=bytes(_number(values, name, 0) for name in reserved),
        ),
        hwid=_hwid(values["4"]) if "4" in values else None,
        csp_id=_text(values["5"], "CSP id") if "5" in values else None,
    )


def _number(values: Mapping[str, bytes], name: str, absent: int | None = None) -> int:
    value = values.get(name)
    if value is None and absent is not None:
        return absent
    if value is not None and value.startswith(_SHORT) and len(value) == 3 and value[2] < 0x80:
        return value[2]  # as nearly all are, read in place
    what = f"extension {name}"
    return der.read_unsigned(der.read_all(_present(values, name), what), what, 0xFF)


def _present(values: Mapping[str, bytes], name: str) -> bytes:
    if name not in values:
        raise DerError(f"extension {name} is missing")
    return values[name]


def _text(value: bytes, what: str) -> str:
    content = der.read_all(value, what).expect(_IA5_STRING, what)
    if not 0 < len(content) <= MAX_LABEL_CHARACTERS or not content.isascii() or not content.decode().isprintable():
        raise DerError(f"{what}: empty, long or not printable")
    return content.decode()


def _hwid(value: bytes) -> bytes:
    """AMD writes the bytes themselves into extnValue; with an OCTET STRING around them they say the same."""
    if len(value) in (CHIP_ID_BYTES, TURIN_HWID_BYTES):
        return value
    content = der.read_all(value, "HWID").expect(der.OCTET_STRING, "HWID")
    if len(content) not in (CHIP_ID_BYTES, TURIN_HWID_BYTES):
        raise DerError(f"HWID: {len(content)} bytes")
    return content


_ENTRY = struct.Struct("<16sII")
_KINDS = {
    "vcek": UUID("63da758d-e664-4564-adc5-f4b93be8accd"),
    "vlek": UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1"),
    "ask": UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782"),
    "ark": UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae"),
    "crl": UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea"),
}
GUIDS = {kind: guid.bytes for kind, guid in _KINDS.items()}
"""Entries of the certificate table by what they hold, their GUIDs as bytes in the order they are written down."""

_KIND_OF = {guid.bytes: kind for kind, guid in _KINDS.items()} | {guid.bytes_le: kind for kind, guid in _KINDS.items()}
"""Both orders of a GUID's bytes are met; neither reads as another kind in the other."""


@dataclass(frozen=True, slots=True)
class TableEntry:
    """One entry of the certificate table: its GUID, 16 bytes, and what it holds."""

    guid: bytes
    data: bytes

    @property
    def kind(self) -> str | None:
        """ "vcek", "vlek", "ask" (the ASVK too), "ark" or "crl"; None for what others put there."""
        return _KIND_OF.get(self.guid)


def encode_certificate_table(entries: tuple[TableEntry, ...]) -> bytes:
    """The table: 24 bytes for each entry, 24 zero bytes, then what the entries hold, one after the other."""
    at = (len(entries) + 1) * _ENTRY.size
    head = b""
    for entry in entries:
        head += _ENTRY.pack(entry.guid, at, len(entry.data))
        at += len(entry.data)
    return head + bytes(_ENTRY.size) + b"".join(entry.data for entry in entries)


def parse_certificate_table(data: bytes) -> tuple[TableEntry, ...]:
    """The entries of the table that `data` begins with; pages it lies in are zero elsewhere. Raises `SnpMalformed`.

    Entries lie behind the head, inside of `data`, and share no byte: a table reads the same way for everyone.
    """
    if len(data) > MAX_SNP_EVIDENCE_BYTES:
        raise _table(f"{len(data)} bytes")
    found: list[tuple[int, int, bytes]] = []
    for at in range(0, len(data) - _ENTRY.size + 1, _ENTRY.size):
        guid, offset, size = _ENTRY.unpack_from(data, at)
        if not any(data[at : at + _ENTRY.size]):
            return _entries(data, at + _ENTRY.size, found)
        if len(found) == MAX_CERTIFICATE_TABLE_ENTRIES:
            raise _table(f"more than {MAX_CERTIFICATE_TABLE_ENTRIES} entries")
        found.append((offset, size, guid))
    raise _table("no end of its entries")


def _entries(data: bytes, behind_head: int, found: list[tuple[int, int, bytes]]) -> tuple[TableEntry, ...]:
    at = behind_head
    for offset, size, _ in sorted(found):
        if size == 0 or offset < at or offset + size > len(data):
            raise _table("an entry that is empty, lies outside or shares bytes with another")
        if any(data[at:offset]):
            raise _table("bytes that belong to no entry")
        at = offset + size
    if any(data[at:]):
        raise _table("bytes that belong to no entry")
    return tuple(TableEntry(guid, data[offset : offset + size]) for offset, size, guid in found)


def _table(why: str) -> SnpMalformed:
    return SnpMalformed(f"certificate table: {why}", field="certificate_table")
