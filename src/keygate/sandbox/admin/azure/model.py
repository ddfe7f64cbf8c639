"""What stands at the sandbox's Azure: accounts with their two keys, deployments, what was deleted. Rules without a wire.

Facts: Azure OpenAI's quotas (30 accounts a region and subscription, 32 deployments an account),
learn.microsoft.com/azure/ai-services/openai/ quotas-limits; the account ceiling as the quota `OpenAI.S0.AccountCount`, and that a
deleted account counts until it is purged: users' reports, read 2026-11-26, not stated by Microsoft.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.shelf import Eventual
from keygate.sandbox.errors import VendorError

ACCOUNTS = "accounts"
DELETED = "deleted_accounts"
CEILINGS = {ACCOUNTS: 30, "deployments": 32, "capacity": 1000}  # capacity: thousands of tokens a minute, of a region, SKU and model
KEPT_NS = 48 * 3600 * NANOSECONDS  # how long a deleted account can be restored


class KeyName(StrEnum):
    KEY1 = "Key1"
    KEY2 = "Key2"


@dataclass(slots=True)
class Deployment:
    """A model in an account. `capacity` counts thousands of tokens a minute."""

    name: str
    sku: str
    capacity: int
    model: str
    version: str
    ready_at_ns: int = 0
    paused: bool = False


@dataclass(slots=True)
class Resource:
    """A Cognitive Services account. `subdomain` names its inference endpoint."""

    subscription: str
    group: str
    name: str
    location: str
    kind: str
    sku: str
    subdomain: str
    tags: dict[str, str]
    made_at_ns: int
    ready_at_ns: int  # until then it is being created
    gone_at_ns: int | None = None  # a delete was accepted: it is soft-deleted from then on
    disable_local_auth: bool = False
    local_auth: Eventual[bool] = field(default_factory=lambda: Eventual(True))  # as the inference side sees it
    deployments: dict[str, Deployment] = field(default_factory=dict)
    keys: dict[KeyName, tuple[str, IssuedSecret]] = field(default_factory=dict)
    internal_id: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def id(self) -> str:
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/Microsoft.CognitiveServices/accounts/{self.name}"


class Azure:
    """An account of the sandbox, seen as Azure. Costs nothing to make."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self._age()

    def now_ns(self) -> int:
        return self.account.now_ns()

    def _later_ns(self) -> int:
        return self.account.later_ns(self.account.settings.operations_s)

    # Accounts.

    def find(self, id_: str) -> Resource | None:
        return _resource(self.account, ACCOUNTS, id_)

    def find_deleted(self, id_: str) -> Resource | None:
        return _resource(self.account, DELETED, id_)

    def listed(self, shelf: str, subscription: str, group: str | None = None) -> list[Resource]:
        every: Iterable[Resource] = (entry.more["it"] for entry in self.account.listed(shelf))
        return [one for one in every if one.subscription == subscription and (group is None or one.group == group)]

    def counted(self, subscription: str, location: str) -> int:
        """Accounts against the region's ceiling."""
        return sum(1 for one in self._standing() if (one.subscription, one.location) == (subscription, location))

    def create(self, one: Resource) -> None:
        """Raises `VendorError` where the name is soft-deleted, the subdomain taken, or the region full."""
        if self.find_deleted(one.id) is not None:
            message = (
                f"An existing resource with ID '{one.id}' has been soft-deleted. To restore the resource, you must specify 'restore' to be "
                "'true' in the property. If you don't want to restore existing resource, please purge it first."
            )
            raise VendorError(409, message, code="FlagMustBeSetForRestore")
        if any(each.subdomain == one.subdomain for each in self._standing()):
            message = f"The subdomain name '{one.subdomain}' is already used. Please pick a different name."
            raise VendorError(409, message, code="CustomDomainInUse")
        used = self.counted(one.subscription, one.location)
        if (limit := self.account.full(ACCOUNTS, used)) is not None:
            raise _quota_spent("OpenAI.S0.AccountCount", more=1, used=used, limit=limit)
        one.ready_at_ns = self._later_ns()
        one.keys = {name: self._issue(one, name) for name in KeyName}
        self.account.make(ACCOUNTS, one.id.lower(), {"name": one.name, "location": one.location}, it=one)

    def restore(self, one: Resource) -> None:
        self.account.remove(DELETED, one.id.lower())
        one.gone_at_ns = None
        for _, grant in one.keys.values():
            grant.restore()
        self.account.make(ACCOUNTS, one.id.lower(), {"name": one.name, "location": one.location}, it=one)

    def delete(self, one: Resource) -> None:
        """Accepted; it is soft-deleted when the operation is over."""
        if one.gone_at_ns is None:
            one.gone_at_ns = self._later_ns()
        self._age()

    def purge(self, one: Resource) -> None:
        self.account.remove(DELETED, one.id.lower())
        for value, _ in one.keys.values():
            self.account.forget(value)

    def regenerate(self, one: Resource, name: KeyName) -> None:
        """A new value; the old one stops working as late as the settings say."""
        one.keys[name][1].revoke()
        one.keys[name] = self._issue(one, name)

    def set_local_auth(self, one: Resource, *, disabled: bool) -> None:
        settings = self.account.settings
        one.disable_local_auth = disabled
        one.local_auth.set(not disabled, at_ns=self.account.later_ns(settings.revoked_key_s if disabled else settings.new_key_s))

    def _issue(self, one: Resource, name: KeyName) -> tuple[str, IssuedSecret]:
        value = f"sandbox-azure-{secrets.token_hex(24)}"
        return value, self.account.issue(value, id_=f"{one.id}/{name}", container=one.id)

    # Deployments and their quota.

    def used(self, subscription: str, location: str, sku: str, model: str) -> int:
        """Capacity that stands in the region, deleted accounts' too until they are purged."""
        mine = (one for one in self._standing() if (one.subscription, one.location) == (subscription, location))
        return sum(each.capacity for one in mine for each in one.deployments.values() if (each.sku, each.model) == (sku, model))

    def deploy(self, one: Resource, wanted: Deployment) -> Deployment:
        """Makes or replaces a deployment. Raises `VendorError` where the quota doesn't hold it, or another one is being made."""
        if any(each.ready_at_ns > self.now_ns() for each in one.deployments.values()):
            message = "Another operation is being performed on the parent resource. Please try again later."
            raise VendorError(409, message, code="RequestConflict")
        before = one.deployments.get(wanted.name)
        if before is None and self.account.full("deployments", len(one.deployments)) is not None:
            raise VendorError(400, "The maximum number of deployments of this resource is reached.", code="DeploymentLimitReached")
        same = before is not None and (before.sku, before.model) == (wanted.sku, wanted.model)
        more = wanted.capacity - (before.capacity if before is not None and same else 0)
        used, limit = self.used(one.subscription, one.location, wanted.sku, wanted.model), self.account.settings.ceilings["capacity"]
        if more > limit - used:
            raise _quota_spent(f"Tokens Per Minute (thousands) - {wanted.model} - {wanted.sku}", more=more, used=used, limit=limit)
        wanted.ready_at_ns = self._later_ns()
        if before is not None:
            wanted.paused = before.paused
        one.deployments[wanted.name] = wanted
        return wanted

    # Inference.

    def at(self, subdomain: str) -> Resource | None:
        """Whose endpoint this is; a deleted account's answers for as long as its keys work."""
        now = self.now_ns()
        mine = (one for one in self._standing() if one.subdomain == subdomain and one.ready_at_ns <= now)
        return next((one for one in mine if one.gone_at_ns is None or any(grant.usable.at(now) for _, grant in one.keys.values())), None)

    def _standing(self) -> list[Resource]:
        return [entry.more["it"] for shelf in (ACCOUNTS, DELETED) for entry in self.account.shelves[shelf]]

    def _age(self) -> None:
        now = self.now_ns()
        for entry in list(self.account.shelves[ACCOUNTS]):
            one: Resource = entry.more["it"]
            if one.gone_at_ns is not None and one.gone_at_ns <= now:
                for _, grant in one.keys.values():
                    grant.revoke()
                self.account.remove(ACCOUNTS, entry.id)
                self.account.make(DELETED, entry.id, entry.body, it=one)
        for entry in list(self.account.shelves[DELETED]):
            if entry.made_at_ns + KEPT_NS <= now:
                self.account.remove(DELETED, entry.id)


