"""Limits as the vendor sees them: how many requests reach it in any minute, at any offset; how many at a time; and slots that come back."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.drills import figures
from tests.drills.callers import Caller, request
from tests.drills.ground import Ground, Key

from keygate.sandbox import Call

MINUTE_NS = 60 * 10**9
SECONDS = figures.length(76, 320)
CALLERS = 50
CHAT = "/openai/v1/chat/completions"


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(tmp_path_factory.mktemp("keygate"), environment={"KEYGATE_CLIENT_TIMEOUT": "2"}) as started:
        yield started


def _body(key: Key, settings: str, **members: Any) -> dict[str, Any]:
    message = {"role": "user", "content": f"Hello. sandbox({settings})"}
    return {"model": "gpt-4.1-mini", "messages": [message], "user": key.id, **members}


def _most(times: list[tuple[int, int]]) -> int:
    """The largest sum of amounts in any window of a minute, at any offset. `times`: (instant, amount), ascending."""
    most = total = first = 0
    for last, (instant, amount) in enumerate(times):
        total += amount
        while times[first][0] <= instant - MINUTE_NS:
            total -= times[first][1]
            first += 1
        most = max(most, total)
        assert first <= last
    return most


async def _hammer(
    ground: Ground, keys: list[Key], seconds: float, seed: int, settings: Callable[[random.Random], str], **members: Any
) -> int:
    """Callers that ask as fast as they are answered; refused ones try again at moments of their own. Returns how many were refused."""
    until = time.monotonic() + seconds
    refused = 0

    async def client(index: int) -> None:
        nonlocal refused
        rng = random.Random(seed * 1000 + index)
        caller = Caller(ground.port)
        key = keys[index % len(keys)]
        while time.monotonic() < until:
            answer = await caller.call(request("POST", CHAT, key.token, _body(key, settings(rng), **members)))
            if answer.status == 429:
                refused += 1
                assert answer.error()["code"] in ("rate_limit", "concurrency"), bytes(answer.body)
                assert 0 < float(answer.headers["retry-after"]) <= 60, answer.headers
                await asyncio.sleep(rng.uniform(0.02, 1.5))
            else:
                assert answer.status == 200, bytes(answer.body)
        caller.close()

    async with asyncio.TaskGroup() as group:
        for index in range(CALLERS):
            group.create_task(client(index))
    return refused


def _arrived(ground: Ground, keys: list[Key]) -> list[Call]:
    ids = {key.id for key in keys}
    return [call for call in list(ground.sandbox.state.calls) if call.user in ids]


@pytest.mark.timeout(SECONDS + 200)
async def test_no_minute_ever_sees_more_than_its_limit(ground: Ground) -> None:
    """Three limits at once: requests of one key, requests of a team over its two keys, tokens of one key."""
    seed = figures.seed()
    print(f"seed {seed}")
    team_id = (await ground.api("POST", "/teams", {"name": "limited"}))["id"]
    await ground.api("POST", "/limits", {"scope": "team", "scope_id": team_id, "kind": "requests_per_minute", "amount": 60})
    single = [await ground.key("requests", limits={"requests_per_minute": 60})]
    shared = [await ground.key(f"shared {index}", owner={"team_id": team_id}) for index in range(2)]
    tokens = [await ground.key("tokens", limits={"tokens_per_minute": 6000})]

    def quick(rng: random.Random) -> str:
        return f"latency_ms={rng.randint(0, 150)}"

    def sized(rng: random.Random) -> str:
        return f"input_tokens={rng.randint(1, 20)} output_tokens={rng.randint(1, 100)} latency_ms={rng.randint(0, 100)}"

    refused = await asyncio.gather(
        _hammer(ground, single, SECONDS, seed, quick),
        _hammer(ground, shared, SECONDS, seed + 1, quick),
        _hammer(ground, tokens, SECONDS, seed + 2, sized, max_tokens=100),
    )
    most_single = _most([(call.at_ns, 1) for call in _arrived(ground, single)])
    most_shared = _most([(call.at_ns, 1) for call in _arrived(ground, shared)])
    most_tokens = _most([(call.at_ns, call.usage.input + call.usage.output) for call in _arrived(ground, tokens)])
    counts = [len(_arrived(ground, keys)) for keys in (single, shared, tokens)]
    line = (
        f"{SECONDS} s, {CALLERS} callers a limit (seed {seed}): in any 60 s at most {most_single} requests of 60 (key), "
        f"{most_shared} of 60 (team), {most_tokens} tokens of 6000; {sum(counts)} passed, {sum(refused)} refused"
    )
    figures.write(
        "limits",
        line,
        seed=seed,
        seconds=SECONDS,
        most_requests_of_key=most_single,
        most_requests_of_team=most_shared,
        most_tokens=most_tokens,
        passed=counts,
        refused=list(refused),
    )
    assert most_single <= 60
    assert most_shared <= 60
    assert most_tokens <= 6000
    # All of each minute is used, too: nothing is refused that the limit allows.
    whole_minutes = SECONDS // 60
    assert counts[0] >= 60 * (whole_minutes + 1) - 2, counts
    assert counts[1] >= 60 * (whole_minutes + 1) - 2, counts


async def test_no_more_are_in_flight_than_the_limit_says(ground: Ground) -> None:
    key = await ground.key("at a time", limits={"concurrent_requests": 5})
    refused = await _hammer(ground, [key], figures.length(4, 20), 7, lambda rng: f"latency_ms={rng.randint(0, 60)} chunk_ms=1", stream=True)
    calls = _arrived(ground, [key])
    moments = sorted([(call.at_ns, 1) for call in calls] + [(call.ended_at_ns, -1) for call in calls])
    flying = most = 0
    for _, change in moments:
        flying += change
        most = max(most, flying)
    assert refused
    assert most <= 5, f"{most} at a time"
    assert len(calls) > 50


async def _reset_at_once(ground: Ground, key: Key) -> None:
    """Reset before the vendor answers."""
    caller = Caller(ground.port)
    await caller.call(request("POST", CHAT, key.token, _body(key, "latency_ms=300")), leave_after=0.05)


async def _reset_midway(ground: Ground, key: Key) -> None:
    """Reset in the middle of a stream."""
    caller = Caller(ground.port)
    await caller.call(request("POST", CHAT, key.token, _body(key, "chunks=20 chunk_ms=30", stream=True)), leave_after=0.2)


async def _close_midway(ground: Ground, key: Key) -> None:
    """An orderly end in the middle of a stream."""
    caller = Caller(ground.port)
    await caller.call(request("POST", CHAT, key.token, _body(key, "chunks=20 chunk_ms=30", stream=True)), leave_after=0.2, rudely=False)


async def _half_close(ground: Ground, key: Key) -> None:
    """Says that it will send no more, and reads no more either."""
    caller = Caller(ground.port)
    await caller.begin(request("POST", CHAT, key.token, _body(key, "chunks=10 chunk_ms=30", stream=True)))
    caller.half_close()
    await asyncio.sleep(0.8)
    caller.vanish()


async def _half_a_request(ground: Ground, key: Key) -> None:
    """Sends half of its request, and then nothing for ever."""
    caller = Caller(ground.port)
    data = request("POST", CHAT, key.token, _body(key, "latency_ms=1"))
    await caller.begin(data[: len(data) - 20])
    await asyncio.sleep(0.2)
    await asyncio.sleep(3)
    caller.vanish()


async def _never_reads(ground: Ground, key: Key) -> None:
    """Reads nothing of an answer that is larger than any buffer between, and doesn't close."""
    caller = Caller(ground.port, receive_buffer=4096)
    await caller.begin(request("POST", CHAT, key.token, _body(key, "output_tokens=32000 chunks=32000", stream=True)))
    await asyncio.sleep(6)
    caller.vanish()


