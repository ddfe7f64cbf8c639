"""The local provider of key-encryption keys: a master key from the environment, from a file, or generated into the data directory.

Rotation of a generated key replaces `master.key` in an order that survives a crash anywhere: the next key is written to
`master.key.next`, one transaction wraps every data key anew, then the former key is kept as `master.key.<its id>`, for the backups that it
opens, and the file is renamed over `master.key`. Whichever of the two files the database's keys are wrapped by is the one in use; nothing
is ever deleted.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keygate.errors import StartRefused
from keygate.kit.secret import Secret
from keygate.vault.envelope import KEY_BYTES, DataKey, Place, open_sealed, seal

try:
    import fcntl
except ImportError:  # pragma: no cover  (Windows has no flock; rotation is then not guarded against a second rotation)
    fcntl = None  # type: ignore[assignment]  # the module itself is the value elsewhere

FILE_NAME = "master.key"
NEXT_NAME = "master.key.next"
MIN_CHARACTERS = 16
_BACK = "set KEYGATE_MASTER_KEY or KEYGATE_MASTER_KEY_FILE, or restore master.key from a backup"
_LONGEST_FILE = 4_096


class LocalProvider:
    """AES-256-GCM under a key derived from the master key by HKDF-SHA-256 (RFC 5869)."""

    def __init__(self, master: Secret) -> None:
        material = master.open().encode()
        self._key = DataKey(f"local:{_derive(material, b'keygate/kek-id/1').hex()[:24]}", _derive(material, b"keygate/kek/1"))

    @property
    def id(self) -> str:
        return self._key.id

    async def wrap(self, key: bytes, context: bytes) -> bytes:
        return seal(self._key, key, _place(context))

    async def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        return open_sealed(self._key, wrapped, _place(context))


class LocalKeySource:
    """Where the master key may stand: `text` is `KEYGATE_MASTER_KEY`, `file` is `KEYGATE_MASTER_KEY_FILE`; neither: the data directory."""

    def __init__(self, data_dir: Path, *, text: Secret | None = None, file: Path | None = None) -> None:
        if text is not None and file is not None:
            raise StartRefused("KEYGATE_MASTER_KEY and KEYGATE_MASTER_KEY_FILE are both set; unset one of them")
        self._data_dir = data_dir
        self._text = text
        self._file = file

    @property
    def generated(self) -> bool:
        """Whether the master key is KeyGate's own file, which a rotation replaces by itself."""
        return self._text is None and self._file is None

    @property
    def place(self) -> str:
        """Where the master key comes from, for messages."""
        if self._text is not None:
            return "KEYGATE_MASTER_KEY"
        return f"the file {self._file} (KEYGATE_MASTER_KEY_FILE)" if self._file else f"the file {self.path}"

    @property
    def path(self) -> Path:
        return self._data_dir / FILE_NAME

    @property
    def next_path(self) -> Path:
        return self._data_dir / NEXT_NAME

    async def provider(self, kek_id: str | None) -> LocalProvider:
        found = [LocalProvider(master) for master in self._masters()]
        if kek_id is None:
            return found[0] if found else LocalProvider(self._generate(self.path))
        for provider in found:
            if provider.id == kek_id:
                self._mend(provider)
                return provider
        if found:
            former = self._former(kek_id)
            remedy = f"set KEYGATE_MASTER_KEY_FILE to {former}, which is it" if former.exists() else _BACK
            raise StartRefused(
                f"The master key in {self.place} is not the one that this database was encrypted with ({kek_id}). "
                f"Put the right one back: {remedy}"
            )
        raise StartRefused(
            f"The database holds encrypted secrets ({kek_id}), but {self.place} is missing. "
            f"Restore it from a backup, or set KEYGATE_MASTER_KEY or KEYGATE_MASTER_KEY_FILE to the same master key"
        )

    def next_provider(self) -> LocalProvider:
        """The provider to rotate a generated key to. One that an interrupted rotation left behind is taken up again."""
        if self.next_path.exists():
            return LocalProvider(_read(self.next_path))
        return LocalProvider(self._generate(self.next_path))

    def finish_rotation(self) -> Path | None:
        """Puts `master.key.next` in the place of `master.key`. Safe to repeat. Returns where the former key is kept."""
        if not self.next_path.exists():
            return None
        former = self._keep_former()
        self.next_path.replace(self.path)
        _sync_directory(self._data_dir)
        return former

    def _keep_former(self) -> Path | None:
        """A second name for the file, with its mode: the key itself is not written anew."""
        if not self.path.exists():
            return None
        kept = self._former(LocalProvider(_read(self.path)).id)
        if not kept.exists():
            os.link(self.path, kept)
            _sync_directory(self._data_dir)
        return kept

    def _former(self, kek_id: str) -> Path:
        return self.path.with_name(f"{FILE_NAME}.{kek_id.removeprefix('local:')}")

    @contextmanager
    def rotating(self) -> Iterator[None]:
        """One rotation at a time per data directory. Raises `StartRefused` where another one is under way."""
        _make_directory(self._data_dir)
        descriptor = os.open(self._data_dir / "master.key.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError:
                    raise StartRefused("Another rotation of the master key is under way; wait for it to end") from None
            yield
        finally:
            os.close(descriptor)

    def _mend(self, used: LocalProvider) -> None:
        """After a crash between commit and rename: the rename. Left alone while a rotation is under way."""
        if not self.generated or not self.next_path.exists() or LocalProvider(_read(self.next_path)).id != used.id:
            return
        try:
            with self.rotating():
                self.finish_rotation()
        except StartRefused:
            return

    def _masters(self) -> list[Secret]:
        if self._text is not None:
            return [_checked(self._text.open(), "KEYGATE_MASTER_KEY")]
        if self._file is not None:
            return [_read(self._file)]
        return [_read(path) for path in (self.path, self.next_path) if path.exists()]

    def _generate(self, path: Path) -> Secret:
        """A new master key in a file that only its owner can read; where another process was faster, that one's."""
        _make_directory(self._data_dir)
        text = secrets.token_urlsafe(KEY_BYTES)
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, text.encode() + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        try:
            os.link(draft, path)  # as O_EXCL, but the file is never seen half written
        except FileExistsError:
            return _read(path)
        finally:
            draft.unlink()
        _sync_directory(self._data_dir)
        return Secret(text)


def read_master_key(path: Path) -> Secret:
    """A master key that an operator keeps in a file. Raises `StartRefused` with the remedy."""
    return _read(path)


def _read(path: Path) -> Secret:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))  # a pipe must not hold the start up
    except OSError as error:
        raise StartRefused(f"The master key file {path} can't be read: {error.strerror}") from None
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise StartRefused(f"The master key file {path} is not a regular file")
        if os.name == "posix" and mode & 0o077:
            raise StartRefused(f"The master key file {path} is open to others than its owner; run: chmod 600 {path}")
        raw = os.read(descriptor, _LONGEST_FILE + 1)
    finally:
        os.close(descriptor)
    try:
        text = raw.decode().strip()
    except UnicodeDecodeError:
        raise StartRefused(f"The master key file {path} does not hold text; write the key in base64 or hex") from None
    if len(raw) > _LONGEST_FILE:
        raise StartRefused(f"The master key file {path} is longer than {_LONGEST_FILE} bytes; it should hold one key")
    return _checked(text, f"The master key file {path}")


def _checked(text: str, where: str) -> Secret:
    text = text.strip()
    if len(text) < MIN_CHARACTERS:
        raise StartRefused(f"{where} holds fewer than {MIN_CHARACTERS} characters; make a key with: openssl rand -base64 32")
    return Secret(text)


def _derive(material: bytes, purpose: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=hashlib.sha256(b"keygate/master-key").digest(), info=purpose).derive(
        material
    )


def _place(context: bytes) -> Place:
    return Place(table="vault_keys", row_id=hashlib.sha256(context).hexdigest(), organization_id="", column="wrapped")


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise StartRefused(f"The data directory {path} can't be made: {error.strerror}; set KEYGATE_DATA_DIR to one that can") from None


def _sync_directory(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
