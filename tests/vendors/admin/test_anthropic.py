"""Anthropic's provisioner against the sandbox: Anthropic's own SDK uses what KeyGate issues, and reads the vendor's side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.sdks.admin_clients import Sdk
from tests.sdks.bridge import SdkError
from tests.sdks.identity import TestIssuer
from tests.vendors.admin.desks import Steps, desk, ended_early

from keygate.kit.clock import NANOSECONDS
from keygate.kit.ids import new_id
from keygate.kit.money import NANO
from keygate.kit.outbound import Outbound
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault, FaultKind
from keygate.sandbox.admin.anthropic import AnthropicAdmin
from keygate.vendors.admin import (
    AddsKey,
    AdminDesk,
    AdminKeyRefused,
    CeilingReached,
    Disables,
    Footprint,
    Lists,
    Made,
    Mark,
    Mints,
    MissingRight,
    Order,
    Period,
    Presence,
    Rejected,
    Renames,
    ReportsSpend,
    Retires,
    SetsBudget,
    SetsExpiry,
    SetsLimits,
    SetsModels,
    Term,
    Terms,
    Unavailable,
)
from keygate.vendors.admin.anthropic import ANTHROPIC_ADMIN
from keygate.vendors.admin.anthropic.facts import ACCESS_SECONDS, ADMIN, LONGEST_IDENTITY_SECONDS
from keygate.vendors.admin.anthropic.lifetimes import identity_ends

HOUR_NS = 3_600 * NANOSECONDS
DAY_NS = 24 * HOUR_NS
HELLO: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
DEAR = {**HELLO, "messages": [{"role": "user", "content": "sandbox(input_tokens=1000000 output_tokens=0)"}]}
provisioner = ANTHROPIC_ADMIN


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.ANTHROPIC]


def console(account: Account, action: str, **body: Any) -> Any:
    return AnthropicAdmin().console(account, action, body)


@pytest.fixture
def issuer(account: Account) -> TestIssuer:
    return TestIssuer(account.now_ns)


@pytest.fixture
def federation(account: Account, issuer: TestIssuer) -> dict[str, str]:
    """What an admin sets up in the Console once, as the settings of the vendor account."""
    keys = {"type": "inline", "keys": issuer.jwks()["keys"]}
    made = console(account, "admin_rule", issuer_url=issuer.url, jwks=keys, subject="keygate:admin", audience="https://api.anthropic.com")
    return {name: made[name] for name in ("organization_id", "federation_rule_id", "service_account_id")}


@pytest.fixture
def office(
    sandbox: SandboxServer, account: Account, outbound: Outbound, issuer: TestIssuer, federation: dict[str, str]
) -> Callable[..., AdminDesk]:
    def open_desk(admin: str | None = None, *, federated: bool = True, watcher: Any = None, **credential: Any) -> AdminDesk:
        value = account.create_credential(**credential).value if admin is None else admin
        settings = {"base_url": sandbox.anthropic_base_url, **(federation if federated else {})}
        clock = sandbox.state.admin.clock
        return desk(provisioner.facts, outbound, value, clock=clock, settings=settings, issuer=issuer, watcher=watcher)

    return open_desk


@pytest.fixture
def use(anthropic_sdk: Sdk) -> Callable[..., str]:
    """A call by Anthropic's own SDK, given nothing but the variables that the holder of the key sets."""

    def call(made: Made, **body: Any) -> str:
        environment = {**made.env, made.secret_env: made.secret.open()}
        answer = anthropic_sdk("messages.create", key={"environment": environment}, **(body or HELLO))
        return str(answer["content"][0]["text"]) if answer["content"] else ""

    return call


@pytest.fixture
def vendor(anthropic_sdk: Sdk, account: Account) -> Callable[..., Any]:
    """What Anthropic shows, by its own SDK with an OAuth bearer of an admin."""
    owner = {"token": account.create_credential(kind="oauth").value}
    return lambda method, *arguments, **options: anthropic_sdk(f"organization.{method}", *arguments, key=owner, **options)


def order(generation: int = 1, mark: Mark | None = None, **terms: Any) -> Order:
    return Order(mark or Mark(new_id("ik")), generation, "priya, team search", Terms(**terms))


