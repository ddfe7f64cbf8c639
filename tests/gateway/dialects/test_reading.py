"""What a codec makes of request bodies, friendly and hostile."""

from __future__ import annotations

import json
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.gateway.dialects import BadBody, codec, resolved
from keygate.gateway.dialects.bounds import image_bound
from keygate.vendors import Dialect

CHAT = codec(Dialect.OPENAI_CHAT)
COMPLETIONS = codec(Dialect.OPENAI_COMPLETIONS)
RESPONSES = codec(Dialect.OPENAI_RESPONSES)
EMBEDDINGS = codec(Dialect.OPENAI_EMBEDDINGS)
MESSAGES = codec(Dialect.ANTHROPIC_MESSAGES)
BODIED = [CHAT, COMPLETIONS, RESPONSES, EMBEDDINGS, MESSAGES]
JSON = b"application/json"


def chat(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": "hi"}], **members}).encode()


def messages(**members: Any) -> bytes:
    return json.dumps({"model": "claude-opus-4-8", "max_tokens": 10, "messages": [{"role": "user", "content": "hi"}], **members}).encode()


def responses(**members: Any) -> bytes:
    return json.dumps({"model": "gpt-5", "input": "hi", **members}).encode()


def test_what_is_asked_is_read() -> None:
    facts = CHAT.read(chat(stream=True, stream_options={"include_usage": True}, max_completion_tokens=7, n=3), JSON)
    assert (facts.model, facts.stream, facts.include_usage, facts.usage_on_request) == ("gpt-4.1-mini", True, True, False)
    assert (facts.output_max, facts.answers, facts.unbounded, facts.input_unknown) == (7, 3, (), False)
    facts = CHAT.read(chat(stream=True, max_tokens=None, n=None, tools=None), JSON)
    assert (facts.output_max, facts.answers, facts.usage_on_request) == (None, 1, True)


@pytest.mark.parametrize(
    "twice",
    [
        b'{"model":"allowed","model":"denied","messages":[]}',
        b'{"model":"allowed","messages":[],"mod\\u0065l":"denied"}',
        b'{"mod\\u0065l":"a","m\\u006fdel":"b","messages":[]}',
        b'{"model":"a","model":null,"messages":[]}',
        b'{"model":"a","messages":[],"stream":true,"stream":false}',
        b'{"model":"a","messages":[],"max_tokens":1,"max_tokens":100000}',
        b'{"model":"a","messages":[],"n":1,"\\u006e":9}',
        b'{"model":"a","messages":[],"service_tier":"flex","service_tier":"priority"}',
        b'{"model":"a","messages":[],"tools":[{"type":"web_search"}],"tools":[{"type":"function"}]}',
        b'{"model":"a","messages":[],"tools":[{"type":"web_search","type":"function"}]}',
    ],
)
def test_a_governed_member_that_stands_twice_is_refused_in_every_spelling(twice: bytes) -> None:
    with pytest.raises(BadBody, match="twice"):
        CHAT.read(twice, JSON)


def test_an_escaped_name_is_the_name() -> None:
    assert CHAT.read(b'{"mod\\u0065l":"gpt-5","messages":[]}', JSON).model == "gpt-5"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (chat(model=None), "model"),
        (chat(model=""), "model"),
        (chat(model=7), "model"),
        (chat(model="x" * 257), "model"),
        (chat(model="a\r\nx-evil: 1"), "model"),
        (chat(model="a\x00"), "model"),
        (chat(model="a\u202eb"), "model"),
        (chat(stream="true"), "stream"),
        (chat(stream=1), "stream"),
        (chat(max_tokens=-1), "max_tokens"),
        (chat(max_tokens=1.5), "max_tokens"),
        (chat(max_tokens=True), "max_tokens"),
        (chat(max_tokens="9"), "max_tokens"),
        (chat(max_completion_tokens=2**40), "max_completion_tokens"),
        (chat(n=0), "n"),
        (chat(n=10**6), "n"),
        (chat(stream=True, stream_options=[1]), "stream_options"),
        (chat(messages="x"), "messages"),
        (chat(messages=[1]), "messages[0]"),
    ],
)
def test_a_governed_member_of_the_wrong_type_is_named(body: bytes, field: str) -> None:
    with pytest.raises(BadBody) as caught:
        CHAT.read(body, JSON)
    assert caught.value.field == field


