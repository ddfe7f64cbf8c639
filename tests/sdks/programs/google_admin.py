"""Google's own client for its admin APIs, driven line by line: a JSON request on standard input, a JSON answer on standard output.

`{service, version, method: "projects.serviceAccounts.create", arguments: {…}}` → `{"answer": …}` or `{"error": {code, status, reason, message}}`.
Environment: GOOGLE_BASE_URL (each service stands below it by name) and CREDENTIALS, a service account's key file as text.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from typing import Any

from google.auth.exceptions import RefreshError
from google.oauth2 import service_account
from googleapiclient.discovery import build
from googleapiclient.errors import HttpError

BASE = os.environ["GOOGLE_BASE_URL"]
SCOPES = ["https://www.googleapis.com/auth/cloud-platform"]
credentials = service_account.Credentials.from_service_account_info(json.loads(os.environ["CREDENTIALS"]), scopes=SCOPES)


@cache
def client(service: str, version: str) -> Any:
    return build(
        service,
        version,
        static_discovery=True,
        cache_discovery=False,
        credentials=credentials,
        client_options={"api_endpoint": f"{BASE}/{service}"},
        num_retries=0,
    )


def call(request: dict[str, Any]) -> dict[str, Any]:
    resource = client(request["service"], request["version"])
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
