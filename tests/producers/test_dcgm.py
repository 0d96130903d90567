"""DCGM exporter as a source: a reading fills one tick, by clocks alone; outages, lateness, rows, the thread."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.config import Schedule
from producers.errors import DcgmError
from producers.sample.dcgm import DcgmConfig, DcgmScraper
from schemas.errors import ConfigError
from tests.producers.fake_exporter import H100, TEXT, row, serving, text_answer
from tests.producers.forge import START_MS

SCHEDULE = Schedule(window_ms=10_000)


@dataclass
class World:
    """A sensor, a host engine and an exporter on one clock that only this test moves.

    The sensor updates every 104 ms; engine and exporter collect every `collect_s` or up to a tenth later. The
    exporter shows which update of the sensor the engine held: the number of the update, mapped to W by `watts`.
    """

    seed: int
    collect_s: float = 1.0
    watts: Callable[[int], object] = lambda update: update
    now: float = START_MS / 1000
    latency: tuple[float, float] = (0.001, 0.05)
    shown: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.begin = self.now - 600
        self.engine, self.exporter = self._times(), self._times()
        self.timing = Random(self.seed + 1)

    def _times(self) -> list[float]:
        times, at = [], self.begin + self.random.uniform(0, self.collect_s)
        while at < self.now + 4000 * self.collect_s:
            times.append(at)
            at += self.collect_s * self.random.uniform(1.0, 1.1)
        return times

    def clock(self) -> float:
        return self.now

    def fetch(self) -> bytes:
        self.now += self.timing.uniform(*self.latency)
        copied = self.exporter[bisect_right(self.exporter, self.now) - 1]
        sampled = self.engine[bisect_right(self.engine, copied) - 1]
        update = int((sampled - self.begin) / 0.104)
        self.shown.append(update)
        self.now += self.timing.uniform(*self.latency)
        return row("GPU-a", self.watts(update)).encode()

    def scraper(self, interval_ms: int = 1000, gpus: int = 1) -> DcgmScraper:
        config = DcgmConfig(url="http://unused/", collect_interval_ms=interval_ms)
        return DcgmScraper(config, {H100: gpus}, SCHEDULE, fetch=self.fetch, now=self.clock, monotonic=self.clock)

    def turn(self, scraper: DcgmScraper) -> bool:
        self.now += scraper.due_in_s()
        return scraper.scrape()


def read(scraper: DcgmScraper, start_ms: int = START_MS, windows: int = 1) -> np.ndarray:
    source = scraper.source(H100)
    spans = [start_ms + i * SCHEDULE.window_ms for i in range(windows)]
    return np.concatenate([source.window(at, at + SCHEDULE.window_ms) for at in spans], axis=1)


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.sampled_from([100, 250, 1000, 5000]))
def test_no_reading_of_the_sensor_fills_two_ticks(seed: int, interval_ms: int) -> None:
    world = World(seed, collect_s=interval_ms / 1000)
    scraper = world.scraper(interval_ms)
    for _ in range(40):
        world.turn(scraper)
    assert len(set(world.shown)) == len(world.shown)
    assert scraper.stats().scrapes == 40


def test_scrapes_closer_than_the_spacing_would_see_a_reading_twice() -> None:
    """The property above can fail: at the collect interval itself it does."""
    world = World(7)
    for _ in range(200):
        world.now += 1.0
        world.fetch()
    assert len(set(world.shown)) < len(world.shown)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.lists(st.floats(-1e9, 1e9) | st.just(math.inf), min_size=1, max_size=20))
def test_whether_a_tick_is_filled_depends_on_clocks_alone(seed: int, values: list[float]) -> None:
    def run(watts: Callable[[int], object]) -> tuple[list[bool], object, object]:
        world = World(seed, watts=watts)
        scraper = world.scraper()
        for _ in range(12):
            world.turn(scraper)
        missing = np.isnan(read(scraper, windows=3))[0].tolist()
        seen = scraper.source(H100).conditions(START_MS, START_MS + SCHEDULE.window_ms)
        return missing, scraper.stats(), seen.flags

    mine = run(lambda update: str(values[update % len(values)]).replace("inf", "+Inf"))
    assert mine == run(lambda _: 100.0)
    assert not all(mine[0])


def test_readings_lie_at_the_tick_of_their_scrape_and_times_stay_on_the_grid() -> None:
    world = World(1)
    scraper = world.scraper()
    begun = []
    for _ in range(8):
        world.now += scraper.due_in_s()
        begun.append(world.now)
        assert scraper.scrape()
    power_w = read(scraper, windows=2)[0]
    filled = {round(at * 10) - START_MS // 100 for at in begun}
    assert set(np.flatnonzero(~np.isnan(power_w))) == {tick for tick in filled if tick < power_w.size}
    assert [float(w) for w in power_w[~np.isnan(power_w)]] == world.shown[: int((~np.isnan(power_w)).sum())]
    assert np.allclose(np.diff(begun), 2.41), "spacing and one tick"


def test_too_early_is_no_scrape() -> None:
    world = World(1)
    scraper = world.scraper()
    assert world.turn(scraper)
    assert not scraper.scrape()
    assert len(world.shown) == 1


def test_outages_are_gaps_and_flags_and_end(caplog: pytest.LogCaptureFixture) -> None:
    world = World(1)
    scraper = world.scraper(gpus=2)
    world.turn(scraper)
    fetch, world_answers = scraper._fetch, [False] * 30 + [True] * 3

    def failing() -> bytes:
        data = fetch()
        if not world_answers.pop(0):
            raise DcgmError("HTTP status 503")
        return data

    scraper._fetch = failing
    before = world.now
    assert [world.turn(scraper) for _ in range(33)] == [False] * 30 + [True] * 3
    assert scraper.stats().failures == 30
    assert len(caplog.records) == math.ceil((world.now - before) / 60 - 0.1), "one line a minute"
    during = START_MS + 40_000
    assert scraper.source(H100).conditions(during, during + 10_000).flags == (("stall", 2),)
    assert np.isnan(read(scraper, during)).all()
    after = int(world.now * 1000) // 10_000 * 10_000
    assert not np.isnan(read(scraper, after)[0]).all()
    assert np.isnan(read(scraper, after)[1]).all(), "a GPU that the exporter does not have"


def test_a_slow_answer_and_a_clock_set_back_are_late() -> None:
    world = World(1, latency=(1.3, 1.3))
    scraper = world.scraper()
    assert not world.turn(scraper)
    world.latency = (0.0, 0.0)
    assert world.turn(scraper)
    elapsed = world.now
    scraper._monotonic = lambda: elapsed + 100
    world.now -= 1000
    assert not scraper.scrape()
    assert scraper.stats().late == 2


def test_a_time_that_has_not_moved_on_is_the_same_reading() -> None:
    world = World(1)
    scraper = world.scraper()
    times = iter([1000, 1000, 2000])
    scraper._fetch = lambda: row("GPU-a", 5, at=f" {next(times)}").encode()
    for _ in range(3):
        world.turn(scraper)
    assert int((~np.isnan(read(scraper))).sum()) == 2


def test_gpus_keep_their_rows_and_those_not_enrolled_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    world = World(1)
    scraper = world.scraper(gpus=2)
    texts = iter([row("GPU-b", 2, gpu=1), row("GPU-a", 1) + row("GPU-b", 2, gpu=1), row("GPU-c", 3) * 2, TEXT])
    scraper._fetch = lambda: next(texts).encode()
    for _ in range(4):
        world.turn(scraper)
    power_w = read(scraper)
    assert set(power_w[0][~np.isnan(power_w[0])]) == {np.float32(2), np.float32(612.345)}
    assert set(power_w[1][~np.isnan(power_w[1])]) == {np.float32(1), np.float32(70.114)}
    assert sum("not enrolled" in one.message for one in caplog.records) == 1


def test_instances_are_flagged() -> None:
    world = World(1)
    scraper = world.scraper()
    scraper._fetch = lambda: row("GPU-a", 5, more=',GPU_I_ID="7"').encode()
    world.turn(scraper)
    assert scraper.source(H100).conditions(START_MS, START_MS + 10_000).flags == (("mig", 1),)


def test_the_source_says_what_it_is() -> None:
    scraper = World(1).scraper(gpus=3)
    source = scraper.source(H100)
    assert (source.kind, source.sampler_mode, source.gpus) == ("dcgm", "average", 3)
    for start, end in ((50, 1000), (0, 150), (1000, 1000)):
        with pytest.raises(ValueError, match="on a tick"):
            source.window(start, end)
    with pytest.raises(ConfigError, match="enrolled"):
        scraper.source("NVIDIA L4")
    with pytest.raises(ConfigError, match="enrolled"):
        DcgmScraper(scraper.config, {}, SCHEDULE)


def test_the_thread_scrapes_a_real_exporter_until_closed() -> None:
    scraped = threading.Event()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        text_answer()(handler)
        if exporter.asked == 3:  # the one before was the thread's, and is stored
            scraped.set()

    with serving(answer) as exporter:
        scraper = DcgmScraper(
            DcgmConfig(url=exporter.url, collect_interval_ms=100), {H100: 2, "NVIDIA L4": 1}, SCHEDULE
        )
        assert [gpu.uuid for gpu in scraper.probe()] == ["GPU-a", "GPU-b", "GPU-c"]
        scraper.start()
        scraper.start()
        assert scraped.wait(30)
        scraper.close()
        assert scraper.stats().scrapes >= 1
        asked = exporter.asked
        assert not any(thread.name == "dcgm" for thread in threading.enumerate())
    assert exporter.asked == asked
