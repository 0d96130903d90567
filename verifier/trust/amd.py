"""Endorsement keys of SNP reports: VCEK and VLEK under AMD's roots, and AMD's revocation lists (ATTESTATION.md §8.3).

    ARK-<product> ─┬─ SEV-<product> (ASK) ────────── SEV-VCEK: key of one chip at one TCB
                   ├─ SEV-VLEK-<product> (ASVK) ──── SEV-VLEK: key of one cloud provider at one TCB
                   └─ revocation list: ASK and ASVK; AMD revokes no VCEK or VLEK in public

All signatures are RSA-PSS with SHA-384 by RSA-4096 keys, endorsement keys are on P-384. A chain under a simulated root
must be named as one, so that it passes for no hardware.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from verifier.abi.amd import (
    CHIP_ID_BYTES,
    EK_EXTENSION_OIDS,
    PRODUCTS,
    TURIN,
    TURIN_HWID_BYTES,
    EkExtensions,
    parse_ek_extensions,
)
from verifier.errors import (
    CertConstraint,
    CertRevoked,
    CertRoleInvalid,
    CollateralSignature,
    EkExtensionInvalid,
    SnpProduct,
    VerificationError,
)
from verifier.trust import collateral_checks as checks
from verifier.trust.amd_roots import AMD_ROOTS
from verifier.trust.certificate import Certificate
from verifier.trust.crl import Crl
from verifier.trust.list_signature import signed_list
from verifier.trust.path import PathProfile, VerifiedPath
from verifier.trust.roots import Root
from verifier.trust.selection import CollateralWindow, Span

__all__ = ["AMD_ROOTS", "EK_PROFILE", "SIMULATED", "VCEK", "VLEK", "EndorsementKey", "endorsement_key"]

VCEK, VLEK = "VCEK", "VLEK"
SIMULATED = "EnclaveScale SIMULATED "
"""What every name under a simulated root begins with, and nothing AMD issues."""

EK_PROFILE = PathProfile(
    field="ek_chain",
    lengths=range(3, 4),
    issuer_keys=frozenset({"rsa4096"}),
    leaf_keys=frozenset({"secp384r1"}),
    algorithms=frozenset({"rsa-pss-sha384"}),
    known_critical=EK_EXTENSION_OIDS,
)

ARK_CRL = "ark_crl"
"""Kind of the windows of AMD's revocation lists."""

_ISSUERS = {VCEK: "SEV-", VLEK: "SEV-VLEK-"}
_ARC = "1.3.6.1.4.1.3704.1."


@dataclass(frozen=True, slots=True, kw_only=True)
class EndorsementKey:
    """A VCEK or VLEK whose path is verified; `product` is the line that its root, issuer and extensions name."""

    path: VerifiedPath
    key_type: str
    product: str
    extensions: EkExtensions


def is_endorsement_key(certificate: Certificate) -> bool:
    """Whether the certificate says so: by its name or by AMD's extensions. Nothing in it is verified."""
    name = certificate.common_name.removeprefix(SIMULATED)
    return name in (f"SEV-{VCEK}", f"SEV-{VLEK}") or any(oid.startswith(_ARC) for oid in certificate.extensions)


def paths_of(leaf: Certificate, pool: Sequence[Certificate], roots: Sequence[Root]) -> Iterator[list[Certificate]]:
    """Paths from `leaf` up by names, root first, those that end in a pinned key before others.

    Without any, what there is of one: `verify_path` says what it lacks.
    """
    pinned = {root.spki for root in roots}
    tops = sorted((one for one in pool if one.issuer == one.subject), key=lambda one: (one.spki not in pinned, one.der))
    found = False
    for top in tops:
        for issuer in pool:
            if issuer.subject == leaf.issuer and issuer.issuer == top.subject and issuer not in (top, leaf):
                found = True
                yield [top, issuer, leaf]
    if not found:
        above = [one for one in pool if one.subject == leaf.issuer and one != leaf]
        yield [*above[:1], leaf]


def vouched(
    leaves: Sequence[Certificate], pool: Sequence[Certificate], roots: Sequence[Root]
) -> tuple[list[Certificate], list[Certificate]]:
    """Those of `leaves` and of the issuers in `pool` whose signatures lead to a pinned key, in the order given.

    One verification for each pair that names fit, so that certificates which only bear names cannot take the places
    of those that are genuine. What else a path must be, `verify_path` says.
    """
    pinned = {root.spki for root in roots}
    tops = [one for one in pool if one.issuer == one.subject and one.spki in pinned and one.signed_by(one)]
    issuers = [one for one in pool if one not in tops and _signed_by_any(one, tops)]
    return [one for one in leaves if _signed_by_any(one, issuers)], [*tops, *issuers]


def _signed_by_any(one: Certificate, issuers: Sequence[Certificate]) -> bool:
    return any(one.issuer == issuer.subject and one.signed_by(issuer) for issuer in issuers)


def endorsement_key(path: VerifiedPath) -> EndorsementKey:
    """What a verified path endorses. `CertRoleInvalid`, `EkExtensionInvalid`, `SnpProduct`."""
    product, key_type = roles_of(path)
    extensions = parse_ek_extensions(path.leaf.extensions)
    check_identity(extensions, key_type, product)
    check_product_name(extensions, product)
    return EndorsementKey(path=path, key_type=key_type, product=product, extensions=extensions)


