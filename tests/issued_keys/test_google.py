"""Google and xAI through the running product; Google's own clients, straight at the sandbox, say what is so at the vendor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.issued_keys.delays import from_provision_to_revocation, slow
from tests.issued_keys.houses import KeyHouse
from tests.running import ApiError, RunningKeyGate
from tests.sdks.admin_clients import openai_bridge
from tests.sdks.bridge import Bridge, SdkError
from tests.sdks.google_clients import admin_client, genai_client

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin.google.api import BILLING_ACCOUNT, PARENT, PROJECT, cloud_of
from keygate.sandbox.admin.xai import TEAM

__all__ = ["admin_client", "genai_client", "openai_bridge"]

GEMINI = "generativelanguage.googleapis.com"
TEXT = "This answer comes from the sandbox of KeyGate: no vendor was asked, nothing was paid."


class House(KeyHouse):
    """KeyGate with accounts at the sandbox's Google and xAI."""

    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer, admin: Bridge, genai: Bridge) -> None:
        super().__init__(keygate, sandbox)
        self._admin, self._genai = admin, genai
        self.admin_key = self.new_admin()
        self._asks = self.new_admin()
        settings = {"base_url": sandbox.google_base_url, "project": PROJECT, "calls_per_minute": "100000"}
        own = {**settings, "parent": PARENT, "billing_account": BILLING_ACCOUNT}
        for name, wanted in (("shared", settings), ("own", own)):
            told = self.call(
                "POST", "/vendors/configure", {"vendor": "google", "name": name, "admin_key": self.admin_key, "settings": wanted}
            )
            assert told["status"] == "ready", told

    def new_admin(self, *without: str) -> str:
        """A Google administrator's key file."""
        state = self.sandbox.state.admin
        body = {"without": list(without), "token_uri": f"{self.sandbox.address}/google/oauth2/token"}
        made: str = state.api(Vendor.GOOGLE).console(state[Vendor.GOOGLE], "admin_key", body)["credentials"]
        return made

    def provision(self, vendor: str = "google", **body: Any) -> dict[str, Any]:
        return self.order(vendor=vendor, **body)

    def google(self, service: str, version: str, method: str, **arguments: Any) -> Any:
        request = {"service": service, "version": version, "method": method, "arguments": arguments}
        return self._admin.call(base=self.sandbox.google_base_url, credentials=self._asks, **request)["answer"]

    def cap(self, made: dict[str, Any]) -> dict[str, Any]:
        """The spend cap of the key's project."""
        project, parent = made["at_vendor"]["project"], f"billingAccounts/{BILLING_ACCOUNT}"
        [budget] = self.google("billingbudgets", "v1", "billingAccounts.budgets.list", parent=parent, scope=f"projects/{project}")[
            "budgets"
        ]
        return dict(budget)

    def quota(self, made: dict[str, Any]) -> dict[str, Any]:
        metric = f"projects/{made['at_vendor']['project']}/services/{GEMINI}/consumerQuotaMetrics/{GEMINI}%2Fgenerate_content_requests"
        name = f"{metric}/limits/%2Fmin%2Fproject"
        return dict(self.google("serviceusage", "v1beta1", "services.consumerQuotaMetrics.limits.get", name=name)["quotaBuckets"][0])

    def terms(self, made: dict[str, Any]) -> dict[str, Any]:
        """All that Google's client reads of what limits a key."""
        project, cap = made["at_vendor"]["project"], self.cap(made)
        keys = self.google("apikeys", "v2", "projects.locations.keys.list", parent=f"projects/{project}/locations/global")["keys"]
        [key] = [each for each in keys if each["name"].rpartition("/")[2] == made["at_vendor"]["key"].rpartition("/")[2]]
        return {
            "budget": cap["amount"]["specifiedAmount"],
            "cap": cap["spendCap"]["outputState"],
            "requests": self.quota(made)["effectiveLimit"],
            "targets": key["restrictions"]["apiTargets"],
            "bound_to": key["serviceAccountEmail"],
        }

    def answers(self, key: str) -> bool:
        """Whether google-genai gets an answer with this key, straight at the vendor."""
        try:
            return bool(self._genai.call(base=self.sandbox.google_base_url, key=key, prompt="Hello")["text"] == TEXT)
        except SdkError:
            return False


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, admin_client: Bridge, genai_client: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("house")) as keygate:
        yield House(keygate, sandbox, admin_client, genai_client)


