"""Promises of the database, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import gc

import pytest
import sqlalchemy as sa

from keygate.errors import Conflict, InvalidInput, StartRefused, Unavailable
from keygate.kit.database import insert_or_ignore, lock, open_database, upsert

_scratch = sa.MetaData()
counters = sa.Table(
    "scratch_counters",
    _scratch,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)


@pytest.fixture
async def store(database):
    async with database.unit() as work:
        await work.connection.run_sync(_scratch.create_all)
        await work.connection.execute(sa.insert(counters).values(id="a", value=0))
    return database


async def _value(database, key="a"):
    async with database.read() as connection:
        return (await connection.execute(sa.select(counters.c.value).where(counters.c.id == key))).scalar_one_or_none()


async def test_a_unit_commits_whole_or_not_at_all(store):
    with pytest.raises(ValueError, match="stop"):
        async with store.unit() as work:
            await work.connection.execute(sa.update(counters).values(value=5))
            raise ValueError("stop")
    assert await _value(store) == 0


async def test_concurrent_writers_never_lose_an_update(store):
    async def add():
        async with store.unit() as work:
            value = (await work.connection.execute(sa.select(counters.c.value).where(counters.c.id == "a").with_for_update())).scalar_one()
            await asyncio.sleep(0)
            await work.connection.execute(sa.update(counters).values(value=value + 1))

    await asyncio.gather(*(add() for _ in range(40)))
    assert await _value(store) == 40


async def test_readers_do_not_wait_for_a_writer_and_see_one_snapshot(store):
    async with store.unit() as work:
        await work.connection.execute(sa.update(counters).values(value=1))
        assert await asyncio.wait_for(_value(store), 2) == 0
        async with store.read() as connection:
            assert (await connection.execute(sa.select(counters.c.value))).scalar_one() == 0
            other = asyncio.create_task(_set_other(store))
            await asyncio.sleep(0.05)
            assert (await connection.execute(sa.select(sa.func.count()).select_from(counters))).scalar_one() == 1
    await other
    assert await _value(store) == 1
    assert await _value(store, "b") == 7


async def _set_other(store):
    async with store.unit() as work:
        await work.connection.execute(sa.insert(counters).values(id="b", value=7))


async def test_a_read_connection_refuses_to_write(store):
    with pytest.raises(Unavailable):
        async with store.read() as connection:
            await connection.execute(sa.update(counters).values(value=9))
    assert await _value(store) == 0


async def test_after_commit_runs_in_order_and_sees_the_commit(store):
    seen = []

    async def first():
        seen.append(("first", await _value(store)))

    async def second():
        seen.append("second")

    async with store.unit() as work:
        await work.connection.execute(sa.update(counters).values(value=3))
        work.after_commit(first)
        work.after_commit(second)
        assert seen == []
    assert seen == [("first", 3), "second"]


async def test_after_commit_does_not_run_after_a_rollback(store):
    seen = []

    async def note():
        seen.append(1)

    with pytest.raises(ValueError, match="stop"):
        async with store.unit() as work:
            work.after_commit(note)
            raise ValueError("stop")
    assert seen == []


async def test_a_change_whose_publication_failed_is_stored_but_never_reported_as_done(store, caplog):
    seen = []

    async def broken():
        raise RuntimeError("gateway away")

    async def next_one():
        seen.append(1)

    with pytest.raises(Unavailable):
        async with store.unit() as work:
            await work.connection.execute(sa.update(counters).values(value=4))
            work.after_commit(broken)
            work.after_commit(next_one)
    assert await _value(store) == 4
    assert seen == [1]
    assert "gateway away" in caplog.text


async def test_units_do_not_nest(store):
    with pytest.raises(RuntimeError, match="inside a unit"):
        async with store.unit(), store.unit():
            pass
    async with store.unit():
        pass


async def test_a_commit_is_finished_when_the_caller_is_cancelled(store):
    started, release, seen = asyncio.Event(), asyncio.Event(), []

    async def publish():
        started.set()
        await release.wait()
        seen.append(1)

    async def change():
        async with store.unit() as work:
            await work.connection.execute(sa.update(counters).values(value=8))
            work.after_commit(publish)

    task = asyncio.create_task(change())
    await started.wait()
    task.cancel()
    await asyncio.sleep(0.02)
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == [1]
    assert await _value(store) == 8


async def test_a_unit_that_is_cancelled_in_the_middle_of_a_statement_leaves_no_lock(tmp_path):
    """Not even while the traceback still knows the statement, which keeps SQLite's closed connection alive."""
    database = open_database(data_dir=tmp_path)
    async with database.unit() as work:
        await work.connection.execute(sa.text("CREATE TABLE numbers (n INTEGER)"))
    rows = [(number,) for number in range(1_000_000)]
    running = asyncio.Event()
    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *told: running.set() if told[-1] else None)

    async def long() -> None:
        async with database.unit() as work:
            await work.connection.exec_driver_sql("INSERT INTO numbers VALUES (?)", rows)

    kept: list[BaseException] = []
    gc.disable()
    try:
        for _ in range(3):
            running.clear()
            task = asyncio.create_task(long())
            await running.wait()
            await asyncio.sleep(0.05)
            task.cancel()
            kept += [error for error in await asyncio.gather(task, return_exceptions=True) if error is not None]
            async with asyncio.timeout(10), database.unit() as work:
                assert (await work.connection.execute(sa.text("SELECT count(*) FROM numbers"))).scalar() == 0
    finally:
        gc.enable()
    assert [type(error) for error in kept] == [asyncio.CancelledError] * 3
    await database.close()


