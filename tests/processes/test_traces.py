"""Traces: one span per request where a collector is named, and nothing where none is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal

import httpx
import pytest
from tests.processes.collector import Collector
from tests.processes.vendor import ANSWER, PROMPT, MarkedVendor, chat
from tests.running import RunningKeyGate

SERVER, ERROR = 2, 2  # of the enumerations SpanKind and StatusCode
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRET = "sk-vendor-secret-0000000"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def send(
    keygate: RunningKeyGate, key: str, *, path: str = "/openai/v1/chat/completions", trace: str | None = None, **members: object
) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}", **({} if trace is None else {"traceparent": trace, "tracestate": "a=b", "baggage": "c=d"})}
    return httpx.post(f"{keygate.url}{path}", json=chat(**members), headers=headers, timeout=10)


def test_each_request_is_one_span_with_what_it_was_and_cost(tmp_path, vendor: MarkedVendor, collector: Collector) -> None:
    settings = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"{collector.url}/",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-collector-key=abc",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with RunningKeyGate(tmp_path, environment=settings) as keygate:
        keygate.credential("openai", vendor.url, SECRET)
        team = keygate.call("POST", "/teams", {"name": "traced"})
        key = keygate.key(owner={"team_id": team["id"]}, models=["openai/gpt-4.1-mini"])
        plain = send(keygate, key["key"], trace=f"00-{TRACE}-{PARENT}-01")
        (span,) = collector.wait(1)
        assert (span.name, span.kind, span.status, span.service) == ("chat gpt-4.1-mini", SERVER, 0, "keygate")
        assert (span.trace_id, span.parent_id) == (TRACE, PARENT)
        assert 0 < span.seconds < 10
        found = span.attributes
        assert {name: found[name] for name in found if name.startswith(("http.", "gen_ai."))} == {
            "http.request.method": "POST",
            "http.route": "/v1/chat/completions",
            "http.response.status_code": 200,
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4.1-mini",
            "gen_ai.response.model": "gpt-4.1-mini",
            "gen_ai.usage.input_tokens": 12,
            "gen_ai.usage.output_tokens": 7,
            "gen_ai.usage.cache_read.input_tokens": 0,
            "gen_ai.usage.cache_creation.input_tokens": 0,
        }
        assert found["keygate.request.id"] == plain.headers["x-request-id"]
        assert (found["keygate.key.id"], found["keygate.team.id"]) == (key["id"], team["id"])
        assert Decimal(found["keygate.cost.nano_usd"]) / 10**9 == Decimal(plain.headers["x-keygate-cost-usd"])
        assert (found["keygate.outcome"], found["keygate.stream"]) == ("finished", False)
        assert not {"traceparent", "tracestate", "baggage"} & set(vendor.headers[-1])  # the caller's trace is not the vendor's business

        send(keygate, key["key"], stream=True)
        streamed = collector.wait(2)[1]
        assert (streamed.parent_id, streamed.attributes["keygate.stream"]) == ("", True)
        assert streamed.attributes["gen_ai.usage.output_tokens"] == 7

        refused = send(keygate, key["key"], model="gpt-4.1")
        denied = collector.wait(3)[2]
        assert denied.attributes["http.response.status_code"] == refused.status_code == 403
        assert denied.attributes["keygate.rule"] == denied.attributes["error.type"] == "model_not_allowed"
        assert denied.attributes["keygate.request.id"] == refused.headers["x-request-id"]
        assert "keygate.outcome" not in denied.attributes

        vendor.fail = 500
        send(keygate, key["key"])
        failed = collector.wait(4)[3]
        assert (failed.status, failed.attributes["keygate.outcome"], failed.attributes["error.type"]) == (ERROR, "upstream_error", "500")

        assert send(keygate, "sk-kg-made-up", trace="not a parent").status_code == 401
        made_up = collector.wait(5)[4]
        assert made_up.attributes["keygate.rule"] == "invalid_api_key"
        assert made_up.parent_id == ""

        vendor.fail = None
        began = time.monotonic()
        send(keygate, key["key"])
        assert keygate.stop() < 5
        assert time.monotonic() - began < 10
        collector.wait(6, seconds=1)  # what waits is sent at a stop
    assert {headers["x-collector-key"] for headers in collector.headers} == {"abc"}
    for mark in (PROMPT, ANSWER, SECRET, key["key"], "sk-kg-"):
        assert mark.encode() not in collector.raw


def test_a_collector_that_is_away_delays_neither_requests_nor_the_stop(tmp_path, vendor: MarkedVendor) -> None:
    with RunningKeyGate(tmp_path, environment={"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}) as keygate:
        keygate.credential("openai", vendor.url, SECRET)
        key = keygate.key()["key"]
        assert send(keygate, key).status_code == 200
        assert keygate.stop() < 5


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "set it to http/protobuf"),
        ({"PYTHONPATH": "shadow"}, "install keygate-server[otel]"),
    ],
)
def test_what_stands_in_the_way_of_traces_is_said_with_the_remedy(tmp_path, settings: dict[str, str], remedy: str) -> None:
    shadow = tmp_path / "shadow"
    shadow.mkdir()
    (shadow / "sitecustomize.py").write_text("import sys; sys.modules['opentelemetry.sdk'] = None  # as if the extra were not installed")
    with RunningKeyGate(tmp_path, environment={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", **settings}) as keygate:
        assert keygate.call("GET", "/virtual-keys")["items"] == []
    assert remedy in keygate.log.read_text()


def test_without_a_collector_nothing_of_the_extra_is_loaded(tmp_path) -> None:
    with RunningKeyGate(tmp_path, environment={"PYTHONVERBOSE": "1"}) as keygate:
        keygate.stop()
    log = keygate.log.read_text(errors="replace")
    assert "import 'keygate.processes.tracing'" in log
    assert "import 'opentelemetry.sdk" not in log
    assert "import 'opentelemetry.exporter" not in log
