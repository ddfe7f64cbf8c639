"""Azure Resource Manager as far as Azure OpenAI needs it: paths, rights, bodies.

Shapes: azure-mgmt-cognitiveservices 14.1.0 (api-version 2025-09-01), which drives this in the tests; statuses and headers of
long-running calls: Azure/azure-rest-api-specs, specification/cognitiveservices, examples of 2025-06-01. Pausing a deployment has the
api-version 2026-03-15-preview.
"""

from __future__ import annotations

from typing import Any

from keygate.kit.clock import rfc3339
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import JSON, AdminRequest, Answer, Handler, Route
from keygate.sandbox.admin.azure.model import ACCOUNTS, DELETED, Azure, Deployment, KeyName, Resource
from keygate.sandbox.errors import VendorError

PREFIX = "Microsoft.CognitiveServices"
PAUSE_VERSION = "2026-03-15-preview"
_SKUS = frozenset({"Standard", "GlobalStandard", "DataZoneStandard", "ProvisionedManaged", "GlobalProvisionedManaged"})
_SUBSCRIPTION = "/azure/subscriptions/{subscription}"
_PROVIDER = f"{_SUBSCRIPTION}/providers/{PREFIX}"
_GROUP = f"{_SUBSCRIPTION}/resourceGroups/{{group}}"
_ACCOUNTS = f"{_GROUP}/providers/{PREFIX}/accounts"
_ACCOUNT = f"{_ACCOUNTS}/{{account}}"
_DEPLOYMENT = f"{_ACCOUNT}/deployments/{{deployment}}"
_DELETED = f"{_PROVIDER}/locations/{{location}}/resourceGroups/{{group}}/deletedAccounts/{{account}}"


# Accounts.


def list_accounts(account: Account, request: AdminRequest) -> dict[str, Any]:
    azure = Azure(account)
    found = azure.listed(ACCOUNTS, request.params["subscription"], request.params.get("group"))
    return {"value": [_account_body(azure, one, request) for one in found]}


def get_account(account: Account, request: AdminRequest) -> dict[str, Any]:
    azure = Azure(account)
    return _account_body(azure, _known(azure, request), request)


def create_account(account: Account, request: AdminRequest) -> Answer:
    azure, body, place = Azure(account), request.json(), request.params
    properties = body.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    standing = azure.find(_id(request))
    if standing is not None:
        _apply(azure, standing, body)
        return Answer(200, _account_body(azure, standing, request))
    gone = azure.find_deleted(_id(request))
    if gone is not None and properties.get("restore") is True:
        azure.restore(gone)
        return Answer(200, _account_body(azure, gone, request))
    sku, location = body.get("sku"), body.get("location")
    if body.get("kind") not in {"OpenAI", "AIServices"} or not isinstance(sku, dict) or not isinstance(location, str):
        raise VendorError(400, "The request is invalid: kind, sku and location are required.", code="InvalidRequestContent")
    one = Resource(
        place["subscription"],
        place["group"],
        place["account"],
        location.lower().replace(" ", ""),
        kind=str(body["kind"]),
        sku=str(sku.get("name")),
        subdomain=str(properties.get("customSubDomainName") or place["account"]).lower(),
        tags=_tags(body),
        made_at_ns=azure.now_ns(),
        ready_at_ns=0,
    )
    azure.create(one)
    if properties.get("disableLocalAuth") is True:
        azure.set_local_auth(one, disabled=True)
    return Answer(201, _account_body(azure, one, request))


def update_account(account: Account, request: AdminRequest) -> dict[str, Any]:
    azure = Azure(account)
    one = _known(azure, request)
    _apply(azure, one, request.json())
    return _account_body(azure, one, request)


def delete_account(account: Account, request: AdminRequest) -> Answer:
    azure = Azure(account)
    one = azure.find(_id(request))
    if one is None:
        return Answer(204)
    azure.delete(one)
    return _accepted(azure, request, one.location)


def list_keys(account: Account, request: AdminRequest) -> dict[str, str]:
    return _keys_body(_known(Azure(account), request))


def regenerate_key(account: Account, request: AdminRequest) -> dict[str, str]:
    azure = Azure(account)
    one = _known(azure, request)
    asked = str(request.json().get("keyName", "")).lower()
    name = next((each for each in KeyName if each.lower() == asked), None)
    if name is None:
        raise VendorError(400, "The key name must be Key1 or Key2.", code="InvalidKeyName")
    azure.regenerate(one, name)
    return _keys_body(one)


