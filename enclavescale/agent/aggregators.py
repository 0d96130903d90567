"""Whom a host reports to: the newest output of its domain, judged as an auditor would, on a thread of its own.

Nothing waits for it, and nothing stops reporting because of it: it is shown in health and metrics. Anybody who may
write to the output topic can put a record on top; so the newest output that holds counts, and the others are counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from confluent_kafka import KafkaException

from schemas.codec import SINGLE_OBJECT, Framing, decode_signed_output
from schemas.errors import EnclaveScaleError
from schemas.topics import TopicNames
from stream_jobs.audit.outputs import check_policy, check_worker
from stream_jobs.collateral_store import CollateralStore
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.policy_store import PolicyStore, PolicyTrust
from stream_jobs.reading import backwards, open_reader
from verifier.cache import SessionCache

log = logging.getLogger(__name__)

CHECK_S = 60.0
"""Between two looks, s."""

CLOSE_S = 2.0
"""How long closing waits for a look that is under way, s."""

TIMEOUT_S = 20.0
MAX_LOOKED_AT = 500
"""Records of a partition looked at for a domain's newest output."""

CHUNK = 32
"""Records read at once at first."""

NO_OUTPUT = "NO_OUTPUT"
"""Code where a domain has no output among the last records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AggregatorState:
    """What the last look found. `code`: None where the newest output of every domain is an attested aggregator's;
    `passed`: records above those that are not; `looks`: how many looks there were."""

    code: str | None
    detail: str
    passed: int
    looks: int


class AggregatorCheck:
    """Looks at the newest outputs of `domains` (partition by name) every `CHECK_S`.

    `turn` is one look. Reads the output, policy and collateral topics with plain consumers. Raises what consumers raise
    for properties that they do not take.
    """

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: TopicNames,
        trust: PolicyTrust,
        domains: Mapping[str, int],
        *,
        framing: Framing = SINGLE_OBJECT,
        make_reader: Callable[[Mapping[str, str]], Any] = open_reader,
    ) -> None:
        self._topics, self._domains, self._framing = topics, dict(domains), framing
        self._consumer = make_reader(kafka)
        self._policies = PolicyStore(kafka, topics.policy, trust, framing=framing, timeout_s=TIMEOUT_S)
        self._collateral = CollateralStore(kafka, topics.collateral, framing=framing, timeout_s=TIMEOUT_S)
        self._cache = SessionCache()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aggregators", daemon=True)
        self._state: AggregatorState | None = None

    def start(self) -> Self:
        """Begin the thread. Returns the check."""
        self._thread.start()
        return self

    def state(self) -> AggregatorState | None:
        """What the last look found; None before the first has ended."""
        return self._state

    def turn(self) -> None:
        """Look once. Raises nothing: what keeps it from looking is its finding."""
        passed, worst, detail = 0, None, ""
        looks = 1 if self._state is None else self._state.looks + 1
        for domain, partition in sorted(self._domains.items()):
            try:
                above = self._newest(domain, partition)
                passed += above
            except EnclaveScaleError as error:
                worst, detail = worst or error.code, detail or f"{domain}: {error.code}"
            except KafkaException as error:
                worst, detail = worst or "READ_FAILED", detail or f"{domain}: {error.args[0].name()}"
        before = None if self._state is None else self._state.code
        if worst is not None and worst != before:
            log.warning("the aggregator is not proven: %s", detail)
        self._state = AggregatorState(code=worst, detail=detail, passed=passed, looks=looks)

    def close(self) -> None:
        """End the thread and its consumers; a look that hangs in a broker's silence is left to end by itself."""
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        else:
            self._drop()

    def _newest(self, domain: str, partition: int) -> int:
        """How many records stand above the newest output of a domain that holds. Raises why none does."""
        failure: EnclaveScaleError = EnclaveScaleError(f"{domain} has no output", code=NO_OUTPUT)
        failed = 0
        for value in self._outputs(domain, partition):
            try:
                self._judge(value)
            except EnclaveScaleError as error:
                failure = error if not failed else failure
                failed += 1
            else:
                return failed
        raise failure

    def _outputs(self, domain: str, partition: int) -> Iterator[bytes]:
        """Values under a domain's keys, the newest first."""
        seen = 0
        for chunk in backwards(self._consumer, self._topics.output, partition, TIMEOUT_S, chunk=CHUNK):
            for message in reversed(chunk):
                if (message.key() or b"").startswith(f"{domain}/".encode()):
                    yield message.value() or b""
                seen += 1
                if seen == MAX_LOOKED_AT:
                    return

    def _judge(self, value: bytes) -> None:
        signed, preimage = decode_signed_output(value, self._framing)
        output = signed.output
        view = self._view(output.policy_digest)
        check_policy(output, view)
        check_worker(signed, preimage, view, self._cache.verify, self._sets(output.collateral_digest))

    def _view(self, digest: bytes) -> PolicyView:
        view = self._policies.lookup(digest)
        if view is None:
            raise EnclaveScaleError(f"no trusted policy {digest.hex()}", code="POLICY_UNTRUSTED")
        return view

    def _sets(self, digest: bytes | None) -> tuple[CollateralView, ...]:
        return self._collateral.candidates(digest) if digest is not None else ()

    def _drop(self) -> None:
        for one in (self._consumer, self._policies, self._collateral):
            one.close()

    def _run(self) -> None:
        while not self._closed.is_set():
            self.turn()
            self._closed.wait(CHECK_S)
        self._drop()
