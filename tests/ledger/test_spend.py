"""What the engine loads at a start, and the permission to spend."""

from __future__ import annotations

import pytest
from tests.ledger.journal_files import DAY, JANUARY, settle, write

from keygate.errors import StartRefused, Unavailable
from keygate.ledger.fold import Fold
from keygate.ledger.journal import START, Position
from keygate.ledger.ports import BudgetQuery
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.spend import LEASE_NS, DatabaseSpend, WholeGrant

DOLLAR = 1_000_000_000


async def test_spend_and_limits_are_loaded_as_of_the_checkpoint(database, tmp_path, clock):
    repository = LedgerRepository()
    source = DatabaseSpend(database=database, repository=repository, journal_id="node_1")
    empty = await source.load([BudgetQuery("bud_key", 0)], ["lim_day"], 0)
    assert (empty.position, empty.budgets, empty.limits) == (START, {}, {})

    write(tmp_path, [settle(), settle(began_at_ns=JANUARY + DAY, budgets=(("bud_key", JANUARY + DAY),), in_doubt=True, cost_nano=5)])
    await Fold(database=database, repository=repository, directory=tmp_path, journal_id="node_1", clock=clock).tick()
    size = (tmp_path / "000000000001.kgj").stat().st_size
    loaded = await source.load([BudgetQuery("bud_key", JANUARY), BudgetQuery("bud_org", JANUARY + 1)], ["lim_day"], JANUARY + 1)
    assert loaded.position == Position(1, size)
    assert loaded.budgets == {"bud_key": [(JANUARY, DOLLAR, 0), (JANUARY + DAY, 5, 5)]}
    assert loaded.limits == {"lim_day": [(JANUARY + DAY, 1)]}
    many = await source.load([BudgetQuery(f"bud_{n}", 0) for n in range(250)] + [BudgetQuery("bud_org", 0)], [], 0)
    assert list(many.budgets) == ["bud_org"]


async def test_one_gateway_is_granted_the_whole_and_a_second_one_is_refused(database, clock):
    first = WholeGrant(database=database, repository=LedgerRepository(), clock=clock, node_id="node_1")
    second = WholeGrant(database=database, repository=LedgerRepository(), clock=clock, node_id="node_2")
    assert first.granted("bud_1", 100) == 0
    await first.acquire()
    assert first.granted("bud_1", 100) == 100
    with pytest.raises(StartRefused, match="Another KeyGate gateway"):
        await second.acquire()
    clock.advance(100)
    await first.renew()
    clock.advance(100)
    with pytest.raises(StartRefused):
        await second.acquire()
    await first.release()
    assert first.granted("bud_1", 100) == 0
    await second.acquire()
    assert second.granted("bud_1", 100) == 100


async def test_a_gateway_whose_lease_has_ended_spends_nothing(database, clock):
    first = WholeGrant(database=database, repository=LedgerRepository(), clock=clock, node_id="node_1")
    second = WholeGrant(database=database, repository=LedgerRepository(), clock=clock, node_id="node_2")
    await first.acquire()
    clock.advance(LEASE_NS / 1e9)
    assert first.granted("bud_1", 100) == 0
    await second.acquire()
    with pytest.raises(Unavailable):
        await first.renew()
    assert first.granted("bud_1", 100) == 0


async def test_a_gateway_that_died_takes_its_own_lease_up_again_at_once(database, clock):
    await WholeGrant(database=database, repository=LedgerRepository(), clock=clock, node_id="node_1").acquire()
    again = WholeGrant(database=database, repository=LedgerRepository(), clock=clock, node_id="node_1")
    await again.acquire()
    assert again.granted("bud_1", 7) == 7
