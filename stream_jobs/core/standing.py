"""What is in force in a domain beside its policy, repeated by its control records: a restart may begin at any.

Two workers may write at once, or one by an old view of the log. So everything here has an order of its own, and what is
in force is the newest of all that was named, wherever a reader began: a record that names less than is in force takes
nothing away, it only is no place to begin at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from schemas.records import ControlRecord, ControlSubject
from stream_jobs.core.policies import CollateralLookup, CollateralView
from stream_jobs.core.refusals import Refused
from stream_jobs.core.windows import CollateralStart, DomainState

COLLATERAL = "collateral"
"""Kind of the subject that says since when the record's collateral is in force; without one, since the record."""

BEACON = "beacon"
"""Kind of the subject that is a beacon: its nonce in hexadecimal, and when it was issued."""

NONCE_BYTES = 32


@dataclass(frozen=True, slots=True)
class Standing:
    """What one control record says is in force."""

    collateral: CollateralStart | None
    beacons: dict[bytes, int]

    @property
    def collateral_view(self) -> CollateralView | None:
        """The set it names; its author's own evidence is judged under it."""
        return None if self.collateral is None else self.collateral.view


def standing_of(body: ControlRecord, sets: CollateralLookup, latest_ms: int) -> Standing:
    """What a control record names as in force, nothing of it since a time beyond `latest_ms`. Raises Refused."""
    if body.kind == "COLLATERAL_SWITCH" and body.content_digest != body.collateral_digest:
        raise Refused("CONTROL_INVALID", "a switch to another set than it names", field="content_digest")
    return Standing(_collateral(body, sets, latest_ms), beacons_of(body, latest_ms))


def beacons_of(body: ControlRecord, latest_ms: int) -> dict[bytes, int]:
    """Beacons that a control record names: when each was issued (ms) by nonce. Raises Refused."""
    found = {}
    for subject in body.subjects:
        if subject.kind != BEACON:
            continue
        nonce = _nonce(subject.id)
        if nonce is None or subject.at_ms is None or not 0 <= subject.at_ms <= latest_ms:
            raise Refused("CONTROL_INVALID", "a beacon without a nonce, or of a time to come", field="subjects")
        found[nonce] = subject.at_ms
    if body.kind == "BEACON" and not found:
        raise Refused("CONTROL_INVALID", "no beacon", field="subjects")
    return found


def _nonce(text: str) -> bytes | None:
    try:
        nonce = bytes.fromhex(text)
    except ValueError:
        return None
    return nonce if len(nonce) == NONCE_BYTES and nonce.hex() == text else None


def _collateral(body: ControlRecord, sets: CollateralLookup, latest_ms: int) -> CollateralStart | None:
    digest = body.collateral_digest
    if digest is None:
        if body.kind == "COLLATERAL_SWITCH":
            raise Refused("CONTROL_INVALID", "a switch to no collateral", field="collateral_digest")
        return None
    since_ms = body.issued_at_ms  # not its append time: a copy of the record says nothing new
    for subject in body.subjects:
        if subject.kind == COLLATERAL and subject.id == digest.hex() and subject.at_ms is not None:
            since_ms = subject.at_ms
    if since_ms > latest_ms:
        raise Refused("CONTROL_INVALID", "collateral in force since a time to come", field="subjects")
    view = sets(digest)
    if view is None:
        raise Refused("COLLATERAL_UNKNOWN", f"no complete set {digest.hex()} is at hand", field="collateral_digest")
    return CollateralStart(since_ms, view)


def adopt(state: DomainState, named: Standing) -> bool:
    """Take over what is newer than what is in force; True if the record then names all that is."""
    if _rank(named.collateral) > _rank(state.collateral):
        state.collateral = named.collateral
    state.note_beacons(named.beacons)
    return _rank(named.collateral) == _rank(state.collateral) and state.beacons.items() <= named.beacons.items()


def _rank(one: CollateralStart | None) -> tuple[int, bytes]:
    """Times of issue order switches, also for readers who met only one; the digest decides between equal ones."""
    return (-1, b"") if one is None else (one.since_ms, one.view.digest)


@dataclass(frozen=True, slots=True)
class CollateralOffer:
    """The newest complete set on the collateral topic; `fetched_at_ms`: when somebody last said that it is current."""

    view: CollateralView
    fetched_at_ms: int


def beacon_subjects(beacons: Mapping[bytes, int]) -> tuple[ControlSubject, ...]:
    """Beacons as subjects, oldest first."""
    ordered = sorted((at_ms, nonce) for nonce, at_ms in beacons.items())
    return tuple(ControlSubject(kind=BEACON, id=nonce.hex(), at_ms=at_ms) for at_ms, nonce in ordered)


def repeated(
    state: DomainState | None, offer: CollateralOffer | None
) -> tuple[bytes | None, tuple[ControlSubject, ...]]:
    """Collateral and subjects that a control record names: what is in force, or the collateral offered where that is
    newer, which comes into force with the record.
    """
    beacons = () if state is None else beacon_subjects(state.beacons)
    if offer is not None and is_newer(state, offer):
        return offer.view.digest, beacons
    if state is None or state.collateral is None:
        return None, beacons
    digest = state.collateral.view.digest
    return digest, (ControlSubject(kind=COLLATERAL, id=digest.hex(), at_ms=state.collateral.since_ms), *beacons)


def is_newer(state: DomainState | None, offer: CollateralOffer) -> bool:
    """Whether a set should come into force: it is another one, or was said to be current since."""
    in_force = None if state is None else state.collateral
    return in_force is None or in_force.view.digest != offer.view.digest or in_force.since_ms < offer.fetched_at_ms
