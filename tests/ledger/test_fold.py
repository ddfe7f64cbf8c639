"""The fold: settled requests become entries, spend and a checkpoint, exactly once, whatever happens in between."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy as sa
from tests.ledger.journal_files import DAY, HOUR, JANUARY, settle, write

from keygate.kit.clock import ManualClock
from keygate.kit.database import Database, open_database
from keygate.ledger.fold import Fold
from keygate.ledger.journal import Position
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.tables import budget_spend, entries, limit_use, usage_daily, usage_hourly

DOLLAR = 1_000_000_000


def fold_of(database: Database, directory: Path, **options) -> Fold:
    return Fold(
        database=database,
        repository=LedgerRepository(),
        directory=directory,
        journal_id="node_1",
        clock=options.pop("clock", ManualClock()),
        **options,
    )


async def spent(database: Database) -> dict[tuple[str, int], tuple[int, int]]:
    async with database.read() as connection:
        return {
            (row.budget_id, row.window_start_ns): (row.spent_nano, row.in_doubt_nano)
            for row in await connection.execute(sa.select(budget_spend))
        }


async def count(database: Database, table: sa.Table = entries) -> int:
    async with database.read() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(table))


async def test_settled_requests_become_entries_and_spend(database, tmp_path):
    write(tmp_path, [settle(), settle(cost_nano=None, price_id=None), settle(in_doubt=True, cost_nano=2 * DOLLAR, tags=("project=x",))])
    fold = fold_of(database, tmp_path)
    assert await fold.tick() == 3
    assert await spent(database) == {("bud_key", JANUARY): (3 * DOLLAR, 2 * DOLLAR), ("bud_org", JANUARY): (3 * DOLLAR, 2 * DOLLAR)}
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(entries).order_by(entries.c.seq))).all()
        used = (await connection.execute(sa.select(limit_use))).all()
    assert [row.cost_nano for row in rows] == [DOLLAR, None, 2 * DOLLAR]
    assert [row.seq for row in rows] == [1, 2, 3]
    assert (rows[0].input_tokens, rows[0].cache_read_tokens, rows[0].output_tokens, rows[0].latency_ms) == (1000, 100, 50, 1234)
    assert rows[0].charges is None
    assert rows[2].charges is not None
    assert rows[2].tags == '["project=x"]'
    assert [(row.limit_id, row.amount) for row in used] == [("lim_day", 3)]


async def test_every_record_is_folded_once_however_often_the_fold_runs(database, tmp_path):
    records = [settle() for _ in range(700)]
    write(tmp_path, records[:300])
    fold = fold_of(database, tmp_path)
    assert await fold.tick() == 300
    write(tmp_path, records[300:])
    assert await fold.tick() == 400
    assert await fold.tick() == 0
    assert await fold_of(database, tmp_path).tick() == 0  # a new process starts from the checkpoint
    assert await count(database) == 700
    assert (await spent(database))["bud_key", JANUARY] == (700 * DOLLAR, 0)


async def test_a_request_that_stands_in_the_ledger_already_is_not_posted_again(database, tmp_path):
    twice = settle()
    write(tmp_path, [twice, settle()])
    await fold_of(database, tmp_path).tick()
    write(tmp_path, [settle(), twice, settle(), twice])
    assert await fold_of(database, tmp_path).tick() == 2
    assert await count(database) == 4
    assert (await spent(database))["bud_org", JANUARY] == (4 * DOLLAR, 0)


async def test_two_folds_of_one_journal_never_post_a_record_twice(database, tmp_path):
    write(tmp_path, [settle() for _ in range(50)])
    first, second = fold_of(database, tmp_path), fold_of(database, tmp_path)
    await asyncio.gather(first.tick(), second.tick())
    write(tmp_path, [settle() for _ in range(50)])
    await asyncio.gather(second.tick(), first.tick())
    assert await count(database) == 100
    assert (await spent(database))["bud_key", JANUARY] == (100 * DOLLAR, 0)


class _Fails(LedgerRepository):
    """Cuts the transaction off at its last step."""

    async def move_checkpoint(self, connection, journal_id, position, *, now_ns):
        await super().move_checkpoint(connection, journal_id, position, now_ns=now_ns)
        raise RuntimeError("cut")


async def test_a_fold_that_fails_before_its_commit_leaves_nothing_and_is_repeated(database, tmp_path):
    write(tmp_path, [settle() for _ in range(20)])
    fold = fold_of(database, tmp_path)
    fold._repository = _Fails()
    with pytest.raises(RuntimeError, match="cut"):
        await fold.tick()
    assert await count(database) == 0
    assert await spent(database) == {}
    fold._repository = LedgerRepository()
    assert await fold.tick() == 20
    assert (await spent(database))["bud_key", JANUARY] == (20 * DOLLAR, 0)


_CHILD = """
import asyncio, sys
from pathlib import Path
from keygate.kit.clock import SystemClock
from keygate.kit.database import open_database
from keygate.ledger import fold
from keygate.ledger.repository import LedgerRepository
fold.TRANSACTION = 100
async def main():
    database = open_database(sys.argv[1])
    await fold.Fold(
        database=database, repository=LedgerRepository(), directory=Path(sys.argv[2]), journal_id="node_1", clock=SystemClock()
    ).tick()
