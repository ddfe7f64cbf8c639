"""A vendor that answers with a marked text, whole or as a stream, and remembers the headers that reached it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PROMPT, ANSWER = "CANARY-prompt-7f3a", "CANARY-answer-91bc"
USAGE = {"prompt_tokens": 12, "completion_tokens": 7, "total_tokens": 19}


def chat(**members: Any) -> dict[str, Any]:
    return {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 20} | members


def _plain() -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    return json.dumps({"id": "c1", "object": "chat.completion", "model": "gpt-4.1-mini", "choices": [choice], "usage": USAGE}).encode()


def _events() -> bytes:
    def event(choices: list[Any], **more: Any) -> bytes:
        return b"data: %b\n\n" % json.dumps({"id": "c1", "object": "chat.completion.chunk", "choices": choices, **more}).encode()

    words = event([{"index": 0, "delta": {"content": ANSWER}, "finish_reason": None}])
    return words + event([{"index": 0, "delta": {}, "finish_reason": "stop"}]) + event([], usage=USAGE) + b"data: [DONE]\n\n"


class MarkedVendor:
    """Use as a context manager. `fail`: the status of the next answers, with the marked text in them."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.fail: int | None = None
        vendor = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                vendor.headers.append({name.lower(): value for name, value in self.headers.items()})
                streams = asked.get("stream") is True and vendor.fail is None
                body = _events() if streams else _plain() if vendor.fail is None else b'{"error":{"message":"%b"}}' % ANSWER.encode()
                self.send_response_only(vendor.fail or 200)
                self.send_header("content-type", "text/event-stream" if streams else "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Silent."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
