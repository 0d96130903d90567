"""Judging what AMD, NVIDIA and SPDM vendors issue, item by item: certificates, AMD's lists, RIMs, OCSP responses.

A certificate is judged by its issuers, found among the set by name and signature up to a pinned root; what it may be
used for, the formats decide (`verifier.formats`). Intel's items have their own judge (`verifier.trust.appraisal`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from verifier.abi.fields import moment
from verifier.abi.xmldsig import parse_signed_xml
from verifier.errors import (
    CertExpired,
    CertNotYetValid,
    CertRevoked,
    OcspExpired,
    OcspNotYetValid,
    OcspResponder,
    VerificationError,
)
from verifier.formats.rim import certificates_of, verify_rim
from verifier.limits import MAX_PATH_ISSUERS, MAX_PATH_STEPS
from verifier.signature import load_public_key, verify_signed
from verifier.trust import collateral_checks as checks
from verifier.trust.appraisal import CERTIFICATE, Finding
from verifier.trust.certificate import Certificate
from verifier.trust.contents import HeldCrl
from verifier.trust.ocsp import parse_ocsp, verify_answer
from verifier.trust.roots import Root
from verifier.trust.store import Collateral


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A finding with what the item is about and its window (UTC milliseconds, inclusive; None: none of its own)."""

    subject: str
    finding: Finding
    issued_ms: int | None = None
    next_update_ms: int | None = None


class VendorJudge:
    """What counts under the vendors' pinned `roots` at `now_ms` (UTC milliseconds)."""

    def __init__(self, held: Collateral, roots: Sequence[Root], rim_roots: Sequence[Root], now_ms: int) -> None:
        self.roots, self.rim_roots, self.now_ms = tuple(roots), tuple(rim_roots), now_ms
        self._named: dict[bytes, list[Certificate]] = {}
        for one in held.certificates:
            self._named.setdefault(one.subject, []).append(one)
        self.crls = held.crls
        self._roots_of: dict[Certificate, Root | None] = {}

    def certificate(self, one: Certificate) -> Finding | None:
        """A certificate under one of the roots; None if it stands under none of them."""
        root = self._root_of(one, MAX_PATH_STEPS)
        if root is None:
            return None
        issuer = next((other.common_name for other in self._named.get(one.issuer, ())), root.label)
        error: VerificationError | None = None
        if self.now_ms < one.not_before_ms:
            error = CertNotYetValid(f"the certificate begins at {moment(one.not_before_ms)}", field=CERTIFICATE)
        elif self.now_ms > one.not_after_ms:
            error = CertExpired(f"the certificate ended at {moment(one.not_after_ms)}", field=CERTIFICATE)
        elif any(self._revokes(held, one) for held in self.crls if held.crl.issuer == one.issuer):
            error = CertRevoked("its issuer revoked the certificate", field=CERTIFICATE)
        return Finding(error, issuer, root.label)

    def crl(self, one: HeldCrl) -> Finding | None:
        """A revocation list of an issuer under one of the roots; None if no such issuer is held."""
        for issuer in self._named.get(one.crl.issuer, ())[:MAX_PATH_ISSUERS]:
            root = self._root_of(issuer, MAX_PATH_STEPS)
            if root is not None and one.crl.signed_by(issuer.public_key):
                try:
                    checks.check_crl_signer(issuer)
                    checks.check_crl_window(one.crl, self.now_ms)
                except VerificationError as error:
                    return Finding(error, issuer.common_name, root.label)
                return Finding(None, issuer.common_name, root.label)
        return None

    def rim(self, data: bytes) -> Judged:
        """A reference integrity manifest."""
        try:
            rim = verify_rim(data=data, trust_roots=self.rim_roots, now_ms=self.now_ms)
        except VerificationError as error:
            root = self._rim_root(data) if "signatures" in error.verified else None
            return Judged(subject="", finding=Finding(error, None, None if root is None else root.label))
        return Judged(
            subject=f"{rim.product} {rim.kind} {rim.version}",
            finding=Finding(None, rim.signers[0], rim.root_label),
            issued_ms=rim.valid_from_ms,
            next_update_ms=rim.expires_ms,
        )

    def _rim_root(self, data: bytes) -> Root | None:
        """The root of a manifest whose path and signature hold."""
        first = certificates_of(parse_signed_xml(data))[0]
        return next((root for root in self.rim_roots if root.spki == first.spki), None)

    def ocsp(self, data: bytes) -> Judged:
        """An OCSP response: that it is genuine and current, and says "good"; its issuer's certificate must be held."""
        try:
            response = parse_ocsp(data)
        except VerificationError as error:
            return Judged(subject="", finding=Finding(error, None, None))
        serials = [f"{entry.serial_number:x}" for entry in response.entries]
        begin = max((entry.this_update_ms for entry in response.entries), default=response.produced_ms)
        ends = [entry.next_update_ms for entry in response.entries if entry.next_update_ms is not None]
        finding = Finding(
            OcspResponder("the certificate it speaks of, and its issuer's, are not held", field="ocsp"), None, None
        )
        for one in (held for named in self._named.values() for held in named):
            if f"{one.serial_number:x}" in serials and (root := self._root_of(one, MAX_PATH_STEPS)) is not None:
                for issuer in self._named.get(one.issuer, ())[:MAX_PATH_ISSUERS]:
                    finding = self._answer(data, one, issuer, root) or finding
        return Judged(
            subject=f"serial {', '.join(serials[:2])}",
            finding=finding,
            issued_ms=begin,
            next_update_ms=min(ends, default=None),
        )

    def _answer(self, data: bytes, one: Certificate, issuer: Certificate, root: Root) -> Finding | None:
        try:
            answer = verify_answer([parse_ocsp(data)], one, issuer, self.now_ms)
        except VerificationError as error:
            genuine = isinstance(error, CertRevoked | OcspExpired | OcspNotYetValid)
            return Finding(error, issuer.common_name if genuine else None, root.label if genuine else None)
        return None if answer is None else Finding(None, answer.responder, root.label)

    def _revokes(self, held: HeldCrl, one: Certificate) -> bool:
        return held.issued_ms <= self.now_ms and held.crl.revokes(one.serial_number) and self.crl(held) is not None

    def _root_of(self, one: Certificate, steps: int) -> Root | None:
        """The pinned root above `one`, by names and signatures; None if there is none within `steps`."""
        if one not in self._roots_of:
            self._roots_of[one] = self._climb(one, steps)
        return self._roots_of[one]

    def _climb(self, one: Certificate, steps: int) -> Root | None:
        for root in self.roots:
            if root.spki == one.spki:
                return root if one.signed_by(one) else None
        if steps == 0:
            return None
        for issuer in self._named.get(one.issuer, ())[:MAX_PATH_ISSUERS]:
            if issuer != one and issuer.is_ca and one.signed_by(issuer):
                above = self._root_of(issuer, steps - 1)
                if above is not None:
                    return above
        for root in self.roots:  # a root's own certificate need not be held: its key is pinned
            if verify_signed(load_public_key(root.spki), one.algorithm, one.tbs, one.signature):
                return root
        return None
