"""DICE extensions of NVIDIA's attestation certificates: which firmware a key was made for (ATTESTATION.md §9.2).

Two shapes are in the field. Older chips (GH100, LS_10) carry a composite device id: the device's key and one FWID.
Newer ones carry a DiceTcbInfo (TCG "DICE Attestation Architecture" 1.1, §6.1.1): names, versions, FWIDs, flags.
"""

from __future__ import annotations

from dataclasses import dataclass

from verifier.abi import der
from verifier.abi.der import Der, DerError
from verifier.errors import DiceInvalid
from verifier.limits import MAX_DICE_BYTES, MAX_FWIDS, MAX_LABEL_CHARACTERS

DICE_OID = "2.23.133.5.4.1"
"""Of the composite device id; some issuers write a DiceTcbInfo under it."""

TCB_INFO_OID = "2.23.133.5.4.1.1"

_DIGEST_BYTES = {
    bytes.fromhex("608648016503040201"): 32,
    bytes.fromhex("608648016503040202"): 48,
    bytes.fromhex("608648016503040203"): 64,
}
"""Content octets of the OIDs of SHA-256, SHA-384, SHA-512, and the bytes of their digests."""

_FLAGS = {
    0: "not_configured",
    1: "not_secure",
    2: "recovery",
    3: "debug",
    4: "not_replay_protected",
    5: "not_integrity_protected",
    6: "not_runtime_measured",
    7: "not_immutable",
    8: "not_tcb",
    31: "fixed_width",
}
_TEXTS = {0x80: "vendor", 0x81: "model", 0x82: "version"}
_NUMBERS = {0x83: "svn", 0x84: "layer", 0x85: "index"}
_FWIDS, _FLAG_BITS, _VENDOR_INFO, _TYPE, _FLAG_MASK = 0xA6, 0x87, 0x88, 0x89, 0x8A
_OCTETS = {_FLAG_BITS: "flags", _VENDOR_INFO: "vendor_info", _TYPE: "type", _FLAG_MASK: "flag_mask"}
_MAX_NUMBER = (1 << 64) - 1
_MAX_OCTETS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Fwid:
    """A firmware id: the content octets of its hash's OID (SHA-256, -384 or -512), and the digest."""

    algorithm: bytes
    digest: bytes

    def to_der(self) -> Der:
        """SEQUENCE of OID and OCTET STRING."""
        return der.sequence(Der(der.OBJECT_ID, self.algorithm), der.octets(self.digest))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompositeDeviceId:
    """Version 1: `device_key`, the DER SubjectPublicKeyInfo of the device's own key, and the FWID of the firmware."""

    device_key: bytes
    fwid: Fwid

    def encode(self) -> bytes:
        """The extension's value."""
        key = der.read_all(self.device_key, "device key")
        return der.sequence(der.unsigned(1), key, self.fwid.to_der()).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """A DiceTcbInfo; what it leaves out is None. `flags` and `flag_mask` are the octets of BIT STRINGs."""

    vendor: str | None = None
    model: str | None = None
    version: str | None = None
    svn: int | None = None
    layer: int | None = None
    index: int | None = None
    fwids: tuple[Fwid, ...] = ()
    flags: bytes | None = None
    vendor_info: bytes | None = None
    type: bytes | None = None
    flag_mask: bytes | None = None

    @property
    def flags_set(self) -> tuple[str, ...]:
        """Names of the operational flags that are set; bits without a name as "bit<N>"."""
        bits = b"" if self.flags is None else self.flags[1:]
        found = (at for at in range(8 * len(bits)) if bits[at // 8] >> (7 - at % 8) & 1)
        return tuple(_FLAGS.get(at, f"bit{at}") for at in found)

    def encode(self) -> bytes:
        """The extension's value."""
        parts: list[Der] = []
        for tag, name in _TEXTS.items():
            text: str | None = getattr(self, name)
            parts += [] if text is None else [Der(tag, text.encode())]
        for tag, name in _NUMBERS.items():
            number: int | None = getattr(self, name)
            parts += [] if number is None else [der.unsigned(number, tag)]
        if self.fwids:
            parts.append(Der(_FWIDS, b"".join(fwid.to_der().encode() for fwid in self.fwids)))
        for tag, name in _OCTETS.items():
            octets: bytes | None = getattr(self, name)
            parts += [] if octets is None else [Der(tag, octets)]
        return der.sequence(*parts).encode()


def parse_dice(value: bytes) -> CompositeDeviceId | TcbInfo:
    """Either shape, told apart by the first member. Raises `DiceInvalid`."""
    if len(value) > MAX_DICE_BYTES:
        raise DiceInvalid(f"a DICE extension of {len(value)} bytes", field="dice")
    try:
        members = der.read_sequence(der.read_all(value, "DICE"), "DICE")
        if members and members[0].tag == der.INTEGER:
            return _device_id(members)
        return _tcb_info(members)
    except DerError as error:
        raise DiceInvalid(str(error), field="dice") from None


def _device_id(members: tuple[Der, ...]) -> CompositeDeviceId:
    if len(members) != 3:
        raise DerError("device id: not version, key and FWID")
    version, key, fwid = members
    if der.read_unsigned(version, "device id", _MAX_NUMBER) != 1:
        raise DerError("device id: not version 1")
    key.expect(der.SEQUENCE, "device key")
    return CompositeDeviceId(device_key=key.encode(), fwid=_fwid(fwid))


def _tcb_info(members: tuple[Der, ...]) -> TcbInfo:
    found: dict[str, str | int | bytes] = {}
    fwids: tuple[Fwid, ...] = ()
    last = -1
    for member in members:
        number = member.tag & 0x1F
        if number <= last:
            raise DerError("TCB info: members twice, or not in their order")
        last = number
        if member.tag in _TEXTS:
            found[_TEXTS[member.tag]] = _text(member.content)
        elif member.tag in _NUMBERS:
            found[_NUMBERS[member.tag]] = der.unsigned_of(member.content, "TCB info", _MAX_NUMBER)
        elif member.tag == _FWIDS:
            fwids = _fwids(member.content)
        elif member.tag in _OCTETS:
            found[_OCTETS[member.tag]] = _octets(member)
        else:
            raise DerError(f"TCB info: a member {member.tag:#04x} nobody here understands")
    return TcbInfo(fwids=fwids, **found)  # type: ignore[arg-type]


def _fwids(content: bytes) -> tuple[Fwid, ...]:
    found: list[Fwid] = []
    while content:
        if len(found) == MAX_FWIDS:
            raise DerError(f"TCB info: more than {MAX_FWIDS} FWIDs")
        one, content = der.read_one(content, "FWID")
        found.append(_fwid(one))
    if not found:
        raise DerError("TCB info: an empty list of FWIDs")
    return tuple(found)


def _fwid(value: Der) -> Fwid:
    members = der.read_sequence(value, "FWID")
    if len(members) != 2:
        raise DerError("FWID: not a hash and a digest")
    algorithm = members[0].expect(der.OBJECT_ID, "FWID")
    size = _DIGEST_BYTES.get(algorithm)
    if size is None:
        raise DerError("FWID: of a hash nobody here accepts")
    return Fwid(algorithm=algorithm, digest=der.read_octets(members[1], "FWID", size))


def _text(content: bytes) -> str:
    try:
        text = content.decode()
    except ValueError:
        raise DerError("TCB info: not UTF-8") from None
    if len(text) > MAX_LABEL_CHARACTERS or not text.isprintable():
        raise DerError("TCB info: not a short text")
    return text


def _octets(member: Der) -> bytes:
    content = member.content
    if len(content) > _MAX_OCTETS:
        raise DerError(f"TCB info: {len(content)} octets")
    if member.tag in (_FLAG_BITS, _FLAG_MASK):
        unused = content[0] if content else 8
        if unused > 7 or (unused and (len(content) < 2 or content[-1] & (1 << unused) - 1)):
            raise DerError("TCB info: not a BIT STRING")
    return content
