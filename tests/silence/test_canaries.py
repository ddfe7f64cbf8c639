"""The search itself can fail: whatever is planted is found, whichever way it is hidden, and nothing is found where nothing is."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import sqlite3
from urllib.parse import quote

import pytest
from tests.silence.canaries import Evidence, marked

SECRET = f'sk-{marked()}+/=&%<>"ü'

HIDDEN = {
    "plain": SECRET.encode(),
    "cut off": SECRET[:16].encode(),
    "its end": SECRET[-13:].encode(),
    "hexadecimal": SECRET.encode().hex().encode(),
    "JSON": json.dumps({"secret": SECRET}).encode(),
    "JSON in JSON": json.dumps({"body": json.dumps({"secret": SECRET})}).encode(),
    "repr": repr({"secret": SECRET}).encode(),
    "repr of bytes": repr(SECRET.encode()).encode(),
    "URL": quote(SECRET).encode(),
    "form": f"password={quote(SECRET, safe='')}".encode(),
    "base64": base64.b64encode(SECRET.encode()),
    "base64 behind one byte": base64.b64encode(b":" + SECRET.encode()),
    "base64 behind two bytes": base64.b64encode(b"a:" + SECRET.encode()),
    "URL-safe base64": base64.urlsafe_b64encode(b"user:" + SECRET.encode()),
    "UTF-16": SECRET.encode("utf-16"),
    "reversed": SECRET.encode()[::-1],
    "plain digest": hashlib.sha256(SECRET.encode()).hexdigest().encode(),
}


@pytest.mark.parametrize("way", HIDDEN)
def test_planted_secret_is_found(way: str) -> None:
    evidence = Evidence()
    evidence.mark("secret", SECRET, guessable=True)
    evidence.add("log", b"2026-01-01 something happened\n" + HIDDEN[way] + b"\nand more")
    assert len(evidence.leaks()) == 1


def test_planted_secret_is_found_in_a_database_file(tmp_path) -> None:
    evidence = Evidence()
    evidence.mark("secret", SECRET)
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("CREATE TABLE a (b TEXT)")
        database.execute("INSERT INTO a VALUES (?)", (f"the key is {SECRET}",))
    database.close()
    evidence.add("database", (tmp_path / "a.db").read_bytes())
    assert evidence.leaks()


def test_where_it_may_stand_it_is_not_reported() -> None:
    evidence = Evidence()
    evidence.mark("secret", SECRET)
    evidence.add("answer", SECRET, allowed=["secret"])
    assert not evidence.leaks()


def test_public_beginning_of_a_key_is_no_secret() -> None:
    evidence = Evidence()
    key = f"sk-kg-{marked(12)}{marked(39)}"
    evidence.mark("key", key, public=18)
    evidence.add("hint", key[:18])
    assert not evidence.leaks()
    evidence.add("log", key[:31])
    assert evidence.leaks()


def test_nothing_is_found_in_noise() -> None:
    evidence = Evidence()
    for number in range(20):
        evidence.mark(f"secret {number}", f"sk-{marked()}", guessable=True)
    evidence.add("noise", b"".join(hashlib.sha256(str(n).encode()).digest() for n in range(50_000)))
    evidence.add("compressed", gzip.compress(marked(100_000).encode()))
    assert not evidence.leaks()
