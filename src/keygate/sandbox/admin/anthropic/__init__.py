"""Anthropic's organization API: workspaces, keys (made in the Console only), service accounts, federation, limits, usage and costs.

Shapes: the official SDK (`anthropic` 2.8.0 `types/organization/`, `types/beta/organization/`, read 2026-11-26); there is no published
description. Statuses and words of refusals are unverified except where a source is named. Both API versions are served: under 2023-06-01
a key has a flat `workspace_id`.
"""

from __future__ import annotations

import secrets
from typing import Any, ClassVar

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.anthropic import federation, keys, limits, reading, reports, rules, service_accounts, workspaces
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Answer, Route
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.errors import VendorError, bad_key, no_key
from keygate.sandbox.model import Vendor

_SUBJECT = "keygate:admin"  # KeyGate as an admin of the organization
_ORGANIZATIONS = "/anthropic/v1/organizations"


class AnthropicAdmin(AdminApi):
    vendor = Vendor.ANTHROPIC
    prefixes = (_ORGANIZATIONS, "/anthropic/v1/oauth")
    # 100: platform.claude.com/docs/manage-claude/workspaces, read 2026-11-20. The ceilings of active keys are not published.
    ceilings: ClassVar[dict[str, int]] = {"workspaces": 100}
    request_id_header = b"request-id"
    routes = (
        *(
            Route(method, f"{_ORGANIZATIONS}{path}", operation, right, handler)
            for method, path, operation, right, handler in (
                ("GET", "/me", "organization.get", None, workspaces.organization),
                *workspaces.ROUTES,
                *keys.ROUTES,
                *limits.ROUTES,
                *reports.ROUTES,
                *service_accounts.ROUTES,
                *federation.ROUTES,
            )
        ),
        Route("POST", "/anthropic/v1/oauth/token", "oauth.token", None, federation.exchange, open=True),
    )

    def prepare(self, account: Account) -> None:
        account.make("organization", reading.ORGANIZATION, {"id": reading.ORGANIZATION, "type": "organization", "name": "Sandbox"})
        workspaces.add(account, "Default", id_=workspaces.DEFAULT)

    def shown_secret(self, request: AdminRequest) -> str | None:
        """`x-api-key`, or Bearer: the SDK sends even a key as Bearer (seen with 2.11.0)."""
        return request.headers.get(b"x-api-key", b"").decode("latin-1") or super().shown_secret(request)

    def authenticate(self, account: Account, request: AdminRequest) -> Credential:
        credential = super().authenticate(account, request)
        if b"anthropic-version" not in request.headers:
            raise VendorError(400, "anthropic-version: header is required")
        if federation.ended(account, credential):
            raise bad_key(Vendor.ANTHROPIC)
        return credential

    def introduced(self, account: Account, issuer: Any) -> dict[str, str]:
        if not isinstance(issuer, dict) or not isinstance(issuer.get("jwks"), dict):
            raise TypeError("issuer: give what KeyGate answers to GET /api/v1/vendors/issuer")
        rule: dict[str, Any] = {"jwks": {"type": "inline", **issuer["jwks"]}, "subject": _SUBJECT, "audience": federation.AUDIENCE}
        rule |= {"issuer_url": issuer.get("issuer"), "max_jwt_lifetime_seconds": 176_400, "name": f"keygate-{secrets.token_hex(3)}"}
        made = federation.add_admin_rule(account, rule)
        return {name: made[name] for name in ("organization_id", "federation_rule_id", "service_account_id")}

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:
        return rules.refuses(secret, model)

    def unknown_caller(self, shown: str | None) -> VendorError:
        return bad_key(Vendor.ANTHROPIC) if shown else no_key(Vendor.ANTHROPIC)

    def lacks(self, right: str) -> VendorError:
        return VendorError(403, f"Your credential does not have the required permission: {right}.")

    def error(self, error: VendorError, request: AdminRequest) -> Answer:
        """`error.details.error_code` names the cause, where there is one; the token endpoint speaks RFC 6749."""
        answer = super().error(error, request)
        if request.path.endswith("/oauth/token") and error.status < 429:
            return Answer(answer.status, {"error": error.code or "invalid_grant", "error_description": error.message}, answer.headers)
        if error.code is not None:
            answer.body["error"]["details"] = {"error_code": error.code}
        return answer

    def console(self, account: Account, action: str, body: dict[str, Any]) -> Any:
        """What people do in the Claude Console:

        `keys`: {name, workspace_id?, expires_in_seconds?, user_id?, service_account_id?} → {id, value}. `admin_rule`: {issuer_url, jwks,
        subject, audience?} → {federation_rule_id, service_account_id, organization_id}: an issuer whose tokens may be traded for
        `org:admin`. `spend_limits`: {enabled}: whether the organization takes part in the early access to setting them.
        """
        match action:
            case "keys":
                return keys.add(account, body)
            case "admin_rule":
                return federation.add_admin_rule(account, body)
            case "spend_limits":
                limits.enrol(account, enabled=body.get("enabled") is True)
                return {}
        return super().console(account, action, body)
