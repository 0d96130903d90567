"""Transcripts that are genuine, however unusual, and the grade they earn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.forge.spdm.edits import where, with_
from tests.forge.spdm.keys import RESPONDER_AUTH, Cert
from tests.forge.spdm.world import (
    ISSUER,
    LEAF,
    V10,
    V11,
    V12,
    V13,
    V14,
    World,
    certificate,
    challenge,
    counted_by_nobody,
    digests,
    measure,
    measurement_blocks,
    not_ready,
    passed_over,
    raw,
    refused,
)
from verifier.abi.spdm import Challenge, GetCapabilities, GetMeasurements, MeasurementBlock

MEASURED, NONE = "SPDM_MEASURED", "NONE"
ONE_BY_ONE = (
    digests(), certificate(), challenge(), measure(0, signed=False),
    *(measure(index) for index in (1, 2, 3, 9, 16, 254)),
)  # fmt: skip

ENDING = (0xE4, 0xE5, 0xE6, 0xE7, 0xEA, 0xEB, 0xEF)
"""KEY_EXCHANGE, FINISH, PSK_EXCHANGE, PSK_FINISH, two of encapsulated requests, GET_MEASUREMENT_EXTENSION_LOG."""


def padded(messages: list[bytes]) -> list[bytes]:
    """As PCI DOE delivers them: zeros up to the next four bytes."""
    return [one + bytes(-len(one) % 4) for one in messages]


def before(code: int, *more: bytes) -> Any:
    def edit(messages: list[bytes]) -> list[bytes]:
        at = next(index for index, one in enumerate(messages) if one[1] == code)
        return messages[:at] + list(more) + messages[at:]

    return edit


GENUINE: list[tuple[str, World, str]] = [
    ("1.0", V10, MEASURED),
    ("1.1", V11, MEASURED),
    ("1.2", V12, MEASURED),
    ("1.3", V13, MEASURED),
    ("1.4", V14, MEASURED),
    ("P-384", V12.but(kind="p384", base_hash="sha384", measurement_hash=0x04), MEASURED),
    ("P-521", V14.but(kind="p521", base_hash="sha512", measurement_hash=0x08), MEASURED),
    ("P-384 with SHA-512", V13.but(kind="p384", base_hash="sha512"), MEASURED),
    ("RSA 2048", V11.but(kind="rsa2048"), MEASURED),
    ("RSA-PSS 2048", V12.but(kind="rsa2048-pss"), MEASURED),
    ("measurements only, 1.2", V12.but(story=(digests(), certificate(), measure())), NONE),
    ("measurements only, 1.1", V11.but(story=(digests(), certificate(), measure())), NONE),
    ("challenge only", V12.but(story=(digests(), certificate(), challenge())), NONE),
    ("one measurement only", V12.but(story=(digests(), certificate(), challenge(), measure(1))), NONE),
    ("one by one", V12.but(story=ONE_BY_ONE), MEASURED),
    ("one by one, 1.1", V11.but(story=ONE_BY_ONE), MEASURED),
    (
        "unsigned readings first",
        V13.but(story=(digests(), certificate(), challenge(), measure(0, signed=False), measure(1, signed=False),
                       measure())),
        MEASURED,
    ),
    (
        "an index that is not there",
        V12.but(story=(digests(), certificate(), challenge(), measure(1, signed=False),
                       refused(lambda version: GetMeasurements(version=version, operation=7)), measure())),
        MEASURED,
    ),
    (
        "measurements before the challenge",
        V12.but(story=(digests(), certificate(), measure(), digests(), certificate(), challenge())),
        MEASURED,
    ),
    (
        "challenged twice",
        V12.but(story=(digests(), certificate(), challenge(), digests(), challenge(), measure())),
        MEASURED,
    ),
    ("challenged again without reading", V13.but(story=(digests(), certificate(), challenge(), challenge(), measure())),
     MEASURED),
    ("another slot", V12.but(story=(digests(), certificate(1), challenge(slot=1), measure(slot=1))), MEASURED),
    ("portions", V12.but(story=(digests(), certificate(portion=100), challenge(), measure())), MEASURED),
    ("large form", V14.but(
        story=(digests(), certificate(portion=0xFFFF_FFFF, large=True), certificate(1, large=True), challenge(),
               measure())), MEASURED),
    ("large form in portions", V14.but(
        story=(digests(), certificate(portion=100, large=True), challenge(), measure())), MEASURED),
    ("both forms, one after the other", V14.but(
        story=(digests(), certificate(large=True), certificate(), challenge(), digests(), certificate(1),
               certificate(large=True), challenge(), measure())), MEASURED),
    ("large form, not ready at first", V14.but(
        story=(digests(), not_ready(certificate(large=True)), challenge(), measure())), MEASURED),
    ("large form, padding of PCI DOE", V14.but(
        story=(digests(), certificate(portion=101, large=True), challenge(), measure()), recorded=padded), MEASURED),
    ("a reading that was broken off", V12.but(
        story=(digests(), certificate(portion=300, stop_after=1), certificate(), challenge(), measure())), MEASURED),
    ("no summary", V12.but(story=(digests(), certificate(), challenge(summary=0), measure())), MEASURED),
    ("a summary of the TCB", V12.but(story=(digests(), certificate(), challenge(summary=1), measure())), MEASURED),
    ("bit streams asked for", V12.but(
        story=(digests(), certificate(), challenge(), measure(attributes=2)),
        edits={"ChallengeAuth": with_(summary_hash=bytes(32))}), MEASURED),
    ("not ready at first", V12.but(story=(digests(), certificate(), not_ready(challenge()), not_ready(measure()))),
     MEASURED),
    ("busy at first", V12.but(
        story=(digests(), certificate(),
               refused(lambda version: Challenge(version=version, slot=0, nonce=bytes(32)), 3),
               challenge(), measure())), MEASURED),
    ("capabilities refused at first", V12.but(
        recorded=before(0xE1, GetCapabilities(version=0x12).encode(), bytes.fromhex("127f0300"))), MEASURED),
    ("a key pair per slot", V13.but(edits={
        "NegotiateAlgorithms": with_(other_params=0x12),
        "Digests": with_(key_pairs=(1, 2), certificate_infos=(1, 2), key_usages=(6, 6))}), MEASURED),
    ("padding of PCI DOE", V13.but(recorded=padded), MEASURED),
    ("exchanges of a vendor", V12.but(
        story=(digests(), certificate(), raw(bytes.fromhex("12fe0000"), bytes.fromhex("127e0000")), challenge(),
               measure())), MEASURED),
    *((f"{code:#04x} before the challenge", V13.but(
        story=(digests(), certificate(), passed_over(code, ends=True), challenge(), measure())), MEASURED)
      for code in ENDING),
    ("a session begun between two challenges", V12.but(
        story=(digests(), certificate(), challenge(), digests(), certificate(), passed_over(0xE4, ends=True),
               challenge(), measure())), MEASURED),
    ("a digest beside the stream it stands for", V12.but(
        story=(digests(), certificate(), challenge(summary=0), measure(), measure(1, attributes=2)),
        edits={"Measurements": where(lambda one: one.count == 1, with_(record=MeasurementBlock(
            index=1, type=0x80 | measurement_blocks()[0].type, value=b"firmware").encode()))}), MEASURED),
    *((f"a number of blocks nobody signed, {world.version:#04x}", world.but(
        story=(digests(), certificate(), challenge(summary=0), counted_by_nobody(1), measure(1))), NONE)
      for world in (V10, V11, V12, V13, V14)),
    ("a wrong number of blocks nobody signed, beside all of them", V12.but(
        story=(digests(), certificate(), challenge(), counted_by_nobody(2), measure())), MEASURED),
    ("a number of blocks signed by itself", V12.but(
        story=(digests(), certificate(), challenge(), measure(0), *ONE_BY_ONE[4:])), MEASURED),
    ("the number of blocks asked for twice", V12.but(
        story=(*ONE_BY_ONE[:3], measure(0), measure(0, signed=False), *ONE_BY_ONE[4:])), MEASURED),
    ("opaque data", V13.but(edits={"ChallengeAuth": with_(opaque=bytes(40)), "Measurements": with_(opaque=b"x" * 900)}),
     MEASURED),
    ("a leaf for responders", V12.but(leaf=replace(LEAF, purposes=(RESPONDER_AUTH,))), MEASURED),
    ("a leaf that says nothing of itself", V12.but(leaf=replace(LEAF, is_ca=None, usage=None, purposes=())), MEASURED),
    ("a leaf without issuers between", V12.but(issuers=()), MEASURED),
    ("five issuers", V12.but(issuers=tuple(
        Cert(name=f"layer {index}", key=f"layer {index}", is_ca=True, usage=ISSUER.usage) for index in range(5))),
     MEASURED),
    ("a long certificate", V12.but(leaf=replace(LEAF, padding=2000)), MEASURED),
]  # fmt: skip
