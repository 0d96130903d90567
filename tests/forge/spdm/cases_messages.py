"""Messages that are damaged, out of order, of the wrong version, or beyond what is read."""

from __future__ import annotations

from dataclasses import replace

from tests.forge.spdm.edits import cut, doubled, inserted, tail, with_, without
from tests.forge.spdm.judge import Case
from tests.forge.spdm.world import (
    STORY,
    V11,
    V12,
    V13,
    V14,
    Session,
    World,
    certificate,
    challenge,
    digests,
    greet,
    measure,
    not_ready,
    raw,
)
from verifier.abi.spdm import AlgorithmTable, ErrorResponse, GetDigests, RespondIfReady

VERSION, DIGESTS, CERTIFICATE, CHALLENGE_AUTH, MEASUREMENTS, ALGORITHMS = 0x04, 0x01, 0x02, 0x03, 0x60, 0x63
GET_VERSION, GET_DIGESTS, CHALLENGE, GET_MEASUREMENTS = 0x84, 0x81, 0x83, 0xE0
VENDOR = raw(bytes.fromhex("12fe0000"), bytes.fromhex("127e0000"))


def crossed(messages: list[bytes]) -> list[bytes]:
    """Two requests, then their two responses."""
    return [*messages[:-4], messages[-4], messages[-2], messages[-3], messages[-1]]


def restarted(session: Session) -> None:
    """The connection begins anew, and the device counts both beginnings to its transcript."""
    greet(session)


def late(session: Session) -> None:
    """A message of another version, which the device counts to its transcript all the same."""
    session.b = b"".join(session.put(GetDigests(version=0x11), replace(digests_of(session), version=0x11)))


def digests_of(session: Session):  # type: ignore[no-untyped-def]
    probe = Session(session.world)
    digests()(probe)
    from verifier.abi.spdm import Digests
    from verifier.abi.spdm_algorithms import SCHEMES, Suite

    suite = Suite(
        version=session.world.version, base_hash=session.world.base_hash, scheme=SCHEMES[0x10], measurement_hash=None,
        measurement_hash_bytes=0, measurement_specification=1,
    )  # fmt: skip
    return Digests.read(probe.messages[1], suite)[0]


def only(*asked: int) -> World:
    return V12.but(edits={"Algorithms": with_(base_asym=sum(asked))})


_DAMAGED = [
    Case(name="CHALLENGE_AUTH cut off", code="SPDM_MALFORMED", step=None, world=V12.but(recorded=cut(CHALLENGE_AUTH))),
    Case(name="MEASUREMENTS cut off", code="SPDM_MALFORMED", step=None, world=V12.but(recorded=cut(MEASUREMENTS, 40))),
    Case(name="a header cut off", code="SPDM_MALFORMED", step=None, world=V12.but(recorded=cut(GET_DIGESTS, 2))),
    Case(name="VERSION without its last byte", code="SPDM_MALFORMED", step=None,
         world=V12.but(recorded=cut(VERSION))),
    Case(name="VERSION without entries", code="SPDM_VERSION", step=None,
         world=V12.but(edits={"Version": with_(entries=())})),
    Case(name="a byte after a message", code="SPDM_MALFORMED", step=None,
         world=V12.but(recorded=tail(CHALLENGE_AUTH, b"\0"))),
    Case(name="eight zeros after a message", code="SPDM_MALFORMED", step=None,
         world=V12.but(recorded=tail(GET_DIGESTS, bytes(8)))),
    Case(name="padding that is not zero", code="SPDM_MALFORMED", step=None,
         world=V12.but(recorded=tail(DIGESTS, b"\0\0\0\1"))),
    Case(name="DIGESTS without a slot", code="SPDM_MALFORMED", step=None,
         world=V12.but(edits={"Digests": with_(digests={})})),
    Case(name="CHALLENGE with an unknown summary type", code="SPDM_MALFORMED", step=None,
         world=V12.but(story=(digests(), certificate(), challenge(summary=2)))),
    Case(name="CHALLENGE of slot 9", code="SPDM_MALFORMED", step=None,
         world=V12.but(story=(digests(), certificate(), challenge(slot=9)))),
    Case(name="opaque data longer than the message", code="SPDM_MALFORMED", step=None,
         world=V12.but(recorded=lambda messages: [
             one[:4 + 96] + b"\xff\xff" + one[4 + 98:] if one[1] == CHALLENGE_AUTH else one for one in messages])),
    Case(name="ALGORITHMS longer than it says", code="SPDM_MALFORMED", step=None,
         world=V12.but(recorded=lambda messages: [
             one[:4] + b"\x20\x00" + one[6:] if one[1] == ALGORITHMS else one for one in messages])),
    Case(name="a secured message", code="SPDM_VERSION", step=None,
         world=V12.but(recorded=inserted(CHALLENGE, b"\xff" * 24, b"\xff" * 24))),
]  # fmt: skip

