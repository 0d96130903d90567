"""The cost of attestation: figures that add up, hardware apart, evidence that is really verified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enclavescale.bench import attestation
from enclavescale.bench.attestation import Setting, amortised, bench_attestation, hardware
from enclavescale.bench.attestation_plot import plot
from verifier.cache import SessionCache
from verifier.errors import VerificationError


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return bench_attestation(windows_s=(60,), sessions_s=(600, 3600), rounds=3, quote_ms=5.0)


def test_the_curve_falls_with_the_length_of_sessions_and_adds_up(found: dict[str, Any]) -> None:
    for kind in ("cpu", "eight_gpus"):
        short, long = (one for one in found["curve"] if one["kind"] == kind)
        assert short["us"]["total"] > long["us"]["total"]
        parts = [value for name, value in long["us"].items() if not name.startswith("total")]
        assert sum(parts) == pytest.approx(long["us"]["total"], abs=1e-5)
        assert long["us"]["total_first"] >= long["us"]["total"]
    assert found["goals"].keys() == attestation.GOALS_US.keys()
    assert found["met"] == all(one["us_per_sample"] <= one["goal"] for one in found["goals"].values())


def test_gpus_cost_what_their_signatures_cost(found: dict[str, Any]) -> None:
    cpu, gpus = found["kinds"]["cpu"]["us"], found["kinds"]["eight_gpus"]["us"]
    least = attestation.GPUS * found["ceilings_us"]["p384_verify"]
    assert gpus["verify_renewed"] - cpu["verify_renewed"] > 0.5 * least
    assert gpus["verify_first"] > gpus["verify_renewed"]
    assert found["kinds"]["eight_gpus"]["evidence_bytes"] > 8 * 4000


def test_hardware_stands_apart(found: dict[str, Any]) -> None:
    by_kind = {(one["kind"], one["session_s"]): one["hardware_us"] for one in found["curve"]}
    assert by_kind["cpu", 3600] == pytest.approx(5000 / (8 * 10 * 3600), abs=1e-6)
    assert by_kind["eight_gpus", 3600] is None
    assert found["hardware"]["quote"] == "entered"
    nowhere = hardware(None, None, Path("/nonexistent"))
    assert (nowhere.quote_ms, nowhere.how) == (None, "not known here")


def test_without_the_judged_point_nothing_is_said_to_be_met() -> None:
    found = bench_attestation(windows_s=(10,), sessions_s=(600,), rounds=3)
    assert (found["goals"], found["met"]) == ({}, None)


@pytest.mark.parametrize("with_gpus", [False, True])
def test_the_evidence_is_verified(with_gpus: bool) -> None:
    setting = Setting(2, with_gpus=with_gpus, window_s=60)
    one, other = (host.session(attestation.NOW_MS) for host in setting.hosts)
    setting.verify(one, SessionCache())
    object.__setattr__(one, "evidence", other.evidence)
    with pytest.raises(VerificationError):
        setting.verify(one, SessionCache())


def test_a_sample_of_a_longer_window_costs_less() -> None:
    costs = dict.fromkeys(("generate", "verify_first", "verify_renewed", "repeat", "sign", "verify"), 100.0)
    assert amortised(costs, 10, 3600)["signing"] == pytest.approx(6 * amortised(costs, 60, 3600)["signing"], rel=1e-3)


def test_the_plot_is_drawn(found: dict[str, Any], tmp_path: Path) -> None:
    plot(found, tmp_path / "curve.svg")
    assert b"<svg" in (tmp_path / "curve.svg").read_bytes()
