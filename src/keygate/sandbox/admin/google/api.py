"""Google's services behind one admin API: sign-in by access tokens of service accounts, each service at the path of its name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin import aging
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Answer, Route
from keygate.sandbox.admin.google import apikeys, bigquery, budgets, iam, oauth, projects, quotas
from keygate.sandbox.admin.google.cloud import CEILINGS, GoogleCloud, Request
from keygate.sandbox.admin.google.errors import RPC_OF, GoogleError, no_such, unauthenticated
from keygate.sandbox.admin.google.model import GEMINI, Json
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import Vendor

SERVICES: Mapping[str, Callable[[GoogleCloud, Request], Json]] = {
    "iam": iam.serve,
    "apikeys": apikeys.serve,
    "cloudresourcemanager": projects.serve_resource_manager,
    "orgpolicy": projects.serve_org_policy,
    "serviceusage": quotas.serve,
    "cloudbilling": projects.serve_billing,
    "billingbudgets": budgets.serve,
    "bigquery": bigquery.serve,
}
PROJECT = "sandbox-project"
PARENT = "folders/100"
BILLING_ACCOUNT = "01A2B3-C4D5E6-F7A8B9"
TOKEN_URI = "https://oauth2.googleapis.com/token"  # noqa: S105  (an address)
OPERATIONS = (
    "oauth2.token",
    *(f"iam.serviceAccounts.{verb}" for verb in ("create", "get", "list", "patch", "delete", "disable", "enable", "undelete")),
    *(f"apikeys.keys.{verb}" for verb in ("create", "get", "list", "patch", "delete", "undelete", "keyString")),
    "apikeys.operations.get",
    *(f"cloudresourcemanager.projects.{verb}" for verb in ("create", "get", "list", "delete", "getIamPolicy", "setIamPolicy")),
    *(f"cloudresourcemanager.{name}.testIamPermissions" for name in ("projects", "folders", "organizations")),
    "cloudresourcemanager.operations.get",
    "orgpolicy.policies.getEffectivePolicy",
    *(f"serviceusage.services.{verb}" for verb in ("get", "enable", "disable")),
    "serviceusage.operations.get",
    "serviceusage.consumerQuotaMetrics.list",
    "serviceusage.consumerQuotaMetrics.get",
    *(f"serviceusage.consumerOverrides.{verb}" for verb in ("create", "list", "patch", "delete")),
    "cloudbilling.projects.billingInfo",
    "cloudbilling.billingAccounts.get",
    "cloudbilling.billingAccounts.testIamPermissions",
    "cloudbilling.services.list",
    *(f"billingbudgets.budgets.{verb}" for verb in ("create", "get", "list", "patch", "delete")),
)
_VERBS = {"POST": "create", "GET": "get", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}


def cloud_of(account: Account) -> GoogleCloud:
    """The cloud that stands behind the account."""
    cloud: GoogleCloud = account.behind
    return cloud


class GoogleAdmin(AdminApi):
    """Operations are named `iam.serviceAccounts.create`, `apikeys.keys.delete`, `iam.serviceAccounts.disable`, `oauth2.token`."""

    vendor: ClassVar[Vendor] = Vendor.GOOGLE
    prefixes: ClassVar[tuple[str, ...]] = tuple(f"/google/{service}" for service in (*SERVICES, "oauth2"))
    routes: ClassVar[tuple[Route, ...]] = ()
    ceilings: ClassVar[Mapping[str, int]] = CEILINGS

    def prepare(self, account: Account) -> None:
        """A project with the Gemini API, in a folder, and the billing account that pays for it."""
        cloud = GoogleCloud(account)
        account.behind = cloud
        cloud.add_billing_account(BILLING_ACCOUNT)
        cloud.add_project(PROJECT, parent=PARENT, services=(GEMINI,)).billing_account = BILLING_ACCOUNT

    def operations(self) -> list[str]:
        """Made from service, collection and verb: those that KeyGate calls."""
        return sorted(OPERATIONS)

    def admit(self, account: Account, address: str, body: dict[str, Any]) -> tuple[Credential, str]:
        """`{without?, account_id?}`: as the console's `admin_key`, whose file signs in here."""
        unknown = body.keys() - {"without", "account_id"}
        if unknown:
            raise ValueError(f"{min(unknown)}: a credential of Google's has `without` and `account_id`")
        made = self.console(account, "admin_key", {**body, "token_uri": f"{address}/google/oauth2/token"})
        return account.credentials[made["email"]], made["credentials"]

    def settings(self, address: str, credential: Credential | None = None) -> dict[str, str]:  # noqa: ARG002  (the same for every one)
        """With `parent` each key has a project of its own, which budgets and rate limits need."""
        return {"base_url": f"{address}/google", "project": PROJECT, "parent": PARENT, "billing_account": BILLING_ACCOUNT}

    def behind(self, account: Account) -> Mapping[str, tuple[type, dict[str, Any]]]:
        return cloud_of(account).things()

    def refuses(self, secret: IssuedSecret, model: str) -> VendorError | None:
        return cloud_of(secret.account).refuses(secret, generates=bool(model))

    def console(self, account: Account, action: str, body: dict[str, Any]) -> Any:
        """What an administrator does by hand. `admin_key` {without?, token_uri?, account_id?}: a service account that may everything but
        `without`, and its credentials file. `policy` {project?, constraint, rule}: an organisation policy.
        `billing_export`: switches the export of costs to BigQuery on. `standing`: what there is."""
        cloud = cloud_of(account)
        if action == "admin_key":
            made = cloud.add_service_account(PROJECT, str(body.get("account_id", f"keygate-{len(cloud.accounts) + 1}")))
            made.created_at = 0  # long known everywhere
            account.credentials[made.email] = Credential(made.email, made.email, None, frozenset(body.get("without", ())))
            _, file = iam.create_key_of(cloud, made, token_uri=str(body.get("token_uri", TOKEN_URI)))
            return {"email": made.email, "credentials": file}
        if action == "billing_export":
            table = bigquery.export_table(BILLING_ACCOUNT, PROJECT)
            cloud.exports.add(table)
            return {"table": table}
        if action == "standing":
            return {
                "projects": [each.id for each in cloud.projects.values() if each.state == "ACTIVE"],
                "service_accounts": [each.email for each in cloud.accounts.values() if each.deleted_at is None],
                "keys": [each.name for each in cloud.keys.values() if each.deleted_at is None],
                "budgets": [each.name for each in cloud.budgets.values()],
            }
        if action == "policy":
            cloud.projects[str(body.get("project", PROJECT))].policies[str(body["constraint"])] = body["rule"]
            return {}
        return super().console(account, action, body)

    def age(self, account: Account, body: dict[str, Any]) -> dict[str, Any]:
        id_, then_ns = aging.wanted(account, body)
        key = cloud_of(account).age(id_, then_ns / NANOSECONDS)
        return aging.told(key.id, then_ns, used=False)  # Google tells no last use

    def find(self, request: AdminRequest) -> Route:
        _, _, service, path = (*request.path.split("/", 3), "")[:4]
        if (service, path, request.method) == ("oauth2", "token", "POST"):
            return Route("POST", request.path, "oauth2.token", None, _exchange, open=True)
        if service not in SERVICES:
            raise no_such("This service")
        operation = operation_of(request.method, service, path.removeprefix("bigquery/"))
        return Route(request.method, "/", operation, None, _handler(service, path))

    def authenticate(self, account: Account, request: AdminRequest) -> Credential:
        email = cloud_of(account).identify(self.shown_secret(request))
        return account.credentials.get(email) or Credential(email, email, frozenset())

    def unknown_caller(self, shown: str | None) -> VendorError:  # noqa: ARG002  (all the same to Google)
        return unauthenticated()

    def lacks(self, right: str) -> VendorError:
        return GoogleError("PERMISSION_DENIED", f"Permission '{right}' denied.")

    def too_fast(self, seconds: float) -> VendorError:
        message = "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute'."
        error = GoogleError("RESOURCE_EXHAUSTED", message, reason="RATE_LIMIT_EXCEEDED")
        error.retry_after = str(int(seconds + 0.999))
        return error

    def error(self, error: VendorError, request: AdminRequest) -> Answer:
        if type(error) is VendorError:  # of a fault on request, or of the body's reader; a fault's `code` is ErrorInfo's reason
            rpc = RPC_OF.get(error.status, "INVALID_ARGUMENT" if error.status < 500 else "INTERNAL")
            told: dict[str, Any] = {"code": error.status, "message": error.message, "status": rpc}
            if error.code is not None:
                kind = "type.googleapis.com/google.rpc.ErrorInfo"
                told["details"] = [{"@type": kind, "reason": error.code, "domain": "googleapis.com", "metadata": {}}]
            found = super().error(error, request)
            return Answer(found.status, {"error": told}, found.headers)
        return super().error(error, request)


