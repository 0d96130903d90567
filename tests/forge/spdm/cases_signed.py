"""What is signed: transcripts, contexts, slots, nonces, measurements."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tests.forge.spdm.edits import exchanged, first, flip, inserted, of_code, where, with_, without
from tests.forge.spdm.judge import Case
from tests.forge.spdm.keys import key_of, sign
from tests.forge.spdm.world import (
    LEAF,
    V10,
    V11,
    V12,
    V13,
    V14,
    Session,
    Signing,
    World,
    certificate,
    challenge,
    digests,
    measure,
    measurement_blocks,
    refused,
)
from verifier.abi.spdm import GetMeasurements, MeasurementBlock

GET_DIGESTS, GET_CERTIFICATE, CHALLENGE, GET_MEASUREMENTS = 0x81, 0x82, 0x83, 0xE0
VERSION, CHALLENGE_AUTH, MEASUREMENTS, CAPABILITIES, NEGOTIATE = 0x04, 0x03, 0x60, 0x61, 0xE3
MEASURED = (digests(), certificate(), challenge(), measure())
COUNTED = (digests(), certificate(), challenge(), measure(0, signed=False), measure(1, signed=False), measure())


@lru_cache(maxsize=64)
def _other(version: int, seed: str, key: str) -> tuple[bytes, ...]:
    world = World(version=version, seed=seed, leaf=replace(LEAF, key=key))
    return world.mint().messages


def other(version: int = 0x12, seed: str = "2", key: str = "device") -> list[bytes]:
    """Another transcript of the same device, or of another one."""
    return list(_other(version, seed, key))


def briefly() -> list[bytes]:
    """Another connection to the same device, in which less was read."""
    return list(World(seed="2", story=MEASURED).mint().messages)


class Little(Signing):
    """Signs r and s with the lowest byte first."""

    def signature(self) -> bytes:
        made = sign(key_of(self.key, self.key_kind), self.scheme, self.base_hash, self.input())
        half = len(made) // 2
        return made[:half][::-1] + made[half:][::-1]


def little(one: Signing) -> Signing:
    return Little(**{name: getattr(one, name) for name in Signing.__dataclass_fields__})


def signed_as(**changes: Any) -> Any:
    return lambda one: replace(one, **changes)


def of_kind(kind: str, **changes: Any) -> Any:
    return lambda one: replace(one, **changes) if one.kind == kind else one


def cut_entry(messages: list[bytes]) -> list[bytes]:
    """VERSION with its last entry gone, so that an older version looks like the newest."""
    return [one[:5] + bytes((one[5] - 1,)) + one[6:-2] if one[1] == VERSION else one for one in messages]


def second_device(session: Session) -> None:
    """A second device answers in the same connection, honestly, with its own chain in slot 1."""
    stranger = Session(session.world.but(leaf=replace(LEAF, key="second"), seed="second"))
    stranger.a = session.a
    for act in (digests(), certificate(1), measure(slot=1)):
        act(stranger)
    session.messages += stranger.messages


def blocks(*more: MeasurementBlock, but: tuple[int, ...] = ()) -> tuple[MeasurementBlock, ...]:
    return tuple(block for block in measurement_blocks() if block.index not in but) + more


def record(edit: Any) -> Any:
    """MEASUREMENTS with `edit` applied to its record before it is signed."""
    return {"Measurements": lambda message: replace(message, record=edit(message.record))}


def digest(index: int, text: bytes = b"x", kind: int = 0) -> MeasurementBlock:
    return MeasurementBlock(index=index, type=kind, value=hashlib.sha256(text).digest())


_SIGNATURES = [
    Case(name="the context of measurements under a challenge", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=of_kind("challenge", context=b"responder-measurements signing"))),
    Case(name="the context of a challenge under measurements", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=of_kind("measurements", context=b"responder-challenge_auth signing"))),
    Case(name="the context of a requester", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=of_kind("challenge", context=b"requester-challenge_auth signing"))),
    Case(name="the prefix of 1.3 under 1.2", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=signed_as(prefix="dmtf-spdm-v1.3.*"))),
    Case(name="the prefix of 1.2 under 1.3", code="SPDM_SIGNATURE", step="signature",
         world=V13.but(signing=signed_as(prefix="dmtf-spdm-v1.2.*"))),
    Case(name="the prefix of 1.3 under 1.4", code="SPDM_SIGNATURE", step="signature",
         world=V14.but(signing=signed_as(prefix="dmtf-spdm-v1.3.*"))),
    Case(name="no prefix under 1.2", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=signed_as(prefix=""))),
    Case(name="a prefix under 1.1", code="SPDM_SIGNATURE", step="signature",
         world=V11.but(signing=signed_as(prefix="dmtf-spdm-v1.1.*"))),
    Case(name="another hash", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=signed_as(base_hash="sha384"))),
    Case(name="another hash under 1.1", code="SPDM_SIGNATURE", step="signature",
         world=V11.but(signing=signed_as(base_hash="sha512"))),
    Case(name="PSS where PKCS#1 v1.5 was negotiated", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(kind="rsa2048", signing=signed_as(scheme="rsa-pss"))),
    Case(name="PKCS#1 v1.5 where PSS was negotiated", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(kind="rsa2048-pss", signing=signed_as(scheme="rsa"))),
    Case(name="r and s in the other byte order", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=little)),
    Case(name="signed by a stranger", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=signed_as(key="stranger"))),
    Case(name="signed by the issuer", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=signed_as(key="issuer"))),
    Case(name="measurements of 1.2 without the negotiation", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(signing=lambda one: one if one.kind == "challenge" else replace(
             one, transcript=one.transcript[one.transcript.index(bytes((0x12, GET_MEASUREMENTS))):]))),
    Case(name="a signature of zeros", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=lambda messages: [
             one[:-64] + bytes(64) if one[1] == MEASUREMENTS else one for one in messages])),
]  # fmt: skip

_SPLICES = [
    Case(name="CHALLENGE out of another transcript", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=exchanged(CHALLENGE, briefly))),
    Case(name="MEASUREMENTS of another device", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=exchanged(GET_MEASUREMENTS, lambda: other(key="second")))),
    Case(name="MEASUREMENTS of another device on 1.1", code="SPDM_SIGNATURE", step="signature",
         world=V11.but(recorded=exchanged(GET_MEASUREMENTS, lambda: other(0x11, key="second")))),
    Case(name="MEASUREMENTS recorded under 1.3 in 1.4", code="SPDM_SIGNATURE", step="signature",
         world=V14.but(recorded=exchanged(GET_MEASUREMENTS, lambda: [
             b"\x14" + one[1:] for one in other(0x13)]))),
    Case(name="the answer to another challenge", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=lambda messages: [
             *messages[:at(messages)], other()[at(messages)], *messages[at(messages) + 1:]])),
    Case(name="the reading of slot 1 left out", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=without(GET_CERTIFICATE, 1))),
    Case(name="the reading of DIGESTS left out", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=without(GET_DIGESTS))),
    Case(name="a second reading put in", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=lambda messages: inserted(CHALLENGE, *messages[8:10])(messages))),
    Case(name="an unsigned reading of measurements left out", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(story=COUNTED, recorded=without(GET_MEASUREMENTS, 1))),
    Case(name="an ERROR put between measurements", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(story=COUNTED, recorded=inserted(
             GET_MEASUREMENTS, bytes.fromhex("12e00007"), bytes.fromhex("127f0100"), which=2))),
    Case(name="another request put between measurements", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(story=COUNTED, recorded=inserted(
             GET_MEASUREMENTS, bytes.fromhex("12fe0000"), bytes.fromhex("127e0000"), which=2))),
    Case(name="an ERROR between measurements left out", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(story=(*COUNTED[:4], refused(lambda version: GetMeasurements(version=version, operation=7)),
                              measure()),
                       recorded=without(GET_MEASUREMENTS, 1))),
    Case(name="VCA downgrade: capabilities", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=flip(CAPABILITIES, 8, bit=4))),
    Case(name="VCA downgrade: capabilities on 1.1", code="SPDM_SIGNATURE", step="signature",
         world=V11.but(recorded=flip(CAPABILITIES, 8, bit=4))),
    Case(name="VCA downgrade: a version taken out", code="SPDM_SIGNATURE", step="signature",
         world=V13.but(recorded=cut_entry)),
    Case(name="VCA downgrade: a version taken out on 1.0", code="SPDM_SIGNATURE", step="signature",
         world=V10.but(recorded=cut_entry)),
    Case(name="VCA downgrade: algorithms offered", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=flip(NEGOTIATE, 8, bit=0x80))),
    Case(name="the requester's nonce changed", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=flip(CHALLENGE, 4))),
    Case(name="the nonce of GET_MEASUREMENTS changed", code="SPDM_SIGNATURE", step="signature",
         world=V13.but(recorded=flip(GET_MEASUREMENTS, 4))),
    Case(name="the responder's nonce changed", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(recorded=flip(CHALLENGE_AUTH, 4 + 32))),
    Case(name="a measured value changed", code="SPDM_SIGNATURE", step="signature",
         world=V12.but(story=(digests(), certificate(), challenge(summary=0), measure()),
                       recorded=flip(MEASUREMENTS, 8 + 7))),
    Case(name="a context changed on both sides", code="SPDM_SIGNATURE", step="signature",
         world=V13.but(recorded=lambda messages: flip(CHALLENGE_AUTH, -65)(flip(CHALLENGE, -1)(messages)))),
]  # fmt: skip


def at(messages: list[bytes]) -> int:
    return of_code(messages, CHALLENGE_AUTH)[0]


_AGREEMENT = [
    Case(name="slot swap", code="SPDM_SLOT", step="slot", world=V12.but(edits={"ChallengeAuth": with_(slot=1)})),
    Case(name="slot swap of measurements", code="SPDM_SLOT", step="slot",
         world=V12.but(edits={"Measurements": with_(slot=1)})),
    Case(name="a slot the device says is empty", code="SPDM_SLOT", step="slot",
         world=V12.but(edits={"ChallengeAuth": with_(slot_mask=2)})),
    Case(name="another context in CHALLENGE_AUTH", code="SPDM_CONTEXT", step="context",
         world=V13.but(edits={"ChallengeAuth": with_(context=b"mismatch")})),
    Case(name="another context in MEASUREMENTS", code="SPDM_CONTEXT", step="context",
         world=V14.but(edits={"Measurements": with_(context=b"mismatch")})),
    Case(name="another context in an unsigned reading", code="SPDM_CONTEXT", step="context",
         world=V13.but(story=COUNTED, edits={
             "Measurements": where(lambda one: one.total > 0, with_(context=bytes(8)))})),
    Case(name="two devices in one transcript", code="SPDM_CHAIN", step="one_device",
         world=V12.but(story=(digests(), certificate(), challenge(), second_device))),
    Case(name="two devices in one transcript of 1.1", code="SPDM_CHAIN", step="one_device",
         world=V11.but(story=(*MEASURED, second_device))),
    Case(name="a nonce used twice", code="NONCE_REUSED", step="nonces",
         world=V12.but(edits={"Challenge": with_(nonce=b"n" * 32), "GetMeasurements": with_(nonce=b"n" * 32)})),
    Case(name="a responder that repeats its nonce", code="NONCE_REUSED", step="nonces",
         world=V12.but(edits={"ChallengeAuth": with_(nonce=b"n" * 32), "Measurements": with_(nonce=b"n" * 32)})),
    Case(name="an answer repeated", code="NONCE_REUSED", step="nonces",
         world=V11.but(recorded=lambda messages: messages + messages[-2:])),
    Case(name="another nonce expected", code="NONCE_MISMATCH", step="expected_nonces", world=V12,
         nonces=lambda _: (b"e" * 32,)),
    Case(name="one of two nonces expected is another", code="NONCE_MISMATCH", step="expected_nonces", world=V12,
         nonces=lambda found: (found[0], b"e" * 32)),
    Case(name="CHALLENGE of an earlier connection", code="NONCE_MISMATCH", step="expected_nonces",
         world=V12.but(recorded=exchanged(CHALLENGE, other)), nonces=lambda found: found),
    Case(name="MEASUREMENTS of an earlier connection", code="NONCE_MISMATCH", step="expected_nonces",
         world=V12.but(recorded=exchanged(GET_MEASUREMENTS, other)), nonces=lambda found: found),
    Case(name="MEASUREMENTS of an earlier connection of 1.1", code="NONCE_MISMATCH", step="expected_nonces",
         world=V11.but(recorded=exchanged(GET_MEASUREMENTS, lambda: other(0x11))), nonces=lambda found: found),
    Case(name="a whole transcript of another time", code="NONCE_MISMATCH", step="expected_nonces",
         world=V13.but(recorded=lambda _: other(0x13)), nonces=lambda found: found),
    Case(name="half of a nonce", code="NONCE_MISMATCH", step="expected_nonces", world=V12,
         nonces=lambda found: (found[0][:16],)),
    Case(name="an empty nonce", code="NONCE_MISMATCH", step="expected_nonces", world=V12, nonces=lambda _: (b"",)),
]  # fmt: skip

_RECORDS = [
    Case(name="an index twice", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(story=MEASURED, blocks=blocks(digest(1)))),
    Case(name="index 0", code="SPDM_MEASUREMENTS", step=None, world=V12.but(blocks=blocks(digest(0)))),
    Case(name="index 255", code="SPDM_MEASUREMENTS", step=None, world=V12.but(blocks=blocks(digest(255)))),
    Case(name="measurement block overflow: the record", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(edits=record(lambda one: one[:2] + b"\xff\xff" + one[4:5] + b"\xfc\xff" + one[7:]))),
    Case(name="measurement block overflow: the value", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(edits=record(lambda one: one[:5] + b"\xff\xff" + one[7:]))),
    Case(name="measurement block underflow", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(edits=record(lambda one: one[:2] + b"\x00\x00" + one[4:]))),
    Case(name="measurement block cut off", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(edits=record(lambda one: one[:-20]))),
    Case(name="fewer blocks than counted", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(edits={"Measurements": with_(count=9)})),
    Case(name="more blocks than counted", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(edits={"Measurements": with_(count=2)})),
    Case(name="a digest of another length", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(blocks=blocks(MeasurementBlock(index=40, type=1, value=bytes(48))))),
    Case(name="another format of measurements", code="SPDM_UNSUPPORTED", step=None,
         world=V12.but(edits=record(lambda one: one[:1] + b"\x02" + one[2:]))),
    Case(name="not all measurements", code="SPDM_MEASUREMENTS", step="answer",
         world=V12.but(story=(digests(), certificate(), challenge(summary=0), *COUNTED[3:]), edits={
             "Measurements": where(lambda one: one.count == 6, lambda one: replace(
                 one, count=5, record=one.record[:-23]))})),
    Case(name="no measurements", code="SPDM_MEASUREMENTS", step="answer",
         world=V12.but(story=(digests(), certificate(), challenge(summary=0), measure()), blocks=())),
    Case(name="measurements where their number was asked for", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(story=(digests(), certificate(), challenge(), measure(0)), edits={"Measurements": lambda one: (
             replace(one, count=1, record=digest(0xFE).encode()))})),
    Case(name="several blocks for one index", code="SPDM_MEASUREMENTS", step=None,
         world=V12.but(story=(digests(), certificate(), challenge(), measure(1)), edits={"Measurements": lambda one: (
             replace(one, count=2, record=digest(1).encode() + digest(2).encode()))})),
    Case(name="another index than asked for", code="SPDM_MEASUREMENTS", step="index",
         world=V12.but(story=(digests(), certificate(), challenge(), measure(1)), edits={"Measurements": lambda one: (
             replace(one, record=digest(2).encode()))})),
    Case(name="measurements that changed while they were read", code="SPDM_MEASUREMENTS", step="unchanged",
         world=V12.but(edits={"Measurements": with_(content_changed=0x10)})),
    Case(name="a block that says something else the second time", code="SPDM_MEASUREMENTS", step="same_value",
         world=V12.but(story=(digests(), certificate(), challenge(summary=0), measure(1), measure(1)),
                       edits={"Measurements": first(lambda one: replace(one, record=digest(1).encode()))})),
    Case(name="an unsigned block that says something else", code="SPDM_MEASUREMENTS", step="same_value",
         world=V12.but(story=COUNTED, edits={"Measurements": where(
             lambda one: one.count == 1, lambda one: replace(one, record=digest(1).encode()))})),
    Case(name="a block that is of another kind the second time", code="SPDM_MEASUREMENTS", step="same_value",
         world=V12.but(story=(digests(), certificate(), challenge(summary=0), measure(1), measure(1)),
                       edits={"Measurements": first(lambda one: replace(one, record=digest(1, kind=9).encode()))})),
    Case(name="another measurement summary", code="SPDM_SUMMARY", step="summary",
         world=V12.but(edits={"ChallengeAuth": with_(summary_hash=bytes(32))})),
    Case(name="another measurement summary on 1.1", code="SPDM_SUMMARY", step="summary",
         world=V11.but(edits={"ChallengeAuth": with_(summary_hash=b"\x77" * 32)})),
    Case(name="firmware exchanged between challenge and measurements", code="SPDM_SUMMARY", step="summary",
         world=V12.but(story=MEASURED, edits=record(lambda one: digest(1, b"evil").encode() + one[39:]))),
]  # fmt: skip

CASES = [*_SIGNATURES, *_SPLICES, *_AGREEMENT, *_RECORDS]
