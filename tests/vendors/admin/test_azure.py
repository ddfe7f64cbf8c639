"""Keys at Azure: made, limited, rotated and revoked at the sandbox; Microsoft's own clients read its side, OpenAI's use the keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT, TEXT, AzureSdk
from tests.sdks.bridge import Bridge, SdkError
from tests.vendors.admin.desks import Steps, desk, ended_early

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
    Lists,
    Made,
    Mark,
    MissingRight,
    NotFound,
    Order,
    Presence,
    Rejected,
    ReportsSpend,
    Retires,
    SetsBudget,
    SetsLimits,
    SetsModels,
    Terms,
    Unavailable,
)
from keygate.vendors.admin.azure import AZURE_ADMIN as AZURE
from keygate.vendors.admin.azure.model import spend_rows

MODELS = ("gpt-4.1-mini", "gpt-4o-mini")
TERMS = Terms(models=MODELS, tokens_per_minute=20_000)


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.AZURE]


@pytest.fixture
def sdk(sandbox: SandboxServer, account: Account, azure_bridge: Bridge) -> AzureSdk:
    return AzureSdk(azure_bridge, sandbox, account.create_credential(name="who-looks"))


def seat(sandbox: SandboxServer, outbound: Outbound, credential: Credential, **changes: Any) -> AdminDesk:
    settings = {
        "base_url": f"{sandbox.address}/azure",
        "tenant": TENANT,
        "client_id": credential.name,
        "subscription": SUBSCRIPTION,
        "resource_group": GROUP,
        "region": "eastus",
    }
    watcher = changes.pop("watcher", None)
    return desk(AZURE.facts, outbound, credential.value, clock=SystemClock(), settings={**settings, **changes}, watcher=watcher)


@pytest.fixture
def admin(account: Account) -> Credential:
    return account.create_credential(name="keygate")


@pytest.fixture
def at(sandbox: SandboxServer, outbound: Outbound, admin: Credential) -> AdminDesk:
    return seat(sandbox, outbound, admin)


def order(mark: Mark, generation: int = 1, terms: Terms = TERMS, footprint: Footprint | None = None, **options: str) -> Order:
    return Order(mark, generation, "priya, team search", terms, options, footprint)


def fresh() -> Mark:
    return Mark(new_id("ik"))


def opens(sdk: AzureSdk, made: Made, model: str = "gpt-4o-mini") -> str | int:
    """What the vendor's SDK gets with nothing but what was handed out: the text, or the status of the refusal."""
    account = {"properties": {"endpoint": made.env["AZURE_OPENAI_ENDPOINT"]}}
    try:
        return str(sdk.chat(account, made.secret.open(), model)["text"])
    except SdkError as error:
        return int(error.status)


async def test_a_key_works_at_the_vendor_with_the_limits_asked_for_until_it_is_revoked_there(at: AdminDesk, sdk: AzureSdk) -> None:
    mark = fresh()
    first = await AZURE.create(at, replace(order(mark), fresh=True))
    assert first.secret_env == "AZURE_OPENAI_API_KEY"
    assert opens(sdk, first) == opens(sdk, first, "gpt-4.1-mini") == TEXT

    # The limits, as the vendor's own client and as we read them.
    stands = sdk.call("deployments.list", GROUP, mark.tag)
    assert sorted((each["name"], each["sku"]["capacity"]) for each in stands) == [(model, 20) for model in MODELS]
    reading = await AZURE.read(at, first.footprint)
    assert (reading.presence, reading.terms) == (Presence.LIVE, TERMS)

    # Rotation with overlap: both work, then only the new one.
    second = await AZURE.create(at, order(mark, 2, footprint=first.footprint))
    assert second.secret.open() != first.secret.open()
    assert opens(sdk, first) == opens(sdk, second) == TEXT
    await AZURE.revoke(at, first.footprint)
    assert (await AZURE.read(at, first.footprint)).presence is Presence.GONE
    assert first.secret.open() not in sdk.call("accounts.list_keys", GROUP, mark.tag).values()
    assert opens(sdk, first) == 401
    assert opens(sdk, second) == TEXT
    assert (await AZURE.read(at, second.footprint)).terms == TERMS

    await AZURE.revoke(at, second.footprint)
    assert (await AZURE.read(at, second.footprint)).presence is Presence.GONE
    assert opens(sdk, second) == 401
    await AZURE.retire(at, second.footprint)
    assert sdk.call("accounts.list_by_resource_group", GROUP) == sdk.call("deleted_accounts.list") == []
    assert await AZURE.find(at, mark) == ()


