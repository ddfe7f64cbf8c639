"""Keys at OpenAI: a project of its own for each, in it a service account, on that the keys. Limits stand on the project.

Calls and fields: openai 3.52.0 `resources/admin/organization/`, and openai-openapi (openapi.json 2.3.0), read 2026-11-20. A project is
never deleted: retiring one archives it, which ends its keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.kit.money import NANO
from keygate.kit.outbound import Answer
from keygate.kit.secret import Secret
from keygate.vendors.admin.bills import SpendFacts, SpendRow
from keygate.vendors.admin.bounds import monthly_cents
from keygate.vendors.admin.errors import CeilingReached, NotFound, ProvisionerError, Rejected, Unavailable, Unfit
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
    Term,
    Terms,
    Verification,
    Wanted,
    generation_of,
)
from keygate.vendors.admin.money import dollars_only, nano_of

_CENT_NANO = NANO // 100
_YEAR_SECONDS = 31_536_000
_READ, _PROJECTS, _ACCOUNTS = "api.management.read", "api.projects.write", "api.service_accounts.write"
_KEYS, _LIMITS, _USAGE = "api.api_keys.write", "api.limits.write", "api.usage.read"
_NOWHERE = "proj_000000000000000000000000"  # for probes: no project has this id
_MAX_PAGES = 200
_SPEND = SpendFacts(
    bucket_seconds=86_400,
    delay_seconds=None,
    restated_days=3,
    per_key=True,
    means="what OpenAI bills for a key (organization costs, by key and line item); what it tells without a key counts for its project",
)

OPENAI_FACTS = ProvisionerFacts(
    vendor="openai",
    title="OpenAI",
    hosts={"api": "https://api.openai.com/v1"},
    admin_key_env=("OPENAI_ADMIN_KEY",),
    admin_key_form="an admin key (sk-admin-…), made by an organization owner under Settings, Admin keys",
    confirms=frozenset(Term) - {Term.SCOPES},
    takes=frozenset({Term.SCOPES}),
    tells_last_use=True,
    revoke_delay_seconds=None,
    container="project",
    adopts=True,
    ceiling=2_000,
    calls_per_minute=300,
    base_url_env="OPENAI_BASE_URL",
    settings={"organization": "organization id, where the admin key has several"},
    cannot={
        "budget by day or week": "OpenAI's spend limit is monthly; KeyGate refuses another period",
        "budget of a single key": "the limit stands on the key's project, which holds no other key",
    },
    rights={
        _READ: "find and read projects, service accounts, keys and limits",
        _PROJECTS: "create and archive projects",
        _ACCOUNTS: "create service accounts",
        _KEYS: "create, change and delete keys",
        _LIMITS: "set spend limits, permitted models and rate limits",
        _USAGE: "read costs",
    },
    sources={
        "2,000 projects": "help.openai.com/en/articles/9186755, read 2026-11-20",
        "calls a minute": "not published; our own choice",
        "how long a deleted key works on": "not published; a user reports that one went on for a while "
        "(community.openai.com/t/1345417); a spend limit is enforced with a delay, says developers.openai.com/api/docs/guides/spend-limits",
        "how late last_used_at is told": "not published",
        "an unknown key is a 401 without the word scopes": "users' reports of OpenAI's answers: unverified",
        "names of rights": "as OpenAI's roles name scopes in error messages; the whole list is not published: unverified",
        "that rights are judged before the body": "unverified: what `verify` says of rights to write relies on it",
    },
)


class OpenAIProvisioner:
    """Also `Checks`, `AddsKey`, `Retires`, `SetsBudget`, `SetsLimits`, `SetsModels`, `SetsExpiry`, `Counts`, `Lists`, `Probes`,
    `ReportsSpend`. Only projects can be renamed here, not keys."""

    facts = OPENAI_FACTS
    spend_facts = _SPEND
    adds_key = True

    async def verify(self, desk: Desk) -> Verification:
        found = await _call(desk, "GET", "/organization/projects", what="list projects", right=_READ, params={"limit": 1}, accept={403})
        rights = [Right(_READ, "data" in found, self.facts.rights[_READ])]
        day_ago = desk.clock.now_ns() // NANOSECONDS - 86_400
        costs = await _call(
            desk, "GET", "/organization/costs", what="read costs", right=_USAGE, params={"start_time": day_ago, "limit": 1}, accept={403}
        )
        rights.append(Right(_USAGE, "data" in costs, self.facts.rights[_USAGE]))
        # Calls that can't succeed: a name is missing, or the project is not there. Only who lacks the right is told 403.
        probes = (
            (_PROJECTS, "POST", "/organization/projects"),
            (_ACCOUNTS, "POST", f"/organization/projects/{_NOWHERE}/service_accounts"),
            (_KEYS, "DELETE", f"/organization/projects/{_NOWHERE}/api_keys/key_0"),
            (_LIMITS, "DELETE", f"/organization/projects/{_NOWHERE}/spend_limit"),
        )
        for right, method, path in probes:
            status = await _probe(desk, method, path, right)
            held = False if status == 403 else (True if status in {400, 404, 422} else None)
            rights.append(Right(right, held, self.facts.rights[right]))
        return Verification(tuple(rights))

    def check(self, wanted: Wanted) -> None:
        """What an organization's own tier allows (the most requests a minute of a model) only OpenAI knows."""
        terms = wanted.terms
        if terms.budget_nano is not None:
            monthly_cents("OpenAI", terms.budget_nano, terms.budget_period)
        if terms.expires_at_ns is not None:
            _seconds_until(terms.expires_at_ns, wanted.now_ns)

    async def create(self, desk: Desk, order: Order) -> Made:
        self.check(Wanted.by(order, desk))
        project, account = await self._container(desk, order)
        footprint = Footprint({"project": project, "service_account": account})
        if order.generation == 1 or order.footprint is None:
            if order.terms.models is not None:
                await self.set_models(desk, footprint, order.terms.models)
            if order.terms.budget_nano is not None:
                await self.set_budget(desk, footprint, order.terms.budget_nano, order.terms.budget_period)
            await self.set_limits(desk, footprint, order.terms)
        body: dict[str, Any] = {"name": order.mark.key_name(order.generation), "scopes": list(order.terms.scopes or ())}
        if order.terms.expires_at_ns is not None:
            body["expires_in_seconds"] = _seconds_until(order.terms.expires_at_ns, desk.clock.now_ns())
        path = f"/organization/projects/{project}/service_accounts/{account}/api_keys"
        made = await _call(desk, "POST", path, what="create the key", right=_KEYS, json=body)
        key, value = made.get("id"), made.get("value")
        if not isinstance(key, str) or not isinstance(value, str):
            raise Rejected("create the key: the vendor's answer holds no key")
        base = desk.settings.get("base_url")
        env = {} if base is None else {"OPENAI_BASE_URL": desk.base()}
        return Made(Footprint(footprint.place, key), Secret(value), "OPENAI_API_KEY", env, _ns(made.get("expires_at")))

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        found: list[Found] = []
        async for project in _pages(desk, "/organization/projects", what="find the project"):
            if not str(project.get("name", "")).startswith(mark.tag):
                continue
            place = {"project": str(project["id"])}
            found.append(Found(Footprint(place), str(project["name"]), _project_presence(project)))
            keys = _pages(desk, f"/organization/projects/{project['id']}/api_keys", what="find keys", owner_project_access="any")
            found += [_found_key(desk, place, key, generation_of(str(key.get("name") or ""), mark)) async for key in keys]
        return tuple(found)

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        project = footprint.place["project"]
        path = f"/organization/projects/{project}"
        try:
            shown = await _call(desk, "GET", path, what="read the project", right=_READ)
            if _project_presence(shown) is Presence.GONE:
                return Reading(Presence.GONE)
            key: Mapping[str, Any] = {}
            if footprint.key is not None:
                key = await _call(desk, "GET", f"{path}/api_keys/{footprint.key}", what="read the key", right=_READ)
        except NotFound:
            return Reading(Presence.GONE)
        models = await self._models(desk, path)
        requests, tokens = await self._limits(desk, path, models)
        terms = Terms(
            budget_nano=await self._budget(desk, path),
            models=models,
            expires_at_ns=_ns(key.get("expires_at")),
            requests_per_minute=requests,
            tokens_per_minute=tokens,
        )
        presence = _key_presence(desk, key) if footprint.key is not None else Presence.LIVE
        return Reading(presence, terms, _ns(key.get("last_used_at")), key.get("name") or shown.get("name"))

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        if footprint.key is None:
            return
        path = f"/organization/projects/{footprint.place['project']}"
        try:
            await _call(desk, "DELETE", f"{path}/api_keys/{footprint.key}", what="delete the key", right=_KEYS)
        except NotFound:
            return
        except Rejected as error:
            # The specification of 2026-08 says that a service account's key can't be deleted, the SDK of 2026-11 that it can.
            account = footprint.place.get("service_account")
            if account is None or error.reason == "project_archived":
                raise
            shown = await _call(desk, "GET", f"{path}/service_accounts/{account}", what="read the service account", right=_READ)
            if not str(shown.get("name", "")).startswith("kg-"):
                raise  # not one of ours: other keys may hang on it
            await _call(desk, "DELETE", f"{path}/service_accounts/{account}", what="delete the service account", right=_ACCOUNTS)

    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:  # noqa: ARG002  (as the protocol has it)
        """By the list of models. A key whose scopes lack that is told so with a 401 or a 403 that names them: it is known."""
        answer = await desk.http.ask(
            "GET", f"{desk.base()}/models", what="see whether the key works", headers={"authorization": f"Bearer {secret.open()}"}
        )
        if answer.status == 401:
            return b"scopes" in answer.body or b"insufficient permissions" in answer.body
        return True if answer.status in {200, 403} else None

    async def retire(self, desk: Desk, footprint: Footprint) -> None:
        path = f"/organization/projects/{footprint.place['project']}/archive"
        try:
            await _call(desk, "POST", path, what="archive the project", right=_PROJECTS, repeatable=True)
        except NotFound:
            return

    async def set_budget(self, desk: Desk, footprint: Footprint, amount_nano: int | None, period: Period) -> None:
        path = f"/organization/projects/{footprint.place['project']}/spend_limit"
        if amount_nano is None:
            await _call(desk, "DELETE", path, what="remove the spend limit", right=_LIMITS, accept={404})
            return
        body = {"threshold_amount": monthly_cents("OpenAI", amount_nano, period), "currency": "USD", "interval": "month"}
        await _call(desk, "POST", path, what="set the spend limit", right=_LIMITS, json=body, repeatable=True)

    async def set_limits(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        """Rows stand for each model already; those of the permitted models are changed, or all."""
        wanted = {"max_requests_per_1_minute": terms.requests_per_minute, "max_tokens_per_1_minute": terms.tokens_per_minute}
        body = {name: value for name, value in wanted.items() if value is not None}
        if not body:
            return
        path = f"/organization/projects/{footprint.place['project']}/rate_limits"
        async for row in _pages(desk, path, what="list rate limits"):
            if terms.models is None or row.get("model") in terms.models:
                if all(row.get(name) == value for name, value in body.items()):
                    continue
                await _call(desk, "POST", f"{path}/{row['id']}", what=f"limit {row['model']}", right=_LIMITS, json=body, repeatable=True)

    async def set_models(self, desk: Desk, footprint: Footprint, models: tuple[str, ...] | None) -> None:
        path = f"/organization/projects/{footprint.place['project']}/model_permissions"
        if models is None:
            await _call(desk, "DELETE", path, what="permit all models", right=_LIMITS, accept={404})
            return
        body = {"mode": "allow_list", "model_ids": list(models)}
        await _call(desk, "POST", path, what="permit models", right=_LIMITS, json=body, repeatable=True)

    async def set_expiry(self, desk: Desk, footprint: Footprint, expires_at_ns: int | None) -> None:
        if expires_at_ns is None:
            raise Unfit(Term.EXPIRY, "OpenAI does not take an end away from a key; set another one")
        path = f"/organization/projects/{footprint.place['project']}/api_keys/{footprint.key}"
        body = {"expires_in_seconds": _seconds_until(expires_at_ns, desk.clock.now_ns())}
        await _call(desk, "POST", path, what="set the key's end", right=_KEYS, json=body, repeatable=True)

    async def count(self, desk: Desk, options: Mapping[str, str]) -> Census:  # noqa: ARG002  (as the protocol has it)
        """Projects that are not archived. OpenAI tells no ceiling."""
        projects = [each async for each in _pages(desk, "/organization/projects", what="count the projects")]
        return Census(
            sum(_project_presence(each) is Presence.LIVE for each in projects),
            self.facts.ceiling,
            remedy="archive some there, or have OpenAI raise the ceiling and enter it as the setting `ceiling`",
        )

    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        shown = await _call(desk, "GET", "/organization/projects", what="list projects", right=_READ, params={"limit": 20, "after": cursor})
        found: list[Found] = []
        for project in shown.get("data") or []:
            place = {"project": str(project["id"])}
            found.append(
                Found(Footprint(place), str(project.get("name")), _project_presence(project), created_at_ns=_ns(project.get("created_at")))
            )
            keys = _pages(desk, f"/organization/projects/{project['id']}/api_keys", what="list keys", owner_project_access="any")
            found += [_found_key(desk, place, key, None) async for key in keys]
        return tuple(found), shown.get("last_id") if shown.get("has_more") else None

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
        params: list[tuple[str, Any]] = [
            ("start_time", from_ns // NANOSECONDS),
            ("end_time", until_ns // NANOSECONDS),
            ("limit", 30),
            ("page", cursor),
            *(("group_by", name) for name in ("project_id", "api_key_id", "line_item")),
        ]
        shown = await _call(desk, "GET", "/organization/costs", what="read costs", right=_USAGE, params=params, exact=True)
        rows = [_spend_row(bucket, result) for bucket in shown.get("data") or [] for result in bucket.get("results") or []]
        following = shown.get("next_page")
        if shown.get("has_more") and not following:
            raise Unavailable("read costs: OpenAI says that there is more, and not where")
        return tuple(rows), following if shown.get("has_more") else None

    # Parts

    async def _container(self, desk: Desk, order: Order) -> tuple[str, str]:
        if order.footprint is not None and {"project", "service_account"} <= order.footprint.place.keys():
            return order.footprint.place["project"], order.footprint.place["service_account"]
        project = None if order.fresh else await self._project(desk, order.mark)
        if project is None:
            name = f"{order.mark.tag} {order.title}"[:200]
            made = await _call(
                desk, "POST", "/organization/projects", what="create the project", right=_PROJECTS, json={"name": name}, fault=_full
            )
            project = str(made["id"])
        path = f"/organization/projects/{project}/service_accounts"
        account = None if order.fresh else await self._account(desk, path, order.mark)
        if account is None:
            body = {"name": order.mark.tag, "create_service_account_only": True}
            made = await _call(desk, "POST", path, what="create the service account", right=_ACCOUNTS, json=body, fault=_full)
            account = str(made["id"])
        # One made without a key has the role `none`; it is let in before its first key is made, and limits come before that.
        await _call(
            desk, "POST", f"{path}/{account}", what="let the service account in", right=_ACCOUNTS, json={"role": "member"}, repeatable=True
        )
        return project, account

    async def _project(self, desk: Desk, mark: Mark) -> str | None:
        async for project in _pages(desk, "/organization/projects", what="find the project"):
            if str(project.get("name", "")).startswith(mark.tag) and _project_presence(project) is Presence.LIVE:
                return str(project["id"])
        return None

    async def _account(self, desk: Desk, path: str, mark: Mark) -> str | None:
        async for account in _pages(desk, path, what="find the service account"):
            if account.get("name") == mark.tag:
                return str(account["id"])
        return None

    async def _budget(self, desk: Desk, path: str) -> int | None:
        try:
            shown = await _call(desk, "GET", f"{path}/spend_limit", what="read the spend limit", right=_READ)
        except NotFound:
            return None
        cents = shown.get("threshold_amount")
        return cents * _CENT_NANO if isinstance(cents, int) else None

    async def _models(self, desk: Desk, path: str) -> tuple[str, ...] | None:
        try:
            shown = await _call(desk, "GET", f"{path}/model_permissions", what="read permitted models", right=_READ)
        except NotFound:
            return None
        return tuple(shown.get("model_ids") or ()) if shown.get("mode") == "allow_list" else None

    async def _limits(self, desk: Desk, path: str, models: tuple[str, ...] | None) -> tuple[int | None, int | None]:
        """Requests and tokens a minute. What holds for every permitted model alike; None where models differ."""
        requests, tokens = set(), set()
        async for row in _pages(desk, f"{path}/rate_limits", what="read rate limits"):
            if models is None or row.get("model") in models:
                requests.add(row.get("max_requests_per_1_minute"))
                tokens.add(row.get("max_tokens_per_1_minute"))
        return requests.pop() if len(requests) == 1 else None, tokens.pop() if len(tokens) == 1 else None


async def _call(desk: Desk, method: str, path: str, *, what: str, right: str, **options: Any) -> dict[str, Any]:
    return await desk.http.json(method, desk.base() + path, what=what, right=right, headers=_headers(desk), **options)


async def _probe(desk: Desk, method: str, path: str, right: str) -> int:
    """The status of a call that can't succeed. It changes nothing, so it is not written down as a step."""
    answer = await desk.http.call(
        method,
        desk.base() + path,
        what=f"ask for the right {right}",
        right=right,
        headers=_headers(desk),
        json={} if method == "POST" else None,
        accept=(400, *range(402, 500)),
        changes=False,
    )
    return answer.status


def _headers(desk: Desk) -> dict[str, str]:
    headers = {"authorization": f"Bearer {desk.admin.open()}"}
    organization = desk.settings.get("organization")
    return headers if organization is None else {**headers, "openai-organization": organization}


async def _pages(desk: Desk, path: str, *, what: str, **params: Any) -> AsyncIterator[dict[str, Any]]:
    """Every item of a list; `after` is the id of the last one seen."""
    after: str | None = None
    for _ in range(_MAX_PAGES):
        shown = await _call(desk, "GET", path, what=what, right=_READ, params={"limit": 100, "after": after, **params})
        for item in shown.get("data") or []:
            yield item
        after = shown.get("last_id")
        if not shown.get("has_more") or after is None:
            return
    raise Rejected(f"{what}: the list has no end")


def _full(answer: Answer) -> ProvisionerError | None:
    """The wording of a ceiling is not published: unverified; both words are looked for."""
    if answer.status in {400, 403, 429} and b"limit_exceeded" in answer.body and b"rate_limit" not in answer.body:
        return CeilingReached("projects" if b"project" in answer.body else "service accounts")
    return None


def _seconds_until(expires_at_ns: int, now_ns: int) -> int:
    seconds = (expires_at_ns - now_ns) // NANOSECONDS
    if not 1 <= seconds <= _YEAR_SECONDS:
        raise Unfit(Term.EXPIRY, "OpenAI's keys end within a year, and not in the past: ask for 365 days at most")
    return seconds


def _ns(seconds: Any) -> int | None:
    return seconds * NANOSECONDS if isinstance(seconds, int) else None


def _project_presence(project: Mapping[str, Any]) -> Presence:
    return Presence.GONE if project.get("status") == "archived" or project.get("archived_at") else Presence.LIVE


def _key_presence(desk: Desk, key: Mapping[str, Any]) -> Presence:
    end = _ns(key.get("expires_at"))
    if end is not None and end <= desk.clock.now_ns():
        return Presence.EXPIRED
    return Presence.DISABLED if key.get("owner_project_access") == "inactive" else Presence.LIVE


def _found_key(desk: Desk, place: Mapping[str, str], key: Mapping[str, Any], generation: int | None) -> Found:
    owner = key.get("owner") or {}
    account = owner.get("service_account") or {}
    user = owner.get("user") or {}
    where = {**place, "service_account": str(account["id"])} if account.get("id") else dict(place)
    return Found(
        Footprint(where, str(key["id"])),
        str(key.get("name") or ""),
        _key_presence(desk, key),
        generation=generation,
        last_used_at_ns=_ns(key.get("last_used_at")),
        created_at_ns=_ns(key.get("created_at")),
        owner=account.get("name") or user.get("email"),
        hint=key.get("redacted_value"),
    )


def _spend_row(bucket: Mapping[str, Any], result: Mapping[str, Any]) -> SpendRow:
    amount = result.get("amount") or {}
    project = result.get("project_id")
    dollars_only(amount.get("currency"), what="read costs")
    return SpendRow(
        place={} if project is None else {"project": str(project)},
        key=result.get("api_key_id"),
        start_ns=int(bucket["start_time"]) * NANOSECONDS,
        end_ns=int(bucket["end_time"]) * NANOSECONDS,
        item=str(result.get("line_item") or ""),
        amount_nano=nano_of(amount.get("value"), what="read costs"),
    )


OPENAI_ADMIN = OpenAIProvisioner()
