"""Azure's side of the sandbox, driven by azure-mgmt-cognitiveservices, azure-mgmt-costmanagement and openai's AzureOpenAI."""

from __future__ import annotations

from typing import Any

import pytest
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TEXT, AzureSdk
from tests.sdks.bridge import Bridge, SdkError

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault


@pytest.fixture
def azure(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.AZURE]


@pytest.fixture
def sdk(sandbox: SandboxServer, azure: Account, azure_bridge: Bridge) -> AzureSdk:
    return AzureSdk(azure_bridge, sandbox, azure.create_credential(name="the-client"))


def refused(error: pytest.ExceptionInfo[SdkError]) -> tuple[Any, Any]:
    return error.value.status, error.value.code


def test_an_accounts_two_keys_work_at_its_endpoint_and_nowhere_else(sdk: AzureSdk) -> None:
    one, other = sdk.create(), sdk.create("two")
    assert one["properties"]["provisioning_state"] == "Succeeded"
    sdk.deploy()
    sdk.deploy("two")
    keys = sdk.call("accounts.list_keys", GROUP, "one")
    for key in (keys["key1"], keys["key2"]):
        answer = sdk.chat(one, key)
        assert (answer["text"], answer["model"]) == (TEXT, "gpt-4o-mini")
        assert sdk.chat(one, key, v1=True)["text"] == TEXT
        with pytest.raises(SdkError) as error:
            sdk.chat(other, key)
        assert refused(error) == (401, "401")


def test_a_regenerated_key_replaces_the_old_value_and_leaves_the_other(sdk: AzureSdk, azure: Account) -> None:
    one = sdk.create()
    sdk.deploy()
    before = sdk.call("accounts.list_keys", GROUP, "one")
    azure.settings = azure.settings.with_changes({"revoked_key_s": 60})
    after = sdk.call("accounts.regenerate_key", GROUP, "one", "Key1")
    assert after["key1"] != before["key1"]
    assert after["key2"] == before["key2"]
    assert sdk.chat(one, after["key1"])["text"] == sdk.chat(one, before["key2"])["text"] == TEXT
    assert sdk.chat(one, before["key1"])["text"] == TEXT  # until the inference side has heard of it
    azure.clock.advance(61)
    with pytest.raises(SdkError) as error:
        sdk.chat(one, before["key1"])
    assert refused(error) == (401, "401")


def test_switching_keys_off_refuses_both_until_they_are_on_again(sdk: AzureSdk) -> None:
    one = sdk.create()
    sdk.deploy()
    key = sdk.call("accounts.list_keys", GROUP, "one")["key2"]
    sdk.call("accounts.begin_update", GROUP, "one", {"properties": {"disableLocalAuth": True}})
    assert sdk.call("accounts.get", GROUP, "one")["properties"]["disable_local_auth"] is True
    with pytest.raises(SdkError) as error:
        sdk.chat(one, key)
    assert refused(error) == (403, "AuthenticationTypeDisabled")
    sdk.call("accounts.begin_update", GROUP, "one", {"properties": {"disableLocalAuth": False}})
    assert sdk.chat(one, key)["text"] == TEXT


def test_capacity_is_the_limit_of_a_minute_and_can_be_changed(sdk: AzureSdk) -> None:
    one = sdk.create()
    assert sdk.deploy(capacity=1)["properties"]["rate_limits"][1] == {"key": "token", "renewal_period": 60, "count": 1000}
    key = sdk.call("accounts.list_keys", GROUP, "one")["key1"]
    sdk.chat(one, key, text="Hi sandbox(input_tokens=1200)")
    with pytest.raises(SdkError) as error:
        sdk.chat(one, key)
    assert refused(error) == (429, "429")
    assert error.value.reason == "RateLimitError"
    sdk.deploy(capacity=5)
    assert sdk.chat(one, key)["text"] == TEXT
    assert [each["sku"]["capacity"] for each in sdk.call("deployments.list", GROUP, "one")] == [5]


def test_a_model_is_there_only_while_it_is_deployed(sdk: AzureSdk) -> None:
    one = sdk.create()
    sdk.deploy()
    key = sdk.call("accounts.list_keys", GROUP, "one")["key1"]
    with pytest.raises(SdkError) as error:
        sdk.chat(one, key, "gpt-4.1")
    assert refused(error) == (404, "DeploymentNotFound")
    sdk.call("deployments.begin_delete", GROUP, "one", "gpt-4o-mini")
    with pytest.raises(SdkError) as error:
        sdk.chat(one, key)
    assert refused(error) == (404, "DeploymentNotFound")


