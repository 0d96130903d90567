"""Roots of trust, pinned by public key: Intel's is built in, others only when the policy names them.

A root pins a key, not a certificate: Intel issued two certificates for one key (ATTESTATION.md §2). With the key come
the names its chain must carry and the quoting enclave it vouches for, so that a simulated chain can neither be named
like Intel's nor pass for hardware, whatever its policy entry says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from schemas.records import TrustRoot
from verifier.errors import TrustRootInvalid, VerificationError
from verifier.trust.certificate import parse_certificate

_P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")
"""DER in front of the coordinates of an uncompressed point on P-256 (RFC 5480)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainRoles:
    """Common names by role, and the quoting enclaves for TDX and SGX: MRSIGNER (32 bytes) and ISVPRODID.

    The enclaves count only where no collateral is evaluated; with collateral the signed identity decides.
    """

    root: str
    issuers: tuple[str, ...]
    leaf: str
    tcb_signer: str
    qe_mrsigner: bytes
    qe_prod_id: int
    sgx_qe_mrsigner: bytes
    sgx_qe_prod_id: int


INTEL_ROLES = ChainRoles(
    root="Intel SGX Root CA",
    issuers=("Intel SGX PCK Platform CA", "Intel SGX PCK Processor CA"),
    leaf="Intel SGX PCK Certificate",
    tcb_signer="Intel SGX TCB Signing",
    qe_mrsigner=bytes.fromhex("dc9e2a7c6f948f17474e34a7fc43ed030f7c1563f1babddf6340c82e0e54a8c5"),
    qe_prod_id=2,
    sgx_qe_mrsigner=bytes.fromhex("8c4f5775d796503e96137f77c68a829a0056ac8ded70140b081b094490c57bff"),
    sgx_qe_prod_id=1,
)
"""Names in every chain Intel issues; signer and product of TD_QE and QE in every identity it published (§3)."""

SIMULATED_ROLES = ChainRoles(
    root="EnclaveScale SIMULATED Root CA",
    issuers=("EnclaveScale SIMULATED PCK Platform CA",),
    leaf="EnclaveScale SIMULATED PCK Certificate",
    tcb_signer="EnclaveScale SIMULATED TCB Signing",
    qe_mrsigner=b"EnclaveScale SIMULATED TD QE\x00\x00\x00\x00",
    qe_prod_id=2,
    sgx_qe_mrsigner=b"EnclaveScale SIMULATED SGX QE\x00\x00\x00",
    sgx_qe_prod_id=1,
)
"""What a simulated root's chain must be called; nothing Intel issues is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A pinned root: `spki` is the DER SubjectPublicKeyInfo of its key. A simulated one is not hardware."""

    label: str
    spki: bytes
    simulated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustAnchor(Root):
    """A root of quotes in Intel's format, with the names and enclaves it vouches for."""

    roles: ChainRoles

    @property
    def is_p256(self) -> bool:
        """Whether its key is on P-256, as those of quotes in Intel's format are."""
        return self.spki.startswith(_P256)


INTEL_SGX_ROOT = TrustAnchor(
    label="intel-sgx-root-ca",
    spki=bytes.fromhex(
        "3059301306072a8648ce3d020106082a8648ce3d03010703420004"
        "0ba9c4c0c0c86193a3fe23d6b02cda10a8bbd4e88e48b4458561a36e705525f5"
        "67918e2edc88e40d860bd0cc4ee26aacc988e505a953558c453f6b0904ae7394"
    ),
    simulated=False,
    roles=INTEL_ROLES,
)
"""Key of Intel SGX Root CA: in the DCAP quotes of every machine, and in Intel's published root certificate.

SHA-256 of the SubjectPublicKeyInfo: a0af031289f5d5d4132f9186068a7fc13628633ba235777472e29b6b6c67a49e.
"""


@lru_cache(maxsize=64)
def anchor_of(root: TrustRoot) -> TrustAnchor:
    """The pin of a root the policy names. Raises `TrustRootInvalid`."""
    try:
        certificate = parse_certificate(root.certificate_der)
    except VerificationError as error:
        raise TrustRootInvalid(f"trust root {root.label!r}: {error}", field="trust_roots") from error
    return TrustAnchor(
        label=root.label,
        spki=certificate.spki,
        simulated=root.simulated,
        roles=SIMULATED_ROLES if root.simulated else INTEL_ROLES,
    )


def trust_anchors(roots: Iterable[TrustRoot], tee: str) -> tuple[TrustAnchor, ...]:
    """The anchors for `tee`: the built-in ones first, then the policy's."""
    built_in = (INTEL_SGX_ROOT,) if tee in ("tdx", "sgx") else ()
    return (*built_in, *(anchor_of(root) for root in roots if root.tee == tee))
