"""A simulated TEE: quotes of the real structure under a root of our own, verified on the same path as real ones.

They prove nothing about hardware. A verifier takes them only under a policy that names the root as simulated, and every
verdict and output says so.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from attester import pki
from attester.signing import public_point, sign_raw
from schemas.records import EvidenceItem, TrustRoot
from verifier.abi.dcap import (
    CERTIFICATION_PCK_CHAIN,
    KEY_TYPE_ECDSA_P256,
    TEE_TYPE_TDX,
    Certification,
    QuoteHeader,
    SignatureSection,
)
from verifier.abi.pck import PckExtension
from verifier.abi.pem import join_chain
from verifier.abi.quote import Quote, signed_part
from verifier.abi.sgx import SgxReport
from verifier.abi.tdx import TdReport
from verifier.trust.roots import SIMULATED_ROLES

SIMULATED_BANNER = (
    "*** SIMULATED TEE: these quotes come from a program, not from hardware. "
    "They prove nothing about this machine. Demo and tests only. ***"
)
"""Printed by every program that starts on a simulated TEE."""

ROOT_LABEL = "simulated"
REGISTER_BYTES = 48
TD_ATTRIBUTES = (1 << 28).to_bytes(8, "little")
"""SEPT_VE_DISABLE, nothing else."""

XFAM = bytes.fromhex("e702060000000000")


def simulated_platform_id(host_id: str) -> bytes:
    """The PPID (16 bytes) a simulated host of that name has, for its enrolment and its quotes alike."""
    return hashlib.sha256(b"EnclaveScale SIMULATED platform\x00" + host_id.encode()).digest()[:16]


def simulated_measurement(image: str) -> bytes:
    """An MRTD (48 bytes) that stands for an image of that name."""
    return hashlib.sha384(b"EnclaveScale SIMULATED image\x00" + image.encode()).digest()


DEFAULT_PLATFORM_ID = simulated_platform_id("default")
DEFAULT_MRTD = simulated_measurement("enclavescale")


class SimulatedTee:
    """Mints TDX v4 quotes. A `QuoteProvider` for one platform and image; `mint` serves others too."""

    def __init__(self, root: pki.Issued, *, platform_id: bytes, mrtd: bytes) -> None:
        if len(platform_id) != 16 or len(mrtd) != REGISTER_BYTES:
            raise ValueError("a platform id has 16 bytes, an MRTD 48")
        self._root = root
        self._platform_ca = pki.issue(pki.PLATFORM_CA, root)
        self._attestation_key = ec.generate_private_key(ec.SECP256R1())
        self._pck: dict[bytes, pki.Issued] = {}
        self.platform_id = platform_id
        self.mrtd = mrtd

    @classmethod
    def create(
        cls, directory: Path | None = None, *, platform_id: bytes = DEFAULT_PLATFORM_ID, mrtd: bytes = DEFAULT_MRTD
    ) -> SimulatedTee:
        """A simulated TEE under the root kept in `directory` (made on first use), or under a root of its own."""
        root = pki.issue(pki.ROOT) if directory is None else pki.load_or_create_root(directory)
        return cls(root, platform_id=platform_id, mrtd=mrtd)

    @property
    def kind(self) -> str:
        """Kind of its quotes."""
        return "tdx_quote_v4"

    @property
    def simulated(self) -> bool:
        """Always True."""
        return True

    @property
    def root_der(self) -> bytes:
        """DER of the root certificate, for `policy.trust_roots`."""
        return self._root.der

    def trust_root(self, label: str = ROOT_LABEL) -> TrustRoot:
        """The policy entry that makes a verifier take these quotes, as simulated ones."""
        return TrustRoot(label=label, tee="tdx", certificate_der=self.root_der, simulated=True)

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """Evidence over `report_data` (64 bytes): one quote of this TEE's platform and image."""
        data = self.mint(report_data)
        return [EvidenceItem(kind=self.kind, data=data, subject=None, subject_absent_reason="cpu")]

    def mint(
        self,
        report_data: bytes,
        *,
        mrtd: bytes | None = None,
        platform_id: bytes | None = None,
        rtmrs: tuple[bytes, bytes, bytes, bytes] | None = None,
        td_attributes: bytes = TD_ATTRIBUTES,
    ) -> bytes:
        """The bytes of a quote; `rtmrs` are RTMR0 to RTMR3 (48 bytes each, default zero)."""
        if len(report_data) != 64 or len(td_attributes) != 8:
            raise ValueError("report data has 64 bytes, TD attributes 8")
        body = td_report(
            report_data=report_data,
            mrtd=mrtd or self.mrtd,
            rtmrs=rtmrs or (bytes(48),) * 4,
            td_attributes=td_attributes,
        )
        header = QuoteHeader(version=4, key_type=KEY_TYPE_ECDSA_P256, tee_type=TEE_TYPE_TDX)
        pck = self._pck_of(platform_id or self.platform_id)
        chain = join_chain((pck.der, self._platform_ca.der, self._root.der))
        section = sign_quote(signed_part(header, body), self._attestation_key, pck.key, chain)
        return Quote.of(header=header, body=body, signature=section).encode()

    def _pck_of(self, platform_id: bytes) -> pki.Issued:
        if platform_id not in self._pck:
            self._pck[platform_id] = pki.issue(pki.pck_template(platform(platform_id)), self._platform_ca)
        return self._pck[platform_id]


