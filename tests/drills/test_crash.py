"""`kill -9` at any moment under load: nothing that the vendor served is forgotten, nothing is counted twice, budgets go on holding."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tests.drills import figures
from tests.drills.callers import Caller
from tests.drills.ground import Budget, Ground, Key, compare
from tests.drills.traffic import NO_HANGS, Traffic

from keygate.kit.money import format_usd, parse_usd

CALLERS = 60
KILLS = figures.length(3, 20)


class Load:
    """Callers that go on until told to stop; a dead server makes them wait a moment."""

    def __init__(self, ground: Ground, keys: list[Key], seed: int) -> None:
        self.answers: Counter[int] = Counter()
        self._ground = ground
        self._keys = keys
        self._traffic = Traffic(seed, faults=NO_HANGS)
        self._until = time.monotonic() + 3600
        self._tasks = [asyncio.create_task(self._client(index)) for index in range(CALLERS)]

    async def stop(self) -> None:
        self._until = 0
        await asyncio.gather(*self._tasks)

    async def _client(self, index: int) -> None:
        caller = Caller(self._ground.port)
        key = self._keys[index % len(self._keys)]
        while time.monotonic() < self._until:
            draft = self._traffic.draft(key)
            answer = await caller.call(draft.data, leave_after=draft.leave_after)
            self.answers[answer.status] += 1
            if answer.status in (0, 402, 429):
                await asyncio.sleep(0.2 if not answer.status else 0.02)
        caller.close()


async def _keys(ground: Ground, name: str, team_id: str, amounts: tuple[int, ...]) -> tuple[list[Key], list[Budget]]:
    keys, budgets = [], []
    for index, amount in enumerate(amounts):
        own = [{"amount_usd": format_usd(amount), "period": "month", "mode": "hard"}]
        made = await ground.key(f"{name} {index}", owner={"team_id": team_id}, budgets=own)
        keys.append(made)
        found = next(each for each in (await ground.budgets(made)).values() if each["scope"] == "key")
        budgets.append(Budget(found["id"], "key", made.id, None, amount))
    return keys, budgets


async def _check(ground: Ground, keys: list[Key], budgets: list[Budget], *, where: str) -> dict[str, Any]:
    """The books after a restart. Every budget's spend is the sum of its entries: nothing forgotten, nothing twice."""
    by_id = {key.id: key for key in keys}
    calls = ground.calls(lambda call: (call.user or "").partition(":")[0] in by_id)
    entries = await ground.entries(keys)
    books = compare(ground, calls, entries)
    standing: dict[str, dict[str, Any]] = {}
    for key in keys:
        standing |= await ground.budgets(key)
        usage = await ground.api("GET", f"/virtual-keys/{key.id}/usage")
        mine = [entry for entry in entries if entry["key_id"] == key.id]
        assert usage["requests"] == len(mine), f"{where}: {usage['requests']} requests, {len(mine)} entries"
        assert parse_usd(usage["spent_usd"]) == sum(parse_usd(entry["cost_usd"]) for entry in mine), where
        assert parse_usd(usage["in_doubt_usd"]) == sum(parse_usd(entry["cost_usd"]) for entry in mine if entry["in_doubt"]), where
    for budget in budgets:
        paying = {key.id for key in keys if budget.pays(key, "", "")}
        served = ground.served(call for call in calls if (call.user or "").partition(":")[0] in paying)
        booked = sum(parse_usd(entry["cost_usd"]) for entry in entries if entry["key_id"] in paying)
        spent = parse_usd(standing[budget.id]["spent_usd"])
        assert served <= spent <= budget.amount_nano, f"{where}: {budget}: served {served}, spent {spent}"
        assert spent == booked, f"{where}: {budget}: spent {spent}, its entries say {booked}"
    return {
        "calls": books.calls,
        "served_usd": figures.usd(books.served_nano),
        "spent_usd": figures.usd(books.spent_nano),
        "in_doubt": books.in_doubt,
        "in_doubt_usd": figures.usd(books.in_doubt_nano),
    }


async def _listed_in_doubt(ground: Ground) -> set[str]:
    found: set[str] = set()
    cursor: dict[str, Any] = {}
    while True:
        page = await ground.api("GET", "/usage/in-doubt", limit=500, **cursor)
        found |= {entry["request_id"] for entry in page["items"]}
        if page["next_cursor"] is None:
            return found
        cursor = {"cursor": page["next_cursor"]}


