"""A vendor that keeps every byte that reached it and answers with fixed bytes. For tests of what the gateway changes, and what not."""

from __future__ import annotations

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

INPUT, OUTPUT = 10, 5  # tokens of every answer


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        found = [value for key, value in self.headers if key.lower() == name]
        assert len(found) <= 1, f"{name} was sent {len(found)} times"
        return found[0] if found else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


# Odd spacing, escapes and members that nobody knows: what passes unchanged shows it.
_CHAT = (
    b'{ "id":"chatcmpl-1","object":"chat.completion","created":1,"model":"gpt-4.1-mini",\n  "x_unknown":[1.50,"\\u00e9"],'
    b'"choices":[{"index":0,"message":{"role":"assistant","content":"hi"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n'
)
_MESSAGE = (
    b'{ "id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5","content":[{"type":"text","text":"hi"}],'
    b'"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":10,"output_tokens":5}}'
)
_RESPONSE = (
    b'{"id":"resp_1","object":"response","status":"completed","model":"gpt-4.1-mini","output":[],'
    b'"usage":{"input_tokens":10,"output_tokens":5,"total_tokens":15,"input_tokens_details":{"cached_tokens":0}}}'
)
_EMBEDDING = (
    b'{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1]}],'
    b'"model":"text-embedding-3-small","usage":{"prompt_tokens":10,"total_tokens":10}}'
)
_MODERATION = b'{"id":"modr-1","model":"omni-moderation-latest","results":[]}'
_TEXT = _CHAT.replace(b"chat.completion", b"text_completion").replace(b'"message":{"role":"assistant","content":"hi"}', b'"text":"hi"')
CHUNKS = tuple(
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4.1-mini","choices":[' + choice + b"]}\n\n"
    for choice in (
        b'{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}',
        b'{"index":0,"delta":{"content":"h\\u00e9"},"finish_reason":null}',
        b'{"index":0,"delta":{},"finish_reason":"stop"}',
    )
)
USAGE_CHUNK = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4.1-mini","choices":[],'
    b'"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}\n\n'
)
DONE = b"data: [DONE]\n\n"
MESSAGE_EVENTS = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","content":[],'
    b'"model":"claude-sonnet-4-5","stop_reason":null,"usage":{"input_tokens":10,"output_tokens":1}}}\n\n'
    b'event: ping\ndata: {"type": "ping"}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hi"}}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":5}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
_STREAM = {"content-type": "text/event-stream; charset=utf-8"}


def _answer(path: str, body: bytes) -> Reply:
    path = path.partition("?")[0]
    asked = json.loads(body) if body else {}
    streams = asked.get("stream") is True
    if path.endswith("/chat/completions") and streams:
        usage = (USAGE_CHUNK,) if (asked.get("stream_options") or {}).get("include_usage") else ()
        return Reply(b"".join((*CHUNKS, *usage, DONE)), headers=_STREAM)
    if path.endswith("/v1/messages") and streams:
        return Reply(MESSAGE_EVENTS, headers=_STREAM)
    plain = {
        "/chat/completions": _CHAT,
        "/completions": _TEXT,
        "/responses": _RESPONSE,
        "/embeddings": _EMBEDDING,
        "/moderations": _MODERATION,
        "/responses/input_tokens": b'{"object":"response.input_tokens","input_tokens":10}',
        "/v1/messages": _MESSAGE,
        "/v1/messages/count_tokens": b'{"input_tokens":10}',
        "/models": b'{"object":"list","data":[]}',
    }
    for tail in sorted(plain, key=len, reverse=True):
        if path.endswith(tail):
            return Reply(plain[tail])
    return Reply(b'{"error":{"message":"no such path"}}', 404)


class Recorder:
    """Use as a context manager. `calls` in the order of arrival; `next(reply)` makes the next answer another one."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._replies: deque[Reply] = deque()
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                recorder.calls.append(Call(self.command, self.path, list(self.headers.items()), body))
                reply = recorder._replies.popleft() if recorder._replies else _answer(self.path, body)
                self.send_response_only(reply.status)
                for name, value in {**reply.headers, "content-length": str(len(reply.body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *_: object) -> None:
                """Silent."""

        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            setattr(Handler, f"do_{method}", Handler.handle_any)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def next(self, reply: Reply) -> None:
        self._replies.append(reply)

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
