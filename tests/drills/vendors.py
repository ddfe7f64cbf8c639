"""The sandbox's vendors as a drill meets them: an account entered there, whether a key works, what stands that carries KeyGate's mark."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import httpx
from tests.running import RunningKeyGate

from keygate.sandbox import SandboxServer, Vendor
from keygate.sandbox.admin import Account
from keygate.sandbox.admin.aws.model import CREDENTIALS, USERS
from keygate.sandbox.admin.azure.model import ACCOUNTS, DELETED
from keygate.sandbox.admin.google.api import PROJECT, cloud_of

BEDROCK_MODEL = "anthropic.claude-haiku-4-5-20251001-v1:0"
_HELLO = [{"role": "user", "content": "Hello"}]
_MODELS = {"openai": "gpt-4.1-mini", "openrouter": "openai/gpt-4.1-mini", "xai": "grok-3", "anthropic": "claude-sonnet-4-6"}
_OF_PROJECTS = ("parent", "billing_account")  # settings with which each of Google's keys has a project of its own


def changes(account: Account) -> int:
    """Calls at the vendor that are more than questions."""
    return sum(call.method != "GET" for call in list(account.calls))


def enter(keygate: RunningKeyGate, sandbox: SandboxServer, vendor: str, *, name: str = "default", own_projects: bool = True) -> None:
    """An account at the vendor, by the body that the sandbox has ready for it."""
    given = keygate.call("GET", "/vendors/issuer") if vendor == "anthropic" else {}
    body = httpx.post(f"{sandbox.address}/_sandbox/admin/{vendor}/configure", json=given, timeout=10).raise_for_status().json()
    settings = {setting: value for setting, value in body["settings"].items() if own_projects or setting not in _OF_PROJECTS}
    settings["calls_per_minute"] = "100000"
    told = keygate.call("POST", "/vendors/configure", {**body, "name": name, "settings": settings})
    assert told["status"] == "ready", told


def works(sandbox: SandboxServer, made: Mapping[str, Any]) -> bool:
    """Whether the vendor itself answers to the key, in its own dialect. `made` is the answer that told it."""
    key, env, vendor = str(made["key"]), made["env"], str(made["vendor"])
    headers = {"authorization": f"Bearer {key}"}
    body: dict[str, Any] = {"messages": _HELLO}
    match vendor:
        case "anthropic":
            told = _traded(made)
            if told.status_code in {400, 401}:
                return False
            token = told.raise_for_status().json()["access_token"]
            headers = {"authorization": f"Bearer {token}", "anthropic-version": "2023-06-01", "anthropic-beta": "oauth-2025-04-20"}
            url, body = f"{env['ANTHROPIC_BASE_URL']}/v1/messages", {**body, "model": _MODELS[vendor], "max_tokens": 9}
        case "azure":
            headers = {"api-key": key}
            endpoint = env["AZURE_OPENAI_ENDPOINT"].rstrip("/")
            url = f"{endpoint}/openai/deployments/gpt-4o-mini/chat/completions?api-version={env['OPENAI_API_VERSION']}"
        case "bedrock":
            url = f"{sandbox.address}/aws/bedrock-runtime/model/{BEDROCK_MODEL}/converse"
            body = {"messages": [{"role": "user", "content": [{"text": "Hello"}]}]}
        case "google":
            headers = {"x-goog-api-key": key}
            url, body = (
                f"{sandbox.google_base_url}/v1beta/models/gemini-2.5-flash:generateContent",
                {"contents": [{"parts": [{"text": "Hi"}]}]},
            )
        case _:
            base = {"openai": sandbox.openai_base_url, "openrouter": sandbox.openrouter_base_url, "xai": sandbox.xai_base_url}[vendor]
            url, body = f"{base}/chat/completions", {**body, "model": _MODELS[vendor]}
    answer = httpx.post(url, json=body, headers=headers, timeout=10)
    assert answer.status_code in {200, 400, 401, 403, 404}, answer.text
    return answer.status_code == 200


def _traded(made: Mapping[str, Any]) -> httpx.Response:
    """What Anthropic answers to the identity token, as the holder's SDK asks it."""
    env = made["env"]
    body = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "assertion": made["key"],
        "federation_rule_id": env["ANTHROPIC_FEDERATION_RULE_ID"],
        "organization_id": env["ANTHROPIC_ORGANIZATION_ID"],
        "service_account_id": env["ANTHROPIC_SERVICE_ACCOUNT_ID"],
        "workspace_id": env["ANTHROPIC_WORKSPACE_ID"],
    }
    return httpx.post(f"{env['ANTHROPIC_BASE_URL']}/v1/oauth/token", json=body, timeout=10)


