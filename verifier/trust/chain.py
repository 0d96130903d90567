"""A PCK chain: root → Platform or Processor CA → PCK certificate (ATTESTATION.md §2).

Each check stands alone and raises its own error; `verifier.formats` calls them as the numbered steps of a format.

    pinned key ─ same key ─ root ─ signs ─ intermediate ─ signs ─ leaf (PCK) ─ signs ─ QE report
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from verifier.errors import (
    CertChainInvalid,
    CertConstraint,
    CertExpired,
    CertKeyUnsupported,
    CertNotYetValid,
    CertRoleInvalid,
    CertSignature,
    NoTrustRoots,
    RootUntrusted,
)
from verifier.limits import CHAIN_CERTIFICATES, MAX_ROOTS_REMEMBERED
from verifier.trust.certificate import SIGNATURE_ALGORITHM, Certificate, key_kind, on_p256
from verifier.trust.roots import ChainRoles, TrustAnchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Three certificates in their roles by name; a root here is a claim until it is pinned."""

    root: Certificate
    intermediate: Certificate
    leaf: Certificate

    def members(self) -> tuple[tuple[str, Certificate], ...]:
        """(role, certificate) from the root down."""
        return ("root", self.root), ("intermediate", self.intermediate), ("leaf", self.leaf)

    @property
    def valid_from_ms(self) -> int:
        """Latest notBefore, UTC milliseconds."""
        return max(certificate.not_before_ms for _, certificate in self.members())

    @property
    def expires_ms(self) -> int:
        """Earliest notAfter, UTC milliseconds."""
        return min(certificate.not_after_ms for _, certificate in self.members())


def build_chain(certificates: Sequence[Certificate]) -> Chain:
    """Put three certificates in order by issuer and subject names; real quotes exist in another order.

    Raises `CertChainInvalid` unless exactly one is self-issued, one issued by it and the last issued by that.
    """
    if len(certificates) != CHAIN_CERTIFICATES or len({c.subject for c in certificates}) != CHAIN_CERTIFICATES:
        raise CertChainInvalid("not three certificates of three subjects", field="pck_chain")
    roots = [c for c in certificates if c.issuer == c.subject]
    if len(roots) == 1:
        root = roots[0]
        intermediates = [c for c in certificates if c is not root and c.issuer == root.subject]
        if len(intermediates) == 1:
            intermediate = intermediates[0]
            leaf = next(c for c in certificates if c is not root and c is not intermediate)
            if leaf.issuer == intermediate.subject:
                return Chain(root=root, intermediate=intermediate, leaf=leaf)
    raise CertChainInvalid("the names make no chain of root, intermediate and leaf", field="pck_chain")


def check_profile(certificates: Sequence[Certificate]) -> None:
    """As Intel issues them: ecdsa-with-SHA256, a serial number above zero. `CertChainInvalid`."""
    for one in certificates:
        if one.algorithm != SIGNATURE_ALGORITHM or one.serial_number == 0:
            shown = f"signed with {one.algorithm}" if one.serial_number else "without a serial number"
            raise CertChainInvalid(f"not a usable certificate: {shown}", field="certificate")


def find_anchor(root: Certificate, anchors: Sequence[TrustAnchor]) -> TrustAnchor:
    """The anchor whose key is the root's. Raises `NoTrustRoots` or `RootUntrusted`."""
    if not anchors:
        raise NoTrustRoots("no root of trust is named", field="trust_roots")
    for anchor in anchors:
        if anchor.spki == root.spki:
            return anchor
    raise RootUntrusted(f"root {root.common_name!r} is not pinned", field="pck_chain.root")


def check_roles(chain: Chain, roles: ChainRoles) -> None:
    """Each certificate carries the name of its role, so that none can serve in another. `CertRoleInvalid`."""
    expected = {"root": (roles.root,), "intermediate": roles.issuers, "leaf": (roles.leaf,)}
    for role, certificate in chain.members():
        if certificate.common_name not in expected[role]:
            raise CertRoleInvalid(f"{role} is called {certificate.common_name!r}", field=f"pck_chain.{role}")


def check_basic_constraints(chain: Chain) -> None:
    """Issuers are CAs with room below them, the leaf is none. `CertConstraint`."""
    for role, certificate, below in (("root", chain.root, 1), ("intermediate", chain.intermediate, 0)):
        if certificate.is_ca is not True:
            raise CertConstraint(f"{role} is not a CA", field=f"pck_chain.{role}")
        if certificate.path_length is not None and certificate.path_length < below:
            raise CertConstraint(f"{role} allows {certificate.path_length} CAs below", field=f"pck_chain.{role}")
    if chain.leaf.is_ca is not False:
        raise CertConstraint("the leaf does not say that it is no CA", field="pck_chain.leaf")


def check_key_usage(chain: Chain) -> None:
    """Issuers may sign certificates; the leaf may sign data and no certificates. `CertConstraint`."""
    for role, certificate in chain.members():
        wanted = (False, True) if role == "leaf" else (True, certificate.sign_data)
        if (certificate.sign_certificates, certificate.sign_data) != wanted:
            raise CertConstraint(f"key usage does not fit a {role}", field=f"pck_chain.{role}")


def check_critical_extensions(chain: Chain) -> None:
    """No critical extension is passed over (RFC 5280 §4.2). `CertConstraint`."""
    for role, certificate in chain.members():
        if certificate.unknown_critical:
            names = ", ".join(certificate.unknown_critical[:2])
            raise CertConstraint(f"{role} has critical extensions {names}", field=f"pck_chain.{role}")


def check_keys(chain: Chain) -> None:
    """All keys are on P-256. `CertKeyUnsupported`."""
    for role, certificate in chain.members():
        if not on_p256(certificate):
            raise CertKeyUnsupported(f"{role} key: {key_kind(certificate)}", field=f"pck_chain.{role}")


def check_signatures(chain: Chain) -> None:
    """Root signs itself and the intermediate, the intermediate the leaf. `CertSignature`."""
    holds = {
        "root": _root_signs_itself(chain.root),
        "intermediate": chain.intermediate.signed_by(chain.root),
        "leaf": chain.leaf.signed_by(chain.intermediate),
    }
    for role, held in holds.items():
        if not held:
            raise CertSignature(f"{role} is not signed by its issuer", field=f"pck_chain.{role}")


@lru_cache(maxsize=MAX_ROOTS_REMEMBERED)
def _root_signs_itself(root: Certificate) -> bool:
    """Remembered: its bytes alone decide it, and every chain of a vendor ends in one of a few.

    Whether a root is pinned for the caller at hand, is valid and plays its role, is checked on every use.
    """
    return root.signed_by(root)


def check_validity(chain: Chain, now_ms: int) -> None:
    """notBefore <= now <= notAfter for each. `CertNotYetValid`, `CertExpired`; certain for this `now` only."""
    for role, certificate in chain.members():
        field = f"pck_chain.{role}"
        if now_ms < certificate.not_before_ms:
            raise CertNotYetValid(f"{role} is not valid yet", field=field).holding(now_ms, now_ms)
        if now_ms > certificate.not_after_ms:
            raise CertExpired(f"{role} has expired", field=field).holding(now_ms, now_ms)
