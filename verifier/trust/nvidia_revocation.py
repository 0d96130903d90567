"""Whether a certificate of a device's chain is revoked: OCSP responses and revocation lists, both as inputs.

NVIDIA answers by OCSP for every certificate between leaf and root, and publishes lists for the upper two. The leaf is
made by the device itself for the firmware it runs; the boot ROM's certificate above it is what stands for the device.

Responses and lists come from a pool that may hold anybody's: what the issuer does not stand for is foreign, and counts
for nothing wherever something genuine speaks of the certificate. Where nothing does, the first foreign one refuses: it
says why the certificate is not spoken of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from verifier.errors import (
    CertRevoked,
    CollateralExpired,
    CollateralNotYetValid,
    CollateralSignature,
    VerificationError,
)
from verifier.trust.certificate import Certificate
from verifier.trust.crl import Crl
from verifier.trust.list_signature import signed_list
from verifier.trust.ocsp import OcspResponse, find_answer
from verifier.trust.path import VerifiedPath
from verifier.trust.selection import FOREVER_MS

CHECKED, UNCHECKED = "checked", "unchecked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What was found of a chain's certificates, by their common names: `checked` are those found good.

    `unchecked` are those between leaf and root that nothing speaks of. `sources` says, for each in `checked`, whether
    "ocsp" or "crl" answered; `responders` who did. Times are UTC milliseconds, inclusive: when all that was looked at
    is current.
    """

    unchecked: tuple[str, ...]
    checked: tuple[str, ...]
    sources: tuple[str, ...]
    responders: tuple[str, ...]
    valid_from_ms: int
    expires_ms: int

    @property
    def state(self) -> str:
        """ "checked" if every certificate between leaf and root was, else "unchecked"."""
        return UNCHECKED if self.unchecked else CHECKED


def check_revocation(
    path: VerifiedPath, ocsp: Sequence[OcspResponse], crls: Sequence[Crl], now_ms: int, *, leaf_too: bool = False
) -> Revocation:
    """What the inputs say of the path, from below the root to the leaf; `leaf_too`: the leaf must be spoken of as well.

    Raises a subclass of `VerificationError`; for a foreign item, what is wrong with it.
    """
    found, foreign = find_revocation(path, ocsp, crls, now_ms, leaf_too=leaf_too)
    if foreign is not None:
        raise foreign
    return found


def find_revocation(
    path: VerifiedPath, ocsp: Sequence[OcspResponse], crls: Sequence[Crl], now_ms: int, *, leaf_too: bool = False
) -> tuple[Revocation, VerificationError | None]:
    """As `check_revocation`; what is wrong with a foreign item is not raised, but the second."""
    unchecked, checked, sources, responders = [], [], [], []
    foreign: list[VerificationError] = []
    begin, end = -FOREVER_MS, FOREVER_MS
    for issuer, subject in pairwise(path.certificates):
        answer, unanswered = find_answer(ocsp, subject, issuer, now_ms)
        listed, unlisted = _listed(crls, subject, issuer, now_ms)
        if listed is not None:
            begin, end = max(begin, listed[0]), min(end, listed[1])
        if answer is not None:
            begin, end = max(begin, answer.valid_from_ms), min(end, answer.expires_ms)
        if answer is not None or listed is not None:
            checked.append(subject.common_name)
            sources.append("crl" if answer is None else "ocsp")
            responders.append(issuer.common_name if answer is None else answer.responder)
        elif leaf_too or subject != path.leaf:
            unchecked.append(subject.common_name)
            foreign += [one for one in (unanswered, unlisted) if one is not None]
    found = Revocation(
        unchecked=tuple(unchecked),
        checked=tuple(checked),
        sources=tuple(sources),
        responders=tuple(responders),
        valid_from_ms=begin,
        expires_ms=end,
    )
    return found, foreign[0].holding(now_ms, now_ms) if foreign else None


def _listed(
    crls: Sequence[Crl], subject: Certificate, issuer: Certificate, now_ms: int
) -> tuple[tuple[int, int] | None, VerificationError | None]:
    """From when until when the issuer's lists say that `subject` is good; None where it has no list of its own.

    Then the second is why those under its name are not. One must be current. What an older one revokes stays revoked,
    and what one of the future revokes, it revokes from then on.
    """
    genuine, foreign = _genuine(crls, issuer)
    if not genuine:
        return None, foreign
    begun = [one for one in genuine if one.issued_ms <= now_ms]
    current = max(begun or genuine, key=lambda one: (one.next_update_ms, one.issued_ms))
    try:
        for one in begun:
            check_list(one, subject)
        check_list_window(current, now_ms)
    except VerificationError as error:
        raise error.holding(now_ms, now_ms) from None
    later = (one.issued_ms for one in genuine if one.issued_ms > now_ms)
    return (current.issued_ms, min((current.next_update_ms, *later)) - 1), None


def _genuine(crls: Sequence[Crl], issuer: Certificate) -> tuple[list[Crl], CollateralSignature | None]:
    """The issuer's own lists, and what is wrong with others under its name."""
    found, foreign = [], None
    for crl in crls:
        if crl.issuer == issuer.subject:
            try:
                check_list_signature(crl, issuer)
                found.append(crl)
            except CollateralSignature as error:
                foreign = error
    return found, foreign


def check_list_signature(crl: Crl, issuer: Certificate) -> None:
    """The issuer signed its list, and may. `CollateralSignature`."""
    if issuer.sign_crls is False or not signed_list(crl, issuer):
        raise CollateralSignature(f"{issuer.common_name!r} did not sign this revocation list", field="crl")


def check_list_window(crl: Crl, now_ms: int) -> None:
    """thisUpdate <= now < nextUpdate. `CollateralNotYetValid`, `CollateralExpired`."""
    if now_ms < crl.issued_ms:
        raise CollateralNotYetValid("a revocation list from the future", field="crl")
    if now_ms >= crl.next_update_ms:
        raise CollateralExpired("the revocation list is out of date", field="crl")


def check_list(crl: Crl, subject: Certificate) -> None:
    """The list does not name the certificate. `CertRevoked`."""
    if crl.revokes(subject.serial_number):
        serial = f"{subject.serial_number:x}"
        raise CertRevoked(f"{subject.common_name}, serial {serial}, is revoked", field="crl")
