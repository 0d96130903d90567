"""A whole DCAP world from one frozen value: `replace` one field of it, and everything signed after it follows.

root ─┬─ PCK CA ── PCK ── QE report ── attestation key ── quote
      ├─ TCB Signing ── TCB info, QE identity
      ├─ root CRL
      └─ (PCK CA) PCK CRL
"""

from __future__ import annotations

import hashlib
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from tests.forge.dcap import documents, quotes
from tests.forge.dcap.certificates import (
    CERTS_AND_CRLS,
    PCK_NAME,
    PLATFORM_CA_NAME,
    ROOT_NAME,
    TCB_SIGNER_NAME,
    Cert,
    Crl,
    issue,
    issue_crl,
)
from tests.forge.dcap.documents import Edit
from tests.forge.dcap.keys import point_of, sign
from tests.forge.dcap.platforms import Platform
from tests.forge.dcap.quotes import Header, Section

NOW = 1_770_014_400
"""The moment of judgement, Unix seconds: 2026-02-02T06:40:00Z."""

DAY = 86_400
EVALUATION_NUMBER = 20
REPORT_DATA = hashlib.sha512(b"what the enclave says").digest()
MRTD = hashlib.sha384(b"image").digest()
MRENCLAVE = hashlib.sha256(b"enclave").digest()
MRSIGNER = hashlib.sha256(b"enclave signer").digest()

ROOT = Cert(
    common_name=ROOT_NAME, key="root", serial=0x2265, not_before=1_526_899_510, not_after=2_524_607_999,
    is_ca=True, path_length=1, usage=CERTS_AND_CRLS,
)  # fmt: skip
PCK_CA = Cert(
    common_name=PLATFORM_CA_NAME, key="pck ca", serial=0x956F, not_before=1_526_899_810, not_after=2_000_198_410,
    is_ca=True, path_length=0, usage=CERTS_AND_CRLS,
)  # fmt: skip
PCK = Cert(common_name=PCK_NAME, key="pck", serial=0x7C01, not_before=NOW - 200 * DAY, not_after=NOW + 2_000 * DAY)
TCB_SIGNER = Cert(
    common_name=TCB_SIGNER_NAME, key="tcb signer", serial=0x7E38, not_before=1_746_523_500, not_after=1_967_447_100
)
ROOT_CRL = Crl(this_update=NOW - 100 * DAY, next_update=NOW + 265 * DAY, number=1)
PCK_CRL = Crl(this_update=NOW - 5 * DAY, next_update=NOW + 25 * DAY, number=1, revoked=(0x5A01, 0x5A02))
TCB_INFO_WINDOW = (NOW - 3 * DAY, NOW + 27 * DAY)
QE_IDENTITY_WINDOW = (NOW - 2 * DAY, NOW + 28 * DAY)

SGX_BODY = {
    "cpusvn": bytes([5, 5, 2, 2, 3, 1, 0, 3]) + bytes(8), "attributes": bytes([0x05, *bytes(7), 0xE7, *bytes(7)]),
    "mrenclave": MRENCLAVE, "mrsigner": MRSIGNER, "isvprodid": b"\x07\x00", "isvsvn": b"\x03\x00",
    "report_data": REPORT_DATA,
}  # fmt: skip
TD_BODY = {
    "tee_tcb_svn": bytes([7, 1, 6]) + bytes(13), "mrseam": hashlib.sha384(b"TDX module").digest(),
    "td_attributes": (1 << 28).to_bytes(8, "little"), "xfam": bytes.fromhex("e702060000000000"), "mrtd": MRTD,
    "rtmr0": hashlib.sha384(b"rtmr0").digest(), "rtmr1": hashlib.sha384(b"rtmr1").digest(),
    "report_data": REPORT_DATA,
}  # fmt: skip
TD_BODY_15 = TD_BODY | {"tee_tcb_svn_2": TD_BODY["tee_tcb_svn"]}
QE_REPORT = {
    "cpusvn": bytes([5, 5, 2, 2, 3, 1, 0, 3]) + bytes(8), "attributes": bytes([0x15, *bytes(7), 0xE7, *bytes(7)]),
    "mrenclave": hashlib.sha256(b"quoting enclave").digest(), "isvsvn": b"\x08\x00",
}  # fmt: skip