asyncio.run(main())
"""


async def test_a_fold_that_is_killed_at_any_moment_neither_loses_nor_doubles(database_url, tmp_path):
    directory = tmp_path / "journal"
    write(directory, [settle() for _ in range(6000)])
    for round_ in range(4):
        child = subprocess.Popen(  # noqa: ASYNC220  (nothing else runs on this loop)
            [sys.executable, "-c", _CHILD, database_url, str(directory)]
        )
        started = open_database(database_url)
        deadline = time.monotonic() + 20
        before = await count(started)
        while child.poll() is None and await count(started) == before and time.monotonic() < deadline:
            time.sleep(0.003)  # noqa: ASYNC251  (as above)
        await asyncio.sleep(0.013 * round_)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        posted = await count(started)
        assert sum(value[0] for window, value in (await spent(started)).items() if window[0] == "bud_key") == posted * DOLLAR
        await started.close()
    database = open_database(database_url)
    await fold_of(database, directory).tick()
    assert await count(database) == 6000
    assert (await spent(database))["bud_key", JANUARY] == (6000 * DOLLAR, 0)
    await database.close()


async def test_roll_ups_contain_each_entry_once_in_steps(database, tmp_path):
    fold = fold_of(database, tmp_path)
    for day in range(3):
        write(tmp_path, [settle(began_at_ns=JANUARY + day * DAY + hour * HOUR, status=500 if hour == 1 else 200) for hour in (0, 0, 1)])
        await fold.tick()
        await fold.roll_up()
        await fold.roll_up()
    async with database.read() as connection:
        hourly = (await connection.execute(sa.select(usage_hourly).order_by(usage_hourly.c.bucket_ns))).all()
        daily = (await connection.execute(sa.select(usage_daily).order_by(usage_daily.c.bucket_ns))).all()
    assert [row.requests for row in hourly] == [2, 1] * 3
    assert [row.errors for row in hourly] == [0, 1] * 3
    assert [(row.requests, row.cost_nano, row.input_tokens) for row in daily] == [(3, 3 * DOLLAR, 3000)] * 3


async def test_what_was_folded_is_released_after_the_commit_and_the_lag_ends(database, tmp_path):
    released: list[Position] = []
    clock = ManualClock()
    write(tmp_path, [settle()])
    size = (tmp_path / "000000000001.kgj").stat().st_size
    fold = fold_of(database, tmp_path, clock=clock, release=released.append, written=lambda: Position(1, size))
    clock.advance(7)
    assert fold.lag().seconds == 7
    assert fold.lag().bytes == size
    await fold.tick()
    assert released == [Position(1, size)]
    assert fold.lag() == (lag := fold.lag())
    assert (lag.bytes, lag.seconds, lag.entries_not_rolled_up) == (0, 0, 1)


class _Crossings:
    def __init__(self) -> None:
        self.waiting: list[object] = ["80 % of bud_key"]
        self.announced: list[object] = []
        self.fail = True

    def has_crossed(self):
        return bool(self.waiting)

    def drain(self):
        taken, self.waiting = self.waiting, []
        return taken

    async def announce(self, work, crossings):
        if self.fail:
            raise RuntimeError("cut")
        self.announced.extend(crossings)
        return ()


async def test_crossings_are_announced_in_the_same_transaction_and_kept_until_it_commits(database, tmp_path):
    crossings = _Crossings()
    write(tmp_path, [settle()])
    fold = fold_of(database, tmp_path, crossings=crossings)
    with pytest.raises(RuntimeError, match="cut"):
        await fold.tick()
    assert await count(database) == 0
    crossings.fail = False
    await fold.tick()
    assert crossings.announced == ["80 % of bud_key"]
    await fold.tick()
    assert crossings.announced == ["80 % of bud_key"]


async def test_an_alarm_does_not_wait_for_the_next_fold_and_without_one_nothing_is_done(database, tmp_path):
    crossings = _Crossings()
    crossings.fail = False
    write(tmp_path, [settle()])
    fold = fold_of(database, tmp_path, crossings=crossings)
    assert await fold.announce() == 1
    assert crossings.announced == ["80 % of bud_key"]
    write(tmp_path, [settle()])
    assert await fold.announce() == 0
    assert await count(database) == 1


async def test_a_fold_gives_the_event_loop_its_turns(database, tmp_path):
    write(tmp_path, [settle() for _ in range(5000)])
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await fold_of(database, tmp_path).tick()
    task.cancel()
    assert turns >= 5000 / 250
