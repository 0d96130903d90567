"""DCGM exporter: real text over real HTTP; outages, hostile answers; a reading fills one tick, by clocks alone."""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.config import Schedule
from producers.errors import DcgmError
from producers.sample.dcgm import DcgmConfig, DcgmScraper
from producers.sample.dcgm_exporter import BLANK, FIELD, MAX_ROWS, HttpFetch, parse_exposition
from schemas.errors import ConfigError
from tests.producers.forge import START_MS

H100 = "NVIDIA H100 80GB HBM3"
SCHEDULE = Schedule(window_ms=10_000)
# As dcgm-exporter 3.x and 4.x write it, shortened.
TEXT = f"""\
# HELP DCGM_FI_DEV_SM_CLOCK SM clock frequency (in MHz).
# TYPE DCGM_FI_DEV_SM_CLOCK gauge
DCGM_FI_DEV_SM_CLOCK{{gpu="0",UUID="GPU-a",pci_bus_id="00000000:1B:00.0",device="nvidia0",modelName="{H100}"}} 1980
# HELP {FIELD} Power draw (in W).
# TYPE {FIELD} gauge
{FIELD}{{gpu="1",UUID="GPU-b",pci_bus_id="00000000:43:00.0",device="nvidia1",modelName="{H100}",Hostname="h",\
DCGM_FI_DRIVER_VERSION="550.90.07",container="train",namespace="ml",pod="job-1"}} 612.345000
{FIELD}{{gpu="0",UUID="GPU-a",pci_bus_id="00000000:1B:00.0",device="nvidia0",modelName="{H100}",Hostname="h",\
DCGM_FI_DRIVER_VERSION="550.90.07"}} 70.114
{FIELD}{{gpu="2",UUID="GPU-c",pci_bus_id="00000000:61:00.0",device="nvidia2",modelName="NVIDIA L4",Hostname="h"}} 33
# HELP DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION Total energy consumption since boot (in mJ).
# TYPE DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION counter
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{gpu="0",UUID="GPU-a",modelName="{H100}"}} 9371934
"""


def row(uuid: str, watts: object, *, model: str = H100, more: str = "", gpu: int = 0, at: str = "") -> str:
    return f'{FIELD}{{gpu="{gpu}",UUID="{uuid}",modelName="{model}"{more}}} {watts}{at}\n'


# -- the text -------------------------------------------------------------------------------------------------------


def test_the_text_as_the_exporter_writes_it() -> None:
    found = parse_exposition(TEXT.encode())
    assert [(gpu.uuid, gpu.model, gpu.index, gpu.power_w) for gpu in found] == [
        ("GPU-a", H100, 0, 70.114),
        ("GPU-b", H100, 1, 612.345),
        ("GPU-c", "NVIDIA L4", 2, 33.0),
    ]
    assert not any(gpu.mig or gpu.time_ms for gpu in found)


def test_rows_of_one_gpu_count_once_and_instances_are_noted() -> None:
    text = row("GPU-a", 5, more=',GPU_I_ID="7",GPU_I_PROFILE="1g.10gb"') + row("GPU-a", 5, more=',GPU_I_ID="8"')
    (gpu,) = parse_exposition(text.encode())
    assert (gpu.power_w, gpu.mig) == (5.0, True)


@pytest.mark.parametrize("code", [BLANK, BLANK + 1, BLANK + 4, "NaN"])
def test_a_code_for_no_value_is_no_reading(code: object) -> None:
    assert parse_exposition(row("GPU-a", code).encode())[0].power_w is None


@pytest.mark.parametrize("watts", [0.0, -3.0, 1e6, -1e300, math.inf, -math.inf])
def test_any_other_number_is_a_reading_whatever_it_is(watts: float) -> None:
    read = parse_exposition(row("GPU-a", {math.inf: "+Inf", -math.inf: "-Inf"}.get(watts, watts)).encode())[0].power_w
    assert read == max(watts, -BLANK)


def test_times_of_a_federation_are_read() -> None:
    assert parse_exposition(row("GPU-a", 5, at=" 1772625600123").encode())[0].time_ms == 1772625600123


@pytest.mark.parametrize(
    "text",
    [
        f"{FIELD} 5\n",
        f'{FIELD}{{gpu="0",modelName="x"}} 5\n',
        f'{FIELD}{{gpu="zero",UUID="GPU-a",modelName="x"}} 5\n',
        f'{FIELD}{{gpu="0",UUID="GPU-a",modelName="x"}} watts\n',
        f'{FIELD}{{gpu="0",UUID="GPU-a",modelName="x" 5\n',
        FIELD + "{\n",
        row("GPU-a", 5, at=" soon"),
        row("GPU-a", 5) * (MAX_ROWS + 1),
    ],
)
def test_text_that_is_none_is_refused_and_never_quoted(text: str) -> None:
    with pytest.raises(DcgmError) as caught:
        parse_exposition(text.encode())
    assert "watts" not in str(caught.value)
    assert "GPU-a" not in str(caught.value)


