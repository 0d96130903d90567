"""The application over a board: files, headers, who may ask, events, probes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client.parser import text_string_to_metric_families

from enclavescale.page import app as apps
from enclavescale.page import hub as hubs
from enclavescale.page.app import Page, page_files
from enclavescale.page.guard import Guard
from enclavescale.page.hub import Full, Hub, Reader, event
from stream_jobs.web.board import Board
from tests.web.samples import NOW, output
from tests.web.test_board import a_board, a_refusal, put

TOKEN = "a-token-of-some-length"
LOCAL = ("localhost",)


@contextlib.asynccontextmanager
async def served(
    board: Board, *, token: str | None = None, names: tuple[str, ...] | None = LOCAL, max_readers: int = 5
) -> AsyncIterator[tuple[Page, aiohttp.ClientSession, TestServer]]:
    page = Page(board, max_readers=max_readers, reading=lambda: True, wall=lambda: NOW / 1000)
    server = TestServer(page.application(Guard(token, names=names)))
    async with server, aiohttp.ClientSession(base_url=server.make_url("/")) as client:
        yield page, client, server


def run(
    work: Callable[[Page, aiohttp.ClientSession], Awaitable[None]], board: Board | None = None, **about: Any
) -> None:
    async def main() -> None:
        async with served(board or a_board(), **about) as (page, client, _):
            await work(page, client)

    asyncio.run(main())


async def read_events(answer: aiohttp.ClientResponse, wanted: int) -> list[tuple[str, Any, str | None]]:
    """Name, data and id of the next events but beats."""
    found: list[tuple[str, Any, str | None]] = []
    one: dict[str, str] = {}
    async with asyncio.timeout(10):
        while len(found) < wanted:
            line = (await answer.content.readline()).decode().rstrip("\n")
            if line:
                name, _, value = line.partition(": ")
                one[name] = value
            elif one:
                if one.get("event") not in {"beat", None}:
                    found.append((one["event"], json.loads(one["data"]), one.get("id")))
                one = {}
    return found


def test_the_page_is_its_own_files_with_a_strict_policy_and_an_etag() -> None:
    async def work(_: Page, client: aiohttp.ClientSession) -> None:
        for path, name in (
            ("/", "index.html"),
            *((f"/static/{one}", one) for one in page_files() if one != "index.html"),
        ):
            answer = await client.get(path)
            assert (answer.status, await answer.read()) == (200, page_files()[name].body)
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
            assert "unsafe" not in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Server"] == "enclavescale"
            again = await client.get(path, headers={"If-None-Match": answer.headers["ETag"]})
            assert (again.status, await again.read()) == (304, b"")

    run(work)


def test_the_files_name_nothing_from_elsewhere_and_no_inline_script_or_style() -> None:
    for name, one in page_files().items():
        text = one.body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, name
        assert "innerHTML" not in text, name
    index = page_files()["index.html"].body.decode()
    assert "style=" not in index
    assert index.count("<script") == index.count('<script type="module" src=')


@pytest.mark.parametrize(
    "path", ["/static/nothing.js", "/static/../app.py", "/static/%2e%2e/app.py", "/x", "/static/index.html"]
)
def test_there_is_nothing_else(path: str) -> None:
    async def work(_: Page, client: aiohttp.ClientSession) -> None:
        answer = await client.get(path)
        assert answer.status == 404
        assert "Content-Security-Policy" in answer.headers

    run(work)


def test_only_get_without_a_body_under_a_known_name() -> None:
    async def work(_: Page, client: aiohttp.ClientSession) -> None:
        assert (await client.post("/api/v1/state", data=b"x")).status == 405
        assert (await client.delete("/")).status == 405
        assert (await client.get("/", data=b"x")).status == 413
        assert (await client.head("/")).status == 200
        for host, status in (("evil.example", 421), ("evil.example:80", 421), ("LOCALHOST:9", 200), ("127.0.0.1", 200),
                             ("[::1]:80", 200), ("127.0.0.1.evil.example", 421), ("", 421)):  # fmt: skip
            assert (await client.get("/api/v1/state", headers={"Host": host})).status == status, host

    run(work)


def test_a_token_opens_figures_and_metrics_and_probes_need_none() -> None:
    async def work(_: Page, client: aiohttp.ClientSession) -> None:
        for path in ("/api/v1/state", "/metrics", "/api/v1/events"):
            for given in ({}, {"Authorization": "Bearer wrong-token-of-size"}, {"Authorization": TOKEN},
                          {"Authorization": f"Basic {TOKEN}"}, {"Authorization": "Bearer \u00e9"}):  # fmt: skip
                answer = await client.get(path, headers=given)
                assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="enclavescale"')
                assert TOKEN not in await answer.text()
            answer = await client.get(path, headers={"Authorization": f"Bearer {TOKEN}"})
            assert answer.status == 200
            answer.close()
        for path in ("/", "/livez", "/static/page.js"):
            assert (await client.get(path)).status == 200
        assert (await client.get("/api/v1/state?token=" + TOKEN)).status == 401

    run(work, token=TOKEN, names=None)


def test_the_state_is_the_boards() -> None:
    board = a_board()
    put(board, output("<img src=x>\u202e"))

    async def work(_: Page, client: aiohttp.ClientSession) -> None:
        answer = await client.get("/api/v1/state")
        assert answer.headers["Cache-Control"] == "no-store"
        assert await answer.json() == json.loads(json.dumps(board.snapshot(NOW)))

    run(work, board)


def test_events_are_the_whole_state_and_then_what_changes() -> None:
    board = a_board()
    put(board, output())

    async def work(page: Page, client: aiohttp.ClientSession) -> None:
        async with client.get("/api/v1/events") as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            ((name, state, _),) = await read_events(answer, 1)
            assert (name, [one["domain"] for one in state["domains"]]) == ("state", ["hall-a"])
            put(board, output("hall-b"), 1)
            board.refusal(a_refusal("SIGNATURE_INVALID", 4))
            seen: dict[str, Any] = {}
            while not ("domain" in seen and seen.get("status", {}).get("refused", {}).get("newest")):
                ((name, data, last),) = await read_events(answer, 1)
                if name != "domain" or data["domain"] == "hall-b":
                    seen[name] = data
        assert seen["domain"]["domain"] == "hall-b"
        assert seen["status"]["refused"]["newest"][0]["code"] == "SIGNATURE_INVALID"
        put(board, output("hall-c"), 2)
        async with client.get("/api/v1/events", headers={"Last-Event-ID": str(last)}) as answer:
            ((name, data, _),) = await read_events(answer, 1)
            assert (name, data["domain"]) == ("domain", "hall-c")
        for strange in ("0000-1", "x", "-", f"{str(last).split('-')[0]}-99999", "9" * 4000):
            async with client.get("/api/v1/events", headers={"Last-Event-ID": strange}) as answer:
                ((name, _, _),) = await read_events(answer, 1)
                assert name == "state"

    run(work, board)


def test_readers_are_bounded_and_leave_their_place() -> None:
    async def work(page: Page, client: aiohttp.ClientSession) -> None:
        answers = [await client.get("/api/v1/events") for _ in range(2)]
        assert [one.status for one in answers] == [200, 200]
        refused = await client.get("/api/v1/events")
        assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
        metrics = {one.name: one for one in text_string_to_metric_families(await (await client.get("/metrics")).text())}
        assert metrics["enclavescale_page_readers"].samples[0].value == 2
        assert metrics["enclavescale_page_readers_refused"].samples[0].value == 1
        for one in answers:
            one.close()
        async with asyncio.timeout(10):
            while len(page.hub):
                await asyncio.sleep(0.01)
        again = await client.get("/api/v1/events")
        assert again.status == 200
        again.close()

    run(work, max_readers=2)


def test_a_reader_that_does_not_read_is_let_go_and_the_others_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "QUEUE", 4)

    async def main() -> None:
        hub = Hub(lambda: {"domains": []}, boot="b", max_readers=2)
        slow, quick = await hub.join(None), await hub.join(None)
        for number in range(10):
            hub.publish([("status", {"n": number})])
            while not quick.queue.empty():
                assert quick.queue.get_nowait() is not None
        assert (slow.behind, quick.behind, hub.dropped, len(hub)) == (True, False, 1, 1)
        assert slow.queue.get_nowait() is None
        await hub.join(None)
        with pytest.raises(Full):
            await hub.join(None)

    asyncio.run(main())


def test_a_reader_whose_state_cannot_be_made_takes_no_place() -> None:
    def broken() -> dict[str, Any]:
        raise ValueError("broken")

    async def main() -> None:
        hub = Hub(broken, boot="b", max_readers=1)
        for _ in range(3):
            with pytest.raises(ValueError, match="broken"):
                await hub.join(None)
        assert len(hub) == 0

    asyncio.run(main())


def test_readers_who_come_together_share_one_state() -> None:
    calls = []

    async def main() -> None:
        hub = Hub(lambda: {"n": len(calls)} if not calls.append(1) else {}, boot="b", max_readers=60)  # type: ignore[func-returns-value]
        readers = await asyncio.gather(*(hub.join(None) for _ in range(50)))
        values = {one.queue.get_nowait() for one in readers}
        assert (len(values), len(calls)) == (1, 1)
        hub.publish([("status", {})])
        await hub.join(None)
        assert len(calls) == 2

    asyncio.run(main())


def test_what_was_sent_is_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "REPLAY_BYTES", 1_000)

    async def main() -> None:
        hub = Hub(lambda: {}, boot="b", max_readers=2)
        hub.publish([("status", {"text": "x" * 200})] * 20)
        assert sum(len(made) for _, made in hub._recent) <= 1_000
        reader: Reader = await hub.join("b-19")
        assert reader.queue.get_nowait() == event("status", {"text": "x" * 200}, "b-20")

    asyncio.run(main())


def test_it_is_ready_when_it_has_read_and_brokers_answer() -> None:
    board = Board(keep=5, explain=str, checked=True, started_ms=NOW)

    async def work(page: Page, client: aiohttp.ClientSession) -> None:
        async def status(path: str) -> int:
            return (await client.get(path)).status

        assert (await status("/livez"), await status("/readyz")) == (200, 503)
        board.contact(NOW)
        board.partition(0, 0)
        board.met(rejections=True)
        async with asyncio.timeout(10):
            while await status("/readyz") != 200:
                await asyncio.sleep(0.05)
        page._tell_health(NOW + 60_000)
        answer = await client.get("/readyz")
        assert answer.status == 503
        assert {one["check"]: one["code"] for one in (await answer.json())["checks"]}["brokers"] == "STALE"

    run(work, board)


def test_connections_that_ask_nothing_are_closed_and_so_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        page = Page(a_board(), max_readers=5, reading=lambda: True)
        runner = web.AppRunner(page.application(Guard(None, names=None)))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        assert runner.server is not None
        port, met = runner.addresses[0][1], {}
        silent, writing = await asyncio.open_connection("127.0.0.1", port)
        async with (
            asyncio.timeout(10),
            aiohttp.ClientSession() as client,
            client.get(f"http://127.0.0.1:{port}/api/v1/events") as answer,
        ):
            await read_events(answer, 1)
            page.shed_once(runner.server, met, 0.0)
            page.shed_once(runner.server, met, apps.SILENT_S)
            assert len(runner.server.connections) == 2
            page.shed_once(runner.server, met, apps.SILENT_S + 1)
            assert await silent.read() == b""
            assert len(page.hub) == 1  # who has asked stays
            monkeypatch.setattr(apps, "MAX_CONNECTIONS", 0)
            page.shed_once(runner.server, met, apps.SILENT_S + 2)
            while len(page.hub):
                await asyncio.sleep(0)
        writing.close()
        await runner.cleanup()

    asyncio.run(main())
