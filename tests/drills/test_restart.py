"""Ctrl-C ends it in time with what is in flight finished, and the next start has everything as it was."""

from __future__ import annotations

import asyncio
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from tests.drills import figures
from tests.drills.callers import Answer, Caller, request
from tests.drills.ground import Ground, Key, compare
from tests.drills.traffic import Traffic
from tests.running import KEYGATE

STOPS = 5.0  # seconds that Ctrl-C may take
ROUNDS = figures.length(1, 5)
CHAT = "/openai/v1/chat/completions"
MOVING = {"last_used_at", "last_login_at", "held_usd", "updated_at"}


def _still(value: Any) -> Any:
    """Without what time alone changes."""
    if isinstance(value, dict):
        return {name: _still(inner) for name, inner in value.items() if name not in MOVING}
    return [_still(inner) for inner in value] if isinstance(value, list) else value


async def _snapshot(ground: Ground, keys: list[Key]) -> dict[str, Any]:
    nouns = (
        "teams",
        "developers",
        "apps",
        "policies",
        "virtual-keys",
        "budgets",
        "limits",
        "aliases",
        "credentials",
        "users",
        "api-tokens",
    )
    seen: dict[str, Any] = {noun: (await ground.api("GET", f"/{noun}", limit=500))["items"] for noun in nouns}
    seen["usage"] = [await ground.api("GET", f"/virtual-keys/{key.id}/usage") for key in keys]
    for usage in seen["usage"]:  # a sliding minute moves by itself
        usage["limits"] = [(limit["id"], limit["amount"], limit["used"]) for limit in usage["limits"] if limit["kind"].endswith("_day")]
    seen["entries"] = await ground.entries(keys)
    seen["by model"] = (await ground.api("GET", "/usage", group_by="model"))["items"]
    seen["organization"] = await ground.api("GET", "/organization")
    return {name: _still(value) for name, value in seen.items()}


async def _audit(ground: Ground) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, Any] = {}
    while True:
        page = await ground.api("GET", "/audit", limit=500, **cursor)
        found += page["items"]
        if page["next_cursor"] is None:
            return sorted(found, key=lambda entry: entry["sequence"])
        cursor = {"cursor": page["next_cursor"]}


async def _furnish(ground: Ground) -> list[Key]:
    team = (await ground.api("POST", "/teams", {"name": "kept"}))["id"]
    developer = (await ground.api("POST", "/developers", {"name": "Kept", "email": "kept@example.com", "team_id": team}))["id"]
    policy = {"name": "kept", "models": ["openai/*", "anthropic/*"], "models_deny": ["openai/o1*"], "limits": {"requests_per_day": 10_000}}
    policy_id = (await ground.api("POST", "/policies", policy))["id"]
    await ground.api("POST", "/aliases", {"alias": "fast", "target": "openai/gpt-4.1-mini"})
    await ground.api("POST", "/budgets", {"scope": "organization", "amount_usd": "100.00", "period": "quarter", "mode": "soft"})
    await ground.api("POST", "/limits", {"scope": "team", "scope_id": team, "kind": "tokens_per_day", "amount": 10_000_000})
    await ground.api("POST", "/api-tokens", {"name": "kept", "scopes": ["usage.read"]})
    budgets = [{"amount_usd": "20.00", "period": "month"}, {"amount_usd": "5.00", "period": "day", "rolling": True, "mode": "hard"}]
    return [
        await ground.key("kept", owner={"developer_id": developer}, policy_id=policy_id, budgets=budgets, tags=["project=kept"]),
        await ground.key("limited", owner={"team_id": team}, limits={"requests_per_minute": 10_000, "concurrent_requests": 50}),
    ]


async def _ask(ground: Ground, key: Key, settings: str, *, stream: bool, path: str = CHAT) -> Answer:
    caller = Caller(ground.port)
    body = {"model": "gpt-4.1-mini", "user": f"{key.id}:0", "stream": stream, "max_tokens": 500}
    body |= {"messages": [{"role": "user", "content": f"Hello. sandbox({settings})"}]}
    answer = await caller.call(request("POST", path, key.token, body))
    caller.close()
    return answer


