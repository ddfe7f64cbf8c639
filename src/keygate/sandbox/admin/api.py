"""One vendor's admin API: routes over an account, the refusals in the vendor's words, faults on request.

A handler is a plain function of the account and the request; it runs under the lock, so a call is done whole or not at all. It returns the
body (200) or an `Answer`, or raises `VendorError`.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

import msgspec

from keygate.sandbox.admin import aging
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import AdminCall, AdminFault, Credential, FaultKind
from keygate.sandbox.answer import encode
from keygate.sandbox.errors import VendorError, invalid
from keygate.sandbox.model import Vendor
from keygate.sandbox.wire import Connection, Headers

JSON = (b"content-type", b"application/json")
GARBAGE = b"\x16\x03\x01\x02\x00garbage\x00\xff\xfe\r\nnot: http\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Answer:
    """`body` is encoded as JSON unless it is bytes already."""

    status: int = 200
    body: Any = None
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)

    def data(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else encode(self.body)


@dataclass(slots=True)
class AdminRequest:
    """`params` are the parts that the route names; `credential` is None on the few paths that need none."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: Mapping[bytes, bytes]
    raw: bytes
    base_url: str  # the sandbox's own address, for answers that lead on
    params: dict[str, str] = field(default_factory=dict)
    credential: Credential | None = None
    id: str = ""

    @classmethod
    def read(cls, connection: Connection, raw: bytes) -> AdminRequest:
        scope = connection.scope
        query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        host, port = scope["server"][:2]
        return cls(scope["method"], scope["path"], query, connection.headers, raw, f"http://{host}:{port}")

    def json(self) -> dict[str, Any]:
        """The body as an object, empty where there is none. `VendorError` 400 where it isn't one."""
        if not self.raw:
            return {}
        try:
            body = msgspec.json.decode(self.raw)
        except (msgspec.DecodeError, RecursionError):
            raise invalid("We could not parse the JSON body of your request.") from None
        if not isinstance(body, dict):
            raise invalid("We could not parse the JSON body of your request. The API expects a JSON object.")
        return body

    def told(self) -> str:
        """All that the caller says, to look for a name in."""
        query = " ".join(value for values in self.query.values() for value in values)
        return f"{unquote(self.path)} {query} {unquote(self.raw.decode('utf-8', 'replace'))}"

    def text(self, name: str) -> str | None:
        values = self.query.get(name)
        return values[-1] if values else None

    def many(self, name: str) -> list[str]:
        """A list in any of the spellings that SDKs have: `name=a&name=b`, `name[]=a`, `name=a,b`."""
        return [part for value in [*self.query.get(name, []), *self.query.get(f"{name}[]", [])] for part in value.split(",") if part]

    def number(self, name: str, default: int, *, least: int = 1, most: int) -> int:
        """A whole number in the query; `VendorError` 400 out of its bounds."""
        shown = self.text(name)
        if shown is None:
            return default
        if not re.fullmatch(r"-?\d{1,12}", shown) or not least <= int(shown) <= most:
            raise invalid(f"Invalid '{name}': must be between {least} and {most}.", name)
        return int(shown)


