"""Whatever the bytes, `process` answers with decisions, and remembers no more than it must."""

from __future__ import annotations

import gc
import random
import tracemalloc
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.records import ControlRecord, PrivacyRelease, SensorFlag
from stream_jobs.core.effects import Emission, Rejection
from tests.core import fleet
from tests.core.fleet import LIMITS, T0, gpu_class, new_session, report_of, seal, session_of
from tests.core.replay import remembered
from tests.core.story import Story, W, small_policy

VIEW = small_policy(1, limits=replace(LIMITS, lateness_ms=W), grace_ms=0)

INTEGERS = (0, 1, -1, 2, 7, 10**6, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63), 2**62)
TEXTS = (
    "",
    "\0",
    "h0",
    "d",
    "e",
    "a" * 5_000,
    "\u202e\u0000\U0001f600",
    "NaN",
    "éé",
    "instant",
    "average",
    "POLICY_SWITCH",
)
BYTES = (b"", bytes(1), bytes(64), b"\xff" * 64, b"\x80" * 8, bytes(4096), b"\x7f" + bytes(7))


@pytest.fixture(autouse=True, scope="module")
def _fast() -> Iterator[None]:
    with remembered():
        yield


def story_of() -> Story:
    story = Story(VIEW)
    story.control("POLICY_SWITCH", VIEW)
    return story


def feed(story: Story, value: bytes | None, key: bytes | str | None = "d") -> None:
    for effect in story.put(key, value, story.now_ms + 3 * W):
        assert isinstance(effect, Rejection | Emission)
        if isinstance(effect, Rejection):
            assert effect.code
            assert effect.message


def mutate(rng: random.Random, value: Any) -> Any:
    """The same record with one or more fields replaced by something of the field's Avro type."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        chosen = rng.sample(names, rng.choice((1, 1, 1, 2, 3)) if len(names) > 3 else 1)
        return replace(value, **{name: mutate(rng, getattr(value, name)) for name in chosen})
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice((*INTEGERS, value + 1, -value, value * 2))
    if isinstance(value, str):
        return rng.choice(TEXTS)
    if isinstance(value, bytes):
        fixed = len(value) == 32 and rng.random() < 0.9
        return rng.randbytes(32) if fixed else rng.choice((*BYTES, value[:-1], value * 2, rng.randbytes(len(value))))
    if isinstance(value, tuple):
        some = [mutate(rng, one) if rng.random() < 0.5 else one for one in value]
        return tuple(rng.choice((some, some * 2, some[:-1], [*some, *value], [], some[::-1])))
    return value


def encodable(body: Any) -> bool:
    try:
        seal(session_of("h0", "d"), body)
    except (OverflowError, ValueError, TypeError):  # does not fit the schema: no record at all
        return False
    return True


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**64 - 1))
def test_signed_nonsense_is_refused_or_counted(seed: int) -> None:
    """The host's own key signs it: absurd counts, shapes, edges, privacy numbers, texts, huge integers."""
    rng = random.Random(seed)
    story = story_of()
    session = session_of("h0", "d")
    for window in range(4):
        body = mutate(rng, report_of(session, T0 + window * W, window))
        if encodable(body):
            feed(story, seal(session, body).value(session.evidence))
    aggregator = session_of(fleet.AGGREGATORS[0], None)
    told = story.run.log[0]
    control = mutate(rng, decoded_control(told.value or b""))
    if encodable(control):
        feed(story, seal(aggregator, control).value(aggregator.evidence))
    feed(story, seal(session, report_of(session, T0 + 60 * W, 60)).value(session.evidence))


