"""The calls of Azure Resource Manager, Entra ID and Cost Management that KeyGate makes, for one admin credential."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import quote

from keygate.kit.clock import NANOSECONDS
from keygate.kit.outbound import Answer
from keygate.kit.secret import Secret
from keygate.vendors.admin.azure.facts import ACCOUNTS, DELETED, FACTS, PREFIX
from keygate.vendors.admin.azure.model import SLOTS, Deployment, day_of, properties_of
from keygate.vendors.admin.errors import AdminKeyRefused, CeilingReached, NotFound, ProvisionerError, Rejected, Unavailable, quoted
from keygate.vendors.admin.interface import Desk, Order, bearer

VERSION = "2025-09-01"
_COSTS_VERSION = "2025-03-01"
_PERMISSIONS_VERSION = "2022-04-01"
_SCOPE = "https://management.azure.com/.default"
_WAIT_SECONDS = 180.0
_MAX_PAGES = 200


class Arm:
    """The vendor's calls, with a token, for one admin credential."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.region = self.setting("region").lower().replace(" ", "")

    def setting(self, name: str) -> str:
        value = self._desk.settings.get(name)
        if not value:
            raise Rejected(f"The vendor's settings lack `{name}`: {FACTS.settings[name]}")
        return value

    async def accounts_left(self, region: str) -> tuple[int, int | None]:
        """`(left, ceiling)` of a region."""
        url = f"{self._provider()}/locations/{region}/usages"
        body = await self._json("GET", url, what="read the region's quotas", right=f"{PREFIX}/locations/usages/read")
        for row in body.get("value") or ():
            if isinstance(row, dict) and row.get("name", {}).get("value") == "OpenAI.S0.AccountCount":
                limit = int(row.get("limit", 0))
                return max(0, limit - int(row.get("currentValue", 0))), limit
        return 0, None

    async def permissions(self) -> list[Mapping[str, Any]]:
        url = f"{self._group()}/providers/Microsoft.Authorization/permissions"
        right = "Microsoft.Authorization/permissions/read"
        body = await self._json("GET", url, version=_PERMISSIONS_VERSION, what="read the role's actions", right=right)
        return [each for each in body.get("value") or () if isinstance(each, dict)]

    async def account(self, name: str) -> dict[str, Any] | None:
        """None: not there."""
        try:
            return await self._json("GET", self._account(name), what=f"read the account {name}", right=f"{ACCOUNTS}/read")
        except NotFound as error:
            if "ResourceGroupNotFound" in error.detail or "SubscriptionNotFound" in error.detail:
                raise
            return None

    async def accounts(self, cursor: str | None) -> tuple[list[dict[str, Any]], str | None]:
        """A page; the cursor is the query of Azure's link to the next one, and leads nowhere but to this list."""
        url = f"{self._group()}/providers/{PREFIX}/accounts" + ("" if cursor is None else f"?{cursor}")
        version = VERSION if cursor is None else None
        body = await self._json("GET", url, version=version, what="list the accounts", right=f"{ACCOUNTS}/read")
        following = str(body.get("nextLink") or "").partition("?")[2]
        return [each for each in body.get("value") or () if isinstance(each, dict)], following or None

    async def create_account(self, order: Order) -> dict[str, Any]:
        region = order.options.get("region", self.region)
        left, limit = await self.accounts_left(region)
        if limit is not None and left < 1:
            raise full(region, limit)
        name = order.mark.tag
        body = {
            "kind": "OpenAI",
            "sku": {"name": "S0"},
            "location": region,
            "tags": {"keygate-id": order.mark.id, "keygate-title": order.title[:80]},
            "properties": {"customSubDomainName": name, "publicNetworkAccess": "Enabled"},
        }
        what = f"create the account {name}"
        return await self._json("PUT", self._account(name), what=what, right=f"{ACCOUNTS}/write", json=body)

    async def settled(self, name: str, account: dict[str, Any]) -> dict[str, Any]:
        """The account, once Azure has finished making it."""
        latest = account

        async def done() -> bool:
            nonlocal latest
            if str(properties_of(latest).get("provisioningState")) not in {"Succeeded", "Failed", "Canceled"}:
                latest = await self.account(name) or latest
            state = str(properties_of(latest).get("provisioningState"))
            if state in {"Failed", "Canceled"}:
                raise Rejected(f"Azure could not make the account {name}: {state}", reason=state)
            return state == "Succeeded"

        await self.until(f"the account {name} is being made", done)
        return latest

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        what = f"tag the account {name}"
        await self._json("PATCH", self._account(name), what=what, right=f"{ACCOUNTS}/write", json={"tags": dict(tags)}, repeatable=True)

    async def set_local_auth(self, name: str, *, enabled: bool) -> None:
        what = f"switch the keys of {name} {'on' if enabled else 'off'}"
        body = {"properties": {"disableLocalAuth": not enabled}}
        await self._json("PATCH", self._account(name), what=what, right=f"{ACCOUNTS}/write", json=body, repeatable=True)

    async def keys(self, name: str) -> dict[str, Secret]:
        url = f"{self._account(name)}/listKeys"
        right = f"{ACCOUNTS}/listKeys/action"
        body = await self._json("POST", url, what=f"read the keys of {name}", right=right, changes=False)
        keys = {slot: body.get(slot.lower()) for slot in SLOTS}
        if not all(isinstance(value, str) and value for value in keys.values()):
            raise Unavailable(f"read the keys of {name}: the vendor's answer lacks a key")
        return {slot: Secret(str(value)) for slot, value in keys.items()}

    async def regenerate(self, name: str, slot: str) -> None:
        url = f"{self._account(name)}/regenerateKey"
        right = f"{ACCOUNTS}/regenerateKey/action"
        await self._json("POST", url, what=f"regenerate {slot} of {name}", right=right, json={"keyName": slot})

    async def delete_account(self, name: str) -> None:
        await self._json("DELETE", self._account(name), what=f"delete the account {name}", right=f"{ACCOUNTS}/delete")

    async def absent(self, name: str) -> bool:
        return await self.account(name) is None

    async def deleted(self, name: str) -> dict[str, Any] | None:
        """The soft-deleted account of this name in our resource group, whatever its region."""
        url: str | None = f"{self._provider()}/deletedAccounts"
        first = True
        group = f"/resourcegroups/{self.setting('resource_group')}/".lower()
        for _ in range(_MAX_PAGES):
            right = f"{PREFIX}/deletedAccounts/read"
            body = await self._json("GET", str(url), version=VERSION if first else None, what="list deleted accounts", right=right)
            for each in body.get("value") or ():
                if isinstance(each, dict) and each.get("name") == name and group in str(each.get("id")).lower():
                    return each
            url, first = body.get("nextLink"), False
            if not url:
                return None
            url = self._following(str(url))
        raise Unavailable("list deleted accounts: there is no end of pages")

    async def purged(self, name: str) -> bool:
        return await self.deleted(name) is None

    async def purge(self, name: str, location: str) -> None:
        place = f"{self._provider()}/locations/{quote(location)}/resourceGroups/{quote(self.setting('resource_group'))}"
        await self._json("DELETE", f"{place}/deletedAccounts/{name}", what=f"purge the account {name}", right=f"{DELETED}/delete")

    async def deployments(self, name: str) -> list[Deployment]:
        url: str | None = f"{self._account(name)}/deployments"
        found: list[Deployment] = []
        version: str | None = VERSION
        while url and len(found) < 1000:
            right = f"{ACCOUNTS}/deployments/read"
            body = await self._json("GET", url, version=version, what=f"read the deployments of {name}", right=right)
            found += [Deployment.of(each) for each in body.get("value") or () if isinstance(each, dict)]
            url, version = (self._following(str(body["nextLink"])) if body.get("nextLink") else None), None
        return found

    async def set_deployments(self, name: str, wanted: Mapping[str, int], *, sku: str) -> None:
        """Exactly these models, each with its capacity; the ones too many go first, so that quota is free. One by one: Azure refuses a
        second operation on an account while the first goes on."""
        standing = {each.name: each for each in await self.deployments(name)}
        for extra in standing.keys() - wanted.keys():
            url = f"{self._account(name)}/deployments/{quote(extra)}"
            right = f"{ACCOUNTS}/deployments/delete"
            await self._json("DELETE", url, what=f"remove the deployment {extra} of {name}", right=right)
        for model, capacity in wanted.items():
            before = standing.get(model)
            if before is not None and before.capacity == capacity and before.model == model:
                continue
            body = {"sku": {"name": sku, "capacity": capacity}, "properties": {"model": {"format": "OpenAI", "name": model}}}
            await self._put_deployment(name, model, body)
            await self.deployed(name)
        await self.deployed(name, wanted)

    async def set_capacity(self, name: str, deployment: Deployment, capacity: int) -> None:
        model = {"format": "OpenAI", "name": deployment.model, "version": deployment.version}
        body = {"sku": {"name": deployment.sku, "capacity": capacity}, "properties": {"model": model}}
        await self._put_deployment(name, deployment.name, body)

    async def _put_deployment(self, name: str, deployment: str, body: dict[str, Any]) -> None:
        url = f"{self._account(name)}/deployments/{quote(deployment)}"
        right = f"{ACCOUNTS}/deployments/write"
        await self._json("PUT", url, what=f"deploy {deployment} in {name}", right=right, json=body)

    async def deployed(self, name: str, wanted: Mapping[str, int] | None = None) -> None:
        async def done() -> bool:
            standing = await self.deployments(name)
            failed = next((each for each in standing if each.state in {"Failed", "Canceled"}), None)
            if failed is not None:
                raise Rejected(f"Azure could not deploy {failed.name} in {name}: {failed.state}", reason=failed.state)
            settled = all(each.state == "Succeeded" for each in standing)
            return settled and (wanted is None or {each.name for each in standing} == set(wanted))

        await self.until(f"the deployments of {name} are being made", done)

    async def costs(self, from_ns: int, until_ns: int, cursor: str | None) -> tuple[Mapping[str, Any], str | None]:
        url = f"{self._group()}/providers/Microsoft.CostManagement/query" if cursor is None else self._following(cursor)
        grouping = [{"type": "Dimension", "name": "ResourceId"}, {"type": "Dimension", "name": "Meter"}]
        aggregation = {"totalCost": {"name": "Cost", "function": "Sum"}}
        # Whole days, both ends included: the day that `until_ns` begins is not asked for where it only touches it.
        period = {"from": day_of(from_ns), "to": day_of(max(from_ns, until_ns - 1), end=True)}
        body = {
            "type": "ActualCost",
            "timeframe": "Custom",
            "timePeriod": period,
            "dataset": {"granularity": "Daily", "aggregation": aggregation, "grouping": grouping},
        }
        right = "Microsoft.CostManagement/query/action"
        version = _COSTS_VERSION if cursor is None else None
        answer = await self._json("POST", url, version=version, what="query the costs", right=right, json=body, changes=False, exact=True)
        properties = answer.get("properties")
        properties = properties if isinstance(properties, dict) else {}
        return properties, properties.get("nextLink") or None

    async def until(self, doing: str, done: Callable[[], Awaitable[bool]]) -> None:
        """Returns when `done` says so. Raises `Unavailable` after `_WAIT_SECONDS`: what was begun goes on, and a next try meets it."""
        clock = self._desk.clock
        end, pause = clock.monotonic_ns() + round(_WAIT_SECONDS * NANOSECONDS), 0.2
        while not await done():
            if clock.monotonic_ns() >= end:
                raise Unavailable(f"{doing} at Azure for longer than {_WAIT_SECONDS:g} seconds; try again later")
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    def _provider(self) -> str:
        return f"{self._desk.base()}/subscriptions/{quote(self.setting('subscription'))}/providers/{PREFIX}"

    def _group(self) -> str:
        subscription, group = quote(self.setting("subscription")), quote(self.setting("resource_group"))
        return f"{self._desk.base()}/subscriptions/{subscription}/resourceGroups/{group}"

    def _account(self, name: str) -> str:
        return f"{self._group()}/providers/{PREFIX}/accounts/{name}"

    def _following(self, link: str) -> str:
        """A next page's address, which must be the vendor's own: the token goes there."""
        if not link.startswith(self._desk.base() + "/"):
            raise Unavailable("the vendor's link to the next page leads elsewhere")
        return link

    async def _json(self, method: str, url: str, *, version: str | None = VERSION, exact: bool = False, **options: Any) -> dict[str, Any]:
        token = await self._desk.token("arm", self._sign_in)
        params = None if version is None else {"api-version": version}

        async def afresh() -> dict[str, str]:
            return bearer(await self._desk.token("arm", self._sign_in, refused=token))

        answer = await self._desk.http.call(method, url, headers=bearer(token), afresh=afresh, params=params, fault=fault, **options)
        if not answer.body.strip():
            return {}
        try:
            found = json.loads(answer.body, parse_float=Decimal if exact else float)
        except (ValueError, RecursionError, InvalidOperation):
            found = None
        if not isinstance(found, dict):
            raise Unavailable(f"{options['what']}: the vendor's answer is not a JSON object", uncertain=method not in {"GET", "HEAD"})
        return found

    async def _sign_in(self) -> tuple[Secret, int]:
        """The client credentials grant (RFC 6749 section 4.4) at Entra ID."""
        desk = self._desk
        form = {
            "grant_type": "client_credentials",
            "client_id": self.setting("client_id"),
            "client_secret": desk.admin.open(),
            "scope": _SCOPE,
        }
        url = f"{desk.base('login')}/{quote(self.setting('tenant'))}/oauth2/v2.0/token"
        options: dict[str, Any] = {"what": "sign in at Entra ID", "right": "sign in", "changes": False, "fault": sign_in_fault}
        body = await desk.http.json("POST", url, form=form, **options)
        token, seconds = body.get("access_token"), body.get("expires_in")
        if not isinstance(token, str) or not isinstance(seconds, int | str):
            raise Unavailable("sign in at Entra ID: the answer holds no token")
        return Secret(token), desk.clock.now_ns() + int(seconds) * NANOSECONDS