@pytest.mark.parametrize("kind", BODIED, ids=lambda kind: kind.dialect.value)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"null",
        b"[]",
        b'"x"',
        b"{",
        b'{"model":"a"',
        b'{"model":"a"}}',
        b"\xef\xbb\xbf{}",
        b"\xff\xfe{\x00",
        b'{"x":"\xff","model":"a"}',
        b'{"model":"\\ud800"}',
        b'{"model":"a\\udc00b"}',
        b'{"a":' * 50_000,
        b"[" * 100_000,
        b'{"model":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model":"a","messages":' + b'[{"content":' * 20_000,
        b'{"model":NaN}',
        b'{"model":"a","x":1e}',
        b"--boundary\r\n",
    ],
    ids=range(20),
)
def test_what_is_not_a_json_object_is_a_bad_body(kind, body: bytes) -> None:
    with pytest.raises(BadBody):
        kind.read(body, JSON)


def test_other_media_types_are_refused() -> None:
    for kind in (b"multipart/form-data; boundary=x", b"text/plain", b"", b"application/x-www-form-urlencoded"):
        with pytest.raises(BadBody) as caught:
            CHAT.read(chat(), kind)
        assert caught.value.code == "unsupported_media_type"
    for kind in (None, b"application/json; charset=utf-8", b"Application/JSON", b"application/vnd.api+json"):
        CHAT.read(chat(), kind)


NAMES = st.sampled_from(
    [
        "model",
        "stream",
        "max_tokens",
        "max_output_tokens",
        "messages",
        "content",
        "type",
        "tools",
        "input",
        "output",
        "text",
        "source",
        "n",
        "x",
    ]
)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=8)
    | st.sampled_from(["image", "base64", "document"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize("kind", BODIED, ids=lambda kind: kind.dialect.value)
@given(value=JSON_VALUES)
def test_any_json_is_facts_or_a_bad_body(kind, value: Any) -> None:
    body = json.dumps(value).encode()
    try:
        facts = kind.read(body, JSON)
    except BadBody:
        return
    assert facts.model
    assert 0 <= kind.tight_input_bound(body) <= facts.input_bound
    kind.rewrite(body, facts, model="other", max_output=5, include_usage=True)


@pytest.mark.parametrize("kind", BODIED, ids=lambda kind: kind.dialect.value)
@given(body=st.binary(max_size=60))
def test_any_bytes_are_facts_or_a_bad_body(kind, body: bytes) -> None:
    with pytest.raises(BadBody):
        kind.read(body, None)


@given(st.text(max_size=200), st.booleans())
def test_bounds_are_never_less_than_the_bytes_of_the_text(text: str, ascii_only: bool) -> None:
    text = text.encode("utf-8", "ignore").decode()
    body = json.dumps({"model": "gpt-5", "messages": [{"role": "user", "content": text}]}, ensure_ascii=ascii_only).encode()
    facts = CHAT.read(body, JSON)
    assert len(text.encode()) + 4 <= CHAT.tight_input_bound(body) <= facts.input_bound


def test_a_base64_image_counts_by_its_ceiling_where_the_bound_is_tight() -> None:
    image = "data:image/png;base64," + "A" * 400_000
    body = chat(model="gpt-4.1", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": image}}]}])
    assert CHAT.read(body, JSON).input_bound > 400_000
    assert 10_000 < CHAT.tight_input_bound(body) < 26_000
    block = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 400_000}}
    body = messages(messages=[{"role": "user", "content": [block, {"type": "tool_result", "tool_use_id": "t", "content": [block]}]}])
    facts = MESSAGES.read(body, JSON)
    assert (facts.images, facts.input_unknown) == (2, False)
    assert 9_000 < MESSAGES.tight_input_bound(body) < 12_000


def test_text_that_poses_as_a_blob_is_counted() -> None:
    body = chat(messages=[{"role": "user", "content": "x" * 5000, "type": "image_url", "image_url": "no"}])
    assert CHAT.tight_input_bound(body) > 5000
    posing = {"type": "base64", "media_type": "image/png", "data": "x" * 5000}
    body = messages(
        messages=[
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"type": "image", "source": posing}}]}
        ]
    )
    assert MESSAGES.tight_input_bound(body) > 5000
    body = messages(tools=[{"name": "f", "input_schema": {"content": [{"type": "image", "source": posing}]}}])
    assert MESSAGES.tight_input_bound(body) > 5000
    text = {"type": "text", "text": "x" * 5000}
    body = messages(
        messages=[
            {
                "role": "user",
                "content": [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "y" * 5000}}, text],
            }
        ]
    )
    assert MESSAGES.tight_input_bound(body) > 10_000


