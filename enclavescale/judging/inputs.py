"""What a person gives `enclavescale verify`, and which kind of evidence it is."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from enclavescale.nvidia_file import looks_like_devices
from verifier.abi.snp import SNP_REPORT_BYTES
from verifier.policy.quote_policy import QuotePolicy
from verifier.trust.crl import Crl
from verifier.trust.ocsp import OcspResponse, parse_ocsp
from verifier.trust.roots import Root, TrustAnchor
from verifier.trust.store import Collateral
from verifier.trust.vendors import BUILT_IN_ROOTS, ROOTS_BY_USE

AUTO, SGX, TDX, SNP, GPU, SWITCH, RIM, SPDM, COMPOSITE = (
    "auto", "sgx", "tdx", "snp", "nvidia-gpu", "nvidia-switch", "nvidia-rim", "spdm", "composite",
)  # fmt: skip
KINDS = (AUTO, SGX, TDX, SNP, GPU, SWITCH, RIM, SPDM, COMPOSITE)
"""Kinds as --kind takes them."""

NVIDIA = "nvidia"
"""What an NVIDIA device's report looks like: GPU or switch, the leaf of its chain says."""

_SPDM_REQUEST = b"\x11\xe0"
_HCL = b"HCLA"
_PCAPS = (b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\xc3\xd4", b"\x4d\x3c\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x0a\x0d\x0d\x0a")
"""How captures begin: pcap in either byte order, with micro- or nanoseconds, and pcapng."""


USES = ("intel", "snp", "nvidia", "rim", "spdm")
"""What a root may be named for, as --trust-root takes it; "intel" are quotes in Intel's format."""

_USE_OF = {"sgx": "intel", "tdx": "intel"}
_MEANT = {SNP: ("snp",), GPU: ("nvidia", "rim"), SWITCH: ("nvidia", "rim"), RIM: ("rim",), SPDM: ("spdm",),
          COMPOSITE: ()}  # fmt: skip
"""What a root is for that is named without a use: what evidence of this kind hangs on. Of a host nobody can tell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedRoot:
    """A root that --trust-root names, for one use, or (None) for what the kind of evidence hangs on."""

    use: str | None
    anchor: TrustAnchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """Everything a verdict is made from. `collateral` holds what --collateral and --endorsement give, `endorsements`
    only the latter, `rims` what --rim gives; `now_ms` is UTC milliseconds; `report_data` 64 bytes, nonces 32 bytes.
    """

    data: bytes
    kind: str
    collateral: Collateral
    endorsements: Collateral
    rims: tuple[bytes, ...]
    trust_roots: tuple[NamedRoot, ...]
    policy: QuotePolicy
    now_ms: int
    report_data: bytes | None
    nonces: tuple[bytes, ...]

    @property
    def crls(self) -> list[Crl]:
        """Revocation lists of every issuer."""
        return [held.crl for held in self.collateral.crls]

    def ocsp(self) -> list[OcspResponse]:
        """OCSP responses. Raises `OcspMalformed` for one that is none: it was given to be heeded."""
        return [parse_ocsp(data) for data in self.collateral.ocsp_responses]

    def roots(self, use: str) -> list[Root]:
        """The vendor's own roots for `use` (`verifier.trust.vendors`), then those that --trust-root names for it.

        A root built in for another use is not trusted for this one by being named.
        """
        built_in = {root.spki for root in BUILT_IN_ROOTS}
        wanted = _USE_OF.get(use, use)
        meant = wanted in _MEANT.get(self.kind, ("nvidia", "rim") if self.kind == NVIDIA else ("intel",))
        named = [
            one.anchor
            for one in self.trust_roots
            if one.anchor.spki not in built_in
            and (one.use == wanted or (one.use is None and meant))
            and (wanted != "intel" or one.anchor.is_p256)
        ]
        return [*ROOTS_BY_USE[use], *named]


def kind_of(data: bytes) -> str:
    """The kind that `data` looks like by its first bytes; whether it is one, its verification says.

    Quotes in Intel's format, and whatever looks like nothing known, are "auto": which TEE, the quote says.
    """
    if data[:1] == b"<":
        return RIM
    if looks_like_devices(data):
        return NVIDIA
    if data[:1] == b"{":
        return COMPOSITE if b'"items"' in data else SPDM
    if data.startswith(_PCAPS):
        return SPDM
    if data.startswith(_SPDM_REQUEST):
        return NVIDIA
    # A report's version has four bytes, a quote's two; a quote's third byte is its key type, 2 or 3.
    if data.startswith(_HCL) or (len(data) >= SNP_REPORT_BYTES and struct.unpack_from("<I", data)[0] < 1 << 8):
        return SNP
    return AUTO


def named_roots(labels: Sequence[Root], used: str) -> list[str]:
    """A warning where the root that vouches is not the vendor's own."""
    built_in = {root.label for root in labels}
    return [] if used in built_in else [f"genuine only under a root that --trust-root names: {used}"]
