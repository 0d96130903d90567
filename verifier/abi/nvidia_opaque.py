"""Opaque data of NVIDIA reports: what a device says of itself beside its measurements (ATTESTATION.md §9.1).

type:2 | size:2 | value, one behind the other, no type twice. Types we do not interpret are kept as they are. Some types
mean different things on GPUs and switches: 22 lists the switches a GPU is linked to, and names the switch itself.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from verifier.errors import NvidiaReportMalformed
from verifier.limits import MAX_LABEL_CHARACTERS, MAX_OPAQUE_FIELDS

DRIVER_VERSION, VBIOS_VERSION, NVDEC0_STATUS, MEASUREMENT_COUNTS = 3, 6, 11, 12
BOARD_ID, CHIP_SKU, CHIP_SKU_MOD, PROJECT, PROJECT_SKU, PROJECT_SKU_MOD = 14, 15, 16, 17, 18, 19
FWID, PROTECTED_PCIE, PDIS, DISABLED_PORTS, POSITION_ID, LOCK_STATUS, GPU_PDIS = 20, 21, 22, 23, 24, 25, 26
OPAQUE_VERSION, CHIP_INFO, FEATURE_FLAG = 34, 35, 36

ENABLED, DISABLED = 0xAA, 0x55
PPCIE_FLAG = 2
"""Feature flag of protected PCIe. NVIDIA's tools give 0 and 1 opposite names, single-GPU and multi-GPU passthrough."""

