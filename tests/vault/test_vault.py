"""The master key, data keys and their rotation, on a real database and real files."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from keygate.audit import AuditService, EntryFilter, HeadsFile, Signer
from keygate.audit.repository import AuditRepository
from keygate.errors import StartRefused, Unavailable
from keygate.identities import Actor, ActorKind, Role
from keygate.kit.clock import ManualClock
from keygate.kit.database import Database, open_database
from keygate.kit.secret import Secret
from keygate.vault import (
    SYSTEM,
    EnvelopeBroken,
    LocalKeySource,
    LocalProvider,
    Place,
    Vault,
    rotate_data_key,
    rotate_master_key,
)
from keygate.vault.repository import VaultRepository
from keygate.vault.tables import vault_keys, vault_secrets

OPERATOR = Actor(kind=ActorKind.OPERATOR, id="operator", organization_id="org_1", role=Role.OWNER)
NEW = Secret("another-master-key-0123456789")

Open = Callable[..., Vault]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def vault_at(database: Database, clock: ManualClock, data_dir: Path) -> Open:
    def make(source: LocalKeySource | None = None) -> Vault:
        return Vault(database, VaultRepository(), source=source or LocalKeySource(data_dir), clock=clock)

    return make


@pytest.fixture
def audit(database: Database, clock: ManualClock, tmp_path: Path) -> AuditService:
    signer = Signer(bytes(range(32)))
    return AuditService(database, AuditRepository(), signer=signer, digest_key=b"k", heads=HeadsFile(tmp_path), clock=clock)


def files(directory: Path) -> list[Path]:
    return sorted(directory.iterdir())


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


async def put(database: Database, vault: Vault, name: str, text: str) -> None:
    """A sealed value of an organisation, in a column that the vault knows."""
    async with database.unit() as work:
        sealed = await vault.seal(work, Secret(text), Place("vault_secrets", name, "org_1", "sealed"))
        row = {"organization_id": "org_1", "name": name, "sealed": sealed, "created_at_ns": 0}
        await work.connection.execute(vault_secrets.insert().values(row))


async def take(database: Database, vault: Vault, name: str) -> str:
    async with database.read() as connection:
        query = sa.select(vault_secrets.c.sealed).where(vault_secrets.c.organization_id == "org_1", vault_secrets.c.name == name)
        sealed = (await connection.execute(query)).scalar_one()
    return (await vault.open(sealed, Place("vault_secrets", name, "org_1", "sealed"))).open()


async def test_a_first_start_makes_a_master_key_that_only_its_owner_can_read(vault_at: Open, data_dir: Path) -> None:
    await vault_at().start()
    path = data_dir / "master.key"
    assert mode(path) == 0o600
    assert mode(data_dir) == 0o700
    assert len(path.read_text().strip()) == 43
    assert [each.name for each in files(data_dir)] == ["master.key"]


async def test_secrets_outlive_a_restart(database: Database, vault_at: Open) -> None:
    first = vault_at()
    await first.start()
    pepper = await first.system_secret("pepper")
    await put(database, first, "a", "sk-canary")
    second = vault_at()
    await second.start()
    assert await second.system_secret("pepper") == pepper
    assert await take(database, second, "a") == "sk-canary"
    async with database.read() as connection:
        for table in (vault_keys, vault_secrets):
            assert b"canary" not in repr((await connection.execute(sa.select(table))).all()).encode()


async def test_all_who_ask_at_once_get_the_same_system_secret(vault_at: Open) -> None:
    vaults = [vault_at() for _ in range(6)]
    await asyncio.gather(*(vault.start() for vault in vaults))
    found = await asyncio.gather(*(vault.system_secret("pepper") for vault in vaults for _ in range(3)))
    assert len({secret.open() for secret in found}) == 1
    assert len(found[0]) == 43
    assert (await vaults[0].system_secret("other")) != found[0]
    assert len(await vaults[0].status()) == 1


@pytest.mark.parametrize("how", ["missing", "other", "environment", "file"])
async def test_a_wrong_or_missing_master_key_refuses_the_start_with_the_remedy(vault_at: Open, data_dir: Path, how: str) -> None:
    await vault_at().start()
    path = data_dir / "master.key"
    source = LocalKeySource(data_dir)
    if how == "missing":
        path.unlink()
    elif how == "other":
        path.write_text("canary-other-master-key-012345")
    elif how == "environment":
        source = LocalKeySource(data_dir, text=Secret("canary-environment-master-key"))
    else:
        file = data_dir / "own.key"
        file.write_text("canary-file-master-key-0123456")
        file.chmod(0o600)
        source = LocalKeySource(data_dir, file=file)
    with pytest.raises(StartRefused) as refused:
        await vault_at(source).start()
    assert "KEYGATE_MASTER_KEY" in refused.value.detail
    assert "master.key" in refused.value.detail
    assert "canary" not in refused.value.detail
    assert path.exists() == (how != "missing")  # nothing is generated over a lost key


async def test_bad_sources_of_a_master_key_are_refused_with_the_remedy(tmp_path: Path) -> None:
    data_dir = tmp_path
    file = data_dir / "own.key"
    file.write_text("a-master-key-0123456789")
    file.chmod(0o644)
    with pytest.raises(StartRefused, match="chmod 600"):
        await LocalKeySource(data_dir, file=file).provider(None)
    with pytest.raises(StartRefused, match="both set"):
        LocalKeySource(data_dir, file=file, text=NEW)
    with pytest.raises(StartRefused, match="openssl rand"):
        await LocalKeySource(data_dir, text=Secret("short")).provider(None)
    with pytest.raises(StartRefused, match="No such file"):
        await LocalKeySource(data_dir, file=data_dir / "none").provider(None)
    with pytest.raises(StartRefused, match="regular"):
        await LocalKeySource(data_dir, file=data_dir).provider(None)
    file.chmod(0o600)
    file.write_bytes(b"\xff" * 40)
    with pytest.raises(StartRefused, match="text"):
        await LocalKeySource(data_dir, file=file).provider(None)
    file.write_text("x" * 5_000)
    with pytest.raises(StartRefused, match="longer"):
        await LocalKeySource(data_dir, file=file).provider(None)


async def test_the_same_key_from_file_or_environment_is_the_same_key(tmp_path: Path) -> None:
    data_dir = tmp_path
    file = data_dir / "own.key"
    file.write_text("a-master-key-0123456789\n")
    file.chmod(0o600)
    from_file = await LocalKeySource(data_dir, file=file).provider(None)
    from_text = await LocalKeySource(data_dir, text=Secret("a-master-key-0123456789")).provider(from_file.id)
    assert from_file.id == from_text.id


async def test_processes_that_start_at_once_generate_one_master_key(data_dir: Path) -> None:
    found = await asyncio.gather(*(asyncio.to_thread(asyncio.run, LocalKeySource(data_dir).provider(None)) for _ in range(8)))
    assert len({provider.id for provider in found}) == 1


async def test_rotation_of_a_generated_key_leaves_a_running_server_untouched(
    database: Database, vault_at: Open, audit: AuditService, data_dir: Path
) -> None:
    server = vault_at()
    await server.start()
    await put(database, server, "a", "sk-a")
    old = (data_dir / "master.key").read_text()

    operator = vault_at()
    await operator.start()
    source = LocalKeySource(data_dir)
    done = await rotate_master_key(database, operator, source, audit=audit, actor=OPERATOR)
    assert (data_dir / "master.key").read_text() != old
    (kept,) = (path for path in files(data_dir) if path.name.startswith("master.key.") and path.name != "master.key.lock")
    assert (kept.read_text(), mode(kept)) == (old, 0o600)  # backups from before need it
    assert (done.keys, str(kept) in (done.advice or "")) == (2, True)
    assert not (data_dir / "master.key.next").exists()
    assert {key.kek_id for key in await operator.status()} == {done.kek_id}

    assert await take(database, server, "a") == "sk-a"
    await put(database, server, "b", "sk-b")
    async with database.unit() as work:  # a new organisation's key, made by the server that began with the old master key
        sealed = await server.seal(work, Secret("sk-c"), Place("t", "r", "org_2", "c"))
    again = vault_at()
    await again.start()
    assert await take(database, again, "b") == "sk-b"
    assert (await again.open(sealed, Place("t", "r", "org_2", "c"))).open() == "sk-c"
    (entry,) = await audit.find("org_1", EntryFilter(), before=None, limit=5)
    assert entry.action == "vault.rotate"

    (data_dir / "master.key").write_text(old)
    with pytest.raises(StartRefused):
        await vault_at().start()


async def test_what_was_backed_up_before_a_rotation_opens_with_the_key_that_was_kept(
    database: Database, vault_at: Open, audit: AuditService, data_dir: Path
) -> None:
    vault = vault_at()
    await vault.start()
    await put(database, vault, "a", "sk-a")
    async with database.read() as connection:
        backup = [dict(row._mapping) for row in await connection.execute(sa.select(vault_keys))]
    for _ in range(2):
        await rotate_master_key(database, vault, LocalKeySource(data_dir), audit=audit, actor=OPERATOR)
    async with database.unit() as work:
        for row in backup:
            await work.connection.execute(sa.update(vault_keys).where(vault_keys.c.id == row["id"]).values(row))
    with pytest.raises(StartRefused, match=r"KEYGATE_MASTER_KEY_FILE to .*/master\.key\.[0-9a-f]+, which is it") as refused:
        await vault_at().start()
    named = Path(refused.value.detail.split("KEYGATE_MASTER_KEY_FILE to ")[1].split(",")[0])
    again = vault_at(LocalKeySource(data_dir, file=named))
    await again.start()
    assert await take(database, again, "a") == "sk-a"


async def test_rotation_while_requests_run_loses_none(database: Database, vault_at: Open, audit: AuditService, data_dir: Path) -> None:
    server, operator = vault_at(), vault_at()
    await server.start()
    await operator.start()
    await put(database, server, "a", "sk-a")
    rotating = True

    async def requests() -> int:
        count = 0
        while rotating:
            await put(database, server, f"n{count}", f"sk-{count}")
            assert await take(database, server, f"n{count}") == f"sk-{count}"
            assert await take(database, server, "a") == "sk-a"
            count += 1
        return count

    load = asyncio.create_task(requests())
    for _ in range(4):
        await rotate_master_key(database, operator, LocalKeySource(data_dir), audit=audit, actor=OPERATOR)
        await rotate_data_key(database, operator, "org_1", audit=audit, actor=OPERATOR)
        await asyncio.sleep(0.05)
    rotating = False
    count = await load
    fresh = vault_at()
    await fresh.start()
    for number in range(count):
        assert await take(database, fresh, f"n{number}") == f"sk-{number}"


async def test_rotation_to_a_key_of_the_operator(database: Database, vault_at: Open, audit: AuditService, data_dir: Path) -> None:
    own = LocalKeySource(data_dir, text=Secret("the-first-master-key-01234"))
    vault = vault_at(own)
    await vault.start()
    pepper = await vault.system_secret("pepper")
    with pytest.raises(StartRefused, match="--new-key-file"):
        await rotate_master_key(database, vault, own, audit=audit, actor=OPERATOR)
    done = await rotate_master_key(database, vault, own, audit=audit, actor=OPERATOR, new=NEW)
    assert done.advice is not None
    with pytest.raises(StartRefused):
        await vault_at(own).start()
    again = vault_at(LocalKeySource(data_dir, text=NEW))
    await again.start()
    assert await again.system_secret("pepper") == pepper


async def test_a_server_that_can_not_know_the_new_master_key_says_so_and_still_opens(
    database: Database, vault_at: Open, audit: AuditService, data_dir: Path
) -> None:
    own = LocalKeySource(data_dir, text=Secret("the-first-master-key-01234"))
    server, operator = vault_at(own), vault_at(own)
    await server.start()
    await put(database, server, "a", "sk-a")
    await operator.start()
    await rotate_master_key(database, operator, own, audit=audit, actor=OPERATOR, new=NEW)
    assert await take(database, server, "a") == "sk-a"
    await put(database, server, "b", "sk-b")
    with pytest.raises(Unavailable, match="restart"):
        async with database.unit() as work:
            await server.seal(work, Secret("x"), Place("t", "r", "org_new", "c"))


async def test_one_rotation_at_a_time(data_dir: Path) -> None:
    source = LocalKeySource(data_dir)
    with source.rotating(), pytest.raises(StartRefused, match="under way"), LocalKeySource(data_dir).rotating():
        pass
    with source.rotating():
        pass


CRASHES = ["next_written", "rewrapped", "committed", "renamed"]


@pytest.mark.parametrize("point", CRASHES)
async def test_a_rotation_killed_at_any_point_loses_nothing(
    database: Database, database_url: str, vault_at: Open, audit: AuditService, data_dir: Path, tmp_path: Path, point: str
) -> None:
    vault = vault_at()
    await vault.start()
    await put(database, vault, "a", "sk-a")
    before = (data_dir / "master.key").read_text()
    program = textwrap.dedent("""
        import asyncio, os, sys
        from pathlib import Path
        from keygate.audit import AuditService, HeadsFile, Signer
        from keygate.audit.repository import AuditRepository
        from keygate.identities import Actor, ActorKind, Role
        from keygate.kit.clock import SystemClock
        from keygate.kit.database import UnitOfWork, open_database
        from keygate.vault import LocalKeySource, Vault, rotate_master_key
        from keygate.vault.repository import VaultRepository

        point, url, data_dir = sys.argv[1:]

        def die_after(cls, name):
            kept = getattr(cls, name)
            def wrapped(*args, **kwargs):
                kept(*args, **kwargs)
                os.kill(os.getpid(), 9)
            async def awaited(*args, **kwargs):
                await kept(*args, **kwargs)
                os.kill(os.getpid(), 9)
            setattr(cls, name, awaited if asyncio.iscoroutinefunction(kept) else wrapped)

        async def main():
            database = open_database(url)
            source = LocalKeySource(Path(data_dir))
            vault = Vault(database, VaultRepository(), source=source, clock=SystemClock())
            await vault.start()
            die_after(*{
                "next_written": (LocalKeySource, "next_provider"),
                "rewrapped": (Vault, "rewrap"),
                "committed": (UnitOfWork, "run_after_commit"),
                "renamed": (LocalKeySource, "finish_rotation"),
            }[point])
            audit = AuditService(database, AuditRepository(), signer=Signer(bytes(32)), digest_key=b"k", heads=HeadsFile(Path(data_dir)),
                                 clock=SystemClock())
            actor = Actor(kind=ActorKind.OPERATOR, id="operator", organization_id="org_1", role=Role.OWNER)
            await rotate_master_key(database, vault, source, audit=audit, actor=actor)

        asyncio.run(main())
    """)
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, point, database_url, str(data_dir)], capture_output=True, timeout=60, check=False
    )
    assert killed.returncode == -9, killed.stderr.decode()
    committed = point in {"committed", "renamed"}
    assert (data_dir / "master.key.next").exists() == (point != "renamed")

    after = vault_at()
    await after.start()
    assert await take(database, after, "a") == "sk-a"
    if committed:  # the start has finished what was begun
        assert before in {path.read_text() for path in files(data_dir)}, "the former key is kept"
        assert (data_dir / "master.key").read_text() != before
        assert not (data_dir / "master.key.next").exists()
    else:
        assert (data_dir / "master.key").read_text() == before
    done = await rotate_master_key(database, after, LocalKeySource(data_dir), audit=audit, actor=OPERATOR)
    last = vault_at()
    await last.start()
    assert await take(database, last, "a") == "sk-a"
    assert {key.kek_id for key in await last.status()} == {done.kek_id}
    assert not (data_dir / "master.key.next").exists()


async def test_a_start_during_a_rotation_does_not_touch_its_files(
    database: Database, vault_at: Open, audit: AuditService, data_dir: Path
) -> None:
    await vault_at().start()
    source = LocalKeySource(data_dir)
    operator = vault_at()
    await operator.start()
    with source.rotating():
        provider = source.next_provider()
        async with database.unit() as work:
            await operator.rewrap(work, provider)
        await vault_at().start()
        assert source.next_path.exists()
        source.finish_rotation()
    await vault_at().start()


async def test_rotating_a_data_key_seals_every_value_anew(database: Database, vault_at: Open, audit: AuditService) -> None:
    server, operator = vault_at(), vault_at()
    await server.start()
    await operator.start()
    for number in range(230):
        await put(database, server, f"n{number:03}", f"sk-{number}")
    assert await rotate_data_key(database, operator, "org_1", audit=audit, actor=OPERATOR) == 230
    current = max((key for key in await operator.status() if key.organization_id == "org_1"), key=lambda key: key.generation)
    assert current.generation == 2
    async with database.read() as connection:
        for sealed in (
            await connection.execute(sa.select(vault_secrets.c.sealed).where(vault_secrets.c.organization_id == "org_1"))
        ).scalars():
            assert current.id.encode() in sealed
    assert await take(database, server, "n007") == "sk-7"
    await put(database, server, "new", "sk-new")
    assert await take(database, operator, "new") == "sk-new"
    assert await rotate_data_key(database, operator, SYSTEM, audit=audit, actor=OPERATOR) == 0


async def test_a_value_copied_to_another_row_or_organisation_does_not_open(database: Database, vault_at: Open) -> None:
    vault = vault_at()
    await vault.start()
    async with database.unit() as work:
        sealed = await vault.seal(work, Secret("x"), Place("t", "row_1", "org_1", "c"))
    for place in (Place("t", "row_2", "org_1", "c"), Place("t", "row_1", "org_2", "c"), Place("t", "row_1", "org_1", "d")):
        with pytest.raises(EnvelopeBroken):
            await vault.open(sealed, place)


async def test_a_wrapped_key_that_was_moved_to_another_organisation_does_not_open(database: Database, vault_at: Open) -> None:
    vault = vault_at()
    await vault.start()
    await put(database, vault, "a", "x")
    async with database.unit() as work:
        await work.connection.execute(sa.update(vault_keys).where(vault_keys.c.organization_id == "org_1").values(organization_id="org_2"))
    with pytest.raises(EnvelopeBroken):
        await vault_at().start()


async def test_no_file_but_its_own_holds_the_master_key(tmp_path: Path, sqlite_template: bytes) -> None:
    data_dir = tmp_path
    (data_dir / "keygate.db").write_bytes(sqlite_template)
    database = open_database(data_dir=data_dir)
    vault = Vault(database, VaultRepository(), source=LocalKeySource(data_dir), clock=ManualClock())
    await vault.start()
    await vault.system_secret("pepper")
    master = (data_dir / "master.key").read_bytes().strip()
    for each in files(data_dir):
        assert each.name == "master.key" or master not in each.read_bytes()
    await database.close()


def test_provider_id_is_public_and_does_not_print_the_key() -> None:
    provider = LocalProvider(Secret("canary-master-key-0123456789"))
    assert "canary" not in repr(provider)
    assert provider.id.startswith("local:")
    assert os.environ.get("KEYGATE_MASTER_KEY") is None
