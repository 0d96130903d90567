"""Power traces in CSV: nvidia-smi logs, and what editors, shells and other loggers make of them.

A file with a byte order mark is UTF-8 or UTF-16; the rest is taken as ASCII. Lines in nvidia-smi's own form go through
as they are. Others are brought into it: the column names of the Parquet layout, ISO 8601 and epoch times, semicolons
between fields, decimal commas where blanks or semicolons tell them from the commas between fields.
"""

from __future__ import annotations

import codecs
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from enclavescale.bench.trace_log import AVERAGE, INSTANT, MAX_ROWS, UNKNOWN, Log, Unusable, moment_ms, on_ticks
from producers.errors import TraceError
from producers.sample.nvidia_smi import (
    MAX_GPUS,
    MAX_LINE_BYTES,
    POWER_COLUMNS,
    NvidiaSmiLog,
    Reading,
    is_unavailable,
    raw_lines,
)

COLUMNS = {
    "timestamp_s": "timestamp",
    "gpu_id": "index",
    "power_w": "power.draw",
    "power_instant_w": "power.draw.instant",
    "power_average_w": "power.draw.average",
}
"""nvidia-smi's name of a column of the Parquet layout."""
CHUNK_BYTES = 1 << 16
_OWN_TIME = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\.\d{3}", re.ASCII)
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def csv_log(path: Path) -> Log:
    """Read a log. Raises `TraceError` for what holds no reading, `Unusable` for one polled too slowly; `OSError`."""
    with path.open("rb") as stream:
        log = NvidiaSmiLog(nvidia_lines(stream))
        readings = list(itertools.islice(log, MAX_ROWS + 1))
    if not readings:
        raise TraceError("no reading in the log: " + why_unread(path))
    if len(readings) > MAX_ROWS:
        raise TraceError(f"more than {MAX_ROWS} lines")
    bad = log.stats.bad_lines
    if bad > len(readings):
        raise Unusable(f"{bad} lines of {bad + len(readings)} cannot be read")
    mode = log.sampler_mode if log.sampler_mode in {INSTANT, AVERAGE} else UNKNOWN
    first = _first_line(path)
    if first and "index" not in first:
        readings = by_place(readings)
    limit = next((first[one] for one in ("power.limit", "enforced.power.limit") if one in first), "")
    found = re.fullmatch(r"(\d{2,5})(?:\.\d+)?(?: W)?", limit, re.ASCII)
    return Log(on_ticks(readings), mode, first.get("name"), int(found[1]) if found else None)


def nvidia_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a log in nvidia-smi's form, with their endings."""
    lines = _decoded(stream)
    head = list(itertools.islice(lines, 2))
    lines = itertools.chain(head, lines)
    if not head or _is_own(head):
        yield from lines
        return
    form = _Form()
    for line in lines:
        yield form.own(line)


def _decoded(stream: BinaryIO) -> Iterator[bytes]:
    """Lines as ASCII or UTF-8; without a byte order mark as they stand in the file."""
    start = stream.read(4)
    stream.seek(0)
    if start.startswith(codecs.BOM_UTF8):
        stream.seek(len(codecs.BOM_UTF8))
    elif start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        yield from _lines_of_utf16(stream)
        return
    yield from raw_lines(stream)


def _lines_of_utf16(stream: BinaryIO) -> Iterator[bytes]:
    decoder, rest = codecs.getincrementaldecoder("utf-16")("replace"), ""
    while chunk := stream.read(CHUNK_BYTES):
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            yield line.encode("ascii", "replace") + b"\n"
        if len(rest) > MAX_LINE_BYTES:
            yield rest.encode("ascii", "replace")
            rest = ""
    rest += decoder.decode(b"", True)
    if rest:
        yield rest.encode("ascii", "replace")


def _is_own(head: Sequence[bytes]) -> bool:
    """Whether the first lines, header or not, are nvidia-smi's own and need no work."""
    fields = [[part.strip() for part in line.decode("ascii", "replace").split(",")] for line in head]
    names = [name.split(" [")[0] for name in fields[0]]
    if "timestamp" not in names:
        return any(_OWN_TIME.fullmatch(part) for part in fields[0])
    at = names.index("timestamp")
    return len(fields) == 2 and len(fields[1]) == len(names) and bool(_OWN_TIME.fullmatch(fields[1][at]))


