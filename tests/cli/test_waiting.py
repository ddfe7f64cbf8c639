"""How long a command waits for its answer, and what it says where none comes."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import typer

from keygate.cli import bills, client
from keygate.cli.client import Api, Exit

SLOW = 0.3
ANSWER = b'{"error": null, "complete": true}'


@pytest.fixture
def slow() -> Iterator[Api]:
    """A server that takes its time."""

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            time.sleep(SLOW)
            with contextlib.suppress(ConnectionError):
                self.send_response(200)
                self.send_header("content-length", str(len(ANSWER)))
                self.end_headers()
                self.wfile.write(ANSWER)

        do_GET = do_POST  # noqa: N815  (as http.server names it)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = Api(url=f"http://127.0.0.1:{server.server_port}", token=None)
        yield api
        api.close()
        server.shutdown()


def test_a_change_may_wait_longer_for_its_turn_at_a_vendor_than_a_look(slow: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "READ_SECONDS", SLOW / 3)
    assert slow.request("POST", "/api/v1/inventory/inv_1/repair")["complete"]
    assert slow.attempt("POST", "/api/v1/keys/ik_1/check")[0]["complete"]
    with pytest.raises(typer.Exit) as ended:
        slow.request("GET", "/api/v1/keys")
    assert ended.value.exit_code == Exit.UNREACHABLE


def test_a_bill_is_waited_for_as_long_as_its_turn_may_take(slow: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from keygate.vendor_spend.importer import TURN_NS

    assert client.TURN_SECONDS * 1e9 > TURN_NS
    monkeypatch.setattr(client, "CHANGE_SECONDS", SLOW / 3)
    known = {
        "/api/v1/vendors/accounts": {"items": [{"id": "vac_1", "name": "default", "vendor": "openai"}]},
        "/api/v1/reconciliation": {"bills": [{"account_id": "vac_1", "reported": True}]},
    }
    monkeypatch.setattr(slow, "request", lambda _method, path: known[path])
    bills._import(slow, None)


@pytest.mark.parametrize(
    ("path", "look"),
    [
        ("/api/v1/vendors/accounts/vac_1/import-spend", "keygate reconciliation"),
        ("/api/v1/inventory/inv_1/repair", "keygate inventory show inv_1"),
        ("/api/v1/inventory/by-hand", "keygate issued-keys list"),
        ("/api/v1/keys/ik_1/check", "keygate issued-keys show ik_1"),
        ("/api/v1/keys/provision", "keygate issued-keys list"),
        ("/api/v1/vendors/configure", "keygate vendors accounts"),
        ("/api/v1/teams", "keygate audit list"),
    ],
)
def test_a_change_that_is_not_waited_for_may_go_on_and_says_where_it_shows(
    slow: Api, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: str, look: str
) -> None:
    monkeypatch.setattr(client, "CHANGE_SECONDS", SLOW / 10)
    for call in (slow.request, slow.attempt):
        with pytest.raises(typer.Exit) as ended:
            call("POST", path)
        assert ended.value.exit_code == Exit.UNREACHABLE
        said = capsys.readouterr().err
        assert f"`{look}`" in said
        assert "may go on" in said
        assert "running there?" not in said