async def test_a_cancelled_unit_leaves_no_lock(store):
    inside = asyncio.Event()

    async def hang():
        async with store.unit() as work:
            await work.connection.execute(sa.update(counters).values(value=8))
            inside.set()
            await asyncio.sleep(60)

    task = asyncio.create_task(hang())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(5), store.unit() as work:
        await work.connection.execute(sa.update(counters).values(value=2))
    assert await _value(store) == 2


@pytest.mark.parametrize("values", [{"id": "x", "value": 2**63}, {"id": "x", "value": -(2**63) - 1}, {"id": "\ud800", "value": 1}])
async def test_what_can_not_be_stored_is_invalid_input(store, values):
    with pytest.raises(InvalidInput):
        async with store.unit() as work:
            await work.connection.execute(sa.insert(counters).values(**values))


async def test_a_number_above_64_bits_in_a_query_is_invalid_input(store):
    with pytest.raises(InvalidInput):
        async with store.read() as connection:
            await connection.execute(sa.select(counters).where(counters.c.value == 2**70))


async def test_64_bit_numbers_are_kept(store):
    async with store.unit() as work:
        await work.connection.execute(sa.insert(counters).values(id="big", value=2**63 - 1))
    assert await _value(store, "big") == 2**63 - 1


async def test_a_broken_constraint_is_a_conflict(store):
    with pytest.raises(Conflict):
        async with store.unit() as work:
            await work.connection.execute(sa.insert(counters).values(id="a", value=1))


async def test_insert_or_ignore_tells_whether_it_inserted_and_the_unit_goes_on(store):
    async with store.unit() as work:
        assert await insert_or_ignore(work.connection, counters, {"id": "n", "value": 1})
        assert not await insert_or_ignore(work.connection, counters, {"id": "n", "value": 2})
        await work.connection.execute(sa.insert(counters).values(id="m", value=3))
    assert (await _value(store, "n"), await _value(store, "m")) == (1, 3)


async def test_upsert_replaces_or_computes(store):
    async with store.unit() as work:
        rows = [{"id": "a", "value": 5}, {"id": "u", "value": 6}]
        await upsert(work.connection, counters, rows, key=("id",), update=("value",))
        await upsert(
            work.connection, counters, {"id": "u", "value": 4}, key=("id",), update={"value": lambda new: counters.c.value + new.value}
        )
    assert (await _value(store), await _value(store, "u")) == (5, 10)


async def test_a_named_lock_is_held_until_the_end_of_the_unit(store):
    order = []

    async def one(name, pause):
        async with store.unit() as work:
            await lock(work.connection, "chain")
            order.append(name)
            await asyncio.sleep(pause)
            order.append(name)

    await asyncio.gather(one("a", 0.05), one("b", 0))
    assert order in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


