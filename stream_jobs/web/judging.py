"""Whether an output may be shown as a fact: signature, evidence of its aggregator, and the policy that it names."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from schemas.codec import SINGLE_OBJECT, Framing
from schemas.errors import EnclaveScaleError
from schemas.records import SignedFleetPower
from schemas.topics import TopicNames
from stream_jobs.audit.errors import PolicyOther
from stream_jobs.audit.outputs import check_output, read_output
from stream_jobs.collateral_store import CollateralStore, set_ends_ms
from stream_jobs.core.policies import CollateralView, PolicyView
from stream_jobs.core.windows import Verified
from stream_jobs.policy_store import PolicyStore, PolicyTrust
from stream_jobs.reading import ReadFailed
from verifier.cache import SessionCache

logger = logging.getLogger(__name__)

READ_S = 5.0
"""Longest wait for a broker when policies or collateral are read, s."""

FORGET_S = 5.0
"""A digest that is on no topic is not asked for again for so long, s. Whoever can write outputs can name any."""

MAX_UNKNOWN = 1024
"""Unknown digests that are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One decoded output. `digest`: its identity, 32 bytes; `worker`: its aggregator's session, None if not verified;
    `code` and `reason`: why it does not verify, both empty where it does or where nobody asked."""

    signed: SignedFleetPower
    digest: bytes
    worker: Verified | None = None
    code: str = ""
    reason: str = ""

    @property
    def trust(self) -> str:
        """`verified`, `refused`, or `unchecked` where no policy signer is trusted."""
        return "verified" if self.worker is not None else "refused" if self.code else "unchecked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What is in force by the topics: the newest policy, counters that a signer used twice, the newest collateral's end
    (UTC ms, None without any). `checked`: False where no signer is trusted and nothing of this was read."""

    checked: bool = False
    policy: PolicyView | None = None
    equivocations: int = 0
    collateral_digest: bytes | None = None
    collateral_ends_ms: int | None = None


class _Unknown:
    """Digests that were looked for in vain a moment ago."""

    def __init__(self, clock: Callable[[], float]):
        self._clock, self._since = clock, OrderedDict[bytes, float]()

    def has(self, digest: bytes) -> bool:
        since = self._since.get(digest)
        return since is not None and self._clock() - since < FORGET_S

    def add(self, digest: bytes) -> None:
        self._since[digest] = self._clock()
        self._since.move_to_end(digest)
        while len(self._since) > MAX_UNKNOWN:
            self._since.popitem(last=False)


class OutputJudge:
    """Verifies outputs under trusted policies; without `trust` it only decodes them. One thread judges."""

    def __init__(
        self,
        kafka: Mapping[str, str],
        topics: TopicNames,
        trust: PolicyTrust | None,
        *,
        framing: Framing = SINGLE_OBJECT,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._framing, self._verify, self._unknown = framing, SessionCache().verify, _Unknown(clock)
        self._policies: PolicyStore | None = None
        self._collateral: CollateralStore | None = None
        if trust is not None:
            self._policies = PolicyStore(kafka, topics.policy, trust, framing=framing, timeout_s=READ_S)
            self._collateral = CollateralStore(kafka, topics.collateral, framing=framing, timeout_s=READ_S)

    def judge(self, value: bytes) -> Judged:
        """Decode and verify one value of the output topic.

        Raises SchemaError for what is no output, ReadFailed where no broker says what policy it names.
        """
        signed, digest = read_output(value, self._framing)
        if self._policies is None:
            return Judged(signed=signed, digest=digest)
        try:
            view = self._policy(signed.output.policy_digest)
            collateral = self._set(signed.output.collateral_digest)
            checked = check_output(value, view, self._verify, self._framing, collateral=collateral)
        except ReadFailed:
            raise
        except EnclaveScaleError as error:
            return Judged(signed=signed, digest=digest, code=error.code, reason=str(error))
        return Judged(signed=checked.signed, digest=checked.digest, worker=checked.worker)

    def standing(self, now_ms: int) -> Standing:
        """What is new on the topics of policies and collateral, read to their ends. Raises ReadFailed."""
        if self._policies is None or self._collateral is None:
            return Standing()
        self._policies.refresh()
        self._collateral.refresh()
        offer = self._collateral.newest(now_ms)
        return Standing(
            checked=True,
            policy=self._policies.newest,
            equivocations=len(self._policies.equivocations),
            collateral_digest=None if offer is None else offer.view.digest,
            collateral_ends_ms=None if offer is None else set_ends_ms(offer.view.held),
        )

    def close(self) -> None:
        """Release the consumers."""
        for store in (self._policies, self._collateral):
            if store is not None:
                store.close()

    def _policy(self, digest: bytes) -> PolicyView:
        view = None if self._policies is None or self._unknown.has(digest) else self._policies.lookup(digest)
        if view is None:
            self._unknown.add(digest)
            raise PolicyOther("no trusted policy on the policy topic has the digest that it names", field="policy")
        return view

    def _set(self, digest: bytes | None) -> CollateralView | None:
        if digest is None or self._collateral is None or self._unknown.has(digest):
            return None
        found = self._collateral.lookup(digest)
        if found is None:
            self._unknown.add(digest)
        return found
