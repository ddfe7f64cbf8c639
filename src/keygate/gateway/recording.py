"""Prompts and answers of keys whose policies keep them. Any other request meets none of this but a comparison with None."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keygate.gateway.dialects.interface import Reading, Tap
from keygate.ledger import Ask, Recording

if TYPE_CHECKING:
    from keygate.gateway.ports import Recorder
    from keygate.policies import KeyState


class Kept:
    """What is kept of one exchange: at most `most` + 1 bytes of prompt and of answer, each."""

    __slots__ = ("_left", "_most", "_parts", "prompt")

    def __init__(self, prompt: bytes, most: int) -> None:
        self.prompt = prompt if len(prompt) <= most else prompt[: most + 1]
        self._most = most
        self.forget_answer()

    def forget_answer(self) -> None:
        """Another attempt begins."""
        self._parts: list[bytes] = []
        self._left = self._most + 1

    def add(self, data: bytes) -> None:
        if data and self._left:
            data = data[: self._left]
            self._left -= len(data)
            self._parts.append(data)

    def offer(self, recorder: Recorder, state: KeyState, ask: Ask, readers: tuple[str, ...]) -> None:
        """At the settlement, under the policy as it stands then."""
        answer = b"".join(self._parts)
        recorder.offer(Recording(ask.request_id, state.organization_id, state.id, ask.at_ns, self.prompt, answer, readers))
        self.forget_answer()


class KeepingTap(Tap):
    """A dialect's tap that also keeps what it passes on."""

    __slots__ = ("_kept", "_tap")

    def __init__(self, tap: Tap, kept: Kept) -> None:
        super().__init__()
        self._tap = tap
        self._kept = kept

    def feed(self, chunk: bytes) -> bytes:
        passed = self._tap.feed(chunk)
        self.done = self._tap.done
        self._kept.add(passed)
        return passed

    def finish(self) -> Reading:
        reading = self._tap.finish()
        self._kept.add(reading.rest)
        return reading
