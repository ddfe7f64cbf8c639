"""Anthropic through the running product; Anthropic's own SDK, straight at the sandbox, says what is so at the vendor."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from tests.issued_keys.delays import from_provision_to_revocation, slow
from tests.issued_keys.houses import KeyHouse, let_tokens_expire
from tests.running import ApiError, RunningKeyGate
from tests.sdks.admin_clients import anthropic_bridge
from tests.sdks.bridge import Bridge, SdkError

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account, AdminFault
from keygate.sandbox.admin.anthropic import AnthropicAdmin

__all__ = ["anthropic_bridge"]

HELLO: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}


class House(KeyHouse):
    """KeyGate, set up as an issuer at the sandbox's Anthropic, as an admin does it in the Console."""

    def __init__(self, keygate: RunningKeyGate, sandbox: SandboxServer, bridge: Bridge) -> None:
        super().__init__(keygate, sandbox)
        self._bridge = bridge
        self.admin_key = self.account.create_credential().value
        self._owner = {"token": self.account.create_credential(kind="oauth").value}
        identity = self.call("GET", "/vendors/issuer")
        jwks = {"type": "inline", "keys": identity["jwks"]["keys"]}
        rule = {"issuer_url": identity["issuer"], "jwks": jwks, "subject": "keygate:admin", "audience": "https://api.anthropic.com"}
        made = AnthropicAdmin().console(self.account, "admin_rule", rule)
        self.federation = {name: made[name] for name in ("organization_id", "federation_rule_id", "service_account_id")}
        told = self.configure(**self.federation)
        assert told["status"] == "ready", told

    @property
    def account(self) -> Account:
        return self.sandbox.state.admin[Vendor.ANTHROPIC]

    def configure(self, *, name: str = "default", **settings: str) -> dict[str, Any]:
        wanted = {"base_url": self.sandbox.anthropic_base_url, "calls_per_minute": "100000", **settings}
        body = {"vendor": "anthropic", "name": name, "admin_key": self.admin_key, "settings": wanted}
        return self.call("POST", "/vendors/configure", body)  # type: ignore[no-any-return]  # JSON

    def provision(self, **body: Any) -> dict[str, Any]:
        return self.order(vendor="anthropic", **body)

    def vendor(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Anthropic's own SDK, as an admin of the organization."""
        everything, beta = options.pop("all", False), "beta." if options.pop("beta", False) else ""
        request = {"method": f"{beta}organization.{method}", "arguments": arguments, "options": options, "all": everything}
        return self._bridge.call(base=self.sandbox.anthropic_base_url, **request, **self._owner)["answer"]

    @contextmanager
    def early_access(self, name: str) -> Iterator[str]:
        """An account of an organization that Anthropic lets set spend limits, as long as it lasts."""
        self.let_in(enabled=True)
        try:
            yield str(self.configure(name=name, **self.federation)["id"])
        finally:
            self.let_in(enabled=False)

    def let_in(self, *, enabled: bool) -> None:
        answer = httpx.post(f"{self.sandbox.address}/_sandbox/admin/anthropic/console/spend_limits", json={"enabled": enabled}, timeout=10)
        answer.raise_for_status()

    def spend_limits(self, workspace: str) -> list[str]:
        """What Anthropic's SDK reads, in cents."""
        listed = self.vendor("spend_limits.list", beta=True, all=True)
        return [each["amount"] for each in listed if each["scope"]["workspace_id"] == workspace]

    def answers(self, env: dict[str, str]) -> bool:
        """Whether Anthropic's own SDK gets an answer with nothing but what the holder exports."""
        try:
            return bool(self._bridge.call(base="", method="messages.create", options=HELLO, environment=env)["answer"]["content"])
        except SdkError:
            return False

    def trade(self, made: dict[str, Any]) -> str:
        """An access token, as the holder's SDK gets it and keeps it for its ten minutes."""
        body = {
            "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
            "assertion": made["key"],
            "federation_rule_id": made["env"]["ANTHROPIC_FEDERATION_RULE_ID"],
            "organization_id": made["env"]["ANTHROPIC_ORGANIZATION_ID"],
            "service_account_id": made["env"]["ANTHROPIC_SERVICE_ACCOUNT_ID"],
            "workspace_id": made["env"]["ANTHROPIC_WORKSPACE_ID"],
        }
        return str(httpx.post(f"{self.sandbox.anthropic_base_url}/v1/oauth/token", json=body, timeout=10).json()["access_token"])

    def answers_token(self, token: str) -> bool:
        """The same for a client that keeps an access token."""
        try:
            told = self._bridge.call(base=self.sandbox.anthropic_base_url, token=token, method="messages.create", options=HELLO)
        except SdkError:
            return False
        return bool(told["answer"]["content"])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, anthropic_bridge: Bridge) -> Iterator[House]:
    with SandboxServer() as sandbox, RunningKeyGate(tmp_path_factory.mktemp("house")) as keygate:
        yield House(keygate, sandbox, anthropic_bridge)


