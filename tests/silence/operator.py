"""What an operator does, and what can be read afterwards: commands, refused starts, files, rows, command lines."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from typing import Any

import asyncpg
import psutil
from tests.running import KEYGATE
from tests.silence.calls import ask
from tests.silence.canaries import marked
from tests.silence.issuing import PUBLIC_OF_VENDOR_KEY
from tests.silence.observed import CHAT, PUBLIC_OF_KEY, PUBLIC_OF_TOKEN, Run


def operate(run: Run) -> None:
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
    _issue(run)
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
    assert (ask(run, CHAT)).status_code == 200


def _issue(run: Run) -> None:
    """Issued keys from the shell: nothing secret among the arguments, which every user of the machine can list."""
    base = ("--base-url", run.sandbox.openai_base_url)
    code, said = run.command("vendors", "configure", "openai", "--name", "shell", *base, text=run.made["openai admin key"] + "\n")
    assert code == 0, said
    run.command("vendors", "configure", "openai", "--name", "shell", *base, text=run.made["another credential"] + "\n")
    run.command("inventory", "enter", "groq", *base, text=run.made["another credential"] + "\n")
    order = ("provision", "--vendor", "openai", "--account", "shell", "--dev", run.made["developer_id"], "--json")
    code, said = run.command(*order, allowed=("issued key of the command line",))
    assert code == 0, said
    made = _first(said)
    run.mark("issued key of the command line", made["key"], public=PUBLIC_OF_VENDOR_KEY)
    code, said = run.command(*order, "--link", allowed=("link of the command line",))
    assert code == 0, said
    token = run.mark("link of the command line", _first(said)["link"]["token"], public=PUBLIC_OF_TOKEN)
    code, said = run.command("receive", "--json", text=token + "\n", allowed=("received key",))
    assert code == 0, said
    run.mark("received key", _first(said)["key"], public=PUBLIC_OF_VENDOR_KEY)
    run.command("receive", text=token + "\n")
    for words in (("vendors", "accounts"), ("issued-keys", "list", "--json"), ("issued-keys", "show", made["id"]), ("watch", made["id"])):
        run.command(*words)
    run.command("revoke", made["key"], "--yes")
    run.command("revoke", made["id"], "--yes")


def _first(said: str) -> dict[str, Any]:
    """The JSON that a command printed; notes for people may follow it."""
    value: dict[str, Any] = json.JSONDecoder().raw_decode(said)[0]
    return value


def collect(run: Run) -> None:
    """Everything else that is there to be read."""
    evidence = run.evidence
    run.send("GET", "/metrics")
    assert run.keygate.process is not None
    for process in (me := psutil.Process(run.keygate.process.pid), *me.children(recursive=True)):
        evidence.add("command line of the server", "\0".join(process.cmdline()))
    evidence.add("ps", subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, check=False).stdout)
    collect_files(run, "while it runs")
    if run.database_url:
        asyncio.run(collect_rows(run))
    else:
        connection = sqlite3.connect(next(run.keygate.data_dir.glob("*.db")))
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            evidence.add(f"table {table}", repr(connection.execute(f"SELECT * FROM {table}").fetchall()))
        connection.close()
    run.keygate.stop()
    collect_files(run, "after its end")


def collect_files(run: Run, when: str) -> None:
    keys = {
        "master.key": ("first master key", "new master key"),
        "login.json": ("access token of the command line",),
        "new-master.key": ("new master key",),
    }
    for file in sorted(run.folder.rglob("*")):
        if file.is_file():
            run.evidence.add(f"file {file.relative_to(run.folder)} {when}", file.read_bytes(), allowed=keys.get(file.name, ()))


async def collect_rows(run: Run) -> None:
    connection = await asyncpg.connect(run.database_url)
    for (table,) in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        rows = await connection.fetch(f"SELECT t::text FROM {table} t")
        run.evidence.add(f"table {table}", "\n".join(row[0] for row in rows))
    await connection.close()


def start_wrongly(run: Run) -> None:
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
