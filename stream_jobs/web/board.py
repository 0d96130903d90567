"""The state behind the page: every domain's newest output and its history, refusals, and what is wrong. Bounded.

One thread writes what it read from the topics, others ask; a lock guards it. Nothing here talks to Kafka.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stream_jobs.web.card import POINT_FIELDS, Card
from stream_jobs.web.judging import Judged, Standing
from stream_jobs.web.problems import (
    TROUBLE,
    WATCH,
    Problem,
    of_domain,
    of_evidence,
    of_refusals,
    of_standing,
    of_versions,
    power,
    span,
    worst_first,
)
from stream_jobs.web.refusals import SPAN_MS, Refusal, RefusalBook

FORMAT = "enclavescale-page/1"

MAX_DOMAINS = 256
"""Domains that are shown. Under a policy they are the policy's; without verification, anybody's who can write."""

MAX_POINTS = 100_000
"""Points of history that are kept, of all domains together: some 20 MB."""

MAX_UNVERIFIED = 50
"""Outputs that do not verify, of which the places are shown."""

MAX_AGGREGATORS = 64

STALE_MS = 10_000
"""No broker answered for so long: what is shown is stale, ms. Brokers are asked every two seconds."""

RECALL_MS = 900_000
"""An output that does not verify is trouble for so long, ms."""


@dataclass(slots=True)
class Source:
    """How the reading goes. Times UTC ms, 0 for never; `ends`: where each output partition ended when it was met;
    `letters`: the same of the rejections."""

    contact_ms: int = 0
    error: str = ""
    ends: dict[int, int] = field(default_factory=dict)
    letters: dict[int, int] = field(default_factory=dict)
    next_offsets: dict[int, int] = field(default_factory=dict)
    met: bool = False
    rejections: bool = False
    remade_ms: int = 0


@dataclass(slots=True)
class _Aggregator:
    host_id: str
    root: str
    simulated: bool
    created_ms: int
    expires_ms: int
    last_ms: int
    domains: set[str]


class Board:
    """State for people. `keep`: windows of history per domain; `explain`: what a code means; `checked`: whether
    outputs are verified at all; `started_ms`: UTC ms."""

    def __init__(self, *, keep: int, explain: Callable[[str], str], checked: bool, started_ms: int):
        self._lock = threading.RLock()
        self._keep, self._checked, self._started_ms = keep, checked, started_ms
        self._cards: dict[str, Card] = {}
        self._book = RefusalBook(explain)
        self._explain = explain
        self._standing = Standing()
        self._source = Source()
        self._aggregators: OrderedDict[bytes, _Aggregator] = OrderedDict()
        self._unverified: deque[dict[str, Any]] = deque(maxlen=MAX_UNVERIFIED)
        self._left_out: int = 0
        self._outputs = dict.fromkeys(("verified", "refused", "unchecked", "malformed"), 0)
        self._refusals = 0
        self._changed: dict[str, set[int]] = {}
        self._told = ""

    # -- what was read ---------------------------------------------------------------------------------------

    def take(self, judged: Judged, partition: int, offset: int, published_ms: int) -> None:
        """Take an output at its place on the output topic. One that does not verify never becomes a domain's."""
        output = judged.signed.output
        with self._lock:
            self._outputs[judged.trust] += 1
            if judged.trust == "refused":
                self._note(partition, offset, published_ms, judged.code, judged.reason, output.domain)
                return
            if output.source.partition != partition:
                self._note(
                    partition, offset, published_ms, "WRONG_PARTITION",
                    f"it was computed from partition {output.source.partition}", output.domain,
                )  # fmt: skip
                return
            card = self._cards.get(output.domain)
            if card is None:
                if len(self._cards) >= MAX_DOMAINS:
                    self._left_out += 1
                    return
                card = self._cards[output.domain] = Card(self._keep)
                keep = min(self._keep, max(1, MAX_POINTS // len(self._cards)))
                for one in self._cards.values():
                    one.hold(keep)
            if card.take(judged, partition, offset, published_ms):
                self._changed.setdefault(output.domain, set()).add(output.window_start_ms)
            self._signed_by(judged, published_ms)

    def malformed(self, partition: int, offset: int, at_ms: int, code: str, reason: str) -> None:
        """Take note of a value on the output topic that is no output."""
        with self._lock:
            self._outputs["malformed"] += 1
            self._note(partition, offset, at_ms, code, reason, None)

    def refusal(self, one: Refusal) -> None:
        """Take a dead letter."""
        with self._lock:
            self._refusals += 1
            self._book.take(one)
            if one.letter_offset + 1 >= self._source.letters.get(one.letter_partition, 0):
                self._source.letters[one.letter_partition] = 0

    def stands(self, standing: Standing) -> None:
        """Take what is in force."""
        with self._lock:
            self._standing = standing

    def contact(self, now_ms: int) -> None:
        """A broker answered."""
        with self._lock:
            self._source.contact_ms = now_ms

    def met(self, *, rejections: bool) -> None:
        """All partitions that there are now are known; `rejections`: whether the rejections topic is there."""
        with self._lock:
            self._source.met, self._source.error = True, ""
            self._source.rejections = rejections

    def failed(self, error: str) -> None:
        """A broker did not answer, or not what was asked."""
        with self._lock:
            self._source.error = error[:300]

    def partition(self, number: int, end: int) -> None:
        """A partition of the output topic, met now, that ends at `end`."""
        with self._lock:
            self._source.ends.setdefault(number, end)

    def letters(self, number: int, end: int) -> None:
        """A partition of the rejections topic, met now, that ends at `end`; 0 if nothing of it is to be read."""
        with self._lock:
            self._source.letters.setdefault(number, end)

    def passed(self, partition: int, offset: int, now_ms: int) -> None:
        """The record at `offset` was read. An offset that was read before means a topic made anew."""
        with self._lock:
            if offset < self._source.next_offsets.get(partition, 0):
                self._source.remade_ms = now_ms
            self._source.next_offsets[partition] = offset + 1

    def _note(self, partition: int, offset: int, at_ms: int, code: str, reason: str, domain: str | None) -> None:
        self._unverified.append(
            {
                "partition": partition,
                "offset": offset,
                "at_ms": at_ms,
                "code": code,
                "reason": reason[:300],
                "domain": None if domain is None else domain[:300],
                "meaning": self._explain(code),
            }
        )

    def _signed_by(self, judged: Judged, published_ms: int) -> None:
        worker, identity = judged.worker, judged.signed.worker
        if worker is None:
            return
        held = self._aggregators.get(identity.session_id)
        if held is None:
            held = self._aggregators[identity.session_id] = _Aggregator(
                host_id=identity.host_id,
                root=worker.root_label,
                simulated=worker.simulated,
                created_ms=worker.binding.created_at_ms,
                expires_ms=worker.expires_ms,
                last_ms=0,
                domains=set(),
            )
        held.last_ms = max(held.last_ms, published_ms)
        held.domains.add(judged.signed.output.domain)
        self._aggregators.move_to_end(identity.session_id)
        while len(self._aggregators) > MAX_AGGREGATORS:
            self._aggregators.popitem(last=False)

    # -- what is asked ---------------------------------------------------------------------------------------

    def figures(self) -> Mapping[str, int]:
        """Counts for metrics: outputs by `verified`, `refused`, `unchecked`, `malformed`; `refusals`; `domains`."""
        with self._lock:
            return {**self._outputs, "refusals": self._refusals, "domains": len(self._cards)}

    def stale_since_ms(self, now_ms: int) -> int | None:
        """Since when no broker has answered, UTC ms; None while one does."""
        with self._lock:
            last = self._source.contact_ms or self._started_ms
            return last if now_ms - last > STALE_MS else None

    def caught_up(self) -> bool:
        """Whether everything was read that was there when reading began."""
        with self._lock:
            source = self._source
            outputs = all(source.next_offsets.get(one, 0) >= end for one, end in source.ends.items())
            return source.met and bool(source.ends) and outputs and not any(source.letters.values())

    def snapshot(self, now_ms: int) -> dict[str, Any]:
        """Everything as JSON, histories included."""
        with self._lock:
            return {
                "format": FORMAT,
                **self.status(now_ms),
                "point_fields": list(POINT_FIELDS),
                "domains": [
                    {**card.facts(name), "points": card.points(self._keep)}
                    for name, card in sorted(self._cards.items())
                ],
            }

    def changes(self, now_ms: int, *, with_status: bool = True) -> list[tuple[str, dict[str, Any]]]:
        """What changed since this was last called, as events: `domain` with its new points, `status`."""
        with self._lock:
            changed, self._changed = self._changed, {}
            found: list[tuple[str, dict[str, Any]]] = []
            for name, windows in sorted(changed.items()):
                card = self._cards[name]
                found.append(("domain", {**card.facts(name), "points": card.points(self._keep, windows)}))
            if not with_status:
                return found
            status = self.status(now_ms)
            told = repr({name: value for name, value in status.items() if name != "now_ms"})
            if told != self._told:
                self._told = told
                found.append(("status", status))
            return found

    def status(self, now_ms: int) -> dict[str, Any]:
        """All but the domains: what is wrong, where figures come from, what ends, who signs, what was refused."""
        with self._lock:
            problems = worst_first(self._problems(now_ms))
            counted: dict[str, int] = {}
            for card in self._cards.values():
                for code, count in card.refused.items():
                    counted[code] = counted.get(code, 0) + count
            level = problems[0].level if problems else "fine"
            if not self._cards and level != TROUBLE:
                level = "waiting"
            return {
                "now_ms": now_ms,
                "level": level,
                "headline": problems[0].text if problems and level != "waiting" else self._calm(level),
                "problems": [one.facts() for one in problems],
                "checked": self._checked,
                "simulated": self._simulated(),
                "unsafe": self._unsafe(),
                "domains_left_out": self._left_out,
                "source": self._source_facts(now_ms),
                "policy": self._policy_facts(),
                "collateral": {
                    "used": self._uses_collateral(),
                    "newest": None if (one := self._standing.collateral_digest) is None else one.hex(),
                    "ends_ms": self._standing.collateral_ends_ms,
                },
                "aggregators": self._aggregator_facts(),
                "unverified": list(reversed(self._unverified)),
                "refused": self._book.facts(now_ms, counted),
            }

    # -- parts -----------------------------------------------------------------------------------------------

    def _calm(self, level: str) -> str:
        if level == "waiting":
            return "Reading the output topic." if not self.caught_up() else "The output topic holds no output yet."
        newest = [card.newest.signed.output for card in self._cards.values() if card.newest is not None]
        margins = [one.margin.margin.value_w for one in newest if one.margin.margin is not None]
        count = f"{len(newest)} {'domain' if len(newest) == 1 else 'domains'}"
        return f"All fine: {count}, smallest margin {power(min(margins))}." if margins else f"All fine: {count}."

    def _problems(self, now_ms: int) -> Iterator[Problem]:
        yield from self._source_problems(now_ms)
        yield from of_standing(self._standing, self._uses_collateral(), now_ms)
        names = set(self._cards)
        if self._standing.policy is not None and self.caught_up():
            rules = self._standing.policy.policy.domains[:MAX_DOMAINS]
            names |= {one.domain for one in rules if self._standing.policy.policy.effective_from_ms <= now_ms}
        for name in sorted(names):
            yield from of_domain(name, self._cards.get(name) or Card(self._keep), now_ms, self._standing)
        signing = {card.newest.signed.worker.session_id for card in self._cards.values() if card.newest is not None}
        for session_id, one in self._aggregators.items():
            if session_id in signing:
                yield from of_evidence(one.host_id, one.expires_ms, now_ms)
        yield from of_refusals(self._book.counts(now_ms), SPAN_MS // 60_000)
        yield from of_versions(
            [card.newest.signed.output.core_version for card in self._cards.values() if card.newest is not None]
        )

    def _source_problems(self, now_ms: int) -> Iterator[Problem]:
        since = self.stale_since_ms(now_ms)
        if since is not None:
            yield Problem(
                level=TROUBLE, weight=100, kind="STALE",
                text=f"No broker has answered for {span(now_ms - since)}: what is shown is old.",
                todo=f"Check the brokers and this page's network. {self._source.error}".strip(),
            )  # fmt: skip
        elif self._source.error:
            yield Problem(
                level=TROUBLE, weight=99, kind="READING", text="The topics cannot be read.", todo=self._source.error
            )
        if self._source.remade_ms and now_ms - self._source.remade_ms < RECALL_MS:
            yield Problem(
                level=TROUBLE, weight=93, kind="OUTPUT_REMADE",
                text=f"The output topic was made anew {span(now_ms - self._source.remade_ms)} ago.",
                todo="Who deleted it? Outputs before that are gone from the topic (docs/operations.md).",
            )  # fmt: skip
        bad = [one for one in self._unverified if now_ms - one["at_ms"] < RECALL_MS]
        if bad:
            codes = ", ".join(sorted({str(one["code"]) for one in bad})[:3])
            what = "output does" if len(bad) == 1 else "outputs do"
            yield Problem(
                level=TROUBLE, weight=72, kind="UNVERIFIED",
                text=f"{len(bad)} {what} not verify ({codes}) and {'is' if len(bad) == 1 else 'are'} not shown.",
                todo="Somebody else writes to the output topic, or a worker's evidence has ended: see the list below.",
            )  # fmt: skip
        if self._left_out:
            yield Problem(
                level=WATCH, weight=15, kind="DOMAINS_LEFT_OUT",
                text=f"Outputs of more than {MAX_DOMAINS} domains: the page shows {MAX_DOMAINS}.",
                todo="Give --policy-signer, so that only domains of the policy count.",
            )  # fmt: skip

    def _uses_collateral(self) -> bool:
        return any(
            card.newest is not None and card.newest.signed.output.collateral_digest is not None
            for card in self._cards.values()
        )

    def _simulated(self) -> bool:
        shares = (
            share.simulated and share.mean_w != 0
            for card in self._cards.values()
            if card.newest is not None
            for share in card.newest.signed.output.power_by
        )
        return any(one.simulated for one in self._aggregators.values()) or any(shares)

    def _unsafe(self) -> list[str]:
        policy = self._standing.policy
        if policy is None:
            return []
        names = ("unsafe_allow_unevaluated_tcb", "unsafe_allow_unenrolled_platform", "unsafe_allow_create_time")
        return [name for name in names if getattr(policy.policy, name)]

    def _source_facts(self, now_ms: int) -> dict[str, Any]:
        source = self._source
        return {
            "stale_since_ms": self.stale_since_ms(now_ms),
            "caught_up": self.caught_up(),
            "error": source.error,
            "partitions": [
                {"partition": one, "next_offset": source.next_offsets.get(one, 0)} for one in sorted(source.ends)
            ],
            "rejections_followed": source.rejections,
        }

    def _policy_facts(self) -> dict[str, Any] | None:
        view = self._standing.policy
        if view is None:
            return None
        return {
            "counter": view.policy.counter,
            "digest": view.digest.hex(),
            "effective_from_ms": view.policy.effective_from_ms,
            "not_after_ms": view.policy.not_after_ms,
            "domains": len(view.domains),
            "hosts": len(view.hosts),
        }

    def _aggregator_facts(self) -> list[dict[str, Any]]:
        return [
            {
                "host_id": one.host_id,
                "session_id": session_id.hex(),
                "root": one.root,
                "simulated": one.simulated,
                "evidence_as_of_ms": one.created_ms,
                "evidence_ends_ms": one.expires_ms,
                "last_output_ms": one.last_ms,
                "domains": sorted(one.domains)[:MAX_DOMAINS],
            }
            for session_id, one in reversed(self._aggregators.items())
        ]
