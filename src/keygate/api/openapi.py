"""The OpenAPI document: stable operation ids, bearer security, and every problem a route can answer with."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from keygate import __version__
from keygate.api.problems import MEDIA_TYPE, Problem
from keygate.kit.routes import PUBLIC

_REF = {"$ref": "#/components/schemas/Problem"}
_DESCRIPTION = (
    "KeyGate's control API. Errors are RFC 9457 problem details with a stable `code`; "
    "money is a decimal string in USD; times are RFC 3339 UTC."
)


def install(app: FastAPI) -> None:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # FastAPI's own way to extend the document


def text(app: FastAPI) -> str:
    """The document as it stands in `docs/openapi.json`."""
    return json.dumps(app.openapi(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title="KeyGate", version=__version__, description=_DESCRIPTION, routes=app.routes)
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            _complete(operation, path, method)
    return document


def _complete(operation: dict[str, Any], path: str, method: str) -> None:
    public = operation.get("x-permission") == PUBLIC
    operation["security"] = [] if public else [{"bearer": []}]
    responses = operation.setdefault("responses", {})
    for status in _expected(operation, path, method, public=public):
        responses.setdefault(str(status), {})
    for status, response in responses.items():
        if int(status) < 400:
            continue
        phrase = HTTPStatus(int(status)).phrase
        if not response.get("description") or response["description"] in {"Validation Error", "Additional Response"}:
            response["description"] = phrase
        content = response.get("content", {}).get("application/json", {})
        if not content or "HTTPValidationError" in json.dumps(content):
            response["content"] = {MEDIA_TYPE: {"schema": _REF}}
    operation["responses"] = dict(sorted(responses.items()))


def _expected(operation: dict[str, Any], path: str, method: str, *, public: bool) -> set[int]:
    statuses = {422, 503}
    if not public:
        statuses |= {401, 403}
    if "{" in path:
        statuses.add(404)
    if method != "get":
        statuses.add(413)
    if method != "get" and not public:
        statuses |= {404, 409, 429}
    if "requestBody" in operation:
        statuses.add(422)
    return statuses