def test_a_deleted_account_counts_and_blocks_its_name_until_it_is_purged(sdk: AzureSdk, azure: Account) -> None:
    azure.settings = azure.settings.with_changes({"ceilings": {"accounts": 1}, "operations_s": 0.2})
    one = sdk.create()
    sdk.deploy()
    key = sdk.call("accounts.list_keys", GROUP, "one")["key1"]
    sdk.call("accounts.begin_delete", GROUP, "one")
    with pytest.raises(SdkError) as error:
        sdk.chat(one, key)
    assert refused(error)[0] in {401, 404}
    with pytest.raises(SdkError) as error:
        sdk.create()
    assert refused(error) == (409, "FlagMustBeSetForRestore")
    with pytest.raises(SdkError) as error:
        sdk.create("two")
    assert refused(error) == (400, "InsufficientQuota")
    usages = {row["name"]["value"]: (row["current_value"], row["limit"]) for row in sdk.call("usages.list", "eastus")}
    assert usages["OpenAI.S0.AccountCount"] == (1.0, 1.0)
    assert [gone["name"] for gone in sdk.call("deleted_accounts.list")] == ["one"]
    sdk.call("deleted_accounts.begin_purge", "eastus", GROUP, "one")
    assert sdk.call("deleted_accounts.list") == []
    assert sdk.create("two")["name"] == "two"


def test_models_share_the_regions_quota(sdk: AzureSdk, azure: Account) -> None:
    azure.settings = azure.settings.with_changes({"ceilings": {"capacity": 15}})
    sdk.create()
    sdk.create("two")
    sdk.deploy(capacity=10)
    with pytest.raises(SdkError) as error:
        sdk.deploy("two", capacity=6)
    assert refused(error) == (400, "InsufficientQuota")
    assert "6 new capacity" in str(error.value)
    assert sdk.deploy("two", capacity=5)["sku"]["capacity"] == 5


def test_a_missing_action_is_named(sdk: AzureSdk, azure: Account, sandbox: SandboxServer) -> None:
    right = "Microsoft.CognitiveServices/accounts/write"
    with pytest.raises(SdkError) as error:
        AzureSdk(sdk.bridge, sandbox, azure.create_credential(name="narrow", without=[right])).create()
    assert refused(error) == (403, "AuthorizationFailed")
    assert right in str(error.value)


def test_costs_arrive_late_by_account_and_meter(sdk: AzureSdk, azure: Account) -> None:
    azure.settings = azure.settings.with_changes({"costs_late_s": 3600})
    one = sdk.create()
    sdk.deploy(capacity=100)
    sdk.chat(one, sdk.call("accounts.list_keys", GROUP, "one")["key1"], text="sandbox(input_tokens=10000 output_tokens=1000)")
    definition = {
        "type": "ActualCost",
        "timeframe": "Custom",
        "timePeriod": {"from": "2020-01-01T00:00:00Z", "to": "2099-01-01T00:00:00Z"},
        "dataset": {
            "granularity": "Daily",
            "aggregation": {"totalCost": {"name": "Cost", "function": "Sum"}},
            "grouping": [{"type": "Dimension", "name": "ResourceId"}, {"type": "TagKey", "name": "team"}],
        },
    }
    scope = f"subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    assert sdk.call("query.usage", scope, definition, client="costs")["properties"]["rows"] == []
    azure.clock.advance(3601)
    properties = sdk.call("query.usage", scope, definition, client="costs")["properties"]
    assert [column["name"] for column in properties["columns"]] == ["Cost", "UsageDate", "ResourceId", "TagKey", "TagValue", "Currency"]
    (row,) = properties["rows"]
    assert (row[0], row[2:]) == (0.0021, [one["id"].lower(), "team", "search", "USD"])
    assert str(azure.books.total_usd()) == "0.0021"


def test_a_fault_may_strike_after_the_deed(sdk: AzureSdk, azure: Account) -> None:
    azure.faults.append(AdminFault("accounts.create", status=500, performed=True))
    with pytest.raises(SdkError):
        sdk.create()
    assert [account["name"] for account in sdk.call("accounts.list_by_resource_group", GROUP)] == ["one"]
