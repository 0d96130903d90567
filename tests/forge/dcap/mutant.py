"""What a mutant is, and what the families of mutants share."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.forge.dcap.world import SGX3, TDX4, TDX5, TDX5_15, TDX5_EXTENDED, Minted

COMMON = (SGX3, TDX4, TDX5, TDX5_15, TDX5_EXTENDED)
"""Shapes that every peer judges; SGX in v4 and v5 come in by their own family."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One pair of quote and collateral to be judged: what was changed, by which family."""

    family: str
    what: str
    minted: Minted


def changed_byte(rng: random.Random, data: bytes, offset: int) -> bytes:
    old = data[offset]
    new = rng.choice([old ^ 1 << rng.randrange(8), rng.randrange(256), 0, 0xFF])
    return data[:offset] + bytes([new if new != old else old ^ 1]) + data[offset + 1 :]
