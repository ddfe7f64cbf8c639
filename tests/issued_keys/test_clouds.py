"""Azure OpenAI and AWS Bedrock through the running product; the vendors' own clients, straight at the sandbox, say what is so there."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from tests.issued_keys.delays import from_provision_to_revocation, slow
from tests.issued_keys.houses import KeyHouse
from tests.running import ApiError, RunningKeyGate
from tests.sdks.aws_clients import MODEL, Boto, aws_bridge
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT, TEXT, AzureSdk, azure_bridge
from tests.sdks.bridge import Bridge, SdkError

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault

__all__ = ["aws_bridge", "azure_bridge"]


class House(KeyHouse):
    """KeyGate with accounts at the sandbox's Azure and AWS."""

    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer, azure: Bridge, aws: Bridge) -> None:
        super().__init__(keygate, sandbox)
        self.secrets = {
            vendor: self.account(vendor).create_credential(name=f"keygate-{vendor}") for vendor in (Vendor.AZURE, Vendor.BEDROCK)
        }
        self.sdk = AzureSdk(azure, sandbox, self.account(Vendor.AZURE).create_credential(name="who-looks"))
        self.boto = Boto(aws, sandbox, self.account(Vendor.BEDROCK).create_credential(name="AKIAWHOLOOKS"))
        for vendor in self.secrets:
            told = self.configure(vendor)
            assert told["status"] == "ready", told

    def account(self, vendor: Vendor) -> Account:
        return self.sandbox.state.admin[vendor]

    def configure(self, vendor: Vendor, *, name: str = "default", without: tuple[str, ...] = ()) -> dict[str, Any]:
        """By the body that the sandbox answers for it, as its guide has it."""
        known = self.secrets[vendor]
        entered = {"name": f"poor-{vendor}", "without": without} if without else {"name": known.name, "value": known.value}
        answer = httpx.post(f"{self.sandbox.address}/_sandbox/admin/{vendor}/configure", json=entered, timeout=10)
        body = answer.json() | {"name": name}
        body["settings"]["calls_per_minute"] = "100000"
        if vendor is Vendor.AZURE:
            body["settings"] |= {"tenant": TENANT, "subscription": SUBSCRIPTION, "resource_group": GROUP}
        return self.call("POST", "/vendors/configure", body)  # type: ignore[no-any-return]  # JSON

    def provision(self, vendor: Vendor, **body: Any) -> dict[str, Any]:
        wanted = (
            {"models": ["gpt-4o-mini"], "rate_limit_tpm": 20_000} if vendor is Vendor.AZURE else {"models": [MODEL], "expires_in_days": 90}
        )
        return self.order(**{"vendor": vendor, "account": "default", **wanted, **body})

    def opens(self, made: dict[str, Any]) -> bool:
        """Whether the vendor's own SDK gets an answer with what was handed out, and no KeyGate in the path."""
        env = made["env"]
        try:
            if made["vendor"] == "azure":
                endpoint = {"properties": {"endpoint": env["AZURE_OPENAI_ENDPOINT"]}}
                return bool(self.sdk.chat(endpoint, env["AZURE_OPENAI_API_KEY"])["text"] == TEXT)
            return self.boto.converse(env["AWS_BEARER_TOKEN_BEDROCK"]) == TEXT
        except SdkError as error:
            if error.status not in {401, 403, 404}:
                raise
            return False

    def terms(self, made: dict[str, Any]) -> Any:
        """What limits the key, as the vendor's own client reads it: deployments and their capacity; resources, and until when."""
        if made["vendor"] == "azure":
            found = self.sdk.call("deployments.list", GROUP, made["at_vendor"]["account"])
            return sorted((each["name"], each["sku"]["capacity"]) for each in found)
        keys = self.boto.iam("list_service_specific_credentials", UserName=made["at_vendor"]["user"])["ServiceSpecificCredentials"]
        assert made["at_vendor"]["key"] in [each["ServiceSpecificCredentialId"] for each in keys]
        document = self.boto.iam("get_user_policy", UserName=made["at_vendor"]["user"], PolicyName="keygate")["PolicyDocument"]
        [models] = [each for each in document["Statement"] if "bedrock:InvokeModel" in each["Action"]]
        return models["Resource"], models.get("Condition", {}).get("DateLessThan", {}).get("aws:CurrentTime")

    def standing(self, vendor: Vendor) -> tuple[int, int]:
        """`(containers, keys that were handed out)` at the vendor, as its own client tells."""
        if vendor is Vendor.AZURE:
            accounts = self.sdk.call("accounts.list_by_resource_group", GROUP)
            gone = self.sdk.call("deleted_accounts.list")
            tags = [each.get("tags", {}) for each in accounts]
            return len(accounts) + len(gone), sum(bool(one.get(f"keygate-key{number}")) for one in tags for number in (1, 2))
        users = self.boto.iam("list_users", PathPrefix="/keygate/")["Users"]
        keys = [self.boto.iam("list_service_specific_credentials", UserName=each["UserName"]) for each in users]
        return len(users), sum(len(each["ServiceSpecificCredentials"]) for each in keys)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, azure_bridge: Bridge, aws_bridge: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("house")) as keygate:
        yield House(keygate, sandbox, azure_bridge, aws_bridge)


