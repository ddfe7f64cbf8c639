"""What can go wrong at a vendor's admin API, so that callers can tell what to do next.

    ProvisionerError
    ├── AdminKeyRefused    the vendor does not know the admin credential (401)
    ├── MissingRight       it knows it, but this right is missing; `right` names it as the vendor does
    ├── CeilingReached     the vendor holds as many of `what` as it allows
    ├── RateLimited        after every retry still told to wait; `retry_after` seconds (in a vendor's own `fault` 0: it does not say)
    ├── Unavailable        no answer, or a failure of the vendor's own; `uncertain`: the call may have been done all the same
    ├── Rejected           the vendor understood and refused (4xx); `status` and `reason` are the vendor's
    │   ├── TermsRefused   it called what was sent invalid (400 or 422): the same again won't do
    │   └── Unfit          no vendor was asked: these terms or options can't be kept there; `field` names which
    └── NotFound           what was named is not (or no more) there

Messages name the call, the status and the remedy. They hold no secret: what a vendor says is blacked out before it is quoted.
"""

from __future__ import annotations


class ProvisionerError(Exception):
    """`detail` is for people and holds no secret. `lasting`: trying again without a change somewhere won't help."""

    code = "vendor_failed"
    lasting = True

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class AdminKeyRefused(ProvisionerError):
    code = "admin_key_refused"


class MissingRight(ProvisionerError):
    code = "missing_right"

    def __init__(self, right: str, detail: str | None = None) -> None:
        super().__init__(detail or f"The admin credential lacks the right {right} at the vendor; add it there and try again")
        self.right = right


class CeilingReached(ProvisionerError):
    code = "ceiling_reached"

    def __init__(self, what: str, detail: str | None = None, *, ceiling: int | None = None) -> None:
        number = "" if ceiling is None else f" ({ceiling})"
        super().__init__(detail or f"The vendor allows no more {what}{number}; remove some there, or have the vendor raise the ceiling")
        self.what = what
        self.ceiling = ceiling


class RateLimited(ProvisionerError):
    code = "vendor_rate_limited"
    lasting = False

    def __init__(self, detail: str, *, retry_after: float = 0.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Unavailable(ProvisionerError):
    code = "vendor_unavailable"
    lasting = False

    def __init__(self, detail: str, *, uncertain: bool = False) -> None:
        super().__init__(detail)
        self.uncertain = uncertain


class Rejected(ProvisionerError):
    code = "vendor_rejected"

    def __init__(self, detail: str, *, status: int = 400, reason: str = "") -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason  # the vendor's own machine-readable word: `project_archived`


class TermsRefused(Rejected):
    code = "terms_refused"


class Unfit(Rejected):
    """`field`: a `Term`, or `options.region`. `detail` holds the remedy."""

    code = "unfit_terms"

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail, status=422, reason=field)
        self.field = field


class NotFound(ProvisionerError):
    code = "vendor_not_found"
