"""What the gateway keeps of an exchange for a key whose policy asks for it, and what an observer is told of every end."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from tests.gateway.rig import Rig, chat, running

from keygate.gateway.dialects.openai_chat import ChatTap
from keygate.gateway.observation import Ended
from keygate.gateway.recording import KeepingTap, Kept
from keygate.ledger import Ask, Outcome, Recording
from keygate.policies import KeyState, KeyStatus


class MemoryRecorder:
    """Keeps what is offered for keys with the tag `recorded`."""

    max_bytes = 64

    def __init__(self) -> None:
        self.offered: list[Recording] = []
        self.asked = 0

    def readers(self, state: KeyState) -> tuple[str, ...] | None:
        self.asked += 1
        return ("owner",) if "recorded" in state.tags else None

    def offer(self, recording: Recording) -> bool:
        self.offered.append(recording)
        return True


class MemoryObserver:
    def __init__(self) -> None:
        self.told: list[Ended] = []
        self.broken = False

    def ended(self, ended: Ended) -> None:
        self.told.append(ended)
        if self.broken:
            raise RuntimeError("the observer's own fault")


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running() as rig:
        recorder, observer = MemoryRecorder(), MemoryObserver()
        rig.gateway.recorder = rig.gateway.pipeline.recorder = recorder
        rig.gateway.observer = observer
        yield rig
        rig.nothing_leaks()


async def test_a_key_is_asked_about_once_per_state_and_model(rig: Rig) -> None:
    token, _ = rig.key()
    for _ in range(3):
        await rig.call(token)
    assert rig.gateway.recorder.asked == 1
    assert rig.gateway.recorder.offered == []


async def test_prompt_and_answer_are_kept_up_to_a_byte_more_than_the_bound(rig: Rig) -> None:
    token, state = rig.key(tags=("recorded",))
    answer = await rig.call(token, chat(messages=[{"role": "user", "content": "x" * 500}]))
    (kept,) = rig.gateway.recorder.offered
    assert (kept.request_id, kept.key_id, kept.organization_id, kept.readers) == (
        answer.headers["x-request-id"],
        state.id,
        state.organization_id,
        ("owner",),
    )
    assert len(kept.prompt) == 65
    assert kept.answer == answer.body[:65]


async def test_a_policy_that_ends_while_a_request_runs_keeps_nothing_of_it(rig: Rig) -> None:
    token, state = rig.key(tags=("recorded",))
    await rig.call(token)
    await rig.change(state, tags=())
    await rig.call(token)
    assert len(rig.gateway.recorder.offered) == 1


async def test_an_observer_is_told_once_of_each_end(rig: Rig) -> None:
    token, state = rig.key()
    await rig.call(token, chat(), traceparent="00-a-b-01")
    refused = await rig.call(token, chat(), path="/openai/v1/nowhere")
    served, denied = rig.gateway.observer.told
    assert (served.status, served.outcome, served.key_id, served.model_asked) == (200, Outcome.FINISHED, state.id, "gpt-4.1")
    assert served.traceparent == b"00-a-b-01"
    assert served.usage is not None
    assert (denied.status, denied.outcome, denied.usage) == (refused.status, None, None)
    assert denied.rule == "unknown_endpoint"
    assert rig.upstream.seen[0].header("traceparent") is None


async def test_a_fault_of_the_observer_is_not_the_requests(rig: Rig) -> None:
    rig.gateway.observer.broken = True
    token, _ = rig.key()
    assert (await rig.call(token)).status == 200
    assert len(rig.gateway.observer.told) == 1


def test_what_is_kept_is_what_was_passed_on_however_it_came() -> None:
    recorder = MemoryRecorder()
    kept = Kept(b"prompt", 1000)
    tap = KeepingTap(ChatTap(hide=True), kept)
    first, hidden, held_back = b'data: {"id":"a"}\n\n', b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n', b"data: cut"
    passed = b"".join(tap.feed(chunk) for chunk in (first, hidden, held_back)) + tap.finish().rest
    ask = Ask("req_1", 5, "chat", "m", 1, None)
    state = KeyState("vk_1", "p", "key", "org_1", None, None, None, KeyStatus.ACTIVE, (), None, (), (), ())
    kept.offer(recorder, state, ask, ("owner",))
    assert passed == first + held_back
    assert recorder.offered == [Recording("req_1", state.organization_id, state.id, 5, b"prompt", passed, ("owner",))]
    kept.offer(recorder, state, ask.again("req_2", 6), ("owner",))  # the second attempt begins with an empty answer
    assert (recorder.offered[1].prompt, recorder.offered[1].answer) == (b"prompt", b"")