# (tokens of the dearest image, models): width and height in px by the vendors' rules; see `bounds.py` for their sources.
@pytest.mark.parametrize(
    ("tokens", "models"),
    [
        (85 + 170 * 8, ("gpt-4o", "gpt-4o-2024-05-13", "chatgpt-4o-latest", "gpt-4.1", "gpt-4.5-preview", "gpt-4-turbo", "o1", "o3")),
        (65 + 129 * 8, ("computer-use-preview",)),
        (2833 + 5667 * 8, ("gpt-4o-mini", "gpt-4o-mini-2024-07-18", "openai/gpt-4o-mini")),
        (ceil(1536 * 2.46), ("gpt-4.1-nano", "gpt-5-nano", "gpt-4.1-mini", "gpt-5-mini", "o4-mini", "codex-mini-latest", "gpt-5")),
        (ceil(2500 * 1.2), ("gpt-5.2", "gpt-5.3-codex", "gpt-5.1")),
        (ceil(10_000 * 2.46), ("gpt-5.4", "gpt-5.4-mini", "gpt-5.5", "gpt-5.5-2026-04-23")),
        (ceil(30_000 * 1.2), ("gpt-5.6-sol", "gpt-5.6-luna", "gpt-5.6")),
        (ceil(30_000 * 2.46), ("gpt-6-astra", "gpt-6.1-sol", "gpt-7", "gpt-50", "ft:gpt-4o-mini:us", "our-alias")),
        (4_784, ("claude-opus-4-7", "claude-opus-5-5", "claude-3-haiku", "anthropic/claude-sonnet-5")),
    ],
)  # fmt: skip
def test_no_image_costs_more_than_its_bound(tokens: int, models: tuple[str, ...]) -> None:
    assert all(image_bound(model) >= tokens for model in models)


def test_hidden_tokens_of_tools_are_in_the_bound() -> None:
    plain = MESSAGES.read(messages(), JSON).input_bound
    tool = [{"name": "f", "input_schema": {}}]
    assert MESSAGES.read(messages(tools=tool), JSON).input_bound - plain > 804
    computer = [{"type": "computer_20250124", "name": "computer", "display_width_px": 1, "display_height_px": 1}]
    assert MESSAGES.read(messages(tools=computer), JSON).input_bound - plain > 804 + 735 + 499


def test_an_image_by_url_costs_a_ceiling_and_an_alias_the_largest() -> None:
    part = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}]
    facts = CHAT.read(chat(model="our-alias", messages=part), JSON)
    assert facts.input_bound > 73_000
    assert resolved(facts, "gpt-4.1").input_bound < 26_000
    assert resolved(facts, "gpt-4o-search-preview").unbounded == ("search_model",)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (RESPONSES, responses(previous_response_id="resp_1")),
        (RESPONSES, responses(conversation="conv_1")),
        (RESPONSES, responses(prompt={"id": "pmpt_1"})),
        (RESPONSES, responses(input=[{"type": "item_reference", "id": "x"}])),
        (RESPONSES, responses(input=[{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}])),
        (RESPONSES, responses(input=[{"type": "compaction", "encrypted_content": "x"}])),
        (CHAT, chat(messages=[{"role": "user", "content": [{"type": "file", "file": {"file_data": "x"}}]}])),
        (CHAT, chat(messages=[{"role": "user", "content": [{"type": "hologram"}]}])),
        (MESSAGES, messages(messages=[{"role": "user", "content": [{"type": "document", "source": {"type": "url", "url": "x"}}]}])),
        (MESSAGES, messages(messages=[{"role": "user", "content": [{"type": "document", "source": {"type": "base64", "data": "x"}}]}])),
        (MESSAGES, messages(messages=[{"role": "user", "content": [{"type": "container_upload", "file_id": "x"}]}])),
    ],
)  # fmt: skip
def test_input_that_the_body_does_not_show_is_unknown(kind, body: bytes) -> None:
    assert kind.read(body, JSON).input_unknown


