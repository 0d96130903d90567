"""A domain's figures over time in bounded memory: columns of one window each, merged as they become too many."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stream_jobs.replay.verdicts import Figures

MAX_COLUMNS = 400
"""Columns kept of a domain. Beyond, two neighbours become one that spans both."""


@dataclass(slots=True)
class Span:
    """Extremes of an estimate and of its interval: a window's, or those of all windows of a column."""

    least: int
    most: int
    low: int
    high: int

    @classmethod
    def of(cls, estimate: tuple[int, int, int] | None) -> Span | None:
        """Of (value, low, high), or of nothing."""
        return None if estimate is None else cls(estimate[0], estimate[0], estimate[1], estimate[2])

    def merge(self, other: Span | None) -> Span:
        """The span of both."""
        if other is None:
            return self
        return Span(
            min(self.least, other.least),
            max(self.most, other.most),
            min(self.low, other.low),
            max(self.high, other.high),
        )


@dataclass(slots=True, kw_only=True)
class Column:
    """Windows that start in [`start_ms`, `end_ms`): extremes of what their outputs say, sums of what they count.

    Powers in W, coverage in ppm of the enrolled capacity. `figures` counts windows that have any.
    """

    start_ms: int
    end_ms: int
    figures: int = 0
    verdicts: Counter[str] = field(default_factory=Counter)
    mean: Span | None = None
    margin: Span | None = None
    limit_w: tuple[int, int] | None = None
    coverage_ppm: tuple[int, int] | None = None
    quorum_ppm: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    def merge(self, other: Column) -> None:
        """Take in a neighbour."""
        self.start_ms, self.end_ms = min(self.start_ms, other.start_ms), max(self.end_ms, other.end_ms)
        self.figures += other.figures
        self.verdicts += other.verdicts
        self.refused += other.refused
        self.mean = other.mean if self.mean is None else self.mean.merge(other.mean)
        self.margin = other.margin if self.margin is None else self.margin.merge(other.margin)
        self.limit_w = _both(self.limit_w, other.limit_w)
        self.coverage_ppm = _both(self.coverage_ppm, other.coverage_ppm)
        self.quorum_ppm = max(self.quorum_ppm, other.quorum_ppm)

    def take(self, figures: Figures) -> None:
        """Take a window's figures; of a revised one the newest stand alone as long as the column is one window's."""
        one = Column(start_ms=self.start_ms, end_ms=figures.window_end_ms, figures=1)
        one.mean, one.margin = Span.of(figures.mean_w), Span.of(figures.margin_w)
        one.limit_w = figures.limit_w, figures.limit_w
        share = coverage_ppm(figures)
        one.coverage_ppm = None if share is None else (share, share)
        one.quorum_ppm = figures.quorum_ppm
        one.refused = Counter(dict(figures.refused))
        if self.figures == 1 and self.end_ms == figures.window_end_ms:
            self.figures, self.mean, self.margin, self.limit_w, self.coverage_ppm = 0, None, None, None, None
        self.merge(one)


def coverage_ppm(figures: Figures) -> int | None:
    """Share of the enrolled capacity that reported, ppm; None where nothing is enrolled."""
    enrolled = figures.enrolled_capacity_w
    return figures.reporting_capacity_w * 1_000_000 // enrolled if enrolled > 0 else None


def _both(one: tuple[int, int] | None, other: tuple[int, int] | None) -> tuple[int, int] | None:
    if one is None or other is None:
        return one or other
    return min(one[0], other[0]), max(one[1], other[1])


