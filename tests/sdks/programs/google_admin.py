"""Google's own client for its admin APIs, driven line by line: a JSON request on standard input, a JSON answer on standard output.

`{base, credentials, service, version, method: "projects.serviceAccounts.create", arguments: {…}}` → `{"answer": …}`, or
`{"error": {code, status, reason, message}}`. `base`: each service stands below it by name; `credentials`: a key file's text.
Answers are held against the API's published description; one that doesn't fit ends the program.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from google.auth.exceptions import RefreshError
from google.oauth2 import service_account
from googleapiclient import discovery_cache
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

BELOW = {"bigquery": "/bigquery/v2/"}  # what the client thinks to be part of the endpoint
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]


@cache
def signed_in(file: str) -> Any:
    return service_account.Credentials.from_service_account_info(json.loads(file), scopes=SCOPES)


@cache
def client(base: str, credentials: str, service: str, version: str) -> Any:
    return build(
        service,
        version,
        static_discovery=True,
        cache_discovery=False,
        credentials=signed_in(credentials),
        client_options={"api_endpoint": f"{base}/{service}{BELOW.get(service, '')}"},
        num_retries=0,
    )


@cache
def document(service: str, version: str) -> Any:
    """The service's published description, which the client brings along."""
    return json.loads((Path(discovery_cache.__file__).parent / "documents" / f"{service}.{version}.json").read_text())


def strange(schemas: Any, schema: Any, value: Any, at: str) -> str | None:
    """Where a value is not what its published schema says: a member that there is not, another type, a word that is no choice."""
    if "$ref" in schema:
        return strange(schemas, schemas[schema["$ref"]], value, at)
    kind = schema.get("type", "any")
    fits = {"string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict}
    if kind in fits and not isinstance(value, fits[kind]):
        return f"{at}: {type(value).__name__} instead of {kind}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{at}: {value} is not one of {schema['enum']}"
    if kind == "array":
        found = [strange(schemas, schema["items"], each, f"{at}[]") for each in value]
        return next(filter(None, found), None)
    if kind != "object":
        return None
    known, more = schema.get("properties", {}), schema.get("additionalProperties")
    for name, each in value.items():
        inner = known.get(name, more)
        if inner is None:
            return f"{at}.{name}: there is no such member"
        told = strange(schemas, inner, each, f"{at}.{name}")
        if told:
            return told
    return None


def checked(request: dict[str, Any], answer: Any) -> Any:
    described = document(request["service"], request["version"])
    method = described
    *path, name = request["method"].split(".")
    for part in path:
        method = method["resources"][part]
    told = strange(described["schemas"], method["methods"][name]["response"], answer, request["method"])
    if told:
        raise AssertionError(told)
    return answer


def call(request: dict[str, Any]) -> dict[str, Any]:
    resource = client(request["base"], request["credentials"], request["service"], request["version"])
    *path, method = request["method"].split(".")
    for name in path:
        resource = getattr(resource, name)()
    try:
        return {"answer": checked(request, getattr(resource, method)(**request.get("arguments", {})).execute(num_retries=0))}
    except HttpError as error:
        told = json.loads(error.content)["error"]
        reasons = [each.get("reason") for each in told.get("details", [])]
        found = {"code": error.status_code, "status": told["status"], "message": told["message"]}
        return {"error": {**found, "reason": reasons[0] if reasons else None}}
    except RefreshError as error:
        return {"error": {"code": 401, "status": "REFRESH", "message": str(error.args[0]), "reason": None}}


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
