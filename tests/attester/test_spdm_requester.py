"""The requester's state machine against our own responder, honest and not; no sockets, no real time."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from attester.spdm.errors import (
    SpdmBusy,
    SpdmClosed,
    SpdmLimit,
    SpdmNotOffered,
    SpdmReplayMismatch,
    SpdmResponderError,
    SpdmResponseInvalid,
    SpdmTimeout,
)
from attester.spdm.limits import Limits
from attester.spdm.recorded import RecordedTransport
from attester.spdm.recording import Recording
from attester.spdm.requester import Wish, record_evidence
from attester.spdm.transport import Clock
from schemas.errors import EnclaveScaleError
from tests.attester.responder import KINDS, DirectTransport, Responder, Timeline
from verifier.abi.spdm_messages import Certificate, ErrorResponse
from verifier.errors import SpdmError

NONCES = (bytes([1]) * 32, bytes([2]) * 32)
NAMES = ("VERSION", "CAPABILITIES", "ALGORITHMS", "DIGESTS", "CERTIFICATE", "CHALLENGE_AUTH", "MEASUREMENTS")
BUSY = ErrorResponse(version=0, error=0x03)


def run(responder: Responder, *, takes_s: float = 0.0, limits: Limits | None = None, **wish: object) -> Recording:
    transport = DirectTransport(responder, takes_s=takes_s)
    return run_on(transport, limits=limits, **wish)


def run_on(transport: DirectTransport, limits: Limits | None = None, **wish: object) -> Recording:
    clock = Clock(transport.timeline.now, transport.timeline.wait)
    wanted = Wish(nonces=NONCES, limits=limits or Limits(), **wish)  # type: ignore[arg-type]
    return record_evidence(transport, wanted, clock)


def not_ready(code: int, *, exponent: int = 10, token: int = 7) -> ErrorResponse:
    return ErrorResponse(version=0, error=0x42, extended=bytes((exponent, code, token, 2)))


def sending(name: str, change: Callable[[bytes], bytes]) -> Callable[[str, bytes], bytes]:
    return lambda which, response: change(response) if which == name else response


def put(response: bytes, at: int, value: int) -> bytes:
    return response[:at] + bytes([value]) + response[at + 1 :]


@pytest.mark.parametrize("version", [0x10, 0x11, 0x12, 0x13, 0x14])
def test_asks_in_order_and_records_every_message(version: int) -> None:
    responder = Responder(versions=(version,))
    recording = run(responder, versions=(version,))
    codes = [message[1] for message in recording.messages]
    assert codes[:8:2] == [0x84, 0xE1, 0xE3, 0x81]
    assert set(codes[8:-4:2]) == {0x82}
    assert codes[-4::2] == [0x83, 0xE0]
    assert [code & 0x7F for code in codes[::2]] == [codes[n] for n in range(1, len(codes), 2)]
    assert {message[0] for message in recording.messages[2:]} == {version}
    assert recording.version == version
    assert recording.messages[-4][4:36] == NONCES[0]
    assert recording.messages[-2][4:36] == NONCES[1]


@pytest.mark.parametrize(
    ("offered", "wanted", "taken"),
    [
        ((0x11, 0x12, 0x13), (0x11, 0x12, 0x13), 0x13),
        ((0x13, 0x11), (0x11, 0x12), 0x11),
        ((0x10, 0x12, 0x14), (0x11, 0x12, 0x13), 0x12),
    ],
)
def test_takes_the_highest_version_both_speak(offered: tuple[int, ...], wanted: tuple[int, ...], taken: int) -> None:
    assert run(Responder(versions=offered), versions=wanted).version == taken


@pytest.mark.parametrize("kind", KINDS)
def test_records_a_chain_in_portions(kind: str) -> None:
    responder = Responder(kind=kind, portion=300)
    recording = run(responder)
    portions = [Certificate.read(message)[0] for message in recording.messages if message[1] == 0x02]
    assert len(portions) > 2
    assert b"".join(one.portion for one in portions) == responder.chain


def test_asks_for_portions_of_its_own_size() -> None:
    recording = run(Responder(portion=60_000), limits=Limits(portion=500))
    lengths = [int.from_bytes(message[6:8], "little") for message in recording.messages if message[1] == 0x82]
    assert lengths[0] == 500
    assert max(lengths) == 500


def test_a_recording_replays_to_the_byte() -> None:
    recording = run(Responder())
    replay = RecordedTransport(recording.messages)
    again = record_evidence(replay, Wish(nonces=NONCES))
    assert again.messages == recording.messages
    assert replay.exhausted


def test_a_replay_with_other_nonces_is_refused() -> None:
    recording = run(Responder())
    with pytest.raises(SpdmReplayMismatch, match="byte 4 differs"):
        record_evidence(RecordedTransport(recording.messages), Wish(nonces=(NONCES[1], NONCES[0])))


def test_a_replay_that_ends_early_is_refused() -> None:
    recording = run(Responder())
    with pytest.raises(SpdmClosed, match="recording ends"):
        record_evidence(RecordedTransport(recording.messages[:-1]), Wish(nonces=NONCES))


@pytest.mark.parametrize(("name", "code"), list(zip(NAMES[1:], (0xE1, 0xE3, 0x81, 0x82, 0x83, 0xE0), strict=True)))
def test_waits_when_put_off_and_records_only_the_answer(name: str, code: int) -> None:
    plain = run(Responder())
    responder = Responder(put_off={name: [BUSY, not_ready(code), not_ready(code, token=8), BUSY]})
    timeline = Timeline()
    recording = run_on(DirectTransport(responder, timeline))
    assert [one[:2] for one in recording.messages] == [one[:2] for one in plain.messages]
    assert recording.retries == 4
    assert timeline.waits == [0.05, 2**10 / 1e6, 2**10 / 1e6, 0.4]
    assert responder.asked.count(0xFF) == 2


@pytest.mark.parametrize("error", [BUSY, not_ready(0x83)])
def test_endless_excuses_end(error: ErrorResponse) -> None:
    responder = Responder(put_off={"CHALLENGE_AUTH": [error] * 100})
    with pytest.raises(SpdmBusy):
        run(responder)
    assert len(responder.asked) < 20


def test_a_device_that_wants_more_time_than_is_left_is_refused_without_waiting() -> None:
    timeline = Timeline()
    responder = Responder(put_off={"MEASUREMENTS": [not_ready(0xE0, exponent=24)]})
    with pytest.raises(SpdmTimeout):
        run_on(DirectTransport(responder, timeline), limits=Limits(total_s=10))
    assert timeline.waits == []


def test_each_message_has_the_time_the_device_says_it_needs() -> None:
    transport = DirectTransport(Responder(ct_exponent=22))
    run_on(transport)
    assert transport.timeouts[0] == pytest.approx(2.1)
    assert set(transport.timeouts[2:]) == {2.0 + 2**22 / 1e6}


def test_the_whole_exchange_has_an_end() -> None:
    with pytest.raises(SpdmTimeout, match="as a whole"):
        run(Responder(portion=64), takes_s=1.0, limits=Limits(total_s=10))


def test_a_slow_device_times_out() -> None:
    with pytest.raises(SpdmTimeout, match="GET_VERSION"):
        run(Responder(), takes_s=3.0)


@pytest.mark.parametrize(
    ("device", "wish"),
    [
        ({"versions": (0x10,)}, {}),
        ({"tamper": sending("VERSION", lambda one: put(one, 6, 0x01))}, {"versions": (0x10,)}),  # a draft
        ({"flags": 0x02 | 0x04 | 0x08}, {}),
        ({"flags": 0x04 | 0x10}, {}),
        ({"flags": 0x02 | 0x10}, {}),
        ({}, {"slot": 3}),
        ({"blocks": ()}, {}),
        ({"tamper": sending("ALGORITHMS", lambda one: put(put(one, 6, 0), 8, 0))}, {}),
    ],
    ids=["version", "draft", "unsigned", "certificates", "challenge", "slot", "nothing measured", "format"],
)
def test_a_device_that_lacks_something_is_named(device: dict[str, Any], wish: dict[str, object]) -> None:
    with pytest.raises(SpdmNotOffered):
        run(Responder(**device), **wish)


INVALID = {
    "wrong code": ("DIGESTS", lambda one: put(one, 1, 0x02)),
    "wrong version": ("CAPABILITIES", lambda one: put(one, 0, 0x12)),
    "version of VERSION": ("VERSION", lambda one: put(one, 0, 0x13)),
    "other slot": ("CERTIFICATE", lambda one: put(one, 2, 1)),
    "challenge of another slot": ("CHALLENGE_AUTH", lambda one: put(one, 2, 1)),
    "mutual authentication": ("CHALLENGE_AUTH", lambda one: put(one, 2, 0x80)),
    "measurements of another slot": ("MEASUREMENTS", lambda one: put(one, 3, 1)),
    "no progress": ("CERTIFICATE", lambda one: one[:4] + bytes(2) + one[6:8]),
    "remainder grows": ("CERTIFICATE", lambda one: put(one, 6, one[6] ^ 1) if len(one) < 1000 else one),
    "bytes after": ("CAPABILITIES", lambda one: one + bytes(4)),
    "small buffer": ("CAPABILITIES", lambda one: one[:12] + (41).to_bytes(4, "little") + one[16:]),
    "challenge context": ("CHALLENGE_AUTH", lambda one: one[:-65] + b"\1" + one[-64:]),
    "measurements context": ("MEASUREMENTS", lambda one: one[:-65] + b"\1" + one[-64:]),
}


@pytest.mark.parametrize("case", INVALID)
def test_a_response_to_something_else_is_refused(case: str) -> None:
    name, change = INVALID[case]
    with pytest.raises(SpdmResponseInvalid):
        run(Responder(tamper=sending(name, change)))


def test_more_of_a_chain_than_was_asked_for_is_refused() -> None:
    def longer(response: bytes) -> bytes:
        found, _ = Certificate.read(response)
        return Certificate(version=found.version, slot=0, portion=found.portion + b"x", remainder=9).encode()

    with pytest.raises(SpdmResponseInvalid):
        run(Responder(tamper=sending("CERTIFICATE", longer)), limits=Limits(portion=200))


def test_the_large_form_is_refused_where_nobody_asked_for_it() -> None:
    def large(response: bytes) -> bytes:
        found, _ = Certificate.read(response)
        return replace(found, large=True).encode()

    with pytest.raises(SpdmResponseInvalid, match="large form") as caught:
        run(Responder(versions=(0x14,), tamper=sending("CERTIFICATE", large)), versions=(0x14,))
    assert caught.value.field == "CERTIFICATE.param1"


def test_a_huge_chain_is_refused_at_its_first_portion() -> None:
    responder = Responder(tamper=sending("CERTIFICATE", lambda one: one[:6] + b"\xff\xff" + one[8:]))
    with pytest.raises(SpdmLimit):
        run(responder)
    assert responder.asked.count(0x82) == 1


def test_a_chain_in_crumbs_is_refused() -> None:
    responder = Responder(portion=1)
    with pytest.raises(SpdmLimit, match="128 portions"):
        run(responder)
    assert responder.asked.count(0x82) == 128


def test_a_message_beyond_the_limit_is_refused() -> None:
    with pytest.raises(SpdmLimit):
        run(Responder(tamper=sending("DIGESTS", lambda one: one + bytes(0x10000))))


def test_absurd_times_are_refused() -> None:
    with pytest.raises(SpdmLimit):
        run(Responder(ct_exponent=255))
    with pytest.raises(SpdmLimit):
        run(Responder(put_off={"DIGESTS": [not_ready(0x81, exponent=255)]}))


def test_not_ready_for_another_request_is_refused() -> None:
    with pytest.raises(SpdmResponseInvalid):
        run(Responder(put_off={"DIGESTS": [not_ready(0x82)]}))


@pytest.mark.parametrize("error", [0x01, 0x04, 0x07, 0x0F, 0x41, 0x43, 0x60, 0xFF])
def test_other_errors_are_told_by_name(error: int) -> None:
    with pytest.raises(SpdmResponderError) as caught:
        run(Responder(put_off={"CHALLENGE_AUTH": [ErrorResponse(version=0, error=error)]}))
    assert f"0x{error:02X}" in str(caught.value)
    assert caught.value.remedy


def test_version_is_not_to_be_waited_for() -> None:
    with pytest.raises(SpdmResponderError):
        run(Responder(put_off={"VERSION": [not_ready(0x84)]}))


def test_a_device_with_too_small_a_buffer_is_refused() -> None:
    with pytest.raises(SpdmNotOffered, match="takes 42"):
        run(Responder(buffer=42))


def test_requests_announce_no_capability() -> None:
    recording = run(Responder())
    assert recording.messages[2][8:12] == bytes(4)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("version", [0x11, 0x12, 0x13])
def test_truncated_and_flipped_responses_raise_our_errors_only(name: str, version: int) -> None:
    responses: dict[str, bytes] = {}
    run(Responder(portion=0xFFFF, tamper=responses.setdefault), versions=(version,))
    genuine = responses[name]
    stops = [n for n in range(len(genuine)) if n < 80 or n > len(genuine) - 4]
    for changed in [genuine[:n] for n in stops] + [put(genuine, n, genuine[n] ^ 0xFF) for n in stops]:
        with contextlib.suppress(EnclaveScaleError):
            run(Responder(tamper=sending(name, lambda _, changed=changed: changed)), versions=(version,))


def damage(rng: random.Random, response: bytes) -> bytes:
    """The response with one thing wrong."""
    changed = bytearray(response)
    kind = rng.randrange(5)
    if kind == 0:
        changed[rng.randrange(min(len(changed), 60))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    elif kind == 1:
        del changed[rng.randrange(len(changed) + 1) :]
    elif kind == 2:
        changed += bytes(rng.randrange(1, 40))
    elif kind == 3:
        code = rng.choice([0x01, 0x03, 0x42, 0x43, 0x0F, rng.randrange(256)])
        changed = bytearray((response[0], 0x7F, code, 0)) + rng.randbytes(rng.choice([0, 4, 5, 32, 60]))
    else:
        changed = bytearray(rng.randbytes(rng.randrange(80)))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(4))
def test_random_damage_raises_our_errors_only(seed: int) -> None:
    rng = random.Random(seed)
    versions = (0x10, 0x11, 0x12, 0x13, 0x14)
    for number in range(200):
        tamper: Callable[[str, bytes], bytes] = lambda _, one: damage(rng, one) if rng.random() < 0.15 else one  # noqa: E731
        device = Responder(portion=rng.choice([100, 60_000]), versions=versions[number % 5 :], tamper=tamper)
        with contextlib.suppress(EnclaveScaleError):
            run(device, versions=versions)


def test_malformed_responses_carry_the_verifiers_code() -> None:
    with pytest.raises(SpdmError) as caught:
        run(Responder(tamper=sending("MEASUREMENTS", lambda one: one[:50])))
    assert caught.value.code == "SPDM_MALFORMED"


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonces": (NONCES[0], NONCES[0])},
        {"nonces": (b"short", NONCES[0])},
        {"slot": 8},
        {"versions": ()},
        {"versions": (0x20,)},
    ],
)
def test_a_wish_no_device_can_answer_is_a_mistake(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"nonces|slot|versions"):
        Wish(**{"nonces": NONCES, **wrong})  # type: ignore[arg-type]
