"""Hostile bytes at every entrance: nothing but our error escapes, and no input costs more than 50 ms or 16 MiB.

For each target Hypothesis draws a seed input and an integer, which names a batch of mutations (`fuzzing.mutated`). A
failure names target, seed, integer and index; `replay` makes and runs exactly that input again.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
import tracemalloc
import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.results import write_result
from tests.verifier.fuzzing import Seed, mutated
from tests.verifier.fuzzing_targets import DEVICE_PARSERS, PARSERS, TARGETS, Target, check_message
from verifier.errors import VerificationError

pytestmark = [pytest.mark.every_tier, pytest.mark.quiet, pytest.mark.timeout(7200)]

INPUTS = {"test": 12_000, "soak": 100_000, "accept": 1_000_000}[os.environ.get("ENCLAVESCALE_TIER", "test")]
INPUTS = int(os.environ.get("ENCLAVESCALE_FUZZ_INPUTS", INPUTS))
EACH_PARSER = {"accept": 500_000}.get(os.environ.get("ENCLAVESCALE_TIER", "test"), 0)
EACH_PARSER = int(os.environ.get("ENCLAVESCALE_FUZZ_EACH_PARSER", EACH_PARSER))
"""Inputs that every parser gets at least; whole verifications, which take longer, get their share of `INPUTS`."""

HYPOTHESIS_SEED = int(os.environ.get("ENCLAVESCALE_FUZZ_SEED", "1"))
BATCH = 100
MAX_SECONDS = 0.050
MAX_BYTES = 16 * 1024 * 1024
REPEATS = 3
SUSPICIOUS_SECONDS = 0.005
TRACED_EVERY = 50
LARGE_INPUT_BYTES = 64 * 1024
MAX_GROWTH_BYTES = 128 * 1024 * 1024
"""By how much the process may grow over all inputs of a target, natively too, where `tracemalloc` sees nothing. Most of
it is the memory of the mutator and of `tracemalloc`; the verifier's own part is below 10 MiB."""

WEIGHTS = sum(target.weight for target in TARGETS.values())


@dataclass
class Tally:
    """What was counted for a target. Costs are the worst of any input: CPU seconds, and bytes where it was traced."""

    inputs: int = 0
    accepted: int = 0
    traced: int = 0
    seconds: float = 0.0
    memory: int = 0
    spent: float = 0.0
    codes: Counter[str] = field(default_factory=Counter)

    def result(self) -> dict[str, Any]:
        """As it is kept in docs/results."""
        return {
            "inputs": self.inputs,
            "accepted": self.accepted,
            "refused": dict(sorted(self.codes.items())),
            "worst_ms": round(1000 * self.seconds, 2),
            "mean_us": round(1e6 * self.spent / max(1, self.inputs), 1),
            "worst_kib": round(self.memory / 1024),
            "traced": self.traced,
        }


TALLIES: dict[str, Tally] = {}


def attempt(target: Target, origin: Seed, data: Any) -> tuple[float, str]:
    """(CPU seconds, code of the refusal or ""); any other exception than ours passes on."""
    begin = time.thread_time()
    try:
        target.run(origin, data)
        code = ""
    except VerificationError as error:
        code = error.code
        check_message(error)
    return time.thread_time() - begin, code


