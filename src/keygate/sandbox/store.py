"""A file that the sandbox's state is kept in: things on shelves, as JSON, in SQLite.

A write is in the file once the call returns, so it outlives a `kill -9` of the process; a loss of power may take the last moments with it,
and leaves the file readable. One process at a time has it open.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

VERSION = 1  # another one is refused: the sandbox is begun afresh then
_NOTES = "notes"
_PUT = "INSERT INTO things (shelf, id, value) VALUES (?, ?, ?) ON CONFLICT (shelf, id) DO UPDATE SET value = excluded.value"


class StateRefusedError(Exception):
    """The file can't be used: taken, of another version, or no such file at all. Says what to do."""


class Store:
    """Raises `StateRefusedError`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            path.chmod(0o600)
            self._database = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            self._open()
        except OSError as error:
            raise StateRefusedError(f"the sandbox's state {path} can't be used ({error.strerror})") from None
        except sqlite3.OperationalError as error:
            raise StateRefusedError(f"the sandbox's state {path} can't be used ({error}): is another sandbox open on it?") from None
        except sqlite3.DatabaseError:
            raise StateRefusedError(f"{path} is no sandbox's state; name another file, or delete it") from None
        self._written: dict[tuple[str, str], int] = {}
        self._ids: dict[str, set[str]] = {}

    def _open(self) -> None:
        run = self._database.execute
        run("PRAGMA locking_mode = EXCLUSIVE")
        run("PRAGMA journal_mode = WAL")
        run("PRAGMA synchronous = NORMAL")
        run("BEGIN IMMEDIATE")  # and with it the lock, for as long as the file is open
        version = run("PRAGMA user_version").fetchone()[0]
        if version not in {0, VERSION}:
            self._database.close()
            raise StateRefusedError(f"the sandbox's state {self.path} was written by another version; delete it to begin afresh")
        run("CREATE TABLE IF NOT EXISTS things (at INTEGER PRIMARY KEY, shelf TEXT NOT NULL, id TEXT NOT NULL, value BLOB NOT NULL)")
        run("CREATE UNIQUE INDEX IF NOT EXISTS things_names ON things (shelf, id)")
        run(f"PRAGMA user_version = {VERSION}")
        run("COMMIT")

    def shelves(self, prefix: str) -> list[str]:
        """The names of shelves that begin with this."""
        query = "SELECT DISTINCT shelf FROM things WHERE substr(shelf, 1, ?) = ?"
        return [row[0] for row in self._database.execute(query, (len(prefix), prefix))]

    def read(self, shelf: str) -> list[tuple[str, bytes]]:
        """`(id, value)` in the order in which they came."""
        query = "SELECT id, value FROM things WHERE shelf = ? ORDER BY at"
        found: list[tuple[str, bytes]] = self._database.execute(query, (shelf,)).fetchall()
        self._ids[shelf] = {id_ for id_, _ in found}
        self._written.update(((shelf, id_), hash(value)) for id_, value in found)
        return found

    def write(self, shelves: Iterable[tuple[str, Iterable[tuple[str, bytes]], bool]]) -> None:
        """`(shelf, things, whole)`: each thing that is not as it was written last; where they are the `whole` shelf, what is no longer
        among them goes. All of it is in the file, or nothing."""
        changed: list[tuple[str, str, bytes]] = []
        gone: list[tuple[str, str]] = []
        for shelf, things, whole in shelves:
            known = self._ids.setdefault(shelf, set())
            seen = set()
            for id_, value in things:
                seen.add(id_)
                if self._written.get((shelf, id_)) != hash(value):
                    changed.append((shelf, id_, value))
            if whole:
                gone += [(shelf, id_) for id_ in known - seen]
        if not changed and not gone:
            return
        run = self._database
        run.execute("BEGIN IMMEDIATE")
        try:
            run.executemany(_PUT, changed)
            run.executemany("DELETE FROM things WHERE shelf = ? AND id = ?", gone)
            run.execute("COMMIT")
        except BaseException:
            run.execute("ROLLBACK")
            raise
        for shelf, id_, value in changed:
            self._written[shelf, id_] = hash(value)
            self._ids[shelf].add(id_)
        for shelf, id_ in gone:
            del self._written[shelf, id_]
            self._ids[shelf].discard(id_)

    def noted(self, name: str) -> str | None:
        """A word of whoever opened the file, as `note` left it."""
        return next((value.decode() for id_, value in self.read(_NOTES) if id_ == name), None)

    def note(self, name: str, value: str) -> None:
        self.write([(_NOTES, [(name, value.encode())], False)])

    def close(self) -> None:
        self._database.close()
