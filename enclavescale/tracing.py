"""OpenTelemetry traces of a worker, where the environment names a collector (OTEL_EXPORTER_OTLP_ENDPOINT).

A span stands for an output: from when the broker appended the record that closed its window until the output is
acknowledged. Its context goes with the output (`traceparent`, W3C), so that whoever consumes it goes on with the trace.
A `traceparent` on the record is a link and no parent: whoever writes records decides about no trace of ours. Attributes
are in the output or in the log's addresses anyway.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from schemas.errors import ConfigError
from schemas.records import FleetPower
from stream_jobs.log_record import LogRecord
from stream_jobs.tracing import NO_TRACER, Headers, Tracer

if TYPE_CHECKING:
    from opentelemetry.trace import Link

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own names: one of them switches traces on."""


class OutputTracer:
    """Spans of outputs, given to `provider` (an SDK `TracerProvider`)."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

        self._provider, self._context = provider, TraceContextTextMapPropagator()
        self._tracer = provider.get_tracer("enclavescale", version("enclavescale"))

    @contextlib.contextmanager
    def output(self, output: FleetPower, cause: LogRecord) -> Iterator[Headers]:
        """A span from the append of `cause` to the acknowledgement; yields its `traceparent`."""
        from opentelemetry.trace import SpanKind  # noqa: PLC0415

        attributes = {
            "messaging.system": "kafka",
            "messaging.destination.name": cause.topic,
            "messaging.destination.partition.id": str(cause.partition),
            "messaging.kafka.offset": cause.offset,
            "enclavescale.domain": output.domain,
            "enclavescale.window_start_ms": output.window_start_ms,
            "enclavescale.revision": output.revision,
            "enclavescale.accepted": output.accepted,
            "enclavescale.close_reason": output.source.close_reason,
        }
        with self._tracer.start_as_current_span(
            f"publish {output.domain}",
            kind=SpanKind.PRODUCER,
            attributes=attributes,
            links=self._links(cause),
            start_time=cause.timestamp_ms * 1_000_000,
            record_exception=False,  # texts of errors name brokers and more
            set_status_on_exception=False,
        ):
            carrier: dict[str, str] = {}
            self._context.inject(carrier)
            yield tuple(carrier.items())

    def _links(self, cause: LogRecord) -> list[Link]:
        from opentelemetry.context import Context  # noqa: PLC0415
        from opentelemetry.trace import Link, get_current_span  # noqa: PLC0415

        texts = [value for name, value in cause.headers if name == "traceparent" and value is not None]
        found = self._context.extract({"traceparent": texts[-1].decode("ascii", "replace")} if texts else {}, Context())
        context = get_current_span(found).get_span_context()
        return [Link(context)] if context.is_valid else []

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()


@contextlib.contextmanager
def open_tracer(service: str, environment: Mapping[str, str] = os.environ) -> Iterator[Tracer]:
    """The tracer that the environment asks for, by default one that does nothing.

    Raises ConfigError where it asks for one and the extra `otel` is not installed.
    """
    if not any(environment.get(name) for name in ENDPOINTS):
        yield NO_TRACER
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"{ENDPOINTS[0]} asks for traces, and OpenTelemetry is not installed",
            field=ENDPOINTS[0],
            remedy="Install enclavescale with its extra `otel`, or unset the variable.",
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = OutputTracer(provider)
    try:
        yield tracer
    finally:
        tracer.close()
