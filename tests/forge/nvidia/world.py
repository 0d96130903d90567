"""A whole NVIDIA device from one frozen value: `replace` one field of it, and everything signed after it follows.

Device Identity CA ── chip family ── provisioner ── boot ROM ── leaf ── report
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from tests.forge.nvidia.certificates import (
    DATA,
    Answer,
    Cert,
    List,
    answer_bytes,
    issue,
    issue_list,
    raw,
    sign,
    spki_of,
)
from verifier.abi.dice import CompositeDeviceId, Fwid, TcbInfo
from verifier.abi.rim import RimDocument, RimEntry
from verifier.formats.rim import VerifiedRim

NOW = 1_770_014_400
"""The moment of judgement, Unix seconds: 2026-02-02T06:40:00Z."""

DAY = 86_400
NONCE = hashlib.sha256(b"challenge").digest()
SHA384_OID = bytes.fromhex("608648016503040202")
FIRMWARE = hashlib.sha384(b"firmware").digest()
SWITCHES = tuple(hashlib.sha256(f"switch {number}".encode()).digest()[:8] for number in range(4))
GPUS = tuple(hashlib.sha256(f"gpu {number}".encode()).digest()[:8] for number in range(8))

ROOT = Cert(common_name="NVIDIA Device Identity CA", key="nvidia root", serial=0x2D36)
FAMILY = Cert(common_name="NVIDIA GH100 Identity", key="nvidia family", serial=0x4C25)
PROVISIONER = Cert(common_name="NVIDIA GH100 Provisioner ICA 1", key="nvidia provisioner", serial=0x6AFE)
BROM = Cert(common_name="GH100 A01 GSP BROM", key="nvidia brom", serial=0x4143, usage=(False, True, False))
LEAF = Cert(common_name="GH100 A01 GSP FMC LF", key="nvidia leaf", serial=0x53C2, is_ca=None, usage=DATA)

DRIVER, VBIOS = "550.90.07", "96.00.9F.00.01"
GPU_OPAQUE: dict[int, bytes] = {
    6: bytes.fromhex("009f009601000000"), 14: bytes.fromhex("b1030000"), 15: b"882" + bytes(6), 16: b"0" + bytes(4),
    17: b"1010\x00", 18: b"0200\x00", 19: bytes(2), 3: DRIVER.encode() + b"\x00", 4: bytes(8),
    12: bytes.fromhex("00000000010000000400000001000000"), 13: bytes(4), 11: b"\x55", 20: FIRMWARE, 21: b"\xaa",
    22: b"".join(switch[::-1] for switch in SWITCHES for _ in range(4)) + bytes(16), 34: b"\x01\x00", 36: b"\x02\x00",
}  # fmt: skip
SWITCH_OPAQUE: dict[int, bytes] = {
    6: b"96.10.73.00.01", 22: SWITCHES[0], 12: bytes.fromhex("0100000005000000"),
    26: b"".join(GPUS) + b"\xff" * 64, 23: b"\xec\x00", 24: bytes(2), 25: b"\x01\x00",
}  # fmt: skip


def same(value: Any) -> Any:
    return value


def value_of(block: int) -> bytes:
    """What block number `block` measures in a genuine world; the last ones are unused."""
    return hashlib.sha384(f"block {block}".encode()).digest() if block <= 40 else bytes(48)


def block(
    index: int, value: bytes, *, spec: int = 1, kind: int = 1, size: int | None = None, tail: bytes = b""
) -> bytes:
    inner = bytes([kind]) + (len(value) if size is None else size).to_bytes(2, "little") + value + tail
    return bytes([index, spec]) + len(inner).to_bytes(2, "little") + inner


def field_of(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "little") + len(value).to_bytes(2, "little") + value


def good_answers() -> tuple[Answer, ...]:
    return tuple(Answer(about=place, this_update=NOW - DAY, next_update=NOW + 6 * DAY) for place in (1, 2, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rim:
    """A manifest: its kind and version, `values` by index that differ from what a genuine world measures."""

    kind: str
    version: str
    indexes: tuple[int, ...]
    values: Mapping[int, bytes] = field(default_factory=dict)
    product: str = "GH100"
    edition: str = "GPU"
    begin: int = NOW - 100 * DAY
    end: int = NOW + 100 * DAY
    override: bool = False

    def verified(self) -> VerifiedRim:
        """As if its signature had been verified."""
        entries = tuple(
            RimEntry(
                index=at, name=f"m{at}", active=True, size=48, alternatives=(self.values.get(at, value_of(at + 1)),)
            )
            for at in self.indexes
        )
        document = RimDocument(
            kind=self.kind, version=self.version, product=self.product, edition=self.edition, tag_id="forged",
            creator="NVIDIA Corporation", manufacturer_id=5703, entries=entries,
        )  # fmt: skip
        return VerifiedRim(
            document=document, digest=hashlib.sha256(repr(self).encode()).digest(), signers=("forge",),
            signer_serial_hex="1", root_label="forge", override=self.override, simulated=False, revocation="unchecked",
            valid_from_ms=self.begin * 1000, expires_ms=self.end * 1000,
        )  # fmt: skip


DRIVER_RIM = Rim(kind="driver", version=DRIVER, indexes=(0, 1, 2, 34, 35))
VBIOS_RIM = Rim(kind="vbios", version=VBIOS, indexes=(3, 4, 5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """What a world delivers: report, DER of the chain leaf first, responses, lists, manifests, DER of the root."""

    report: bytes
    chain: tuple[bytes, ...]
    ocsp: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    rims: tuple[VerifiedRim, ...]
    root: bytes
    at: int


@dataclass(frozen=True, kw_only=True)
class World:
    """A genuine GPU in protected-PCIe mode, unless a field says otherwise.

    `opaque` are values by type that differ, None leaves one out; `blocks` replaces blocks by index (None: left out);
    `raw_…` are bytes in a part's place; `signed` changes what is signed, `report` what is delivered.
    """

    root: Cert = ROOT
    family: Cert = FAMILY
    provisioner: Cert = PROVISIONER
    brom: Cert = BROM
    leaf: Cert = LEAF
    trusted: Cert | None = None
    dice: Callable[[World], bytes | None] | None = None
    dice_oid: str = "2.23.133.5.4.1"
    base: Mapping[int, bytes] = field(default_factory=lambda: GPU_OPAQUE)
    opaque: Mapping[int, bytes | None] = field(default_factory=dict)
    raw_opaque: Callable[[bytes], bytes] = same
    opaque_length: int | None = None
    block_count: int | None = None
    number_of_blocks: int = 64
    blocks: Mapping[int, bytes | None] = field(default_factory=dict)
    record_length: int | None = None
    request: bytes = bytes.fromhex("11e001ff")
    response: bytes = bytes.fromhex("11600000")
    slot: int = 0
    nonce: bytes = NONCE
    responder_nonce: bytes = hashlib.sha256(b"device").digest()
    between: bytes = b""
    signed: Callable[[bytes], bytes] = same
    signing: tuple[str, str] = ("", "sha384")
    signature: Callable[[bytes], bytes] = same
    report: Callable[[bytes], bytes] = same
    chain: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = same
    answers: tuple[Answer, ...] = field(default_factory=good_answers)
    lists: tuple[List, ...] = ()
    rims: tuple[Rim, ...] = (DRIVER_RIM, VBIOS_RIM)
    at: int = NOW

    def but(self, **changes: Any) -> World:
        """This world with one fact changed."""
        return replace(self, **changes)

    def certificates(self) -> tuple[Cert, ...]:
        """Root first."""
        extension = composite(self) if self.dice is None else self.dice(self)
        leaf = self.leaf
        if extension is not None:
            leaf = replace(leaf, extensions=((self.dice_oid, extension, False), *leaf.extensions))
        return self.root, self.family, self.provisioner, self.brom, leaf

    def mint(self) -> Minted:
        """Everything, signed."""
        certs = self.certificates()
        chain = [issue(certs[0])] + [issue(one, above) for above, one in pairwise(certs)]
        data = self._unsigned()
        key, digest = self.signing
        signature = self.signature(raw(sign(key or certs[-1].key, self.signed(data), digest)))
        return Minted(
            report=self.report(data + signature),
            chain=self.chain(tuple(reversed(chain))),
            ocsp=tuple(answer_bytes(answer, certs) for answer in self.answers),
            crls=tuple(issue_list(one, certs[one.issuer]) for one in self.lists),
            rims=tuple(one.verified() for one in self.rims),
            root=issue(self.trusted) if self.trusted else chain[0],
            at=self.at,
        )

    def _unsigned(self) -> bytes:
        genuine = {index: block(index, value_of(index)) for index in range(1, self.number_of_blocks + 1)}
        found = {**genuine, **self.blocks}
        written = [one for one in found.values() if one is not None]
        record = b"".join(written)
        fields = {**self.base, **self.opaque}
        opaque = self.raw_opaque(b"".join(field_of(kind, value) for kind, value in fields.items() if value is not None))
        count = len(written) if self.block_count is None else self.block_count
        record_length = len(record) if self.record_length is None else self.record_length
        opaque_length = len(opaque) if self.opaque_length is None else self.opaque_length
        return b"".join([
            self.request, self.nonce, bytes([self.slot]), self.response, bytes([count]),
            record_length.to_bytes(3, "little"), record, self.responder_nonce, opaque_length.to_bytes(2, "little"),
            opaque, self.between,
        ])  # fmt: skip


def composite(world: World, *, key: str | None = None, digest: bytes = FIRMWARE) -> bytes:
    """The extension of older chips: the boot ROM's key and the firmware."""
    device_key = spki_of(key or world.brom.key)
    return CompositeDeviceId(device_key=device_key, fwid=Fwid(algorithm=SHA384_OID, digest=digest)).encode()


