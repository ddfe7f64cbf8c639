"""The engine and the ledger as one: how a key stands, thresholds as events, corrections that reach the meters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.ledger.engine import key

from keygate.events import EventOutbox
from keygate.events.repository import EventRepository
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database
from keygate.kit.ids import new_id
from keygate.ledger import Ask, Hold, Outcome, Settlement, TokenUsage
from keygate.ledger.accounts import LedgerAccounts
from keygate.ledger.announcements import ThresholdEvents
from keygate.ledger.fold import Fold
from keygate.ledger.journal import claim, recover
from keygate.ledger.prices import PriceBook
from keygate.ledger.report_queries import ReportQueries
from keygate.ledger.reports import UsageReports
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.spend import DatabaseSpend, WholeGrant
from keygate.ledger.standing import KeyStanding
from keygate.policies import BudgetMode, BudgetRule, KeyState, Period, Scope

DOLLAR = 1_000_000_000
MODEL = ("openai", "gpt-4.1")


class Engine:
    """Everything of the ledger that one process holds, as `processes/` puts it together."""

    def __init__(self, database: Database, directory: Path, clock: ManualClock) -> None:
        self.database, self.directory, self.clock = database, directory, clock
        self.repository = LedgerRepository()

    async def start(self) -> Engine:
        lock, journal_id = claim(self.directory)
        async with self.database.read() as connection:
            checkpoint = await self.repository.checkpoint(connection, journal_id)
        grant = WholeGrant(database=self.database, repository=self.repository, clock=self.clock, node_id=journal_id)
        await grant.acquire()
        recovered = recover(self.directory, lock, journal_id, checkpoint, clock=self.clock, boot_id="boot", version="1")
        source = DatabaseSpend(database=self.database, repository=self.repository, journal_id=journal_id)
        self.accounts = LedgerAccounts(recovered=recovered, book=PriceBook(), source=source, slices=grant, clock=self.clock)
        self.outbox = EventOutbox(database=self.database, repository=EventRepository(), clock=self.clock)
        self.fold = Fold(
            database=self.database,
            repository=self.repository,
            directory=self.directory,
            journal_id=journal_id,
            clock=self.clock,
            crossings=ThresholdEvents(source=self.accounts, outbox=self.outbox, repository=self.repository),
            release=self.accounts.folded,
            written=lambda: recovered.journal.position,
        )
        await self.fold.tick()
        self.reports = UsageReports(database=self.database, queries=ReportQueries(), clock=self.clock, fresh=self.fold)
        self.standing = KeyStanding(engine=self.accounts, reports=self.reports)
        return self


@pytest.fixture
async def engine(database, tmp_path, clock):
    directory = tmp_path / "journal"
    started = await Engine(database, directory, clock).start()
    yield started
    started.accounts.close()


def budgeted() -> KeyState:
    return key(budgets=(BudgetRule("bud_1", Scope.KEY, "vk_1", None, Period.LIFETIME, BudgetMode.HARD, 10 * DOLLAR, thresholds=(50, 100)),))


def ask(clock: ManualClock, tokens: int) -> Ask:
    return Ask(new_id("req"), clock.now_ns(), "embeddings", "gpt-4.1", tokens, 0, output_free=True)


def spend(engine: Engine, state: KeyState, tokens: int) -> None:
    hold = engine.accounts.begin(state, *MODEL, ask(engine.clock, tokens))
    assert isinstance(hold, Hold), hold
    engine.accounts.settle(hold, Settlement(Outcome.FINISHED, 200, TokenUsage(input=tokens)))


async def test_a_key_stands_as_of_the_answer_folded_or_not(engine):
    state = budgeted()
    await engine.accounts.bind(state)
    spend(engine, state, 1_000_000)  # $2
    held = engine.accounts.begin(state, *MODEL, ask(engine.clock, 500_000))
    assert isinstance(held, Hold)
    usage = await engine.standing.usage(state)
    assert (usage.requests, usage.input_tokens, usage.spent_nano) == (1, 1_000_000, 2 * DOLLAR)
    assert usage.held_nano == held.nano
    assert [(each.spent_nano, each.held_nano) for each in usage.budgets] == [(2 * DOLLAR, held.nano)]
    engine.accounts.cancel(held)


async def test_a_key_that_is_not_in_use_stands_too(engine):
    state = budgeted()
    usage = await engine.standing.usage(state)
    assert (usage.spent_nano, usage.budgets[0].spent_nano) == (0, 0)


async def test_a_crossed_threshold_becomes_an_event_with_the_spend_that_crossed_it(engine):
    state = budgeted()
    await engine.accounts.bind(state)
    spend(engine, state, 1_000_000)
    await engine.fold.tick()
    assert await engine.outbox.page(state.organization_id, before=None, type_=None, limit=9) == []
    spend(engine, state, 1_600_000)
    await engine.fold.tick()
    await engine.fold.tick()
    (event,) = await engine.outbox.page(state.organization_id, before=None, type_=None, limit=9)
    assert (event.type, event.subject) == ("budget.threshold_reached", "bud_1")
    assert '"percent": 50' in event.payload
    assert '"spent_usd": "5.20"' in event.payload


async def test_each_threshold_that_one_call_passes_becomes_an_event(engine):
    state = budgeted()
    await engine.accounts.bind(state)
    spend(engine, state, 5_000_000)
    await engine.fold.tick()
    await engine.fold.tick()
    events = await engine.outbox.page(state.organization_id, before=None, type_=None, limit=9)
    assert {(event.type, json.loads(event.payload)["percent"]) for event in events} == {
        ("budget.threshold_reached", 50),
        ("budget.spent", 100),
    }
    assert {json.loads(event.payload)["spent_usd"] for event in events} == {"10.00"}
    assert len(events) == 2


async def test_a_process_that_ended_without_settling_leaves_a_charge_in_doubt_that_counts_once(engine, database, clock):
    state = budgeted()
    await engine.accounts.bind(state)
    spend(engine, state, 1_000_000)
    lost = engine.accounts.begin(state, *MODEL, ask(clock, 1_000_000))
    assert isinstance(lost, Hold)
    engine.accounts.close()  # as a kill leaves it: nothing was folded, one request is open
    for _ in range(2):
        again = await Engine(database, engine.directory, clock).start()
        usage = await again.standing.usage(state)
        assert usage.spent_nano == 2 * DOLLAR + lost.nano
        assert usage.in_doubt_nano == lost.nano
        assert usage.budgets[0].spent_nano == 2 * DOLLAR + lost.nano
        again.accounts.close()
