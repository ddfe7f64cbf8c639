"""One coarse clock for every time-out: a sweep in place of a timer per request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import final

log = logging.getLogger("keygate.gateway")

STEP = 0.25


@final
class Ticker:
    """`now` is monotonic seconds, at most a step old; each sweep gets it. Time-outs are exact to a step, and cost one attribute read."""

    def __init__(self, *, step: float = STEP, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._step = step
        self._monotonic = monotonic
        self._sweeps: list[Callable[[float], None]] = []
        self._handle: asyncio.TimerHandle | None = None
        self.now = monotonic()

    def every_step(self, sweep: Callable[[float], None]) -> None:
        self._sweeps.append(sweep)

    def start(self) -> None:
        if self._handle is None:
            self._loop = asyncio.get_running_loop()
            self._tick()

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _tick(self) -> None:
        self.now = now = self._monotonic()
        self._handle = self._loop.call_later(self._step, self._tick)
        for sweep in self._sweeps:
            try:
                sweep(now)
            except Exception:  # the clock must go on: without it nothing times out any more
                log.exception("a sweep failed")
