"""google-genai, driven line by line: a JSON request on standard input, a JSON answer on standard output.

`{base, key, prompt, stream?, vertex?, version?, model?}` → `{"text", "usage": [prompt, candidates, total], "chunks", "finish"}`, or
`{"error": {code, status, message}}`.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from google import genai
from google.genai import errors, types


def call(request: dict[str, Any]) -> dict[str, Any]:
    options = types.HttpOptions(base_url=request["base"], api_version=request.get("version"))
    client = genai.Client(api_key=request["key"], vertexai=request.get("vertex", False), http_options=options)
    wanted: dict[str, Any] = {"model": request.get("model", "gemini-2.5-flash"), "contents": request["prompt"]}
    try:
        if request.get("list"):
            return {"models": [model.name for model in client.models.list()]}
        if request.get("count"):
            return {"tokens": client.models.count_tokens(**wanted).total_tokens}
        chunks = (
            list(client.models.generate_content_stream(**wanted)) if request.get("stream") else [client.models.generate_content(**wanted)]
        )
    except errors.APIError as error:
        return {"error": {"code": error.code, "status": error.status, "message": error.message}}
    last = chunks[-1]
    usage = last.usage_metadata
    return {
        "text": "".join(chunk.text or "" for chunk in chunks),
        "usage": [usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count],
        "chunks": len(chunks),
        "finish": last.candidates[0].finish_reason.name,
    }


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
