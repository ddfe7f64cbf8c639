"""Google: keys of the Gemini API (or of Vertex AI), each bound to a service account of its own.

    service account  kg-…@project        made first; disabling it is the kill switch: Google rejects it immediately
    role             roles/…             given to the account where the service asks for one: Vertex AI does, the Gemini API does not
    API key          kg-…-1              bound to the account, restricted to one service; `keyString` tells it again
    project          kg-…                only with the settings `parent` and `billing_account`: what Google caps is a project's spend

Without a project of its own a key has neither budget nor quota at Google: both belong to projects. Sources: `facts.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from secrets import token_hex
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.kit.secret import Secret
from keygate.vendors.admin.bills import SpendRow
from keygate.vendors.admin.errors import MissingRight, NotFound, Rejected, Unavailable, Unfit
from keygate.vendors.admin.google import bindings, costs, limits, rights
from keygate.vendors.admin.google.bounds import check_order
from keygate.vendors.admin.google.calls import (
    account_of,
    billing_account,
    call,
    credentials_of,
    email_of,
    finish,
    key_of,
    keys_path,
    last_of,
    moment_ns,
    own_projects,
    role_of,
    service_of,
    shared_project,
    takes_key,
    targets_of,
)
from keygate.vendors.admin.google.facts import (
    BILLING_RIGHTS,
    EXPORT_SETTING,
    FACTS,
    GEMINI,
    PROJECT_RIGHTS,
    RIGHTS,
    ROLE_RIGHTS,
    SPEND_FACTS,
    SPEND_OFF,
    VERTEX,
)
from keygate.vendors.admin.interface import (
    Census,
    Desk,
    Footprint,
    Found,
    Made,
    Mark,
    Order,
    Period,
    Presence,
    ProvisionerFacts,
    Reading,
    Right,
    Terms,
    Verification,
    Wanted,
    generation_of,
)

_LISTED_PAGES = 100
_MONTHLY = "Google's spend caps are monthly: order a budget for the month"
_MORE_PROJECTS = "delete projects that nobody needs, or have Google raise the quota of projects"
_MORE_ACCOUNTS = "delete service accounts that nobody needs, use another project, or have Google raise the quota"
_UNSEEN_NS = 300 * NANOSECONDS  # so long a new service account may not be shown
_KEYS_RETRIED = 8  # a service account that was just made is not known everywhere at once


class GoogleProvisioner:
    adds_key = True
    spend_facts = SPEND_FACTS

    @property
    def facts(self) -> ProvisionerFacts:
        return FACTS

    async def verify(self, desk: Desk) -> Verification:
        project = shared_project(desk)
        account = str(credentials_of(desk.admin)["client_email"])
        service = service_of(desk)
        wanted = {**RIGHTS, **ROLE_RIGHTS} if role_of(desk) else RIGHTS
        found = await rights.held(desk, "cloudresourcemanager", f"v3/projects/{project}", wanted)
        if parent := desk.settings.get("parent"):
            found += await rights.held(desk, "cloudresourcemanager", f"v3/{parent}", PROJECT_RIGHTS)
        if billing := billing_account(desk):
            found += await rights.held(desk, "cloudbilling", f"v1/billingAccounts/{billing}", BILLING_RIGHTS)
        notes = []
        found.append(await rights.of_policy(desk, project))
        path, what = f"v1/projects/{project}/services/{service}", f"see whether {service} is enabled"
        shown = await call(desk, "serviceusage", "GET", path, what, accept=(403, 404))
        if shown is not None and shown.get("state") != "ENABLED":
            found.append(Right(f"{service} enabled in {project}", False, "use keys: enable the service in the project"))
        if self.spend_off(desk.settings) is None:
            told, said = await rights.of_bills(desk)
            found += told
            notes += said
        if not desk.settings.get("parent"):
            notes.append(
                "keys share one project: no budget and no rate limit can be set at Google; set `parent` and `billing_account` for that"
            )
        return Verification(tuple(found), account, tuple(notes))

    def check(self, wanted: Wanted) -> None:
        check_order(wanted.terms, wanted.options, wanted.settings)

    async def create(self, desk: Desk, order: Order) -> Made:
        self.check(Wanted.by(order, desk))
        if not own_projects(desk):
            return await self._create_in(desk, shared_project(desk), order)
        project = await self._own_project(desk, order)
        try:
            return await self._create_in(desk, project, order)
        except Rejected as error:
            if error.reason == "SERVICE_DISABLED":  # enabled a moment ago: Google takes minutes to know it everywhere
                raise Unavailable(error.detail) from None
            raise

    async def _create_in(self, desk: Desk, project: str, order: Order) -> Made:
        terms, email = order.terms, await self._account(desk, project, order)
        if role := role_of(desk):
            await bindings.grant(desk, project, email, role)
        place = {"project": project, "service_account": email}
        if project != desk.settings.get("project"):
            container = Footprint(place)
            if service_of(desk) == GEMINI:
                await self.set_budget(desk, container, terms.budget_nano, terms.budget_period)
            if terms.requests_per_minute is not None:
                await self.set_limits(desk, container, terms)
        key_id, secret = await self._key(desk, project, email, order)
        at_google = "base_url" not in desk.settings
        if service_of(desk) == VERTEX:
            address = {} if at_google else {"GOOGLE_VERTEX_BASE_URL": desk.base()}
            return Made(Footprint(place, key_id), secret, "GOOGLE_API_KEY", {"GOOGLE_GENAI_USE_VERTEXAI": "true", **address})
        return Made(Footprint(place, key_id), secret, "GEMINI_API_KEY", {} if at_google else {"GOOGLE_GEMINI_BASE_URL": desk.base()})

    async def _own_project(self, desk: Desk, order: Order) -> str:
        project, parent, billing = order.mark.tag, desk.settings["parent"], billing_account(desk)
        # Google does not tell an unknown project from a forbidden one.
        found = await call(desk, "cloudresourcemanager", "GET", f"v3/projects/{project}", "find the project", accept=(403, 404))
        if found is None:
            body = {"projectId": project, "parent": parent, "displayName": project, "labels": {"keygate": "issued-key"}}
            what, right = "make the project", "resourcemanager.projects.create"
            made = await call(desk, "cloudresourcemanager", "POST", "v3/projects", what, right=right, json=body, accept=(409,))
            if made is not None:
                await finish(desk, "cloudresourcemanager", "v3", made, what)
        path, what = f"v1/projects/{project}/billingInfo", "have the project paid for"
        body = {"billingAccountName": f"billingAccounts/{billing}"}
        await call(desk, "cloudbilling", "PUT", path, what, right="resourcemanager.projects.createBillingAssignment", json=body)
        for service in (service_of(desk), "apikeys.googleapis.com", "iam.googleapis.com"):
            path, what = f"v1/projects/{project}/services/{service}:enable", f"enable {service}"
            started = await call(desk, "serviceusage", "POST", path, what, right="serviceusage.services.enable", json={}, repeatable=True)
            await finish(desk, "serviceusage", "v1", started or {}, what)
        return project

    async def _account(self, desk: Desk, project: str, order: Order) -> str:
        """The owner's service account, found or made, and enabled."""
        account = None if order.fresh else await account_of(desk, project, order.mark.tag)
        if account is None:
            body = {
                "accountId": order.mark.tag,
                "serviceAccount": {
                    "displayName": order.title.encode()[:100].decode(errors="ignore"),
                    "description": f"KeyGate {order.mark.id}",
                },
            }
            what, right = "make the service account", "iam.serviceAccounts.create"
            await call(desk, "iam", "POST", f"v1/projects/{project}/serviceAccounts", what, right=right, json=body, accept=(409,))
        elif account.get("disabled"):
            await self._switch(desk, project, email_of(project, order.mark.tag), enabled=True)
        return email_of(project, order.mark.tag)

    async def _key(self, desk: Desk, project: str, email: str, order: Order) -> tuple[str, Secret]:
        """The key and its id. A key's id stays taken for 30 days after it was deleted; a live key of this generation is taken over, as
        Google tells its string again."""
        name = order.mark.key_name(order.generation)
        restrictions: dict[str, Any] = {"apiTargets": [{"service": service_of(desk)}]}
        if addresses := [each.strip() for each in order.options.get("allowed_ips", "").split(",") if each.strip()]:
            restrictions["serverKeyRestrictions"] = {"allowedIps": addresses}
        body = {"displayName": name, "serviceAccountEmail": email, "restrictions": restrictions, "annotations": {"keygate": order.mark.id}}
        key_id = name
        if not await self._make_key(desk, project, key_id, body):
            key = await key_of(desk, project, key_id)
            if key is None or "deleteTime" in key or key.get("serviceAccountEmail") != email:
                key_id = f"{name}-{token_hex(4)}"
                if not await self._make_key(desk, project, key_id, body):
                    raise Unavailable("make the key: the id that was drawn for it is taken; try again")
        what, right = "read the key's string", "apikeys.keys.getKeyString"
        told = await call(desk, "apikeys", "GET", f"{keys_path(project)}/{key_id}/keyString", what, right=right)
        secret = (told or {}).get("keyString")
        if not isinstance(secret, str) or not secret:
            raise Unavailable("read the key's string: Google gave none")
        return key_id, Secret(secret)

    async def _make_key(self, desk: Desk, project: str, key_id: str, body: Mapping[str, Any]) -> bool:
        """Makes the key; False: its id is taken. A service account that was just made may not be known yet: that is waited for."""
        what, right, params = "make the key", "apikeys.keys.create", {"keyId": key_id}
        for attempt in range(1, _KEYS_RETRIED + 1):
            try:
                started = await call(
                    desk, "apikeys", "POST", keys_path(project), what, right=right, json=body, params=params, accept=(409,)
                )
            except (NotFound, MissingRight) as error:
                if attempt == _KEYS_RETRIED or (isinstance(error, MissingRight) and await self._really_missing(desk, project, error.right)):
                    raise
                await asyncio.sleep(min(8.0, 0.25 * 2**attempt))
                continue
            if started is None:
                return False
            await finish(desk, "apikeys", "v2", started, what)
            return True
        return False  # not come to: the last attempt ends above

    async def _really_missing(self, desk: Desk, project: str, right: str) -> bool:
        """Google refuses with the same words where the service account is not known yet."""
        if not right.startswith("iam.serviceAccount"):
            return True
        held = await rights.held(desk, "cloudresourcemanager", f"v3/projects/{project}", {right: ""})
        return not held[0].held

    async def count(self, desk: Desk, options: Mapping[str, str]) -> Census:  # noqa: ARG002  (as the protocol has it)
        """Service accounts of the shared project; where each key has a project of its own, those below `parent`, whose ceiling Google
        does not tell."""
        if own_projects(desk):
            return Census(len(await self._projects(desk)), None, place=desk.settings["parent"], remedy=_MORE_PROJECTS)
        project = shared_project(desk)
        return Census(len(await self._accounts_in(desk, project)), FACTS.ceiling, place=project, remedy=_MORE_ACCOUNTS)

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        """In the shared project and, where there are such, in the key's own: the settings may have changed since it was made."""
        found = await self._find_in(desk, shared_project(desk), mark)
        if own_projects(desk) and not await self._project_is_gone(desk, mark.tag):
            found = [Found(Footprint({"project": mark.tag}), mark.tag, Presence.LIVE), *found, *await self._find_in(desk, mark.tag, mark)]
        return tuple(found)

    async def _find_in(self, desk: Desk, project: str, mark: Mark) -> list[Found]:
        found, email = [], email_of(project, mark.tag)
        account = await account_of(desk, project, mark.tag)
        place = {"project": project, "service_account": email}
        state = Presence.DISABLED if account is not None and account.get("disabled") else Presence.LIVE
        if account is not None:
            found.append(Found(Footprint(place), mark.tag, state))
        for key in await self._keys_in(desk, project):
            name = str(key.get("displayName", ""))
            if key.get("serviceAccountEmail") == email or generation_of(name, mark) is not None:
                found.append(Found(Footprint(place, last_of(key)), name, state, generation_of(name, mark), owner=email))
        return found

    async def _keys_in(self, desk: Desk, project: str) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = []
        token: str | None = None
        for _ in range(_LISTED_PAGES):
            params = {"pageSize": 300, "pageToken": token}
            page = await call(
                desk, "apikeys", "GET", keys_path(project), "list the keys", right="apikeys.keys.list", params=params, accept=(404,)
            )
            keys += (page or {}).get("keys", [])
            token = (page or {}).get("nextPageToken")
            if not token:
                break
        return keys

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        project, email = footprint.place["project"], footprint.place.get("service_account", "")
        if await self._project_is_gone(desk, project):
            return Reading(Presence.GONE)
        key = None if footprint.key is None else await key_of(desk, project, footprint.key)
        if footprint.key is not None and (key is None or "deleteTime" in key):
            return Reading(Presence.GONE)
        if key is not None:
            email = str(key.get("serviceAccountEmail", ""))
            if not email:  # a standard key, made by hand
                return Reading(Presence.LIVE, Terms(scopes=targets_of(key)), name=str(key.get("displayName", "")))
        if not email:
            return Reading(Presence.LIVE, name=project)  # a project in which nothing was made yet
        account = await account_of(desk, project, email.partition("@")[0])
        if account is None:
            made = None if key is None else moment_ns(str(key.get("createTime", "")))
            if made is not None and desk.clock.now_ns() < made + _UNSEEN_NS:
                raise Unavailable("read the service account: Google does not show it yet, or no more")
            return Reading(Presence.GONE)  # a key whose service account was deleted is refused for good
        presence = Presence.DISABLED if account.get("disabled") else Presence.LIVE
        terms = Terms(scopes=None if key is None else targets_of(key))
        if project != desk.settings.get("project") and service_of(desk) == GEMINI:
            budget = await limits.read_cap(desk, project) if billing_account(desk) else None
            terms = Terms(budget_nano=budget, requests_per_minute=await limits.read_requests_per_minute(desk, project), scopes=terms.scopes)
        name = str((key or account or {}).get("displayName", ""))
        return Reading(presence, terms, name=name)

    async def _project_is_gone(self, desk: Desk, project: str) -> bool:
        """Google answers 403 for a project that is not there, and for one that the credential may not see. So what is not shown is looked
        for among the projects of its parent, and only what is not there either is gone. Raises `MissingRight` where it stands."""
        if project == desk.settings.get("project"):
            return False
        what, right = "read the project", "resourcemanager.projects.get"
        try:
            found = await call(desk, "cloudresourcemanager", "GET", f"v3/projects/{project}", what, right=right, accept=(404,))
        except MissingRight:
            if not desk.settings.get("parent") or project in await self._projects(desk):
                raise
            return True
        return found is None or found.get("state") != "ACTIVE"

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        """Deletes the key. Google does not say how soon a deleted key is refused; so where it is the last one of its
        service account, the account is disabled first, which counts at once."""
        project, email, key_id = footprint.place["project"], footprint.place.get("service_account", ""), footprint.key
        if key_id is None or await self._project_is_gone(desk, project):
            return
        key = await key_of(desk, project, key_id)
        if key is None or "deleteTime" in key:
            return
        ours = email.startswith("kg-") and key.get("serviceAccountEmail") == email
        if ours and not [
            each for each in await self._keys_in(desk, project) if each.get("serviceAccountEmail") == email and last_of(each) != key_id
        ]:
            await self._switch(desk, project, email, enabled=False)
        await self._delete_key(desk, project, key_id)

    async def _delete_key(self, desk: Desk, project: str, key_id: str) -> None:
        what, right = "delete the key", "apikeys.keys.delete"
        started = await call(desk, "apikeys", "DELETE", f"{keys_path(project)}/{key_id}", what, right=right, accept=(404,))
        if started is not None:
            await finish(desk, "apikeys", "v2", started, what)

    async def retire(self, desk: Desk, footprint: Footprint) -> None:
        project, email = footprint.place["project"], footprint.place.get("service_account", "")
        if await self._project_is_gone(desk, project):
            return
        if email and await account_of(desk, project, email.partition("@")[0]) is not None:
            await self._switch(desk, project, email, enabled=False)
            for key in await self._keys_in(desk, project):
                if key.get("serviceAccountEmail") == email:
                    await self._delete_key(desk, project, last_of(key))
            if role := role_of(desk):
                await bindings.withdraw(desk, project, email, role)
            what, right = "delete the service account", "iam.serviceAccounts.delete"
            await call(desk, "iam", "DELETE", f"v1/projects/{project}/serviceAccounts/{email}", what, right=right, accept=(404,))
        if project != desk.settings.get("project"):
            if billing_account(desk):
                await limits.set_cap(desk, project, None)
            what, right = "delete the project", "resourcemanager.projects.delete"
            started = await call(desk, "cloudresourcemanager", "DELETE", f"v3/projects/{project}", what, right=right, accept=(404,))
            await finish(desk, "cloudresourcemanager", "v3", started or {}, what)

    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        await self._switch(desk, footprint.place["project"], footprint.place["service_account"], enabled=enabled)

    async def _switch(self, desk: Desk, project: str, email: str, *, enabled: bool) -> None:
        verb = "enable" if enabled else "disable"
        path = f"v1/projects/{project}/serviceAccounts/{email}:{verb}"
        what = f"{verb} the service account"
        await call(desk, "iam", "POST", path, what, right=f"iam.serviceAccounts.{verb}", json={}, repeatable=True)

    async def rename(self, desk: Desk, footprint: Footprint, name: str) -> None:
        if footprint.key is None:
            path = f"v1/projects/{footprint.place['project']}/serviceAccounts/{footprint.place['service_account']}"
            body = {"serviceAccount": {"displayName": name}, "updateMask": "displayName"}
            await call(
                desk, "iam", "PATCH", path, "rename the service account", right="iam.serviceAccounts.update", json=body, repeatable=True
            )
            return
        path, what = f"{keys_path(footprint.place['project'])}/{footprint.key}", "rename the key"
        params, body = {"updateMask": "displayName"}, {"displayName": name[:63]}
        started = await call(desk, "apikeys", "PATCH", path, what, right="apikeys.keys.update", params=params, json=body, repeatable=True)
        await finish(desk, "apikeys", "v2", started or {}, what)

    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:  # noqa: ARG002  (as the protocol has it)
        """By the Gemini API's list of models; of Vertex AI no call is known that costs nothing."""
        if service_of(desk) == VERTEX:
            return None
        url, what = f"{desk.base()}/v1beta/models?pageSize=1", "see whether the key works"
        return takes_key(await desk.http.ask("GET", url, what=what, headers={"x-goog-api-key": secret.open()}))

    async def set_budget(self, desk: Desk, footprint: Footprint, amount_nano: int | None, period: Period) -> None:
        project = footprint.place["project"]
        if amount_nano is not None and period is not Period.MONTH:
            raise Unfit("budget_period", _MONTHLY)
        if project == desk.settings.get("project"):
            if amount_nano is None:
                return
            raise Rejected(
                "Google caps the spend of projects, and this key shares one: make a new key with `parent` and `billing_account` set"
            )
        await limits.set_cap(desk, project, amount_nano)

    async def set_limits(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        project = footprint.place["project"]
        if project == desk.settings.get("project"):
            if terms.requests_per_minute is None:
                return
            raise Rejected("Google limits the requests of projects, and this key shares one: make a new key with `parent` set")
        await limits.set_requests_per_minute(desk, project, terms.requests_per_minute)

    def spend_off(self, settings: Mapping[str, str]) -> str | None:
        if costs.table_of(settings) is not None:
            return None
        wrong = f"`{EXPORT_SETTING}` is set to what is no such table. " if settings.get(EXPORT_SETTING) else ""
        return wrong + SPEND_OFF

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
        return await costs.page(desk, from_ns, until_ns, cursor)

    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        """Keys of one project after another: the shared one, then each below `parent`. The cursor is the project's number in that list."""
        projects = [shared_project(desk), *await self._projects(desk)]
        index = int(cursor or 0)
        if index >= len(projects):
            return (), None
        project = projects[index]
        accounts = {str(each.get("email", "")): each for each in await self._accounts_in(desk, project)}
        found = [_container(project, each) for each in accounts.values() if str(each.get("email", "")).startswith("kg-")]
        found += [_listed(project, key, accounts) for key in await self._keys_in(desk, project)]
        return tuple(found), str(index + 1) if index + 1 < len(projects) else None

    async def _accounts_in(self, desk: Desk, project: str) -> list[dict[str, Any]]:
        accounts: list[dict[str, Any]] = []
        token: str | None = None
        for _ in range(_LISTED_PAGES):
            what, right, params = "list the service accounts", "iam.serviceAccounts.list", {"pageSize": 100, "pageToken": token}
            page = await call(desk, "iam", "GET", f"v1/projects/{project}/serviceAccounts", what, right=right, params=params) or {}
            accounts += page.get("accounts", [])
            token = page.get("nextPageToken")
            if not token:
                break
        return accounts

    async def _projects(self, desk: Desk) -> list[str]:
        parent, projects, token = desk.settings.get("parent"), [], None
        for _ in range(_LISTED_PAGES if parent else 0):
            params = {"parent": parent, "pageSize": 300, "pageToken": token}
            what, right = "list the projects", "resourcemanager.projects.list"
            page = await call(desk, "cloudresourcemanager", "GET", "v3/projects", what, right=right, params=params)
            projects += [str(each["projectId"]) for each in (page or {}).get("projects", []) if each.get("state") == "ACTIVE"]
            token = (page or {}).get("nextPageToken")
            if not token:
                break
        return [project for project in projects if project != desk.settings.get("project")]


def _presence(account: Mapping[str, Any] | None) -> Presence:
    """Of a key, by its service account: a key whose account was deleted is refused for good."""
    if account is None:
        return Presence.GONE
    return Presence.DISABLED if account.get("disabled") else Presence.LIVE


def _container(project: str, account: Mapping[str, Any]) -> Found:
    email = str(account.get("email", ""))
    return Found(Footprint({"project": project, "service_account": email}), email.partition("@")[0], _presence(account), owner=email)


def _listed(project: str, key: Mapping[str, Any], accounts: Mapping[str, Mapping[str, Any]]) -> Found:
    email = str(key.get("serviceAccountEmail", ""))
    return Found(
        Footprint({"project": project, **({"service_account": email} if email else {})}, last_of(key)),
        str(key.get("displayName", "")),
        _presence(accounts.get(email)) if email else Presence.LIVE,
        created_at_ns=moment_ns(str(key.get("createTime", ""))),
        owner=email or None,
        terms=Terms(scopes=targets_of(key)),
    )
