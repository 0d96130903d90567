"""A silicon vendor of the benchmark's own: quotes and collateral in Intel's formats, under a root that only a policy
made here names.

root ─┬─ platform CA ── PCK of each machine ── quoting enclave's report ── attestation key ── quote
      ├─ TCB signer ── TCB info, identity of the quoting enclave
      └─ revocation lists of root and platform CA

Verification takes the whole way that a real quote takes, TCB and revocation included. Nothing here stands for hardware,
and no program but the benchmarks makes such a root.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from attester import pki
from attester.signing import public_point, sign_raw
from attester.simulated import TD_ATTRIBUTES, platform, qe_report, simulated_measurement, simulated_platform_id
from attester.simulated import td_report as simulated_td_report
from schemas.records import EvidenceItem, TcbRule, TrustRoot
from verifier.abi.dcap import (
    CERTIFICATION_PCK_CHAIN,
    KEY_TYPE_ECDSA_P256,
    TEE_TYPE_TDX,
    Certification,
    QuoteHeader,
    SignatureSection,
)
from verifier.abi.pem import join_chain
from verifier.abi.quote import Quote, signed_part
from verifier.trust.roots import INTEL_ROLES
from verifier.trust.store import Collateral

KIND = "tdx_quote_v4"
LABEL = "benchmark vendor"
REVOKED_SVN, GOOD_SVN, OLD_SVN = 3, 2, 1
"""Security versions of machines: whose certificate is revoked, that are up to date, that are not."""

DAY_MS = 86_400_000
_NOBODY = "EnclaveScale benchmark, not hardware"
_HEADER = QuoteHeader(version=4, key_type=KEY_TYPE_ECDSA_P256, tee_type=TEE_TYPE_TDX)
_AUTH_DATA = bytes(range(32))
QE_SVN = 6
"""Security version of the quoting enclave in `attester.simulated.qe_report`."""

TCB_RULE = TcbRule(
    tee="tdx", accepted_statuses=("UpToDate",), grace_days=0, allowed_advisories=(), min_tcb_evaluation_number=1
)
"""What a policy of the benchmarks demands of machines."""


def _named(template: pki.Template, name: str) -> pki.Template:
    return replace(template, common_name=name, organization=_NOBODY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What the vendor says at one time: evaluation number, validity (UTC ms), serial numbers it revokes."""

    number: int
    from_ms: int
    until_ms: int
    revoked: tuple[int, ...] = ()


class Vendor:
    """One hierarchy with its machines. Keys live in this process and nowhere else."""

    def __init__(self) -> None:
        roles = INTEL_ROLES
        self._root = pki.issue(_named(pki.ROOT, roles.root))
        self._platform_ca = pki.issue(_named(pki.PLATFORM_CA, roles.issuers[0]), self._root)
        self._signer = pki.issue(_named(pki.PCK, roles.tcb_signer), self._root)
        self._attestation_key = ec.generate_private_key(ec.SECP256R1())
        self._pck: dict[tuple[bytes, int], pki.Issued] = {}

    def trust_root(self, label: str = LABEL) -> TrustRoot:
        """The policy entry without which nothing of this vendor counts."""
        return TrustRoot(label=label, tee="tdx", certificate_der=self._root.der, simulated=False)

    def mint(
        self,
        report_data: bytes,
        *,
        platform_id: bytes,
        mrtd: bytes,
        svn: int = GOOD_SVN,
        td_attributes: bytes = TD_ATTRIBUTES,
        rtmrs: tuple[bytes, bytes, bytes, bytes] | None = None,
    ) -> bytes:
        """A quote over `report_data` (64 bytes) of the machine `platform_id` (16 bytes) at security version `svn`."""
        body = simulated_td_report(
            report_data=report_data, mrtd=mrtd, rtmrs=rtmrs or (bytes(48),) * 4, td_attributes=td_attributes
        )
        pck = self.pck(platform_id, svn)
        point = public_point(self._attestation_key.public_key())[1:]
        report = qe_report(_sha256(point + _AUTH_DATA) + bytes(32), mrsigner=INTEL_ROLES.qe_mrsigner)
        section = SignatureSection(
            quote_signature=sign_raw(self._attestation_key, signed_part(_HEADER, body)),
            attestation_key=point,
            qe_report=report,
            qe_report_signature=sign_raw(pck.key, report.raw),
            auth_data=_AUTH_DATA,
            certification=Certification(
                CERTIFICATION_PCK_CHAIN, join_chain((pck.der, self._platform_ca.der, self._root.der))
            ),
        )
        return Quote.of(header=_HEADER, body=body, signature=section).encode()

    def pck(self, platform_id: bytes, svn: int = GOOD_SVN) -> pki.Issued:
        """The machine's certificate, made on first use."""
        key = platform_id, svn
        if key not in self._pck:
            facts = replace(platform(platform_id), component_svns=(svn,) * 16, cpu_svn=bytes([svn] * 16))
            template = replace(_named(pki.PCK, INTEL_ROLES.leaf), pck_extension=facts.encode())
            self._pck[key] = pki.issue(template, self._platform_ca)
        return self._pck[key]

    def collateral(self, told: Told) -> bytes:
        """What a PCCS would answer: one QuoteCollateralV3 object as JSON."""
        chain = _pem(self._signer.der, self._root.der)
        info, identity = _text(_tcb_info(told)), _text(_qe_identity(told))
        return json.dumps(
            {
                "pck_crl_issuer_chain": _pem(self._platform_ca.der, self._root.der),
                "root_ca_crl": self._list(self._root, told, ()).hex(),
                "pck_crl": self._list(self._platform_ca, told, told.revoked).hex(),
                "tcb_info_issuer_chain": chain,
                "tcb_info": info,
                "tcb_info_signature": sign_raw(self._signer.key, info.encode()).hex(),
                "qe_identity_issuer_chain": chain,
                "qe_identity": identity,
                "qe_identity_signature": sign_raw(self._signer.key, identity.encode()).hex(),
            }
        ).encode()

    def held(self, told: Told) -> Collateral:
        """The same as a verifier holds it."""
        return Collateral.from_json(self.collateral(told))

    def _list(self, issuer: pki.Issued, told: Told, revoked: Sequence[int]) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.certificate.subject)
            .last_update(_moment(told.from_ms))
            .next_update(_moment(told.until_ms))
            .add_extension(x509.CRLNumber(told.number), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()), critical=False)
        )
        for serial in revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_moment(told.from_ms))
            builder = builder.add_revoked_certificate(entry.build())
        return builder.sign(issuer.key, SHA256()).public_bytes(Encoding.DER)


