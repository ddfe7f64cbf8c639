"""The state of the sandbox's Google Cloud and the rules that its services share: who asks, what they may, what takes time.

What takes time is settable (`Delays`), because it does at Google: an operation, a new service account, an IAM binding, a deleted key.
Disabling a service account is the exception: "immediately … existing access tokens are rejected" (iam.v1 `serviceAccounts.disable`).
"""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from keygate.sandbox.admin.google.errors import RPC_CODES, GoogleError, denied, no_such, service_disabled, unauthenticated
from keygate.sandbox.admin.google.model import GEMINI, VERTEX, VERTEX_USER, ApiKey, Budget, Json, Project, ServiceAccount

NO_SERVICE_ACCOUNT_API_KEYS = "iam.managed.disableServiceAccountApiKeyCreation"
NO_SERVICE_ACCOUNT_KEYS = ("iam.managed.disableServiceAccountKeyCreation", "iam.disableServiceAccountKeyCreation")
ADMIN_APIS = frozenset(
    f"{name}.googleapis.com"
    for name in ("iam", "apikeys", "cloudresourcemanager", "serviceusage", "billingbudgets", "cloudbilling", "orgpolicy")
)


@dataclass(slots=True)
class Delays:
    """Seconds until a change is seen. Google names minutes for bindings and none for keys: see `facts` of the vendor file."""

    operation: float = 0.0  # a long-running operation's
    service_account: float = 0.0  # until a new one can be used and read
    binding: float = 0.0  # until an IAM policy is in force
    revoked_key: float = 0.0  # how long a deleted key still works
    disabled_account: float = 0.0


@dataclass(slots=True)
class Ceilings:
    """How many of a thing there may be. 100 and 10 are widely quoted, not verified; projects depend on the organisation."""

    service_accounts_per_project: int = 100
    keys_per_service_account: int = 10
    projects: int = 1000


@dataclass(frozen=True, slots=True)
class Request:
    """One call: `service` is the host's first label (`iam`), `path` what stands below it (`v1/projects/p/serviceAccounts`)."""

    method: str
    service: str
    path: str
    query: Mapping[str, str]
    body: Json
    caller: str  # the service account that asks
    token_uri: str = "https://oauth2.googleapis.com/token"  # what a new credentials file names


@dataclass(slots=True)
class Operation:
    name: str
    done_at: float
    result: Json  # `{"response": …}` or `{"error": …}`
    metadata: Json = field(default_factory=dict)


@dataclass(slots=True)
class AccessToken:
    email: str
    expires_at: float