VENDORS = pytest.mark.parametrize("vendor", [Vendor.AZURE, Vendor.BEDROCK])


@VENDORS
def test_a_key_from_provision_over_rotation_to_revocation(house: House, vendor: Vendor) -> None:
    before = house.standing(vendor)
    made = house.provision(vendor)
    assert made["state"] == "active"
    confirmed = {"models", "tokens_per_minute"} if vendor is Vendor.AZURE else {"models", "expiry"}
    assert {term for term, standing in made["enforcement"].items() if standing == "confirmed"} == confirmed
    assert house.opens(made)
    asked = house.terms(made)
    if vendor is Vendor.AZURE:
        assert asked == [("gpt-4o-mini", 20)]
    else:
        resources, until = asked
        assert f"arn:aws:bedrock:*::foundation-model/{MODEL}" in resources
        assert until[:16] == made["expires_at"][:16]

    turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 2, "insist": True})
    assert turned["generation"] == 2
    assert house.opens(made), "the overlap: the former key goes on"
    calls: list[bool] = []
    done = house.until(made["id"], lambda key: key["state"] == "active", meanwhile=lambda: calls.append(house.opens(turned)))
    assert done["former"] is None
    assert calls, "there was an overlap"
    assert all(calls), "no failed call in between"
    assert not house.opens(made)
    assert house.opens(turned)
    assert turned["at_vendor"]["key"] != made["at_vendor"]["key"]
    assert house.terms(turned) == asked, "models and limits carry over exactly"
    if vendor is Vendor.BEDROCK:
        with pytest.raises(SdkError):  # what the next key may do is tried, too
            house.boto.converse(turned["env"]["AWS_BEARER_TOKEN_BEDROCK"], "amazon.nova-pro-v1:0")

    ended = house.call("POST", f"/keys/{made['id']}/revoke", {"reason": "left"})
    assert ended["state"] == "revoked"
    assert ended["evidence"][-1]["vendor_says"] == "gone"
    assert not house.opens(turned)
    assert house.standing(vendor) == before


@VENDORS
def test_revoked_is_not_said_while_the_vendor_refuses(house: House, vendor: Vendor) -> None:
    made = house.provision(vendor)
    operation = "accounts.regenerate_key" if vendor is Vendor.AZURE else "DeleteServiceSpecificCredential"
    account = house.account(vendor)
    account.faults.append(AdminFault(operation, status=403, calls=None))
    if vendor is Vendor.AZURE:
        account.faults.append(AdminFault("accounts.delete", status=403, calls=None))
    told = house.call("POST", f"/keys/{made['id']}/revoke", {"wait_seconds": 10})
    assert told["state"] == "irrevocable"
    assert ("regenerateKey/action" if vendor is Vendor.AZURE else "iam:DeleteServiceSpecificCredential") in told["error"]
    assert house.opens(made)
    account.faults.clear()
    house.call("POST", f"/keys/{made['id']}/revoke", {"wait_seconds": 10})
    house.until(made["id"], lambda key: key["state"] == "revoked")
    assert not house.opens(made)


def test_a_sign_in_that_the_vendor_ends_early_keeps_no_key_from_being_revoked(house: House) -> None:
    made = house.provision(Vendor.AZURE)
    account = house.account(Vendor.AZURE)
    with house.sandbox.state.admin.lock:
        tokens = account.shelves["tokens"]
        ours = [token for token in tokens if token.more["credential"] == house.secrets[Vendor.AZURE].value]
        assert ours
        for token in ours:
            tokens.remove(token.id, at_ns=account.now_ns())
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert not house.opens(made)
    statuses = {each["status"] for each in house.call("GET", "/vendors/accounts")["items"] if each["name"] == "default"}
    assert statuses == {"ready"}


