"""Calls of Anthropic's organization API: who signs in with what, pages, KeyGate's identity tokens."""

from __future__ import annotations

import json as jsonlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any

from keygate.kit.clock import NANOSECONDS, to_ns
from keygate.kit.outbound import Answer
from keygate.kit.secret import Secret
from keygate.vendors.admin.anthropic.facts import (
    ACCOUNT_SETTING,
    ADMIN,
    ADMIN_SUBJECT,
    AUDIENCE,
    ORGANIZATION_SETTING,
    RULE_SETTING,
    VERSION,
)
from keygate.vendors.admin.errors import CeilingReached, MissingRight, ProvisionerError, Rejected, Unavailable
from keygate.vendors.admin.interface import Desk, Footprint, bearer

ORGANIZATIONS = "/v1/organizations"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
OAUTH_BETA, _FEDERATION_BETA = "oauth-2025-04-20", "oidc-federation-2026-04-01"
_ADMIN_IDENTITY_SECONDS = 300
_MAX_PAGES = 200
_PAGE = 100


def federated(desk: Desk) -> bool:
    """Whether the account is set up so that KeyGate can make keys."""
    return RULE_SETTING in desk.settings and ORGANIZATION_SETTING in desk.settings


async def call(desk: Desk, method: str, path: str, *, what: str, right: str, beta: str | None = None, **options: Any) -> dict[str, Any]:
    """One call. Those that need `org:admin` are made with a token that KeyGate traded for; the others with the Admin key."""
    signed = await _signed(desk, right, beta)
    return await desk.http.json(method, f"{desk.base()}{ORGANIZATIONS}{path}", what=what, right=right, **signed, **options)


async def probe(desk: Desk, method: str, path: str, *, right: str, beta: str | None = None, **options: Any) -> int:
    """The status of a call that changes nothing. A credential that the vendor does not know raises."""
    answer = await desk.http.call(
        method,
        f"{desk.base()}{ORGANIZATIONS}{path}",
        what=f"ask for the right {right}",
        right=right,
        **await _signed(desk, right, beta),
        accept=(400, *range(402, 429)),
        changes=False,
        **options,
    )
    return answer.status


async def _signed(desk: Desk, right: str, beta: str | None) -> dict[str, Any]:
    """`headers`, and with a token also `afresh`."""
    betas = [beta] if beta else []
    headers = {"anthropic-version": VERSION}
    if right != ADMIN:
        return {"headers": {**headers, "x-api-key": desk.admin.open()} | ({"anthropic-beta": beta} if beta else {})}
    token = await _admin_token(desk)

    async def afresh() -> dict[str, str]:
        return bearer(await _admin_token(desk, refused=token))

    return {"headers": {**headers, **bearer(token), "anthropic-beta": ",".join([*betas, OAUTH_BETA])}, "afresh": afresh}


async def _admin_token(desk: Desk, *, refused: Secret | None = None) -> Secret:
    """A token with `org:admin`, by the rule that an admin made in the Console for KeyGate's own identity."""
    if not federated(desk):
        missing = f"set {ORGANIZATION_SETTING} and {RULE_SETTING} of the vendor account"
        raise MissingRight(ADMIN, f"Anthropic makes keys through federation only, and refuses Admin keys there: {missing}")

    async def make() -> tuple[Secret, int]:
        body = {
            "grant_type": _GRANT,
            "assertion": identity(desk, ADMIN_SUBJECT, desk.clock.now_ns() + _ADMIN_IDENTITY_SECONDS * NANOSECONDS).open(),
            "federation_rule_id": desk.settings[RULE_SETTING],
            "organization_id": desk.settings[ORGANIZATION_SETTING],
        }
        if ACCOUNT_SETTING in desk.settings:
            body["service_account_id"] = desk.settings[ACCOUNT_SETTING]
        shown = await desk.http.json(
            "POST",
            f"{desk.base()}/v1/oauth/token",
            what="sign in with KeyGate's identity token",
            right=ADMIN,
            json=body,
            headers={"anthropic-beta": f"{OAUTH_BETA},{_FEDERATION_BETA}"},
            changes=False,
            fault=_no_exchange,
        )
        token, seconds = shown.get("access_token"), shown.get("expires_in")
        if not isinstance(token, str) or not isinstance(seconds, int):
            raise Rejected("sign in with KeyGate's identity token: the vendor's answer holds no token")
        return Secret(token), desk.clock.now_ns() + seconds * NANOSECONDS

    return await desk.token(ADMIN, make, refused=refused)