@pytest.mark.timeout(figures.length(120, 600))
async def test_restart_keeps_everything_and_finishes_what_is_in_flight(tmp_path: Path) -> None:
    stops, starts = [], []
    with Ground(tmp_path) as ground:
        keys = await _furnish(ground)
        traffic = Traffic(5, faults={"status": 30, "no_usage": 20}, impatient=0)
        rotated = await ground.api("POST", f"/virtual-keys/{keys[1].id}/rotate", {"grace_seconds": 3600})
        revoked = await ground.key("gone")
        await ground.api("POST", f"/virtual-keys/{revoked.id}/revoke", {})
        for _ in range(ROUNDS):
            caller = Caller(ground.port)
            for index in range(60):
                await caller.call(traffic.draft(keys[index % 2]).data)
            caller.close()
            await ground.quiet(keys)
            flying = [
                asyncio.create_task(_ask(ground, keys[0], "output_tokens=40 chunks=20 chunk_ms=100", stream=True)) for _ in range(10)
            ] + [asyncio.create_task(_ask(ground, keys[1], "output_tokens=40 latency_ms=1500", stream=False)) for _ in range(10)]
            await asyncio.sleep(0.5)
            before = await _audit(ground)
            stops.append(await asyncio.to_thread(ground.keygate.stop))
            answers = await asyncio.gather(*flying)
            broken = [(answer.status, bytes(answer.body[-200:])) for answer in answers if answer.status != 200 or not answer.whole]
            assert not broken, broken
            assert all(b"[DONE]" in answer.body for answer in answers[:10]), "streams in flight are finished"
            assert stops[-1] < STOPS
            offline = await asyncio.to_thread(
                subprocess.run,
                [KEYGATE, "audit", "verify"],
                env={"PATH": "", "HOME": str(tmp_path), "KEYGATE_DATA_DIR": str(ground.keygate.data_dir)},
                capture_output=True,
                check=False,
            )
            assert offline.returncode == 0, offline
            starts.append(await asyncio.to_thread(ground.keygate.start))
            ground.sign_in()
            seen = await _snapshot(ground, keys)
            after = await _audit(ground)
            assert after[: len(before)] == before, "the audit log is as it was"
            assert (await ground.api("GET", "/audit/verify"))["ok"]
            books = compare(ground, ground.calls(), await ground.entries(keys))
            assert len([entry for entry in seen["entries"] if entry["outcome"] == "finished"]) >= 20
            await asyncio.to_thread(ground.keygate.stop)
            starts.append(await asyncio.to_thread(ground.keygate.start))
            ground.sign_in()
            again = await _snapshot(ground, keys)
            for noun, what in seen.items():
                assert again[noun] == what, f"{noun} changed over a restart"
            for token, status in ((keys[0].token, 200), (keys[1].token, 200), (rotated["key"], 200), (revoked.token, 401)):
                answer = await _ask(ground, Key(keys[0].id, token), "output_tokens=3", stream=False)
                assert answer.status == status, bytes(answer.body)
    line = (
        f"{ROUNDS} rounds: 20 requests in flight at Ctrl-C all finished, stopped within {max(stops):.1f} s; {books.entries} entries, "
        f"keys, budgets, limits, audit log the same after {2 * ROUNDS} restarts, ready within {max(starts):.1f} s"
    )
    figures.write("restart", line, stop_seconds=stops, start_seconds=starts, entries=books.entries)


async def test_stop_does_not_wait_for_an_answer_that_takes_for_ever(tmp_path: Path) -> None:
    with Ground(tmp_path) as ground:
        key = await ground.key("endless", budgets=[{"amount_usd": "5.00", "period": "month"}])
        asked = [asyncio.create_task(_ask(ground, key, "output_tokens=400 chunks=400 chunk_ms=200", stream=True)) for _ in range(3)]
        asked.append(asyncio.create_task(_ask(ground, key, "latency_ms=60000", stream=False)))
        await asyncio.sleep(1)
        began = time.monotonic()
        await asyncio.to_thread(ground.keygate.stop)
        took = time.monotonic() - began
        answers = await asyncio.gather(*asked)
        assert not any(answer.whole and answer.status == 200 for answer in answers), "what was broken off must not look whole"
        await asyncio.to_thread(ground.keygate.start)
        ground.sign_in()
        entries = await ground.entries([key])
        assert len(entries) == 4
        compare(ground, ground.calls(), entries)
        assert took < STOPS, f"Ctrl-C took {took:.2f} s"
