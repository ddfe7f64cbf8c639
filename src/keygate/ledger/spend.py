"""What the database knows of budgets and limits, for the engine; and this gateway's permission to spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from keygate.errors import StartRefused, Unavailable
from keygate.kit.clock import NANOSECONDS, Clock
from keygate.kit.coalescing import Coalesced
from keygate.ledger.ports import BudgetQuery, LimitUse, Loaded, WindowSpend

if TYPE_CHECKING:
    from keygate.kit.database import Database
    from keygate.ledger.repository import LedgerRepository

LEASE_NS = 120 * NANOSECONDS  # longer than a restart of the database takes


class _Query(NamedTuple):
    budgets: Sequence[BudgetQuery]
    limit_ids: Sequence[str]
    limits_since_ns: int


class DatabaseSpend:
    """The `SpendSource` over the tables that the fold keeps. All of an answer is one snapshot, as of the checkpoint it names."""

    def __init__(self, *, database: Database, repository: LedgerRepository, journal_id: str) -> None:
        self._database = database
        self._repository = repository
        self._journal_id = journal_id
        self._wanted: Coalesced[_Query, Loaded] = Coalesced(self._load)

    async def load(self, budgets: Sequence[BudgetQuery], limit_ids: Sequence[str], limits_since_ns: int) -> Loaded:
        return await self._wanted.ask(_Query(budgets, limit_ids, limits_since_ns))

    async def _load(self, queries: Sequence[_Query]) -> list[Loaded]:
        since: dict[str, int] = {}
        for budget_id, since_ns in (budget for query in queries for budget in query.budgets):
            since[budget_id] = min(since_ns, since.get(budget_id, since_ns))
        limit_ids = {limit_id for query in queries for limit_id in query.limit_ids}
        async with self._database.read() as connection:
            position = await self._repository.checkpoint(connection, self._journal_id)
            spend = await self._repository.spend(connection, [BudgetQuery(*each) for each in since.items()])
            use = await self._repository.limit_use(connection, list(limit_ids), min(query.limits_since_ns for query in queries))
        return [Loaded(position, _windows(spend, query), _uses(use, query)) for query in queries]


def _windows(spend: Mapping[str, Sequence[WindowSpend]], query: _Query) -> dict[str, list[WindowSpend]]:
    since = dict(query.budgets)
    return {
        budget_id: [window for window in spend[budget_id] if window.window_start_ns >= since[budget_id]]
        for budget_id in since.keys() & spend.keys()
    }


def _uses(use: Mapping[str, Sequence[LimitUse]], query: _Query) -> dict[str, list[LimitUse]]:
    return {
        limit_id: [found for found in use[limit_id] if found.bucket_ns >= query.limits_since_ns]
        for limit_id in query.limit_ids
        if limit_id in use
    }


class WholeGrant:
    """The `SliceSource` of a single gateway: it holds the whole of every budget, by one lease in the database.

    A second gateway on the same database is refused at its start while the lease lasts, since both would spend the same money.
    `node_id` stays the same across restarts, so a gateway that died takes its own lease up again at once.
    """

    def __init__(self, *, database: Database, repository: LedgerRepository, clock: Clock, node_id: str) -> None:
        self._database = database
        self._repository = repository
        self._clock = clock
        self._node_id = node_id
        self._until_ns = 0

    async def acquire(self) -> None:
        """Call once before the first request. Raises `StartRefused` while another gateway holds the lease."""
        if not await self._take():
            raise StartRefused(
                "Another KeyGate gateway spends from this database's budgets. Stop it, or wait two minutes if it has just died; "
                "several gateways on one database are not supported yet."
            )

    async def renew(self) -> None:
        """Call every ten seconds. Where it fails until the lease ends, `granted` answers 0: nothing is spent without permission."""
        if not await self._take():
            self._until_ns = 0
            raise Unavailable("Another gateway has taken over the budgets of this database")

    async def release(self) -> None:
        self._until_ns = 0
        async with self._database.unit() as work:
            await self._repository.give_back(work.connection, self._node_id)

    def granted(self, budget_id: str, amount_nano: int) -> int:
        del budget_id  # the whole of each
        return amount_nano if self._clock.now_ns() < self._until_ns else 0

    async def _take(self) -> bool:
        now = self._clock.now_ns()
        async with self._database.unit() as work:
            taken = await self._repository.grant_whole(work.connection, self._node_id, now_ns=now, until_ns=now + LEASE_NS)
        if taken:
            self._until_ns = now + LEASE_NS
        return taken
