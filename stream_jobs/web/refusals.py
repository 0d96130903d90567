"""Refusals as the rejections topic tells them: by code over the last minutes, and the newest with their places."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Message

from stream_jobs.tail import header_map

RECENT = 50
"""Refusals whose places are shown."""

SPAN_MS = 600_000
"""Refusals of so long are counted, ms."""

BUCKET_MS = 10_000
"""Step in which old ones leave the count, ms."""

MAX_CODES = 64
"""Codes that are told apart; whoever can write to the topic can invent any. The rest counts as `OTHER`."""

OTHER = "OTHER"
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,39}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """One dead letter without its payload. `topic`, `partition`, `offset`: of the refused record, as its headers claim
    (None where they do not say); `letter_partition`, `letter_offset`: of the dead letter; `at_ms`: when it was put
    there, UTC ms."""

    code: str
    topic: str
    partition: int | None
    offset: int | None
    letter_partition: int
    letter_offset: int
    at_ms: int

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "code": self.code,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "letter_partition": self.letter_partition,
            "letter_offset": self.letter_offset,
            "at_ms": self.at_ms,
        }


def refusal_of(message: Message, now_ms: int) -> Refusal:
    """What a dead letter's headers say; whatever they hold, this returns a refusal. Its value is not looked at."""
    headers = header_map(message)
    code = headers.get("enclavescale.error.code", b"").decode("ascii", "replace")
    stamp = message.timestamp()[1]
    return Refusal(
        code=code if _CODE.fullmatch(code) else OTHER,
        topic=headers.get("__connect.errors.topic", b"")[:249].decode("utf-8", "replace"),
        partition=_number(headers.get("__connect.errors.partition", b"")),
        offset=_number(headers.get("__connect.errors.offset", b"")),
        letter_partition=message.partition() or 0,
        letter_offset=message.offset() or 0,
        at_ms=stamp if 0 < stamp <= now_ms else now_ms,
    )


def _number(text: bytes) -> int | None:
    return int(text) if text.isdigit() and len(text) <= 19 else None


@dataclass(slots=True)
class RefusalBook:
    """Counts by code over `SPAN_MS` and the newest `RECENT`. `explain`: what a code means."""

    explain: Callable[[str], str]
    _recent: deque[Refusal] = field(default_factory=lambda: deque(maxlen=RECENT))
    _buckets: deque[tuple[int, Counter[str]]] = field(default_factory=deque)

    def take(self, one: Refusal) -> None:
        """Take one refusal."""
        self._recent.append(one)
        bucket = one.at_ms // BUCKET_MS
        last = next((counts for start, counts in reversed(self._buckets) if start == bucket), None)
        if last is None:
            last = Counter()
            self._buckets.append((bucket, last))
        last[one.code if one.code in last or len(last) < MAX_CODES else OTHER] += 1

    def counts(self, now_ms: int) -> Mapping[str, int]:
        """By code over the last `SPAN_MS`."""
        oldest = (now_ms - SPAN_MS) // BUCKET_MS
        while self._buckets and self._buckets[0][0] < oldest:
            self._buckets.popleft()
        total: Counter[str] = Counter()
        for start, counts in self._buckets:
            if start >= oldest:
                total.update(counts)
        return dict(sorted(total.items()))

    def facts(self, now_ms: int, counted: Mapping[str, int]) -> dict[str, Any]:
        """As JSON. `counted`: by code, what the outputs held here count."""
        recent = self.counts(now_ms)
        codes = sorted({*recent, *counted}, key=lambda code: (-recent.get(code, 0), -counted.get(code, 0), code))
        return {
            "span_ms": SPAN_MS,
            "codes": [
                {
                    "code": code,
                    "recent": recent.get(code, 0),
                    "counted": counted.get(code, 0),
                    "meaning": self.explain(code),
                }
                for code in codes[: 2 * MAX_CODES]
            ],
            "newest": [one.facts() for one in reversed(self._recent)],
        }