# Deleted accounts.


def list_deleted(account: Account, request: AdminRequest) -> dict[str, Any]:
    azure = Azure(account)
    return {"value": [_deleted_body(one) for one in azure.listed(DELETED, request.params["subscription"])]}


def get_deleted(account: Account, request: AdminRequest) -> dict[str, Any]:
    one = Azure(account).find_deleted(_id(request))
    if one is None or one.location != request.params["location"].lower():
        raise _absent(request)
    return _deleted_body(one)


def purge_deleted(account: Account, request: AdminRequest) -> Answer:
    azure = Azure(account)
    one = azure.find_deleted(_id(request))
    if one is None or one.location != request.params["location"].lower():
        return Answer(204)
    azure.purge(one)
    return _accepted(azure, request, one.location)


# Deployments.


def list_deployments(account: Account, request: AdminRequest) -> dict[str, Any]:
    azure = Azure(account)
    one = _known(azure, request)
    return {"value": [_deployment_body(azure, one, each) for each in one.deployments.values()]}


def get_deployment(account: Account, request: AdminRequest) -> dict[str, Any]:
    azure = Azure(account)
    return _deployment_body(azure, *_deployed(azure, request))


def put_deployment(account: Account, request: AdminRequest) -> Answer:
    azure = Azure(account)
    one = _known(azure, request)
    if one.ready_at_ns > azure.now_ns() or one.gone_at_ns is not None:
        raise VendorError(409, f"Account {one.id} in state Creating or Deleting", code="AccountProvisioningStateInvalid")
    name = request.params["deployment"]
    status = 200 if name in one.deployments else 201
    made = azure.deploy(one, _read_deployment(name, request.json()))
    return Answer(status, _deployment_body(azure, one, made))


def update_deployment(account: Account, request: AdminRequest) -> dict[str, Any]:
    azure = Azure(account)
    one, standing = _deployed(azure, request)
    sku = request.json().get("sku")
    if isinstance(sku, dict) and isinstance(sku.get("capacity"), int):
        changed = Deployment(standing.name, standing.sku, sku["capacity"], standing.model, standing.version)
        standing = azure.deploy(one, changed)
    return _deployment_body(azure, one, standing)


def delete_deployment(account: Account, request: AdminRequest) -> Answer:
    azure = Azure(account)
    one = _known(azure, request)
    if one.deployments.pop(request.params["deployment"], None) is None:
        return Answer(204)
    return _accepted(azure, request, one.location)


def _paused(paused: bool) -> Handler:
    def handler(account: Account, request: AdminRequest) -> dict[str, Any]:
        if request.text("api-version") != PAUSE_VERSION:
            raise VendorError(404, "The resource type could not be found for this api version.", code="InvalidResourceType")
        azure = Azure(account)
        one, standing = _deployed(azure, request)
        standing.paused = paused
        return _deployment_body(azure, one, standing)

    return handler


# The rest.


def list_usages(account: Account, request: AdminRequest) -> dict[str, Any]:
    """Quotas of a region. Rows of models appear where something is deployed."""
    azure, subscription, location = Azure(account), request.params["subscription"], request.params["location"].lower()
    ceilings = account.settings.ceilings
    rows = [("OpenAI.S0.AccountCount", azure.counted(subscription, location), ceilings[ACCOUNTS])]
    standing = azure.listed(ACCOUNTS, subscription)
    kinds = {(each.sku, each.model) for one in standing if one.location == location for each in one.deployments.values()}
    for sku, model in sorted(kinds):
        rows.append((f"OpenAI.{sku}.{model}", azure.used(subscription, location, sku, model), ceilings["capacity"]))
    return {
        "value": [
            {"name": {"value": name, "localizedValue": name}, "currentValue": float(used), "limit": float(limit), "unit": "Count"}
            for name, used, limit in rows
        ]
    }


def list_permissions(account: Account, request: AdminRequest) -> dict[str, Any]:
    """What the caller may do in the group. Shape: Microsoft.Authorization, Permissions - List For Resource Group, 2022-04-01."""
    if request.credential is None:
        return {"value": []}
    credential = account.credentials[request.credential.value]  # as its role says it: patterns are not yet widened
    actions = ["*"] if credential.rights is None else sorted(credential.rights)
    return {"value": [{"actions": actions, "notActions": sorted(credential.without), "dataActions": [], "notDataActions": []}]}


