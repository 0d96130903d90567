"""What is fuzzed: every parser of hostile bytes, whole verifications, and verifications of what was signed anew.

Mutations of genuine evidence mostly end at the first signature. The forged worlds' keys are at hand: their documents,
certificates, lists and quotes are changed and then signed again, so that hostile values reach the steps behind.
"""

from __future__ import annotations

import json
import random
import tomllib
from base64 import b64encode
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from enclavescale.evidence_input import decode_evidence
from tests.forge.dcap.judge import anchor
from tests.verifier import fuzzing_corpus as genuine
from tests.verifier.fuzzing import Seed
from tests.verifier.fuzzing_composite import COMPOSITE_TARGETS
from tests.verifier.fuzzing_nvidia import NVIDIA_TARGETS
from tests.verifier.fuzzing_rim import RIM_TARGETS
from tests.verifier.fuzzing_signed import signed_again
from tests.verifier.fuzzing_snp import SNP_TARGETS
from tests.verifier.fuzzing_spdm import SPDM_TARGETS
from tests.verifier.fuzzing_target import Target, Unsound
from verifier.abi import json as strict_json
from verifier.abi.collateral import parse_enclave_identity, parse_evaluation_numbers, parse_signed, parse_tcb_info
from verifier.abi.pck import parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.claims import Claims
from verifier.errors import VerificationError
from verifier.formats.dcap import verify_quote
from verifier.inventory import take_inventory, to_json
from verifier.policy import quote_file
from verifier.policy.quote import AUTHENTIC, STRICT, parse_quote_policy, quote_rules, quote_warnings
from verifier.trust.certificate import parse_certificate
from verifier.trust.crl import parse_crl
from verifier.trust.roots import INTEL_SGX_ROOT, TrustAnchor
from verifier.trust.store import Collateral
from verifier.verdicts.quote import quote_verdict

APPLIED_POLICY_BYTES = 16 * 1024
"""Policies up to this size are also applied; one of ten thousand platforms is nobody's attack on its own operator."""


MAX_SHOWN_CHARACTERS = 500


# --- Parsers


def _quote(seed: Seed, data: bytes) -> None:
    parsed = parse_quote(data)
    if parsed.encode() != data:
        raise Unsound("a parsed quote is not written as it was read")


def _json(seed: Seed, data: bytes) -> None:
    read = strict_json.loads(data, "document")
    if {key: _plain(value) for key, value in read.items()} != json.loads(data):
        raise Unsound("strict JSON means something else than JSON")


def _plain(value: Any) -> Any:
    """Inner objects, which are pairs until someone reads them, as dicts."""
    if isinstance(value, tuple):
        return {key: _plain(inner) for key, inner in value}
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def _crl(seed: Seed, data: bytes) -> None:
    crl = parse_crl(data)
    crl.revokes(1), crl.revokes(1 << 159)


def _pck(seed: Seed, data: bytes) -> None:
    if parse_pck_extension(data).encode() != data and parse_pck_extension(parse_pck_extension(data).encode()) != (
        parse_pck_extension(data)
    ):
        raise Unsound("a PCK extension changes its meaning when it is written")


def _policy(seed: Seed, data: bytes) -> None:
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):  # a policy file's own parser refuses before us
        return
    if isinstance(table, dict):
        policy = parse_quote_policy(table)
        if len(data) > APPLIED_POLICY_BYTES:
            return
        policy.digest()
        for claims in _claims():
            quote_warnings(policy, claims)
            quote_rules(policy).check(claims)


def _collateral(seed: Seed, data: bytes) -> None:
    _read(Collateral.from_json(data))


def _load(seed: Seed, data: bytes) -> None:
    _read(Collateral.of([data]))


def _inventory(seed: Seed, data: bytes) -> None:
    inventory = take_inventory(Collateral.of([data]), _anchors(), genuine.minted("TDX v4").at * 1000)
    check_shown(to_json(inventory))


@cache
def _anchors() -> tuple[TrustAnchor, ...]:
    return INTEL_SGX_ROOT, anchor(genuine.minted("TDX v4").root)


def check_message(error: VerificationError) -> None:
    """What is said of hostile bytes goes to terminals and logs: short, one line, nothing that steers a terminal."""
    check_shown([str(error), error.field, error.replica().remedy, error.code])


def check_shown(value: Any) -> None:
    """Every text in it can be shown: of bounded length, printable."""
    if isinstance(value, str):
        if len(value) > MAX_SHOWN_CHARACTERS or not value.isprintable():
            raise Unsound(f"a text that nobody should see: {value[:MAX_SHOWN_CHARACTERS]!r}")
    elif isinstance(value, dict):
        check_shown([*value.keys(), *value.values()])
    elif isinstance(value, list | tuple):
        for inner in value:
            check_shown(inner)


