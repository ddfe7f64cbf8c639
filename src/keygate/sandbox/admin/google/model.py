"""What stands in the sandbox's Google Cloud: values as the APIs have them, and how each is shown on the wire.

Field names and shapes: the discovery documents in google-api-python-client 2.202.0 (iam.v1 20261023, apikeys.v2 20260818,
cloudresourcemanager.v3 20261107, serviceusage.v1beta1 20260921, billingbudgets.v1 20261011), read 2026-11-26.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

Json = dict[str, Any]
GEMINI = "generativelanguage.googleapis.com"
VERTEX = "aiplatform.googleapis.com"
VERTEX_USER = "roles/aiplatform.user"


def stamp(at: float) -> str:
    """RFC 3339, as protobuf's JSON has it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def etag_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Project:
    id: str
    number: str
    parent: str
    created_at: float
    display_name: str
    labels: dict[str, str] = field(default_factory=dict)
    state: str = "ACTIVE"
    services: set[str] = field(default_factory=set)
    billing_account: str = ""
    bindings: list[Json] = field(default_factory=list)
    policy_version: int = 1  # counts what was set: the policy's etag
    policy_set_at: float = 0.0
    policies: dict[str, Json] = field(default_factory=dict)  # organisation policies in force: constraint → its rule
    overrides: dict[str, Json] = field(default_factory=dict)  # consumer quota overrides by resource name

    def as_dict(self) -> Json:
        shown = {
            "name": f"projects/{self.number}",
            "parent": self.parent,
            "projectId": self.id,
            "state": self.state,
            "displayName": self.display_name,
            "createTime": stamp(self.created_at),
            "labels": self.labels,
        }
        return {**shown, "etag": etag_of(shown)}

    def policy(self) -> Json:
        return {"version": 1, "etag": f"BwY{self.policy_version:08d}=", "bindings": self.bindings}


@dataclass(slots=True)
class ServiceAccount:
    project: str
    account_id: str
    unique_id: str
    created_at: float
    display_name: str = ""
    description: str = ""
    disabled: bool = False
    deleted_at: float | None = None
    keys: dict[str, AccountKey] = field(default_factory=dict)

    @property
    def email(self) -> str:
        return f"{self.account_id}@{self.project}.iam.gserviceaccount.com"

    @property
    def name(self) -> str:
        return f"projects/{self.project}/serviceAccounts/{self.email}"

    def as_dict(self) -> Json:
        shown: Json = {
            "name": self.name,
            "projectId": self.project,
            "uniqueId": self.unique_id,
            "email": self.email,
            "displayName": self.display_name,
            "description": self.description,
            "oauth2ClientId": self.unique_id,
            "etag": "MDEwMjE5MjA=",
        }
        return {**shown, "disabled": True} if self.disabled else shown  # false is left out, as protobuf's JSON does


@dataclass(slots=True)
class AccountKey:
    """A service account's key pair. Google keeps the public half only."""

    id: str
    public_pem: bytes
    created_at: float
    disabled: bool = False

    def as_dict(self, account: ServiceAccount) -> Json:
        shown: Json = {
            "name": f"{account.name}/keys/{self.id}",
            "keyAlgorithm": "KEY_ALG_RSA_2048",
            "keyOrigin": "GOOGLE_PROVIDED",
            "keyType": "USER_MANAGED",
            "validAfterTime": stamp(self.created_at),
            "validBeforeTime": "9999-12-31T23:59:59Z",
        }
        return {**shown, "disabled": True} if self.disabled else shown


@dataclass(slots=True)
class ApiKey:
    project: str
    number: str
    id: str
    uid: str
    value: str = field(repr=False)
    created_at: float
    updated_at: float
    display_name: str = ""
    service_account: str = ""  # e-mail; empty: a standard key
    account_id: str = ""  # the account's unique id
    restrictions: Json = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    deleted_at: float | None = None

    @property
    def name(self) -> str:
        return f"projects/{self.number}/locations/global/keys/{self.id}"

    def as_dict(self) -> Json:
        """Never the key string: only `keyString` shows it."""
        shown: Json = {
            "name": self.name,
            "uid": self.uid,
            "displayName": self.display_name,
            "createTime": stamp(self.created_at),
            "updateTime": stamp(self.updated_at),
        }
        if self.service_account:
            shown["serviceAccountEmail"] = self.service_account
        if self.restrictions:
            shown["restrictions"] = self.restrictions
        if self.annotations:
            shown["annotations"] = self.annotations
        if self.deleted_at is not None:
            shown["deleteTime"] = stamp(self.deleted_at)
        return {**shown, "etag": f'W/"{etag_of(shown)}"'}

    def targets(self) -> set[str]:
        return {str(target.get("service", "")).lower() for target in self.restrictions.get("apiTargets", [])}


@dataclass(slots=True)
class Budget:
    account: str  # billing account
    id: str
    body: Json  # as written, with the amount's currency
    spend_cap: str = ""  # the resting state; empty: alerts only

    @property
    def name(self) -> str:
        return f"billingAccounts/{self.account}/budgets/{self.id}"

    @property
    def amount(self) -> Decimal:
        money = self.body["amount"].get("specifiedAmount", {})
        return Decimal(str(money.get("units", 0))) + Decimal(int(money.get("nanos", 0))) / 1_000_000_000

    def covers(self, project_id: str) -> bool:
        return f"projects/{project_id}" in self.body.get("budgetFilter", {}).get("projects", [])

    def as_dict(self) -> Json:
        shown = {**self.body, "name": self.name}
        if self.spend_cap:
            shown["spendCap"] = {**self.body["spendCap"], "outputState": self.spend_cap, "reconciling": False}
        return {**shown, "etag": etag_of(shown)}
