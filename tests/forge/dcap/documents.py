"""TCB info, QE identities and TCB evaluation numbers as Intel writes them, as plain dicts that a case may edit."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

Document = dict[str, Any]
Edit = Callable[[Document], Document]

SGX_NAMES = (
    ("BIOS", "Early Microcode Update"), ("OS/VMM", "SGX Late Microcode Update"), ("OS/VMM", "TXT SINIT"),
    ("BIOS", None), ("BIOS", None), ("BIOS", None), (None, None), ("OS/VMM", "SEAMLDR ACM"),
)  # fmt: skip
TDX_NAMES = (("OS/VMM", "TDX Module"), ("OS/VMM", "TDX Module"), ("OS/VMM", "TDX Late Microcode Update"))

QE_SIGNER = bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff")
TD_QE_SIGNER = bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5")


def date(seconds: int) -> str:
    """RFC 3339 with Z, whole seconds, as Intel writes it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def text_of(document: Document) -> str:
    """The JSON text as Intel delivers it: no spaces, keys in the order written."""
    return json.dumps(document, separators=(",", ":"))


def components(svns: tuple[int, ...], names: tuple[tuple[str | None, str | None], ...]) -> list[Document]:
    """16 components with their names where Intel gives one."""
    found = []
    for i, svn in enumerate(svns):
        category, kind = names[i] if i < len(names) else (None, None)
        found.append({"svn": svn} | ({"category": category} if category else {}) | ({"type": kind} if kind else {}))
    return found


def level(
    sgx: tuple[int, ...],
    pce_svn: int,
    tdx: tuple[int, ...] | None,
    day: str,
    status: str,
    advisories: tuple[str, ...] = (),
) -> Document:
    """One level of TCB info version 3."""
    tcb: Document = {"sgxtcbcomponents": components(sgx, SGX_NAMES), "pcesvn": pce_svn}
    if tdx is not None:
        tcb["tdxtcbcomponents"] = components(tdx, TDX_NAMES)
    return {"tcb": tcb, **_worth(day, status, advisories)}


def svn_level(isv_svn: int, day: str, status: str, advisories: tuple[str, ...] = ()) -> Document:
    """One level of an enclave or module identity."""
    return {"tcb": {"isvsvn": isv_svn}, **_worth(day, status, advisories)}


def _worth(day: str, status: str, advisories: tuple[str, ...]) -> Document:
    found: Document = {"tcbDate": f"{day}T00:00:00Z", "tcbStatus": status}
    return found | ({"advisoryIDs": list(advisories)} if advisories else {})


def module(identity: str | None = None, levels: tuple[Document, ...] = ()) -> Document:
    """`tdxModule`, or with an id an entry of `tdxModuleIdentities`."""
    found = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    return found if identity is None else {"id": identity, **found, "tcbLevels": list(levels)}


_ZEROS = (0,) * 8
LEVELS = (
    ((5, 5, 2, 2, 3, 1, 0, 3, *_ZEROS), 13, (5, 0, 6, *_ZEROS, *(0,) * 5), "2025-08-13", "UpToDate", ()),
    ((4, 4, 2, 2, 3, 1, 0, 3, *_ZEROS), 13, (4, 0, 5, *_ZEROS, *(0,) * 5), "2024-11-13", "OutOfDate",
     ("INTEL-SA-01192", "INTEL-SA-01245")),
    ((2, 2, 2, 2, 2, 1, 0, 2, *_ZEROS), 11, (3, 0, 5, *_ZEROS, *(0,) * 5), "2023-08-09", "OutOfDate",
     ("INTEL-SA-00837", "INTEL-SA-01192", "INTEL-SA-01245")),
    ((1, 1, 1, 1, 1, 1, 0, 1, *_ZEROS), 5, (1, 0, 1, *_ZEROS, *(0,) * 5), "2018-01-04", "Revoked",
     ("INTEL-SA-00106",)),
)  # fmt: skip
"""Levels of the forged platform, best first: SGX components, PCESVN, TDX components, day, status, advisories."""


