"""What works on the data directory itself: audit verification, the vault, the database. And help, completion and mistakes of use."""

from __future__ import annotations

import json
import shutil
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
from tests.cli.desk import Desk
from tests.cli.test_governing import chat

from keygate.cli.app import app
from keygate.cli.client import Exit

NOUNS = ("credentials", "teams", "developers", "apps", "keys", "policies", "budgets", "limits", "audit", "vault", "db")


def _export(desk: Desk, name: str) -> Path:
    file = desk.home / name
    desk.ok("audit", "export", str(file))
    return file


def test_audit_log_is_listed_exported_and_verified(desk: Desk) -> None:
    desk.made("teams", "create", "audited")
    assert "team.create" in desk.ok("audit", "list").out
    (entry,) = desk.ok("audit", "list", "--action", "team.create", "--limit", "1", "--json").json()
    assert entry["outcome"] == "done"
    file = _export(desk, "good.jsonl")
    assert all(json.loads(line) for line in file.read_text().splitlines())
    assert desk.ok("audit", "export").out.count("\n") >= len(file.read_text().splitlines())
    desk.ok("audit", "verify", str(file))
    (report,) = desk.ok("audit", "verify", "--json").json()
    assert report["ok"] is True
    elsewhere = {"KEYGATE_DATA_DIR": str(desk.home / "nothing")}
    key = desk.ok("receipts", "key").out.strip()
    assert desk.ok("audit", "verify", str(file), "--public-key", key, **elsewhere).out  # without a data directory too
    said = desk.run("audit", "verify", str(file), "--json", **elsewhere)  # who could rewrite the file could have signed it again
    assert said.code == Exit.VERIFICATION_FAILED
    assert [(each["ok"], each["trusted"], each["fault"]) for each in said.json()] == [(False, False, None)]
    assert "--public-key" in said.json()[0]["signed_by"]
    assert desk.run("audit", "verify", "--public-key", key).code == Exit.USAGE


def test_looking_at_a_database_makes_none(desk: Desk) -> None:
    empty = desk.home / "empty"
    empty.mkdir()
    for words in (
        ("db", "check"),
        ("db", "backup", str(desk.home / "copy")),
        ("vault", "status"),
        ("vault", "rotate"),
        ("audit", "verify"),
    ):
        said = desk.run(*words, KEYGATE_DATA_DIR=str(empty))
        assert said.code == Exit.FAILED, (words, said)
        assert "there is no database" in said.err
        assert list(empty.iterdir()) == []
    assert not (desk.home / "copy").exists()


def test_a_damaged_database_is_named_as_that(desk: Desk) -> None:
    for content in (b"nothing" * 5_000, (desk.keygate.data_dir / "keygate.db").read_bytes()[:20_000]):
        folder = desk.home / "damaged"
        folder.mkdir(exist_ok=True)
        (folder / "keygate.db").write_bytes(content)
        said = desk.run("db", "check", KEYGATE_DATA_DIR=str(folder))
        assert said.code == Exit.FAILED, said
        assert "damaged" in said.out + said.err