def test_what_anthropic_can_is_told_by_its_protocols() -> None:
    for power in (AddsKey, Retires, Mints, SetsBudget, SetsLimits, Disables, Renames, Lists, ReportsSpend):
        assert isinstance(provisioner, power)
    for power in (SetsModels, SetsExpiry):
        assert not isinstance(provisioner, power)
    assert {"create", "budget", "models", "tokens_per_minute", "scopes"} <= provisioner.facts.cannot.keys()


async def test_key_is_made_limited_used_rotated_and_revoked(office, vendor, use, sandbox) -> None:
    at = office()
    wanted = order(requests_per_minute=30)
    made = await provisioner.create(at, wanted)
    assert made.secret_env == "ANTHROPIC_IDENTITY_TOKEN"
    assert use(made)

    workspace = vendor("workspaces.retrieve", made.footprint.place["workspace"])
    assert workspace["name"].startswith(wanted.mark.tag)
    rows = vendor("workspaces.rate_limits.list", workspace["id"], all=True)
    assert {limit["value"] for row in rows for limit in row["limits"] if limit["type"] == "requests_per_minute"} == {30}
    assert len(rows) == 3
    rule = vendor("federation.rules.retrieve", made.footprint.key)
    assert (rule["name"], rule["oauth_scope"], rule["workspace_ids"]) == (wanted.mark.key_name(1), "workspace:inference", [workspace["id"]])
    reading = await provisioner.read(at, made.footprint)
    assert (reading.presence, reading.terms) == (Presence.LIVE, wanted.terms)

    second = await provisioner.create(at, replace(wanted, generation=2, footprint=replace(made.footprint, key=None)))
    assert second.footprint.place == made.footprint.place
    for each in (made, second, made, second):
        assert use(each), "no failed call while they overlap"

    await provisioner.revoke(at, made.footprint)
    with pytest.raises(SdkError) as refused:
        use(made)
    assert (refused.value.status, refused.value.code) == ("WorkloadIdentityError", 401)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.GONE
    assert vendor("federation.rules.retrieve", made.footprint.key)["archived_at"] is not None
    assert use(second)
    await provisioner.revoke(at, made.footprint)  # again is no error

    await provisioner.retire(at, replace(second.footprint, key=None))
    with pytest.raises(SdkError):
        use(second)
    assert (await provisioner.read(at, second.footprint)).presence is Presence.GONE
    assert vendor("workspaces.retrieve", workspace["id"])["archived_at"] is not None
    assert vendor("service_accounts.retrieve", second.footprint.place["service_account"])["archived_at"] is not None
    assert await provisioner.find(at, wanted.mark) == ()
    await provisioner.retire(at, replace(second.footprint, key=None))


async def test_an_admins_token_that_anthropic_ended_early_is_traded_for_anew(office) -> None:
    at = office()
    await at.token(ADMIN, ended_early)
    made = await provisioner.create(at, order())
    assert (await provisioner.read(at, made.footprint)).presence is Presence.LIVE


async def test_access_token_lives_no_longer_than_is_told(office, anthropic_sdk, outbound, sandbox) -> None:
    at = office()
    made = await provisioner.create(at, order())
    body = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": made.secret.open(),
        "federation_rule_id": made.env["ANTHROPIC_FEDERATION_RULE_ID"],
        "organization_id": made.env["ANTHROPIC_ORGANIZATION_ID"],
    }
    shown = await at.http.json("POST", f"{at.base()}/v1/oauth/token", what="trade", right="none", json=body, changes=False)
    token = {"token": shown["access_token"]}
    assert shown["expires_in"] == provisioner.facts.revoke_delay_seconds
    await provisioner.revoke(at, made.footprint)
    assert anthropic_sdk("messages.create", key=token, **HELLO)["stop_reason"] == "end_turn"
    sandbox.state.admin.clock.advance(shown["expires_in"] + 1)
    with pytest.raises(SdkError):
        anthropic_sdk("messages.create", key=token, **HELLO)


async def trade(at: AdminDesk, made: Made) -> dict[str, Any]:
    """What Anthropic's SDK does with an identity token."""
    body = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": made.secret.open(),
        "federation_rule_id": made.env["ANTHROPIC_FEDERATION_RULE_ID"],
        "organization_id": made.env["ANTHROPIC_ORGANIZATION_ID"],
    }
    return await at.http.json("POST", f"{at.base()}/v1/oauth/token", what="trade", right="none", json=body, changes=False)


