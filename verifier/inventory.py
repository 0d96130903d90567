"""What a set of collateral holds: each item's state at one time, when it ends, and what a platform still lacks.

The same checks as for a quote (`verifier.trust.selection`), applied to every item by itself. Nothing is picked: an
item that a newer one outranks is still valid, an item that is not wanted by anyone is still judged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from verifier.abi.collateral import EVALUATION_NUMBERS, QE_IDENTITY, TCB_INFO
from verifier.abi.fields import moment
from verifier.errors import (
    CertExpired,
    CertNotYetValid,
    CollateralExpired,
    CollateralNotYetValid,
    NoTrustRoots,
    OcspExpired,
    OcspNotYetValid,
    VerificationError,
)
from verifier.trust.appraisal import (
    CERTIFICATE,
    PCK_CA,
    PCK_CERTIFICATE,
    ROOT_CA,
    TCB_SIGNER,
    Finding,
    Judge,
    best,
    unknown_issuer,
)
from verifier.trust.certificate import Certificate
from verifier.trust.contents import OCSP, PCK_CRL, RIM, ROOT_CRL, HeldCrl, HeldDocument
from verifier.trust.pck_chain import platform_of
from verifier.trust.roots import TrustAnchor
from verifier.trust.selection import ENCLAVES, shown
from verifier.trust.store import Collateral
from verifier.vendor_inventory import Judged, VendorJudge

VALID, EXPIRED, NOT_YET_VALID, REFUSED, UNREADABLE = "valid", "expired", "not_yet_valid", "refused", "unreadable"
"""States of an item. Expired and not yet valid are only said of genuine ones."""

VENDOR_CRL = "vendor_crl"
"""Kind of a revocation list that is not Intel's."""