def same(value: Any) -> Any:
    return value


@lru_cache(maxsize=4096)
def pem(der: bytes) -> str:
    """A certificate's PEM text, as Intel breaks its lines."""
    return ssl.DER_cert_to_PEM_cert(der)


def pem_chain(*ders: bytes) -> str:
    return "".join(map(pem, ders))


@dataclass(frozen=True, kw_only=True)
class Minted:
    """What a world delivers: quote, QuoteCollateralV3 as a dict, DER of the root to trust, time (Unix s)."""

    quote: bytes
    collateral: dict[str, str]
    root: bytes
    at: int

    @property
    def collateral_json(self) -> str:
        return json.dumps(self.collateral)


@dataclass(frozen=True, kw_only=True)
class World:
    """A genuine platform, UpToDate, unless a field says otherwise.

    Edits (`…_edit`) change a document before it is text, `…_text` the text before it is signed, `…_sent` what is
    delivered after signing. `seed` names another set of keys. Times are Unix seconds.
    """

    version: int = 4
    tee: str = "tdx"
    body_type: int | None = None
    seed: str = ""
    at: int = NOW
    root: Cert = ROOT
    pck_ca: Cert = PCK_CA
    pck: Cert = PCK
    tcb_signer: Cert = TCB_SIGNER
    qe_signer: Cert | None = None
    tcb_signer_issuer: Cert | None = None
    pck_issuer: Cert | None = None
    trusted: Cert | None = None
    root_crl: Crl = ROOT_CRL
    pck_crl: Crl = PCK_CRL
    pck_crl_issuer: Cert | None = None
    platform: Platform = field(default_factory=Platform)
    number: int = EVALUATION_NUMBER
    qe_number: int | None = None
    tcb_info_window: tuple[int, int] = TCB_INFO_WINDOW
    qe_identity_window: tuple[int, int] = QE_IDENTITY_WINDOW
    tcb_info_tee: str | None = None
    tcb_info_edit: Edit = same
    tcb_info_text: Callable[[str], str] = same
    tcb_info_sent: Callable[[str], str] = same
    tcb_info_signed_with: str | None = None
    tcb_info_signature: Callable[[bytes], bytes] = same
    qe_identity_tee: str | None = None
    qe_identity_edit: Edit = same
    qe_identity_text: Callable[[str], str] = same
    qe_identity_sent: Callable[[str], str] = same
    qe_identity_signed_with: str | None = None
    qe_identity_signature: Callable[[bytes], bytes] = same
    header: Callable[[Header], Header] = same
    body: Mapping[str, bytes] = field(default_factory=dict)
    body_layout: int | None = None
    qe: Mapping[str, bytes] = field(default_factory=dict)
    auth_data: bytes = bytes(range(32))
    qe_binding: Callable[[bytes], bytes] = same
    qe_signed_with: str | None = None
    quote_signed_with: str | None = None
    chain: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = same
    chain_text: Callable[[bytes], bytes] = same
    certification: tuple[int, bytes] | None = None
    section: Callable[[Section], Section] = same
    section_size: int | None = None
    padding: bytes = b""
    quote: Callable[[bytes], bytes] = same
    collateral: Callable[[dict[str, str]], dict[str, str]] = same

    def but(self, **changes: Any) -> World:
        """This world with one fact changed."""
        return replace(self, **changes)

    def mint(self) -> Minted:
        """Everything, signed."""
        root, pck_ca, pck = self._certificates()
        return Minted(
            quote=self.quote(self._quote(pck, (issue(pck, pck_ca), self._pck_ca_der(root, pck_ca), issue(root)))),
            collateral=self.collateral(self._collateral(root, pck_ca)),
            root=issue(self._keyed(self.trusted)) if self.trusted else issue(root),
            at=self.at,
        )

    def pck_chain(self) -> tuple[bytes, bytes, bytes]:
        """DER of PCK certificate, PCK CA and root."""
        root, pck_ca, pck = self._certificates()
        return issue(pck, pck_ca), self._pck_ca_der(root, pck_ca), issue(root)

    def evaluation_numbers(self) -> dict[str, str]:
        """The TCB evaluation numbers as the shared vectors have them: raw text, signature, issuer chain."""
        issued, next_update = self.tcb_info_window
        text = documents.text_of(documents.evaluation_numbers(tee=self.tee, issued=issued, next_update=next_update))
        signer = self._keyed(self.tcb_signer)
        return {
            "tcbEvalNumbers_raw": text,
            "signature": sign(signer.key, text.encode()).hex(),
            "issuer_chain": self._signer_chain(self._keyed(self.root), signer),
        }

    def _keyed(self, cert: Cert) -> Cert:
        if not self.seed:
            return cert
        signed_with = f"{self.seed}/{cert.signed_with}" if cert.signed_with else None
        return replace(cert, key=f"{self.seed}/{cert.key}", signed_with=signed_with)

    def _certificates(self) -> tuple[Cert, Cert, Cert]:
        pck = self._keyed(self.pck)
        if pck.extension is None:
            pck = replace(pck, extension=self.platform.extension())
        elif not pck.extension:
            pck = replace(pck, extension=None)  # empty bytes stand for "leave it out"
        return self._keyed(self.root), self._keyed(self.pck_ca), pck

    def _pck_ca_der(self, root: Cert, pck_ca: Cert) -> bytes:
        return issue(pck_ca, self._keyed(self.pck_issuer) if self.pck_issuer else root)

    def _signer_chain(self, root: Cert, signer: Cert) -> str:
        issuer = self._keyed(self.tcb_signer_issuer) if self.tcb_signer_issuer else root
        between = () if self.tcb_signer_issuer is None else (issue(issuer, root),)
        return pem_chain(issue(signer, issuer), *between, issue(root))

    def _collateral(self, root: Cert, pck_ca: Cert) -> dict[str, str]:
        signer = self._keyed(self.tcb_signer)
        qe_signer = self._keyed(self.qe_signer) if self.qe_signer else signer
        info, info_signature = self._tcb_info(signer)
        identity, identity_signature = self._qe_identity(qe_signer)
        crl_issuer = self._keyed(self.pck_crl_issuer) if self.pck_crl_issuer else pck_ca
        return {
            "pck_crl_issuer_chain": pem_chain(self._pck_ca_der(root, pck_ca), issue(root)),
            "root_ca_crl": issue_crl(self.root_crl, root).hex(),
            "pck_crl": issue_crl(self.pck_crl, crl_issuer).hex(),
            "tcb_info_issuer_chain": self._signer_chain(root, signer),
            "tcb_info": info,
            "tcb_info_signature": info_signature.hex(),
            "qe_identity_issuer_chain": self._signer_chain(root, qe_signer),
            "qe_identity": identity,
            "qe_identity_signature": identity_signature.hex(),
        }

    def _tcb_info(self, signer: Cert) -> tuple[str, bytes]:
        issued, next_update = self.tcb_info_window
        document = documents.tcb_info(
            tee=self.tcb_info_tee or self.tee, fmspc=self.platform.fmspc, pce_id=self.platform.pce_id,
            issued=issued, next_update=next_update, number=self.number,
        )  # fmt: skip
        text = self.tcb_info_text(documents.text_of(self.tcb_info_edit(document)))
        signature = (
            sign(self.tcb_info_signed_with, text.encode())
            if self.tcb_info_signed_with
            else sign(signer.key, text.encode(), signer.curve)
        )
        return self.tcb_info_sent(text), self.tcb_info_signature(signature)

    def _qe_identity(self, signer: Cert) -> tuple[str, bytes]:
        issued, next_update = self.qe_identity_window
        document = documents.qe_identity(
            tee=self.qe_identity_tee or self.tee, issued=issued, next_update=next_update,
            number=self.number if self.qe_number is None else self.qe_number,
        )  # fmt: skip
        text = self.qe_identity_text(documents.text_of(self.qe_identity_edit(document)))
        signature = (
            sign(self.qe_identity_signed_with, text.encode())
            if self.qe_identity_signed_with
            else sign(signer.key, text.encode(), signer.curve)
        )
        return self.qe_identity_sent(text), self.qe_identity_signature(signature)

    def _body(self) -> bytes:
        if self.tee == "sgx":
            default, kind = SGX_BODY, 1
        else:
            kind = self.body_type or 2
            default = TD_BODY if kind == 2 else TD_BODY_15
        return quotes.encode(quotes.BODIES[self.body_layout or kind], {**default, **self.body})

    def _qe_report(self, attestation_key: bytes) -> bytes:
        tdx = self.tee == "tdx"
        binding = hashlib.sha256(attestation_key + self.auth_data).digest() + bytes(32)
        default = QE_REPORT | {
            "mrsigner": documents.TD_QE_SIGNER if tdx else documents.QE_SIGNER,
            "isvprodid": b"\x02\x00" if tdx else b"\x01\x00",
            "report_data": self.qe_binding(binding),
        }
        return quotes.encode(quotes.SGX_REPORT, {**default, **self.qe})

    def _quote(self, pck: Cert, chain: tuple[bytes, ...]) -> bytes:
        body = self._body()
        header = self.header(
            Header(
                version=self.version,
                tee_type=quotes.TDX if self.tee == "tdx" else quotes.SGX,
                reserved=bytes.fromhex("0a000f00") if self.version == 3 else bytes(4),
                body_type=self.body_type,
            )
        )
        signed = header.encode(body) + body
        attestation = f"{self.seed}/attestation key"
        report = self._qe_report(point_of(attestation))
        kind, data = self.certification or (5, self.chain_text(pem_chain(*self.chain(chain)).encode()))
        section = self.section(
            Section(
                quote_signature=sign(self.quote_signed_with or attestation, signed),
                attestation_key=point_of(attestation),
                qe_report=report,
                qe_report_signature=sign(self.qe_signed_with, report)
                if self.qe_signed_with
                else sign(pck.key, report, pck.curve),
                auth_data=self.auth_data,
                kind=kind,
                data=data,
            )
        ).encode(self.version)
        size = len(section) if self.section_size is None else self.section_size
        return signed + size.to_bytes(4, "little") + section + self.padding


