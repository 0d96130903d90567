"""Picking collateral for one platform at one time, and verifying what was picked (ATTESTATION.md §4, steps 1 to 3).

    pinned root key ─ signs ─ root CRL                   now inside every window,
                    ├ signs ─ TCB signer ─ signs ─ TCB info, QE identity
    PCK CA (verified chain) ─ signs ─ PCK CRL            signer not in the root CRL

The root is the key that the caller pinned, under the name its verified PCK chain gives it; a root certificate among
the collateral is a claim and is not needed. Of several items that verify at `now`, the one with the highest evaluation
number counts, then the newest: an older one that is still valid replaces nothing.

Signatures depend on bytes only and are remembered with the set; windows and revocation are checked on every call.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, cast

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from verifier.abi.collateral import QE_IDENTITY, TCB_INFO, EnclaveIdentity, SignedDocument, TcbInfo
from verifier.abi.pem_blocks import CERTIFICATE, CRL
from verifier.errors import (
    CertExpired,
    CertNotYetValid,
    CertRevoked,
    CertSignature,
    CollateralExpired,
    CollateralMismatch,
    CollateralMissing,
    CollateralNotYetValid,
    CollateralSignature,
    CrlIssuer,
    RootUntrusted,
    TrustRootInvalid,
    VerificationError,
)
from verifier.limits import MAX_DIAGNOSED_CERTIFICATES
from verifier.signature import PublicKey, verify_raw
from verifier.trust import collateral_checks as checks
from verifier.trust.certificate import Certificate, on_p256
from verifier.trust.contents import PCK_CRL, ROOT_CRL, UNKNOWN, HeldCrl, HeldDocument
from verifier.trust.crl import Crl
from verifier.trust.roots import ChainRoles, TrustAnchor

if TYPE_CHECKING:
    from verifier.trust.store import Collateral

FOREVER_MS = 1 << 62

Key = tuple[str | bytes, ...]
H = TypeVar("H", bound=HeldDocument | HeldCrl)

ENCLAVES = {"sgx": "QE", "tdx": "TD_QE"}
"""The quoting enclave of each TEE, as identities name it."""

_NAMES = {TCB_INFO: "TCB info", QE_IDENTITY: "QE identity", PCK_CRL: "PCK CRL", ROOT_CRL: "root CRL"}

_TRIED_ISSUERS = 4
"""Certificates called like a signer's issuer that are asked whether they made it."""

_SHOWN = 3
"""Subjects of other items that a message names."""