@dataclass(frozen=True)
class Machine:
    """A `QuoteProvider`: the quotes that one machine with one image makes."""

    vendor: Vendor
    name: str
    image: str
    svn: int = GOOD_SVN
    td_attributes: bytes = TD_ATTRIBUTES
    rtmrs: tuple[bytes, bytes, bytes, bytes] | None = None
    kind: str = KIND
    simulated: bool = False

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        """Evidence over `report_data` (64 bytes)."""
        data = self.vendor.mint(
            report_data,
            platform_id=simulated_platform_id(self.name),
            mrtd=simulated_measurement(self.image),
            svn=self.svn,
            td_attributes=self.td_attributes,
            rtmrs=self.rtmrs,
        )
        return [EvidenceItem(kind=KIND, data=data, subject_absent_reason="cpu")]


def _sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC)


def _pem(*ders: bytes) -> str:
    return join_chain(ders).rstrip(b"\x00").decode()


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _dated(told: Told) -> dict[str, Any]:
    return {
        "issueDate": _moment(told.from_ms).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "nextUpdate": _moment(told.until_ms).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def _worth(status: str, day: str, advisories: tuple[str, ...] = ()) -> dict[str, Any]:
    found: dict[str, Any] = {"tcbDate": f"{day}T00:00:00Z", "tcbStatus": status}
    return found | ({"advisoryIDs": list(advisories)} if advisories else {})


def _tcb_info(told: Told) -> dict[str, Any]:
    """Two levels: machines at `GOOD_SVN` are up to date, those at `OLD_SVN` out of date."""
    facts = platform(bytes(16))
    module = {"mrsigner": "00" * 48, "attributes": "00" * 8, "attributesMask": "FF" * 8}
    levels = (
        (GOOD_SVN, "UpToDate", "2025-08-13", ()),
        (OLD_SVN, "OutOfDate", "2024-11-13", ("INTEL-SA-00000",)),
    )
    return {
        "id": "TDX",
        "version": 3,
        **_dated(told),
        "fmspc": facts.fmspc.hex().upper(),
        "pceId": facts.pce_id.hex().upper(),
        "tcbType": 0,
        "tcbEvaluationDataNumber": told.number,
        "tdxModule": module,
        "tdxModuleIdentities": [
            {"id": "TDX_01", **module, "tcbLevels": [{"tcb": {"isvsvn": 1}, **_worth("UpToDate", "2025-08-13")}]}
        ],
        "tcbLevels": [
            {
                "tcb": {
                    "sgxtcbcomponents": [{"svn": svn}] * 16,
                    "pcesvn": 1,
                    "tdxtcbcomponents": [{"svn": one} for one in (1, 0, 1, *(0,) * 13)],
                },
                **_worth(status, day, advisories),
            }
            for svn, status, day, advisories in levels
        ],
    }


def _qe_identity(told: Told) -> dict[str, Any]:
    return {
        "id": "TD_QE",
        "version": 2,
        **_dated(told),
        "tcbEvaluationDataNumber": told.number,
        "miscselect": "00000000",
        "miscselectMask": "FFFFFFFF",
        "attributes": "11" + "00" * 15,
        "attributesMask": "FB" + "FF" * 7 + "00" * 8,
        "mrsigner": INTEL_ROLES.qe_mrsigner.hex().upper(),
        "isvprodid": INTEL_ROLES.qe_prod_id,
        "tcbLevels": [{"tcb": {"isvsvn": QE_SVN}, **_worth("UpToDate", "2025-08-13")}],
    }
