"""The engine as tests use it: a real journal on disk, a clock that stands still, and a database of two dictionaries."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path

from keygate.kit.clock import Clock, ManualClock
from keygate.ledger import Ask, Hold, Outcome, Refusal, Settlement, TokenUsage
from keygate.ledger.accounts import LedgerAccounts
from keygate.ledger.journal import START, Position, Settle, claim, read_from, recover
from keygate.ledger.ports import BudgetQuery, LimitUse, Loaded, WindowSpend
from keygate.ledger.prices import PriceBook
from keygate.policies import BudgetMode, BudgetRule, KeyState, KeyStatus, LimitKind, LimitRule, Period, RuleSet, Scope

BOOK = PriceBook()
OPUS = ("anthropic", "claude-opus-4-5")  # $5 in, $25 out per million
GPT = ("openai", "gpt-4.1")  # $2 in, $8 out
_ids = count(1)


class FoldedSpend:
    """A `SpendSource` that folds the journal itself, as the worker does, each time it is told to."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.position = START
        self.seen: set[str] = set()
        self.settles: list[Settle] = []
        self.budgets: dict[str, dict[int, list[int]]] = {}
        self.limits: dict[str, dict[int, int]] = {}
        self.loads = 0

    def fold(self) -> Position:
        more = True
        while more:
            batch = read_from(self.directory, self.position, limit=500)
            self.position, more = batch.position, batch.more
            for settle in batch.settles:
                if settle.request_id in self.seen:
                    continue
                self.seen.add(settle.request_id)
                self.settles.append(settle)
                for budget_id, start in settle.context.budgets:
                    row = self.budgets.setdefault(budget_id, {}).setdefault(start, [0, 0])
                    row[0] += settle.cost_nano or 0
                    row[1] += (settle.cost_nano or 0) if settle.in_doubt else 0
                bucket = settle.began_at_ns - settle.began_at_ns % (300 * 10**9)
                for limit_id, amount in settle.day_limits:
                    rows = self.limits.setdefault(limit_id, {})
                    rows[bucket] = rows.get(bucket, 0) + amount
        return self.position

    async def load(self, budgets: Sequence[BudgetQuery], limit_ids: Sequence[str], limits_since_ns: int) -> Loaded:
        self.loads += 1
        return Loaded(
            self.position,
            {
                query.budget_id: [
                    WindowSpend(start, *row) for start, row in self.budgets.get(query.budget_id, {}).items() if start >= query.since_ns
                ]
                for query in budgets
            },
            {
                limit_id: [LimitUse(start, amount) for start, amount in self.limits.get(limit_id, {}).items() if start >= limits_since_ns]
                for limit_id in limit_ids
            },
        )


class Whole:
    """A `SliceSource` that grants everything, or nothing."""

    def __init__(self) -> None:
        self.lost = False

    def granted(self, budget_id: str, amount_nano: int) -> int:
        return 0 if self.lost else amount_nano


class Engine:
    def __init__(
        self,
        directory: Path,
        *,
        clock: Clock | None = None,
        spend: FoldedSpend | None = None,
        hold_wait: float = 0.3,
        segment_bytes: int = 1 << 20,
    ) -> None:
        self.clock = clock or ManualClock()
        self.directory = directory
        self.spend = spend or FoldedSpend(directory)
        self.slices = Whole()
        lock, identity = claim(directory)
        self.recovered = recover(
            directory, lock, identity, self.spend.position, clock=self.clock, boot_id="boot", version="test", segment_bytes=segment_bytes
        )
        self.spend.fold()
        self.accounts = LedgerAccounts(
            recovered=self.recovered, book=BOOK, source=self.spend, slices=self.slices, clock=self.clock, hold_wait=hold_wait
        )

    def fold(self) -> None:
        self.accounts.folded(self.spend.fold())

    def ask(self, *, tokens: int = 100, output: int | None = 100, **more: object) -> Ask:
        request_id = f"req_{next(_ids)}"
        return Ask(request_id, self.clock.now_ns(), "chat", "gpt-4.1", tokens, output, **more)

    def begin(self, state: KeyState, model: tuple[str, str] = OPUS, **more: object) -> Hold | Refusal:
        return self.accounts.begin(state, *model, self.ask(**more))

    async def begin_waiting(self, state: KeyState, model: tuple[str, str] = OPUS, **more: object) -> Hold | Refusal:
        return await self.accounts.begin_waiting(state, *model, self.ask(**more))

    def finish(self, hold: Hold, *, tokens: int = 10, output: int = 10) -> int | None:
        return self.accounts.settle(hold, Settlement(Outcome.FINISHED, 200, TokenUsage(input=tokens, output=output)))


def budget(
    amount: int,
    *,
    id: str = "bud_1",  # noqa: A002  (the field's name)
    scope: Scope = Scope.KEY,
    selector: str | None = None,
    period: Period = Period.LIFETIME,
    mode: BudgetMode = BudgetMode.HARD,
    **more: object,
) -> BudgetRule:
    return BudgetRule(id, scope, f"{scope}_1", selector, period, mode, amount, **more)


def limit(kind: LimitKind, amount: int, *, id: str = "lim_1", scope: Scope = Scope.KEY) -> LimitRule:  # noqa: A002  (the field's name)
    return LimitRule(id, scope, f"{scope}_1", None, kind, amount)


def key(
    *,
    id: str = "vk_1",  # noqa: A002  (the field's name)
    budgets: Sequence[BudgetRule] = (),
    limits: Sequence[LimitRule] = (),
    tags: tuple[str, ...] = (),
    version: int = 1,
    ceiling: int | None = None,
) -> KeyState:
    rules = (RuleSet(Scope.KEY, id, "key", server_tool_ceiling_nano=ceiling),)
    return KeyState(
        id, id, "a key", "org_1", None, None, None, KeyStatus.ACTIVE, (), None, rules, tuple(limits), tuple(budgets), tags, (), version
    )
