"""IAM v1: service accounts and their keys.

A deleted account's name may be used again, by a new account with another unique id; API keys bound to the old one don't come back with it.
"""

from __future__ import annotations

import base64
import json
import re
import secrets

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from keygate.sandbox.admin.google.cloud import NO_SERVICE_ACCOUNT_KEYS, GoogleCloud, Request, paged
from keygate.sandbox.admin.google.errors import GoogleError, exists, invalid, no_such, precondition
from keygate.sandbox.admin.google.model import AccountKey, Json, ServiceAccount

_ACCOUNT_ID = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])$")  # CreateServiceAccountRequest.accountId; 6 to 30 characters
_RESTORABLE = 30 * 86_400


def serve(cloud: GoogleCloud, request: Request) -> Json:
    parts = request.path.removeprefix("v1/").split("/")
    match (request.method, *parts):
        case ("POST", "projects", project, "serviceAccounts"):
            return _create(cloud, request, project)
        case ("GET", "projects", project, "serviceAccounts"):
            return _list(cloud, request, project)
        case (method, "projects", _, "serviceAccounts", last):
            name, _, verb = last.partition(":")
            return _one(cloud, request, method, name, verb)
        case ("POST", "projects", _, "serviceAccounts", name, "keys"):
            return _create_key(cloud, request, name)
        case ("GET", "projects", _, "serviceAccounts", name, "keys"):
            account = cloud.account(name)
            cloud.need(request, "iam.serviceAccountKeys.list", account.name)
            return {"keys": [key.as_dict(account) for key in account.keys.values()]} if account.keys else {}
        case (method, "projects", _, "serviceAccounts", name, "keys", last):
            key_id, _, verb = last.partition(":")
            return _one_key(cloud, request, method, name, key_id, verb)
    raise no_such("This method")


def _create(cloud: GoogleCloud, request: Request, project_id: str) -> Json:
    project = cloud.project(project_id)
    cloud.need(request, "iam.serviceAccounts.create", f"projects/{project.id}")
    account_id = request.body.get("accountId")
    if not isinstance(account_id, str) or not 6 <= len(account_id) <= 30 or not _ACCOUNT_ID.match(account_id):
        raise invalid("Invalid service account ID: it must be 6 to 30 characters long and match [a-z]([-a-z0-9]*[a-z0-9]).")
    wanted = request.body.get("serviceAccount") or {}
    display_name, description = str(wanted.get("displayName", "")), str(wanted.get("description", ""))
    if len(display_name.encode()) > 100 or len(description.encode()) > 256:
        raise invalid("displayName has at most 100 bytes, description at most 256.")
    living = [each for each in cloud.accounts.values() if each.project == project.id and each.deleted_at is None]
    if any(each.account_id == account_id for each in living):
        raise exists(f"Service account {account_id} within project projects/{project.id}")
    if len(living) >= cloud.book.settings.ceilings["service_accounts"]:
        raise GoogleError("RESOURCE_EXHAUSTED", "Maximum number of service accounts on project reached.")
    return cloud.add_service_account(project.id, account_id, display_name=display_name, description=description).as_dict()


def _list(cloud: GoogleCloud, request: Request, project_id: str) -> Json:
    project = cloud.project(project_id)
    cloud.need(request, "iam.serviceAccounts.list", f"projects/{project.id}")
    seen = [each.as_dict() for each in cloud.accounts.values() if each.project == project.id and cloud.seen(each)]
    return paged(seen, request.query, "accounts")


def _one(cloud: GoogleCloud, request: Request, method: str, name: str, verb: str) -> Json:
    if (method, verb) == ("POST", "undelete"):
        return _undelete(cloud, request, name)
    account = cloud.account(name)
    match (method, verb):
        case ("GET", ""):
            cloud.need(request, "iam.serviceAccounts.get", account.name)
            return account.as_dict()
        case ("PATCH", ""):
            cloud.need(request, "iam.serviceAccounts.update", account.name)
            wanted = request.body.get("serviceAccount") or {}
            mask = str(request.body.get("updateMask", "")).split(",")
            if "displayName" in mask or "display_name" in mask:
                account.display_name = str(wanted.get("displayName", ""))
            if "description" in mask:
                account.description = str(wanted.get("description", ""))
            return account.as_dict()
        case ("DELETE", ""):
            cloud.need(request, "iam.serviceAccounts.delete", account.name)
            account.deleted_at = cloud.now()
            return {}
        case ("POST", "disable" | "enable"):
            cloud.need(request, f"iam.serviceAccounts.{verb}", account.name)
            account.disabled = verb == "disable"
            return {}
    raise no_such("This method")


def _undelete(cloud: GoogleCloud, request: Request, name: str) -> Json:
    account = cloud.accounts.get(name)
    if account is None or account.deleted_at is None or cloud.now() > account.deleted_at + _RESTORABLE:
        raise no_such(f"Service account {name}")
    cloud.need(request, "iam.serviceAccounts.undelete", f"projects/{account.project}")
    if any(each.email == account.email and each.deleted_at is None for each in cloud.accounts.values()):
        raise exists(f"Service account {account.email}")
    account.deleted_at = None
    return {"restoredAccount": account.as_dict()}


def create_key_of(cloud: GoogleCloud, account: ServiceAccount, *, token_uri: str) -> tuple[AccountKey, str]:
    """A new pair: the public half, kept, and the credentials file, which is given away once."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    key = AccountKey(secrets.token_hex(20), public, cloud.now())
    account.keys[key.id] = key
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    credentials = {
        "type": "service_account",
        "project_id": account.project,
        "private_key_id": key.id,
        "private_key": pem.decode(),
        "client_email": account.email,
        "client_id": account.unique_id,
        "token_uri": token_uri,
        "universe_domain": "googleapis.com",
    }
    return key, json.dumps(credentials)


def _create_key(cloud: GoogleCloud, request: Request, name: str) -> Json:
    account = cloud.account(name)
    cloud.need(request, "iam.serviceAccountKeys.create", account.name)
    project = cloud.project(account.project)
    for constraint in NO_SERVICE_ACCOUNT_KEYS:
        if project.policies.get(constraint, {}).get("enforce"):
            raise precondition(f"Key creation is not allowed on this service account (constraint {constraint}).")
    if len(account.keys) >= cloud.book.settings.ceilings["service_account_keys"]:
        raise precondition("Precondition check failed.")
    key, credentials = create_key_of(cloud, account, token_uri=request.token_uri)
    shown = key.as_dict(account)
    return {**shown, "privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE", "privateKeyData": base64.b64encode(credentials.encode()).decode()}


def _one_key(cloud: GoogleCloud, request: Request, method: str, name: str, key_id: str, verb: str) -> Json:
    account = cloud.account(name)
    key = account.keys.get(key_id)
    if key is None:
        raise no_such(f"Service account key {key_id}")
    match (method, verb):
        case ("GET", ""):
            cloud.need(request, "iam.serviceAccountKeys.get", account.name)
            return key.as_dict(account)
        case ("DELETE", ""):
            cloud.need(request, "iam.serviceAccountKeys.delete", account.name)
            del account.keys[key_id]  # access tokens that were minted with it stay valid
            return {}
        case ("POST", "disable" | "enable"):
            cloud.need(request, f"iam.serviceAccountKeys.{verb}", account.name)
            key.disabled = verb == "disable"
            return {}
    raise no_such("This method")