class GoogleCloud:
    """One organisation, in memory. `clock` tells seconds since the epoch."""

    def __init__(self, *, clock: Callable[[], float] = time.time, on_key: Callable[[str], None] = lambda _: None) -> None:
        self.now = clock
        self.on_key = on_key  # told each new key string, so that the inference side knows it
        self.delays = Delays()
        self.ceilings = Ceilings()
        self.projects: dict[str, Project] = {}
        self.accounts: dict[str, ServiceAccount] = {}  # by unique id, deleted ones too
        self.keys: dict[str, ApiKey] = {}  # by value
        self.operations: dict[str, Operation] = {}
        self.budgets: dict[str, Budget] = {}
        self.billing_accounts: dict[str, Json] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.admins: dict[str, set[str]] = {}  # e-mail → permissions that it lacks

    # What stands there

    def add_project(self, project_id: str, *, parent: str = "organizations/1", services: tuple[str, ...] = (GEMINI,)) -> Project:
        number = str(100_000_000_000 + len(self.projects))
        project = Project(project_id, number, parent, self.now(), project_id, services={*services, *ADMIN_APIS})
        # As Google sets it: enforced, the Gemini API excepted (`allowedServices`).
        project.policies[NO_SERVICE_ACCOUNT_API_KEYS] = {"enforce": True, "parameters": {"allowedServices": [GEMINI]}}
        self.projects[project_id] = project
        return project

    def add_service_account(self, project_id: str, account_id: str, *, display_name: str = "", description: str = "") -> ServiceAccount:
        unique_id = f"1{secrets.randbelow(10**20):020d}"
        account = ServiceAccount(project_id, account_id, unique_id, self.now(), display_name, description)
        self.accounts[unique_id] = account
        return account

    def add_billing_account(self, account_id: str, *, currency: str = "USD", reseller: bool = False) -> None:
        self.billing_accounts[account_id] = {"currencyCode": currency, "reseller": reseller, "open": True}

    def project(self, name: str) -> Project:
        """By id or number; a deleted one is no more."""
        found = self.projects.get(name) or next((each for each in self.projects.values() if each.number == name), None)
        if found is None or found.state != "ACTIVE":
            raise denied("resourcemanager.projects.get", f"projects/{name}")  # Google doesn't tell unknown from forbidden
        return found

    def account(self, name: str, *, visible: bool = True) -> ServiceAccount:
        """A live service account by e-mail or unique id; one that was just made may not be seen yet."""
        for account in self.accounts.values():
            if name in {account.unique_id, account.email} and account.deleted_at is None:
                if visible and self.now() < account.created_at + self.delays.service_account:
                    break
                return account
        raise no_such(f"Service account projects/-/serviceAccounts/{name}")

    # Who asks, and what they may

    def issue_token(self, email: str, *, seconds: float = 3600) -> str:
        token = f"ya29.sandbox-{secrets.token_urlsafe(32)}"
        self.tokens[token] = AccessToken(email, self.now() + seconds)
        return token

    def identify(self, token: str | None) -> str:
        """The service account behind an access token. A disabled or deleted one is refused, tokens it has included."""
        found = self.tokens.get(token or "")
        if found is None or found.expires_at <= self.now():
            raise unauthenticated()
        try:
            account = self.account(found.email, visible=False)
        except GoogleError:
            raise unauthenticated() from None
        if self._disabled(account):
            raise unauthenticated(f"Service account {account.email} is disabled.")
        return account.email

    def _disabled(self, account: ServiceAccount) -> bool:
        return account.disabled and self.now() >= account.changed_at + self.delays.disabled_account

    def may(self, caller: str, permission: str, resource: str) -> bool:
        """Admins may everything that isn't taken from them: a permission everywhere, or `permission@resource`."""
        lacks = self.admins.get(caller)
        return lacks is not None and permission not in lacks and f"{permission}@{resource}" not in lacks

    def need(self, request: Request, permission: str, resource: str) -> None:
        if not self.may(request.caller, permission, resource):
            raise denied(permission, resource)

    def need_service(self, service: str, project: Project) -> None:
        if service not in project.services:
            raise service_disabled(service, project.number)

    # What takes time

    def operate(self, response: Json, *, prefix: str = "operations/", error: GoogleError | None = None) -> Json:
        """Starts a long-running operation and shows it. Its result is there after `delays.operation`."""
        name = f"{prefix}{uuid.uuid4()}"
        result: Json = {"response": response}
        if error is not None:
            result = {"error": {"code": RPC_CODES[error.status], "message": error.message, "details": error.details()}}
        self.operations[name] = Operation(name, self.now() + self.delays.operation, result)
        return self.show_operation(name)

    def show_operation(self, name: str) -> Json:
        operation = self.operations.get(name)
        if operation is None:
            raise no_such(f"Operation {name}")
        done = self.now() >= operation.done_at
        return {"name": name, "done": True, **operation.result} if done else {"name": name}

    # The inference side

    def authorise(self, value: str, service: str, address: str) -> ApiKey:
        """The key behind `value`, if this service takes it from this address now; `GoogleError` otherwise."""
        key = self.keys.get(value)
        gone = key is not None and key.deleted_at is not None and self.now() >= key.deleted_at + self.delays.revoked_key
        if key is None or gone:
            raise GoogleError(
                "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", reason="API_KEY_INVALID", service=service
            )
        project = self.project(key.project)
        if not key.service_account:
            # Standard keys: refused since 2026-06-19 where unrestricted, all of them announced for 2026-09 (ai.google.dev/gemini-api/docs/api-key).
            raise unauthenticated("Standard API keys are not supported. Use an authorization key.")
        account = next(
            (each for each in self.accounts.values() if each.email == key.service_account and each.deleted_at is None), None
        )
        if account is None or self._disabled(account):
            raise unauthenticated(f"The service account bound to this API key is disabled: {key.service_account}")
        if key.targets() and service not in key.targets():
            message = f"Requests to this API {service} are blocked."
            raise GoogleError(
                "PERMISSION_DENIED", message, reason="API_KEY_SERVICE_BLOCKED", consumer=f"projects/{key.number}", service=service
            )
        addresses = key.restrictions.get("serverKeyRestrictions", {}).get("allowedIps", [])
        if addresses and address not in addresses:
            message = f"The provided API key has an IP address restriction. The originating IP address of the call ({address}) violates it."
            raise GoogleError("PERMISSION_DENIED", message, reason="API_KEY_IP_ADDRESS_BLOCKED", consumer=f"projects/{key.number}")
        self.need_service(service, project)
        if service == VERTEX and not self._bound(project, account.email, VERTEX_USER):
            raise denied("aiplatform.endpoints.predict", f"projects/{project.id}")
        for budget in self.budgets.values():
            if budget.spend_cap == "ENFORCED" and f"projects/{project.id}" in budget.body["budgetFilter"]["projects"]:
                raise GoogleError("RESOURCE_EXHAUSTED", "The spend cap of this project is reached.", reason="RESOURCE_QUOTA_EXCEEDED")
        return key

    def _bound(self, project: Project, email: str, role: str) -> bool:
        member = f"serviceAccount:{email}"
        given = any(binding["role"] == role and member in binding["members"] for binding in project.bindings)
        return given and self.now() >= project.policy_set_at + self.delays.binding

    def find_key(self, project: Project, key_id: str) -> ApiKey:
        for key in self.keys.values():
            if key.project == project.id and key_id in {key.id, key.uid} and self.now() >= key.created_at + self.delays.operation:
                return key
        raise no_such(f"Key {key_id}")


def paged(items: list[Any], query: Mapping[str, str], name: str, *, most: int = 100) -> Json:
    """A page of a list: `pageSize`, `pageToken` (here: where to go on), `nextPageToken` where there is more."""
    size = min(int(query.get("pageSize") or most) or most, most)
    start = int(query.get("pageToken") or 0)
    page: Json = {name: items[start : start + size]} if items[start : start + size] else {}
    return {**page, "nextPageToken": str(start + size)} if start + size < len(items) else page
