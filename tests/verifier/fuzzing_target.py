"""What a target of the fuzzer is: one entrance for hostile bytes, its seeds, how it is run, what may never happen."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.verifier.fuzzing import Seed

Prepare = Callable[[random.Random, Seed, bytes], Any]
Run = Callable[[Seed, Any], None]


class Unsound(AssertionError):
    """Something was accepted, or read, that cannot be right."""


@dataclass(frozen=True)
class Target:
    """One entrance for hostile bytes.

    `run` is what is measured: it takes a seed and the input made from it, and raises nothing but our error. `prepare`,
    not measured, makes the input of mutated bytes, `genuine` of the seed itself. `weight`: how many inputs it gets.
    """

    name: str
    seeds: Callable[[], tuple[Seed, ...]]
    run: Run
    weight: int
    prepare: Prepare = lambda rng, seed, data: data
    genuine: Callable[[Seed], Any] = lambda seed: seed.data