_STAGES = {
    one: stage
    for stage, one in enumerate(
        (CollateralSignature, CertNotYetValid, CertExpired, CertRevoked, CollateralNotYetValid, CollateralExpired), 1
    )
}
"""Refusals by how far verification got: of several candidates the one that came furthest says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollateralWindow:
    """When something that was used is current: `issued_ms` to `next_update_ms`, UTC milliseconds.

    `kind` is "tcb_info", "qe_identity", "pck_crl", "root_ca_crl" or "tcb_signer"; `subject` says what it is for,
    `digest` is SHA-256 of the signed text or the DER, `evaluation_number` None where there is none.
    """

    kind: str
    subject: str
    digest: bytes
    issued_ms: int
    next_update_ms: int
    evaluation_number: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlatformCollateral:
    """Verified collateral for one platform. The same call gives this same answer from `valid_from_ms` to
    `expires_ms`, UTC milliseconds, inclusive: nothing used leaves its window there, and nothing better enters its own.
    """

    tcb_info: TcbInfo
    qe_identity: EnclaveIdentity
    pck_crl: Crl
    root_crl: Crl
    used: tuple[tuple[str, str, HeldDocument | HeldCrl], ...]
    signers: tuple[Certificate, ...]
    valid_from_ms: int
    expires_ms: int

    @property
    def windows(self) -> tuple[CollateralWindow, ...]:
        """When each item that was used is current, signers last."""
        items = (_window(kind, subject, one) for kind, subject, one in self.used)
        return (*items, *map(_signer_window, self.signers))


@dataclass(frozen=True, slots=True)
class Issuer:
    """An authority: its key, its DER name (None: unknown, not compared), and the names that stand under it."""

    key: PublicKey
    spki: bytes
    roles: ChainRoles
    name: bytes | None


class Span:
    """A stretch of time, UTC milliseconds, inclusive, that only gets narrower."""

    __slots__ = ("from_ms", "until_ms")

    def __init__(self) -> None:
        self.from_ms, self.until_ms = -FOREVER_MS, FOREVER_MS

    def narrow(self, from_ms: int, until_ms: int, now_ms: int) -> None:
        """To the part where being inside `from_ms` to `until_ms`, or outside, is as it is at `now_ms`."""
        if now_ms < from_ms:
            self.until_ms = min(self.until_ms, from_ms - 1)
        elif now_ms > until_ms:
            self.from_ms = max(self.from_ms, until_ms + 1)
        else:
            self.from_ms, self.until_ms = max(self.from_ms, from_ms), min(self.until_ms, until_ms)


@lru_cache(maxsize=64)
def key_of(spki: bytes) -> ec.EllipticCurvePublicKey:
    """The P-256 key of a pinned root. `TrustRootInvalid`."""
    try:
        key = load_der_public_key(spki)
    except ValueError as error:
        raise TrustRootInvalid(f"a root's key: {error}", field="trust_roots") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise TrustRootInvalid("a root's key is not on P-256", field="trust_roots")
    return key


def select(
    held: Collateral,
    *,
    tee: str,
    fmspc: bytes,
    pce_id: bytes,
    pck_issuer: Certificate,
    anchor: TrustAnchor,
    now_ms: int,
) -> PlatformCollateral:
    """`Collateral.select`, without its memory of earlier answers."""
    root = Issuer(key_of(anchor.spki), anchor.spki, anchor.roles, pck_issuer.issuer)
    pck_ca = Issuer(pck_issuer.public_key, pck_issuer.spki, anchor.roles, pck_issuer.subject)
    enclave = ENCLAVES[tee]
    platform = f"{tee.upper()}, FMSPC {fmspc.hex().upper()}, PCE id {pce_id.hex().upper()}"
    if not (held.crls or held.held_documents or held.unreadable):
        raise CollateralMissing(
            f"nothing is held; needed: TCB info for {platform}; {enclave} identity; the CRLs of "
            f"{pck_issuer.common_name} and of {anchor.roles.root}",
            field="collateral",
        )
    span = Span()
    root_crl = pick_crl(held, ROOT_CRL, root, root.name, now_ms, span)
    pck_crl = pick_crl(held, PCK_CRL, pck_ca, root.name, now_ms, span)
    try:
        checks.check_crl_signer(pck_issuer)
    except VerificationError as error:
        raise _placed(error, PCK_CRL) from None
    signing = Signing(held, root, root_crl.crl, now_ms)
    tcb_info = pick_document(signing, TCB_INFO, (tee, fmspc, pce_id), platform, span)
    qe_identity = pick_document(signing, QE_IDENTITY, (enclave,), enclave, span)
    signing.narrow(span)
    return PlatformCollateral(
        tcb_info=cast(TcbInfo, tcb_info.signed.document),
        qe_identity=cast(EnclaveIdentity, qe_identity.signed.document),
        pck_crl=pck_crl.crl,
        root_crl=root_crl.crl,
        used=(
            (TCB_INFO, platform, tcb_info),
            (QE_IDENTITY, enclave, qe_identity),
            (PCK_CRL, pck_issuer.common_name, pck_crl),
            (ROOT_CRL, anchor.roles.root, root_crl),
        ),
        signers=tuple(dict.fromkeys(signing.used)),
        valid_from_ms=span.from_ms,
        expires_ms=span.until_ms,
    )


def pick_crl(held: Collateral, kind: str, issuer: Issuer, root_name: bytes | None, now_ms: int, span: Span) -> HeldCrl:
    """The newest revocation list of `issuer` that verifies at `now_ms`; `span` is narrowed to where it stays so."""
    candidates = [one for one in held.crls if _passes(checks.check_crl_issuer, one.crl, issuer.name)]
    if not candidates:
        raise _no_crl(held, kind, root_name)
    return _pick(candidates, kind, lambda one: verify_crl(held, one, issuer, now_ms), now_ms, span)


def verify_crl(held: Collateral, one: HeldCrl, issuer: Issuer, now_ms: int) -> None:
    """The list is `issuer`'s and current at `now_ms`. Raises `CollateralSignature` and errors of time."""
    checks.check_crl_profile(one.crl)
    held.remember((CRL, one.digest, issuer.spki), checks.check_crl_signature, one.crl, issuer.key)
    checks.check_crl_window(one.crl, now_ms)


