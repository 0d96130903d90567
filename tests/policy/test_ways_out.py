"""Rotation, loss and theft of the signer's key: real stores, the real core, one log that goes on through it all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from enclavescale.fleet import sign_policy
from stream_jobs.core.partition import CoreConfig, PartitionCore
from stream_jobs.core.policies import PolicyView
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import PolicyStore
from tests.core.fleet import LIMITS, PARTITION, T0, TOPIC
from tests.core.replay import CACHE, Crash, Run, remembered, restart
from tests.core.story import Story, W, code_of, small_policy
from tests.policy.samples import point_of
from tests.policy.stores import Topic

OLD, NEW = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
OLD_SIGNER, NEW_SIGNER = point_of(OLD), point_of(NEW)
SMALL = replace(LIMITS, lateness_ms=W, evidence_interval_windows=2)


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with remembered():
        yield


def worker(store: PolicyStore, log: list[LogRecord] | None = None) -> Story:
    """A worker that starts and reads the log so far."""
    story = Story()
    story.run = Run(PartitionCore(CoreConfig(TOPIC, PARTITION, store.lookup, CACHE.verify)))
    for record in log or []:
        story.run.feed(record)
        story.next_offset, story.now_ms = record.offset + 1, record.timestamp_ms
    return story


def switch(story: Story, store: PolicyStore) -> None:
    """What a worker at the log's end writes: the switch to the newest policy it trusts."""
    assert store.newest is not None
    (wanted,) = (one for one in story.wanted(store.newest, {"d": story.now_ms}) if one.reason == "newest policy")
    story.write(wanted)


def everyone(story: Story, *windows: int) -> None:
    for window in windows:
        for number in range(3):
            story.report(f"h{number}", window)


def counters(story: Story) -> list[int]:
    return [output.policy_counter for output in story.outputs]


