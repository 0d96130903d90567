"""DCAP verifications per second on one core, beside dcap-qvl's (Rust) and the ceiling of the same run: P-256 alone.

`python benchmarks/verify.py [--rounds N] [--slice-ms N] [--profile]` prints one JSON object; with `--profile` a table
of where an uncached verification spends its time. Rates are per second of CPU time, medians over rounds in which
every contender runs once; ratios are medians of the ratios inside a round. The cases are real ones, carried in
`tests/verifier/data/corpus`.

uncached    collateral parsed and everything verified from its bytes; remembered are only parsed certificates of issuers
            and signers, and that a pinned root signed itself
cached      the same `Collateral` and `ChainCache` as before; times, revocation and the quote are checked each time
session     a hit in the `SessionCache`
"""

from __future__ import annotations

import argparse
import cProfile
import json
import os
import platform
import pstats
import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import dcap_qvl
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from attester.session import Session
from attester.signing import public_point
from attester.simulated import SimulatedTee, simulated_measurement, simulated_platform_id
from enclavescale.fleet import AGGREGATOR_ID, AGGREGATOR_IMAGE, demo_fleet
from schemas.codec import report_data_of
from stream_jobs.policy_store import PolicyTrust
from stream_jobs.worker import WorkerConfig, aggregator_binding
from verifier.cache import SessionCache
from verifier.formats.dcap import verify_quote
from verifier.trust.pck_chain import ChainCache
from verifier.trust.roots import INTEL_SGX_ROOT
from verifier.trust.store import Collateral

CORPUS = Path(__file__).resolve().parents[1] / "tests" / "verifier" / "data" / "corpus"
CASES = {
    "tdx_v4": "tdx_v4-dcapqvl-f1c85033-e17",
    "tdx_v5": "tdx_v5-gotdx-cf77a6e9-e18",
    "sgx_v3": "sgx_v3-dcapqvl-f8b81014-e17",
}
"""What is verified, and its case in the corpus' manifest."""

FULL_VERIFICATIONS = 9
"""P-256 verifications of a full verification: PCK CA and PCK, TCB signer, two documents, two CRLs, QE report, quote."""

CACHED_VERIFICATIONS = 2
"""What no cache saves: QE report and quote."""

WANTED = {"uncached_to_dcap_qvl": 0.5, "cached_to_dcap_qvl": 3.0}
ROOTS = (INTEL_SGX_ROOT,)


@dataclass(frozen=True)
class Case:
    """A real quote, the collateral of its day, and the moment it is judged at (Unix seconds)."""

    quote: bytes
    collateral: str
    at: int


def read(name: str) -> Case:
    """The case of the corpus called `name`."""
    cases = json.loads((CORPUS / "manifest.json").read_text())["cases"]
    found = next(case for case in cases if case["id"] == name)
    files = found["files"]
    return Case((CORPUS / files["quote"]).read_bytes(), (CORPUS / files["collateral"]).read_text(), found["at"])


def contenders(case: Case) -> dict[str, Callable[[], Any]]:
    """What is measured for a case, by name."""
    quote, body, now_ms = case.quote, case.collateral.encode(), case.at * 1000
    peer = dcap_qvl.QuoteCollateralV3.from_json(case.collateral)
    collateral, chains = Collateral.from_json(body), ChainCache()

    def uncached() -> Any:
        return verify_quote(quote=quote, collateral=Collateral.from_json(body), trust_roots=ROOTS, now_ms=now_ms)

    def cached() -> Any:
        return verify_quote(quote=quote, collateral=collateral, trust_roots=ROOTS, now_ms=now_ms, chains_seen=chains)

    return {
        "dcap_qvl": lambda: dcap_qvl.verify(quote, peer, case.at),
        "uncached": uncached,
        "cached": cached,
        "parse_collateral": lambda: Collateral.from_json(body),
    }


def p256() -> Callable[[], Any]:
    """One P-256 verification over 384 bytes, the key at hand."""
    key, message = ec.generate_private_key(ec.SECP256R1()), bytes(384)
    signature, public, algorithm = key.sign(message, ec.ECDSA(SHA256())), key.public_key(), ec.ECDSA(SHA256())
    return lambda: public.verify(signature, message, algorithm)


