"""Chains of outputs: whole ones, broken ones, new begins, revisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from schemas.codec import encode_output, encode_signed_output, output_preimage
from schemas.records import FleetPower, WorkerIdentity
from stream_jobs.audit.chain import MAX_NAMED, Chain, ChainWalker
from stream_jobs.audit.errors import RecordNotFound
from stream_jobs.audit.topics import OutputRecord
from stream_jobs.log_record import LogRecord
from tests.audit.site import NAMES, Site, checker, publish, site_of, worker_session
from tests.audit.stories import HOSTS, T0, W, fresh, told
from tests.core.fleet import AGGREGATORS
from tests.core.replay import CACHE
from tests.core.story import Story, small_policy


def walker(site: Site) -> ChainWalker:
    opener = checker().open_policy
    assert opener is not None
    return ChainWalker(site.audit, opener, CACHE.verify)


def walk(site: Site, oldest: OutputRecord | None = None, newest: OutputRecord | None = None) -> Chain:
    return walker(site).walk(newest or next(site.audit.outputs_backwards("d")), oldest)


def output(site: Site, offset: int) -> OutputRecord:
    return site.audit.output_at(0, offset)


def resigned(record: LogRecord, change: Callable[[FleetPower], FleetPower], site: Site, worker: int = 0) -> bytes:
    """The output of a record, changed and signed anew by an attested worker."""
    found = site.audit.as_output(record)
    assert found is not None
    session = worker_session(worker)
    data = encode_output(change(found.output))
    identity = WorkerIdentity(host_id=AGGREGATORS[worker], session_id=session.session_id, evidence=session.evidence)
    return encode_signed_output(data, session.sign(output_preimage(data)), identity)


def test_a_whole_chain_is_followed_to_its_begin() -> None:
    found = walk(told())
    assert (found.outputs, found.revisions, found.broken, found.domain) == (5, 1, None, "d")
    assert (found.newest.offset, found.oldest.offset, found.workers) == (4, 0, ("aggregator-0",))
    assert [(one.link.offset, one.before, one.idle_close_offset) for one in found.restarts] == [(0, None, None)]


def test_between_any_two_outputs_the_chain_is_whole() -> None:
    site = told()
    for first in range(5):
        for last in range(first, 5):
            found = walk(site, output(site, first), output(site, last))
            assert (found.whole, found.outputs) == (True, last - first + 1)


def test_an_output_that_is_none_of_the_ancestors_is_said_so() -> None:
    site = told()
    with pytest.raises(RecordNotFound, match="not among those"):
        walk(site, output(site, 4), output(site, 2))


def test_copies_of_a_second_worker_do_no_harm() -> None:
    site = fresh()
    publish(site.topics, site.story, 1)
    found = walk(site)
    assert (found.outputs, found.whole, found.workers) == (5, True, ("aggregator-1",))
    crossed = fresh()
    emissions = [made for _, made in crossed.story.run.emissions]
    crossed.topics.records[NAMES.output, 0] = crossed.topics.records[NAMES.output, 0][:3]
    for worker, effects in ((1, emissions[1:]), (0, emissions[3:])):
        publish(crossed.topics, crossed.story, worker, effects=effects)
    found = walk(crossed)
    assert (found.outputs, found.whole, len(crossed.outputs())) == (5, True, 9)


def test_a_missing_output_is_named_by_its_digest() -> None:
    site = fresh()
    gone = output(site, 2)
    site.topics.records[NAMES.output, 0].remove(gone.record)
    found = walk(site)
    assert found.broken is not None
    assert (found.broken.code, found.broken.link.offset, found.outputs) == ("CHAIN_BROKEN", 3, 2)
    assert gone.digest.hex() in found.broken.message


@pytest.mark.parametrize("offset", range(4))
def test_an_output_that_was_changed_breaks_the_chain_above_it(offset: int) -> None:
    """Even by an attested worker that signs it anew."""
    site = fresh()
    record = output(site, offset).record
    value = resigned(record, lambda made: replace(made, accepted=made.accepted + 1), site)
    site.topics.replace(record, value=value)
    found = walk(site)
    assert found.broken is not None
    assert (found.broken.code, found.broken.link.offset) == ("CHAIN_BROKEN", offset + 1)


def test_a_signature_that_fails_is_a_break_at_its_output() -> None:
    site = fresh()
    record = output(site, 1).record
    found = site.audit.as_output(record)
    assert found is not None
    value = bytearray(record.value or b"")
    value[bytes(value).index(found.signed.signature) + 7] ^= 1
    site.topics.replace(record, value=bytes(value))
    chain = walk(site)
    assert chain.broken is not None
    assert (chain.broken.code, chain.broken.link.offset, chain.outputs) == ("SIGNATURE_INVALID", 1, 3)


def test_records_on_top_that_nobody_attested_signed_are_passed_over() -> None:
    """Or whoever may write to the topic could keep everybody from following a chain from its end."""
    site = fresh()
    last = output(site, 4)
    whole = walker(site).follow("d")
    assert (whole.newest.offset, whole.passed, whole.passed_over) == (4, 0, ())
    forged = bytearray(last.value)
    forged[forged.index(last.signed.signature) + 7] ^= 1
    for _ in range(MAX_NAMED + 4):
        site.topics.append(NAMES.output, 0, T0, last.record.key, bytes(forged))
    chain = walker(site).follow("d")
    assert chain.whole
    assert (chain.newest, chain.outputs) == (whole.newest, whole.outputs)
    assert (chain.passed, len(chain.passed_over)) == (MAX_NAMED + 4, MAX_NAMED)
    assert (chain.passed_over[0].code, chain.passed_over[0].link.offset) == ("SIGNATURE_INVALID", 4 + MAX_NAMED + 4)


def test_where_no_output_holds_the_last_is_the_break() -> None:
    site = fresh()
    for record in site.outputs():
        found = output(site, record.offset)
        value = bytearray(found.value)
        value[value.index(found.signed.signature) + 7] ^= 1
        site.topics.replace(record, value=bytes(value))
    chain = walker(site).follow("d")
    assert chain.broken is not None
    assert (chain.broken.code, chain.outputs) == ("SIGNATURE_INVALID", 0)


def test_a_policy_that_is_gone_or_untrusted_breaks_the_chain() -> None:
    site = fresh()
    site.topics.records[NAMES.policy, 0].clear()
    chain = walk(site)
    assert chain.broken is not None
    assert (chain.broken.code, chain.outputs) == ("RECORD_NOT_FOUND", 0)
    opener = checker(1).open_policy
    assert opener is not None
    chain = ChainWalker(told().audit, opener, CACHE.verify).follow("d")
    assert chain.broken is not None
    assert chain.broken.code == "POLICY_UNTRUSTED"


def relinked(site: Site, changes: dict[int, Callable[[FleetPower], FleetPower]], *, revisions: bool = False) -> Site:
    """Outputs changed by a worker that links those above to them again, with `revisions` also these."""
    held = site.topics.records[NAMES.output, 0]
    renamed: dict[bytes, bytes] = {}

    def linked(made: FleetPower) -> FleetPower:
        before, replaced = made.prev_output_digest, made.prev_revision_digest
        made = replace(made, prev_output_digest=None if before is None else renamed.get(before, before))
        if revisions and replaced is not None:
            made = replace(made, prev_revision_digest=renamed.get(replaced, replaced))
        return made

    for record in list(held):
        found = site.audit.as_output(record)
        assert found is not None
        change = changes.get(record.offset, lambda made: made)
        value = resigned(record, lambda made, change=change: change(linked(made)), site)  # type: ignore[misc]
        site.topics.replace(record, value=value)
        renamed[found.digest] = output(site, record.offset).digest
    return site


def test_a_revision_of_another_output_is_a_break() -> None:
    """The chain is whole again after the change; what the later revision says of its window is not."""
    found = walk(relinked(fresh(), {1: lambda made: replace(made, accepted=made.accepted + 1)}))
    assert found.broken is not None
    assert (found.broken.code, found.broken.link.offset) == ("REVISION_BROKEN", 1)


def idle_story(*, closed: bool) -> Story:
    """Some windows, silence, some windows: with a chain that begins anew after the idle close."""
    view = small_policy(3)
    story = Story(view)
    story.control("POLICY_SWITCH", view)
    for window in range(3):
        for host in HOSTS:
            story.report(host, window)
    if closed:
        story.now_ms = T0 + 9 * W
        story.control("IDLE_CLOSE", view, closed=3)  # with the output of the last window
        story.now_ms = T0 + 19 * W
        story.control("IDLE_CLOSE", view, closed=10)  # with none
    for window in range(20, 24):
        for host in HOSTS:
            story.report(host, window)
    return story


def test_a_new_begin_after_an_idle_close_is_explained() -> None:
    site = site_of(idle_story(closed=True))
    found = walk(site)
    assert (found.whole, found.outputs) == (True, len(site.outputs()))
    begin, first = found.restarts
    assert begin.before is not None
    assert (begin.before.offset, first.before) == (begin.link.offset - 1, None)
    control = next(one for one in site.topics.of(NAMES.reports) if one.offset == begin.idle_close_offset)
    assert b"IDLE_CLOSE" in (control.value or b"")
    assert "idle" in begin.reason


def test_a_new_begin_that_nothing_explains_is_a_break() -> None:
    """A worker that leaves its history behind says so; the log does not."""
    site = fresh()

    def begins(made: FleetPower) -> FleetPower:
        return replace(made, prev_output_digest=None, prev_output_digest_absent_reason="since it was idle")

    found = walk(relinked(site, {3: begins}))
    assert found.broken is not None
    assert (found.broken.code, found.broken.link.offset) == ("CHAIN_RESTART_UNEXPLAINED", 3)
    assert found.restarts[0].before is not None
    assert found.restarts[0].before.offset == 2


@pytest.mark.parametrize("forged", ["author", "domain"])
def test_an_idle_close_that_nobody_may_write_explains_nothing(forged: str) -> None:
    site = site_of(idle_story(closed=True))
    held = site.topics.records[NAMES.reports, 0]
    for record in list(held):
        if b"IDLE_CLOSE" not in (record.value or b""):
            continue
        if forged == "domain":
            site.topics.replace(record, key=b"e")
            continue
        value = bytearray(record.value or b"")
        value[value.index(b"told") + 1] ^= 1  # its reason: the signature fails
        site.topics.replace(record, value=bytes(value))
    found = walk(site)
    assert found.broken is not None
    assert found.broken.code == "CHAIN_RESTART_UNEXPLAINED"


def test_two_domains_have_a_chain_each() -> None:
    view = small_policy(2, domains=("a", "b"))
    story = Story(view)
    for domain in ("a", "b"):
        story.control("POLICY_SWITCH", view, domain=domain)
    for window in range(4):
        for domain in ("a", "b"):
            for host in range(2):
                story.report(f"{domain}h{host}", window, domain=domain)
    site = site_of(story)
    opener = checker().open_policy
    assert opener is not None
    walker = ChainWalker(site.audit, opener, CACHE.verify)
    newest = {name: next(site.audit.outputs_backwards(name)) for name in ("a", "b")}
    for one in newest.values():
        found = walker.walk(one)
        assert (found.whole, found.outputs) == (True, len(site.outputs()) // 2)
    with pytest.raises(RecordNotFound, match="two domains"):
        walker.walk(newest["a"], newest["b"])


def test_outputs_are_found_by_digest_with_and_without_their_event_id() -> None:
    site = fresh()
    wanted = output(site, 2)
    assert site.audit.output_with(wanted.digest).record.offset == 2
    for record in site.outputs():
        site.topics.replace(record, headers=())
    assert site.audit.output_with(wanted.digest).record.offset == 2
    with pytest.raises(RecordNotFound):
        site.audit.output_with(bytes(32))
    with pytest.raises(RecordNotFound):
        site.audit.output_at(0, 99)
    with pytest.raises(RecordNotFound):
        walker(site).follow("nowhere")


def test_a_long_chain_is_read_block_by_block() -> None:
    """Each record of the topic is read once, in blocks from its end."""
    site = fresh(12)
    read: list[tuple[int, int]] = []
    topics: Any = site.topics
    genuine = topics.read

    def counted(topic: str, partition: int, first: int, end: int) -> Any:
        if topic == NAMES.output:
            read.append((first, end))
        return genuine(topic, partition, first, end)

    topics.read = counted
    newest = next(site.audit.outputs_backwards("d"))
    read.clear()
    assert walk(site, newest=newest).outputs == 12
    assert sum(end - first for first, end in read) <= 2 * len(site.outputs())
