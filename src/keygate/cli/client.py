"""The REST API as the command line uses it: sign-in, errors as exit codes, pages."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, NoReturn

import httpx
import typer

from keygate.cli import output
from keygate.client_config import ClientSettings, client_settings
from keygate.kit.secret import Secret

DEFAULT_URL = "http://127.0.0.1:8000"
READ_SECONDS = 30.0  # for an answer out of KeyGate's own database
CHANGE_SECONDS = 300.0  # for one that may wait for its turn at a vendor, and for the vendor
TURN_SECONDS = 660.0  # for a turn of reading a vendor's bill


class Exit(IntEnum):
    """Exit codes of `keygate`; 2 is a mistake in the command itself."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_SIGNED_IN = 3
    NOT_ALLOWED = 4
    NOT_FOUND = 5
    NOT_VALID = 6
    UNREACHABLE = 7
    VERIFICATION_FAILED = 8
    TRY_LATER = 9
    WOULD_BE_REFUSED = 10  # `keys explain`: the command itself went well


_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_LISTS = {  # where the command is not the path's own noun
    "virtual-keys": "keys list",
    "keys": "issued-keys list",
    "vendors/accounts": "vendors accounts",
    "inventory": "inventory",
}
_LOOK = (  # where it shows what became of a call that was not waited for
    (re.compile(r"/api/v1/vendors/accounts/[^/]+/import-spend"), "keygate reconciliation"),
    (re.compile(r"/api/v1/vendors/.*"), "keygate vendors accounts"),
    (re.compile(r"/api/v1/keys/(ik_\w+)(?:/.*)?"), r"keygate issued-keys show \1"),
    (re.compile(r"/api/v1/(?:keys/.*|inventory/by-hand)"), "keygate issued-keys list"),
    (re.compile(r"/api/v1/inventory/(inv_\w+)(?:/.*)?"), r"keygate inventory show \1"),
    (re.compile(r"/api/v1/bulk.*"), "keygate bulk list"),
    (re.compile(r".*"), "keygate audit list"),
)
_EXIT_OF_STATUS = {
    401: Exit.NOT_SIGNED_IN,
    402: Exit.NOT_ALLOWED,
    403: Exit.NOT_ALLOWED,
    404: Exit.NOT_FOUND,
    409: Exit.NOT_VALID,
    413: Exit.NOT_VALID,
    422: Exit.NOT_VALID,
    429: Exit.TRY_LATER,
    503: Exit.TRY_LATER,
}


def login_file(settings: ClientSettings) -> Path:
    return settings.config_home.expanduser() / "keygate" / "login.json"


def save_login(settings: ClientSettings, *, url: str, token: Secret) -> Path:
    """Writes the sign-in for later commands, readable by its owner only."""
    path = login_file(settings)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
        json.dump({"url": url, "token": token.open()}, file)
    fresh.replace(path)
    return path


def _saved(settings: ClientSettings) -> tuple[str | None, Secret | None]:
    try:
        saved = json.loads(login_file(settings).read_text())
    except FileNotFoundError:
        return None, None
    except (OSError, ValueError):
        saved = None
    url, token = (saved.get("url"), saved.get("token")) if isinstance(saved, dict) else (None, None)
    if not isinstance(url, str) or not isinstance(token, str):
        fail(f"{login_file(settings)} can't be read; sign in again with `keygate login`", Exit.NOT_SIGNED_IN)
    return url, Secret(token)


class Refused(typer.Exit):
    """The command ends with what the server has answered. `problem`: the code of its refusal; None: an answer that is not KeyGate's."""

    def __init__(self, code: Exit, problem: str | None) -> None:
        super().__init__(code)
        self.problem = problem


def fail(message: str, code: Exit = Exit.FAILED) -> NoReturn:
    output.error(message)
    raise typer.Exit(code)


def one(noun: str, thing: str) -> str:
    """The path of one thing. What is no id ends the command: it could be the path of something else (`../developers/…`)."""
    if not _ID.fullmatch(thing):
        fail(f"{thing!r} is no id; `keygate {_LISTS.get(noun, f'{noun} list')}` shows those that there are", Exit.USAGE)
    return f"/api/v1/{noun}/{thing}"


NONE = "none"  # what takes something away, where a command changes a thing


