"""The sandbox's Google Cloud, as Google's own clients see it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from tests.sdks.bridge import SdkError
from tests.sdks.google_clients import Google

from keygate.sandbox import SandboxServer
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.google.api import BILLING_ACCOUNT, PARENT, PROJECT
from keygate.sandbox.admin.google.budgets import ELIGIBLE
from keygate.sandbox.admin.google.cloud import NO_SERVICE_ACCOUNT_API_KEYS, GoogleCloud

NAME = f"projects/{PROJECT}"
KEYS = f"{NAME}/locations/global"
GEMINI = "generativelanguage.googleapis.com"
TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."


def make_account(google: Google, account_id: str = "owner-one", project: str = PROJECT) -> dict[str, Any]:
    body = {"accountId": account_id, "serviceAccount": {"displayName": "Owner", "description": "of a test"}}
    made: dict[str, Any] = google("iam", "v1", "projects.serviceAccounts.create", name=f"projects/{project}", body=body)
    return made


def make_key(google: Google, email: str, key_id: str = "owner-one-1", project: str = PROJECT, **more: Any) -> tuple[str, str]:
    """The key's name and string."""
    body = {"displayName": key_id, "serviceAccountEmail": email, "restrictions": {"apiTargets": [{"service": GEMINI}]}, **more}
    parent = f"projects/{project}/locations/global"
    operation = google("apikeys", "v2", "projects.locations.keys.create", parent=parent, keyId=key_id, body=body)
    while not operation.get("done"):
        operation = google("apikeys", "v2", "operations.get", name=operation["name"])
    name = operation["response"]["name"]
    return name, google("apikeys", "v2", "projects.locations.keys.getKeyString", name=name)["keyString"]


def refused(call: Callable[[], Any]) -> SdkError:
    with pytest.raises(SdkError) as caught:
        call()
    return caught.value


def test_service_account_is_made_read_listed_disabled_enabled_and_deleted(google: Google) -> None:
    made = make_account(google)
    assert made["email"] == f"owner-one@{PROJECT}.iam.gserviceaccount.com"
    assert google("iam", "v1", "projects.serviceAccounts.get", name=made["name"]) == made
    assert made in google("iam", "v1", "projects.serviceAccounts.list", name=NAME)["accounts"]
    google("iam", "v1", "projects.serviceAccounts.disable", name=made["name"], body={})
    assert google("iam", "v1", "projects.serviceAccounts.get", name=made["name"])["disabled"] is True
    google("iam", "v1", "projects.serviceAccounts.enable", name=made["name"], body={})
    assert "disabled" not in google("iam", "v1", "projects.serviceAccounts.get", name=made["name"])
    google("iam", "v1", "projects.serviceAccounts.delete", name=made["name"])
    assert refused(lambda: google("iam", "v1", "projects.serviceAccounts.get", name=made["name"])).code == 404
    restored = google("iam", "v1", "projects.serviceAccounts.undelete", name=f"{NAME}/serviceAccounts/{made['uniqueId']}", body={})
    assert restored["restoredAccount"]["uniqueId"] == made["uniqueId"]


def test_service_account_name_is_taken_once_and_a_deleted_one_comes_back_as_another(google: Google) -> None:
    first = make_account(google)
    assert refused(lambda: make_account(google)).status == "ALREADY_EXISTS"
    google("iam", "v1", "projects.serviceAccounts.delete", name=first["name"])
    assert make_account(google)["uniqueId"] != first["uniqueId"]


@pytest.mark.parametrize("account_id", ["short", "Has-Capitals", "ends-with-", "1starts-with-digit", "a" * 31])
def test_service_account_id_must_fit_googles_rule(google: Google, account_id: str) -> None:
    assert refused(lambda: make_account(google, account_id)).status == "INVALID_ARGUMENT"


def test_ceiling_of_service_accounts_is_told(google: Google, account: Account) -> None:
    account.settings = account.settings.with_changes({"ceilings": {"service_accounts": 2}})
    make_account(google)
    assert refused(lambda: make_account(google, "owner-two")).status == "RESOURCE_EXHAUSTED"


