"""The wire of vendor accounts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from keygate.issued_keys.accounts import MAX_ADMIN_KEY
from keygate.issued_keys.model import AccountStatus, VendorAccount
from keygate.issued_keys.schemas import Moment, Named, VendorName
from keygate.kit.clock import rfc3339
from keygate.kit.routes import Schema
from keygate.kit.secret import Secret
from keygate.vendors.admin import Right


class Configure(Schema):
    vendor: VendorName
    admin_key: Annotated[SecretStr, Field(min_length=1, max_length=MAX_ADMIN_KEY)] = Field(
        description="The admin credential, as the vendor's form of it is told by `GET /vendors`; sealed, never shown again"
    )
    name: Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[a-z0-9._-]+$")] = "default"
    settings: Named = Field(default_factory=dict, description="`base_url`, and what `GET /vendors` lists for this vendor")

    def secret(self) -> Secret:
        return Secret(self.admin_key.get_secret_value())


class RightOut(Schema):
    name: str = Field(description="In the vendor's own words")
    held: bool | None = Field(description="null: can't be told without making something")
    needed_for: str

    @classmethod
    def of(cls, right: Right) -> RightOut:
        return cls(name=right.name, held=right.held, needed_for=right.needed_for)


class AccountOut(Schema):
    id: str
    vendor: str
    name: str
    hint: str
    status: AccountStatus = Field(description="Keys are made only with one that is `ready`")
    account: str | None = Field(description="Whose it is, as the vendor says")
    settings: dict[str, str]
    rights: list[RightOut]
    missing_rights: list[str]
    also_confirms: list[str] = Field(
        description="Terms that the vendor enforces and shows for this account, beside those that it does for every account (`confirms` of "
        "`GET /vendors`), as seen at `verified_at`"
    )
    notes: list[str]
    verified_at: Moment
    created_at: Moment
    updated_at: Moment

    @classmethod
    def of(cls, account: VendorAccount) -> AccountOut:
        return cls(
            id=account.id,
            vendor=account.vendor,
            name=account.name,
            hint=account.hint,
            status=account.status,
            account=account.account,
            settings=dict(account.settings),
            rights=[RightOut.of(right) for right in account.rights],
            missing_rights=[right.name for right in account.rights if right.held is False],
            also_confirms=sorted(account.also_confirms),
            notes=list(account.notes),
            verified_at=rfc3339(account.verified_at_ns),
            created_at=rfc3339(account.created_at_ns),
            updated_at=rfc3339(account.updated_at_ns),
        )


class AccountList(Schema):
    items: list[AccountOut]
    next_cursor: str | None = None


class RoomOut(Schema):
    """Whether so many keys fit into an account. Asked before a bulk order makes the first."""

    account_id: str
    container: str = Field(description="What the vendor counts: project, workspace …")
    alive: int = Field(description="That stand there or are ordered: ours and those of others")
    counted: bool = Field(description="By the vendor just now; else only ours are known")
    place: str = Field(description="Where the ceiling counts, for instance a region; empty: in the whole account")
    ceiling: int | None = Field(description="null: none is known")
    room: int | None
    remedy: str = Field(description="What helps where there is none")
    calls_per_minute: int
