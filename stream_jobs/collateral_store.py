"""Sets of collateral from the collateral topic, by digest: whole, unchanged, and never an older one as the newest."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric

from schemas.codec import SINGLE_OBJECT, Framing, decode_collateral
from schemas.collateral import SET, item_digest, item_parts, set_digest, set_members
from schemas.errors import EnclaveScaleError
from schemas.records import CollateralItem
from stream_jobs.core.policies import CollateralView
from stream_jobs.core.standing import CollateralOffer
from stream_jobs.reading import NewMessages, open_reader
from verifier.trust.appraisal import Judge
from verifier.trust.roots import INTEL_SGX_ROOT
from verifier.trust.store import Collateral

logger = logging.getLogger(__name__)

READ_ITEMS = 256
"""Records read at once: at most 128 MiB where every one of them is as large as the topic allows."""

MAX_HELD_BYTES = 256 * 1024 * 1024
"""Bytes of items that are kept. A month of daily renewals of everything that three vendors publish has a tenth."""

MAX_SET_BYTES = 64 * 1024 * 1024
"""Bytes of one set's items; a larger one is unknown."""

MAX_BUILT = 8
"""Sets that are kept read and parsed: the one in force, its successor, and a few that late records ask for."""

MAX_CANDIDATES = 64
"""Sets among which the newest is sought, the last ones on the topic: each is read once."""

Place = tuple[int, int, int]
"""Append time (ms), partition and offset of a record."""


@dataclass(slots=True)
class _Listed:
    """A set on the topic: digests of its items, where it stood first, when it was last said to be current (ms)."""

    members: tuple[bytes, ...]
    first: Place
    fetched_at_ms: int
    issued_ms: int | None = None


class CollateralIndex:
    """What records of the collateral topic say, in the order in which they are given.

    Nothing on that topic is signed by us: an item speaks through its vendor's signature, and a set is a choice of
    items. Whoever may write there can withhold nothing that is on it, and a set whose newest document or list of
    Intel's is older than another set's is never the newest.
    """

    def __init__(self, framing: Framing = SINGLE_OBJECT):
        self._framing = framing
        self._items: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0
        self._sets: dict[bytes, _Listed] = {}
        self._built: OrderedDict[bytes, CollateralView] = OrderedDict()

    def take(self, value: bytes, place: Place) -> None:
        """Take one record's value. Raises SchemaError for what is no item, or a set that is none."""
        item = decode_collateral(value, self._framing)
        if item.kind == SET:
            members = set_members(item)
            known = self._sets.setdefault(set_digest(members), _Listed(members, place, 0))
            known.fetched_at_ms = max(known.fetched_at_ms, item.fetched_at_ms)
            return
        digest = item_digest(item)
        before = self._items.pop(digest, None)
        self._items[digest] = value
        self._bytes += len(value) - len(before or b"")
        while self._bytes > MAX_HELD_BYTES:
            dropped, old = self._items.popitem(last=False)
            self._bytes -= len(old)
            logger.error("the collateral topic holds too much: item %s is forgotten", dropped.hex())

    def item(self, digest: bytes) -> CollateralItem | None:
        """The item with this digest."""
        value = self._items.get(digest)
        return None if value is None else decode_collateral(value, self._framing)

    def members(self, digest: bytes) -> tuple[bytes, ...] | None:
        """Digests of the items of a set, ascending; None for a set that is not on the topic."""
        listed = self._sets.get(digest)
        return None if listed is None else listed.members

    def lookup(self, digest: bytes) -> CollateralView | None:
        """The set with this digest; None if it, or one of its items, is not on the topic."""
        built = self._built.get(digest)
        if built is not None:
            self._built.move_to_end(digest)
            return built
        listed = self._sets.get(digest)
        if listed is None or any(one not in self._items for one in listed.members):
            return None
        if sum(len(self._items[one]) for one in listed.members) > MAX_SET_BYTES:
            return None
        parts = []
        for one in listed.members:
            item = decode_collateral(self._items[one], self._framing)
            parts += item_parts(item)
        try:
            held = Collateral.of(parts)
        except EnclaveScaleError as error:  # too many parts
            logger.warning("collateral set %s cannot be used: %s", digest.hex(), error)
            return None
        self._built[digest] = view = CollateralView(digest, held)
        if len(self._built) > MAX_BUILT:
            self._built.popitem(last=False)
        return view

    def newest(self, now_ms: int) -> CollateralOffer | None:
        """The complete set with the newest genuine item of Intel's; of several the one that came last to the topic."""
        candidates = sorted(self._sets.items(), key=lambda one: one[1].first)[-MAX_CANDIDATES:]
        best: tuple[int, Place, bytes] | None = None
        for digest, listed in candidates:
            if listed.issued_ms is None:
                view = self.lookup(digest)
                if view is None:
                    continue
                listed.issued_ms = newest_issue_ms(view.held)
            elif any(one not in self._items for one in listed.members) and digest not in self._built:
                continue
            found = listed.issued_ms, listed.first, digest
            best = found if best is None or found > best else best
        view = None if best is None else self.lookup(best[2])
        if best is None or view is None:
            return None
        # A time to come is nobody's word: it would call for switches without end.
        fetched_at_ms = self._sets[best[2]].fetched_at_ms
        return CollateralOffer(view, fetched_at_ms if fetched_at_ms <= now_ms else 0)