def test_google_key_from_provision_to_revocation(house: House) -> None:
    made = house.provision(account="own", budget_usd="12.50", rate_limit_rpm=120, expires_in_days=90)
    assert made["state"] == "active"
    assert made["enforcement"]["budget"] == made["enforcement"]["requests_per_minute"] == "confirmed"
    assert made["env"]["GEMINI_API_KEY"] == made["key"]
    assert house.answers(made["key"]), "with no KeyGate in the path"

    project = made["at_vendor"]["project"]
    asked = house.terms(made)
    assert asked["budget"] == {"currencyCode": "USD", "units": "12", "nanos": 500_000_000}
    assert (asked["cap"], asked["requests"], asked["targets"]) == ("CONFIGURED", "120", [{"service": GEMINI}])
    assert asked["bound_to"] == made["at_vendor"]["service_account"]

    turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 2, "insist": True})
    assert turned["generation"] == 2
    calls: list[bool] = []

    def work() -> None:
        """A service goes over to the new key while the old one still works."""
        calls.append(house.answers(turned["key"]))

    assert house.answers(made["key"])
    done = house.until(made["id"], lambda key: key["state"] == "active", meanwhile=work)
    assert done["former"] is None
    assert calls, "there was an overlap"
    assert all(calls), "no failed call in between"
    assert not house.answers(made["key"])
    assert house.answers(turned["key"])
    assert turned["at_vendor"]["key"] != made["at_vendor"]["key"]
    assert house.terms(turned) == asked, "limits and the restriction to one API carry over exactly"

    ended = house.call("POST", f"/keys/{made['id']}/revoke", {"reason": "left"})
    assert ended["state"] == "revoked"
    assert ended["evidence"][-1]["vendor_says"] == "gone"
    assert not house.answers(turned["key"])
    shown = house.google("cloudresourcemanager", "v3", "projects.list", parent=PARENT).get("projects", [])
    assert project not in [each["projectId"] for each in shown]


def test_limits_changed_in_googles_console_are_found_repaired_and_accepted(house: House) -> None:
    made = house.provision(account="own", budget_usd="12.50", rate_limit_rpm=120)

    def raise_cap() -> None:
        body = {"amount": {"specifiedAmount": {"currencyCode": "USD", "units": "900"}}, "spendCap": {"inputState": "CONFIGURED"}}
        wanted = {"name": house.cap(made)["name"], "updateMask": "amount,spendCap.inputState", "body": body}
        house.google("billingbudgets", "v1", "billingAccounts.budgets.patch", **wanted)

    house.drifts(
        made,
        "budget",
        change=raise_cap,
        shown=lambda: house.cap(made)["amount"]["specifiedAmount"],
        takes=lambda key: Decimal(key["budget_usd"]) == 900,
    )

    def raise_quota() -> None:
        name = house.quota(made)["consumerOverride"]["name"]
        patch = "services.consumerQuotaMetrics.limits.consumerOverrides.patch"
        house.google("serviceusage", "v1beta1", patch, name=name, body={"overrideValue": "9000"}, force=True)

    house.drifts(
        made,
        "requests_per_minute",
        change=raise_quota,
        shown=lambda: house.quota(made)["effectiveLimit"],
        takes=lambda key: key["rate_limit_rpm"] == 9_000,
    )
    house.grows_old(made)
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_google_key_in_the_shared_project_leaves_nothing_behind(house: House) -> None:
    made = house.provision(account="shared")
    assert house.answers(made["key"])
    email = made["at_vendor"]["service_account"]
    name = f"projects/{PROJECT}/serviceAccounts/{email}"
    assert house.google("iam", "v1", "projects.serviceAccounts.get", name=name)["email"] == email
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert not house.answers(made["key"])
    with pytest.raises(SdkError) as caught:
        house.google("iam", "v1", "projects.serviceAccounts.get", name=name)
    assert caught.value.code == 404
    assert "keys" not in house.google("apikeys", "v2", "projects.locations.keys.list", parent=f"projects/{PROJECT}/locations/global")