def traced(target: Target, origin: Seed, data: Any) -> int:
    """Peak bytes that Python held for the input."""
    tracemalloc.start()
    try:
        attempt(target, origin, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def size_of(data: Any) -> int:
    return sum(map(len, data)) if isinstance(data, tuple) else len(data)


def examine(target: Target, origin: Seed, data: Any, tally: Tally, *, trace: bool) -> None:
    """Run one input and hold it to its limits."""
    seconds, code = attempt(target, origin, data)
    if seconds > max(tally.seconds, SUSPICIOUS_SECONDS):
        # Noise of the machine never repeats itself three times; a slow input does. What other tests have left in memory
        # is no cost of the input either: a search for reference cycles would walk all of it.
        gc.collect()
        gc.freeze()
        try:
            seconds = min(seconds, *(attempt(target, origin, data)[0] for _ in range(REPEATS)))
        finally:
            gc.unfreeze()
        assert seconds <= MAX_SECONDS, f"{seconds * 1000:.1f} ms"
    tally.inputs += 1
    tally.spent += seconds
    tally.seconds = max(tally.seconds, seconds)
    if code:
        tally.codes[code] += 1
    else:
        tally.accepted += 1
    if trace or size_of(data) > LARGE_INPUT_BYTES:
        memory = traced(target, origin, data)
        assert memory <= MAX_BYTES, f"{memory / 2**20:.1f} MiB"
        tally.traced += 1
        tally.memory = max(tally.memory, memory)


def make(target: Target, origin: Seed, integer: int, index: int) -> Any:
    """The input of that index."""
    rng, data = mutated(origin, target.seeds(), integer, index)
    return target.prepare(rng, origin, data)


def replay(target: str, origin: str, integer: int, index: int) -> Any:
    """Make the input that a failure named, run it, and return it."""
    chosen = TARGETS[target]
    found = next(one for one in chosen.seeds() if one.name == origin)
    data = make(chosen, found, integer, index)
    with warnings.catch_warnings():
        warnings.simplefilter("error" if integer % 2 else "ignore")
        examine(chosen, found, data, Tally(), trace=True)
    return data


def inputs_of(target: Target) -> int:
    """How many inputs a target gets in this tier."""
    share = -(-INPUTS * target.weight // WEIGHTS)
    return max(share, EACH_PARSER) if target.name in PARSERS else share


def peak_rss() -> int:
    """The most memory this process ever had, bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.parametrize("name", TARGETS)
def test_hostile_inputs_are_refused_at_bounded_cost(name: str) -> None:
    target, tally = TARGETS[name], Tally()
    seeds = target.seeds()
    for origin in seeds[:: max(1, len(seeds) // 40)]:  # caches fill, and genuine inputs are as cheap as hostile ones
        examine(target, origin, target.genuine(origin), Tally(), trace=False)
    before = peak_rss()

    @seed(HYPOTHESIS_SEED)
    @settings(
        max_examples=-(-inputs_of(target) // BATCH),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(seeds) - 1), st.integers(0, 2**32 - 1))
    def batches(position: int, integer: int) -> None:
        origin = seeds[position]
        with warnings.catch_warnings():
            # Both as here, where a warning is an error, and as in the field, where it is not.
            warnings.simplefilter("error" if integer % 2 else "ignore")
            for index in range(BATCH):
                data = make(target, origin, integer, index)
                try:
                    examine(target, origin, data, tally, trace=tally.inputs % TRACED_EVERY == 0)
                except Exception as error:
                    again = f"replay({name!r}, {origin.name!r}, {integer}, {index})"
                    raise AssertionError(f"{again}: {type(error).__name__}: {error}") from error

    batches()
    TALLIES[name] = tally
    assert peak_rss() - before <= MAX_GROWTH_BYTES


def test_every_input_was_counted() -> None:
    whole = set(TALLIES) == set(TARGETS)
    if not whole and not set(TALLIES) >= DEVICE_PARSERS:
        pytest.skip("only some targets ran")
    total = sum(tally.inputs for tally in TALLIES.values())
    assert all(tally.inputs >= inputs_of(TARGETS[name]) for name, tally in TALLIES.items())
    write_result(
        "fuzz-verifier" if whole else "fuzz-device-parsers",
        {
            "inputs": total,
            "limits": {"ms": 1000 * MAX_SECONDS, "mib": MAX_BYTES // 2**20},
            "targets": {name: tally.result() for name, tally in TALLIES.items()},
        },
        seeds={"hypothesis": HYPOTHESIS_SEED},
    )
