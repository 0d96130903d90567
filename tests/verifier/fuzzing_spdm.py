"""Fuzz targets of SPDM: messages, chains, records, recorded transcripts and captures, whole verifications.

Transcripts are also changed and signed again: the forged device's key is at hand, so that hostile values reach the
steps behind the signatures.
"""

from __future__ import annotations

import contextlib
import random
import struct
from functools import cache

from tests.forge.spdm.cases_genuine import GENUINE
from tests.forge.spdm.keys import key_of, sign
from tests.forge.spdm.world import SIGNATURES, Minted, World
from tests.verifier.fuzzing import Seed
from tests.verifier.fuzzing_target import Target, Unsound
from tests.verifier.fuzzing_transcripts import messages_of, mutate_messages, transcript_of
from verifier.abi.pcap import LINK_MCTP
from verifier.abi.spdm import (
    Algorithms,
    Answered,
    Measurements,
    NegotiateAlgorithms,
    Suite,
    agreed,
    parse_record,
    parse_request,
    parse_response,
)
from verifier.abi.spdm_chain import check_root_hash, encode_chain, parse_chain
from verifier.errors import SpdmError
from verifier.formats.spdm import VerifiedSpdm, read_transcript, verify_spdm_transcript
from verifier.formats.spdm_checks import signing_input
from verifier.formats.spdm_transcript import Connection, follow
from verifier.trust.roots import Root

WORLDS: dict[str, World] = {
    name: world
    for name, world, _ in GENUINE
    if name in ("1.0", "1.1", "1.2", "1.3", "1.4", "P-384", "RSA-PSS 2048", "one by one", "unsigned readings first",
                "not ready at first", "portions", "padding of PCI DOE", "opaque data", "large form",
                "large form in portions")
}  # fmt: skip
PARSED = ("1.0", "1.1", "1.2", "1.3", "1.4", "P-384", "not ready at first", "large form")


@cache
def minted(name: str) -> Minted:
    """The forged world of that name, made once."""
    return WORLDS[name].mint()


@cache
def contexts(name: str) -> tuple[tuple[Answered, Suite | None], ...]:
    """For each exchange of a world: its request, and the suite agreed on before it."""
    suite, found = None, []
    messages = minted(name).messages
    waiting: Answered | None = None
    for request_bytes, response_bytes in zip(messages[::2], messages[1::2], strict=True):
        request, _ = parse_request(request_bytes)
        if waiting is not None:
            request = waiting
        found.append((request, suite))
        response, _ = parse_response(response_bytes, request, suite)
        waiting = request if response_bytes[1] == 0x7F else None
        if isinstance(request, NegotiateAlgorithms) and isinstance(response, Algorithms):
            suite = agreed(request, response)
    return tuple(found)


@cache
def suite_of(name: str) -> Suite:
    """What a world's connection agreed on."""
    suite = contexts(name)[-1][1]
    assert suite is not None
    return suite


@cache
def requests() -> tuple[Seed, ...]:
    return tuple(
        Seed(f"{name}/request {index}", "spdm", message, name)
        for name in PARSED
        for index, message in enumerate(minted(name).messages[::2])
    )


@cache
def responses() -> tuple[Seed, ...]:
    return tuple(
        Seed(f"{name}/response {index}", "spdm", message, f"{name}/{index}")
        for name in PARSED
        for index, message in enumerate(minted(name).messages[1::2])
    )


@cache
def chains() -> tuple[Seed, ...]:
    return tuple(Seed(name, "spdm", WORLDS[name].slot_chain(0), name) for name in PARSED)


@cache
def records() -> tuple[Seed, ...]:
    found = []
    for name in PARSED:
        blocks = WORLDS[name].device_blocks
        found.append(Seed(name, "bytes", bytes([len(blocks)]) + b"".join(one.encode() for one in blocks), name))
    return tuple(found)


@cache
def transcripts() -> tuple[Seed, ...]:
    return tuple(Seed(name, "transcript", transcript_of(list(minted(name).messages)), name) for name in WORLDS)


@cache
def captures() -> tuple[Seed, ...]:
    """Classic captures over MCTP, and one in the newer format."""
    found = []
    for name in ("1.1", "1.3", "not ready at first"):
        packets = [b"\x01\x08\x09\xc0\x05" + one for one in minted(name).messages]
        head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65536, LINK_MCTP)
        body = b"".join(struct.pack("<IIII", 0, 0, len(one), len(one)) + one for one in packets)
        found.append(Seed(f"{name}/pcap", "capture", head + body, name))
    section = struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 1, 0, -1, 28)
    section += struct.pack("<IIHHII", 1, 20, LINK_MCTP, 0, 65536, 20)
    for one in (b"\x01\x08\x09\xc0\x05" + message for message in minted("1.2").messages):
        padded = one + bytes(-len(one) % 4)
        size = 32 + len(padded)
        section += struct.pack("<IIIIIII", 6, size, 0, 0, 0, len(one), len(one)) + padded + struct.pack("<I", size)
    return (*found, Seed("1.2/pcapng", "capture", section, "1.2"))


