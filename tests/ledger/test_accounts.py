"""The engine: hard budgets are never exceeded, and money never spent refuses nobody for longer than the request that holds it lives."""

from __future__ import annotations

import asyncio
import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule
from tests.ledger.engine import GPT, OPUS, Engine, budget, key, limit

from keygate.errors import Unavailable
from keygate.kit.clock import NANOSECONDS, SystemClock
from keygate.kit.money import NANO
from keygate.ledger import Hold, Outcome, Refusal, RefusalKind, Settlement, TokenUsage
from keygate.ledger.journal import JournalUnwritable, Position
from keygate.ledger.meters.windows import LEASE
from keygate.ledger.prices import PriceBook
from keygate.policies import BudgetMode, LimitKind, Period, Scope

CENT = NANO // 100


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.accounts.close()


def refused(got: Hold | Refusal, kind: RefusalKind) -> Refusal:
    assert isinstance(got, Refusal), got
    assert got.kind is kind, got
    return got


def admitted(got: Hold | Refusal) -> Hold:
    assert isinstance(got, Hold), got
    return got


def spent_and_held(engine: Engine, state: object) -> list[tuple[int, int]]:
    return [(each.spent_nano, each.held_nano) for each in engine.accounts.standing(state).budgets]


# money


async def test_a_callers_maximum_is_held_in_full_and_settled_at_its_cost(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, tokens=1000, output=200))
    assert hold.nano == 1000 * 5_000 + 200 * 25_000
    assert hold.output_set is None
    assert spent_and_held(engine, state) == [(0, hold.nano)]
    assert engine.finish(hold, tokens=300, output=7) == 300 * 5_000 + 7 * 25_000
    assert spent_and_held(engine, state) == [(300 * 5_000 + 7 * 25_000, 0)]


async def test_settle_is_idempotent(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state))
    assert engine.finish(hold) == engine.finish(hold, output=100) == 10 * 30_000
    assert spent_and_held(engine, state) == [(300_000, 0)]
    engine.fold()
    assert len(engine.spend.settles) == 1


@pytest.mark.parametrize(
    ("outcome", "charged", "in_doubt"),
    [
        (Outcome.NOT_SENT, False, False),
        (Outcome.UPSTREAM_ERROR, False, False),
        (Outcome.UPSTREAM_LOST, True, True),
        (Outcome.CLIENT_GONE, True, True),
        (Outcome.CUT, True, True),
    ],
)
async def test_an_unknown_usage_is_charged_at_the_hold_unless_nothing_was_billed(
    engine: Engine, outcome: Outcome, charged: bool, in_doubt: bool
) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state))
    assert engine.accounts.settle(hold, Settlement(outcome, 502, None)) == (hold.nano if charged else 0)
    standing = engine.accounts.standing(state).budgets[0]
    assert (standing.held_nano, standing.in_doubt_nano) == (0, hold.nano if in_doubt else 0)
    engine.fold()
    assert engine.spend.settles[0].in_doubt is in_doubt


async def test_all_scopes_must_pass_and_the_tightest_is_named(engine: Engine) -> None:
    state = key(
        budgets=[
            budget(100 * NANO, id="bud_org", scope=Scope.ORGANIZATION),
            budget(CENT, id="bud_team", scope=Scope.TEAM),
            budget(NANO, id="bud_key"),
            budget(1, id="bud_other", scope=Scope.MODEL, selector="openai/*"),
        ]
    )
    await engine.accounts.bind(state)
    refusal = refused(engine.begin(state, output=1000), RefusalKind.BUDGET_SPENT)
    assert (refusal.rule_id, refusal.scope) == ("bud_team", Scope.TEAM)
    assert "0.00 USD spent" in refusal.detail
    assert "limit 0.01" in refusal.detail
    assert "A maximum of 380 output tokens would fit now" in refusal.detail
    assert spent_and_held(engine, state) == [(0, 0)] * 4  # all or none
    admitted(engine.begin(state, output=380))


