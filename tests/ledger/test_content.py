"""Recorded content: only where a policy asks for it, sealed, bounded, read by those whom the policy names, each read audited."""

from __future__ import annotations

from dataclasses import replace

import pytest
import sqlalchemy as sa
from tests.ledger.journal_files import JANUARY, settle, write

from keygate.audit import AuditService, HeadsFile, Signer
from keygate.audit.repository import AuditRepository
from keygate.audit.tables import audit_entries
from keygate.errors import NotFound
from keygate.identities import Actor, ActorKind, Role
from keygate.ledger import content
from keygate.ledger.content import MAX_BYTES, QUEUE_BYTES, ContentReader, ContentRecorder, Recording, readers_of
from keygate.ledger.content_repository import ContentRepository
from keygate.ledger.fold import Fold
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.retention import Retention
from keygate.ledger.tables import recorded_contents
from keygate.policies import KeyState, KeyStatus, RuleSet, Scope
from keygate.vault import LocalKeySource, Vault
from keygate.vault.repository import VaultRepository

ADMIN = Actor(ActorKind.USER, "usr_1", "org_1", Role.ADMIN, user_id="usr_1")
PROMPT = b'{"messages":"CANARY-prompt"}'
ANSWER = b"CANARY-answer \xff"


@pytest.fixture
def audit(database, clock, tmp_path) -> AuditService:
    return AuditService(database, AuditRepository(), signer=Signer(bytes(32)), digest_key=b"k", heads=HeadsFile(tmp_path), clock=clock)


@pytest.fixture
async def vault(database, clock, tmp_path) -> Vault:
    vault = Vault(database, VaultRepository(), source=LocalKeySource(tmp_path / "data"), clock=clock)
    await vault.start()
    return vault


@pytest.fixture
def recorder(database, vault) -> ContentRecorder:
    return ContentRecorder(database=database, repository=ContentRepository(), seal=vault)


@pytest.fixture
def reader(database, vault, audit) -> ContentReader:
    return ContentReader(database=database, repository=ContentRepository(), seal=vault, audit=audit)


def recording(request_id: str = "req_1", **changes) -> Recording:
    return Recording(request_id, "org_1", "vk_1", JANUARY, PROMPT, ANSWER, ("usr_1", "owner"))._replace(**changes)


def state(*rules: RuleSet) -> KeyState:
    return KeyState("vk_1", "p", "key", "org_1", None, None, None, KeyStatus.ACTIVE, (), None, rules, (), ())


def test_nothing_is_recorded_unless_a_policy_asks_for_it_and_every_layer_that_does_must_name_a_reader():
    silent = RuleSet(Scope.ORGANIZATION, "org_1", "org", content_readers=("owner",))
    asks = RuleSet(Scope.KEY, "vk_1", "key", record_content=True, content_readers=("owner", "usr_1"))
    assert readers_of(state()) is None
    assert readers_of(state(silent)) is None
    assert readers_of(state(silent, asks)) == ("owner", "usr_1")
    assert readers_of(state(asks, replace(asks, content_readers=("usr_1",)))) == ("usr_1",)


async def test_content_is_stored_sealed_and_read_by_whom_the_policy_names(database, recorder, reader):
    assert recorder.offer(recording())
    assert await recorder.tick() == 1
    async with database.read() as connection:
        row = (await connection.execute(sa.select(recorded_contents))).one()
    assert b"CANARY" not in row.sealed
    found = await reader.read(ADMIN, "req_1")
    assert (found.prompt, found.answer, found.truncated, found.key_id) == (PROMPT, ANSWER, False, "vk_1")
    await reader.read(replace(ADMIN, id="usr_9", user_id="usr_9", role=Role.OWNER), "req_1")
    async with database.read() as connection:
        actions = (await connection.scalars(sa.select(audit_entries.c.action).order_by(audit_entries.c.sequence))).all()
    assert actions == ["content.read", "content.read"]


async def test_others_are_told_that_there_is_nothing(reader, recorder, database):
    recorder.offer(recording(readers=("usr_1", "developer")))
    await recorder.tick()
    for stranger in (replace(ADMIN, id="usr_2", user_id="usr_2"), replace(ADMIN, organization_id="org_2")):
        with pytest.raises(NotFound):
            await reader.read(stranger, "req_1")
    with pytest.raises(NotFound):
        await reader.read(ADMIN, "req_2")


async def test_a_reader_who_is_named_by_user_id_reads_with_an_api_token_too(reader, recorder):
    recorder.offer(recording(readers=("usr_1", "tok_2")))
    await recorder.tick()
    token = replace(ADMIN, kind=ActorKind.API_TOKEN, id="tok_1", scopes=frozenset({"content.read"}))
    assert (await reader.read(token, "req_1")).prompt == PROMPT
    with pytest.raises(NotFound):
        await reader.read(replace(token, id="tok_2", user_id="usr_2"), "req_1")  # tokens come and go: people are named


async def test_a_developer_reads_only_what_their_own_keys_said(reader, recorder, database, clock, tmp_path):
    recorder.offer(recording(readers=("developer",)))
    await recorder.tick()
    write(tmp_path / "journal", [settle(request_id="req_1", developer_id="dev_1")])
    await Fold(database=database, repository=LedgerRepository(), directory=tmp_path / "journal", journal_id="n", clock=clock).tick()
    developer = Actor(ActorKind.USER, "usr_3", "org_1", Role.DEVELOPER, developer_id="dev_1")
    assert (await reader.read(developer, "req_1")).prompt == PROMPT
    with pytest.raises(NotFound):
        await reader.read(replace(developer, developer_id="dev_2"), "req_1")


async def test_long_content_is_cut_and_says_so(recorder, reader):
    recorder.offer(recording(prompt=b"x" * (MAX_BYTES + 5)))
    await recorder.tick()
    found = await reader.read(ADMIN, "req_1")
    assert (len(found.prompt), found.truncated, found.answer) == (MAX_BYTES, True, ANSWER)


async def test_a_full_queue_drops_the_recording_and_counts_it(recorder):
    whole = recording(prompt=b"x" * MAX_BYTES, answer=b"")
    taken = 0
    while recorder.offer(whole._replace(request_id=f"req_{taken}")):
        taken += 1
    assert taken == QUEUE_BYTES // MAX_BYTES
    assert recorder.dropped == 1
    assert await recorder.tick() == taken
    assert recorder.offer(whole)


async def test_what_could_not_be_stored_stays_in_the_queue(recorder, monkeypatch):
    async def fail(*_args, **_more):
        raise RuntimeError("cut")

    recorder.offer(recording())
    with monkeypatch.context() as patch:
        patch.setattr(recorder._repository, "add", fail)
        with pytest.raises(RuntimeError, match="cut"):
            await recorder.tick()
    assert await recorder.tick() == 1


async def test_recorded_content_goes_by_its_own_age(database, recorder, clock):
    recorder.offer(recording())
    recorder.offer(recording("req_2", at_ns=JANUARY + 40 * 86_400 * 10**9))
    await recorder.tick()
    clock.advance(45 * 86_400)
    keeper = Retention(database=database, repository=LedgerRepository(), contents=ContentRepository(), clock=clock, entry_days=400)
    await keeper.tick()
    async with database.read() as connection:
        assert (await connection.scalars(sa.select(recorded_contents.c.request_id))).all() == ["req_2"]
    assert content.SEALED.table == recorded_contents.name