def test_anthropic_key_from_provision_to_revocation(house: House) -> None:
    made = house.provision(rate_limit_rpm=600, expires_in_days=90)
    assert made["state"] == "active"
    assert made["enforcement"] == {"expiry": "not_enforced", "requests_per_minute": "confirmed"}
    assert made["env"]["ANTHROPIC_IDENTITY_TOKEN"] == made["key"]
    assert house.answers(made["env"]), "with no KeyGate in the path"

    workspace = made["at_vendor"]["workspace"]

    def terms(rule_id: str) -> tuple[Any, ...]:
        """All that Anthropic's SDK reads of what limits a key."""
        rows = house.vendor("workspaces.rate_limits.list", workspace, all=True)
        rule = house.vendor("federation.rules.retrieve", rule_id)
        bound = (rule["oauth_scope"], rule["workspace_ids"], rule["target"]["service_account_id"], rule["token_lifetime_seconds"])
        return len(rows), {limit["value"] for row in rows for limit in row["limits"]}, *bound

    asked = (3, {600}, "workspace:inference", [workspace], made["at_vendor"]["service_account"], 600)
    assert terms(made["at_vendor"]["key"]) == asked

    turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 2, "insist": True})
    assert turned["generation"] == 2
    calls: list[bool] = []
    assert house.answers(made["env"])
    token = house.trade(made)
    gone = house.until(made["id"], lambda key: key["former"]["gone_at"], meanwhile=lambda: calls.append(house.answers(turned["env"])))
    assert calls, "there was an overlap"
    assert all(calls), "no failed call in between"
    assert not house.answers(made["env"]), "no token is traded any more"
    assert house.answers_token(token), "one that was traded before lives its ten minutes"
    assert (gone["state"], gone["former"]["waits_for"]) == ("rotating", "refusal"), "and so long the former key is not called cut"
    let_tokens_expire(house.sandbox, made)
    done = house.until(made["id"], lambda key: key["state"] == "active")
    assert done["former"] is None
    assert not house.answers_token(token)
    assert house.answers(turned["env"])
    assert turned["at_vendor"]["key"] != made["at_vendor"]["key"]
    assert terms(turned["at_vendor"]["key"]) == asked, "limits and scope carry over exactly"
    rules = [
        rule for rule in house.vendor("federation.rules.list", include_archived=True, all=True) if rule["workspace_ids"] == [workspace]
    ]
    assert [rule["archived_at"] is None for rule in rules] == [False, True]

    ended = house.call("POST", f"/keys/{made['id']}/revoke", {"reason": "left"})
    assert ended["state"] == "revoked"
    assert ended["evidence"][-1]["vendor_says"] == "gone"
    assert not house.answers(turned["env"])
    assert house.vendor("workspaces.retrieve", workspace)["archived_at"] is not None


def test_fresh_token_works_until_the_key_is_revoked(house: House) -> None:
    made = house.provision()
    fresh = house.call("POST", f"/keys/{made['id']}/token")
    assert fresh["env"]["ANTHROPIC_IDENTITY_TOKEN"] == fresh["key"]
    assert fresh["expires_at"] is not None
    assert house.answers(fresh["env"])
    assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
    assert not house.answers(fresh["env"])
    with pytest.raises(ApiError, match="only keys that live"):
        house.call("POST", f"/keys/{made['id']}/token")
    entries = house.call("GET", f"/audit?target={made['id']}")["items"]
    assert any(entry["action"] == "issued_key.mint" for entry in entries)
    assert fresh["key"] not in json.dumps(entries)