def test_google_budget_in_the_shared_project_fails_with_the_remedy_and_leaves_nothing(house: House) -> None:
    with pytest.raises(ApiError, match="billing_account"):
        house.provision(account="shared", budget_usd="5.00")
    cloud = cloud_of(house.sandbox.state.admin[Vendor.GOOGLE])
    assert not [each for each in cloud.accounts.values() if each.account_id.startswith("kg-") and each.deleted_at is None]


def test_google_rights_that_are_missing_are_named_one_by_one(house: House) -> None:
    poor = house.new_admin("apikeys.keys.create", "iam.serviceAccounts.disable")
    settings = {"base_url": house.sandbox.google_base_url, "project": PROJECT}
    body = {"vendor": "google", "name": "poor", "admin_key": poor, "settings": settings}
    told = house.call("POST", "/vendors/configure", body)
    assert (told["status"], told["missing_rights"]) == ("rights_missing", ["iam.serviceAccounts.disable", "apikeys.keys.create"])
    with pytest.raises(ApiError, match=r"iam\.serviceAccounts\.disable, apikeys\.keys\.create"):
        house.provision(account="poor")


def test_google_failing_half_way_is_undone(house: House) -> None:
    faults = f"{house.sandbox.address}/_sandbox/admin/google/faults"
    fault = {"operation": "apikeys.keys.create", "status": 403, "message": "no", "calls": None}
    assert httpx.post(faults, json=fault, timeout=10).status_code == 201
    try:
        with pytest.raises(ApiError, match=r"apikeys\.keys\.create"):
            house.provision(account="shared")
    finally:
        httpx.delete(faults, timeout=10)
    cloud = cloud_of(house.sandbox.state.admin[Vendor.GOOGLE])
    assert not [each for each in cloud.accounts.values() if each.account_id.startswith("kg-") and each.deleted_at is None]


