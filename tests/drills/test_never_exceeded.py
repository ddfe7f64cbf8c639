"""Hard budgets under everything at once: what the vendor served never costs more than any of them."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.drills import figures
from tests.drills.callers import Answer, Caller, request
from tests.drills.ground import Books, Budget, Ground, Key, compare
from tests.drills.traffic import Traffic

from keygate.kit.money import format_usd, parse_usd

CALLERS = 200
RUNS = figures.length(5, 50)
RUN_SECONDS = figures.length(4, 6)
_MONEY = re.compile(r"may cost up to ([\d.]+) USD: ([\d.]+) USD spent, ([\d.]+) held by requests in flight, limit ([\d.]+)")


@dataclass(slots=True)
class Run:
    """One round: its own teams, keys and budgets."""

    seed: int
    keys: list[Key] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)
    standing: list[str] = field(default_factory=list)  # budgets above the keys, to be removed after the run
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


async def _furnish(ground: Ground, seed: int) -> Run:
    """Six keys below two developers, two teams and the organisation; budgets on most of them, beside vendor, model and tag ones."""
    rng = random.Random(seed)
    run = Run(seed)
    tag = f"project={seed}"

    def amount(low: int, high: int) -> str:
        return format_usd(rng.randint(low, high) * 1_000_003)  # odd nano-dollars: nothing ends on a round sum

    def terms() -> dict[str, Any]:
        period = rng.choice(("lifetime", "day", "month", "year"))
        return {"period": period, "rolling": period != "lifetime" and rng.random() < 0.2}

    teams = [(await ground.api("POST", "/teams", {"name": f"team {seed} {index}"}))["id"] for index in range(2)]
    developers = [
        (
            await ground.api(
                "POST", "/developers", {"name": f"dev {seed} {index}", "email": f"d{index}-{seed}@example.com", "team_id": teams[0]}
            )
        )["id"]
        for index in range(2)
    ]
    places: list[dict[str, str]] = [
        {"developer_id": developers[0]},
        {"developer_id": developers[0]},
        {"developer_id": developers[1]},
        {"team_id": teams[0]},
        {"team_id": teams[1]},
        {},
    ]
    for index, owner in enumerate(places):
        own = [{"amount_usd": amount(20, 300), "mode": "hard", **terms()}] if rng.random() < 0.6 else []
        made = await ground.key(f"drill {seed} {index}", owner=owner, tags=[tag] if index % 2 else [], budgets=own)
        key = Key(made.id, made.token, teams[0] if index < 4 else made.team_id, made.developer_id, made.tags)
        run.keys.append(key)
        if own:
            found = next(each for each in (await ground.budgets(key)).values() if each["scope"] == "key")
            run.budgets.append(Budget(found["id"], "key", key.id, None, parse_usd(found["amount_usd"])))
    above = [("organization", None, None, (300, 1200)), ("team", teams[0], None, (100, 600)), ("developer", developers[0], None, (50, 300))]
    beside = [
        ("vendor", None, "openai", (150, 600)),
        ("vendor", None, "anthropic", (100, 500)),
        ("model", None, "openai/gpt-4.1*", (30, 200)),
        ("model", None, "anthropic/claude-opus-*", (60, 300)),
        ("tag", None, tag, (60, 400)),
    ]
    for scope, scope_id, selector, (low, high) in [*above, *beside]:
        if rng.random() < 0.7:
            made_budget = await ground.budget(scope, scope_id, amount(low, high), selector=selector, **terms())
            run.budgets.append(made_budget)
            run.standing.append(made_budget.id)
    return run


async def _load(ground: Ground, run: Run) -> None:
    """200 callers, each on its own connection, until the money is gone or the time is."""
    until = time.monotonic() + RUN_SECONDS
    traffic = Traffic(run.seed)
    rng = random.Random(run.seed + 1)

    async def client(index: int) -> None:
        caller = Caller(ground.port)
        key = run.keys[index % len(run.keys)]
        refused = 0
        while time.monotonic() < until and refused < 4:
            draft = traffic.draft(key)
            answer = await caller.call(draft.data, leave_after=draft.leave_after, rudely=rng.random() < 0.5)
            kind = _judge(answer, run)
            run.answers[kind] += 1
            if kind == "402 spent":
                refused += 1
            elif kind == "429 held":
                assert 0 < float(answer.headers["retry-after"]) <= 2, answer.headers
                await asyncio.sleep(0.2)
        caller.close()

    for key in run.keys:
        await _greet(ground, key)
    async with asyncio.TaskGroup() as group:
        for index in range(CALLERS):
            group.create_task(client(index))


async def _greet(ground: Ground, key: Key) -> None:
    """A free call, as clients make at their start: the gateway knows the key from then on."""
    caller = Caller(ground.port)
    answer = await caller.call(request("GET", "/openai/v1/models", key.token))
    assert answer.status == 200, bytes(answer.body)
    caller.close()


def _judge(answer: Answer, run: Run) -> str:
    """What came of a call; notes refusals that the numbers in them don't bear out."""
    if answer.left:
        return "left"
    if not answer.status:
        run.wrong.append("a connection was closed without an answer")
        return "closed"
    if answer.headers.get("x-keygate-origin") != "gateway":
        return f"{answer.status}" if answer.whole else f"{answer.status} broken off"
    code = answer.error()["code"]
    if answer.status in (402, 429):
        message = answer.error()["message"]
        numbers = _MONEY.search(message)
        if answer.status == 402:
            if numbers is None:
                run.wrong.append(f"a refusal without its numbers: {message}")
            else:
                needed, spent, _, limit = (parse_usd(text) for text in numbers.groups())
                if spent + needed <= limit:
                    run.wrong.append(f"refused for money never spent: {message}")
            return "402 spent"
        return "429 held" if code == "budget_held" else f"429 {code}"
    if answer.status not in (502, 504):
        run.wrong.append(f"{answer.status} {code}: {answer.error()['message']}")
    return f"{answer.status} {code}"


