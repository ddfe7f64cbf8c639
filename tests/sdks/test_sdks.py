"""Official SDKs, installed as packages and configured by environment variables only, against the sandbox and through KeyGate.

Each SDK runs one program once per target; every test then reads one thing from what that program saw.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.sdks.environments import PYTHON_SDKS, node_environment, python_environment
from tests.sdks.targets import Kind, Target, gateway_target, sandbox_target

from keygate.sandbox import Vendor

PROGRAMS = Path(__file__).resolve().parent / "programs"
SDKS = (*PYTHON_SDKS, "openai-node", "anthropic-node")
TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."
OUTPUT = len(TEXT.split())
PERMANENT = {
    Kind.AUTHENTICATION: (401, "AuthenticationError"),
    Kind.PERMISSION: (403, "PermissionDeniedError"),
    Kind.RATE_LIMIT: (429, "RateLimitError"),
}
QUICKLY = 3.0  # seconds, on a busy machine; a single retry after a 429's `retry-after` would already stand in `requests`


@dataclass(frozen=True, slots=True)
class Report:
    sdk: str
    target: Target
    vendor: Vendor
    results: dict[str, Any]

    def __getitem__(self, check: str) -> Any:
        result = self.results[check]
        assert "failed" not in result, result["failed"]
        return result


@pytest.fixture(scope="session", params=["sandbox", "gateway"])
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    made = sandbox_target() if request.param == "sandbox" else gateway_target(tmp_path_factory.mktemp("keygate"))
    with made as running:
        yield running


@pytest.fixture(scope="session", params=SDKS)
def report(request: pytest.FixtureRequest, target: Target, tmp_path_factory: pytest.TempPathFactory) -> Report:
    sdk: str = request.param
    vendor = Vendor(sdk.partition("-")[0])
    return Report(sdk, target, vendor, _run(sdk, vendor, target, home=tmp_path_factory.mktemp(sdk)))


def _run(sdk: str, vendor: Vendor, target: Target, *, home: Path) -> dict[str, Any]:
    """Runs the SDK's program in an empty home with nothing but the variables that the SDK itself reads."""
    refusals: dict[str, Any] = {kind: {"key": target.key(vendor, kind)} for kind in Kind if kind not in {Kind.VALID, Kind.RETRIED}}
    refusals[Kind.RATE_LIMIT]["client"] = {"max_retries": 0}  # the class; how it is retried is `RETRIED`
    program = PROGRAMS / f"{vendor}_client.py"
    command = [str(python_environment(sdk)), "-W", "error", str(program)] if not sdk.endswith("-node") else []
    if not command:
        folder = node_environment()
        # Node finds packages beside the program, not in the working directory.
        program = folder / f"{vendor}_client.mjs"
        program.write_bytes((PROGRAMS / program.name).read_bytes())
        command = ["node", str(program)]
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "OPENAI_BASE_URL": target.openai_base_url,
        "ANTHROPIC_BASE_URL": target.anthropic_base_url,
        f"{vendor.upper()}_API_KEY": target.key(vendor, Kind.VALID),
        "REFUSALS": json.dumps(refusals),
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    results: dict[str, Any] = json.loads(done.stdout)
    again = {**environment, f"{vendor.upper()}_API_KEY": target.key(vendor, Kind.RETRIED), "REFUSALS": "{}", "ONLY": "plain_counted"}
    done = subprocess.run(command, env=again, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return {**results, **json.loads(done.stdout)}


def test_plain_answer(report: Report) -> None:
    plain = report["plain"]
    assert plain["text"] == TEXT
    assert OUTPUT in plain["usage"]


def test_callers_maximum_cuts_the_answer(report: Report) -> None:
    cut = report["cut"]
    assert cut.get("finish", cut.get("stop")) in {"length", "max_tokens"}
    assert 3 in cut.get("usage", [cut.get("output")])


def test_stream_carries_the_whole_text_and_ends(report: Report) -> None:
    streamed = report["streamed"]
    assert streamed["text"] == TEXT
    if report.vendor is Vendor.ANTHROPIC:
        assert (streamed["first"], streamed["last"], streamed["output"]) == ("message_start", "message_stop", OUTPUT)
        assert report["stream_helper"] == {"text": TEXT, "same": True, "output": OUTPUT}


def test_stream_has_usage_only_for_those_who_ask(report: Report) -> None:
    if report.vendor is Vendor.OPENAI:
        assert report["streamed"]["usage"] == []
        asked = report["streamed_usage"]
        assert asked["empty"] == 1
        assert [usage[1] for usage in asked["usage"]] == [OUTPUT]


def test_asynchronous_clients_and_streams(report: Report) -> None:
    assert report["asynchronous"] == {"texts": 1, "text": TEXT}


def test_tools_are_called_and_their_results_accepted(report: Report) -> None:
    tools, streamed = report["tools"], report["tools_streamed"]
    for called in (tools, streamed):
        assert called["name"] == "weather"
        assert called.get("arguments", called.get("input")) == {"city": "sandbox"}
    assert tools["after"] in {"stop", "end_turn"}
    assert streamed.get("finish", streamed.get("stop")) in {"tool_calls", "tool_use"}


def test_images_are_taken(report: Report) -> None:
    assert report["vision"] == {"text": TEXT}


def test_models_are_listed(report: Report) -> None:
    assert ("gpt-4.1-mini" if report.vendor is Vendor.OPENAI else "claude-sonnet-4-6") in report["models"]["ids"]


def test_tokens_are_counted(report: Report) -> None:
    if report.vendor is Vendor.ANTHROPIC:
        assert report["count_tokens"]["input"] == 5  # "Hello": two, and three for the message


def test_embeddings_and_completions_and_moderations(report: Report) -> None:
    if report.vendor is Vendor.OPENAI:
        assert report["embeddings"] == {"lengths": [1536, 1536], "floats": 8}
        assert report["completions"]["usage"][1] == 5
        assert report["moderations"] == {"flagged": False}
        assert report["one_model"] == {"id": "gpt-4.1-mini"}


def test_responses_plain_streamed_and_with_tools(report: Report) -> None:
    if report.vendor is Vendor.OPENAI:
        plain, streamed = report["responses"], report["responses_streamed"]
        assert (plain["text"], plain["status"]) == (TEXT, "completed")
        assert streamed == {"first": "response.created", "last": "response.completed", "text": TEXT, "total": plain["total"]}
        assert report["responses_tools"] == {"name": "weather", "arguments": {"city": "sandbox"}}


@pytest.mark.parametrize("kind", PERMANENT)
def test_refusal_raises_its_own_exception_at_once(report: Report, kind: Kind) -> None:
    status, name = PERMANENT[kind]
    refused = report[kind]
    assert (refused["status"], refused["class"]) == (status, name), refused
    assert refused["requests"] == 1
    assert refused["seconds"] < QUICKLY


def test_spent_budget_is_payment_required_and_is_not_retried(report: Report) -> None:
    refused = report[Kind.PAYMENT]
    generic = "APIError" if report.sdk.endswith("-node") else "APIStatusError"
    assert refused["status"] == 402
    assert refused["class"] == ("PaymentRequiredError" if refused.get("has_payment_class") else generic)
    assert refused["type"] == ("billing_error" if report.vendor is Vendor.ANTHROPIC else "insufficient_quota")
    assert refused["requests"] == 1
    assert refused["seconds"] < QUICKLY


def test_unknown_model_is_refused_without_a_retry(report: Report) -> None:
    refused = report["unknown_model"]
    assert (refused["status"], refused["class"]) in {(404, "NotFoundError"), (403, "PermissionDeniedError")}
    assert refused["requests"] == 1


def test_passing_refusal_is_retried_into_success(report: Report) -> None:
    retried = report["plain_counted"]
    assert retried["class"] is None
    assert retried["requests"] == 2
    assert 1 <= retried["seconds"] < 10
