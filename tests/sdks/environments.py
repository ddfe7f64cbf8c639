"""The official SDKs, each in an environment of its own under `.sdks/`, exactly as the lock files have them.

`python tests/sdks/environments.py` (or `make sdks`) installs what is missing; the tests do so on demand. To renew the locks:
`python tests/sdks/environments.py --lock` (releases of the last seven days are left out).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE.parents[1] / ".sdks"
PYTHON_SDKS = ("openai-1", "openai-2", "openai-3", "anthropic-0", "anthropic-2")
ADMIN_SDKS = ("google-admin", "google-genai-3", "openrouter-1", "azure", "aws")  # of the tests of issued keys
_UV = str(Path(sys.executable).with_name("uv"))
_COOL_DOWN = "7 days"


def python_environment(name: str) -> Path:
    """The interpreter of an environment that holds `locks/{name}.txt`; installs it first where that isn't so."""
    folder = ENVIRONMENTS / name
    lock = HERE / "locks" / f"{name}.txt"

    def install() -> None:
        _run(_UV, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
        interpreter = str(folder / "bin" / "python")
        _run(_UV, "pip", "install", "--quiet", "--python", interpreter, "--require-hashes", "-r", str(lock))

    _once(folder, lock.read_bytes(), install)
    return folder / "bin" / "python"


def node_environment() -> Path:
    """A folder with `node_modules` as `node/package-lock.json` has them."""
    folder = ENVIRONMENTS / "node"
    source = HERE / "node"

    def install() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, folder / name)
        _run("npm", "ci", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", cwd=folder)

    _once(folder, (source / "package-lock.json").read_bytes(), install)
    return folder


def _once(folder: Path, lock: bytes, install: object) -> None:
    """Installs unless the environment's stamp says that this lock is in it; one process at a time."""
    assert callable(install)
    ENVIRONMENTS.mkdir(exist_ok=True)
    digest = hashlib.sha256(lock).hexdigest()
    stamp = ENVIRONMENTS / f"{folder.name}.lock"
    with stamp.open("a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.seek(0)
        if held.read() == digest and folder.is_dir():
            return
        install()
        held.seek(0)
        held.truncate()
        held.write(digest)


def _run(*command: str, cwd: Path | None = None) -> None:
    environment = {"UV_SYSTEM_CERTS": "true", **os.environ}  # as `make` has it: the certificates that this machine trusts
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.returncode}\n{done.stderr[-4000:]}")


def lock() -> None:
    """Writes the lock files anew from `locks/*.in` and `node/package.json`."""
    options = ("--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url", "--no-header", "--quiet", "--upgrade")
    for name in (*PYTHON_SDKS, *ADMIN_SDKS):
        _run(_UV, "pip", "compile", *options, "--exclude-newer", _COOL_DOWN, f"{name}.in", "-o", f"{name}.txt", cwd=HERE / "locks")
    _run("npm", "install", "--package-lock-only", "--omit-lockfile-registry-resolved", "--no-audit", "--no-fund", cwd=HERE / "node")


def main(arguments: Sequence[str]) -> None:
    if "--lock" in arguments:
        lock()
    for name in (*PYTHON_SDKS, *ADMIN_SDKS):
        python_environment(name)
    node_environment()


if __name__ == "__main__":
    os.umask(0o022)
    main(sys.argv[1:])
