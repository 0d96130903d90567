"""A whole SNP world from one frozen value: `replace` one field of it, and everything signed after it follows.

ARK ─┬─ ASK ── VCEK ── report        (or ASVK ── VLEK)
     └─ revocation list
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.forge.snp import reports
from tests.forge.snp.certificates import CERTS_AND_CRLS, ONLY_CERTS, Cert, Crl, amd_oid, integer, issue, issue_crl, tlv
from tests.forge.snp.keys import ec_sign
from tests.forge.snp.reports import SIGNED, Hcl

NOW = 1_770_014_400
"""The moment of judgement, Unix seconds: 2026-02-02T06:40:00Z."""

DAY = 86_400
REPORT_DATA = hashlib.sha512(b"what the guest says").digest()
MEASUREMENT = hashlib.sha384(b"guest image").digest()
HOST_DATA = hashlib.sha256(b"host data").digest()
ID_KEY = hashlib.sha384(b"id key").digest()
AUTHOR_KEY = hashlib.sha384(b"author key").digest()
CSP = "CN=cc-forge.example"

ARK = Cert(
    common_name="ARK", key="ark", serial=0x10000, not_before=1_600_000_000, not_after=2_390_000_000,
    ca=(True, None), usage=CERTS_AND_CRLS,
)  # fmt: skip
ASK = Cert(
    common_name="SEV", key="ask", serial=0x10001, not_before=1_600_010_000, not_after=2_390_000_000,
    ca=(True, 0), usage=ONLY_CERTS,
)  # fmt: skip
EK = Cert(
    common_name="SEV-VCEK", key="ek", curve="p384", serial=0, not_before=NOW - 30 * DAY, not_after=NOW + 2_500 * DAY
)
CRL = Crl(this_update=NOW - 40 * DAY, next_update=NOW + 300 * DAY)

POLICY = 1 << 17 | 1 << 16 | 0x1F
ALIAS_CHECK = 1 << 5
PRODUCTS: dict[str, dict[str, Any]] = {
    "Milan": {"version": 2, "name": "Milan-B0", "cpuid": b"", "tcb": bytes([4, 0, 0, 0, 0, 0, 24, 219])},
    "Genoa": {"version": 3, "name": "Genoa", "cpuid": bytes([0x19, 0x11, 1]),
              "tcb": bytes([10, 0, 0, 0, 0, 0, 23, 84])},
    "Turin": {"version": 5, "name": "Turin", "cpuid": bytes([0x1A, 0x02, 1]), "tcb": bytes([1, 1, 1, 4, 0, 0, 0, 81])},
}  # fmt: skip
LEVELS = {
    "Milan": ((3, 1), (3, 2), (3, 4), (3, 5), (3, 6), (3, 7), (3, 3), (3, 8)),
    "Turin": ((3, 9), (3, 1), (3, 2), (3, 3), (3, 5), (3, 6), (3, 7), (3, 8)),
}
"""Extensions with the patch levels, by their bytes in a TCB_VERSION; Genoa's are Milan's."""


def same(value: Any) -> Any:
    return value


def chip_id(product: str, seed: str) -> bytes:
    found = hashlib.sha512(f"chip/{product}/{seed}".encode()).digest()
    return found[:8].ljust(64, b"\x00") if product == "Turin" else found


def ek_extensions(
    product: str, tcb: bytes, name: str, hwid: bytes | None, csp: str | None
) -> dict[tuple[int, ...], bytes]:
    """AMD's extensions by the numbers behind its arc."""
    found = {(1,): integer(1 if product == "Turin" else 0), (2,): tlv(0x16, name.encode())}
    found |= {numbers: integer(level) for numbers, level in zip(LEVELS.get(product, LEVELS["Milan"]), tcb, strict=True)}
    if hwid is not None:
        found[4,] = hwid
    if csp is not None:
        found[5,] = tlv(0x16, csp.encode())
    return found


