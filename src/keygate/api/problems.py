"""Errors on the wire: RFC 9457 problem details with a stable `code` and the request's id."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from keygate.audit import AuditLog
from keygate.errors import Conflict, Forbidden, InvalidInput, KeyGateError, NotFound, Throttled, Unauthenticated
from keygate.identities import Actor
from keygate.kit.redaction import redact

MEDIA_TYPE = "application/problem+json"
_LONGEST_NAME = 60
_CHOICE = re.compile(r"\^\((\w+(?:\|\w+)+)\)\$")
_ONE_SET = re.compile(r"\^\[([^^\]\\]+)\][+*]\$")
_SPANS = {
    "a-z": "small letters",
    "A-Z": "capital letters",
    "0-9": "digits",
    "!-~": "printable ASCII characters without spaces",
    " -~": "printable ASCII characters",
}

_log = logging.getLogger(__name__)


class Problem(BaseModel):
    type: str = Field(description="`urn:keygate:problem:` and the code")
    title: str
    status: int
    detail: str = Field(description="What is wrong and what to do, for the person who called")
    code: str = Field(description="Stable, for programs")
    request_id: str
    field: str | None = Field(None, description="The field that is wrong, where it is one")


def problem(
    request_id: str, *, status: int, code: str, title: str, detail: str, field: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    body: dict[str, Any] = {
        "type": f"urn:keygate:problem:{code}",
        "title": title,
        "status": status,
        "detail": redact(detail),  # a key that was pasted where an id belongs is not repeated
        "code": code,
        "request_id": request_id,
    }
    if field is not None:
        body["field"] = field
    return JSONResponse(body, status, media_type=MEDIA_TYPE, headers=headers)


def of_error(error: KeyGateError, request_id: str) -> JSONResponse:
    headers = {}
    if isinstance(error, Throttled):
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, Unauthenticated):
        headers["www-authenticate"] = "Bearer"
    return problem(
        request_id, status=error.status, code=error.code, title=error.title, detail=error.detail, field=error.field, headers=headers
    )


def install(app: FastAPI, audit: AuditLog) -> None:
    """Every error of a route leaves as a problem, and refusals to change something are recorded, whichever layer refused."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, KeyGateError)  # noqa: S101  (registered for this class)
        await _record(request, error, audit)
        return of_error(error, request.state.request_id)

    async def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)  # noqa: S101  (registered for this class)
        return of_error(_first(error), request.state.request_id)

    async def http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)  # noqa: S101  (registered for this class)
        request_id = request.state.request_id
        if error.status_code == HTTPStatus.NOT_FOUND:
            return of_error(NotFound("There is nothing at this address"), request_id)
        if error.status_code == HTTPStatus.BAD_REQUEST:
            return of_error(InvalidInput("The body can't be read; send JSON as `application/json`"), request_id)
        status = HTTPStatus(error.status_code)
        code = status.name.lower()
        headers = {name.lower(): value for name, value in (error.headers or {}).items()}
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            headers["allow"] = ", ".join(_methods(request))
        detail = f"{request.method} is not possible here" if status is HTTPStatus.METHOD_NOT_ALLOWED else status.description
        return problem(request_id, status=status, code=code, title=status.phrase, detail=detail, headers=headers)

    app.add_exception_handler(KeyGateError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _methods(request: Request) -> list[str]:
    """All methods of this address; Starlette names those of the first route only."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    address = request.url.path
    return sorted({method.upper() for path, methods in paths.items() if compile_path(path)[0].match(address) for method in methods})


async def _record(request: Request, error: KeyGateError, audit: AuditLog) -> None:
    actor: Actor | None = getattr(request.state, "actor", None)
    permission: str | None = getattr(request.state, "permission", None)
    changing = request.method not in {"GET", "HEAD", "OPTIONS"} and permission is not None and permission.endswith((".write", ".self"))
    if actor is None or permission is None or not changing or error.recorded or not isinstance(error, Forbidden | NotFound | Conflict):
        return
    try:
        await audit.refused(actor, permission, f"{request.method} {request.url.path}"[:400], reason=error.detail)
    except KeyGateError:
        _log.exception("a refusal could not be recorded", extra={"request_id": request.state.request_id})


def _first(error: RequestValidationError) -> InvalidInput:
    """Names the field and what it should be. What was sent is never repeated: it may be a secret."""
    first = error.errors()[0]
    where = list(first.get("loc", ()))
    kind = first.get("type", "")
    if kind == "json_invalid":
        return InvalidInput("The body is not JSON that can be read")
    place = where.pop(0) if where and where[0] in {"body", "query", "path", "header", "cookie"} else None
    names = _names(where, error.body, missing=kind == "missing") if place == "body" else [str(part) for part in where]
    if kind == "extra_forbidden":
        message = "this field is not known here"
    elif kind == "string_pattern_mismatch":
        message = _form(str(first.get("ctx", {}).get("pattern", "")))
    else:
        message = str(first.get("msg", "not valid")).removeprefix("Value error, ")
    if names:
        field = ".".join(name[:_LONGEST_NAME] for name in names)
        return InvalidInput(f"{field}: {message}", field=field)
    if isinstance(error.body, dict) and place == "body":  # of fields together: two that exclude each other
        return InvalidInput(message)
    return InvalidInput("The body is missing or of the wrong kind; send a JSON object as `application/json`")


def _form(pattern: str) -> str:
    """What a text may be, in words where the pattern is one set of characters or a choice of words."""
    choice = _CHOICE.fullmatch(pattern)
    if choice is not None:
        return f"one of {', '.join(choice[1].split('|'))}"
    only = _ONE_SET.fullmatch(pattern)
    if only is None:
        return "it holds a character, or has a form, that it can't have"
    said = [words for span, words in _SPANS.items() if span in only[1]]
    signs = ["commas" if sign == "," else sign for sign in re.sub("|".join(_SPANS), "", only[1])]
    return f"only {', '.join([*said, *signs])}"


def _names(where: Sequence[Any], body: Any, *, missing: bool) -> list[str]:
    """The path of the wrong value in the body. What the validator puts between (the alternative of a union that it tried, a function's
    name) is left out: it is no field of the body, and no caller knows it."""
    names: list[str] = []
    for number, part in enumerate(where):
        field = isinstance(body, dict) and isinstance(part, str) and part in body
        item = isinstance(body, list) and isinstance(part, int) and part < len(body)
        absent = missing and number == len(where) - 1
        if not (field or item or absent):
            continue
        body = None if absent else body[part]
        names.append(str(part))
    return names
