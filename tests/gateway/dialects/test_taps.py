"""What a tap passes on and what it reads, on frozen streams of the vendors' shapes, however they are cut."""

from __future__ import annotations

import gzip
import json
import zlib
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.gateway.dialects import Facts, Reading, codec
from keygate.ledger import TokenUsage
from keygate.vendors import Dialect

SSE = b"text/event-stream; charset=utf-8"


def data(event: Any, *, name: str | None = None) -> bytes:
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n"


def chunk(**members: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4.1-mini-2025-04-14", **members}


def delta(text: str, **members: Any) -> bytes:
    return data(chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}], **members))


CHAT_USAGE = {
    "prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 8, "audio_tokens": 0, "accepted_prediction_tokens": 0},
}  # fmt: skip
CHAT_READ = TokenUsage(input=100, cache_read=64, output=20, reasoning=8)
CHAT_EVENTS = [
    delta("", usage=None, service_tier="default"),
    delta('say "usage":{"prompt_tokens":1} and data: [DONE]', usage=None),
    delta("\u00e9\u2028\n\n", usage=None),
    b": keep-alive\n\n",
    data(chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}], usage=None)),
]
CHAT_EXTRA = data(chunk(choices=[], usage=CHAT_USAGE))
CHAT_DONE = b"data: [DONE]\n\n"
CHAT_STREAM = b"".join([*CHAT_EVENTS, CHAT_EXTRA, CHAT_DONE])

RESPONSE = {"id": "resp_1", "object": "response", "model": "gpt-5-2025-08-07", "service_tier": "default", "error": None}
RESPONSES_USAGE = {
    "input_tokens": 50, "input_tokens_details": {"cached_tokens": 10, "cache_write_tokens": 5}, "output_tokens": 9,
    "output_tokens_details": {"reasoning_tokens": 4}, "total_tokens": 59,
}  # fmt: skip
RESPONSES_STREAM = b"".join(
    [
        data({"type": "response.created", "response": {**RESPONSE, "usage": None}, "sequence_number": 0}, name="response.created"),
        data({"type": "response.output_text.delta", "delta": '"usage"', "sequence_number": 1}, name="response.output_text.delta"),
        data({"type": "response.output_text.delta", "delta": "x", "sequence_number": 2}, name="response.output_text.delta"),
        data(
            {
                "type": "response.completed",
                "response": {**RESPONSE, "output": [{"type": "web_search_call"}, {"type": "message"}], "usage": RESPONSES_USAGE},
            },
            name="response.completed",
        ),
    ]
)
RESPONSES_READ = TokenUsage(input=50, cache_read=10, cache_write=5, output=9, reasoning=4, web_searches=1)

START_USAGE = {
    "input_tokens": 25, "cache_creation_input_tokens": 1000, "cache_read_input_tokens": 300, "output_tokens": 1, "service_tier": "standard",
    "cache_creation": {"ephemeral_5m_input_tokens": 600, "ephemeral_1h_input_tokens": 400},
}  # fmt: skip
MESSAGES_EVENTS = [
    data({"type": "message_start", "message": {"id": "msg_1", "model": "claude-opus-4-8", "usage": START_USAGE}}, name="message_start"),
    data({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, name="content_block_start"),
    data({"type": "ping"}, name="ping"),
    data({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": '"usage":'}}, name="content_block_delta"),
    data({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "!"}}, name="content_block_delta"),
    data({"type": "content_block_stop", "index": 0}, name="content_block_stop"),
    data(
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 15, "input_tokens": 0, "server_tool_use": {"web_search_requests": 2}},
        },
        name="message_delta",
    ),
    data({"type": "message_stop"}, name="message_stop"),
]
MESSAGES_STREAM = b"".join(MESSAGES_EVENTS)
MESSAGES_READ = TokenUsage(input=1325, cache_read=300, cache_write=600, cache_write_1h=400, output=15, web_searches=2)

ASKED = Facts(model="m", stream=True, include_usage=True)
NOT_ASKED = Facts(model="m", stream=True, usage_on_request=True)


def run(
    dialect: Dialect, pieces: list[bytes], *, facts: Facts = ASKED, encoding: bytes | None = None, kind: bytes = SSE
) -> tuple[bytes, Reading]:
    tap = codec(dialect).tap(facts, content_type=kind, content_encoding=encoding)
    passed_on = b"".join([tap.feed(piece) for piece in pieces])
    reading = tap.finish()
    passed_on += reading.rest
    reading.rest = b""
    return passed_on, reading


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({min(place, len(stream)) for place in places} | {0, len(stream)})
    return [stream[start:end] for start, end in pairwise(edges)]