async def test_rotation_goes_on_through_generations_and_never_cuts_a_key_that_is_still_out(at: AdminDesk, sdk: AzureSdk) -> None:
    mark = fresh()
    made = [await AZURE.create(at, order(mark, generation)) for generation in (1, 2)]
    with pytest.raises(CeilingReached) as error:
        await AZURE.create(at, order(mark, 3))
    assert error.value.ceiling == 2
    assert opens(sdk, made[0]) == TEXT
    for generation in (3, 4, 5):
        await AZURE.revoke(at, made[-2].footprint)
        made.append(await AZURE.create(at, order(mark, generation)))
        assert [opens(sdk, each) for each in made[-3:]] == [401, TEXT, TEXT]
    found = await AZURE.find(at, mark)
    assert [(each.generation, each.footprint.key) for each in found[1:]] == [(each, made[each - 1].footprint.key) for each in (5, 4)]


async def test_create_again_after_any_of_its_calls_ends_in_one_account_and_the_same_key(
    sandbox: SandboxServer, outbound: Outbound, account: Account, admin: Credential, sdk: AzureSdk
) -> None:
    """The process dies after each changing call in turn: what is left is taken up."""

    class Dies(Steps):
        def __init__(self, after: int) -> None:
            super().__init__()
            self.left = after

        async def after(self, what: str, outcome: str) -> None:
            await super().after(what, outcome)
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt

    whole = Steps()
    mark = fresh()
    await AZURE.create(seat(sandbox, outbound, admin, watcher=whole), order(mark))
    steps = len(whole.told) // 2
    assert steps == 4  # account, two deployments, tag
    for step in range(1, steps + 1):
        mark = fresh()
        with pytest.raises(KeyboardInterrupt):
            await AZURE.create(seat(sandbox, outbound, admin, watcher=Dies(step)), order(mark))
        found = await AZURE.find(seat(sandbox, outbound, admin), mark)
        assert [each.generation for each in found] == ([None, 1] if step == steps else [None])
        made = await AZURE.create(seat(sandbox, outbound, admin), order(mark))
        assert opens(sdk, made) == TEXT
        assert [each["name"] for each in sdk.call("deployments.list", GROUP, mark.tag)] == list(MODELS)
        again = await AZURE.create(seat(sandbox, outbound, admin), order(mark))
        assert again.secret == made.secret
    assert len(sdk.call("accounts.list_by_resource_group", GROUP)) == steps + 1


@pytest.mark.parametrize("operation", ["accounts.create", "deployments.create", "accounts.update", "accounts.list_keys"])
async def test_a_call_that_fails_after_it_was_done_leaves_nothing_double(
    at: AdminDesk, account: Account, sdk: AzureSdk, operation: str
) -> None:
    mark = fresh()
    account.faults.append(AdminFault(operation, kind=FaultKind.RESET, performed=True))
    made = await AZURE.create(at, order(mark))
    assert opens(sdk, made) == TEXT
    assert len(sdk.call("accounts.list_by_resource_group", GROUP)) == 1


async def test_an_uncertain_regeneration_is_made_certain_by_the_next_try(at: AdminDesk, account: Account, sdk: AzureSdk) -> None:
    made = await AZURE.create(at, order(fresh()))
    account.faults.append(AdminFault("accounts.regenerate_key", kind=FaultKind.RESET, performed=True))
    with pytest.raises(Unavailable) as error:
        await AZURE.revoke(at, made.footprint)
    assert error.value.uncertain
    assert opens(sdk, made) == 401
    await AZURE.revoke(at, made.footprint)
    assert [call.operation for call in account.calls].count("accounts.regenerate_key") == 1
    assert (await AZURE.read(at, made.footprint)).presence is Presence.GONE