async def test_no_token_outlives_the_lease_and_a_fresh_one_is_minted_while_it_lasts(office, use, sandbox, account, anthropic_sdk) -> None:
    at, clock = office(), sandbox.state.admin.clock
    ends = account.now_ns() // NANOSECONDS * NANOSECONDS + HOUR_NS
    made = await provisioner.create(at, order(expires_at_ns=ends))
    assert ends - 302 * NANOSECONDS <= (made.expires_at_ns or 0) <= ends - 300 * NANOSECONDS
    clock.advance(3_240)  # a minute before the token ends; an access token of now would live ten
    late = await trade(at, made)
    assert clock.now_ns() + late["expires_in"] * NANOSECONDS <= ends
    clock.advance(61)
    with pytest.raises(SdkError, match="expired"):
        use(made)
    fresh = await provisioner.mint(at, made.footprint, expires_at_ns=ends)
    assert fresh.footprint == made.footprint
    assert use(fresh)
    last = await trade(at, fresh)
    assert clock.now_ns() + last["expires_in"] * NANOSECONDS <= ends
    clock.advance((ends - clock.now_ns()) / NANOSECONDS)
    for token in (late, last):
        with pytest.raises(SdkError):
            anthropic_sdk("messages.create", key={"token": token["access_token"]}, **HELLO)
    with pytest.raises(Rejected, match="too soon"):
        await provisioner.mint(at, made.footprint, expires_at_ns=ends)
    await provisioner.revoke(at, made.footprint)
    with pytest.raises(Exception, match="archived"):
        await provisioner.mint(at, made.footprint, expires_at_ns=None)


async def test_key_that_ends_before_any_token_is_refused_and_nothing_is_made(office, vendor, account) -> None:
    before = len(vendor("workspaces.list", all=True))
    with pytest.raises(Rejected, match="too soon"):
        await provisioner.create(office(), order(expires_at_ns=account.now_ns() + 60 * NANOSECONDS))
    assert len(vendor("workspaces.list", all=True)) == before


@given(
    left=st.integers(-10, 200_000),
    longest=st.integers(60, LONGEST_IDENTITY_SECONDS),
    traded=st.integers(0, LONGEST_IDENTITY_SECONDS),
    rule=st.just(ACCESS_SECONDS),
)
def test_whenever_an_identity_token_is_traded_the_access_token_ends_with_the_key(left: int, longest: int, traded: int, rule: int) -> None:
    now = 1_800_000_000 * NANOSECONDS
    ends = identity_ends(now, longest_seconds=longest, key_ends_ns=now + left * NANOSECONDS)
    if ends is None:
        assert left <= 62
        return
    lives = (ends - now) // NANOSECONDS
    assert 0 < lives <= longest
    if traded < lives:  # later trades are refused
        access = max(60, min(rule, 2 * (lives - traded)))  # as Anthropic says
        assert traded + 1 + access <= left, "even if the trade comes at the end of its second"


async def test_issuer_is_registered_once(office, vendor, issuer) -> None:
    at = office()
    for _ in range(3):
        await provisioner.create(at, order())
    assert len([each for each in vendor("federation.issuers.list", all=True) if each["issuer_url"] == issuer.url]) == 1


async def test_holder_cannot_use_one_key_as_another(office, use) -> None:
    at = office()
    first, second = [await provisioner.create(at, order()) for _ in range(2)]
    with pytest.raises(SdkError) as refused:
        use(replace(first, secret=second.secret))
    assert refused.value.code == 401


async def test_budget_is_set_where_the_organization_may_and_left_to_keygate_where_not(office, vendor, use, account) -> None:
    at = office()
    made = await provisioner.create(at, order(budget_nano=3 * NANO))
    assert (await provisioner.read(at, made.footprint)).terms.budget_nano is None
    console(account, "spend_limits", enabled=True)
    made = await provisioner.create(at, order(budget_nano=3 * NANO))
    assert (await provisioner.read(at, made.footprint)).terms.budget_nano == 3 * NANO
    use(made, **DEAR)
    with pytest.raises(SdkError, match="usage limits"):
        use(made)
    await provisioner.set_budget(at, made.footprint, 10 * NANO, Period.MONTH)
    assert use(made)
    await provisioner.set_budget(at, made.footprint, None, Period.MONTH)
    assert (await provisioner.read(at, made.footprint)).terms.budget_nano is None
    with pytest.raises(Rejected, match="monthly"):
        await provisioner.create(at, order(budget_nano=NANO, budget_period=Period.DAY))


