"""Whether a certificate of a device's chain is revoked: OCSP responses and revocation lists, both as inputs.

NVIDIA answers by OCSP for every certificate between leaf and root, and publishes lists for the upper two. The leaf is
made by the device itself for the firmware it runs; the boot ROM's certificate above it is what stands for the device.
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
from verifier.trust.ocsp import OcspResponse, verify_answer
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


def check_revocation(path: VerifiedPath, ocsp: Sequence[OcspResponse], crls: Sequence[Crl], now_ms: int) -> Revocation:
    """What the inputs say of the path, from below the root to the leaf. Raises a subclass of `VerificationError`."""
    unchecked, checked, sources, responders = [], [], [], []
    begin, end = -FOREVER_MS, FOREVER_MS
    for issuer, subject in pairwise(path.certificates):
        answer = verify_answer(ocsp, subject, issuer, now_ms) if ocsp else None
        listed = _newest_list(crls, issuer, now_ms) if crls else None
        if listed is not None:
            check_list(listed, subject)
            begin, end = max(begin, listed.issued_ms), min(end, listed.next_update_ms - 1)
        if answer is not None:
            begin, end = max(begin, answer.valid_from_ms), min(end, answer.expires_ms)
        if answer is not None or listed is not None:
            checked.append(subject.common_name)
            sources.append("crl" if answer is None else "ocsp")
            responders.append(issuer.common_name if answer is None else answer.responder)
        elif subject != path.leaf:
            unchecked.append(subject.common_name)
    return Revocation(
        unchecked=tuple(unchecked),
        checked=tuple(checked),
        sources=tuple(sources),
        responders=tuple(responders),
        valid_from_ms=begin,
        expires_ms=end,
    )


def _newest_list(crls: Sequence[Crl], issuer: Certificate, now_ms: int) -> Crl | None:
    """The newest of the issuer's lists, which must be genuine and current."""
    about = [one for one in crls if one.issuer == issuer.subject]
    if not about:
        return None
    newest = max(about, key=lambda one: one.issued_ms)
    check_list_signature(newest, issuer)
    try:
        check_list_window(newest, now_ms)
    except VerificationError as error:
        raise error.holding(now_ms, now_ms) from None
    return newest


def check_list_signature(crl: Crl, issuer: Certificate) -> None:
    """The issuer signed its list, and may. `CollateralSignature`."""
    if issuer.sign_crls is False or not crl.signed_by(issuer.public_key):
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
