"""Fuzz targets of a whole host's evidence: its file, its items in any order and under any name, policies on it."""

from __future__ import annotations

import json
import random
import tomllib
from collections.abc import Sequence
from functools import cache

from schemas.records import EvidenceItem
from tests.forge.composite.world import GENUINE, NOW, Minted, mint
from tests.forge.dcap.judge import anchor
from tests.verifier.fuzzing import Seed, mutate
from tests.verifier.fuzzing_target import Target, Unsound
from tests.verifier.test_policy_composite import FULL, TEMPLATE
from verifier.abi.composite import CompositeFile, parse_composite
from verifier.claims import CompositeClaims
from verifier.composite import Memory, verify_composite
from verifier.policy.composite import composite_rules, composite_warnings, expectations_of
from verifier.policy.grade import earned_grade
from verifier.policy.quote import AUTHENTIC, STRICT, parse_quote_policy
from verifier.trust.certificate import parse_certificate
from verifier.trust.roots import Root

KINDS = (
    "tdx_quote_v4", "tdx_quote_v5", "sgx_quote_v3", "snp_report", "snp_certificates", "nvidia_gpu_report",
    "nvidia_gpu_certificates", "spdm_transcript", "tpm_quote", "",
)  # fmt: skip
UNDERSTOOD = {
    "tdx_quote_v4": "quote", "snp_report": "snp", "snp_certificates": "der", "nvidia_gpu_report": "nvidia",
    "nvidia_gpu_certificates": "pem", "spdm_transcript": "transcript",
}  # fmt: skip
MEMORY = Memory()
_JUDGED = tuple(GENUINE)[:2]
"""Hosts that policies are applied to."""


@cache
def minted(name: str) -> Minted:
    """The genuine host of that name, made once."""
    return mint(GENUINE[name][0])


@cache
def roots(name: str) -> dict[str, list[Root]]:
    """The roots its evidence hangs on."""
    ders = minted(name).roots
    found: dict[str, list[Root]] = {
        use: [Root(label="forge", spki=parse_certificate(der).spki, simulated=False)] for use, der in ders.items()
    }
    if "tdx" in ders:
        found["tdx"] = [anchor(ders["tdx"])]
    return found


@cache
def hosts() -> tuple[Seed, ...]:
    """Files of composite evidence, with and without a binding."""
    found = []
    for name in GENUINE:
        one = minted(name)
        for binding in (one.binding_bytes, None):
            found.append(Seed(f"{name}/{binding is None}", "json", CompositeFile(one.items, binding).encode(), name))
    return tuple(found)


@cache
def policies() -> tuple[Seed, ...]:
    """Policies on guests and devices as JSON."""
    for name in _JUDGED:  # made here, so that no input is charged for it
        _genuine(name)
    template = tomllib.loads(TEMPLATE.read_text())
    return tuple(
        Seed(name, "json", json.dumps(one).encode()) for name, one in (("every key", FULL), ("template", template))
    )


def _file(seed: Seed, data: bytes) -> None:
    parsed = parse_composite(data)
    if parse_composite(parsed.encode()) != parsed:
        raise Unsound("a composite file changes its meaning when it is written")


def _judge(name: str, items: Sequence[EvidenceItem]) -> None:
    one = minted(name)
    found = verify_composite(
        items=items, collateral=one.collateral, trust_roots=roots(name), now_ms=NOW * 1000, memory=MEMORY
    )
    claims = CompositeClaims(cpu=found.cpu, devices=found.devices, now_ms=NOW * 1000, binding=one.binding, tied=True)
    for policy in (AUTHENTIC, STRICT, parse_quote_policy(FULL)):
        composite_rules(policy).failures(claims)
        composite_warnings(policy, claims, nonces=found.nonces)
    signed = {device.key_digest.hex() for device in found.devices}
    if len(signed) != len(found.devices) or not signed <= _keys():
        raise Unsound("a device stands twice, or nobody forged its key")


@cache
def _keys() -> frozenset[str]:
    """Of every host: one's evidence may stand in another's place where no CPU says what nonces must be."""
    return frozenset(one.hex() for host, _ in GENUINE.values() for one in host.digests())


def _verify(seed: Seed, data: bytes) -> None:
    _judge(seed.group, parse_composite(data).items)


def _rearranged(rng: random.Random, seed: Seed, data: bytes) -> list[EvidenceItem]:
    """Genuine items lost, doubled, renamed, relabelled, exchanged with another host's, one of them damaged."""
    items = list(minted(seed.group).items)
    others = minted(rng.choice(tuple(GENUINE))).items
    for _ in range(rng.randint(1, 4)):
        if not items:
            break
        at, choice = rng.randrange(len(items)), rng.randrange(7)
        one = items[at]
        if choice == 0:
            items.pop(at)
        elif choice == 1:
            items.insert(rng.randrange(len(items) + 1), one)
        elif choice == 2:
            rng.shuffle(items)
        elif choice == 3:
            subject = rng.choice([None, "", "GPU-0", "GPU-1", "x" * 129, "\x1b[2J", "\ud800"])
            items[at] = EvidenceItem(kind=one.kind, data=one.data, subject=subject)
        elif choice == 4:
            items[at] = EvidenceItem(kind=rng.choice(KINDS), data=one.data, subject=one.subject)
        elif choice == 5:
            items[at] = rng.choice(others)
        else:
            kind = UNDERSTOOD.get(one.kind, "bytes")
            items[at] = EvidenceItem(
                kind=one.kind, data=mutate(rng, kind, one.data, rng.choice(others).data), subject=one.subject
            )
    return items


def _verify_rearranged(seed: Seed, data: list[EvidenceItem]) -> None:
    _judge(seed.group, data)


def _policy(seed: Seed, data: bytes) -> None:
    try:
        table = json.loads(data)
    except (ValueError, RecursionError):  # a policy file's own parser refuses before us
        return
    if isinstance(table, dict):
        policy = parse_quote_policy(table)
        policy.digest()
        for name in _JUDGED:
            found = _genuine(name)
            composite_rules(policy).failures(found)
            grade, _ = earned_grade(found, expectations_of(policy))
            if grade != "NONE" and policy.devices is not None and not policy.devices.key_digests:
                raise Unsound("a grade for devices that nobody enrolled")


@cache
def _genuine(name: str) -> CompositeClaims:
    one = minted(name)
    found = verify_composite(
        items=one.items, collateral=one.collateral, trust_roots=roots(name), now_ms=NOW * 1000, memory=MEMORY
    )
    return CompositeClaims(cpu=found.cpu, devices=found.devices, now_ms=NOW * 1000, binding=one.binding, tied=True)


COMPOSITE_TARGETS = (
    Target("composite_file", hosts, _file, 4),
    Target("verify_composite", hosts, _verify, 2),
    Target(
        "verify_composite_rearranged", hosts, _verify_rearranged, 2, _rearranged,
        lambda seed: list(minted(seed.group).items),
    ),
    Target("device_policy", policies, _policy, 4),
)  # fmt: skip