@dataclass(frozen=True, kw_only=True)
class Minted:
    """What a world delivers: evidence, certificates and lists in DER, the root's SPKI, time (Unix s)."""

    report: bytes
    certificates: tuple[bytes, ...]
    crls: tuple[bytes, ...]
    root: bytes
    at: int


@dataclass(frozen=True, kw_only=True)
class World:
    """A genuine guest and platform unless a field says otherwise.

    `fields` change the report before it is signed, `sent` it after; `extensions` edits those of the endorsement key;
    `delivered` what certificates come along (EK, ASK, ARK); `evidence` what all of it is wrapped into. `prefix`
    stands before every name of the chain; `trusted` names the RSA key that is pinned.
    """

    product: str = "Genoa"
    vlek: bool = False
    seed: str = ""
    prefix: str = ""
    at: int = NOW
    version: int | None = None
    ark: Cert = ARK
    ask: Cert = ASK
    ek: Cert = EK
    product_name: str | None = None
    ek_tcb: bytes | None = None
    hwid: bytes | None = None
    extensions: Callable[[dict[tuple[int, ...], bytes]], dict[tuple[int, ...], bytes]] = same
    crls: tuple[Crl, ...] = (CRL,)
    tcb: bytes | None = None
    fields: Mapping[str, int | bytes] = field(default_factory=dict)
    signed_with: str | None = None
    signature: Callable[[tuple[int, int]], tuple[int, int]] = same
    sent: Callable[[bytes], bytes] = same
    hcl: Hcl | None = None
    evidence: Callable[[bytes, tuple[bytes, ...]], bytes] = lambda report, certificates: report
    delivered: Callable[[tuple[bytes, ...]], tuple[bytes, ...]] = same
    trusted: str = "ark"

    def but(self, **changes: Any) -> World:
        """This world with one fact changed."""
        return replace(self, **changes)

    def chain(self) -> tuple[Cert, Cert, Cert]:
        """EK, ASK (or ASVK) and ARK, named."""
        line = f"VLEK-{self.product}" if self.vlek else self.product
        ark = self._named(self.ark, f"{self.ark.common_name}-{self.product}", ARK.common_name)
        ask = self._named(self.ask, f"{self.ask.common_name}-{line}", ASK.common_name)
        if self.vlek and ask.key == ASK.key:
            ask = replace(ask, key="asvk", serial=0x10101)
        ek = self._named(self.ek, "SEV-VLEK" if self.vlek else "SEV-VCEK", EK.common_name)
        if self.seed:
            ek = replace(ek, key=f"{self.seed}/{ek.key}")
        numbers = self.extensions(
            ek_extensions(
                self.product,
                self.ek_tcb or self.tcb_bytes,
                self.product_name or (self.product if self.vlek else PRODUCTS[self.product]["name"]),
                None if self.vlek else self._hwid(),
                CSP if self.vlek else None,
            )
        )
        return replace(ek, extensions={amd_oid(*one): value for one, value in numbers.items()}), ask, ark

    def certificates(self) -> tuple[bytes, bytes, bytes]:
        """DER of EK, ASK and ARK."""
        ek, ask, ark = self.chain()
        return issue(ek, ask), issue(ask, ark), issue(ark)

    @property
    def tcb_bytes(self) -> bytes:
        """REPORTED_TCB, and where nothing else is said every other."""
        tcb: bytes = self.tcb or PRODUCTS[self.product]["tcb"]
        return tcb

    def mint(self) -> Minted:
        """Everything, signed."""
        _, _, ark = self.chain()
        certificates = self.certificates()
        report = self._report()
        whole = self.evidence(report if self.hcl is None else self.hcl.encode(report), certificates)
        return Minted(
            report=whole,
            certificates=self.delivered(certificates),
            crls=tuple(issue_crl(crl, ark) for crl in self.crls),
            root=replace(ARK, key=self.trusted).spki,
            at=self.at,
        )

    def _named(self, cert: Cert, name: str, usual: str) -> Cert:
        return replace(cert, common_name=self.prefix + name) if cert.common_name == usual else cert

    def _hwid(self) -> bytes:
        if self.hwid is not None:
            return self.hwid
        found = chip_id(self.product, self.seed)
        return found[:8] if self.product == "Turin" else found

    def _report(self) -> bytes:
        usual = PRODUCTS[self.product]
        version = self.version or usual["version"]
        fields: dict[str, int | bytes] = {
            "version": version, "guest_svn": 7, "policy": POLICY, "family_id": b"family".ljust(16, b"\x00"),
            "image_id": b"image".ljust(16, b"\x00"), "vmpl": 0, "signature_algo": 1, "current_tcb": self.tcb_bytes,
            "platform_info": 1 | ALIAS_CHECK, "key_info": 4 if self.vlek else 0, "measurement": MEASUREMENT,
            "report_data": REPORT_DATA if self.hcl is None else self.hcl.report_data(), "host_data": HOST_DATA,
            "report_id": hashlib.sha256(b"report id").digest(), "report_id_ma": b"\xff" * 32,
            "reported_tcb": self.tcb_bytes, "cpuid": usual["cpuid"] if version >= 3 else b"",
            "chip_id": b"" if self.vlek else chip_id(self.product, self.seed), "committed_tcb": self.tcb_bytes,
            "current_version": bytes([40, 55, 1]), "committed_version": bytes([40, 55, 1]),
            "launch_tcb": self.tcb_bytes,
        }  # fmt: skip
        if version >= 5:
            fields |= {"launch_mitigations": 0x3F, "current_mitigations": 0x3F}
        unsigned = reports.encode(fields | dict(self.fields))
        key = self.signed_with or (f"{self.seed}/{self.ek.key}" if self.seed else self.ek.key)
        r, s = self.signature(ec_sign(key, unsigned[:SIGNED]))
        written = r.to_bytes(48, "little").ljust(72, b"\x00") + s.to_bytes(48, "little").ljust(72, b"\x00")
        return self.sent(unsigned[:SIGNED] + written + unsigned[SIGNED + len(written) :])


