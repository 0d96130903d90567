"""Readings from a DCGM exporter's Prometheus endpoint: for hosts where the agent may not open NVML itself.

A reading must fill one tick at most, and nothing but clocks may decide whether it does: values repeat, and dropping
repeated ones would publish that they repeated. Two clocks stand between the sensor and a scrape, and both tick every
`collect_interval_ms` C: the host engine samples the field, the exporter copies the engine's last sample. A scrape
that begins at s shows an exporter's copy no older than C plus jitter, and that copy holds a sensor reading no older
than C plus jitter again. So if scrape B begins U = 2 (C + jitter) + sensor period after scrape A ended, the host engine
has sampled, and the sensor moved, between the copy that A saw and the one that B saw: they are different readings.
Scrapes closer than that are not made. Where the exposition carries timestamps (a federation), one that has not moved
on is a second sight of the same reading, too.

The mode is average unless the operator says otherwise: DCGM's field is NVML's plain power reading, on Hopper a
one-second mean. With C = 1 s every 24th tick has a reading: enough for power, not for swings at 1 Hz.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from producers.config import Schedule
from producers.errors import DcgmError
from producers.sample.dcgm_exporter import DcgmGpu, Fetch, HttpFetch, parse_exposition, split_url
from producers.sample.plan import MODES
from producers.sample.source import Conditions, Readings
from schemas.errors import ConfigError

log = logging.getLogger(__name__)

JITTER_PERCENT = 10
"""How much later than configured the engine and the exporter may collect."""
SENSOR_UPPER_MS = 110
"""Longest time between two updates of the sensor itself (98 to 104 ms on an A100)."""
MIN_INTERVAL_MS, MAX_INTERVAL_MS = 100, 3_600_000
WINDOWS_HELD = 3
MAX_WARNINGS_S = 60.0
"""Outages are logged at most so often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmConfig:
    """Where the exporter is and how often it collects; there is no default address.

    `collect_interval_ms` is the exporter's own setting (`--collect-interval`, 30,000 as shipped): too small a number
    here would count readings twice. Raises `ConfigError`.
    """

    url: str
    collect_interval_ms: int
    timeout_s: float = 2.0
    sampler_mode: str = "average"

    def __post_init__(self) -> None:
        split_url(self.url)
        if not MIN_INTERVAL_MS <= self.collect_interval_ms <= MAX_INTERVAL_MS:
            raise ConfigError(f"{MIN_INTERVAL_MS} to {MAX_INTERVAL_MS} ms", field="collect_interval_ms")
        if not 0 < self.timeout_s <= 60:
            raise ConfigError("a time-out of at most 60 s", field="timeout_s")
        if self.sampler_mode not in MODES:
            raise ConfigError(f"one of {', '.join(MODES)}", field="sampler_mode")

    @property
    def spacing_ms(self) -> int:
        """Least time from the end of one scrape to the begin of the next, ms (the module's docstring has the proof)."""
        return 2 * self.collect_interval_ms * (100 + JITTER_PERCENT) // 100 + SENSOR_UPPER_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class DcgmStats:
    """Counts since the start, none of which depends on a value: scrapes that answered, that failed, that came late."""

    scrapes: int = 0
    failures: int = 0
    late: int = 0


@dataclass(slots=True)
class _Row:
    """Readings of one GPU, newest last: tick and W."""

    uuid: str | None
    readings: deque[tuple[int, float]]
    time_ms: int | None = None
    mig_tick: int = -1