def test_bound_key_works_with_googles_own_sdk_and_stops_when_deleted(google: Google, genai: Google) -> None:
    name, key = make_key(google, make_account(google)["email"])
    assert key.startswith("AQ.")
    for more in ({}, {"stream": True}, {"version": "v1beta"}):
        answer = genai(key=key, prompt="Hello", **more)
        assert answer["text"] == TEXT
        assert answer["finish"] == "STOP"
        assert answer["usage"][2] == answer["usage"][0] + answer["usage"][1]
    assert genai(key=key, prompt="Hello", stream=True)["chunks"] == 8
    assert genai(key=key, prompt="Hello", count=True)["tokens"] == 5
    assert "models/gemini-2.5-flash" in genai(key=key, prompt="", list=True)["models"]
    google("apikeys", "v2", "projects.locations.keys.delete", name=name)
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 400
    assert "deleteTime" in google("apikeys", "v2", "projects.locations.keys.get", name=name)
    google("apikeys", "v2", "projects.locations.keys.undelete", name=name, body={})
    assert genai(key=key, prompt="Hello")["text"] == TEXT


def test_disabled_service_account_stops_its_keys_at_once_and_enabling_revives_them(google: Google, genai: Google, account: Account) -> None:
    account.settings = account.settings.with_changes({"revoked_key_s": 3600})
    made = make_account(google)
    name, key = make_key(google, made["email"])
    google("iam", "v1", "projects.serviceAccounts.disable", name=made["name"], body={})
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 401
    google("iam", "v1", "projects.serviceAccounts.enable", name=made["name"], body={})
    assert genai(key=key, prompt="Hello")["text"] == TEXT
    google("apikeys", "v2", "projects.locations.keys.delete", name=name)
    assert genai(key=key, prompt="Hello")["text"] == TEXT, "a deleted key works on for as long as the settings say"
    google("iam", "v1", "projects.serviceAccounts.delete", name=made["name"])
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 401


def test_key_of_a_deleted_account_does_not_come_back_with_the_name(google: Google, genai: Google) -> None:
    made = make_account(google)
    _, key = make_key(google, made["email"])
    google("iam", "v1", "projects.serviceAccounts.delete", name=made["name"])
    make_account(google)
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 401


def test_key_string_is_told_by_its_own_call_only(google: Google) -> None:
    name, key = make_key(google, make_account(google)["email"])
    shown = google("apikeys", "v2", "projects.locations.keys.get", name=name)
    listed = google("apikeys", "v2", "projects.locations.keys.list", parent=KEYS)
    assert key not in json.dumps([shown, listed])
    assert google("apikeys", "v2", "keys.lookupKey", keyString=key)["name"] == name


def test_key_id_stays_taken_after_the_key_was_deleted(google: Google) -> None:
    email = make_account(google)["email"]
    name, _ = make_key(google, email)
    google("apikeys", "v2", "projects.locations.keys.delete", name=name)
    assert "keys" not in google("apikeys", "v2", "projects.locations.keys.list", parent=KEYS)
    assert len(google("apikeys", "v2", "projects.locations.keys.list", parent=KEYS, showDeleted=True)["keys"]) == 1
    assert refused(lambda: make_key(google, email)).status == "ALREADY_EXISTS"


def test_key_is_renamed_and_restricted_by_its_mask(google: Google, genai: Google) -> None:
    name, key = make_key(google, make_account(google)["email"])
    body = {"displayName": "New", "restrictions": {"apiTargets": [{"service": "translate.googleapis.com"}]}}
    google("apikeys", "v2", "projects.locations.keys.patch", name=name, updateMask="displayName", body=body)
    shown = google("apikeys", "v2", "projects.locations.keys.get", name=name)
    assert (shown["displayName"], shown["restrictions"]) == ("New", {"apiTargets": [{"service": GEMINI}]})
    google("apikeys", "v2", "projects.locations.keys.patch", name=name, updateMask="restrictions", body=body)
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 403


