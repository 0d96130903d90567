"""nvidia-smi power logs, read line by line: the format as written, its gaps and its faults.

The log is that of `nvidia-smi --query-gpu=timestamp,index,power.draw --format=csv -lms 100`, also with `noheader`,
`nounits` and further columns. A line that cannot be understood is counted, never fatal. Times carry no zone and are
read as UTC. Without an `index` column all lines belong to GPU 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, NamedTuple

MAX_LINE_BYTES = 4096
"""Longest line read; nvidia-smi writes less than 200 bytes for the columns used here."""
MAX_POWER_W = 10_000.0
"""Above any board's power by a factor of five, and any clip range. A larger number counts as this one: no value decides
whether there is a reading."""
MAX_GPUS = 256
"""Largest index accepted; no host has more."""
DEFAULT_COLUMNS = ("timestamp", "index", "power.draw")
POWER_COLUMNS = ("power.draw.instant", "power.draw", "power.draw.average")
SAMPLER_MODES = {"power.draw.instant": "instant", "power.draw": "legacy", "power.draw.average": "average"}
"""What a column measures. Plain power.draw is instantaneous or a one-second average, depending on GPU and driver."""

_TIME = re.compile(r"(\d{4})/(\d\d)/(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{3})", re.ASCII)
_POWER = re.compile(r"(\d+(?:\.\d+)?)( W)?", re.ASCII)
_INDEX = re.compile(r"\d{1,3}", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Reading(NamedTuple):
    """One reading: UTC ms since the epoch, GPU index, W."""

    time_ms: int
    gpu: int
    power_w: float


@dataclass(slots=True)
class LogStats:
    """What was met in a log, in lines. `unavailable` counts by nvidia-smi's own word, e.g. "[GPU is lost]"."""

    readings: int = 0
    headers: int = 0
    bad_lines: int = 0
    truncated: int = 0
    unavailable: dict[str, int] = field(default_factory=dict)


def raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield lines with their ending; an overlong line comes in pieces without one, which are counted as bad."""
    while piece := stream.readline(MAX_LINE_BYTES):
        yield piece


class NvidiaSmiLog:
    """Iterate once over the readings of a log, in the order written.

    `column` chooses one of `POWER_COLUMNS`; None takes the first of them that the header has. `sampler_mode` is
    known once a line was read. Nothing but the current line is held in memory.
    """

    def __init__(
        self, lines: Iterable[bytes], *, columns: Sequence[str] = DEFAULT_COLUMNS, column: str | None = None
    ) -> None:
        self.stats = LogStats()
        self._lines = lines
        self._wanted = column
        self._use(columns, units=None)

    @property
    def sampler_mode(self) -> str:
        """Kind of reading of the column in use: instant, average or legacy."""
        return SAMPLER_MODES[self._names[self._power]] if self._power is not None else "legacy"

    def __iter__(self) -> Iterator[Reading]:
        stats = self.stats
        for raw in self._lines:
            if not raw.endswith(b"\n"):
                # The last line of a log whose writer was killed: 61 may be what is left of 612.34.
                stats.truncated += 1
                continue
            reading = self._line(raw)
            if reading is not None:
                stats.readings += 1
                yield reading

    def _use(self, columns: Sequence[str], units: bool | None) -> None:
        self._names = [name.strip() for name in columns]
        choice = (self._wanted,) if self._wanted else POWER_COLUMNS
        self._power = next((self._names.index(name) for name in choice if name in self._names), None)
        self._time = self._names.index("timestamp") if "timestamp" in self._names else None
        self._index = self._names.index("index") if "index" in self._names else None
        self._units = units

    def _line(self, raw: bytes) -> Reading | None:
        fields = [part.strip() for part in raw.decode("ascii", "replace").split(",")]
        if "timestamp" in fields:
            self.stats.headers += 1
            self._use([name.split(" [")[0] for name in fields], units=None)
            return None
        if len(fields) != len(self._names) or self._power is None or self._time is None:
            self.stats.bad_lines += 1
            return None
        word = fields[self._power]
        time_ms = _parse_time(fields[self._time])
        gpu = 0 if self._index is None else _parse_index(fields[self._index])
        if time_ms is not None and gpu is not None and is_unavailable(word):
            if word in self.stats.unavailable or len(self.stats.unavailable) < MAX_GPUS:
                self.stats.unavailable[word] = self.stats.unavailable.get(word, 0) + 1
            return None
        power_w = self._parse_power(word)
        if time_ms is None or gpu is None or power_w is None:
            self.stats.bad_lines += 1
            return None
        return Reading(time_ms, gpu, power_w)

    def _parse_power(self, word: str) -> float | None:
        match = _POWER.fullmatch(word)
        if match is None:
            return None
        has_unit = match[2] is not None
        if self._units is None:
            self._units = has_unit  # the first value decides; a header cannot: it has "[W]" with nounits as well
        if self._units and not has_unit:
            return None  # a line torn in the middle of the number
        return min(float(match[1]), MAX_POWER_W)


def is_unavailable(word: str) -> bool:
    """Say whether nvidia-smi wrote a reason in place of a value: [N/A], [Unknown Error], [GPU is lost], ..."""
    return word == "N/A" or (len(word) > 2 and word[0] == "[" and word[-1] == "]")


def _parse_time(word: str) -> int | None:
    match = _TIME.fullmatch(word)
    if match is None:
        return None
    year, month, day, hour, minute, second, milli = map(int, match.groups())
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    span = moment - _EPOCH
    return (span.days * 86_400 + span.seconds) * 1000 + milli


def _parse_index(word: str) -> int | None:
    if _INDEX.fullmatch(word) is None or int(word) >= MAX_GPUS:
        return None
    return int(word)
