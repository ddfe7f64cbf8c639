"""Traces, where the environment names a collector by OpenTelemetry's own variables and the extra `otel` is installed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from keygate.config import Settings

if TYPE_CHECKING:
    from keygate.processes.spans import Spans

_log = logging.getLogger(__name__)
_PROTOCOL = "http/protobuf"


def tracing(settings: Settings) -> Spans | None:
    """None where nobody asked for traces: then nothing of OpenTelemetry is imported. The variables are often set for a whole machine, so
    what stands in the way is a warning and no reason not to start."""
    endpoint = settings.traces_endpoint
    if endpoint is None:
        return None
    if settings.otel_protocol not in {"", _PROTOCOL}:
        _log.warning("no traces: OTEL_EXPORTER_OTLP_PROTOCOL names a protocol that KeyGate does not speak; set it to %s", _PROTOCOL)
        return None
    try:
        from keygate.processes.spans import Spans  # noqa: PLC0415  (an extra: imported only where it is asked for)
    except ImportError:
        _log.warning(
            "no traces: a collector is named in the environment, but OpenTelemetry is not installed; "
            "install keygate-server[otel], or unset OTEL_EXPORTER_OTLP_ENDPOINT"
        )
        return None
    return Spans.to(endpoint)
