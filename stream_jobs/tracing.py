"""Traces of a worker: a span for each published output. Who makes them is told from outside; by default nobody does."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from schemas.records import FleetPower
from stream_jobs.log_record import LogRecord

Headers = Sequence[tuple[str, str]]


class Tracer(Protocol):
    """Makes spans around what is published."""

    def output(self, output: FleetPower, cause: LogRecord) -> AbstractContextManager[Headers]:
        """Around the publishing of an output; `cause` closed its window. Yields headers that the output is to carry."""


class NoTracer:
    """Makes none."""

    def output(self, output: FleetPower, cause: LogRecord) -> AbstractContextManager[Headers]:
        """Nothing, at no cost."""
        return nullcontext(())


NO_TRACER = NoTracer()