_PAST = (CollateralExpired, CertExpired, OcspExpired)
_FUTURE = (CollateralNotYetValid, CertNotYetValid, OcspNotYetValid)
_DAY_MS = 86_400_000
_ORDER = (
    TCB_INFO,
    QE_IDENTITY,
    EVALUATION_NUMBERS,
    ROOT_CRL,
    PCK_CRL,
    TCB_SIGNER,
    PCK_CA,
    PCK_CERTIFICATE,
    ROOT_CA,
    VENDOR_CRL,
    RIM,
    OCSP,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item and its state at the time of judgement.

    `subject` says what it is about, `signer` and `root` who vouches for it (None: nobody who is trusted). `code`,
    `message` and `remedy` say why it is not valid. `issued_ms` and `next_update_ms` are UTC milliseconds as the item
    says them. `digest` is SHA-256 of the signed text or the DER; `source` is where it was read from; `key` is what a
    document is about, or the FMSPC and PCE id of a PCK certificate.
    """

    kind: str
    subject: str
    state: str
    code: str | None = None
    message: str | None = None
    remedy: str | None = None
    issued_ms: int | None = None
    next_update_ms: int | None = None
    evaluation_number: int | None = None
    signer: str | None = None
    root: str | None = None
    digest: bytes = b""
    source: str = ""
    key: tuple[str | bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Platform:
    """What a platform of this TEE, FMSPC and PCE id finds here: what it still lacks, and until when the rest lasts.

    `missing` names kinds of items. `pck_cas` are the PCK CAs whose lists are held: a platform needs that of the CA
    that issued its certificate. `expires_ms` is the earliest end among the items it would get now, None without any.
    """

    tee: str
    fmspc: bytes
    pce_id: bytes
    missing: tuple[str, ...]
    pck_cas: tuple[str, ...]
    evaluation_number: int | None
    qe_evaluation_number: int | None
    expires_ms: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """Everything a set holds at `now_ms`, sorted; `digest` is the set's."""

    now_ms: int
    digest: bytes
    items: tuple[Item, ...]
    platforms: tuple[Platform, ...]

    @property
    def ok(self) -> bool:
        """Whether there is something, and all of it is genuine and current."""
        return bool(self.items) and all(one.state == VALID for one in self.items)


def take_inventory(
    held: Collateral, anchors: Sequence[TrustAnchor], now_ms: int, vendors: VendorJudge | None = None
) -> Inventory:
    """Judge every item of `held` under the pinned roots `anchors` at `now_ms` (UTC milliseconds). `NoTrustRoots`.

    `vendors` judges what is not Intel's; without one, such items are said to stand under no root.
    """
    if not anchors:
        raise NoTrustRoots("no root of trust is named", field="trust_roots")
    judges = [Judge(held, anchor, now_ms) for anchor in anchors]
    vendors = vendors or VendorJudge(held, (), (), now_ms)
    items = [
        *(_document(one, judges) for one in held.held_documents),
        *(_crl(one, judges, vendors) for one in held.crls),
        *(_certificate(one, held.certificate_sources[one.der], judges, vendors) for one in held.certificates),
        *(_other(RIM, data, source, vendors.rim(data)) for data, source in held.rim_sources.items()),
        *(_other(OCSP, data, source, vendors.ocsp(data)) for data, source in held.ocsp_sources.items()),
        *_unreadable(held),
    ]
    items.sort(key=lambda one: (_ORDER.index(one.kind) if one.kind in _ORDER else len(_ORDER), one.subject, one.source))
    return Inventory(now_ms=now_ms, digest=held.digest, items=tuple(items), platforms=tuple(_platforms(items)))


def _judged(finding: Finding) -> dict[str, Any]:
    """A finding as an item's fields."""
    error, state = finding.error, VALID
    if error is not None:
        state = EXPIRED if isinstance(error, _PAST) else NOT_YET_VALID if isinstance(error, _FUTURE) else REFUSED
    return {
        "state": state,
        "code": None if error is None else error.code,
        "message": None if error is None else str(error),
        "remedy": None if error is None else error.remedy,
        "signer": finding.signer,
        "root": finding.root,
    }


def _document(one: HeldDocument, judges: Sequence[Judge]) -> Item:
    return Item(
        kind=one.kind,
        subject=shown(one.key),
        issued_ms=one.issued_ms,
        next_update_ms=one.last_ms,
        evaluation_number=one.number,
        digest=one.digest,
        source=one.source,
        key=one.key,
        **_judged(best([judge.document(one) for judge in judges])),
    )


def _crl(one: HeldCrl, judges: Sequence[Judge], vendors: VendorJudge) -> Item:
    known = [found for judge in judges if (found := judge.crl(one)) is not None]
    vendors_own = None if known else vendors.crl(one)
    if vendors_own is not None:
        kind, finding = VENDOR_CRL, vendors_own
    elif known:
        finding = best(known)
        kind = ROOT_CRL if any(one in judge.root_crls for judge in judges) else PCK_CRL
    else:
        kind, finding = unknown_issuer(one, judges)
    return Item(
        kind=kind,
        subject=finding.signer or judges[0].name_of(one) or "of an unknown issuer",
        issued_ms=one.issued_ms,
        next_update_ms=one.crl.next_update_ms,
        digest=one.digest,
        source=one.source,
        **_judged(finding),
    )


def _other(kind: str, data: bytes, source: str, judged: Judged) -> Item:
    return Item(
        kind=kind,
        subject=judged.subject,
        issued_ms=judged.issued_ms,
        next_update_ms=judged.next_update_ms,
        digest=hashlib.sha256(data).digest(),
        source=source,
        **_judged(judged.finding),
    )


def _certificate(one: Certificate, source: str, judges: Sequence[Judge], vendors: VendorJudge) -> Item:
    kind, finding = max((judge.certificate(one) for judge in judges), key=lambda pair: pair[1].rank)
    if finding.root is None and (vendors_own := vendors.certificate(one)) is not None:
        kind, finding = CERTIFICATE, vendors_own
    key: tuple[str | bytes, ...] = ()
    subject = one.common_name or "without a common name"
    if kind == PCK_CERTIFICATE and finding.root is not None:
        platform = platform_of(one)
        key = (platform.fmspc, platform.pce_id)
        subject = f"{shown(key)}, serial {one.serial_number:x}"
    return Item(
        kind=kind,
        subject=subject,
        key=key,
        issued_ms=one.not_before_ms,
        next_update_ms=one.not_after_ms,
        digest=hashlib.sha256(one.der).digest(),
        source=source,
        **_judged(finding),
    )


def _unreadable(held: Collateral) -> Iterator[Item]:
    for part in held.unreadable:
        yield _broken(part.kind, part.source, part.error)
    for der, error in held.unreadable_certificates:
        yield _broken(CERTIFICATE, held.certificate_sources[der], error)


def _broken(kind: str, source: str, error: VerificationError) -> Item:
    return Item(
        kind=kind,
        subject="",
        state=UNREADABLE,
        code=error.code,
        message=str(error),
        remedy=error.remedy,
        source=source,
    )


def _platforms(items: Sequence[Item]) -> Iterator[Platform]:
    """One for every platform that some TCB info is about, in whatever state it is."""
    valid = [one for one in items if one.state == VALID]
    lists = {one.subject: one for one in sorted(valid, key=_rank) if one.kind == PCK_CRL}
    pck_cas, issuers = tuple(sorted(lists)), dict[tuple[str | bytes, ...], set[str | None]]()
    newest: dict[tuple[str, tuple[str | bytes, ...]], Item] = {}
    for one in valid:
        if one.kind == PCK_CERTIFICATE:
            issuers.setdefault(one.key, set()).add(one.signer)
        best_yet = newest.get((one.kind, one.key))
        if best_yet is None or _rank(one) > _rank(best_yet):
            newest[one.kind, one.key] = one
    for key in sorted({one.key for one in items if one.kind == TCB_INFO and one.key}, key=repr):
        tee, fmspc, pce_id = key
        # Which CA issued the platform's certificate is known only where the certificate is at hand.
        wanted: list[Item | None] = [lists.get(str(ca)) for ca in sorted(issuers.get((fmspc, pce_id), ()), key=str)]
        wanted = wanted or [*lists.values()] or [None]
        tcb_info = newest.get((TCB_INFO, key))
        identity = newest.get((QE_IDENTITY, (ENCLAVES[str(tee)],)))
        found = [(TCB_INFO, tcb_info), (QE_IDENTITY, identity), (ROOT_CRL, newest.get((ROOT_CRL, ())))]
        found += [(PCK_CRL, one) for one in wanted]
        ends = [one.next_update_ms for _, one in found if one is not None and one.next_update_ms is not None]
        yield Platform(
            tee=str(tee),
            fmspc=bytes(fmspc) if isinstance(fmspc, bytes) else b"",
            pce_id=bytes(pce_id) if isinstance(pce_id, bytes) else b"",
            missing=tuple(dict.fromkeys(kind for kind, one in found if one is None)),
            pck_cas=pck_cas,
            evaluation_number=None if tcb_info is None else tcb_info.evaluation_number,
            qe_evaluation_number=None if identity is None else identity.evaluation_number,
            expires_ms=min(ends, default=None),
        )


def _rank(one: Item) -> tuple[int, int]:
    """The item a platform would get has the highest evaluation number of its kind and key, then is the newest."""
    return one.evaluation_number or 0, one.issued_ms or 0


def to_json(inventory: Inventory) -> dict[str, Any]:
    """The inventory as JSON: times in RFC 3339, bytes in hexadecimal, one object an item and a platform."""
    now_ms = inventory.now_ms
    states = [one.state for one in inventory.items]
    ends = [one.next_update_ms for one in inventory.items if one.state == VALID and one.next_update_ms is not None]
    return {
        "ok": inventory.ok,
        "at": moment(now_ms),
        "digest": inventory.digest.hex(),
        "earliest_expiry": _moment(min(ends, default=None)),
        "states": {state: states.count(state) for state in (VALID, EXPIRED, NOT_YET_VALID, REFUSED, UNREADABLE)},
        "platforms": [
            {
                "tee": one.tee,
                "fmspc": one.fmspc.hex(),
                "pce_id": one.pce_id.hex(),
                "complete": not one.missing,
                "missing": list(one.missing),
                "pck_cas": list(one.pck_cas),
                "tcb_evaluation_number": one.evaluation_number,
                "qe_evaluation_number": one.qe_evaluation_number,
                "expires": _moment(one.expires_ms),
                "days_left": _days(one.expires_ms, now_ms),
            }
            for one in inventory.platforms
        ],
        "items": [
            {
                "kind": one.kind,
                "subject": one.subject,
                "state": one.state,
                "code": one.code,
                "message": one.message,
                "remedy": one.remedy,
                "issued": _moment(one.issued_ms),
                "next_update": _moment(one.next_update_ms),
                "days_left": _days(one.next_update_ms, now_ms),
                "evaluation_number": one.evaluation_number,
                "signer": one.signer,
                "root": one.root,
                "digest": one.digest.hex() or None,
                "source": one.source,
            }
            for one in inventory.items
        ],
    }


def _moment(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else moment(moment_ms)


def _days(moment_ms: int | None, now_ms: int) -> int | None:
    """Whole days from now on, negative once it is over."""
    return None if moment_ms is None else (moment_ms - now_ms) // _DAY_MS
