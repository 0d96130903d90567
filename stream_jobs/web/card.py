"""One power domain as the page holds it: its newest output, where that stands, and how its figures went."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from schemas.mapping import to_jsonable
from schemas.records import FleetPower, Interval
from stream_jobs.web.judging import Judged

P50_PPM, P99_PPM = 500_000, 990_000
POINT_FIELDS = (
    "window_start_ms", "window_end_ms", "revision",
    "mean_w", "mean_low_w", "mean_high_w",
    "p50_w", "p99_w", "p99_low_w", "p99_high_w",
    "limit_w", "margin_w", "margin_low_w", "margin_high_w",
    "reporting_capacity_w", "enrolled_capacity_w", "refused",
)  # fmt: skip
"""What a point of a domain's history holds, in order; None where the output withholds a figure."""

Point = tuple[int | None, ...]

MATRICES = ("transitions_sum", "pane_sums_sum", "histogram_sum", "transition_matrix_ppm", "stationary_ppm")
"""Byte arrays of an output that the page leaves out; `enclavescale show` has them."""

MAX_DIGESTS = 512
"""Digests of a domain's outputs that are remembered, to see whether the next one links to them."""


def _three(estimate: Interval | None) -> tuple[int | None, int | None, int | None]:
    return (None, None, None) if estimate is None else (estimate.value_w, estimate.low_w, estimate.high_w)


def quantile(output: FleetPower, ppm: int) -> Interval | None:
    """The output's quantile at `ppm`, None if it has none."""
    return next((one.estimate for one in output.quantiles if one.quantile_ppm == ppm), None)


def point_of(output: FleetPower) -> Point:
    """An output as a point of `POINT_FIELDS`."""
    p50 = quantile(output, P50_PPM)
    return (
        output.window_start_ms,
        output.window_end_ms,
        output.revision,
        *_three(output.mean),
        None if p50 is None else p50.value_w,
        *_three(quantile(output, P99_PPM)),
        output.margin.limit_w,
        *_three(output.margin.margin),
        output.coverage.reporting_capacity_w,
        output.coverage.enrolled_capacity_w,
        sum(one.count for one in output.refused),
    )


def exact(output: FleetPower) -> dict[str, Any]:
    """The output as JSON, every figure as in the record, without `MATRICES`."""
    made: dict[str, Any] = to_jsonable(output)
    for part in (*made["classes"], *made["set_aside"]):
        for name in MATRICES:
            part.pop(name, None)
    return made


@dataclass(slots=True)
class Card:
    """One domain. `keep`: windows of history held at most."""

    keep: int
    newest: Judged | None = None
    partition: int = 0
    offset: int = 0
    published_ms: int = 0
    forks: int = 0
    _points: OrderedDict[int, Point] = field(default_factory=OrderedDict)
    _digests: OrderedDict[bytes, tuple[int, int]] = field(default_factory=OrderedDict)
    _refused: deque[tuple[int, Counter[str]]] = field(default_factory=deque)
    _by_code: Counter[str] = field(default_factory=Counter)

    def take(self, judged: Judged, partition: int, offset: int, published_ms: int) -> bool:
        """Take one output; False for one that was there before."""
        output = judged.signed.output
        if judged.digest in self._digests:
            return False
        key = (output.window_start_ms, output.revision)
        if key in self._digests.values():
            self.forks += 1
        self._digests[judged.digest] = key
        while len(self._digests) > MAX_DIGESTS:
            self._digests.popitem(last=False)
        if self.newest is None or key >= (
            self.newest.signed.output.window_start_ms,
            self.newest.signed.output.revision,
        ):
            self.newest, self.partition, self.offset = judged, partition, offset
        self.published_ms = max(self.published_ms, published_ms)
        held = self._points.get(output.window_start_ms)
        if held is None or (held[2] or 0) <= output.revision:
            self._points[output.window_start_ms] = point_of(output)
        counts = Counter({one.code: one.count for one in output.refused})
        self._refused.append((output.window_start_ms, counts))
        self._by_code.update(counts)
        self.hold(self.keep)
        return True

    def hold(self, keep: int) -> None:
        """Hold `keep` windows at most from now on."""
        self.keep = keep
        while len(self._points) > keep:
            del self._points[min(self._points)]
        while len(self._refused) > keep:
            self._by_code.subtract(self._refused.popleft()[1])

    @property
    def chain(self) -> str:
        """Whether the newest output links to one that was read: `linked`, `first`, `broken`; `unknown` without any."""
        if self.newest is None:
            return "unknown"
        before = self.newest.signed.output.prev_output_digest
        if before is None or len(self._digests) == 1:
            return "first"
        return "linked" if before in self._digests else "broken"

    @property
    def refused(self) -> dict[str, int]:
        """Refusals by code that the outputs held here count."""
        return {code: count for code, count in sorted(self._by_code.items()) if count > 0}

    @property
    def revised(self) -> int:
        """Windows of the history whose newest revision is not the first."""
        return sum(1 for point in self._points.values() if point[2])

    def points(self, last: int, windows: Iterable[int] | None = None) -> list[Point]:
        """At most the `last` points in order of time; of these windows only, where `windows` are given."""
        wanted = None if windows is None else set(windows)
        ordered = sorted(self._points)[-last:] if last > 0 else []
        return [self._points[start] for start in ordered if wanted is None or start in wanted]

    def facts(self, domain: str) -> dict[str, Any]:
        """The domain as JSON, without its history."""
        judged = self.newest
        if judged is None:
            return {"domain": domain, "partition": self.partition, "output": None}
        return {
            "domain": domain,
            "partition": self.partition,
            "offset": self.offset,
            "published_ms": self.published_ms,
            "digest": judged.digest.hex(),
            "trust": judged.trust,
            "chain": self.chain,
            "revised_windows": self.revised,
            "aggregator": judged.signed.worker.host_id,
            "session_id": judged.signed.worker.session_id.hex(),
            "refused_in_history": self.refused,
            "output": exact(judged.signed.output),
        }