def test_key_for_other_addresses_is_refused(google: Google, genai: Google) -> None:
    email = make_account(google)["email"]
    targets = {"apiTargets": [{"service": GEMINI}]}
    _, elsewhere = make_key(google, email, restrictions={**targets, "serverKeyRestrictions": {"allowedIps": ["203.0.113.7"]}})
    _, here = make_key(google, email, "owner-one-2", restrictions={**targets, "serverKeyRestrictions": {"allowedIps": ["127.0.0.1"]}})
    assert refused(lambda: genai(key=elsewhere, prompt="Hello")).code == 403
    assert genai(key=here, prompt="Hello")["text"] == TEXT


def test_standard_key_is_refused_as_google_announced(google: Google, genai: Google) -> None:
    body = {"displayName": "standard", "restrictions": {"apiTargets": [{"service": GEMINI}]}}
    made = google("apikeys", "v2", "projects.locations.keys.create", parent=KEYS, body=body)
    key = google("apikeys", "v2", "projects.locations.keys.getKeyString", name=made["response"]["name"])["keyString"]
    assert key.startswith("AIza")
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 401


def test_organisation_policy_forbids_bound_keys_but_for_the_services_it_names(google: Google, cloud: GoogleCloud) -> None:
    email = make_account(google)["email"]
    unrestricted = refused(lambda: make_key(google, email, restrictions={}))
    assert unrestricted.status == "FAILED_PRECONDITION"
    make_key(google, email)
    cloud.projects[PROJECT].policies[NO_SERVICE_ACCOUNT_API_KEYS] = {"enforce": True}
    assert refused(lambda: make_key(google, email, "owner-one-2")).status == "FAILED_PRECONDITION"
    name = f"{NAME}/policies/{NO_SERVICE_ACCOUNT_API_KEYS}"
    policy = google("orgpolicy", "v2", "projects.policies.getEffectivePolicy", name=name)
    assert policy["spec"]["rules"] == [{"enforce": True}]


def test_operations_and_new_accounts_take_as_long_as_the_settings_say(google: Google, account: Account, sandbox: SandboxServer) -> None:
    account.settings = account.settings.with_changes({"new_key_s": 60, "lists_s": 60})
    made = make_account(google)
    assert refused(lambda: google("iam", "v1", "projects.serviceAccounts.get", name=made["name"])).code == 404
    assert refused(lambda: make_key(google, made["email"])).code == 404
    sandbox.state.admin.clock.advance(61)
    body = {"serviceAccountEmail": made["email"], "restrictions": {"apiTargets": [{"service": GEMINI}]}}
    started = google("apikeys", "v2", "projects.locations.keys.create", parent=KEYS, keyId="slow-key", body=body)
    assert "done" not in started
    assert refused(lambda: google("apikeys", "v2", "projects.locations.keys.get", name=f"{KEYS}/keys/slow-key")).code == 404
    sandbox.state.admin.clock.advance(61)
    assert google("apikeys", "v2", "operations.get", name=started["name"])["done"] is True
    assert google("apikeys", "v2", "projects.locations.keys.get", name=f"{KEYS}/keys/slow-key")["uid"]


def test_policy_is_set_with_its_present_etag_only(google: Google) -> None:
    member = f"serviceAccount:{make_account(google)['email']}"
    policy = google("cloudresourcemanager", "v3", "projects.getIamPolicy", resource=NAME, body={})
    policy["bindings"] = [{"role": "roles/aiplatform.user", "members": [member]}]
    set_ = google("cloudresourcemanager", "v3", "projects.setIamPolicy", resource=NAME, body={"policy": policy})
    assert set_["bindings"] == policy["bindings"]
    stale = refused(lambda: google("cloudresourcemanager", "v3", "projects.setIamPolicy", resource=NAME, body={"policy": policy}))
    assert (stale.code, stale.status) == (409, "ABORTED")
    nobody = {
        "etag": set_["etag"],
        "bindings": [{"role": "roles/viewer", "members": [f"serviceAccount:nobody@{PROJECT}.iam.gserviceaccount.com"]}],
    }
    assert (
        refused(lambda: google("cloudresourcemanager", "v3", "projects.setIamPolicy", resource=NAME, body={"policy": nobody})).code == 400
    )