def roles_of(path: VerifiedPath) -> tuple[str, str]:
    """(product line, "VCEK" or "VLEK") by the names on the path, which must fit each other. `CertRoleInvalid`."""
    prefix = SIMULATED if path.root.simulated else ""
    root, issuer, leaf = (one.common_name for one in path.certificates)
    for product in PRODUCTS:
        for key_type, made_by in _ISSUERS.items():
            expected = (f"{prefix}ARK-{product}", f"{prefix}{made_by}{product}", f"{prefix}SEV-{key_type}")
            if (root, issuer, leaf) == expected:
                return product, key_type
    raise CertRoleInvalid(f"{leaf[:64]!r} under {issuer[:64]!r} under {root[:64]!r}", field="ek_chain")


def check_identity(extensions: EkExtensions, key_type: str, product: str) -> None:
    """A VCEK names its chip and no provider, a VLEK the reverse; Turin's have an FMC, others none.

    Turin's chip ids have 8 bytes, others' 64. `EkExtensionInvalid`.
    """
    field = "ek_extensions"
    if (extensions.tcb.fmc is not None) != (product == TURIN):
        raise EkExtensionInvalid(f"patch levels that do not fit {product}", field=field)
    if key_type == VLEK:
        if extensions.hwid is not None or extensions.csp_id is None:
            raise EkExtensionInvalid("a VLEK with a chip's id, or without its provider's", field=field)
        return
    if extensions.hwid is None or extensions.csp_id is not None:
        raise EkExtensionInvalid("a VCEK without its chip's id, or with a provider's", field=field)
    if len(extensions.hwid) != (TURIN_HWID_BYTES if product == TURIN else CHIP_ID_BYTES):
        raise EkExtensionInvalid(f"a HWID of {len(extensions.hwid)} bytes for {product}", field=field)


def check_product_name(extensions: EkExtensions, product: str) -> None:
    """The product that the certificate names is of the chain's line. `SnpProduct`."""
    if extensions.product != product:
        raise SnpProduct(f"a key of {extensions.product_name!r} in a chain of {product}", field="ek_extensions")


def check_revocation(
    path: VerifiedPath, crls: Sequence[Crl], delivered: Sequence[Crl], now_ms: int, span: Span
) -> CollateralWindow | None:
    """No list of the path's root revokes its issuer, and one of `crls` is current; None where none of them is of it.

    Of `crls`, those under the root's name must be the root's: one that is not counts for nothing, and only such ones
    are refused. What an older list revokes stays revoked. `delivered` are lists that came with the evidence: whoever
    sends it picks them, so that they may revoke, however old, and count for nothing else. `CertConstraint`,
    `CollateralSignature`, `CertRevoked`, `CollateralExpired`, `CollateralNotYetValid`.
    """
    root, issuer, _ = path.certificates
    genuine = _genuine(crls, root)
    told = [*genuine, *_revoking(delivered, root)]
    begun = [crl for crl in told if crl.issued_ms <= now_ms]
    try:
        check_not_revoked(begun, root, issuer)
    except CertRevoked as error:
        raise error.holding(now_ms, now_ms) from None
    for later in told:
        if later not in begun:  # what it revokes, it revokes from then on
            span.narrow(later.issued_ms, later.issued_ms, now_ms)
    if not genuine:
        return None
    begun = [crl for crl in genuine if crl.issued_ms <= now_ms]
    newest = max(begun or genuine, key=lambda crl: (crl.next_update_ms, crl.issued_ms))
    try:
        checks.check_crl_window(newest, now_ms)
    except VerificationError as error:
        error.field = f"{ARK_CRL}.{error.field}"
        raise error.holding(now_ms, now_ms) from None
    span.narrow(newest.issued_ms, newest.next_update_ms - 1, now_ms)
    return CollateralWindow(
        kind=ARK_CRL,
        subject=root.common_name,
        digest=hashlib.sha256(newest.der).digest(),
        issued_ms=newest.issued_ms,
        next_update_ms=newest.next_update_ms,
        evaluation_number=None,
    )


def _genuine(crls: Sequence[Crl], root: Certificate) -> list[Crl]:
    """The root's own lists. `CertConstraint`, `CollateralSignature` where there are only others under its name."""
    named = [crl for crl in crls if crl.issuer == root.subject]
    if not named:
        return []
    check_list_signer(root)
    genuine = [crl for crl in named if signed_list(crl, root)]
    if not genuine:
        raise CollateralSignature(f"not signed by {root.common_name!r}", field=f"{ARK_CRL}.signature")
    return genuine


def _revoking(delivered: Sequence[Crl], root: Certificate) -> list[Crl]:
    """Those of the root's own; nothing that a prover sends takes a place in memory."""
    if root.sign_crls is not True:
        return []
    return [crl for crl in delivered if crl.issuer == root.subject and crl.signed_by(root.public_key)]


def check_list_signer(root: Certificate) -> None:
    """The ARK's certificate lets it sign revocation lists. `CertConstraint`."""
    if root.sign_crls is not True:
        raise CertConstraint("the root may not sign revocation lists", field="ek_chain.root")


def check_not_revoked(crls: Sequence[Crl], root: Certificate, issuer: Certificate) -> None:
    """No list names the issuer of the endorsement key, or the root itself. `CertRevoked`."""
    for crl in crls:
        for one, where in ((root, "root"), (issuer, "issuer1")):
            if crl.revokes(one.serial_number):
                why = f"{one.common_name}, serial {one.serial_number:x}, is revoked"
                raise CertRevoked(why, field=f"ek_chain.{where}")
