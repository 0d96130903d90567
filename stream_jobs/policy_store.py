"""Trusted policies from the policy topic, by digest: signed by a known signer, never older than the floor."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from schemas.codec import SINGLE_OBJECT, Framing, decode_signed_policy, record_digest
from schemas.errors import ConfigError, EnclaveScaleError
from stream_jobs.core.policies import CORE_VERSION, PolicyView
from stream_jobs.core.policy_ranges import check_ranges
from stream_jobs.reading import NewMessages, open_reader
from verifier.policy.enrolment import lint_enrolment
from verifier.signature import load_session_key, verify_record_signature

logger = logging.getLogger(__name__)

READ_POLICIES = 16
"""Policies read at once: at most 128 MiB where every one of them is as large as the topic allows."""


@dataclass(frozen=True, slots=True)
class PolicyTrust:
    """Who may sign policies: uncompressed P-256 points (65 bytes); lowest counter accepted."""

    signers: tuple[bytes, ...]
    min_counter: int = 0

    def __post_init__(self) -> None:
        if not self.signers:
            raise ConfigError("no policy signer is trusted: every policy would be refused", field="policy_signers")


def open_policy(value: bytes, trust: PolicyTrust, framing: Framing = SINGLE_OBJECT) -> PolicyView:
    """Decode and check one signed policy. Raises SchemaError, VerificationError (its enrolment, too: it is refused
    whole), or ConfigError: POLICY_UNTRUSTED, POLICY_ROLLBACK, or CONFIG_INVALID for a number out of range.
    """
    signed, preimage = decode_signed_policy(value, framing)
    if signed.signer_public_key not in trust.signers:
        raise ConfigError("the policy's signer is not trusted", code="POLICY_UNTRUSTED", field="signer_public_key")
    key: ec.EllipticCurvePublicKey = load_session_key(signed.signer_public_key)
    verify_record_signature(key, preimage, signed.signature)
    if signed.policy.counter < trust.min_counter:
        raise ConfigError("the policy's counter is below the floor", code="POLICY_ROLLBACK", field="counter")
    check_ranges(signed.policy)
    for error in lint_enrolment(signed.policy):
        raise error
    return PolicyView(signed.policy, record_digest(preimage))


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two different policies of one counter, both by trusted signers: digests (32 bytes) of the one that stays, which
    was first on the topic, and of the other, which is never used; where the other stands."""

    counter: int
    first: bytes
    other: bytes
    partition: int
    offset: int


class PolicyStore:
    """Reads the policy topic to its end on demand. Safe to use from several threads.

    Policies are found by digest whatever their counter: windows of a superseded one may still be open. Of two with one
    counter only the first is ever found.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topic: str,
        trust: PolicyTrust,
        *,
        framing: Framing = SINGLE_OBJECT,
        timeout_s: float = 20.0,
    ):
        self._consumer = open_reader(kafka)
        self._topic, self._trust, self._framing = topic, trust, framing
        self._new = NewMessages(self._consumer, topic, timeout_s, READ_POLICIES)
        self._views: dict[bytes, PolicyView] = {}
        self._by_counter: dict[int, bytes] = {}
        self._equivocations: list[Equivocation] = []
        self._ignored: Counter[str] = Counter()
        self._lock = threading.Lock()

    def lookup(self, digest: bytes) -> PolicyView | None:
        """The trusted policy with this digest; reads what is new on the topic before saying None. Raises ReadFailed."""
        with self._lock:
            if digest not in self._views:
                self._read_new()
            return self._views.get(digest)

    def refresh(self) -> None:
        """Read what is new on the topic. Raises ReadFailed."""
        with self._lock:
            self._read_new()

    @property
    def newest(self) -> PolicyView | None:
        """The trusted policy with the highest counter among those read so far."""
        with self._lock:
            views = list(self._views.values())
        return max(views, key=lambda view: view.policy.counter, default=None)

    @property
    def equivocations(self) -> tuple[Equivocation, ...]:
        """Counters that a trusted signer used twice, in the order in which that was read."""
        with self._lock:
            return tuple(self._equivocations)

    @property
    def ignored(self) -> dict[str, int]:
        """How many values of the topic are not used, by code."""
        with self._lock:
            return dict(self._ignored)

    def close(self) -> None:
        """Release the consumer."""
        self._consumer.close()

    def _read_new(self) -> None:
        for partition, message in self._new.read():
            self._take(message.value() or b"", partition, message.offset() or 0)

    def _take(self, value: bytes, partition: int, offset: int) -> None:
        try:
            view = open_policy(value, self._trust, self._framing)
        except EnclaveScaleError as error:
            self._ignored[error.code] += 1
            logger.warning("policy at %s[%d]@%d ignored: %s %s", self._topic, partition, offset, error.code, error)
            return
        counter = view.policy.counter
        first = self._by_counter.setdefault(counter, view.digest)
        if first == view.digest:
            self._views[view.digest] = view
            return
        found = Equivocation(counter, first, view.digest, partition, offset)
        self._equivocations.append(found)
        self._ignored["POLICY_EQUIVOCATION"] += 1
        logger.error(
            "POLICY_EQUIVOCATION: a second policy with counter %d at %s[%d]@%d is never used: the signer's key may be "
            "in other hands (first %s, this %s)",
            counter,
            self._topic,
            partition,
            offset,
            first.hex(),
            view.digest.hex(),
        )


class PolicyMetrics:
    """Prometheus collector of a store: the newest policy's counter and end, values of the topic that are not used."""

    def __init__(self, store: PolicyStore):
        self._store = store

    def describe(self) -> list[Metric]:
        """Nothing is read before it is asked for."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read what the store knows; no broker is asked."""
        newest = self._store.newest
        counter = GaugeMetricFamily("enclavescale_policy_number", "Counter of the newest trusted policy")
        end = GaugeMetricFamily(
            "enclavescale_policy_expiry_timestamp_seconds", "End of the newest trusted policy; then all is refused"
        )
        core = GaugeMetricFamily("enclavescale_policy_core_matches", "1 if the newest policy names this worker's core")
        if newest is not None:
            core.add_metric([], newest.policy.core_version == CORE_VERSION)
            counter.add_metric([], newest.policy.counter)
            end.add_metric([], newest.policy.not_after_ms / 1000)
        ignored = CounterMetricFamily("enclavescale_policy_ignored", "Policies on the topic not used", labels=["code"])
        for code, count in sorted(self._store.ignored.items()):
            ignored.add_metric([code], count)
        yield from (counter, end, core, ignored)