class _Form:
    """Brings the lines of one log into nvidia-smi's form; the last header decides."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._between = ","

    def own(self, raw: bytes) -> bytes:
        """The line in nvidia-smi's form; unchanged if it makes no sense."""
        if not raw.endswith(b"\n"):
            return raw
        line = raw.decode("ascii", "replace").strip()
        between = _separator(line)
        names = [name.split(" [")[0] for name in _split(line, between)]
        if {"timestamp", "timestamp_s"} & set(names):
            self._names, self._between = [COLUMNS.get(name, name) for name in names], between
            return ", ".join(self._names).encode("ascii", "replace") + b"\n"
        fields = next(
            (found for one in (self._between, ",") if len(found := _split(line, one)) == len(self._names)), None
        )
        if fields is None or "timestamp" not in self._names:
            return raw
        fields = [field.replace(",", ".") for field in fields]
        at = self._names.index("timestamp")
        fields[at] = _own_time(fields[at])
        for column, name in enumerate(self._names):
            if name in POWER_COLUMNS and _NUMBER.fullmatch(fields[column]):
                fields[column] = f"{min(float(fields[column]), 1e9):.3f}"
        return ", ".join(fields).encode("ascii", "replace") + b"\n"


def _separator(line: str) -> str:
    """What stands between the names of a header: commas, with a blank after each of them if that is so."""
    if ";" in line or "\t" in line:
        return ";" if ";" in line else "\t"
    return ", " if line.count(", ") == line.count(",") else ","


def _split(line: str, between: str) -> list[str]:
    return [part.strip().strip('"') for part in line.split(between)]


def _own_time(word: str) -> str:
    if _OWN_TIME.fullmatch(word):
        return word
    time_ms = moment_ms(word)
    if time_ms is None or not 0 <= time_ms < 253_402_300_800_000:  # the year 10,000
        return word
    moment = np.datetime64(time_ms, "ms").item()
    return f"{moment:%Y/%m/%d %H:%M:%S}.{time_ms % 1000:03d}"


def why_unread(path: Path) -> str:
    """What stands in the way of reading a log, by its first lines."""
    with path.open("rb") as stream:
        lines = [one.decode("ascii", "replace").strip() for one in itertools.islice(nvidia_lines(stream), 2)]
    if not lines:
        return "it is empty"
    names = [name.strip().split(" [")[0] for name in lines[0].split(",")]
    columns = [one for one in POWER_COLUMNS if one in names]
    if "timestamp" not in names or not columns:
        return "its first line names no timestamp and power.draw"
    if len(lines) < 2:
        return "it ends after the header"
    fields = [part.strip() for part in lines[1].split(",")]
    if len(fields) != len(names):
        return f"{len(fields)} fields below {len(names)} names (decimal commas?)"
    time, power = fields[names.index("timestamp")], fields[names.index(columns[0])]
    if not _OWN_TIME.fullmatch(time):
        return f"the time {time[:40]!r} is not understood"
    if is_unavailable(power):
        return f"the power is {power[:40]!r}"
    return f"the power {power[:40]!r} or the index is no number, or the line has no end"


def _first_line(path: Path) -> dict[str, str]:
    """Header and first line of a log, by column; empty without a header."""
    with path.open("rb") as stream:
        lines = [line.decode("ascii", "replace").strip() for line in itertools.islice(nvidia_lines(stream), 2)]
    if len(lines) < 2 or "timestamp" not in lines[0]:
        return {}
    names = [part.strip().split(" [")[0] for part in lines[0].split(",")]
    return dict(zip(names, (part.strip() for part in lines[1].split(",")), strict=False))


def by_place(readings: list[Reading]) -> list[Reading]:
    """Tell the GPUs of a log without an index apart by their place in each round of polling.

    A round ends where the time to the next line is more than half of what it usually is between rounds. Only a log
    nine tenths of whose rounds have the same number of lines is taken so; its other rounds are left out.
    """
    steps = np.diff(np.array([one.time_ms for one in readings]))
    if steps.size < 2:
        return readings
    ends = np.flatnonzero(2 * steps > np.quantile(steps, 0.95)) + 1
    rounds = [readings[a:b] for a, b in itertools.pairwise([0, *ends.tolist(), len(readings)])]
    size, count = Counter(map(len, rounds)).most_common(1)[0]
    if size == 1 or size > MAX_GPUS or 10 * count < 9 * len(rounds):
        return readings
    whole = (one for one in rounds if len(one) == size)
    return [reading._replace(gpu=place) for one in whole for place, reading in enumerate(one)]
