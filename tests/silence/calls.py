"""The calls: of the gateway with everything that goes wrong; of every route of the control API, rightly, wrongly, without a store."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import asyncpg
import httpx
from tests.silence.canaries import marked
from tests.silence.observed import CHAT, FULL, MESSAGES, PUBLIC_OF_KEY, PUBLIC_OF_TOKEN, RESPONSES, Run
from tests.silence.routes import BODIES, Made

from keygate.sandbox import Fault, Vendor


def furnish(run: Run) -> None:
    """Signs in, and makes one of everything that calls can be about."""
    run.mark("prompt", f'{marked()} <pr\\ömpt> "x" 🙈\n{marked()}', guessable=True)
    for name in ("typo", "new password", "user password"):
        run.mark(name, f"{marked()} pä+/%&", guessable=True)
    for name in ("openai credential", "anthropic credential", "speaking credential", "another credential"):
        run.mark(name, f'sk-{marked()}+/=&%<>"', public=3, guessable=True)
    credentials = {"email": run.keygate.EMAIL, "password": run.keygate.password}
    run.send("POST", "/api/v1/auth/login", json=credentials | {"password": run.made["typo"]})
    signed_in = run.api("POST", "/auth/login", credentials, allowed=("access token",))
    run.token = run.mark("access token", signed_in["access_token"], public=PUBLIC_OF_TOKEN)
    for known in run.api("GET", "/credentials")["items"]:  # from the environment: it leads to a real vendor, whom no test calls
        run.api("PATCH", f"/credentials/{known['id']}", {"status": "disabled"})
    team = run.api("POST", "/teams", {"name": "silent"})
    developer = run.api("POST", "/developers", {"name": "Dev", "email": "dev@example.com", "team_id": team["id"]})
    app = run.api("POST", "/apps", {"name": "app"})
    user_body = {
        "email": "u@example.com",
        "name": "U",
        "role": "developer",
        "password": run.made["user password"],
        "developer_id": developer["id"],
    }
    user = run.api("POST", "/users", user_body)
    for name, vendor, base, models in (
        ("openai credential", "openai", run.sandbox.openai_base_url, ["gpt-4.1*"]),
        ("anthropic credential", "anthropic", run.sandbox.anthropic_base_url, None),
        ("speaking credential", "openai", f"{run.vendor.url}/v1", ["gpt-4o*"]),
    ):
        secret = run.made[name]
        if not base.startswith(run.vendor.url):
            run.sandbox.state.create_key(Vendor(vendor), value=secret)
        body = {"vendor": vendor, "name": name, "secret": secret, "base_url": base, "models": models}
        run.made["credential_id"] = run.api("POST", "/credentials", body)["id"]
    policy = run.api("POST", "/policies", {"name": "silent", "record_content": True, "content_readers": ["owner"]})
    budget = run.api("POST", "/budgets", {"scope": "team", "scope_id": team["id"], "amount_usd": "10.00", "period": "month"})
    limit = run.api("POST", "/limits", {"scope": "team", "scope_id": team["id"], "kind": "requests_per_minute", "amount": 10_000})
    alias = run.api("POST", "/aliases", {"alias": "silent", "target": "openai/gpt-4.1"})
    key = run.issued("key", "POST", "/virtual-keys", {"name": "silent", "budgets": [{"amount_usd": "100.00", "period": "day"}]})
    last = "A" if key["key"][-1] != "A" else "B"
    run.made["mistyped key"] = key["key"][:-1] + last  # found by the marks of the key itself
    token = run.issued("api token", "POST", "/api-tokens", {"name": "silent", "scopes": ["teams.read"]}, "token", PUBLIC_OF_TOKEN)
    made = {
        "team": team,
        "developer": developer,
        "app": app,
        "user": user,
        "policy": policy,
        "budget": budget,
        "limit": limit,
        "alias": alias,
        "key": key,
        "token": token,
    }
    run.made |= {f"{name}_id": thing["id"] for name, thing in made.items()}
    run.made |= {"request_id": "req_unknown", "vendor": "openai", "model": "gpt-4.1", "email": run.keygate.EMAIL, "fresh": "fresh"}


def ask(
    run: Run,
    path: str,
    *,
    key: str = "",
    model: str = "",
    allowed: tuple[str, ...] = (),
    headers: dict[str, str] | None = None,
    **more: Any,
) -> httpx.Response | None:
    prompt = run.made["prompt"] + more.pop("directive", "")
    if path == RESPONSES:
        body = {"model": model or "gpt-4.1", "max_output_tokens": 50, "input": prompt}
    else:
        body = {
            "model": model or ("gpt-4.1" if path == CHAT else "claude-sonnet-4-5"),
            "max_tokens": 50,
            "messages": [{"role": "user", "content": prompt}],
        }
    authorization = {"authorization": f"Bearer {key or run.made['key']}", "anthropic-version": "2023-06-01"}
    return run.send("POST", path, json=body | more, headers=authorization | (headers or {}), allowed=allowed)


def call_vendors(run: Run) -> None:
    """Answers, streams and refusals of vendors: an answer may hold what the vendor said, nothing of ours may."""
    said = ("answer",)
    for path in (CHAT, RESPONSES):
        answer = ask(run, path, model="gpt-4o", allowed=said)
        assert answer is not None
        assert answer.status_code == 200, answer.text
    ask(run, CHAT, model="gpt-4o", stream=True, allowed=said)
    for path in (CHAT, RESPONSES, MESSAGES):
        for stream in (False, True):
            assert (ask(run, path, stream=stream)).status_code == 200
    # A vendor that repeats the prompt repeats it to whom it came from; it repeats no credential of the house to anybody.
    ask(run, CHAT, model="gpt-4o", headers={"x-mode": "echo"}, allowed=("prompt",))
    ask(run, CHAT, model="gpt-4o", stream=True, headers={"x-mode": "echo"}, allowed=("prompt",))
    for mode in (
        "garbage",
        "reset-plain",
        "bad-chunk",
        "reset-mid",
        "short",
        "brotli",
        "error-page",
        "no-usage",
        "half-head",
        "deep-answer",
        "redirect",
    ):
        for stream in (False, True):
            ask(run, CHAT, model="gpt-4o", stream=stream, headers={"x-mode": mode}, allowed=said)


SERVER_ERROR = 500
_SLOW = frozenset({Fault.STALL, Fault.HANG})  # each ends by a time-out


def suffer_faults(run: Run) -> None:
    """Each fault of the sandbox, in each dialect, streamed and not. The sandbox repeats nothing that it is sent."""
    for path in (CHAT, RESPONSES, MESSAGES):
        for fault in Fault:
            if fault is Fault.ENDLESS or (fault in _SLOW and path != CHAT and not run.mode.whole):
                continue  # never an end to read; the tests of hostile vendors have it
            for stream in (False, True):
                ask(run, path, stream=stream, directive=f" sandbox(fault={fault} status=429)")


def be_refused(run: Run) -> None:
    """Every refusal of the gateway's own."""
    narrow = run.issued(
        "narrow key", "POST", "/virtual-keys", {"name": "narrow", "models": ["openai/gpt-4.1-mini"], "endpoints": ["chat"]}
    )["key"]
    poor = run.issued("poor key", "POST", "/virtual-keys", {"name": "poor", "budgets": [{"amount_usd": "0.000001", "period": "day"}]})[
        "key"
    ]
    slow = run.issued("slow key", "POST", "/virtual-keys", {"name": "slow", "limits": {"requests_per_minute": 1}})["key"]
    rotated = run.issued("key before rotation", "POST", "/virtual-keys", {"name": "rotated"})
    run.issued("rotated key", "POST", f"/virtual-keys/{rotated['id']}/rotate", {"grace_seconds": 0})
    ended = run.issued("revoked key", "POST", "/virtual-keys", {"name": "ended"})
    run.api("POST", f"/virtual-keys/{ended['id']}/revoke", {})
    leaked = run.issued("leaked key", "POST", "/virtual-keys", {"name": "leaked"})
    run.api("POST", "/virtual-keys/report-leak", {"key": leaked["key"]})
    for path in (CHAT, RESPONSES, MESSAGES):
        for key in (
            narrow,
            poor,
            slow,
            slow,
            rotated["key"],
            run.made["rotated key"],
            ended["key"],
            leaked["key"],
            run.made["mistyped key"],
            "sk-nonsense",
        ):
            ask(run, path, key=key)
        prompt = run.made["prompt"]
        for body in (
            b"{" + prompt.encode(),
            json.dumps({"model": prompt, "messages": [prompt]}).encode(),
            json.dumps([prompt]).encode(),
            prompt.encode("utf-16"),
        ):
            run.send(
                "POST",
                path,
                content=body,
                headers={"authorization": f"Bearer {run.made['key']}", "content-type": "application/json"},
                allowed=("prompt",),
            )
        ask(run, path, model="no-such-model")
        ask(run, path, headers={"content-encoding": "gzip"})
        ask(run, path, headers={"x-api-key": run.made["mistyped key"]})
        run.send("GET", f"{path}?key={quote(run.made['mistyped key'])}")
        run.send("POST", f"{path}?key={quote(run.made['key'])}", json={"model": "x"}, headers={"authorization": ""})
    run.send("GET", "/openai/v1/models", headers={"authorization": f"Bearer {run.made['key']}"})
    run.send("GET", f"/openai/v1/files/{run.made['key']}", headers={"authorization": f"Bearer {run.made['key']}"})
    run.send("GET", "/api/v1/quota", headers={"authorization": f"Bearer {run.made['key']}"})
    run.send("GET", "/api/v1/quota", headers={"authorization": f"Bearer {run.made['mistyped key']}"})