async def test_only_holds_in_the_way_is_not_spent(engine: Engine) -> None:
    state = key(budgets=[budget(CENT)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, output=300))
    refusal = refused(engine.begin(state, output=300), RefusalKind.BUDGET_HELD)
    assert refusal.retry_after_ms is not None
    assert 1000 <= refusal.retry_after_ms <= 2000
    engine.finish(hold)
    admitted(engine.begin(state, output=300))


async def test_a_spent_budget_refuses_at_once_also_those_who_would_wait(tmp_path: Path) -> None:
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=5)
    state = key(budgets=[budget(CENT)])
    await engine.accounts.bind(state)
    engine.finish(admitted(engine.begin(state, output=380)), output=380, tokens=100)
    async with asyncio.timeout(0.5):
        for output in (100, None):
            refused(await engine.begin_waiting(state, output=output), RefusalKind.BUDGET_SPENT)
    engine.accounts.close()


async def test_a_soft_budget_counts_and_reports_but_never_refuses(engine: Engine) -> None:
    state = key(budgets=[budget(CENT, mode=BudgetMode.SOFT, thresholds=(50, 100))])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, output=None))
    assert hold.output_set is None  # the body stays as it is
    engine.finish(hold, tokens=1000, output=300)
    engine.finish(admitted(engine.begin(state, output=10_000)), output=10)
    assert [crossed.percents for crossed in engine.accounts.drain()] == [(50, 100)]
    assert engine.accounts.drain() == []


async def test_an_unknown_price_is_refused_under_a_hard_budget_and_unpriced_otherwise(engine: Engine) -> None:
    hard, free = key(budgets=[budget(NANO)]), key(id="vk_2", budgets=[budget(NANO, id="bud_2", mode=BudgetMode.SOFT)])
    await engine.accounts.bind(hard)
    await engine.accounts.bind(free)
    unknown = ("openai", "gpt-9-unheard-of")
    refused(engine.begin(hard, unknown), RefusalKind.UNPRICED)
    hold = admitted(engine.begin(free, unknown))
    assert engine.finish(hold) is None
    engine.fold()
    assert engine.spend.settles[0].cost_nano is None
    assert engine.spend.settles[0].context.price_id is None


async def test_what_is_free_needs_no_money_and_no_price(engine: Engine) -> None:
    state = key(budgets=[budget(0)])
    await engine.accounts.bind(state)
    for endpoint in ("moderations", "count_tokens"):
        ask = engine.ask()
        ask.endpoint = endpoint
        hold = admitted(engine.accounts.begin(state, "openai", "omni-moderation-latest", ask))
        assert engine.finish(hold) == 0
    engine.fold()
    assert [settle.cost_nano for settle in engine.spend.settles] == [0, 0]


async def test_a_cost_without_a_bound_needs_a_ceiling_under_a_hard_budget(engine: Engine) -> None:
    plain, allowed = key(budgets=[budget(NANO)]), key(id="vk_2", budgets=[budget(NANO)], ceiling=5 * CENT)
    await engine.accounts.bind(plain)
    await engine.accounts.bind(allowed)
    refusal = refused(engine.begin(plain, unbounded=("web_search",)), RefusalKind.UNBOUNDED)
    assert "web_search" in refusal.detail
    hold = admitted(engine.begin(allowed, unbounded=("web_search",)))
    assert hold.nano == 100 * 30_000 + 5 * CENT
    usage = TokenUsage(input=10, output=10, web_searches=2)
    assert engine.accounts.settle(hold, Settlement(Outcome.FINISHED, 200, usage)) == 10 * 30_000 + 2 * CENT  # $10 a thousand
    hold = admitted(engine.begin(allowed, unbounded=("code_interpreter",)))
    assert engine.finish(hold) == 10 * 30_000 + 5 * CENT  # nobody can read what it cost: the ceiling