def _read(held: Collateral) -> None:
    """Everything of a set that is read only when it is asked for."""
    for one in held.unreadable:
        check_message(one.error)
    if len(held.digest) != 32 or set(held.pck_certificates) - set(held.certificates):
        raise Unsound("a set that does not add up")


@cache
def _claims() -> tuple[Claims, ...]:
    """Verified claims of one TD and one enclave."""
    found = []
    for name in ("TDX v5, TD 1.5", "SGX v3"):
        world = genuine.minted(name)
        now_ms = world.at * 1000
        verified = verify_quote(
            quote=world.quote,
            collateral=Collateral.from_json(world.collateral_json.encode()),
            trust_roots=[anchor(world.root)],
            now_ms=now_ms,
        )
        found.append(Claims(quote=verified, now_ms=now_ms))
    return tuple(found)


# --- Whole verifications


@dataclass(frozen=True)
class Setting:
    """Where evidence is judged: a genuine quote and collateral text, the roots to trust, the moment."""

    quote: bytes
    collateral: bytes
    held: Collateral
    roots: tuple[TrustAnchor, ...]
    at_ms: int


@cache
def settings() -> dict[str, Setting]:
    """Forged worlds by `forge/<name>`, real cases with collateral by name."""
    found = {}
    for name in genuine.WORLDS:
        world = genuine.minted(name)
        text = world.collateral_json.encode()
        found[f"forge/{name}"] = Setting(
            world.quote, text, Collateral.from_json(text), (anchor(world.root),), world.at * 1000
        )
    for case in genuine.real_cases():
        quote, collateral = case.path("quote"), case.path("collateral")
        plain = quote is not None and collateral is not None and case.path("trust_root") is None
        if plain and case.expected("authentic")["verdict"] == "ok":
            text = collateral.read_bytes()
            found[case.name] = Setting(
                quote.read_bytes(), text, Collateral.from_json(text), (INTEL_SGX_ROOT,), case.at * 1000
            )
    return found


@cache
def whole_quotes() -> tuple[Seed, ...]:
    """The quotes of all settings, `group` naming the setting."""
    return tuple(Seed(f"{name}/quote", "quote", one.quote, name) for name, one in settings().items())


@cache
def whole_collateral() -> tuple[Seed, ...]:
    """The collateral of all settings."""
    return tuple(Seed(f"{name}/collateral", "collateral", one.collateral, name) for name, one in settings().items())


@cache
def _signed_parts() -> frozenset[bytes]:
    return frozenset(parse_quote(one.quote).signed_bytes for one in settings().values())


def _judge(setting: Setting, quote: bytes, collateral: Collateral) -> None:
    """Verify, apply both built-in policies, and write the verdict."""
    now_ms, failures, warnings, verified = setting.at_ms, [], (), None
    try:
        verified = verify_quote(quote=quote, collateral=collateral, trust_roots=setting.roots, now_ms=now_ms)
    except VerificationError as error:
        failures = [error]
    else:
        claims = Claims(quote=verified, now_ms=now_ms)
        warnings = quote_warnings(AUTHENTIC, claims)
        failures = quote_rules(AUTHENTIC).failures(claims) + quote_rules(STRICT).failures(claims)
    verdict = quote_verdict(policy=STRICT, now_ms=now_ms, quote=verified, failures=failures, warnings=warnings)
    check_shown(verdict)
    if failures:
        raise failures[0]


def _verify_quote(seed: Seed, data: bytes) -> None:
    setting = settings()[seed.group]
    verified = verify_quote(quote=data, collateral=setting.held, trust_roots=setting.roots, now_ms=setting.at_ms)
    if parse_quote(data).signed_bytes not in _signed_parts() or not verified.windows:
        raise Unsound("a quote that nobody signed was accepted")


@cache
def _genuine_digests() -> frozenset[bytes]:
    found = set()
    for setting in settings().values():
        verified = verify_quote(
            quote=setting.quote, collateral=setting.held, trust_roots=setting.roots, now_ms=setting.at_ms
        )
        found |= {window.digest for window in verified.windows}
    return frozenset(found)


def _verify_collateral(seed: Seed, data: bytes) -> None:
    setting = settings()[seed.group]
    verified = verify_quote(
        quote=setting.quote,
        collateral=Collateral.from_json(data),
        trust_roots=setting.roots,
        now_ms=setting.at_ms,
    )
    if not {window.digest for window in verified.windows} <= _genuine_digests():
        raise Unsound("collateral that nobody signed was accepted")


# --- Signed again


def _sign_again(rng: random.Random, seed: Seed, data: bytes) -> tuple[bytes, bytes]:
    return signed_again(rng, genuine.minted(seed.group.removeprefix("forge/")))


def _genuine_world(seed: Seed) -> tuple[bytes, bytes]:
    world = genuine.minted(seed.group.removeprefix("forge/"))
    return world.quote, world.collateral_json.encode()


