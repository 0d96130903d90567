"""Judging items of collateral one by one under a pinned root, for an inventory: who vouches for each, what is wrong.

`verifier.trust.selection` asks for a platform and ends at the first thing that is missing; here nothing is asked for.
A signer's revocation is checked against the newest list of the root that has begun, where one is held.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec

from verifier.abi.fields import moment
from verifier.abi.pem_blocks import CRL
from verifier.errors import (
    CertChainInvalid,
    CertConstraint,
    CertExpired,
    CertNotYetValid,
    CertRevoked,
    CertRoleInvalid,
    CertSignature,
    CollateralExpired,
    CollateralNotYetValid,
    CollateralSignature,
    CrlIssuer,
    RootUntrusted,
    VerificationError,
)
from verifier.trust import collateral_checks as checks
from verifier.trust.certificate import Certificate
from verifier.trust.contents import PCK_CRL, ROOT_CRL, HeldCrl, HeldDocument
from verifier.trust.pck_chain import platform_of
from verifier.trust.roots import TrustAnchor
from verifier.trust.selection import Issuer, Signing, check_signer, key_of, verify_crl
from verifier.trust.store import Collateral

ROOT_CA, PCK_CA, TCB_SIGNER, PCK_CERTIFICATE, CERTIFICATE = (
    "root_ca",
    "pck_ca",
    "tcb_signer",
    "pck_certificate",
    "certificate",
)
"""Kinds of certificates, by their role."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a judge says of an item: no error, or why it is not valid; `signer` and `root` if somebody vouches for it.

    `rank` says how sure the judge is that the item is one of its own: the highest of several findings counts.
    """

    error: VerificationError | None
    signer: str | None
    root: str | None

    @property
    def rank(self) -> int:
        """2 valid, 1 vouched for, 0 neither."""
        return 2 if self.error is None else 1 if self.root is not None else 0


def best(findings: Iterable[Finding]) -> Finding:
    """The finding of the judge whose item it is."""
    return max(findings, key=lambda one: one.rank)


class Judge:
    """What counts under one pinned root at `now_ms`."""

    def __init__(self, held: Collateral, anchor: TrustAnchor, now_ms: int) -> None:
        self.held, self.anchor, self.roles, self.now_ms = held, anchor, anchor.roles, now_ms
        self._named: dict[bytes, list[Certificate]] = {}
        for one in held.certificates:
            self._named.setdefault(one.subject, []).append(one)
        self.root_key = key_of(anchor.spki)
        roots = [one.subject for one in held.certificates if self._failure(self._root, one) is None]
        self.root = Issuer(self.root_key, anchor.spki, anchor.roles, roots[0] if roots else None)
        self.root_crls = frozenset(one for one in held.crls if self._issued(one, self.root))
        self.root_newest = self._newest(self.root_crls)
        self.signing = Signing(held, self.root, None if self.root_newest is None else self.root_newest.crl, now_ms)
        cas = [one for one in held.certificates if self._failure(self._ca, one) is None]
        self.cas = {ca.subject: [one for one in cas if one.subject == ca.subject] for ca in cas}
        pck_crls = {subject: self._lists_of(subject) for subject in self.cas}
        self.pck_crls = {subject: frozenset(lists) for subject, lists in pck_crls.items()}
        self.pck_newest = {subject: self._newest(lists) for subject, lists in pck_crls.items()}

    def document(self, one: HeldDocument) -> Finding:
        """A signed document."""
        signers = self.signing.signers_of(one)
        name, root = (signers[0].common_name, self.anchor.label) if signers else (None, None)
        return Finding(self._failure(self.signing.verify, one), name, root)

    def crl(self, one: HeldCrl) -> Finding | None:
        """A revocation list; None if no authority under this root issued it."""
        if one in self.root_crls:
            return Finding(self._failure(self._list_window, one), self.roles.root, self.anchor.label)
        if one in self.pck_crls.get(one.crl.issuer, ()):
            errors = [self._failure(self._may_revoke, ca) for ca in self.cas[one.crl.issuer]]
            error = None if None in errors else errors[0]
            return Finding(error or self._failure(self._list_window, one), self.name_of(one), self.anchor.label)
        return None

    def name_of(self, one: HeldCrl) -> str | None:
        """What the issuer of a list is called, by a certificate of that name; None if there is none."""
        return next((issuer.common_name for issuer in self._named.get(one.crl.issuer, ())), None)

    def certificate(self, one: Certificate) -> tuple[str, Finding]:
        """(kind, finding) of a certificate."""
        checks_of = {
            self.roles.root: (ROOT_CA, self._root),
            self.roles.tcb_signer: (TCB_SIGNER, self._signer),
            self.roles.leaf: (PCK_CERTIFICATE, self._pck),
            **dict.fromkeys(self.roles.issuers, (PCK_CA, self._ca)),
        }
        kind, check = checks_of.get(one.common_name, (CERTIFICATE, self._no_role))
        error = self._failure(check, one)
        if error is not None:
            return kind, Finding(error, None, None)
        issuer = next((other.common_name for other in self._named.get(one.issuer, ())), self.roles.root)
        return kind, Finding(self._failure(self._current, one), issuer, self.anchor.label)

    def _failure(self, check: Callable[..., None], *arguments: object) -> VerificationError | None:
        try:
            check(*arguments)
        except VerificationError as error:
            return error
        return None

    def _issued(self, one: HeldCrl, issuer: Issuer) -> bool:
        """Whether `issuer` issued the list, whatever its window."""
        if issuer.name not in (None, one.crl.issuer):
            return False
        failure = self._failure(verify_crl, self.held, one, issuer, self.now_ms)
        return failure is None or isinstance(failure, CollateralExpired | CollateralNotYetValid)

    def _lists_of(self, subject: bytes) -> list[HeldCrl]:
        issuers = [Issuer(ca.public_key, ca.spki, self.roles, subject) for ca in self.cas[subject]]
        return [one for one in self.held.crls if any(self._issued(one, issuer) for issuer in issuers)]

    def _newest(self, lists: Iterable[HeldCrl]) -> HeldCrl | None:
        """The newest list that has begun: what it revokes stays revoked, even where it is out of date itself."""
        begun = [one for one in lists if one.issued_ms <= self.now_ms]
        return max(begun, key=lambda one: one.rank, default=None)

    def _list_window(self, one: HeldCrl) -> None:
        checks.check_crl_window(one.crl, self.now_ms)

    def _current(self, one: Certificate) -> None:
        """Inside its validity, and in no list of its issuer."""
        if self.now_ms < one.not_before_ms:
            raise CertNotYetValid(f"the certificate begins at {moment(one.not_before_ms)}", field=CERTIFICATE)
        if self.now_ms > one.not_after_ms:
            raise CertExpired(f"the certificate ended at {moment(one.not_after_ms)}", field=CERTIFICATE)
        newest = self.pck_newest.get(one.issuer, self.root_newest)
        if newest is not None and newest.crl.revokes(one.serial_number):
            raise CertRevoked("its issuer revoked the certificate", field=CERTIFICATE)

    def _may_revoke(self, ca: Certificate) -> None:
        checks.check_crl_signer(ca)
        self._current(ca)

    def _root(self, one: Certificate) -> None:
        if one.spki != self.anchor.spki:
            raise RootUntrusted("a root that nobody pinned", field=ROOT_CA)
        if one.common_name != self.roles.root or one.subject != one.issuer:
            raise CertRoleInvalid("the pinned key, but not under the root's name", field=ROOT_CA)
        _check_ca(one, ROOT_CA)
        self._signed_by(one, self.root_key, ROOT_CA)

    def _ca(self, one: Certificate) -> None:
        if one.common_name not in self.roles.issuers:
            raise CertRoleInvalid("no PCK CA by its name", field=PCK_CA)
        checks.check_signer_issuer(one, self.root.name)
        _check_ca(one, PCK_CA)
        self._signed_by(one, self.root_key, PCK_CA)

    def _signer(self, one: Certificate) -> None:
        check_signer(one, self.root)

    def _pck(self, one: Certificate) -> None:
        if one.is_ca is not False or one.sign_certificates is not False or one.unknown_critical:
            raise CertConstraint("constraints do not fit a PCK certificate", field=PCK_CERTIFICATE)
        platform_of(one)
        issuers = self.cas.get(one.issuer, [])
        if not issuers:
            raise CertChainInvalid("no genuine PCK CA of its issuer's name is held", field=PCK_CERTIFICATE)
        if not any(one.signed_by(ca) for ca in issuers):
            raise CertSignature("its issuer did not sign the certificate", field=PCK_CERTIFICATE)

    def _no_role(self, one: Certificate) -> None:
        if one.subject == one.issuer:
            raise RootUntrusted("a root that nobody pinned", field=CERTIFICATE)
        raise CertRoleInvalid(f"{one.common_name[:64]!r} has no role here", field=CERTIFICATE)

    def _signed_by(self, one: Certificate, key: ec.EllipticCurvePublicKey, kind: str) -> None:
        self.held.remember((kind, one.der, self.anchor.spki), checks.check_signer_signature, one, key)


def _check_ca(one: Certificate, kind: str) -> None:
    checks.check_signer_key(one)
    if one.is_ca is not True or one.sign_certificates is not True or one.unknown_critical:
        raise CertConstraint("constraints do not fit a CA", field=kind)


def unknown_issuer(one: HeldCrl, judges: Iterable[Judge]) -> tuple[str, Finding]:
    """(kind, finding) of a list that no judge knows the issuer of."""
    judges = tuple(judges)
    if any(one.crl.issuer == judge.root.name for judge in judges):
        kind = ROOT_CRL
    elif any(one.crl.issuer in judge.cas for judge in judges):
        kind = PCK_CRL
    else:
        error: VerificationError = CrlIssuer("no genuine certificate of its issuer is held", field="issuer")
        return CRL, Finding(error, None, None)
    return kind, Finding(CollateralSignature("its issuer did not sign the list", field="signature"), None, None)
