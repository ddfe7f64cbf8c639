"""The whole product runs with marked secrets, over every endpoint, every error path, each log level, both log formats and the debug mode;
afterwards everything that came out of it is searched: answers, logs, metrics, command lines, every file and every row.

What may hold a secret, and nothing else may: the answer that makes a key, a token or a sign-in (that one secret), answers of the gateway
that pass the vendor's own answer on, the recorded content for those who may read it, and `master.key`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg
import httpx
import psutil
import pytest
from tests.postgresql import PostgresServer
from tests.running import KEYGATE, RunningKeyGate
from tests.silence.canaries import Evidence, marked
from tests.silence.routes import BODIES, Made
from tests.silence.speaker import SpeakingVendor

from keygate.sandbox import Fault, SandboxServer, Vendor

CHAT, RESPONSES, MESSAGES = "/openai/v1/chat/completions", "/openai/v1/responses", "/anthropic/v1/messages"
PUBLIC_OF_KEY = 18  # `sk-kg-` and the public id
PUBLIC_OF_TOKEN = 4  # `kga_`, `kgt_`


@dataclass(frozen=True)
class Mode:
    name: str
    database: str
    level: str
    form: str
    debug: bool = False


@dataclass
class Run:
    """One product under observation."""

    evidence: Evidence
    keygate: RunningKeyGate
    vendor: SpeakingVendor
    sandbox: SandboxServer
    folder: Path
    database_url: str
    mode: Mode
    made: Made
    token: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=20, trust_env=False))
    called: set[str] = field(default_factory=set)

    def mark(self, name: str, value: str, **how: Any) -> str:
        self.made[name] = value
        return self.evidence.mark(name, value, **how)

    def send(self, method: str, path: str, *, allowed: tuple[str, ...] = (), seen: str = "", **how: Any) -> httpx.Response | None:
        """Whatever comes back is evidence; None where the connection broke."""
        signed_in = {"authorization": f"Bearer {self.token}"} if self.token else {}
        headers = {name: value for name, value in (signed_in | how.pop("headers", {})).items() if value}
        try:
            answer = self.client.request(method, self.keygate.url + path, headers=headers, **how)
        except httpx.HTTPError as error:
            self.evidence.add(f"error of {method} {path}", repr(error))
            return None
        head = "".join(f"{name}: {value}\n" for name, value in answer.headers.items())
        self.evidence.add(f"answer {answer.status_code} to {method} {seen or path}", head.encode() + answer.content, allowed=allowed)
        return answer

    def api(self, method: str, path: str, body: Any = None, **how: Any) -> Any:
        answer = self.send(method, f"/api/v1{path}", json=body, **how)
        assert answer is not None, self.evidence.seen[-1][:2]
        assert answer.is_success, (method, path, answer.text)
        return answer.json() if answer.content else None

    def issued(self, name: str, method: str, path: str, body: Any, member: str = "key", public: int = PUBLIC_OF_KEY) -> dict[str, Any]:
        """A call whose answer is the one place where the new secret may stand. It is marked from then on."""
        made = self.api(method, path, body, allowed=(name,))
        self.mark(name, made[member], public=public)
        return dict(made)

    def command(self, *arguments: str, allowed: tuple[str, ...] = (), text: str = "", **environment: str) -> tuple[int, str]:
        """A `keygate` command of its own process: its output and its command line are evidence."""
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "KEYGATE_URL": self.keygate.url,
            "KEYGATE_DATA_DIR": str(self.keygate.data_dir),
            "KEYGATE_DATABASE_URL": self.database_url,
            **environment,
        }
        settings = {name: value for name, value in settings.items() if value}
        with subprocess.Popen(
            [KEYGATE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=settings, cwd=self.folder
        ) as process:
            with contextlib.suppress(psutil.Error):
                typed = [name for name, value in self.made.items() if value in arguments]  # by the person, not by us
                self.evidence.add(f"command line of {arguments[:2]}", "\0".join(psutil.Process(process.pid).cmdline()), allowed=typed)
            output, errors = process.communicate(text.encode(), 60)
        self.evidence.add(f"output of keygate {' '.join(arguments[:3])}", output, allowed=allowed)
        self.evidence.add(f"errors of keygate {' '.join(arguments[:3])}", errors, allowed=allowed)
        return process.returncode, output.decode() + errors.decode()


MODES = [
    Mode("debug as text, on SQLite, with Python's debug mode", "sqlite", "debug", "text", debug=True),
    Mode("debug as JSON, on PostgreSQL, with Python's debug mode", "postgresql", "debug", "json", debug=True),
    Mode("info as text, on PostgreSQL", "postgresql", "info", "text"),
    Mode("info as JSON, on SQLite", "sqlite", "info", "json"),
    Mode("warning as text, on SQLite", "sqlite", "warning", "text"),
    Mode("error as JSON, on SQLite", "sqlite", "error", "json"),
]


@pytest.fixture(params=MODES, ids=lambda mode: mode.name)
def run(request, tmp_path: Path) -> Iterator[Run]:
    mode: Mode = request.param
    evidence = Evidence()
    environment = {
        "KEYGATE_LOG_LEVEL": mode.level,
        "KEYGATE_LOG_FORMAT": mode.form,
        "KEYGATE_FIRST_BYTE_TIMEOUT": "1",
        "KEYGATE_IDLE_TIMEOUT": "1",
        "KEYGATE_DRAIN_TIMEOUT": "1",
        "OPENAI_API_KEY": evidence.mark("vendor key of the environment", f"sk-env-{marked()}", public=7),
    }
    if mode.debug:
        environment |= {"PYTHONDEVMODE": "1", "PYTHONASYNCIODEBUG": "1"}
    database_url = ""
    if mode.database == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        parts = urlsplit(server.create("silence"))
        password = evidence.mark("password of the database", marked())
        database_url = urlunsplit(parts._replace(netloc=f"keygate:{password}@"))
        environment |= {
            "KEYGATE_DATABASE_URL": database_url,
            "KEYGATE_MASTER_KEY": evidence.mark("master key of the environment", marked(43)),
        }
    answer = evidence.mark("answer", f'{marked()} "ansẅer" 🐦\n{marked()}')
    with SandboxServer() as sandbox, SpeakingVendor(answer) as vendor:
        keygate = RunningKeyGate(tmp_path, environment=environment)
        keygate.password = keygate._environment["KEYGATE_ADMIN_PASSWORD"] = evidence.mark(
            "admin password", f"{marked()} pä+/%&", guessable=True
        )
        with keygate:
            made = {name: canary.value for name, canary in evidence.canaries.items()}
            run = Run(evidence, keygate, vendor, sandbox, tmp_path, database_url, mode, made)
            with run.client:
                yield run


def _furnish(run: Run) -> None:
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


# the gateway


def _ask(
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


def _call_vendors(run: Run) -> None:
    """Answers, streams and refusals of vendors: an answer may hold what the vendor said, nothing of ours may."""
    said = ("answer",)
    for path in (CHAT, RESPONSES):
        answer = _ask(run, path, model="gpt-4o", allowed=said)
        assert answer is not None
        assert answer.status_code == 200, answer.text
    _ask(run, CHAT, model="gpt-4o", stream=True, allowed=said)
    for path in (CHAT, RESPONSES, MESSAGES):
        for stream in (False, True):
            assert (_ask(run, path, stream=stream)).status_code == 200  # type: ignore[union-attr]  # it answers
    # A vendor that repeats the prompt repeats it to whom it came from; it repeats no credential of the house to anybody.
    _ask(run, CHAT, model="gpt-4o", headers={"x-mode": "echo"}, allowed=("prompt",))
    _ask(run, CHAT, model="gpt-4o", stream=True, headers={"x-mode": "echo"}, allowed=("prompt",))
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
            _ask(run, CHAT, model="gpt-4o", stream=stream, headers={"x-mode": mode}, allowed=said)


def _suffer_faults(run: Run) -> None:
    """Each fault of the sandbox, in each dialect, streamed and not. The sandbox repeats nothing that it is sent."""
    for path in (CHAT, RESPONSES, MESSAGES):
        for fault in Fault:
            if fault is Fault.ENDLESS:
                continue  # never an end to read; the tests of hostile vendors have it
            for stream in (False, True):
                _ask(run, path, stream=stream, directive=f" sandbox(fault={fault} status=429)")


def _be_refused(run: Run) -> None:
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
            _ask(run, path, key=key)
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
        _ask(run, path, model="no-such-model")
        _ask(run, path, headers={"content-encoding": "gzip"})
        _ask(run, path, headers={"x-api-key": run.made["mistyped key"]})
        run.send("GET", f"{path}?key={quote(run.made['mistyped key'])}")
        run.send("POST", f"{path}?key={quote(run.made['key'])}", json={"model": "x"}, headers={"authorization": ""})
    run.send("GET", "/openai/v1/models", headers={"authorization": f"Bearer {run.made['key']}"})
    run.send("GET", f"/openai/v1/files/{run.made['key']}", headers={"authorization": f"Bearer {run.made['key']}"})
    run.send("GET", "/api/v1/quota", headers={"authorization": f"Bearer {run.made['key']}"})
    run.send("GET", "/api/v1/quota", headers={"authorization": f"Bearer {run.made['mistyped key']}"})


def _read_recorded(run: Run) -> None:
    """Prompts and answers that a policy records are shown to their readers and are nowhere in the clear."""
    key = run.issued("recording key", "POST", "/virtual-keys", {"name": "recording", "policy_id": run.made["policy_id"]})["key"]
    answer = _ask(run, CHAT, model="gpt-4o", key=key, allowed=("answer",))
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


# the control API


def _operations(run: Run) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    document = httpx.get(f"{run.keygate.url}/api/v1/openapi.json").json()
    order = {"get": 0, "post": 1, "patch": 2, "put": 3, "delete": 4}
    listed = [(method, path, its) for path, methods in document["paths"].items() for method, its in methods.items()]
    for method, path, its in sorted(listed, key=lambda one: (one[0] == "delete", order[one[0]])):
        yield its["operationId"], method.upper(), path, its


def _fill(path: str, made: Made) -> str:
    for name, value in made.items():
        path = path.replace(f"{{{name}}}", quote(value, safe=""))
    return path


_NEW = {"create_key": ("key", PUBLIC_OF_KEY), "rotate_key": ("key", PUBLIC_OF_KEY), "create_api_token": ("token", PUBLIC_OF_TOKEN)}
_LAST = (
    "logout",
    "change_password",
    "set_password",
    "deactivate_user",
    "update_user",
    "revoke_api_token",
    "deactivate_developer",
    "archive_team",
    "update_credential",
    "delete_credential",
)


def _call_everything(run: Run) -> None:
    """Each operation with a body that it takes. What ends the sign-in or the credentials comes elsewhere."""
    for operation, method, path, its in list(_operations(run)):
        run.called.add(operation)
        if operation in {"logout", "change_password"}:
            continue
        body = None
        if "requestBody" in its:
            run.made["fresh"] = marked(8)
            body = BODIES[operation](run.made)
        if operation in _NEW and its:
            member, public = _NEW[operation]
            run.issued(f"secret of {operation}", method, _fill(path, run.made).removeprefix("/api/v1"), body, member, public)
        elif operation == "login":
            run.send(method, path, json=body)
        elif operation == "set_password":
            run.send(method, _fill(path, run.made), json=body)
        elif operation in {"get_content", "read_content"} or path.endswith("/content"):
            run.send(method, _fill(path, run.made), allowed=("prompt", "answer"))
        else:
            run.send(method, _fill(path, run.made), json=body)


def _spoil(body: dict[str, Any], canary: str) -> Iterator[Any]:
    """Bodies that are refused, with the canary where a hurried person pastes it."""
    yield canary
    yield [canary]
    yield body | {"no_such_field": canary}
    for name in body:
        yield body | {name: {"a": canary}}
        yield body | {name: [canary, {canary: 1}]}
        yield body | {name: canary + "\0"}
        yield body | {name: canary * 400}


def _call_everything_wrongly(run: Run) -> None:
    """Secrets in the wrong places: none of it is repeated, stored or logged."""
    secrets_by_name = ("openai credential", "new password", "key", "access token")
    for operation, method, path, its in list(_operations(run)):
        if operation == "logout":
            continue
        for number, name in enumerate(secrets_by_name):
            secret = run.made[name]
            where = f"{operation} with {name}"
            shown = ("prompt", "answer") if path.endswith("/content") else ()
            if "{" in path:
                wrong = dict.fromkeys(run.made, secret)
                run.send(method, _fill(path, wrong), json=BODIES[operation](run.made) if "requestBody" in its else None, seen=where)
            run.send(
                method,
                _fill(path, run.made) + f"?limit={quote(secret)}&cursor={quote(secret)}&from={quote(secret)}",
                seen=where,
                allowed=shown,
            ) if method == "GET" else None
            if "requestBody" not in its:
                continue
            run.made["fresh"] = marked(8)
            for body in _spoil(BODIES[operation](run.made), secret):
                run.send(method, _fill(path, run.made), json=body, seen=where)
            if number == 0:
                for raw in (f'{{"a": "{secret}'.encode(), secret.encode(), f"secret={quote(secret)}".encode(), secret.encode("utf-16")):
                    run.send(method, _fill(path, run.made), content=raw, headers={"content-type": "application/json"}, seen=where)
                run.send(method, _fill(path, run.made), data={"secret": secret}, seen=where)
        for scheme in ("Bearer", "Basic", ""):
            for name in ("mistyped key", "key", "openai credential", "admin password"):
                run.send(
                    method,
                    _fill(path, run.made),
                    headers={"authorization": f"{scheme} {quote(run.made[name])}".strip()},
                    seen=f"{operation} as nobody",
                )


def _operate(run: Run) -> None:
    """The command line, with its errors, and what an operator makes of the data directory."""
    run.command("login", "--email", run.keygate.EMAIL, "--password-stdin", text=run.made["typo"] + "\n")
    code, said = run.command("login", "--email", run.keygate.EMAIL, "--password-stdin", text=run.keygate.password + "\n")
    assert code == 0, said
    saved = next(run.folder.rglob("login.json"))
    run.mark("access token of the command line", json.loads(saved.read_text())["token"], public=PUBLIC_OF_TOKEN)
    secret = run.made["another credential"] + "\n"
    for words in (
        ("status",),
        ("credentials", "list"),
        ("keys", "list", "--json"),
        ("keys", "show", run.made["key_id"]),
        ("usage", "--json"),
        ("audit", "list", "--json"),
        ("credentials", "test", run.made["credential_id"]),
    ):
        run.command(*words)
    run.command("credentials", "add", "openai", "--name", "from the shell", "--base-url", "http://127.0.0.1:1", "--json", text=secret)
    run.command("credentials", "add", "openai", "--name", "from the shell", "--base-url", "http://127.0.0.1:1", text=secret)
    run.command("credentials", "add", "no-such-vendor", text=secret)
    run.command("keys", "show", run.made["key"])
    run.command("keys", "revoke", run.made["key"], "--yes")
    run.command("status", KEYGATE_TOKEN=run.made["mistyped key"])
    run.command("status", "--json", KEYGATE_URL="http://127.0.0.1:1", KEYGATE_TOKEN=run.made["access token of the command line"])
    code, said = run.command("keys", "create", "shell", "--json", allowed=("key of the command line",))
    assert code == 0, said
    run.mark("key of the command line", json.loads(said)["key"], public=PUBLIC_OF_KEY)
    run.command("env", text=run.made["key"] + "\n", allowed=("key",))
    run.command("audit", "export", str(run.folder / "audit.jsonl"))
    run.evidence.add("audit export", (run.folder / "audit.jsonl").read_bytes())
    code, said = run.command(
        "audit",
        "verify",
        str(run.folder / "audit.jsonl"),
        KEYGATE_MASTER_KEY=run.evidence.canaries["master key of the environment"].value if run.database_url else "",
    )
    assert code == 0, said
    if run.database_url:
        return
    code, said = run.command("db", "backup", str(run.folder / "backup.db"))
    assert code == 0, said
    new = run.folder / "new-master.key"
    new.write_text(run.mark("new master key", marked(43)))
    new.chmod(0o600)
    run.evidence.mark("first master key", (run.keygate.data_dir / "master.key").read_text().strip())
    code, said = run.command("vault", "rotate", "--new-key-file", str(new))
    assert code == 0, said
    assert (_ask(run, CHAT)).status_code == 200  # type: ignore[union-attr]  # it answers


def _break_database(run: Run) -> None:
    """Every operation again while the store fails under it: traces are where values slip out."""
    tables = ("virtual_keys", "credentials", "users", "audit_entries", "teams", "sessions", "policies")
    statements = [f"ALTER TABLE {table} RENAME TO {table}_away" for table in tables]
    back = [f"ALTER TABLE {table}_away RENAME TO {table}" for table in tables]
    for table_statements in (statements, back):
        _execute(run, table_statements)
        if table_statements is statements:
            for operation, method, path, its in list(_operations(run)):
                body = BODIES[operation](run.made) if "requestBody" in its else None
                run.send(method, _fill(path, run.made), json=body, seen=f"{operation} without a database")
            for path in (CHAT, MESSAGES):
                _ask(run, path)
                _ask(run, path, key=run.made["rotated key"])


def _execute(run: Run, statements: list[str]) -> None:
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


def _collect(run: Run) -> None:
    """Everything else that is there to be read."""
    evidence = run.evidence
    run.send("GET", "/metrics")
    assert run.keygate.process is not None
    for process in (me := psutil.Process(run.keygate.process.pid), *me.children(recursive=True)):
        evidence.add("command line of the server", "\0".join(process.cmdline()))
    evidence.add("ps", subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=False).stdout)
    _collect_files(run, "while it runs")
    if run.database_url:
        asyncio.run(_collect_rows(run))
    else:
        connection = sqlite3.connect(next(run.keygate.data_dir.glob("*.db")))
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            evidence.add(f"table {table}", repr(connection.execute(f"SELECT * FROM {table}").fetchall()))
        connection.close()
    run.keygate.stop()
    _collect_files(run, "after its end")


def _collect_files(run: Run, when: str) -> None:
    keys = {
        "master.key": ("first master key", "new master key"),
        "login.json": ("access token of the command line",),
        "new-master.key": ("new master key",),
    }
    for file in sorted(run.folder.rglob("*")):
        if file.is_file():
            run.evidence.add(f"file {file.relative_to(run.folder)} {when}", file.read_bytes(), allowed=keys.get(file.name, ()))


async def _collect_rows(run: Run) -> None:
    connection = await asyncpg.connect(run.database_url)
    for (table,) in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        rows = await connection.fetch(f"SELECT t::text FROM {table} t")
        run.evidence.add(f"table {table}", "\n".join(row[0] for row in rows))
    await connection.close()


def _start_wrongly(run: Run) -> None:
    """Starts that are refused say what is wrong without repeating what they were given."""
    wrong = run.mark("wrong master key", marked(43))
    attempts = (
        {"KEYGATE_MASTER_KEY": wrong},
        {"KEYGATE_MASTER_KEY": wrong[:12]},
        {"KEYGATE_DATABASE_URL": f"postgresql://keygate:{wrong}@127.0.0.1:1/none"},
        {"KEYGATE_DATABASE_URL": f"{wrong}://{wrong}"},
        {"KEYGATE_PORT": wrong},
        {"KEYGATE_PUBLIC_URL": wrong},
        {"HTTPS_PROXY": f"http://me:{wrong}@"},
        {"KEYGATE_ADMIN_PASSWORD": wrong[:3], "KEYGATE_DATA_DIR": str(run.folder / "other")},
    )
    for attempt in attempts:
        port = {} if "KEYGATE_PORT" in attempt else {"KEYGATE_PORT": str(run.keygate.port)}
        settings = {
            "PATH": os.environ["PATH"],
            "HOME": str(run.folder),
            "KEYGATE_DATA_DIR": str(run.keygate.data_dir),
            "KEYGATE_LOG_LEVEL": "debug",
        }
        with subprocess.Popen(
            [KEYGATE, "serve"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=settings | port | attempt, cwd=run.folder
        ) as process:
            try:
                said, _ = process.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                process.terminate()
                said, _ = process.communicate(timeout=15)
        run.evidence.add(f"refused start with {list(attempt)}", said)


@pytest.mark.timeout(420)
def test_no_marked_secret_comes_out_anywhere(run: Run) -> None:
    for step in (_furnish, _call_vendors, _suffer_faults, _be_refused, _read_recorded):
        step(run)
    if run.mode.debug:
        _operate(run)
        _call_everything_wrongly(run)
    _call_everything(run)
    _break_database(run)
    _collect(run)
    if run.mode.debug:
        _start_wrongly(run)
    log = run.keygate.log.read_text(errors="replace")
    run.evidence.add("log", log)
    assert len(run.evidence.seen) > (2_000 if run.mode.debug else 300)
    leaks = run.evidence.leaks()
    assert not leaks, f"{len(leaks)} leaks:\n" + "\n".join(leaks[:40])
    assert run.called >= set(BODIES)
