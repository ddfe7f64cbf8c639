"""The official OpenAI SDK, driven line by line, against any vendor that speaks its language.

`{base, key, model, prompt}` → `{"text"}`, or `{"error": {code, status, message}}` with the exception's name as status.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai


def call(request: dict[str, Any]) -> dict[str, Any]:
    client = openai.OpenAI(base_url=request["base"], api_key=request["key"], max_retries=0, timeout=20)
    messages: Any = [{"role": "user", "content": request["prompt"]}]
    try:
        answer = client.chat.completions.create(model=request["model"], messages=messages)
    except openai.APIStatusError as error:
        return {"error": {"code": error.status_code, "status": type(error).__name__, "message": error.message}}
    return {"text": answer.choices[0].message.content}


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