STREAMS = [
    (Dialect.OPENAI_CHAT, CHAT_STREAM, CHAT_READ),
    (Dialect.OPENAI_RESPONSES, RESPONSES_STREAM, RESPONSES_READ),
    (Dialect.ANTHROPIC_MESSAGES, MESSAGES_STREAM, MESSAGES_READ),
]


@pytest.mark.parametrize(("dialect", "stream", "usage"), STREAMS, ids=lambda value: value.value if isinstance(value, Dialect) else "")
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_usage_is_read_and_bytes_pass_unchanged(dialect: Dialect, stream: bytes, usage: TokenUsage, end: bytes) -> None:
    stream = stream.replace(b"\n", end)
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))], [b"\xef\xbb\xbf", stream]):
        passed_on, reading = run(dialect, pieces)
        assert passed_on == b"".join(pieces)
        assert (reading.usage, reading.complete, reading.error) == (usage, True, False)
        assert reading.model_served in {"gpt-4.1-mini-2025-04-14", "gpt-5-2025-08-07", "claude-opus-4-8"}
        assert reading.answer_id in {"chatcmpl-1", "resp_1", "msg_1"}
        assert reading.service_tier in {"default", "standard"}


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["lf", "crlf", "cr"])
def test_the_extra_usage_chunk_is_hidden_from_who_did_not_ask(end: bytes) -> None:
    stream = CHAT_STREAM.replace(b"\n", end)
    expected = b"".join([*CHAT_EVENTS, CHAT_DONE]).replace(b"\n", end)
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
        passed_on, reading = run(Dialect.OPENAI_CHAT, pieces, facts=NOT_ASKED)
        assert passed_on == expected
        assert reading.usage == CHAT_READ


@given(
    places=st.lists(st.integers(0, 2500), max_size=12),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    which=st.sampled_from(STREAMS),
    facts=st.sampled_from([ASKED, NOT_ASKED]),
    tail=st.sampled_from([b"", b"data: {", b": bye\n", b"\n", b"data: [DONE]"]),
)
def test_output_and_reading_do_not_depend_on_how_a_stream_is_cut(places, end, which, facts, tail) -> None:
    dialect, stream, _ = which
    stream = (stream + tail).replace(b"\n", end)
    assert run(dialect, cut(stream, places), facts=facts) == run(dialect, [stream], facts=facts)


@given(
    pieces=st.lists(
        st.binary(max_size=20) | st.sampled_from([b"\n\n", b"data: ", b'{"usage":', b"{}", b"\r", b"event: error\n", b"[DONE]"]),
        max_size=20,
    )
)
@pytest.mark.parametrize("dialect", [stream[0] for stream in STREAMS])
def test_any_bytes_pass_and_never_raise(dialect: Dialect, pieces: list[bytes]) -> None:
    for facts in (ASKED, NOT_ASKED):
        passed_on, _ = run(dialect, pieces, facts=facts)
        if facts is ASKED:
            assert passed_on == b"".join(pieces)
    passed_on, _ = run(dialect, pieces, encoding=b"gzip")
    assert passed_on == b"".join(pieces)
    passed_on, _ = run(dialect, pieces, kind=b"application/json")
    assert passed_on == b"".join(pieces)


def test_a_chunk_without_anything_to_hide_is_passed_on_as_the_same_object() -> None:
    tap = codec(Dialect.OPENAI_CHAT).tap(NOT_ASKED, content_type=SSE, content_encoding=None)
    tap.feed(CHAT_EVENTS[0])
    for event in CHAT_EVENTS[1:]:
        assert tap.feed(event) is event


def test_multi_line_data_is_one_event() -> None:
    lines = json.dumps(chunk(choices=[], usage=CHAT_USAGE), indent=1).encode().splitlines()
    event = b"id: 1\n" + b"".join(b"data:" + line + b"\n" for line in lines) + b"\n"
    assert run(Dialect.OPENAI_CHAT, [event])[1].usage == CHAT_READ
    assert run(Dialect.OPENAI_CHAT, [event], facts=NOT_ASKED)[0] == b""


def test_usage_on_a_chunk_with_choices_is_read_and_not_hidden() -> None:
    stream = data(chunk(choices=[{"index": 0, "delta": {"content": "x"}}], usage=CHAT_USAGE)) + CHAT_DONE
    assert run(Dialect.OPENAI_CHAT, [stream], facts=NOT_ASKED) == (stream, run(Dialect.OPENAI_CHAT, [stream])[1])
    assert run(Dialect.OPENAI_CHAT, [stream])[1].usage == CHAT_READ