def test_missing_permission_is_named(signed_in: Callable[[str], Google], admin_key: Callable[..., str]) -> None:
    poor = signed_in(admin_key("iam.serviceAccounts.create"))
    error = refused(lambda: make_account(poor))
    assert (error.code, error.status, error.reason) == (403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED")
    body = {"permissions": ["iam.serviceAccounts.create", "iam.serviceAccounts.get"]}
    held = poor("cloudresourcemanager", "v3", "projects.testIamPermissions", resource=NAME, body=body)
    assert held == {"permissions": ["iam.serviceAccounts.get"]}


def test_service_accounts_key_signs_in_until_the_account_is_disabled(
    google: Google, signed_in: Callable[[str], Google], cloud: GoogleCloud
) -> None:
    made = make_account(google)
    key = google("iam", "v1", "projects.serviceAccounts.keys.create", name=made["name"], body={})
    assert "privateKeyData" not in google("iam", "v1", "projects.serviceAccounts.keys.get", name=key["name"])
    file = base64.b64decode(key["privateKeyData"]).decode()
    its = signed_in(file)

    def ask(caller: Google) -> SdkError:
        return refused(lambda: caller("iam", "v1", "projects.serviceAccounts.get", name=made["name"]))

    assert ask(its).status == "PERMISSION_DENIED", "known, and without rights"
    google("iam", "v1", "projects.serviceAccounts.keys.delete", name=key["name"])
    assert ask(its).status == "PERMISSION_DENIED", "tokens of a deleted key live on"
    google("iam", "v1", "projects.serviceAccounts.disable", name=made["name"], body={})
    assert ask(its).status in {"UNAUTHENTICATED", "REFRESH"}, "and end with the account"
    cloud.tokens.clear()
    assert ask(signed_in(file + " ")).status == "REFRESH", "no new token either"


def own_project(google: Google, project: str = "own-project-1") -> str:
    body = {"projectId": project, "parent": PARENT, "displayName": project}
    assert google("cloudresourcemanager", "v3", "projects.create", body=body)["done"]
    info = {"billingAccountName": f"billingAccounts/{BILLING_ACCOUNT}"}
    assert google("cloudbilling", "v1", "projects.updateBillingInfo", name=f"projects/{project}", body=info)["billingEnabled"]
    google("serviceusage", "v1", "services.enable", name=f"projects/{project}/services/{GEMINI}", body={})
    return project


def cap(project: str, dollars: int, **more: Any) -> dict[str, Any]:
    return {
        "displayName": project,
        "budgetFilter": {
            "projects": [f"projects/{project}"],
            "services": [next(iter(ELIGIBLE))],
            "creditTypesTreatment": "EXCLUDE_ALL_CREDITS",
        },
        "amount": {"specifiedAmount": {"units": str(dollars)}},
        "thresholdRules": [{"thresholdPercent": percent} for percent in (0.5, 0.8, 1.0)],
        "notificationsRule": {"enableProjectLevelRecipients": True},
        "spendCap": {"inputState": "CONFIGURED"},
        **more,
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholdRules": [{"thresholdPercent": 1.0}]},
        {"notificationsRule": {}},
        {"ownershipScope": "BILLING_ACCOUNT"},
        {"spendCap": {"inputState": "ENFORCED"}},
        {
            "budgetFilter": {
                "projects": ["projects/a", "projects/b"],
                "services": ["services/x"],
                "creditTypesTreatment": "EXCLUDE_ALL_CREDITS",
            }
        },
        {"budgetFilter": {"projects": ["projects/a"], "services": list(ELIGIBLE)}},
        {"budgetFilter": {"projects": ["projects/a"], "services": ["services/x"], "creditTypesTreatment": "EXCLUDE_ALL_CREDITS"}},
    ],
)
def test_spend_cap_has_one_shape_only(google: Google, wrong: dict[str, Any]) -> None:
    parent = f"billingAccounts/{BILLING_ACCOUNT}"
    error = refused(lambda: google("billingbudgets", "v1", "billingAccounts.budgets.create", parent=parent, body=cap("p", 5, **wrong)))
    assert error.status == "INVALID_ARGUMENT"