def test_xai_key_from_provision_over_rotation_and_drift_to_revocation(house: House) -> None:
    admin = house.sandbox.state.admin[Vendor.XAI].create_credential().value
    settings = {"base_url": f"{house.sandbox.address}/xai", "calls_per_minute": "100000"}
    told = house.call("POST", "/vendors/configure", {"vendor": "xai", "admin_key": admin, "settings": settings})
    assert told["status"] == "ready"
    with pytest.raises(ApiError, match="allow_unenforced"):
        house.provision("xai", budget_usd="5.00")
    made = house.provision("xai", rate_limit_rpm=50, models=["grok-3"], scopes=["chat"], expires_in_days=30)
    assert set(made["enforcement"].values()) == {"confirmed"}

    def status(key: str, model: str = "grok-3") -> int:
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {key}"}
        return httpx.post(f"{house.sandbox.xai_base_url}/chat/completions", json=body, headers=headers, timeout=10).status_code

    management = f"{house.sandbox.address}/xai/management/auth"
    looks = {"authorization": f"Bearer {house.sandbox.state.admin[Vendor.XAI].create_credential().value}"}

    def shown(key_id: str) -> dict[str, Any]:
        """xAI has no SDK of its management API: its calls, made by hand."""
        keys = httpx.get(f"{management}/teams/{TEAM}/api-keys", headers=looks, timeout=10).json()["apiKeys"]
        [one] = [each for each in keys if each["apiKeyId"] == key_id]
        return {name: one.get(name) for name in ("acls", "qpm", "tpm", "expireTime", "disabled")}

    asked = shown(made["at_vendor"]["key"])
    assert (asked["acls"], asked["qpm"]) == (["api-key:model:grok-3", "api-key:endpoint:chat"], 50)
    assert asked["expireTime"][:19] == made["expires_at"][:19]
    assert status(made["key"]) == 200
    turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 0, "insist": True})
    house.until(made["id"], lambda key: key["state"] == "active")
    assert (status(made["key"]), status(turned["key"]), status(turned["key"], "grok-4-0709")) == (401, 200, 403)
    assert shown(turned["at_vendor"]["key"]) == asked, "models, scopes, limits and the end carry over exactly"
    made = {**turned, "account_id": made["account_id"]}

    def change() -> None:
        key_id = made["at_vendor"]["key"]
        changed = {"apiKey": {"apiKeyId": key_id, "qpm": 5_000}, "fieldMask": "qpm"}
        assert httpx.put(f"{management}/api-keys/{key_id}", json=changed, headers=looks, timeout=10).status_code == 200

    house.drifts(
        made,
        "requests_per_minute",
        change=change,
        shown=lambda: shown(made["at_vendor"]["key"])["qpm"],
        takes=lambda key: key["rate_limit_rpm"] == 5_000,
    )
    house.grows_old(made)
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert status(turned["key"]) == 401


def test_nothing_is_said_of_a_google_key_before_its_inference_side_knows_it(house: House) -> None:
    """With google-genai. At its end a key goes with its service account, at once."""
    with slow(house.sandbox.state.admin[Vendor.GOOGLE], revoked_key_s=9):
        from_provision_to_revocation(
            house, lambda: house.provision(account="shared"), lambda made: house.answers(made["key"]), lasts_at_end=False
        )


def test_nothing_is_said_of_an_xai_key_before_its_inference_side_knows_it(house: House, openai_bridge: Bridge) -> None:
    """With OpenAI's SDK at xAI's address, which xAI documents as a client of its own."""
    account = house.sandbox.state.admin[Vendor.XAI]
    settings = {"base_url": f"{house.sandbox.address}/xai", "calls_per_minute": "100000"}
    admin = account.create_credential(name="late").value
    house.call("POST", "/vendors/configure", {"vendor": "xai", "name": "late", "admin_key": admin, "settings": settings})

    def answers(made: dict[str, Any]) -> bool:
        options = {"model": "grok-3", "messages": [{"role": "user", "content": "Hello"}]}
        try:
            openai_bridge.call(base=house.sandbox.xai_base_url, key=made["key"], method="chat.completions.create", options=options)
        except SdkError as error:
            if error.code != 401:
                raise
            return False
        return True

    with slow(account):
        from_provision_to_revocation(house, lambda: house.provision("xai", account="late", models=["grok-3"]), answers)


def test_vendor_without_an_api_for_keys_says_so_and_what_instead(house: House) -> None:
    with pytest.raises(ApiError, match=r"no API of Groq's that makes keys is known.*by hand.*virtual key") as caught:
        house.provision("groq")
    assert caught.value.status == 409


def test_neither_the_admins_private_key_nor_an_issued_one_stands_anywhere_in_the_clear(house: House) -> None:
    made = house.provision(account="shared")
    private = json.loads(house.admin_key)["private_key"].splitlines()[5]
    house.call("POST", f"/keys/{made['id']}/revoke")
    texts = [house.keygate.log.read_bytes(), *(each.read_bytes() for each in house.keygate.data_dir.rglob("*") if each.is_file())]
    texts += [json.dumps(house.call("GET", path)).encode() for path in ("/audit", "/keys", "/vendors/accounts", "/events")]
    for secret in (private, made["key"]):
        assert not [text for text in texts if secret.encode() in text]