def changes(named: Mapping[str, Any], *, removable: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The body of a change: what was named, with null for a `removable` that is to be `none`. Ends the command where nothing was named."""
    body = {
        member: None if member in removable and value in (NONE, [NONE]) else value for member, value in named.items() if value is not None
    }
    if not body:
        fail("say what to change: --help lists what can be", Exit.USAGE)
    return body


class Api:
    """Calls that either return the answer's JSON or end the command with the server's own message and an exit code."""

    def __init__(self, *, url: str, token: Secret | None) -> None:
        self.url = url.rstrip("/")
        headers = {"authorization": f"Bearer {token.open()}"} if token else {}
        try:
            self._http = httpx.Client(base_url=self.url, headers=headers, timeout=_patience(READ_SECONDS), follow_redirects=False)
        except httpx.InvalidURL:
            fail(f"{self.url} is no address; write it as https://keys.example.com", Exit.USAGE)
        except UnicodeEncodeError:
            fail("KEYGATE_TOKEN holds characters that no token has", Exit.NOT_SIGNED_IN)

    def close(self) -> None:
        self._http.close()

    def request(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None, patience: float | None = None
    ) -> Any:
        """`patience`: seconds to wait for the answer, where the call may take longer than others of its method."""
        answer = self._send(method, path, body=body, query=query, patience=patience)
        if answer.status_code == httpx.codes.NO_CONTENT or not answer.content:
            return None
        try:
            return answer.json()
        except ValueError:
            fail(f"{self.url} does not answer as KeyGate does; is the address right?", Exit.UNREACHABLE)

    def end(self, path: str, *, query: Mapping[str, Any] | None = None) -> str | None:
        """Ends a holder of keys. Returns the id of the receipt that the server made of it; None where there was nothing to end."""
        receipt: str | None = self._send("DELETE", path, body=None, query=query).headers.get("x-keygate-receipt")
        return receipt

    def attempt(self, method: str, path: str, *, body: Any = None, patience: float | None = None) -> tuple[Any, str]:
        """As `request`, for one of many: what the server refuses is returned as its message. No answer, or no sign-in, ends the command."""
        seconds = patience or _seconds(method)
        try:
            answer = self._http.request(method, path, json=body, timeout=_patience(seconds))
        except httpx.ReadTimeout:
            self._unanswered(method, path, seconds)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._refuse(answer)
        try:
            told = answer.json()
        except ValueError:
            return None, f"{self.url} answered {answer.status_code}"
        return (None, str(told.get("detail") or answer.status_code)) if answer.is_error else (told, "")

    def text(self, path: str, *, query: Mapping[str, Any] | None = None) -> Iterator[str]:
        """The lines' text of a long answer (an export), piece by piece."""
        try:
            with self._http.stream("GET", path, params=_present(query)) as answer:
                if answer.is_error:
                    answer.read()
                    self._refuse(answer)
                yield from answer.iter_text()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)

    def pages(self, path: str, *, query: Mapping[str, Any] | None = None, most: int | None = None) -> list[dict[str, Any]]:
        """All items of a list, or the first `most`."""
        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            page = self.request("GET", path, query={**(query or {}), "cursor": cursor, "limit": min(most or 500, 500)})
            items += page["items"]
            cursor = page.get("next_cursor")
            if cursor is None or (most is not None and len(items) >= most):
                return items[:most]

    def _send(self, method: str, path: str, *, body: Any, query: Mapping[str, Any] | None, patience: float | None = None) -> httpx.Response:
        seconds = patience or _seconds(method)
        try:
            answer = self._http.request(method, path, json=body, params=_present(query), timeout=_patience(seconds))
        except httpx.ReadTimeout:
            self._unanswered(method, path, seconds)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._unreachable(error)
        if answer.is_error:
            self._refuse(answer)
        return answer

    def _unreachable(self, error: Exception) -> NoReturn:
        fail(f"no answer from {self.url} ({type(error).__name__}); is `keygate serve` running there?", Exit.UNREACHABLE)

    def _unanswered(self, method: str, path: str, seconds: float) -> NoReturn:
        """It took the call: what is slow may be the vendor, or others' calls there that come first."""
        told = f"no answer from {self.url} within {seconds:.0f} s"
        if method == "GET":
            fail(f"{told}; ask again, or look into its log", Exit.UNREACHABLE)
        look = next(found.expand(command) for form, command in _LOOK if (found := form.fullmatch(path)))
        fail(f"{told}; what you asked for may go on there, or be done: `{look}` shows it. Look before you ask again", Exit.UNREACHABLE)

    def _refuse(self, answer: httpx.Response) -> NoReturn:
        code = _EXIT_OF_STATUS.get(answer.status_code, Exit.FAILED)
        kind: str | None = None
        try:
            problem = answer.json()
            message, kind = str(problem.get("detail") or problem.get("title")), problem.get("code")
        except (ValueError, AttributeError):
            message = f"{self.url} answered {answer.status_code}"
        if code is Exit.NOT_SIGNED_IN:
            message += " (sign in with `keygate login`, or set KEYGATE_TOKEN)"
        output.error(message)
        raise Refused(code, kind)


def _seconds(method: str) -> float:
    return READ_SECONDS if method == "GET" else CHANGE_SECONDS


def _patience(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(30, connect=5, read=seconds)


def _present(query: Mapping[str, Any] | None) -> dict[str, Any]:
    return {name: value for name, value in (query or {}).items() if value is not None}


def resolve_url(url: str | None = None) -> str:
    settings = client_settings()
    return url or settings.url or _saved(settings)[0] or DEFAULT_URL


@contextmanager
def api(*, anonymous: bool = False) -> Iterator[Api]:
    """The signed-in API: `KEYGATE_URL` and `KEYGATE_TOKEN` where set, else what `keygate login` saved."""
    settings = client_settings()
    saved_url, saved_token = _saved(settings)
    token = settings.token or saved_token
    if settings.url and not settings.token and saved_url and settings.url.rstrip("/") != saved_url.rstrip("/"):
        token = None  # a sign-in is for one address only: never shown to another
    client = Api(url=settings.url or saved_url or DEFAULT_URL, token=None if anonymous else token)
    try:
        yield client
    finally:
        client.close()
