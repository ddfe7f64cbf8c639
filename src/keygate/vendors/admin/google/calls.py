"""Calls to Google's services: sign-in with a service account's key file, errors by their reason, long-running operations waited for."""

from __future__ import annotations

import asyncio
import base64
import json as jsonlib
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from keygate.kit.clock import NANOSECONDS, to_ns
from keygate.kit.outbound import Answer
from keygate.kit.secret import Secret
from keygate.vendors.admin.errors import (
    AdminKeyRefused,
    CeilingReached,
    MissingRight,
    ProvisionerError,
    RateLimited,
    Rejected,
    Unavailable,
    quoted,
)
from keygate.vendors.admin.google.facts import DATA, GEMINI, NO_BOUND_KEYS, VERTEX, VERTEX_ROLE
from keygate.vendors.admin.interface import Desk, bearer

_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TOKEN_SECONDS = 3600
_POLLS = 60
_LONGEST_POLL_SECONDS = 2.0
_KNOWN_KEY = ("API_KEY_SERVICE_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED", "API_KEY_HTTP_REFERRER_BLOCKED")  # restrictions of a key that lives
# A limit of calls is told as 429 or `RESOURCE_EXHAUSTED`, and by older services as 403: google-api-python-client 2.202.0, http.py
# `_should_retry_response`, read 2026-11-26; `RATE_LIMIT_EXCEEDED` is ErrorInfo's word.
_LIMITED = frozenset({"rateLimitExceeded", "userRateLimitExceeded", "RATE_LIMIT_EXCEEDED"})
_EXHAUSTED = frozenset({"quotaExceeded", "jobRateLimitExceeded"})  # BigQuery's, for a while and without telling how long
_EXHAUSTED_SECONDS = 60.0
_CEILINGS = {"service accounts on project": "service accounts in the project", "project quota": "projects"}
_RPC_LIMITED = 8  # google.rpc.Code RESOURCE_EXHAUSTED, as an operation's end tells it
_RPC_BUSY = frozenset({4, 10, 13, 14})  # DEADLINE_EXCEEDED, ABORTED, INTERNAL, UNAVAILABLE: the same again may do


async def call(
    desk: Desk,
    service: str,
    method: str,
    path: str,
    what: str,
    *,
    right: str = "",
    json: Any = None,
    params: Mapping[str, Any] | None = None,
    accept: Collection[int] = (),
    changes: bool | None = None,
    repeatable: bool | None = None,
) -> dict[str, Any] | None:
    """The answer as an object; None for a status in `accept`."""
    token = await desk.token("google", lambda: _sign_in(desk))

    async def afresh() -> dict[str, str]:
        return bearer(await desk.token("google", lambda: _sign_in(desk), refused=token))

    answer = await desk.http.call(
        method,
        f"{desk.base(service)}/{path}",
        what=what,
        right=right or what,
        headers=bearer(token),
        afresh=afresh,
        json=json,
        params=params,
        accept=accept,
        changes=changes,
        repeatable=repeatable,
        fault=_fault,
    )
    if answer.status in accept:
        return None
    found = _decoded(answer)
    if found is None:
        raise Unavailable(f"{what}: Google's answer is not a JSON object", uncertain=method != "GET")
    return found


async def finish(desk: Desk, service: str, version: str, operation: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Waits for a long-running operation's end, a minute or two at most; its response."""
    pause = 0.05
    for _ in range(_POLLS):
        if operation.get("done"):
            error = operation.get("error")
            if error:
                raise _ended_badly(what, error if isinstance(error, dict) else {})
            response = operation.get("response")
            return response if isinstance(response, dict) else {}
        name = operation.get("name")
        if not name:
            return {}
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_POLL_SECONDS)
        operation = await call(desk, service, "GET", f"{version}/{name}", f"{what}: wait for its end") or {}
    raise Unavailable(f"{what}: Google has not finished in time", uncertain=True)


def _ended_badly(what: str, error: Mapping[str, Any]) -> ProvisionerError:
    """Of an operation: its error is a google.rpc.Status, with a code of its own and no HTTP status."""
    code, message = error.get("code"), quoted(error.get("message"))
    if code == _RPC_LIMITED:
        wait = _delay(error.get("details")) or _EXHAUSTED_SECONDS
        return _ceiling(message) or RateLimited(f"{what}: Google limits calls now: {message}", retry_after=wait)
    if code in _RPC_BUSY:
        return Unavailable(f"{what}: {message}", uncertain=True)
    return Rejected(f"{what}: {message}", reason=str(code))


