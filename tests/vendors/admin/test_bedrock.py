"""Keys at AWS Bedrock: made, bounded, rotated and revoked at the sandbox; boto3 reads its side and uses the keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdks.aws_clients import KEY_ID, MODEL, PROFILE, TEXT, Boto
from tests.sdks.bridge import Bridge, SdkError
from tests.vendors.admin.desks import Steps, answer, desk

from keygate.kit.clock import SystemClock
from keygate.kit.ids import new_id
from keygate.kit.outbound import Outbound
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault, Credential, FaultKind
from keygate.vendors.admin import (
    AddsKey,
    AdminDesk,
    AdminKeyRefused,
    CeilingReached,
    Disables,
    Footprint,
    Found,
    Lists,
    Made,
    Mark,
    MissingRight,
    Order,
    Presence,
    ProvisionerError,
    RateLimited,
    Rejected,
    ReportsSpend,
    Retires,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    Terms,
    Unavailable,
)
from keygate.vendors.admin.bedrock import BEDROCK_ADMIN as BEDROCK
from keygate.vendors.admin.bedrock.policy import document, terms_of

SECOND = 10**9
DAY = 86_400 * SECOND
OTHER = "anthropic.claude-opus-4-5-20251101-v1:0"


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.BEDROCK]


@pytest.fixture
def boto(sandbox: SandboxServer, account: Account, aws_bridge: Bridge) -> Boto:
    return Boto(aws_bridge, sandbox, account.create_credential(name=KEY_ID))


def seat(sandbox: SandboxServer, outbound: Outbound, credential: Credential, **changes: Any) -> AdminDesk:
    settings = sandbox.state.admin.api(Vendor.BEDROCK).settings(sandbox.address, credential)  # as the sandbox's `configure` answers
    options = {name: changes.pop(name) for name in ("watcher", "sleep") if name in changes}
    return desk(BEDROCK.facts, outbound, credential.value, clock=SystemClock(), settings={**settings, **changes}, **options)


@pytest.fixture
def admin(account: Account) -> Credential:
    return account.create_credential(name="AKIASANDBOX00000002")


@pytest.fixture
def at(sandbox: SandboxServer, outbound: Outbound, admin: Credential) -> AdminDesk:
    return seat(sandbox, outbound, admin)


def terms(account: Account, *models: str, days: int = 90) -> Terms:
    return Terms(models=models or (MODEL,), expires_at_ns=(account.now_ns() + days * DAY) // SECOND * SECOND)


def order(mark: Mark, wanted: Terms, generation: int = 1, **options: str) -> Order:
    return Order(mark, generation, "priya, team search", wanted, options)


def fresh() -> Mark:
    return Mark(new_id("ik"))


def opens(boto: Boto, made: Made, model: str = MODEL) -> str:
    """What boto3 gets with nothing but the secret: the text, or why it is refused."""
    try:
        return boto.converse(made.secret.open(), model)
    except SdkError as error:
        return f"{error.status} {error}"


def keys_of(boto: Boto, mark: Mark) -> list[str]:
    found = boto.iam("list_service_specific_credentials", UserName=mark.tag)["ServiceSpecificCredentials"]
    return [str(each["ServiceSpecificCredentialId"]) for each in found]


async def test_a_key_works_at_the_vendor_within_its_policy_until_it_is_revoked_there(
    at: AdminDesk, account: Account, boto: Boto, sandbox: SandboxServer
) -> None:
    mark, wanted = fresh(), terms(account, MODEL, PROFILE)
    first = await BEDROCK.create(at, replace(order(mark, wanted), fresh=True))
    assert first.secret_env == "AWS_BEARER_TOKEN_BEDROCK"
    assert first.env["AWS_REGION"] == "us-east-1"
    assert first.env["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] == f"{sandbox.address}/aws/bedrock-runtime"
    assert await BEDROCK.answers(at, first.footprint, first.secret, first.env)
    assert opens(boto, first) == opens(boto, first, PROFILE) == TEXT
    assert "not authorized to perform: bedrock:InvokeModel" in opens(boto, first, OTHER)

    # What is in force, as boto3 and as we read it.
    stands = boto.iam("get_user_policy", UserName=mark.tag, PolicyName="keygate")["PolicyDocument"]["Statement"]
    resources = {each["Sid"]: each["Resource"] for each in stands}
    assert resources["KeyGateModels"] == [f"arn:aws:bedrock:*::foundation-model/{MODEL}"]
    assert resources["KeyGateProfiles"] == [f"arn:aws:bedrock:*:*:inference-profile/{PROFILE}"]
    reading = await BEDROCK.read(at, first.footprint)
    assert (reading.presence, reading.terms) == (Presence.LIVE, wanted)

    # Rotation with overlap: both work, then only the new one.
    second = await BEDROCK.create(at, order(mark, wanted, 2))
    assert opens(boto, first) == opens(boto, second) == TEXT
    await BEDROCK.revoke(at, first.footprint)
    assert (await BEDROCK.read(at, first.footprint)).presence is Presence.GONE
    assert keys_of(boto, mark) == [second.footprint.key]
    assert opens(boto, first).startswith("403 Authentication failed")
    assert opens(boto, second) == TEXT
    assert (await BEDROCK.read(at, second.footprint)).terms == wanted

    await BEDROCK.revoke(at, second.footprint)
    assert opens(boto, second).startswith("403 Authentication failed")
    await BEDROCK.retire(at, second.footprint)
    assert boto.iam("list_users", PathPrefix="/keygate/")["Users"] == []
    assert await BEDROCK.find(at, mark) == ()


async def test_generations_are_told_apart_while_lists_are_late(at: AdminDesk, account: Account) -> None:
    mark, wanted = fresh(), terms(account)
    account.settings = account.settings.with_changes({"lists_s": 3_600})
    made = [await BEDROCK.create(at, order(mark, wanted, generation)) for generation in (1, 2)]
    assert [each.generation for each in await BEDROCK.find(at, mark)] == [None], "no list shows the keys"
    account.settings = account.settings.with_changes({"lists_s": 0})
    found = {each.footprint.key: each.generation for each in await BEDROCK.find(at, mark)}
    assert found == {None: None, made[0].footprint.key: 1, made[1].footprint.key: 2}, "the first is not taken for the second"


async def test_generations_are_told_apart_though_keys_have_no_names(at: AdminDesk, account: Account) -> None:
    mark, wanted = fresh(), terms(account)
    made = [await BEDROCK.create(at, order(mark, wanted, generation)) for generation in (1, 2)]
    with pytest.raises(CeilingReached) as error:
        await BEDROCK.create(at, order(mark, wanted, 3))
    assert error.value.ceiling == 2
    for generation in (3, 4, 5):
        await BEDROCK.revoke(at, made[-2].footprint)
        made.append(await BEDROCK.create(at, order(mark, wanted, generation)))
        found = await BEDROCK.find(at, mark)
        assert {each.footprint.key: each.generation for each in found if each.footprint.key} == {
            each.footprint.key: number for number, each in list(enumerate(made, 1))[-2:]
        }
    (user,) = (entry.more["it"] for entry in account.shelves["users"])
    assert len(user.tags) == 5  # id, title, generation, two keys: tags of revoked keys are gone


async def test_a_process_that_dies_after_any_call_leaves_nothing_unknown(
    sandbox: SandboxServer, outbound: Outbound, admin: Credential, account: Account, boto: Boto
) -> None:
    class Dies(Steps):
        def __init__(self, after: int) -> None:
            super().__init__()
            self.left = after

        async def after(self, what: str, outcome: str) -> None:
            await super().after(what, outcome)
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    at, wanted, whole = seat(sandbox, outbound, admin), terms(account), Steps()
    await BEDROCK.create(seat(sandbox, outbound, admin, watcher=whole), order(fresh(), wanted))
    steps = len(whole.told) // 2
    assert steps == 4  # user, policy, key, its generation
    for step in range(1, steps + 1):
        mark = fresh()
        with pytest.raises(KeyboardInterrupt):
            await BEDROCK.create(seat(sandbox, outbound, admin, watcher=Dies(step)), order(mark, wanted))
        lost = [each for each in await BEDROCK.find(at, mark) if each.footprint.key]
        assert [each.generation for each in lost] == ([1] if step >= 3 else [])
        for each in lost:  # its secret was never told: as the caller does
            await BEDROCK.revoke(at, each.footprint)
        made = await BEDROCK.create(at, order(mark, wanted))
        assert opens(boto, made) == TEXT
        assert keys_of(boto, mark) == [made.footprint.key]


async def test_an_uncertain_creation_is_found_by_its_generation(at: AdminDesk, account: Account, boto: Boto) -> None:
    mark, wanted = fresh(), terms(account)
    await BEDROCK.create(at, order(mark, wanted))
    account.faults.append(AdminFault("CreateServiceSpecificCredential", kind=FaultKind.RESET, performed=True))
    with pytest.raises(Unavailable) as error:
        await BEDROCK.create(at, order(mark, wanted, 2))
    assert error.value.uncertain
    (lost,) = (each for each in await BEDROCK.find(at, mark) if each.generation == 2)
    await BEDROCK.revoke(at, lost.footprint)
    assert opens(boto, await BEDROCK.create(at, order(mark, wanted, 2))) == TEXT


async def test_a_user_that_iam_has_not_heard_of_everywhere_is_waited_for(at: AdminDesk, account: Account, boto: Boto) -> None:
    account.faults.append(AdminFault("PutUserPolicy", status=404, code="NoSuchEntity", calls=2))
    account.faults.append(AdminFault("CreateServiceSpecificCredential", status=404, code="NoSuchEntity"))
    assert opens(boto, await BEDROCK.create(at, order(fresh(), terms(account)))) == TEXT


async def test_the_end_in_the_policy_ends_the_key_and_can_be_moved(at: AdminDesk, account: Account, boto: Boto) -> None:
    made = await BEDROCK.create(at, order(fresh(), terms(account, days=1)))
    account.clock.advance(86_500)
    assert "not authorized" in opens(boto, made)
    later = (account.now_ns() + DAY) // SECOND * SECOND
    await BEDROCK.set_expiry(at, made.footprint, later)
    assert opens(boto, made) == TEXT
    assert (await BEDROCK.read(at, made.footprint)).terms == Terms(models=(MODEL,), expires_at_ns=later)
    await BEDROCK.set_expiry(at, made.footprint, None)
    assert (await BEDROCK.read(at, made.footprint)).terms == Terms(models=(MODEL,))
    await BEDROCK.set_expiry(at, made.footprint, SECOND)
    assert (await BEDROCK.read(at, made.footprint)).presence is Presence.EXPIRED


async def test_models_and_the_switch_are_changed_and_read_back(at: AdminDesk, account: Account, boto: Boto) -> None:
    wanted = terms(account)
    made = await BEDROCK.create(at, order(fresh(), wanted))
    await BEDROCK.set_models(at, made.footprint, (OTHER,))
    assert (await BEDROCK.read(at, made.footprint)).terms == Terms(models=(OTHER,), expires_at_ns=wanted.expires_at_ns)
    assert (opens(boto, made, OTHER), opens(boto, made)[:3]) == (TEXT, "403")
    await BEDROCK.set_models(at, made.footprint, None)
    assert (await BEDROCK.read(at, made.footprint)).terms == Terms(expires_at_ns=wanted.expires_at_ns)
    assert opens(boto, made) == opens(boto, made, OTHER) == TEXT
    await BEDROCK.set_enabled(at, made.footprint, enabled=False)
    assert (await BEDROCK.read(at, made.footprint)).presence is Presence.DISABLED
    assert opens(boto, made).startswith("403 Authentication failed")
    await BEDROCK.set_enabled(at, made.footprint, enabled=True)
    assert opens(boto, made) == TEXT


async def test_a_policy_that_someone_changed_is_not_read_as_ours(at: AdminDesk, account: Account, boto: Boto) -> None:
    made = await BEDROCK.create(at, order(mark := fresh(), terms(account)))
    text = document(None, None).replace('"Effect":"Allow"', '"Effect":"Deny"', 1)
    boto.iam("put_user_policy", UserName=mark.tag, PolicyName="keygate", PolicyDocument=text)
    reading = await BEDROCK.read(at, made.footprint)
    assert (reading.presence, reading.terms) == (Presence.LIVE, Terms())
    with pytest.raises(Rejected, match="not as KeyGate wrote it"):
        await BEDROCK.set_models(at, made.footprint, (MODEL,))


async def test_a_list_that_is_late_shows_a_revoked_key_until_it_knows(at: AdminDesk, account: Account) -> None:
    made = await BEDROCK.create(at, order(fresh(), terms(account)))
    account.clock.advance(31)
    account.settings = account.settings.with_changes({"lists_s": 30})
    await BEDROCK.revoke(at, made.footprint)
    assert (await BEDROCK.read(at, made.footprint)).presence is Presence.LIVE
    account.clock.advance(31)
    assert (await BEDROCK.read(at, made.footprint)).presence is Presence.GONE


async def test_missing_rights_are_named_and_nothing_is_made(sandbox: SandboxServer, outbound: Outbound, account: Account) -> None:
    gone = ["iam:CreateServiceSpecificCredential", "iam:PutUserPolicy"]
    at = seat(sandbox, outbound, account.create_credential(name="AKIANARROW", without=gone))
    verified = await BEDROCK.verify(at)
    assert sorted(right.name for right in verified.missing) == gone
    assert (verified.account, verified.notes) == ("AWS account 123456789012", ("5000 of 5000 IAM users are left",))
    untold = {name: value for name, value in at.settings.items() if name != "runtime_url"}
    [note, _] = (await BEDROCK.verify(replace(at, settings=untold))).notes
    assert "no key can be asked whether it works" in note
    assert "runtime_url" in note
    assert not list(account.shelves["users"])
    with pytest.raises(MissingRight) as error:
        await BEDROCK.create(at, order(fresh(), terms(account)))
    assert error.value.right == "iam:PutUserPolicy"


async def test_rights_that_cannot_be_looked_up_are_not_claimed(sandbox: SandboxServer, outbound: Outbound, account: Account) -> None:
    credential = account.create_credential(name="AKIABLIND", without=["iam:SimulatePrincipalPolicy"])
    verified = await BEDROCK.verify(seat(sandbox, outbound, credential))
    assert [right.name for right in verified.missing] == ["iam:SimulatePrincipalPolicy"]
    assert {right.held for right in verified.rights} == {False, None}


@pytest.mark.parametrize("wrong", ["secret", "id"])
async def test_an_unknown_access_key_is_refused_without_being_shown(
    sandbox: SandboxServer, outbound: Outbound, admin: Credential, wrong: str
) -> None:
    other = Credential("another-secret" if wrong == "secret" else admin.value, "AKIAOTHER" if wrong == "id" else admin.name)
    with pytest.raises(AdminKeyRefused) as error:
        await BEDROCK.verify(seat(sandbox, outbound, other))
    assert other.value not in str(error.value)


async def test_a_full_account_is_told_before_anything_is_made(at: AdminDesk, account: Account) -> None:
    account.settings = account.settings.with_changes({"ceilings": {"users": 1}})
    await BEDROCK.create(at, order(fresh(), terms(account)))
    with pytest.raises(CeilingReached) as error:
        await BEDROCK.create(at, order(fresh(), terms(account)))
    assert (error.value.what, error.value.ceiling) == ("IAM users", 1)
    assert [call.operation for call in account.calls].count("CreateUser") == 1


@pytest.mark.parametrize("code", ["Throttling", "RequestLimitExceeded", "SlowDown"])
async def test_throttled_calls_are_waited_out_and_made_once(
    sandbox: SandboxServer, outbound: Outbound, admin: Credential, account: Account, boto: Boto, code: str
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    account.faults.append(AdminFault("Create*", status=400, code=code, message="Rate exceeded", calls=4))
    with pytest.raises(SdkError) as told:  # as boto3 sees it
        boto.iam("create_user", UserName="throttled")
    assert (told.value.status, told.value.code) == (400, code)
    steps, mark = Steps(), fresh()
    made = await BEDROCK.create(seat(sandbox, outbound, admin, watcher=steps, sleep=sleep), order(mark, terms(account)))
    assert keys_of(boto, mark) == [made.footprint.key]
    assert len(waits) == 3
    assert sorted(waits) == waits
    assert [each for each in steps.told if "create the user" in each] == [
        f"> create the user {mark.tag}",
        f"< create the user {mark.tag}: 200",
    ]


@pytest.mark.parametrize("code", [None, "SomethingNew"])
async def test_a_429_is_throttling_whatever_its_code(
    sandbox: SandboxServer, outbound: Outbound, admin: Credential, account: Account, boto: Boto, code: str | None
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    account.faults.append(AdminFault("*", status=429, code=code, retry_after="3", calls=3))
    if code is None:
        with pytest.raises(SdkError) as told:
            boto.iam("create_user", UserName="throttled")
        assert (told.value.status, told.value.code) == (429, "Throttling")
    mark = fresh()
    made = await BEDROCK.create(seat(sandbox, outbound, admin, sleep=sleep), order(mark, terms(account)))
    assert keys_of(boto, mark) == [made.footprint.key]
    assert waits
    assert min(waits) >= 3


@pytest.mark.parametrize("code", ["ValidationError", "NoSuchEntity", "DeleteConflict", "LimitExceeded"])
async def test_a_key_in_awss_words_is_blacked_out(at: AdminDesk, account: Account, code: str) -> None:
    key = "ABSKQmVkcm9ja0FQSUtleS1hYmNkLWF0LTEyMzQ1Njc4OTAxMjpsb25n"
    account.faults.append(AdminFault("CreateUser", status=400, code=code, message=f"{'x' * 270} key {key} of {key}"))
    with pytest.raises(ProvisionerError) as refused:
        await BEDROCK.create(at, order(fresh(), terms(account)))
    assert key[:12] not in refused.value.detail


async def test_throttled_for_longer_than_a_call_waits_it_says_when_to_come_back(
    sandbox: SandboxServer, outbound: Outbound, admin: Credential, account: Account
) -> None:
    async def sleep(_: float) -> None: ...

    account.settings = account.settings.with_changes({"requests_per_minute": 1})
    at = seat(sandbox, outbound, admin, sleep=sleep)
    await BEDROCK.find(at, fresh())
    with pytest.raises(RateLimited) as error:
        await BEDROCK.find(at, fresh())
    assert error.value.retry_after > 0
    assert not error.value.lasting


@pytest.mark.parametrize("body", [b"", b"not xml", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', b"<a>" * 2000])
async def test_an_answer_that_is_no_xml_is_told_as_that(body: bytes) -> None:
    class Strange:
        async def send(self, *_: Any, **__: Any) -> Any:
            return answer(200, body)

    at = desk(BEDROCK.facts, Strange(), "secret-of-nobody", clock=SystemClock(), settings={"access_key_id": "AKIA", "region": "r"})
    with pytest.raises(Unavailable, match="not the XML expected"):
        await BEDROCK.find(at, fresh())


@pytest.mark.parametrize("models", [("a model",), tuple(f"anthropic.claude-{number}-{'x' * 60}" for number in range(40)), ("*",)])
async def test_models_that_no_policy_can_name_are_refused_before_anything_is_made(
    at: AdminDesk, account: Account, models: tuple[str, ...]
) -> None:
    with pytest.raises(Rejected):
        await BEDROCK.create(at, order(fresh(), Terms(models=models)))
    assert not list(account.shelves["users"])


async def inventory(at: AdminDesk) -> list[Found]:
    found: list[Found] = []
    cursor: str | None = None
    for _ in range(10):
        page, cursor = await BEDROCK.list_page(at, cursor)
        found += page
        if cursor is None:
            return found
    raise AssertionError(cursor)


async def test_the_inventory_has_other_users_keys_too(at: AdminDesk, account: Account, boto: Boto) -> None:
    boto.user("theirs")
    boto.user("without-keys")
    theirs = boto.key("theirs")["ServiceSpecificCredentialId"]
    made = await BEDROCK.create(at, order(mark := fresh(), terms(account)))
    found = await inventory(at)
    assert {each.footprint.key: each.owner for each in found if each.footprint.key} == {theirs: "theirs", made.footprint.key: mark.tag}
    assert [each.name for each in found if not each.footprint.key] == [mark.tag]


async def test_the_inventory_without_sight_of_others_has_our_own(at: AdminDesk, account: Account, boto: Boto) -> None:
    """The guide's policy reaches users under /keygate/ only."""
    boto.user("theirs")
    boto.key("theirs")
    made = await BEDROCK.create(at, order(fresh(), terms(account)))
    account.faults.append(AdminFault("ListServiceSpecificCredentials", status=403, code="AccessDenied"))
    assert [each.footprint.key for each in await inventory(at) if each.footprint.key] == [made.footprint.key]


