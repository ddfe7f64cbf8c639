"""Keys at Azure and AWS with marked admin credentials: made, rotated, ended; and vendors that fail, repeating what they were sent."""

from __future__ import annotations

from typing import Any

from tests.sdks.aws_clients import MODEL
from tests.sdks.azure_clients import GROUP, SUBSCRIPTION, TENANT
from tests.silence.canaries import marked
from tests.silence.observed import Run

from keygate.sandbox import Vendor
from keygate.sandbox.admin import AdminFault, FaultKind

_PUBLIC = {Vendor.AZURE: 14, Vendor.BEDROCK: 52}  # `sandbox-azure-`; `ABSK` and, in base64, the public name of the credential
_OPERATIONS = {
    Vendor.AZURE: ("token", "accounts.create", "accounts.list_keys", "accounts.regenerate_key", "accounts.delete"),
    Vendor.BEDROCK: ("GetUser", "CreateUser", "PutUserPolicy", "CreateServiceSpecificCredential", "DeleteServiceSpecificCredential"),
}


def issue_cloud_keys(run: Run) -> None:
    for vendor in (Vendor.AZURE, Vendor.BEDROCK):
        secret = run.mark(f"{vendor} admin secret", marked(40), guessable=True)
        run.sandbox.state.admin[vendor].create_credential(value=secret, name=f"keygate-{vendor}")
        body = {"vendor": vendor, "admin_key": secret, "settings": _settings(run, vendor)}
        run.api("POST", "/vendors/configure", body)
        run.send("POST", "/api/v1/vendors/configure", json=body | {"admin_key": run.made["another credential"], "name": "wrong"})
        models = ["gpt-4o-mini"] if vendor is Vendor.AZURE else [MODEL]
        order = {"vendor": vendor, "developer_id": run.made["developer_id"], "models": models}
        made = run.issued(f"{vendor} key", "POST", "/keys/provision", order, "key", _PUBLIC[vendor])
        turned = f"/keys/{made['id']}/rotate"
        run.issued(f"rotated {vendor} key", "POST", turned, {"overlap_seconds": 0, "insist": True}, "key", _PUBLIC[vendor])
        _suffer(run, vendor, order, secret)
        run.api("POST", f"/keys/{made['id']}/revoke", {"reason": "silent", "wait_seconds": 30})


def _settings(run: Run, vendor: Vendor) -> dict[str, str]:
    address = run.sandbox.address
    if vendor is Vendor.BEDROCK:
        own = {"base_url": f"{address}/aws/iam", "access_key_id": "keygate-bedrock", "region": "us-east-1"}
    else:
        own = {"base_url": f"{address}/azure", "tenant": TENANT, "client_id": "keygate-azure", "region": "eastus"}
        own |= {"subscription": SUBSCRIPTION, "resource_group": GROUP}
    return {**own, "calls_per_minute": "100000"}


def _suffer(run: Run, vendor: Vendor, order: dict[str, Any], secret: str) -> None:
    account = run.sandbox.state.admin[vendor]
    said = f"Invalid client secret provided: {secret}"
    for number, operation in enumerate(_OPERATIONS[vendor]):
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
