"""Fuzz targets of NVIDIA evidence: reports, opaque data, DICE extensions, OCSP responses, whole verifications.

Reports are also changed and signed again: the forged device's key is at hand, so that hostile values reach the steps
behind the signature.
"""

from __future__ import annotations

import random
from functools import cache

from tests.forge.nvidia.certificates import raw as raw_signature
from tests.forge.nvidia.certificates import sign
from tests.forge.nvidia.judge import EVERYTHING, root_of
from tests.forge.nvidia.world import BLACKWELL, HOPPER, LS10, NONCE, Minted, composite, tcb_info
from tests.verifier.fuzzing import Seed
from tests.verifier.fuzzing_reports import mutate_report
from tests.verifier.fuzzing_target import Target, Unsound
from verifier.abi.dice import parse_dice
from verifier.abi.nvidia import parse_nvidia_report
from verifier.abi.nvidia_opaque import parse_opaque, read_facts
from verifier.abi.ocsp import parse_ocsp
from verifier.formats.nvidia import verify_nvidia_report
from verifier.policy.nvidia import check_devices, nvidia_rules, nvidia_warnings
from verifier.trust.certificate import parse_certificate

WORLDS = {"Hopper": HOPPER, "Blackwell": BLACKWELL, "LS10": LS10}
SIGNATURE_BYTES = 96


@cache
def minted(name: str) -> Minted:
    """A forged device, made once."""
    return WORLDS[name].mint()


@cache
def reports() -> tuple[Seed, ...]:
    return tuple(Seed(name, "nvidia", minted(name).report, name) for name in WORLDS)


@cache
def opaque_data() -> tuple[Seed, ...]:
    found = []
    for name in WORLDS:
        parsed = parse_nvidia_report(minted(name).report)
        found.append(Seed(name, "opaque", b"".join(field.encode() for field in parsed.opaque), name))
    return tuple(found)


@cache
def extensions() -> tuple[Seed, ...]:
    return (Seed("device id", "der", composite(HOPPER)), Seed("TCB info", "der", tcb_info(bytes(48), bytes(48))))


@cache
def responses() -> tuple[Seed, ...]:
    return tuple(
        Seed(f"{name}/{at}", "der", data, name) for name in WORLDS for at, data in enumerate(minted(name).ocsp)
    )


# --- Parsers


def _report(seed: Seed, data: bytes) -> None:
    parsed = parse_nvidia_report(data)
    if parsed.encode() != data:
        raise Unsound("a parsed report is not written as it was read")
    if len(parsed.measurements()) != len(parsed.blocks):
        raise Unsound("two blocks of one index")
    read_facts(parsed.opaque, "switch" if seed.group == "LS10" else "gpu")


def _opaque(seed: Seed, data: bytes) -> None:
    fields = parse_opaque(data)
    if b"".join(field.encode() for field in fields) != data:
        raise Unsound("parsed opaque data is not written as it was read")
    read_facts(fields, "switch" if seed.group == "LS10" else "gpu")


def _dice(seed: Seed, data: bytes) -> None:
    if parse_dice(data).encode() != data:
        raise Unsound("a parsed DICE extension is not written as it was read")


def _ocsp(seed: Seed, data: bytes) -> None:
    parsed = parse_ocsp(data)
    if parsed.encode_tbs() != parsed.tbs:
        raise Unsound("a parsed OCSP response is not written as it was read")


# --- Verification


@cache
def _signed_parts() -> frozenset[bytes]:
    return frozenset(minted(name).report[:-SIGNATURE_BYTES] for name in WORLDS)


def _verify_report(seed: Seed, data: bytes) -> None:
    _verified(seed, data, minted(seed.group).ocsp)
    if data[:-SIGNATURE_BYTES] not in _signed_parts():
        raise Unsound("a report that nobody signed was accepted")


def _verify_answer(seed: Seed, data: bytes) -> None:
    world = minted(seed.group)
    at = int(seed.name.rpartition("/")[2])
    answers = (*world.ocsp[:at], data, *world.ocsp[at + 1 :])
    if _verified(seed, world.report, answers) == "checked" and parse_ocsp(data).tbs != parse_ocsp(seed.data).tbs:
        raise Unsound("an answer that nobody signed was believed")


def _verified(seed: Seed, report: bytes, answers: tuple[bytes, ...]) -> str:
    """State of revocation after verification under every rule but that one."""
    world = minted(seed.group)
    device = verify_nvidia_report(
        report=report,
        certificates=[parse_certificate(one) for one in world.chain],
        trust_roots=[root_of(world.root)],
        now_ms=world.at * 1000,
        nonce=NONCE,
        rims=world.rims,
        ocsp=[parse_ocsp(one) for one in answers],
    )
    nvidia_warnings(EVERYTHING, device)
    nvidia_rules(EVERYTHING).failures(device)
    check_devices([device])
    return device.revocation.state


def _sign_again(rng: random.Random, seed: Seed, data: bytes) -> bytes:
    signed = mutate_report(rng, seed.data, seed.data)[:-SIGNATURE_BYTES]
    return signed + raw_signature(sign(WORLDS[seed.group].leaf.key, signed))


def _verify_signed(seed: Seed, data: bytes) -> None:
    _verified(seed, data, minted(seed.group).ocsp)


NVIDIA_TARGETS = (
    Target("nvidia_report", reports, _report, 8),
    Target("nvidia_opaque", opaque_data, _opaque, 6),
    Target("dice", extensions, _dice, 6),
    Target("ocsp", responses, _ocsp, 8),
    Target("verify_nvidia", reports, _verify_report, 4),
    Target("verify_ocsp", responses, _verify_answer, 4),
    Target("verify_nvidia_signed", reports, _verify_signed, 4, _sign_again),
)