async def test_errors_never_show_parameters(store, caplog):
    with pytest.raises(Conflict) as caught:
        async with store.unit() as work:
            await work.connection.execute(sa.insert(counters).values(id="a", value=987654321))
    assert "987654321" not in f"{caught.value!r} {caught.value.__cause__} {caplog.text}"


async def test_two_processes_on_one_sqlite_file_wait_for_each_other(tmp_path):
    one, two = open_database(data_dir=tmp_path), open_database(data_dir=tmp_path)
    async with one.unit() as work:
        await work.connection.run_sync(_scratch.create_all)
        await work.connection.execute(sa.insert(counters).values(id="a", value=0))

    async def add(database):
        async with database.unit() as work:
            value = (await work.connection.execute(sa.select(counters.c.value))).scalar_one()
            await work.connection.execute(sa.update(counters).values(value=value + 1))

    await asyncio.gather(*(add(database) for _ in range(20) for database in (one, two)))
    assert await _value(one) == 40
    assert (tmp_path / "keygate.db").stat().st_mode & 0o077 == 0
    await one.close()
    await two.close()


@pytest.mark.parametrize(
    "url", ["mysql://root@localhost/x", "nonsense", "sqlite://", "postgres://h/db?surprise=1", "sqlite:////proc/none/x.db"]
)
def test_an_address_that_can_not_be_used_refuses_the_start(url):
    with pytest.raises(StartRefused):
        open_database(url)


async def test_a_server_that_is_away_is_unavailable(tmp_path):
    database = open_database(f"postgres://keygate@/x?host={tmp_path}")
    with pytest.raises(Unavailable):
        async with database.unit():
            pass
    await database.close()


async def test_changes_of_one_organisation_run_one_after_another_and_leave_the_connections_to_others(store):
    running, most, done = 0, 0, 0

    async def change(organization_id):
        nonlocal running, most, done
        async with store.unit(organization_id) as work:
            assert work.organization_id == organization_id
            running += 1
            most = max(most, running)
            await work.connection.execute(sa.select(1))
            await asyncio.sleep(0.01)
            running -= 1
        done += 1

    changes = [asyncio.create_task(change("org_1")) for _ in range(60)]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(5), store.read() as connection:
        await connection.execute(sa.select(1))
    assert done < 20, "a read does not wait for all changes that wait"
    await asyncio.gather(*changes)
    assert (most, done) == (1, 60)


async def test_a_change_that_fails_or_is_cancelled_lets_the_next_one_in(store):
    with pytest.raises(LookupError):
        async with store.unit("org_1"):
            raise LookupError
    async with store.unit("org_1"):
        waiting = asyncio.create_task(_empty_unit(store))
        await asyncio.sleep(0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(5), store.unit("org_1"):
        pass


async def _empty_unit(store):
    async with store.unit("org_1"):
        pass


async def test_a_change_that_waits_too_long_for_its_turn_is_unavailable(store, monkeypatch):
    monkeypatch.setattr("keygate.kit.database.WAIT_SECONDS", 0.05)
    async with store.unit("org_1"):
        with pytest.raises(Unavailable, match="try again"):
            await asyncio.create_task(_empty_unit(store))


async def test_a_full_disk_is_called_so_and_the_database_goes_on_when_there_is_room(tmp_path, caplog):
    store = open_database(f"sqlite:///{tmp_path}/keygate.db")
    async with store.unit() as work:
        await work.connection.run_sync(counters.create)
        pages = (await work.connection.exec_driver_sql("PRAGMA page_count")).scalar_one()
    async with store.engine.connect() as connection:
        await connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    with pytest.raises(Unavailable, match="disk of the database is full"):
        async with store.unit() as work:
            await work.connection.execute(sa.insert(counters), [{"id": f"{number:0200}", "value": 1} for number in range(200)])
    assert "Traceback" not in caplog.text
    async with store.engine.connect() as connection:
        await connection.exec_driver_sql("PRAGMA max_page_count=100000")
    async with store.unit() as work:
        await work.connection.execute(sa.insert(counters), [{"id": f"{number:0200}", "value": 1} for number in range(200)])
    await store.close()
