"""A second gateway on a database that has one, with a data directory of its own: refused, and without a trace."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from tests.postgresql import PostgresServer
from tests.running import RunningKeyGate


def test_a_gateway_that_is_refused_leaves_the_audit_log_of_the_other_as_it_was(tmp_path: Path, postgres_server: PostgresServer) -> None:
    shared = {"KEYGATE_DATABASE_URL": postgres_server.create("second"), "KEYGATE_MASTER_KEY": secrets.token_urlsafe(32)}
    with RunningKeyGate(tmp_path / "first", environment=shared) as first:
        before = first.call("GET", "/audit/verify")
        assert before["ok"]
        with pytest.raises(AssertionError, match="Another KeyGate gateway"):
            RunningKeyGate(tmp_path / "second", environment=shared).start()
        assert first.call("GET", "/audit", action="audit.heads_lost")["items"] == []
        after = first.call("GET", "/audit/verify")
        assert (after["ok"], after["fault"]) == (True, None)
