"""The wire of issued keys, links and receipts."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from keygate.issued_keys.leaks import LeakAnswer
from keygate.issued_keys.life import State
from keygate.issued_keys.model import (
    DEFAULT_OVERLAP_SECONDS,
    MAX_LINK_SECONDS,
    MAX_OVERLAP_SECONDS,
    Cause,
    Delivery,
    Enforcement,
    IssuedKey,
    IssueDraft,
    VendorStep,
    Waits,
)
from keygate.issued_keys.receipts import Receipt
from keygate.issued_keys.rotation.due import Hindrance, Outlook
from keygate.issued_keys.rotation.model import MAX_ROTATION_DAYS
from keygate.issued_keys.service import MAX_PATIENCE_SECONDS
from keygate.kit.clock import NANOSECONDS, rfc3339, to_ns
from keygate.kit.money import MAX_NANO, NANO, format_usd, parse_usd
from keygate.kit.routes import Id, Instant, Name, Schema
from keygate.policies import Place, Scope
from keygate.vendors.admin import Period, Terms

MAX_DAYS = 3_650

VendorName = Annotated[str, StringConstraints(min_length=1, max_length=40, pattern=r"^[a-z0-9_-]+$")]
Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[!-~]+$")]
_Value = Annotated[str, StringConstraints(max_length=500, pattern=r"^[ -~]*$")]
Named = Annotated[dict[Annotated[str, StringConstraints(max_length=60, pattern=r"^[a-z0-9_]+$")], _Value], Field(max_length=30)]


def _no_float(value: Any) -> Any:
    """Floats are refused with what to send in their place; the amount itself is read by `parse_usd`."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_NANO // NANO):
        return value
    raise PydanticCustomError("usd", 'Send dollars as a decimal string, for example "50.00"')


_Amount = Annotated[str, StringConstraints(max_length=40)] | Annotated[int, Field(ge=0, le=MAX_NANO // NANO)]
Usd = Annotated[
    _Amount,
    BeforeValidator(_no_float, json_schema_input_type=_Amount),
    Field(description="Dollars as a decimal string: `50.00`", examples=["50.00"]),
]
Count = Annotated[int, Field(ge=1, le=2**53)]
Moment = Annotated[str | None, Field(json_schema_extra={"format": "date-time"})]
_Wait = Annotated[int, Field(ge=0, le=int(MAX_PATIENCE_SECONDS), description="How long the answer waits for the vendor; the work goes on")]
_RequestId = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")]
_Reason = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]


def storable(value: str) -> str:
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("characters that can't be stored")
    return value


class TermsIn(Schema):
    """What a key may do; left out: no such rule, or in a row of a bulk order the order's."""

    budget_usd: Usd | None = None
    budget_period: Period = Period.MONTH
    rate_limit_rpm: Count | None = Field(None, description="Requests per minute")
    rate_limit_tpm: Count | None = Field(None, description="Tokens per minute")
    models: Annotated[list[Word], Field(min_length=1, max_length=200)] | None = Field(None, description="The vendor's model ids; null: all")
    scopes: Annotated[list[Word], Field(min_length=1, max_length=100)] | None = Field(None, description="The vendor's own words")
    expires_in_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] | None = None
    expires_at: Instant | None = None

    @model_validator(mode="after")
    def _one_end(self) -> Self:
        if self.expires_in_days is not None and self.expires_at is not None:
            raise ValueError("send expires_in_days or expires_at, not both")
        return self

    def terms(self, now_ns: int) -> Terms:
        return Terms(
            budget_nano=None if self.budget_usd is None else parse_usd(self.budget_usd, field="budget_usd"),
            budget_period=self.budget_period,
            models=None if self.models is None else tuple(self.models),
            requests_per_minute=self.rate_limit_rpm,
            tokens_per_minute=self.rate_limit_tpm,
            scopes=None if self.scopes is None else tuple(self.scopes),
            expires_at_ns=end_ns(now_ns, self.expires_in_days, self.expires_at),
        )


