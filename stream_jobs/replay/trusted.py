"""The trusted policies of a policy topic, and what else is on it; the same rules as the worker's `PolicyStore`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from schemas.errors import EnclaveScaleError
from stream_jobs.core.policies import CORE_VERSION, PolicyView
from stream_jobs.core.windows import DomainState, PolicyStart
from stream_jobs.log_record import LogRecord
from stream_jobs.policy_store import open_policy
from stream_jobs.replay.desk import ReplayRequest
from stream_jobs.replay.source import RecordSource

Say = Callable[[str, LogRecord, str], None]
"""(code, record, message): something about a record of the topic."""


def _nothing(_code: str, _record: LogRecord, _message: str) -> None:
    """Said elsewhere already."""


@dataclass(slots=True)
class TrustedPolicies:
    """Policies by digest, and where each stands."""

    views: dict[bytes, PolicyView] = field(default_factory=dict)
    places: dict[bytes, LogRecord] = field(default_factory=dict)

    @classmethod
    def read(cls, source: RecordSource, request: ReplayRequest, say: Say = _nothing) -> TrustedPolicies:
        """Read the whole topic. Records that no worker may follow are told to `say`. Raises ReadFailed."""
        found = cls()
        by_counter: dict[int, bytes] = {}
        for extent in source.extents(request.topics.policy):
            for record in source.read(extent.topic, extent.partition, extent.first, extent.end):
                try:
                    view = open_policy(record.value or b"", request.trust, request.framing)
                except EnclaveScaleError as error:
                    say("POLICY_REFUSED", record, f"{error.code}: {error}")
                    continue
                counter = view.policy.counter
                if by_counter.setdefault(counter, view.digest) != view.digest:
                    say("POLICY_REFUSED", record, f"POLICY_EQUIVOCATION: a second policy with counter {counter}")
                    continue
                if record.key != f"policy/{counter}".encode():
                    say("ENVELOPE_DIFFERS", record, f"the key is not policy/{counter}")
                if record.headers:
                    say("ENVELOPE_DIFFERS", record, f"header {record.headers[0][0]!r}, where no program writes any")
                found.views.setdefault(view.digest, view)
                found.places.setdefault(view.digest, LogRecord(*_place(record)))
        return found

    def lookup(self, digest: bytes) -> PolicyView | None:
        """The trusted policy with this digest."""
        return self.views.get(digest)

    def of_domain(self, domain: str, partition: int) -> list[PolicyView]:
        """Policies that have the domain in this partition and rest on this version of the core."""
        return [
            view
            for view in self.views.values()
            if domain in view.domains
            and view.domains[domain].partition == partition
            and view.policy.core_version == CORE_VERSION
        ]

    def domains_of(self, partition: int) -> set[str]:
        """Every domain that a policy places in this partition."""
        return {
            rule.domain
            for view in self.views.values()
            for rule in view.policy.domains
            if rule.partition == partition and view.policy.core_version == CORE_VERSION
        }


def _place(record: LogRecord) -> tuple[str, int, int, int, int, None, None, tuple[()]]:
    """A record without its content: policies have megabytes."""
    place = record.topic, record.partition, record.offset, record.timestamp_ms, record.timestamp_type
    return (*place, None, None, ())


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a domain's decisions reach back, by any of its policies, ms.

    `context_ms`: see `DomainState.context_ms`; `ahead_ms`: how far a window may end after its append time, and how much
    further the windows of another policy may begin; `first_guess_ms`: where to begin looking, before the first window.
    """

    context_ms: int
    ahead_ms: int
    first_guess_ms: int

    @classmethod
    def of(cls, domain: str, views: list[PolicyView]) -> Reach:
        """The reach of a domain under `views`, one at least."""
        state = DomainState(domain, 0)
        state.policies = [PolicyStart(0, view) for view in views]
        widest = max(view.domains[domain].window_ms for view in views)
        grace = max(view.domains[domain].grace_ms for view in views)
        freshness = max(state.freshness_ms(view) for view in views)
        tolerance = max(view.policy.limits.clock_skew_tolerance_ms for view in views)
        context = state.context_ms()
        # One more window for what rounding a policy's begin to both policies' windows may add.
        ahead = tolerance + 2 * widest
        return cls(context, ahead, context + ahead + 2 * freshness + 2 * grace + 4 * widest)
