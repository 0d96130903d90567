"""Mutants in time, status and SVN: evidence that is genuine, and worth more or less."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from tests.forge.dcap.certificates import Cert, Crl
from tests.forge.dcap.mutant import COMMON, Mutant
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.world import DAY, NOW, SGX3, TDX4, TDX5, TDX5_15, TDX5_EXTENDED

STATUSES = (
    "UpToDate", "SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded", "OutOfDate",
    "OutOfDateConfigurationNeeded", "Revoked",
)  # fmt: skip


PART_STATUSES = ("UpToDate", "UpToDate", "OutOfDate", "OutOfDate", "Revoked")


def times(rng: random.Random) -> Mutant:
    """The moment of judgement at every boundary of every item, a second before and after."""
    windows: dict[str, dict[str, Any]] = {
        "TCB info": {"tcb_info_window": None}, "QE identity": {"qe_identity_window": None},
        "root CRL": {"root_crl": None},
        "PCK CRL": {"pck_crl": None}, "PCK": {"pck": None}, "PCK CA": {"pck_ca": None},
        "TCB signer": {"tcb_signer": None},
    }  # fmt: skip
    item = rng.choice(list(windows))
    role = next(iter(windows[item]))
    world = rng.choice(COMMON)
    begin, end = sorted(rng.sample(range(NOW - 2 * DAY, NOW + 25 * DAY), 2))
    old = getattr(world, role)
    new: Any = (begin, end)
    if isinstance(old, Cert):
        new = replace(old, not_before=begin, not_after=end)
    elif isinstance(old, Crl):
        new = replace(old, this_update=begin, next_update=end)
    offset, side = rng.choice((-1, 0, 1)), rng.choice(("begin", "end"))
    at = (begin if side == "begin" else end) + offset
    # Everything else is wide open around it.
    wide = (NOW - 5 * DAY, NOW + 40 * DAY)
    opened: dict[str, Any] = {
        "tcb_info_window": wide, "qe_identity_window": wide,
        "pck_crl": replace(world.pck_crl, this_update=wide[0], next_update=wide[1]),
    }  # fmt: skip
    return Mutant("times", f"{item}: {side} {offset:+d} s", world.but(**(opened | {role: new, "at": at})).mint())


def statuses(rng: random.Random) -> Mutant:
    """Every combination of platform, module and QE statuses, with advisories of each."""
    world = rng.choice((SGX3, TDX4, TDX5, TDX5_15, TDX5_EXTENDED))
    platform, module, running, qe = (rng.choice(one) for one in (STATUSES, PART_STATUSES, PART_STATUSES, PART_STATUSES))

    def worth(level: dict[str, Any], status: str, advisory: str) -> None:
        level["tcbStatus"] = status
        if rng.random() < 0.8:
            level["advisoryIDs"] = [f"INTEL-SA-{advisory}", "INTEL-SA-00001"][: rng.randrange(1, 3)]

    def edit(document: dict[str, Any]) -> dict[str, Any]:
        worth(document["tcbLevels"][0], platform, "11111")
        for identity in document.get("tdxModuleIdentities", ()):
            worth(identity["tcbLevels"][0], running, "22222")
            worth(identity["tcbLevels"][1], module, "33333")
        return document

    def edit_qe(document: dict[str, Any]) -> dict[str, Any]:
        worth(document["tcbLevels"][0], qe, "44444")
        return document

    body: dict[str, bytes] = {}
    if world.tee == "tdx":
        versions = rng.choice(((6, 1), (7, 1), (7, 3), (6, 3), (7, 0)))
        body["tee_tcb_svn"] = bytes([*versions, 6]) + bytes(13)
        if world.body_type in (3, 4):
            body["tee_tcb_svn_2"] = bytes([rng.choice((6, 7)), rng.choice((1, 3)), 6]) + bytes(13)
    what = f"platform {platform}, module {module}, running {running}, QE {qe}, {world.tee} {world.body_type}"
    return Mutant("statuses", what, world.but(tcb_info_edit=edit, qe_identity_edit=edit_qe, body=body).mint())


def _module_svn(rng: random.Random) -> bytes:
    minor, major, microcode = (
        rng.choice((1, 3, 5, 6, 7, 8, 9)),
        rng.choice((0, 1, 1, 1, 2, 3)),
        rng.choice((0, 5, 6, 6, 7)),
    )
    return bytes([minor, major, microcode]) + bytes(13)


def svns(rng: random.Random) -> Mutant:
    """SVNs of platform, PCE, modules and QE around the levels', which are random too."""
    world = rng.choice((SGX3, TDX4, TDX5_15))

    def edit(document: dict[str, Any]) -> dict[str, Any]:
        for level in document["tcbLevels"]:
            for name in ("sgxtcbcomponents", "tdxtcbcomponents"):
                if name in level["tcb"] and rng.random() < 0.2:
                    rng.choice(level["tcb"][name][:8])["svn"] = rng.randrange(8)
            if rng.random() < 0.2:
                level["tcb"]["pcesvn"] = rng.choice((11, 12, 13, 14))
        rng.shuffle(document["tcbLevels"])
        return document

    def edit_qe(document: dict[str, Any]) -> dict[str, Any]:
        if rng.random() < 0.3:
            document["tcbLevels"].reverse()
        return document

    components = list(Platform().components)
    for index in rng.sample(range(9), rng.randrange(3)):
        components[index] = rng.choice((1, 2, 3, 4, 5, 6, 255))
    platform = Platform(components=tuple(components), pce_svn=rng.choice((5, 11, 12, 13, 13, 14, 300)))
    body: dict[str, bytes] = {}
    if world.tee == "tdx":
        body["tee_tcb_svn"] = _module_svn(rng)
    if world.body_type == 3:
        body["tee_tcb_svn_2"] = _module_svn(rng)
    qe = {"isvsvn": rng.choice((1, 5, 6, 7, 8, 8, 9)).to_bytes(2, "little")}
    world = world.but(platform=platform, body=body, qe=qe, tcb_info_edit=edit, qe_identity_edit=edit_qe)
    return Mutant("SVNs", f"{components} {platform.pce_svn} {body} {qe}", world.mint())
