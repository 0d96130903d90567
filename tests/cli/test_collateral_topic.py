"""`enclavescale collateral import` and `status`: what workers are given, that it may be said twice, what ends when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer

from enclavescale.embedded import MockCluster
from schemas.topics import TopicNames
from stream_jobs.collateral_store import CollateralMetrics, CollateralStore
from tests.cli.conftest import call
from tests.forge.dcap.world import DAY, NOW, TDX4, pem
from tests.schemas.examples import VALUES

NAMES = TopicNames()


@pytest.fixture
def cluster() -> str:
    made = MockCluster({NAMES.collateral: 1, NAMES.output: 2})
    return made.bootstrap


@pytest.fixture
def given(tmp_path: Path) -> dict[str, Path]:
    """Two sets of one world, the second a week later, and the root of both."""
    later = TDX4.but(
        tcb_info_window=(NOW + 7 * DAY, NOW + 37 * DAY),
        qe_identity_window=(NOW + 7 * DAY, NOW + 37 * DAY),
    )
    paths = {name: tmp_path / f"{name}.json" for name in ("first", "later")}
    paths["first"].write_text(TDX4.mint().collateral_json)
    paths["later"].write_text(later.mint().collateral_json)
    paths["root"] = tmp_path / "root.pem"
    paths["root"].write_text(pem(TDX4.mint().root))
    return paths


def give(cluster: str, given: dict[str, Path], name: str, *more: str, days: int = 0) -> tuple[int, dict[str, Any]]:
    done = call(
        "collateral", "import", str(given[name]), "--bootstrap", cluster, "--trust-root", f"intel={given['root']}",
        "--at", str(NOW + days * DAY), "--json", *more,
    )  # fmt: skip
    return done.exit_code, json.loads(done.stdout)


def status(cluster: str, days: int, *more: str) -> tuple[int, dict[str, Any]]:
    done = call("collateral", "status", "--bootstrap", cluster, "--at", str(NOW + days * DAY), "--json", *more)
    return done.exit_code, json.loads(done.stdout)


def test_what_is_imported_is_what_workers_find(cluster: str, given: dict[str, Path]) -> None:
    assert status(cluster, 0)[1]["set"] is None
    code, first = give(cluster, given, "first")
    assert (code, first["kept"], first["new"], first["newest"]) == (0, 0, first["items"], True)
    code, again = give(cluster, given, "first")
    assert (code, again["set"], again["new"], again["items"]) == (0, first["set"], 0, first["items"])
    code, later = give(cluster, given, "later", days=8)
    assert (code, later["newest"]) == (0, True)
    assert later["items"] == first["items"] + later["new"]  # what has not ended stays beside it
    assert later["kept"] == first["items"] - (later["items"] - later["kept"] - later["new"])
    code, alone = give(cluster, given, "later", "--replace", days=8)
    assert (code, alone["items"], alone["kept"]) == (0, first["items"], 0)

    store = CollateralStore({"bootstrap.servers": cluster}, NAMES.collateral)
    view = store.lookup(bytes.fromhex(alone["set"]))
    assert view is not None
    assert len(view.held.held_documents) == 2
    assert store.lookup(bytes(32)) is None
    assert [one.digest.hex() for one in store.candidates(bytes.fromhex(first["set"]))] == [first["set"], alone["set"]]
    (family,) = CollateralMetrics(store).collect()
    assert [sample.value for sample in family.samples] == [NOW + 25 * DAY - 0.001]
    store.close()


def test_nothing_is_written_of_what_nobody_trusted_signed(cluster: str, given: dict[str, Path]) -> None:
    done = call("collateral", "import", str(given["first"]), "--bootstrap", cluster, "--at", str(NOW))
    assert done.exit_code == 3
    assert "COLLATERAL_NOT_GENUINE" in done.stderr
    assert give(cluster, given, "first", days=20_000)[0] == 3  # all of it has ended
    assert status(cluster, 0) == (3, {**status(cluster, 0)[1], "set": None, "items": [], "ok": False})


def test_status_says_what_ends_and_what_domains_rest_on(cluster: str, given: dict[str, Path]) -> None:
    _, first = give(cluster, given, "first")
    producer = Producer({"bootstrap.servers": cluster})
    producer.produce(NAMES.output, VALUES["SignedFleetPower.full"], key=b"k", partition=1)
    assert producer.flush(20) == 0
    code, found = status(cluster, 22)
    assert (code, found["set"], found["days_left"], found["ok"]) == (0, first["set"], 3.0, True)
    assert len(found["items"]) == first["items"]
    assert next(iter(found["domains"].values())) != first["set"]
    assert status(cluster, 22, "--within", "4")[0] == 3
    assert status(cluster, 26)[0] == 3
    done = call("collateral", "status", "--bootstrap", cluster, "--at", str(NOW + 26 * DAY))
    assert done.exit_code == 3
    assert f"set {first['set']}" in done.stdout
    assert "import newer ones" in done.stdout
    assert "another set" in done.stdout
