"""What this area needs from others. Wired in `processes/`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from keygate.kit.secret import Secret
from keygate.policies.model import Holder, Organization
from keygate.policies.state import BudgetRule, KeyState, LimitRule

if TYPE_CHECKING:
    import sqlalchemy as sa
    from sqlalchemy.ext.asyncio import AsyncConnection


class StatePublisher(Protocol):
    """`keygate.gateway.ports.StatePublisher`, as far as this area uses it. Called after the commit."""

    async def keys_changed(self, key_ids: Sequence[str]) -> None: ...

    async def organization_changed(self, organization_id: str) -> None: ...


class OwnerDirectory(Protocol):
    """Who can own a key. Implemented by identities."""

    async def holders(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> Mapping[str, Holder]:
        """Teams, developers and apps with these ids, and the developers and teams that they belong to. Unknown ids, and those of other
        organisations, are left out; what is deactivated or archived is there with `active=False`. Few statements, however many ids."""

    async def organization(self, connection: AsyncConnection, organization_id: str) -> Organization | None: ...

    def ended(self, organization_id: str) -> sa.Select[tuple[str]]:
        """A query of the ids of all owners whose keys stand still, to be used within another: by the rule of `owner_active`."""

    async def holders_with_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> int:
        """How many of organisation, active teams, developers and apps name this policy."""

    async def users_among(self, connection: AsyncConnection, organization_id: str, ids: Sequence[str]) -> frozenset[str]:
        """Those of these ids that are users of the organisation, in any status."""


class KeyDirectory(Protocol):
    """The keys, as far as policies need them. Implemented by virtual_keys."""

    async def key_exists(self, connection: AsyncConnection, organization_id: str, key_id: str) -> bool: ...

    async def keys_with_policy(self, connection: AsyncConnection, organization_id: str, policy_id: str) -> int:
        """How many keys that are not revoked name this policy."""

    async def state_by_id(self, organization_id: str, key_id: str) -> KeyState | None: ...

    async def state_by_token(self, organization_id: str, token: Secret) -> KeyState | None:
        """The key whose token this is: well-formed, of this organisation, with a digest that fits. In any status."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request of a given size would be held at."""

    price_id: str
    nano: int


class PriceReader(Protocol):
    def estimate(self, vendor: str, model: str, *, input_tokens: int, output_tokens: int, at_ns: int) -> Estimate | None:
        """None: the price is not known."""


@dataclass(frozen=True, slots=True)
class BudgetStanding:
    """A budget as it stands now. `spent_nano` includes charges in doubt; `held_nano` belongs to requests in flight."""

    rule: BudgetRule
    spent_nano: int
    held_nano: int
    resets_at_ns: int | None  # None: lifetime, or rolling


@dataclass(frozen=True, slots=True)
class LimitStanding:
    rule: LimitRule
    used: int
    resets_at_ns: int | None = None


@dataclass(frozen=True, slots=True)
class KeyUsage:
    """What a key has used since it was made, and how everything that limits it stands. True as of the answer."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    spent_nano: int = 0  # charges in doubt included
    held_nano: int = 0
    in_doubt_nano: int = 0
    budgets: tuple[BudgetStanding, ...] = ()
    limits: tuple[LimitStanding, ...] = ()


class UsageReader(Protocol):
    """Implemented by the ledger: what is in the database, in the journal and in memory, as one."""

    async def usage(self, state: KeyState) -> KeyUsage: ...