async def test_a_dearer_tier_is_held_where_it_fits_and_ruled_out_where_it_does_not(engine: Engine) -> None:
    state = key(budgets=[budget(10_000_000)])
    await engine.accounts.bind(state)
    model = ("openai", "o4-mini")
    engine.clock.advance(365 * 86_400)
    price = PriceBook().find(*model, engine.clock.now_ns())
    assert price is not None
    assert price.tiers["priority"].ceiling(1, False).output > price.standard.ceiling(1, False).output
    hold = admitted(engine.begin(state, model, tokens=100, output=100))
    assert hold.tier_set is None
    engine.accounts.cancel(hold)
    standard = price.standard.ceiling(100, True)
    most = standard.affordable_output(10_000_000, 100)
    assert most is not None
    hold = admitted(engine.begin(state, model, tokens=100, output=most))
    assert hold.tier_set == "default"
    assert hold.nano <= 10_000_000


# the gateway's own maximum


@pytest.mark.parametrize("model", [OPUS, ("anthropic", "claude-opus-4-1"), GPT, ("openai", "gpt-5"), ("openai", "o1-pro")])
async def test_twenty_callers_at_once_without_a_maximum_are_all_served_on_a_fresh_dollar(tmp_path: Path, model: tuple[str, str]) -> None:
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=2)
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    given: list[int] = []

    async def call() -> None:
        got = engine.begin(state, model, tokens=120, output=None)
        if isinstance(got, Refusal):
            got = await engine.begin_waiting(state, model, tokens=120, output=None)
        hold = admitted(got)
        assert hold.output_set is not None
        given.append(hold.output_set)
        await asyncio.sleep(0.2)
        assert spent_and_held(engine, state)[0][0] + spent_and_held(engine, state)[0][1] <= NANO
        engine.finish(hold, tokens=20, output=min(30, hold.output_set))

    await asyncio.gather(*(call() for _ in range(20)))
    assert len(given) == 20
    assert min(given) >= 16
    admitted(engine.begin(state, model, tokens=120, output=500))  # a single call that fits right after them
    engine.accounts.close()


async def test_twenty_callers_are_all_served_even_if_none_settles_while_they_wait(tmp_path: Path) -> None:
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=0.5)
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    model = ("anthropic", "claude-opus-4-1")  # $75 out
    holds = await asyncio.gather(*(engine.begin_waiting(state, model, tokens=60, output=None) for _ in range(20)))
    assert all(isinstance(hold, Hold) for hold in holds)
    assert sum(admitted(hold).nano for hold in holds) <= NANO
    engine.accounts.close()


async def test_a_lone_caller_is_not_cut_needlessly(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    assert (admitted(engine.begin(state, output=None)).output_set or 0) > 9_000
    small = key(id="vk_2", budgets=[budget(CENT, id="bud_2")])
    await engine.accounts.bind(small)
    assert admitted(engine.begin(small, output=None)).output_set == 380  # all that there is


async def test_where_nobody_bounds_an_answer_a_charge_in_doubt_covers_the_longest_one(engine: Engine) -> None:
    state = key(budgets=[budget(NANO, mode=BudgetMode.SOFT)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, tokens=1000, output=None))
    assert hold.output_set is None
    longest = PriceBook().find("anthropic", "claude-opus-4-5", 0)
    assert longest is not None
    assert longest.max_output == 64_000
    assert hold.nano >= 64_000 * 25_000


async def test_a_maximum_nobody_asked_for_is_only_set_where_money_or_tokens_are_limited(engine: Engine) -> None:
    for number, state in enumerate((key(), key(id="vk_2", limits=[limit(LimitKind.REQUESTS_PER_MINUTE, 5)]))):
        await engine.accounts.bind(state)
        assert admitted(engine.begin(state, output=None)).output_set is None, number
    tokens = key(id="vk_3", limits=[limit(LimitKind.TOKENS_PER_MINUTE, 10_000, id="lim_2")])
    await engine.accounts.bind(tokens)
    assert admitted(engine.begin(tokens, output=None)).output_set == 2_475


async def test_a_set_maximum_never_exceeds_what_the_model_gives(engine: Engine) -> None:
    state = key(budgets=[budget(10**6 * NANO)])
    await engine.accounts.bind(state)
    assert admitted(engine.begin(state, ("openai", "gpt-3.5-turbo"), output=None)).output_set == 4096
    assert admitted(engine.begin(state, ("openai", "gpt-4"), tokens=5000, output=None)).output_set == 8192 - 5000
    assert admitted(engine.begin(state, output=None)).output_set == 16_384


async def test_answers_and_predictions_count(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, tokens=100, output=50, answers=4, extra_output=7))
    assert hold.nano == 100 * 5_000 + (4 * 50 + 7) * 25_000
    engine.accounts.cancel(hold)
    hold = admitted(engine.begin(state, tokens=100, output=None, answers=4))
    assert hold.output_set is not None
    assert hold.nano == 100 * 5_000 + 4 * hold.output_set * 25_000


