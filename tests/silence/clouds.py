"""Keys at every other vendor with marked admin credentials: made, rotated, reported as leaked, ended; vendors that fail, repeating what
they were sent; and the sign-in tokens that KeyGate got from them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.sdks.aws_clients import MODEL
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT
from tests.silence.canaries import marked
from tests.silence.observed import Run

from keygate.sandbox import Vendor
from keygate.sandbox.admin import AdminFault, FaultKind
from keygate.sandbox.admin.google.api import PROJECT, cloud_of

_VENDORS = (Vendor.AZURE, Vendor.BEDROCK, Vendor.GOOGLE, Vendor.ANTHROPIC, Vendor.OPENROUTER, Vendor.XAI)
_SIGNATURE = "signature of the "  # of an identity token: its other parts are no secret, and the same in every one
_AUDIENCE = "https://api.anthropic.com"


@dataclass(frozen=True)
class House:
    """One vendor as an admin sets it up. `public`: characters at the beginning of its keys that are no secret."""

    admin: str
    settings: dict[str, str]
    public: int
    breaks: tuple[str, ...]  # operations that fail
    models: list[str] | None = None
    repeated: str | None = None  # what the vendor repeats in its refusals
    order: dict[str, Any] = field(default_factory=dict)


def issue_cloud_keys(run: Run) -> None:
    for vendor in _VENDORS:
        house = _house(run, vendor)
        body = {"vendor": vendor, "admin_key": house.admin, "settings": {**house.settings, "calls_per_minute": "100000"}}
        told = run.api("POST", "/vendors/configure", body)
        assert told["status"] == "ready", told
        run.send("POST", "/api/v1/vendors/configure", json=body | {"admin_key": run.made["another credential"], "name": "wrong"})
        order = {"vendor": vendor, "account": "default", "developer_id": run.made["developer_id"], "models": house.models, **house.order}
        made = _issued(run, vendor, f"{vendor} key", "/keys/provision", order, house)
        turned = f"/keys/{made['id']}/rotate"
        _issued(run, vendor, f"rotated {vendor} key", turned, {"overlap_seconds": 0, "insist": True}, house)
        _suffer(run, vendor, order, house)
        if vendor is Vendor.ANTHROPIC:
            _issued(run, vendor, "fetched token", f"/keys/{made['id']}/token", {}, house)
            run.api("POST", "/keys/report-leak", {"key": run.made["whole fetched token"]})
        else:
            run.api("POST", "/keys/report-leak", {"key": made["key"]})
        run.api("POST", f"/keys/{made['id']}/revoke", {"reason": "silent", "wait_seconds": 30})
    _mark_tokens(run)


def _issued(run: Run, vendor: Vendor, name: str, path: str, body: dict[str, Any], house: House) -> dict[str, Any]:
    """As `run.issued`. Of an identity token its signature is the secret; the rest is the same in all of them."""
    if vendor is not Vendor.ANTHROPIC:
        return run.issued(name, "POST", path, body, "key", house.public)
    made: dict[str, Any] = run.api("POST", path, body, allowed=(_SIGNATURE + name,))
    run.made[f"whole {name}"] = made["key"]
    run.mark(_SIGNATURE + name, made["key"].rpartition(".")[2])
    return made


def _house(run: Run, vendor: Vendor) -> House:
    account, address = run.sandbox.state.admin[vendor], run.sandbox.address
    console = run.sandbox.state.admin.api(vendor).console
    if vendor is Vendor.GOOGLE:
        with run.sandbox.state.admin.lock:
            file = console(account, "admin_key", {"token_uri": f"{address}/google/oauth2/token"})["credentials"]
        line = json.loads(file)["private_key"].splitlines()[5]
        run.mark("google admin key", line, guessable=True)
        settings = {"base_url": f"{address}/google", "project": PROJECT}
        return House(file, settings, 11, ("oauth2.token", "iam.*", "apikeys.keys.create", "apikeys.keys.keyString"), repeated=line)
    secret = run.mark(f"{vendor} admin secret", marked(40), guessable=True)
    account.create_credential(value=secret, name=f"keygate-{vendor}")
    if vendor is Vendor.AZURE:
        settings = {"base_url": f"{address}/azure", "tenant": TENANT, "client_id": "keygate-azure", "region": "eastus"}
        settings |= {"subscription": SUBSCRIPTION, "resource_group": GROUP}
        breaks = ("token", "accounts.create", "accounts.list_keys", "accounts.regenerate_key", "accounts.delete")
        return House(secret, settings, 14, breaks, models=["gpt-4o-mini"])
    if vendor is Vendor.BEDROCK:
        settings = {"base_url": f"{address}/aws/iam", "access_key_id": "keygate-bedrock", "region": "us-east-1"}
        breaks = ("GetUser", "CreateUser", "PutUserPolicy", "CreateServiceSpecificCredential", "DeleteServiceSpecificCredential")
        return House(secret, settings, 52, breaks, models=[MODEL])  # `ABSK` and, in base64, the public name of the credential
    if vendor is Vendor.ANTHROPIC:
        identity = run.api("GET", "/vendors/issuer")
        jwks = {"type": "inline", "keys": identity["jwks"]["keys"]}
        with run.sandbox.state.admin.lock:
            rule = {"issuer_url": identity["issuer"], "jwks": jwks, "subject": "keygate:admin", "audience": _AUDIENCE}
            made = console(account, "admin_rule", rule)
        settings = {name: made[name] for name in ("organization_id", "federation_rule_id", "service_account_id")}
        return House(
            secret, {"base_url": run.sandbox.anthropic_base_url, **settings}, 0, ("workspaces.create", "rules.create", "rules.archive")
        )
    if vendor is Vendor.OPENROUTER:
        settings = {"base_url": f"{address}/openrouter/api/v1"}
        return House(secret, settings, 22, ("keys.create", "keys.get", "keys.delete"), order={"budget_usd": "5.00"})
    return House(secret, {"base_url": f"{address}/xai"}, 11, ("api_keys.create", "api_keys.list", "api_keys.delete"))


def _suffer(run: Run, vendor: Vendor, order: dict[str, Any], house: House) -> None:
    account = run.sandbox.state.admin[vendor]
    said = f"Invalid client secret provided: {house.repeated or house.admin}"
    for number, operation in enumerate(house.breaks):
        for fault in (
            AdminFault(operation, status=403, message=said),
            AdminFault(operation, status=400, message=said),
            AdminFault(operation, kind=FaultKind.GARBAGE),
        ):
            account.faults.append(fault)
            asked = {"deliver": "later", "wait_seconds": 10, "request_id": f"suffer-{vendor}-{number}-{fault.kind}-{fault.status}"}
            answer = run.send("POST", "/api/v1/keys/provision", json=order | asked)
            if answer is not None and answer.is_success:
                run.send("POST", f"/api/v1/keys/{answer.json()['id']}/revoke", json={"wait_seconds": 10})
            account.faults.clear()
    run.send("GET", "/api/v1/keys")
    run.send("GET", "/api/v1/vendors/accounts")


def _mark_tokens(run: Run) -> None:
    """What KeyGate signs in with for an hour, or the ten minutes of Anthropic: made by the vendors, known to it alone."""
    admin = run.sandbox.state.admin
    with admin.lock:
        found = {
            "azure": [entry.id for entry in admin[Vendor.AZURE].shelves["tokens"]],
            "google": list(cloud_of(admin[Vendor.GOOGLE]).tokens),
            "anthropic": [entry.id for entry in admin[Vendor.ANTHROPIC].shelves["tokens"]],
        }
    for vendor, tokens in found.items():
        assert tokens, vendor
        for number, token in enumerate(tokens):
            run.mark(f"{vendor} sign-in token {number}", token, public=24)
