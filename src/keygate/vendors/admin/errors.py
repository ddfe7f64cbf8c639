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
    ├── NotFound           what was named is not (or no more) there
    └── ToldInPart         some of what was asked for was told; `why` is the error that kept the rest

Messages name the call, the status and the remedy. They hold no secret: what a vendor says goes through `quoted`, and whatever stands in one
of these errors all the same, and looks like a secret, is blacked out of it: it goes on into rows, events, receipts and logs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygate.kit.redaction import redact

if TYPE_CHECKING:
    from keygate.vendors.admin.bills import SpendRow

_READ = 4_000  # characters of a vendor's words that are looked at
_MAX_QUOTE = 300


def quoted(words: object, *, most: int = _MAX_QUOTE) -> str:
    """A vendor's words as they may stand in an error: short, on one line, and without what looks like a secret. That is looked for before
    they are cut, as half a key does not look like one. Empty for what is no text."""
    text = redact(words[:_READ]) if isinstance(words, str) else ""
    return "".join(character if character.isprintable() else " " for character in text)[:most].strip()


class ProvisionerError(Exception):
    """`detail` is for people and holds no secret. `lasting`: trying again without a change somewhere won't help."""

    code = "vendor_failed"
    lasting = True

    def __init__(self, detail: str) -> None:
        shown = redact(detail)
        super().__init__(shown)
        self.detail = shown


class AdminKeyRefused(ProvisionerError):
    code = "admin_key_refused"


class MissingRight(ProvisionerError):
    code = "missing_right"

    def __init__(self, right: str, detail: str | None = None) -> None:
        super().__init__(detail or f"The admin credential lacks the right {right} at the vendor; add it there and try again")
        self.right = redact(right)


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
        self.reason = redact(reason)  # the vendor's own machine-readable word: `project_archived`


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


class ToldInPart(ProvisionerError):
    """`rows`: what the vendor did tell of a key's cost. `why`: what kept it from telling the rest."""

    def __init__(self, rows: tuple[SpendRow, ...], why: ProvisionerError) -> None:
        super().__init__(why.detail)
        self.rows = rows
        self.why = why
        self.code, self.lasting = why.code, why.lasting