def _resource(account: Account, shelf: str, id_: str) -> Resource | None:
    entry = account.shelves[shelf].get(id_.lower())
    found: Resource | None = None if entry is None else entry.more["it"]
    return found


def _quota_spent(quota: str, *, more: int, used: int, limit: int) -> VendorError:
    message = (
        f"This operation require {more} new capacity in quota {quota}, which is bigger than the current available capacity {limit - used}. "
        f"The current quota usage is {used} and the quota limit is {limit} for quota {quota}."
    )
    return VendorError(400, message, code="InsufficientQuota")


def refuses(secret: IssuedSecret, model: str) -> VendorError | None:
    """What else refuses a call with one of an account's keys: local authentication switched off, or the capacity of the minute used up."""
    now, meter, id_ = secret.account.now_ns(), secret.account.meter, secret.container or ""
    one = _resource(secret.account, ACCOUNTS, id_) or _resource(secret.account, DELETED, id_)
    if one is None:
        return VendorError(404, "Resource not found", code="404")
    if not one.local_auth.at(now):
        return VendorError(403, "Key based authentication is disabled for this resource.", code="AuthenticationTypeDisabled")
    capacity = sum(each.capacity for each in one.deployments.values() if each.model == model)
    counted = f"{one.id}/{model}"
    requests, tokens = meter.minute(counted, now)
    if tokens >= 1000 * capacity or requests >= 6 * capacity:
        message = (
            "Your requests have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 60 seconds. "
            "Please contact Azure support service if you would like to further increase the default rate limit."
        )
        return VendorError(429, message, code="429", retry_after="60")
    meter.count(counted, now, requests=1)
    return None
