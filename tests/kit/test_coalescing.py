"""Questions that are asked together share a read; each answer is as new as its question."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from keygate.errors import Unavailable
from keygate.kit.coalescing import Coalesced


class Shelf:
    """Answers with the state at the read's beginning; `hold` keeps reads from ending."""

    def __init__(self) -> None:
        self.state = 0
        self.reads: list[list[str]] = []
        self.hold = asyncio.Event()
        self.hold.set()

    async def read(self, questions: Sequence[str]) -> list[tuple[str, int]]:
        self.reads.append(list(questions))
        seen = self.state
        await self.hold.wait()
        if "bad" in questions:
            raise ValueError("bad")
        if "down" in questions:
            raise Unavailable("down")
        return [(question, seen) for question in questions]


async def test_who_asks_during_a_read_shares_the_next_one_and_sees_what_changed_before_asking() -> None:
    shelf = Shelf()
    shelf.hold.clear()
    questions = Coalesced(shelf.read, at_once=1)
    first = asyncio.create_task(questions.ask("first"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shelf.reads == [["first"]]
    shelf.state = 1
    later = [asyncio.create_task(questions.ask(f"q{number}")) for number in range(5)]
    await asyncio.sleep(0)
    shelf.hold.set()
    assert await first == ("first", 0)
    assert await asyncio.gather(*later) == [(f"q{number}", 1) for number in range(5)]
    assert len(shelf.reads) == 2


async def test_a_read_takes_no_more_than_it_may() -> None:
    shelf = Shelf()
    questions = Coalesced(shelf.read, most=3)
    answers = await asyncio.gather(*(questions.ask(str(number)) for number in range(10)))
    assert [answer for answer, _ in answers] == [str(number) for number in range(10)]
    assert max(map(len, shelf.reads)) == 3


async def test_one_that_cannot_be_answered_leaves_the_others_alone() -> None:
    shelf = Shelf()
    questions = Coalesced(shelf.read)
    answers = await asyncio.gather(*(questions.ask(each) for each in ("a", "bad", "b")), return_exceptions=True)
    assert [type(answer) for answer in answers] == [tuple, ValueError, tuple]


async def test_where_the_database_is_away_all_are_told_by_one_read() -> None:
    shelf = Shelf()
    questions = Coalesced(shelf.read)
    answers = await asyncio.gather(*(questions.ask(each) for each in ("a", "down", "b")), return_exceptions=True)
    assert [type(answer) for answer in answers] == [Unavailable] * 3
    assert len(shelf.reads) == 1


async def test_a_read_that_hangs_ends_and_the_next_question_is_answered() -> None:
    shelf = Shelf()
    shelf.hold.clear()
    questions = Coalesced(shelf.read, timeout=0.05)
    with pytest.raises(Unavailable, match="in time"):
        await questions.ask("a")
    shelf.hold.set()
    assert await questions.ask("b") == ("b", 0)


async def test_who_leaves_is_not_asked_for_and_disturbs_nobody() -> None:
    shelf = Shelf()
    shelf.hold.clear()
    questions = Coalesced(shelf.read, at_once=1)
    first = asyncio.create_task(questions.ask("first"))
    await asyncio.sleep(0)
    leaver, stayer = asyncio.create_task(questions.ask("leaver")), asyncio.create_task(questions.ask("stayer"))
    await asyncio.sleep(0)
    leaver.cancel()
    shelf.hold.set()
    assert await stayer == ("stayer", 0)
    assert await first == ("first", 0)
    assert shelf.reads == [["first"], ["stayer"]]
