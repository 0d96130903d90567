"""Tiers and the broker: what runs by default, what needs a real Kafka, and what is said when it is not there.

$ENCLAVESCALE_TIER: `test` (default) leaves out everything marked `soak` or `accept`; `soak` runs what is marked
`soak`; `accept` runs both. Broker tests without Java >= 17 or mvn are skipped and counted on the screen; with
CI=true they fail instead, because a skipped guarantee looks like a kept one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from tests.broker import KafkaBroker, missing_tools
from tests.broker.kafka import install_line

TIERS = ("test", "soak", "accept")
ADMIN_TIMEOUT_S = 30.0
NEEDS_KAFKA = "needs a real Kafka, missing"

MakeTopic = Callable[..., str]
_MISSING = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_MISSING] = missing_tools()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    tier = os.environ.get("ENCLAVESCALE_TIER", "test")
    if tier not in TIERS:
        raise pytest.UsageError(f"ENCLAVESCALE_TIER={tier!r}: one of {', '.join(TIERS)}")
    wanted, dropped = [], []
    for item in items:
        long_ones = {"soak", "accept"} & {mark.name for mark in item.iter_markers()}
        keep = not long_ones if tier == "test" else "soak" in long_ones if tier == "soak" else bool(long_ones)
        keep = keep or item.get_closest_marker("every_tier") is not None
        (wanted if keep else dropped).append(item)
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = wanted


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = item.config.stash[_MISSING]
    if item.get_closest_marker("broker") is None or not missing:
        return
    text = f"{NEEDS_KAFKA}: {', '.join(missing)}; {install_line(missing)}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    # Counted from the reports: the tests may have run in other processes.
    count = sum(NEEDS_KAFKA in str(report.longrepr) for report in terminalreporter.stats.get("skipped", []))
    if count:
        missing = config.stash[_MISSING]
        names = ", ".join("Java" if name == "java" else name for name in missing)
        terminalreporter.write_line(f"BROKER TESTS SKIPPED: {count} (no {names})", yellow=True, bold=True)
        terminalreporter.write_line(f"  {install_line(missing)}")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """One Apache Kafka for the whole session. Only tests marked `broker` may ask for it."""
    with KafkaBroker.start(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


def make_topic_on(bootstrap: str, prefix: str, partitions: int, config: dict[str, str] | None = None) -> str:
    """Create one topic with a fresh name on the broker at `bootstrap` and wait until the broker says so."""
    name = f"{prefix}-{uuid.uuid4().hex[:8]}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    created = admin.create_topics([NewTopic(name, partitions, 1, config=config or {})])
    created[name].result(ADMIN_TIMEOUT_S)
    return name


@pytest.fixture
def make_topics(kafka: KafkaBroker) -> MakeTopic:
    """`make_topics("prefix", partitions, {config})` -> the new topic's name."""

    def make(prefix: str = "t", partitions: int = 1, config: dict[str, str] | None = None) -> str:
        return make_topic_on(kafka.bootstrap, prefix, partitions, config)

    return make