class DcgmScraper:
    """Scrapes one exporter for all GPU classes of a host, in a thread (`start`, `close`) or step by step (`scrape`).

    `models`: GPU model as the exporter's `modelName` says, and how many of it are enrolled. GPUs keep their row by
    UUID from the first sight on; those beyond the enrolment are left out and said so once. A failed scrape is a gap.
    """

    def __init__(
        self,
        config: DcgmConfig,
        models: Mapping[str, int],
        schedule: Schedule,
        *,
        fetch: Fetch | None = None,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if not models or min(models.values()) < 1:
            raise ConfigError("a DCGM source needs an enrolled GPU", field="models")
        self.config = config
        self.tick_ms = schedule.tick_ms
        self._fetch = fetch or HttpFetch(config.url, config.timeout_s)
        self._now = now
        self._monotonic = monotonic
        held_ms = WINDOWS_HELD * schedule.window_ms
        length = held_ms // config.spacing_ms + 2
        self._rows = {model: [_Row(None, deque(maxlen=length)) for _ in range(n)] for model, n in models.items()}
        self._failed_ticks: deque[int] = deque(maxlen=length)
        self._last_tick = -1
        self._free_s = -math.inf
        self._scrapes = self._failures = self._late = 0
        self._said_s = -math.inf
        self._surplus: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def source(self, model: str) -> DcgmSource:
        """Return the readings of one class; raises `ConfigError` if it is not enrolled."""
        if model not in self._rows:
            raise ConfigError(f"no GPU of model {model!r} is enrolled", field="model")
        return DcgmSource(self, model)

    def probe(self) -> tuple[DcgmGpu, ...]:
        """Scrape once and return what the exporter has, without using it as readings. Raises `DcgmError`."""
        return parse_exposition(self._fetch())

    def start(self) -> None:
        """Scrape in a thread until `close`."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="dcgm", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Stop; a scrape that hangs ends with its time-out."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * self.config.timeout_s)

    def stats(self) -> DcgmStats:
        """Return the counts."""
        with self._lock:
            return DcgmStats(scrapes=self._scrapes, failures=self._failures, late=self._late)

    def due_in_s(self) -> float:
        """Return the time until a scrape may begin, s: a multiple of the spacing after the epoch, so that hosts that
        were started together do not drift, and never less than the spacing after the last one ended."""
        spacing_s = self.config.spacing_ms / 1000
        least_s = max(self._free_s - self._monotonic(), 0.0)
        past_s = math.fmod(self._now() + least_s, spacing_s + self.tick_ms / 1000)
        # The grid is one tick wider than the spacing: a scrape may take a tick and the next is still on the grid.
        return least_s if past_s == 0.0 else least_s + spacing_s + self.tick_ms / 1000 - past_s

    def scrape(self) -> bool:
        """Scrape now, if the spacing allows; False if it does not, or the exporter did not answer well."""
        if self._monotonic() < self._free_s:
            return False
        began_s, began = self._now(), self._monotonic()
        try:
            gpus: tuple[DcgmGpu, ...] | None = parse_exposition(self._fetch())
        except DcgmError as error:
            gpus = None
            self._warn("the DCGM exporter: %s", str(error))
        ended = self._monotonic()
        self._free_s = ended + self.config.spacing_ms / 1000
        tick = round(began_s * 1000 / self.tick_ms)
        with self._lock:
            # A slow answer leaves open when the copy was made; a clock set back would fill a tick twice.
            late = ended - began > self.config.spacing_ms / 1000 or tick <= self._last_tick
            self._scrapes += gpus is not None
            self._failures += gpus is None
            self._late += late
            if gpus is None or late:
                self._failed_ticks.append(tick)
                return False
            self._last_tick = tick
            self._store(tick, gpus)
        return True

    def _run(self) -> None:
        while not self._stop.wait(self.due_in_s()):
            self.scrape()

    def _store(self, tick: int, gpus: Iterable[DcgmGpu]) -> None:
        for gpu in gpus:
            row = self._row(gpu)
            if row is None:
                continue
            if gpu.mig:
                row.mig_tick = tick
            seen_before = gpu.time_ms is not None and row.time_ms is not None and gpu.time_ms <= row.time_ms
            if gpu.power_w is None or seen_before:
                continue
            row.time_ms = gpu.time_ms
            row.readings.append((tick, gpu.power_w))

    def _row(self, gpu: DcgmGpu) -> _Row | None:
        """The GPU's row; a new GPU takes the first free one of its model."""
        rows = self._rows.get(gpu.model, [])
        row = next((one for one in rows if one.uuid == gpu.uuid), None)
        if row is None:
            row = next((one for one in rows if one.uuid is None), None)
            if row is not None:
                row.uuid = gpu.uuid
            elif gpu.uuid not in self._surplus and len(self._surplus) < 256:
                self._surplus.add(gpu.uuid)
                log.warning("the DCGM exporter has a GPU that is not enrolled: left out")
        return row

    def _warn(self, text: str, *arguments: object) -> None:
        if self._monotonic() - self._said_s >= MAX_WARNINGS_S:
            self._said_s = self._monotonic()
            log.warning(text, *arguments)

    def readings(self, model: str, first_tick: int, last_tick: int) -> Readings:
        """Copy ticks `first_tick` <= t < `last_tick` of one class: float32[gpus, ticks], W, NaN = missing."""
        rows = self._rows[model]
        power_w = np.full((len(rows), last_tick - first_tick), np.nan, np.float32)
        with self._lock:
            for index, row in enumerate(rows):
                for tick, value in row.readings:
                    if first_tick <= tick < last_tick:
                        power_w[index, tick - first_tick] = value
        return power_w

    def flags(self, model: str, first_tick: int, last_tick: int) -> tuple[tuple[str, int], ...]:
        """Return conditions of a window: `stall` for every GPU if a scrape failed or came late in it, `mig`."""
        rows = self._rows[model]
        with self._lock:
            stalled = any(first_tick <= tick < last_tick for tick in self._failed_ticks)
            split = sum(first_tick <= row.mig_tick for row in rows)
        found = (("stall", len(rows) if stalled else 0), ("mig", split))
        return tuple((name, gpus) for name, gpus in found if gpus)


class DcgmSource:
    """One GPU class behind an exporter: a `ReadingSource`."""

    kind = "dcgm"

    def __init__(self, scraper: DcgmScraper, model: str) -> None:
        self._scraper = scraper
        self._model = model
        self.gpus = len(scraper._rows[model])

    @property
    def sampler_mode(self) -> str:
        """Kind of reading as configured; average unless the operator knows better."""
        return self._scraper.config.sampler_mode

    def window(self, start_ms: int, end_ms: int) -> Readings:
        """Return float32[gpus, ticks] of [start_ms, end_ms); raises `ValueError` unless both lie on a tick."""
        return self._scraper.readings(self._model, *self._ticks(start_ms, end_ms))

    def conditions(self, start_ms: int, end_ms: int) -> Conditions:
        """Return what went wrong with the scrapes; an exporter's energy is as old as its power, so none is given."""
        return Conditions(flags=self._scraper.flags(self._model, *self._ticks(start_ms, end_ms)))

    def _ticks(self, start_ms: int, end_ms: int) -> tuple[int, int]:
        tick_ms = self._scraper.tick_ms
        if start_ms % tick_ms or end_ms % tick_ms or end_ms <= start_ms:
            raise ValueError("a window begins and ends on a tick")
        return start_ms // tick_ms, end_ms // tick_ms
