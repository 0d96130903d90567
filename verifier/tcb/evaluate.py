"""What a platform's TCB is worth, exactly as Intel's library says (ATTESTATION.md §5; QVL 4.1.2.5.12, .18 to .20).

The steps, in order; the same numbers stand at the code:

 1. TDX: the major version in TEE_TCB_SVN names the module's identity; MRSIGNERSEAM and SEAMATTRIBUTES must be its.
 2. The platform's level: the first whose components and PCESVN it reaches.
 3. The TDX module's level, where it has an identity: the first whose ISVSVN it reaches.
 4. The quoting enclave's level, likewise.
 5. The three converge: the worst of module and quoting enclave can only lower the platform's status.
 6. A TD report 1.5 is judged twice, by the SVN it was launched on and by the module's SVN now; where only the launch
    is out of date, the advice is to launch it again.

SVNs of the platform come from the PCK certificate, never from a report. No match in step 2, 3 or 4 is no status at all:
`TcbNotSupported`, whose field names the part. Documents are parsed and their levels sorted before they come here.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import ge
from typing import TypeVar

from verifier.abi.collateral import EnclaveIdentity, IsvSvnLevel, TcbInfo, TcbLevel, TdxModule
from verifier.abi.pck import PckExtension
from verifier.errors import TcbNotSupported, TdxModuleMismatch
from verifier.tcb.status import PartStatus, Shortfall, TcbReport, TcbState, TcbStatus

_COMPONENTS = 16
_MODULE_SVN, _MODULE_VERSION = 0, 1
"""Places in TEE_TCB_SVN: the module's ISVSVN and its major version."""

_UP_TO_DATE, _OUT_OF_DATE, _REVOKED = TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED
_RELAUNCH = frozenset({TcbStatus.TD_RELAUNCH_ADVISED, TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED})
_OF_PLATFORMS = frozenset(TcbStatus) - _RELAUNCH
_OF_ENCLAVES = frozenset({_UP_TO_DATE, _OUT_OF_DATE, _REVOKED})
"""Statuses a level may have; a document with another one does not come past the parser."""

_CONFIGURABLE = frozenset({
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
    TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED,
})  # fmt: skip
_BEHIND = frozenset({_OUT_OF_DATE, TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED})
_GOOD_NOW = frozenset({
    _UP_TO_DATE,
    TcbStatus.SW_HARDENING_NEEDED,
    TcbStatus.CONFIGURATION_NEEDED,
    TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED,
})  # fmt: skip


def evaluate(
    *,
    tee: str,
    pck: PckExtension,
    qe_isv_svn: int,
    tee_tcb_svn: bytes | None,
    tee_tcb_svn_2: bytes | None,
    mrsignerseam: bytes | None,
    seam_attributes: bytes | None,
    tcb_info: TcbInfo,
    qe_identity: EnclaveIdentity,
) -> TcbReport:
    """The TCB of a platform whose quote and collateral are verified, and fit each other (TEE, FMSPC, PCE id).

    `tee` is "sgx" or "tdx"; the TD's fields (16, 16, 48 and 8 bytes) are None for SGX, `tee_tcb_svn_2` also for TD
    reports 1.0. Raises `TcbNotSupported` (field "platform", "tdx_module" or "qe") or `TdxModuleMismatch`.
    """
    quoting = match_qe(qe_identity, qe_isv_svn)
    if tee == "sgx":
        launch = current = judge(pck, None, tcb_info, quoting)
        status = launch.status
    else:
        if tee_tcb_svn is None or mrsignerseam is None or seam_attributes is None:
            raise ValueError("a TD has TEE_TCB_SVN, MRSIGNERSEAM and SEAMATTRIBUTES")
        # (1)
        check_module(choose_module(tcb_info, tee_tcb_svn), mrsignerseam, seam_attributes)
        launch = current = judge(pck, tee_tcb_svn, tcb_info, quoting)
        status = launch.status
        # (6) One SVN is one judgement.
        if tee_tcb_svn_2 is not None and tee_tcb_svn_2 != tee_tcb_svn:
            current = judge(pck, tee_tcb_svn_2, tcb_info, quoting)
            status = relaunch(status, current.status)
    return TcbReport(
        status=status,
        tcb_date_ms=launch.tcb_date_ms,
        advisory_ids=launch.advisory_ids,
        launch=launch,
        current=current,
        tcb_evaluation_number=tcb_info.evaluation_number,
        qe_evaluation_number=qe_identity.evaluation_number,
    )


Level = TypeVar("Level", TcbLevel, IsvSvnLevel)

Matched = tuple[PartStatus, tuple[Shortfall, ...]]
"""What a part is worth, and what it lacks."""


