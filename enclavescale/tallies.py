"""What the demo has seen on the topics, counted as any consumer would."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from confluent_kafka import Message

from enclavescale.gate import Release
from enclavescale.live import DomainView
from schemas.codec import decode_signed_output, decode_signed_record
from schemas.errors import SchemaError
from schemas.records import ControlRecord, FleetPower
from schemas.topics import TopicNames

HOSTS = "/hosts/"


def headers_of(message: Message) -> dict[str, str]:
    """A message's headers as text."""
    found: Any = message.headers() or []
    return {name: value.decode("utf-8", "replace") for name, value in found if isinstance(value, bytes)}


@dataclass(slots=True)
class Tallies:
    """Outputs by (domain, window start, revision), refusals by code, and the policy's start in each domain.

    `impostor`: host in whose place a second, modified agent sends `impostor_windows` windows from `start_ms` on: a
    window of this host is there when both have sent it.
    """

    topics: TopicNames
    release: Release
    start_ms: int
    window_ms: int
    impostor: str | None = None
    impostor_windows: int = 0
    outputs: dict[tuple[str, int, int], FleetPower] = field(default_factory=dict)
    views: dict[str, DomainView] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    controls: set[str] = field(default_factory=set)
    beacons: set[str] = field(default_factory=set)
    reports: int = 0
    _refused_at: set[tuple[str, str, str]] = field(default_factory=set)
    _impostor_seen: set[int] = field(default_factory=set)

    def take(self, message: Message) -> None:
        """Count one message of the output, rejections or reports topic."""
        topic, value = message.topic(), message.value()
        if value is None:
            return
        if topic == self.topics.rejections:
            self._refusal(headers_of(message))
        elif topic == self.topics.output:
            self._output(decode_signed_output(value)[0].output)
        else:
            self._report(headers_of(message), value)

    def _refusal(self, headers: Mapping[str, str]) -> None:
        # A dead letter may be sent again after a crash; topic, partition and offset of its source identify it.
        source = tuple(headers.get(f"__connect.errors.{name}", "") for name in ("topic", "partition", "offset"))
        if source not in self._refused_at:
            self._refused_at.add((source[0], source[1], source[2]))
            self.refused[headers.get("enclavescale.error.code", "?")] += 1

    def _output(self, output: FleetPower) -> None:
        self.outputs[output.domain, output.window_start_ms, output.revision] = output
        self.views.setdefault(output.domain, DomainView()).take(output)
        self.release.closed(output.domain, output.window_end_ms)

    def _report(self, headers: Mapping[str, str], value: bytes) -> None:
        source, moment = headers.get("ce_source", ""), headers.get("ce_time", "")
        if source.startswith(HOSTS) and moment:
            self.reports += 1
            self._reported(source.removeprefix(HOSTS), round(datetime.fromisoformat(moment).timestamp() * 1000))
        elif not source:
            with contextlib.suppress(SchemaError):
                body = decode_signed_record(value).body
                if isinstance(body, ControlRecord):
                    if body.kind == "BEACON" and body.domain in self.controls:
                        self.beacons.add(body.domain)  # one that came before its domain began was refused
                    self.controls.add(body.domain)

    def _reported(self, host_id: str, end_ms: int) -> None:
        doubled = host_id == self.impostor and end_ms <= self.start_ms + self.impostor_windows * self.window_ms
        if doubled and end_ms not in self._impostor_seen:
            self._impostor_seen.add(end_ms)
        else:
            self.release.reported(host_id, end_ms)

    def newest(self, end_ms: int) -> dict[tuple[str, int], FleetPower]:
        """Newest revision of every window that starts before `end_ms`, by domain and start."""
        return {(domain, start): one for (domain, start, _), one in sorted(self.outputs.items()) if start < end_ms}

    def firsts(self, end_ms: int) -> int:
        """Windows that start before `end_ms` and have an output."""
        return sum(1 for _, start, revision in self.outputs if revision == 0 and start < end_ms)
