"""Outputs that name a set of collateral: it goes into the proof, and the worker's evidence is judged under it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from enclavescale.judging.output import judge_output
from schemas.codec import decode_collateral, encode_collateral
from schemas.collateral import collateral_key, item_digest, set_digest, set_item
from schemas.records import CollateralItem
from stream_jobs.audit.chain import ChainWalker
from stream_jobs.audit.check import Checker, ReportStatement
from stream_jobs.audit.document import ReportProof, proof_text, read_proof
from stream_jobs.audit.errors import CollateralOther, RecordNotFound
from stream_jobs.audit.prove import Prover
from stream_jobs.core.windows import Verified
from tests.audit.site import NAMES, Site, checker, signed_policy, signer_point
from tests.audit.stories import T0, W, fresh
from tests.audit.test_chain import relinked
from tests.core.replay import CACHE
from verifier.errors import TcbStatusRefused
from verifier.trust.store import Collateral


def item(number: int) -> CollateralItem:
    return CollateralItem(
        kind="tcb_info",
        id=f"fmspc-{number}",
        data=b"what a vendor says %d" % number,
        issuer_chain=b"a chain" if number % 2 else None,
        issuer_chain_absent_reason=None if number % 2 else "none",
        not_before_ms_absent_reason="none",
        next_update_ms_absent_reason="none",
        fetched_at_ms=T0,
    )


ITEMS = [item(number) for number in range(3)]
DIGEST = set_digest(item_digest(one) for one in ITEMS)


def site_under_collateral(items: Sequence[CollateralItem] = ITEMS, *, named: bool = True) -> Site:
    """Outputs that name a set, on a topic with these items of it."""
    site = fresh()
    for one in (*items, set_item([item_digest(each) for each in ITEMS], T0)):
        site.topics.append(NAMES.collateral, 0, T0, collateral_key(one), encode_collateral(one))
    if named:
        switched = {number: lambda made: replace(made, collateral_digest=DIGEST) for number in range(5)}
        relinked(site, switched, revisions=True)
    return site


class Judge:
    """Verifies simulated evidence, for which nobody publishes collateral, and keeps what it was asked with."""

    def __init__(self, *, needs: bool = False) -> None:
        self.needs = needs
        self.asked: list[tuple[bytes | None, int]] = []

    def __call__(self, *, collateral: Collateral | None = None, now_ms: int, **given: Any) -> Verified:
        seen = None if collateral is None else b" ".join(sorted(one.source.encode() for one in collateral.unreadable))
        self.asked.append((seen, now_ms))
        if self.needs and collateral is None:
            raise TcbStatusRefused("nothing says how current this platform is")
        return CACHE.verify(now_ms=now_ms, **given)


def checking(judge: Judge) -> Checker:
    return replace(checker(), verify=judge)


def proven(site: Site, judge: Judge) -> ReportProof:
    """A proof of some accepted report."""
    digest, _ = next(site.prover.reports_of("h0", T0 + 3 * W))
    return Prover(site.audit, checking(judge).check).prove(digest)


def test_the_set_named_is_in_the_proof_and_the_evidence_is_judged_under_it() -> None:
    site, judge = site_under_collateral(), Judge()
    proof = proven(site, judge)
    again = read_proof(proof_text(proof).encode())
    assert again == proof
    assert {item_digest(decode_collateral(value)) for value in proof.collateral} == {item_digest(one) for one in ITEMS}
    judge.asked.clear()
    statement = checking(judge).check(proof)
    assert isinstance(statement, ReportStatement)
    assert statement.published.collateral_digest == DIGEST
    ((seen, now_ms),) = judge.asked
    assert seen
    assert now_ms == statement.published.window_end_ms > T0, "later than when the session was bound"


def test_another_set_than_the_one_named_is_refused() -> None:
    proof = proven(site_under_collateral(), Judge())
    other = encode_collateral(replace(ITEMS[0], data=b"something else"))
    for values in ((), proof.collateral[1:], (*proof.collateral, other), (other, *proof.collateral[1:])):
        with pytest.raises(CollateralOther):
            checking(Judge()).check(replace(proof, collateral=values))


def test_a_set_that_is_not_whole_is_missed() -> None:
    with pytest.raises(RecordNotFound, match=DIGEST.hex()):
        proven(site_under_collateral(ITEMS[:2]), Judge())


def test_an_output_that_names_none_may_be_judged_under_the_newest_set() -> None:
    """A policy that wants collateral evaluated, an output before the first switch to a set."""
    judge = Judge(needs=True)
    proof = proven(site_under_collateral(named=False), judge)
    assert len(proof.collateral) == len(ITEMS)
    assert proven(site_under_collateral(named=False), Judge()).collateral == ()


@pytest.mark.parametrize("named", [True, False])
def test_chains_are_followed_under_the_sets_named(named: bool) -> None:
    site, judge = site_under_collateral(named=named), Judge(needs=True)
    opener = checker().open_policy
    assert opener is not None
    found = ChainWalker(site.audit, opener, judge).follow("d")
    assert (found.broken, found.outputs) == (None, 5)


def test_a_verdict_asks_for_the_set_named() -> None:
    site = site_under_collateral()
    value, policy = site.outputs()[0].value or b"", signed_policy(site.story.policies[0])
    assert judge_output(value, policy=policy, signers=[signer_point()])["codes"] == ["COLLATERAL_OTHER"]
    values = [encode_collateral(one) for one in ITEMS]
    verdict = judge_output(value, policy=policy, signers=[signer_point()], collateral=values)
    # Nobody publishes collateral for a simulated platform: its quote is refused under any.
    assert (verdict["accepted"], verdict["verified"]) == (False, ["format", "policy", "worker", "signature"])
