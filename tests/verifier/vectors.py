"""Real quotes: four carried here, many more beside the checkout where the shared corpus is mounted."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from verifier.trust.roots import INTEL_SGX_ROOT, TrustAnchor, anchor_of

DATA = Path(__file__).parent / "data"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "vectors"


@dataclass(frozen=True)
class Carried:
    """A real quote in this repository; provenance and licence in `data/NOTICE`."""

    file: str
    at_ms: int
    fmspc: str

    @property
    def quote(self) -> bytes:
        return (DATA / self.file).read_bytes()


CARRIED = [
    Carried("tdx_v4-f1c85033.quote.bin", 1_751_624_191_000, "b0c06f000000"),
    Carried("tdx_v4-00b2526a.quote.bin", 1_750_325_734_000, "00806f050000"),
]
"""TDX v4."""

CARRIED_SGX_V3 = Carried("sgx_v3-f8b81014.quote.bin", 1_751_624_924_000, "00a067110000")
CARRIED_TDX_V5 = Carried("tdx_v5-cf77a6e9.quote.bin", 1_771_980_350_000, "90c06f000000")


@cache
def manifest() -> list[dict[str, Any]]:
    """The shared corpus' cases; none where it is not mounted."""
    path = SHARED / "manifest.json"
    if not path.exists():
        return []
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return cases


def shared_tdx_v4() -> list[dict[str, Any]]:
    """Its TDX v4 cases."""
    return [case for case in manifest() if case["evidence_type"] == "tdx_v4"]


def shared_quote(case: dict[str, Any]) -> bytes:
    return (SHARED / case["files"]["quote"]).read_bytes()


def shared_anchors(case: dict[str, Any]) -> list[TrustAnchor]:
    """The root the case names, else Intel's."""
    name = case["files"].get("trust_root")
    if name is None:
        return [INTEL_SGX_ROOT]
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from schemas.records import TrustRoot

    certificate = x509.load_pem_x509_certificate((SHARED / name).read_bytes())
    der = certificate.public_bytes(Encoding.DER)
    return [anchor_of(TrustRoot(label="corpus", tee="tdx", certificate_der=der, simulated=False))]
