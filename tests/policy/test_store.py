"""What workers take from the policy topic: whole enrolments, one policy per counter, older ones by digest alone."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from enclavescale.fleet import sign_policy
from schemas.codec import decode_signed_policy, record_digest
from schemas.errors import ConfigError, EnclaveScaleError
from schemas.records import Policy
from stream_jobs.policy_store import PolicyMetrics, PolicyTrust, open_policy
from tests.policy.samples import point_of, strict
from tests.policy.stores import Topic

KEY, STRANGER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
SIGNER = point_of(KEY)


def numbered(counter: int, limit_w: int = 30_000) -> Policy:
    return replace(strict(), counter=counter, domains=(replace(strict().domains[0], limit_w=limit_w),))


def value(counter: int, limit_w: int = 30_000, key: ec.EllipticCurvePrivateKey = KEY) -> bytes:
    return sign_policy(numbered(counter, limit_w), key)


def digest(signed: bytes) -> bytes:
    return open_policy(signed, PolicyTrust((SIGNER,))).digest


@pytest.mark.parametrize(
    ("policy", "code"),
    [
        (replace(strict(), hosts=strict().hosts[:1] * 2), "ENROLMENT_AMBIGUOUS"),
        (replace(strict(), hosts=(*strict().hosts, replace(strict().hosts[0], host_id="h9"))), "ENROLMENT_AMBIGUOUS"),
        (replace(strict(), aggregators=strict().aggregators * 2), "ENROLMENT_AMBIGUOUS"),
        (replace(strict(), hosts=(replace(strict().hosts[0], gpu_key_digests=("zz",)),)), "POLICY_INVALID"),
    ],
)
def test_an_enrolment_that_is_none_refuses_the_policy(
    policy: Policy, code: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = sign_policy(replace(policy, counter=2), KEY)
    with pytest.raises(EnclaveScaleError) as caught:
        open_policy(signed, PolicyTrust((SIGNER,)))
    assert caught.value.code == code
    store = Topic(value(1), signed).store(monkeypatch, SIGNER)
    assert store.newest is not None
    assert store.newest.policy.counter == 1


def test_the_newest_is_that_of_the_highest_counter_wherever_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Topic(value(2), value(7), value(5)).store(monkeypatch, SIGNER)
    assert store.newest is not None
    assert store.newest.policy.counter == 7
    assert store.lookup(digest(value(5))) is not None, "windows of a superseded policy may be open"
    assert store.equivocations == ()


def test_of_two_with_one_counter_the_first_stays_and_there_is_an_alarm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, other = value(3), value(3, limit_w=29_000)
    topic = Topic(value(2), first)
    store = topic.store(monkeypatch, SIGNER)
    topic.values += [other, first, other]
    with caplog.at_level(logging.ERROR):
        store.refresh()
    assert store.newest is not None
    assert store.newest.digest == digest(first)
    assert store.lookup(digest(other)) is None
    assert [(one.counter, one.first, one.other, one.offset) for one in store.equivocations] == [
        (3, digest(first), digest(other), 2),
        (3, digest(first), digest(other), 4),
    ]
    assert caplog.text.count("POLICY_EQUIVOCATION") == 2
    again = topic.store(monkeypatch, SIGNER)
    assert again.newest is not None
    assert again.newest.digest == digest(first), "a worker that starts later takes the same one"


def test_the_same_policy_signed_or_published_twice_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Topic(value(3), value(3), sign_policy(numbered(3), KEY)).store(monkeypatch, SIGNER)
    assert store.equivocations == ()


def test_a_stranger_s_policy_takes_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = value(3)
    store = Topic(value(3, limit_w=1_000, key=STRANGER), ours, value(99, key=STRANGER)).store(monkeypatch, SIGNER)
    assert store.newest is not None
    assert store.newest.digest == digest(ours)
    assert store.equivocations == ()


def test_none_below_the_floor_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Topic(value(2), value(3)).store(monkeypatch, SIGNER, min_counter=3)
    assert store.lookup(digest(value(2))) is None
    assert store.newest is not None
    with pytest.raises(ConfigError) as caught:
        open_policy(value(2), PolicyTrust((SIGNER,), 3))
    assert caught.value.code == "POLICY_ROLLBACK"
    assert Topic(value(2)).store(monkeypatch, SIGNER, min_counter=3).newest is None


def test_metrics_say_which_policy_it_is_and_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry()
    topic = Topic()
    store = topic.store(monkeypatch, SIGNER)
    registry.register(PolicyMetrics(store))
    assert registry.get_sample_value("enclavescale_policy_number") is None
    topic.values += [value(3), value(3, limit_w=1), value(9, key=STRANGER), b"junk", b"more junk"]
    store.refresh()
    assert registry.get_sample_value("enclavescale_policy_number") == 3
    assert registry.get_sample_value("enclavescale_policy_expiry_timestamp_seconds") == strict().not_after_ms / 1000
    for code, count in (("POLICY_EQUIVOCATION", 1), ("POLICY_UNTRUSTED", 1), ("MALFORMED", 2)):
        assert registry.get_sample_value("enclavescale_policy_ignored_total", {"code": code}) == count


VALUES = [value(counter, limit_w, key) for counter in (1, 2) for limit_w in (30_000, 29_000) for key in (KEY, STRANGER)]
ANY_TOPIC = st.lists(st.sampled_from([*VALUES, b"junk"]), max_size=8)


@settings(max_examples=80, deadline=None)
@given(ANY_TOPIC, st.lists(st.integers(0, 8), max_size=3))
def test_whenever_it_is_read_the_same_policies_count(values: list[bytes], reads: list[int]) -> None:
    """A worker that reads as values arrive, and one that starts later, use the same: the first of each counter."""
    first: dict[int, bytes] = {}
    for one in values:
        if one in VALUES and VALUES.index(one) % 2 == 0:  # ours, not the stranger's
            view = open_policy(one, PolicyTrust((SIGNER,)))
            first.setdefault(view.policy.counter, view.digest)
    with pytest.MonkeyPatch.context() as patch:
        topic = Topic()
        early = topic.store(patch, SIGNER)
        for end in [*sorted(reads), len(values)]:
            topic.values = values[:end]
            early.refresh()
        for store in (early, topic.store(patch, SIGNER)):
            newest = None if store.newest is None else store.newest.digest
            assert newest == (first[max(first)] if first else None)
            for one in VALUES:
                known = store.lookup(record_digest(decode_signed_policy(one)[1]))
                assert known is None or known.digest in first.values()
            assert {view for view in first.values() if store.lookup(view) is None} == set()
