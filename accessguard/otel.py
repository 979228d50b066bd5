"""Traces by OpenTelemetry, where they are switched on: `pip install accessguard[otel]` and `[tracing] endpoint`.

A span has its entry, its status and its time, and the name of a store: nobody's
id, address or path. Checks that the fast lane answers from memory have none:
they take microseconds, which a span would multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from http import HTTPStatus

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from accessguard import __version__
from accessguard.config import Tracing as Settings
from accessguard.tracing import TRACING, Span

NAME = "accessguard"


class OtelSpan:
    """A span of a request."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def ended(self, status: int) -> None:
        """Note what it was answered; only failures of the service are errors (semantic conventions for HTTP servers)."""
        self._span.set_attribute("http.response.status_code", status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            self._span.set_status(Status(StatusCode.ERROR))


class OtelSpans:
    """Makes spans with one tracer."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer(NAME, __version__)
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def entry(self, name: str, traceparent: str | None) -> Iterator[Span]:
        """A span of a server; what its caller's trace says of sampling holds."""
        parent = self._propagator.extract({"traceparent": traceparent} if traceparent else {})
        with self._tracer.start_as_current_span(
            f"accessguard {name}", context=parent, kind=SpanKind.SERVER, record_exception=False
        ) as span:
            span.set_attribute("accessguard.entry", name)
            yield OtelSpan(span)

    def store(self, name: str) -> AbstractContextManager[object]:
        """A span of a client; an error has its kind alone, as its words may name somebody."""
        system = "postgresql" if name != "valkey" else "valkey"
        return self._tracer.start_as_current_span(
            name, kind=SpanKind.CLIENT, attributes={"db.system.name": system}, record_exception=False
        )


def switch_on(settings: Settings, exporter: SpanExporter | None = None) -> Callable[[], None]:
    """Begin to make spans, sent to `settings.endpoint` (or an exporter of a test); what to call at the end.

    They are sent from a thread of their own; when they cannot be, they are dropped.
    """
    sampler = ParentBased(TraceIdRatioBased(settings.ratio))
    provider = TracerProvider(sampler=sampler, resource=Resource.create({"service.name": NAME}))
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter(endpoint=settings.endpoint)))
    TRACING.spans = OtelSpans(provider)

    def switch_off() -> None:
        TRACING.spans = None
        provider.shutdown()

    return switch_off