def _ceiling(message: str) -> CeilingReached | None:
    found = next((what for words, what in _CEILINGS.items() if words in message), None)
    return None if found is None else CeilingReached(found, f"Google: {message}")


def _decoded(answer: Answer) -> dict[str, Any] | None:
    if not answer.body.strip():
        return {}
    try:
        found = jsonlib.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _fault(answer: Answer) -> ProvisionerError | None:
    """What ErrorInfo's reason tells more exactly than the status."""
    error = (_decoded(answer) or {}).get("error")
    if not isinstance(error, dict):
        return None
    message = quoted(error.get("message"))
    details = error.get("details")
    info = next((each for each in details if isinstance(each, dict) and each.get("reason")), {}) if isinstance(details, list) else {}
    told = info.get("metadata")
    metadata: dict[str, Any] = told if isinstance(told, dict) else {}
    match info.get("reason"):
        case "IAM_PERMISSION_DENIED":
            right, resource = quoted(metadata.get("permission")), quoted(metadata.get("resource"))
            return MissingRight(right, f"The admin credential lacks the right {right} on {resource}; grant it there and try again")
        case "SERVICE_DISABLED":
            service = quoted(metadata.get("service")) or "a service"
            return Rejected(
                f"{service} is not enabled in the project: enable it there and try again", status=403, reason="SERVICE_DISABLED"
            )
    if message.startswith("Access Denied: Table"):  # BigQuery's words; it gives no ErrorInfo
        return MissingRight(DATA, f"The admin credential lacks the right {DATA}: {message}")
    exhausted = answer.status == 429 or error.get("status") == "RESOURCE_EXHAUSTED"
    if exhausted and (full := _ceiling(message)) is not None:
        return full
    reasons = _reasons(error, info)
    if exhausted or (_LIMITED | _EXHAUSTED) & reasons:
        wait = _delay(details) or (_EXHAUSTED_SECONDS if _EXHAUSTED & reasons else 0.0)
        return RateLimited(f"Google limits calls now: {message}", retry_after=wait)
    if NO_BOUND_KEYS in message:
        return Rejected(
            f"The organisation policy {NO_BOUND_KEYS} forbids keys that are bound to service accounts: have an administrator of the "
            "organisation's policies allow them for the Gemini API, or use virtual keys",
            reason="FAILED_PRECONDITION",
        )
    return None


def _reasons(error: Mapping[str, Any], info: Mapping[str, Any]) -> set[str]:
    """ErrorInfo's reason, and those of the older form, `errors: [{reason}]`."""
    older = error.get("errors")
    told = [each.get("reason") for each in older if isinstance(each, dict)] if isinstance(older, list) else []
    return {each for each in (info.get("reason"), *told) if isinstance(each, str)}


def _delay(details: Any) -> float:
    """Seconds of `google.rpc.RetryInfo`, `{"retryDelay": "3.5s"}`; 0: not told."""
    for each in details if isinstance(details, list) else ():
        found = re.fullmatch(r"(\d{1,6}(?:\.\d{1,9})?)s", str(each.get("retryDelay"))) if isinstance(each, dict) else None
        if found is not None:
            return float(found[1])
    return 0.0


# ---- sign-in


def credentials_of(admin: Secret) -> dict[str, Any]:
    """The key file of a service account. `AdminKeyRefused` for anything else."""
    try:
        found = jsonlib.loads(admin.open())
    except (ValueError, RecursionError):
        found = None
    wanted = ("client_email", "private_key", "private_key_id")
    if (
        not isinstance(found, dict)
        or found.get("type") != "service_account"
        or not all(isinstance(found.get(name), str) for name in wanted)
    ):
        raise AdminKeyRefused("The admin credential is not the JSON key file of a Google service account")
    return found