def session_hit() -> Callable[[], Any]:
    """A verdict that a `SessionCache` remembers."""
    now_ms = int(time.time() * 1000)
    tee = SimulatedTee.create(
        platform_id=simulated_platform_id(AGGREGATOR_ID), mrtd=simulated_measurement(AGGREGATOR_IMAGE)
    )
    fleet = demo_fleet(tee, hosts=2, gpus=8, window_ms=10_000, now_ms=now_ms, create_time=True)
    signer = public_point(ec.generate_private_key(ec.SECP256R1()).public_key())
    config = WorkerConfig(
        kafka={}, host_id=AGGREGATOR_ID, group="benchmark", provider=tee, trust=PolicyTrust((signer,))
    )
    session, cache = Session(tee, aggregator_binding(config, None, now_ms)), SessionCache()
    arguments: dict[str, Any] = {
        "evidence": session.evidence,
        "binding_bytes": session.binding_bytes,
        "report_data": report_data_of(session.binding_bytes),
        "session_id": session.session_id,
        "policy": fleet.policy,
        "policy_digest": bytes(32),
        "role": "aggregator",
        "now_ms": now_ms,
    }
    cache.verify(**arguments)
    return lambda: cache.verify(**arguments)


def per_second(function: Callable[[], Any], seconds: float) -> float:
    """Calls per second of CPU time, measured over about `seconds`."""
    calls, clock = 0, time.process_time
    begin = clock()
    end = begin + seconds
    while True:
        function()
        calls += 1
        now = clock()
        if now >= end:
            return calls / (now - begin)


def rates(functions: dict[str, Callable[[], Any]], rounds: int, seconds: float) -> dict[str, list[float]]:
    """Rates of each by round; every round measures every one, so that a slow second slows all of them."""
    for function in functions.values():
        per_second(function, seconds)
    found: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            found[name].append(per_second(function, seconds))
    return found


def medians(found: dict[str, list[float]]) -> dict[str, float]:
    """Median rate of each."""
    return {name: statistics.median(values) for name, values in found.items()}


def peak_kib(function: Callable[[], Any]) -> int:
    """Largest memory Python held for one call, KiB."""
    function()
    tracemalloc.start()
    function()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return round(peak / 1024)


def ratios(found: dict[str, list[float]]) -> dict[str, float]:
    """What the rates are judged by: medians of the ratios inside a round, which a slow second does not touch."""

    def ratio(one: str, other: str, verifications: int = 1) -> float:
        pairs = zip(found[one], found[other], strict=True)
        return round(statistics.median(rate * verifications / base for rate, base in pairs), 3)

    return {
        "uncached_to_dcap_qvl": ratio("uncached", "dcap_qvl"),
        "cached_to_dcap_qvl": ratio("cached", "dcap_qvl"),
        "uncached_to_ceiling": ratio("uncached", "p256", FULL_VERIFICATIONS),
        "cached_to_ceiling": ratio("cached", "p256", CACHED_VERIFICATIONS),
        "dcap_qvl_to_ceiling": ratio("dcap_qvl", "p256", FULL_VERIFICATIONS),
    }


def measure(case: Case, rounds: int, seconds: float) -> dict[str, Any]:
    """Rates, times, ratios and memory of one case."""
    functions = contenders(case)
    memory = {name: peak_kib(functions[name]) for name in ("uncached", "cached")}
    by_round = rates(functions | {"p256": p256()}, rounds, seconds)
    found, relations = medians(by_round), ratios(by_round)
    return {
        "bytes": {"quote": len(case.quote), "collateral": len(case.collateral)},
        "per_s": {name: round(rate) for name, rate in found.items()},
        "us": {name: round(1e6 / rate, 1) for name, rate in found.items()},
        "ratios": relations,
        "met": {name: relations[name] >= least for name, least in WANTED.items()},
        "peak_kib": memory,
    }


def profile(calls: int) -> None:
    """Print where uncached verifications spend their time."""
    for name, case in CASES.items():
        function = contenders(read(case))["uncached"]
        function()
        profiler = cProfile.Profile()
        profiler.enable()
        for _ in range(calls):
            function()
        profiler.disable()
        print(f"== {name}: {calls} uncached verifications (cProfile itself takes time for every call)")
        pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--slice-ms", type=int, default=50)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--calls", type=int, default=300, help="verifications under --profile")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if options.profile:
        profile(options.calls)
        return
    seconds = options.slice_ms / 1000
    found = {name: measure(read(case), options.rounds, seconds) for name, case in CASES.items()}
    session = medians(rates({"session": session_hit(), "p256": p256()}, options.rounds, seconds))
    result = {
        "cases": found,
        "session_hit_per_s": round(session["session"]),
        "p256_per_s": round(session["p256"]),
        "wanted": WANTED,
        "met": all(all(one["met"].values()) for one in found.values()),
        "rounds": options.rounds,
        "slice_ms": options.slice_ms,
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in ("cryptography", "dcap-qvl")},
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
