"""Hosts with TDX evidence under a strict policy: they count while the collateral in force vouches for them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attester.session import Session
from schemas.codec import encode_collateral
from schemas.collateral import MAX_SET_ITEMS, item_digest, set_digest, set_item, set_members
from schemas.errors import SchemaError
from schemas.records import AggregatorEnrolment, CollateralItem, EvidenceItem, Measurement, RegisterRule, TrustRoot
from stream_jobs.collateral_store import CollateralIndex, set_ends_ms
from stream_jobs.core.effects import ControlWanted
from stream_jobs.core.partition import CoreConfig, PartitionCore
from tests.core import fleet
from tests.core.fleet import AGGREGATORS, T0, binding_of, control_of, enrolment, report_of, seal
from tests.core.replay import Run
from tests.core.story import W
from tests.forge.dcap.world import DAY, MRTD, NOW, TDX4, World
from tests.verifier.test_session_collateral import rule
from verifier.cache import SessionCache

NOW_MS = NOW * 1000
FIRST_WINDOW = (NOW_MS - T0) // W
HOSTS = ("h0", "h1")


@dataclass(frozen=True)
class Tdx:
    """Quotes of one platform."""

    world: World
    simulated: bool = False

    def quote(self, report_data: bytes) -> list[EvidenceItem]:
        data = self.world.but(body={**self.world.body, "report_data": report_data}).mint().quote
        return [EvidenceItem(kind="tdx_quote_v4", data=data, subject_absent_reason="cpu")]


def tdx_session(host_id: str, domain: str | None) -> Session:
    return Session(Tdx(TDX4), lambda point: binding_of(point, host_id, domain, T0, source="nvml" if domain else "none"))


SESSIONS = {name: tdx_session(name, "d") for name in HOSTS} | {AGGREGATORS[0]: tdx_session(AGGREGATORS[0], None)}


def strict_policy() -> Any:
    platform = (TDX4.platform.ppid.hex(),)
    register = (RegisterRule(register="mrtd", value=MRTD),)
    # One machine stands for all of them here, which a fleet's policy would not be allowed to say.
    return fleet.policy_of(
        [replace(enrolment("h0", "d"), platform_ids=platform)],
        [fleet.domain_rule("d")],
        aggregators=(AggregatorEnrolment(host_id=AGGREGATORS[0], platform_ids=platform),),
        measurements=tuple(
            Measurement(label=role, role=role, tee="tdx", registers=register) for role in ("host", "aggregator")
        ),
        accepted_sources=("nvml",),
        trust_roots=(TrustRoot(label="forge", tee="tdx", certificate_der=TDX4.mint().root, simulated=False),),
        tcb_rules=(rule("tdx"),),
        unsafe_allow_unevaluated_tcb=False,
        not_after_ms=NOW_MS + 100 * DAY * 1000,
    )


def item(world: World, fetched_at_ms: int = 0) -> CollateralItem:
    """A whole answer of a PCCS as one item: what it is, its bytes say."""
    data = world.mint().collateral_json.encode()
    return CollateralItem(kind="bundle", id="x", data=data, fetched_at_ms=fetched_at_ms)


def topic_of(*worlds: World) -> tuple[CollateralIndex, list[bytes]]:
    """An index over a set for each world, and their digests."""
    index, digests = CollateralIndex(), []
    for place, world in enumerate(worlds):
        one = item(world)
        index.take(encode_collateral(one), (place, 0, 2 * place))
        index.take(encode_collateral(set_item([item_digest(one)], place)), (place, 0, 2 * place + 1))
        digests.append(set_digest([item_digest(one)]))
    return index, digests


class Log:
    """A log of a TDX fleet of one."""

    def __init__(self, index: CollateralIndex) -> None:
        self.view, self.index = strict_policy(), index
        lookup = {self.view.digest: self.view}
        config = CoreConfig(fleet.TOPIC, 0, lookup.get, SessionCache().verify, collateral=index.lookup)
        self.run = Run(PartitionCore(config))

    def codes(self) -> list[str]:
        return [one.code for one in self.run.rejections]

    def put(self, value: bytes, at_ms: int) -> None:
        self.run.feed(fleet.log_record(len(self.run.log), at_ms, "d", value))

    def control(self, kind: str, digest: bytes | None, at_ms: int = NOW_MS) -> None:
        session = SESSIONS[AGGREGATORS[0]]
        content = digest if kind == "COLLATERAL_SWITCH" else self.view.digest
        wanted = ControlWanted(kind, "d", self.view.digest, content, 0, None, "told", digest)
        self.put(seal(session, control_of(session, wanted, at_ms)).value(session.evidence), at_ms)

    def report(self, window: int) -> None:
        start = T0 + (FIRST_WINDOW + window) * W
        session = SESSIONS["h0"]
        self.put(seal(session, report_of(session, start, window)).value(session.evidence), start + W)


def test_a_tdx_host_counts_under_its_collateral_and_not_without() -> None:
    index, (current,) = topic_of(TDX4)
    log = Log(index)
    log.control("POLICY_SWITCH", None)
    assert log.codes() == ["TCB_UNEVALUATED"]  # its author's evidence is worth nothing either
    log.control("POLICY_SWITCH", current)
    log.report(1)
    log.report(2)
    log.report(3)
    assert log.codes() == ["TCB_UNEVALUATED"]
    (_, made), *_ = log.run.emissions
    assert made.output.collateral_digest == current
    assert [one.simulated for one in made.output.power_by] == [False] * 3


def test_collateral_that_was_not_renewed_fails_closed_until_it_is() -> None:
    newer = TDX4.but(
        tcb_info_window=(NOW + 20 * DAY, NOW + 50 * DAY),
        qe_identity_window=(NOW + 20 * DAY, NOW + 50 * DAY),
        pck_crl=replace(TDX4.pck_crl, this_update=NOW + 20 * DAY, next_update=NOW + 50 * DAY),
    )
    index, (current, renewed) = topic_of(TDX4, newer)
    log = Log(index)
    log.control("POLICY_SWITCH", current)
    later = 29 * DAY * 1000 // W
    view = index.lookup(current)
    assert view is not None
    assert set_ends_ms(view.held) == NOW_MS + 25 * DAY * 1000 - 1  # of the PCK CA's list
    log.report(later)
    assert log.codes() == ["COLLATERAL_EXPIRED"]
    log.control("COLLATERAL_SWITCH", renewed, NOW_MS + later * W)
    log.report(later)
    assert log.codes() == ["COLLATERAL_EXPIRED"]


def test_a_set_is_unknown_until_it_is_whole_and_damage_is_not_taken() -> None:
    index, one = CollateralIndex(), item(TDX4)
    whole = set_item([item_digest(one)], 5)
    index.take(encode_collateral(whole), (1, 0, 0))
    digest = bytes.fromhex(whole.id)
    assert index.lookup(digest) is None
    assert index.newest(10) is None
    index.take(encode_collateral(replace(one, data=one.data + b" ")), (1, 0, 1))
    assert index.lookup(digest) is None
    index.take(encode_collateral(replace(one, fetched_at_ms=99)), (1, 0, 2))  # whenever it was fetched
    view = index.lookup(digest)
    assert view is not None
    assert view.held.held_documents
    offer = index.newest(10)
    assert offer is not None
    assert (offer.view.digest, offer.fetched_at_ms) == (digest, 5)
    again = index.newest(4)
    assert again is not None
    assert again.fetched_at_ms == 0  # said for a time to come
    for damaged in (
        replace(whole, id="00" * 32),
        replace(whole, data=whole.data[:-1]),
        replace(whole, data=b""),
        replace(whole, data=whole.data * 2),
    ):
        with pytest.raises(SchemaError):
            index.take(encode_collateral(damaged), (1, 0, 3))


def test_an_older_set_never_comes_back() -> None:
    """Of sets that are as new the first on the topic is no candidate once another came; a copy does not renew it."""
    older = TDX4.but(number=TDX4.number - 1)
    index, (first, second) = topic_of(older, TDX4)
    newest = index.newest(100)
    assert newest is not None
    assert newest.view.digest == second
    members = index.members(first)
    assert members is not None
    index.take(encode_collateral(set_item(members, 50)), (9, 0, 9))
    newest = index.newest(100)
    assert newest is not None
    assert newest.view.digest == second


@settings(max_examples=100, deadline=None)
@given(st.sets(st.binary(min_size=32, max_size=32), min_size=1, max_size=20), st.randoms(use_true_random=False))
def test_a_set_is_its_items_and_nothing_else(digests: set[bytes], rng: Any) -> None:
    shuffled = [*digests, *digests]
    rng.shuffle(shuffled)
    made = set_item(shuffled, 1)
    assert set_members(made) == tuple(sorted(digests))
    assert made.id == set_digest(digests).hex() == set_digest(shuffled).hex()
    assert set_digest([*digests, bytes(33)]) != set_digest(digests)


def test_the_size_of_a_set_is_bounded() -> None:
    digests = [number.to_bytes(32, "big") for number in range(MAX_SET_ITEMS + 1)]
    for wrong in ([], digests, [bytes(31)]):
        with pytest.raises(ValueError, match="a set has"):
            set_item(wrong, 1)
    assert len(set_members(set_item(digests[1:], 1))) == MAX_SET_ITEMS