@VENDORS
def test_rights_that_are_missing_are_named_before_anything_is_made(house: House, vendor: Vendor) -> None:
    before = house.standing(vendor)
    right = "Microsoft.CognitiveServices/accounts/deployments/write" if vendor is Vendor.AZURE else "iam:PutUserPolicy"
    told = house.configure(vendor, name="poor", without=(right,))
    assert (told["status"], told["missing_rights"]) == ("rights_missing", [right])
    with pytest.raises(ApiError, match=right):
        house.provision(vendor, account="poor")
    assert house.standing(vendor) == before


@VENDORS
def test_a_vendor_that_fails_half_way_keeps_nothing(house: House, vendor: Vendor) -> None:
    before = house.standing(vendor)
    operation = "deployments.create" if vendor is Vendor.AZURE else "CreateServiceSpecificCredential"
    house.account(vendor).faults.append(AdminFault(operation, status=403, calls=None))
    try:
        with pytest.raises(ApiError, match="deployments/write" if vendor is Vendor.AZURE else "iam:CreateServiceSpecificCredential"):
            house.provision(vendor)
    finally:
        house.account(vendor).faults.clear()
    assert house.standing(vendor) == before


def test_a_term_that_the_vendor_cannot_enforce_is_refused_with_the_reason(house: House) -> None:
    with pytest.raises(ApiError, match="Azure caps no spend"):
        house.provision(Vendor.AZURE, budget_usd="5.00")
    with pytest.raises(ApiError, match="AWS caps no spend"):
        house.provision(Vendor.BEDROCK, budget_usd="5.00")


def test_a_capacity_changed_in_azures_portal_is_found_repaired_and_accepted(house: House) -> None:
    made = house.provision(Vendor.AZURE)
    account = made["at_vendor"]["account"]
    house.drifts(
        made,
        "tokens_per_minute",
        change=lambda: house.sdk.deploy(account, capacity=90),
        shown=lambda: house.terms(made),
        takes=lambda key: key["rate_limit_tpm"] == 90_000,
    )
    house.drifts(
        made,
        "models",
        change=lambda: house.sdk.deploy(account, model="gpt-4.1-mini", capacity=90),
        shown=lambda: house.terms(made),
        takes=lambda key: sorted(key["models"]) == ["gpt-4.1-mini", "gpt-4o-mini"],
    )
    house.grows_old(made)
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_models_and_an_end_changed_in_awss_console_are_found_repaired_and_accepted(house: House) -> None:
    made = house.provision(Vendor.BEDROCK)
    user, other = made["at_vendor"]["user"], "amazon.nova-pro-v1:0"

    def put(change: Callable[[str], str]) -> None:
        """The policy in the console's editor."""
        document = house.boto.iam("get_user_policy", UserName=user, PolicyName="keygate")["PolicyDocument"]
        house.boto.iam("put_user_policy", UserName=user, PolicyName="keygate", PolicyDocument=change(json.dumps(document)))

    def shown() -> Any:
        return house.terms(made)

    house.drifts(
        made, "models", change=lambda: put(lambda text: text.replace(MODEL, other)), shown=shown, takes=lambda key: key["models"] == [other]
    )
    _, until = shown()
    later = f"2031{until[4:]}"
    house.drifts(
        made,
        "expiry",
        change=lambda: put(lambda text: text.replace(until, later)),
        shown=shown,
        takes=lambda key: key["expires_at"][:19] == later[:19],
    )
    # Rules that KeyGate did not write: what they allow can't be told, so it can't be agreed to. It is set right again as a whole.
    wide = {"Effect": "Allow", "Action": "bedrock:*", "Resource": "*"}
    widened = json.dumps({"Version": "2012-10-17", "Statement": [wide]})

    def resources() -> Any:
        return house.boto.iam("get_user_policy", UserName=user, PolicyName="keygate")["PolicyDocument"]["Statement"]

    house.drifts(made, "models", change=lambda: put(lambda _: widened), shown=resources, takes=None)
    assert shown()[1] == later
    house.grows_old(made)
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_a_full_region_is_told_and_another_one_serves(house: House) -> None:
    account = house.account(Vendor.AZURE)
    settings = account.settings
    house.provision(Vendor.AZURE)
    account.settings = settings.with_changes({"ceilings": {"accounts": house.standing(Vendor.AZURE)[0]}})
    try:
        [one] = [each for each in house.call("GET", "/vendors/accounts")["items"] if (each["vendor"], each["name"]) == ("azure", "default")]
        assert house.call("GET", f"/vendors/accounts/{one['id']}/room")["room"] == 0, "counted when it is asked for"
        with pytest.raises(ApiError, match="another region"):
            house.provision(Vendor.AZURE)
        made = house.provision(Vendor.AZURE, options={"region": "swedencentral"})
        assert house.opens(made)
    finally:
        account.settings = settings