def test_the_end_is_known_before_the_last_bytes_leave() -> None:
    tap = codec(Dialect.ANTHROPIC_MESSAGES).tap(ASKED, content_type=SSE, content_encoding=None)
    for event in MESSAGES_EVENTS[:-1]:
        tap.feed(event)
        assert not tap.done
    tap.feed(MESSAGES_EVENTS[-1])
    assert tap.done


def test_a_cut_stream_has_no_usage_but_what_is_known() -> None:
    _, reading = run(Dialect.ANTHROPIC_MESSAGES, MESSAGES_EVENTS[:5])
    assert (reading.usage, reading.complete) == (None, False)
    assert reading.partial is not None
    assert (reading.partial.input, reading.partial.output) == (1325, 5)
    _, reading = run(Dialect.OPENAI_CHAT, CHAT_EVENTS[:3])
    assert (reading.usage, reading.complete, reading.output_seen) == (None, False, 3)


@pytest.mark.parametrize(
    ("dialect", "event"),
    [
        (Dialect.OPENAI_CHAT, data({"error": {"message": "overloaded", "type": "server_error"}})),
        (Dialect.OPENAI_RESPONSES, data({"type": "error", "code": "server_error", "message": "x"}, name="error")),
        (Dialect.OPENAI_RESPONSES, data({"type": "response.failed", "response": {**RESPONSE, "usage": None}}, name="response.failed")),
        (Dialect.ANTHROPIC_MESSAGES, data({"type": "error", "error": {"type": "overloaded_error"}}, name="error")),
    ],
)
def test_an_error_inside_a_stream_is_seen(dialect: Dialect, event: bytes) -> None:
    first = {Dialect.OPENAI_CHAT: CHAT_EVENTS[0], Dialect.OPENAI_RESPONSES: RESPONSES_STREAM.split(b"\n\n")[0] + b"\n\n"}.get(
        dialect, MESSAGES_EVENTS[0]
    )
    assert run(dialect, [first, event])[1].error
    assert run(dialect, [event])[1].error


BAD_COUNTS = [-1, "12", 1.5, True, 10**12, {}, [], None]


@pytest.mark.parametrize("bad", BAD_COUNTS, ids=repr)
def test_garbage_usage_is_unknown(bad: Any) -> None:
    for usage in (
        {**CHAT_USAGE, "prompt_tokens": bad},
        {**CHAT_USAGE, "prompt_tokens_details": {"cached_tokens": bad if bad is not None else -1}},
    ):
        stream = data(chunk(choices=[], usage=usage))
        assert run(Dialect.OPENAI_CHAT, [CHAT_EVENTS[0], stream])[1].usage is None
        assert run(Dialect.OPENAI_CHAT, [json.dumps({"usage": usage}).encode()], kind=b"application/json")[1].usage is None
    start = data({"type": "message_start", "message": {"usage": {"input_tokens": bad, "output_tokens": 1}}}, name="message_start")
    assert run(Dialect.ANTHROPIC_MESSAGES, [start, *MESSAGES_EVENTS[6:]])[1].usage is None or bad is None
    body = json.dumps({"usage": {"input_tokens": bad, "output_tokens": 1}}).encode()
    assert run(Dialect.ANTHROPIC_MESSAGES, [body], kind=b"application/json")[1].usage is None


