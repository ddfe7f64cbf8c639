"""A vendor whose answers are marked, and which repeats what it is sent where vendors do: in refusals."""

from __future__ import annotations

import asyncio
import json

from tests.gateway.upstream import DONE, SSE_HEAD, chunk, event, plain
from tests.hostile.evil import EvilUpstream, EvilVendor

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


class Speaker(EvilUpstream):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text

    async def _plain(self, writer: asyncio.StreamWriter) -> bool:
        line = self.seen[-1].line
        if "/messages" in line:
            usage = {"input_tokens": 10, "output_tokens": 5}
            body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5", "stop_reason": "end_turn"}
            body |= {"content": [{"type": "text", "text": self.text}], "usage": usage}
        elif "/responses" in line:
            content = [{"type": "output_text", "text": self.text, "annotations": []}]
            message = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}
            usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15}
            body = {"id": "resp_1", "object": "response", "model": "gpt-4o", "status": "completed", "output": [message], "usage": usage}
        else:
            message = {"role": "assistant", "content": self.text}
            body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o", "usage": USAGE}
            body |= {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        await self._send(writer, plain(json.dumps(body).encode()))
        return True

    async def _sse(self, writer: asyncio.StreamWriter) -> bool:
        shared = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": "gpt-4o"}
        text = event(shared | {"choices": [{"index": 0, "delta": {"content": self.text}, "finish_reason": None}]})
        await self._send(
            writer, SSE_HEAD, chunk(text), chunk(event(shared | {"choices": [], "usage": USAGE})), chunk(event(DONE.decode()[6:-2]))
        )
        await self._send(writer, b"0\r\n\r\n")
        return True

    async def _echo(self, writer: asyncio.StreamWriter) -> bool:
        """A refusal that repeats the key and the prompt, in its body, in a header and in its reason phrase."""
        seen = self.seen[-1]
        key = (seen.header("authorization") or seen.header("x-api-key") or "").removeprefix("Bearer ")
        body = json.dumps(
            {"error": {"message": f"Incorrect API key provided: {key}", "prompt": seen.body.decode("utf-8", "replace")}}
        ).encode()
        await self._send(writer, plain(body, "401 Unauthorized", b"x-your-key: " + key.encode() + b"\r\n"))
        return True


class SpeakingVendor(EvilVendor):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.upstream = Speaker(text)