_FWID_BYTES = 48
_PDI_BYTES = 8
_SWITCH_GPUS = 8
_GPU_VBIOS_BYTES = 8
_MAX_NUMBER_BYTES = 8
_NO_PDI = (bytes(_PDI_BYTES), b"\xff" * _PDI_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueField:
    """One field: its type and the bytes of its value."""

    kind: int
    value: bytes

    def encode(self) -> bytes:
        """type:2 | size:2 | value."""
        return self.kind.to_bytes(2, "little") + len(self.value).to_bytes(2, "little") + self.value


def parse_opaque(data: bytes) -> tuple[OpaqueField, ...]:
    """The fields of exactly `data`, in their order. Raises `NvidiaReportMalformed`."""
    found: list[OpaqueField] = []
    at = 0
    while at < len(data):
        kind, size = int.from_bytes(data[at : at + 2], "little"), int.from_bytes(data[at + 2 : at + 4], "little")
        at += 4
        if at + size > len(data):
            raise NvidiaReportMalformed(f"opaque field {kind} reaches beyond the opaque data", field="response.opaque")
        if len(found) == MAX_OPAQUE_FIELDS:
            raise NvidiaReportMalformed(f"more than {MAX_OPAQUE_FIELDS} opaque fields", field="response.opaque")
        found.append(OpaqueField(kind=kind, value=data[at : at + size]))
        at += size
    check_types(found)
    return tuple(found)


def check_types(fields: list[OpaqueField]) -> None:
    """No type twice. `NvidiaReportMalformed`."""
    if len({field.kind for field in fields}) != len(fields):
        raise NvidiaReportMalformed("an opaque type stands twice", field="response.opaque")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpaqueFacts:
    """What the opaque data says, decoded; None where it says nothing.

    Texts are ASCII without their padding. `board_id`, `feature_flag`, `opaque_version`, `position_id` are numbers,
    `fwid` 48 bytes, `nvdec0_disabled` and `protected_pcie` states. `switch_pdis` are the switches a GPU is linked to,
    `pdi` a switch's own id, `gpu_pdis` the GPUs it is linked to: 8 bytes each in the order in which a switch writes
    its own, sorted, unused links left out. `measurement_counts` has a number per measurement.
    """

    driver_version: str | None
    vbios_version: str | None
    project: str | None
    project_sku: str | None
    project_sku_mod: str | None
    chip_sku: str | None
    chip_sku_mod: str | None
    chip_info: str | None
    board_id: int | None
    nvdec0_disabled: bool | None
    fwid: bytes | None
    protected_pcie: bool | None
    feature_flag: int | None
    opaque_version: int | None
    position_id: int | None
    switch_pdis: tuple[bytes, ...] | None
    pdi: bytes | None
    gpu_pdis: tuple[bytes, ...] | None
    measurement_counts: tuple[int, ...] | None


def read_facts(fields: tuple[OpaqueField, ...], kind: str) -> OpaqueFacts:
    """The facts of a "gpu" or "switch". `NvidiaReportMalformed` where a value has no meaning."""
    values = {field.kind: field.value for field in fields}
    gpu = kind == "gpu"

    def text(number: int, name: str) -> str | None:
        return None if number not in values else _text(values[number], name)

    def number(number: int, name: str) -> int | None:
        return None if number not in values else _number(values[number], name)

    def state(number: int, name: str) -> bool | None:
        return None if number not in values else _state(values[number], name)

    pdis = None if PDIS not in values else _pdis(values[PDIS])
    if not gpu and pdis is not None and len(pdis) != 1:
        raise NvidiaReportMalformed(f"a switch with {len(pdis)} ids", field="opaque.pdi")
    counts = values.get(MEASUREMENT_COUNTS)
    nvdec0_enabled = state(NVDEC0_STATUS, "nvdec0_status")
    return OpaqueFacts(
        driver_version=text(DRIVER_VERSION, "driver_version"),
        vbios_version=None if VBIOS_VERSION not in values else vbios_text(values[VBIOS_VERSION], gpu=gpu),
        project=text(PROJECT, "project"),
        project_sku=text(PROJECT_SKU, "project_sku"),
        project_sku_mod=text(PROJECT_SKU_MOD, "project_sku_mod"),
        chip_sku=text(CHIP_SKU, "chip_sku"),
        chip_sku_mod=text(CHIP_SKU_MOD, "chip_sku_mod"),
        chip_info=text(CHIP_INFO, "chip_info"),
        board_id=number(BOARD_ID, "board_id"),
        nvdec0_disabled=None if nvdec0_enabled is None else not nvdec0_enabled,
        fwid=None if FWID not in values else _fwid(values[FWID]),
        protected_pcie=state(PROTECTED_PCIE, "protected_pcie"),
        feature_flag=number(FEATURE_FLAG, "feature_flag"),
        opaque_version=number(OPAQUE_VERSION, "opaque_version"),
        position_id=number(POSITION_ID, "position_id"),
        # A GPU writes a switch's id in the opposite byte order.
        switch_pdis=_linked(one[::-1] for one in pdis) if gpu and pdis is not None else None,
        pdi=None if gpu or pdis is None else pdis[0],
        gpu_pdis=None if gpu or GPU_PDIS not in values else _linked(_pdis(_gpus(values[GPU_PDIS]))),
        measurement_counts=None if counts is None else _counts(counts),
    )


def vbios_text(value: bytes, *, gpu: bool) -> str:
    """The version as people and RIMs write it, in capitals: "96.00.9F.00.01". `NvidiaReportMalformed`.

    A GPU gives 8 bytes b0 to b7, which are written b3.b2.b1.b0.b4; a switch gives the text.
    """
    if not gpu:
        return _text(value, "vbios_version").upper()
    if len(value) != _GPU_VBIOS_BYTES or any(value[5:]):
        raise NvidiaReportMalformed("a VBIOS version that is not 5 bytes in 8", field="opaque.vbios_version")
    return ".".join(f"{value[at]:02X}" for at in (3, 2, 1, 0, 4))


def _text(value: bytes, name: str) -> str:
    """ASCII up to the first NUL, with nothing but NULs behind it."""
    content, _, padding = value.partition(b"\x00")
    if (
        any(padding)
        or len(content) > MAX_LABEL_CHARACTERS
        or not (content.isascii() and content.decode().isprintable())
    ):
        raise NvidiaReportMalformed(f"{name}: not a short text", field=f"opaque.{name}")
    return content.decode()


def _number(value: bytes, name: str) -> int:
    if not 1 <= len(value) <= _MAX_NUMBER_BYTES:
        raise NvidiaReportMalformed(f"{name}: {len(value)} bytes", field=f"opaque.{name}")
    return int.from_bytes(value, "little")


def _state(value: bytes, name: str) -> bool:
    """0xAA is enabled, 0x55 disabled, anything else neither."""
    if value not in (bytes([ENABLED]), bytes([DISABLED])):
        raise NvidiaReportMalformed(f"{name}: {value[:4].hex()} is no state", field=f"opaque.{name}")
    return value[0] == ENABLED


def _fwid(value: bytes) -> bytes:
    if len(value) != _FWID_BYTES:
        raise NvidiaReportMalformed(f"FWID of {len(value)} bytes", field="opaque.fwid")
    return value


def _pdis(value: bytes) -> tuple[bytes, ...]:
    if not value or len(value) % _PDI_BYTES:
        raise NvidiaReportMalformed(f"device ids in {len(value)} bytes", field="opaque.pdi")
    return tuple(value[at : at + _PDI_BYTES] for at in range(0, len(value), _PDI_BYTES))


def _gpus(value: bytes) -> bytes:
    """The ids of GPUs at the front of a switch's link table; behind them stands which port leads to which."""
    if len(value) < _SWITCH_GPUS * _PDI_BYTES:
        raise NvidiaReportMalformed(f"a table of links in {len(value)} bytes", field="opaque.gpu_pdis")
    return value[: _SWITCH_GPUS * _PDI_BYTES]


def _linked(pdis: Iterable[bytes]) -> tuple[bytes, ...]:
    return tuple(sorted(set(pdis) - set(_NO_PDI)))


def _counts(value: bytes) -> tuple[int, ...]:
    if len(value) % 4:
        raise NvidiaReportMalformed(f"measurement counts in {len(value)} bytes", field="opaque.measurement_counts")
    return struct.unpack(f"<{len(value) // 4}I", value)