async def test_what_the_organization_may_is_seen_by_verifying_and_what_it_does_not_tell_is_said(office, account) -> None:
    async def told(**credential: Any) -> frozenset[Term]:
        return (await provisioner.verify(office(**credential))).also_confirms

    at = office()
    made = await provisioner.create(at, order())
    assert await told() == frozenset()
    assert (await provisioner.read(at, made.footprint)).terms.untold == (Term.BUDGET,)
    console(account, "spend_limits", enabled=True)
    assert await told() == {Term.BUDGET}
    assert len(list(account.shelves["spend"])) == 0, "verifying makes nothing"
    assert await told(without=["billing:write"]) == await told(without=["billing:read"]) == frozenset()
    assert (await provisioner.read(at, made.footprint)).terms.untold == ()
    console(account, "spend_limits", enabled=False)
    assert await told() == frozenset()


async def test_an_order_that_counts_on_the_early_access_fails_where_it_is_over(office, account) -> None:
    with pytest.raises(MissingRight, match="vendors verify"):
        await provisioner.create(office(), replace(order(budget_nano=3 * NANO), must_set=frozenset({Term.BUDGET})))


async def test_limits_can_be_changed(office) -> None:
    at = office()
    made = await provisioner.create(at, order())
    assert (await provisioner.read(at, made.footprint)).terms == Terms()
    await provisioner.set_limits(at, made.footprint, Terms(requests_per_minute=5))
    assert (await provisioner.read(at, made.footprint)).terms == Terms(requests_per_minute=5)


async def test_key_made_by_hand_is_found_renamed_switched_off_and_ended(office, vendor, anthropic_sdk, account) -> None:
    at = office(federated=False)
    workspace = vendor("workspaces.create", name="by hand")["id"]
    by_hand = console(account, "keys", name="by hand", workspace_id=workspace, user_id="user_sam")
    own = {"key": by_hand["value"]}
    found, cursor = await provisioner.list_page(at, None)
    (key,) = found
    assert (key.footprint, key.owner) == (Footprint({"workspace": workspace}, by_hand["id"]), "user_sam")
    assert by_hand["value"].endswith(str(key.hint)[-4:])
    await provisioner.rename(at, key.footprint, "sam")
    assert vendor("api_keys.retrieve", by_hand["id"])["name"] == "sam"
    await provisioner.set_enabled(at, key.footprint, enabled=False)
    assert (await provisioner.read(at, key.footprint)).presence is Presence.DISABLED
    with pytest.raises(SdkError):
        anthropic_sdk("messages.create", key=own, **HELLO)
    await provisioner.set_enabled(at, key.footprint, enabled=True)
    assert anthropic_sdk("messages.create", key=own, **HELLO)["stop_reason"] == "end_turn"
    await provisioner.revoke(at, key.footprint)
    assert (await provisioner.read(at, key.footprint)).presence is Presence.GONE
    assert vendor("api_keys.retrieve", by_hand["id"])["status"] == "archived"
    with pytest.raises(SdkError):
        anthropic_sdk("messages.create", key=own, **HELLO)
    await provisioner.retire(at, replace(key.footprint, key=None))
    assert vendor("workspaces.retrieve", workspace)["archived_at"] is None, "a workspace that KeyGate did not make is left alone"
    found, cursor = await provisioner.list_page(at, cursor)
    assert ([each.name for each in found], cursor) == (["by hand"], None)


async def test_account_without_federation_makes_no_keys_and_says_what_is_missing(office, account) -> None:
    at = office(federated=False)
    told = await provisioner.verify(at)
    assert [right.name for right in told.missing] == ["org:admin"]
    assert any("makes no keys" in note for note in told.notes)
    with pytest.raises(MissingRight, match="federation_rule_id") as refused:
        await provisioner.create(at, order())
    assert refused.value.right == "org:admin"
    assert [each.body["name"] for each in account.shelves["workspaces"]] == ["Default"]


