"""Every class of attack, tried: none succeeds, no honest report is refused; a pipeline with a check less is caught."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enclavescale.bench import attacks
from enclavescale.bench.attacks import bench_attacks, bench_attacks_live, class_document, run_class, upper_bound
from enclavescale.bench.attacks_broker import LIVE
from enclavescale.bench.attacks_classes import CLASSES
from enclavescale.bench.attacks_run import Baseline, ClassResult
from tests.broker import KafkaBroker
from tests.results import write_result

TIER = os.environ.get("ENCLAVESCALE_TIER", "test")
TRIALS = {"test": 2, "soak": 500, "accept": 10_000}[TIER]
HOSTS = 3 if TIER == "test" else attacks.HOSTS
LIVE_TRIALS = 100
SEED = 1


def nothing(*_: Any, **__: Any) -> None:
    return None


@pytest.mark.every_tier
@pytest.mark.timeout(7200)
def test_no_attack_succeeds() -> None:
    found = bench_attacks(TRIALS, seed=SEED, workers=1 if TIER == "test" else 0, hosts=HOSTS)
    for name, one in found["classes"].items():
        assert one["successes"] == 0, (name, one["failures"])
        assert one["honest_refused"] == 0, name
        assert one["trials"] >= TRIALS, name
        assert one["codes"], name
    assert set(found["classes"]) == set(CLASSES)
    assert found["revocation"]["met"], found["revocation"]
    assert found["met"]
    write_result("attacks", found, seeds={"seed": SEED})


@pytest.mark.accept
@pytest.mark.broker
@pytest.mark.timeout(1800)
def test_no_attack_succeeds_through_a_broker(kafka: KafkaBroker) -> None:
    found = bench_attacks_live(kafka.bootstrap, LIVE_TRIALS, seed=SEED)
    assert found["live"]["outputs_changed"] == []
    assert found["live"]["honest_refused"] == []
    assert found["live"]["outputs"] > 10
    for name, one in found["classes"].items():
        assert one["successes"] == 0, (name, one["failures"])
        assert one["trials"] >= LIVE_TRIALS, name
    assert set(found["classes"]) == set(LIVE)
    del found["live"]["prefix"]
    write_result("attacks-live", found, seeds={"seed": SEED})


MUTANTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "report_tampering": ("stream_jobs.core.sessions.verify_record_signature", nothing),
    "revoked": ("stream_jobs.core.partition.check_not_revoked", nothing),
    "clock_attack": ("stream_jobs.core.terms.check_window", nothing),
    "forged_output": ("stream_jobs.audit.outputs.verify_record_signature", nothing),
    "policy_tampering": ("stream_jobs.policy_store.verify_record_signature", nothing),
}
"""A check that is taken out of the pipeline, and the class of attack that must succeed then."""


@pytest.mark.parametrize("name", MUTANTS)
def test_a_pipeline_without_a_check_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    attacks._baseline(SEED * 1000, attacks.HOSTS)  # the honest run has every check
    target, replacement = MUTANTS[name]
    monkeypatch.setattr(target, replacement)
    if name == "revoked":
        monkeypatch.setattr("stream_jobs.core.sessions.check_not_revoked", nothing)
    monkeypatch.setattr(Baseline, "_culprits", lambda *_: [])  # what counts is accepted, and that is enough
    assert run_class(name, 40, SEED).successes > 0


def test_a_repeated_attack_counts_once() -> None:
    result = ClassResult()
    assert result.fresh(b"one")
    assert not result.fresh(b"one")
    assert (result.repeated, result.trials) == (1, 0)


@pytest.mark.parametrize(
    ("trials", "successes", "expected"), [(0, 0, None), (10_000, 0, 0.0003), (2, 0, 1.0), (100, 5, 0.1)]
)
def test_the_upper_bound(trials: int, successes: int, expected: float | None) -> None:
    found = upper_bound(ClassResult(trials=trials, successes=successes))
    assert found == expected if expected is None or successes == 0 else found == pytest.approx(expected, abs=0.01)


def test_a_success_is_in_the_document() -> None:
    result = ClassResult(trials=2, successes=1, failures=["accepted"])
    document = class_document("unattested", result, 1.0)
    assert document["failures"] == ["accepted"]
    assert document["upper_bound_95"] > 0.5


def test_the_fleet_differs_from_seed_to_seed(tmp_path: Path) -> None:
    one, other = (attacks._baseline(seed, 2).honest for seed in (5, 6))
    assert one.content
    assert one.content != other.content
