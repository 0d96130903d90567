"""What the agent's health says of its sampler: silence is told from polls that are further apart than windows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from enclavescale.agent.health import Health, Need
from enclavescale.agent.sources import HostSources
from enclavescale.agent.watch import HostWatch, Instruments, WatchedHost
from tests.cli.site import HOST, make_site

WINDOW_S = 60


def state(health: Health) -> tuple[str, str | None]:
    (found,) = (one for one in health.ready().checks if one.name == "sampler")
    return found.state, found.code


@pytest.mark.parametrize(
    ("spacing_s", "scraped", "states"),
    [
        (2.3, [26, 52, 52], ["ok", "ok", "failing"]),
        (69.0, [1, 2, 2, 3], ["ok", "ok", "ok", "ok"]),
        (69.0, [0, 1, 1, 1, 1], ["ok", "ok", "ok", "ok", "failing"]),
        (69.0, [0, 0, 0], ["ok", "ok", "failing"]),
    ],
)
def test_silence_of_an_exporter(tmp_path: Path, spacing_s: float, scraped: list[int], states: list[str]) -> None:
    clock, scrapes = [0.0], [0]
    scraper: Any = SimpleNamespace(
        config=SimpleNamespace(spacing_ms=spacing_s * 1000), stats=lambda: SimpleNamespace(scrapes=scrapes[0])
    )
    host = WatchedHost(HOST, HostSources((), scraper=scraper), cast(Any, None))
    instruments, policy = Instruments(), make_site(tmp_path, "dcgm").policy
    watch = HostWatch(instruments, policy, [host], tee="tsm", in_force=lambda done: None, now=lambda: clock[0])
    instruments.health.expect("sampler", Need.READY, within_s=2.5 * WINDOW_S, grace_s=3 * WINDOW_S)
    one = SimpleNamespace(conditions=SimpleNamespace(flags=()), profile=SimpleNamespace(source=SimpleNamespace(gpus=1)))
    window: Any = SimpleNamespace(
        sealed=SimpleNamespace(window_start_ms=0, window_end_ms=WINDOW_S * 1000), classes=(one,)
    )
    found = []
    for scrapes[0] in scraped:
        clock[0] += WINDOW_S
        watch._look_at_samplers([window])
        found.append(state(instruments.health))
    assert [word for word, _ in found] == states
    assert all(code == ("NOT_SAMPLING" if word == "failing" else None) for word, code in found)