# waiting


async def test_waiters_are_served_in_their_order_when_a_hold_settles(tmp_path: Path) -> None:
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=3)
    state = key(budgets=[budget(CENT)])
    await engine.accounts.bind(state)
    first = admitted(engine.begin(state, output=300))
    order: list[int] = []

    async def wait(number: int) -> None:
        hold = admitted(await engine.begin_waiting(state, output=300))
        order.append(number)
        await asyncio.sleep(0)
        engine.finish(hold, tokens=1, output=1)

    tasks = [asyncio.create_task(wait(number)) for number in range(10)]
    await asyncio.sleep(0.02)
    assert engine.accounts.health.waiting == 10
    engine.finish(first, tokens=1, output=1)
    await asyncio.gather(*tasks)
    assert order == list(range(10))
    assert engine.accounts.health.waiting == 0
    assert engine.accounts.health.holds == 0
    engine.accounts.close()


async def test_who_waits_in_vain_gets_a_429_after_the_wait_not_a_402(tmp_path: Path) -> None:
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=0.2)
    state = key(budgets=[budget(CENT)])
    await engine.accounts.bind(state)
    admitted(engine.begin(state, output=300))
    started = asyncio.get_running_loop().time()
    refused(await engine.begin_waiting(state, output=300), RefusalKind.BUDGET_HELD)
    assert 0.15 < asyncio.get_running_loop().time() - started < 2
    engine.accounts.close()


async def test_a_waiter_that_leaves_takes_nothing_with_it(tmp_path: Path) -> None:
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=5)
    state = key(budgets=[budget(CENT)])
    await engine.accounts.bind(state)
    first = admitted(engine.begin(state, output=300))
    waiting = asyncio.create_task(engine.begin_waiting(state, output=300))
    await asyncio.sleep(0.01)
    engine.finish(first, tokens=1, output=1)  # grants the hold …
    waiting.cancel()  # … in the same moment in which its caller leaves
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert engine.accounts.health.holds == 0
    assert spent_and_held(engine, state)[0][1] == 0
    engine.accounts.close()


async def test_a_raised_budget_serves_those_who_wait(tmp_path: Path) -> None:
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=5)
    state = key(budgets=[budget(CENT)])
    await engine.accounts.bind(state)
    admitted(engine.begin(state, output=300))
    waiting = asyncio.create_task(engine.begin_waiting(state, output=300))
    await asyncio.sleep(0.01)
    await engine.accounts.bind(key(budgets=[budget(NANO)], version=2))
    async with asyncio.timeout(0.3):
        admitted(await waiting)
    engine.accounts.close()


