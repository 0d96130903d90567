"""One scrape of a DCGM exporter: real text over real HTTP, and what else may answer there."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producers.errors import DcgmError
from producers.sample.dcgm import DcgmConfig
from producers.sample.dcgm_exporter import BLANK, FIELD, MAX_ROWS, HttpFetch, parse_exposition
from schemas.errors import ConfigError
from tests.producers.fake_exporter import H100, TEXT, row, serving, text_answer

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