VANISHING = (_reset_at_once, _reset_midway, _close_midway, _half_close, _half_a_request, _never_reads)


@pytest.mark.parametrize("vanish", VANISHING, ids=lambda way: way.__name__.strip("_"))
async def test_slots_are_free_again_after_clients_vanish(ground: Ground, vanish: Callable[[Ground, Key], Any]) -> None:
    slots = 3
    key = await ground.key("slots", limits={"concurrent_requests": slots})
    async with asyncio.TaskGroup() as group:
        for _ in range(slots):
            group.create_task(vanish(ground, key))
    gone = time.monotonic()
    callers = [Caller(ground.port) for _ in range(slots)]
    while True:
        data = request("POST", CHAT, key.token, _body(key, "latency_ms=200"))
        answers = await asyncio.gather(*(caller.call(data) for caller in callers))
        if all(answer.status == 200 for answer in answers):
            break
        assert {answer.status for answer in answers} <= {200, 429}, [bytes(answer.body) for answer in answers]
        assert time.monotonic() - gone < 5, "slots of callers that are gone are still taken"
        await asyncio.sleep(0.05)
    for caller in callers:
        caller.close()
    usage = await ground.api("GET", f"/virtual-keys/{key.id}/usage")
    assert [limit["used"] for limit in usage["limits"]] == [0], usage