def module_levels() -> tuple[Document, ...]:
    """Levels of a TDX module: fresh ones on every call, since a case may edit them."""
    return (
        svn_level(7, "2025-08-13", "UpToDate"),
        svn_level(5, "2024-11-13", "OutOfDate", ("INTEL-SA-01036",)),
        svn_level(2, "2023-08-09", "Revoked", ("INTEL-SA-00999",)),
    )


def tcb_info(*, tee: str, fmspc: bytes, pce_id: bytes, issued: int, next_update: int, number: int) -> Document:
    """TCB info version 3 for `tee` "sgx" or "tdx"."""
    tdx = tee == "tdx"
    found: Document = {
        "id": tee.upper(),
        "version": 3,
        "issueDate": date(issued),
        "nextUpdate": date(next_update),
        "fmspc": fmspc.hex().upper(),
        "pceId": pce_id.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": number,
    }
    if tdx:
        found["tdxModule"] = module()
        found["tdxModuleIdentities"] = [module("TDX_03", module_levels()), module("TDX_01", module_levels())]
    found["tcbLevels"] = [
        level(sgx, pce_svn, tdx_svns if tdx else None, day, status, advisories)
        for sgx, pce_svn, tdx_svns, day, status, advisories in LEVELS
    ]
    return found


def as_v2(document: Document) -> Document:
    """The same TCB info in version 2, which only SGX had: no id, components flat."""
    flat = {key: value for key, value in document.items() if key != "id"} | {"version": 2}
    flat["tcbLevels"] = [
        one
        | {
            "tcb": {f"sgxtcbcomp{i + 1:02}svn": part["svn"] for i, part in enumerate(one["tcb"]["sgxtcbcomponents"])}
            | {"pcesvn": one["tcb"]["pcesvn"]}
        }
        for one in document["tcbLevels"]
    ]
    return flat


def qe_identity(*, tee: str, issued: int, next_update: int, number: int) -> Document:
    """Identity version 2 of the quoting enclave for `tee`."""
    return {
        "id": "TD_QE" if tee == "tdx" else "QE",
        "version": 2,
        "issueDate": date(issued),
        "nextUpdate": date(next_update),
        "tcbEvaluationDataNumber": number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11000000000000000000000000000000",
        "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
        "mrsigner": (TD_QE_SIGNER if tee == "tdx" else QE_SIGNER).hex().upper(),
        "isvprodid": 2 if tee == "tdx" else 1,
        "tcbLevels": [
            svn_level(8, "2025-08-13", "UpToDate"),
            svn_level(6, "2024-11-13", "OutOfDate", ("INTEL-SA-00615",)),
            svn_level(2, "2019-11-13", "Revoked", ("INTEL-SA-00219",)),
        ],
    }


def evaluation_numbers(*, tee: str, issued: int, next_update: int) -> Document:
    """The TCB evaluation data sets, newest first."""
    return {
        "id": tee.upper(),
        "version": 1,
        "issueDate": date(issued),
        "nextUpdate": date(next_update),
        "tcbEvalNumbers": [
            {
                "tcbEvaluationDataNumber": number,
                "tcbRecoveryEventDate": f"{day}T00:00:00Z",
                "tcbDate": f"{day}T00:00:00Z",
            }
            for number, day in ((20, "2025-08-13"), (19, "2025-05-14"), (18, "2024-11-13"))
        ],
    }


def put(*path: str | int, to: Any) -> Edit:
    """An edit that sets what lies at `path`."""

    def edit(document: Document) -> Document:
        *way, last = path
        here: Any = document
        for step in way:
            here = here[step]
        here[last] = to
        return document

    return edit


def drop(*path: str | int) -> Edit:
    """An edit that removes what lies at `path`."""

    def edit(document: Document) -> Document:
        *way, last = path
        here: Any = document
        for step in way:
            here = here[step]
        del here[last]
        return document

    return edit


def chained(*edits: Edit) -> Edit:
    """Edits one after another."""

    def edit(document: Document) -> Document:
        for one in edits:
            document = one(document)
        return document

    return edit
