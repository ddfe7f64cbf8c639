"""What every admin API of the sandbox shares: rights, faults, delays, ceilings, rate limits, the vendors' time and books."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import genai_prices
import httpx
import pytest
from tests.sandbox.wire import chat

from keygate.sandbox import MODELS, SandboxServer, Use
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.prices import price_of
from keygate.sandbox.admin.shelf import Eventual
from keygate.sandbox.model import Usage


async def made(openai: httpx.AsyncClient) -> tuple[str, str, dict[str, Any]]:
    """A project, and a service account in it: `(project id, account id, key)`."""
    project = (await openai.post("/projects", json={"name": "p"})).json()["id"]
    account = (await openai.post(f"/projects/{project}/service_accounts", json={"name": "s"})).json()
    return project, account["id"], account["api_key"]


async def call(sandbox: SandboxServer, value: str, prompt: str = "Hello") -> int:
    async with httpx.AsyncClient(base_url=sandbox.openai_base_url, timeout=10) as client:
        answer = await client.post("/chat/completions", json=chat(prompt), headers={"authorization": f"Bearer {value}"})
    return answer.status_code


async def test_issued_key_works_at_inference_and_stops_when_deleted(sandbox: SandboxServer, openai: httpx.AsyncClient) -> None:
    project, _, key = await made(openai)
    assert await call(sandbox, key["value"]) == 200
    assert (await openai.delete(f"/projects/{project}/api_keys/{key['id']}")).json()["deleted"] is True
    assert await call(sandbox, key["value"]) == 401
    assert (await openai.get(f"/projects/{project}/api_keys/{key['id']}")).status_code == 404


async def test_propagation_takes_as_long_as_is_set(sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    assert (await control.patch("/openai", json={"new_key_s": 60, "revoked_key_s": 120})).status_code == 200
    project, _, key = await made(openai)
    assert await call(sandbox, key["value"]) == 401
    await control.post("/clock", json={"advance_seconds": 61})
    assert await call(sandbox, key["value"]) == 200
    await openai.delete(f"/projects/{project}/api_keys/{key['id']}")
    await control.post("/clock", json={"advance_seconds": 118})
    assert await call(sandbox, key["value"]) == 200
    await control.post("/clock", json={"advance_seconds": 3})
    assert await call(sandbox, key["value"]) == 401


async def test_lists_are_eventually_consistent_and_single_reads_are_not(openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    await control.patch("/openai", json={"lists_s": 30})
    project, _, key = await made(openai)
    keys = f"/projects/{project}/api_keys"
    assert (await openai.get(keys)).json()["data"] == []
    assert (await openai.get(f"{keys}/{key['id']}")).status_code == 200
    await control.post("/clock", json={"advance_seconds": 31})
    assert [each["id"] for each in (await openai.get(keys)).json()["data"]] == [key["id"]]
    await openai.delete(f"{keys}/{key['id']}")
    assert [each["id"] for each in (await openai.get(keys)).json()["data"]] == [key["id"]]
    await control.post("/clock", json={"advance_seconds": 31})
    assert (await openai.get(keys)).json()["data"] == []


async def test_missing_right_is_named(openai: httpx.AsyncClient, control: httpx.AsyncClient, account: Account) -> None:
    weak = (await control.post("/openai/credentials", json={"without": ["api.projects.write"]})).json()["value"]
    refused = await openai.post("/projects", json={"name": "p"}, headers={"authorization": f"Bearer {weak}"})
    assert (refused.status_code, list(account.shelves["projects"])[1:]) == (403, [])
    assert "api.projects.write" in refused.json()["error"]["message"]
    assert (await openai.get("/projects", headers={"authorization": f"Bearer {weak}"})).status_code == 200
    assert (await openai.get("/projects", headers={"authorization": "Bearer nobody"})).status_code == 401
    await control.request("DELETE", "/openai/credentials", json={"value": weak})
    assert (await openai.get("/projects", headers={"authorization": f"Bearer {weak}"})).status_code == 401


async def test_fault_strikes_the_chosen_call_of_the_chosen_operation(openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    await control.post("/openai/faults", json={"operation": "projects.c*", "status": 429, "retry_after": "7", "after": 1, "calls": 2})
    answers = [await openai.post("/projects", json={"name": str(number)}) for number in range(4)]
    assert [answer.status_code for answer in answers] == [200, 429, 429, 200]
    assert answers[1].headers["retry-after"] == "7"
    assert (await openai.get("/projects")).status_code == 200
    await control.post("/openai/faults", json={"calls": None})
    assert (await openai.get("/projects")).status_code == 500
    await control.delete("/openai/faults")
    assert (await openai.get("/projects")).status_code == 200


@pytest.mark.parametrize("kind", ["reset", "garbage", "stall"])
@pytest.mark.parametrize("performed", [True, False])
async def test_answer_is_lost_before_or_after_the_deed(
    openai: httpx.AsyncClient, control: httpx.AsyncClient, account: Account, kind: str, performed: bool
) -> None:
    await control.post("/openai/faults", json={"operation": "projects.create", "kind": kind, "performed": performed})
    with pytest.raises(httpx.TransportError):
        await openai.post("/projects", json={"name": "lost"}, timeout=0.5)
    assert ("lost" in [project.body["name"] for project in account.shelves["projects"]]) is performed


async def test_delete_may_fail_though_done(sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    project, _, key = await made(openai)
    await control.post("/openai/faults", json={"operation": "*.delete", "performed": True})
    assert (await openai.delete(f"/projects/{project}/api_keys/{key['id']}")).status_code == 500
    assert await call(sandbox, key["value"]) == 401


async def test_ceiling_counts_what_stands(openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    await control.patch("/openai", json={"ceilings": {"projects": 2}})
    project = (await openai.post("/projects", json={"name": "one"})).json()["id"]
    refused = await openai.post("/projects", json={"name": "two"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "project_limit_exceeded")
    await openai.post(f"/projects/{project}/archive")
    assert (await openai.post("/projects", json={"name": "two"})).status_code == 200


async def test_admin_calls_have_a_rate_limit_of_their_own(openai: httpx.AsyncClient, control: httpx.AsyncClient, account: Account) -> None:
    await control.patch("/openai", json={"requests_per_minute": 3})
    answers = [await openai.get("/projects") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 0 < int(answers[3].headers["retry-after"]) <= 60
    await control.post("/clock", json={"advance_seconds": 61})
    assert (await openai.get("/projects")).status_code == 200
    assert [each.status for each in account.calls] == [200, 200, 200, 429, 200]
    assert {each.credential for each in account.calls} == {"admin"}


async def test_books_know_what_reports_say_later(
    sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient, account: Account
) -> None:
    await control.patch("/openai", json={"costs_late_s": 3600, "costs_first_share": 0.5, "costs_restated_s": 7200})
    _, _, key = await made(openai)
    start = account.clock.now_s()
    assert await call(sandbox, key["value"], "sandbox(input_tokens=1000000 output_tokens=0)") == 200
    assert account.books.total_usd(key_id=key["id"]) == Decimal("0.4")

    async def reported() -> float:
        buckets = (await openai.get("/costs", params={"start_time": start, "group_by": "api_key_id"})).json()["data"]
        return sum(row["amount"]["value"] for bucket in buckets for row in bucket["results"] if row["api_key_id"] == key["id"])

    assert await reported() == 0
    await control.post("/clock", json={"advance_seconds": 3601})
    assert await reported() == 0.2
    await control.post("/clock", json={"advance_seconds": 7200})
    assert await reported() == 0.4
    body = {"days_ago": 0, "key_id": key["id"], "model": "gpt-4.1-mini", "amount_usd": "-0.1"}
    assert (await control.post("/openai/books", json=body)).json() == {"total_usd": "0.3"}
    await control.post("/clock", json={"advance_seconds": 10801})
    assert round(await reported(), 9) == 0.3


async def test_keys_that_no_admin_api_made_are_in_the_books_too(sandbox: SandboxServer, control: httpx.AsyncClient) -> None:
    key = (await control.post(f"{sandbox.address}/_sandbox/keys", json={"vendor": "openai"})).json()["key"]
    assert await call(sandbox, key) == 200
    cells = (await control.get("/openai/books")).json()["cells"]
    assert [(cell["container"], cell["requests"], cell["usage"]["output"]) for cell in cells] == [(None, 1, 15)]


async def test_control_tells_what_stands_and_refuses_what_does_not_fit(openai: httpx.AsyncClient, control: httpx.AsyncClient) -> None:
    await made(openai)
    assert "openai" in (await control.get("")).json()["vendors"]
    things = (await control.get("/openai")).json()["things"]
    assert {name: len(each) for name, each in things.items()} == {"projects": 2, "service_accounts": 1, "keys": 1}
    assert len((await control.get("/openai/calls")).json()["calls"]) == 2
    for method, path, body in (
        ("PATCH", "/openai", {"speed": 1}),
        ("PATCH", "/openai", {"new_key_s": -1}),
        ("PATCH", "/openai", {"costs_first_share": 2}),
        ("POST", "/openai/faults", {"kind": "none"}),
        ("POST", "/openai/credentials", {"power": 1}),
        ("POST", "/openai/books", {"amount_usd": "much"}),
        ("POST", "/clock", {"advance_seconds": -1}),
    ):
        assert (await control.request(method, path, json=body)).status_code == 400, (path, body)
    assert (await control.get("/nobody")).status_code == 404
    assert (await control.post("/openai/console/nothing", json={})).status_code == 404


async def test_key_becomes_as_old_as_is_asked_and_its_last_use_lies_as_far_back(
    sandbox: SandboxServer, openai: httpx.AsyncClient, control: httpx.AsyncClient, account: Account
) -> None:
    project, service_account, key = await made(openai)
    path = f"/projects/{project}/api_keys/{key['id']}"
    shown = (await control.post("/openai/console/age", json={"key": key["id"], "days": 200})).json()
    assert shown["last_used_at"] is None
    assert await call(sandbox, key["value"]) == 200
    await control.post("/openai/console/age", json={"key": key["id"], "days": 100})
    then = account.clock.now_s() - 100 * 86_400
    told = (await openai.get(path)).json()
    assert [then - told[name] in range(-60, 60) for name in ("created_at", "last_used_at")] == [True, True]
    holders = [await openai.get(f"/projects/{project}{rest}") for rest in ("", f"/service_accounts/{service_account}")]
    assert [each.json()["created_at"] <= told["created_at"] for each in holders] == [True, True], "nothing is older than what holds it"
    assert await call(sandbox, key["value"]) == 200, "it works as before"
    assert (await openai.get(path)).json()["last_used_at"] > then + 86_400
    for body in ({}, {"key": key["id"]}, {"key": key["id"], "days": 0}, {"key": key["id"], "days": 1.5}, {"key": 3, "days": 1}):
        assert (await control.post("/openai/console/age", json=body)).status_code == 400, body
    assert (await control.post("/openai/console/age", json={"key": "key_none", "days": 1})).status_code == 404


def test_later_change_overtakes_an_earlier_one_that_takes_effect_after_it() -> None:
    value = Eventual("a")
    value.set("b", at_ns=100)
    value.set("c", at_ns=50)
    assert [value.at(10), value.at(60), value.at(200), value.last()] == ["a", "c", "c", "c"]


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.use is not Use.MODERATIONS])
def test_sandbox_charges_the_real_price(name: str) -> None:
    vendor = MODELS[name].vendor
    used = Usage(input=1000, cache_read=200, cache_write=100, output=0 if MODELS[name].use is Use.EMBEDDINGS else 50)
    asked = genai_prices.Usage(input_tokens=1000, cache_read_tokens=200, cache_write_tokens=100, output_tokens=used.output)
    real = genai_prices.calc_price(asked, name, provider_id={"xai": "x-ai"}.get(vendor, vendor)).total_price
    assert Decimal(price_of(MODELS, vendor, name).cost_pico(used)) / 10**12 == real