Handler = Callable[[Account, AdminRequest], Any]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` is below the sandbox's root, with `{name}` for one segment and `{name*}` for several. `right` is what a credential must have;
    None: whoever signs in may. `open`: without any sign-in."""

    method: str
    path: str
    operation: str
    right: str | None
    handler: Handler
    open: bool = False
    pattern: re.Pattern[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        pattern = re.escape(self.path).replace(r"\{", "{").replace(r"\}", "}").replace(r"\*", "*")
        pattern = re.sub(r"\{(\w+)\*\}", r"(?P<\1>.+?)", pattern)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+?)", pattern)
        object.__setattr__(self, "pattern", re.compile(pattern))


class AdminApi:
    """What a vendor says of itself. Subclasses give the data and, where the vendor differs, override the three `…` methods."""

    vendor: ClassVar[Vendor]
    prefixes: ClassVar[tuple[str, ...]]  # whole segments: `/openai/v1/organization`
    routes: ClassVar[tuple[Route, ...]]
    ceilings: ClassVar[Mapping[str, int]] = {}
    request_id_header: ClassVar[bytes] = b"x-request-id"
    kinds: ClassVar[Mapping[str, type]] = {}  # of shelves whose things hold an object of their own as `more["it"]`: what that is

    def prepare(self, account: Account) -> None:
        """What stands at a fresh vendor: a default project, rows of limits."""

    def operations(self) -> list[str]:
        """The names that faults know calls by."""
        return sorted({route.operation for route in self.routes})

    def admit(self, account: Account, address: str, body: dict[str, Any]) -> tuple[Credential, str]:  # noqa: ARG002  (for the file of one vendor)
        """Makes an admin credential as `POST …/credentials` asks for it: what is kept of it, and what its owner enters. ValueError or
        TypeError: the body doesn't fit."""
        made = account.create_credential(**body)
        return made, made.value

    def introduced(self, account: Account, issuer: Any) -> dict[str, str]:  # noqa: ARG002  (for the vendor that trusts issuers)
        """An admin lets KeyGate, an issuer of identity tokens, in; answers further settings. ValueError: the vendor knows none."""
        raise ValueError("issuer: this vendor trusts no issuers")

    def settings(self, address: str, credential: Credential | None = None) -> dict[str, str]:  # noqa: ARG002  (for vendors whose settings name it)
        """What KeyGate's `POST /vendors/configure` needs beside the admin key, for this vendor at the sandbox's address."""
        return {"base_url": f"{address}/{self.vendor}"}

    def behind(self, account: Account) -> Mapping[str, tuple[type, dict[str, Any]]]:  # noqa: ARG002  (for vendors that have such)
        """What the vendor keeps that is not on shelves, by its name: what kind of things, and the things by their ids."""
        return {}

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:  # noqa: ARG002  (for vendors that have rules)
        """Why the inference side refuses a call of this model with an issued secret that works, if it does: limits, permissions, money."""
        return None

    def console(self, account: Account, action: str, body: dict[str, Any]) -> Any:
        """What people do in the vendor's web console: a key made by hand. `POST /_sandbox/admin/{vendor}/console/{action}`. At every
        vendor `age` {key, days}: a key, and what holds it, was made so many days ago, and used then for the last time if at all."""
        if action == "age":
            return self.age(account, body)
        raise VendorError(404, f"the sandbox's console of this vendor has no {action}")

    def age(self, account: Account, body: dict[str, Any]) -> dict[str, Any]:
        """For vendors whose things stand on shelves."""
        return aging.age(account, body)

    def shown_secret(self, request: AdminRequest) -> str | None:
        """The secret that the caller shows: Bearer."""
        bearer = request.headers.get(b"authorization", b"").decode("latin-1")
        return bearer[7:].strip() if bearer[:7].lower() == "bearer " else None

    def unknown_caller(self, shown: str | None) -> VendorError:
        """Nobody, or a secret that is no admin credential."""
        return VendorError(401, "Incorrect API key provided." if shown else "You didn't provide an API key.", code="invalid_api_key")

    def lacks(self, right: str) -> VendorError:
        """A credential without the right."""
        return VendorError(403, f"You have insufficient permissions for this operation. Missing scopes: {right}.")

    def too_fast(self, seconds: float) -> VendorError:
        return VendorError(429, "Rate limit reached for requests.", code="rate_limit_exceeded", retry_after=str(int(seconds + 0.999)))

    def error(self, error: VendorError, request: AdminRequest) -> Answer:
        """A refusal as the vendor words it."""
        headers: list[tuple[bytes, bytes]] = [JSON]
        if error.retry_after is not None:
            headers.append((b"retry-after", error.retry_after.encode("latin-1")))
        return Answer(error.status, error.body(self.vendor, request.id), tuple(headers))

    # ---- the same for every vendor

    @cached_property
    def _by_method(self) -> dict[str, list[Route]]:
        return {method: [route for route in self.routes if route.method == method] for method in {route.method for route in self.routes}}

    def owns(self, path: str) -> bool:
        return any(path == prefix or path.startswith((prefix + "/", prefix + ":")) for prefix in self.prefixes)

    def authenticate(self, account: Account, request: AdminRequest) -> Credential:
        shown = self.shown_secret(request)
        credential = account.credentials.get(shown) if shown else None
        if credential is None:
            raise self.unknown_caller(shown)
        return credential

    def find(self, request: AdminRequest) -> Route:
        for route in self._by_method.get(request.method, ()):
            found = route.pattern.fullmatch(request.path)
            if found:
                request.params = {name: unquote(value) for name, value in found.groupdict().items()}
                return route
        raise VendorError(404, f"Invalid URL ({request.method} {request.path[:200]})")

    def run(self, account: Account, request: AdminRequest) -> tuple[Answer, AdminFault | None]:
        """One call: the answer, and what is done to it on the wire."""
        request.id = f"req_{secrets.token_hex(12)}"
        call = AdminCall(request.method, request.path, account.now_ns())
        account.calls.append(call)
        fault = None
        try:
            route = self.find(request)
            call.operation = route.operation
            if not route.open:
                request.credential = self.authenticate(account, request)
                call.credential = request.credential.name
                wait = account.take_turn(request.credential)
                if wait is not None:
                    raise self.too_fast(wait)
            fault = account.struck(route.operation, request.told()) if account.faults else None
            if fault is not None:
                call.fault = fault.kind
            answer = self._perform(account, request, route, fault)
        except VendorError as error:
            answer = self.error(error, request)
        call.status = answer.status if fault is None or fault.kind is FaultKind.STATUS else 0
        return answer, fault

    def _perform(self, account: Account, request: AdminRequest, route: Route, fault: AdminFault | None) -> Answer:
        answer = Answer()
        if fault is None or fault.performed:
            if route.right is not None and request.credential is not None and not request.credential.may(route.right):
                raise self.lacks(route.right)
            made = route.handler(account, request)
            answer = made if isinstance(made, Answer) else Answer(body=made)
        if fault is not None and fault.kind is FaultKind.STATUS:
            raise VendorError(fault.status, fault.message, code=fault.code, retry_after=fault.retry_after)
        return answer

    def headers(self, answer: Answer, request: AdminRequest) -> Headers:
        return [*answer.headers, (self.request_id_header, request.id.encode())]


async def send(connection: Connection, headers: Headers, answer: Answer, fault: AdminFault | None) -> None:
    """Puts the answer on the wire, or breaks it as asked."""
    match fault.kind if fault is not None else FaultKind.STATUS:
        case FaultKind.RESET:
            await connection.reset()
        case FaultKind.STALL:
            await connection.until_gone()
        case FaultKind.GARBAGE:
            await connection.raw(GARBAGE)
        case FaultKind.STATUS:
            await connection.answer(answer.status, headers, answer.data())