async def test_a_vendor_that_is_slow_to_make_and_delete_is_waited_for(at: AdminDesk, account: Account, sdk: AzureSdk) -> None:
    account.settings = account.settings.with_changes({"operations_s": 0.6})
    mark = fresh()
    made = await AZURE.create(at, order(mark))
    assert opens(sdk, made) == TEXT
    await AZURE.retire(at, made.footprint)
    assert (await AZURE.read(at, Footprint(made.footprint.place))).presence is Presence.GONE
    assert sdk.call("deleted_accounts.list") == []


async def test_an_account_that_is_busy_with_another_operation_is_tried_again(at: AdminDesk, account: Account) -> None:
    account.faults.append(AdminFault("deployments.create", status=409, code="RequestConflict"))
    with pytest.raises(Unavailable) as error:
        await AZURE.create(at, order(mark := fresh()))
    assert not error.value.lasting
    assert (await AZURE.create(at, order(mark))).secret


async def test_a_deletion_that_stopped_half_way_is_found_and_finished(at: AdminDesk, account: Account, sdk: AzureSdk) -> None:
    mark = fresh()
    made = await AZURE.create(at, order(mark))
    account.faults.append(AdminFault("deleted_accounts.purge", status=403))
    with pytest.raises(MissingRight) as error:
        await AZURE.retire(at, made.footprint)
    assert error.value.right == "Microsoft.CognitiveServices/locations/resourceGroups/deletedAccounts/delete"
    container = Footprint(made.footprint.place)
    assert (await AZURE.read(at, made.footprint)).presence is Presence.GONE
    assert (await AZURE.read(at, container)).presence is Presence.DISABLED  # it still counts against the ceiling
    assert [each.footprint for each in await AZURE.find(at, mark)] == [container]
    await AZURE.retire(at, container)
    assert (await AZURE.read(at, container)).presence is Presence.GONE


async def test_missing_rights_are_named_one_by_one_and_nothing_is_made(
    sandbox: SandboxServer, outbound: Outbound, account: Account
) -> None:
    gone = ["Microsoft.CognitiveServices/accounts/listKeys/action", "Microsoft.CognitiveServices/accounts/deployments/write"]
    at = seat(sandbox, outbound, account.create_credential(name="narrow", without=gone))
    verified = await AZURE.verify(at)
    assert sorted(right.name for right in verified.missing) == sorted(gone)
    assert verified.notes == ("30 of 30 accounts are left in eastus",)
    assert not list(account.shelves["accounts"])
    with pytest.raises(MissingRight) as error:
        await AZURE.create(at, order(fresh()))
    assert error.value.right in gone


async def test_patterns_of_a_role_count_as_the_vendor_counts_them(sandbox: SandboxServer, outbound: Outbound, account: Account) -> None:
    rights = ["microsoft.cognitiveservices/*"]
    verified = await AZURE.verify(seat(sandbox, outbound, account.create_credential(name="pattern", rights=rights)))
    assert [right.name for right in verified.missing] == ["Microsoft.CostManagement/query/action"]


@pytest.mark.parametrize("wrong", ["secret", "client"])
async def test_an_unknown_credential_is_refused_without_being_shown(
    sandbox: SandboxServer, outbound: Outbound, admin: Credential, wrong: str
) -> None:
    other = Credential("another-secret" if wrong == "secret" else admin.value, "another" if wrong == "client" else admin.name)
    with pytest.raises(AdminKeyRefused) as error:
        await AZURE.verify(seat(sandbox, outbound, other))
    assert other.value not in str(error.value)


async def test_a_token_that_azure_ended_early_is_traded_for_anew(at: AdminDesk) -> None:
    await at.token("arm", ended_early)
    made = await AZURE.create(at, order(fresh()))
    assert (await AZURE.read(at, made.footprint)).presence is Presence.LIVE