def decoded_control(value: bytes) -> ControlRecord:
    from schemas.codec import decode_signed_record

    body = decode_signed_record(value).body
    assert isinstance(body, ControlRecord)
    return body


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**64 - 1))
def test_a_binding_of_nonsense_is_refused_or_counted(seed: int) -> None:
    """A genuine quote over a binding with other facts, and reports that repeat them."""
    rng = random.Random(seed)
    base = session_of("h0", "d").binding
    changes = {
        "privacy": mutate(rng, base.privacy),
        "created_at_ms": rng.choice(INTEGERS),
        "sample_hz": rng.choice((0, -1, 1, 2**31 - 1)),
        "window_ms": rng.choice((0, 1, 2**31 - 1)),
        "source": rng.choice(TEXTS),
        "sampler_mode": rng.choice(TEXTS),
    }
    name = rng.choice(sorted(changes))
    try:
        session = new_session("h0", "d", T0, fleet.IMAGE, **{name: changes[name]})
    except (OverflowError, ValueError):
        return
    story = story_of()
    for window in range(3):
        body = report_of(session, T0 + window * W, window, source=session.binding.source)
        mode = session.binding.sampler_mode or ""
        body = replace(body, classes=(gpu_class(sampler_mode=mode),), sample_hz=session.binding.sample_hz or 0)
        feed(story, seal(session, body).value(session.evidence))


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**64 - 1))
def test_bytes_changed_on_the_way_never_raise(seed: int) -> None:
    rng = random.Random(seed)
    story = story_of()
    session = session_of("h0", "d")
    for window in range(3):
        value = bytearray(seal(session, report_of(session, T0 + window * W, window)).value(session.evidence))
        for _ in range(rng.choice((1, 1, 4, 40))):
            action, at = rng.randrange(4), rng.randrange(len(value))
            if action == 0:
                value[at] ^= 1 << rng.randrange(8)
            elif action == 1:
                value[at:at] = rng.randbytes(rng.randrange(4))
            elif action == 2:
                del value[at : at + rng.randrange(1, 30)]
            else:
                value[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            value = value or bytearray(1)
        key = rng.choice((None, b"", b"d", b"\xff\xfe", b"d\0", b"x" * 3000))
        feed(story, bytes(value), key)


def test_a_privacy_statement_that_repeats_a_release_buys_nothing() -> None:
    releases = (*fleet.PRIVACY.releases, fleet.PRIVACY.releases[0])
    session = new_session("h0", "d", T0, fleet.IMAGE, privacy=replace(fleet.PRIVACY, releases=releases))
    story = story_of()
    (effect,) = story.put("d", seal(session, report_of(session, T0)).value(session.evidence), T0 + W)
    assert isinstance(effect, Rejection)
    assert effect.code == "PRIVACY_REFUSED"


def test_a_scale_below_its_epsilon_is_refused() -> None:
    for scale in (0, -1, 1, 2**62):
        first = replace(fleet.PRIVACY.releases[0], scale_micro=scale)
        assert isinstance(first, PrivacyRelease)
        privacy = replace(fleet.PRIVACY, releases=(first, fleet.PRIVACY.releases[1]))
        session = new_session("h0", "d", T0, fleet.IMAGE, privacy=privacy)
        (effect,) = story_of().put("d", seal(session, report_of(session, T0)).value(session.evidence), T0 + W)
        assert isinstance(effect, Rejection)
        assert effect.code == "PRIVACY_REFUSED"


def junk(rng: random.Random, pool: list[bytes]) -> tuple[bytes | None, bytes | None]:
    data = bytearray(rng.choice(pool))
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    value = rng.choice((bytes(data), rng.randbytes(rng.randrange(200)), None, rng.choice(pool)))
    return rng.choice((b"d", b"e", None, rng.randbytes(8))), value


def test_a_flood_of_junk_costs_no_memory() -> None:
    """20,000 records, nothing closes in between: what is kept is bounded."""
    rng = random.Random(5)
    view = small_policy(3, limits=LIMITS)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    rogues = [session_of("h0", "d", 900 + number, "rogue") for number in range(20)]
    pool = [
        seal(one, report_of(one, T0, sensor_flags=(SensorFlag(flag="x", gpus=1),))).value(one.evidence)
        for one in rogues
    ]
    pool.append(seal(session_of("h1", "d"), report_of(session_of("h1", "d"), T0)).value(None))
    core = story.run.core
    offset = 1

    def flood(count: int) -> None:
        nonlocal offset
        for _ in range(count):
            key, value = junk(rng, pool)
            for effect in core.process(fleet.log_record(offset, T0 + W, key, value)):
                assert isinstance(effect, Rejection)
            offset += 1

    with pytest.MonkeyPatch.context() as patch:
        from schemas.codec import decode_signed_record
        from verifier.cache import SessionCache
        from verifier.signature import verify_record_signature

        patch.setattr("stream_jobs.core.sessions.verify_record_signature", verify_record_signature)
        patch.setattr("stream_jobs.core.partition.decode_signed_record", decode_signed_record)
        patch.setattr(core, "config", replace(core.config, verify=SessionCache(entries=64).verify))
        flood(4_000)
        tracemalloc.start()
        held = [tracemalloc.get_traced_memory()[0]]
        for _ in range(2):
            flood(8_000)
            gc.collect()
            held.append(tracemalloc.get_traced_memory()[0])
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # 4096 ranges of offsets at 130 bytes, certificates of 20 sessions parsed, and one object per distinct code.
    assert held[2] - held[0] < 3_000_000
    assert held[2] - held[1] < 1_000_000
    assert peak - held[0] < 8_000_000
    assert story.state.sessions == {}
