"""The pictures of docs/page.md: `python -m tests.web.pictures DIRECTORY` takes them of a live worker's page."""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser
from rich.console import Console

from enclavescale.top_screen import top_screen
from schemas.topics import TopicNames
from tests.pipeline.world import WINDOW_MS, Item
from tests.web.browser import browser, tab
from tests.web.live import DOMAINS, Fleet, mock_broker, mock_world, page, worker
from tests.web.test_browser import state

HOSTS, WINDOWS, LIMIT_W = 12, 40, 330
DESK = {"viewport": {"width": 1240, "height": 1150}}
PHONE = {"viewport": {"width": 360, "height": 760}, "device_scale_factor": 2}


def take(running: Browser, url: str, path: Path, **about: Any) -> None:
    """One picture of what fits on the screen."""
    with tab(running, url, **about) as shown:
        shown.page.wait_for_selector("article.card .mean")
        shown.page.wait_for_function("() => document.querySelectorAll('article.card').length === 3")
        shown.page.screenshot(path=path)


def spoil(fleet: Fleet) -> None:
    """Five hosts of hall-b fall silent, records are tampered with, and somebody forges an output."""
    for host in [one for one in fleet.world.agents if one.startswith("hall-b")][:5]:
        del fleet.world.agents[host]
    tampered = []
    for one in fleet.world.clean(fleet.start_ms - WINDOW_MS)[:14]:
        value = bytearray(one.value)
        value[len(value) // 3] ^= 1
        tampered.append(Item(one.partition, one.key, bytes(value)))
    before = len(fleet.outputs())
    fleet.windows(3, tuple(tampered))
    fleet.wait_for(before + 3 * len(DOMAINS))
    fleet.forge("hall-c")


def main(target: Path) -> None:
    """Take them all."""
    topics = TopicNames()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        running = stack.enter_context(browser())
        bootstrap = stack.enter_context(mock_broker(topics, 2))
        world = mock_world(directory, HOSTS, LIMIT_W)
        fleet = stack.enter_context(Fleet(bootstrap, world, topics, create_time=True))
        stack.enter_context(worker(fleet, directory / "worker.log"))
        fleet.wait_for_policy()
        fleet.start_ms = int(time.time() * 1000) // WINDOW_MS * WINDOW_MS - (WINDOWS - 1) * WINDOW_MS
        fleet.windows(WINDOWS)
        fleet.wait_for(len(DOMAINS) * (WINDOWS - 1))
        url = stack.enter_context(page(fleet))
        fleet.windows(1)
        take(running, url, target / "page-light.png", color_scheme="light", **DESK)
        fleet.windows(1)
        take(running, url, target / "page-dark.png", color_scheme="dark", **DESK)
        take(running, url, target / "page-phone.png", color_scheme="light", **PHONE)
        spoil(fleet)
        take(running, url, target / "page-trouble.png", color_scheme="light", **DESK)
        with open(os.devnull, "w") as nowhere:
            console = Console(record=True, width=110, file=nowhere, force_terminal=True)
            console.print(top_screen(state(url), 110))
        picture = console.export_svg(title="enclavescale top")
        # rich would have its font fetched from elsewhere; the reader's own will do
        (target / "top.svg").write_text(re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
