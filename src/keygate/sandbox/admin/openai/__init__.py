"""OpenAI's organization API: projects, service accounts, keys, limits, usage and costs.

Shapes: contracts/openai/openapi.json (2026-08-21); where the SDK is newer (`openai` 3.51.0 `types/admin/organization/`, read 2026-11-26),
the SDK: key updates, `expires_in_seconds`, `create_service_account_only`, deletion of a service account's key. Words and statuses of
refusals are not published: what stands here of them is unverified, except where a source is named.
"""

from __future__ import annotations

from typing import Any, ClassVar

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Route
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.admin.openai import admin_keys, keys, limits, projects, rules, usage
from keygate.sandbox.errors import VendorError, bad_key, no_key
from keygate.sandbox.model import Vendor


class OpenAIAdmin(AdminApi):
    vendor = Vendor.OPENAI
    prefixes = ("/openai/v1/organization",)
    # 2,000: help.openai.com/en/articles/9186755, read 2026-11-20. How many service accounts and keys a project takes is not published.
    ceilings: ClassVar[dict[str, int]] = {"projects": 2_000}
    routes = tuple(
        Route(method, f"/openai/v1/organization{path}", operation, right, handler)
        for method, path, operation, right, handler in (
            *projects.ROUTES,
            *keys.ROUTES,
            *limits.ROUTES,
            *usage.ROUTES,
            *admin_keys.ROUTES,
        )
    )

    def prepare(self, account: Account) -> None:
        projects.add(account, "Default project", id_=projects.DEFAULT)

    def authenticate(self, account: Account, request: AdminRequest) -> Credential:
        credential = super().authenticate(account, request)
        if admin_keys.expired(account, credential):
            raise bad_key(Vendor.OPENAI)
        return credential

    def settings(self, address: str, credential: Credential | None = None) -> dict[str, str]:  # noqa: ARG002  (the same for every one)
        return {"base_url": f"{address}/openai/v1"}

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:
        return rules.refuses(secret, model)

    def unknown_caller(self, shown: str | None) -> VendorError:
        return bad_key(Vendor.OPENAI) if shown else no_key(Vendor.OPENAI)

    def console(self, account: Account, action: str, body: dict[str, Any]) -> Any:
        """`keys`: {name, project_id?, user?} → {id, value}: a key that a person made for themselves in the web console."""
        if action != "keys":
            return super().console(account, action, body)
        return keys.add_personal(
            account, str(body.get("project_id", projects.DEFAULT)), str(body.get("name", "")), str(body.get("user", ""))
        )
