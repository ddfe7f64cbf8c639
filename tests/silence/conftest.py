"""The product under observation, in the mode that a test names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from tests.postgresql import PostgresServer
from tests.running import RunningKeyGate
from tests.silence.canaries import Evidence, marked
from tests.silence.observed import Mode, Run
from tests.silence.speaker import SpeakingVendor

from keygate.sandbox import SandboxServer


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
