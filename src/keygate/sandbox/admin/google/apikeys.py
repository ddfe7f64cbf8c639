"""API Keys v2: keys bound to a service account, restricted, made by long-running operations; deleted ones come back for 30 days.

The key string is shown by `keyString` at any time, never by create, get or list. There is no verb that disables a key.
"""

from __future__ import annotations

import re
import secrets
import uuid

from keygate.sandbox.admin.google.cloud import NO_SERVICE_ACCOUNT_API_KEYS, GoogleCloud, Request, paged
from keygate.sandbox.admin.google.errors import GoogleError, exists, invalid, no_such, precondition
from keygate.sandbox.admin.google.model import ApiKey, Json, Project

_KEY_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?$")  # keys.create's keyId; must not look like a UUID
_MUTABLE = ("displayName", "restrictions", "annotations")
_RESTORABLE = 30 * 86_400
_OPERATION = "operations/akmf.p7-"


def serve(cloud: GoogleCloud, request: Request) -> Json:
    parts = request.path.removeprefix("v2/").split("/")
    match (request.method, *parts):
        case ("GET", "operations", _):
            return cloud.show_operation("/".join(parts))
        case ("GET", "keys:lookupKey"):
            return _look_up(cloud, request)
        case ("POST", "projects", project, "locations", "global", "keys"):
            return _create(cloud, request, cloud.project(project))
        case ("GET", "projects", project, "locations", "global", "keys"):
            return _list(cloud, request, cloud.project(project))
        case ("GET", "projects", project, "locations", "global", "keys", key_id, "keyString"):
            cloud.need(request, "apikeys.keys.getKeyString", f"projects/{project}")
            return {"keyString": cloud.find_key(cloud.project(project), key_id).value}
        case (method, "projects", project, "locations", "global", "keys", last):
            key_id, _, verb = last.partition(":")
            return _one(cloud, request, method, cloud.project(project), key_id, verb)
    raise no_such("This method")


def _look_up(cloud: GoogleCloud, request: Request) -> Json:
    key = cloud.keys.get(request.query.get("keyString", ""))
    if key is None:
        raise no_such("The key")
    cloud.need(request, "apikeys.keys.lookup", f"projects/{key.project}")
    return {"parent": f"projects/{key.number}/locations/global", "name": key.name}


def _create(cloud: GoogleCloud, request: Request, project: Project) -> Json:
    cloud.need(request, "apikeys.keys.create", f"projects/{project.id}")
    key_id = request.query.get("keyId") or str(uuid.uuid4())
    if "keyId" in request.query and (not _KEY_ID.match(key_id) or _looks_like_uuid(key_id)):
        raise invalid("keyId must match [a-z]([a-z0-9-]{0,61}[a-z0-9])? and not be a UUID.")
    body = request.body
    _check(body)
    email, unique_id = str(body.get("serviceAccountEmail", "")), ""
    if email:
        account = cloud.account(email)
        unique_id = account.unique_id
        cloud.need(request, "iam.serviceAccountApiKeyBindings.create", account.name)
        _check_policy(project, body)
    if any(key.project == project.id and key.id == key_id for key in cloud.keys.values()):
        raise exists(f"Key {key_id}")  # a deleted key keeps its id until it is purged
    now = cloud.now()
    value = f"AQ.sandbox-{secrets.token_urlsafe(32)}" if email else f"AIzaSandbox-{secrets.token_urlsafe(20)}"
    key = ApiKey(project.id, project.number, key_id, str(uuid.uuid4()), value, now, now, service_account=email, account_id=unique_id)
    _write(key, body, _MUTABLE)
    cloud.issue_key(key)
    return cloud.operate({"@type": "type.googleapis.com/google.api.apikeys.v2.Key", **key.as_dict()}, prefix=_OPERATION)


def _check_policy(project: Project, body: Json) -> None:
    """The organisation policy that forbids keys bound to service accounts, except for the services that it names."""
    rule = project.policies.get(NO_SERVICE_ACCOUNT_API_KEYS, {})
    if not rule.get("enforce"):
        return
    allowed = set(rule.get("parameters", {}).get("allowedServices", []))
    targets = {str(target.get("service", "")) for target in (body.get("restrictions") or {}).get("apiTargets", [])}
    if not targets or not targets <= allowed:
        raise precondition(
            f"Operation denied by org policy: constraint {NO_SERVICE_ACCOUNT_API_KEYS} is enforced on projects/{project.id}."
        )


def _check(body: Json) -> None:
    if len(str(body.get("displayName", ""))) > 63:
        raise invalid("displayName has at most 63 characters.")
    restrictions = body.get("restrictions") or {}
    clients = [name for name in restrictions if name.endswith("KeyRestrictions")]
    if len(clients) > 1:
        raise invalid("Only one kind of client restriction may be set.")
    if any(not target.get("service") for target in restrictions.get("apiTargets", [])):
        raise invalid("apiTargets.service is required.")


def _write(key: ApiKey, body: Json, members: tuple[str, ...]) -> None:
    if "displayName" in members:
        key.display_name = str(body.get("displayName", ""))
    if "restrictions" in members:
        key.restrictions = dict(body.get("restrictions") or {})
    if "annotations" in members:
        key.annotations = dict(body.get("annotations") or {})


def _list(cloud: GoogleCloud, request: Request, project: Project) -> Json:
    cloud.need(request, "apikeys.keys.list", f"projects/{project.id}")
    deleted_too = request.query.get("showDeleted", "").lower() == "true"
    seen = [
        key.as_dict()
        for key in cloud.keys.values()
        if key.project == project.id and cloud.made(key) and (deleted_too or key.deleted_at is None)
    ]
    return paged(seen, request.query, "keys", most=300)


def _one(cloud: GoogleCloud, request: Request, method: str, project: Project, key_id: str, verb: str) -> Json:
    key = cloud.find_key(project, key_id)
    resource = f"projects/{project.id}"
    match (method, verb):
        case ("GET", ""):
            cloud.need(request, "apikeys.keys.get", resource)
            return key.as_dict()
        case ("PATCH", ""):
            cloud.need(request, "apikeys.keys.update", resource)
            _check(request.body)
            mask = [_camel(name) for name in request.query.get("updateMask", "").split(",") if name]
            members = _MUTABLE if "*" in mask else tuple(mask or (name for name in _MUTABLE if name in request.body))
            if any(name not in _MUTABLE for name in members):
                raise invalid("Mutable fields are display_name, restrictions and annotations.")
            _write(key, request.body, members)
            key.updated_at = cloud.now()
        case ("DELETE", ""):
            cloud.need(request, "apikeys.keys.delete", resource)
            etag = request.query.get("etag")
            if etag and etag != key.as_dict()["etag"]:
                raise GoogleError("ABORTED", "The etag doesn't match.")
            if key.deleted_at is None:
                key.deleted_at = cloud.now()
        case ("POST", "undelete"):
            cloud.need(request, "apikeys.keys.undelete", resource)
            if key.deleted_at is None or cloud.now() > key.deleted_at + _RESTORABLE:
                raise precondition("The key is not deleted.")
            key.deleted_at = None
        case _:
            raise no_such("This method")
    return cloud.operate({"@type": "type.googleapis.com/google.api.apikeys.v2.Key", **key.as_dict()}, prefix=_OPERATION)


def _camel(name: str) -> str:
    first, *rest = name.strip().split("_")
    return first + "".join(part.title() for part in rest)


def _looks_like_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True
