"""Fuzzing of reference integrity manifests: parsers, whole verifications, and documents that are signed anew."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from lxml import etree

from tests.forge.rim.judge import root_of
from tests.forge.rim.world import DRIVER, NOW, OPERATOR, SWITCH, VBIOS, World, value_of
from tests.verifier.corpus import cases
from tests.verifier.fuzzing import Seed
from tests.verifier.fuzzing_target import Target, Unsound
from tests.verifier.fuzzing_xml import mutate_xml
from verifier.abi.rim import RimDocument, parse_rim
from verifier.abi.xmldsig import parse_signed_xml
from verifier.formats.rim import verify_rim
from verifier.formats.rim_compare import compare
from verifier.trust.path import PathCache
from verifier.trust.rim_root import NVIDIA_RIM_ROOT

WORLDS: dict[str, World] = {"driver": DRIVER, "vbios": VBIOS, "switch": SWITCH, "operator": OPERATOR}
PATHS = PathCache(64)


@cache
def manifests() -> tuple[Seed, ...]:
    """Forged worlds by `forge/<name>`, real manifests by the corpus' name; `group` is the moment of judgement."""
    found = [Seed(f"forge/{name}", "xml", world.mint(), str(NOW)) for name, world in WORLDS.items()]
    for case in cases():
        path = case.path("rim")
        if path is not None and case.entry["expected"]["verdict"] == "ok":
            found.append(Seed(case.name, "xml", path.read_bytes(), str(case.at)))
    return tuple(found)


@cache
def forged() -> tuple[Seed, ...]:
    """The forged worlds' documents without their signatures, by world."""
    return tuple(Seed(f"forge/{name}/body", "xml", world.text().encode(), name) for name, world in WORLDS.items())


@cache
def _genuine() -> frozenset[RimDocument]:
    return frozenset(parse_rim(seed.data) for seed in manifests())


@cache
def _roots() -> tuple[Any, ...]:
    return NVIDIA_RIM_ROOT, *(root_of(world) for world in WORLDS.values())


def _rim(seed: Seed, data: bytes) -> None:
    document = parse_rim(data)
    if parse_rim(document.encode()) != document:
        raise Unsound("a manifest changes its meaning when it is written")


def _signed_xml(seed: Seed, data: bytes) -> None:
    signed = parse_signed_xml(data)
    if len(signed.digest) != 48 or len(signed.signature) != 96 or b"<ds:Signature " in signed.content:
        raise Unsound("a signed document of another form")


def _verify(seed: Seed, data: bytes) -> None:
    found = verify_rim(data=data, trust_roots=_roots(), now_ms=int(seed.group) * 1000, chains_seen=PATHS)
    if found.document not in _genuine():
        raise Unsound("a manifest that nobody signed was accepted")


def _sign_again(rng: random.Random, seed: Seed, data: bytes) -> bytes:
    """The world's manifest with a changed document, SignedInfo or signature, each signed as far as it can be."""
    world = WORLDS[seed.group]

    def changed(text: str) -> str:
        return mutate_xml(rng, text.encode(), text.encode()).decode("utf-8", "replace")

    kind = rng.randrange(8)
    change: dict[str, Any] = (
        {"body": changed} if kind < 5 else {"info": changed} if kind < 7 else {"signature": changed}
    )
    try:
        return world.but(**change).mint()
    except (ValueError, IndexError, etree.LxmlError):  # not well-formed, or without what is signed
        return data


def _verify_signed(seed: Seed, data: bytes) -> None:
    world = WORLDS[seed.group]
    found = verify_rim(data=data, trust_roots=[root_of(world)], now_ms=NOW * 1000, chains_seen=PATHS)
    document = found.document
    if document.encode() != parse_rim(document.encode()).encode() or not document.golden:
        raise Unsound("a manifest that says nothing definite")
    compared = compare(
        {index + 1: value_of(index) for index in range(64)},
        [found],
        driver_version=document.version,
        vbios_version=document.version,
        edition=document.edition,
    )
    if compared is None or compared.outcome not in ("match", "mismatch"):
        raise Unsound("a comparison without an outcome")


RIM_TARGETS = (
    Target("rim", manifests, _rim, 8),
    Target("rim_signature", manifests, _signed_xml, 8),
    Target("verify_rim", manifests, _verify, 8),
    Target("verify_rim_signed", forged, _verify_signed, 6, _sign_again, lambda seed: WORLDS[seed.group].mint()),
)
"""Entrances for hostile manifests."""