async def trade(desk: Desk, footprint: Footprint, assertion: Secret) -> Secret | None:
    """The access token for an identity token of a key, as its holder's SDK gets it. None: Anthropic gives none for it."""
    body = {
        "grant_type": _GRANT,
        "assertion": assertion.open(),
        "federation_rule_id": footprint.key,
        "organization_id": desk.settings.get(ORGANIZATION_SETTING),
        "service_account_id": footprint.place.get("service_account"),
        "workspace_id": footprint.place.get("workspace"),
    }
    headers = {"anthropic-beta": f"{OAUTH_BETA},{_FEDERATION_BETA}"}
    what = "trade the key's identity token"
    answer = await desk.http.ask("POST", f"{desk.base()}/v1/oauth/token", what=what, headers=headers, body=jsonlib.dumps(body).encode())
    if answer.status in {400, 401, 403}:
        return None
    try:
        shown = jsonlib.loads(answer.body)
    except (ValueError, RecursionError):
        shown = None
    token = shown.get("access_token") if isinstance(shown, dict) else None
    if answer.status != 200 or not isinstance(token, str):
        raise Unavailable(f"{what}: the vendor's answer ({answer.status}) holds no token")
    return Secret(token)


def _no_exchange(answer: Answer) -> ProvisionerError | None:
    if answer.status not in {400, 401, 403}:
        return None
    remedy = f"see that the rule of the setting {RULE_SETTING} matches the subject {ADMIN_SUBJECT} and KeyGate's issuer and keys"
    return MissingRight(ADMIN, f"Anthropic did not take KeyGate's identity token ({answer.status}): {remedy}")


def identity(desk: Desk, subject: str, ends_ns: int) -> Secret:
    """KeyGate's signed word on who the holder is, for Anthropic alone."""
    return desk.issuer.sign({"sub": subject, "aud": AUDIENCE, "exp": ends_ns // NANOSECONDS})


async def by_id(desk: Desk, path: str, *, what: str, right: str, **params: Any) -> AsyncIterator[dict[str, Any]]:
    """Every item of a list whose cursor is the last object's id."""
    after: str | None = None
    for _ in range(_MAX_PAGES):
        shown = await call(desk, "GET", path, what=what, right=right, params={"limit": 1_000, "after_id": after, **params})
        for item in shown.get("data") or []:
            yield item
        after = shown.get("last_id")
        if not shown.get("has_more") or after is None:
            return
    raise Rejected(f"{what}: the list has no end")


async def by_cursor(
    desk: Desk, path: str, *, what: str, right: str, beta: str | None = None, **params: Any
) -> AsyncIterator[dict[str, Any]]:
    """Every item of a list with an opaque cursor."""
    page: str | None = None
    for _ in range(_MAX_PAGES):
        shown = await call(desk, "GET", path, what=what, right=right, beta=beta, params={"limit": _PAGE, "page": page, **params})
        for item in shown.get("data") or []:
            yield item
        page = shown.get("next_page")
        if page is None:
            return
    raise Rejected(f"{what}: the list has no end")


def full(answer: Answer) -> ProvisionerError | None:
    """The wording of the ceiling of workspaces is not published: unverified."""
    body = answer.body.lower()
    if answer.status in {400, 403} and b"workspace" in body and b"limit" in body:
        return CeilingReached("workspaces")
    if answer.status == 400 and b"api_key_limit_exceeded" in body:
        return CeilingReached("active keys")
    return None


def moment(text: Any) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return to_ns(at if at.tzinfo is not None else at.replace(tzinfo=UTC))


def archived(shown: Mapping[str, Any]) -> bool:
    return shown.get("archived_at") is not None
