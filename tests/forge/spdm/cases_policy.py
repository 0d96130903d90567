"""Transcripts that verify, and prove less than a policy demands: of their age, of what is signed, of debug modes."""

from __future__ import annotations

from dataclasses import replace

from tests.forge.spdm.cases_genuine import ONE_BY_ONE
from tests.forge.spdm.edits import exchanged, first, with_
from tests.forge.spdm.judge import Case
from tests.forge.spdm.world import (
    LEAF,
    V10,
    V11,
    V12,
    V13,
    V14,
    Act,
    World,
    certificate,
    challenge,
    counted_by_nobody,
    digests,
    measure,
    measurement_blocks,
)
from verifier.policy.devices import STRICT_SPDM, SpdmDemands

CHALLENGE, GET_MEASUREMENTS = 0x83, 0xE0
ALL = SpdmDemands()
MEASURED: tuple[Act, ...] = (digests(), certificate(), challenge(summary=0), measure())
DEBUG = (
    *measurement_blocks()[:-1],
    replace(measurement_blocks()[-1], value=bytes.fromhex("3f000000040000001f00000001000000")),
)


def older(world: World, *story: Act, code: int = GET_MEASUREMENTS) -> World:
    """The world's story, with the exchange of `code` out of another connection to the same device."""
    other = world.but(seed="older", story=story or MEASURED)
    return world.but(story=MEASURED, recorded=exchanged(code, lambda: list(other.mint().messages)))


def counted_before(world: World) -> World:
    """One block and, from a time when the device had no more, how many there are."""
    blocks = measurement_blocks()[:1]
    other = world.but(seed="older", story=(digests(), certificate(), challenge(), measure(0)), blocks=blocks)
    return world.but(
        story=(digests(), certificate(), challenge(summary=0), measure(1)),
        recorded=lambda messages: [*messages[:-2], *other.mint().messages[-2:], *messages[-2:]],
    )


_FRESH = [
    *(
        Case(name=f"older measurements beside a fresh challenge, {world.version:#04x}", code="NONCE_UNCHECKED",
             step="stale", world=older(world), nonces=lambda nonces: nonces[:1], demands=ALL)
        for world in (V11, V12, V13)
    ),
    *(
        Case(name=f"an older challenge beside fresh measurements, {world.version:#04x}", code="NONCE_UNCHECKED",
             step="stale", world=older(world, code=CHALLENGE), nonces=lambda nonces: nonces[1:], demands=ALL)
        for world in (V11, V12, V13)
    ),
    Case(name="a second challenge nobody asked for", code="NONCE_UNCHECKED", step="stale",
         world=V12.but(story=(digests(), certificate(), challenge(), challenge(), measure())),
         nonces=lambda nonces: nonces[1:], demands=ALL),
    Case(name="a challenge alone, without a nonce to compare", code="NONCE_UNCHECKED", step="SpdmFresh",
         world=V12.but(story=(digests(), certificate(), challenge())), demands=replace(ALL, demand_grade=False)),
    Case(name="no nonce to compare", code="NONCE_UNCHECKED", step="SpdmFresh", world=V13, demands=ALL),
    Case(name="measurements of unknown age where a nonce alone is demanded", code="NONCE_UNCHECKED", step="SpdmFresh",
         world=V12, nonces=lambda nonces: nonces[:1], demands=replace(STRICT_SPDM, demand_nonce=True)),
]  # fmt: skip

_COMPLETE = [
    *(
        Case(name=f"a forged number of blocks, {world.version:#04x}", code="FIRST_MILE_TOO_LOW", step="SpdmGraded",
             world=world.but(story=(digests(), certificate(), challenge(summary=0), counted_by_nobody(1), measure(1))),
             nonces=lambda nonces: nonces, demands=ALL)
        for world in (V10, V11, V12, V13, V14)
    ),
    Case(name="a forged number of blocks that leaves a debug mode out", code="FIRST_MILE_TOO_LOW", step="SpdmGraded",
         world=V12.but(blocks=DEBUG, story=(digests(), certificate(), challenge(summary=0), counted_by_nobody(2),
                                            measure(1, signed=False), measure(2))),
         nonces=lambda nonces: nonces, demands=ALL),
    *(
        Case(name=f"an older number of blocks, {world.version:#04x}", code="FIRST_MILE_TOO_LOW", step="SpdmGraded",
             world=counted_before(world), nonces=lambda nonces: nonces, demands=ALL)
        for world in (V10, V11, V12, V13, V14)
    ),
    Case(name="two numbers of blocks", code="SPDM_MEASUREMENTS", step="total",
         world=V12.but(story=(digests(), certificate(), challenge(), measure(0), measure(0)),
                       edits={"Measurements": first(with_(total=2))})),
    Case(name="two numbers of blocks under one signature", code="SPDM_MEASUREMENTS", step="total",
         world=V11.but(story=(digests(), certificate(), challenge(), measure(0, signed=False), measure(0)),
                       edits={"Measurements": first(with_(total=2))})),
    Case(name="one by one, the last under no expected nonce", code="FIRST_MILE_TOO_LOW", step="SpdmGraded",
         world=V12.but(story=ONE_BY_ONE), nonces=lambda nonces: nonces[:-1], demands=ALL),
]  # fmt: skip

_MODES = [
    Case(name="an active debug mode", code="DEVICE_MODE", step="NoSpdmDebug", world=V12.but(blocks=DEBUG),
         nonces=lambda nonces: nonces, demands=ALL),
    Case(name="an active debug mode where nothing else is judged", code="DEVICE_MODE", step="NoSpdmDebug",
         world=V11.but(blocks=DEBUG, story=(digests(), certificate(), measure())), demands=STRICT_SPDM),
]  # fmt: skip

_CHAINS = [
    Case(name="an expired chain under the challenge, a valid one under measurements", code="CERT_EXPIRED",
         step="validity", world=V12.but(
             story=(digests(), certificate(), certificate(1), challenge(), measure(slot=1)),
             leaf=replace(LEAF, not_after=V12.at - 1), second={"not_after": V12.at + 1})),
]  # fmt: skip

CASES = [*_FRESH, *_COMPLETE, *_MODES, *_CHAINS]