def newest_issue_ms(held: Collateral) -> int:
    """When the newest document or list under Intel's root was issued, UTC ms; 0 without any.

    Only genuine ones count, current or not: a forged date would let an older set pass for the newest.
    """
    dated = [one.issued_ms for one in held.held_documents] + [one.issued_ms for one in held.crls]
    if not dated:
        return 0
    judge = Judge(held, INTEL_SGX_ROOT, max(dated))
    issued = [one.issued_ms for one in held.held_documents if judge.document(one).root is not None]
    for one in held.crls:
        finding = judge.crl(one)
        if finding is not None and finding.root is not None:
            issued.append(one.issued_ms)
    return max(issued, default=0)


def set_ends_ms(held: Collateral) -> int | None:
    """When the first document or list of a set ends for which the set has no longer-lived one, UTC ms, inclusive.

    None for a set without any. What is said of one subject (a platform, an enclave, an authority's list) counts once.
    """
    last: dict[object, int] = {}
    for document in held.held_documents:
        last[document.key] = max(last.get(document.key, 0), document.last_ms)
    for one in held.crls:
        last[one.crl.issuer] = max(last.get(one.crl.issuer, 0), one.last_ms)
    return min(last.values(), default=None)


class CollateralMetrics:
    """Prometheus collector of a store: when the newest set ends."""

    def __init__(self, store: CollateralStore):
        self._store = store

    def describe(self) -> list[Metric]:
        """Nothing is read before it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read what the store knows; no broker is asked."""
        end = GaugeMetricFamily(
            "enclavescale_collateral_expiry_timestamp_seconds",
            "When the first item of the newest set of collateral ends, Unix time",
        )
        newest = self._store.newest(0)
        end_ms = None if newest is None else set_ends_ms(newest.view.held)
        if end_ms is not None:
            end.add_metric([], end_ms / 1000)
        yield end


class CollateralStore:
    """Reads the collateral topic to its end on demand. Safe to use from several threads."""

    def __init__(
        self, kafka: Mapping[str, str], topic: str, *, framing: Framing = SINGLE_OBJECT, timeout_s: float = 20.0
    ):
        self._consumer = open_reader(kafka)
        self._topic = topic
        self._new = NewMessages(self._consumer, topic, timeout_s, READ_ITEMS)
        self._index = CollateralIndex(framing)
        self._lock = threading.Lock()

    def lookup(self, digest: bytes) -> CollateralView | None:
        """The complete set with this digest; reads what is new on the topic before saying None. Raises ReadFailed."""
        with self._lock:
            found = self._index.lookup(digest)
            if found is None:
                self._read_new()
                found = self._index.lookup(digest)
            return found

    def refresh(self) -> None:
        """Read what is new on the topic. Raises ReadFailed."""
        with self._lock:
            self._read_new()

    def newest(self, now_ms: int) -> CollateralOffer | None:
        """The newest set among those read so far; `now_ms` is UTC milliseconds."""
        with self._lock:
            return self._index.newest(now_ms)

    def candidates(self, digest: bytes | None) -> tuple[CollateralView, ...]:
        """Sets by which an aggregator's evidence may be judged: the one named, and the newest, where there are such.

        Raises ReadFailed.
        """
        named = None if digest is None else self.lookup(digest)
        newest = self.newest(0)
        return tuple(one for one in (named, None if newest is None else newest.view) if one is not None)

    @property
    def index(self) -> CollateralIndex:
        """What was read; to be used by one thread."""
        return self._index

    def close(self) -> None:
        """Release the consumer."""
        self._consumer.close()

    def _read_new(self) -> None:
        for partition, message in self._new.read():
            self._take(message.value() or b"", (message.timestamp()[1], partition, message.offset() or 0))

    def _take(self, value: bytes, place: Place) -> None:
        try:
            self._index.take(value, place)
        except EnclaveScaleError as error:
            logger.warning("%s[%d]@%d ignored: %s %s", self._topic, *place[1:], error.code, error)