# --- Parsers


def _request(seed: Seed, data: bytes) -> None:
    message, raw = parse_request(data)
    if message.encode() != raw or not data.startswith(raw):
        raise Unsound("a parsed request is not written as it was read")


def _response(seed: Seed, data: bytes) -> None:
    name, _, index = seed.group.rpartition("/")
    request, suite = contexts(name)[int(index)]
    message, raw = parse_response(data, request, suite)
    if message.encode() != raw or not data.startswith(raw):
        raise Unsound("a parsed response is not written as it was read")
    if isinstance(message, Measurements) and suite is not None:
        parse_record(message.record, message.count, suite)


def _chain(seed: Seed, data: bytes) -> None:
    hash_name = suite_of(seed.group).base_hash
    chain = parse_chain(data, hash_name)
    if encode_chain(chain.certificates, hash_name, chain.root_hash) != data:
        raise Unsound("a parsed chain is not written as it was read")
    check_root_hash(chain, hash_name)


def _record(seed: Seed, data: bytes) -> None:
    if not data:
        return
    blocks = parse_record(data[1:], data[0], suite_of(seed.group))
    if b"".join(block.encode() for block in blocks) != data[1:] or len(blocks) != data[0]:
        raise Unsound("a parsed record is not written as it was read")


def _read(seed: Seed, data: bytes) -> None:
    if not all(read_transcript(data)):
        raise Unsound("an empty message was read")


# --- Verification


@cache
def root_of(name: str) -> Root:
    return Root(label="forge", spki=minted(name).root, simulated=True)


def _verified(seed: Seed, data: bytes) -> VerifiedSpdm:
    world = minted(seed.group)
    verified = verify_spdm_transcript(
        messages=read_transcript(data), trust_roots=[root_of(seed.group)], now_ms=world.at * 1000
    )
    if len(verified.registers) != len(verified.measurements) or not verified.exchanges or not verified.grade_reason:
        raise Unsound("claims that do not add up")
    return verified


@cache
def _signed_bytes() -> frozenset[bytes]:
    return frozenset(signed for name in WORLDS for signed in _signed_of(list(minted(name).messages)))


def _signed_of(messages: list[bytes]) -> list[bytes]:
    connection = Connection()
    follow(messages, connection)
    return [one.signed for one in connection.exchanges]


def _verify(seed: Seed, data: bytes) -> None:
    _verified(seed, data)
    if not set(_signed_of(list(read_transcript(data)))) <= _signed_bytes():
        raise Unsound("a transcript that nobody signed was accepted")


def _sign_again(rng: random.Random, seed: Seed, data: bytes) -> bytes:
    """The seed's messages changed, then every signature in them made anew."""
    messages = mutate_messages(rng, messages_of(seed.data), messages_of(data))
    connection = Connection()
    with contextlib.suppress(SpdmError):
        follow(messages, connection)
    for exchange in connection.exchanges if connection.suite is not None else ():
        old = exchange.response.encode()
        at = next((index for index, one in enumerate(messages) if one.startswith(old)), None)
        if at is not None and connection.suite is not None:
            new = _signature(seed.group, connection.suite, exchange.kind, exchange.signed)
            messages[at] = old[: len(old) - len(new)] + new
    return transcript_of(messages)


def _signature(name: str, suite: Suite, kind: str, signed: bytes) -> bytes:
    world = WORLDS[name]
    scheme = SIGNATURES[world.kind][1]
    made = sign(
        key_of(world.leaf.key, world.key_kind),
        scheme,
        suite.base_hash,
        signing_input(kind, suite.version, suite.base_hash, signed),
    )
    return made[: suite.signature_bytes].ljust(suite.signature_bytes, b"\0")


def _verify_signed(seed: Seed, data: bytes) -> None:
    _verified(seed, data)


SPDM_TARGETS = (
    Target("spdm_request", requests, _request, 6),
    Target("spdm_response", responses, _response, 10),
    Target("spdm_chain", chains, _chain, 5),
    Target("spdm_record", records, _record, 5),
    Target("spdm_transcript", transcripts, _read, 4),
    Target("spdm_capture", captures, _read, 6),
    Target("verify_spdm", transcripts, _verify, 5),
    Target("verify_spdm_signed", transcripts, _verify_signed, 5, _sign_again),
)
