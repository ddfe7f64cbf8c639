"""Money that was never spent refuses nobody: many callers without a maximum on a small fresh budget, and callers that wait for others."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.drills import figures
from tests.drills.callers import Answer, Caller, request
from tests.drills.ground import Ground, Key
from tests.sdks.environments import python_environment

from keygate.kit.money import format_usd, parse_usd

CALLERS = 20
MODELS = (
    ("/openai/v1/chat/completions", "gpt-5"),
    ("/v1/chat/completions", "gpt-4.1"),
    ("/openai/v1/chat/completions", "o3"),
    ("/openai/v1/responses", "gpt-5.5"),
    ("/openai/v1/chat/completions", "gpt-6-sol"),
    ("/openai/v1/chat/completions", "gpt-4"),
    ("/openai/v1/chat/completions", "o1"),
    ("/openai/v1/responses", "gpt-5-pro"),
    ("/openai/v1/chat/completions", "o1-pro"),  # $600 a million output tokens
)
ROUNDS = figures.length(1, 5)
HOLD_WAIT = 1.0  # of the second server: shorter than its callers' calls, so that waiting ends in a 429
_results: dict[str, Any] = {}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    """As shipped: every setting at its default."""
    with Ground(tmp_path_factory.mktemp("keygate")) as started:
        yield started


def _keep(name: str, **result: Any) -> None:
    _results[name] = result
    crowds = [each for each in _results.values() if "maximum_set" in each]
    line = f"{CALLERS} of {CALLERS} callers without a maximum served on 1.00 USD, for each of {len(crowds)} models"
    if crowds:
        line += f", slowest in {max(each['seconds'] for each in crowds)} s, most spent {max(each['spent_usd'] for each in crowds)} USD"
    if "held" in _results:
        line += (
            f"; {len(_results['held']['retries'])} SDK callers kept out by a hold all served, after {_results['held']['retries']} retries"
        )
    figures.write("never-refused", line, results=_results)


def _body(path: str, model: str, settings: str, *, streamed: bool = False, **members: Any) -> dict[str, Any]:
    prompt = f"Say something short. sandbox({settings})"
    said = {"input": prompt} if path.endswith("responses") else {"messages": [{"role": "user", "content": prompt}]}
    return {"model": model, **said, **({"stream": True} if streamed else {}), **members}


async def _crowd(ground: Ground, key: Key, path: str, model: str, *, tokens: int) -> list[Answer]:
    """Twenty callers that come in the same moment."""
    callers = [Caller(ground.port) for _ in range(CALLERS)]
    data = [
        request("POST", path, key.token, _body(path, model, f"output_tokens={tokens} latency_ms=700", streamed=index % 2 == 1))
        for index in range(CALLERS)
    ]
    try:
        return list(await asyncio.gather(*(caller.call(each) for caller, each in zip(callers, data, strict=True))))
    finally:
        for caller in callers:
            caller.close()


@pytest.mark.parametrize(("path", "model"), MODELS)
async def test_twenty_at_once_without_a_maximum_are_all_served(ground: Ground, path: str, model: str) -> None:
    price = ground.prices.find("openai", model, time.time_ns())
    assert price is not None
    for _ in range(ROUNDS):
        # A few cents in all: as many tokens as each answer can have for that.
        tokens = max(1, min(150, 40_000_000 // CALLERS // max(1, price.upper_bound(0, 1))))
        key = await ground.key("crowd", budgets=[{"amount_usd": "1.00", "period": "month", "mode": "hard"}])
        began = time.monotonic()
        answers = await _crowd(ground, key, path, model, tokens=tokens)
        took = time.monotonic() - began
        refused = [bytes(answer.body) for answer in answers if answer.status != 200 or not answer.whole]
        assert not refused, f"{model}: {len(refused)} of {CALLERS} were refused for money never spent, such as {refused[0]!r}"
        budget = next(iter((await ground.budgets(key)).values()))
        assert parse_usd(budget["spent_usd"]) < parse_usd("0.25"), "real cost is a few cents"
        assert not parse_usd(budget["held_usd"])
        caller = Caller(ground.port)
        single = await caller.call(request("POST", path, key.token, _body(path, model, f"output_tokens={tokens}")))
        caller.close()
        assert single.status == 200, f"{model}: a single call right after them: {single.status} {bytes(single.body)!r}"
    spent = budget["spent_usd"]
    set_to = sorted({int(answer.headers["x-keygate-max-output-tokens"]) for answer in answers})
    _keep(model, rounds=ROUNDS, served=CALLERS, seconds=round(took, 2), spent_usd=spent, maximum_set=set_to)


async def test_call_that_just_fits_is_served_and_one_that_does_not_is_402(ground: Ground) -> None:
    """To the nano-dollar: a budget of exactly the bound of one call serves that call; a nano less refuses it, and says so."""
    path, model = "/openai/v1/chat/completions", "gpt-4.1"
    body = _body(path, model, "output_tokens=100 input_tokens=10", max_tokens=100)
    probe = await ground.key("probe", budgets=[{"amount_usd": "0.000000001", "period": "lifetime"}])
    caller = Caller(ground.port)
    refused = await caller.call(request("POST", path, probe.token, body))
    assert refused.status == 402, bytes(refused.body)
    assert refused.headers["x-should-retry"] == "false"
    needed = parse_usd(refused.error()["message"].partition("may cost up to ")[2].partition(" USD")[0])
    for amount, status in ((needed, 200), (needed - 1, 402)):
        key = await ground.key("exact", budgets=[{"amount_usd": format_usd(amount), "period": "lifetime"}])
        answer = await caller.call(request("POST", path, key.token, body))
        assert answer.status == status, f"{amount} of {needed}: {answer.status} {bytes(answer.body)!r}"
    caller.close()


_PROGRAM = """
import asyncio, json, sys, time
from openai import AsyncOpenAI