def judge(pck: PckExtension, tee_tcb_svn: bytes | None, tcb_info: TcbInfo, quoting: Matched) -> TcbState:
    """Steps 2 to 5 for one TEE_TCB_SVN (None: SGX), given what the quoting enclave is worth."""
    # (2)
    parts = [match_platform(tcb_info, pck, tee_tcb_svn)]
    # (3)
    if tee_tcb_svn is not None and tee_tcb_svn[_MODULE_VERSION]:
        parts.append(match_module(tcb_info, tee_tcb_svn))
    # (4)
    parts.append(quoting)
    # (5)
    dates = [part.tcb_date_ms for part, _ in parts if part.tcb_date_ms is not None]
    return TcbState(
        status=converge(parts[0][0].status, [part.status for part, _ in parts[1:]]),
        tcb_date_ms=min(dates) if dates else None,
        advisory_ids=tuple(sorted({one for part, _ in parts for one in part.advisory_ids})),
        parts=tuple(part for part, _ in parts),
        shortfalls=tuple(one for _, short in parts for one in short),
    )


def choose_module(tcb_info: TcbInfo, tee_tcb_svn: bytes) -> TdxModule:
    """What TCB info says of the module with this SVN (16 bytes): its own identity from major version 1 on.

    `TdxModuleMismatch` for a major version that TCB info does not list.
    """
    version = tee_tcb_svn[_MODULE_VERSION]
    module = _identity_of(tcb_info, version) if version else tcb_info.tdx_module
    if module is None:
        raise TdxModuleMismatch(f"TCB info knows no TDX module of major version {version}", field="tee_tcb_svn")
    return module


def check_module(module: TdxModule, mrsignerseam: bytes, seam_attributes: bytes) -> None:
    """Signer (48 bytes) and attributes (8 bytes) of the module are the listed ones (4.1.2.5.12). `TdxModuleMismatch`.

    Intel's library asks more of the attributes than the mask says: all zero, and equal.
    """
    if mrsignerseam != module.mrsigner:
        raise TdxModuleMismatch("MRSIGNERSEAM is not the signer in TCB info", field="mrsignerseam")
    if any(seam_attributes) or seam_attributes != module.attributes:
        raise TdxModuleMismatch("SEAMATTRIBUTES are not those in TCB info, or not zero", field="seam_attributes")


def match_platform(tcb_info: TcbInfo, pck: PckExtension, tee_tcb_svn: bytes | None) -> Matched:
    """The first level that all components and PCESVN reach (4.1.2.5.1.1, .2.1). `TcbNotSupported`.

    With a module that has its own identity, the two TDX components that describe the module do not count here.
    """
    svns, pce_svn = pck.component_svns, pck.pce_svn
    levels = tcb_info.levels
    start = _tdx_start(tee_tcb_svn)
    for index, level in enumerate(levels):
        if (
            _reaches(svns, level.sgx_svns)
            and pce_svn >= level.pce_svn
            and (tee_tcb_svn is None or _reaches_tdx(tee_tcb_svn, level.tdx_svns, start))
        ):
            _check_status(level.status, _OF_PLATFORMS, "platform")
            part, target = _standing("platform", levels, index)
            return part, () if target is None else _short(tcb_info, target, pck, tee_tcb_svn)
    short = _short(tcb_info, levels[-1], pck, tee_tcb_svn) if levels else ()
    lowest = ", ".join(f"{one.component} has {one.has}, needs {one.needs}" for one in short)
    raise TcbNotSupported(f"the platform is below every TCB level; of the lowest: {lowest or 'none'}", field="platform")


def match_module(tcb_info: TcbInfo, tee_tcb_svn: bytes) -> Matched:
    """The level of the TDX module with this SVN (4.1.2.5.2.2). `TcbNotSupported`, also where it has no identity."""
    version, svn = tee_tcb_svn[_MODULE_VERSION], tee_tcb_svn[_MODULE_SVN]
    module = _identity_of(tcb_info, version)
    if module is None:
        raise TcbNotSupported(f"no identity of TDX module version {version}", field="tdx_module")
    return _match_isv_svn("tdx_module", f"TDX module {module.id}", module.levels, svn)


def match_qe(identity: EnclaveIdentity, isv_svn: int) -> Matched:
    """The level of the quoting enclave (4.1.2.5.1.2). `TcbNotSupported`."""
    return _match_isv_svn("qe", identity.id, identity.levels, isv_svn)


def converge(platform: TcbStatus, components: Sequence[TcbStatus]) -> TcbStatus:
    """The platform's status, lowered by those of module and quoting enclave (4.1.2.5.1.3 to .6)."""
    if _REVOKED in components:
        return _REVOKED
    if _OUT_OF_DATE in components:
        if platform in (_UP_TO_DATE, TcbStatus.SW_HARDENING_NEEDED):
            return _OUT_OF_DATE
        if platform in (TcbStatus.CONFIGURATION_NEEDED, TcbStatus.CONFIGURATION_AND_SW_HARDENING_NEEDED):
            return TcbStatus.OUT_OF_DATE_CONFIGURATION_NEEDED
    return platform