class ScheduleIn(Schema):
    """When a key is rotated by itself."""

    rotate_every_days: Annotated[int, Field(ge=1, le=MAX_ROTATION_DAYS)] | None = Field(
        None, description="KeyGate makes its next key so many days after each; null: only when somebody asks, or a rotation policy wants it"
    )
    rotate_overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] | None = Field(
        None,
        description="How long both keys work once the new secret was fetched; null: a quarter of the time between two, at most a week",
    )


class Provision(TermsIn, ScheduleIn):
    vendor: VendorName
    developer_id: Id | None = None
    team_id: Id | None = None
    app_id: Id | None = None
    account: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")] | None = Field(
        None, description="Vendor account by id or name; null: the only one, or `default`"
    )
    name: Annotated[Name, AfterValidator(storable)] | None = None
    options: Named = Field(default_factory=dict, description="What only this vendor knows, as `GET /vendors` lists it")
    allow_unenforced: bool = Field(
        False, description="Make the key also where the vendor can't enforce a term; it is then shown as not enforced"
    )
    request_id: _RequestId | None = Field(
        None, description="Yours; the same order under the same id is made once, and its answer can be had again for ten minutes"
    )
    deliver: Annotated[str, StringConstraints(max_length=6, pattern=r"^(answer|link|later)$")] = Field(
        "answer",
        description="`link`: the secret is not in the answer, but behind a one-time link; `later`: it waits for `POST /keys/{id}/link`",
    )
    link_expires_in_seconds: Annotated[int, Field(ge=60, le=MAX_LINK_SECONDS)] = 86_400
    wait_seconds: _Wait = 60

    @model_validator(mode="after")
    def _one_owner(self) -> Self:
        if sum(value is not None for value in (self.developer_id, self.team_id, self.app_id)) > 1:
            raise ValueError("name one of developer_id, team_id and app_id")
        return self

    def draft(self, now_ns: int) -> IssueDraft:
        owners = ((Scope.TEAM, self.team_id), (Scope.DEVELOPER, self.developer_id), (Scope.APP, self.app_id))
        return IssueDraft(
            vendor=self.vendor,
            owner=next((Place(scope, owner_id) for scope, owner_id in owners if owner_id is not None), None),
            terms=self.terms(now_ns),
            name=self.name,
            account=self.account,
            options=dict(self.options),
            rotate_every_days=self.rotate_every_days,
            rotate_overlap_seconds=self.rotate_overlap_seconds,
            allow_unenforced=self.allow_unenforced,
            request_id=self.request_id,
        )


def end_ns(now_ns: int, days: int | None, moment: Any) -> int | None:
    """A whole second: vendors keep no finer ones."""
    if days is not None:
        return (now_ns // NANOSECONDS + days * 86_400) * NANOSECONDS
    return None if moment is None else to_ns(moment) // NANOSECONDS * NANOSECONDS


class Extend(Schema):
    """Another end, sooner or later; neither of them: none."""

    expires_in_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] | None = None
    expires_at: Instant | None = None


class RotateIssued(Schema):
    overlap_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS, description="How long both keys work")] = DEFAULT_OVERLAP_SECONDS
    quiet_seconds: Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] | None = Field(
        None,
        description="The former key is cut once the vendor shows it unused for so long, counted from when the next key worked; null: an "
        "hour, or where the vendor never tells when a key was used, once you `cut` it; 0: at the end of the overlap, used or not",
    )
    insist: bool = Field(False, description="Cut the former key at the end of the overlap, used or not")
    request_id: _RequestId | None = Field(None, description="Yours; the same rotation under the same id is made once, as for an order")
    deliver: Annotated[str, StringConstraints(max_length=6, pattern=r"^(answer|link|later)$")] = "answer"
    link_expires_in_seconds: Annotated[int, Field(ge=60, le=MAX_LINK_SECONDS)] = 86_400
    wait_seconds: _Wait = 60


