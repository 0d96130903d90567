"""The worker as a program: one Faust app, one agent that passes raw events to the log adapter, an exit code.

Faust's command line is not used: it redirects stdout, opens a port on all interfaces and exits by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import faust
from prometheus_client import REGISTRY, CollectorRegistry

from schemas.errors import EnclaveScaleError
from stream_jobs.kafka_errors import access_error
from stream_jobs.kafka_names import faust_connection
from stream_jobs.log import LogAdapter
from stream_jobs.log_client import FaustGroupClient
from stream_jobs.log_metrics import LogMetrics
from stream_jobs.log_record import AdapterFailed, JobFactory, LogRecord
from stream_jobs.log_slots import PartitionStats, TopicPartition, Turn
from stream_jobs.metrics import Stages
from stream_jobs.settings import LogSettings, faust_settings

logger = logging.getLogger(__name__)

EXIT_OK, EXIT_FAILED = 0, 1


class _Worker(faust.Worker):
    """Faust's service tree without its signal handlers, logging and spinner: those are the program's."""

    def install_signal_handlers(self) -> None:
        pass

    def on_setup_root_logger(self, logger: logging.Logger, level: int) -> None:
        pass


def to_record(message: Any) -> LogRecord:
    """Faust's message -> `LogRecord`. Faust keeps the time in seconds as a float; milliseconds come back exactly."""
    return LogRecord(
        message.topic,
        message.partition,
        message.offset,
        round(message.timestamp * 1000),
        message.timestamp_type,
        message.key,
        message.value,
        tuple(message.headers or ()),
    )


class LogWorker:
    """Reads one topic as a member of one group and gives each assigned partition to a job made by `factory`."""

    def __init__(
        self,
        *,
        topic: str,
        group: str,
        kafka: Mapping[str, str],
        factory: JobFactory,
        settings: LogSettings | None = None,
        registry: CollectorRegistry = REGISTRY,
        stages: Stages | None = None,
        on_turn: Callable[[Turn], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`kafka` are librdkafka properties; raises `ConfigError` for what cannot be mapped. Nothing is opened yet.

        `on_turn` is called about once a second, on the event loop: it must not block.
        """
        self._topic, self._group, self._factory = topic, group, factory
        self._settings = settings or LogSettings()
        self._connection = faust_connection(kafka)
        self._metrics = LogMetrics(registry, stages)
        self._on_turn = on_turn
        self._clock, self._wall = clock, wall
        self._adapter: LogAdapter | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._finished = threading.Event()
        self._jobs_ended = True
        self.failure: EnclaveScaleError | None = None
        """What ended the worker, None after a clean stop."""

    def run(self) -> int:
        """Work until SIGTERM, SIGINT or `request_stop`; returns 0 then and 1 after a failure (see `failure`)."""
        self._loop = loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        try:
            with tempfile.TemporaryDirectory(prefix="enclavescale-worker-") as datadir:
                return loop.run_until_complete(self._main(Path(datadir)))
        finally:
            _close_loop(loop)
            if self._jobs_ended:  # otherwise the interpreter would wait for the jobs' thread for ever
                self._finished.set()

    def request_stop(self) -> None:
        """Ask a running worker to stop, from any thread."""
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(stop.set)

    def stats(self) -> dict[TopicPartition, PartitionStats]:
        """The assigned partitions; empty before the first assignment. From any thread."""
        return {} if self._adapter is None else self._adapter.stats()

    # --- inside ----------------------------------------------------------------------------------------------

    async def _main(self, datadir: Path) -> int:
        self._stop = stop = asyncio.Event()
        if self._connection.ignored:
            logger.info("properties only the producer uses: %s", ", ".join(self._connection.ignored))
        app = self._build_app(datadir)
        worker = _Worker(app, quiet=True, override_logging=False, redirect_stdouts=False, loop=self._loop)
        worker.spinner = None
        self._install_signals(stop)
        adapter = self._adapter
        assert adapter is not None  # noqa: S101 - set by _build_app
        adapter.start()
        running = asyncio.ensure_future(worker.start())
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
        self._arm_hard_exit()
        if not stop.is_set():
            why = _why(running, worker)
            adapter.fail(access_error(why) or AdapterFailed(f"Faust ended by itself: {why!r}"))
        stopping.cancel()
        self._jobs_ended = await adapter.stop()
        with contextlib.suppress(Exception):
            await worker.stop()
        running.cancel()
        await asyncio.gather(running, stopping, return_exceptions=True)
        self.failure = adapter.failure
        return EXIT_OK if adapter.failure is None else EXIT_FAILED

    def _build_app(self, datadir: Path) -> Any:
        settings = faust_settings(self._settings, group=self._group, brokers=self._connection.brokers, datadir=datadir)
        app: Any = faust.App(**{**settings, **self._connection.settings}, loop=self._loop)
        client = FaustGroupClient(app)
        stop = self._stop
        assert stop is not None  # noqa: S101 - set by _main
        self._adapter = adapter = LogAdapter(
            client,
            self._factory,
            self._settings,
            self._metrics,
            on_failure=lambda _: stop.set(),
            on_turn=self._on_turn,
            clock=self._clock,
            wall=self._wall,
        )
        # acks=False: Faust tracks nothing, commits nothing, waits for nothing.
        source = app.topic(self._topic, key_serializer="raw", value_serializer="raw", acks=False)

        async def carry(stream: Any) -> None:
            async for event in stream.events():
                try:
                    await adapter.offer(to_record(event.message))
                except Exception as error:  # an exception out of an agent acknowledges and restarts: never
                    adapter.fail(error)

        async def on_revoked(_: Any, *args: Any, **__: Any) -> None:
            await adapter.revoked([TopicPartition(*tp) for tp in args[0]])

        async def on_assigned(_: Any, *args: Any, **__: Any) -> None:
            await adapter.assigned([TopicPartition(*tp) for tp in args[0]], client.generation())

        app.agent(source, name="carry", concurrency=1)(carry)
        app.on_partitions_revoked.connect(on_revoked)
        app.on_partitions_assigned.connect(on_assigned)
        client.take_over()
        return app

    def _install_signals(self, stop: asyncio.Event) -> None:
        if self._loop is None or threading.current_thread() is not threading.main_thread():
            return  # embedded in another program: that one owns the signals and calls request_stop
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, stop.set)

    def _arm_hard_exit(self) -> None:
        """From now on `stop_timeout_s` remain. A client that does not come back must not keep the process alive."""
        if not self._settings.hard_exit:
            return

        def wait() -> None:
            if not self._finished.wait(self._settings.stop_timeout_s):
                # Once the adapter has stopped cleanly everything is published and committed; what lingers is the
                # client's own teardown, which nobody needs to hear of as a failure.
                clean = self._jobs_ended and self._adapter is not None and self._adapter.failure is None
                sys.stderr.write("the worker did not stop in time: ending the process\n")
                sys.stderr.flush()
                os._exit(EXIT_OK if clean else EXIT_FAILED)

        threading.Thread(target=wait, name="hard-exit", daemon=True).start()


def _why(running: asyncio.Future[Any], worker: Any) -> BaseException | None:
    if running.done() and not running.cancelled() and running.exception() is not None:
        return running.exception()
    reason: BaseException | None = worker.crash_reason
    return reason


def _close_loop(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=1.0))
    loop.run_until_complete(loop.shutdown_asyncgens())
    asyncio.set_event_loop(None)
    loop.close()
