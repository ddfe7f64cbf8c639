"""The state of the sandbox's Google Cloud and the rules that its services share: who asks, what they may, what takes time.

What takes time follows the account's settings, because it does at Google: an operation, a new service account, an IAM binding,
a deleted key.
Disabling a service account is the exception: "immediately … existing access tokens are rejected" (iam.v1 `serviceAccounts.disable`).
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.google.errors import GoogleError, denied, no_such, service_disabled, unauthenticated
from keygate.sandbox.admin.google.model import GEMINI, VERTEX, VERTEX_USER, ApiKey, Budget, Json, Project, ServiceAccount
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.errors import VendorError
from keygate.sandbox.gemini import SERVICE

NO_SERVICE_ACCOUNT_API_KEYS = "iam.managed.disableServiceAccountApiKeyCreation"
NO_SERVICE_ACCOUNT_KEYS = ("iam.managed.disableServiceAccountKeyCreation", "iam.disableServiceAccountKeyCreation")
ADMIN_APIS = frozenset(
    f"{name}.googleapis.com"
    for name in ("iam", "apikeys", "cloudresourcemanager", "serviceusage", "billingbudgets", "cloudbilling", "orgpolicy", "bigquery")
)
# 100 and 10 are widely quoted, not verified; how many projects there may be depends on the organisation.
CEILINGS = {"service_accounts": 100, "service_account_keys": 10, "projects": 1000}
PER_MINUTE, DEFAULT_PER_MINUTE = "1/min/{project}", 1_000
LOOPBACK = "127.0.0.1"  # where the sandbox's callers are


@dataclass(frozen=True, slots=True)
class Request:
    """One call: `service` is the host's first label (`iam`), `path` what stands below it (`v1/projects/p/serviceAccounts`)."""

    method: str
    service: str
    path: str
    query: Mapping[str, str]
    body: Json
    caller: str  # the service account that asks
    token_uri: str  # what a new credentials file names


@dataclass(slots=True)
class Operation:
    done_at: float
    result: Json  # `{"response": …}`


@dataclass(slots=True)
class AccessToken:
    email: str
    expires_at: float


