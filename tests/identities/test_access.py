"""Signing in, users and API tokens."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa
from tests.conftest import OWNER_PASSWORD

from keygate.audit import AuditOutcome, EntryFilter
from keygate.errors import Conflict, Forbidden, InvalidInput, NotFound, Throttled, Unauthenticated
from keygate.identities import Actor, Passwords, Role, Status, throttle
from keygate.identities.permissions import KNOWN, allows, held_by, may_grant, permissions_of
from keygate.identities.sessions import LIFETIME_SECONDS
from keygate.identities.tables import api_tokens, login_attempts, sessions, users
from keygate.kit.secret import Secret

RIGHT = Secret(OWNER_PASSWORD)
WRONG = Secret("wrong horse battery")
EMAIL = "owner@example.com"


async def _sign_in(people, email=EMAIL, password=RIGHT, address="10.0.0.1") -> Actor:
    _, session = await people.sessions.login(email, password, address=address)
    return await people.sessions.authenticate(session.token.open(), address=address, request_id="req_1")


async def _fail(people, times, *, address="10.0.0.1", email=EMAIL):
    for _ in range(times):
        with pytest.raises(Unauthenticated):
            await people.sessions.login(email, WRONG, address=address)


async def test_the_first_start_makes_one_organisation_and_one_owner_once(people):
    made = await asyncio.gather(*(people.users.bootstrap(organization_name="One", email="A@Example.com") for _ in range(3)))
    done = [each for each in made if each is not None]
    assert len(done) == 1
    assert done[0].password is not None
    assert done[0].owner.email == "a@example.com"
    actor = await _sign_in(people, "a@example.com", done[0].password)
    assert (actor.role, actor.organization_id) == (Role.OWNER, done[0].organization.id)
    assert await people.users.bootstrap(organization_name="Two", email="b@example.com") is None


async def test_a_right_password_signs_in_and_a_wrong_one_and_an_unknown_account_are_told_the_same(people, started):
    assert (await _sign_in(people)).id == started.owner.id
    messages = set()
    for email in (EMAIL, "nobody@example.com"):
        with pytest.raises(Unauthenticated) as caught:
            await people.sessions.login(email, WRONG, address="10.0.0.9")
        messages.add(caught.value.detail)
    assert len(messages) == 1


async def test_an_unknown_account_costs_as_much_work_as_a_known_one():
    passwords = Passwords(memory_kib=8, passes=1)
    work = []
    verify = passwords._verify

    def counted(stored, password):
        work.append(stored)
        return verify(stored, password)

    passwords._verify = counted
    stored = await passwords.hash(RIGHT)
    assert await passwords.matches(stored, RIGHT)
    assert not await passwords.matches(stored, WRONG)
    assert not await passwords.matches(None, WRONG)
    assert len(work) == 3
    assert work[2].split("$")[:4] == stored.split("$")[:4]


async def test_hashing_does_not_hold_up_the_event_loop():
    passwords = Passwords()
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticker = asyncio.create_task(tick())
    await asyncio.gather(*(passwords.hash(RIGHT) for _ in range(3)))
    ticker.cancel()
    assert ticks > 3


async def test_sessions_end_by_time_and_by_signing_out(people, started, clock):
    _, session = await people.sessions.login(EMAIL, RIGHT, address=None)
    actor = await people.sessions.authenticate(session.token.open(), address=None, request_id=None)
    clock.advance(LIFETIME_SECONDS - 1)
    await people.sessions.authenticate(session.token.open(), address=None, request_id=None)
    await people.sessions.logout(actor)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(session.token.open(), address=None, request_id=None)
    _, second = await people.sessions.login(EMAIL, RIGHT, address=None)
    clock.advance(LIFETIME_SECONDS)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(second.token.open(), address=None, request_id=None)


@pytest.mark.parametrize("token", ["", "kga_", "kga_" + "0" * 43, "kgt_x", "sk-kg-abc", "kga_" + "é" * 43, "kga_\udcff", "x" * 100_000])
async def test_made_up_tokens_are_refused(people, started, token):
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(token, address=None, request_id=None)


async def test_an_account_waits_after_failures_and_not_longer_than_a_minute(people, started, clock):
    await _fail(people, 5)
    for _ in range(12):
        with pytest.raises(Throttled) as caught:
            await people.sessions.login(EMAIL, RIGHT, address="10.0.0.1")
        assert 1 <= caught.value.retry_after <= 60
        clock.advance(caught.value.retry_after)
        with pytest.raises(Unauthenticated):
            await people.sessions.login(EMAIL, WRONG, address="10.0.1.1")
    clock.advance(60)
    await _sign_in(people)


async def test_guessing_in_parallel_gains_no_attempts(people, started):
    outcomes = await asyncio.gather(
        *(people.sessions.login(EMAIL, WRONG, address=f"10.0.0.{number}") for number in range(20)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Unauthenticated) for outcome in outcomes) == 5
    assert sum(isinstance(outcome, Throttled) for outcome in outcomes) == 15


async def test_an_address_waits_whatever_accounts_it_tries(people, started):
    for number in range(20):
        await _fail(people, 1, email=f"user{number}@example.com", address="2001:db8::1")
    with pytest.raises(Throttled):
        await people.sessions.login("another@example.com", WRONG, address="2001:db8::2")
    await _sign_in(people, address="2001:db8:0:1::1")


async def test_a_stranger_who_guesses_does_not_keep_the_owner_out(people, started):
    await _sign_in(people, address="10.0.0.1")
    await _fail(people, 5, address="10.9.9.9")
    with pytest.raises(Throttled):
        await people.sessions.login(EMAIL, WRONG, address="10.9.9.9")
    await _sign_in(people, address="10.0.0.1")


async def test_strangers_at_the_same_address_do_not_keep_out_who_signed_in_there_lately(people, started):
    await _sign_in(people, address="10.0.0.1")
    for number in range(20):
        await _fail(people, 1, email=f"user{number}@example.com", address="10.0.0.1")
    with pytest.raises(Throttled):
        await people.sessions.login("another@example.com", WRONG, address="10.0.0.1")
    await _sign_in(people, address="10.0.0.1")
    await _fail(people, 5, address="10.0.0.1")  # the account has a count of its own there
    with pytest.raises(Throttled):
        await people.sessions.login(EMAIL, RIGHT, address="10.0.0.1")


async def test_whoever_has_a_session_can_guess_the_password_no_faster_than_anybody(people, started, clock):
    actor = replace(await _sign_in(people), address="10.0.0.66")
    for _ in range(5):
        with pytest.raises(Forbidden):
            await people.users.change_password(actor, current=WRONG, password=Secret("another long password"))
    with pytest.raises(Throttled) as caught:
        await people.users.change_password(actor, current=RIGHT, password=Secret("another long password"))
    with pytest.raises(Throttled):
        await people.sessions.login(EMAIL, RIGHT, address="10.0.0.66")  # one count for both
    await _sign_in(people)  # the owner's own address is not kept out
    clock.advance(caught.value.retry_after)
    await people.users.change_password(actor, current=RIGHT, password=Secret("another long password"))
    for _ in range(5):
        with pytest.raises(Forbidden):
            await people.users.change_password(actor, current=WRONG, password=Secret("another long password"))


async def test_waiting_survives_a_restart_and_is_forgotten_after_a_while(people, started, clock, database, audit):
    await _fail(people, 5)
    again = type(people.sessions)(database, people.sessions._repository, passwords=people.sessions._passwords, audit=audit, clock=clock)
    with pytest.raises(Throttled):
        await again.login(EMAIL, RIGHT, address="10.0.0.1")
    clock.advance(3 * 3600)
    await _fail(people, 4)
    await _sign_in(people)
    async with database.read() as connection:
        assert (await connection.execute(sa.select(sa.func.count()).select_from(login_attempts))).scalar_one() <= 4


async def test_failed_sign_ins_are_recorded_for_known_accounts(people, started, audit):
    await _fail(people, 1)
    entries = await audit.find(started.organization.id, EntryFilter(outcome=AuditOutcome.REFUSED), before=None, limit=10)
    assert [(entry.action, entry.target) for entry in entries] == [("session.login", started.owner.id)]


async def test_nothing_in_the_tables_opens_an_account(people, started, database, owner):
    _, session = await people.sessions.login(EMAIL, RIGHT, address="10.0.0.1")
    _, token = await people.api_tokens.create(owner, name="ci", scopes={"teams.read"})
    async with database.read() as connection:
        rows = [str((await connection.execute(sa.select(table))).all()) for table in (users, sessions, api_tokens, login_attempts)]
    for secret in (OWNER_PASSWORD, session.token.open(), token.open()):
        assert secret not in "".join(rows)
    assert EMAIL not in rows[3]


async def test_an_api_token_does_what_its_scopes_say_until_it_ends(people, owner, clock):
    made, token = await people.api_tokens.create(owner, name="ci", scopes={"teams.read"}, expires_at_ns=clock.now_ns() + 10 * 10**9)
    actor = await people.sessions.authenticate(token.open(), address=None, request_id=None)
    assert allows(actor, "teams.read")
    assert allows(actor, "account.self")
    assert not allows(actor, "teams.write")
    assert (await people.api_tokens.list(owner, after=None, limit=5))[0].last_used_at_ns == clock.now_ns()
    clock.advance(10)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(token.open(), address=None, request_id=None)
    assert made.hint.endswith(token.open()[-4:])


async def test_nobody_grants_more_than_they_hold(people, owner):
    admin = replace(owner, role=Role.ADMIN)
    developer = replace(owner, role=Role.DEVELOPER)
    with pytest.raises(Forbidden):
        await people.api_tokens.create(admin, name="x", scopes={"owners.write"})
    with pytest.raises(Forbidden):
        await people.api_tokens.create(developer, name="x", scopes={"virtual_keys.read", "teams.write"})
    with pytest.raises(InvalidInput):
        await people.api_tokens.create(owner, name="x", scopes={"unheard.of"})
    with pytest.raises(Forbidden):
        await people.users.create(admin, email="x@example.com", name="x", role=Role.OWNER, password=RIGHT)
    _, token = await people.api_tokens.create(owner, name="users", scopes={"users.write", "api_tokens.write"})
    actor = await people.sessions.authenticate(token.open(), address=None, request_id=None)
    with pytest.raises(Forbidden):
        await people.users.create(actor, email="x@example.com", name="x", role=Role.VIEWER, password=RIGHT)
    with pytest.raises(Forbidden):
        await people.users.set_password(actor, owner.id, RIGHT)
    with pytest.raises(Forbidden):
        await people.api_tokens.create(actor, name="child", scopes={"users.write"})


async def test_a_token_holds_no_more_than_its_user_does_now(people, owner, started):
    second = await people.users.create(owner, email="second@example.com", name="Second", role=Role.OWNER, password=RIGHT)
    actor = await _sign_in(people, "second@example.com")
    _, token = await people.api_tokens.create(actor, name="ci", scopes={"teams.write", "teams.read"})
    await people.users.update(owner, second.id, {"role": Role.VIEWER})
    now = await people.sessions.authenticate(token.open(), address=None, request_id=None)
    assert held_by(now) == {"teams.read", "account.self"}


async def test_a_revoked_token_is_refused_on_the_next_call(people, owner):
    made, token = await people.api_tokens.create(owner, name="ci", scopes={"teams.read"})
    await people.api_tokens.revoke(owner, made.id)
    await people.api_tokens.revoke(owner, made.id)
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(token.open(), address=None, request_id=None)


async def test_others_tokens_are_absent_for_a_developer(people, owner):
    made, _ = await people.api_tokens.create(owner, name="ci", scopes={"teams.read"})
    developer = replace(owner, role=Role.DEVELOPER, user_id="usr_other", id="usr_other")
    assert await people.api_tokens.list(developer, after=None, limit=5) == []
    with pytest.raises(NotFound):
        await people.api_tokens.revoke(developer, made.id)


async def test_the_last_owner_stays_also_when_two_leave_at_once(people, owner, started):
    with pytest.raises(Conflict):
        await people.users.update(owner, owner.id, {"role": Role.ADMIN})
    second = await people.users.create(owner, email="second@example.com", name="Second", role=Role.OWNER, password=RIGHT)
    outcomes = await asyncio.gather(
        people.users.deactivate(owner, owner.id), people.users.deactivate(owner, second.id), return_exceptions=True
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 1
    left = [user for user in await people.users.list(owner, after=None, limit=10) if user.status is Status.ACTIVE]
    assert len(left) == 1


async def test_a_change_of_role_ends_sign_ins(people, owner):
    user = await people.users.create(owner, email="v@example.com", name="V", role=Role.VIEWER, password=RIGHT)
    _, session = await people.sessions.login("v@example.com", RIGHT, address=None)
    await people.users.update(owner, user.id, {"role": Role.ADMIN})
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(session.token.open(), address=None, request_id=None)


async def test_a_new_password_ends_other_sign_ins_and_the_old_password(people, started):
    first = await _sign_in(people)
    _, other = await people.sessions.login(EMAIL, RIGHT, address=None)
    with pytest.raises(Forbidden):
        await people.users.change_password(first, current=WRONG, password=Secret("another long password"))
    await people.users.change_password(first, current=RIGHT, password=Secret("another long password"))
    with pytest.raises(Unauthenticated):
        await people.sessions.authenticate(other.token.open(), address=None, request_id=None)
    with pytest.raises(Unauthenticated):
        await people.sessions.login(EMAIL, RIGHT, address=None)
    await _sign_in(people, password=Secret("another long password"))


async def test_a_user_of_role_developer_is_a_developer(people, owner):
    with pytest.raises(InvalidInput):
        await people.users.create(owner, email="d@example.com", name="D", role=Role.DEVELOPER, password=RIGHT)
    with pytest.raises(InvalidInput):
        await people.users.create(owner, email="d@example.com", name="D", role=Role.DEVELOPER, password=RIGHT, developer_id="dev_unknown")


async def test_addresses_of_users_are_unique(people, owner):
    with pytest.raises(Conflict):
        await people.users.create(owner, email="OWNER@example.com", name="D", role=Role.VIEWER, password=RIGHT)


async def test_an_old_hash_is_renewed_at_the_next_sign_in(people, started, database, audit, clock):
    stronger = Passwords(memory_kib=16, passes=2)
    renewed = type(people.sessions)(database, people.sessions._repository, passwords=stronger, audit=audit, clock=clock)
    await renewed.login(EMAIL, RIGHT, address=None)
    async with database.read() as connection:
        stored = (await connection.execute(sa.select(users.c.password_hash))).scalar_one()
    assert not stronger.outdated(stored)
    assert await stronger.matches(stored, RIGHT)


def test_roles_nest_as_promised():
    assert permissions_of(Role.OWNER) == KNOWN
    assert permissions_of(Role.VIEWER) < permissions_of(Role.ADMIN) < permissions_of(Role.OWNER)
    assert not [name for name in permissions_of(Role.VIEWER) if name.endswith(".write")]
    assert {name for name in permissions_of(Role.DEVELOPER) if name.endswith(".write")} == {
        "virtual_keys.write",
        "api_tokens.write",
        "issued_tokens.write",  # a fresh short-lived token for a vendor key of their own
    }


@pytest.mark.parametrize("role", Role)
def test_only_owners_manage_owners(role):
    actor = Actor(kind="user", id="usr_1", organization_id="org_1", role=role)
    assert may_grant(actor, Role.OWNER) == (role is Role.OWNER)


def test_ipv6_counts_by_network_and_mapped_addresses_by_host():
    assert throttle.network_of("2001:db8::1") == throttle.network_of("2001:db8::ffff")
    assert throttle.network_of("::ffff:10.0.0.1") == "10.0.0.1"
    assert throttle.network_of(None) == throttle.network_of("testclient") == "unknown"