def test_no_token_of_a_key_outlives_its_lease(house: House) -> None:
    ends = datetime.now(UTC) + timedelta(hours=1)
    made = house.provision(expires_at=ends.isoformat())
    assert made["enforcement"]["expiry"] == "not_enforced", "Anthropic knows no end: KeyGate keeps it"
    fresh = house.call("POST", f"/keys/{made['id']}/token")
    assert datetime.fromisoformat(fresh["expires_at"]) <= ends - timedelta(minutes=5), "an access token may live so much longer"
    assert house.answers(fresh["env"])
    house.call("POST", f"/keys/{made['id']}/extend", {"expires_at": (datetime.now(UTC) + timedelta(seconds=50)).isoformat()})
    with pytest.raises(ApiError, match="too soon") as refused:
        house.call("POST", f"/keys/{made['id']}/token")
    assert refused.value.status == 409
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_a_limit_changed_in_the_console_is_found_repaired_and_accepted(house: House) -> None:
    made = house.provision(rate_limit_rpm=600)
    workspace, rates = made["at_vendor"]["workspace"], "workspaces.rate_limits"

    def change() -> None:
        for row in house.vendor(f"{rates}.list", workspace, all=True):
            limits = [{"type": "requests_per_minute", "value": 5_000}]
            house.vendor(f"{rates}.update", row["rate_limit_id"], workspace_id=workspace, limits=limits)

    house.drifts(
        made,
        "requests_per_minute",
        change=change,
        shown=lambda: sorted(limit["value"] for row in house.vendor(f"{rates}.list", workspace, all=True) for limit in row["limits"]),
        takes=lambda key: key["rate_limit_rpm"] == 5_000,
    )
    house.grows_old(made)
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_leaked_token_ends_what_mints_it_and_is_traced_to_whoever_fetched_it(house: House) -> None:
    made = house.provision()
    fresh = house.call("POST", f"/keys/{made['id']}/token")
    told = house.call("POST", "/keys/report-leak", {"key": fresh["key"]})
    assert (told["vendor"], told["state"], told["ended_at"]) == ("anthropic", "ending", None)
    lives = datetime.fromisoformat(told["works_until"]) - datetime.fromisoformat(fresh["expires_at"])
    assert lives.total_seconds() == 600  # what was traded for it in its last moment
    house.until(made["id"], lambda key: key["state"] == "revoked")
    assert not house.answers(fresh["env"])
    assert not house.answers(made["env"])
    [event] = [each for each in house.call("GET", "/events", type="issued_key.leak_reported")["items"] if each["subject"] == made["id"]]
    assert (event["payload"]["found"], event["payload"]["token_of"]) == ("key", house.call("GET", "/auth/me")["id"])
    for secret in (fresh["key"], made["key"]):
        again = house.call("POST", "/keys/report-leak", {"key": secret})
        assert (again["state"], again["ended_at"] is None) == ("ended", False)


def test_key_that_was_rotated_by_itself_is_handed_over_by_a_fresh_token(house: House) -> None:
    made = house.provision(rotate_every_days=30, rotate_overlap_seconds=1)
    with sqlite3.connect(house.keygate.data_dir / "keygate.db", timeout=10) as database:
        database.execute("UPDATE issued_keys SET made_at_ns = made_at_ns - ? WHERE id = ?", (31 * 86_400 * 10**9, made["id"]))
    turned = house.until(made["id"], lambda key: key["state"] == "rotating" and key["former"]["works_until"] is not None)
    assert (turned["secret"], turned["former"]["waits_for"]) == ("waiting", "handover")
    time.sleep(3)
    assert house.answers(made["env"]), "the overlap is over, and nobody has taken over the next key"
    with pytest.raises(ApiError, match="fetch a fresh token"):
        house.call("POST", f"/keys/{made['id']}/collect")
    fresh = house.call("POST", f"/keys/{made['id']}/token")
    assert house.answers(fresh["env"])
    house.until(made["id"], lambda key: key["former"]["gone_at"])
    let_tokens_expire(house.sandbox, made)
    done = house.until(made["id"], lambda key: key["state"] == "active")
    assert (done["generation"], done["secret"]) == (2, "told")
    assert not house.answers(made["env"])
    assert house.answers(fresh["env"])


