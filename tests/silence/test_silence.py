"""The whole product runs with marked secrets, over every endpoint, every error path, each log level, both log formats and the debug mode;
afterwards everything that came out of it is searched: answers, logs, metrics, command lines, every file and every row.

What may hold a secret, and nothing else may: the answer that makes a key, a token or a sign-in (that one secret), answers of the gateway
that pass the vendor's own answer on, the recorded content for those who may read it, and `master.key`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.postgresql import PostgresServer
from tests.running import RunningKeyGate
from tests.silence.calls import (
    be_refused,
    break_database,
    call_everything,
    call_everything_wrongly,
    call_vendors,
    furnish,
    read_recorded,
    suffer_faults,
)
from tests.silence.canaries import Evidence, marked
from tests.silence.clouds import issue_cloud_keys
from tests.silence.issuing import issue_keys
from tests.silence.observed import Mode, Run
from tests.silence.operator import collect, operate, start_wrongly
from tests.silence.routes import BODIES
from tests.silence.speaker import SpeakingVendor

from keygate.sandbox import SandboxServer

MODES = [
    Mode("debug as text, on SQLite, with Python's debug mode", "sqlite", "debug", "text", whole=True, debug=True),
    Mode("debug as JSON, on PostgreSQL", "postgresql", "debug", "json", whole=True),
    Mode("info as JSON, on SQLite", "sqlite", "info", "json"),
    Mode("warning as text, on PostgreSQL", "postgresql", "warning", "text"),
    Mode("error as JSON, on SQLite", "sqlite", "error", "json"),
]


@pytest.fixture
def run(request, mode: Mode, tmp_path: Path) -> Iterator[Run]:
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


@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_no_marked_secret_comes_out_anywhere(run: Run) -> None:
    for step in (furnish, call_vendors, suffer_faults, be_refused, read_recorded, issue_keys):
        step(run)
    if run.mode.whole:
        issue_cloud_keys(run)
        operate(run)
        call_everything_wrongly(run)
    call_everything(run)
    assert break_database(run) > 50
    collect(run)
    if run.mode.whole:
        start_wrongly(run)
    log = run.keygate.log.read_text(errors="replace")
    run.evidence.add("log", log)
    assert len(run.evidence.seen) > (2_000 if run.mode.whole else 300)
    leaks = run.evidence.leaks()
    assert not leaks, f"{len(leaks)} leaks:\n" + "\n".join(leaks[:40])
    assert run.called >= set(BODIES)


@pytest.mark.parametrize("mode", [MODES[1], MODES[2]], ids=lambda mode: mode.name)
def test_search_finds_what_is_planted_in_the_product(run: Run) -> None:
    """A secret as the name of a team is in answers, in the database and in the audit log: the search must see it in each."""
    furnish(run)
    planted = run.evidence.mark("planted", marked())
    run.api("POST", "/teams", {"name": planted})
    run.send("GET", "/api/v1/audit/export")
    collect(run)
    found = " ".join(leak.split(":")[0] for leak in run.evidence.leaks())
    for where in ("answer 201 to POST /api/v1/teams", "answer 200 to GET /api/v1/audit/export", "table teams", "table audit_entries"):
        assert where in found
    assert "file data/keygate.db" in found or run.database_url