def test_an_exposition_without_power_has_no_gpus() -> None:
    assert parse_exposition(b"# nothing\nup 1\n\xff\xfe\n") == ()


@given(st.binary(max_size=200) | st.text('{}"\\=,\n#gpuUUIDmodelName 015eE+-.\u00e9', max_size=200).map(str.encode))
def test_any_bytes_give_rows_or_the_error(data: bytes) -> None:
    for text in (data, FIELD.encode() + data, FIELD.encode() + b'{gpu="0",UUID="a",modelName="b"}' + data):
        try:
            parse_exposition(text)
        except DcgmError:
            continue


# -- HTTP -----------------------------------------------------------------------------------------------------------


@dataclass
class Exporter:
    """A server on a free port of this machine that answers what it is told, and counts."""

    answer: Callable[[BaseHTTPRequestHandler], None]
    url: str = ""
    asked: int = 0
    paths: list[str] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Exporter]:
    exporter = Exporter(answer)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            exporter.asked += 1
            exporter.paths.append(self.path)
            try:
                exporter.answer(self)
            except OSError:
                self.close_connection = True  # the client has hung up, as it should

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Handler)
    exporter.url = f"http://127.0.0.1:{server.server_address[1]}/metrics"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield exporter
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def text_answer(text: str | bytes = TEXT, length: int | None = None) -> Callable[[BaseHTTPRequestHandler], None]:
    body = text.encode() if isinstance(text, str) else text

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain; version=0.0.4")
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def status_answer(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever: no single wait is long."""
    pause = threading.Event()
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
    while not pause.wait(0.02):
        handler.wfile.write(b"x")
        handler.wfile.flush()


def raw_answer(data: bytes) -> Callable[[BaseHTTPRequestHandler], None]:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(data)

    return answer


def test_a_scrape_over_http() -> None:
    with serving(text_answer()) as exporter:
        assert parse_exposition(HttpFetch(exporter.url + "?a=b", 5.0)()) == parse_exposition(TEXT.encode())
        assert exporter.paths == ["/metrics?a=b"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (status_answer(503), "HTTP status 503"),
        (status_answer(302, Location="http://127.0.0.1:9/metrics"), "HTTP status 302"),
        (text_answer(TEXT, length=len(TEXT) + 1), "cut short"),
        (text_answer(TEXT[:-1]), "cut short"),
        (text_answer(""), "cut short"),
        (text_answer("x" * 5000 + "\n"), "more than 4096 bytes"),
        (text_answer("x" * 5000 + "\n", length=10**12), "more than 4096 bytes"),
        (raw_answer(b""), "no answer: RemoteDisconnected"),
        (raw_answer(b"SSH-2.0-OpenSSH_9.6\r\n"), "no answer: BadStatusLine"),
        (raw_answer(b"HTTP/1.0 200 OK\r\n" + b"A: b\r\n" * 200), "no answer: HTTPException"),
        (raw_answer(b"HTTP/1.0 200 OK\r\nContent-Length: -5\r\n\r\nx 61"), "cut short"),
        (raw_answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), "no answer: IncompleteRead"),
    ],
)
def test_an_answer_that_is_none(answer: Callable[[BaseHTTPRequestHandler], None], said: str) -> None:
    with serving(answer) as exporter:
        with pytest.raises(DcgmError, match=said) as caught:
            HttpFetch(exporter.url, 5.0, max_bytes=4096)()
        assert "127.0.0.1" not in str(caught.value)
        assert exporter.asked == 1


@pytest.mark.parametrize("silent", [True, False])
def test_an_exporter_that_takes_its_time_is_given_up(silent: bool) -> None:
    given_up = threading.Event()

    def nothing(_: BaseHTTPRequestHandler) -> None:
        given_up.wait(60)

    answer = nothing if silent else trickle
    with serving(answer) as exporter:
        with pytest.raises(DcgmError, match=r"no answer|cut short"):
            HttpFetch(exporter.url, 0.2)()
        given_up.set()


def test_nobody_there() -> None:
    with serving(text_answer()) as exporter:
        url = exporter.url
    with pytest.raises(DcgmError, match="ConnectionRefusedError"):
        HttpFetch(url, 1.0)()


@pytest.mark.parametrize(
    "url", ["", "metrics", "file:///etc/passwd", "ftp://x/", "http:///metrics", "http://[::1/", "http://h:99999/"]
)
def test_an_address_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="http or https"):
        DcgmConfig(url=url, collect_interval_ms=1000)


@pytest.mark.parametrize(
    "wrong", [{"collect_interval_ms": 50}, {"timeout_s": 0.0}, {"timeout_s": 61.0}, {"sampler_mode": "guess"}]
)
def test_a_configuration_that_does_not_hold(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        DcgmConfig(**{"url": "http://h/", "collect_interval_ms": 1000, **wrong})  # type: ignore[arg-type]


# -- the scraper ----------------------------------------------------------------------------------------------------


@dataclass
class World:
    """A sensor, a host engine and an exporter on one clock that only this test moves.

    The sensor updates every `SENSOR_S`; engine and exporter collect every `collect_s` or up to a tenth later. The
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