def standing(sandbox: SandboxServer, vendor: str) -> dict[str, list[str]]:
    """What of ours stands at the vendor: ids by kind. A kind's last word is the member of a key's `at_vendor` that has the id, or the one
    of what it stands in."""
    with sandbox.state.admin.lock:
        account = sandbox.state.admin[Vendor(vendor)]
        match vendor:
            case "openai":
                found = _openai(account)
            case "anthropic":
                shelves = {"workspace": "workspaces", "service_account": "service_accounts", "key": "rules"}
                found = {kind: _open(account, shelf) for kind, shelf in shelves.items()}
            case "azure":
                found = _azure(account)
            case "bedrock":
                users = [entry.more["it"] for entry in account.shelves[USERS]]
                found = {
                    "user": [user.name for user in users],
                    "policy of user": [user.name for user in users for _ in user.policies],
                    "key": [entry.id for entry in account.shelves[CREDENTIALS]],
                }
            case "google":
                found = _google(account)
            case _:
                found = {"key": [entry.id for entry in account.shelves["keys"] if str(entry.body["name"]).startswith("kg-")]}
    return {kind: sorted(ids) for kind, ids in found.items()}


def _openai(account: Account) -> dict[str, list[str]]:
    named = [each for each in account.shelves["projects"] if str(each.body["name"]).startswith("kg-")]
    projects = [each.id for each in named if each.body["status"] == "active"]
    return {
        "project": projects,
        "service_account": [each.id for each in account.shelves["service_accounts"] if each.parent in projects],
        "key": [each.id for each in account.shelves["keys"] if each.parent in projects],
    }


def _open(account: Account, shelf: str) -> list[str]:
    ours = [each for each in account.shelves[shelf] if str(each.body["name"]).startswith("kg-")]
    return [each.id for each in ours if each.body["archived_at"] is None]


def _azure(account: Account) -> dict[str, list[str]]:
    """A key counts where a tag says that it was handed out; an account until it is purged."""
    there = [entry.more["it"] for shelf in (ACCOUNTS, DELETED) for entry in account.shelves[shelf]]
    keys = [(one.tags.get(f"keygate-{slot.lower()}"), slot, value) for one in there for slot, (value, _) in one.keys.items()]
    return {
        "account": [one.name for one in there],
        "deployment in account": [one.name for one in there for _ in one.deployments],
        "key": [f"{number}-{slot}-{hashlib.sha256(value.encode()).hexdigest()[:16]}" for number, slot, value in keys if number],
    }


def _google(account: Account) -> dict[str, list[str]]:
    cloud = cloud_of(account)
    projects = [each.id for each in cloud.projects.values() if each.state == "ACTIVE"]
    accounts = [each for each in cloud.accounts.values() if each.deleted_at is None and each.account_id.startswith("kg-")]
    return {
        "project": [each for each in projects if each != PROJECT],
        "budget of project": [project for project in cloud.projects for each in cloud.budgets.values() if each.covers(project)],
        "service_account": [each.email for each in accounts if each.project in projects],
        "key": [each.id for each in cloud.keys.values() if each.deleted_at is None and each.project in projects],
    }