async def test_each_missing_right_is_named_and_verifying_makes_nothing(office, account) -> None:
    before = {name: len(list(shelf)) for name, shelf in account.shelves.items() if name != "tokens"}
    whole = await provisioner.verify(office())
    assert all(right.held for right in whole.rights)
    assert (whole.account, whole.notes) == ("Sandbox", ("0 workspaces stand; 100 are allowed by default",))
    some = await provisioner.verify(office(without=["workspaces:write", "usage:read"]))
    assert [right.name for right in some.missing] == ["workspaces:write", "usage:read"]
    with pytest.raises(AdminKeyRefused):
        await provisioner.verify(office("nobody"))
    assert {name: len(list(shelf)) for name, shelf in account.shelves.items() if name in before} == before


async def test_rule_that_does_not_fit_is_told_with_its_remedy(office, account, federation) -> None:
    rule = account.shelves["rules"].get(federation["federation_rule_id"])
    assert rule is not None
    rule.body["match"]["subject_prefix"] = "somebody:else"
    with pytest.raises(MissingRight, match="keygate:admin"):
        await provisioner.create(office(), order())


async def test_ceiling_is_told(office, account) -> None:
    account.settings = account.settings.with_changes({"ceilings": {"workspaces": 1}})
    at = office()
    await provisioner.create(at, order())
    with pytest.raises(CeilingReached):
        await provisioner.create(at, order())


@pytest.mark.parametrize(
    ("operation", "found"), [("workspaces.create", 1), ("service_accounts.create", 1), ("members.create", 1), ("rules.create", 2)]
)
async def test_making_is_finished_after_an_answer_was_lost(office, account, use, operation: str, found: int) -> None:
    account.faults.append(AdminFault(operation, FaultKind.RESET, performed=True))
    at, wanted = office(), order()
    if operation == "members.create":  # may be sent again, and is
        assert use(await provisioner.create(at, wanted))
    else:
        with pytest.raises(Unavailable) as lost:
            await provisioner.create(at, wanted)
        assert lost.value.uncertain
        left = await provisioner.find(at, wanted.mark)
        assert len(left) == found
        for each in left:
            await provisioner.revoke(at, each.footprint)
        made = await provisioner.create(at, wanted)
        assert use(made)
        assert [each.generation for each in await provisioner.find(at, wanted.mark) if each.footprint.key] == [1]
    standing = [each for each in account.shelves["workspaces"] if str(each.body["name"]).startswith(wanted.mark.tag)]
    assert len(standing) == 1
    assert len([each for each in account.shelves["service_accounts"] if each.body["name"] == wanted.mark.tag]) == 1
    for each in await provisioner.find(at, wanted.mark):
        if each.footprint.key is None:
            await provisioner.retire(at, each.footprint)
    assert await provisioner.find(at, wanted.mark) == ()


async def test_everything_of_a_mark_is_found_and_nothing_else(office) -> None:
    at, wanted = office(), order()
    made = await provisioner.create(at, wanted)
    await provisioner.create(at, order())
    container, rule = await provisioner.find(at, wanted.mark)
    assert container.footprint == replace(made.footprint, key=None)
    assert (rule.footprint, rule.generation) == (made.footprint, 1)


async def test_inventory_shows_keys_workspaces_and_rules(office, account) -> None:
    at = office()
    made = await provisioner.create(at, order())
    console(account, "keys", name="by hand")
    names: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        found, cursor = await provisioner.list_page(at, cursor)
        names += [str(each.footprint.key or each.footprint.place["workspace"]) for each in found]
        if cursor is None:
            break
    assert cursor is None
    assert {made.footprint.key, made.footprint.place["workspace"]} < set(names)
    assert any(name.startswith("apikey_") for name in names)