def test_neither_admin_credentials_nor_issued_keys_stand_anywhere_in_the_clear(house: House) -> None:
    made = [house.provision(vendor) for vendor in house.secrets]
    for each in made:
        house.call("POST", f"/keys/{each['id']}/revoke")
    texts = [house.keygate.log.read_bytes(), *(each.read_bytes() for each in house.keygate.data_dir.rglob("*") if each.is_file())]
    texts += [json.dumps(house.call("GET", path)).encode() for path in ("/audit", "/keys", "/vendors/accounts", "/events")]
    for secret in (*(each.value for each in house.secrets.values()), *(str(each["key"]) for each in made)):
        assert not [text for text in texts if secret.encode() in text]


def test_a_container_that_the_vendor_keeps_is_shown_as_owed_until_it_is_gone(house: House) -> None:
    """The key is dead, but the deleted account counts against the ceiling: nobody is told that all is done."""
    before = house.standing(Vendor.AZURE)
    made = house.provision(Vendor.AZURE)
    account = house.account(Vendor.AZURE)
    account.faults.append(AdminFault("deleted_accounts.purge", status=403, calls=None))
    try:
        told = house.call("POST", f"/keys/{made['id']}/revoke", {"wait_seconds": 10})
    finally:
        account.faults.clear()
    assert not house.opens(made)
    assert told["state"] == "irrevocable" or told["owed"], told
    assert "deletedAccounts/delete" in told["error"]
    house.call("POST", f"/keys/{made['id']}/revoke", {"wait_seconds": 20})
    house.until(made["id"], lambda key: key["state"] == "revoked" and not key["owed"])
    assert house.standing(Vendor.AZURE) == before


@VENDORS
def test_the_inventory_tells_ours_from_theirs_and_switches_theirs_off(house: House, vendor: Vendor) -> None:
    made = house.provision(vendor)
    if vendor is Vendor.AZURE:
        theirs = house.sdk.create("someone")
        house.sdk.deploy("someone")
        key = house.sdk.call("accounts.list_keys", GROUP, "someone")["key1"]
        found_as = "someone"
        stray = {"vendor": "azure", "env": {"AZURE_OPENAI_ENDPOINT": theirs["properties"]["endpoint"], "AZURE_OPENAI_API_KEY": key}}
    else:
        house.boto.user("someone")
        house.boto.allow(f"arn:aws:bedrock:*::foundation-model/{MODEL}", name="someone")
        credential = house.boto.key("someone")
        found_as = credential["ServiceSpecificCredentialId"]
        stray = {"vendor": "bedrock", "env": {"AWS_BEARER_TOKEN_BEDROCK": credential["ServiceCredentialSecret"]}}
    accounts = house.call("GET", "/vendors/accounts")["items"]
    [one] = [each["id"] for each in accounts if (each["vendor"], each["name"]) == (vendor, "default")]
    house.call("POST", "/inventory/scans", {"account": one})
    ends = time.monotonic() + 60
    while any(scan["ended_at"] is None for scan in house.call("GET", "/inventory/scans")["items"]):
        assert time.monotonic() < ends
        time.sleep(0.2)
    items = house.call("GET", "/inventory", account_id=one, limit=500)["items"]
    own = [item for item in items if item["issued_key_id"] == made["id"]]
    assert own
    assert {item["standing"] for item in own} == {"ours"}
    [unknown] = [item for item in items if item["name"] == found_as]
    assert unknown["standing"] == "unknown"
    assert house.opens(stray)
    off = house.call("POST", f"/inventory/{unknown['id']}/disable", {"reason": "nobody knows it"})
    assert off["presence"] == "disabled"
    assert not house.opens(stray)
    assert house.opens(made)

    [holder] = [item for item in own if item["kind"] == "container"]
    disabled = f"/inventory/{holder['id']}/disable"
    if vendor is Vendor.BEDROCK:  # single keys are
        with pytest.raises(ApiError, match="not what holds them") as refused:
            house.call("POST", disabled, {"reason": "on holiday"})
        assert refused.value.status == 409
        assert house.call("GET", "/audit", action="inventory.disable", target=holder["id"])["items"] == []
        assert house.opens(made)
        return
    off = house.call("POST", disabled, {"reason": "on holiday"})
    assert (off["presence"], off["findings"], off["attention"]) == ("disabled", ["disabled"], False)
    assert off["accepted"]["reason"] == "on holiday"
    assert not house.opens(made)
    again = house.call("POST", f"/inventory/{holder['id']}/repair")
    assert (again["presence"], again["findings"], again["accepted"]) == ("live", [], None)
    assert house.opens(made)
    house.sdk.call("accounts.begin_update", GROUP, holder["name"], {"properties": {"disableLocalAuth": True}})
    assert not house.opens(made)
    seen = house.looked_at(made)
    assert (seen["findings"], seen["attention"]) == (["disabled"], True), "in the console, by somebody else"
    house.call("POST", f"/inventory/{holder['id']}/repair")