_ORDER = [
    Case(name="a last request without response", code="SPDM_SEQUENCE", step="finished",
         world=V12.but(recorded=lambda messages: [*messages, bytes.fromhex("12810000")])),
    Case(name="never ready", code="SPDM_SEQUENCE", step="finished",
         world=V12.but(recorded=lambda messages: [
             *messages, bytes.fromhex("12810000"),
             ErrorResponse(version=0x12, error=0x42, extended=bytes.fromhex("0a810501")).encode()])),
    Case(name="a response nobody asked for", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=inserted(CHALLENGE, bytes.fromhex("12010000"), bytes.fromhex("12010000")))),
    Case(name="a response to another request", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=inserted(CHALLENGE, bytes.fromhex("12810000"), bytes.fromhex("1202000000000000")))),
    Case(name="requests that cross", code="SPDM_SEQUENCE", step=None, world=V12.but(recorded=crossed)),
    Case(name="the first half of an exchange lost", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=lambda messages: messages[1:])),
    Case(name="it does not begin with GET_VERSION", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=lambda messages: messages[2:])),
    Case(name="digests before algorithms", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=inserted(0xE3, bytes.fromhex("12810000"), bytes.fromhex("12010001") + bytes(32)))),
    Case(name="the connection begins anew", code="SPDM_SEQUENCE", step="order",
         world=V12.but(story=(digests(), certificate(), restarted, challenge(), measure()))),
    Case(name="capabilities twice", code="SPDM_SEQUENCE", step=None, world=V12.but(recorded=doubled(0xE1))),
    Case(name="algorithms left out", code="SPDM_SEQUENCE", step=None, world=V12.but(recorded=without(0xE3))),
    Case(name="RESPOND_IF_READY with another token", code="SPDM_SEQUENCE", step="retry",
         world=V12.but(story=(digests(), certificate(), not_ready(challenge(), retry_token=6), measure()))),
    Case(name="RESPOND_IF_READY for nothing", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=inserted(
             CHALLENGE, RespondIfReady(version=0x12, code=0x81, token=1).encode(), bytes.fromhex("12010000")))),
    Case(name="ResponseNotReady for another request", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=inserted(
             CHALLENGE, bytes.fromhex("12810000"),
             ErrorResponse(version=0x12, error=0x42, extended=bytes.fromhex("0ae00501")).encode()))),
    Case(name="an exchange of a vendor before the algorithms", code="SPDM_SEQUENCE", step=None,
         world=V12.but(recorded=inserted(0xE3, bytes.fromhex("12fe0000"), bytes.fromhex("127e0000")))),
]  # fmt: skip

_VERSIONS = [
    Case(name="a version VERSION does not offer", code="SPDM_VERSION", step="version",
         world=V12.but(edits={"Version": with_(entries=(0x1000, 0x1100))})),
    Case(name="a message of another version", code="SPDM_VERSION", step="version",
         world=V12.but(story=(digests(), late, certificate(), challenge(), digests(), certificate(), measure()))),
    Case(name="a response of another version", code="SPDM_VERSION", step=None,
         world=V12.but(edits={"ChallengeAuth": with_(version=0x11)})),
    Case(name="GET_VERSION of 1.2", code="SPDM_VERSION", step=None,
         world=V12.but(edits={"Version": with_(version=0x12)})),
    Case(name="version 2.0", code="SPDM_VERSION", step=None, world=V12.but(recorded=lambda messages: [
        bytes((0x20,)) + one[1:] if index > 1 else one for index, one in enumerate(messages)])),
    Case(name="an ERROR of another version", code="SPDM_VERSION", step="version",
         world=V12.but(recorded=inserted(GET_MEASUREMENTS, bytes.fromhex("12810000"), bytes.fromhex("117f0100")))),
]  # fmt: skip

