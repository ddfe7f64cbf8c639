"""Requests that the tests of the sandbox make, and how a stream is read."""

from __future__ import annotations

import json
from typing import Any

import httpx

TOOL_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
}
CHAT_TOOL = {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": TOOL_SCHEMA}}
RESPONSES_TOOL = {"type": "function", "name": "weather", "description": "The weather.", "parameters": TOOL_SCHEMA, "strict": False}
ANTHROPIC_TOOL = {"name": "weather", "description": "The weather.", "input_schema": TOOL_SCHEMA}


def chat(prompt: str = "Hello", **members: Any) -> dict[str, Any]:
    return {"model": "gpt-4.1-mini", "messages": [{"role": "user", "content": prompt}], **members}


def responses(prompt: str = "Hello", **members: Any) -> dict[str, Any]:
    return {"model": "gpt-4.1-mini", "input": prompt, **members}


def messages(prompt: str = "Hello", **members: Any) -> dict[str, Any]:
    return {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": prompt}], **members}


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of each event of a whole stream; `[DONE]` is left out."""
    assert answer.status_code == 200, answer.text
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]
