"""The same log gives the same bytes: twice, in another process, without SIMD."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.replay import Run, new_core, remembered
from tests.core.scenario import Scenario

SEEDS = (3, 9, 12)

PROGRAM = """
import pickle, sys
from tests.core.test_determinism import digest_of
with open(sys.argv[1], "rb") as file:
    policies, log = pickle.load(file)
print(digest_of(policies, log))
"""


def digest_of(policies: list, log: list) -> str:
    """SHA-256 over every output, manifest and rejection of a log."""
    run = Run(new_core(policies)).feed_all(log)
    total = hashlib.sha256()
    for _, made in run.emissions:
        for part in (made.output_bytes, made.digest, *made.manifests):
            total.update(part)
    total.update(repr(run.rejections).encode())
    return total.hexdigest()


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, str]]:
    result = []
    for seed in SEEDS:
        with remembered():
            scenario = Scenario(seed)
            run = scenario.build()
        assert len(run.emissions) > 10
        path = tmp_path_factory.mktemp("log") / f"{seed}.pickle"
        path.write_bytes(pickle.dumps((scenario.policies, run.log)))
        result.append((path, digest_of(scenario.policies, run.log)))
    return result


def in_a_process(path: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_twice_the_same(stories: list[tuple[Path, str]]) -> None:
    for path, digest in stories:
        policies, log = pickle.loads(path.read_bytes())
        assert digest_of(policies, log) == digest


def simd_features() -> list[str]:
    """What numpy found on this machine beyond its baseline."""
    from numpy._core._multiarray_umath import __cpu_baseline__, __cpu_dispatch__, __cpu_features__

    return [one for one in __cpu_dispatch__ if __cpu_features__.get(one) and one not in __cpu_baseline__]


def test_simd_makes_no_difference(stories: list[tuple[Path, str]]) -> None:
    path, digest = stories[0]
    assert in_a_process(path, NPY_DISABLE_CPU_FEATURES=" ".join(simd_features()), PYTHONHASHSEED="1") == digest


def test_hash_seeds_make_no_difference(stories: list[tuple[Path, str]]) -> None:
    path, digest = stories[1]
    assert in_a_process(path, PYTHONHASHSEED="7") == digest
