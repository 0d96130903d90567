"""What an attacker works with: the honest log as it passes by, and ways to change it.

An attempt is one record that is put behind an honest one, in the same or another partition. What may change of it is
drawn from `Scene.rng`: the record, the field, the value, the place.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from attester.session import Session
from attester.signing import public_point, sign_raw
from enclavescale.bench.attacks_world import WINDOW_MS, AttackWorld, Honest, Placed
from schemas.codec import (
    DecodedRecord,
    decode_signed_record,
    encode_binding,
    encode_body,
    encode_signed_record,
    record_preimage,
    session_id_of,
)
from schemas.records import ControlRecord, SessionBinding, SessionEvidence, WindowReport


@dataclass(frozen=True, slots=True)
class Attempt(Placed):
    """One attempt: a record behind honest record number `after` (-1: before all).

    `genuine`: it is a record of the log itself, or the same one in another frame, so that it may stand for it.
    """

    after: int = -1
    genuine: bool = False

    @property
    def digest(self) -> bytes:
        """Two attempts with one digest are one attempt."""
        parts = (str((self.partition, self.after)).encode(), self.key, self.value or b"")
        return hashlib.sha256(b"".join(len(one).to_bytes(8, "big") + one for one in parts)).digest()


class Scene:
    """A world as an attacker sees it. `rng` decides everything about an attempt."""

    def __init__(self, world: AttackWorld, rng: random.Random) -> None:
        self.world, self.rng = world, rng
        self.reports = [number for number, one in enumerate(world.honest) if one.start_ms is not None]
        self.controls = [number for number, one in enumerate(world.honest) if one.start_ms is None]

    # -- the log ------------------------------------------------------------------------------------------------

    def report(self, *, phases: tuple[int, ...] = (0, 1, 2), carries: bool | None = None) -> tuple[int, Honest]:
        """Any honest report (of these phases; with evidence or without), and its number."""
        phases = tuple(one for one in phases if one < len(self.world.phases))
        while True:
            number = self.rng.choice(self.reports)
            one = self.world.honest[number]
            if one.phase in phases and (carries is None or (decoded(one.value).evidence is not None) is carries):
                return number, one

    def body(self, one: Honest) -> WindowReport:
        """What an honest report says."""
        body = decoded(one.value).body
        if not isinstance(body, WindowReport):
            raise TypeError("a control record is no report")
        return body

    def place(self, after: int, value: bytes | None, *, key: bytes | None = None, partition: int | None = None,
              genuine: bool = False) -> Attempt:  # fmt: skip
        """`value` behind honest record `after`, by default in its partition and under its key."""
        one = self.world.honest[max(0, after)]
        return Attempt(
            one.partition if partition is None else partition,
            one.at_ms,
            one.key if key is None else key,
            value,
            after,
            genuine,
        )

    def behind(self, number: int, *, same_phase: bool = False) -> int:
        """A place at or behind honest record `number`."""
        last = len(self.world.honest) - 1
        if same_phase:
            phase = self.world.honest[number].phase
            last = max(at for at in range(number, last + 1) if self.world.honest[at].phase == phase)
        return self.rng.randint(number, last)

    def soon(self, number: int) -> int:
        """A place behind honest record `number`, as a rule while its window is open."""
        return self.behind(number) if self.rng.random() < 0.3 else min(number + self.rng.randrange(12), self._last)

    def around(self, number: int) -> int:
        """A place close to honest report `number`, before or behind it, from its window's end on."""
        honest = self.world.honest
        end_ms = (honest[number].start_ms or 0) + WINDOW_MS
        near = range(max(len(self.world.domains) - 1, number - 8), min(self._last, number + 8) + 1)
        return self.rng.choice([at for at in near if honest[at].at_ms >= end_ms] or [number])

    def stamp_ms(self, number: int) -> int:
        """When what is put behind honest record `number` is appended."""
        return max(self.world.honest[number].at_ms, self.world.live_ms or 0)

    @property
    def _last(self) -> int:
        return len(self.world.honest) - 1

    # -- forging ------------------------------------------------------------------------------------------------

    def lied(self, one: Honest, **changes: Any) -> WindowReport:
        """An honest report with other power: its first pane sum differs by a random amount within physics."""
        body = self.body(one)
        first = body.classes[0]
        at = 4 * self.rng.randrange(len(first.pane_sums) // 4)
        value = int.from_bytes(first.pane_sums[at : at + 4], "little", signed=True) + self.rng.randint(1, 20_000)
        sums = first.pane_sums[:at] + value.to_bytes(4, "little", signed=True) + first.pane_sums[at + 4 :]
        return replace(body, classes=(replace(first, pane_sums=sums), *body.classes[1:]), **changes)

    def mutated(self, record: Any) -> Any:
        """A record (a frozen dataclass) with one leaf changed, whichever."""
        for _ in range(100):
            field = self.rng.choice(dataclasses.fields(record)).name
            changed = self._leaf(getattr(record, field))
            if changed is not _SAME and changed != getattr(record, field):
                return replace(record, **{field: changed})
        raise RuntimeError("nothing to change")  # pragma: no cover

    def _leaf(self, value: Any) -> Any:
        rng = self.rng
        if isinstance(value, bool):
            return not value
        if isinstance(value, int):
            return value + rng.choice((-1, 1, 2, 1000, -value))
        if isinstance(value, str):
            return value + rng.choice("abc") if rng.random() < 0.5 else value[:-1]
        if isinstance(value, bytes) and value:
            return flipped(rng, value)
        if dataclasses.is_dataclass(value):
            return self.mutated(value)
        if isinstance(value, tuple) and value:
            at = rng.randrange(len(value))
            if rng.random() < 0.1:
                return value[:at] + value[at + 1 :]
            changed = self._leaf(value[at])
            return value if changed is _SAME else (*value[:at], changed, *value[at + 1 :])
        return _SAME

    def stranger_key(self) -> Stranger:
        """A key that no enclave holds."""
        return Stranger(ec.generate_private_key(ec.SECP256R1()))

    def as_session(self, one: Honest) -> Session:
        """The session of an honest record: what its own host can sign."""
        if one.session is None:
            raise TypeError("an honest record has a session")
        return one.session

    def resumed(self, body: WindowReport, session: Session) -> WindowReport:
        """A body as the first report of another session."""
        return replace(
            body, session_id=session.session_id, seq=0, prev_digest=None, prev_digest_absent_reason="first_record"
        )

    def born_ms(self, one: Honest) -> int:
        """When an attacker's session says that it began: before or after the host's own."""
        return (one.start_ms or 0) + self.rng.randint(-WINDOW_MS, WINDOW_MS)


_SAME = object()


@dataclass(frozen=True)
class Stranger:
    """A key of the attacker's own, and what it signs."""

    key: ec.EllipticCurvePrivateKey

    @property
    def point(self) -> bytes:
        """Its public key, 65 bytes."""
        return public_point(self.key.public_key())

    def value(self, body: WindowReport | ControlRecord, evidence: SessionEvidence | None) -> bytes:
        """A record signed by it, with somebody's evidence."""
        body_bytes = encode_body(body)
        return encode_signed_record(body_bytes, sign_raw(self.key, record_preimage(body_bytes)), evidence)


@lru_cache(maxsize=8192)
def decoded(value: bytes | None) -> DecodedRecord:
    """A record of the honest log."""
    return decode_signed_record(value or b"")


def session_id(binding: SessionBinding) -> bytes:
    """What a session with this binding is called."""
    return session_id_of(encode_binding(binding))


def flipped(rng: random.Random, data: bytes) -> bytes:
    """`data` with one bit changed."""
    changed = bytearray(data)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


Maker = Callable[[Scene], Attempt]
"""Makes one attempt of a class; raises nothing."""