@pytest.mark.parametrize("seed", range(6))
async def test_200_concurrent_callers_never_exceed_nested_budgets_close_to_their_end(tmp_path: Path, seed: int) -> None:
    pick = random.Random(seed)
    engine = Engine(tmp_path, clock=SystemClock(), hold_wait=0.3)
    amounts = {"bud_org": 30 * CENT, "bud_team": 20 * CENT, "bud_a": 12 * CENT, "bud_b": 12 * CENT}
    shared = [
        budget(amounts["bud_org"], id="bud_org", scope=Scope.ORGANIZATION),
        budget(amounts["bud_team"], id="bud_team", scope=Scope.TEAM),
    ]
    keys = [key(id=name, budgets=[*shared, budget(amounts[f"bud_{name}"], id=f"bud_{name}")]) for name in ("a", "b")]
    for state in keys:
        await engine.accounts.bind(state)
    served = dict.fromkeys(amounts, 0)

    async def call() -> None:
        state = pick.choice(keys)
        tokens = pick.randint(1, 400)
        output = pick.choice((None, pick.randint(1, 600)))
        got = await engine.begin_waiting(state, tokens=tokens, output=output)
        if isinstance(got, Refusal):
            assert got.kind in {RefusalKind.BUDGET_SPENT, RefusalKind.BUDGET_HELD}
            return
        await asyncio.sleep(pick.random() * 0.05)
        most = output if output is not None else got.output_set
        assert most is not None
        used = TokenUsage(input=pick.randint(0, tokens), output=most if pick.random() < 0.4 else pick.randint(0, most))
        lost = pick.random() < 0.1
        cost = engine.accounts.settle(got, Settlement(Outcome.UPSTREAM_LOST if lost else Outcome.FINISHED, 200, None if lost else used))
        for rule_ in state.budgets:
            served[rule_.id] += cost

    await asyncio.gather(*(call() for _ in range(200)))
    for name, amount in amounts.items():
        assert served[name] <= amount
    assert engine.accounts.health.holds == engine.accounts.health.held_nano == 0
    engine.fold()
    assert {name: sum(row[0] for row in rows.values()) for name, rows in engine.spend.budgets.items()} == served
    engine.accounts.close()


# changes while requests run


async def test_a_lowered_budget_holds_for_the_next_request_and_tells_open_streams(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, output=1000))
    assert engine.accounts.exceeded(hold, state) is None
    lower = key(budgets=[budget(CENT)], version=2)
    await engine.accounts.bind(lower)
    refusal = engine.accounts.exceeded(hold, lower)
    assert refusal is not None
    assert refusal.kind is RefusalKind.BUDGET_SPENT
    assert refusal.rule_id == "bud_1"
    refused(engine.begin(lower, output=1000), RefusalKind.BUDGET_SPENT)


async def test_a_new_budget_counts_what_is_in_flight_when_it_asks_about_it(engine: Engine) -> None:
    state = key()
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, output=1000))
    small = key(budgets=[budget(CENT)], version=2)
    await engine.accounts.bind(small)
    assert engine.accounts.exceeded(hold, small) is not None
    large = key(budgets=[budget(NANO)], version=3)
    await engine.accounts.bind(large)
    assert engine.accounts.exceeded(hold, large) is None


async def test_an_older_state_never_replaces_a_newer_one(engine: Engine) -> None:
    new, old = key(budgets=[budget(CENT)], version=5), key(budgets=[budget(NANO)], version=4)
    await engine.accounts.bind(new)
    await engine.accounts.bind(old)
    assert engine.accounts.standing(new).budgets[0].rule.amount_nano == CENT


