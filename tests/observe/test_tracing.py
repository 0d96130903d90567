"""A worker's spans: one for each output, public attributes only, links to what records say, none where nobody asks."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from enclavescale.tracing import ENDPOINTS, OutputTracer, open_tracer
from schemas.errors import ConfigError
from stream_jobs.tracing import NO_TRACER
from tests.observe.worker_bench import TOPICS, WorkerBench

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traced(tmp_path: Path) -> tuple[WorkerBench, InMemorySpanExporter]:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    bench = WorkerBench(tmp_path)
    bench.context.tracer = OutputTracer(provider)
    return bench, exporter


def outputs(bench: WorkerBench, headers: tuple[tuple[str, bytes], ...]) -> list[dict[str, str]]:
    """Headers of the outputs of four windows whose records carry `headers`."""
    found = []
    for _ in range(4):
        start = bench.now_ms
        bench.now_ms += 10_000
        for item in bench.world.clean(start):
            bench.append(item.value, item.key)
            bench.log[-1] = dataclasses.replace(bench.log[-1], headers=headers)
        bench.read()
        found += [dict(one["headers"]) for one in bench.producer.sent if one["topic"] == TOPICS.output]
        bench.append_written()
    return found


def test_an_output_carries_its_span_which_names_public_facts(tmp_path: Path) -> None:
    bench, exporter = traced(tmp_path)
    sent, spans = outputs(bench, (("traceparent", PARENT.encode()),)), exporter.get_finished_spans()
    assert len(sent) == len(spans) > 1
    for headers, span in zip(sent, spans, strict=True):
        context = span.get_span_context()
        assert context is not None
        assert headers["traceparent"].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
        assert span.parent is None, "whoever writes records decides about no trace of ours"
        assert [f"{link.context.trace_id:032x}" for link in span.links] == [PARENT.split("-")[1]]
        assert span.start_time is not None
        assert span.start_time % 1_000_000 == 0, "the broker's append time"
        assert set(span.attributes or {}) == {
            "messaging.system", "messaging.destination.name", "messaging.destination.partition.id",
            "messaging.kafka.offset", "enclavescale.domain", "enclavescale.window_start_ms", "enclavescale.revision",
            "enclavescale.accepted", "enclavescale.close_reason",
        }  # fmt: skip


@pytest.mark.parametrize("value", [b"", b"junk", b"\xff" * 60, b"00-" + b"0" * 32 + b"-" + b"0" * 16 + b"-01"])
def test_a_header_that_makes_no_sense_is_no_link(tmp_path: Path, value: bytes) -> None:
    bench, exporter = traced(tmp_path)
    assert outputs(bench, (("traceparent", value),))
    assert all(not span.links for span in exporter.get_finished_spans())


def test_without_a_collector_nothing_is_loaded_or_sent(tmp_path: Path) -> None:
    with open_tracer("x", {}) as tracer:
        assert tracer is NO_TRACER
    assert all("traceparent" not in headers for headers in outputs(WorkerBench(tmp_path), ()))


def test_a_collector_without_the_extra_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with (
        pytest.raises(ConfigError, match=re.escape(ENDPOINTS[0])),
        open_tracer("x", {ENDPOINTS[0]: "http://127.0.0.1:4318"}),
    ):
        pass


def test_a_collector_switches_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:1")
    with open_tracer("x") as tracer:
        assert isinstance(tracer, OutputTracer)