class Signing:
    """Who may sign documents under a root, given the root's revocation list, at `now_ms`.

    `used` are the signers of the documents verified so far.
    """

    __slots__ = ("genuine", "held", "now_ms", "refused", "root", "root_crl", "used")

    def __init__(self, held: Collateral, root: Issuer, root_crl: Crl | None, now_ms: int) -> None:
        self.held, self.root, self.root_crl, self.now_ms = held, root, root_crl, now_ms
        self.genuine: list[Certificate] = []
        self.refused: list[VerificationError] = []
        self.used: list[Certificate] = []
        # The newest first, so that who vouches for a document does not depend on the order of reading.
        for one in sorted(held.named(root.roles.tcb_signer), key=_age, reverse=True):
            try:
                held.remember((checks.SIGNER, one.der, root.spki, root.name, root.roles), check_signer, one, root)
            except VerificationError as error:
                self.refused.append(error)
            else:
                self.genuine.append(one)

    def signers_of(self, one: HeldDocument) -> list[Certificate]:
        """The genuine signers whose key signed `one`, whatever their windows."""
        signed, found = one.signed, []
        for spki, key in {signer.spki: signer.public_key for signer in self.genuine}.items():
            try:
                self.held.remember((one.digest, signed.signature, spki), checks.check_document_signature, signed, key)
            except CollateralSignature:
                continue
            found += [signer for signer in self.genuine if signer.spki == spki]
        return found

    def verify(self, one: HeldDocument) -> None:
        """`one` is signed under the root by a signer who is valid and not revoked, and current. `VerificationError`."""
        failures = []
        for signer in self.signers_of(one):
            try:
                checks.check_signer_window(signer, self.now_ms)
                if self.root_crl is not None:
                    checks.check_signer_revocation(signer, self.root_crl)
                checks.check_document_window(one.signed.document, self.now_ms)
            except VerificationError as error:
                failures.append(error)
            else:
                self.used.append(signer)
                return
        if failures:
            raise furthest(failures)
        root = self.root
        key = ("unsigned", one.digest, one.signed.signature, root.spki, root.name, root.roles)
        self.held.remember(key, self._explain_unsigned, one.signed)

    def narrow(self, span: Span) -> None:
        """Narrow `span` to where every signer is as valid, or not, as it is now."""
        for signer in self.genuine:
            span.narrow(signer.not_before_ms, signer.not_after_ms, self.now_ms)

    def _explain_unsigned(self, signed: SignedDocument) -> None:
        """No signer under the root made the signature: raises why not, which no time changes."""
        for one in self._suspects():
            if verify_raw(one.public_key, signed.signed_bytes, signed.signature):
                try:
                    check_signer(one, self.root)
                except CertSignature:
                    named = filter(on_p256, self.held.named(one.issuer))
                    issuers = islice((other for other in named if other.subject == one.issuer), _TRIED_ISSUERS)
                    if any(one.signed_by(other) for other in issuers):
                        raise RootUntrusted("the signer stands under another root", field=checks.SIGNER) from None
                    raise
        if self.genuine:
            raise CollateralSignature("the signer did not sign this text", field="signature")
        if self.refused:
            raise self.refused[0]
        name = self.root.roles.tcb_signer
        missing = f"its issuer chain with {name!r} is not held; a PCCS sends it in a header"
        raise (
            self.held.broken(name)
            or self.held.unreadable_as(CERTIFICATE, UNKNOWN)
            or CollateralMissing(missing, field=checks.SIGNER)
        )

    def _suspects(self) -> list[Certificate]:
        """Some certificates on P-256 whose key may have made a signature, those called like a signer first."""
        signers = sorted(filter(on_p256, self.held.named(self.root.roles.tcb_signer)), key=_age, reverse=True)
        some = [*signers[:MAX_DIAGNOSED_CERTIFICATES], *self.held.some_certificates(MAX_DIAGNOSED_CERTIFICATES)]
        return list(dict.fromkeys(some))[:MAX_DIAGNOSED_CERTIFICATES]


def _age(one: Certificate) -> tuple[int, bytes]:
    return one.not_after_ms, one.der


