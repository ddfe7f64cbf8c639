"""The gateway's own answers: the status, the shape, and whether an SDK tries again."""

from __future__ import annotations

import json

import pytest

from keygate.gateway.answers import worded
from keygate.gateway.dialects import ListedModel, Problem, codec, model_list, one_model, refusal
from keygate.gateway.pipeline import refuse_held
from keygate.ledger import Refusal, RefusalKind
from keygate.policies import Scope
from keygate.vendors import Dialect, ErrorStyle

STATUSES = {
    Problem.BAD_REQUEST: 400, Problem.UNAUTHENTICATED: 401, Problem.BUDGET_SPENT: 402, Problem.FORBIDDEN: 403, Problem.NOT_FOUND: 404,
    Problem.METHOD_NOT_ALLOWED: 405, Problem.REQUEST_TIMEOUT: 408, Problem.BODY_TOO_LARGE: 413, Problem.UNSUPPORTED_MEDIA_TYPE: 415,
    Problem.UPGRADE_REQUIRED: 426, Problem.HELD: 429, Problem.RATE_LIMITED: 429, Problem.INTERNAL: 500, Problem.UPSTREAM_FAILED: 502,
    Problem.UNAVAILABLE: 503, Problem.UPSTREAM_TIMEOUT: 504,
}  # fmt: skip


@pytest.mark.parametrize("problem", Problem)
@pytest.mark.parametrize("style", ErrorStyle)
def test_each_problem_has_its_status_and_the_dialects_shape(problem: Problem, style: ErrorStyle) -> None:
    answer = refusal(style, problem, 'the "rule"\n of team x', request_id="req_1", code="our_code", param="model")
    headers = dict(answer.headers)
    assert answer.status == STATUSES[problem]
    assert headers[b"x-request-id"] == b"req_1"
    body = json.loads(answer.body)
    assert body["error"]["message"] == 'the "rule"\n of team x'
    if style is ErrorStyle.OPENAI:
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert (body["error"]["code"], body["error"]["param"]) == ("our_code", "model")
    else:
        assert (body["type"], body["request_id"], headers[b"request-id"]) == ("error", "req_1", b"req_1")
        assert body["error"]["details"] == {"error_code": "our_code"}


@pytest.mark.parametrize("problem", [p for p, status in STATUSES.items() if status < 500 and status != 429])
def test_a_permanent_refusal_is_not_tried_again(problem: Problem) -> None:
    headers = dict(refusal(ErrorStyle.OPENAI, problem, "no", request_id="r").headers)
    assert headers[b"x-should-retry"] == b"false"
    assert b"retry-after" not in headers


@pytest.mark.parametrize(
    ("asked", "seconds", "milliseconds"),
    [(None, b"1", b"1000"), (1, b"1", b"1"), (1001, b"2", b"1001"), (10**9, b"60", b"60000"), (-5, b"1", b"1")],
)
def test_retry_after_is_whole_seconds_and_at_most_a_minute(asked: int | None, seconds: bytes, milliseconds: bytes) -> None:
    headers = dict(refusal(ErrorStyle.ANTHROPIC, Problem.RATE_LIMITED, "wait", request_id="r", retry_after_ms=asked).headers)
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (seconds, milliseconds)
    assert b"x-should-retry" not in headers


@pytest.mark.parametrize("kind", [RefusalKind.BUDGET_HELD, RefusalKind.RATE_LIMIT, RefusalKind.CONCURRENCY])
@pytest.mark.parametrize("wait", [60_001, 86_400_000, 2**63])
def test_a_wait_of_the_ledger_longer_than_a_minute_is_told_as_a_minute(kind: RefusalKind, wait: int) -> None:
    refused = refuse_held(Refusal(kind, Scope.KEY, "vk_1", "lim_1", "full", wait))
    headers = dict(worded(refused, ErrorStyle.OPENAI, "req_1").headers)
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (b"60", b"60000")


def test_a_hold_in_the_way_is_tried_again() -> None:
    headers = dict(refusal(ErrorStyle.OPENAI, Problem.HELD, "wait", request_id="r").headers)
    assert (headers[b"x-should-retry"], headers[b"retry-after"]) == (b"true", b"1")


def test_nothing_from_outside_reaches_a_header() -> None:
    answer = refusal(ErrorStyle.OPENAI, Problem.FORBIDDEN, "model a\r\nx: y", request_id="req\r\nx-evil: 1", code="c\r\nd")
    assert all(b"\r" not in value and b"\n" not in value for _, value in answer.headers)


@pytest.mark.parametrize("dialect", Dialect)
def test_a_stream_error_is_one_event_of_the_dialect(dialect: Dialect) -> None:
    event = codec(dialect).stream_error("cut:\n\nkey revoked", code="key_revoked", status=403)
    assert event.endswith(b"\n\n")
    assert event.count(b"\n\n") == 1
    decoded = json.loads(event.split(b"data: ")[1])
    assert decoded["error"]["message"] == "cut:\n\nkey revoked"


MODELS = [ListedModel(f"claude-{number}", "anthropic", 1_700_000_000 + number) for number in range(30)]


def test_openai_model_lists_have_the_sdks_shape() -> None:
    body = json.loads(model_list(ErrorStyle.OPENAI, [ListedModel("gpt-5", "openai")]))
    assert body == {"object": "list", "data": [{"id": "gpt-5", "object": "model", "created": 0, "owned_by": "openai"}]}
    assert json.loads(one_model(ErrorStyle.OPENAI, ListedModel("gpt-5", "openai")))["object"] == "model"


def test_anthropic_model_lists_are_paged_as_the_sdk_asks() -> None:
    first = json.loads(model_list(ErrorStyle.ANTHROPIC, MODELS))
    assert (len(first["data"]), first["has_more"], first["first_id"], first["last_id"]) == (20, True, "claude-0", "claude-19")
    assert first["data"][0] == {
        "type": "model",
        "id": "claude-0",
        "display_name": "claude-0",
        "created_at": "2023-11-14T22:13:20Z",
        "lifecycle": "active",
    }
    rest = json.loads(model_list(ErrorStyle.ANTHROPIC, MODELS, b"after_id=claude-19&limit=50"))
    assert (len(rest["data"]), rest["has_more"]) == (10, False)
    back = json.loads(model_list(ErrorStyle.ANTHROPIC, MODELS, b"before_id=claude-5&limit=3"))
    assert ([model["id"] for model in back["data"]], back["has_more"]) == (["claude-2", "claude-3", "claude-4"], True)
    assert json.loads(model_list(ErrorStyle.ANTHROPIC, [])) == {"data": [], "has_more": False, "first_id": None, "last_id": None}


@pytest.mark.parametrize(
    "query", [b"limit=", b"limit=-1", b"limit=x", b"limit=\xff", b"&&&=", b"after_id=nobody", b"limit=" + b"9" * 10_000, b"a&" * 5000]
)
def test_an_odd_query_is_as_none(query: bytes) -> None:
    assert json.loads(model_list(ErrorStyle.ANTHROPIC, MODELS, query))["first_id"] == "claude-0"