WIDE = {"Version": "2012-10-17", "Statement": [{"Sid": "All", "Effect": "Allow", "Action": "bedrock:*", "Resource": "*"}]}


def test_bedrock_policy_that_somebody_widened_is_found_and_repaired_as_a_whole(house: House) -> None:
    made = house.provision(Vendor.BEDROCK)
    user = made["at_vendor"]["user"]
    asks = {"UserName": user, "PolicyName": "keygate"}
    agreed = house.boto.iam("get_user_policy", **asks)["PolicyDocument"]
    house.boto.iam("put_user_policy", **asks, PolicyDocument=json.dumps(WIDE))
    found = house.call("POST", f"/keys/{made['id']}/check")
    assert (found["error_code"], found["enforcement"]["models"], found["enforcement"]["expiry"]) == ("drifted", "differs", "differs")
    repaired = house.call("POST", f"/keys/{made['id']}/check", {"repair": True})
    assert (repaired["error_code"], repaired["enforcement"]["models"], repaired["enforcement"]["expiry"]) == (
        None,
        "confirmed",
        "confirmed",
    )
    assert house.boto.iam("get_user_policy", **asks)["PolicyDocument"] == agreed
    assert house.opens(made)
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"


@VENDORS
def test_nothing_is_said_of_a_key_before_the_vendors_inference_side_knows_it(house: House, vendor: Vendor) -> None:
    """No call fails in a rotation, and nothing is called revoked while the SDK gets answers. At its end a key goes with Azure's account and
    its address, or with the IAM user and its policy, at once."""
    more = {"rate_limit_tpm": 200_000} if vendor is Vendor.AZURE else {}  # for all the calls that watch it
    with slow(house.account(vendor)):
        from_provision_to_revocation(house, lambda: house.provision(vendor, **more), house.opens, lasts_at_end=False)


def test_no_proof_of_quiet_is_promised_where_the_vendor_never_tells(house: House) -> None:
    made = house.provision(Vendor.AZURE)
    with pytest.raises(ApiError, match="never tells when a key was used"):
        house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 1, "quiet_seconds": 60})
    house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 1})
    waiting = house.until(made["id"], lambda key: key["former"]["waits_for"] == "insist")
    assert waiting["state"] == "rotating"
    assert house.opens(made), "nobody has insisted"
    assert house.call("POST", f"/keys/{made['id']}/cut")["former"] is None
    assert not house.opens(made)


def test_a_lease_ends_during_a_rotation_too(house: House) -> None:
    made = house.provision(Vendor.AZURE)
    turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 600})
    soon = datetime.fromtimestamp(time.time() + 3, UTC).isoformat()
    house.call("POST", f"/keys/{made['id']}/extend", {"expires_at": soon})
    house.until(made["id"], lambda key: key["state"] == "expired")
    assert not house.opens(made)
    assert not house.opens(turned)


def test_a_former_key_that_the_vendor_refuses_to_cut_is_told_at_once(house: House) -> None:
    made = house.provision(Vendor.BEDROCK)
    account = house.account(Vendor.BEDROCK)
    account.faults.append(AdminFault("DeleteServiceSpecificCredential", status=403, calls=None))
    try:
        house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 0, "insist": True})
        stuck = house.until(made["id"], lambda key: key["former"]["waits_for"] == "vendor")
        assert "iam:DeleteServiceSpecificCredential" in stuck["error"]
        told = [each["type"] for each in house.call("GET", "/events", limit=500)["items"] if each["subject"] == made["id"]]
        assert "issued_key.irrevocable" in told
    finally:
        account.faults.clear()
    house.call("POST", f"/keys/{made['id']}/cut")
    assert not house.opens(made)
