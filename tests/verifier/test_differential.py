"""We and dcap-qvl say the same of the same evidence, or disagree for a reason that docs/differential.md gives."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from tests.forge.dcap.cases_genuine import GENUINE_CASES
from tests.forge.dcap.comparison import Comparison, compare, compare_evidence
from tests.forge.dcap.disagreements import CLASSES, Class, classes_of
from tests.forge.dcap.judge import Case as Forged
from tests.forge.dcap.mutant import Mutant
from tests.forge.dcap.mutants import FAMILIES, mutants
from tests.forge.dcap.peer import Peer
from tests.forge.dcap.test_hostile import CASES, ITEMS
from tests.forge.dcap.world import GENUINE, NOW, Minted, bounded
from tests.house.source import ROOT
from tests.results import write_result
from tests.verifier.corpus import Case, quotes
from verifier.trust.certificate import parse_certificate

PAGE = (ROOT / "docs" / "differential.md").read_text()
COUNT = {"test": 2_000, "soak": 20_000, "accept": 100_000}[os.environ.get("ENCLAVESCALE_TIER", "test")]
SEED = int(os.environ.get("ENCLAVESCALE_DIFFERENTIAL_SEED", "1"))
SHAPES_OF_BOTH = ("SGX v3", "TDX v4", "TDX v5, TD 1.0", "TDX v5, TD 1.5", "TDX v5, TD 1.5 extended")

OURS_ALONE = ("NO_TRUST_ROOTS", "TCB_UNEVALUATED", "COLLATERAL_MISSING")
"""Codes of cases whose lie is in what the caller gives us."""

WITH_COLLATERAL = [case for case in quotes() if case.path("collateral") is not None]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    with Peer() as one:
        yield one


def explained(one: Comparison) -> str | None:
    """The class of a disagreement, None for an agreement; anything but exactly one class fails."""
    if one.agrees:
        return None
    names = classes_of(one)
    assert len(names) == 1, f"{len(names)} classes {names} for\n{one}"
    return names[0]


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def evidence(case: Case) -> tuple[Minted, tuple[bytes, ...]]:
    """A case of the corpus as both are asked about it, and the endorsements that only we are given."""
    files = {what: path.read_bytes() for what in case.entry["files"] if (path := case.path(what)) is not None}
    minted = Minted(
        quote=files["quote"],
        collateral=json.loads(files["collateral"]),
        root=der(files["trust_root"]) if "trust_root" in files else b"",
        at=case.at,
    )
    return minted, (der(files["pck_cert"]),) if "pck_cert" in files else ()


@pytest.mark.parametrize("name", SHAPES_OF_BOTH)
def test_both_accept_the_genuine_world(peer: Peer, name: str) -> None:
    """The forge is genuine in the eyes of a verifier that shares no code with it, or with us."""
    one = compare(peer, Mutant("genuine", name, GENUINE[name].mint()))
    assert one.ours.outcome == one.theirs.outcome == (True, "UpToDate", ())


@pytest.mark.parametrize("known", CLASSES, ids=lambda known: known.name)
def test_every_class_occurs(peer: Peer, known: Class) -> None:
    one = compare(peer, Mutant("example", known.name, known.example.mint()))
    assert not one.agrees, f"the two agree now: take the class out\n{one}"
    assert classes_of(one) == [known.name], str(one)


def test_the_page_names_every_class_and_no_other() -> None:
    assert re.findall(r"^\| `([a-z0-9-]+)` \|", PAGE, re.MULTILINE) == [known.name for known in CLASSES]
    assert "dcap-qvl 0.7.0" in PAGE


@pytest.mark.parametrize("case", WITH_COLLATERAL, ids=lambda case: case.name)
def test_corpus(peer: Peer, case: Case) -> None:
    minted, endorsements = evidence(case)
    explained(compare_evidence(peer, case.name, minted, tuple(map(parse_certificate, endorsements))))


@pytest.mark.every_tier
@pytest.mark.timeout(7200)
def test_mutants(peer: Peer) -> None:
    """Thousands of seeded mutants of quotes, certificates, CRLs, documents, times, statuses and SVNs."""
    found: Counter[str | None] = Counter()
    families: Counter[str] = Counter()
    accepted: Counter[str] = Counter()
    for mutant in mutants(SEED, COUNT):
        one = compare(peer, mutant)
        found[explained(one)] += 1
        families[mutant.family] += 1
        accepted[mutant.family] += one.agrees and one.ours.accepted
    assert len(families) == len(FAMILIES)
    assert min(accepted[family] for family in families if family != "quote bytes") > 0, accepted
    agreed = found.pop(None)
    write_result(
        "differential",
        {
            "peer": "dcap-qvl 0.7.0",
            "mutants": COUNT,
            "agreed": agreed,
            "agreed_accepting": sum(accepted.values()),
            "disagreed_by_class": dict(sorted((name, count) for name, count in found.items() if name is not None)),
            "peer_aborts": peer.aborts,
        },
        seeds={"mutants": SEED},
    )
    assert agreed > COUNT / 2


def judged_by_both(one: Forged) -> bool:
    """Whether the lie is in the evidence, and `authentic` judges it."""
    demands = one.beside or one.tee or one.report_data or one.early_report_data
    return one.policy is None and one.built_in == "authentic" and not demands and one.code not in OURS_ALONE


@pytest.mark.parametrize("case", [one for one in CASES if judged_by_both(one)], ids=lambda case: case.name)
def test_both_refuse_what_is_hostile(peer: Peer, case: Forged) -> None:
    """Every hostile case of the forge is refused by the peer too, or its leniency is documented."""
    one = compare(peer, Mutant("hostile", case.name, case.world.mint()))
    assert not one.ours.accepted
    explained(one)


@pytest.mark.parametrize("case", [case for case, _ in GENUINE_CASES], ids=lambda case: case.name)
def test_unusual_and_genuine(peer: Peer, case: Forged) -> None:
    one = compare(peer, Mutant("genuine", case.name, case.world.mint()))
    assert one.ours.accepted, str(one)
    explained(one)


@pytest.mark.parametrize("item", ITEMS)
@pytest.mark.parametrize("side", ["begin", "end"])
@pytest.mark.parametrize("offset", [-1, 0, 1, 2])
def test_boundaries(peer: Peer, item: str, side: str, offset: int) -> None:
    """Before, at and after both ends of everything that has a validity, to the second."""
    world = bounded(GENUINE["TDX v4"], item, side).but(at=NOW + offset)
    explained(compare(peer, Mutant("boundary", f"{item} {side} {offset:+d} s", world.mint())))