class Series:
    """Columns of one domain by time. `window_ms`: length of a window, 0 until it is known; `width_ms`: how much time a
    column stands for; doubles when there are too many."""

    def __init__(self, window_ms: int = 0):
        self.window_ms, self.width_ms = max(0, window_ms), max(1, window_ms)
        self._columns: dict[int, Column] = {}

    def settle(self, window_ms: int) -> None:
        """Learn how long a window is, from an output that is believed; the first one says."""
        if self.window_ms or window_ms <= 0:
            return
        self.window_ms = window_ms
        while window_ms < self.width_ms:
            window_ms *= 2
        self.width_ms = window_ms
        self._merge()

    @property
    def columns(self) -> list[Column]:
        """In the order of time."""
        return [self._columns[at] for at in sorted(self._columns)]

    def add(self, start_ms: int, verdict: str, figures: Figures | None) -> None:
        """Take an output's verdict and, unless they are nobody's, its figures."""
        column = self._columns.get(start_ms // self.width_ms)
        if column is None:
            end_ms = start_ms + max(1, self.window_ms) if figures is None else figures.window_end_ms
            column = self._columns[start_ms // self.width_ms] = Column(start_ms=start_ms, end_ms=end_ms)
        if figures is not None:
            column.take(figures)
        column.verdicts[verdict] += 1
        self.shrink(MAX_COLUMNS)

    def put(self, column: Column) -> None:
        """Take a column as it is, of this series' width."""
        self._columns[column.start_ms // self.width_ms] = column

    def shrink(self, most: int) -> None:
        """Merge neighbours until there are `most` columns at most."""
        while len(self._columns) > most:
            self.width_ms *= 2
            self._merge()

    def _merge(self) -> None:
        merged: dict[int, Column] = {}
        for column in self.columns:
            known = merged.setdefault(column.start_ms // self.width_ms, column)
            if known is not column:
                known.merge(column)
        self._columns = merged


def thinned(columns: Mapping[str, Any], most: int) -> Mapping[str, Any]:
    """What `columns_of` gave, in `most` columns or fewer: neighbours become one. No extreme is lost."""
    if len(columns["start_ms"]) <= most:
        return columns
    series = Series()
    series.window_ms, series.width_ms = columns["window_ms"], columns["column_ms"]
    for number, start_ms in enumerate(columns["start_ms"]):
        series.put(_column(columns, number, start_ms))
    series.shrink(most)
    return columns_of(series)


def _column(columns: Mapping[str, Any], number: int, start_ms: int) -> Column:
    def pair(name: str) -> tuple[int, int] | None:
        found = columns[name][number]
        return None if found is None else (found[0], found[1])

    mean, margin = columns["mean_w"][number], columns["margin_w"][number]
    return Column(
        start_ms=start_ms,
        end_ms=columns["end_ms"][number],
        figures=columns["windows"][number],
        verdicts=Counter(columns["verdicts"][number]),
        mean=None if mean is None else Span(*mean),
        margin=None if margin is None else Span(*margin),
        limit_w=pair("limit_w"),
        coverage_ppm=pair("coverage_ppm"),
        quorum_ppm=columns["quorum_ppm"][number],
        refused=Counter(columns["refused"][number]),
    )


def columns_of(series: Series) -> dict[str, Any]:
    """The columns as JSON takes them, a list per figure; null where no window of a column has it."""
    columns = series.columns

    def spans(name: str) -> list[list[int] | None]:
        found = (getattr(one, name) for one in columns)
        return [None if span is None else [span.least, span.most, span.low, span.high] for span in found]

    return {
        "window_ms": series.window_ms,
        "column_ms": series.width_ms,
        "start_ms": [one.start_ms for one in columns],
        "end_ms": [one.end_ms for one in columns],
        "windows": [one.figures for one in columns],
        "verdicts": [dict(sorted(one.verdicts.items())) for one in columns],
        "mean_w": spans("mean"),
        "margin_w": spans("margin"),
        "limit_w": [None if one.limit_w is None else list(one.limit_w) for one in columns],
        "coverage_ppm": [None if one.coverage_ppm is None else list(one.coverage_ppm) for one in columns],
        "quorum_ppm": [one.quorum_ppm for one in columns],
        "refused": [dict(sorted(one.refused.items())) for one in columns],
    }
