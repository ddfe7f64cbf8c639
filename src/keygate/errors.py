"""The error tree. Every class fixes its HTTP status and its stable code.

    KeyGateError
    ├── InvalidInput          422  invalid_input         a field is wrong; names it and the remedy
    ├── Unauthenticated       401  unauthenticated       no credentials, or none that we know
    ├── Forbidden             403  forbidden             known, visible, not allowed
    ├── NotFound              404  not_found             absent, or not visible to this actor
    ├── Conflict              409  conflict              the state does not allow it, or the name is taken
    ├── TooLarge              413  too_large             the body is larger than this call takes
    ├── Throttled             429  throttled             try again after `retry_after` seconds
    ├── UpstreamFailed        502  upstream_failed       a vendor or a peer did not do its part
    ├── Unavailable           503  unavailable           we cannot do it now (a dependency is down)
    └── StartRefused           –   start_refused         the process must not start; the message holds the remedy

Messages are written for the person who made the call: what is wrong, in which field, what to do. They never contain a
secret. What only the operator may see goes to the log, under the request id that the answer carries.
"""

from __future__ import annotations


class KeyGateError(Exception):
    status: int = 500
    code: str = "internal"
    title: str = "Something went wrong on our side"
    recorded: bool = False  # set where the refusal stands in the audit log already

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field


class InvalidInput(KeyGateError):
    status = 422
    code = "invalid_input"
    title = "A field is not valid"


class Unauthenticated(KeyGateError):
    status = 401
    code = "unauthenticated"
    title = "Not signed in"


class Forbidden(KeyGateError):
    status = 403
    code = "forbidden"
    title = "Not allowed"


class NotFound(KeyGateError):
    status = 404
    code = "not_found"
    title = "Not found"


class Conflict(KeyGateError):
    status = 409
    code = "conflict"
    title = "Not possible in this state"


class TooLarge(KeyGateError):
    status = 413
    code = "too_large"
    title = "The body is too large"


class Throttled(KeyGateError):
    status = 429
    code = "throttled"
    title = "Too many attempts"

    def __init__(self, detail: str, *, retry_after: int, field: str | None = None) -> None:
        super().__init__(detail, field=field)
        self.retry_after = retry_after


class UpstreamFailed(KeyGateError):
    status = 502
    code = "upstream_failed"
    title = "A service that we depend on failed"


class Unavailable(KeyGateError):
    status = 503
    code = "unavailable"
    title = "Not available now"


class StartRefused(KeyGateError):
    status = 500
    code = "start_refused"
    title = "KeyGate does not start"
