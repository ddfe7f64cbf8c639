"""Routes that say who may call them: a route without a permission can't be written.

An area's `api.py` makes one `Routes` and registers handlers on it; `api/` assembles them into the application, which supplies
the authoriser (who calls, may they) and the services (found by their class).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, FastAPI, Query, Request
from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from keygate.errors import InvalidInput

T = TypeVar("T")
Handler = TypeVar("Handler", bound=Callable[..., Any])

PUBLIC = "public"  # no sign-in: log in, health


Name = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"),
]
"""What people call a thing: one line, not only spaces."""

Id = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[A-Za-z0-9_]+$")]
"""An id of ours, as it comes from outside."""


_EARLIEST, _LATEST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)  # nanoseconds of it fit 64 bits


def _moment(value: Any) -> Any:
    if not isinstance(value, str) or not re.match(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d", value):
        raise PydanticCustomError("moment", "Write a time as in RFC 3339, for example 2027-01-01T00:00:00Z")
    return value


def _in_range(value: datetime) -> datetime:
    if not _EARLIEST <= value < _LATEST:
        raise PydanticCustomError("moment_range", "Must lie between the years 1970 and 2261")
    return value


Instant = Annotated[AwareDatetime, BeforeValidator(_moment, json_schema_input_type=AwareDatetime), AfterValidator(_in_range)]
"""A time from outside: RFC 3339 with a time zone, in the range that nanoseconds in 64 bits hold. `kit.clock.to_ns` turns it into ours."""


class Schema(BaseModel):
    """Base of every body on the wire: unknown fields are refused, so that a typing mistake is never silently ignored. Text may not
    hold NUL, which PostgreSQL can't store."""

    model_config = ConfigDict(extra="forbid", frozen=True, from_attributes=True)

    @model_validator(mode="before")
    @classmethod
    def _no_nul(cls, data: Any) -> Any:
        if isinstance(data, dict) and _holds_nul(data):
            raise PydanticCustomError("nul", "Text may not contain the character U+0000")
        return data


class Page(Schema, Generic[T]):
    """One page of a list; `next_cursor` is null on the last."""

    items: list[T]
    next_cursor: str | None = None


def _holds_nul(value: Any) -> bool:
    """Without recursion: a body may be nested deeper than the interpreter's stack."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            waiting += item
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
    return False


class PageQuery:
    """`?limit=&cursor=` as every list takes them. `after` is the decoded cursor: the last id of the page before."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=500, description="How many items a page holds")] = 100,
        cursor: Annotated[str | None, Query(max_length=200, description="`next_cursor` of the page before")] = None,
    ) -> None:
        self.limit = limit
        self.after: str | None = None
        if cursor is not None:
            try:
                self.after = base64.urlsafe_b64decode(cursor.encode("ascii", "strict") + b"=" * (-len(cursor) % 4)).decode("ascii")
            except (binascii.Error, UnicodeError):
                self.after = ""
            if not (self.after.isprintable() and self.after):
                raise InvalidInput("cursor: not one that we gave out; start again without it", field="cursor")

    def page(self, rows: Sequence[T], *, key: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
        """Cuts `rows` (asked for with `limit + 1`) to the page and makes the cursor."""
        if len(rows) <= self.limit:
            return rows, None
        kept = rows[: self.limit]
        return kept, base64.urlsafe_b64encode(key(kept[-1]).encode()).decode().rstrip("=")


def _require(permission: str) -> Callable[[Request], Any]:
    async def authorise(request: Request) -> None:
        request.state.actor = await request.app.state.authorise(request, permission)

    return authorise


class Routes:
    """Handlers with their paths, each of which names the permission it needs (`teams.write`), or `PUBLIC`.

    They are kept as they were declared and built once, by the application: FastAPI's routers build a route where it is declared and
    again where the router is included, which for all of them is 3.5 MiB and the first caller's time."""

    def __init__(self, prefix: str, *, tag: str) -> None:
        self._prefix, self._tag = prefix, tag
        self._declared: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []
        self.permissions: dict[tuple[str, str], str] = {}

    def add_to(self, app: FastAPI, *, prefix: str = "") -> None:
        for path, handler, options in self._declared:
            app.add_api_route(prefix + path, handler, **options)

    def _add(self, method: str, path: str, permission: str, **options: Any) -> Callable[[Handler], Handler]:
        path = self._prefix + path
        self.permissions[method, path] = permission
        options |= {
            "methods": [method],
            "tags": [self._tag],
            "dependencies": [] if permission == PUBLIC else [Depends(_require(permission))],
            "openapi_extra": {"x-permission": permission},
        }

        def declare(handler: Handler) -> Handler:
            self._declared.append((path, handler, options))
            return handler

        return declare

    def get(self, path: str = "", *, permission: str, **options: Any) -> Callable[[Handler], Handler]:
        return self._add("GET", path, permission, **options)

    def post(self, path: str = "", *, permission: str, **options: Any) -> Callable[[Handler], Handler]:
        return self._add("POST", path, permission, **options)

    def put(self, path: str = "", *, permission: str, **options: Any) -> Callable[[Handler], Handler]:
        return self._add("PUT", path, permission, **options)

    def patch(self, path: str = "", *, permission: str, **options: Any) -> Callable[[Handler], Handler]:
        return self._add("PATCH", path, permission, **options)

    def delete(self, path: str = "", *, permission: str, **options: Any) -> Callable[[Handler], Handler]:
        return self._add("DELETE", path, permission, **options)


def current_actor(request: Request) -> Any:
    """The `Actor` whom the authoriser let in. `Annotated[Actor, Depends(current_actor)]`."""
    return request.state.actor


def service(kind: type[T]) -> Any:
    """The application's instance of a service class, as a dependency: `Annotated[TeamService, service(TeamService)]`."""

    def find(request: Request) -> T:
        return request.app.state.services[kind]  # type: ignore[no-any-return]  # state is untyped in Starlette

    return Depends(find)
