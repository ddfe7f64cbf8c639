"""Keys that change while requests run, holds that stand in the way, and the end of the process."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.gateway.rig import Rig, budget, chat, read_chunk, read_head, read_reply, request, running
from tests.gateway.upstream import CHAT

from keygate.ledger import Outcome
from keygate.policies import KeyDigest, KeyState, KeyStatus, RuleSet, Scope


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with running(client_timeout=1.0, drain_timeout=1.0) as rig:
        yield rig


async def test_revoked_key_is_refused_on_the_next_request(rig: Rig) -> None:
    token, state = rig.key()
    reader, writer = await rig.open()
    writer.write(request(token, chat(max_tokens=1)))
    assert (await read_reply(reader)).status == 200
    await rig.change(state, status=KeyStatus.REVOKED)
    writer.write(request(token, chat(max_tokens=1)))  # the same connection
    reply = await read_reply(reader)
    assert reply.status == 401
    assert reply.json()["error"]["code"] == "key_revoked"
    assert (await rig.call(token, chat(max_tokens=1))).status == 401
    writer.close()
    rig.nothing_leaks()


async def _stream(rig: Rig, token: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await rig.open()
    writer.write(request(token, chat(stream=True, max_tokens=5), X_Mode="ticking"))
    status, _ = await read_head(reader)
    assert status == 200
    await read_chunk(reader)
    return reader, writer


async def _rest(reader: asyncio.StreamReader) -> bytes:
    rest = b""
    while piece := await asyncio.wait_for(read_chunk(reader), 2):
        rest = piece
    assert await reader.read(-1) == b""  # and the connection ends
    return rest


CHANGES = {
    "revoked": {"status": KeyStatus.REVOKED},
    "owner deactivated": {"status": KeyStatus.OWNER_INACTIVE},
    "expired": {"expires_at_ns": 1},
    "model denied": {"rules": (RuleSet(Scope.TEAM, "team_1", "narrow", models_allow=("openai/other",)),)},
    "rotated without grace": {"digests": (KeyDigest(b"x" * 32),)},
    "budget lowered": {"budgets": (budget(1),)},
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("way", ["keys", "organization"])
async def test_open_stream_is_cut_when_its_key_changes(rig: Rig, name: str, way: str) -> None:
    token, state = rig.key(budgets=(budget(10_000_000),))
    reader, writer = await _stream(rig, token)
    other_token, _ = rig.key()
    other_reader, other_writer = await _stream(rig, other_token)
    if way == "keys":
        await rig.change(state, **CHANGES[name])
    else:
        rig.keys.states[state.public_id] = replace(state, **CHANGES[name])
        await rig.gateway.organization_changed("org_1")
    last = await _rest(reader)
    assert json.loads(last.removeprefix(b"data: "))["error"]["code"]
    rig.upstream.go.set()
    await rig.settled(2)
    outcomes = sorted(settlement.outcome for _, settlement in rig.accounts.settled.values())
    assert outcomes == [Outcome.CUT, Outcome.FINISHED]
    assert all(settlement.usage is not None for _, settlement in rig.accounts.settled.values())
    assert b"[DONE]" in await _rest_of(other_reader)
    rig.nothing_leaks()
    writer.close()
    other_writer.close()


async def _rest_of(reader: asyncio.StreamReader) -> bytes:
    rest = b""
    while piece := await asyncio.wait_for(read_chunk(reader), 2):
        rest += piece
    return rest


async def test_open_stream_is_cut_when_the_key_expires_by_the_clock(rig: Rig) -> None:
    token, _ = rig.key(expires_at_ns=time.time_ns() + 300_000_000)
    reader, writer = await _stream(rig, token)
    last = await _rest(reader)
    assert b"key_expired" in last
    rig.upstream.go.set()
    await rig.settled()
    writer.close()


async def test_waiting_answer_is_refused_when_its_key_is_revoked(rig: Rig) -> None:
    token, state = rig.key()
    reader, writer = await rig.open()
    writer.write(request(token, chat(max_tokens=5), X_Mode="held"))
    await asyncio.sleep(0.1)
    await rig.change(state, status=KeyStatus.REVOKED)
    assert (await asyncio.wait_for(read_reply(reader), 2)).status == 401
    rig.upstream.go.set()
    await rig.settled()
    assert rig.accounts.last.outcome is Outcome.CUT
    rig.nothing_leaks()
    writer.close()


async def test_changed_rules_hold_for_the_next_request_and_unchanged_streams_go_on(rig: Rig) -> None:
    token, state = rig.key()
    reader, writer = await _stream(rig, token)
    await rig.change(state, name="renamed", budgets=(budget(10**12),))
    await read_chunk(reader)
    rig.upstream.go.set()
    assert b"[DONE]" in await _rest_of(reader)
    rig.nothing_leaks()
    writer.close()


async def test_former_token_works_until_the_overlap_ends(rig: Rig) -> None:
    token, state = rig.key()
    assert (await rig.call(token, chat(max_tokens=1))).status == 200
    until = time.time_ns() + 400_000_000
    await rig.change(state, digests=(KeyDigest(b"n" * 32), replace(state.digests[0], expires_at_ns=until)))
    assert (await rig.call(token, chat(max_tokens=1))).status == 200
    await asyncio.sleep(0.45)
    reply = await rig.call(token, chat(max_tokens=1))
    assert reply.status == 401
    assert reply.json()["error"]["code"] == "key_rotated"


async def test_load_that_began_before_a_change_is_thrown_away(rig: Rig) -> None:
    token, state = rig.key()
    rig.keys.delay = 0.1
    first = asyncio.create_task(rig.call(token, chat(max_tokens=1)))
    await asyncio.sleep(0.05)
    await rig.change(state, status=KeyStatus.REVOKED)
    assert (await first).status == 401
    assert rig.keys.loads == 2


async def test_requests_of_an_unknown_key_share_one_look_up(rig: Rig) -> None:
    token, _ = rig.key()
    rig.keys.delay = 0.05
    replies = await asyncio.gather(*(rig.call(token, chat(max_tokens=1)) for _ in range(20)))
    assert {reply.status for reply in replies} == {200}
    assert rig.keys.loads == 1


async def test_made_up_keys_cost_one_look_up_and_new_keys_work_at_once(rig: Rig) -> None:
    token, state = rig.key()
    del rig.keys.states[state.public_id]
    for _ in range(5):
        assert (await rig.call(token, chat())).status == 401
    assert rig.keys.loads == 1
    assert (await rig.call("sk-kg-mistyped", chat())).status == 401
    assert rig.keys.loads == 1
    rig.keys.states[state.public_id] = state
    await rig.gateway.keys_changed([state.id])
    assert (await rig.call(token, chat(max_tokens=1))).status == 200


async def test_database_that_is_down_is_a_503_and_never_an_old_state(rig: Rig) -> None:
    token, state = rig.key()
    reader, writer = await _stream(rig, token)
    rig.keys.down = True
    await rig.gateway.keys_changed([state.id])
    assert b"key_state_unknown" in await _rest(reader)
    assert (await rig.call(token, chat())).status == 503
    rig.keys.down = False
    assert (await rig.call(token, chat(max_tokens=1))).status == 200
    rig.upstream.go.set()
    await rig.settled(2)
    rig.nothing_leaks()
    writer.close()


async def test_two_different_keys_are_refused_and_the_same_twice_is_fine(rig: Rig) -> None:
    token, _ = rig.key()
    other, _ = rig.key()
    assert (await rig.call(token, chat(max_tokens=1), X_Api_Key=other)).status == 401
    assert (await rig.call(token, chat(max_tokens=1), X_Api_Key=token)).status == 200
    assert (await rig.call(token, chat(max_tokens=1), path=f"/openai/v1/chat/completions?key={token}")).status == 200
    assert (await rig.call(token, chat(max_tokens=1), path=f"/openai/v1/chat/completions?key={other}")).status == 401
    assert all("key=" not in seen.line for seen in rig.upstream.seen)


async def test_other_key_on_the_same_connection_is_another_caller(rig: Rig) -> None:
    token, _ = rig.key()
    other, _ = rig.key(rules=(RuleSet(Scope.KEY, "vk_2", "none", models_allow=()),))
    reader, writer = await rig.open()
    for sent, status in ((token, 200), (other, 403), (token, 200), ("sk-kg-" + "x" * 51, 401), (token, 200), (other, 403)):
        writer.write(request(sent, chat(max_tokens=1)))
        assert (await read_reply(reader)).status == status
    writer.close()


async def test_spent_budget_is_a_402_and_a_held_one_waits(rig: Rig) -> None:
    token, _ = rig.key(budgets=(budget(700_000),))
    reader, writer = await rig.open()
    writer.write(request(token, chat(max_tokens=400), X_Mode="held"))
    await asyncio.sleep(0.1)
    waiting = asyncio.create_task(rig.call(token, chat(max_tokens=400)))
    await asyncio.sleep(0.1)
    rig.upstream.go.set()
    assert (await waiting).status == 200
    assert (await read_reply(reader)).status == 200
    writer.close()
    reply = await rig.call(token, chat(max_tokens=5000))
    assert reply.status == 402
    assert reply.headers["x-should-retry"] == "false"
    rig.nothing_leaks()


async def test_hold_that_never_comes_free_is_a_429_to_be_retried(rig: Rig) -> None:
    token, _ = rig.key(budgets=(budget(700_000),))
    reader, writer = await rig.open()
    writer.write(request(token, chat(max_tokens=400), X_Mode="held"))
    await asyncio.sleep(0.1)
    reply = await rig.call(token, chat(max_tokens=400))
    assert reply.status == 429
    assert reply.headers["x-should-retry"] == "true"
    assert int(reply.headers["retry-after"]) <= 2
    rig.upstream.go.set()
    await read_reply(reader)
    writer.close()
    rig.nothing_leaks()


async def test_caller_who_leaves_while_waiting_for_a_hold_takes_none(rig: Rig) -> None:
    token, _ = rig.key(budgets=(budget(700_000),))
    reader, writer = await rig.open()
    writer.write(request(token, chat(max_tokens=400), X_Mode="held"))
    await asyncio.sleep(0.1)
    _, gone = await rig.open()
    gone.write(request(token, chat(max_tokens=400)))
    await asyncio.sleep(0.05)
    gone.transport.abort()
    rig.upstream.go.set()
    await read_reply(reader)
    await asyncio.sleep(0.5)
    assert len(rig.upstream.seen) == 1
    writer.close()
    rig.nothing_leaks()


async def test_journal_that_fails_stops_requests_before_they_are_sent(rig: Rig) -> None:
    token, _ = rig.key()
    await rig.call(token, chat(max_tokens=1))
    rig.accounts.broken = True
    assert (await rig.call(token, chat(max_tokens=1))).status == 503
    assert len(rig.upstream.seen) == 1
    rig.nothing_leaks()


async def test_keys_leave_memory_when_others_come_but_never_with_requests_in_flight() -> None:
    async with running(max_keys=5, drain_timeout=1.0) as rig:
        token, state = rig.key()
        reader, writer = await _stream(rig, token)
        for _ in range(20):
            other, _ = rig.key()
            assert (await rig.call(other, chat(max_tokens=1))).status == 200
        assert len(rig.gateway.ring) <= 6
        await rig.change(state, status=KeyStatus.REVOKED)
        assert b"key_revoked" in await _rest(reader)
        rig.upstream.go.set()
        await rig.settled(21)
        writer.close()


async def test_keys_that_left_memory_take_their_meters_with_them() -> None:
    async with running(max_keys=3) as rig:
        known = []
        for _ in range(10):
            token, state = rig.key()
            known.append((token, state))
            assert (await rig.call(token, chat(max_tokens=1))).status == 200
        assert len(rig.accounts.ready) == len(rig.gateway.ring) <= 4
        token, state = known[-1]
        del rig.keys.states[state.public_id]
        await rig.gateway.keys_changed([state.id])
        assert state.id not in rig.accounts.ready
        token, state = known[0]
        assert (await rig.call(token, chat(max_tokens=1))).status == 200  # back in memory, and bound again
        assert state.id in rig.accounts.ready


async def test_key_that_goes_while_it_is_read_leaves_no_meters() -> None:
    async with running() as rig:
        token, state = rig.key()
        rig.keys.delay = 0.2
        call = asyncio.create_task(rig.call(token, chat(max_tokens=1)))
        await asyncio.sleep(0.1)  # its state is read already, and not yet handed over
        del rig.keys.states[state.public_id]
        await rig.gateway.keys_changed([state.id])
        assert (await call).status == 401
        assert state in rig.accounts.bound
        assert not rig.accounts.ready


async def test_key_that_left_memory_is_not_remembered_by_its_connection() -> None:
    async with running(max_keys=2) as rig:
        token, state = rig.key()
        reader, writer = await rig.open()
        writer.write(request(token, chat(max_tokens=1)))
        assert (await read_reply(reader)).status == 200
        for _ in range(6):
            other, _ = rig.key()
            await rig.call(other, chat(max_tokens=1))
        await rig.change(state, status=KeyStatus.REVOKED)
        writer.write(request(token, chat(max_tokens=1)))
        assert (await read_reply(reader)).status == 401
        writer.close()


async def test_stop_lets_requests_in_flight_finish() -> None:
    async with running(shutdown_timeout=3) as rig:
        token, _ = rig.key()
        reader, writer = await rig.open()
        idle_reader, idle_writer = await rig.open()
        writer.write(request(token, chat(max_tokens=1), X_Mode="held"))
        await asyncio.sleep(0.1)
        assert rig.server is not None
        rig.server.should_exit = True
        assert await asyncio.wait_for(idle_reader.read(-1), 2) == b""
        rig.upstream.go.set()
        reply = await asyncio.wait_for(read_reply(reader), 2)
        assert reply.body == CHAT
        assert reply.headers["connection"] == "close"
        writer.close()
        idle_writer.close()
    assert rig.accounts.last.outcome is Outcome.FINISHED
    rig.nothing_leaks()


async def test_stop_cuts_and_settles_what_does_not_finish_in_time() -> None:
    began = time.monotonic()
    async with running(shutdown_timeout=1) as rig:
        token, _ = rig.key()
        streaming = await _stream(rig, token)
        _, gone = await _stream(rig, token)
        gone.transport.abort()
    assert time.monotonic() - began < 4
    assert not rig.accounts.open
    assert {settlement.usage for _, settlement in rig.accounts.settled.values()} == {None}
    streaming[1].close()


async def test_idle_connections_end_after_the_keep_alive_time() -> None:
    async with running(keep_alive=1, client_timeout=1.0) as rig:
        reader, writer = await rig.open()
        assert await asyncio.wait_for(reader.read(-1), 3) == b""
        writer.close()


async def test_aliases_are_sent_under_the_vendors_name(rig: Rig) -> None:
    token, _ = rig.key(aliases=(("smart", "openai/gpt-4.1"),))
    for path in ("/v1/chat/completions", "/openai/v1/chat/completions", "/v1/openai/chat/completions", "/v1/v1/chat/completions"):
        assert (await rig.call(token, chat(model="smart", max_tokens=1), path=path)).status == 200
    assert (await rig.call(token, chat(model="openai/gpt-4.1", max_tokens=1), path="/v1/chat/completions")).status == 200
    assert {json.loads(seen.body)["model"] for seen in rig.upstream.seen} == {"gpt-4.1"}


async def test_credentials_are_taken_by_weight(rig: Rig) -> None:
    token, _ = rig.key()
    rig.credentials.all.append(replace(rig.credentials.all[0], id="cred_3", weight=3))
    await rig.gateway.credentials_changed()
    for _ in range(8):
        await rig.call(token, chat(max_tokens=1))
    used = [settlement.credential_id for _, settlement in rig.accounts.settled.values()]
    assert used.count("cred_3") == 6
    assert used.count("cred_1") == 2


async def test_no_credential_is_a_503_that_says_so(rig: Rig) -> None:
    token, _ = rig.key(organization_id="org_2")
    reply = await rig.call(token, chat(max_tokens=1))
    assert reply.status == 503
    assert reply.json()["error"]["code"] == "no_credential"
    assert rig.accounts.last.outcome is Outcome.NOT_SENT
    rig.nothing_leaks()


async def test_metrics_count_what_happened(rig: Rig) -> None:
    token, state = rig.key()
    await rig.call(token, chat(max_tokens=1))
    await rig.call("sk-kg-nonsense", chat())
    names = {metric.name: metric for metric in rig.gateway.metrics.collect()}
    samples = [(sample.labels, sample.value) for sample in names["keygate_gateway_requests"].samples]
    assert ({"vendor": "openai", "endpoint": "chat", "status": "200"}, 1) in samples
    assert any(sample.labels == {"rule": "invalid_api_key"} for sample in names["keygate_gateway_refusals"].samples)
    timed = {(sample.labels["vendor"], sample.labels["endpoint"]) for sample in names["keygate_gateway_upstream_duration_seconds"].samples}
    assert timed == {("openai", "chat")}  # what reached no vendor took no time there
    assert isinstance(state, KeyState)