async def _verify(ground: Ground, run: Run) -> tuple[Books, dict[str, int]]:
    """Every budget against what the vendor served; every call against the ledger. Returns how much of each budget was used, per mille."""
    await ground.quiet(run.keys)
    by_id = {key.id: key for key in run.keys}

    def whose(user: str | None) -> Key | None:
        return by_id.get((user or "").partition(":")[0])

    calls = ground.calls(lambda call: whose(call.user) is not None)
    standing: dict[str, dict[str, Any]] = {}
    for key in run.keys:
        standing |= await ground.budgets(key)
    used: dict[str, int] = {}
    for budget in run.budgets:
        paid = [call for call in calls if budget.pays(by_id[(call.user or "").partition(":")[0]], call.vendor, call.model or "")]
        served = ground.served(paid)
        where = f"seed {run.seed}, budget {budget}"
        assert served <= budget.amount_nano, f"{where}: the vendor served {served}"
        spent = parse_usd(standing[budget.id]["spent_usd"])
        assert served <= spent <= budget.amount_nano, f"{where}: served {served}, spent {spent}"
        used[f"{budget.scope} {budget.selector or budget.scope_id}"] = spent * 1000 // budget.amount_nano
    books = compare(ground, calls, await ground.entries(run.keys))
    assert not run.wrong, f"seed {run.seed}: {len(run.wrong)} wrong answers, such as {run.wrong[:3]}"
    return books, used


@pytest.mark.timeout(figures.length(300, 3600))
async def test_hard_budget_is_never_exceeded(tmp_path: Path) -> None:
    first = figures.seed()
    environment = {"KEYGATE_HOLD_WAIT": "0.5", "KEYGATE_IDLE_TIMEOUT": "1.5", "KEYGATE_FIRST_BYTE_TIMEOUT": "1.5"}
    answers: Counter[str] = Counter()
    runs: list[dict[str, Any]] = []
    with Ground(tmp_path, environment=environment) as ground:
        for seed in range(first, first + RUNS):
            print(f"seed {seed}")
            run = await _furnish(ground, seed)
            await _load(ground, run)
            books, used = await _verify(ground, run)
            answers += run.answers
            runs.append(
                {
                    "seed": seed,
                    "calls": books.calls,
                    "served_usd": figures.usd(books.served_nano),
                    "spent_usd": figures.usd(books.spent_nano),
                    "in_doubt": books.in_doubt,
                    "budgets": len(run.budgets),
                    "closest_per_mille": max(used.values()),
                    "used_per_mille": used,
                }
            )
            for budget_id in run.standing:
                await ground.api("DELETE", f"/budgets/{budget_id}")
            ground.sandbox.state.reset()
    calls = sum(run["calls"] for run in runs)
    ended = sum(run["closest_per_mille"] >= 900 for run in runs)
    line = (
        f"{RUNS} runs (seeds {first}–{first + RUNS - 1}), {CALLERS} callers, {sum(answers.values())} answers, {calls} served, "
        f"{answers['402 spent']} refused as spent, {answers['429 held']} as held; overshoot 0; a budget at least 90 % used in {ended} runs"
    )
    figures.write("never-exceeded", line, callers=CALLERS, overshoot_nano=0, answers=dict(answers.most_common()), runs=runs)
    assert answers["402 spent"], "no budget came to its end: the drill shows nothing"