class GoogleCloud:
    """One organisation, on the account's clock and settings."""

    def __init__(self, account: Account) -> None:
        self.book = account
        self.projects: dict[str, Project] = {}
        self.accounts: dict[str, ServiceAccount] = {}  # by unique id, deleted ones too
        self.keys: dict[str, ApiKey] = {}  # by value
        self.operations: dict[str, Operation] = {}
        self.budgets: dict[str, Budget] = {}
        self.billing_accounts: dict[str, Json] = {}
        self.tokens: dict[str, AccessToken] = {}
        self.exports: set[str] = set()  # tables of Cloud Billing's export to BigQuery

    def things(self) -> dict[str, tuple[type, dict[str, Any]]]:
        """All of it, by kind."""
        return {
            "projects": (Project, self.projects),
            "accounts": (ServiceAccount, self.accounts),
            "keys": (ApiKey, self.keys),
            "operations": (Operation, self.operations),
            "budgets": (Budget, self.budgets),
            "billing_accounts": (dict, self.billing_accounts),
            "tokens": (AccessToken, self.tokens),
        }

    def now(self) -> float:
        return self.book.now_ns() / NANOSECONDS

    # ---- what stands there

    def add_project(self, project_id: str, *, parent: str, services: tuple[str, ...] = ()) -> Project:
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

    def project(self, name: str, *, deleted_too: bool = False) -> Project:
        """By id or number; a deleted one can be looked at, and nothing else."""
        found = self.projects.get(name) or next((each for each in self.projects.values() if each.number == name), None)
        if found is None or (found.state != "ACTIVE" and not deleted_too):
            raise denied("resourcemanager.projects.get", f"projects/{name}")  # Google doesn't tell unknown from forbidden
        return found

    def account(self, name: str, *, visible: bool = True) -> ServiceAccount:
        """A live service account by e-mail or unique id; one that was just made may not be seen yet."""
        for account in self.accounts.values():
            if name in {account.unique_id, account.email} and account.deleted_at is None:
                if visible and not self.seen(account):
                    break
                return account
        raise no_such(f"Service account projects/-/serviceAccounts/{name}")

    def seen(self, account: ServiceAccount) -> bool:
        return account.deleted_at is None and self.now() >= account.created_at + self.book.settings.lists_s

    def find_key(self, project: Project, key_id: str) -> ApiKey:
        for key in self.keys.values():
            if key.project == project.id and key_id in {key.id, key.uid} and self.made(key):
                return key
        raise no_such(f"Key {key_id}")

    def made(self, key: ApiKey) -> bool:
        return self.now() >= key.created_at + self.book.settings.new_key_s

    def issue_key(self, key: ApiKey) -> None:
        """Makes the key work at the inference side, for as long as every rule here lets it."""
        self.keys[key.value] = key
        self.book.issue(key.value, id_=key.name, container=key.project)

    def age(self, key_id: str, then: float) -> ApiKey:
        """A key that was made then, in a project and with an account that are at least as old."""
        for key in self.keys.values():
            if key_id in {key.id, key.uid, key.name} and key.deleted_at is None:
                key.created_at = key.updated_at = then
                project, account = self.projects[key.project], self.accounts.get(key.account_id)
                project.created_at = min(project.created_at, then)
                if account is not None:
                    account.created_at = min(account.created_at, then)
                return key
        raise no_such(f"Key {key_id}")

    def refuses(self, secret: IssuedSecret, *, generates: bool) -> VendorError | None:
        """`generates`: a call of a model, and no list. Only those count against `generate_content_requests`: by its name, unverified."""
        try:
            self.authorise(self.keys[secret.value], SERVICE.get())
            if generates:
                self._take_turn(self.projects[self.keys[secret.value].project])
        except GoogleError as error:
            return error
        return None

    # ---- who asks, and what they may

    def issue_token(self, email: str, *, seconds: float) -> str:
        token = f"ya29.sandbox-{secrets.token_urlsafe(32)}"
        self.tokens[token] = AccessToken(email, self.now() + seconds)
        return token

    def identify(self, token: str | None) -> str:
        """The service account behind an access token. A disabled or deleted one is refused, tokens that it has included."""
        found = self.tokens.get(token or "")
        if found is None or found.expires_at <= self.now():
            raise unauthenticated()
        try:
            account = self.account(found.email, visible=False)
        except GoogleError:
            raise unauthenticated() from None
        if account.disabled:
            raise unauthenticated(f"Service account {account.email} is disabled.")
        return account.email

    def may(self, caller: str, permission: str, resource: str) -> bool:
        """Admins may everything that isn't taken from them: a permission everywhere, or `permission@resource`."""
        credential = self.book.credentials.get(caller)
        return credential is not None and credential.may(permission) and credential.may(f"{permission}@{resource}")

    def need(self, request: Request, permission: str, resource: str) -> None:
        if not self.may(request.caller, permission, resource):
            raise denied(permission, resource)

    # ---- what takes time

    def operate(self, response: Json, *, prefix: str = "operations/") -> Json:
        """Starts a long-running operation and shows it. Its result is there after the setting `new_key_s`."""
        name = f"{prefix}{uuid.uuid4()}"
        self.operations[name] = Operation(self.now() + self.book.settings.new_key_s, {"response": response})
        return self.show_operation(name)

    def show_operation(self, name: str) -> Json:
        operation = self.operations.get(name)
        if operation is None:
            raise no_such(f"Operation {name}")
        done = self.now() >= operation.done_at
        return {"name": name, "done": True, **operation.result} if done else {"name": name}

    # ---- the inference side

    def authorise(self, key: ApiKey, service: str) -> None:
        """Raises what the service answers where it doesn't take this key now.

        Reasons: google.api.ErrorReason. That standard keys are refused: ai.google.dev/gemini-api/docs/api-key, announced for 2026-09.
        """
        if key.deleted_at is not None and self.now() >= key.deleted_at + self.book.settings.revoked_key_s:
            raise bad_key(service)
        project = self.projects[key.project]
        if project.state != "ACTIVE":
            raise bad_key(service)
        if not key.service_account:
            raise unauthenticated("Standard API keys are not supported. Use an authorization key.")
        # Bound to the account that was, not to one that has its name now.
        account = next((each for each in self.accounts.values() if each.unique_id == key.account_id and each.deleted_at is None), None)
        if account is None or account.disabled:
            raise unauthenticated(f"The service account bound to this API key is disabled or deleted: {key.service_account}")
        consumer = f"projects/{key.number}"
        if key.targets() and service not in key.targets():
            message = f"Requests to this API {service} are blocked."
            raise GoogleError("PERMISSION_DENIED", message, reason="API_KEY_SERVICE_BLOCKED", consumer=consumer, service=service)
        addresses = key.restrictions.get("serverKeyRestrictions", {}).get("allowedIps", [])
        if addresses and LOOPBACK not in addresses:
            message = (
                f"The provided API key has an IP address restriction. The originating IP address of the call ({LOOPBACK}) violates it."
            )
            raise GoogleError("PERMISSION_DENIED", message, reason="API_KEY_IP_ADDRESS_BLOCKED", consumer=consumer)
        if service not in project.services:
            raise service_disabled(service, project.number)
        if service == VERTEX and not self._bound(project, account.email, VERTEX_USER):
            raise denied("aiplatform.endpoints.predict", f"projects/{project.id}")
        if any(self.capped(budget) for budget in self.budgets.values() if budget.covers(project.id)):
            raise GoogleError("RESOURCE_EXHAUSTED", "The spend cap of this project is reached.", reason="RESOURCE_QUOTA_EXCEEDED")

    def _take_turn(self, project: Project) -> None:
        """Counts a call against the project's requests per minute."""
        set_ = (each for each in project.overrides.values() if each["metric"].endswith("_requests") and each["unit"] == PER_MINUTE)
        allowed = next((int(each["overrideValue"]) for each in set_), DEFAULT_PER_MINUTE)
        now_ns, name = self.book.now_ns(), f"requests/{project.id}"
        if 0 <= allowed <= self.book.meter.minute(name, now_ns)[0]:
            raise GoogleError("RESOURCE_EXHAUSTED", "You exceeded your current quota.", reason="RATE_LIMIT_EXCEEDED")
        self.book.meter.count(name, now_ns, requests=1)

    def _bound(self, project: Project, email: str, role: str) -> bool:
        member = f"serviceAccount:{email}"
        given = any(binding["role"] == role and member in binding["members"] for binding in project.bindings)
        return given and self.now() >= project.policy_set_at + self.book.settings.limits_s

    def capped(self, budget: Budget) -> bool:
        """Whether the budget's spend cap is enforced; it trips here, when billing has seen enough, as late as the settings say."""
        if budget.spend_cap == "CONFIGURED" and self.spent(budget) >= budget.amount:
            budget.spend_cap = "ENFORCED"
        return budget.spend_cap == "ENFORCED"

    def spent(self, budget: Budget) -> Decimal:
        """This month's cost of the budget's projects, as billing knows it by now."""
        now_ns, settings = self.book.now_ns(), self.book.settings
        cells = [
            cell
            for cell in self.book.books.cells(since_s=month_start(now_ns // NANOSECONDS))
            if cell.container and budget.covers(cell.container)
        ]
        return Decimal(sum(cell.reported_pico(now_ns, settings) or 0 for cell in cells)) / 10**12


def bad_key(service: str) -> GoogleError:
    return GoogleError("INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", reason="API_KEY_INVALID", service=service)


def month_start(at_s: int) -> int:
    return int(datetime.fromtimestamp(at_s, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0).timestamp())


def paged(items: list[Any], query: Mapping[str, str], name: str, *, most: int = 100) -> Json:
    """A page of a list: `pageSize`, `pageToken` (here: where to go on), `nextPageToken` where there is more."""
    size = min(int(query.get("pageSize") or most) or most, most)
    start = int(query.get("pageToken") or 0)
    page: Json = {name: items[start : start + size]} if items[start : start + size] else {}
    return {**page, "nextPageToken": str(start + size)} if start + size < len(items) else page
