"""Ids of a worker that runs: an unknown one waits until the registry has been asked (docs/adr/0026)."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_when_event_set,
    wait_random_exponential,
)

from enclavescale.registry.client import Listed, Registry
from enclavescale.registry.errors import RegistryRefused, RegistryUnreachable
from enclavescale.registry.ids import SchemaIds, open_framing, open_ids, write_ids
from enclavescale.registry.options import RegistryOptions
from schemas.codec import Framing, registry_id
from schemas.errors import ConfigError
from schemas.topics import TopicNames
from stream_jobs.hold import Hold

log = logging.getLogger(__name__)

LIST_HOLDS_S = 5.0
"""A list of the registry's versions decides about records met up to so long after it was asked for, s."""

NEWER_AGAIN_S = 30.0
"""A schema of a newer release is looked at again after so long, s: only a newer worker reads it."""

MAX_WAIT_S = 10.0
"""Between two tries while the registry is away, s, at most; the first come after one."""

MAX_MET = 1024
"""Ids whose first meeting is remembered while they wait."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What the registry listed, asked for at `began` (s). `newer`: ids of a later release's schemas."""

    began: float
    newer: frozenset[int]


class RegistryGate:
    """Knows which ids are settled; a thread of its own asks the registry, so that no partition waits for HTTP."""

    def __init__(
        self,
        registry: Registry,
        ids: SchemaIds,
        names: TopicNames,
        *,
        ids_file: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._ids, self._names, self._file, self._clock = registry, ids, names, ids_file, clock
        self.framing: Framing = ids.framing()
        self._answer: _Answer | None = None
        self._met: OrderedDict[int, float] = OrderedDict()
        self._asked, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="schema-ids", daemon=True)
        self._thread.start()

    def settled(self, value: bytes | None) -> bool:
        """Is the id of this value known, or has it none? Changes nothing."""
        number = None if value is None else registry_id(value)
        return number is None or self.framing.named(number) is not None

    def unsettled(self, value: bytes | None) -> Hold | None:
        """Why a record with this value must wait, None if its id is known, or known to be none of ours."""
        number = None if value is None else registry_id(value)
        if number is None or self.framing.named(number) is not None:
            return None
        now, answer = self._clock(), self._answer
        met = self._met.setdefault(number, now)
        if answer is not None and (answer.began >= met or now - answer.began <= LIST_HOLDS_S):
            self._met.pop(number)
            if number not in answer.newer:
                return None
            return Hold(
                f"schema id {number} belongs to a newer release",
                code="SCHEMA_NEWER",
                remedy="Upgrade the worker to the release that registered this schema; then its partition goes on.",
                again=lambda: self._clock() - now >= NEWER_AGAIN_S,
            )
        while len(self._met) > MAX_MET:
            self._met.popitem(last=False)
        self._asked.set()
        return Hold(
            f"schema id {number} is not known, and the registry has not been asked since it was met",
            code="SCHEMA_ID_WAITS",
            remedy="Bring the registry back; who will not wait starts the worker with --schema-ids alone.",
            again=lambda: (last := self._answer) is not None and last.began >= met,
        )

    def close(self) -> None:
        """Stop asking."""
        self._closed.set()
        self._asked.set()
        self._thread.join(timeout=1.0)
        self._registry.close()

    def _run(self) -> None:
        retrying = Retrying(
            retry=retry_if_exception_type((RegistryUnreachable, RegistryRefused)),
            wait=wait_random_exponential(multiplier=1, max=MAX_WAIT_S),
            stop=stop_when_event_set(self._closed),
            sleep=sleep_using_event(self._closed),
            before_sleep=_log,
        )
        while not self._closed.is_set():
            self._asked.wait()
            self._asked.clear()
            if self._closed.is_set():
                return
            try:
                retrying(self._ask)
            except Exception:  # closed meanwhile, or a bug: never silently without an answer for ever
                if not self._closed.is_set():
                    log.exception("asking the schema registry failed")

    def _ask(self) -> None:
        began = self._clock()
        listed = self._registry.listed(self._names)
        if self._ids.add(listed):
            self._keep(listed)
        self._answer = _Answer(began, frozenset(one.number for one in listed if one.newer))

    def _keep(self, listed: list[Listed]) -> None:
        numbers = [one.number for one in listed if one.schema]
        log.warning("the registry gives pinned schemas further ids: %s", numbers)
        if self._file is not None:
            try:
                write_ids(self._file, self._ids)
            except ConfigError as error:
                log.error("the ids are not kept: %s", error)


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome is not None else None
    log.warning("%s; partitions with an unknown schema id wait", error)


def open_gate(options: RegistryOptions, names: TopicNames) -> tuple[Framing, RegistryGate | None]:
    """The framing of a worker and, where it has a registry to ask, the gate that grows it. Raises as `open_ids`.

    Without a registry nothing waits: an id that is not in the file is refused.
    """
    if not options.url:
        return open_framing(options, names), None
    path = Path(options.ids_file) if options.ids_file else None
    gate = RegistryGate(Registry(options, retries=0), open_ids(options, names), names, ids_file=path)
    return gate.framing, gate