def get_operation(account: Account, request: AdminRequest) -> dict[str, Any]:
    """A long-running call's state: its name says when it is over."""
    name = request.params["operation"]
    over = int(name.rpartition("-")[2]) if name.rpartition("-")[2].isdecimal() else 0
    return {"name": name, "status": "Succeeded" if over <= account.now_ns() else "InProgress"}


def _routes() -> tuple[Route, ...]:
    base = f"{PREFIX}/accounts"
    deployments, deleted = f"{base}/deployments", f"{PREFIX}/locations/resourceGroups/deletedAccounts"
    return (
        Route("GET", f"{_PROVIDER}/accounts", "accounts.list", f"{base}/read", list_accounts),
        Route("GET", _ACCOUNTS, "accounts.list", f"{base}/read", list_accounts),
        Route("GET", _ACCOUNT, "accounts.get", f"{base}/read", get_account),
        Route("PUT", _ACCOUNT, "accounts.create", f"{base}/write", create_account),
        Route("PATCH", _ACCOUNT, "accounts.update", f"{base}/write", update_account),
        Route("DELETE", _ACCOUNT, "accounts.delete", f"{base}/delete", delete_account),
        Route("POST", f"{_ACCOUNT}/listKeys", "accounts.list_keys", f"{base}/listKeys/action", list_keys),
        Route("POST", f"{_ACCOUNT}/regenerateKey", "accounts.regenerate_key", f"{base}/regenerateKey/action", regenerate_key),
        Route("GET", f"{_ACCOUNT}/deployments", "deployments.list", f"{deployments}/read", list_deployments),
        Route("GET", _DEPLOYMENT, "deployments.get", f"{deployments}/read", get_deployment),
        Route("PUT", _DEPLOYMENT, "deployments.create", f"{deployments}/write", put_deployment),
        Route("PATCH", _DEPLOYMENT, "deployments.update", f"{deployments}/write", update_deployment),
        Route("DELETE", _DEPLOYMENT, "deployments.delete", f"{deployments}/delete", delete_deployment),
        Route("POST", f"{_DEPLOYMENT}/pause", "deployments.pause", f"{deployments}/pause/action", _paused(True)),
        Route("POST", f"{_DEPLOYMENT}/resume", "deployments.resume", f"{deployments}/resume/action", _paused(False)),
        Route("GET", f"{_PROVIDER}/deletedAccounts", "deleted_accounts.list", f"{PREFIX}/deletedAccounts/read", list_deleted),
        Route("GET", _DELETED, "deleted_accounts.get", f"{deleted}/read", get_deleted),
        Route("DELETE", _DELETED, "deleted_accounts.purge", f"{deleted}/delete", purge_deleted),
        Route("GET", f"{_PROVIDER}/locations/{{location}}/usages", "usages.list", f"{PREFIX}/locations/usages/read", list_usages),
        Route("GET", f"{_PROVIDER}/locations/{{location}}/operationResults/{{operation}}", "operations.get", None, get_operation),
        Route("GET", f"{_GROUP}/providers/Microsoft.Authorization/permissions", "permissions.list", None, list_permissions),
    )


ROUTES = _routes()


def _id(request: AdminRequest) -> str:
    place = request.params
    group = f"/subscriptions/{place['subscription']}/resourceGroups/{place['group']}"
    return f"{group}/providers/{PREFIX}/accounts/{place['account']}"


