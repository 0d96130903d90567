"""What was published before: the tails of the output and rejection topics, read once at an assignment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Message

from schemas.codec import Framing, decode_signed_output, record_digest
from schemas.errors import EnclaveScaleError
from stream_jobs.audit.outputs import check_worker
from stream_jobs.core.partition import OutputKey
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.sessions import SessionVerifier
from stream_jobs.reading import backwards, watermarks

logger = logging.getLogger(__name__)

LEADER_S = 10.0
"""How long a new leader's high watermark may lag behind what was read before the election, s."""

DEAD_LETTERS = 32
"""Dead letters looked at first: 16 MiB at their largest."""


class ForeignOutput(EnclaveScaleError):
    """A record on the output topic that no worker of this fleet computed from this partition."""

    code = "FOREIGN_OUTPUT"
    remedy = "Somebody else writes to the output topic: check its access list."


@dataclass(slots=True)
class Published:
    """Outputs of one source partition that are on the output topic, from some close offset on.

    `digests` by domain, window start (ms) and revision; `last_close`: highest close offset, -1 without outputs;
    `last_rejection`: highest source offset on the rejections topic, -1 without any.
    """

    digests: dict[OutputKey, bytes] = field(default_factory=dict)
    last_close: int = -1
    last_rejection: int = -1


def no_sets(_digest: bytes | None) -> Sequence[CollateralView]:
    """Of a reader without a collateral topic."""
    return ()


class TailReader:
    """Reads tails for one worker. `policies` looks up a policy by digest, `sets` the collateral by which a worker's
    evidence may be judged, given the digest that its output names."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        framing: Framing,
        verify: SessionVerifier,
        policies: Callable[[bytes], PolicyView | None],
        sets: Callable[[bytes | None], Sequence[CollateralView]] = no_sets,
        timeout_s: float = 20.0,
    ):
        self._consumer, self._framing, self._verify = consumer, framing, verify
        self._policies, self._sets, self._timeout_s = policies, sets, timeout_s

    def outputs(self, topic: str, source: tuple[str, int], since_offset: int) -> Published:
        """Outputs of source (topic, partition) that closed at or after `since_offset`. Forged ones are left out."""
        found = Published()
        for chunk in backwards(self._consumer, topic, source[1], self._timeout_s):
            oldest: int | None = None
            for message in chunk:
                close = self._take(message, source, found)
                oldest = close if oldest is None else oldest
            if oldest is not None and oldest < since_offset:
                break
        return found

    def _take(self, message: Message, source: tuple[str, int], found: Published) -> int | None:
        try:
            signed, preimage = decode_signed_output(message.value() or b"", self._framing)
            output = signed.output
            view = self._policies(output.policy_digest)
            if view is None or (output.source.topic, output.source.partition) != source:
                raise ForeignOutput("an output of another policy or source")
            check_worker(signed, preimage, view, self._verify, self._sets(output.collateral_digest))
        except EnclaveScaleError as error:
            logger.warning("output at offset %s ignored: %s %s", message.offset(), error.code, error)
            return None
        # Two workers may both have published at a rebalance: equal bits, so whichever comes first will do.
        key = (output.domain, output.window_start_ms, output.revision)
        found.digests.setdefault(key, record_digest(preimage))
        found.last_close = max(found.last_close, output.source.close_offset)
        return output.source.close_offset

    def end_of(self, topic: str, partition: int, at_least: int) -> int:
        """The partition's end now; waits a while for `at_least`, as a new leader's may lag. Raises ReadFailed."""
        deadline = time.monotonic() + LEADER_S
        while True:
            _, end = watermarks(self._consumer, topic, partition, self._timeout_s)
            if end >= at_least or time.monotonic() >= deadline:
                return end
            time.sleep(0.25)

    def expired(self, topic: str, partition: int) -> bool:
        """Whether the partition once held records and all of them have left by retention. Raises ReadFailed."""
        low, end = watermarks(self._consumer, topic, partition, self._timeout_s)
        return 0 < low == end

    def last_rejection(self, topic: str, source: tuple[str, int], below: int) -> int:
        """Highest source offset below `below` among the rejections of source (topic, partition), -1 without any."""
        # Few at first: a dead letter may be as large as a report, and the last one is nearly always of this source.
        for chunk in backwards(self._consumer, topic, source[1], self._timeout_s, chunk=DEAD_LETTERS):
            offsets = [offset for message in chunk if (offset := rejected_offset(message, source)) is not None]
            mine = [offset for offset in offsets if offset < below]
            if mine:
                return max(mine)
        return -1


def header_map(message: Message) -> Mapping[str, bytes]:
    """Headers by name; the last of several wins, as for most consumers."""
    headers: Any = message.headers() or []
    return {name: value for name, value in headers if isinstance(value, bytes)}


def rejected_offset(message: Message, source: tuple[str, int]) -> int | None:
    """Source offset a rejection names, None if it is not of source (topic, partition)."""
    headers = header_map(message)
    topic, partition = headers.get("__connect.errors.topic"), headers.get("__connect.errors.partition")
    offset = headers.get("__connect.errors.offset", b"")
    if topic != source[0].encode() or partition != str(source[1]).encode() or not offset.isdigit():
        return None
    return int(offset)