def read_recorded(run: Run) -> None:
    """Prompts and answers that a policy records are shown to their readers and are nowhere in the clear."""
    key = run.issued("recording key", "POST", "/virtual-keys", {"name": "recording", "policy_id": run.made["policy_id"]})["key"]
    answer = ask(run, CHAT, model="gpt-4o", key=key, allowed=("answer",))
    assert answer is not None
    request_id = run.made["request_id"] = answer.headers["x-request-id"]
    until = time.monotonic() + 15
    while True:
        content = run.send("GET", f"/api/v1/usage/entries/{request_id}/content", allowed=("prompt", "answer"))
        assert content is not None
        if content.status_code == 200:
            assert run.made["prompt"] in json.loads(content.json()["prompt"])["messages"][0]["content"]
            return
        assert time.monotonic() < until, content.text
        time.sleep(0.2)


def operations(run: Run) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    document = httpx.get(f"{run.keygate.url}/api/v1/openapi.json", timeout=60).json()
    order = {"get": 0, "post": 1, "patch": 2, "put": 3, "delete": 4}
    listed = [(method, path, its) for path, methods in document["paths"].items() for method, its in methods.items()]
    for method, path, its in sorted(listed, key=lambda one: (one[0] == "delete", order[one[0]])):
        yield its["operationId"], method.upper(), path, its