def test_spend_cap_strikes_once_billing_knows_and_is_lifted_by_hand(google: Google, genai: Google) -> None:
    project = own_project(google)
    _, key = make_key(google, make_account(google, project=project)["email"], project=project)
    parent = f"billingAccounts/{BILLING_ACCOUNT}"
    made = google("billingbudgets", "v1", "billingAccounts.budgets.create", parent=parent, body=cap(project, 1))
    assert made["spendCap"]["outputState"] == "CONFIGURED"
    prompt = "sandbox(output_tokens=60000)"
    genai(key=key, prompt=prompt)
    with pytest.raises(SdkError) as caught:
        for _ in range(20):
            genai(key=key, prompt=prompt)
    assert caught.value.code == 429
    shown = google("billingbudgets", "v1", "billingAccounts.budgets.get", name=made["name"])
    assert shown["spendCap"]["outputState"] == "ENFORCED"
    patch = "billingAccounts.budgets.patch"
    raised = {"amount": {"specifiedAmount": {"units": "50"}}, "spendCap": {"inputState": "CONFIGURED"}}
    mask = "amount,spendCap.inputState"
    assert (
        refused(lambda: google("billingbudgets", "v1", patch, name=made["name"], updateMask=mask, body=raised)).status
        == "FAILED_PRECONDITION"
    )
    lifted = {"spendCap": {"inputState": "AWAITING_NEXT_PERIOD"}}
    google("billingbudgets", "v1", patch, name=made["name"], updateMask="spendCap.inputState", body=lifted)
    google("billingbudgets", "v1", patch, name=made["name"], updateMask=mask, body=raised)
    assert genai(key=key, prompt="Hello")["text"] == TEXT


def test_quota_override_is_made_changed_enforced_read_and_removed(google: Google, genai: Google) -> None:
    parent = f"{NAME}/services/{GEMINI}"
    metrics = google("serviceusage", "v1beta1", "services.consumerQuotaMetrics.list", parent=parent)["metrics"]
    limit = metrics[0]["consumerQuotaLimits"][0]
    overrides = "services.consumerQuotaMetrics.limits.consumerOverrides"
    made = google("serviceusage", "v1beta1", f"{overrides}.create", parent=limit["name"], body={"overrideValue": "30"})["response"]
    read = google("serviceusage", "v1beta1", "services.consumerQuotaMetrics.limits.get", name=limit["name"])
    assert read["quotaBuckets"][0]["effectiveLimit"] == "30"
    google("serviceusage", "v1beta1", f"{overrides}.patch", name=made["name"], body={"overrideValue": "20"})
    _, key = make_key(google, make_account(google)["email"])
    google("serviceusage", "v1beta1", f"{overrides}.patch", name=made["name"], body={"overrideValue": "2"})
    assert all(genai(key=key, prompt="", list=True)["models"] for _ in range(3)), "lists don't count"
    assert [genai(key=key, prompt="Hello")["text"] for _ in range(2)] == [TEXT, TEXT]
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 429
    assert genai(key=key, prompt="", list=True)["models"]
    google("serviceusage", "v1beta1", f"{overrides}.patch", name=made["name"], body={"overrideValue": "20"})
    assert genai(key=key, prompt="Hello")["text"] == TEXT
    listed = google("serviceusage", "v1beta1", f"{overrides}.list", parent=limit["name"])["overrides"]
    assert [each["overrideValue"] for each in listed] == ["20"]
    google("serviceusage", "v1beta1", f"{overrides}.delete", name=made["name"])
    assert google("serviceusage", "v1beta1", f"{overrides}.list", parent=limit["name"]) == {}


def test_disabled_service_is_told(google: Google, genai: Google) -> None:
    _, key = make_key(google, make_account(google)["email"])
    google("serviceusage", "v1", "services.disable", name=f"{NAME}/services/{GEMINI}", body={})
    assert google("serviceusage", "v1", "services.get", name=f"{NAME}/services/{GEMINI}")["state"] == "DISABLED"
    assert refused(lambda: genai(key=key, prompt="Hello")).code == 403