_BEYOND = [
    Case(name="too many messages", code="SPDM_TOO_LARGE", step="size", world=V12.but(story=(*STORY, *[VENDOR] * 1020))),
    Case(name="too many signatures", code="SPDM_TOO_LARGE", step=None,
         world=V12.but(story=(digests(), certificate(), *[challenge()] * 33))),
    Case(name="chunks", code="SPDM_UNSUPPORTED", step=None,
         world=V12.but(recorded=inserted(CHALLENGE, bytes.fromhex("128600000000"), bytes.fromhex("12060000")))),
    Case(name="a key without a certificate", code="SPDM_UNSUPPORTED", step=None,
         world=V12.but(edits={"Challenge": with_(slot=0xFF)})),
    Case(name="measurements by a key without a certificate", code="SPDM_UNSUPPORTED", step=None,
         world=V12.but(edits={"GetMeasurements": with_(slot=0x0F)})),
    Case(name="the size of a slot", code="SPDM_UNSUPPORTED", step=None,
         world=V13.but(edits={"GetCertificate": with_(param2=1)})),
    Case(name="capabilities with algorithms", code="SPDM_UNSUPPORTED", step=None,
         world=V13.but(edits={"Capabilities": with_(param1=1)})),
    Case(name="nothing signed", code="SPDM_UNSIGNED", step=None, world=V12.but(story=(digests(), certificate()))),
    Case(name="nothing agreed", code="SPDM_UNSIGNED", step=None, world=V12.but(recorded=lambda messages: messages[:4])),
    Case(name="no messages", code="SPDM_UNSIGNED", step=None, world=V12.but(recorded=lambda _: [])),
]  # fmt: skip

_ALGORITHMS = [
    Case(name="two signature algorithms", code="SPDM_ALGORITHMS", step=None, world=only(0x10, 0x80)),
    Case(name="no signature algorithm", code="SPDM_ALGORITHMS", step=None, world=only()),
    Case(name="a signature algorithm nobody offered", code="SPDM_ALGORITHMS", step="chosen",
         world=V12.but(edits={"NegotiateAlgorithms": with_(base_asym=0x80)})),
    Case(name="a hash nobody offered", code="SPDM_ALGORITHMS", step="chosen",
         world=V12.but(edits={"NegotiateAlgorithms": with_(base_hash=0x02)})),
    Case(name="two hashes", code="SPDM_ALGORITHMS", step=None,
         world=V12.but(edits={"Algorithms": with_(base_hash=0x03), "NegotiateAlgorithms": with_(base_hash=0x03)})),
    Case(name="SHA3-256", code="SPDM_ALGORITHMS", step=None,
         world=V12.but(edits={"Algorithms": with_(base_hash=0x08), "NegotiateAlgorithms": with_(base_hash=0x08)})),
    Case(name="Ed25519", code="SPDM_ALGORITHMS", step=None,
         world=V12.but(edits={"Algorithms": with_(base_asym=0x400), "NegotiateAlgorithms": with_(base_asym=0x400)})),
    Case(name="an extended algorithm", code="SPDM_ALGORITHMS", step=None,
         world=V12.but(edits={"Algorithms": with_(extended_asym=(b"\0\0\0\1",))})),
    Case(name="a post-quantum signature", code="SPDM_ALGORITHMS", step=None,
         world=V14.but(edits={"Algorithms": with_(pqc_asym=2), "NegotiateAlgorithms": with_(pqc_asym=2)})),
    Case(name="a post-quantum signature alone", code="SPDM_ALGORITHMS", step=None,
         world=V14.but(edits={"Algorithms": with_(base_asym=0, pqc_asym=2),
                              "NegotiateAlgorithms": with_(pqc_asym=2)})),
    Case(name="two measurement hashes", code="SPDM_ALGORITHMS", step=None,
         world=V12.but(edits={"Algorithms": with_(measurement_hash=0x06)})),
    Case(name="a measurement specification nobody offered", code="SPDM_ALGORITHMS", step="chosen",
         world=V12.but(edits={"NegotiateAlgorithms": with_(measurement_specification=2)})),
    Case(name="two formats of opaque data", code="SPDM_ALGORITHMS", step="chosen",
         world=V12.but(edits={"Algorithms": with_(other_params=3)})),
    Case(name="a key exchange nobody offered", code="SPDM_ALGORITHMS", step="tables",
         world=V11.but(edits={"Algorithms": with_(tables=(AlgorithmTable(5, b"\1\0"),))})),
    Case(name="two key exchanges", code="SPDM_ALGORITHMS", step="tables",
         world=V11.but(edits={"Algorithms": with_(tables=(AlgorithmTable(2, b"\x18\0"),))})),
    Case(name="a kind of algorithm twice", code="SPDM_ALGORITHMS", step="tables",
         world=V11.but(edits={"Algorithms": with_(
             tables=(AlgorithmTable(2, b"\x10\0"), AlgorithmTable(2, b"\x08\0")))})),
    Case(name="a kind of algorithm offered twice", code="SPDM_ALGORITHMS", step="tables",
         world=V11.but(edits={"NegotiateAlgorithms": lambda message: replace(
             message, tables=(*message.tables, AlgorithmTable(2, b"\x10\0")))})),
]  # fmt: skip

CASES = [*_DAMAGED, *_ORDER, *_VERSIONS, *_BEYOND, *_ALGORITHMS]