def fill(path: str, made: Made) -> str:
    for name, value in made.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


_NEW = {"create_key": ("key", PUBLIC_OF_KEY), "rotate_key": ("key", PUBLIC_OF_KEY), "create_api_token": ("token", PUBLIC_OF_TOKEN)}


def call_everything(run: Run) -> None:
    """Each operation with a body that it takes. What ends the sign-in or the credentials comes elsewhere."""
    for operation, method, path, its in list(operations(run)):
        run.called.add(operation)
        if operation in {"logout", "change_password"}:
            continue
        body = None
        if "requestBody" in its:
            run.made["fresh"] = marked(8)
            body = BODIES[operation](run.made)
        if operation in _NEW and its:
            member, public = _NEW[operation]
            run.issued(f"secret of {operation}", method, fill(path, run.made).removeprefix("/api/v1"), body, member, public)
        elif operation == "login":
            run.send(method, path, json=body)
        elif operation == "set_password":
            run.send(method, fill(path, run.made), json=body)
        elif operation in {"get_content", "read_content"} or path.endswith("/content"):
            run.send(method, fill(path, run.made), allowed=("prompt", "answer"))
        else:
            run.send(method, fill(path, run.made), json=body)


def spoil(body: dict[str, Any], canary: str) -> Iterator[Any]:
    """Bodies that are refused, with the canary where a hurried person pastes it."""
    yield canary
    yield [canary]
    yield body | {"no_such_field": canary}
    for name in body:
        yield body | {name: {"a": canary}}
        yield body | {name: [canary, {canary: 1}]}
        yield body | {name: canary + "\0"}
        yield body | {name: canary * 400}


