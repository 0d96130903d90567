"""The checks that collateral must pass, one function each (ATTESTATION.md §2 to §4; Intel QVL 4.1.2.3 to 4.1.2.5).

Each raises its own error, whose field is relative: whoever calls puts the kind of the document or list before it.
Checks of signatures, names and constraints depend on bytes only; windows and revocation on time, and are made anew
on every use.
"""

from __future__ import annotations

from verifier.abi.collateral import Document, SignedDocument
from verifier.abi.fields import moment
from verifier.errors import (
    CertChainInvalid,
    CertConstraint,
    CertExpired,
    CertKeyUnsupported,
    CertNotYetValid,
    CertRevoked,
    CertRoleInvalid,
    CertSignature,
    CollateralExpired,
    CollateralMalformed,
    CollateralNotYetValid,
    CollateralSignature,
    CrlIssuer,
)
from verifier.signature import PublicKey, verify_raw, verify_signed
from verifier.trust.certificate import SIGNATURE_ALGORITHM, Certificate, key_kind, on_p256
from verifier.trust.crl import Crl
from verifier.trust.roots import ChainRoles

SIGNER = "signer"


def check_crl_issuer(crl: Crl, issuer: bytes) -> None:
    """The list names, byte for byte, the DER name `issuer` (QVL 4.1.2.5.7). `CrlIssuer`."""
    if crl.issuer != issuer:
        raise CrlIssuer("a revocation list of another issuer", field="issuer")


def check_crl_signer(issuer: Certificate) -> None:
    """The issuer's certificate lets it sign revocation lists (RFC 5280 §6.3.3 f). `CertConstraint`."""
    if issuer.sign_crls is not True:
        raise CertConstraint("the issuer may not sign revocation lists", field=SIGNER)


def check_crl_profile(crl: Crl) -> None:
    """As Intel issues them: ecdsa-with-SHA256, a crlNumber and an authorityKeyIdentifier. `CollateralMalformed`."""
    if crl.algorithm != SIGNATURE_ALGORITHM or crl.number is None or crl.authority_key_identifier is None:
        raise CollateralMalformed("not a revocation list as Intel issues them", field="profile")


def check_crl_signature(crl: Crl, key: PublicKey) -> None:
    """The issuer's key signed the list. `CollateralSignature`."""
    if not crl.signed_by(key):
        raise CollateralSignature("the revocation list is not signed by its issuer", field="signature")


def check_crl_window(crl: Crl, now_ms: int) -> None:
    """thisUpdate <= now < nextUpdate. `CollateralNotYetValid`, `CollateralExpired`."""
    if now_ms < crl.issued_ms:
        raise CollateralNotYetValid(f"the revocation list begins at {moment(crl.issued_ms)}", field="this_update")
    if now_ms >= crl.next_update_ms:
        raise CollateralExpired(
            f"the revocation list is out of date since {moment(crl.next_update_ms)}", field="next_update"
        )


def check_signer_role(signer: Certificate, roles: ChainRoles) -> None:
    """The signer carries the name of its role, so that no other certificate can serve. `CertRoleInvalid`."""
    if signer.common_name != roles.tcb_signer:
        raise CertRoleInvalid(f"signed by {signer.common_name[:64]!r}, not {roles.tcb_signer!r}", field=SIGNER)


def check_signer_issuer(signer: Certificate, root: bytes | None) -> None:
    """The signer stands directly under the root of DER name `root`; None: no name to compare. `CertChainInvalid`."""
    if root is not None and signer.issuer != root:
        raise CertChainInvalid("the signer's issuer is not the root", field=SIGNER)


def check_signer_constraints(signer: Certificate) -> None:
    """No CA; may sign data and no certificates; no critical extension is passed over. `CertConstraint`."""
    if signer.is_ca is not False:
        raise CertConstraint("the signer does not say that it is no CA", field=SIGNER)
    if signer.sign_certificates is not False or signer.sign_data is not True:
        raise CertConstraint("key usage does not fit a signer of collateral", field=SIGNER)
    if signer.unknown_critical:
        names = ", ".join(signer.unknown_critical[:2])
        raise CertConstraint(f"the signer has critical extensions {names}", field=SIGNER)


def check_signer_key(signer: Certificate) -> None:
    """The signer's key is on P-256, and its certificate signed with SHA-256. `CertKeyUnsupported`."""
    if not on_p256(signer) or signer.algorithm != SIGNATURE_ALGORITHM:
        raise CertKeyUnsupported(f"a signer with {key_kind(signer)}, signed with {signer.algorithm}", field=SIGNER)


def check_signer_signature(signer: Certificate, root_key: PublicKey) -> None:
    """The pinned root key signed the signer's certificate. `CertSignature`."""
    if not verify_signed(root_key, signer.algorithm, signer.tbs, signer.signature):
        raise CertSignature("the root did not sign the signer's certificate", field=SIGNER)


def check_signer_window(signer: Certificate, now_ms: int) -> None:
    """notBefore <= now <= notAfter. `CertNotYetValid`, `CertExpired`."""
    if now_ms < signer.not_before_ms:
        raise CertNotYetValid(f"the signer's certificate begins at {moment(signer.not_before_ms)}", field=SIGNER)
    if now_ms > signer.not_after_ms:
        raise CertExpired(f"the signer's certificate ended at {moment(signer.not_after_ms)}", field=SIGNER)


def check_signer_revocation(signer: Certificate, root_crl: Crl) -> None:
    """The root has not revoked the signer. `CertRevoked`."""
    if root_crl.revokes(signer.serial_number):
        raise CertRevoked("the signer's certificate is revoked", field=SIGNER)


def check_document_signature(signed: SignedDocument, key: PublicKey) -> None:
    """The signature over the document's bytes as delivered. `CollateralSignature`."""
    if not verify_raw(key, signed.signed_bytes, signed.signature):
        raise CollateralSignature("the signer did not sign this text", field="signature")


def check_document_window(document: Document, now_ms: int) -> None:
    """issueDate <= now <= nextUpdate. `CollateralNotYetValid`, `CollateralExpired`."""
    if now_ms < document.issued_ms:
        raise CollateralNotYetValid(
            f"issued at {moment(document.issued_ms)}, after the time of judgement", field="issue_date"
        )
    if now_ms > document.next_update_ms:
        raise CollateralExpired(f"out of date since {moment(document.next_update_ms)}", field="next_update")
