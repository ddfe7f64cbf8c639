"""Everything with a clock: jobs that run again and again, each in a task of its own."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from keygate.errors import KeyGateError

_log = logging.getLogger(__name__)

Job = Callable[[], Awaitable[object]]


class Worker:
    """A job that fails is logged and tried again at its next turn; one that overruns starts its pause late, never twice at once."""

    def __init__(self) -> None:
        self._jobs: list[tuple[str, float, float, Job]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.failed: dict[str, int] = {}  # by job, for the metrics
        self.ran_at: dict[str, float] = {}

    def every(self, seconds: float, name: str, job: Job, *, first: float | None = None) -> None:
        """`first`: seconds until the first run; by default as long as between two."""
        self._jobs.append((name, seconds, seconds if first is None else first, job))

    @property
    def names(self) -> list[str]:
        return [job[0] for job in self._jobs]

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._repeat(*job), name=f"worker:{job[0]}") for job in self._jobs]

    async def stop(self) -> None:
        """Ends every job where it waits; one in the middle of a transaction finishes or rolls back by itself."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []

    async def _repeat(self, name: str, seconds: float, first: float, job: Job) -> None:
        await asyncio.sleep(first)
        while True:
            try:
                await job()
                self.ran_at[name] = time.time()
            except KeyGateError as error:
                self._count(name)
                _log.warning("job %s: %s", name, error.detail)
            except Exception:  # noqa: BLE001  (a job must not end because one turn failed)
                self._count(name)
                _log.exception("job %s failed; it is tried again", name)
            await asyncio.sleep(seconds)

    def _count(self, name: str) -> None:
        self.failed[name] = self.failed.get(name, 0) + 1