def check_signer(signer: Certificate, root: Issuer) -> None:
    """Everything about a signer that time cannot change. Raises a `VerificationError`."""
    checks.check_signer_role(signer, root.roles)
    checks.check_signer_issuer(signer, root.name)
    checks.check_signer_key(signer)
    checks.check_signer_constraints(signer)
    checks.check_signer_signature(signer, root.key)


def pick_document(signing: Signing, kind: str, key: Key, subject: str, span: Span) -> HeldDocument:
    """The best document of `kind` about `key` that verifies; `span` is narrowed to where it stays the best."""
    candidates = signing.held.documents(kind, key)
    if not candidates:
        raise _no_document(signing.held, kind, subject)
    return _pick(candidates, kind, signing.verify, signing.now_ms, span)


def _pick(candidates: Sequence[H], kind: str, verify: Callable[[H], None], now_ms: int, span: Span) -> H:
    current: list[H] = []
    others: list[H] = []
    for ranked in best_first(candidates):
        (current if ranked.issued_ms <= now_ms <= ranked.last_ms else others).append(ranked)
    failures = []
    for one in (*current, *others):  # those that are not current are only asked what is wrong with them
        try:
            verify(one)
        except VerificationError as error:
            failures.append(error)
            continue
        span.narrow(one.issued_ms, one.last_ms, now_ms)
        for other in others:
            if other.rank > one.rank:
                span.narrow(other.issued_ms, other.last_ms, now_ms)
        return one
    raise _placed(furthest(failures), kind)


def _placed(error: VerificationError, kind: str) -> VerificationError:
    """The error of a check, whose field is relative, as one of this kind of item."""
    placed = error.replica()
    placed.field = f"{kind}.{error.field}"
    return placed


def best_first(candidates: Sequence[H]) -> list[H]:
    """By rank: an older document or list must not stand in for a newer one."""
    return sorted(candidates, key=lambda one: one.rank, reverse=True)


def furthest(failures: list[VerificationError]) -> VerificationError:
    """The refusal of the candidate that verification got furthest with."""
    return max(failures, key=lambda error: _STAGES.get(type(error), 0))


def _passes(check: Callable[..., None], *arguments: object) -> bool:
    try:
        check(*arguments)
    except VerificationError:
        return False
    return True


def _no_crl(held: Collateral, kind: str, root_name: bytes | None) -> VerificationError:
    """Why there is no list of this issuer: unreadable, another issuer's, or none."""
    if error := held.unreadable_as(kind):
        return error
    given = [one for one in held.crls if (kind, one.digest) in held.given_as]
    # A list of another PCK CA is of the right kind; the root's own is not, unless it came as one.
    others = [one for one in held.crls if one.crl.issuer != root_name]
    if given or (kind == PCK_CRL and others):
        return CrlIssuer(f"no {_NAMES[kind]} of this issuer, only another's", field=f"{kind}.issuer")
    return held.unreadable_as(CRL, UNKNOWN) or CollateralMissing(f"no {_NAMES[kind]} is held", field=kind)


def _no_document(held: Collateral, kind: str, subject: str) -> VerificationError:
    """Why there is no document about this subject: unreadable, about others, or none."""
    others = [shown(key) for key in held.subjects(kind)]
    if not others:
        return held.unreadable_as(kind, UNKNOWN) or CollateralMissing(f"no {_NAMES[kind]} for {subject}", field=kind)
    listed = "; ".join(others[:_SHOWN]) + (f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
    return CollateralMismatch(f"no {_NAMES[kind]} for {subject}; held: {listed}", field=kind)


def shown(key: Key) -> str:
    """What a document is about, for people."""
    return " ".join(part.hex().upper() if isinstance(part, bytes) else part.upper() for part in key)


def _window(kind: str, subject: str, one: HeldDocument | HeldCrl) -> CollateralWindow:
    return CollateralWindow(
        kind=kind,
        subject=subject,
        digest=one.digest,
        issued_ms=one.issued_ms,
        next_update_ms=one.crl.next_update_ms if isinstance(one, HeldCrl) else one.last_ms,
        evaluation_number=one.number if isinstance(one, HeldDocument) else None,
    )


def _signer_window(signer: Certificate) -> CollateralWindow:
    return CollateralWindow(
        kind="tcb_signer",
        subject=signer.common_name,
        digest=hashlib.sha256(signer.der).digest(),
        issued_ms=signer.not_before_ms,
        next_update_ms=signer.not_after_ms,
        evaluation_number=None,
    )
