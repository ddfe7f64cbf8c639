"""What an administrator does at a shell, and what each command prints for people and for machines."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import subprocess
from typing import Any

import httpx
import pytest
from tests.cli.desk import Desk

from keygate.cli import reports
from keygate.cli.client import Exit


def chat(desk: Desk, key: str, **members: object) -> httpx.Response:
    body = {"model": "gpt-4.1-mini", "max_tokens": 20, "messages": [{"role": "user", "content": "hello"}]} | members
    return httpx.post(f"{desk.keygate.url}/openai/v1/chat/completions", json=body, headers={"authorization": f"Bearer {key}"}, timeout=20)


def test_credentials_are_added_tested_and_removed_without_being_shown(desk: Desk, sandbox, vendor_key: str) -> None:
    words = ("credentials", "add", "openai", "--name", "second", "--base-url", sandbox.openai_base_url, "--weight", "2")
    made = desk.made(*words, text=vendor_key + "\n")
    assert made["weight"] == 2
    listed = desk.ok("credentials", "list").out
    assert made["id"] in listed
    assert "second" in listed
    assert vendor_key not in listed + json.dumps(made)
    assert desk.made("credentials", "test", made["id"])["ok"] is True
    sandbox.state.revoke_key(vendor_key)
    assert desk.run("credentials", "test", made["id"]).code == Exit.FAILED
    assert desk.run(*words, text=vendor_key + "\n").code == Exit.NOT_VALID  # the name is taken
    assert desk.run("credentials", "add", "openai", "--name", "empty", text="\n").code == Exit.USAGE
    assert desk.run("credentials", "add", "no-such-vendor", text="x\n").code == Exit.NOT_VALID
    assert desk.run("credentials", "remove", made["id"], text="n\n").code == Exit.FAILED  # asked, and declined
    desk.ok("credentials", "remove", made["id"], "--yes")
    assert desk.run("credentials", "test", made["id"]).code == Exit.NOT_FOUND


def test_teams_developers_and_apps(desk: Desk) -> None:
    team = desk.made("teams", "create", "research [bold]x[/bold]")
    assert "research [bold]x[/bold]" in desk.ok("teams", "list").out  # names are text, not markup
    developer = desk.made("developers", "create", "Ada", "--email", "ada@example.com", "--team", team["id"])
    assert developer["team_id"] == team["id"]
    assert "ada@example.com" in desk.ok("developers", "list").out
    app = desk.made("apps", "create", "ci", "--team", team["id"])
    assert app["id"] in desk.ok("apps", "list").out
    key = desk.made("keys", "create", "of ada", "--developer", developer["id"])
    assert chat(desk, key["key"]).status_code == 200
    desk.ok("developers", "deactivate", developer["id"], "--yes")
    assert chat(desk, key["key"]).status_code == 401
    assert desk.run("developers", "create", "Eve", "--email", "no address").code == Exit.NOT_VALID
    assert desk.run("developers", "deactivate", "dev_nobody", "--yes").code == Exit.NOT_FOUND


def test_life_of_a_key(desk: Desk) -> None:
    words = ("keys", "create", "life", "--model", "openai/gpt-4.1*", "--budget", "10.00/month", "--budget", "1.00/day/soft")
    made = desk.made(*words, "--limit", "requests_per_minute=60", "--limit", "concurrent-requests=5", "--tag", "project=x")
    assert made["limits"] == {"requests_per_minute": 60, "concurrent_requests": 5}
    assert {budget["mode"] for budget in made["budgets"]} == {"hard", "soft"}
    assert chat(desk, made["key"]).status_code == 200
    assert made["key"] not in desk.ok("keys", "list").out
    shown = desk.ok("keys", "show", made["id"]).out
    assert "10.00" in shown
    assert made["key"] not in shown
    assert desk.made("keys", "show", made["id"])["usage"]["requests"] == 1
    rotated = desk.made("keys", "rotate", made["id"], "--grace-seconds", "0")
    assert chat(desk, made["key"]).status_code == 401
    assert chat(desk, rotated["key"]).status_code == 200
    assert desk.made("keys", "explain", made["id"], "--model", "openai/gpt-4.1-mini")["allowed"] is True
    refused = desk.run("keys", "explain", made["id"], "--model", "anthropic/claude-sonnet-4-5")
    assert refused.code == Exit.WOULD_BE_REFUSED
    assert "anthropic" in refused.out
    as_json = desk.run("keys", "explain", made["id"], "--model", "anthropic/claude-sonnet-4-5", "--json")
    assert (as_json.code, as_json.json()["allowed"]) == (Exit.WOULD_BE_REFUSED, False)
    desk.ok("keys", "revoke", made["id"], "--yes")
    assert chat(desk, rotated["key"]).status_code == 401
    assert "revoked" in desk.ok("keys", "list", "--status", "revoked").out
    assert desk.run("keys", "rotate", made["id"]).code == Exit.NOT_VALID
    assert desk.run("keys", "show", "vk_nobody").code == Exit.NOT_FOUND


def test_a_key_is_changed_by_what_is_named_and_the_rest_stays(desk: Desk) -> None:
    words = ("--model", "openai/gpt-4.1*", "--budget", "10.00/month", "--budget", "1.00/day/soft", "--limit", "requests_per_minute=60")
    made = desk.made("keys", "create", "to change", *words, "--limit", "tokens_per_day=9", "--expires-at", "2099-01-01T00:00:00Z")
    policy = desk.made("policies", "create", "for one")
    terms = ("--budget", "20.00/month", "--budget", "5.00/week", "--limit", "requests_per_minute=120", "--limit", "tokens-per-day=none")
    after = desk.made("keys", "change", made["id"], "--policy", policy["id"], "--expires-at", "none", "--tag", "project=x", *terms)
    budgets = {(each["period"], each["mode"]): each for each in after["budgets"]}
    assert {of: each["amount_usd"] for of, each in budgets.items()} == {
        ("month", "hard"): "20.00",
        ("day", "soft"): "1.00",
        ("week", "hard"): "5.00",
    }
    assert {each["id"] for each in made["budgets"]} < {each["id"] for each in after["budgets"]}  # what was spent stays counted
    assert after["limits"] == {"requests_per_minute": 120}
    assert (after["policy_id"], after["expires_at"], after["tags"], after["models"]) == (
        policy["id"],
        None,
        ["project=x"],
        ["openai/gpt-4.1*"],
    )
    shown = desk.ok("keys", "change", made["id"], "--policy", "none", "--budget", "none/day/soft", "--name", "changed", "--tag", "none")
    assert "changed" in shown.out
    (row,) = [each for each in desk.made("keys", "list") if each["id"] == made["id"]]
    assert (row["policy_id"], row["tags"], {each["period"] for each in row["budgets"]}) == (None, [], {"month", "week"})
    assert desk.run("keys", "change", made["id"]).code == Exit.USAGE  # nothing is named
    assert desk.run("keys", "change", made["id"], "--budget", "none/day").code == Exit.NOT_FOUND
    assert desk.run("keys", "change", made["id"], "--limit", "nonsense=none").code == Exit.USAGE
    assert desk.run("keys", "change", "vk_nobody", "--name", "x").code == Exit.NOT_FOUND


def test_a_policy_is_put_on_whom_keys_belong_to(desk: Desk) -> None:
    policy = desk.made("policies", "create", "for many", "--model", "openai/gpt-4.1-nano", "--budget", "1.00/day")
    team = desk.made("teams", "create", "policed", "--policy", policy["id"])
    developer = desk.made("developers", "create", "Kay", "--email", "kay@example.com", "--team", team["id"], "--policy", policy["id"])
    app = desk.made("apps", "create", "policed", "--policy", policy["id"])
    assert {each["policy_id"] for each in (team, developer, app)} == {policy["id"]}
    key = desk.made("keys", "create", "of kay", "--developer", developer["id"])
    assert chat(desk, key["key"]).status_code == 403
    terms = ("--budget", "2.00/day", "--limit", "requests_per_minute=60", "--description", "wider", "--deny", "none")
    wider = desk.made("policies", "change", policy["id"], "--model", "*", *terms)
    assert [each["amount_usd"] for each in wider["budgets"]] == ["2.00"]
    assert (wider["models"], wider["limits"], wider["description"]) == (["*"], {"requests_per_minute": 60}, "wider")
    assert chat(desk, key["key"]).status_code == 200
    for noun, thing in (("teams", team), ("developers", developer), ("apps", app)):
        assert policy["id"] in desk.ok(noun, "change", thing["id"], "--name", f"{noun} renamed").out
        assert desk.made(noun, "change", thing["id"], "--policy", "none")["policy_id"] is None
        assert desk.run(noun, "change", thing["id"]).code == Exit.USAGE
        assert desk.run(noun, "change", thing["id"], "--policy", "pol_nobody").code == Exit.NOT_VALID
    assert desk.made("developers", "change", developer["id"], "--team", "none")["team_id"] is None
    desk.ok("policies", "remove", policy["id"], "--yes")


def test_apps_and_teams_are_ended_too(desk: Desk) -> None:
    team = desk.made("teams", "create", "short-lived")
    developer = desk.made("developers", "create", "Lin", "--email", "lin@example.com")
    app = desk.made("apps", "create", "nightly", "--team", team["id"], "--developer", developer["id"])
    assert app["developer_id"] == developer["id"]
    key = desk.made("keys", "create", "of nightly", "--app", app["id"])
    assert desk.run("teams", "archive", team["id"], "--yes").code == Exit.NOT_VALID  # the app is in it
    desk.ok("developers", "deactivate", developer["id"], "--yes")
    assert chat(desk, key["key"]).status_code == 401
    assert key["id"] in desk.ok("keys", "list", "--status", "owner_inactive").out
    assert key["id"] not in desk.ok("keys", "list", "--status", "active").out
    assert desk.run("apps", "deactivate", app["id"], text="n\n").code == Exit.FAILED  # asked, and declined
    desk.ok("apps", "deactivate", app["id"], "--yes")
    assert "deactivated" in desk.ok("apps", "list").out
    desk.ok("teams", "archive", team["id"], "--yes")
    assert team["id"] not in desk.ok("teams", "list").out


def test_developers_whose_team_is_archived_without_them_keep_their_keys_and_lose_what_came_from_it(desk: Desk) -> None:
    call = desk.keygate.call
    policy = call("POST", "/policies", {"name": "narrow", "models": ["openai/gpt-4.1-nano"]})["id"]
    team = call("POST", "/teams", {"name": "narrow", "policy_id": policy})["id"]
    developer = call("POST", "/developers", {"name": "Mo", "email": "mo@example.com", "team_id": team})["id"]
    theirs, own = (
        call("POST", "/virtual-keys", {"name": "k", "owner": owner}) for owner in ({"developer_id": developer}, {"team_id": team})
    )
    assert chat(desk, theirs["key"]).status_code == 403
    assert desk.run("teams", "archive", team, "--developers", "sell", "--yes").code == Exit.USAGE
    said = desk.ok("teams", "archive", team, "--developers", "detach", "--yes")
    assert "in no team" in said.err
    assert [chat(desk, each["key"]).status_code for each in (theirs, own)] == [200, 401]
    kept = call("GET", f"/developers/{developer}")
    assert (kept["status"], kept["team_id"]) == ("active", None)
    call("DELETE", f"/policies/{policy}")


def test_an_id_reaches_no_other_address(desk: Desk) -> None:
    """What a script takes for an id may be anything: it must not become the path of something else."""
    developer = desk.made("developers", "create", "Kay", "--email", "lou@example.com")
    things = (f"../developers/{developer['id']}", f"x/../../developers/{developer['id']}", "", "..", "a?b=c", "vk_1%2F")
    others = (("budgets", "remove"), ("keys", "revoke"), ("apps", "deactivate"))
    for noun, verb, thing in (*(("credentials", "remove", thing) for thing in things), *((*words, things[0]) for words in others)):
        said = desk.run(noun, verb, thing, "--yes")
        assert said.code == Exit.USAGE, (noun, thing, said)
        assert "is no id" in said.err
    for words in (
        ("issued-keys", "show"),
        ("issued-keys", "cut"),
        ("receipts", "show"),
        ("revoke", "--yes"),
        ("rotate",),
        ("inventory", "check"),
        ("vendors", "verify"),
    ):
        said = desk.run(*words, f"../developers/{developer['id']}")
        assert said.code == Exit.USAGE, (words, said)
    (found,) = [each for each in desk.ok("developers", "list", "--json").json() if each["id"] == developer["id"]]
    assert found["status"] == "active"


def test_a_budget_names_its_period(desk: Desk) -> None:
    for words in (
        ("keys", "create", "x", "--budget", "10"),
        ("budgets", "create", "organization", "10"),
        ("keys", "create", "x", "--budget", "10/"),
    ):
        said = desk.run(*words)
        assert said.code == Exit.USAGE, said
        assert "10.00/month" in said.err


def test_what_is_no_address_is_said_in_words(desk: Desk) -> None:
    said = desk.run("developers", "create", "Eve", "--email", "eve")
    assert said.err == "error: email: this is no e-mail address\n"
    said = desk.run("keys", "create", "x", "--team", "team_1", "--app", "app_1")
    assert said.err == "error: owner: name one of team_id, developer_id and app_id\n"


@pytest.mark.parametrize(
    "words", [("--limit", "x"), ("--limit", "requests_per_minute=-5"), ("--limit", "nonsense=5"), ("--limit", "requests_per_minute=²")]
)
def test_mistaken_options_are_mistakes_of_use(desk: Desk, words: tuple[str, ...]) -> None:
    assert desk.run("keys", "create", "mistaken", *words).code == Exit.USAGE


@pytest.mark.parametrize(
    "words",
    [
        ("--budget", "ten/month"),
        ("--budget", "10/fortnight"),
        ("--budget", "-5/month"),
        ("--expires-at", "tomorrow"),
        ("--policy", "pol_nobody"),
        ("--team", "team_nobody"),
        ("--team", "a", "--app", "b"),
    ],
)
def test_values_that_the_server_refuses_are_not_valid(desk: Desk, words: tuple[str, ...]) -> None:
    said = desk.run("keys", "create", "mistaken", *words)
    assert said.code in {Exit.NOT_VALID, Exit.NOT_FOUND}, said
    assert said.err.startswith("error:")


def test_policies_budgets_and_limits(desk: Desk) -> None:
    policy = desk.made(
        "policies",
        "create",
        "small models",
        "--model",
        "openai/gpt-4.1-mini",
        "--deny",
        "openai/gpt-4.1-nano",
        "--limit",
        "requests_per_minute=100",
    )
    assert policy["id"] in desk.ok("policies", "list").out
    key = desk.made("keys", "create", "policed", "--policy", policy["id"])
    assert chat(desk, key["key"]).status_code == 200
    assert chat(desk, key["key"], model="gpt-4.1-nano").status_code == 403
    assert desk.run("policies", "remove", policy["id"], "--yes").code == Exit.NOT_VALID  # a key carries it
    team = desk.made("teams", "create", "budgeted")
    budget = desk.made("budgets", "create", "team", "100.00/month", "--of", team["id"])
    assert budget["scope_id"] == team["id"]
    tagged = desk.made("budgets", "create", "tag", "5.00/day/soft", "--of", "project=x")
    assert tagged["selector"] == "project=x"
    assert "100.00" in desk.ok("budgets", "list").out
    limit = desk.made("limits", "create", "team", "requests_per_minute=600", "--of", team["id"])
    assert limit["id"] in desk.ok("limits", "list").out
    changed = desk.made("budgets", "change", budget["id"], "200.00", "--threshold", "50", "--threshold", "90", "--mode", "soft")
    assert (changed["amount_usd"], changed["thresholds"], changed["mode"]) == ("200.00", [50, 90], "soft")
    assert desk.made("limits", "change", limit["id"], "700")["amount"] == 700
    assert desk.run("limits", "change", limit["id"], "0").code == Exit.USAGE
    assert desk.run("limits", "create", "team", "requests_per_minute=0", "--of", team["id"]).code == Exit.USAGE
    assert desk.run("budgets", "create", "galaxy", "1.00/day").code == Exit.NOT_VALID
    for noun, thing in (("budgets", budget), ("budgets", tagged), ("limits", limit)):
        desk.ok(noun, "remove", thing["id"], "--yes")
        assert desk.run(noun, "remove", thing["id"], "--yes").code == Exit.NOT_FOUND


def test_exports_are_made_for_virtual_keys_only(desk: Desk) -> None:
    for text in ("notakey", "sk-proj-0123456789", "kgt_0123456789", "sk-kg-a b"):
        said = desk.run("env", text)
        assert said.code == Exit.USAGE
        assert not said.out
        assert text not in said.err


def test_exports_work_in_the_shells_they_are_for(desk: Desk) -> None:
    key = desk.made("keys", "create", "env")["key"]
    expected = {"OPENAI_BASE_URL": f"{desk.keygate.url}/openai/v1", "OPENAI_API_KEY": key, "ANTHROPIC_API_KEY": key}
    lines = desk.ok("env", text=key + "\n").out
    shell = subprocess.run(
        ["sh", "-c", f"{lines}\nenv"], capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]}
    ).stdout
    found = dict(line.split("=", 1) for line in shell.splitlines() if "=" in line)
    assert {name: found.get(name) for name in expected} == expected
    made = desk.ok("keys", "create", "eval", "--env").out
    assert all(line.startswith("export ") for line in made.splitlines())
    for shell_name, start in (("fish", "set -gx OPENAI_API_KEY "), ("powershell", "$env:OPENAI_API_KEY = "), ("dotenv", "OPENAI_API_KEY=")):
        text = desk.ok("env", "--shell", shell_name, text=key + "\n").out
        assert any(line.startswith(start) and key in line for line in text.splitlines()), text
    if shutil.which("fish"):
        text = desk.ok("env", "--shell", "fish", text=key + "\n").out
        assert key in subprocess.run(["fish", "-c", f"{text}\nenv"], capture_output=True, text=True, check=True).stdout
    assert desk.run("env", text="\n").code == Exit.USAGE


def test_usage_is_a_table_for_people_json_for_machines_and_csv_for_sheets(desk: Desk) -> None:
    key = desk.made("keys", "create", "used")
    for _ in range(3):
        assert chat(desk, key["key"]).status_code == 200
    table = desk.ok("usage", "--group-by", "model", "--key", key["id"]).out
    assert "gpt-4.1-mini" in table
    assert " 3" in table
    rows = desk.ok("usage", "--group-by", "model", "--key", key["id"], "--json").json()["items"]
    assert sum(row["requests"] for row in rows) == 3
    sheet = list(csv.DictReader(io.StringIO(desk.ok("usage", "--group-by", "model,day", "--key", key["id"], "--csv").out)))
    assert sum(int(row["requests"]) for row in sheet) == 3
    assert sheet[0]["model"].endswith("gpt-4.1-mini")
    assert desk.run("usage", "--group-by", "nonsense").code == Exit.NOT_VALID
    assert desk.run("usage", "--from", "yesterday").code == Exit.NOT_VALID
    assert desk.ok("usage", "--key", "vk_nobody").code == Exit.OK


@pytest.mark.parametrize("truncated", [True, False])
def test_usage_that_is_cut_off_says_so_beside_its_output(monkeypatch, capsys, truncated: bool) -> None:
    class Server:
        def request(self, method: str, path: str, *, query: dict[str, Any]) -> dict[str, Any]:
            row = {
                "group": {"model": "gpt-4.1"},
                "requests": 1,
                "input_tokens": 1,
                "output_tokens": 1,
                "cost_usd": "1",
                "in_doubt_usd": "0",
            }
            return {"items": [row], "truncated": truncated}

    monkeypatch.setattr(reports, "api", lambda: contextlib.nullcontext(Server()))
    for as_json in (True, False):
        reports.usage(group_by="model", as_json=as_json)
        said = capsys.readouterr()
        assert "gpt-4.1" in said.out
        assert ("There are more groups" in said.err) is truncated
