"""The wire of the inventory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Self

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, model_validator

from keygate.issued_keys.accounts import MAX_ADMIN_KEY
from keygate.issued_keys.inventory.adopting import Adopted, Adoption
from keygate.issued_keys.inventory.model import MAX_REMINDERS, REMIND_DAYS, Finding, Item, Kind, Scan, ScanState, Standing, Summary
from keygate.issued_keys.inventory.service import How
from keygate.issued_keys.schemas import MAX_DAYS, Moment, Named, VendorName, end_ns, storable
from keygate.kit.clock import rfc3339
from keygate.kit.money import format_usd
from keygate.kit.routes import Id, Instant, Name, Schema
from keygate.kit.secret import Secret
from keygate.policies import Place, Scope
from keygate.vendors.admin import Presence

Reason = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=500, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]+$")]


class DifferenceOut(Schema):
    term: str
    agreed: str
    found: str


class AcceptanceOut(Schema):
    reason: str
    by: str
    at: Moment
    findings: list[str]


class ItemOut(Schema):
    id: str
    account_id: str
    vendor: str
    kind: Kind
    name: str
    hint: str | None = Field(description="What the vendor shows of the secret")
    owner: str | None = Field(description="As the vendor names it")
    presence: Presence
    standing: Standing
    findings: list[Finding]
    attention: bool = Field(description="Something is the matter that nobody has accepted")
    remedies: list[str] = Field(description="What helps, in the order of `findings`")
    drift: list[DifferenceOut]
    issued_key_id: str | None
    at_vendor: dict[str, str]
    budget_usd: str | None = Field(description="As the vendor tells; null: none, or it does not tell")
    rate_limit_rpm: int | None
    rate_limit_tpm: int | None
    models: list[str] | None
    expires_at: Moment
    created_at: Moment
    last_used_at: Moment
    first_seen_at: Moment
    seen_at: Moment = Field(description="When a list of the vendor's last showed it")
    read_at: Moment = Field(description="When the vendor was last asked for it by name")
    accepted: AcceptanceOut | None

    @classmethod
    def of(cls, item: Item, *, remedies: Sequence[str]) -> ItemOut:
        terms, acceptance = item.terms, item.acceptance
        at_vendor = dict(item.footprint.place) | ({"key": item.footprint.key} if item.footprint.key is not None else {})
        return cls(
            id=item.id,
            account_id=item.account_id,
            vendor=item.vendor,
            kind=item.kind,
            name=item.name,
            hint=item.hint,
            owner=item.owner,
            presence=item.presence,
            standing=item.standing,
            findings=list(item.findings),
            attention=bool(item.matters) and not item.accepted,
            remedies=list(remedies),
            drift=[DifferenceOut(term=each.term, agreed=each.agreed, found=each.found) for each in item.drift],
            issued_key_id=item.issued_key_id,
            at_vendor=at_vendor,
            budget_usd=None if terms is None or terms.budget_nano is None else format_usd(terms.budget_nano),
            rate_limit_rpm=None if terms is None else terms.requests_per_minute,
            rate_limit_tpm=None if terms is None else terms.tokens_per_minute,
            models=None if terms is None or terms.models is None else list(terms.models),
            expires_at=None if terms is None else rfc3339(terms.expires_at_ns),
            created_at=rfc3339(item.created_at_ns),
            last_used_at=rfc3339(item.last_used_at_ns),
            first_seen_at=rfc3339(item.first_seen_ns),
            seen_at=rfc3339(item.seen_at_ns),
            read_at=rfc3339(item.read_at_ns),
            accepted=None
            if acceptance is None
            else AcceptanceOut(
                reason=acceptance.reason, by=acceptance.by, at=rfc3339(acceptance.at_ns), findings=list(acceptance.findings)
            ),
        )


class ScanIn(Schema):
    account: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._-]+$")] | None = Field(
        None, description="Vendor account by id or name; null: all"
    )


class ScanOut(Schema):
    id: str
    account_id: str
    vendor: str
    state: ScanState
    pages: int
    seen: int = Field(description="Things that the vendor listed")
    read: int = Field(description="Things that were asked for by name")
    error: str | None
    asked_by: str
    began_at: Moment
    updated_at: Moment
    next_try_at: Moment
    ended_at: Moment

    @classmethod
    def of(cls, scan: Scan) -> ScanOut:
        return cls(
            id=scan.id,
            account_id=scan.account_id,
            vendor=scan.vendor,
            state=scan.state,
            pages=scan.pages,
            seen=scan.seen,
            read=scan.read,
            error=scan.error,
            asked_by=scan.asked_by,
            began_at=rfc3339(scan.began_at_ns),
            updated_at=rfc3339(scan.updated_at_ns),
            next_try_at=rfc3339(scan.due_at_ns) if scan.error is not None else None,
            ended_at=rfc3339(scan.ended_at_ns),
        )


class ScansOut(Schema):
    items: list[ScanOut]
    next_cursor: str | None = None


class SummaryOut(Schema):
    account_id: str
    vendor: str
    standings: dict[Standing, int]
    findings: dict[Finding, int]
    attention: int
    last_scan: ScanOut | None

    @classmethod
    def of(cls, summary: Summary) -> SummaryOut:
        return cls(
            account_id=summary.account_id,
            vendor=summary.vendor,
            standings={Standing(name): count for name, count in summary.standings.items()},
            findings={Finding(name): count for name, count in summary.findings.items()},
            attention=summary.attention,
            last_scan=None if summary.scan is None else ScanOut.of(summary.scan),
        )


class SummaryList(Schema):
    items: list[SummaryOut]
    next_cursor: str | None = None


class OwnedIn(Schema):
    """Whose the key is from now on, and when it ends."""

    developer_id: Id | None = None
    team_id: Id | None = None
    app_id: Id | None = None
    name: Annotated[Name, AfterValidator(storable)] | None = None
    expires_in_days: Annotated[int, Field(ge=1, le=MAX_DAYS)] | None = None
    expires_at: Instant | None = None
    remind_days: Annotated[list[Annotated[int, Field(ge=0, le=365)]], Field(max_length=MAX_REMINDERS)] = Field(
        default=list(REMIND_DAYS), description="Events so many days before the end"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sum(value is not None for value in (self.developer_id, self.team_id, self.app_id)) > 1:
            raise ValueError("name one of developer_id, team_id and app_id")
        if self.expires_in_days is not None and self.expires_at is not None:
            raise ValueError("send expires_in_days or expires_at, not both")
        return self

    def adoption(self, now_ns: int) -> Adoption:
        owners = ((Scope.TEAM, self.team_id), (Scope.DEVELOPER, self.developer_id), (Scope.APP, self.app_id))
        return Adoption(
            owner=next((Place(scope, owner_id) for scope, owner_id in owners if owner_id is not None), None),
            name=self.name,
            expires_at_ns=end_ns(now_ns, self.expires_in_days, self.expires_at),
            remind_days=self.remind_days,
        )


class AdoptIn(OwnedIn):
    """A key that somebody made by hand, as the inventory shows it."""

    rename: bool = Field(
        True, description="Give the key a name at the vendor that tells that it is watched, where keys can be renamed there"
    )
    key: Annotated[SecretStr, Field(min_length=8, max_length=4_096)] | None = Field(
        None, description="The key itself, so that a leak report finds it; compared with what the vendor shows, and kept as a digest only"
    )

    def adoption(self, now_ns: int) -> Adoption:
        secret = None if self.key is None else Secret(self.key.get_secret_value())
        return replace(super().adoption(now_ns), rename=self.rename, secret=secret)


class EnterIn(OwnedIn):
    """A key of a vendor that has no API for keys."""

    vendor: VendorName
    key: Annotated[SecretStr, Field(min_length=1, max_length=MAX_ADMIN_KEY)] = Field(
        description="The key itself: sealed, never shown again; with it KeyGate asks the vendor whether it still lives"
    )
    settings: Named = Field(default_factory=dict, description="`base_url`, and what `GET /vendors` lists for this vendor")


class AdoptedOut(ItemOut):
    renamed: bool
    note: str | None = Field(description="Why it keeps its name at the vendor")
    checklist: list[str] = Field(description="How such a key is rotated by hand; empty where KeyGate can find its successor itself")

    @classmethod
    def told(cls, adopted: Adopted, *, remedies: Sequence[str]) -> AdoptedOut:
        item = ItemOut.of(adopted.item, remedies=remedies).model_dump()
        return cls(**item, renamed=adopted.renamed, note=adopted.note, checklist=list(adopted.checklist))


class DisableIn(Schema):
    how: How = Field(How.DISABLE, description="`disable` can be taken back, where the vendor has it; `revoke` is for good")
    reason: Reason
    insist: bool = Field(False, description="Also what carries the mark of another KeyGate")


class AcceptIn(Schema):
    reason: Reason
