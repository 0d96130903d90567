"""TCB info and enclave identities as Intel signs them (PCS API v4; ATTESTATION.md §3): parsed, not verified.

The signature covers the exact bytes of the inner object as delivered, so the raw text is kept and never written again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from itertools import pairwise
from typing import Any, TypeVar

from verifier.abi import json
from verifier.abi.documents import (
    Document,
    EnclaveIdentity,
    EvaluationNumber,
    EvaluationNumbers,
    IsvSvnLevel,
    SignedDocument,
    TcbInfo,
    TcbLevel,
    TdxModule,
)
from verifier.abi.fields import MAX_U16, MAX_U32, date, hexadecimal, inner, label, member, refuse, unsigned
from verifier.errors import CollateralMalformed, CollateralUnsupported
from verifier.limits import MAX_LABEL_CHARACTERS, MAX_SIGNED_DOCUMENT_BYTES
from verifier.tcb.status import TcbStatus

__all__ = [
    "EVALUATION_NUMBERS",
    "QE_IDENTITY",
    "TCB_INFO",
    "Document",
    "EnclaveIdentity",
    "EvaluationNumber",
    "EvaluationNumbers",
    "IsvSvnLevel",
    "SignedDocument",
    "TcbInfo",
    "TcbLevel",
    "TdxModule",
    "parse_enclave_identity",
    "parse_evaluation_numbers",
    "parse_signature",
    "parse_signed",
    "parse_tcb_info",
    "signed_document",
]

COMPONENTS = 16
SIGNATURE_BYTES = 64

TCB_INFO, QE_IDENTITY, EVALUATION_NUMBERS = "tcb_info", "qe_identity", "tcb_evaluation_numbers"
"""Kinds of signed documents, as they stand in error fields and windows."""


def parse_tcb_info(signed: bytes | str) -> TcbInfo:
    """TCB info from its signed text: version 2 (SGX) or 3. Raises `CollateralMalformed`, `CollateralUnsupported`."""
    return _tcb_info(_load(signed, TCB_INFO))


def parse_enclave_identity(signed: bytes | str) -> EnclaveIdentity:
    """An enclave identity, version 2, from its signed text. `CollateralMalformed`, `CollateralUnsupported`."""
    return _enclave_identity(_load(signed, QE_IDENTITY))


def parse_evaluation_numbers(signed: bytes | str) -> EvaluationNumbers:
    """TCB evaluation data numbers from their signed text. `CollateralMalformed`, `CollateralUnsupported`."""
    return _evaluation_numbers(_load(signed, EVALUATION_NUMBERS))


def parse_signed(text: bytes | str) -> SignedDocument:
    """A document as the PCS and a PCCS answer it, `{"tcbInfo":{…},"signature":"…"}`, its inner bytes untouched.

    Raises `CollateralMalformed`, `CollateralTooLarge` or `CollateralUnsupported`.
    """
    decoded = json.decode(text, "document", MAX_SIGNED_DOCUMENT_BYTES)
    found = json.members(decoded, "document")
    names = [name for name in ENVELOPES if name in found]
    if len(names) != 1:
        raise CollateralMalformed(f"no object with exactly one of {', '.join(ENVELOPES)}", field="document")
    kind = ENVELOPES[names[0]]
    inside = found[names[0]]
    signature = found.get("signature")
    return SignedDocument(
        document=_BUILDERS[kind](json.members_of(inside.value, kind)),
        signed_bytes=decoded[inside.start : inside.stop].encode(),
        signature=parse_signature(None if signature is None else signature.value, kind),
    )


def signed_document(kind: str, text: str, signature: object) -> SignedDocument:
    """The document of `kind` whose signed text and signature (hexadecimal) were delivered apart.

    Raises `CollateralMalformed`, `CollateralTooLarge` or `CollateralUnsupported`.
    """
    return SignedDocument(
        document=_BUILDERS[kind](_load(text, kind)),
        signed_bytes=text.encode(),
        signature=parse_signature(signature, kind),
    )


def parse_signature(value: object, kind: str) -> bytes:
    """r‖s, 64 bytes, from 128 hexadecimal digits. `CollateralMalformed`."""
    return hexadecimal({"signature": value}, "signature", SIGNATURE_BYTES, kind)


def _load(signed: bytes | str, kind: str) -> dict[str, Any]:
    return json.loads(signed, kind, MAX_SIGNED_DOCUMENT_BYTES)


ENVELOPES = {
    "tcbInfo": TCB_INFO,
    "enclaveIdentity": QE_IDENTITY,
    "qeIdentity": QE_IDENTITY,
    "tcbEvaluationDataNumbers": EVALUATION_NUMBERS,
}
"""Member of the answer that holds the signed object, and the kind of it; `qeIdentity` in the first API only."""

_PLATFORM_STATUSES = {
    str(status): status
    for status in TcbStatus
    if status not in (TcbStatus.TD_RELAUNCH_ADVISED, TcbStatus.TD_RELAUNCH_ADVISED_CONFIGURATION_NEEDED)
}
_PART_STATUSES = {str(one): one for one in (TcbStatus.UP_TO_DATE, TcbStatus.OUT_OF_DATE, TcbStatus.REVOKED)}
"""What a document may say of a platform, and of an enclave or a TDX module; any other word is refused."""

_FLAT = tuple(f"sgxtcbcomp{number:02}svn" for number in range(1, COMPONENTS + 1))
"""Version 2 writes the components one by one."""

_CONTAINERS = (tuple, list)
_ONLY_INT, _ONLY_OBJECT, _ONLY_ONE, _ONLY_SVN = {int}, {tuple}, {1}, {"svn"}

_TEES = {"SGX": "sgx", "TDX": "tdx"}
_ENCLAVES = ("QE", "TD_QE", "QVE")

_HEAD = {"id", "version", "issueDate", "nextUpdate", "tcbEvaluationDataNumber", "tcbLevels"}
_INFO = _HEAD | {"fmspc", "pceId", "tcbType"}
_TDX_INFO = _INFO | {"tdxModule", "tdxModuleIdentities"}
_MODULE = {"id", "mrsigner", "attributes", "attributesMask", "tcbLevels"}
_IDENTITY = _HEAD | _MODULE | {"miscselect", "miscselectMask", "isvprodid"}
_NUMBERS = {"id", "version", "issueDate", "nextUpdate", "tcbEvalNumbers"}
_NUMBER = {"tcbEvaluationDataNumber", "tcbRecoveryEventDate", "tcbDate"}
_LEVEL = {"tcb", "tcbDate", "tcbStatus", "advisoryIDs"}
_COMPONENT = {"svn", "category", "type"}
_SVN_TCB = {"isvsvn"}
_TCB = {(2, False): {"pcesvn", *_FLAT}, (3, False): {"pcesvn", "sgxtcbcomponents"}}
_TCB[3, True] = _TCB[3, False] | {"tdxtcbcomponents"}
"""Members that are read; `_TCB` by version and whether it is TDX."""


def _bound(parent: dict[str, Any], read: Set[str], field: str) -> None:
    """Members that nobody reads may be of a later format, but not bottomless."""
    if not parent.keys() <= read:
        for name in parent.keys() - read:
            if type(parent[name]) in _CONTAINERS:
                json.check_unread(parent[name], field)


def _tcb_info(info: dict[str, Any]) -> TcbInfo:
    version = unsigned(info, "version", MAX_U32, TCB_INFO)
    if version not in (2, 3):
        raise CollateralUnsupported(f"TCB info of version {version}", field="tcb_info.version")
    # Version 2 knows SGX only and, as a rule, has no id.
    tee = "SGX" if version == 2 and "id" not in info else member(info, "id", str, TCB_INFO)
    if tee not in _TEES:
        refuse("tcb_info.id", f"unknown TEE {tee[:16]!r}")
    if version == 2 and tee != "SGX":
        raise CollateralUnsupported(f"TCB info version 2 for {tee}", field="tcb_info.id")
    if member(info, "tcbType", int, TCB_INFO) != 0:
        raise CollateralUnsupported("TCB info of another tcbType than 0", field="tcb_info.tcbType")
    _bound(info, _TDX_INFO if tee == "TDX" else _INFO, TCB_INFO)
    module: TdxModule | None = None
    identities: tuple[TdxModule, ...] = ()
    if tee == "TDX":
        module = _tdx_module(inner(info, "tdxModule", TCB_INFO), "tcb_info.tdxModule")
        if "tdxModuleIdentities" in info:
            identities = _tdx_module_identities(member(info, "tdxModuleIdentities", list, TCB_INFO))
    elif version != 2 and ("tdxModule" in info or "tdxModuleIdentities" in info):
        refuse("tcb_info.tdxModule", "in TCB info for SGX")
    delivered: list[Any] = member(info, "tcbLevels", list, TCB_INFO)
    labels: Labels = {}
    levels = _tcb_levels(delivered, version, tee == "TDX", labels)
    newest = json.members_of(json.members_of(delivered[0], TCB_INFO)["tcb"], TCB_INFO)
    return TcbInfo(
        tee=_TEES[tee],
        version=version,
        issued_ms=date(info, "issueDate", TCB_INFO),
        next_update_ms=date(info, "nextUpdate", TCB_INFO),
        fmspc=hexadecimal(info, "fmspc", 6, TCB_INFO),
        pce_id=hexadecimal(info, "pceId", 2, TCB_INFO),
        evaluation_number=unsigned(info, "tcbEvaluationDataNumber", MAX_U32, TCB_INFO),
        levels=levels,
        tdx_module=module,
        tdx_module_identities=identities,
        sgx_component_names=_NAMELESS if version == 2 else _names(newest["sgxtcbcomponents"], labels),
        tdx_component_names=_names(newest["tdxtcbcomponents"], labels) if tee == "TDX" else _NAMELESS,
    )


Labels = dict[tuple[Any, ...], str | None]
"""What a component is called, by all it says but its SVN; levels repeat it."""


def _tcb_levels(delivered: list[Any], version: int, tdx: bool, labels: Labels) -> tuple[TcbLevel, ...]:
    field, members = "tcb_info.tcbLevels", _TCB[version, tdx]
    levels: list[TcbLevel] = []
    keys: list[tuple[Any, ...]] = []
    for one in delivered:
        level, tcb = _level(one, members, field)
        sgx_svns = _flat_svns(tcb, field) if version == 2 else _svns(tcb, "sgxtcbcomponents", labels, field)
        tdx_svns = _svns(tcb, "tdxtcbcomponents", labels, field) if tdx else None
        pce_svn = unsigned(tcb, "pcesvn", MAX_U16, field)
        keys.append((sgx_svns, pce_svn, tdx_svns))
        levels.append(
            TcbLevel(
                sgx_svns=sgx_svns,
                pce_svn=pce_svn,
                tdx_svns=tdx_svns,
                status=_status(level, _PLATFORM_STATUSES, field),
                tcb_date_ms=date(level, "tcbDate", field),
                advisory_ids=_advisories(level, field),
            )
        )
    return _descending(levels, keys, field)


def _svn_levels(parent: dict[str, Any], field: str, dates_differ: bool) -> tuple[IsvSvnLevel, ...]:
    """Levels of an enclave, or of a TDX module; only an enclave's may share an ISVSVN if their dates differ."""
    field = f"{field}.tcbLevels"
    levels: list[IsvSvnLevel] = []
    keys: list[tuple[Any, ...]] = []
    for one in member(parent, "tcbLevels", list, field):
        level, tcb = _level(one, _SVN_TCB, field)
        svn, day = unsigned(tcb, "isvsvn", MAX_U16, field), date(level, "tcbDate", field)
        keys.append((svn, day) if dates_differ else (svn,))
        levels.append(
            IsvSvnLevel(
                isv_svn=svn,
                status=_status(level, _PART_STATUSES, field),
                tcb_date_ms=day,
                advisory_ids=_advisories(level, field),
            )
        )
    return _descending(levels, keys, field)