def tcb_info(*fwids: bytes, flags: bytes | None = bytes.fromhex("0080000001"), **changes: Any) -> bytes:
    """The extension of newer chips."""
    listed = tuple(Fwid(algorithm=SHA384_OID, digest=digest) for digest in fwids)
    fields = {"vendor": "NVIDIA", "model": "GB100 A01 GSP", "version": "01", "svn": 1, "layer": 0, "index": 0}
    return TcbInfo(**(fields | {"fwids": listed, "flags": flags} | changes)).encode()  # type: ignore[arg-type]


def named(world: World, chip: str, engine: str = "GSP") -> World:
    """The world of another chip family."""
    return world.but(
        family=replace(FAMILY, common_name=f"NVIDIA {chip} Identity"),
        provisioner=replace(PROVISIONER, common_name=f"NVIDIA {chip} Provisioner ICA 1"),
        brom=replace(BROM, common_name=f"{chip} A01 {engine} BROM"),
        leaf=replace(LEAF, common_name=f"{chip} A01 {engine} FMC LF"),
    )


HOPPER = World()
BLACKWELL = named(World(), "GB100").but(
    dice=lambda world: tcb_info(FIRMWARE, bytes(48)),
    dice_oid="2.23.133.5.4.1.1",
    rims=(replace(DRIVER_RIM, product="GB100"), replace(VBIOS_RIM, product="GB100")),
)
LS10 = named(World(), "LS_10", "FSP").but(
    base=SWITCH_OPAQUE,
    number_of_blocks=31,
    rims=(Rim(kind="vbios", version="96.10.73.00.01", indexes=(0, 1, 2), product="LS10", edition="SWITCH"),),
)
GENUINE = {"Hopper": HOPPER, "Blackwell": BLACKWELL, "LS10": LS10}


def another(world: World, number: int, **changes: Any) -> World:
    """A second device of the same kind: its own boot ROM and leaf."""
    return world.but(
        brom=replace(world.brom, key=f"nvidia brom {number}", serial=world.brom.serial + number),
        leaf=replace(world.leaf, key=f"nvidia leaf {number}", serial=world.leaf.serial + number),
        **changes,
    )