def platform(platform_id: bytes) -> PckExtension:
    """The PCK extension of a simulated platform with PPID `platform_id` (16 bytes)."""
    return PckExtension(
        ppid=platform_id,
        component_svns=(2,) * 16,
        pce_svn=13,
        cpu_svn=bytes([2] * 16),
        pce_id=bytes(2),
        fmspc=b"SIMFMS",
        sgx_type=1,
        platform_instance_id=hashlib.sha256(b"instance" + platform_id).digest()[:16],
        configuration=(True, True, True),
    )


def td_report(
    *, report_data: bytes, mrtd: bytes, rtmrs: tuple[bytes, bytes, bytes, bytes], td_attributes: bytes
) -> TdReport:
    """A TD report 1.0 of a simulated TD under a production-like module."""
    zero = bytes(REGISTER_BYTES)
    return TdReport(
        tee_tcb_svn=bytes([5, 1, 2]) + bytes(13),
        mrseam=hashlib.sha384(b"EnclaveScale SIMULATED TDX module").digest(),
        mrsignerseam=zero,
        seam_attributes=bytes(8),
        td_attributes=td_attributes,
        xfam=XFAM,
        mrtd=mrtd,
        mrconfigid=zero,
        mrowner=zero,
        mrownerconfig=zero,
        rtmr0=rtmrs[0],
        rtmr1=rtmrs[1],
        rtmr2=rtmrs[2],
        rtmr3=rtmrs[3],
        report_data=report_data,
    )


def qe_report(report_data: bytes, *, mrsigner: bytes = SIMULATED_ROLES.qe_mrsigner, debug: bool = False) -> SgxReport:
    """A QE report over `report_data` (64 bytes): product 2, ISVSVN 6, DEBUG as asked."""
    raw = bytearray(384)
    raw[48] = 0x15 | (0x02 if debug else 0)
    raw[64:96] = hashlib.sha256(b"EnclaveScale SIMULATED TD QE image").digest()
    raw[128:160] = mrsigner
    raw[256:258] = SIMULATED_ROLES.qe_prod_id.to_bytes(2, "little")
    raw[258:260] = (6).to_bytes(2, "little")
    raw[320:384] = report_data
    return SgxReport(bytes(raw))


def sign_quote(
    signed: bytes, attestation_key: ec.EllipticCurvePrivateKey, pck_key: ec.EllipticCurvePrivateKey, chain: bytes
) -> SignatureSection:
    """The signature section over `signed` (header and body): what quoting enclave and PCE do on hardware."""
    point = public_point(attestation_key.public_key())[1:]
    auth_data = bytes(range(32))
    report = qe_report(hashlib.sha256(point + auth_data).digest() + bytes(32))
    return SignatureSection(
        quote_signature=sign_raw(attestation_key, signed),
        attestation_key=point,
        qe_report=report,
        qe_report_signature=sign_raw(pck_key, report.raw),
        auth_data=auth_data,
        certification=Certification(CERTIFICATION_PCK_CHAIN, chain),
    )
