"""What goes through the gateway, and what on the way is changed: DESIGN's "bytes pass through", held against a recording vendor."""

from __future__ import annotations

import json

import httpx
import pytest
from tests.contract.house import ANTHROPIC_SECRET, CHAT, CLAUDE, COST, MESSAGE, MODEL, OPENAI_SECRET, House
from tests.contract.recorder import CHUNKS, DONE, MESSAGE_EVENTS, USAGE_CHUNK, Reply

ODD = b'{ "model" :"gpt-4.1-mini","messages":[ {"role":"user","content":"\\u00e9 \xc3\xa9"}],\n"max_tokens":5 ,"x_new":{"a":1.50,"b":1e2} }'
KEYS = ("sk-kg-", OPENAI_SECRET)


@pytest.fixture(scope="module")
def key(house: House) -> str:
    made: str = house.key("passing")["key"]
    return made


def post(house: House, path: str, content: bytes, **headers: str) -> httpx.Response:
    return house.client.post(path, content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    "path",
    [
        "/openai/v1/chat/completions",
        "/openai/chat/completions",
        "/v1/openai/chat/completions",
        "/v1/openai/v1/chat/completions",
        "/v1/chat/completions",
    ],
)
def test_every_address_form_reaches_the_vendor_with_the_same_bytes(house: House, key: str, path: str) -> None:
    before = len(house.vendor.calls)
    answer = post(house, path, ODD, authorization=f"Bearer {key}")
    assert answer.status_code == 200, answer.text
    [call] = house.vendor.calls[before:]
    assert (call.method, call.path, call.body) == ("POST", "/v1/chat/completions", ODD)
    assert call.header("authorization") == f"Bearer {OPENAI_SECRET}"
    assert call.header("content-length") == str(len(ODD))
    assert answer.content.startswith(b'{ "id":"chatcmpl-1"')
    assert b'"x_unknown":[1.50,"\\u00e9"]' in answer.content
    assert answer.content.endswith(b"}}\n")


@pytest.mark.parametrize(
    "path", ["/anthropic/v1/messages", "/v1/anthropic/v1/messages", "/v1/anthropic/messages", "/anthropic/v1/messages?beta=true"]
)
def test_anthropic_is_reached_under_each_of_its_addresses(house: House, key: str, path: str) -> None:
    call = house.passed(key, path, MESSAGE, anthropic_version="2023-06-01", anthropic_beta="a,b")
    assert call.path == "/v1/messages" + ("?beta=true" if "?" in path else "")
    assert call.header("x-api-key") == ANTHROPIC_SECRET
    assert call.header("authorization") is None
    assert (call.header("anthropic-version"), call.header("anthropic-beta")) == ("2023-06-01", "a,b")
    assert call.json == MESSAGE


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/completions", {"model": MODEL, "prompt": "hi", "max_tokens": 5}),
        ("/responses", {"model": MODEL, "input": "hi", "max_output_tokens": 16}),
        ("/embeddings", {"model": "text-embedding-3-small", "input": "hi"}),
        ("/moderations", {"model": "omni-moderation-latest", "input": "hi"}),
    ],
)
@pytest.mark.parametrize("mount", ["/openai/v1", "/v1"])
def test_each_endpoint_of_openai_is_served(house: House, key: str, mount: str, path: str, body: dict[str, object]) -> None:
    call = house.passed(key, mount + path, body)
    assert (call.path, call.json) == (f"/v1{path}", body)


def test_count_tokens_is_served_and_costs_nothing(house: House) -> None:
    made = house.key("count")
    body = {"model": CLAUDE, "messages": MESSAGE["messages"]}
    assert house.passed(made["key"], "/anthropic/v1/messages/count_tokens", body).json == body
    assert house.keygate.usage(made["id"])["spent_usd"] in {"0", "0.00"}