def test_contradictory_usage_is_unknown() -> None:
    body = json.dumps({"usage": {"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}}}).encode()
    assert run(Dialect.OPENAI_CHAT, [body], kind=b"application/json")[1].usage is None


def test_zeros_that_are_said_are_zeros() -> None:
    body = json.dumps({"usage": {"prompt_tokens": 0, "completion_tokens": 0}}).encode()
    assert run(Dialect.OPENAI_CHAT, [body], kind=b"application/json")[1].usage == TokenUsage()
    assert run(Dialect.OPENAI_CHAT, [b'{"usage":null}'], kind=b"application/json")[1].usage is None
    assert run(Dialect.OPENAI_CHAT, [b"{}"], kind=b"application/json")[1].usage is None


def test_whole_answers_are_read() -> None:
    body = json.dumps(
        {
            "id": "chatcmpl-1",
            "model": "gpt-x",
            "choices": [{"x": {"usage": {"prompt_tokens": 1}}}],
            "usage": CHAT_USAGE,
            "service_tier": "flex",
        }
    )
    _, reading = run(Dialect.OPENAI_CHAT, cut(body.encode(), [5, 50]), kind=b"application/json")
    assert reading == Reading(CHAT_READ, complete=True, model_served="gpt-x", service_tier="flex", answer_id="chatcmpl-1")
    body = json.dumps({"id": "msg_1", "type": "message", "model": "claude-x", "usage": {**START_USAGE, "output_tokens": 15}})
    _, reading = run(Dialect.ANTHROPIC_MESSAGES, [body.encode()], kind=b"application/json")
    assert reading.usage == MESSAGES_READ._replace(web_searches=0)
    assert reading.service_tier == "standard"
    body = json.dumps({"id": "msg_1", "usage": {**START_USAGE, "speed": "fast"}})
    assert run(Dialect.ANTHROPIC_MESSAGES, [body.encode()], kind=b"application/json")[1].service_tier == "fast"
    body = json.dumps({**RESPONSE, "output": [{"type": "web_search_call"}], "usage": RESPONSES_USAGE})
    assert run(Dialect.OPENAI_RESPONSES, [body.encode()], kind=b"application/json")[1].usage == RESPONSES_READ


def test_an_error_body_is_an_error() -> None:
    for dialect, body in ((Dialect.OPENAI_CHAT, {"error": {"message": "x"}}), (Dialect.ANTHROPIC_MESSAGES, {"type": "error", "error": {}})):
        assert run(dialect, [json.dumps(body).encode()], kind=b"application/json")[1].error
    assert run(Dialect.OPENAI_CHAT, [b"<html>bad gateway</html>"], kind=b"text/html")[1] == Reading()


def test_large_embeddings_are_read_from_their_end() -> None:
    vector = json.dumps({"object": "embedding", "embedding": "A" * (3 * 2**20)}).encode()
    body = (
        b'{"object":"list","data":['
        + b",".join([vector] * 4)
        + b'],"model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}'
    )
    pieces = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    assert run(Dialect.OPENAI_EMBEDDINGS, pieces, kind=b"application/json")[1].usage == TokenUsage(input=8)
    assert run(Dialect.OPENAI_EMBEDDINGS, [body], kind=b"application/json")[1].usage == TokenUsage(input=8)


def test_an_endless_event_or_body_is_bounded() -> None:
    tap = codec(Dialect.OPENAI_CHAT).tap(NOT_ASKED, content_type=SSE, content_encoding=None)
    passed_on = sum(len(tap.feed(b"x" * 2**20)) for _ in range(20))
    assert passed_on + len(tap.finish().rest) == 20 * 2**20
    tap = codec(Dialect.OPENAI_CHAT).tap(NOT_ASKED, content_type=b"application/json", content_encoding=None)
    for _ in range(20):
        tap.feed(b"x" * 2**20)
    assert tap.finish() == Reading()


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"x-gzip"])
def test_compressed_answers_are_read_on_the_side(encoding: bytes) -> None:
    packed = zlib.compress(CHAT_STREAM) if encoding == b"deflate" else gzip.compress(CHAT_STREAM)
    for pieces in ([packed], [packed[at : at + 1] for at in range(len(packed))]):
        passed_on, reading = run(Dialect.OPENAI_CHAT, pieces, facts=NOT_ASKED, encoding=encoding)
        assert passed_on == packed
        assert reading.usage == CHAT_READ


def test_a_compression_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(b"x" * (80 * 2**20))
    passed_on, reading = run(Dialect.OPENAI_CHAT, [bomb], encoding=b"gzip", kind=b"application/json")
    assert (passed_on, reading) == (bomb, Reading())


def test_an_unknown_encoding_gives_no_usage() -> None:
    assert run(Dialect.OPENAI_CHAT, [CHAT_STREAM], encoding=b"br") == (CHAT_STREAM, Reading())


def test_cost_of_a_message_whose_start_can_not_be_read_is_not_known() -> None:
    """Only the start says which tier served and for how long the cache keeps what was written."""
    end = data(
        {"type": "message_delta", "usage": {"input_tokens": 14, "cache_creation_input_tokens": 8, "output_tokens": 16}},
        name="message_delta",
    )
    for start in (b"", b"event: message_start\ndata: {\"type'\n\n"):
        _, reading = run(Dialect.ANTHROPIC_MESSAGES, [start + end + MESSAGES_EVENTS[-1]])
        assert (reading.usage, reading.complete) == (None, True)