async def test_a_full_region_is_told_before_anything_is_made(at: AdminDesk, account: Account) -> None:
    account.settings = account.settings.with_changes({"ceilings": {"accounts": 1}})
    await AZURE.create(at, order(fresh()))
    with pytest.raises(CeilingReached) as error:
        await AZURE.create(at, order(fresh()))
    assert error.value.ceiling == 1
    assert "another region" in str(error.value)
    assert [call.operation for call in account.calls].count("accounts.create") == 1
    assert (await AZURE.create(at, order(fresh(), region="swedencentral"))).secret


async def test_spent_quota_of_a_model_is_a_ceiling_with_the_vendors_words(at: AdminDesk, account: Account) -> None:
    account.settings = account.settings.with_changes({"ceilings": {"capacity": 30}})
    await AZURE.create(at, order(fresh()))
    with pytest.raises(CeilingReached, match="current available capacity 10"):
        await AZURE.create(at, order(fresh()))


@pytest.mark.parametrize(
    "terms", [Terms(tokens_per_minute=1000), Terms(models=MODELS, tokens_per_minute=1500), Terms(models=MODELS, tokens_per_minute=500)]
)
async def test_what_azure_has_no_words_for_is_refused_before_anything_is_made(at: AdminDesk, account: Account, terms: Terms) -> None:
    with pytest.raises(Rejected):
        await AZURE.create(at, order(fresh(), terms=terms))
    assert not list(account.shelves["accounts"])


async def test_a_missing_setting_is_named(sandbox: SandboxServer, outbound: Outbound, admin: Credential) -> None:
    with pytest.raises(Rejected, match="`region`"):
        await AZURE.verify(seat(sandbox, outbound, admin, region=""))


async def test_limits_models_and_the_switch_are_changed_and_read_back(at: AdminDesk, sdk: AzureSdk) -> None:
    made = await AZURE.create(at, order(fresh()))
    at_ = made.footprint
    await AZURE.set_limits(at, at_, Terms(tokens_per_minute=50_000))
    assert (await AZURE.read(at, at_)).terms == Terms(models=MODELS, tokens_per_minute=50_000)
    await AZURE.set_limits(at, at_, Terms(tokens_per_minute=2_500))  # a quarter of 10,000, as a watched budget lowers it
    assert (await AZURE.read(at, at_)).terms.tokens_per_minute == 2_000
    with pytest.raises(Rejected, match="steps of 1000"):
        await AZURE.set_limits(at, at_, Terms(tokens_per_minute=250))
    await AZURE.set_limits(at, at_, Terms(tokens_per_minute=50_000))
    await AZURE.set_models(at, at_, ("gpt-4o",))
    assert (await AZURE.read(at, at_)).terms == Terms(models=("gpt-4o",), tokens_per_minute=50_000)
    assert (opens(sdk, made), opens(sdk, made, "gpt-4o")) == (404, TEXT)
    with pytest.raises(Rejected):
        await AZURE.set_models(at, at_, None)
    await AZURE.set_enabled(at, at_, enabled=False)
    assert (await AZURE.read(at, at_)).presence is Presence.DISABLED
    assert opens(sdk, made, "gpt-4o") == 403
    await AZURE.set_enabled(at, at_, enabled=True)
    assert opens(sdk, made, "gpt-4o") == TEXT


async def test_drift_in_the_console_shows(at: AdminDesk, sdk: AzureSdk) -> None:
    made = await AZURE.create(at, order(mark := fresh()))
    sdk.deploy(mark.tag, "gpt-4o-mini", capacity=100)
    assert (await AZURE.read(at, made.footprint)).terms.tokens_per_minute == 100_000


