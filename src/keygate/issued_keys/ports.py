"""What issued keys need from others. Ports of policies stand here under the names that this area uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from keygate.identities import Actor
from keygate.policies import OwnerDirectory
from keygate.vendors.admin import Terms

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

    from keygate.vendors.admin import SpendRow

__all__ = ["AtVendor", "Budgets", "KeptBudget", "LastSpend", "OwnerDirectory", "Restraint", "Restraints"]


@dataclass(frozen=True, slots=True)
class KeptBudget:
    """Who keeps a key's budget, and why that can't be relied on."""

    enforced_by: str  # vendor, keygate or nobody
    trouble: str | None


class Budgets(Protocol):
    """Budgets by the vendors' bills. Implemented by vendor_spend."""

    async def kept(self, actor: Actor, key_id: str) -> KeptBudget:
        """Raises `NotFound` for a key that is not this actor's to see."""

    async def held_back(self, organization_id: str, key_ids: Sequence[str]) -> Mapping[str, str]:
        """What KeyGate does to keys at vendors for their budgets: `lowered` or `disabled`, as the vendor has confirmed it, by key; keys
        that work as agreed are left out."""


@dataclass(frozen=True, slots=True)
class Restraint:
    """What KeyGate does to a key at its vendor for its budget. `disabled`: the vendor refuses it, or is just being told to, or to take it
    again. Else its limits are lowered to `percent` of its own; 100 while that is being done or taken back, so that either may be shown."""

    disabled: bool
    percent: int

    def lowered(self, terms: Terms) -> Terms:
        """Its own terms with the limits that it has now."""
        requests, tokens = (
            None if limit is None else max(1, limit * self.percent // 100) for limit in (terms.requests_per_minute, terms.tokens_per_minute)
        )
        return replace(terms, requests_per_minute=requests, tokens_per_minute=tokens)


class Restraints(Protocol):
    """Restraints as they are recorded. Implemented by vendor_spend."""

    async def restraints(self, connection: AsyncConnection, organization_id: str, key_ids: Sequence[str]) -> Mapping[str, Restraint]:
        """By key; keys that work as agreed are left out."""


class AtVendor(Protocol):
    """Something that stands in a vendor account: an issued key, a thing of the inventory."""

    @property
    def organization_id(self) -> str: ...

    @property
    def account_id(self) -> str: ...

    @property
    def vendor(self) -> str: ...


class LastSpend(Protocol):
    """What keys cost, as it was read just before their end. Implemented by vendor_spend."""

    async def keep(self, thing: AtVendor, rows: Sequence[SpendRow], *, read_at_ns: int) -> None:
        """Committed when it returns; in every report and watched budget from then on. The same rows again are the same. `read_at_ns`: when
        the vendor was asked for them."""
