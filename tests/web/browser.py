"""Chromium for the tests of the page: found on the path, with nothing of the network but one server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import Browser, Page, Route, sync_playwright

from tests.tools import need_tool

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless browser."""
    path = need_tool("chromium")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        try:
            yield running
        finally:
            running.close()


@dataclass
class Tab:
    """One page of one server; what it asked of others, and what its console said."""

    page: Page
    elsewhere: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)


@contextmanager
def tab(running: Browser, url: str, path: str = "/", **about: Any) -> Iterator[Tab]:
    """A tab that shows `url`; every request to anything else is aborted and noted."""
    context = running.new_context(**about)
    shown = Tab(context.new_page())

    def route(one: Route) -> None:
        if one.request.url.startswith(url):
            one.continue_()
        else:
            shown.elsewhere.append(one.request.url)
            one.abort()

    context.route("**/*", route)
    shown.page.on("console", lambda one: shown.console.append(f"{one.type}: {one.text}"))
    shown.page.on("pageerror", lambda one: shown.console.append(f"error: {one}"))
    shown.page.goto(url.rstrip("/") + path)
    try:
        yield shown
    finally:
        context.close()
