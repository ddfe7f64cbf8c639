"""How a key stands: what it has used in all, from the ledger, and what limits it now, from the engine's memory."""

from __future__ import annotations

from typing import Protocol

from keygate.ledger.accounts import Standing
from keygate.ledger.reports import UsageReports
from keygate.policies import BudgetStanding, KeyState, KeyUsage, LimitStanding


class Engine(Protocol):
    async def look(self, state: KeyState) -> Standing:
        """How the key stands, also where it is not in use at the moment. Raises `Unavailable` where the database can't be asked."""

    def held_by_key(self, key_id: str) -> int: ...


class KeyStanding:
    """The `UsageReader` of virtual keys. True as of the answer: the journal is folded before the ledger is read."""

    def __init__(self, *, engine: Engine, reports: UsageReports) -> None:
        self._engine = engine
        self._reports = reports

    async def usage(self, state: KeyState) -> KeyUsage:
        totals = await self._reports.key_totals(state.organization_id, state.id)
        standing = await self._engine.look(state)
        return KeyUsage(
            requests=totals["requests"],
            input_tokens=totals["input_tokens"],
            output_tokens=totals["output_tokens"],
            spent_nano=totals["cost_nano"],
            held_nano=self._engine.held_by_key(state.id),
            in_doubt_nano=totals["in_doubt_nano"],
            budgets=tuple(BudgetStanding(each.rule, each.spent_nano, each.held_nano, each.resets_at_ns) for each in standing.budgets),
            limits=tuple(LimitStanding(each.rule, each.used) for each in standing.limits),
        )
