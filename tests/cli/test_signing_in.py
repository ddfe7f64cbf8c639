"""Signing in, and what a command says where it can't go on: each kind of trouble has an exit code of its own."""

from __future__ import annotations

import json
import stat

from tests.cli.desk import Desk

import keygate
from keygate.cli.client import Exit


def test_sign_in_is_kept_for_its_owner_only(stranger: Desk) -> None:
    said = stranger.sign_in()
    assert stranger.keygate.password not in said.out + said.err
    saved = stranger.home / ".config" / "keygate" / "login.json"
    assert stat.S_IMODE(saved.stat().st_mode) == 0o600
    assert stat.S_IMODE(saved.parent.stat().st_mode) == 0o700
    assert json.loads(saved.read_text())["url"] == stranger.keygate.url
    assert stranger.keygate.EMAIL in stranger.ok("status").out


def test_status_says_who_and_where(desk: Desk) -> None:
    said = desk.ok("status").out
    assert desk.keygate.url in said
    assert "owner" in said
    found = desk.ok("status", "--json").json()
    assert found["me"]["email"] == desk.keygate.EMAIL
    assert found["ready"]["status"] == "ready"


def test_wrong_password_is_not_signed_in(stranger: Desk) -> None:
    said = stranger.run(
        "login", "--email", "nobody@example.com", "--url", stranger.keygate.url, "--password-stdin", text="a wrong password\n"
    )
    assert said.code == Exit.NOT_SIGNED_IN
    assert "a wrong password" not in said.err
    assert not (stranger.home / ".config" / "keygate" / "login.json").exists()


def test_without_sign_in_every_command_says_how_to(stranger: Desk) -> None:
    for words in (("status",), ("keys", "list"), ("credentials", "list"), ("usage",), ("audit", "list"), ("teams", "create", "x")):
        said = stranger.run(*words, KEYGATE_URL=stranger.keygate.url)
        assert said.code == Exit.NOT_SIGNED_IN, (words, said)
        assert "keygate login" in said.err
        assert not said.out


def test_nobody_there_is_said_in_a_sentence(stranger: Desk) -> None:
    for words in (("status",), ("keys", "list"), ("audit", "export")):
        said = stranger.run(*words, KEYGATE_URL="http://127.0.0.1:1", KEYGATE_TOKEN="kgt_x")
        assert said.code == Exit.UNREACHABLE, (words, said)
        assert "127.0.0.1:1" in said.err


def test_address_that_is_none_is_said_in_a_sentence(stranger: Desk) -> None:
    for url in ("nonsense", "ftp://127.0.0.1", "http://", "127.0.0.1:8000", "http://127.0.0.1:99999", "http://[::1"):
        said = stranger.run("status", KEYGATE_URL=url, KEYGATE_TOKEN="kgt_x")
        assert said.code in {Exit.UNREACHABLE, Exit.USAGE}, (url, said)
        assert said.err.strip()


def test_other_server_is_no_keygate(stranger: Desk, sandbox) -> None:
    said = stranger.run("status", KEYGATE_URL=sandbox.address, KEYGATE_TOKEN="kgt_x")
    assert said.code in {Exit.UNREACHABLE, Exit.NOT_FOUND, Exit.NOT_SIGNED_IN}, said


def test_sign_in_is_never_shown_to_another_address(desk: Desk, sandbox) -> None:
    said = desk.run("keys", "list", KEYGATE_URL=sandbox.address)
    assert said.code != Exit.OK
    assert desk.run("keys", "list", KEYGATE_URL=desk.keygate.url + "/").code == Exit.OK  # the same address


def test_token_of_the_environment_wins(desk: Desk, stranger: Desk) -> None:
    token = desk.keygate.call("POST", "/api-tokens", {"name": "ci", "scopes": ["teams.read"]})["token"]
    settings = {"KEYGATE_URL": desk.keygate.url, "KEYGATE_TOKEN": token}
    assert stranger.run("teams", "list", **settings).code == Exit.OK
    said = stranger.run("teams", "create", "x", **settings)
    assert said.code == Exit.NOT_ALLOWED
    assert "teams.write" in said.err
    assert stranger.run("teams", "list", KEYGATE_URL=desk.keygate.url, KEYGATE_TOKEN=token + "x").code == Exit.NOT_SIGNED_IN


def test_damaged_sign_in_says_what_to_do(stranger: Desk) -> None:
    saved = stranger.home / ".config" / "keygate" / "login.json"
    saved.parent.mkdir(parents=True)
    for text in ("", "{", "[]", '{"url": 5, "token": []}', '{"url": "http://127.0.0.1:1"}'):
        saved.write_text(text)
        said = stranger.run("keys", "list")
        assert said.code == Exit.NOT_SIGNED_IN, (text, said)
        assert "keygate login" in said.err


def test_logout_ends_the_sign_in_here_and_there(stranger: Desk) -> None:
    stranger.sign_in()
    saved = stranger.home / ".config" / "keygate" / "login.json"
    token = json.loads(saved.read_text())["token"]
    stranger.ok("logout")
    assert not saved.exists()
    assert stranger.run("status", KEYGATE_URL=stranger.keygate.url, KEYGATE_TOKEN=token).code == Exit.NOT_SIGNED_IN


def test_a_password_is_asked_for_on_a_terminal_only(stranger: Desk) -> None:
    said = stranger.run("login", "--email", stranger.keygate.EMAIL, "--url", stranger.keygate.url, text=stranger.keygate.password + "\n")
    assert said.code == Exit.USAGE
    assert said.err == "error: there is no terminal to ask for the password on; write it to standard input with --password-stdin\n"
    assert not said.out


def test_version_is_told_as_a_command_and_as_an_option(stranger: Desk) -> None:
    assert stranger.ok("--version").out == stranger.ok("version").out == f"{keygate.__version__}\n"
