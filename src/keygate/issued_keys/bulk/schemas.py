"""The wire of bulk orders."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from keygate.issued_keys.bulk.model import MAX_ROWS, BulkDraft, Line, OrderState, Plan, Row, RowState
from keygate.issued_keys.bulk.service import RowLink, Standing
from keygate.issued_keys.model import MAX_LINK_SECONDS
from keygate.issued_keys.schemas import Moment, Named, ScheduleIn, TermsIn, VendorName, storable
from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.kit.routes import Id, Name, Schema


class RowIn(TermsIn):
    """One developer, by e-mail address or id."""

    line: Annotated[int, Field(ge=1, le=1_000_000, description="As people count: in a CSV the header is line 1")] | None = None
    email: Annotated[str, StringConstraints(min_length=1, max_length=320), AfterValidator(storable)] | None = None
    developer_id: Id | None = None
    name: Annotated[Name, AfterValidator(storable)] | None = Field(None, description="Of somebody who is no developer here yet")
    team: Annotated[Name, AfterValidator(storable)] | None = Field(None, description="As above: team by id or name")

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if (self.email is None) == (self.developer_id is None):
            raise ValueError("name a developer by email or by developer_id")
        return self


class BulkIn(TermsIn, ScheduleIn):
    vendor: VendorName
    account: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")] | None = None
    team_id: Id | None = Field(None, description="Every active developer of this team, beside `rows`")
    rows: Annotated[list[RowIn], Field(max_length=MAX_ROWS)] = Field(default_factory=list)
    options: Named = Field(default_factory=dict, description="What only this vendor knows, as `GET /vendors` lists it")
    allow_unenforced: bool = False
    create_developers: bool = Field(False, description="Make developers of people who are none here yet; needs developers.write")
    batch: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")] | None = Field(
        None, description="null: whoever has a key in this account is left out. Else only whoever has one of this batch"
    )
    fit: bool = Field(False, description="Where the vendor's ceiling leaves no room for all: make as many as fit")
    request_id: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[!-~]+$")] | None = Field(
        None, description="Yours; the same order under the same id is made once"
    )

    def draft(self, now_ns: int) -> BulkDraft:
        return BulkDraft(
            vendor=self.vendor,
            account=self.account,
            lines=[
                Line(
                    line=row.line or number,
                    email=row.email,
                    developer_id=row.developer_id,
                    name=row.name,
                    team=row.team,
                    terms=row.terms(now_ns),
                )
                for number, row in enumerate(self.rows, 1)
            ],
            team_id=self.team_id,
            terms=self.terms(now_ns),
            options=dict(self.options),
            rotate_every_days=self.rotate_every_days,
            rotate_overlap_seconds=self.rotate_overlap_seconds,
            allow_unenforced=self.allow_unenforced,
            create_developers=self.create_developers,
            batch=self.batch,
            fit=self.fit,
            request_id=self.request_id,
        )


class ProblemOut(Schema):
    line: int
    detail: str


class PlanOut(Schema):
    """What an order would do. Nothing was changed for it."""

    vendor: str
    account_id: str
    wanted: int = Field(description="Keys that would be made")
    left_out: int = Field(description="Rows whose developer has a key already, or stands in an order that is going on")
    new_developers: int
    problems: list[ProblemOut]
    container: str = Field(description="What the vendor counts: project, workspace …")
    standing: int = Field(description="How many of them stand there or are ordered: ours and those of others")
    counted: bool = Field(description="By the vendor just now; else ours, and what the last scan showed of others")
    ceiling: int | None = Field(description="null: none is known")
    room: int | None
    remedy: str = Field(description="What helps where there is no room")
    fits: bool
    calls_per_minute: int
    minutes: int = Field(description="About how long the vendor's pace makes it")

    @classmethod
    def of(cls, plan: Plan) -> PlanOut:
        return cls(
            vendor=plan.vendor,
            account_id=plan.account_id,
            wanted=plan.wanted,
            left_out=sum(row.state is RowState.LEFT_OUT for row in plan.rows),
            new_developers=sum(row.developer_id is None for row in plan.rows),
            problems=[ProblemOut(line=problem.line, detail=problem.detail) for problem in plan.problems],
            container=plan.room.container,
            standing=plan.room.standing,
            counted=plan.room.counted,
            ceiling=plan.room.ceiling,
            room=plan.left,
            remedy=plan.room.remedy,
            fits=plan.fits,
            calls_per_minute=plan.calls_per_minute,
            minutes=plan.minutes,
        )


class BulkOut(Schema):
    id: str
    vendor: str
    account_id: str
    state: OrderState
    total: int
    counts: dict[RowState, int]
    note: str | None = Field(description="Why it was halted")
    request_id: str | None
    batch: str | None
    created_at: Moment
    created_by: str
    updated_at: Moment
    ended_at: Moment

    @classmethod
    def of(cls, standing: Standing) -> BulkOut:
        order = standing.order
        return cls(
            id=order.id,
            vendor=order.vendor,
            account_id=order.account_id,
            state=order.state,
            total=order.total,
            counts=dict(standing.counts),
            note=order.note,
            request_id=order.request_id,
            batch=order.batch,
            created_at=rfc3339(order.created_at_ns),
            created_by=order.created_by,
            updated_at=rfc3339(order.updated_at_ns),
            ended_at=rfc3339(order.ended_at_ns),
        )


class RowOut(Schema):
    line: int
    email: str
    name: str
    developer_id: str | None = Field(description="null: to be made")
    state: RowState
    key_id: str | None
    budget_usd: str | None
    rate_limit_rpm: int | None
    expires_at: Moment
    attempt: int
    error_code: str | None
    error: str | None

    @classmethod
    def of(cls, row: Row) -> RowOut:
        return cls(
            line=row.line,
            email=row.email,
            name=row.name,
            developer_id=row.developer_id,
            state=row.state,
            key_id=row.key_id,
            budget_usd=None if row.terms.budget_nano is None else format_usd(row.terms.budget_nano),
            rate_limit_rpm=row.terms.requests_per_minute,
            expires_at=rfc3339(row.terms.expires_at_ns),
            attempt=row.attempt,
            error_code=row.error_code,
            error=row.error,
        )


class LinksIn(Schema):
    expires_in_seconds: Annotated[int, Field(ge=60, le=MAX_LINK_SECONDS)] = MAX_LINK_SECONDS
    after: Annotated[int, Field(ge=0, le=1_000_000, description="`next_after` of the answer before")] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 100


class RowLinkOut(Schema):
    line: int
    email: str
    name: str
    key_id: str
    url: str
    expires_at: Moment

    @classmethod
    def of(cls, link: RowLink, public_url: str) -> RowLinkOut:
        return cls(
            line=link.row.line,
            email=link.row.email,
            name=link.row.name,
            key_id=link.row.key_id or "",
            url=f"{public_url}/receive#{link.token.open()}",
            expires_at=rfc3339(link.expires_at_ns),
        )


class LinksOut(Schema):
    items: list[RowLinkOut]
    next_after: int | None
