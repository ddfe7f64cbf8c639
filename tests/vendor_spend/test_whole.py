"""The running product and the sandbox: real calls through the gateway, by an issued key, and past KeyGate; then the bill, over HTTP and
at a shell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.cli.desk import Desk
from tests.issued_keys.office import Office
from tests.running import ApiError, RunningKeyGate

from keygate.cli.client import Exit
from keygate.sandbox import SandboxServer, Vendor

MODEL = "gpt-4.1"
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 30_000}
ANSWER = {"output_tokens": 20_000}  # 16 cents each


@dataclass
class Scene:
    office: Office
    shell: Desk
    account_id: str
    developer: str
    issued: dict[str, Any]
    spent: dict[str, Decimal]  # by way: what the vendor's books say


def _call(url: str, key: str) -> None:
    answer = httpx.post(f"{url}/chat/completions", json=CHAT, headers={"authorization": f"Bearer {key}"}, timeout=30)
    assert answer.status_code == 200, answer.text


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("bills")
    with SandboxServer() as sandbox, RunningKeyGate(folder) as keygate:
        sandbox.state.behaviour = sandbox.state.behaviour.with_settings(ANSWER)
        office = Office(keygate, sandbox)
        account = office.configure()
        books = office.account.books
        keygate.credential("openai", sandbox.openai_base_url, sandbox.state.create_key(Vendor.OPENAI).value)
        developer = office.developer("priya")
        virtual = keygate.key(owner={"developer_id": developer})
        issued = office.provision(developer_id=developer, budget_usd="50.00")
        spent, before = {}, books.total_usd()
        ways = {
            "gateway": (f"{keygate.url}/openai/v1", virtual["key"], 3),
            "issued": (sandbox.openai_base_url, issued["key"], 2),
            "bypass": (sandbox.openai_base_url, sandbox.state.create_key(Vendor.OPENAI).value, 4),
        }
        for name, (url, key, times) in ways.items():
            for _ in range(times):
                _call(url, key)
            spent[name], before = books.total_usd() - before, books.total_usd()
        home = folder / "home"
        home.mkdir()
        shell = Desk(keygate, home)
        shell.sign_in()
        state = _imported(office, account["id"])
        assert state["error"] is None, state
        yield Scene(office, shell, account["id"], developer, issued, spent)


def _imported(office: Office, account_id: str, body: dict[str, str] | None = None) -> dict[str, Any]:
    """The worker may be reading the bill of its own accord."""
    ends = time.monotonic() + 60
    while True:
        try:
            return office.call("POST", f"/vendors/accounts/{account_id}/import-spend", body)  # type: ignore[no-any-return]  # JSON
        except ApiError as error:
            if error.status != 409 or time.monotonic() > ends:
                raise
        time.sleep(0.2)


def test_the_bill_equals_the_vendors_books(scene: Scene) -> None:
    report = scene.office.call("GET", "/usage", source="vendor", group_by="key")
    costs = {row["group"]["key"]: Decimal(row["cost_usd"]) for row in report["items"]}
    assert costs == {scene.issued["id"]: scene.spent["issued"], None: scene.spent["gateway"] + scene.spent["bypass"]}
    assert sum(costs.values()) == scene.office.account.books.total_usd()
    [bill] = report["bills"]
    assert (bill["reported"], bill["error"], bill["delay_seconds"]) == (True, None, None)
    assert bill["as_of"] is not None


def test_one_report_over_gateway_and_issued_keys(scene: Scene) -> None:
    rows = scene.office.call("GET", "/usage", source="all", group_by="developer,source")["items"]
    assert {row["group"]["source"]: Decimal(row["cost_usd"]) for row in rows} == {
        "gateway": scene.spent["gateway"],
        "vendor": scene.spent["issued"],
    }
    assert {row["group"]["developer"] for row in rows} == {scene.developer}
    assert {row["group"]["source"]: row["requests"] for row in rows} == {"gateway": 3, "vendor": None}


def test_the_report_of_the_gateway_is_as_it_was(scene: Scene) -> None:
    plain, named = (scene.office.call("GET", "/usage", group_by="key", **more) for more in ({}, {"source": "gateway"}))
    assert plain["items"] == named["items"]
    assert set(plain) == {"from", "to", "items", "truncated", "source", "issued_keys_usd"}
    assert Decimal(plain["items"][0]["cost_usd"]) == scene.spent["gateway"]


def test_the_report_of_the_gateway_names_its_source_and_what_issued_keys_cost_beside_it(scene: Scene) -> None:
    plain = scene.office.call("GET", "/usage", group_by="key")
    assert plain["source"] == "gateway"
    assert Decimal(plain["issued_keys_usd"]) == scene.spent["issued"], "what bypassed KeyGate is not of issued keys"
    whole = scene.office.call("GET", "/usage", source="all")["items"]
    rows = sum(Decimal(row["cost_usd"]) for row in plain["items"])
    assert rows + Decimal(plain["issued_keys_usd"]) == Decimal(whole[0]["cost_usd"]), "which is what source=all has as one"
    mine = scene.office.call("GET", "/usage", developer_id=scene.developer)
    assert Decimal(mine["issued_keys_usd"]) == scene.spent["issued"]
    assert Decimal(scene.office.call("GET", "/usage", vendor="anthropic")["issued_keys_usd"]) == 0
    assert Decimal(scene.office.call("GET", "/usage", **{"to": "2026-01-02", "from": "2026-01-01"})["issued_keys_usd"]) == 0
    assert scene.office.call("GET", "/usage", tag="env=prod")["issued_keys_usd"] is None, "bills know no tags"
    shown = scene.shell.ok("usage", "--group-by", "key")
    assert "Source: gateway" in shown.out + shown.err
    assert plain["issued_keys_usd"] in shown.out + shown.err
    assert "--source all" in shown.out + shown.err
    assert "Source: gateway" not in (told := scene.shell.ok("usage", "--source", "all")).out + told.err


def test_what_bypassed_keygate_is_told_to_the_cent(scene: Scene) -> None:
    balance = scene.office.call("GET", "/reconciliation")
    [day] = balance["items"]
    assert day["verdict"] == "bypassed"
    assert Decimal(day["bypassed_usd"]) == scene.spent["bypass"]
    assert Decimal(day["ledger_usd"]) == scene.spent["gateway"]
    assert Decimal(day["issued_usd"]) == scene.spent["issued"]
    assert len(day["unknown_keys"]) == 2
    assert balance["unassigned"] == []
    yesterday = (datetime.now(UTC) - timedelta(days=1)).date().isoformat()
    assert scene.office.call("GET", "/reconciliation", to=f"{yesterday}T00:00:00Z")["items"] == []


def test_the_same_at_a_shell(scene: Scene) -> None:
    said = scene.shell.ok("reconciliation", "--import", "--keys")
    assert "bypassed" in said.out
    assert f"{scene.spent['bypass']:.2f}" in said.out
    assert "may change for 3 days" in said.err
    [day] = scene.shell.ok("reconciliation", "--json").json()["items"]
    assert day["verdict"] == "bypassed"
    rows = scene.shell.ok("usage", "--source", "vendor", "--group-by", "key", "--json").json()["items"]
    assert scene.issued["id"] in {row["group"]["key"] for row in rows}
    assert scene.issued["id"] in scene.shell.ok("usage", "--source", "all", "--group-by", "key").out
    assert scene.shell.ok("usage", "--source", "vendor", "--group-by", "key", "--csv").out.startswith("key,requests,input_tokens")
    assert scene.shell.run("usage", "--source", "nowhere").code != 0


def test_a_budget_that_the_vendor_enforces_is_told_as_its_own_and_not_watched(scene: Scene) -> None:
    standing = scene.office.call("GET", f"/keys/{scene.issued['id']}/watch")
    assert (standing["enforced_by"], Decimal(standing["spent_usd"])) == ("vendor", scene.spent["issued"])
    key = scene.office.call("GET", f"/keys/{scene.issued['id']}")
    assert key["budget"] == {"enforced_by": "vendor", "trouble": None}
    with pytest.raises(ApiError, match="enforces this key's budget itself"):
        scene.office.call("PUT", f"/keys/{scene.issued['id']}/watch", {"at_end": "revoke"})
    assert scene.shell.ok("watch", scene.issued["id"], "--json").json()["budget_usd"] == "50.00"


@pytest.mark.parametrize("body", [{}, {"ignore_until_period_end": False}, {"extra_usd": "5", "budget_usd": "80"}, {"extra_usd": "-5"}])
def test_a_key_does_not_go_on_unless_one_says_by_how_much(scene: Scene, body: dict[str, object]) -> None:
    with pytest.raises(ApiError) as refused:
        scene.office.call("POST", f"/keys/{scene.issued['id']}/resume", body)
    assert refused.value.status == 422


def test_a_key_goes_on_at_a_shell_only_where_its_budget_has_ended_it(scene: Scene) -> None:
    said = scene.shell.run("resume", scene.issued["id"])
    assert (said.code, "--extra 20" in said.err) == (Exit.USAGE, True)
    for how in (("--extra", "5"), ("--budget", "80"), ("--ignore",)):
        said = scene.shell.run("resume", scene.issued["id"], *how)
        assert (said.code, "not disabled" in said.err) == (Exit.NOT_VALID, True)


@pytest.mark.parametrize(
    "query",
    [{"source": "vendor", "group_by": "endpoint"}, {"source": "all", "tag": "a=b"}, {"source": "elsewhere"}, {"group_by": "source"}],
)
def test_what_bills_do_not_know_is_refused(scene: Scene, query: dict[str, str]) -> None:
    with pytest.raises(ApiError) as refused:
        scene.office.call("GET", "/usage", **query)
    assert refused.value.status == 422


def test_every_group_that_is_offered_can_be_asked_for(scene: Scene) -> None:
    offered = {}
    for source in ("gateway", "vendor", "all"):
        with pytest.raises(ApiError) as refused:
            scene.office.call("GET", "/usage", source=source, group_by="nonsense")
        offered[source] = refused.value.problem["detail"].partition(" is not one of ")[2].split(", ")
    for source, groups in offered.items():
        total = {Decimal(row["cost_usd"]) for row in scene.office.call("GET", "/usage", source=source)["items"]}
        assert len(total) == 1, source
        for group in groups:
            rows = scene.office.call("GET", "/usage", source=source, group_by=group)["items"]
            assert {sum(Decimal(row["cost_usd"]) for row in rows)} == total, (source, group)
            assert all(list(row["group"]) == [group] for row in rows)
    assert {"vendor_key", "account", "item"} <= set(offered["vendor"])
    keys = scene.shell.ok("usage", "--source", "vendor", "--group-by", "vendor_key", "--json").json()["items"]
    assert scene.spent["bypass"] in {Decimal(row["cost_usd"]) for row in keys}, "what bypassed KeyGate, by the vendor's key"


def test_a_bill_is_read_again_from_a_day(scene: Scene) -> None:
    path = f"/vendors/accounts/{scene.account_id}/import-spend"
    since = (datetime.now(UTC) - timedelta(days=20)).strftime("%Y-%m-%dT00:00:00Z")
    assert _imported(scene.office, scene.account_id, {"from": since})["error"] is None
    [entry] = scene.office.call("GET", "/audit", action="vendor_spend.import", limit=1)["items"]
    assert entry["after"]["since"].startswith(since[:19])
    with pytest.raises(ApiError) as refused:
        scene.office.call("POST", path, {"from": "2020-01-01T00:00:00Z"})
    assert (refused.value.status, refused.value.problem["field"]) == (422, "from")
    with pytest.raises(ApiError, match="from_: this field is not known"):
        scene.office.call("POST", path, {"from_": since})


def test_an_issued_key_never_serves_the_gateway(scene: Scene) -> None:
    office = scene.office
    body = {"vendor": "openai", "name": "issued", "secret": scene.issued["key"], "base_url": office.sandbox.openai_base_url}
    with pytest.raises(ApiError, match="counted twice") as refused:
        office.call("POST", "/credentials", body)
    assert refused.value.status == 409
    assert scene.issued["id"] in refused.value.problem["detail"]
    assert scene.issued["key"] not in json.dumps(refused.value.problem)


def test_a_bill_that_is_not_read_says_why_and_what_to_do(scene: Scene) -> None:
    sandbox = scene.office.sandbox
    admin = sandbox.state.admin[Vendor.BEDROCK].create_credential(name="AKIASANDBOX00000009").value
    settings = {"base_url": f"{sandbox.address}/aws/iam", "access_key_id": "AKIASANDBOX00000009", "region": "us-east-1"}
    account = scene.office.call("POST", "/vendors/configure", {"vendor": "bedrock", "admin_key": admin, "settings": settings})
    with pytest.raises(ApiError, match="cost_explorer"):
        scene.office.call("POST", f"/vendors/accounts/{account['id']}/import-spend")
    bills = {bill["vendor"]: bill for bill in scene.office.call("GET", "/reconciliation")["bills"]}
    assert {name: bill["reported"] for name, bill in bills.items()} == {"openai": True, "bedrock": False}
    assert "0.01 USD" in bills["bedrock"]["why_not"]
    assert (bills["openai"]["why_not"], bills["bedrock"]["means"]) == (None, None)
    assert "cost_explorer" in scene.shell.ok("reconciliation").err


def test_what_each_vendors_bill_tells_is_among_its_capabilities(scene: Scene) -> None:
    found = {each["name"]: each["issuing"]["spend"] for each in scene.office.call("GET", "/vendors")["items"] if each["issuing"]}
    told = {name: spend["told_by"] for name, spend in found.items()}
    assert {name: told[name] for name in ("openai", "anthropic", "openrouter", "xai")} == dict.fromkeys(
        ("openai", "anthropic", "openrouter", "xai"), "key"
    )
    assert {name: told[name] for name in ("azure", "google", "bedrock", "groq")} == {
        "azure": "container",
        "google": "container",
        "bedrock": "container",
        "groq": "none",
    }
    assert "billing_export_table" in found["google"]["why_not"]
    assert "cost_explorer" in found["bedrock"]["why_not"]
    assert "virtual key" in found["groq"]["why_not"]
    assert all(found[name]["why_not"] is None and found[name]["means"] for name in ("openai", "anthropic", "openrouter", "xai", "azure"))
    shown = scene.shell.ok("vendors", "show", "bedrock").out
    assert "IAM user" in shown
    assert "0.01 USD" in shown


def test_nobody_but_the_whole_organisations_readers_sees_bills(scene: Scene) -> None:
    body = {
        "email": "dev@example.com",
        "name": "dev",
        "role": "developer",
        "password": "quite a long password",
        "developer_id": scene.developer,
    }
    scene.office.call("POST", "/users", body)
    with httpx.Client(base_url=f"{scene.office.keygate.url}/api/v1", timeout=30) as client:
        login = client.post("/auth/login", json={"email": body["email"], "password": body["password"]}).json()
        client.headers["authorization"] = f"Bearer {login['access_token']}"
        assert client.get("/reconciliation").status_code in {403, 404}
        assert client.post(f"/vendors/accounts/{scene.account_id}/import-spend").status_code in {403, 404}
        own = client.get("/usage", params={"source": "vendor", "group_by": "key"}).json()
        assert [row["group"]["key"] for row in own["items"]] == [scene.issued["id"]]
        assert own["bills"][0]["unknown_usd"] == "0.00"
        assert "admin" not in json.dumps(own)