async def main():
    client = AsyncOpenAI()
    async def one(name, latency, maximum, wait):
        await asyncio.sleep(wait)
        began = time.monotonic()
        prompt = f"Hello. sandbox(output_tokens=20 latency_ms={latency})"
        try:
            raw = await client.chat.completions.with_raw_response.create(
                model="gpt-4.1", max_tokens=maximum, user=name, messages=[{"role": "user", "content": prompt}])
            return {"name": name, "status": raw.status_code, "retries": raw.retries_taken, "seconds": time.monotonic() - began}
        except Exception as error:
            return {"name": name, "error": repr(error), "status": getattr(error, "status_code", 0), "seconds": time.monotonic() - began}
    holder = one("holder", 2500, 10000, 0)
    others = [one(f"other {index}", 50, 9000, 0.3) for index in range(4)]
    print(json.dumps(await asyncio.gather(holder, *others)))

asyncio.run(main())
"""


async def test_caller_that_only_holds_keep_out_gets_a_429_that_its_sdk_retries_into_success(tmp_path: Path) -> None:
    """The budget pays for all of them many times over, but the first one's hold leaves no room while it lives."""
    with Ground(tmp_path, environment={"KEYGATE_HOLD_WAIT": str(HOLD_WAIT)}) as ground:
        key = await ground.key("held", budgets=[{"amount_usd": "0.10", "period": "lifetime"}])
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "OPENAI_BASE_URL": f"http://127.0.0.1:{ground.port}/openai/v1",
            "OPENAI_API_KEY": key.token,
        }
        process = await asyncio.create_subprocess_exec(
            str(python_environment("openai-3")), "-c", _PROGRAM, env=environment, stdout=asyncio.subprocess.PIPE
        )
        output, _ = await asyncio.wait_for(process.communicate(), 90)
        results = json.loads(output)
        failed = [result for result in results if result["status"] != 200]
        assert not failed, failed
        retried = [result["retries"] for result in results[1:]]
        assert max(retried) >= 1, f"nobody was kept out, so nothing was shown: {results}"
        budget = next(iter((await ground.budgets(key)).values()))
        assert parse_usd(budget["spent_usd"]) < parse_usd("0.01")
        by_hand = await _held_out(ground)
    _keep("held", retries=retried, results=results, by_hand=by_hand)


async def _held_out(ground: Ground) -> dict[str, str]:
    """The same without an SDK: what the 429 says."""
    path = "/openai/v1/chat/completions"
    key = await ground.key("held too", budgets=[{"amount_usd": "0.10", "period": "lifetime"}])
    first, second = Caller(ground.port), Caller(ground.port)
    holder = asyncio.create_task(
        first.call(request("POST", path, key.token, _body(path, "gpt-4.1", "output_tokens=20 latency_ms=2500", max_tokens=10_000)))
    )
    await asyncio.sleep(0.3)
    began = time.monotonic()
    answer = await second.call(request("POST", path, key.token, _body(path, "gpt-4.1", "output_tokens=20", max_tokens=9_000)))
    waited = time.monotonic() - began
    assert answer.status == 429, (answer.status, bytes(answer.body))
    assert answer.error()["code"] == "budget_held"
    assert HOLD_WAIT * 0.9 <= waited < HOLD_WAIT + 1, "a caller waits a moment before it is refused"
    assert 1 <= int(answer.headers["retry-after"]) <= 2, answer.headers
    assert (await holder).status == 200
    again = await second.call(request("POST", path, key.token, _body(path, "gpt-4.1", "output_tokens=20", max_tokens=9_000)))
    assert again.status == 200, bytes(again.body)
    first.close()
    second.close()
    return {"retry_after": answer.headers["retry-after"], "message": answer.error()["message"]}
