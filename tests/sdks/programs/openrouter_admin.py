"""The official OpenRouter SDK, driven line by line: a JSON request on standard input, a JSON answer on standard output.

`{base, key, method: "api_keys.create", options: {..}}` → `{"answer": …}` or `{"error": {code, status, message}}`. The SDK validates what it
is answered.
"""

from __future__ import annotations

import json
import sys
from functools import reduce
from typing import Any

from openrouter import OpenRouter, errors


def call(request: dict[str, Any]) -> dict[str, Any]:
    with OpenRouter(api_key=request["key"], server_url=request["base"], timeout_ms=10_000, retry_config=None) as client:
        method = reduce(getattr, request["method"].split("."), client)
        try:
            answer = method(**request.get("options", {}))
        except errors.OpenRouterError as error:
            return {"error": {"code": error.status_code, "status": type(error).__name__, "message": error.message}}
        return {"answer": answer.model_dump(mode="json", by_alias=True)}


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
