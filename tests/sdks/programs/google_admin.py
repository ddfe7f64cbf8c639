"""Google's own client for its admin APIs, driven line by line: a JSON request on standard input, a JSON answer on standard output.

`{base, credentials, service, version, method: "projects.serviceAccounts.create", arguments: {…}}` → `{"answer": …}`, or
`{"error": {code, status, reason, message}}`. `base`: each service stands below it by name; `credentials`: a key file's text.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from typing import Any

from google.auth.exceptions import RefreshError
from google.oauth2 import service_account
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

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
        client_options={"api_endpoint": f"{base}/{service}"},
        num_retries=0,
    )


def call(request: dict[str, Any]) -> dict[str, Any]:
    resource = client(request["base"], request["credentials"], request["service"], request["version"])
    *path, method = request["method"].split(".")
    for name in path:
        resource = getattr(resource, name)()
    try:
        return {"answer": getattr(resource, method)(**request.get("arguments", {})).execute(num_retries=0)}
    except HttpError as error:
        told = json.loads(error.content)["error"]
        reasons = [each.get("reason") for each in told.get("details", [])]
        found = {"code": error.status_code, "status": told["status"], "message": told["message"]}
        return {"error": {**found, "reason": reasons[0] if reasons else None}}
    except RefreshError as error:
        return {"error": {"code": 401, "status": "REFRESH", "message": str(error.args[0]), "reason": None}}


for line in sys.stdin:
    print(json.dumps(call(json.loads(line))), flush=True)
