"""Crashes, simulated: wherever the journal is cut, what was served is charged, and nothing twice."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest
from tests.ledger.engine import Engine, FoldedSpend, budget, key, limit

from keygate.kit.clock import ManualClock
from keygate.kit.money import NANO
from keygate.ledger import Hold, Outcome, Refusal, RefusalKind, Settlement, TokenUsage
from keygate.ledger.journal.segments import segment_numbers, segment_path
from keygate.policies import LimitKind, Period


@pytest.mark.parametrize("seed", range(12))
async def test_after_a_crash_spend_is_at_least_what_was_served_never_twice_and_within_the_budget(tmp_path: Path, seed: int) -> None:
    pick = random.Random(seed)
    amount = NANO // 4
    state = key(budgets=[budget(amount, period=Period.DAY), budget(2 * amount, id="bud_2")])
    engine = Engine(tmp_path / "live", segment_bytes=pick.choice((3_000, 1 << 20)))
    await engine.accounts.bind(state)
    served = 0
    flying: list[tuple[Hold, int]] = []
    for _ in range(200):
        if flying and pick.random() < 0.5:
            hold, cost = flying.pop(pick.randrange(len(flying)))
            output = cost // 25_000
            assert engine.accounts.settle(hold, Settlement(Outcome.FINISHED, 200, TokenUsage(output=output))) == cost
        else:
            got = engine.begin(state, tokens=10, output=pick.choice((None, 50)))
            if isinstance(got, Hold):
                output = pick.randint(0, got.output_set or 50)
                served += output * 25_000  # by now the vendor may have answered, whether we hear of it or not
                flying.append((got, output * 25_000))
        if pick.random() < 0.05:
            engine.fold()
    engine.accounts.close()  # as kill -9 leaves it: no settle for what is in flight

    again = Engine(tmp_path / "live", spend=engine.spend)
    assert {settle.request_id for settle in again.recovered.in_doubt} == {hold.id for hold, _ in flying}
    await again.accounts.bind(state)
    spent = [each.spent_nano for each in again.accounts.standing(state).budgets]
    in_doubt = [each.in_doubt_nano for each in again.accounts.standing(state).budgets]
    assert spent[0] == spent[1] >= served
    assert spent[0] <= amount
    assert in_doubt[0] == sum(hold.nano for hold, _ in flying)
    assert len(engine.spend.settles) == len({settle.request_id for settle in engine.spend.settles})
    again.accounts.close()

    third = Engine(tmp_path / "live", spend=engine.spend)
    assert third.recovered.in_doubt == ()
    third.accounts.close()


async def test_a_journal_cut_anywhere_still_charges_every_request_whose_begin_survived(tmp_path: Path) -> None:
    state = key(budgets=[budget(NANO)])
    engine = Engine(tmp_path / "live")
    await engine.accounts.bind(state)
    pick = random.Random(3)
    ends: list[tuple[int, int]] = []  # (journal size when it was sent, what the vendor then billed)
    for _ in range(25):
        got = engine.begin(state, tokens=10, output=50)
        assert isinstance(got, Hold)
        billed = pick.randint(0, 50)
        ends.append((engine.recovered.journal.position.offset, billed * 25_000))
        if pick.random() < 0.6:
            engine.accounts.settle(got, Settlement(Outcome.FINISHED, 200, TokenUsage(output=billed)))
    engine.accounts.close()
    size = segment_path(tmp_path / "live", 1).stat().st_size
    for cut in sorted({ends[0][0], size, *(pick.randint(ends[0][0], size) for _ in range(40))}):
        directory = tmp_path / f"cut{cut}"
        shutil.copytree(tmp_path / "live", directory)
        with segment_path(directory, 1).open("r+b") as file:
            file.truncate(cut)
        again = Engine(directory)
        await again.accounts.bind(state)
        served = sum(billed for sent_at, billed in ends if sent_at <= cut)
        spent = again.accounts.standing(state).budgets[0].spent_nano
        assert served <= spent <= NANO
        assert len(again.spend.settles) == len({settle.request_id for settle in again.spend.settles}) == sum(at <= cut for at, _ in ends)
        again.accounts.close()


@pytest.mark.parametrize("segment_bytes", [600, 1 << 20])
async def test_limits_survive_a_restart(tmp_path: Path, segment_bytes: int) -> None:
    clock = ManualClock()
    clock.advance(1000)
    state = key(limits=[limit(LimitKind.REQUESTS_PER_MINUTE, 3), limit(LimitKind.TOKENS_PER_DAY, 1000, id="lim_2")])
    engine = Engine(tmp_path, clock=clock, segment_bytes=segment_bytes)
    await engine.accounts.bind(state)
    for _ in range(2):
        hold = engine.begin(state, tokens=100, output=100)
        assert isinstance(hold, Hold)
        engine.finish(hold, tokens=100, output=50)
        engine.fold()
    open_at_the_crash = engine.begin(state, tokens=100, output=100)
    assert isinstance(open_at_the_crash, Hold)
    engine.accounts.close()
    clock.advance(30)
    again = Engine(tmp_path, clock=clock, spend=engine.spend)
    await again.accounts.bind(state)
    assert [each.used for each in again.accounts.standing(state).limits] == [3, 150 + 150 + 200]
    refusal = again.begin(state)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.RATE_LIMIT
    clock.advance(31)
    assert isinstance(again.begin(state), Hold)
    again.accounts.close()


async def test_old_segments_go_when_they_are_folded_and_nothing_is_lost_by_it(tmp_path: Path) -> None:
    engine = Engine(tmp_path, segment_bytes=3_000)
    state = key(budgets=[budget(NANO)])
    await engine.accounts.bind(state)
    flying = engine.begin(state)
    assert isinstance(flying, Hold)
    for _ in range(100):
        hold = engine.begin(state)
        assert isinstance(hold, Hold)
        engine.finish(hold)
        engine.clock.advance(10)
        engine.fold()
    assert len(segment_numbers(tmp_path)) <= 4
    engine.accounts.close()
    again = Engine(tmp_path, spend=engine.spend)
    await again.accounts.bind(state)
    assert again.accounts.standing(state).budgets[0].spent_nano == 100 * 300_000 + flying.nano
    again.accounts.close()


async def test_a_crash_in_the_middle_of_recovery_repeats_nothing(tmp_path: Path) -> None:
    state = key(budgets=[budget(NANO)])
    engine = Engine(tmp_path / "live")
    await engine.accounts.bind(state)
    holds = [engine.begin(state) for _ in range(10)]
    engine.accounts.close()
    Engine(tmp_path / "live").accounts.close()  # recovered once
    size = segment_path(tmp_path / "live", 2).stat().st_size
    for cut in range(60, size, 37):
        directory = tmp_path / f"cut{cut}"
        shutil.copytree(tmp_path / "live", directory)
        with segment_path(directory, 2).open("r+b") as file:
            file.truncate(cut)
        again = Engine(directory, spend=FoldedSpend(directory))
        ids = [settle.request_id for settle in again.spend.settles]
        assert sorted(ids) == sorted(hold.id for hold in holds if isinstance(hold, Hold))
        again.accounts.close()
