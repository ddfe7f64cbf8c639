"""The official Anthropic SDK, driven line by line: a JSON request on standard input, a JSON answer on standard output.

`{base, key?, token?, federation?, method: "organization.workspaces.create", arguments, options, all?}` → `{"answer": …}`, validated with
the SDK's own types (`all`: every page of a list), or `{"error": {code, status, reason, message}}`. `federation`: what the SDK trades
for a token by itself: {identity_token, federation_rule_id, organization_id, service_account_id?, workspace_id?}. `environment`: the
variables that a holder of the key sets, and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
from functools import reduce
from typing import Any

import anthropic
import pydantic
from anthropic.lib.credentials import WorkloadIdentityCredentials, WorkloadIdentityError


def strict(value: Any) -> Any:
    """The SDK builds its models without validation; this validates the same data with the same types."""
    data = value.model_dump(warnings=False, exclude_unset=True, by_alias=True)
    return pydantic.TypeAdapter(type(value)).validate_python(data, by_alias=True, by_name=True).model_dump(mode="json", by_alias=True)


def client_of(request: dict[str, Any]) -> anthropic.Anthropic:
    if "environment" in request:
        return anthropic.Anthropic(max_retries=0, timeout=10)
    options: dict[str, Any] = {"base_url": request["base"], "max_retries": 0, "timeout": 10}
    if "federation" in request:
        given = dict(request["federation"])
        token = given.pop("identity_token")
        return anthropic.Anthropic(credentials=WorkloadIdentityCredentials(identity_token_provider=lambda: token, **given), **options)
    if "token" in request:
        return anthropic.Anthropic(auth_token=request["token"], **options)
    return anthropic.Anthropic(api_key=request["key"], **options)


def call(request: dict[str, Any]) -> dict[str, Any]:
    client = client_of(request)
    method = reduce(getattr, request["method"].split("."), client)
    try:
        answer: Any = method(*request.get("arguments", []), **request.get("options", {}))
        if request.get("all"):
            return {"answer": [strict(each) for each in answer]}
        return {"answer": strict(answer)}
    except WorkloadIdentityError as error:
        return {"error": {"code": error.status_code, "status": type(error).__name__, "reason": "token", "message": str(error)}}
    except anthropic.APIStatusError as error:
        told = {"status": type(error).__name__, "reason": getattr(error, "error_code", None), "message": error.message}
        return {"error": {"code": error.status_code, **told}}


for line in sys.stdin:
    asked = json.loads(line)
    own = asked.get("environment", {})
    os.environ.update(own)  # the SDK looks again at each call
    print(json.dumps(call(asked)), flush=True)
    for name in own:
        del os.environ[name]