class RevokeIssued(Schema):
    reason: Annotated[_Reason, AfterValidator(storable)] = ""
    wait_seconds: _Wait = 60


class LinkIn(Schema):
    expires_in_seconds: Annotated[int, Field(ge=60, le=MAX_LINK_SECONDS)] = 86_400


class LinkOut(Schema):
    url: str = Field(description="For the holder; opened once. What follows the # is not sent to servers or written to their logs")
    token: str = Field(description="What `keygate receive` and `POST /keys/deliveries` take")
    expires_at: Moment


class TokenOut(Schema):
    key: str = Field(description="A fresh token, this once")
    env: dict[str, str] = Field(description="What to export so that the vendor's own SDK uses it")
    expires_at: Moment | None


class IssuerOut(Schema):
    issuer: str = Field(description="`iss` of the identity tokens that KeyGate signs for vendors")
    jwks: dict[str, Any] = Field(description="Its public keys (RFC 7517), to be entered at the vendor inline")


class Open(Schema):
    token: Annotated[str, StringConstraints(min_length=1, max_length=100)]


class LeakedKey(Schema):
    key: Annotated[str, StringConstraints(min_length=1, max_length=8_192)] = Field(description="The key that was found; it is not kept")


class LeakOut(Schema):
    """What became of a secret that was reported. Whose it is, is told to its organisation only."""

    vendor: str
    state: Annotated[str, StringConstraints(pattern=r"^(ending|ended)$")] = Field(
        description="`ending`: it worked, and is being ended at the vendor; `ended`: it was dead already"
    )
    ended_at: Moment = Field(description="When the vendor had shown it gone, or a token was over; null: it is being ended")
    works_until: Moment = Field(
        description="The latest moment until which it, or what it was traded for at the vendor, may still work; null: the vendor does not "
        "say, or it works no more"
    )

    @classmethod
    def of(cls, answer: LeakAnswer) -> LeakOut:
        return cls(
            vendor=answer.vendor,
            state="ending" if answer.ended_at_ns is None else "ended",
            ended_at=rfc3339(answer.ended_at_ns),
            works_until=rfc3339(answer.works_until_ns),
        )


class FormerOut(Schema):
    """The key that a rotation replaces."""

    hint: str | None
    generation: int
    cause: Cause = Field(description="`hand`: somebody asked for the rotation; else it began by itself")
    policy_id: str | None = Field(description="The rotation policy that it was due by")
    works_until: Moment = Field(
        description="The end of the overlap; then it is cut once the vendor shows it unused. Of a rotation that began by itself the "
        "overlap counts from when the new secret was fetched: until then it works on"
    )
    waits_for: Waits | None = Field(
        description="What its end waits for besides: `handover`, nobody has fetched the new secret; `quiet`, the vendor has not shown it "
        "unused for long enough; `insist`, your `cut`, since the vendor never tells; `vendor`, which does not end it; `refusal`, the "
        "vendor says that it is gone, or disabled, and still takes it"
    )
    quiet_seconds: int | None
    insist: bool
    gone_at: Moment = Field(description="Since when the vendor's admin API says that it is gone; it is cut once the vendor refuses it")
    last_used_at: Moment
    made_at: Moment


class RotationOut(Schema):
    """What lies ahead of a key by its schedule and the rotation policies that cover it."""

    next_at: Moment = Field(description="When KeyGate makes its next key; a time that is past: as soon as it can. null: not by itself")
    cause: Cause | None = Field(description="`schedule` or `policy`: what it is due by")
    policy_id: str | None
    overlap_seconds: int | None
    too_old_at: Moment = Field(description="From then on it is older than a rotation policy allows")
    overdue: bool
    hindrance: Hindrance | None = Field(description="Why it is not rotated by itself when its time comes")
    tries: int = Field(description="Rotations in a row that began by themselves and came to nothing")
    error: str | None

    @classmethod
    def of(cls, key: IssuedKey, ahead: Outlook, now_ns: int) -> RotationOut:
        return cls(
            next_at=rfc3339(ahead.next_at_ns),
            cause=ahead.cause,
            policy_id=None if ahead.policy is None else ahead.policy.id,
            overlap_seconds=None if ahead.next_at_ns is None else ahead.overlap_seconds,
            too_old_at=rfc3339(ahead.too_old_at_ns),
            overdue=ahead.overdue(now_ns),
            hindrance=ahead.hindrance,
            tries=key.rotate_tries,
            error=key.rotate_error,
        )