async def test_what_is_revoked_or_was_never_there_is_no_error_and_gone(at: AdminDesk) -> None:
    never = Footprint({"account": fresh().tag}, "1-Key1-0000000000000000")
    assert (await AZURE.read(at, never)).presence is Presence.GONE
    await AZURE.revoke(at, never)
    await AZURE.retire(at, never)
    made = await AZURE.create(at, order(fresh()))
    await AZURE.revoke(at, made.footprint)
    await AZURE.revoke(at, made.footprint)
    with pytest.raises(NotFound):
        await AZURE.read(at, Footprint({}))


async def test_the_inventory_has_what_others_made_too(at: AdminDesk, sdk: AzureSdk) -> None:
    sdk.create("theirs")
    made = await AZURE.create(at, order(mark := fresh()))
    page, cursor = await AZURE.list_page(at, None)
    assert cursor is None
    assert {each.name: each.owner for each in page} == {"theirs": None, mark.tag: "priya, team search"}
    assert all(each.created_at_ns for each in page)
    assert made.footprint.place in [each.footprint.place for each in page]


async def test_costs_equal_the_vendors_books_late_and_restated(at: AdminDesk, account: Account, sdk: AzureSdk) -> None:
    account.settings = account.settings.with_changes({"costs_late_s": 3600, "costs_first_share": 0.5, "costs_restated_s": 7200})
    made = [await AZURE.create(at, order(fresh())) for _ in range(2)]
    for each in made:
        endpoint = {"properties": {"endpoint": each.env["AZURE_OPENAI_ENDPOINT"]}}
        sdk.chat(endpoint, each.secret.open(), text="sandbox(input_tokens=10007 output_tokens=1003)")
    day = 86_400 * 10**9
    today = account.now_ns() // day * day

    async def read() -> dict[str, int]:
        rows, cursor = await AZURE.spend_page(at, today - day, today + 2 * day, None)
        assert cursor is None
        assert all((row.item, row.end_ns - row.start_ns) == ("gpt-4o-mini", day) for row in rows)
        return {row.place["account"]: row.amount_nano for row in rows}

    assert await read() == {}
    account.clock.advance(3601)
    first = await read()
    account.clock.advance(7200)
    last = await read()
    assert [2 * first[name] for name in sorted(first)] == [last[name] for name in sorted(last)]
    assert last == {each.footprint.place["account"]: int(account.books.total_usd() / 2 * 10**9) for each in made}


def bill(resource: str, cost: float = 1.5, currency: str = "USD") -> dict[str, Any]:
    columns = [{"name": name} for name in ("UsageDate", "Currency", "Cost", "ResourceId", "Meter")]
    return {"columns": columns, "rows": [[20261126, currency, cost, resource, "m"]]}


def test_costs_of_other_resources_in_the_group_are_no_keys_costs() -> None:
    group = "/subscriptions/s/resourcegroups/g/providers"
    assert spend_rows(bill(f"{group}/microsoft.compute/virtualmachines/vm")) == spend_rows(bill("")) == []
    [row] = spend_rows(bill(f"{group}/microsoft.cognitiveservices/accounts/kg-a", 0.0021))
    assert (row.place, row.amount_nano) == ({"account": "kg-a"}, 2_100_000)


def test_costs_in_another_currency_are_not_taken_for_dollars() -> None:
    with pytest.raises(Rejected, match="EUR"):
        spend_rows(bill("/providers/microsoft.cognitiveservices/accounts/kg-a", currency="EUR"))


def test_costs_of_one_account_in_several_spellings_are_added_up() -> None:
    told = bill("/providers/Microsoft.CognitiveServices/accounts/KG-A")
    told["rows"].append([20261126, "USD", -0.5, "/providers/microsoft.cognitiveservices/accounts/kg-a/deployments/x", "m"])
    [row] = spend_rows(told)
    assert (row.place, row.amount_nano) == ({"account": "kg-a"}, 10**9)


def test_powers_are_those_that_azure_has() -> None:
    for power in (AddsKey, Disables, Lists, ReportsSpend, Retires, SetsLimits, SetsModels):
        assert isinstance(AZURE, power)
    assert not isinstance(AZURE, SetsBudget)
    assert "budget" in AZURE.facts.cannot