def call_everything_wrongly(run: Run) -> None:
    """Secrets in the wrong places: none of it is repeated, stored or logged."""
    secrets_by_name = ("openai credential", "new password", "key", "access token") if FULL else ("openai credential", "key")
    for operation, method, path, its in list(operations(run)):
        if operation == "logout":
            continue
        for number, name in enumerate(secrets_by_name):
            secret = run.made[name]
            where = f"{operation} with {name}"
            shown = ("prompt", "answer") if path.endswith("/content") else ()
            if "{" in path:
                wrong = dict.fromkeys(run.made, secret)
                run.send(method, fill(path, wrong), json=BODIES[operation](run.made) if "requestBody" in its else None, seen=where)
            run.send(
                method,
                fill(path, run.made) + f"?limit={quote(secret)}&cursor={quote(secret)}&from={quote(secret)}",
                seen=where,
                allowed=shown,
            ) if method == "GET" else None
            if "requestBody" not in its:
                continue
            run.made["fresh"] = marked(8)
            for body in spoil(BODIES[operation](run.made), secret):
                run.send(method, fill(path, run.made), json=body, seen=where)
            if number == 0:
                for raw in (f'{{"a": "{secret}'.encode(), secret.encode(), f"secret={quote(secret)}".encode(), secret.encode("utf-16")):
                    run.send(method, fill(path, run.made), content=raw, headers={"content-type": "application/json"}, seen=where)
                run.send(method, fill(path, run.made), data={"secret": secret}, seen=where)
        for scheme in ("Bearer", "Basic", ""):
            for name in ("mistyped key", "key", "openai credential", "admin password"):
                run.send(
                    method,
                    fill(path, run.made),
                    headers={"authorization": f"{scheme} {quote(run.made[name])}".strip()},
                    seen=f"{operation} as nobody",
                )


def break_database(run: Run) -> int:
    """Every operation again while the store fails under it: traces are where values slip out. Returns how many calls failed."""
    tables = ("virtual_keys", "credentials", "users", "audit_entries", "teams", "policies")
    execute(run, [f"ALTER TABLE {table} RENAME TO {table}_away" for table in tables])
    answers = []
    for operation, method, path, its in list(operations(run)):
        body = BODIES[operation](run.made) if "requestBody" in its else None
        answers.append(run.send(method, fill(path, run.made), json=body, seen=f"{operation} without a database"))
    for path in (CHAT, MESSAGES):
        ask(run, path)
        ask(run, path, key=run.made["rotated key"])
    execute(run, [f"ALTER TABLE {table}_away RENAME TO {table}" for table in tables])
    return sum(answer is not None and answer.status_code >= SERVER_ERROR for answer in answers)


def execute(run: Run, statements: list[str]) -> None:
    if not run.database_url:
        connection = sqlite3.connect(next(run.keygate.data_dir.glob("*.db")), timeout=10)
        for statement in statements:
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute(statement)
        connection.commit()
        connection.close()
        return

    async def work() -> None:
        connection = await asyncpg.connect(run.database_url)
        for statement in statements:
            with contextlib.suppress(asyncpg.PostgresError):
                await connection.execute(statement)
        await connection.close()

    asyncio.run(work())