def _error(answer: Answer) -> Mapping[str, Any]:
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return {}
    error = found.get("error") if isinstance(found, dict) else None
    return error if isinstance(error, dict) else found if isinstance(found, dict) else {}


def fault(answer: Answer) -> ProvisionerError | None:
    error = _error(answer)
    code, message = quoted(error.get("code"), most=100), quoted(error.get("message"))
    if answer.status in {400, 409} and code in {"InsufficientQuota", "QuotaExceeded", "DeploymentLimitReached"}:
        if "AccountCount" in message:
            return CeilingReached("accounts in this region", remedy(f"Azure's ceiling of accounts is reached: {message}"))
        return CeilingReached("capacity of this model", remedy(f"Azure's quota does not hold this: {message}"))
    if answer.status == 409 and code in {"RequestConflict", "AnotherOperationInProgress", "AccountProvisioningStateInvalid"}:
        return Unavailable(f"Azure is busy with another operation on this account ({code}); try again in a moment")
    if code in {"ResourceGroupNotFound", "SubscriptionNotFound"}:
        return NotFound(f"{code}: {message[:200]}")
    return None


def full(region: str, limit: int) -> CeilingReached:
    detail = f"All {limit} Azure OpenAI accounts of {region} are in use, deleted ones that were not purged included"
    return CeilingReached("accounts in this region", remedy(detail), ceiling=limit)


def remedy(detail: str) -> str:
    return f"{detail[:400]}; use another region or subscription, purge deleted accounts, or have Microsoft raise the quota"


def sign_in_fault(answer: Answer) -> ProvisionerError | None:
    error = _error(answer)
    if error.get("error") in {"invalid_client", "unauthorized_client"}:
        detail = "Entra ID does not accept this client id and secret; enter a valid pair, and look whether the secret has expired"
        return AdminKeyRefused(detail)
    return None