SGX3 = World(version=3, tee="sgx")
SGX4 = World(version=4, tee="sgx")
SGX5 = World(version=5, tee="sgx", body_type=1)
TDX4 = World()
TDX5 = World(version=5, body_type=2)
TDX5_15 = World(version=5, body_type=3)
TDX5_EXTENDED = World(version=5, body_type=4)
GENUINE = {
    "SGX v3": SGX3, "SGX v4": SGX4, "SGX v5": SGX5, "TDX v4": TDX4, "TDX v5, TD 1.0": TDX5, "TDX v5, TD 1.5": TDX5_15,
    "TDX v5, TD 1.5 extended": TDX5_EXTENDED,
}  # fmt: skip
"""Every shape of genuine quote, by name."""


def bounded(world: World, item: str, side: str) -> World:
    """The world with one item (a field of it that has a validity) beginning or ending now, to the second.

    A revocation list's nextUpdate is not part of its validity: it ends a second before.
    """
    old = getattr(world, item)
    if isinstance(old, Cert):
        return world.but(**{item: replace(old, **{"not_before" if side == "begin" else "not_after": NOW})})
    if isinstance(old, Crl):
        change = {"this_update": NOW} if side == "begin" else {"next_update": NOW + 1}
        return world.but(**{item: replace(old, **change)})
    return world.but(**{item: (NOW, old[1]) if side == "begin" else (old[0], NOW)})
