"""The same log gives the same bytes: twice, in another process, without SIMD, with another numpy, in every environment.

Sums and counts are integers and must match exactly. Derived figures are rounded to their quantum and must match to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.core import golden
from tests.core.replay import Run, new_core, remembered
from tests.core.scenario import Scenario
from tests.results import write_result

SEEDS = (3, 15)
ROOT = Path(__file__).parents[2]
OTHER_NUMPY = "2.2.6" if not np.__version__.startswith("2.2.") else "2.3.5"

PROGRAM = """
import json, pickle, sys
import numpy
from tests.core.test_determinism import all_of
with open(sys.argv[1], "rb") as file:
    print(json.dumps({"numpy": numpy.__version__, "logs": [all_of(*one) for one in pickle.load(file)]}))
"""


def all_of(policies: list, log: list) -> dict[str, Any]:
    """Digests over every output, manifest and rejection of a log, over the integers and over the derived figures."""
    with remembered():
        run = Run(new_core(policies)).feed_all(log)
    total = hashlib.sha256()
    for _, made in run.emissions:
        for part in (made.output_bytes, made.digest, *made.manifests):
            total.update(part)
    total.update(repr(run.rejections).encode())
    return {"bytes": total.hexdigest(), **golden.figures(run)}


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """Pickled logs, random and fixed ones, and what this process makes of them."""
    logs = []
    with remembered():
        for seed in SEEDS:
            scenario = Scenario(seed)
            run = scenario.build()
            assert len(run.emissions) > 10
            logs.append((scenario.policies, run.log))
    logs += golden.logs().values()
    path = tmp_path_factory.mktemp("logs") / "logs.pickle"
    path.write_bytes(pickle.dumps(logs))
    return path, [all_of(*one) for one in logs]


def in_a_process(path: Path, **environment: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def as_json(found: object) -> Any:
    return json.loads(json.dumps(found))


def test_twice_the_same(stories: tuple[Path, list[dict[str, Any]]]) -> None:
    path, found = stories
    assert [all_of(*one) for one in pickle.loads(path.read_bytes())] == found


def simd_features() -> list[str]:
    """What numpy found on this machine beyond its baseline."""
    from numpy._core._multiarray_umath import __cpu_baseline__, __cpu_dispatch__, __cpu_features__

    return [one for one in __cpu_dispatch__ if __cpu_features__.get(one) and one not in __cpu_baseline__]


def test_simd_and_hash_seeds_make_no_difference(stories: tuple[Path, list[dict[str, Any]]]) -> None:
    path, found = stories
    plain = in_a_process(path, NPY_DISABLE_CPU_FEATURES=" ".join(simd_features()), PYTHONHASHSEED="1")
    assert plain == {"numpy": np.__version__, "logs": as_json(found)}


def test_every_environment_meets_the_same_figures() -> None:
    """Two numpy versions, two Pythons, two processors: each runs this test against the same file."""
    stated = json.loads(golden.PATH.read_text())
    found = as_json(golden.all_figures())
    hint = "if figures changed on purpose: a new core version, then `python -m tests.core.golden`"
    for name in golden.logs():
        assert found[name]["integers"] == stated[name]["integers"], f"{name}: sums or counts differ; {hint}"
        assert found[name] == stated[name], f"{name}: derived figures differ; {hint}"
    assert found == stated, hint


@pytest.mark.soak
def test_another_numpy_makes_no_difference(stories: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> None:
    """Another release of numpy in front of the one installed, with and without SIMD."""
    path, found = stories
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run(
        [*install, "--only-binary=:all:", "--target", str(tmp_path / "other"), f"numpy=={OTHER_NUMPY}"],
        check=True,
        timeout=500,
    )
    before = os.environ.get("PYTHONPATH")
    first = os.pathsep.join([str(tmp_path / "other"), *([before] if before else [])])
    for features in ("", " ".join(simd_features())):
        other = in_a_process(path, PYTHONPATH=first, **({"NPY_DISABLE_CPU_FEATURES": features} if features else {}))
        assert other == {"numpy": OTHER_NUMPY, "logs": as_json(found)}
    logs = {"logs": len(found), "outputs": sum(one["outputs"] for one in found)}
    versions = {"numpy": np.__version__, "other_numpy": OTHER_NUMPY, "simd_switched_off": simd_features()}
    result = {**logs, **versions, "bytes_differ": 0, "integers_differ": 0, "derived_differ": 0}
    write_result("core-numbers", result, seeds={f"log_{seed}": seed for seed in SEEDS})
