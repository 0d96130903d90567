"""Verifications per second on one core of AMD, NVIDIA and SPDM evidence, beside the ceiling of the same run.

`python benchmarks/evidence.py [--rounds N] [--slice-ms N]` prints one JSON object. Rates are per second of CPU time,
medians over rounds in which every contender runs once; ratios are medians of the ratios inside a round. The ceiling
is as many verifications of a P-384 signature as the evidence carries signatures of its own; the transcript on P-256,
whose own ceiling is given too, can pass it. The cases are real ones but for SPDM's, which DMTF's emulator made; all are
carried in `tests/verifier/data/devices`.

uncached    certificates and manifests parsed and everything verified from its bytes; remembered is only that a pinned
            root signed itself
cached      the same `PathCache` as before; times, nonces and the evidence's own signatures are checked each time
shelf       manifests only: one that the `RimShelf` holds verified, as a verifier of sessions keeps them
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from verify import medians, peak_kib, rates

from verifier.abi.pem_blocks import split_blocks
from verifier.formats.nvidia import verify_nvidia_report
from verifier.formats.rim import verify_rim
from verifier.formats.snp import verify_snp_report
from verifier.formats.spdm import verify_spdm_transcript
from verifier.formats.spdm_reading import read_transcript
from verifier.trust.certificate import Certificate, forget_certificates, parse_certificate
from verifier.trust.path import PathCache
from verifier.trust.roots import Root
from verifier.trust.vendors import ROOTS_BY_USE
from verifier.vendor_collateral import RimShelf

DATA = Path(__file__).resolve().parents[1] / "tests" / "verifier" / "data" / "devices"
CASES = {
    "snp_v2_milan": "snp-v2-milan-trustee-7c614616",
    "snp_v3_genoa": "snp-v3-genoa-trustee-227a641d",
    "snp_v3_vlek": "snp-v3-milan-trustee-decdab94",
    "snp_v5_turin": "snp-v5-turin-mstav-85da705e",
    "nvidia_hopper": "nv-hopper-nvtrust-c438e7e7",
    "nvidia_blackwell": "nv-blackwell-nvsdk-5fec340f",
    "nvidia_ls10": "nv-ls10-nvtrust-e73d384a",
    "nvidia_rim": "nvrim-NV_GPU_DRIVER_GH100_550.144.03",
    "spdm_12_p384": "spdm-spdm12_ecdsa_p384_all",
    "spdm_13_p256": "spdm-spdm13_ecdsa_p256_all",
}
"""What is verified, and its case in the manifest."""

WANTED = 0.7
"""Of the ceiling, with the chain cached."""


@dataclass(frozen=True)
class Case:
    """A case of the manifest with its files' bytes; `at` is Unix seconds."""

    entry: dict[str, Any]

    def read(self, what: str) -> bytes:
        """The bytes of one of its files."""
        return (DATA / self.entry["files"][what]).read_bytes()

    @property
    def now_ms(self) -> int:
        """The moment it is judged at."""
        return int(self.entry["at"]) * 1000

    @property
    def roots(self) -> list[Root]:
        """The root it names, for evidence without a vendor's."""
        found = parse_certificate(self.read("trust_root"))
        return [Root(label="named", spki=found.spki, simulated=False)]


def case_of(name: str) -> Case:
    """The case of the manifest called `name`."""
    cases = json.loads((DATA / "manifest.json").read_text())["cases"]
    return Case(next(case for case in cases if case["id"] == name))


def snp(case: Case, seen: PathCache | None) -> Any:
    """One verification of an SNP report, certificates parsed anew without a cache."""
    chain = [parse_certificate(case.read(what)) for what in ("ek_cert", "ask", "ark")]
    report, roots = case.read("report"), ROOTS_BY_USE["snp"]

    def verify(certificates: list[Certificate]) -> Any:
        return verify_snp_report(
            report=report, endorsements=certificates, crls=(), trust_roots=roots, now_ms=case.now_ms, chains_seen=seen
        )

    ders = [one.der for one in chain]
    return (lambda: verify(chain)) if seen is not None else lambda: verify([parse_certificate(der) for der in ders])


