"""Anthropic's own SDK administers the sandbox, trades identity tokens for access tokens, and uses keys and tokens."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.sdks.admin_clients import Sdk
from tests.sdks.bridge import SdkError
from tests.sdks.identity import TestIssuer

from keygate.kit.clock import rfc3339
from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.anthropic import AnthropicAdmin
from keygate.sandbox.admin.anthropic.reading import ORGANIZATION

AUDIENCE = "https://api.anthropic.com"
HELLO: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
DEAR = {**HELLO, "messages": [{"role": "user", "content": "sandbox(input_tokens=1000000 output_tokens=0)"}]}


@pytest.fixture
def account(sandbox: SandboxServer) -> Account:
    return sandbox.state.admin[Vendor.ANTHROPIC]


@pytest.fixture
def admin(account: Account) -> dict[str, str]:
    return {"key": account.create_credential().value}


@pytest.fixture
def owner(account: Account) -> dict[str, str]:
    """An OAuth bearer with `org:admin`."""
    return {"token": account.create_credential(kind="oauth").value}


@pytest.fixture
def issuer(account: Account) -> TestIssuer:
    return TestIssuer(account.now_ns)


class Federation:
    """A workspace, a service account in it, and a rule for `keygate:one`."""

    def __init__(self, sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, *, lifetime: int = 3600) -> None:
        self._issuer = issuer
        self.workspace = sdk("organization.workspaces.create", name="kg-team", key=owner)["id"]
        self.account = sdk("organization.service_accounts.create", name="kg-team", key=owner)["id"]
        role = {"service_account_id": self.account, "workspace_role": "workspace_developer"}
        sdk("organization.workspaces.service_accounts.add", self.workspace, key=owner, **role)
        keys = {"type": "inline", "keys": issuer.jwks()["keys"]}
        self.issuer = sdk("organization.federation.issuers.create", name="keygate", issuer_url=issuer.url, jwks=keys, key=owner)["id"]
        self.rule = sdk(
            "organization.federation.rules.create",
            name="kg-team-1",
            issuer_id=self.issuer,
            match={"subject_prefix": "keygate:one", "audience": AUDIENCE},
            target={"type": "service_account", "service_account_id": self.account},
            oauth_scope="workspace:inference",
            workspace_id=self.workspace,
            token_lifetime_seconds=lifetime,
            key=owner,
        )["id"]

    def key(self, **claims: Any) -> dict[str, Any]:
        now_s = self._issuer._now_ns() // 10**9
        token = self._issuer.sign({"sub": "keygate:one", "aud": AUDIENCE, "exp": now_s + 3600, **claims}).open()
        return {"federation": {"identity_token": token, "federation_rule_id": self.rule, "organization_id": ORGANIZATION}}


def console(account: Account, action: str, **body: Any) -> Any:
    return AnthropicAdmin().console(account, action, body)


def test_key_made_by_hand_is_found_renamed_switched_off_and_on_and_archived(
    anthropic_sdk: Sdk, admin: dict[str, str], account: Account
) -> None:
    workspace = anthropic_sdk("organization.workspaces.create", name="kg-team", tags={"keygate": "one"}, key=admin)["id"]
    made = console(account, "keys", name="by hand", workspace_id=workspace)
    own = {"key": made["value"]}
    assert anthropic_sdk("messages.create", key=own, **HELLO)["stop_reason"] == "end_turn"
    (listed,) = anthropic_sdk("organization.api_keys.list", workspace_id=workspace, all=True, key=admin)
    assert (listed["id"], listed["status"], listed["scope"]["workspace_id"]) == (made["id"], "active", workspace)
    assert made["value"].endswith(listed["partial_key_hint"][-4:])
    assert anthropic_sdk("organization.api_keys.update", made["id"], name="kg-1", key=admin)["name"] == "kg-1"
    for status, works in (("inactive", False), ("active", True), ("archived", False)):
        assert anthropic_sdk("organization.api_keys.update", made["id"], status=status, key=admin)["status"] == status
        if works:
            assert anthropic_sdk("messages.create", key=own, **HELLO)["stop_reason"] == "end_turn"
        else:
            with pytest.raises(SdkError) as refused:
                anthropic_sdk("messages.create", key=own, **HELLO)
            assert refused.value.status == "AuthenticationError"
    with pytest.raises(SdkError):
        anthropic_sdk("organization.api_keys.update", made["id"], status="active", key=admin)


def test_key_that_expired_says_so(anthropic_sdk: Sdk, admin: dict[str, str], account: Account, sandbox: SandboxServer) -> None:
    made = console(account, "keys", name="by hand", expires_in_seconds=60)
    assert anthropic_sdk("organization.api_keys.retrieve", made["id"], key=admin)["status"] == "active"
    sandbox.state.admin.clock.advance(61)
    assert anthropic_sdk("organization.api_keys.retrieve", made["id"], key=admin)["status"] == "expired"
    with pytest.raises(SdkError):
        anthropic_sdk("messages.create", key={"key": made["value"]}, **HELLO)
    assert [each["id"] for each in anthropic_sdk("organization.api_keys.list", status="expired", all=True, key=admin)] == [made["id"]]


def test_ceiling_of_active_keys_has_its_own_error(anthropic_sdk: Sdk, admin: dict[str, str], account: Account) -> None:
    first = console(account, "keys", name="one")
    anthropic_sdk("organization.api_keys.update", first["id"], status="inactive", key=admin)
    console(account, "keys", name="two")
    account.settings = account.settings.with_changes({"ceilings": {"active_keys_per_workspace": 1}})
    with pytest.raises(SdkError) as refused:
        anthropic_sdk("organization.api_keys.update", first["id"], status="active", key=admin)
    assert (refused.value.code, refused.value.reason) == (400, "workspace_api_key_limit_exceeded")


def test_sdk_trades_identity_tokens_and_archiving_the_rule_stops_that(
    anthropic_sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, sandbox: SandboxServer
) -> None:
    ours = Federation(anthropic_sdk, owner, issuer)
    assert anthropic_sdk("messages.create", key=ours.key(), **HELLO)["stop_reason"] == "end_turn"
    (member,) = anthropic_sdk("organization.workspaces.service_accounts.list", ours.workspace, all=True, key=owner)
    assert member["service_account_id"] == ours.account
    with pytest.raises(SdkError, match="target of a federation rule"):
        anthropic_sdk("organization.service_accounts.archive", ours.account, key=owner)
    rule = anthropic_sdk("organization.federation.rules.archive", ours.rule, key=owner)
    assert rule["archived_at"] is not None
    with pytest.raises(SdkError) as refused:
        anthropic_sdk("messages.create", key=ours.key(), **HELLO)
    assert (refused.value.status, refused.value.code) == ("WorkloadIdentityError", 401)
    assert anthropic_sdk("organization.service_accounts.archive", ours.account, key=owner)["archived_at"] is not None


async def test_minted_token_outlives_its_rule_and_ends_by_itself(
    anthropic_sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, sandbox: SandboxServer
) -> None:
    ours = Federation(anthropic_sdk, owner, issuer, lifetime=600)
    async with httpx.AsyncClient(base_url=sandbox.anthropic_base_url, timeout=10) as client:
        given = ours.key()["federation"]
        body = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": given["identity_token"],
            "federation_rule_id": ours.rule,
            "organization_id": ORGANIZATION,
        }
        answer = (await client.post("/v1/oauth/token", json=body)).json()
    assert (answer["expires_in"], answer["token_type"], answer["scope"]) == (600, "Bearer", "workspace:inference")
    own = {"token": answer["access_token"]}
    anthropic_sdk("organization.federation.rules.archive", ours.rule, key=owner)
    assert anthropic_sdk("messages.create", key=own, **HELLO)["stop_reason"] == "end_turn"
    with pytest.raises(SdkError):
        anthropic_sdk("organization.workspaces.list", all=True, key=own)
    sandbox.state.admin.clock.advance(601)
    with pytest.raises(SdkError) as refused:
        anthropic_sdk("messages.create", key=own, **HELLO)
    assert refused.value.code == 401


def test_archived_workspace_ends_tokens_and_keys(
    anthropic_sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, account: Account, sandbox: SandboxServer
) -> None:
    ours = Federation(anthropic_sdk, owner, issuer)
    by_hand = {"key": console(account, "keys", name="by hand", workspace_id=ours.workspace)["value"]}
    assert anthropic_sdk("messages.create", key=by_hand, **HELLO)["stop_reason"] == "end_turn"
    anthropic_sdk("organization.workspaces.archive", ours.workspace, key=owner)
    for key in (by_hand, ours.key()):
        with pytest.raises(SdkError):
            anthropic_sdk("messages.create", key=key, **HELLO)


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": "keygate:two"},
        {"sub": "keygate:one:more"},
        {"aud": "https://elsewhere.example"},
        {"iss": "https://elsewhere.example"},
        {"exp": 1},
        {"iat": 1},
        {"exp": 4_000_000_000},
    ],
)
def test_identity_token_that_does_not_fit_is_refused(
    anthropic_sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, claims: dict[str, Any]
) -> None:
    ours = Federation(anthropic_sdk, owner, issuer)
    with pytest.raises(SdkError) as refused:
        anthropic_sdk("messages.create", key=ours.key(**claims), **HELLO)
    assert (refused.value.status, refused.value.code) == ("WorkloadIdentityError", 401)


def test_identity_token_of_another_key_and_one_used_twice_are_refused(
    anthropic_sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, account: Account
) -> None:
    ours = Federation(anthropic_sdk, owner, issuer)
    forged = ours.key()
    forged["federation"]["identity_token"] = (
        TestIssuer(account.now_ns).sign({"sub": "keygate:one", "aud": AUDIENCE, "exp": account.clock.now_s() + 60}).open()
    )
    with pytest.raises(SdkError, match="signature"):
        anthropic_sdk("messages.create", key=forged, **HELLO)
    once = ours.key(jti="once")
    assert anthropic_sdk("messages.create", key=once, **HELLO)["stop_reason"] == "end_turn"
    with pytest.raises(SdkError, match="used before"):
        anthropic_sdk("messages.create", key=once, **HELLO)


def test_a_new_rule_is_known_late_and_from_then_on_each_of_its_tokens_at_once(
    anthropic_sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, account: Account, sandbox: SandboxServer
) -> None:
    account.settings = account.settings.with_changes({"new_key_s": 60})
    ours = Federation(anthropic_sdk, owner, issuer)
    with pytest.raises(SdkError) as unknown:
        anthropic_sdk("messages.create", key=ours.key(), **HELLO)
    assert unknown.value.code == 401
    sandbox.state.admin.clock.advance(61)
    for _ in range(2):  # each trades a token of its own
        assert anthropic_sdk("messages.create", key=ours.key(), **HELLO)["stop_reason"] == "end_turn"


def test_admin_key_is_refused_where_the_vendor_wants_oauth(anthropic_sdk: Sdk, admin: dict[str, str]) -> None:
    for method in ("service_accounts.list", "federation.issuers.list", "federation.rules.list"):
        with pytest.raises(SdkError, match="org:admin") as refused:
            anthropic_sdk(f"organization.{method}", all=True, key=admin)
        assert refused.value.status == "PermissionDeniedError"


async def test_rule_made_in_the_console_gives_an_admin_token(
    anthropic_sdk: Sdk, issuer: TestIssuer, account: Account, sandbox: SandboxServer
) -> None:
    keys = {"type": "inline", "keys": issuer.jwks()["keys"]}
    made = console(account, "admin_rule", issuer_url=issuer.url, jwks=keys, subject="keygate:admin", audience=AUDIENCE)
    assertion = issuer.sign({"sub": "keygate:admin", "aud": AUDIENCE, "exp": account.clock.now_s() + 3600}).open()
    body = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
    body |= {"federation_rule_id": made["federation_rule_id"], "organization_id": made["organization_id"]}
    async with httpx.AsyncClient(base_url=sandbox.anthropic_base_url, timeout=10) as client:
        token = {"token": (await client.post("/v1/oauth/token", json=body)).json()["access_token"]}
    assert anthropic_sdk("organization.service_accounts.create", name="kg-team", key=token)["organization_role"] == "developer"
    with pytest.raises(SdkError):
        anthropic_sdk("messages.create", key=token, **HELLO)
    sandbox.state.admin.clock.advance(3601)
    with pytest.raises(SdkError):
        anthropic_sdk("organization.service_accounts.list", all=True, key=token)


def test_slug_is_unique_and_workspaces_have_a_ceiling(anthropic_sdk: Sdk, owner: dict[str, str], account: Account) -> None:
    anthropic_sdk("organization.service_accounts.create", name="kg-team", key=owner)
    with pytest.raises(SdkError) as taken:
        anthropic_sdk("organization.service_accounts.create", name="kg-team", key=owner)
    assert taken.value.code == 409
    account.settings = account.settings.with_changes({"ceilings": {"workspaces": 1}})
    anthropic_sdk("organization.workspaces.create", name="one", key=owner)
    with pytest.raises(SdkError) as full:
        anthropic_sdk("organization.workspaces.create", name="two", key=owner)
    assert full.value.reason == "workspace_limit_exceeded"


def test_rate_limit_of_a_workspace_holds(anthropic_sdk: Sdk, admin: dict[str, str], account: Account) -> None:
    workspace = anthropic_sdk("organization.workspaces.create", name="kg-team", key=admin)["id"]
    own = {"key": console(account, "keys", name="by hand", workspace_id=workspace)["value"]}
    rates = "organization.workspaces.rate_limits"
    assert anthropic_sdk(f"{rates}.list", workspace, all=True, key=admin) == []
    groups = anthropic_sdk(f"{rates}.list", workspace, include_inherited=True, all=True, key=admin)
    sonnet = next(each["rate_limit_id"] for each in groups if "claude-sonnet-4-6" in each["models"])
    limit = [{"type": "requests_per_minute", "value": 2}]
    anthropic_sdk(f"{rates}.update", sonnet, workspace_id=workspace, limits=limit, key=admin)
    (row,) = anthropic_sdk(f"{rates}.list", workspace, all=True, key=admin)
    assert [(each["type"], each["value"], each["source"]["type"]) for each in row["limits"]] == [("requests_per_minute", 2, "workspace")]
    for _ in range(2):
        anthropic_sdk("messages.create", key=own, **HELLO)
    with pytest.raises(SdkError) as refused:
        anthropic_sdk("messages.create", key=own, **HELLO)
    assert refused.value.status == "RateLimitError"
    anthropic_sdk(f"{rates}.update", sonnet, workspace_id=workspace, limits=[{**limit[0], "value": None}], key=admin)
    assert anthropic_sdk("messages.create", key=own, **HELLO)["stop_reason"] == "end_turn"


def test_spend_limit_needs_early_access_and_then_holds(anthropic_sdk: Sdk, admin: dict[str, str], account: Account) -> None:
    workspace = anthropic_sdk("organization.workspaces.create", name="kg-team", key=admin)["id"]
    own = {"key": console(account, "keys", name="by hand", workspace_id=workspace)["value"]}
    limit = {"amount": "300", "period": "monthly", "scope": {"type": "workspace", "workspace_id": workspace}}
    with pytest.raises(SdkError) as refused:
        anthropic_sdk("beta.organization.spend_limits.set", key=admin, **limit)
    assert (refused.value.code, refused.value.reason) == (403, "spend_limits_admin_api_writes_not_enabled")
    console(account, "spend_limits", enabled=True)
    made = anthropic_sdk("beta.organization.spend_limits.set", key=admin, **limit)
    assert [each["id"] for each in anthropic_sdk("beta.organization.spend_limits.list", all=True, key=admin)] == [made["id"]]
    anthropic_sdk("messages.create", key=own, **DEAR)
    with pytest.raises(SdkError, match="usage limits") as spent:
        anthropic_sdk("messages.create", key=own, **HELLO)
    assert spent.value.code == 400
    anthropic_sdk("beta.organization.spend_limits.delete", made["id"], key=admin)
    assert anthropic_sdk("messages.create", key=own, **HELLO)["stop_reason"] == "end_turn"


async def test_reports_tell_keys_and_federated_use_apart_and_equal_the_books(
    anthropic_sdk: Sdk, owner: dict[str, str], issuer: TestIssuer, account: Account, sandbox: SandboxServer
) -> None:
    ours = Federation(anthropic_sdk, owner, issuer)
    by_hand = console(account, "keys", name="by hand")
    anthropic_sdk("messages.create", key={"key": by_hand["value"]}, **DEAR)
    anthropic_sdk("messages.create", key=ours.key(), **HELLO)
    day = rfc3339(account.now_ns() - 3_600 * 10**9)
    groups = ["api_key_id", "workspace_id", "actor"]
    rows = anthropic_sdk("beta.organization.analytics.cost.list", starting_at=day, group_by=groups, all=True, key=owner)
    seen = {(row["group"]["api_key_id"], row["group"]["workspace_id"]): Decimal(row["cost"]["amount"]) / 100 for row in rows}
    assert seen == {
        (by_hand["id"], None): account.books.total_usd(key_id=by_hand["id"]),
        (None, ours.workspace): account.books.total_usd(container=ours.workspace),
    }
    actors = {row["group"]["actor"]["type"] for row in rows}
    assert actors == {"api_actor", "service_account_actor"}
    usage = anthropic_sdk("beta.organization.analytics.usage.list", starting_at=day, group_by=["model"], all=True, key=owner)
    assert [row["usage"]["requests"] for row in usage] == [2]
    headers = {"authorization": f"Bearer {owner['token']}", "anthropic-version": "2023-06-01"}
    async with httpx.AsyncClient(base_url=f"{sandbox.anthropic_base_url}/v1/organizations", headers=headers, timeout=10) as client:
        legacy = (await client.get("/cost_report", params={"starting_at": day, "group_by[]": ["workspace_id"]})).json()
        total = sum(Decimal(row["amount"]) for each in legacy["data"] for row in each["results"]) / 100
        assert total == account.books.total_usd()
        minutes = (await client.get("/usage_report/messages", params={"starting_at": day, "bucket_width": "1h"})).json()
        assert sum(row["uncached_input_tokens"] for each in minutes["data"] for row in each["results"]) > 1_000_000
        (key,) = (await client.get("/api_keys")).json()["data"]
        assert (key["workspace_id"], "scope" in key) == (None, False)
        assert (await client.get("/api_keys", headers={"anthropic-version": ""})).status_code == 200


async def test_api_version_is_required(sandbox: SandboxServer, admin: dict[str, str]) -> None:
    async with httpx.AsyncClient(base_url=f"{sandbox.anthropic_base_url}/v1/organizations", timeout=10) as client:
        assert (await client.get("/me", headers={"x-api-key": admin["key"]})).status_code == 400
        answer = await client.get("/me", headers={"x-api-key": admin["key"], "anthropic-version": "2026-10-21"})
        assert (answer.status_code, answer.json()["type"]) == (200, "organization")


def test_sdk_pages_through_every_workspace(anthropic_sdk: Sdk, admin: dict[str, str]) -> None:
    made = {anthropic_sdk("organization.workspaces.create", name=f"w{number}", key=admin)["id"] for number in range(5)}
    assert {each["id"] for each in anthropic_sdk("organization.workspaces.list", limit=2, all=True, key=admin)} == made
    with_default = anthropic_sdk("organization.workspaces.list", include_default=True, all=True, key=admin)
    assert len(with_default) == 6