def test_rotation(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = small_policy(limits=SMALL), small_policy(limits=SMALL, counter=2)
    topic = Topic(sign_policy(old.policy, OLD))
    store = topic.store(monkeypatch, OLD_SIGNER)
    story = worker(store)
    switch(story, store)
    everyone(story, 0, 1, 2)

    # The new key's policy is nobody's as long as workers trust the old key alone.
    topic.values.append(sign_policy(new.policy, NEW))
    store.refresh()
    assert store.newest is not None
    assert store.newest.digest == old.digest
    assert code_of(story.control("POLICY_SWITCH", new)) == "POLICY_UNTRUSTED"

    # Workers that trust both read the same log to the same outputs, and follow the new key.
    both = topic.store(monkeypatch, OLD_SIGNER, NEW_SIGNER)
    before = [made.digest for _, made in story.run.emissions]
    story = worker(both, story.run.log[:-1])
    assert [made.digest for _, made in story.run.emissions] == before
    switch(story, both)
    everyone(story, *range(3, 20))
    assert story.run.rejections == []
    assert counters(story) == [1, 1, 1] + [2] * (len(story.outputs) - 3)

    # And once no record of the old policy's time is read again, the old key is not needed.
    alone = topic.store(monkeypatch, NEW_SIGNER)
    assert alone.lookup(old.digest) is None
    end = len(story.run.log) - 1
    trusted = [view for view in (alone.lookup(old.digest), alone.lookup(new.digest)) if view is not None]
    _, difference = restart(story.run, trusted, Crash(end, end))
    assert difference is None


def test_an_old_key_dropped_too_soon_refuses_and_never_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = small_policy(limits=SMALL), small_policy(limits=SMALL, counter=2)
    topic = Topic(sign_policy(old.policy, OLD), sign_policy(new.policy, NEW))
    both = topic.store(monkeypatch, OLD_SIGNER, NEW_SIGNER)
    story = worker(both)
    story.control("POLICY_SWITCH", old)
    everyone(story, 0, 1)
    switch(story, both)
    everyone(story, 2, 3, 4)
    assert {1, 2} == set(counters(story))

    early = worker(topic.store(monkeypatch, NEW_SIGNER), story.run.log)
    codes = [one.code for one in early.run.rejections]
    assert codes[0] == "POLICY_UNTRUSTED"
    assert set(codes[1:]) == {"NO_POLICY"}
    assert set(counters(early)) <= {2}


def test_loss_before_the_end_costs_nothing_and_after_it_workers_fail_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    old = small_policy(limits=SMALL, not_after_ms=T0 + 3 * W)
    new = small_policy(limits=SMALL, counter=2)
    topic = Topic(sign_policy(old.policy, OLD))
    store = topic.store(monkeypatch, OLD_SIGNER)
    story = worker(store)
    switch(story, store)
    everyone(story, 0, 1, 2)
    assert code_of(story.report("h0", 3)) == "POLICY_EXPIRED"
    story.now_ms = T0 + 4 * W
    assert store.newest is not None
    assert story.wanted(store.newest) == [], "nothing rests on a policy that has ended"
    assert code_of(story.control("POLICY_SWITCH", old)) == "POLICY_EXPIRED"

    topic.values.append(sign_policy(new.policy, NEW))
    both = topic.store(monkeypatch, OLD_SIGNER, NEW_SIGNER)
    story = worker(both, story.run.log)
    switch(story, both)
    refused = len(story.run.rejections)
    everyone(story, 4, 5, 6)
    assert len(story.run.rejections) == refused
    assert counters(story)[-1] == 2
    assert T0 + 3 * W not in [output.window_start_ms for output in story.outputs if output.accepted]


def test_a_floor_keeps_the_old_policies_of_a_trusted_key_out(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = small_policy(limits=SMALL), small_policy(limits=SMALL, counter=2)
    topic = Topic(sign_policy(old.policy, OLD), sign_policy(new.policy, NEW))
    store = topic.store(monkeypatch, OLD_SIGNER, NEW_SIGNER, min_counter=2)
    story = worker(store)
    assert code_of(story.control("POLICY_SWITCH", old)) == "POLICY_UNTRUSTED"
    switch(story, store)
    everyone(story, 0)
    assert story.state.active.digest == new.digest


def test_theft(monkeypatch: pytest.MonkeyPatch) -> None:
    good = small_policy(limits=SMALL)
    thief = small_policy(5, limits=SMALL, counter=2**62)
    topic = Topic(sign_policy(good.policy, OLD), sign_policy(thief.policy, OLD))
    fooled = topic.store(monkeypatch, OLD_SIGNER)
    story = worker(fooled)
    story.control("POLICY_SWITCH", good)
    everyone(story, 0, 1)
    switch(story, fooled)
    everyone(story, 2, 3, 4, 5)
    assert story.outputs[-1].policy_counter == 2**62

    # The last good policy again, by a new key, with any counter: those of a key that nobody trusts do not count.
    topic.values.append(sign_policy(good.policy, NEW))
    saved = topic.store(monkeypatch, NEW_SIGNER)
    assert saved.newest is not None
    assert saved.newest.digest == good.digest
    assert saved.lookup(thief.digest) is None
    begin = story.run.core.resume_offset or 0
    again = worker(saved, [record for record in story.run.log if record.offset >= begin])
    assert "POLICY_UNTRUSTED" in {one.code for one in again.run.rejections}
    if "d" not in again.run.core.domains:
        switch(again, saved)
    start = again.now_ms // W + 2
    everyone(again, *range(start - T0 // W, start - T0 // W + 4))
    assert counters(again)
    assert set(counters(again)) == {1}
    assert {output.policy_digest for output in again.outputs} == {good.digest}


def test_a_thief_who_repeats_a_counter_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    good: PolicyView = small_policy(limits=SMALL)
    thief = small_policy(5, limits=SMALL)
    topic = Topic(sign_policy(good.policy, OLD), sign_policy(thief.policy, OLD))
    store = topic.store(monkeypatch, OLD_SIGNER)
    assert len(store.equivocations) == 1
    story = worker(store)
    switch(story, store)
    assert code_of(story.control("POLICY_SWITCH", thief)) == "POLICY_UNTRUSTED"
    everyone(story, 0, 1, 2)
    assert {output.policy_digest for output in story.outputs} == {good.digest}