@pytest.mark.parametrize("form", ["authorization", "x-api-key", "api-key", "x-goog-api-key", "?key"])
@pytest.mark.parametrize("path", ["/openai/v1/chat/completions", "/anthropic/v1/messages"])
def test_the_key_is_taken_in_every_form_and_never_forwarded(house: House, key: str, form: str, path: str) -> None:
    before = len(house.vendor.calls)
    body = CHAT if "openai" in path else MESSAGE
    if form == "?key":
        answer = house.client.post(path, json=body, params={"key": key, "beta": "true"})
    else:
        answer = house.client.post(path, json=body, headers={form: f"Bearer {key}" if form == "authorization" else key})
    assert answer.status_code == 200, answer.text
    [call] = house.vendor.calls[before:]
    whole = f"{call.path} {call.headers} {call.body!r}"
    assert key not in whole
    assert "sk-kg-" not in whole
    if form == "?key":
        assert call.path.endswith("?beta=true")


def test_two_keys_that_differ_are_refused_and_two_that_agree_are_not(house: House, key: str) -> None:
    other = house.key("other")["key"]
    assert house.send(key, x_api_key=other).status_code == 401
    assert house.send(key, x_goog_api_key=key).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "OpenAI-Organization",
        "OpenAI-Project",
        "anthropic-organization-id",
        "anthropic-workspace-id",
        "cookie",
        "x-forwarded-for",
        "proxy-authorization",
    ],
)
def test_headers_about_the_caller_do_not_reach_the_vendor(house: House, key: str, name: str) -> None:
    for path, body in (("/openai/v1/chat/completions", CHAT), ("/anthropic/v1/messages", MESSAGE)):
        before = len(house.vendor.calls)
        assert house.client.post(path, json=body, headers={"authorization": f"Bearer {key}", name: "marked-4713"}).status_code == 200
        [call] = house.vendor.calls[before:]
        if name.lower().split("-")[0] in {"openai", "anthropic"} and name.lower().split("-")[0] not in path:
            continue  # another vendor's header
        assert "marked-4713" not in str(call.headers)


def test_headers_of_the_dialect_reach_the_vendor(house: House, key: str) -> None:
    call = house.passed(key, openai_beta="assistants=v2", user_agent="OpenAI/Python 3.52.0", x_stainless_retry_count="0")
    assert call.header("openai-beta") == "assistants=v2"
    assert call.header("host") == house.vendor.address.removeprefix("http://")


def test_answer_says_its_request_id_and_its_cost(house: House, key: str) -> None:
    answer = house.send(key)
    assert answer.headers["x-request-id"]
    assert answer.headers["x-keygate-cost-usd"] == COST
    assert answer.headers["content-length"] == str(len(answer.content))


def test_a_maximum_is_set_only_where_the_caller_set_none_and_a_hold_needs_one(house: House) -> None:
    body = {"model": MODEL, "messages": CHAT["messages"]}
    free = house.key("free")["key"]
    answer = house.send(free, body=body)
    assert house.vendor.calls[-1].json == body
    assert "x-keygate-max-output-tokens" not in answer.headers
    tight = house.key("tight", budgets=[{"amount_usd": "0.05", "period": "day", "mode": "hard"}])["key"]
    answer = house.send(tight, body=body)
    assert answer.status_code == 200
    maximum = int(answer.headers["x-keygate-max-output-tokens"])
    sent = house.vendor.calls[-1].json
    assert sent.pop("max_completion_tokens", None) == maximum or sent.pop("max_tokens", None) == maximum
    assert sent == body
    assert 0 < maximum <= 5_000  # 0.05 dollars at 10 dollars a million


