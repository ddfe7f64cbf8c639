"""Many questions, few reads: who asks while a read is under way is served, together with all others who do, by the next one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from keygate.errors import Unavailable

Q = TypeVar("Q")
A = TypeVar("A")


class Coalesced(Generic[Q, A]):
    """`read` answers several questions at once, in their order. Each answer comes from a read that began after its question: whoever
    asks after a change sees it.

    A read takes at most `most` questions, `at_once` of them run side by side, and none runs longer than `timeout` seconds.
    """

    def __init__(
        self, read: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, most: int = 64, at_once: int = 2, timeout: float = 10.0
    ) -> None:
        self._read = read
        self._most = most
        self._at_once = at_once
        self._timeout = timeout
        self._asked: list[tuple[Q, asyncio.Future[A]]] = []
        self._readers: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """Raises what `read` raises for this question, and `Unavailable` where that takes too long."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._asked.append((question, future))
        if len(self._readers) < self._at_once:
            reader = asyncio.create_task(self._answer())
            self._readers.add(reader)
            reader.add_done_callback(self._readers.discard)
        return await future

    async def _answer(self) -> None:
        while self._asked:
            taken, self._asked = self._asked[: self._most], self._asked[self._most :]
            waiting = [(question, future) for question, future in taken if not future.done()]
            if not waiting:
                continue
            try:
                await self._serve(waiting)
            except Exception as error:  # noqa: BLE001  (told to who asked)
                if len(waiting) == 1 or isinstance(error, Unavailable):
                    _refuse(waiting, error)
                    continue
                for each in waiting:  # one question that can't be answered is no reason to refuse the others
                    try:
                        await self._serve([each])
                    except Exception as alone:  # noqa: BLE001  (told to who asked)
                        _refuse([each], alone)
            except BaseException:
                for _, future in waiting:
                    future.cancel()
                raise

    async def _serve(self, waiting: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                answers = await self._read([question for question, _ in waiting])
        except TimeoutError:
            raise Unavailable("the database did not answer in time") from None
        for (_, future), answer in zip(waiting, answers, strict=True):
            if not future.done():
                future.set_result(answer)


def _refuse(waiting: Sequence[tuple[Q, asyncio.Future[A]]], error: Exception) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_exception(error)