def relaunch(launch: TcbStatus, current: TcbStatus) -> TcbStatus:
    """What Intel's library reports of a TD whose module may have been updated under it (4.1.2.5.20.2).

    A current status that is worse than the launch's does not show in the result: a careful policy looks at it, too.
    """
    if launch in _BEHIND and current in _GOOD_NOW:
        if launch in _CONFIGURABLE or current in _CONFIGURABLE:
            return TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED
        return TcbStatus.TD_RELAUNCH_ADVISED
    return launch


def _identity_of(tcb_info: TcbInfo, version: int) -> TdxModule | None:
    wanted = f"TDX_{version:02X}"
    for module in tcb_info.tdx_module_identities:
        if module.id is not None and module.id.upper() == wanted:
            return module
    return None


def _match_isv_svn(part: str, what: str, levels: Sequence[IsvSvnLevel], isv_svn: int) -> Matched:
    for index, level in enumerate(levels):
        if isv_svn >= level.isv_svn:
            _check_status(level.status, _OF_ENCLAVES, part)
            standing, target = _standing(part, levels, index)
            if target is None or isv_svn >= target.isv_svn:
                return standing, ()
            return standing, (Shortfall(part=part, component=f"{what} ISVSVN", has=isv_svn, needs=target.isv_svn),)
    lowest = f", the lowest level needs {levels[-1].isv_svn}" if levels else ""
    raise TcbNotSupported(f"{what} ISVSVN {isv_svn} is below every level{lowest}", field=part)


def _check_status(status: TcbStatus, known: frozenset[TcbStatus], part: str) -> None:
    if status not in known:
        raise TcbNotSupported(f"a level of status {status}", field=part)


def _reaches(has: Sequence[int], needs: Sequence[int]) -> bool:
    # A list that is too short would compare what is there and pass the rest: its length counts, too.
    return len(has) == len(needs) == _COMPONENTS and all(map(ge, has, needs))


def _reaches_tdx(has: bytes, needs: tuple[int, ...] | None, start: int) -> bool:
    if needs is None or not len(has) == len(needs) == _COMPONENTS:
        return False
    return all(map(ge, has[start:], needs[start:])) if start else all(map(ge, has, needs))


def _tdx_start(tee_tcb_svn: bytes | None) -> int:
    """The first TDX component that the platform's level judges."""
    return 2 if tee_tcb_svn is not None and tee_tcb_svn[_MODULE_VERSION] else 0


def _standing(part: str, levels: Sequence[Level], index: int) -> tuple[PartStatus, Level | None]:
    """What the level at `index` means among its peers, and the level to reach: None where nothing is short.

    To reach is the nearest level above that is UpToDate; where there is none, the first of all.
    """
    level = levels[index]
    date, status = level.tcb_date_ms, level.status
    if not index or status is _UP_TO_DATE:
        return PartStatus(
            part=part, status=status, tcb_date_ms=date, advisory_ids=level.advisory_ids, newest_ms=date
        ), None
    above = levels[:index]
    target = next((one for one in reversed(above) if one.status is _UP_TO_DATE), above[0])
    dates = [one.tcb_date_ms for one in above if one.tcb_date_ms is not None]
    superseded = min((one for one in dates if date is not None and one > date), default=None)
    if superseded is None and status in _BEHIND and date is not None:
        # Levels of one day: it is behind since that day, at the latest.
        superseded = target.tcb_date_ms
    return PartStatus(
        part=part,
        status=status,
        tcb_date_ms=date,
        advisory_ids=level.advisory_ids,
        superseded_ms=superseded,
        newest_ms=target.tcb_date_ms,
    ), target


def _short(tcb_info: TcbInfo, target: TcbLevel, pck: PckExtension, tee_tcb_svn: bytes | None) -> tuple[Shortfall, ...]:
    """Every component of the platform that is below `target`."""
    found = _components_short("SGX", tcb_info.sgx_component_names, pck.component_svns, target.sgx_svns, 0)
    if pck.pce_svn < target.pce_svn:
        found.append(Shortfall(part="platform", component="PCESVN", has=pck.pce_svn, needs=target.pce_svn))
    if tee_tcb_svn is not None and target.tdx_svns is not None:
        start = _tdx_start(tee_tcb_svn)
        found += _components_short("TDX", tcb_info.tdx_component_names, tee_tcb_svn, target.tdx_svns, start)
    return tuple(found)


def _components_short(
    family: str, names: Sequence[str | None], svns: Sequence[int], needed: Sequence[int], start: int
) -> list[Shortfall]:
    """Components from `start` on that are below what is needed, in words: "TXT SINIT (SGX component 6)"."""
    found = []
    for index, (has, needs) in enumerate(zip(svns, needed, strict=False)):
        if has < needs and index >= start:
            plain = f"{family} component {index + 1}"
            name = f"{names[index]} ({plain})" if names[index] else plain
            found.append(Shortfall(part="platform", component=name, has=has, needs=needs))
    return found