async def test_what_is_revoked_or_was_never_there_is_no_error_and_gone(at: AdminDesk, account: Account) -> None:
    never = Footprint({"user": fresh().tag}, "ACCANEVER")
    assert (await BEDROCK.read(at, never)).presence is Presence.GONE
    assert (await BEDROCK.read(at, Footprint(never.place))).presence is Presence.GONE
    await BEDROCK.revoke(at, never)
    await BEDROCK.retire(at, never)
    made = await BEDROCK.create(at, order(fresh(), terms(account)))
    await BEDROCK.revoke(at, made.footprint)
    await BEDROCK.revoke(at, made.footprint)


NAMES = st.from_regex(r"(?:us\.|eu\.|global\.)?(?:anthropic|amazon|meta)\.[a-z0-9-]{1,20}(?:-v1:0)?", fullmatch=True)


@given(st.none() | st.sets(NAMES, min_size=1, max_size=4), st.none() | st.integers(1, 4 * 10**9).map(lambda second: second * SECOND))
def test_a_policy_says_what_it_was_written_for(models: set[str] | None, expires_at_ns: int | None) -> None:
    wanted = None if models is None else tuple(sorted(models))
    read = terms_of(document(wanted, expires_at_ns))
    assert read is not None
    assert (None if read.models is None else tuple(sorted(read.models)), read.expires_at_ns) == (wanted, expires_at_ns)


def test_powers_are_those_that_bedrock_has() -> None:
    for power in (AddsKey, Disables, Lists, ReportsSpend, Retires, SetsExpiry, SetsModels):
        assert isinstance(BEDROCK, power)
    for power in (SetsBudget, SetsLimits):
        assert not isinstance(BEDROCK, power)
    assert {"budget", "tokens_per_minute"} <= set(BEDROCK.facts.cannot)