async def _exhaust(ground: Ground, keys: list[Key], budgets: list[Budget]) -> int:
    """After the restart, each budget is enforced from exactly where it stood: what still fits is served, then nothing is."""
    caller = Caller(ground.port)
    closest = 0
    for key, budget in zip(keys, budgets, strict=True):
        await ground.quiet([key])
        left = budget.amount_nano - parse_usd((await ground.budgets(key))[budget.id]["spent_usd"])
        traffic = Traffic(budget.amount_nano, faults={}, impatient=0)
        answer = None
        for _ in range(2000):
            answer = await caller.call(traffic.draft(key).data)
            if answer.status == 402 and "may cost up to" in answer.error()["message"]:
                message = answer.error()["message"]
                needed = parse_usd(message.partition("may cost up to ")[2].partition(" USD")[0])
                now = parse_usd(message.partition("USD: ")[2].partition(" USD")[0])
                assert now + needed > budget.amount_nano, message
                assert budget.amount_nano - now <= left, message
                break
            assert answer.status == 200, bytes(answer.body)
        assert answer is not None
        assert answer.status == 402, "the budget never came to its end"
        spent = parse_usd((await ground.budgets(key))[budget.id]["spent_usd"])
        assert spent <= budget.amount_nano
        closest = max(closest, spent * 1000 // budget.amount_nano)
    caller.close()
    return closest


@pytest.mark.timeout(figures.length(300, 1800))
async def test_kill_at_any_moment_loses_nothing_and_counts_nothing_twice(tmp_path: Path, store: dict[str, str]) -> None:
    seed = figures.seed()
    print(f"seed {seed}")
    rng = random.Random(seed)
    kills: list[dict[str, Any]] = []
    every_key: list[Key] = []
    every_budget: list[Budget] = []
    environment = {"KEYGATE_HOLD_WAIT": "0.3", "KEYGATE_IDLE_TIMEOUT": "2", "KEYGATE_FIRST_BYTE_TIMEOUT": "3", **store}
    with Ground(tmp_path, environment=environment) as ground:
        team_id = (await ground.api("POST", "/teams", {"name": "crash"}))["id"]
        every_budget.append(await ground.budget("team", team_id, "1000.00", period="year"))
        for number in range(KILLS):
            # Two keys that will hardly reach their budgets, and one that will.
            amounts = (rng.randint(2, 9) * 1_000_000_007, rng.randint(1, 3) * 1_000_000_007, rng.randint(30, 200) * 1_000_003)
            keys, budgets = await _keys(ground, f"kill {number}", team_id, amounts)
            every_key += keys
            every_budget += budgets
            load = Load(ground, keys, seed + number)
            after = rng.uniform(0.1, 2.5)
            await asyncio.sleep(after)
            ground.keygate.kill()
            flying = sum(1 for call in list(ground.sandbox.state.calls) if not call.ended_at_ns)
            ready = await asyncio.to_thread(ground.keygate.start)
            ground.sign_in()
            if rng.random() < 0.5:
                await asyncio.sleep(rng.uniform(0, 0.5))  # the load meets the server that has just come up
            await load.stop()
            await ground.quiet(keys)
            where = f"seed {seed}, kill {number} after {after:.3f} s"
            figure = await _check(ground, every_key, every_budget, where=where)
            closest = await _exhaust(ground, keys[2:], budgets[2:])
            kills.append({"after_s": round(after, 3), "ready_s": round(ready, 2), "flying": flying, "closest_per_mille": closest, **figure})
        listed = await _listed_in_doubt(ground)
        doubtful = {entry["request_id"] for entry in await ground.entries(every_key) if entry["in_doubt"]}
        assert listed == doubtful, "charges in doubt are listed, all of them and nothing else"
        audit = await ground.api("GET", "/audit/verify")
    last = kills[-1]
    flying = sum(kill["flying"] for kill in kills)
    ready = sorted(kill["ready_s"] for kill in kills)[len(kills) // 2]
    kind = "PostgreSQL" if store else "SQLite"
    line = (
        f"{kind}: {KILLS} kills (seed {seed}), {CALLERS} callers, {last['calls']} calls served for {last['served_usd']} USD; counted "
        f"{last['spent_usd']}, of which {last['in_doubt_usd']} in doubt ({last['in_doubt']} calls; {flying} were at the vendor at a kill, "
        f"the others are its faults); none missing, none twice; ready again in {ready} s (median)"
    )
    figures.write(f"crash-{kind.lower()}", line, seed=seed, kills=kills, audit=audit)
    assert audit["ok"], audit
    assert flying, "no request was in flight at any kill: the drill shows nothing"
