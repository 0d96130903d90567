"""Forged and real collateral, and what a platform gets of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from tests.forge.dcap.judge import anchor
from tests.forge.dcap.world import NOW, World
from tests.verifier.corpus import CARRIED, quotes
from verifier.abi.pck import PckExtension, parse_pck_extension
from verifier.abi.pem import split_chain
from verifier.abi.quote import parse_quote
from verifier.trust.certificate import Certificate, parse_certificate
from verifier.trust.chain import build_chain
from verifier.trust.roots import INTEL_SGX_ROOT, TrustAnchor
from verifier.trust.store import Collateral, PlatformCollateral

NOW_MS = NOW * 1000


@dataclass(frozen=True)
class Asking:
    """A platform that asks for collateral: what `select` is given, but the time."""

    tee: str
    fmspc: bytes
    pce_id: bytes
    pck_issuer: Certificate
    anchor: TrustAnchor

    def of(self, held: Collateral, now_ms: int = NOW_MS) -> PlatformCollateral:
        return held.select(
            tee=self.tee,
            fmspc=self.fmspc,
            pce_id=self.pce_id,
            pck_issuer=self.pck_issuer,
            anchor=self.anchor,
            now_ms=now_ms,
        )


def asking(world: World) -> Asking:
    """The platform of a forged world."""
    _, ca, root = world.pck_chain()
    platform = world.platform
    return Asking(world.tee, platform.fmspc, platform.pce_id, parse_certificate(ca), anchor(root))


def held(*worlds: World) -> Collateral:
    """What some worlds deliver, in one set."""
    sets = [Collateral.from_json(world.mint().collateral_json) for world in worlds]
    return sets[0].merged(*sets[1:]) if sets else Collateral.empty()


@dataclass(frozen=True)
class Real:
    """A real set of collateral, the platform it is for, and a time at which all of it is current."""

    name: str
    text: bytes
    asking: Asking
    now_ms: int

    @property
    def json(self) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.text)
        return found


@cache
def real() -> tuple[Real, ...]:
    """The genuine sets that are carried here."""
    found, paths = [], set()
    for case in quotes():
        path, quote_path = case.path("collateral"), case.path("quote")
        trusted = "trust_root" not in case.entry["files"] and case.expected("authentic")["verdict"] == "ok"
        if case.folder not in CARRIED or path is None or quote_path is None or not trusted or path in paths:
            continue
        paths.add(path)
        quote = parse_quote(quote_path.read_bytes())
        ders = split_chain(quote.signature.certification.data)
        chain = build_chain([parse_certificate(der) for der in ders])
        pck = _platform(chain.leaf)
        asks = Asking(quote.tee, pck.fmspc, pck.pce_id, chain.intermediate, INTEL_SGX_ROOT)
        found.append(Real(case.name, path.read_bytes(), asks, case.at * 1000))
    return tuple(found)


def _platform(leaf: Certificate) -> PckExtension:
    assert leaf.pck_extension is not None
    return parse_pck_extension(leaf.pck_extension)


def changed(collateral: dict[str, str], **members: Any) -> Collateral:
    """A set with some members replaced."""
    return Collateral.from_json(json.dumps(collateral | members))