class IssuedOut(Schema):
    id: str
    vendor: str
    account_id: str
    name: str
    developer_id: str | None
    team_id: str | None
    app_id: str | None
    state: State
    generation: int
    hint: str | None
    budget_usd: str | None
    budget_period: Period | None
    rate_limit_rpm: int | None
    rate_limit_tpm: int | None
    models: list[str] | None
    scopes: list[str] | None
    expires_at: Moment
    options: dict[str, str]
    enforcement: dict[str, Enforcement] = Field(
        description="What the vendor's own API confirmed of each term. `per_key`: confirmed, but the vendor counts for each key of a "
        "rotation by itself, so the next key began with a whole budget; KeyGate watches the sum. `lost`: it was confirmed, and the vendor "
        "does not tell it to this account any more"
    )
    restraint: Literal["lowered", "disabled"] | None = Field(
        description="What KeyGate does to it at the vendor for its watched budget, beside what was agreed: its limits are lowered, or it "
        "is refused until the next period or until the budget is raised (`/watch`)"
    )
    at_vendor: dict[str, str] = Field(description="The vendor's ids of what was made")
    former: FormerOut | None
    made_at: Moment = Field(description="When its newest key was made at the vendor: the age that counts")
    rotate_every_days: int | None
    rotate_overlap_seconds: int | None
    rotation: RotationOut
    secret: Delivery
    owed: bool = Field(description="Something may be left at the vendor; it is removed as soon as the vendor lets us")
    error_code: str | None
    error: str | None
    next_try_at: Moment
    attempts: int
    end_reason: str | None
    end_asked_at: Moment
    gone_at: Moment = Field(
        description="When the vendor's admin API first said that it is gone; while it still takes the key, the key is `revoking`"
    )
    ended_at: Moment = Field(description="When the vendor confirmed")
    evidence: list[dict[str, str]] = Field(
        description="What the vendor's API said of each key that was ended, and what became of a call with `the_key_itself`; "
        "`last_bill`: why what it cost could not be read for certain before its end. "
        "An entry without `vendor_says` is a note of a key that is yet to end"
    )
    last_used_at: Moment
    read_at: Moment = Field(description="When the vendor was last asked")
    activated_at: Moment
    created_at: Moment
    created_by: str
    request_id: str | None

    @classmethod
    def fields(cls, key: IssuedKey, now_ns: int, ahead: Outlook, restraint: str | None) -> dict[str, Any]:
        terms, former = key.terms, key.former
        owners: dict[str, str | None] = {f"{scope}_id": None for scope in (Scope.DEVELOPER, Scope.TEAM, Scope.APP)}
        if key.owner is not None:
            owners[f"{key.owner.scope}_id"] = key.owner.scope_id
        at_vendor = {} if key.footprint is None else dict(key.footprint.place)
        if key.footprint is not None and key.footprint.key is not None:
            at_vendor["key"] = key.footprint.key
        return {
            **owners,
            "id": key.id,
            "vendor": key.vendor,
            "account_id": key.account_id,
            "name": key.name,
            "state": key.state,
            "generation": key.generation,
            "hint": key.hint,
            "budget_usd": None if terms.budget_nano is None else format_usd(terms.budget_nano),
            "budget_period": None if terms.budget_nano is None else terms.budget_period,
            "rate_limit_rpm": terms.requests_per_minute,
            "rate_limit_tpm": terms.tokens_per_minute,
            "models": None if terms.models is None else list(terms.models),
            "scopes": None if terms.scopes is None else list(terms.scopes),
            "expires_at": rfc3339(terms.expires_at_ns),
            "options": dict(key.options),
            "enforcement": dict(key.enforcement),
            "restraint": restraint,
            "at_vendor": at_vendor,
            "former": None
            if former is None
            else FormerOut(
                hint=former.hint,
                generation=former.generation,
                cause=former.cause,
                policy_id=former.policy_id,
                works_until=rfc3339(key.overlap_ends_ns),
                waits_for=former.waits_for,
                quiet_seconds=former.quiet_seconds,
                insist=former.insist,
                gone_at=rfc3339(former.gone_at_ns),
                last_used_at=rfc3339(former.last_used_at_ns),
                made_at=rfc3339(former.made_at_ns),
            ),
            "made_at": rfc3339(key.made_at_ns),
            "rotate_every_days": key.rotate_every_days,
            "rotate_overlap_seconds": key.rotate_overlap_seconds,
            "rotation": RotationOut.of(key, ahead, now_ns),
            "secret": key.delivery(now_ns),
            "owed": key.owed,
            "error_code": key.error_code,
            "error": key.error,
            "next_try_at": rfc3339(key.due_at_ns) if key.error is not None else None,
            "attempts": key.attempts,
            "end_reason": key.end_reason,
            "end_asked_at": rfc3339(key.end_asked_at_ns),
            "gone_at": rfc3339(key.gone_at_ns),
            "ended_at": rfc3339(key.ended_at_ns),
            "evidence": [dict(each) for each in key.evidence],
            "last_used_at": rfc3339(key.last_used_at_ns),
            "read_at": rfc3339(key.read_at_ns),
            "activated_at": rfc3339(key.activated_at_ns),
            "created_at": rfc3339(key.created_at_ns),
            "created_by": key.created_by,
            "request_id": key.request_id,
        }


