"""The official OpenAI SDK, driven line by line: a JSON request on standard input, a JSON answer on standard output.

`{base, admin?, key?, method: "admin.organization.projects.create", arguments, options, all?}` → `{"answer": …}`, validated with the SDK's
own types (`all`: every page of a list), or `{"error": {code, status, message}}`.
"""

from __future__ import annotations

import json
import sys
from functools import reduce
from typing import Any

import openai
import pydantic


def strict(value: Any) -> Any:
    """The SDK builds its models without validation; this validates the same data with the same types."""
    data = value.model_dump(warnings=False, exclude_unset=True, by_alias=True)
    return pydantic.TypeAdapter(type(value)).validate_python(data, by_alias=True, by_name=True).model_dump(mode="json", by_alias=True)


def call(request: dict[str, Any]) -> dict[str, Any]:
    client = openai.OpenAI(
        base_url=request["base"], admin_api_key=request.get("admin"), api_key=request.get("key", "none"), max_retries=0, timeout=10
    )
    method = reduce(getattr, request["method"].split("."), client)
    try:
        answer: Any = method(*request.get("arguments", []), **request.get("options", {}))
        if request.get("all"):
            return {"answer": [strict(each) for each in answer]}
        return {"answer": strict(answer)}
    except openai.APIStatusError as error:
        body = error.body if isinstance(error.body, dict) else {}
        return {"error": {"code": error.status_code, "status": type(error).__name__, "reason": body.get("code"), "message": error.message}}


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
