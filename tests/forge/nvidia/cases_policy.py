"""Genuine devices that a policy refuses: references, modes, versions, sets of devices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.forge.nvidia.cases_report import case
from tests.forge.nvidia.judge import EVERYTHING, Case
from tests.forge.nvidia.world import (
    BLACKWELL,
    BROM,
    DRIVER_RIM,
    GPUS,
    HOPPER,
    LEAF,
    LS10,
    SWITCHES,
    VBIOS_RIM,
    World,
    another,
    block,
)
from verifier.policy.nvidia import STRICT_NVIDIA, NvidiaDemands

OTHER = bytes(47) + b"\x07"


def judged(name: str, code: str, step: str | None, world: World, **demands: Any) -> Case:
    return Case(name=name, code=code, step=step, world=world, demands=replace(EVERYTHING, **demands))


REFERENCES = [
    case("no manifests", "REFERENCE_MISSING", "ReferenceMatched", HOPPER, rims=()),
    case("driver manifest alone", "REFERENCE_MISSING", "ReferenceMatched", HOPPER, rims=(DRIVER_RIM,)),
    case("VBIOS manifest alone", "REFERENCE_MISSING", "ReferenceMatched", BLACKWELL,
         rims=(replace(VBIOS_RIM, product="GB100"),)),
    case("driver measurement of another value", "REFERENCE_MISMATCH", "ReferenceMatched", HOPPER,
         blocks={3: block(3, OTHER)}),
    case("VBIOS measurement of another value", "REFERENCE_MISMATCH", "ReferenceMatched", HOPPER,
         blocks={6: block(6, OTHER)}),
    case("a measurement left out", "REFERENCE_MISMATCH", "ReferenceMatched", HOPPER, blocks={5: None}),
    case("developer tools change a measurement", "REFERENCE_MISMATCH", "ReferenceMatched", HOPPER,
         blocks={35: block(35, OTHER)}),
    case("NVDEC0 enabled, of another value", "REFERENCE_MISMATCH", "ReferenceMatched", HOPPER,
         opaque={11: b"\xaa"}, blocks={36: block(36, OTHER)}),
    case("switch measurement of another value", "REFERENCE_MISMATCH", "ReferenceMatched", LS10,
         blocks={1: block(1, OTHER)}),
    case("manifest of another VBIOS", "REFERENCE_MISMATCH", None, HOPPER,
         rims=(DRIVER_RIM, replace(VBIOS_RIM, version="96.00.9F.00.02"))),
    case("manifest of another driver", "REFERENCE_MISMATCH", None, HOPPER,
         rims=(replace(DRIVER_RIM, version="550.90.08"), VBIOS_RIM)),
    case("manifest of another chip", "REFERENCE_MISMATCH", None, HOPPER,
         rims=(replace(DRIVER_RIM, product="GB100"), VBIOS_RIM)),
    case("manifests of a switch for a GPU", "REFERENCE_MISMATCH", None, HOPPER, rims=LS10.rims),
    case("an index active in both manifests", "REFERENCE_MISMATCH", None, HOPPER,
         rims=(DRIVER_RIM, replace(VBIOS_RIM, indexes=(2, 3)))),
    case("two manifests of one version that differ", "REFERENCE_MISMATCH", None, HOPPER,
         rims=(DRIVER_RIM, replace(DRIVER_RIM, values={0: OTHER}), VBIOS_RIM)),
]  # fmt: skip

STATES = [
    case("a Hopper report without FWID", "FWID_UNBOUND", "FwidBound", HOPPER, opaque={20: None}),
    Case(name="a switch without FWID, where both kinds must be bound", code="FWID_UNBOUND", step="FwidBound",
         world=LS10, demands=NvidiaDemands()),
    Case(name="unbound under the strict policy", code="FWID_UNBOUND", step="FwidBound",
         world=HOPPER.but(opaque={20: None}), demands=STRICT_NVIDIA),
    case("no word of the mode", "DEVICE_MODE", "ModeAccepted", HOPPER, opaque={21: None, 36: None}),
    case("PPCIE by its flag, not by its status", "DEVICE_MODE", "ModeAccepted", HOPPER, opaque={21: b"\x55"}),
    case("PPCIE by its status, not by its flag", "DEVICE_MODE", "ModeAccepted", HOPPER, opaque={36: b"\x00\x00"}),
    case("a feature flag nobody knows", "DEVICE_MODE", "ModeAccepted", BLACKWELL, opaque={36: b"\x03\x00"}),
    judged("protected PCIe, where passthrough is demanded", "DEVICE_MODE", "ModeAccepted", HOPPER,
           modes=("PASSTHROUGH",)),
    judged("passthrough, where protected PCIe is demanded", "DEVICE_MODE", "ModeAccepted",
           HOPPER.but(opaque={21: b"\x55", 36: b"\x01\x00"}), modes=("PPCIE",)),
    judged("no mode is accepted", "DEVICE_MODE", "ModeAccepted", HOPPER, modes=()),
    judged("another driver than the policy's", "DEVICE_VERSION_REFUSED", "VersionAccepted", HOPPER,
           driver_versions=("580.159.03",)),
    judged("another VBIOS than the policy's", "DEVICE_VERSION_REFUSED", "VersionAccepted", LS10,
           vbios_versions=("96.10.73.00.02",)),
    judged("no driver version is accepted", "DEVICE_VERSION_REFUSED", "VersionAccepted", HOPPER, driver_versions=()),
    judged("an older driver", "DEVICE_VERSION_REFUSED", "DriverAtLeast", HOPPER, min_driver_version="550.90.12"),
    judged("an older driver, by number and not by letter", "DEVICE_VERSION_REFUSED", "DriverAtLeast", HOPPER,
           min_driver_version="1000.0"),
    judged("no driver version", "DEVICE_VERSION_REFUSED", "DriverAtLeast",
           HOPPER.but(opaque={3: None}, rims=()), min_driver_version="1.0", demand_reference=False),
]  # fmt: skip


def together(name: str, code: str, step: str | None, *worlds: World, attested: bool = False) -> Case:
    return Case(name=name, code=code, step=step, world=worlds[0], beside=worlds[1:],
                allow_unattested_switches=not attested)  # fmt: skip


def switch(number: int, **opaque: bytes) -> World:
    own = {22: SWITCHES[number]} | {int(kind[1:]): value for kind, value in opaque.items()}
    return another(LS10, 10 + number, opaque=own)


ALL_SWITCHES = tuple(map(switch, range(4)))
ELSEWHERE = b"".join(one[::-1] for one in GPUS) + b"\xff" * 64

DEVICES = [
    together("one GPU twice", "DEVICE_DUPLICATE", "distinct", HOPPER, HOPPER),
    together("one GPU eight times", "DEVICE_DUPLICATE", "distinct", *[HOPPER] * 8),
    together("one GPU with two leaves", "DEVICE_DUPLICATE", "distinct", HOPPER,
             HOPPER.but(leaf=replace(LEAF, key="nvidia leaf 2", serial=7))),
    together("two GPUs with one leaf key", "DEVICE_DUPLICATE", "distinct", HOPPER,
             HOPPER.but(brom=replace(BROM, key="nvidia brom 2", serial=8))),
    together("two switches with one id", "DEVICE_DUPLICATE", "distinct", switch(0), another(LS10, 30)),
    together("a switch of another host", "DEVICE_TOPOLOGY", "links", HOPPER,
             switch(0, t22=b"\x01\x02\x03\x04\x05\x06\x07\x08")),
    together("a GPU of another host", "DEVICE_TOPOLOGY", "links", HOPPER,
             another(HOPPER, 1, opaque={22: b"\x09" * 144}), *ALL_SWITCHES),
    together("switches linked to different GPUs", "DEVICE_TOPOLOGY", "links", switch(0), switch(1, t26=ELSEWHERE)),
    together("more GPUs than the switches have links to", "DEVICE_TOPOLOGY", "links",
             *[another(HOPPER, number) for number in range(9)], switch(0)),
    together("a linked switch without a report", "DEVICE_TOPOLOGY", "switches_attested", HOPPER, *ALL_SWITCHES[:3],
             attested=True),
    together("no switch reported at all", "DEVICE_TOPOLOGY", "switches_attested", HOPPER, attested=True),
]  # fmt: skip

GENUINE = [
    judged("all demands", "", None, HOPPER, driver_versions=("550.90.07",), vbios_versions=("96.00.9F.00.01",),
           min_driver_version="550.90.7"),
    judged("a switch has no driver to judge", "", None, LS10, driver_versions=(), min_driver_version="999"),
    case("passthrough by an old driver's status", "", None, HOPPER, opaque={21: b"\x55", 36: None}),
    case("passthrough by its flag", "", None, HOPPER, opaque={21: None, 36: b"\x00\x00"}),
    judged("unstated, accepted", "", None, BLACKWELL.but(opaque={21: None, 36: None}), modes=("UNSTATED",)),
    case("NVDEC0 disabled, its measurement of another value", "", None, HOPPER, blocks={36: block(36, OTHER)}),
    case("an operator's manifest", "", None, HOPPER, rims=(DRIVER_RIM, replace(VBIOS_RIM, override=True))),
    together("eight GPUs and four switches", "", None, *[another(HOPPER, number) for number in range(8)],
             *ALL_SWITCHES, attested=True),
    together("GPUs without links", "", None, HOPPER.but(opaque={22: None}), another(HOPPER, 1, opaque={22: None}),
             attested=True),
    together("links that lead nowhere", "", None, HOPPER.but(opaque={22: bytes(144)}), attested=True),
]  # fmt: skip

CASES = [*REFERENCES, *STATES, *DEVICES]
