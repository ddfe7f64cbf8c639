"""Revoked means revoked: once the change is answered, the next request is refused, and open streams of that key end at the next chunk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.drills import figures
from tests.drills.callers import Answer, Caller, request
from tests.drills.ground import Ground, Key

STREAMS = 4
ASKERS = 6
ROUNDS = figures.length(2, 25)
CHUNK_MS = 50
CHUNKS = 200  # ten seconds, if nobody ends it
OPENAI = "/openai/v1/chat/completions"
RESPONSES = "/openai/v1/responses"
ANTHROPIC = "/anthropic/v1/messages"
_results: dict[str, dict[str, Any]] = {}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with Ground(tmp_path_factory.mktemp("keygate"), environment={"KEYGATE_DRAIN_TIMEOUT": "1"}) as started:
        yield started
    if _results:
        found = list(_results.values())
        asked, streams = (sum(result[name] for result in found) for name in ("asked_after", "streams"))
        worst, slowest = (max(result[name] for result in found) for name in ("chunks_after", "slowest_cut_ms"))
        line = (
            f"{len(found)} ways to lose access, {ROUNDS} rounds each: {asked} requests after the answer, none passed; "
            f"{streams} open streams cut after at most {worst} more chunks, at most {slowest} ms later"
        )
        figures.write("revoked", line, ways=_results)


@dataclass(slots=True)
class Stream:
    """An open stream and when its chunks came (time.monotonic())."""

    chunks: list[float] = field(default_factory=list)
    ended: float = 0.0
    answer: Answer | None = None


@dataclass(slots=True)
class Crowd:
    """What uses a key while it is taken away."""

    ground: Ground
    key: Key
    chunks: int = CHUNKS
    streams: list[Stream] = field(default_factory=list)
    asked: list[tuple[float, int]] = field(default_factory=list)  # when a request was sent, and its status
    stopped: bool = False

    def body(self, path: str, settings: str, *, stream: bool) -> bytes:
        prompt = f"Hello. sandbox({settings})"
        said: dict[str, Any] = {"input": prompt} if path == RESPONSES else {"messages": [{"role": "user", "content": prompt}]}
        if path == ANTHROPIC:
            said |= {"max_tokens": 400, "metadata": {"user_id": self.key.id}, "model": "claude-haiku-4-5"}
        else:
            said |= {"user": self.key.id, "model": "gpt-4.1-mini", ("max_output_tokens" if path == RESPONSES else "max_tokens"): 400}
        return request("POST", path, self.key.token, {**said, "stream": stream}, anthropic=path == ANTHROPIC)

    async def stream(self, path: str) -> None:
        seen = Stream()
        self.streams.append(seen)
        caller = Caller(self.ground.port)

        def watch(piece: bytes) -> None:
            if b"delta" in piece:
                seen.chunks.append(time.monotonic())

        data = self.body(path, f"output_tokens=400 chunks={self.chunks} chunk_ms={CHUNK_MS}", stream=True)
        seen.answer = await caller.call(data, watch=watch)
        seen.ended = seen.answer.ended
        caller.close()

    async def ask(self) -> None:
        caller = Caller(self.ground.port)
        data = self.body(OPENAI, "output_tokens=3", stream=False)
        while not self.stopped:
            sent = time.monotonic()
            answer = await caller.call(data)
            self.asked.append((sent, answer.status))
            await asyncio.sleep(0.002)
        caller.close()


@asynccontextmanager
async def _using(ground: Ground, key: Key, *, chunks: int = CHUNKS) -> AsyncIterator[Crowd]:
    """Streams and askers at work."""
    crowd = Crowd(ground, key, chunks)
    async with asyncio.TaskGroup() as group:
        for index in range(STREAMS):
            group.create_task(crowd.stream((OPENAI, ANTHROPIC, RESPONSES)[index % 3]))
        for _ in range(ASKERS):
            group.create_task(crowd.ask())
        while len(crowd.streams) < STREAMS or not all(len(stream.chunks) >= 3 for stream in crowd.streams):
            await asyncio.sleep(0.01)
            assert not any(stream.ended for stream in crowd.streams), [
                bytes(stream.answer.body) for stream in crowd.streams if stream.answer
            ]
        try:
            yield crowd
            await asyncio.sleep(0.4)
        finally:
            crowd.stopped = True


def _judge(crowd: Crowd, changed: float, *, way: str, statuses: set[int], cut: bool = True) -> None:
    """`changed`: when the answer to the change had been read."""
    assert {status for sent, status in crowd.asked if sent < changed} >= {200}, "the key worked before"
    after = [status for sent, status in crowd.asked if sent > changed]
    assert after, "nobody asked afterwards"
    assert set(after) <= statuses, f"{way}: of {len(after)} requests after the answer {after.count(200)} passed: {set(after)}"
    result = _results.setdefault(way, {"asked_after": 0, "streams": 0, "chunks_after": 0, "slowest_cut_ms": 0})
    result["asked_after"] += len(after)
    if not cut:
        return
    for stream in crowd.streams:
        answer = stream.answer
        assert answer is not None
        late = [moment for moment in stream.chunks if moment > changed + 0.02]  # what stood in the sockets is no new chunk
        assert len(late) <= 1, f"{way}: {len(late)} more chunks after the answer"
        assert stream.ended - changed < 2 * CHUNK_MS / 1000 + 0.3, f"{way}: the stream went on for {stream.ended - changed:.3f} s"
        last = answer.events()[-1]
        assert "error" in last, f"{way}: the stream ends without saying why: {last}"
        result["streams"] += 1
        result["chunks_after"] = max(result["chunks_after"], len(late))
        result["slowest_cut_ms"] = max(result["slowest_cut_ms"], round((stream.ended - changed) * 1000))


Change = Callable[[Ground, Key, dict[str, Any]], Awaitable[Any]]


async def _people(ground: Ground) -> dict[str, Any]:
    team = await ground.api("POST", "/teams", {"name": f"team {time.time_ns()}"})
    developer = await ground.api("POST", "/developers", {"name": "Dev", "email": f"{time.time_ns()}@example.com", "team_id": team["id"]})
    app = await ground.api("POST", "/apps", {"name": f"app {time.time_ns()}", "team_id": team["id"]})
    policy = await ground.api("POST", "/policies", {"name": f"policy {time.time_ns()}", "models": ["openai/*", "anthropic/*"]})
    return {"team_id": team["id"], "developer_id": developer["id"], "app_id": app["id"], "policy_id": policy["id"]}


WAYS: dict[str, tuple[dict[str, Any], Change, set[int]]] = {
    "revoked": ({}, lambda g, k, _: g.api("POST", f"/virtual-keys/{k.id}/revoke", {}), {401}),
    "rotated without grace": ({}, lambda g, k, _: g.api("POST", f"/virtual-keys/{k.id}/rotate", {"grace_seconds": 0}), {401}),
    "reported as leaked": ({}, lambda g, k, _: g.api("POST", "/virtual-keys/report-leak", {"key": k.token}), {401}),
    "developer deactivated": ({"owner": "developer_id"}, lambda g, _, p: g.api("DELETE", f"/developers/{p['developer_id']}"), {401}),
    "app deactivated": ({"owner": "app_id"}, lambda g, _, p: g.api("DELETE", f"/apps/{p['app_id']}"), {401}),
    "models narrowed": ({}, lambda g, k, _: g.api("PATCH", f"/virtual-keys/{k.id}", {"models": ["openai/gpt-none"]}), {403}),
    "policy denies": (
        {"policy": True},
        lambda g, _, p: g.api("PATCH", f"/policies/{p['policy_id']}", {"models_deny": ["*/*"]}),
        {403},
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.timeout(figures.length(120, 900))
async def test_access_ends_with_the_answer(ground: Ground, way: str) -> None:
    terms, change, statuses = WAYS[way]
    for _ in range(ROUNDS):
        people = await _people(ground)
        body: dict[str, Any] = {}
        if "owner" in terms:
            body["owner"] = {terms["owner"]: people[terms["owner"]]}
        if "policy" in terms:
            body["policy_id"] = people["policy_id"]
        key = await ground.key("doomed", **body)
        async with _using(ground, key) as crowd:
            await change(ground, key, people)
            changed = time.monotonic()
        _judge(crowd, changed, way=way, statuses=statuses)


async def test_archived_team_takes_its_keys_along(ground: Ground) -> None:
    for _ in range(ROUNDS):
        team = await ground.api("POST", "/teams", {"name": f"team {time.time_ns()}"})
        key = await ground.key("of the team", owner={"team_id": team["id"]})
        async with _using(ground, key) as crowd:
            await ground.api("DELETE", f"/teams/{team['id']}")
            changed = time.monotonic()
        _judge(crowd, changed, way="team archived", statuses={401})


@pytest.mark.parametrize("told", ["at its birth", "later"])
async def test_expired_key_ends_in_its_moment(ground: Ground, told: str) -> None:
    """Nobody does anything: the time comes."""
    for _ in range(min(ROUNDS, 5)):
        ends = datetime.now(UTC) + timedelta(seconds=figures.length(3, 6))
        key = await ground.key("short-lived", expires_at=(ends if told == "at its birth" else ends + timedelta(days=1)).isoformat())
        async with _using(ground, key) as crowd:
            if told == "later":
                ends = datetime.now(UTC) + timedelta(seconds=1)
                await ground.api("PATCH", f"/virtual-keys/{key.id}", {"expires_at": ends.isoformat()})
            await asyncio.sleep(max(0.0, (ends - datetime.now(UTC)).total_seconds()))
            changed = time.monotonic() + 0.002
        _judge(crowd, changed, way=f"expired, told {told}", statuses={401})


@pytest.mark.parametrize("scope", ["key", "organization"])
async def test_lowered_budget_ends_what_it_no_longer_pays_for(ground: Ground, scope: str) -> None:
    for _ in range(ROUNDS):
        key = await ground.key("paid", budgets=[{"amount_usd": "5.00", "period": "month"}])
        above = None if scope == "key" else await ground.budget(scope, None, "50.00")
        budget_id = next(iter(await ground.budgets(key))) if above is None else above.id
        async with _using(ground, key) as crowd:
            await ground.api("PATCH", f"/budgets/{budget_id}", {"amount_usd": "0.000001"})
            changed = time.monotonic()
        if scope == "organization":
            await ground.api("DELETE", f"/budgets/{budget_id}")
        _judge(crowd, changed, way=f"{scope} budget lowered", statuses={402})


async def test_deleted_credential_is_used_no_more(ground: Ground) -> None:
    """Streams that the vendor is serving go on: the caller may have them. No further request reaches the vendor with it."""
    for _ in range(ROUNDS):
        key = await ground.key("without a vendor")
        async with _using(ground, key, chunks=30) as crowd:
            for credential in ground.credentials.values():
                await ground.api("DELETE", f"/credentials/{credential['id']}")
            changed, changed_ns = time.monotonic(), time.time_ns()
        for vendor, base_url in (("openai", ground.sandbox.openai_base_url), ("anthropic", ground.sandbox.anthropic_base_url)):
            secret = next(value for value, made in ground.sandbox.state.keys.items() if made.vendor == vendor)
            ground.credentials[vendor] = await asyncio.to_thread(ground.keygate.credential, vendor, base_url, secret)
        late = [call for call in list(ground.sandbox.state.calls) if call.at_ns > changed_ns and call.user == key.id]
        assert not late, f"{len(late)} requests reached the vendor with a deleted credential"
        _judge(crowd, changed, way="credential deleted", statuses={503}, cut=False)