class ProvisionedOut(IssuedOut):
    """A key, and what this answer tells of its secret: the secret itself, a link, or neither yet (`secret`: `waiting`)."""

    key: str | None = Field(description="The vendor's key, this once; null: not made yet, or behind the link")
    env: dict[str, str] = Field(description="What to export so that the vendor's own SDK uses the key")
    link: LinkOut | None


class StepOut(Schema):
    sequence: int
    what: str
    began_at: Moment
    ended_at: Moment
    outcome: str | None = Field(description="The vendor's status, or our name of the failure; null: the process ended before it was told")

    @classmethod
    def of(cls, step: VendorStep) -> StepOut:
        return cls(
            sequence=step.sequence,
            what=step.what,
            began_at=rfc3339(step.began_at_ns),
            ended_at=rfc3339(step.ended_at_ns),
            outcome=step.outcome,
        )


class BudgetOut(Schema):
    """How a key's budget is kept. `GET /keys/{id}/watch` has the numbers."""

    enforced_by: str = Field(description="`vendor`: it refuses; `keygate`: watched by the vendor's bill, not hard; `nobody`")
    trouble: str | None = Field(description="Why that can't be relied on, and what to do for it")


class IssuedDetail(IssuedOut):
    budget: BudgetOut | None = Field(description="null: the key has none, or has ended")
    steps: list[StepOut] = Field(description="Every call that changed something at the vendor for this key")


class Check(Schema):
    repair: bool = Field(False, description="Set terms that differ again, and read them back")


class ReceiptOut(Schema):
    id: str
    cause: str
    subject: str
    subject_name: str
    issued_keys: int
    virtual_keys: int
    created_at: Moment
    created_by: str

    @classmethod
    def of(cls, receipt: Receipt) -> ReceiptOut:
        return cls(
            id=receipt.id,
            cause=receipt.cause,
            subject=receipt.subject,
            subject_name=receipt.subject_name,
            issued_keys=len(receipt.issued_keys),
            virtual_keys=len(receipt.virtual_keys),
            created_at=rfc3339(receipt.created_at_ns),
            created_by=receipt.created_by,
        )
