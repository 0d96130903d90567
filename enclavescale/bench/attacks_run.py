"""Runs of the core over an attacked log beside the same log without the attack, compared bit by bit.

Honest records keep their offsets: attempts get offsets between them. What may differ in an output is what says how much
was refused and what follows from that: `refused`, `duplicates`, `late_refused`, `refused_root`, the digests of earlier
outputs, and of `source` how many records were read, their digest and where the first one stands. Everything else, the
root over the accepted reports included, must be the same bytes.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from enclavescale.bench.attacks_scene import Attempt
from enclavescale.bench.attacks_world import STRIDE, TOPIC, AttackWorld, Placed, log_record
from schemas.codec import encode_output
from schemas.records import FleetPower
from stream_jobs.core.effects import Emission, Rejection
from stream_jobs.core.partition import CoreConfig, PartitionCore
from verifier.cache import SessionCache

ACCEPTED = "NO_EFFECT"
"""What stands for the code of an attempt that was neither refused nor changed anything: a copy of what is known."""

Content = tuple[int, int, bytes]
"""Partition, number of the honest record at which an output was made, its bytes without what may differ."""


@dataclass(slots=True)
class Seen:
    """What one run decided. Codes and times (µs) by offset; `content`: outputs in order; `refused`: honest records."""

    codes: dict[int, str] = field(default_factory=dict)
    micros: dict[int, float] = field(default_factory=dict)
    content: list[Content] = field(default_factory=list)
    outputs: list[FleetPower] = field(default_factory=list)


def content_of(output: FleetPower) -> bytes:
    """An output's bytes without what an attempt may change."""
    source = replace(output.source, first_offset=None, close_offset=0, records=0, log_digest=bytes(32))
    return encode_output(
        replace(
            output,
            prev_revision_digest=None,
            prev_output_digest=None,
            duplicates=0,
            late_refused=0,
            refused=(),
            refused_root=bytes(32),
            source=source,
        )
    )


def offset_of(number: int) -> int:
    """Offset of honest record `number`."""
    return (number + 1) * STRIDE


def place_of(offset: int) -> int:
    """The honest record at `offset`, or the next one behind it."""
    return -(-offset // STRIDE) - 1


class Core:
    """A core per partition, and what a worker needs beside them."""

    def __init__(self, world: AttackWorld, cache: SessionCache) -> None:
        self._world, self._cache = world, cache
        self._cores: dict[int, PartitionCore] = {}

    def of(self, partition: int) -> PartitionCore:
        """The partition's core."""
        if partition not in self._cores:
            config = CoreConfig(
                TOPIC, partition, self._world.policies.get, self._cache.verify, collateral=self._world.index.lookup
            )
            self._cores[partition] = PartitionCore(config)
        return self._cores[partition]


def run(world: AttackWorld, records: Iterable[tuple[int, Placed]], cache: SessionCache) -> Seen:
    """Feed records by offset to cores of their own; offsets that are not honest ones are timed."""
    seen, cores = Seen(), Core(world, cache)
    clock = time.perf_counter
    for offset, placed in records:
        begin = clock()
        effects = cores.of(placed.partition).process(log_record(offset, placed))
        took = clock() - begin
        if offset % STRIDE:
            seen.micros[offset] = 1e6 * took
        for effect in effects:
            if isinstance(effect, Rejection):
                seen.codes[offset] = effect.code
            elif isinstance(effect, Emission):
                seen.outputs.append(effect.output)
                seen.content.append((placed.partition, place_of(offset), content_of(effect.output)))
    return seen


def woven(world: AttackWorld, attempts: Sequence[Attempt]) -> list[tuple[int, Placed]]:
    """The honest log with attempts between its records, in the order given."""
    behind: dict[int, list[Attempt]] = defaultdict(list)
    for one in attempts:
        behind[one.after].append(one)
    result: list[tuple[int, Placed]] = []
    for number in range(-1, len(world.honest)):
        if number >= 0:
            result.append((offset_of(number), world.honest[number]))
        for place, one in enumerate(behind.get(number, ()), 1):
            result.append((offset_of(number) + place, one))
    return result


@dataclass(slots=True)
class ClassResult:
    """What became of a class's trials. `micros`: what the worker spent on each until it was refused;
    `consequences`: codes of other records that were refused because of what was taken from the log."""

    trials: int = 0
    successes: int = 0
    repeated: int = 0
    honest_refused: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    consequences: Counter[str] = field(default_factory=Counter)
    micros: list[float] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    known: set[bytes] = field(default_factory=set, repr=False)

    def fresh(self, digest: bytes) -> bool:
        """Whether a trial is a new one: the same attack again counts once."""
        if digest in self.known:
            self.repeated += 1
            return False
        self.known.add(digest)
        return True


class Baseline:
    """A world's honest run, and attacked runs held against it."""

    def __init__(self, world: AttackWorld) -> None:
        self.world, self.cache = world, SessionCache(entries=200_000)
        self.honest = run(world, woven(world, ()), self.cache)

    def attack(self, attempts: Sequence[Attempt], result: ClassResult) -> None:
        """One run with all of them; counts into `result`."""
        log = woven(self.world, attempts)
        seen = run(self.world, log, self.cache)
        won: dict[bytes, str] = {}
        for offset, placed in log:
            if not isinstance(placed, Attempt):
                continue
            code = seen.codes.get(offset, ACCEPTED)
            result.codes[code] += 1
            result.micros.append(seen.micros[offset])
            if code == ACCEPTED and not placed.genuine:
                won[placed.digest] = f"accepted in partition {placed.partition} behind record {placed.after}"
        if seen.content != self.honest.content:
            for one in self._culprits(list(attempts)):
                won.setdefault(one.digest, f"changed an output, in partition {one.partition} behind record {one.after}")
        result.trials += len(attempts)
        result.honest_refused += newly_refused(self.honest, seen)
        result.successes += len(won)
        result.failures += won.values()

    def _culprits(self, attempts: list[Attempt]) -> list[Attempt]:
        """The attempts that change an output: each that does alone, or one for a group that only does together."""
        if run(self.world, woven(self.world, attempts), self.cache).content == self.honest.content:
            return []
        if len(attempts) == 1:
            return attempts
        half = len(attempts) // 2
        found = self._culprits(attempts[:half]) + self._culprits(attempts[half:])
        return found or attempts[:1]


def newly_refused(honest: Seen, seen: Seen) -> int:
    """Honest records that are refused now and were not; a copy that came first stands for its original."""
    return sum(
        offset % STRIDE == 0 and offset not in honest.codes and code != "DUPLICATE"
        for offset, code in seen.codes.items()
    )