def test_a_stream_passes_unchanged_and_the_usage_that_nobody_asked_for_is_hidden(house: House, key: str) -> None:
    body = CHAT | {"stream": True}
    call_count = len(house.vendor.calls)
    answer = house.send(key, body=body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-request-id"]
    assert answer.content == b"".join((*CHUNKS, DONE))
    [call] = house.vendor.calls[call_count:]
    assert call.json == body | {"stream_options": {"include_usage": True}}


def test_a_stream_whose_caller_asked_for_usage_is_not_touched(house: House, key: str) -> None:
    content = json.dumps(CHAT | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    answer = post(house, "/openai/v1/chat/completions", content, authorization=f"Bearer {key}")
    assert answer.content == b"".join((*CHUNKS, USAGE_CHUNK, DONE))
    assert house.vendor.calls[-1].body == content


def test_other_stream_options_of_the_caller_stay(house: House, key: str) -> None:
    house.send(key, body=CHAT | {"stream": True, "stream_options": {"include_obfuscation": False}})
    assert house.vendor.calls[-1].json["stream_options"] == {"include_obfuscation": False, "include_usage": True}


def test_an_anthropic_stream_passes_byte_for_byte(house: House, key: str) -> None:
    content = json.dumps(MESSAGE | {"stream": True}).encode()
    answer = post(house, "/anthropic/v1/messages", content, **{"x-api-key": key})
    assert answer.content == MESSAGE_EVENTS
    assert house.vendor.calls[-1].body == content


def test_a_vendors_error_passes_as_it_is_marked_with_its_origin(house: House, key: str) -> None:
    house.vendor.next(
        Reply(
            b'{"error" : {"message":"odd","code":"x"} }',
            429,
            {"content-type": "application/json", "retry-after": "7", "x-request-id": "req_up"},
        )
    )
    answer = house.send(key)
    assert (answer.status_code, answer.content) == (429, b'{"error" : {"message":"odd","code":"x"} }')
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["x-request-id"] != "req_up"
    assert answer.headers["x-upstream-request-id"] == "req_up"
    assert answer.headers["x-keygate-origin"] == "upstream"
    assert "x-keygate-cost-usd" not in answer.headers


def test_a_model_of_the_shared_mount_is_chosen_by_prefix_alias_or_owner(house: House, key: str) -> None:
    assert house.passed(key, "/v1/chat/completions", CHAT | {"model": f"openai/{MODEL}"}).json["model"] == MODEL
    house.call("POST", "/aliases", {"alias": "fast", "target": f"openai/{MODEL}"})
    assert house.passed(key, "/v1/chat/completions", CHAT | {"model": "fast"}).json == CHAT
    assert house.passed(key, "/openai/v1/chat/completions", CHAT | {"model": "fast"}).json == CHAT
    call = house.passed(key, "/v1/chat/completions", CHAT | {"model": f"anthropic/{CLAUDE}"})
    assert (call.path, call.json["model"], call.header("x-api-key") or call.header("authorization")) in {
        ("/v1/chat/completions", CLAUDE, ANTHROPIC_SECRET),
        ("/v1/chat/completions", CLAUDE, f"Bearer {ANTHROPIC_SECRET}"),
    }
    unknown = house.send(key, "/v1/chat/completions", CHAT | {"model": "llama-made-up"})
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "model_not_found")


def test_models_lists_only_what_the_key_may_use_and_calls_nobody(house: House) -> None:
    made = house.key("narrow", models=["openai/gpt-4.1*"])
    before = len(house.vendor.calls)
    for path in ("/openai/v1/models", "/v1/models"):
        answer = house.client.get(path, headers={"authorization": f"Bearer {made['key']}"})
        assert answer.status_code == 200
        names = [model["id"].removeprefix("openai/") for model in answer.json()["data"]]
        assert MODEL in names
        assert all(name.startswith("gpt-4.1") for name in names if name != "fast")  # an alias of such a model
    answer = house.client.get("/anthropic/v1/models", headers={"x-api-key": made["key"]})
    assert (answer.status_code, answer.json()["data"]) == (200, [])
    assert house.client.get(f"/openai/v1/models/{MODEL}", headers={"authorization": f"Bearer {made['key']}"}).json()["id"] == MODEL
    assert house.client.get("/openai/v1/models/gpt-4o", headers={"authorization": f"Bearer {made['key']}"}).status_code == 404
    assert len(house.vendor.calls) == before
    used = house.keygate.usage(made["id"])
    assert used["requests"] == 0


@pytest.mark.parametrize("path", ["/anthropic", "/openai/v1", "/anthropic/v1/messages", "/openai", "/v1"])
def test_head_probes_are_answered_and_unbilled(house: House, path: str) -> None:
    before = len(house.vendor.calls)
    answer = house.client.head(path)
    assert answer.status_code == 200
    assert answer.headers["x-request-id"]
    assert len(house.vendor.calls) == before
