"""The page in Chromium, against `enclavescale serve` with a live worker: what the topic says is what stands there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from enclavescale.live import number
from schemas.mapping import to_jsonable
from schemas.records import FleetPower
from schemas.topics import TopicNames
from tests.broker import KafkaBroker
from tests.pipeline.kafka_side import Side, wait_until
from tests.pipeline.world import Item, World
from tests.web.browser import Tab, browser, tab
from tests.web.live import DOMAINS, FORGED, Fleet, mock_broker, mock_world, page, rss_kib, worker

WINDOWS = 6
KW = 1_000
REFUSED_WITHIN_MS = 2_000


@pytest.fixture(scope="module")
def running() -> Iterator[Browser]:
    with browser() as one:
        yield one


@pytest.fixture(scope="module")
def fleet(running: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """The embedded broker with a live worker and some windows of every domain."""
    directory, topics = tmp_path_factory.mktemp("page"), TopicNames()
    with ExitStack() as stack:
        bootstrap = stack.enter_context(mock_broker(topics, 2))
        one = stack.enter_context(Fleet(bootstrap, mock_world(directory), topics, create_time=True))
        stack.enter_context(worker(one, directory / "worker.log"))
        one.wait_for_policy()
        one.windows(WINDOWS)
        one.wait_for(len(DOMAINS) * (WINDOWS - 1))
        yield one


@pytest.fixture(scope="module")
def url(fleet: Fleet) -> Iterator[str]:
    with page(fleet) as one:
        yield one


def newest(fleet: Fleet) -> dict[str, tuple[int, int, FleetPower]]:
    """Newest output of the worker by domain with its partition and offset."""
    found: dict[str, tuple[int, int, FleetPower]] = {}
    for (partition, offset), signed in sorted(fleet.outputs().items()):
        held = found.get(signed.output.domain)
        if signed.output.mean == FORGED:
            continue
        if held is None or signed.output.window_start_ms >= held[2].window_start_ms:
            found[signed.output.domain] = partition, offset, signed.output
    return found


def state(url: str) -> Any:
    with urllib.request.urlopen(url + "api/v1/state", timeout=20) as answer:
        return json.load(answer)


def check_figures(fleet: Fleet, url: str, shown: Tab) -> None:
    """Page and API hold what the output topic holds, for every partition."""
    expected = newest(fleet)
    assert {partition for partition, _, _ in expected.values()} == {0, 1}
    wait_until(
        lambda: (
            {one["domain"]: one["offset"] for one in state(url)["domains"]}
            == {name: offset for name, (_, offset, _) in expected.items()}
        ),
        "the newest outputs",
    )
    for facts in state(url)["domains"]:
        partition, offset, output = expected[facts["domain"]]
        assert (facts["partition"], facts["offset"], facts["trust"]) == (partition, offset, "verified")
        exact = to_jsonable(output)
        assert {key: value for key, value in facts["output"].items() if key != "classes"} == {
            key: value for key, value in exact.items() if key != "classes"
        }
        card = shown.page.locator(
            "article.card", has=shown.page.get_by_role("heading", name=facts["domain"], exact=True)
        )
        assert output.mean is not None
        assert output.margin.margin is not None
        expect(card.locator(".big")).to_contain_text(f"{number(output.mean.value_w, KW)} kW")
        expect(card.locator(".big")).to_contain_text(f"{number(output.margin.margin.value_w, KW, signed=True)} kW")
        expect(card.locator(".trust")).to_contain_text("verified")
        row = shown.page.locator("#glance tr", has_text=facts["domain"])
        expect(row).to_contain_text(f"{number(output.margin.limit_w, KW)} kW")
        expect(row).to_contain_text(f"{output.coverage.reporting_hosts}/{output.coverage.enrolled_hosts}")


def check_clean(shown: Tab) -> None:
    assert shown.elsewhere == []
    assert shown.console == []


def refuse_and_see(fleet: Fleet, shown: Tab, partition: int) -> None:
    """A record that cannot be read: within two seconds of its dead letter the page says so."""
    shown.page.evaluate(
        """() => { window.seen = 0; new MutationObserver(() => {
            const text = document.getElementById('refused').textContent;
            if (!window.seen && text.includes('MALFORMED')) window.seen = Date.now();
        }).observe(document.getElementById('refused'), {childList: true, subtree: true, characterData: true}); }"""
    )
    domain = next(name for name, at in DOMAINS.items() if at == partition)
    fleet.put(fleet.topics.reports, Item(partition, domain.encode(), b"junk"))
    fleet.flush()
    letter = fleet.letter()
    shown.page.wait_for_function("() => window.seen", timeout=30_000)
    assert shown.page.evaluate("() => window.seen") - letter.timestamp()[1] < REFUSED_WITHIN_MS
    expect(shown.page.locator("#refused")).to_contain_text("Bytes that are not a record of a pinned schema")
    shown.page.locator("#places-box summary").click()
    expect(shown.page.locator("#places")).to_contain_text(f"{fleet.topics.reports} [{partition}]")


def test_the_page_says_what_the_topic_says_and_a_refusal_within_two_seconds(
    fleet: Fleet, url: str, running: Browser
) -> None:
    with tab(running, url) as shown:
        check_figures(fleet, url, shown)
        expect(shown.page.locator("#simulated")).to_be_visible()
        expect(shown.page.locator("#unchecked")).to_be_hidden()
        before = len(fleet.outputs())
        fleet.windows(1)
        fleet.wait_for(before + len(DOMAINS))
        check_figures(fleet, url, shown)
        refuse_and_see(fleet, shown, 1)
        check_clean(shown)


def test_it_fits_a_telephone_and_has_a_table_for_every_plot(url: str, running: Browser) -> None:
    with tab(
        running, url, viewport={"width": 360, "height": 700}, color_scheme="dark", reduced_motion="reduce"
    ) as shown:
        expect(shown.page.locator("article.card .mean").first).to_be_attached()
        assert shown.page.evaluate("() => document.documentElement.scrollWidth") == 360
        card = shown.page.locator("article.card").first
        card.locator("summary").click()
        expect(card.locator("table")).to_have_count(4)
        assert "Mean" in str(card.locator("svg[role=img]").get_attribute("aria-label"))
        card.locator("svg[role=img]").focus()
        shown.page.keyboard.press("ArrowLeft")
        expect(card.locator(".readout")).to_contain_text("margin")
        assert shown.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 29)"
        shown.page.locator("#theme").click()
        assert shown.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert shown.page.evaluate("() => document.getAnimations().length") == 0
        check_clean(shown)


def test_names_that_somebody_chose_are_text(fleet: Fleet, running: Browser) -> None:
    """Without a signer anybody who can write names a domain; the page says that it is not verified."""
    hostile = "<img src=x onerror=alert(1)>\u202e&lt;"
    fleet.forge(hostile)
    with page(fleet, signer=False) as url, tab(running, url) as shown:
        heading = shown.page.get_by_role("heading", name="<img src=x onerror=alert(1)>\\u{202e}&lt;", exact=True)
        expect(heading).to_be_visible()
        expect(shown.page.locator("#unchecked")).to_be_visible()
        expect(shown.page.locator("article.card .trust").first).to_contain_text("not verified")
        assert shown.page.locator("main img").count() == 0
        check_clean(shown)


def test_a_forged_output_is_named_and_not_shown(fleet: Fleet, url: str, running: Browser) -> None:
    fleet.forge("hall-a")
    with tab(running, url) as shown:
        expect(shown.page.locator("#unverified-box")).to_be_visible()
        expect(shown.page.locator("article.card")).to_have_count(len(DOMAINS))
        expect(shown.page.locator("#all")).to_contain_text("POLICY_NOT_IN_FORCE")
        expect(shown.page.locator("#unverified")).not_to_contain_text("No release")
        check_clean(shown)


def test_the_page_asks_for_its_token(fleet: Fleet, running: Browser) -> None:
    token = "0123456789abcdef-token"
    with page(fleet, environment={"ENCLAVESCALE_PAGE_TOKEN": token}) as url:
        with tab(running, url) as shown:
            expect(shown.page.locator("#lock")).to_be_visible()
            shown.page.get_by_label("Bearer token").fill("wrong-token-of-some-length")
            shown.page.get_by_role("button", name="Open").click()
            expect(shown.page.locator("#lock-note")).to_contain_text("does not accept")
            shown.page.get_by_label("Bearer token").fill(token)
            shown.page.get_by_role("button", name="Open").click()
            expect(shown.page.locator("article.card")).to_have_count(len(DOMAINS))
            assert shown.elsewhere == []
        with tab(running, url, f"#token={token}") as shown:
            expect(shown.page.locator("article.card")).to_have_count(len(DOMAINS))
            assert token not in shown.page.url
            check_clean(shown)


def hold(url: str, readers: int, done: Any) -> None:
    """So many readers of the event stream, until `done` is called to an end."""
    answers = [urllib.request.urlopen(url + "api/v1/events", timeout=60) for _ in range(readers)]
    try:
        with ThreadPoolExecutor(readers) as pool:
            ended = [pool.submit(_drain, one) for one in answers]
            done()
            for one in answers:
                one.fp.raw._sock.shutdown(2)
            for one in ended:
                one.result(30)
    finally:
        for one in answers:
            one.close()


def _drain(answer: Any) -> None:
    try:
        while answer.readline():
            pass
    except (OSError, ValueError):
        pass


GROWTH_KIB = 12_000
"""What allocators may keep; 50 readers that each held the history would need far more."""


@pytest.mark.soak
def test_fifty_readers_are_held_with_flat_memory(fleet: Fleet) -> None:
    with page(fleet, "--max-readers", "100") as url:
        process = fleet.page_pid
        hold(url, 50, lambda: None)
        at_first: list[int] = []

        def live() -> None:
            at_first.append(rss_kib(process))
            for _ in range(3):
                before = len(fleet.outputs())
                fleet.windows(1)
                fleet.wait_for(before + len(DOMAINS))
            at_first.append(rss_kib(process))

        hold(url, 50, live)
        assert at_first[1] - at_first[0] < GROWTH_KIB


@pytest.mark.soak
@pytest.mark.accept
def test_fifty_readers_for_long(fleet: Fleet) -> None:
    with page(fleet, "--max-readers", "100") as url:
        process, seen = fleet.page_pid, []

        def live() -> None:
            for _ in range(60):
                before = len(fleet.outputs())
                fleet.windows(1)
                fleet.wait_for(before + len(DOMAINS))
                seen.append(rss_kib(process))

        hold(url, 50, live)
        assert max(seen[30:]) - max(seen[10:30]) < GROWTH_KIB


def test_top_shows_the_same_in_80_columns(fleet: Fleet, url: str) -> None:
    command = [sys.executable, "-m", "enclavescale", "top", "--once", "--bootstrap", fleet.bootstrap]
    command += ["--policy-signer", fleet.world.signer]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60, env={**os.environ, "COLUMNS": "80"}
    )
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for _, _, output in newest(fleet).values():
        assert output.margin.margin is not None
        assert number(output.margin.margin.value_w, KW, signed=True) in done.stdout
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, timeout=60)
    mine, theirs = json.loads(told.stdout), state(url)
    for one in (*mine["domains"], *theirs["domains"]):
        one.pop("points")
    names = ("domain", "partition", "offset", "digest", "output", "trust")
    assert [[one[name] for name in names] for one in mine["domains"]] == [
        [one[name] for name in names] for one in theirs["domains"]
    ]


@pytest.mark.soak
def test_a_broker_that_goes_is_told_and_old_figures_are_marked(tmp_path: Path, running: Browser) -> None:
    topics = TopicNames()
    with ExitStack() as stack:
        broker = ExitStack()
        stack.callback(broker.close)
        bootstrap = broker.enter_context(mock_broker(topics, 2))
        fleet = stack.enter_context(Fleet(bootstrap, mock_world(tmp_path, 2), topics, create_time=True))
        url = stack.enter_context(page(fleet))
        shown = stack.enter_context(tab(running, url))
        expect(shown.page.locator("#link-text")).to_have_text("Live")
        broker.close()
        start = time.monotonic()
        expect(shown.page.locator("#headline")).to_contain_text("No broker has answered", timeout=40_000)
        assert time.monotonic() - start < 40
        expect(shown.page.locator("#link-text")).to_contain_text("silent since")
        expect(shown.page.locator("body.old")).to_be_attached()
        check_clean(shown)


@pytest.mark.broker
def test_on_a_real_broker_the_page_says_what_the_topic_says(
    kafka: KafkaBroker, running: Browser, tmp_path: Path
) -> None:
    world = World(tmp_path, DOMAINS, 4, seed=2)
    side = Side(kafka.bootstrap, world, 2)
    with (
        Fleet(kafka.bootstrap, world, side.topics, create_time=False) as fleet,
        worker(fleet, tmp_path / "worker.log"),
    ):
        fleet.wait_for_policy()
        fleet.windows(WINDOWS)
        fleet.wait_for(len(DOMAINS) * (WINDOWS - 1))
        with page(fleet) as url, tab(running, url) as shown:
            check_figures(fleet, url, shown)
            refuse_and_see(fleet, shown, 0)
            fleet.grow(3)
            wait_until(lambda: len(state(url)["source"]["partitions"]) == 3, "the partition that came later")
            check_clean(shown)
    side.close()
