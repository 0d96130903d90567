"""Seeded mutants of genuine worlds, for the comparison with a peer: who accepts what, at the same time and collateral.

Each family changes one kind of thing, before or after signing, and says what it changed. None knows who is right.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from tests.forge.dcap.mutant import Mutant
from tests.forge.dcap.mutants_collateral import (
    certificate_fields,
    crl_fields,
    document_fields,
    document_text,
    platform_fields,
)
from tests.forge.dcap.mutants_quote import exchanges, other_shapes, quote_bytes, quote_fields, quote_lengths
from tests.forge.dcap.mutants_tcb import statuses, svns, times

FAMILIES: tuple[tuple[Callable[[random.Random], Mutant], int], ...] = (
    (quote_bytes, 5), (quote_lengths, 2), (quote_fields, 4), (certificate_fields, 5), (platform_fields, 2),
    (crl_fields, 3),
    (document_fields, 6), (document_text, 2), (times, 4), (statuses, 4), (svns, 4), (exchanges, 2), (other_shapes, 1),
)  # fmt: skip
"""Families and their weights."""


def mutants(seed: int, count: int) -> Iterator[Mutant]:
    """`count` mutants; the same for the same seed, each by a generator of its own."""
    makers = [maker for maker, weight in FAMILIES for _ in range(weight)]
    for number in range(count):
        rng = random.Random(f"{seed}/{number}")
        yield rng.choice(makers)(rng)