async def _sign_in(desk: Desk) -> tuple[Secret, int]:
    """An access token for the key file (RFC 7523), and when it ends. The file's own `token_uri` is not followed."""
    file = credentials_of(desk.admin)
    address = f"{desk.base('oauth2')}/token"
    now = desk.clock.now_ns() // NANOSECONDS
    claims = {"iss": file["client_email"], "scope": _SCOPE, "aud": address, "iat": now, "exp": now + _TOKEN_SECONDS}
    form = {"grant_type": _GRANT, "assertion": _signed(file, claims)}
    what = "sign in at Google"

    def refused(answer: Answer) -> ProvisionerError | None:
        if answer.status not in {400, 401}:
            return _fault(answer)
        said = desk.http.quote(answer) or quoted((_decoded(answer) or {}).get("error"))
        return AdminKeyRefused(f"{what}: Google refused the admin credential: {said}; enter a valid key file")

    answer = await desk.http.call("POST", address, what=what, right="", form=form, changes=False, fault=refused)
    found = _decoded(answer) or {}
    token, seconds = found.get("access_token"), found.get("expires_in")
    if not isinstance(token, str) or not isinstance(seconds, int):
        raise Unavailable(f"{what}: Google gave no access token")
    return Secret(token), (now + seconds) * NANOSECONDS


def _signed(file: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    try:
        key = serialization.load_pem_private_key(str(file["private_key"]).encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPrivateKey):
        raise AdminKeyRefused("The admin credential holds no private key that can be read")
    head = {"alg": "RS256", "typ": "JWT", "kid": file["private_key_id"]}
    signed = f"{_base64(jsonlib.dumps(head).encode())}.{_base64(jsonlib.dumps(claims).encode())}"
    return f"{signed}.{_base64(key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def takes_key(answer: Answer) -> bool | None:
    """What the Gemini API's answer to a key says of it: known, unknown, or neither. Reasons: google.api.ErrorReason; that a deleted key is
    a 400 "API key not valid" and one of a deleted service account a 401: unverified."""
    if answer.status == 200:
        return True
    error = (_decoded(answer) or {}).get("error")
    told = jsonlib.dumps(error) if isinstance(error, dict) else ""
    if answer.status == 401 or (answer.status == 400 and ("API_KEY_INVALID" in told or "API key not valid" in told)):
        return False
    return True if answer.status == 403 and any(reason in told for reason in _KNOWN_KEY) else None


# ---- where things stand


def shared_project(desk: Desk) -> str:
    project = desk.settings.get("project", "")
    if not project:
        raise Rejected("Google needs the setting `project`: the project in which service accounts and keys are made")
    return project


def own_projects(desk: Desk) -> bool:
    """Whether each key gets a project of its own."""
    if not desk.settings.get("parent"):
        return False
    if not billing_account(desk):
        raise Rejected("The setting `parent` needs `billing_account` beside it: a project of its own must be paid for")
    return True


def service_of(desk: Desk) -> str:
    """The API that keys are for."""
    service = desk.settings.get("service", GEMINI)
    if service not in {GEMINI, VERTEX}:
        raise Rejected(f"The setting `service` must be {GEMINI} or {VERTEX}")
    return service


def role_of(desk: Desk) -> str | None:
    """The role that each service account is given; the Gemini API asks for none."""
    return desk.settings.get("role") or (VERTEX_ROLE if service_of(desk) == VERTEX else None)


def billing_account(desk: Desk) -> str:
    return desk.settings.get("billing_account", "").removeprefix("billingAccounts/")


def email_of(project: str, tag: str) -> str:
    return f"{tag}@{project}.iam.gserviceaccount.com"


def keys_path(project: str) -> str:
    return f"v2/projects/{project}/locations/global/keys"


async def account_of(desk: Desk, project: str, account_id: str) -> dict[str, Any] | None:
    path = f"v1/projects/{project}/serviceAccounts/{email_of(project, account_id)}"
    return await call(desk, "iam", "GET", path, "read the service account", right="iam.serviceAccounts.get", accept=(404,))


async def key_of(desk: Desk, project: str, key_id: str) -> dict[str, Any] | None:
    return await call(desk, "apikeys", "GET", f"{keys_path(project)}/{key_id}", "read the key", right="apikeys.keys.get", accept=(404,))


def last_of(thing: Mapping[str, Any]) -> str:
    return str(thing.get("name", "")).rpartition("/")[2]


def targets_of(key: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The services that a key is restricted to; None: all."""
    targets = tuple(str(target.get("service", "")) for target in key.get("restrictions", {}).get("apiTargets", []))
    return targets or None


def moment_ns(text: str) -> int | None:
    try:
        return to_ns(datetime.fromisoformat(text))
    except ValueError:
        return None
