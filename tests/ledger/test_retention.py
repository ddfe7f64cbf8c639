"""Old entries go in portions once they are rolled up; sums stay."""

from __future__ import annotations

import sqlalchemy as sa
from tests.ledger.journal_files import DAY, JANUARY, settle, write

from keygate.ledger import retention
from keygate.ledger.content_repository import ContentRepository
from keygate.ledger.fold import Fold
from keygate.ledger.report_queries import ReportQueries
from keygate.ledger.reports import UsageReports
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.retention import Retention
from keygate.ledger.tables import entries, limit_use


async def test_old_entries_are_deleted_and_their_sums_stay(database, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "PORTION", 3)
    monkeypatch.setattr(retention, "PAUSE", 0)
    write(tmp_path, [settle(began_at_ns=JANUARY + n * DAY // 4) for n in range(40)])
    fold = Fold(database=database, repository=LedgerRepository(), directory=tmp_path, journal_id="node_1", clock=clock)
    reports = UsageReports(database=database, queries=ReportQueries(), clock=clock, fresh=fold)
    keeper = Retention(database=database, repository=LedgerRepository(), contents=ContentRepository(), clock=clock, entry_days=5)
    await fold.tick()
    clock.advance(10 * 86_400)
    assert await keeper.tick() == 0  # nothing is rolled up yet, so nothing may go
    await fold.roll_up()
    assert await keeper.tick() == 20
    async with database.read() as connection:
        assert await connection.scalar(sa.select(sa.func.min(entries.c.at_ns))) == JANUARY + 5 * DAY
        assert await connection.scalar(sa.select(sa.func.min(limit_use.c.bucket_ns))) >= JANUARY + 8 * DAY
    assert (await reports.key_totals("org_1", "vk_1"))["requests"] == 40
    write(tmp_path, [settle(began_at_ns=JANUARY + 10 * DAY)])
    await fold.tick()
    await fold.roll_up()
    assert (await reports.key_totals("org_1", "vk_1"))["requests"] == 41


async def test_numbers_of_entries_are_never_used_again(database, clock, tmp_path):
    write(tmp_path, [settle()])
    fold = Fold(database=database, repository=LedgerRepository(), directory=tmp_path, journal_id="node_1", clock=clock)
    await fold.tick()
    await fold.roll_up()
    clock.advance(100 * 86_400)
    keeper = Retention(database=database, repository=LedgerRepository(), contents=ContentRepository(), clock=clock, entry_days=5)
    assert await keeper.tick() == 1
    write(tmp_path, [settle()])
    again = Fold(database=database, repository=LedgerRepository(), directory=tmp_path, journal_id="node_1", clock=clock)
    await again.tick()
    await again.roll_up()
    async with database.read() as connection:
        assert await connection.scalar(sa.select(entries.c.seq)) == 2
    reports = UsageReports(database=database, queries=ReportQueries(), clock=clock)
    assert (await reports.key_totals("org_1", "vk_1"))["requests"] == 2