def test_verification_says_how_far_the_heads_file_vouches(desk: Desk, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    desk.ok("db", "backup", str(folder / "keygate.db"))
    for name in ("audit-heads.jsonl", "master.key"):
        shutil.copy(desk.keygate.data_dir / name, folder / name)
    (report,) = desk.ok("audit", "verify", "--json", KEYGATE_DATA_DIR=str(folder)).json()
    assert report["heads_file"] == f"up to entry {report['entries']}"
    (folder / "audit-heads.jsonl").unlink()
    said = desk.run("audit", "verify", "--json", KEYGATE_DATA_DIR=str(folder))
    assert said.code == Exit.VERIFICATION_FAILED
    assert said.json()[0]["heads_file"].startswith("gone or empty")
    assert said.json()[0]["fault"].startswith("heads_lost: ")
    assert desk.ok("audit", "verify", "--heads-from", str(report["entries"] + 1), KEYGATE_DATA_DIR=str(folder))


def test_an_export_that_cannot_be_written_is_said_in_a_sentence(desk: Desk) -> None:
    for target in (desk.home / "nowhere" / "audit.jsonl", desk.home):
        said = desk.run("audit", "export", str(target))
        assert said.code == Exit.FAILED
        assert said.err.startswith(f"error: {target} can't be written")


@pytest.mark.parametrize("way", ["edited", "removed", "reordered", "cut off"])
def test_tampered_export_is_named_with_exit_code_8(desk: Desk, way: str) -> None:
    for number in range(4):
        desk.keygate.call("POST", "/teams", {"name": f"tampered {way} {number}"})
    file = _export(desk, f"{way}.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    if way == "edited":
        lines[-3] = lines[-3].replace("tampered", "tempered")
    elif way == "removed":
        del lines[-3]
    elif way == "reordered":
        lines[-3], lines[-4] = lines[-4], lines[-3]
    else:
        lines = lines[:-2]
    file.write_text("".join(lines))
    said = desk.run("audit", "verify", str(file))
    assert said.code == Exit.VERIFICATION_FAILED, said
    found = desk.run("audit", "verify", str(file), "--json")
    assert found.code == Exit.VERIFICATION_FAILED
    assert found.json()[0]["ok"] is False
    assert found.json()[0]["fault"]


def test_file_that_is_no_export_is_refused_in_a_sentence(desk: Desk) -> None:
    for number, content in enumerate((b"", b"nonsense\n", b"\xff\xfe\x00", b"{}\n{}\n", b"[" * 100_000)):
        file = desk.home / f"no-export-{number}"
        file.write_bytes(content)
        assert desk.run("audit", "verify", str(file)).code in {Exit.VERIFICATION_FAILED, Exit.FAILED}, content[:20]
    assert desk.run("audit", "verify", str(desk.home / "absent")).code == Exit.USAGE


def test_master_key_is_rotated_while_requests_run(desk: Desk) -> None:
    key = desk.made("keys", "create", "rotating")["key"]
    statuses: list[int] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            statuses.append(chat(desk, key).status_code)

    caller = threading.Thread(target=call)
    caller.start()
    before = desk.ok("vault", "status", "--json").json()["wrapped_by"]
    former = desk.keygate.data_dir / f"master.key.{before[0].removeprefix('local:')}"
    assert str(former) in desk.ok("vault", "rotate").err
    assert stat.S_IMODE(former.stat().st_mode) == 0o600
    assert desk.ok("vault", "status", "--json").json()["wrapped_by"] != before
    credential = desk.keygate.call("GET", "/credentials")["items"][0]
    assert desk.made("credentials", "test", credential["id"])["ok"]  # secrets open under the new key at once
    given = desk.home / "given.key"
    given.write_text("a master key that somebody made elsewhere")
    given.chmod(0o600)
    desk.ok("vault", "rotate", "--new-key-file", str(given))
    stop.set()
    caller.join()
    assert set(statuses) == {200}
    assert chat(desk, key).status_code == 200
    assert stat.S_IMODE((desk.keygate.data_dir / "master.key").stat().st_mode) == 0o600
    assert desk.run("vault", "rotate", "--new-key-file", str(desk.home / "absent.key")).code == Exit.USAGE
    given.write_text("short")
    said = desk.run("vault", "rotate", "--new-key-file", str(given))
    assert said.code == Exit.FAILED
    assert "short" not in said.out


def test_database_is_checked_copied_and_upgraded_while_the_server_runs(desk: Desk) -> None:
    assert desk.ok("db", "check", "--json").json()["ok"] is True
    copy = desk.home / "copy.db"
    desk.ok("db", "backup", str(copy))
    assert stat.S_IMODE(copy.stat().st_mode) & 0o077 == 0
    with sqlite3.connect(copy) as database:
        assert database.execute("SELECT count(*) FROM virtual_keys").fetchone()[0] >= 0
    database.close()
    assert desk.run("db", "backup", str(copy)).code != Exit.OK  # never over what is there
    desk.ok("db", "upgrade")
    assert httpx.get(f"{desk.keygate.url}/ready").status_code == 200
    fresh = desk.home / "fresh"
    desk.ok("db", "upgrade", KEYGATE_DATA_DIR=str(fresh))
    assert desk.ok("db", "check", KEYGATE_DATA_DIR=str(fresh)).code == Exit.OK


def test_missing_data_directory_is_said_in_a_sentence(stranger: Desk) -> None:
    for words in (("db", "check"), ("vault", "status"), ("audit", "verify"), ("vault", "rotate"), ("db", "backup", "x.db")):
        said = stranger.run(*words, KEYGATE_DATA_DIR=str(stranger.home / "nothing"))
        assert said.code == Exit.FAILED, (words, said)
        assert "nothing" in said.err
    assert not (stranger.home / "nothing").exists()


def test_misspelt_settings_are_mistakes_of_use(stranger: Desk) -> None:
    said = stranger.run("db", "check", KEYGATE_PORT="many")
    assert said.code in {Exit.USAGE, Exit.FAILED}
    assert "KEYGATE_PORT" in said.err


def test_second_server_on_the_same_data_is_refused(desk: Desk) -> None:
    said = desk.run("serve", KEYGATE_PORT="0")
    assert said.code != Exit.OK
    other = desk.run("serve", KEYGATE_PORT=str(desk.keygate.port + 1 if desk.keygate.port < 65535 else 65000))
    assert other.code != Exit.OK
    assert "another KeyGate" in other.err


def _commands(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from _commands(below, *words, name)


def test_every_command_says_what_it_does(stranger: Desk) -> None:
    overview = stranger.ok("--help").out
    assert all(f"  {noun} " in overview for noun in NOUNS)
    assert "Usage: keygate keys create" in stranger.ok("keys", "create", "--help").out
    found = dict(_commands(typer.main.get_command(app)))
    assert len(found) > 40
    for words, command in found.items():
        assert command.help, words


def test_completion_is_printed_for_each_shell(stranger: Desk) -> None:
    assert "keygate" in stranger.ok("--show-completion").out  # of the shell that it runs in
    for shell, mark in (
        ("bash", "complete -o default -F _keygate_completion keygate"),
        ("zsh", "#compdef keygate"),
        ("fish", "--command keygate"),
    ):
        assert mark in stranger.ok(_KEYGATE_COMPLETE=f"source_{shell}").out, shell
    words = {"_KEYGATE_COMPLETE": "complete_bash", "COMP_WORDS": "keygate cred", "COMP_CWORD": "1"}
    assert stranger.ok(**words).out.split() == ["credentials"]


def test_unknown_commands_and_options_are_mistakes_of_use(stranger: Desk) -> None:
    for words in (
        ("nonsense",),
        ("keys", "nonsense"),
        ("keys", "create"),
        ("keys", "list", "--nonsense"),
        ("serve", "--port", "99999"),
        ("serve", "--port", "x"),
    ):
        said = stranger.run(*words)
        assert said.code == Exit.USAGE, (words, said)
    assert stranger.ok("version").out.strip()