def test_budget_needs_the_vendors_early_access_and_says_so(house: House) -> None:
    with pytest.raises(ApiError, match="early access"):
        house.provision(budget_usd="5.00")
    made = house.provision(budget_usd="5.00", allow_unenforced=True)
    assert made["enforcement"]["budget"] == "not_enforced"
    assert house.answers(made["env"])


def test_a_budget_is_confirmed_in_the_vendors_early_access_and_told_as_lost_after_it(house: House) -> None:
    def account() -> dict[str, Any]:
        return next(each for each in house.call("GET", "/vendors/accounts")["items"] if each["name"] == "let-in")

    with house.early_access("let-in"):
        assert account()["also_confirms"] == ["budget"]
        made = house.provision(account="let-in", budget_usd="50.00")
        assert made["enforcement"] == {"budget": "confirmed"}
        workspace = made["at_vendor"]["workspace"]
        assert house.spend_limits(workspace) == ["5000"], "the vendor's own client says so"
        assert house.call("GET", f"/keys/{made['id']}")["budget"] == {"enforced_by": "vendor", "trouble": None}
        other = {"amount": "900000", "period": "monthly", "scope": {"type": "workspace", "workspace_id": workspace}}
        house.drifts(
            made,
            "budget",
            change=lambda: house.vendor("spend_limits.set", beta=True, **other),
            shown=lambda: house.spend_limits(workspace),
            takes=lambda key: key["budget_usd"] == "9000.00",
        )
    found = house.call("POST", f"/keys/{made['id']}/check")
    assert (found["enforcement"], found["error_code"]) == ({"budget": "lost"}, "lost_at_vendor")
    assert house.call("GET", "/events", type="issued_key.drifted")["items"][0]["subject"] == made["id"]
    budget = house.call("GET", f"/keys/{made['id']}")["budget"]
    assert budget["enforced_by"] == "keygate"
    assert f"keygate vendors verify {made['account_id']}" in budget["trouble"]
    turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 0, "insist": True})
    assert turned["enforcement"] == {"budget": "lost"}, "the next key is in the same workspace: whether that has a limit nobody knows"
    let_tokens_expire(house.sandbox, made)
    house.until(made["id"], lambda key: key["state"] == "active")
    assert house.looked_at(made)["drift"] == [], "that it is not told is no change of somebody's"
    assert account()["also_confirms"] == []
    with pytest.raises(ApiError, match="early access") as refused:
        house.provision(account="let-in", budget_usd="5.00")
    assert refused.value.status == 422
    with house.early_access("let-in"):
        again = house.call("POST", f"/keys/{made['id']}/check")
        assert (again["enforcement"], again["error_code"]) == ({"budget": "confirmed"}, None)
    house.call("POST", f"/keys/{made['id']}/revoke")


def test_a_key_from_before_the_early_access_is_watched_until_its_limit_is_set(house: House) -> None:
    house.configure(name="early", **house.federation)
    made = house.provision(account="early", budget_usd="5.00", allow_unenforced=True)
    check, workspace = f"/keys/{made['id']}/check", made["at_vendor"]["workspace"]
    house.let_in(enabled=True)
    try:
        told = house.call("POST", f"/vendors/accounts/{made['account_id']}/verify")
        assert told["also_confirms"] == ["budget"]
        found = house.call("POST", check)
        assert (found["enforcement"]["budget"], found["error_code"]) == ("not_enforced", None), "nobody has changed anything at the vendor"
        assert house.spend_limits(workspace) == []
        assert house.call("POST", check, {"repair": True})["enforcement"]["budget"] == "confirmed"
        assert house.spend_limits(workspace) == ["500"]
        assert house.call("GET", f"/keys/{made['id']}")["budget"]["enforced_by"] == "vendor"
        turned = house.call("POST", f"/keys/{made['id']}/rotate", {"overlap_seconds": 0, "insist": True})
        assert turned["enforcement"]["budget"] == "confirmed"
    finally:
        house.let_in(enabled=False)