async def test_spend_is_told_by_key_and_by_workspace_and_equals_the_books(office, use, anthropic_sdk, account, sandbox) -> None:
    account.settings = account.settings.with_changes({"costs_late_s": 600, "costs_first_share": 0.5, "costs_restated_s": 7_200})
    at = office()
    made = await provisioner.create(at, order())
    by_hand = console(account, "keys", name="by hand")
    begins = account.now_ns() - 40 * DAY_NS

    async def told() -> dict[Any, int]:
        seen: dict[Any, int] = {}
        cursor: str | None = None
        for _ in range(10):
            rows, cursor = await provisioner.spend_page(at, begins, account.now_ns(), cursor)
            for row in rows:
                seen[row.key or row.place.get("workspace"), row.start_ns, row.item] = row.amount_nano
            if cursor is None:
                return seen
        raise AssertionError("the report has no end")

    ledger: dict[Any, int] = {}
    use(made, **DEAR)
    anthropic_sdk("messages.create", key={"key": by_hand["value"]}, **HELLO)
    ledger |= await told()
    assert ledger == {}
    sandbox.state.admin.clock.advance(601)
    ledger |= await told()
    assert 0 < sum(ledger.values()) < int(account.books.total_usd() * NANO)
    sandbox.state.admin.clock.advance(7_201)
    ledger |= await told()
    assert sum(ledger.values()) == int(account.books.total_usd() * NANO)
    owners = {owner for owner, _, _ in ledger}
    assert owners == {by_hand["id"], made.footprint.place["workspace"]}


async def test_every_change_is_told_to_the_watcher_and_no_sign_in_is(office) -> None:
    steps = Steps()
    at = office(watcher=steps)
    made = await provisioner.create(at, order(requests_per_minute=3))
    assert [told for told in steps.told if told.startswith(">")] == [
        "> create the workspace",
        "> create the service account",
        "> let the service account in",
        *["> limit requests"] * 3,
        "> create the federation rule",
    ]
    assert made.secret.open() not in repr((at, made, steps))


async def test_attempt_that_comes_before_lists_show_the_former_one_is_told_to_wait(office, account, sandbox) -> None:
    at, wanted = office(), order()
    await provisioner.create(at, order())
    sandbox.state.admin.clock.advance(31)
    account.settings = account.settings.with_changes({"lists_s": 30})
    account.faults.append(AdminFault("members.create", status=400, message="no"))
    with pytest.raises(Rejected):
        await provisioner.create(at, wanted)
    with pytest.raises(Unavailable, match="not listed yet"):
        await provisioner.create(at, wanted)
    sandbox.state.admin.clock.advance(31)
    made = await provisioner.create(at, wanted)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.LIVE
    await provisioner.revoke(at, made.footprint)
    for each in await provisioner.find(at, wanted.mark):
        if each.footprint.key is None:
            await provisioner.retire(at, each.footprint)
    sandbox.state.admin.clock.advance(31)
    assert await provisioner.find(at, wanted.mark) == (), "the second workspace that was made meanwhile is gone too"


async def test_workspace_ends_whatever_becomes_of_the_service_account(office, use, vendor, account) -> None:
    at = office()
    made = await provisioner.create(at, order())
    account.faults.append(AdminFault("service_accounts.archive", status=400, message="no"))
    with pytest.raises(Rejected):
        await provisioner.retire(at, replace(made.footprint, key=None))
    with pytest.raises(SdkError):
        use(made)
    await provisioner.retire(at, replace(made.footprint, key=None))
    assert vendor("service_accounts.retrieve", made.footprint.place["service_account"])["archived_at"] is not None


async def test_key_can_be_ended_with_the_admin_key_alone(office, use, account) -> None:
    """The rule that signs KeyGate in may be broken on the day that a key must die."""
    made = await provisioner.create(office(), order())
    broken = office(federated=False)
    with pytest.raises(MissingRight):
        await provisioner.revoke(broken, made.footprint)
    with pytest.raises(MissingRight):
        await provisioner.retire(broken, replace(made.footprint, key=None))
    assert (await provisioner.read(broken, made.footprint)).presence is Presence.GONE
    with pytest.raises(SdkError):
        use(made)


async def test_kill_switch_of_a_key_that_keygate_made_can_be_taken_back(office, use, vendor) -> None:
    at = office()
    made = await provisioner.create(at, order(requests_per_minute=9))
    await provisioner.set_enabled(at, made.footprint, enabled=False)
    await provisioner.set_enabled(at, made.footprint, enabled=False)
    assert (await provisioner.read(at, made.footprint)).presence is Presence.DISABLED
    assert vendor("workspaces.service_accounts.list", made.footprint.place["workspace"], all=True) == []
    with pytest.raises(SdkError) as refused:
        use(made)
    assert refused.value.code == 401
    await provisioner.set_enabled(at, made.footprint, enabled=True)
    reading = await provisioner.read(at, made.footprint)
    assert (reading.presence, reading.terms) == (Presence.LIVE, Terms(requests_per_minute=9))
    assert use(made)