def operation_of(method: str, service: str, path: str) -> str:
    """`iam`, `v1/projects/p/serviceAccounts/x:disable` → `iam.serviceAccounts.disable`."""
    if "/consumerOverrides" in path:  # below names that hold slashes
        whole = path.endswith("/consumerOverrides")
        return f"{service}.consumerOverrides.{'list' if whole and method == 'GET' else _VERBS.get(method, method)}"
    *parts, last = path.split("/")[1:] or [""]
    name, _, verb = last.partition(":")
    if len(parts) % 2:  # a thing in a collection
        collection, does = parts[-1], verb or _VERBS.get(method, method)
    else:
        collection, does = name, verb or ("list" if method == "GET" else _VERBS.get(method, method))
    if name in {"keyString", "billingInfo"}:
        collection, does = (parts[-2], name) if len(parts) >= 2 else (name, does)
    return f"{service}.{collection}.{does}"


def _handler(service: str, path: str) -> Callable[[Account, AdminRequest], Any]:
    def handle(account: Account, request: AdminRequest) -> Any:
        credential = request.credential
        assert credential is not None  # noqa: S101  (no route of a service is open)
        query = {name: values[-1] for name, values in request.query.items()}
        token_uri = f"{request.base_url}/google/oauth2/token"
        asked = Request(request.method, service, path, query, request.json(), credential.value, token_uri)
        return SERVICES[service](cloud_of(account), asked)

    return handle


def _exchange(account: Account, request: AdminRequest) -> Any:
    form = dict(parse_qsl(request.raw.decode("latin-1")))
    host = request.headers.get(b"host", b"").decode("latin-1")  # `localhost` is this address too
    mine = {f"{address}/google/oauth2/token" for address in (request.base_url, f"http://{host}")}
    return oauth.exchange(cloud_of(account), form, audiences={TOKEN_URI, *mine})
