"""Beacons of a worker: fresh values for evidence to name, written into every domain before any host hears them."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any

from schemas.codec import SINGLE_OBJECT, Framing, beacon_preimage, encode_beacon, encode_signed_beacon
from schemas.records import Beacon
from schemas.topics import TopicNames
from stream_jobs.core.policies import PolicyView
from stream_jobs.core.standing import NONCE_BYTES
from stream_jobs.core.wanted import beacon_control
from stream_jobs.log_record import PublishFailed
from stream_jobs.output import OutputPublisher, WorkerIdentityFacts, make_kafka_producer

logger = logging.getLogger(__name__)

REMEMBERED = 4
"""Own beacons that a domain may still be told of, which it missed while it was being begun."""

SHARE_OF_AGE = 32
"""So many beacons at most within the age that a policy accepts: a domain keeps twice as many."""

RETRY_MS = 30_000
"""After a beacon that could not be written everywhere the next is tried so much later, ms."""


def in_a_thread(work: Callable[[], None]) -> None:
    """Do something on a daemon thread of its own."""
    threading.Thread(target=work, name="beacons", daemon=True).start()


class BeaconIssuer:
    """Issues a beacon where none was heard for `interval_ms`, for all domains of the newest policy.

    A host may name a beacon as soon as it hears it, and workers read domains at their own pace. So it stands in every
    domain's partition, acknowledged, before it stands on the beacons topic. All of it happens on a thread of its own,
    with a producer of its own: outputs do not wait for a partition that has no leader.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: TopicNames,
        identity: WorkerIdentityFacts,
        *,
        interval_ms: int,
        framing: Framing = SINGLE_OBJECT,
        make_producer: Callable[[dict[str, str]], Any] = make_kafka_producer,
        random: Callable[[int], bytes] = secrets.token_bytes,
        start: Callable[[Callable[[], None]], None] = in_a_thread,
    ):
        self._properties, self._topics, self._identity = dict(kafka), topics, identity
        self._interval_ms, self._framing, self._make_producer = interval_ms, framing, make_producer
        self._random, self._start = random, start
        self._publisher: OutputPublisher | None = None
        self._issued: dict[bytes, int] = {}
        self._tried_ms = -RETRY_MS
        self._busy = threading.Lock()

    @property
    def issued(self) -> Mapping[bytes, int]:
        """The last own beacons: time of issue (UTC ms) by nonce."""
        return self._issued

    def turn(self, policy: PolicyView, newest_ms: int, now_ms: int) -> None:
        """Issue one if it is time: `newest_ms` is when the newest one that a domain here knows was issued, -1 for none.

        What cannot be written now is tried again later, with another beacon.
        """
        limit_ms = policy.policy.limits.max_beacon_age_ms
        interval_ms = max(self._interval_ms, 0 if limit_ms is None else limit_ms // SHARE_OF_AGE)
        newest_ms = max([newest_ms, *self._issued.values()])
        if now_ms - newest_ms < interval_ms or now_ms - self._tried_ms < RETRY_MS:
            return
        if self._busy.acquire(blocking=False):
            self._tried_ms = now_ms
            self._start(lambda: self._try(policy, now_ms))

    def _try(self, policy: PolicyView, now_ms: int) -> None:
        try:
            self._issue(policy, now_ms)
        except PublishFailed as error:
            self._publisher = None  # it has failed for good: the next attempt has one of its own
            logger.warning("no beacon could be issued, next attempt in %d s: %s", RETRY_MS // 1000, error)
        finally:
            self._busy.release()

    def _issue(self, policy: PolicyView, now_ms: int) -> None:
        if self._publisher is None:
            self._publisher = OutputPublisher(
                self._properties,
                self._topics,
                self._identity,
                framing=self._framing,
                make_producer=self._make_producer,
            )
        session = self._identity.session
        beacon = Beacon(nonce=self._random(NONCE_BYTES), issued_at_ms=now_ms, session_id=session.session_id)
        named = {beacon.nonce: now_ms}
        for rule in policy.policy.domains:
            self._publisher.control(beacon_control(rule.domain, policy.digest, named), rule.partition)
        body = encode_beacon(beacon)
        value = encode_signed_beacon(body, session.sign(beacon_preimage(body)), self._framing)
        self._publisher.announce(f"beacon/{beacon.nonce.hex()}".encode(), value)
        newest = sorted({**self._issued, **named}.items(), key=lambda one: one[1])
        self._issued = dict(newest[-REMEMBERED:])
        logger.info("beacon %s issued for %d domains", beacon.nonce.hex(), len(policy.policy.domains))