def _verify_signed(seed: Seed, data: tuple[bytes, bytes]) -> None:
    quote, collateral = data
    _judge(settings()[seed.group], quote, Collateral.from_json(collateral))


@cache
def forged() -> tuple[Seed, ...]:
    """The forged worlds, by their quotes."""
    return tuple(seed for seed in whole_quotes() if seed.group.startswith("forge/"))


# --- Policies


@cache
def quote_texts() -> tuple[Seed, ...]:
    """Quotes as text: hexadecimal and base64."""
    found = []
    for name in genuine.WORLDS:
        quote = genuine.minted(name).quote
        found += [Seed(f"{name}/hex", "text", quote.hex().encode()), Seed(f"{name}/base64", "bytes", b64encode(quote))]
    return tuple(found)


@cache
def policies() -> tuple[Seed, ...]:
    """Policy files' tables as JSON: the shipped template, and one with every key."""
    template = tomllib.loads(Path(quote_file.__file__).with_name("fleet.toml").read_text())
    bits = {"value": "00" * 8, "mask": "ff" * 8}
    full = {
        "version": 1,
        "tees": ["tdx", "sgx"],
        "report_data": "00" * 64,
        "platforms": ["10111213141516171819" + "1a1b1c1d1e1f"],
        "unsafe_allow_debug": True,
        "tcb": {"accepted_statuses": ["UpToDate", "OutOfDate"], "grace_days": 30, "allowed_advisories": ["INTEL-SA-1"],
                "min_evaluation_number": 3, "judge_current": False},
        "tdx": {"unsafe_allow_sept_ve": True, "unsafe_allow_reserved_bits": False, "allow_migratable": True,
                "service_tds": ["00" * 48], "td_attributes": bits, "xfam": bits},
        "sgx": {"attributes": {"value": "00" * 16, "mask": "ff" * 16}},
        "measurements": [
            {"tee": "tdx", "label": "a", "mrtd": "00" * 48, "rtmr0": {"value": "00" * 48, "mask": "ff" * 48}},
            {"tee": "sgx", "label": "b", "mrenclave": "00" * 32, "mrsigner": "00" * 32, "isvprodid": 7,
             "min_isvsvn": 3},
        ],
    }  # fmt: skip
    return (
        Seed("template", "json", json.dumps(template).encode()),
        Seed("every key", "json", json.dumps(full).encode()),
    )


TARGETS = {
    target.name: target
    for target in (
        Target("quote", genuine.quotes, _quote, 14),
        Target("chain", genuine.chains, lambda seed, data: split_chain(data) and None, 8),
        Target("certificate", genuine.certificates, lambda seed, data: parse_certificate(data) and None, 10),
        Target("pck_extension", genuine.extensions, _pck, 8),
        Target("crl", genuine.crls, _crl, 8),
        Target("json", genuine.tcb_infos, _json, 4),
        Target("tcb_info", genuine.tcb_infos, lambda seed, data: parse_tcb_info(data) and None, 8),
        Target("enclave_identity", genuine.identities, lambda seed, data: parse_enclave_identity(data) and None, 6),
        Target(
            "evaluation_numbers",
            genuine.evaluation_numbers,
            lambda seed, data: parse_evaluation_numbers(data) and None,
            3,
        ),
        Target("signed_document", genuine.envelopes, lambda seed, data: parse_signed(data) and None, 5),
        Target("collateral", genuine.collaterals, _collateral, 6),
        Target("loader", genuine.files, _load, 8),
        Target("inventory", genuine.files, _inventory, 6),
        Target("quote_text", quote_texts, lambda seed, data: decode_evidence(data) and None, 3),
        Target("policy", policies, _policy, 3),
        Target("verify_quote", whole_quotes, _verify_quote, 8),
        Target("verify_collateral", whole_collateral, _verify_collateral, 6),
        Target("verify_signed", forged, _verify_signed, 10, _sign_again, _genuine_world),
        *NVIDIA_TARGETS,
        *RIM_TARGETS,
        *SNP_TARGETS,
        *SPDM_TARGETS,
        *COMPOSITE_TARGETS,
    )
}

DEVICE_PARSERS = frozenset(
    {
        "snp_report", "hcl", "certificate_table", "ek_extensions", "snp_endorsements", "nvidia_report",
        "nvidia_opaque", "dice", "ocsp", "rim", "rim_signature", "spdm_request", "spdm_response", "spdm_chain",
        "spdm_record", "spdm_transcript", "spdm_capture",
    }
    & TARGETS.keys()
)  # fmt: skip
"""Targets that only read bytes of AMD, NVIDIA and SPDM."""

PARSERS = DEVICE_PARSERS | {
    "quote", "chain", "certificate", "pck_extension", "crl", "tcb_info", "enclave_identity", "signed_document",
}  # fmt: skip
"""Targets that only read bytes: each gets half a million inputs in `make accept`."""