@pytest.mark.parametrize(
    ("kind", "body", "feature"),
    [
        (CHAT, chat(web_search_options={}), "web_search"),
        (CHAT, chat(modalities=["text", "audio"]), "audio"),
        (CHAT, chat(messages=[{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "x"}}]}]), "audio"),
        (CHAT, chat(model="gpt-4o-search-preview"), "search_model"),
        (CHAT, chat(service_tier="ultra"), "service_tier_ultra"),
        (CHAT, chat(service_tier="brand\nnew"), "service_tier_unknown"),
        (RESPONSES, responses(tools=[{"type": "web_search_preview"}]), "web_search_preview"),
        (RESPONSES, responses(tools=[{"type": "function", "name": "f"}, {"type": "mcp"}]), "mcp"),
        (RESPONSES, responses(tools=[{"type": "code_interpreter"}]), "code_interpreter"),
        (RESPONSES, responses(tools=[{}]), "unknown"),
        (RESPONSES, responses(model="o3-deep-research"), "search_model"),
        (RESPONSES, responses(prompt={"id": "x"}), "stored_prompt"),
        (MESSAGES, messages(tools=[{"type": "web_search_20250305", "name": "web_search"}]), "web_search_20250305"),
        (MESSAGES, messages(tools=[{"type": "code_execution_20250825"}]), "code_execution_20250825"),
        (MESSAGES, messages(mcp_servers=[{"url": "x"}]), "mcp_servers"),
        (MESSAGES, messages(speed="warp"), "speed_warp"),
        (MESSAGES, messages(inference_geo="us"), "inference_geo_us"),
    ],
)  # fmt: skip
def test_what_tokens_do_not_bound_is_named(kind, body: bytes, feature: str) -> None:
    assert feature in kind.read(body, JSON).unbounded


def test_tools_that_the_caller_runs_are_bounded() -> None:
    function = {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {"type": {"type": "web_search"}}}},
    }
    assert CHAT.read(chat(tools=[function, function]), JSON).unbounded == ()
    body = messages(tools=[{"name": "f", "input_schema": {}}, {"type": "custom", "name": "g"}, {"type": "bash_20250124", "name": "bash"}])
    facts = MESSAGES.read(body, JSON)
    assert facts.unbounded == ()
    assert facts.input_bound > len(body) + 2000


def test_a_priced_tier_is_passed_on_to_the_price_table() -> None:
    facts = CHAT.read(chat(service_tier="priority"), JSON)
    assert (facts.service_tier, facts.unbounded) == ("priority", ())
    facts = MESSAGES.read(messages(speed="fast"), JSON)
    assert (facts.service_tier, facts.unbounded) == ("fast", ())


def test_background_responses_are_refused_by_name() -> None:
    with pytest.raises(BadBody) as caught:
        RESPONSES.read(responses(background=True), JSON)
    assert (caught.value.field, caught.value.code) == ("background", "unsupported_feature")


def test_anthropic_needs_a_maximum_as_the_vendor_does() -> None:
    with pytest.raises(BadBody) as caught:
        MESSAGES.read(messages(max_tokens=None), JSON)
    assert caught.value.field == "max_tokens"


def test_cache_marks_are_seen_in_every_spelling() -> None:
    assert MESSAGES.read(messages(cache_control={"type": "ephemeral"}), JSON).cache_write_possible
    assert MESSAGES.read(messages().replace(b'"max_tokens"', b'"cache_contr\\u006fl":{},"max_tokens"'), JSON).cache_write_possible
    assert not MESSAGES.read(messages(), JSON).cache_write_possible


def test_completions_multiply_prompts_and_best_of() -> None:
    def read(**members: Any) -> Any:
        return COMPLETIONS.read(json.dumps({"model": "gpt-3.5-turbo-instruct", **members}).encode(), JSON)

    assert (read(prompt="x").answers, read(prompt="x").output_max) == (1, 16)
    assert read(prompt=["a", "b"], best_of=3, n=2).answers == 6
    assert read(prompt=[1, 2, 3]).answers == 1
    assert read(prompt=[[1, 2], [3]]).answers == 2
    assert read(prompt="x", echo=True).extra_output > 0


def test_moderations_have_a_default_model() -> None:
    moderations = codec(Dialect.OPENAI_MODERATIONS)
    assert moderations.read(b'{"input":"x"}', JSON).model == "omni-moderation-latest"
    assert moderations.read(b'{"input":"x"}', JSON).output_free
