"""One OpenTelemetry span per gateway request. Imported only where traces are on: the packages are an extra.

Attributes follow the semantic conventions for HTTP and for generative AI (opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans,
checked 2026-11-21); what they have no name for stands under `keygate.`. No content, no secret. Which sampler, headers, time-outs and
resource: OpenTelemetry's own variables, which its SDK reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Self

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from keygate import __version__
from keygate.gateway.observation import Ended
from keygate.ledger import Outcome
from keygate.vendors import EndpointGroup

_OPERATIONS = {
    EndpointGroup.CHAT.value: "chat",
    EndpointGroup.RESPONSES.value: "chat",
    EndpointGroup.COMPLETIONS.value: "text_completion",
    EndpointGroup.EMBEDDINGS.value: "embeddings",
}
_LAST_SECONDS = 2.0  # to send what waits, at a stop


class Spans:
    """The gateway's `Observer`. A span is put into a bounded queue that a thread empties; where it is full, spans are dropped."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("keygate", __version__)
        self._parents = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str) -> Self:
        """`endpoint`: the whole address of a collector that takes OTLP over HTTP."""
        resource = Resource.create({SERVICE_VERSION: __version__})
        if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
            resource = resource.merge(Resource({SERVICE_NAME: "keygate"}))
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        return cls(provider)

    async def close(self) -> None:
        """Sends what waits, for a moment; a collector that is away delays no stop."""

        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def close() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # too late: the loop has ended
                loop.call_soon_threadsafe(done.set)

        threading.Thread(target=close, name="traces", daemon=True).start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(done.wait(), _LAST_SECONDS)

    def ended(self, ended: Ended) -> None:
        parent = self._parents.extract({"traceparent": ended.traceparent.decode("latin-1")}, Context()) if ended.traceparent else Context()
        operation = _OPERATIONS.get(ended.endpoint or "", ended.endpoint)
        name = f"{operation} {ended.model_asked}" if operation and ended.model_asked else f"{ended.method} {ended.route or ''}".rstrip()
        span = self._tracer.start_span(
            name,
            context=parent,
            kind=SpanKind.SERVER,
            start_time=ended.began_at_ns,
            attributes={name: value for name, value in _attributes(ended, operation).items() if value is not None},
        )
        if ended.status >= 500 or ended.outcome is Outcome.UPSTREAM_LOST:
            span.set_status(StatusCode.ERROR)
        span.end(ended.began_at_ns + ended.latency_ns)


def _attributes(ended: Ended, operation: str | None) -> dict[str, str | int | float | bool | None]:
    usage = ended.usage
    failed = ended.rule or (str(ended.status) if ended.status >= 400 else None)
    if failed is None and ended.outcome is Outcome.UPSTREAM_LOST:
        failed = ended.outcome.value
    return {
        "http.request.method": ended.method,
        "http.route": ended.route,
        "http.response.status_code": ended.status or None,
        "error.type": failed,
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": ended.vendor,
        "gen_ai.system": ended.vendor,  # its name until 1.37 of the conventions
        "gen_ai.request.model": ended.model_asked or None,
        "gen_ai.response.model": ended.model_served,
        "gen_ai.usage.input_tokens": usage.input if usage is not None else None,
        "gen_ai.usage.output_tokens": usage.output if usage is not None else None,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read if usage is not None else None,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write + usage.cache_write_1h if usage is not None else None,
        "keygate.request.id": ended.request_id,
        "keygate.organization.id": ended.organization_id,
        "keygate.team.id": ended.team_id,
        "keygate.developer.id": ended.developer_id,
        "keygate.app.id": ended.app_id,
        "keygate.key.id": ended.key_id,
        "keygate.credential.id": ended.credential_id,
        "keygate.endpoint": ended.endpoint,
        "keygate.model": ended.model,
        "keygate.stream": ended.streamed,
        "keygate.outcome": ended.outcome.value if ended.outcome is not None else None,
        "keygate.rule": ended.rule,
        "keygate.cost.nano_usd": ended.cost_nano,
        "keygate.cost.usd": ended.cost_nano / 1e9 if ended.cost_nano is not None else None,
        "keygate.first_byte_ms": round(ended.first_byte_ns / 1e6, 3) if ended.first_byte_ns is not None else None,
    }