def nvidia(case: Case, seen: PathCache | None) -> Any:
    """One verification of a GPU's or switch's report."""
    ders = [der for _, der in split_blocks(case.read("cert_chain"), "chain")]
    chain, report = [parse_certificate(der) for der in ders], case.read("report")
    nonce, roots = bytes.fromhex(case.entry["nonce"]), ROOTS_BY_USE["nvidia"]

    def verify(certificates: list[Certificate]) -> Any:
        return verify_nvidia_report(
            report=report, certificates=certificates, trust_roots=roots, now_ms=case.now_ms, nonce=nonce,
            chains_seen=seen,
        )  # fmt: skip

    return (lambda: verify(chain)) if seen is not None else lambda: verify([parse_certificate(der) for der in ders])


def rim(case: Case, seen: PathCache | None) -> Any:
    """One verification of a manifest."""
    data, roots = case.read("rim"), ROOTS_BY_USE["rim"]
    return lambda: verify_rim(data=data, trust_roots=roots, now_ms=case.now_ms, chains_seen=seen)


def shelf(case: Case) -> Callable[[], Any]:
    """One look at a manifest that is verified already; its validity is compared with the time by whoever asks."""
    held, data, roots = RimShelf(), case.read("rim"), ROOTS_BY_USE["rim"]
    held.get(data, roots)
    return lambda: held.get(data, roots)


def spdm(case: Case, seen: PathCache | None) -> Any:
    """One verification of a transcript, read from its JSON."""
    data, roots = case.read("transcript"), case.roots
    return lambda: verify_spdm_transcript(
        messages=read_transcript(data), trust_roots=roots, now_ms=case.now_ms, chains_seen=seen
    )


_MAKERS: dict[str, Callable[[Case, PathCache | None], Any]] = {"snp": snp, "nvidia": nvidia, "spdm": spdm}


def maker_of(name: str) -> Callable[[Case, PathCache | None], Any]:
    """What verifies a case of this name."""
    return rim if name == "nvidia_rim" else _MAKERS[name.partition("_")[0]]


def ceiling(curve: ec.EllipticCurve, hashed: SHA256 | SHA384) -> Callable[[], Any]:
    """One verification over 1 KB, the key at hand."""
    key, message = ec.generate_private_key(curve), bytes(1024)
    algorithm = ec.ECDSA(hashed)
    signature, public = key.sign(message, algorithm), key.public_key()
    return lambda: public.verify(signature, message, algorithm)


def measure(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Rates, ratios and memory of one case."""
    case, make, cache = case_of(CASES[name]), maker_of(name), PathCache()
    anew = make(case, None)

    def uncached() -> Any:
        forget_certificates()
        return anew()

    functions = {"uncached": uncached, "cached": make(case, cache)}
    if name == "nvidia_rim":
        functions["shelf"] = shelf(case)
    signatures = len(functions["cached"]().events) if name.startswith("spdm") else 1
    judged = "shelf" if "shelf" in functions else "cached"
    alone = {"ceiling": ceiling(ec.SECP384R1(), SHA384())}
    if name.endswith("p256"):
        alone["p256_ceiling"] = ceiling(ec.SECP256R1(), SHA256())
    memory = {what: peak_kib(function) for what, function in functions.items()}
    by_round = rates(functions | alone, rounds, seconds)
    found = medians(by_round)

    def ratio(what: str) -> float:
        pairs = sorted(rate * signatures / base for rate, base in zip(by_round[what], by_round["ceiling"], strict=True))
        return round(pairs[len(pairs) // 2], 3)

    return {
        "signatures": signatures,
        "per_s": {what: round(rate) for what, rate in found.items()},
        "us": {what: round(1e6 / rate, 1) for what, rate in found.items()},
        "uncached_to_ceiling": ratio("uncached"),
        "cached_to_ceiling": ratio("cached"),
        "met": ratio(judged) >= WANTED,
        "peak_kib": memory,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--slice-ms", type=int, default=50)
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    found = {name: measure(name, options.rounds, options.slice_ms / 1000) for name in CASES}
    result = {
        "cases": found,
        "wanted_cached_to_ceiling": WANTED,
        "met": all(one["met"] for one in found.values()),
        "rounds": options.rounds,
        "slice_ms": options.slice_ms,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("cryptography", "lxml")},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
