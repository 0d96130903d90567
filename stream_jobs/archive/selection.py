"""What an export takes: the records that a replay of a range of windows needs, as offsets fixed at the start."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.codec import SINGLE_OBJECT, Framing, decode_signed_policy
from schemas.errors import SchemaError
from schemas.records import Policy
from schemas.topics import TopicNames
from stream_jobs.archive.index import ROLES, Index, PartitionEntry, Request, TopicEntry
from stream_jobs.core.windows import FRESH_INTERVALS
from stream_jobs.reading import ReadFailed
from stream_jobs.replay.source import Extent, RecordSource

WINDOWED = ("reports", "output", "manifests", "rejections")
"""Roles of which a range is taken. The others are always whole: what is looked up by digest may be old."""

ASKED = ("output", "manifests", "rejections", "reports", "policy", "collateral", "beacons")
"""Roles in the order in which their ends are fixed while everything goes on: an output rests on reports that are in the
archive, and those on policies that are."""

PUBLISHING_MS = 3_600_000
"""How much later than a report what follows from it may be published, ms: a worker catches up after an outage."""

LEAST_CONTEXT_MS = 3_600_000
"""Least that is taken before the range, ms: a worker that was away writes its control records late."""

GENEROUS = 2
"""The context derived from the policies is taken so many times."""


def needed_context_ms(policies: Iterable[Policy]) -> int:
    """How far before a window records can matter to its output, ms, by the policy that asks for most.

    The horizon of a restart (`docs/adr/0011`, `docs/adr/0020`), one interval between control records more, the longest
    silence before a domain is closed, and what host clocks may be ahead of the broker's.
    """
    longest = 0
    for policy in policies:
        limits = policy.limits
        for rule in policy.domains:
            fresh_ms = FRESH_INTERVALS * limits.evidence_interval_windows * rule.window_ms
            horizon_ms = 2 * limits.lateness_ms + 3 * fresh_ms + (2 + rule.history_windows) * rule.window_ms
            silence_ms = limits.max_idle_ms + limits.clock_skew_tolerance_ms
            longest = max(longest, horizon_ms + fresh_ms + rule.grace_ms + silence_ms)
    return longest


def read_policies(source: RecordSource, topic: str, framing: Framing = SINGLE_OBJECT) -> list[Policy]:
    """Every policy on the topic that decodes, trusted or not: a forged one can only make the context longer."""
    found = []
    for extent in source.extents(topic):
        for record in source.read(topic, extent.partition, extent.first, extent.end):
            try:
                found.append(decode_signed_policy(record.value or b"", framing)[0].policy)
            except SchemaError:
                continue
    return found


def select(source: RecordSource, names: TopicNames, asked: Request, framing: Framing = SINGLE_OBJECT) -> Index:
    """An index without segments: which offsets of which partitions are to be exported.

    The context is derived from the policies on the cluster where `asked` has none. Reports, outputs, manifests and
    rejections begin at the first record appended at or after the range's begin less the context, and go to their end,
    because how late a window's last revision comes, no clock knows; or reports up to `until_ms`, and what follows from
    them `PUBLISHING_MS` longer. Raises ReadFailed.
    """
    extents = {role: source.extents(getattr(names, role)) for role in ASKED}
    if not extents["reports"]:
        raise ReadFailed(f"there is no topic {names.reports}", remedy="Check --topic-prefix and --topic-name.")
    context_ms = asked.context_ms
    if asked.from_ms is not None and context_ms is None:
        context_ms = max(LEAST_CONTEXT_MS, GENEROUS * needed_context_ms(read_policies(source, names.policy, framing)))
    request = Request(asked.from_ms, asked.to_ms, context_ms, asked.until_ms)

    def place(role: str, extent: Extent) -> PartitionEntry:
        first, end = extent.first, extent.end
        if role in WINDOWED and request.until_ms is not None:
            until_ms = request.until_ms + (0 if role == "reports" else PUBLISHING_MS)
            end = min(end, source.offset_at(extent.topic, extent.partition, until_ms))
        if role in WINDOWED and request.from_ms is not None:
            begin_ms = max(0, request.from_ms - (context_ms or 0))
            first = min(end, max(first, source.offset_at(extent.topic, extent.partition, begin_ms)))
        return PartitionEntry(extent.partition, first, max(first, end), ())

    topics = []
    for role in ROLES:
        topics.append(TopicEntry(role, getattr(names, role), tuple(place(role, one) for one in extents[role])))
    return Index(request, tuple(topics))
