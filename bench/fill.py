"""Fills a database that KeyGate has set up already: many keys, each with a budget, and many ledger entries. To measure starts and requests
at scale: `python -m bench.fill --data-dir .keygate --keys 100000 --entries 1000000`.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from keygate.kit.database import Database, open_database
from keygate.kit.ids import new_id
from keygate.ledger import TokenUsage
from keygate.ledger.journal import Context, Settle
from keygate.ledger.posting import LAST_SEQ, ROLLED_SEQ, Postings
from keygate.ledger.repository import LedgerRepository
from keygate.policies import Rules, rules_to_json
from keygate.policies.tables import budgets
from keygate.virtual_keys.tables import virtual_keys
from keygate.virtual_keys.token import digest, mint

STEP = 5_000
MONTH_NS = 30 * 86_400 * 10**9
_MODELS = ("gpt-4.1", "gpt-4.1-mini", "gpt-4o", "o3")


async def fill_keys(database: Database, organization_id: str, count: int, *, pepper: bytes | None = None) -> tuple[list[str], list[str]]:
    """Makes `count` keys of the organisation, each with a hard budget of its own. Returns their ids, and with a pepper their tokens."""
    ids: list[str] = []
    tokens: list[str] = []
    now = time.time_ns()
    rules = rules_to_json(Rules())
    for start in range(0, count, STEP):
        keys, money = [], []
        for number in range(start, min(start + STEP, count)):
            token = mint()
            key_id = new_id("vk")
            ids.append(key_id)
            if pepper is not None:
                tokens.append(token.text.open())
            keys.append(
                {
                    "id": key_id,
                    "public_id": token.public_id,
                    "organization_id": organization_id,
                    "name": f"filled {number}",
                    "hint": token.hint,
                    "digest": secrets.token_bytes(32) if pepper is None else digest(pepper, token.text.open()),
                    "rules": rules,
                    "tags": "[]",
                    "created_at_ns": now,
                    "created_by": "operator",
                    "version": 1,
                }
            )
            money.append(
                {
                    "id": new_id("bud"),
                    "organization_id": organization_id,
                    "scope": "key",
                    "scope_id": key_id,
                    "period": "month",
                    "mode": "hard",
                    "amount_nano": 1_000_000 * 10**9,
                    "rolling": False,
                    "time_zone": "UTC",
                    "thresholds": [],
                    "starts_at_ns": 0,
                    "created_at_ns": now,
                    "created_by": "operator",
                }
            )
        async with database.unit() as work:
            await work.connection.execute(virtual_keys.insert(), keys)
            await work.connection.execute(budgets.insert(), money)
    return ids, tokens


async def fill_entries(database: Database, organization_id: str, key_ids: list[str], count: int) -> None:
    """Adds `count` entries of the last month, oldest first, spread over the keys, and rolls them up."""
    repository = LedgerRepository()
    usage = TokenUsage(input=1200, cache_read=200, output=300)
    first_ns = time.time_ns() - MONTH_NS
    chosen = random.Random(1)
    async with database.read() as connection:
        seq = await repository.counter(connection, LAST_SEQ) + 1
    contexts: dict[tuple[str, str], Context] = {}

    def context(key: str, model: str) -> Context:
        if (key, model) not in contexts:
            spent = ((f"filled_{key}", first_ns),)
            contexts[key, model] = Context(
                organization_id, key, None, None, None, (), "openai", model, model, "chat", False, f"openai/{model}", spent, (), ()
            )
        return contexts[key, model]

    for start in range(0, count, STEP):
        settles = [
            Settle(
                context(chosen.choice(key_ids), _MODELS[number % len(_MODELS)]),
                request_id=new_id("req"),
                at_ns=(at := first_ns + number * (MONTH_NS // count)),
                began_at_ns=at,
                hold_nano=9_000_000,
                cost_nano=1_234_000,
                in_doubt=False,
                usage=usage,
                status=200,
                outcome="finished",
                latency_ns=700_000_000,
            )
            for number in range(start, min(start + STEP, count))
        ]
        batch = Postings()
        former, seq = seq - 1, batch.add(settles, seq)
        async with database.unit() as work:
            await repository.post(work.connection, batch)
            await repository.roll_up(work.connection, after=former, until=seq - 1)
            await repository.set_counter(work.connection, LAST_SEQ, seq - 1)
            await repository.set_counter(work.connection, ROLLED_SEQ, seq - 1)


async def organization(connection: AsyncConnection) -> str:
    """The first organisation. Raises `SystemExit` where there is none."""
    found = await connection.scalar(sa.text("SELECT id FROM organizations ORDER BY id LIMIT 1"))
    if found is None:
        raise SystemExit("There is no organisation in this database; start KeyGate on it once")
    return str(found)


async def key_ids(database: Database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.scalars(sa.select(virtual_keys.c.id))).all())


async def fill(url: str | None, *, data_dir: Path | None, keys: int, entries: int, say: Callable[[str], None] = print) -> None:
    database = open_database(url, data_dir=data_dir)
    try:
        async with database.read() as connection:
            organization_id = await organization(connection)
        started = time.monotonic()
        ids, _ = await fill_keys(database, organization_id, keys)
        say(f"{keys:,} keys in {time.monotonic() - started:.1f} s")
        started = time.monotonic()
        await fill_entries(database, organization_id, ids or ["vk_filled"], entries)
        say(f"{entries:,} entries in {time.monotonic() - started:.1f} s")
    finally:
        await database.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="database URL; default: keygate.db in the data directory")
    parser.add_argument("--data-dir", type=Path, default=Path(".keygate"))
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--entries", type=int, default=1_000_000)
    given = parser.parse_args()
    asyncio.run(fill(given.url, data_dir=given.data_dir, keys=given.keys, entries=given.entries))


if __name__ == "__main__":
    main()