MILAN = World(product="Milan")
MILAN3 = World(product="Milan", version=3, fields={"cpuid": bytes([0x19, 0x01, 1])})
GENOA = World()
SIENA = World(fields={"cpuid": bytes([0x19, 0xA0, 2])})
TURIN = World(product="Turin")
VLEK = World(vlek=True)
VLEK_MILAN = World(product="Milan", vlek=True)
AZURE = World(hcl=Hcl(user_data=REPORT_DATA))


def in_table(report: bytes, certificates: tuple[bytes, ...], lists: tuple[bytes, ...] = ()) -> bytes:
    """The report with everything about it in a certificate table."""
    kinds = ("vcek", "ask", "ark", *("crl" for _ in lists))
    entries = (reports.Entry(kind, der) for kind, der in zip(kinds, (*certificates, *lists), strict=True))
    return report + reports.table(*entries, page=0x4000)


EXTENDED = World(evidence=in_table, delivered=lambda certificates: ())


def bringing(*lists: Crl) -> World:
    """A report whose certificate table has revocation lists; the verifier has none."""

    def write(report: bytes, certificates: tuple[bytes, ...]) -> bytes:
        return in_table(report, certificates, tuple(issue_crl(one, EXTENDED.chain()[2]) for one in lists))

    return EXTENDED.but(evidence=write, crls=())


GENUINE = {
    "Milan v2": MILAN, "Milan v3": MILAN3, "Genoa v3": GENOA, "Genoa v4": GENOA.but(version=4),
    "Genoa v5": GENOA.but(version=5), "Siena": SIENA, "Turin v5": TURIN, "VLEK of Genoa": VLEK,
    "VLEK of Milan": VLEK_MILAN, "Azure": AZURE, "certificate table": EXTENDED,
}  # fmt: skip
"""Every shape of genuine evidence, by name."""