def _absent(request: AdminRequest) -> VendorError:
    message = (
        f"The Resource '{PREFIX}/accounts/{request.params['account'][:90]}' under resource group '{request.params['group'][:90]}' was "
        "not found. For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return VendorError(404, message, code="ResourceNotFound")


def _known(azure: Azure, request: AdminRequest) -> Resource:
    found = azure.find(_id(request))
    if found is None:
        raise _absent(request)
    return found


def _deployed(azure: Azure, request: AdminRequest) -> tuple[Resource, Deployment]:
    one = _known(azure, request)
    standing = one.deployments.get(request.params["deployment"])
    if standing is None:
        message = f"The API deployment '{request.params['deployment'][:90]}' does not exist."
        raise VendorError(404, message, code="DeploymentNotFound")
    return one, standing


def _apply(azure: Azure, one: Resource, body: dict[str, Any]) -> None:
    properties = body.get("properties")
    if isinstance(properties, dict) and isinstance(properties.get("disableLocalAuth"), bool):
        azure.set_local_auth(one, disabled=properties["disableLocalAuth"])
    if "tags" in body:
        one.tags = _tags(body)


def _read_deployment(name: str, body: dict[str, Any]) -> Deployment:
    sku, properties = body.get("sku"), body.get("properties")
    model = properties.get("model") if isinstance(properties, dict) else None
    if not isinstance(sku, dict) or not isinstance(model, dict) or model.get("format") != "OpenAI":
        raise VendorError(400, "sku and properties.model of the format OpenAI are required.", code="InvalidResourceProperties")
    capacity = sku.get("capacity", 1)
    if sku.get("name") not in _SKUS or isinstance(capacity, bool) or not isinstance(capacity, int) or capacity < 1:
        message = f"The specified SKU '{str(sku.get('name'))[:90]}' with this capacity is not supported."
        raise VendorError(400, message, code="InvalidResourceProperties")
    return Deployment(name, str(sku["name"]), capacity, str(model.get("name")), str(model.get("version") or "1"))


def _accepted(azure: Azure, request: AdminRequest, location: str) -> Answer:
    over = azure.account.later_ns(azure.account.settings.operations_s)
    place = f"{request.base_url}/azure/subscriptions/{request.params['subscription']}/providers/{PREFIX}/locations/{location}"
    address = f"{place}/operationResults/sandbox-{over}?api-version={request.text('api-version')}".encode()
    return Answer(202, None, (JSON, (b"azure-asyncoperation", address), (b"location", address), (b"retry-after", b"0")))


def _tags(body: dict[str, Any]) -> dict[str, str]:
    tags = body.get("tags")
    return {str(name): str(value) for name, value in tags.items()} if isinstance(tags, dict) else {}


def _keys_body(one: Resource) -> dict[str, str]:
    return {"key1": one.keys[KeyName.KEY1][0], "key2": one.keys[KeyName.KEY2][0]}


def _account_body(azure: Azure, one: Resource, request: AdminRequest) -> dict[str, Any]:
    progress = "Deleting" if one.gone_at_ns is not None else "Succeeded" if one.ready_at_ns <= azure.now_ns() else "Creating"
    endpoint = f"{request.base_url}/azure/accounts/{one.subdomain}/"
    return {
        "id": one.id,
        "name": one.name,
        "type": f"{PREFIX}/accounts",
        "location": one.location,
        "kind": one.kind,
        "sku": {"name": one.sku},
        "tags": one.tags,
        "etag": f'"{one.internal_id[:8]}"',
        "properties": {
            "endpoint": endpoint,
            "endpoints": {"OpenAI Language Model Instance API": endpoint},
            "provisioningState": progress,
            "internalId": one.internal_id,
            "customSubDomainName": one.subdomain,
            "disableLocalAuth": one.disable_local_auth,
            "dateCreated": rfc3339(one.made_at_ns),
            "isMigrated": False,
            "publicNetworkAccess": "Enabled",
        },
    }


def _deleted_body(one: Resource) -> dict[str, Any]:
    place = f"/subscriptions/{one.subscription}/providers/{PREFIX}/locations/{one.location}/resourceGroups/{one.group}"
    return {
        "id": f"{place}/deletedAccounts/{one.name}",
        "name": one.name,
        "type": f"{PREFIX}/deletedAccounts",
        "location": one.location,
        "kind": one.kind,
        "sku": {"name": one.sku},
        "tags": one.tags,
        "properties": {"provisioningState": "Deleted", "deletionDate": rfc3339(one.gone_at_ns), "internalId": one.internal_id},
    }


def _deployment_body(azure: Azure, one: Resource, deployment: Deployment) -> dict[str, Any]:
    return {
        "id": f"{one.id}/deployments/{deployment.name}",
        "name": deployment.name,
        "type": f"{PREFIX}/accounts/deployments",
        "sku": {"name": deployment.sku, "capacity": deployment.capacity},
        "properties": {
            "model": {"format": "OpenAI", "name": deployment.model, "version": deployment.version},
            "versionUpgradeOption": "OnceNewDefaultVersionAvailable",
            "currentCapacity": deployment.capacity,
            "capabilities": {"chatCompletion": "true"},
            "provisioningState": "Succeeded" if deployment.ready_at_ns <= azure.now_ns() else "Creating",
            "rateLimits": [
                {"key": "request", "renewalPeriod": 10, "count": deployment.capacity},
                {"key": "token", "renewalPeriod": 60, "count": 1000 * deployment.capacity},
            ],
        },
    }