def test_an_order_whose_account_has_left_the_early_access_is_undone_and_says_so(house: House) -> None:
    with house.early_access("leaving"):
        pass
    before = len(house.vendor("workspaces.list", all=True))
    with pytest.raises(ApiError, match="vendors verify") as refused:
        house.provision(account="leaving", budget_usd="5.00")
    assert refused.value.status == 409
    assert len(house.vendor("workspaces.list", all=True)) == before
    [vendor] = [each for each in house.call("GET", "/vendors")["items"] if each["name"] == "anthropic"]
    assert "budget" in vendor["issuing"]["confirms_for_some"]


def test_a_key_that_ends_before_any_token_is_refused_before_the_vendor_is_called(house: House) -> None:
    calls = len(house.account.calls)
    with pytest.raises(ApiError, match="expires_at: too soon") as refused:
        house.provision(expires_at=(datetime.now(UTC) + timedelta(seconds=45)).isoformat())
    assert refused.value.status == 422
    assert len(house.account.calls) == calls


def test_account_without_federation_names_what_is_missing(house: House) -> None:
    told = house.configure(name="admin-key-alone")
    assert [right["name"] for right in told["rights"] if right["held"] is False] == ["org:admin"]
    with pytest.raises(ApiError, match="org:admin"):
        house.provision(account="admin-key-alone")


def test_half_made_key_is_undone_and_the_missing_right_named(house: House) -> None:
    before = len(house.vendor("workspaces.list", all=True))
    house.account.faults.append(AdminFault("rules.create", status=403, message="no"))
    with pytest.raises(ApiError, match="org:admin"):
        house.provision()
    assert len(house.vendor("workspaces.list", all=True)) == before


def test_developer_mints_for_own_keys_only(house: House) -> None:
    name = f"dev{time.monotonic_ns()}"
    developer = house.call("POST", "/developers", {"name": name, "email": f"{name}@example.com"})["id"]
    own = house.call("POST", "/keys/provision", {"vendor": "anthropic", "developer_id": developer})
    foreign = house.provision()
    signing_in = {"email": f"{name}@example.com", "password": f"pw-{name}-long-enough"}
    house.call("POST", "/users", {**signing_in, "name": name, "role": "developer", "developer_id": developer})
    with httpx.Client(base_url=f"{house.keygate.url}/api/v1", timeout=30) as client:
        client.headers["authorization"] = f"Bearer {client.post('/auth/login', json=signing_in).json()['access_token']}"
        minted = client.post(f"/keys/{own['id']}/token")
        assert minted.status_code == 200
        assert house.answers(minted.json()["env"])
        assert client.post(f"/keys/{foreign['id']}/token").status_code == 404
        assert client.post(f"/keys/{own['id']}/revoke").status_code == 403


def test_nothing_is_said_of_a_key_before_the_vendors_inference_side_knows_it(house: House) -> None:
    """What works on at Anthropic is a token that was traded: for its ten minutes after a rotation, and until the inference side has heard
    of it after the workspace's end. (How late a new rule is known the sandbox does not tell apart from how late each token is.)"""
    tokens: dict[str, str] = {}

    def opens(made: dict[str, Any]) -> bool:
        """A holder that keeps the token it got first."""
        if made["key"] not in tokens:
            tokens[made["key"]] = house.trade(made)
        return house.answers_token(tokens[made["key"]])

    made: list[dict[str, Any]] = []

    def provision() -> dict[str, Any]:
        made.append(house.provision())
        return made[0]

    def time_passes(key: dict[str, Any]) -> None:
        if key["former"] is not None and key["former"]["waits_for"] == "refusal":
            let_tokens_expire(house.sandbox, made[0])

    with slow(house.account, new_key_s=0):
        from_provision_to_revocation(house, provision, opens, meanwhile=time_passes)


def test_tokens_are_waited_out_where_no_copy_is_kept(house: House) -> None:
    """`proof` is off: what was traded may work for ten minutes more, and so long the key is not called revoked."""
    assert house.configure(name="unproved", proof="off", **house.federation)["status"] == "ready"
    made = house.provision(account="unproved")
    token = house.trade(made)
    told = house.call("POST", f"/keys/{made['id']}/revoke", {"wait_seconds": 2})
    assert (told["state"], told["error_code"]) == ("revoking", "may_still_work")
    waits = datetime.fromisoformat(told["next_try_at"]) - datetime.fromisoformat(told["gone_at"])
    assert waits.total_seconds() == 600
    assert not house.answers_token(token)