async def test_what_was_spent_survives_a_change_of_the_amount(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    engine.finish(admitted(engine.begin(state, output=300)), output=300)
    for version, amount in enumerate((CENT // 2, 2 * NANO), start=2):
        await engine.accounts.bind(key(budgets=[budget(amount)], version=version))
    assert spent_and_held(engine, state) == [(300 * 25_000 + 10 * 5_000, 0)]


@pytest.mark.parametrize("folded", [True, False])
async def test_another_period_keeps_what_was_spent_and_what_is_held(engine: Engine, folded: bool) -> None:
    state = key(budgets=[budget(NANO, period=Period.DAY)])
    await engine.accounts.bind(state)
    engine.finish(admitted(engine.begin(state, output=300)), output=300)
    flying = admitted(engine.begin(state, output=100))
    if folded:
        engine.fold()
    month = key(budgets=[budget(NANO, period=Period.MONTH)], version=2)
    await engine.accounts.bind(month)
    assert spent_and_held(engine, month) == [(300 * 25_000 + 10 * 5_000, flying.nano)]
    engine.finish(flying, tokens=0, output=4)
    assert spent_and_held(engine, month) == [(304 * 25_000 + 10 * 5_000, 0)]


async def test_a_lost_slice_spends_nothing(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    admitted(engine.begin(state))
    engine.slices.lost = True
    engine.clock.advance(0.5)
    assert isinstance(engine.begin(state), Refusal)
    engine.slices.lost = False
    engine.clock.advance(0.5)
    admitted(engine.begin(state))


async def test_day_budgets_start_anew_at_midnight_with_holds_in_flight(engine: Engine) -> None:
    state = key(budgets=[budget(CENT, period=Period.DAY)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, output=380))
    engine.clock.advance(86_400)
    second = admitted(engine.begin(state, output=380))
    engine.finish(hold, tokens=100, output=380)
    assert spent_and_held(engine, state) == [(0, second.nano)]
    engine.finish(second, tokens=100, output=380)
    engine.fold()
    assert [row[0] for row in engine.spend.budgets["bud_1"].values()] == [CENT, CENT]


# limits


async def test_no_minute_sees_more_requests_than_the_limit_under_50_callers(engine: Engine) -> None:
    state = key(limits=[limit(LimitKind.REQUESTS_PER_MINUTE, 60)])
    await engine.accounts.bind(state)
    pick, passed = random.Random(1), []
    for _ in range(4000):
        engine.clock.advance(pick.choice((0, 0, 0.01, 0.2)))
        got = engine.begin(state)
        if isinstance(got, Hold):
            passed.append(engine.clock.monotonic_ns())
            engine.finish(got)
        else:
            assert got.kind is RefusalKind.RATE_LIMIT
            assert got.retry_after_ms is not None
            assert 0 < got.retry_after_ms <= 60_000
    assert all(later - earlier >= 60 * NANOSECONDS for earlier, later in zip(passed, passed[60:], strict=False))
    assert len(passed) > 100


async def test_tokens_are_reserved_at_their_bound_and_given_back_at_the_end(engine: Engine) -> None:
    state = key(limits=[limit(LimitKind.TOKENS_PER_MINUTE, 1000)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state, tokens=500, output=400))
    refusal = refused(engine.begin(state, tokens=100, output=100), RefusalKind.RATE_LIMIT)
    assert refusal.retry_after_ms is not None
    assert refusal.retry_after_ms <= 2000  # the request in flight will give most of it back
    engine.finish(hold, tokens=50, output=50)
    admitted(engine.begin(state, tokens=500, output=400))
    refused(engine.begin(state, tokens=900, output=200), RefusalKind.RATE_LIMIT)


async def test_slots_are_free_again_after_every_ending(engine: Engine) -> None:
    state = key(limits=[limit(LimitKind.CONCURRENT_REQUESTS, 2)])
    await engine.accounts.bind(state)
    for outcome in Outcome:
        holds = [admitted(engine.begin(state)), admitted(engine.begin(state))]
        refused(engine.begin(state), RefusalKind.CONCURRENCY)
        for hold in holds:
            engine.accounts.settle(hold, Settlement(outcome, 200, None))
    assert engine.accounts.standing(state).limits[0].used == 0


async def test_a_request_that_was_never_sent_counts_towards_nothing(engine: Engine) -> None:
    state = key(
        budgets=[budget(NANO)],
        limits=[limit(LimitKind.REQUESTS_PER_MINUTE, 1), limit(LimitKind.TOKENS_PER_DAY, 10_000, id="lim_2")],
    )
    await engine.accounts.bind(state)
    engine.accounts.cancel(admitted(engine.begin(state)))
    assert [each.used for each in engine.accounts.standing(state).limits] == [0, 0]
    admitted(engine.begin(state))


async def test_a_refusal_takes_nothing_from_any_meter(engine: Engine) -> None:
    state = key(
        budgets=[budget(NANO)],
        limits=[limit(LimitKind.REQUESTS_PER_MINUTE, 5), limit(LimitKind.CONCURRENT_REQUESTS, 0, id="lim_2")],
    )
    await engine.accounts.bind(state)
    for _ in range(10):
        refused(engine.begin(state), RefusalKind.CONCURRENCY)
    standing = engine.accounts.standing(state)
    assert (standing.budgets[0].held_nano, standing.limits[0].used) == (0, 0)


# the journal under it


async def test_a_request_that_can_not_be_journaled_is_not_admitted(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    state = key(budgets=[budget(NANO)], limits=[limit(LimitKind.CONCURRENT_REQUESTS, 5)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state))
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: (_ for _ in ()).throw(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(JournalUnwritable):
        engine.begin(state)
    assert spent_and_held(engine, state) == [(0, hold.nano)]
    cost = engine.finish(hold)  # ends all the same
    assert spent_and_held(engine, state) == [(cost, 0)]
    assert engine.accounts.health.settles_waiting == 1
    assert engine.accounts.retry() == 1
    monkeypatch.setattr(os, "write", write)
    admitted(engine.begin(state))  # writes what waited first
    assert engine.accounts.health.settles_waiting == 0
    assert engine.accounts.health.journal_failing is None
    engine.fold()
    assert [settle.cost_nano for settle in engine.spend.settles] == [cost]


async def test_a_key_is_not_bound_before_the_database_knows_what_the_last_process_spent(tmp_path: Path) -> None:
    engine = Engine(tmp_path)
    engine.spend.position = Position(0, 0)
    with pytest.raises(Unavailable):
        await engine.accounts.bind(key(budgets=[budget(NANO)]))
    engine.accounts.close()


async def test_idle_meters_are_forgotten_only_when_the_database_has_all_of_them(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)], limits=[limit(LimitKind.REQUESTS_PER_DAY, 100)])
    await engine.accounts.bind(state)
    flying = admitted(engine.begin(state))
    engine.accounts.unbind([state.id])
    engine.fold()
    assert engine.accounts.health.meters == 2  # held
    cost = engine.finish(flying)
    engine.accounts.folded(Position(0, 0))
    assert engine.accounts.health.meters == 2  # not folded
    engine.fold()
    assert engine.accounts.health.meters == 0
    await engine.accounts.bind(state)
    assert spent_and_held(engine, state) == [(cost, 0)]
    assert engine.accounts.standing(state).limits[0].used == 1


async def test_a_hold_whose_end_is_never_reported_is_charged_after_its_lease(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state))
    assert engine.accounts.reap() == 0
    engine.clock.advance(LEASE // NANOSECONDS)
    assert engine.accounts.reap() == 1
    assert spent_and_held(engine, state) == [(hold.nano, 0)]
    assert engine.finish(hold) == hold.nano  # too late to change it


async def test_a_corrected_charge_is_corrected_here_too(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    hold = admitted(engine.begin(state))
    engine.accounts.settle(hold, Settlement(Outcome.UPSTREAM_LOST, 0, None))
    engine.accounts.correct("bud_1", 0, 1000 - hold.nano, -hold.nano)
    standing = engine.accounts.standing(state).budgets[0]
    assert (standing.spent_nano, standing.in_doubt_nano) == (1000, 0)


async def test_keys_under_the_same_budget_share_its_meter(engine: Engine) -> None:
    team = budget(CENT, id="bud_team", scope=Scope.TEAM)
    keys = [key(id=f"vk_{number}", budgets=[team]) for number in range(3)]
    await asyncio.gather(*(engine.accounts.bind(state) for state in keys))
    assert engine.accounts.health.meters == 1
    hold = admitted(engine.begin(keys[0], output=380))
    refused(engine.begin(keys[1], output=380), RefusalKind.BUDGET_HELD)
    engine.finish(hold, tokens=100, output=380)
    refused(engine.begin(keys[2], output=380), RefusalKind.BUDGET_SPENT)


async def test_a_look_at_a_key_never_takes_a_binding_from_the_gateway(engine: Engine) -> None:
    state = key(budgets=[budget(NANO)])
    assert (await engine.accounts.look(state)).budgets[0].spent_nano == 0
    assert engine.accounts.health.keys == 0
    looking = asyncio.create_task(engine.accounts.look(key(budgets=[budget(NANO)])))
    await engine.accounts.bind(state)
    await looking
    admitted(engine.begin(state))
    await engine.accounts.look(key(budgets=[budget(NANO)]))
    admitted(engine.begin(state))


class Accounts(RuleBasedStateMachine):
    """Random requests on nested budgets and limits; an oracle that adds up what was admitted and what it cost."""

    holds = Bundle("holds")

    @initialize(org=st.integers(0, 40), own=st.integers(0, 40), slots=st.integers(1, 6))
    def start(self, org: int, own: int, slots: int) -> None:
        import tempfile

        self.engine = Engine(Path(tempfile.mkdtemp()))
        self.amounts = {"bud_org": org * CENT, "bud_a": own * CENT}
        self.slots, self.version = slots, 0
        self.open: dict[str, int] = {}
        self.cost = 0
        self.bind()

    def bind(self) -> None:
        self.version += 1
        budgets = [budget(amount, id=name) for name, amount in self.amounts.items()]
        self.state = key(budgets=budgets, limits=[limit(LimitKind.CONCURRENT_REQUESTS, self.slots)], version=self.version)
        asyncio.run(self.engine.accounts.bind(self.state))

    @rule(target=holds, tokens=st.integers(0, 2000), output=st.none() | st.integers(0, 4000))
    def begin(self, tokens: int, output: int | None) -> tuple[Hold, int, int] | None:
        got = self.engine.begin(self.state, tokens=tokens, output=output)
        least = tokens * 5_000 + (16 if output is None else output) * 25_000
        room = min(self.amounts.values()) - self.cost - sum(self.open.values())
        if isinstance(got, Refusal):
            if got.kind is RefusalKind.CONCURRENCY:
                assert len(self.open) == self.slots
            elif got.kind is RefusalKind.BUDGET_SPENT:
                assert least > min(self.amounts.values()) - self.cost
            elif output is not None:
                assert least > room  # nobody is refused who fits
            return None
        most = output if output is not None else got.output_set
        assert most is not None
        assert got.nano <= room
        assert len(self.open) < self.slots
        self.open[got.id] = got.nano
        return got, tokens, most

    @rule(flight=consumes(holds), part=st.integers(0, 100), ending=st.sampled_from(("used", "used", "lost", "error")))
    def settle(self, flight: tuple[Hold, int, int] | None, part: int, ending: str) -> None:
        if flight is None:
            return
        hold, tokens, most = flight
        usage = TokenUsage(input=tokens * part // 100, output=most * part // 100) if ending == "used" else None
        outcome = {"used": Outcome.FINISHED, "lost": Outcome.UPSTREAM_LOST, "error": Outcome.UPSTREAM_ERROR}[ending]
        held = self.open.pop(hold.id)
        cost = self.engine.accounts.settle(hold, Settlement(outcome, 200, usage))
        assert cost <= held
        self.cost += cost

    @rule(name=st.sampled_from(("bud_org", "bud_a")), amount=st.integers(0, 60))
    def change(self, name: str, amount: int) -> None:
        self.amounts[name] = amount * CENT
        self.bind()

    @rule()
    def restart_of_the_meters(self) -> None:
        self.engine.fold()

    @invariant()
    def nothing_leaks(self) -> None:
        if not hasattr(self, "state"):
            return
        held = sum(self.open.values())
        assert spent_and_held(self.engine, self.state) == [(self.cost, held)] * 2
        assert self.engine.accounts.health.holds == len(self.open)

    def teardown(self) -> None:
        if hasattr(self, "engine"):
            self.engine.accounts.close()


TestAccounts = Accounts.TestCase
TestAccounts.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
