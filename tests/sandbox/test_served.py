"""What the sandbox says that it served is what the answers say that they cost."""

from __future__ import annotations

import asyncio

import genai_prices
import httpx
import pytest
from tests.sandbox.wire import chat, events, messages, responses

from keygate.sandbox import MODELS, Behaviour, FaultPlan, KeyStatus, SandboxServer, SandboxState, Use, Vendor, start_sandbox


def served(sandbox: SandboxServer, key: str = "sandbox-openai-test") -> dict[str, int]:
    totals = sandbox.state.report(key=key)["totals"]
    assert len(totals) <= 1
    return {"requests": totals[0]["requests"], **totals[0]["usage"]} if totals else {"requests": 0}


async def test_set_token_counts_are_answered_and_counted_exactly(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    prompt = "sandbox(input_tokens=1000 output_tokens=321 cache_read_tokens=400 reasoning_tokens=21)"
    usage = (await openai.post("/chat/completions", json=chat(prompt, n=2))).json()["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (1000, 642, 1642)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 400
    assert usage["completion_tokens_details"]["reasoning_tokens"] == 42
    counted = served(sandbox)
    assert (counted["requests"], counted["input"], counted["cache_read"], counted["output"], counted["reasoning"]) == (
        1,
        1000,
        400,
        642,
        42,
    )


async def test_anthropic_input_excludes_what_the_cache_counts(sandbox: SandboxServer, anthropic: httpx.AsyncClient) -> None:
    prompt = "sandbox(input_tokens=1000 cache_read_tokens=300 cache_write_tokens=200 cache_write_1h_tokens=100)"
    usage = (await anthropic.post("/v1/messages", json=messages(prompt))).json()["usage"]
    assert (usage["input_tokens"], usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]) == (400, 300, 300)
    assert usage["cache_creation"] == {"ephemeral_5m_input_tokens": 200, "ephemeral_1h_input_tokens": 100}
    assert served(sandbox, "sandbox-anthropic-test")["input"] == 1000


@pytest.mark.parametrize("n", [1, 3])
async def test_stream_is_counted_as_the_plain_answer_is(sandbox: SandboxServer, openai: httpx.AsyncClient, n: int) -> None:
    prompt = "sandbox(output_tokens=100 reasoning_tokens=30 chunks=66)"
    plain = (await openai.post("/chat/completions", json=chat(prompt, n=n))).json()["usage"]
    body = chat(prompt, n=n, stream=True, stream_options={"include_usage": True})
    chunks = events(await openai.post("/chat/completions", json=body))
    assert chunks[-1]["usage"] == plain
    assert sum(bool(chunk["choices"] and chunk["choices"][0]["delta"].get("content")) for chunk in chunks) == 66 * n
    assert served(sandbox)["output"] == 2 * plain["completion_tokens"] == 200 * n


async def test_answer_never_has_more_input_tokens_than_the_request_has_bytes(openai: httpx.AsyncClient) -> None:
    for text in ("", "a", "é" * 50, "x" * 10_000):
        answer = await openai.post("/chat/completions", json=chat(text))
        assert 1 <= answer.json()["usage"]["prompt_tokens"] <= len(answer.request.content)


async def test_maximum_is_never_exceeded(openai: httpx.AsyncClient, anthropic: httpx.AsyncClient) -> None:
    prompt = "sandbox(output_tokens=1000 reasoning_tokens=5)"
    assert (await openai.post("/chat/completions", json=chat(prompt, max_tokens=7))).json()["usage"]["completion_tokens"] == 7
    assert (await openai.post("/responses", json=responses(prompt, max_output_tokens=17))).json()["usage"]["output_tokens"] == 17
    assert (await anthropic.post("/v1/messages", json=messages(prompt, max_tokens=9))).json()["usage"]["output_tokens"] == 9


async def test_embeddings_bill_input_only(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    usage = (await openai.post("/embeddings", json={"model": "text-embedding-3-small", "input": "Hello there"})).json()["usage"]
    assert (served(sandbox)["input"], served(sandbox)["output"]) == (usage["prompt_tokens"], 0)


async def test_count_tokens_models_and_refusals_bill_nothing(
    sandbox: SandboxServer, openai: httpx.AsyncClient, anthropic: httpx.AsyncClient
) -> None:
    assert (await anthropic.post("/v1/messages/count_tokens", json={**messages(), "max_tokens": None})).status_code == 200
    assert (await openai.get("/models")).status_code == 200
    assert (await openai.post("/chat/completions", json=chat(model="gpt-none"))).status_code == 404
    assert (await openai.post("/chat/completions", json=chat(model="gpt-5", max_tokens=5))).json()["error"][
        "code"
    ] == "unsupported_parameter"
    assert (await openai.post("/chat/completions", json=chat(max_tokens=10**6))).status_code == 400
    assert (await openai.post("/responses", json=responses(max_output_tokens=15))).status_code == 400
    assert (await anthropic.post("/v1/messages", json={**messages(), "max_tokens": None})).status_code == 400
    assert sandbox.state.report()["totals"] == []
    assert len(sandbox.state.report()["calls"]) == 7


async def test_caller_that_leaves_is_billed_for_what_was_produced(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    prompt = "sandbox(output_tokens=1000 chunks=100 chunk_ms=20)"
    async with openai.stream("POST", "/chat/completions", json=chat(prompt, stream=True)) as answer:
        async for line in answer.aiter_lines():
            if '"content":"' in line and '"content":""' not in line:
                break
    await asyncio.sleep(0.2)
    billed = served(sandbox)["output"]
    await asyncio.sleep(0.1)
    assert 10 <= billed == served(sandbox)["output"] < 200
    assert sandbox.state.calls[-1].finished is False


async def test_vendor_that_continues_bills_the_whole_answer(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    prompt = "sandbox(output_tokens=100 chunks=10 chunk_ms=20 continues=true)"
    async with openai.stream("POST", "/chat/completions", json=chat(prompt, stream=True)):
        pass
    await asyncio.sleep(0.5)
    assert served(sandbox)["output"] == 100


async def test_revoked_key_fails_on_the_next_request(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    assert (await openai.post("/chat/completions", json=chat())).status_code == 200
    sandbox.state.revoke_key("sandbox-openai-test")
    answer = await openai.post("/chat/completions", json=chat())
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("vendor", "status", "answered"),
    [
        (Vendor.OPENAI, KeyStatus.OUT_OF_QUOTA, 429),
        (Vendor.ANTHROPIC, KeyStatus.OUT_OF_QUOTA, 400),
        (Vendor.OPENAI, KeyStatus.RATE_LIMITED, 429),
        (Vendor.ANTHROPIC, KeyStatus.FORBIDDEN, 403),
    ],
)
async def test_key_status_is_told_as_the_vendor_tells_it(sandbox: SandboxServer, vendor: Vendor, status: KeyStatus, answered: int) -> None:
    key = sandbox.state.create_key(vendor, status=status)
    headers = {"authorization": f"Bearer {key.value}", "anthropic-version": "2023-06-01"}
    openai = vendor is Vendor.OPENAI
    url = f"{sandbox.openai_base_url}/chat/completions" if openai else f"{sandbox.anthropic_base_url}/v1/messages"
    async with httpx.AsyncClient() as client:
        answer = await client.post(url, json=chat() if openai else messages(), headers=headers)
    assert answer.status_code == answered
    if openai and status is KeyStatus.OUT_OF_QUOTA:
        assert answer.json()["error"]["code"] == "insufficient_quota"


def test_fault_plans_strike_the_same_calls_in_every_run() -> None:
    def strikes() -> list[bool]:
        plan = FaultPlan({"fault": "status"}, calls=None, after=2, probability=0.5, seed=7)
        return [plan.strikes() for _ in range(40)]

    first = strikes()
    assert first == strikes()
    assert first[:2] == [False, False]
    assert 5 < sum(first) < 35


async def test_planned_fault_strikes_once(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    plan = FaultPlan({"fault": "status", "status": 529, "retry_after": "2"}, after=1)
    sandbox.state.plan_fault("sandbox-openai-test", plan)
    answers = [await openai.post("/chat/completions", json=chat()) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 529, 200, 200]
    assert answers[1].headers["retry-after"] == "2"


async def test_settings_come_from_defaults_key_header_and_prompt_in_that_order(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    async def output(prompt: str = "Hello", **headers: str) -> int:
        answer = await openai.post("/chat/completions", json=chat(prompt), headers={"x-sandbox": headers.get("sandbox", "")})
        return int(answer.json()["usage"]["completion_tokens"])

    sandbox.state.behaviour = Behaviour(output_tokens=1)
    assert await output() == 1
    sandbox.state.keys["sandbox-openai-test"].settings = {"output_tokens": 2}
    assert await output() == 2
    assert await output(sandbox="output-tokens=3; chunks=1") == 3
    assert await output("Please sandbox(output_tokens=4)", sandbox="output_tokens=3") == 4


async def test_wrong_setting_is_named(openai: httpx.AsyncClient) -> None:
    for prompt in ("sandbox(speed=3)", "sandbox(output_tokens=many)", "sandbox(fault=none)", "sandbox(output_tokens=-1)"):
        answer = await openai.post("/chat/completions", json=chat(prompt))
        assert answer.status_code == 400
        assert "sandbox settings" in answer.json()["error"]["message"]


async def test_calls_carry_the_ids_that_a_caller_sees(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    answer = await openai.post("/chat/completions", json=chat(), headers={"x-request-id": "req_mine", "x-stainless-retry-count": "1"})
    call = sandbox.state.calls[-1]
    assert (call.id, call.answer_id) == (answer.headers["x-request-id"], answer.json()["id"])
    assert (call.caller_request_id, call.retry_count, call.finished) == ("req_mine", "1", True)


async def test_control_api_does_all_that_the_state_does(sandbox: SandboxServer) -> None:
    async with httpx.AsyncClient(base_url=f"{sandbox.address}/_sandbox") as control:
        assert (await control.get("")).json()["openai_base_url"] == sandbox.openai_base_url
        made = (await control.post("/keys", json={"vendor": "openai", "behaviour": {"output_tokens": 5}})).json()
        key = made["key"]
        assert key.startswith("sandbox-openai-")
        assert (await control.post(f"/keys/{key}/faults", json={"behaviour": {"fault": "status", "status": 503}})).status_code == 201
        headers = {"authorization": f"Bearer {key}"}
        answers = [await control.post(f"{sandbox.openai_base_url}/chat/completions", json=chat(), headers=headers) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [503, 200]
        report = (await control.get("/served", params={"key": key})).json()
        assert report["totals"][0]["usage"]["output"] == 5
        assert [call["status"] for call in report["calls"]] == [503, 200]
        assert (await control.patch(f"/keys/{key}", json={"status": "out_of_quota"})).json()["status"] == "out_of_quota"
        assert (await control.delete(f"/keys/{key}")).json()["status"] == "revoked"
        assert (await control.put("/behaviour", json={"latency_ms": 1})).json()["latency_ms"] == 1
        assert (await control.post("/models", json={"name": "gpt-new", "vendor": "openai"})).status_code == 201
        assert (await control.delete("/served")).status_code == 200
        assert (await control.get("/served")).json() == {"seen": 0, "totals": [], "calls": []}
        for method, path, body in (
            ("POST", "/keys", {"vendor": "none"}),
            ("POST", "/keys", {"vendor": "openai", "behaviour": {"speed": 1}}),
            ("POST", "/models", {"vendor": "openai"}),
            ("POST", "/keys", {"vendor": "openai", "key": 7}),
            ("POST", "/keys", {"vendor": "openai", "behaviour": [1]}),
            ("PUT", "/behaviour", {"fault": "none"}),
        ):
            assert (await control.request(method, path, json=body)).status_code == 400
        assert (await control.get("/keys/none/none")).status_code == 404


async def test_calls_kept_are_bounded_and_totals_are_not() -> None:
    address, state, stop = await start_sandbox(state=SandboxState(keep_calls=3))
    key = state.create_key(Vendor.OPENAI)
    async with httpx.AsyncClient(base_url=address, headers={"authorization": f"Bearer {key.value}"}) as client:
        for _ in range(5):
            await client.post("/openai/v1/chat/completions", json=chat())
    report = state.report()
    assert (report["seen"], len(report["calls"]), report["totals"][0]["requests"]) == (5, 3, 5)
    await stop()
    with pytest.raises(httpx.ConnectError):
        async with httpx.AsyncClient() as late:
            await late.get(address)


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.use is not Use.MODERATIONS])
def test_each_model_has_a_real_price(name: str) -> None:
    usage = genai_prices.Usage(input_tokens=1000, output_tokens=10)
    assert genai_prices.calc_price(usage, name, provider_id={"xai": "x-ai"}.get(MODELS[name].vendor, MODELS[name].vendor)).total_price > 0