def _level(one: Any, members: Set[str], field: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The members of a level, and of its `tcb`."""
    level = json.members_of(one, field)
    _bound(level, _LEVEL, field)
    tcb = inner(level, "tcb", field)
    _bound(tcb, members, field)
    return level, tcb


Level = TypeVar("Level", TcbLevel, IsvSvnLevel)


def _descending(levels: list[Level], keys: list[tuple[Any, ...]], field: str) -> tuple[Level, ...]:
    """The levels from the highest down, as matching walks them; they are delivered so."""
    if not levels:
        refuse(field, "no level")
    check_distinct_levels(keys, field)
    if all(above >= below for above, below in pairwise(keys)):
        return tuple(levels)
    return tuple(levels[index] for index in sorted(range(len(keys)), key=keys.__getitem__, reverse=True))


def check_distinct_levels(keys: Sequence[tuple[Any, ...]], field: str) -> None:
    """No two levels ask for the same: which of their statuses should count is not for us to choose."""
    if len(set(keys)) != len(keys):
        refuse(field, "the same level twice")


def _svns(tcb: dict[str, Any], name: str, labels: Labels, field: str) -> tuple[int, ...]:
    components: list[Any] = member(tcb, name, list, field)
    if len(components) != COMPONENTS:
        refuse(f"{field}.{name}", f"{len(components)} components instead of {COMPONENTS}")
    try:
        if {one[0][0] for one in components} != _ONLY_SVN:  # first in every component that Intel writes
            components = [_svn_first(one, field) for one in components]
        svns = [one[0][1] for one in components]
        bytes(svns)  # each in 0 to 255
    except (TypeError, IndexError, KeyError, ValueError, OverflowError):
        refuse(f"{field}.{name}", "a component without an svn in 0 to 255")
    if set(map(type, svns)) != _ONLY_INT or set(map(type, components)) != _ONLY_OBJECT:  # True is no svn
        refuse(f"{field}.{name}", "an svn that is no integer, or a component that is no object")
    if set(map(len, components)) != _ONLY_ONE:
        for one in components:
            if len(one) != 1:
                _label(one, labels, field)
    return tuple(svns)


def _svn_first(component: Any, field: str) -> tuple[tuple[str, Any], ...]:
    found = json.members_of(component, field)
    return ("svn", found.pop("svn")), *found.items()


def _flat_svns(tcb: dict[str, Any], field: str) -> tuple[int, ...]:
    return tuple(unsigned(tcb, name, 0xFF, field) for name in _FLAT)


_NAMELESS: tuple[str | None, ...] = (None,) * COMPONENTS


def _names(components: list[Any], labels: Labels) -> tuple[str | None, ...]:
    ordered = (one if one[0][0] == "svn" else _svn_first(one, TCB_INFO) for one in components)
    return tuple(None if len(one) == 1 else _label(one, labels, TCB_INFO) for one in ordered)


def _label(component: tuple[tuple[str, Any], ...], labels: Labels, field: str) -> str | None:
    """What a component, its SVN first, is called; levels repeat it, and it is checked once."""
    try:
        return labels[component[1:]]
    except (KeyError, TypeError):  # new, or with an array inside
        found = json.members_of(component, field)
    for name in ("category", "type"):
        if type(found.get(name, "")) is not str:
            refuse(f"{field}.{name}", "no text")
    _bound(found, _COMPONENT, field)
    text = label(found.get("type") or found.get("category"))
    if len(found) <= len(_COMPONENT):
        labels[component[1:]] = text
    return text


def _status(level: dict[str, Any], accepted: Mapping[str, TcbStatus], field: str) -> TcbStatus:
    text = member(level, "tcbStatus", str, field)
    status = accepted.get(text)
    if status is None:
        refuse(f"{field}.tcbStatus", f"unknown status {text[:40]!r}")
    return status


def _advisories(level: dict[str, Any], field: str) -> tuple[str, ...]:
    if "advisoryIDs" not in level:
        return ()
    listed: list[Any] = member(level, "advisoryIDs", list, field)
    try:
        text = "".join(listed)
    except TypeError:
        text = "\n"
    if listed and not (text.isascii() and text.isprintable() and max(map(len, listed)) <= MAX_LABEL_CHARACTERS):
        refuse(f"{field}.advisoryIDs", "an advisory id that is no short text")
    return tuple(listed)


def _tdx_module(module: Any, field: str, identity: str | None = None) -> TdxModule:
    return TdxModule(
        id=identity,
        mrsigner=hexadecimal(module, "mrsigner", 48, field),
        attributes=hexadecimal(module, "attributes", 8, field),
        attributes_mask=hexadecimal(module, "attributesMask", 8, field),
        levels=() if identity is None else _svn_levels(module, field, dates_differ=False),
    )


def _tdx_module_identities(delivered: list[Any]) -> tuple[TdxModule, ...]:
    field = "tcb_info.tdxModuleIdentities"
    found = []
    for one in delivered:
        identity = json.members_of(one, field)
        _bound(identity, _MODULE, field)
        name = label(member(identity, "id", str, field))
        if name is None:
            refuse(f"{field}.id", "no short text")
        found.append(_tdx_module(identity, field, name))
    # Which of two identities of one module should count is not for us to choose.
    if not found or len({str(one.id).upper() for one in found}) != len(found):
        refuse(field, "no identity, or one module twice")
    return tuple(found)


def _enclave_identity(identity: dict[str, Any]) -> EnclaveIdentity:
    version = unsigned(identity, "version", MAX_U32, QE_IDENTITY)
    if version != 2:
        raise CollateralUnsupported(f"enclave identity of version {version}", field="qe_identity.version")
    name: str = member(identity, "id", str, QE_IDENTITY)
    if name not in _ENCLAVES:
        refuse("qe_identity.id", f"unknown enclave {name[:16]!r}")
    _bound(identity, _IDENTITY, QE_IDENTITY)
    return EnclaveIdentity(
        id=name,
        version=version,
        issued_ms=date(identity, "issueDate", QE_IDENTITY),
        next_update_ms=date(identity, "nextUpdate", QE_IDENTITY),
        evaluation_number=unsigned(identity, "tcbEvaluationDataNumber", MAX_U32, QE_IDENTITY),
        miscselect=hexadecimal(identity, "miscselect", 4, QE_IDENTITY),
        miscselect_mask=hexadecimal(identity, "miscselectMask", 4, QE_IDENTITY),
        attributes=hexadecimal(identity, "attributes", 16, QE_IDENTITY),
        attributes_mask=hexadecimal(identity, "attributesMask", 16, QE_IDENTITY),
        mrsigner=hexadecimal(identity, "mrsigner", 32, QE_IDENTITY),
        isv_prod_id=unsigned(identity, "isvprodid", MAX_U16, QE_IDENTITY),
        levels=_svn_levels(identity, QE_IDENTITY, dates_differ=True),
    )


def _evaluation_numbers(document: dict[str, Any]) -> EvaluationNumbers:
    version = unsigned(document, "version", MAX_U32, EVALUATION_NUMBERS)
    if version != 1:
        raise CollateralUnsupported(f"evaluation numbers of version {version}", field=f"{EVALUATION_NUMBERS}.version")
    tee: str = member(document, "id", str, EVALUATION_NUMBERS)
    if tee not in _TEES:
        refuse(f"{EVALUATION_NUMBERS}.id", f"unknown TEE {tee[:16]!r}")
    _bound(document, _NUMBERS, EVALUATION_NUMBERS)
    field = f"{EVALUATION_NUMBERS}.tcbEvalNumbers"
    numbers = []
    for one in member(document, "tcbEvalNumbers", list, EVALUATION_NUMBERS):
        entry = json.members_of(one, field)
        _bound(entry, _NUMBER, field)
        numbers.append(
            EvaluationNumber(
                number=unsigned(entry, "tcbEvaluationDataNumber", MAX_U32, field),
                recovery_event_ms=date(entry, "tcbRecoveryEventDate", field),
                tcb_date_ms=date(entry, "tcbDate", field),
            )
        )
    if not numbers or len({one.number for one in numbers}) != len(numbers):
        refuse(field, "no number, or one twice")
    return EvaluationNumbers(
        tee=_TEES[tee],
        version=version,
        issued_ms=date(document, "issueDate", EVALUATION_NUMBERS),
        next_update_ms=date(document, "nextUpdate", EVALUATION_NUMBERS),
        numbers=tuple(sorted(numbers, key=lambda one: -one.number)),
    )


_BUILDERS: dict[str, Callable[[dict[str, Any]], Document]] = {
    TCB_INFO: _tcb_info,
    QE_IDENTITY: _enclave_identity,
    EVALUATION_NUMBERS: _evaluation_numbers,
}
