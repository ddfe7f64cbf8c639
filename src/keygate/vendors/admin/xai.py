"""xAI: a team's API keys, each with its own models, endpoints, requests and tokens per minute, and end.

There is no container: the key itself bears our mark in its name, and a new generation is a new key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from keygate.kit.clock import NANOSECONDS, from_ns, rfc3339, to_ns
from keygate.kit.outbound import Answer
from keygate.kit.secret import Secret
from keygate.vendors.admin.bills import SpendFacts, SpendRow
from keygate.vendors.admin.errors import CeilingReached, MissingRight, NotFound, ProvisionerError, Rejected, Unavailable, Unfit
from keygate.vendors.admin.interface import (
    Desk,
    Footprint,
    Found,
    Made,
    Mark,
    Order,
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
from keygate.vendors.admin.money import nano_of

_MODEL, _ENDPOINT = "api-key:model:", "api-key:endpoint:"
_PAGES = 200
_MAX_PER_SECOND = 1_000_000  # our own: xAI publishes none
_PROPAGATION_TRIES = 12
_READ, _WRITE, _BILLING = "API keys: read", "API keys: write", "Billing: read"
_DAY_NS = 86_400 * NANOSECONDS
_SPEND = SpendFacts(
    bucket_seconds=86_400,
    delay_seconds=None,
    restated_days=3,
    per_key=True,
    means="what xAI's usage report of the team tells for a key, in dollars, by billing item and UTC day",
)

_FACTS = ProvisionerFacts(
    vendor="xai",
    title="xAI",
    hosts={"api": "https://api.x.ai", "management": "https://management-api.x.ai"},
    admin_key_env=("XAI_MANAGEMENT_KEY", "XAI_MANAGEMENT_API_KEY"),
    admin_key_form="a management key (xAI Console, Settings, Management Keys); an API key will not do",
    confirms=frozenset({Term.MODELS, Term.REQUESTS_PER_MINUTE, Term.TOKENS_PER_MINUTE, Term.SCOPES, Term.EXPIRY}),
    tells_last_use=False,
    revoke_delay_seconds=None,
    container="",
    ceiling=None,
    calls_per_minute=60,
    base_url_env=None,
    settings={"team": "the team's id; only needed where the management key does not tell it"},
    options={"requests_per_second": "the most requests in a second"},
    cannot={
        "budget": "xAI limits the spend of a team, not of a key: KeyGate watches the key's spend and disables it; use a virtual key where "
        "money must be limited hard",
        "last use": "xAI's API does not tell when a key was last used",
    },
    rights={_READ: "find keys and read them back", _WRITE: "make, change and delete keys", _BILLING: "read what keys cost"},
    sources={
        "calls, access lists, limits, propagation": "docs.x.ai/docs/key-information/using-management-api and "
        "docs.x.ai/docs/management-api/auth, as public copies have them, read 2026-11-26",
        "a key is updated at /auth/api-keys/{id}": "docs.x.ai/docs/management-api/auth; the guide says the team's path: not "
        "verified with xAI",
        "that a deleted key's propagation is told as 404": "not verified: without it, a list that is late shows the key for so long",
        "an unknown key is a 401, or a 400 that says so": "users' reports of xAI's answers: unverified",
        "usage report": "POST /v1/billing/teams/{team}/usage: docs.x.ai/developers/rest-api-reference/management/billing; its body and "
        "answer: xai-org/xai-proto, xai/management_api/v1/billing.proto and xai/shared/analytics/analytics.proto; read 2026-11-26",
        "usage by key": "that `api_key_id` can be grouped by: a public client that was run against xAI does so; that the group's value is "
        "the key's id (and not only its label): not verified; a key that is not recognised stands among the unknown ones",
        "delay and restatement of the usage report": "not published: not verified",
        "names of the management key's rights, delay of a deletion, rate limit": "not published: not verified",
    },
)


class XaiProvisioner:
    adds_key = True
    spend_facts = _SPEND

    @property
    def facts(self) -> ProvisionerFacts:
        return _FACTS

    async def verify(self, desk: Desk) -> Verification:
        """The right to write can't be told without making a key: xAI publishes no names of it."""
        team = await self._team(desk)
        try:
            await _call(desk, "GET", f"/auth/teams/{team}/api-keys", "list the keys", params={"pageSize": 1})
        except MissingRight:
            reads = False
        else:
            reads = True
        billed, notes = await self._reads_costs(desk, team)
        held = {_READ: reads, _WRITE: None, _BILLING: billed}
        rights = tuple(Right(name, held[name], why) for name, why in _FACTS.rights.items())
        return Verification(rights, f"team {team}", notes, identity=team)

    async def _reads_costs(self, desk: Desk, team: str) -> tuple[bool | None, tuple[str, ...]]:
        """Keys can be made without it: where costs can't be read, that is noted and no right called missing."""
        now = desk.clock.now_ns()
        question = _question(now - _DAY_NS, now)
        try:
            await _call(desk, "POST", _usage_path(team), "read costs", right=_BILLING, json=question, changes=False)
        except ProvisionerError as error:
            return None, (f"what keys cost can't be read: {error.detail}",)
        return True, ()

    async def _team(self, desk: Desk) -> str:
        if team := desk.settings.get("team"):
            await _call(desk, "GET", "/auth/management-keys/validation", "see whose the management key is")
            return team
        told = await _call(desk, "GET", "/auth/management-keys/validation", "see whose the management key is")
        team = (told.get("scopeId") if told.get("scope") == "SCOPE_TEAM" else None) or told.get("teamId")
        if not isinstance(team, str) or not team:
            raise Rejected("xAI does not tell which team the management key is of: enter the setting `team`")
        return team

    async def _team_of(self, desk: Desk, place: Mapping[str, str] | None = None) -> str:
        return (place or {}).get("team") or desk.settings.get("team") or await self._team(desk)

    def check(self, wanted: Wanted) -> None:
        per_second = wanted.options.get("requests_per_second")
        if per_second and not (per_second.isascii() and per_second.isdecimal() and 1 <= int(per_second) <= _MAX_PER_SECOND):
            raise Unfit("options.requests_per_second", f"write a whole number, 1 to {_MAX_PER_SECOND}")

    async def create(self, desk: Desk, order: Order) -> Made:
        terms = order.terms
        self.check(Wanted.by(order, desk))
        team = await self._team_of(desk, order.footprint.place if order.footprint else None)
        body: dict[str, Any] = {
            "name": order.mark.key_name(order.generation),
            "acls": _acls(terms),
            "qpm": terms.requests_per_minute,
            "tpm": None if terms.tokens_per_minute is None else str(terms.tokens_per_minute),
            "expireTime": rfc3339(terms.expires_at_ns),
        }
        if per_second := order.options.get("requests_per_second"):
            body["qps"] = int(per_second)
        made = await _call(desk, "POST", f"/auth/teams/{team}/api-keys", "make the key", right=_WRITE, json=_told(body))
        secret, key_id = made.get("apiKey"), made.get("apiKeyId")
        if not isinstance(secret, str) or not secret or not isinstance(key_id, str) or not key_id:
            raise Unavailable("make the key: xAI's answer holds no key", uncertain=True)
        await self._propagated(desk, key_id)
        env = {"XAI_BASE_URL": f"{desk.base()}/v1"} if "base_url" in desk.settings else {}
        return Made(Footprint({"team": team}, key_id), Secret(secret), "XAI_API_KEY", env, terms.expires_at_ns)

    async def _propagated(self, desk: Desk, key_id: str) -> None:
        """Waits until every cluster knows the key, some seconds at most; the key is made either way, so nothing here fails."""
        pause = 0.1
        for _ in range(_PROPAGATION_TRIES):
            try:
                clusters = await self._clusters(desk, key_id)
            except ProvisionerError:
                return
            if all(clusters.values()):
                return
            await asyncio.sleep(pause)
            pause = min(2.0, pause * 2)

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        team = await self._team_of(desk)
        keys = await self._keys(desk, team)
        return tuple(_found(key, team, mark) for key in keys if generation_of(str(key.get("name", "")), mark) is not None)

    async def _keys(self, desk: Desk, team: str) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = []
        token: str | None = None
        for _ in range(_PAGES):
            page, token = await self._page(desk, team, token)
            keys += page
            if not token:
                break
        return keys

    async def _page(self, desk: Desk, team: str, token: str | None) -> tuple[list[dict[str, Any]], str | None]:
        params = {"pageSize": 100, "paginationToken": token}
        page = await _call(desk, "GET", f"/auth/teams/{team}/api-keys", "list the keys", params=params)
        keys = page.get("apiKeys")
        following = page.get("paginationToken")
        return (list(keys) if isinstance(keys, list) else []), str(following) if following else None

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        """xAI has no call for one key: it is looked for in the list, which may be late. Where list and clusters disagree, the clusters
        are right: a key that they know is not gone, and one that is not there is gone."""
        team = await self._team_of(desk, footprint.place)
        listed = next((key for key in await self._keys(desk, team) if key.get("apiKeyId") == footprint.key), None)
        if footprint.key is None:
            return Reading(Presence.GONE)
        try:
            clusters = await self._clusters(desk, footprint.key)
        except NotFound:
            return Reading(Presence.GONE)
        except MissingRight:
            clusters = {}
        if listed is not None:
            return Reading(_presence(listed, desk.clock.now_ns()), _terms(listed), name=str(listed.get("name", "")))
        if any(clusters.values()):
            raise Unavailable("read the key: xAI's clusters know it, and its list does not show it yet, or no more")
        return Reading(Presence.GONE)

    async def _clusters(self, desk: Desk, key_id: str) -> dict[str, Any]:
        """Which of xAI's clusters know the key. Raises `NotFound` for one that is not there."""
        told = await _call(desk, "GET", f"/auth/api-keys/{key_id}/propagation", "see whether the key is known everywhere")
        clusters = told.get("icPropagation")
        return clusters if isinstance(clusters, dict) else {}

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        if footprint.key is None:
            return
        try:
            await _call(desk, "DELETE", f"/auth/api-keys/{footprint.key}", "delete the key", right=_WRITE)
        except NotFound:
            return

    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:  # noqa: ARG002  (as the protocol has it)
        """By the list of models, which a key may lack the endpoint for (403): it is known all the same."""
        what, headers = "see whether the key works", {"authorization": f"Bearer {secret.open()}"}
        answer = await desk.http.ask("GET", f"{desk.base()}/v1/models", what=what, headers=headers)
        if answer.status == 401 or (answer.status == 400 and b"incorrect api key" in answer.body.lower()):
            return False
        return True if answer.status in {200, 403} else None

    async def _update(self, desk: Desk, footprint: Footprint, what: str, **members: Any) -> None:
        body = {"apiKey": {"apiKeyId": footprint.key, **members}, "fieldMask": ",".join(members)}
        await _call(desk, "PUT", f"/auth/api-keys/{footprint.key}", what, right=_WRITE, json=body)

    async def set_limits(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        tokens = None if terms.tokens_per_minute is None else str(terms.tokens_per_minute)
        await self._update(desk, footprint, "set the key's limits", qpm=terms.requests_per_minute, tpm=tokens)

    async def set_models(self, desk: Desk, footprint: Footprint, models: tuple[str, ...] | None) -> None:
        scopes = (await self.read(desk, footprint)).terms.scopes
        await self._update(desk, footprint, "set the key's models", acls=_acls(Terms(models=models, scopes=scopes)))

    async def set_expiry(self, desk: Desk, footprint: Footprint, expires_at_ns: int | None) -> None:
        await self._update(desk, footprint, "set the key's end", expireTime=rfc3339(expires_at_ns))

    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        await self._update(desk, footprint, "enable the key" if enabled else "disable the key", disabled=not enabled)

    async def rename(self, desk: Desk, footprint: Footprint, name: str) -> None:
        await self._update(desk, footprint, "rename the key", name=name)

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:  # noqa: ARG002  (the report has no pages)
        """The report has no pages: where it is cut off it says so, and fewer days are asked for."""
        team = await self._team_of(desk)
        what, body = "read costs", _question(from_ns, until_ns)
        told = await _call(desk, "POST", _usage_path(team), what, right=_BILLING, json=body, changes=False, exact=True)
        if told.get("limitReached"):
            raise Rejected(
                "read costs: xAI's report is cut off, as it has more keys and items than xAI tells at a time", reason="limitReached"
            )
        return tuple(row for series in told.get("timeSeries") or [] for row in _spend_rows(series)), None

    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        team = await self._team_of(desk)
        page, following = await self._page(desk, team, cursor)
        return tuple(_found(key, team, None, desk.clock.now_ns()) for key in page), following


async def _call(desk: Desk, method: str, path: str, what: str, *, right: str = _READ, **options: Any) -> dict[str, Any]:
    headers = {"authorization": f"Bearer {desk.admin.open()}"}
    return await desk.http.json(
        method, f"{desk.base('management')}{path}", what=what, right=right, headers=headers, fault=_fault, **options
    )


def _usage_path(team: str) -> str:
    return f"/v1/billing/teams/{team}/usage"


def _question(from_ns: int, until_ns: int) -> dict[str, Any]:
    """Dollars by day, key and billing item; the end is not included, and never before the begin's second."""
    until_s = max(-(-until_ns // NANOSECONDS), from_ns // NANOSECONDS + 1)
    times = {"startTime": _second(from_ns), "endTime": _second(until_s * NANOSECONDS), "timezone": "Etc/GMT"}
    return {
        "analyticsRequest": {
            "timeRange": times,
            "timeUnit": "TIME_UNIT_DAY",
            "values": [{"name": "usd", "aggregation": "AGGREGATION_SUM"}],
            "groupBy": ["api_key_id", "description"],
        }
    }


def _second(moment_ns: int) -> str:
    return from_ns(moment_ns).strftime("%Y-%m-%d %H:%M:%S")


def _spend_rows(series: Mapping[str, Any]) -> list[SpendRow]:
    """Days of one key and item; the report has one for every day of the range, with nothing on most. The team is no place of a key's own:
    it is told nowhere."""
    group: list[Any] = series.get("group") or []
    key, item, *_ = [*group, "", ""]
    rows = []
    for point in series.get("dataPoints") or []:
        start_ns = _moment_ns(point.get("timestamp"))
        values = point.get("values") or [0]  # protobuf's JSON leaves nothing out of a list, but an empty list altogether
        if start_ns is None:
            raise Unavailable("read costs: xAI tells a cost without its day")
        amount = nano_of(values[0], what="read costs")
        if amount:
            start_ns = start_ns // _DAY_NS * _DAY_NS
            rows.append(SpendRow({}, str(key) or None, start_ns, start_ns + _DAY_NS, str(item), amount))
    return rows


def _fault(answer: Answer) -> ProvisionerError | None:
    """That a ceiling on keys is told so is not verified; anything else with a 429 is waited out."""
    told = answer.body[:500]
    full = answer.status == 429 and b"limit" in told and b"API keys" in told and b"rate limit" not in told.lower()
    return CeilingReached("API keys in the team") if full else None


def _told(body: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _acls(terms: Terms) -> list[str]:
    """Access lists for models and endpoints; everything where nothing is said."""
    models, endpoints = terms.models or ("*",), terms.scopes or ("*",)
    return [*(f"{_MODEL}{model}" for model in models), *(f"{_ENDPOINT}{endpoint}" for endpoint in endpoints)]


def _listed(acls: Any, prefix: str) -> tuple[str, ...] | None:
    names = tuple(str(acl)[len(prefix) :] for acl in acls if str(acl).startswith(prefix)) if isinstance(acls, list) else ()
    return None if "*" in names else names


def _terms(key: Mapping[str, Any]) -> Terms:
    return Terms(
        models=_listed(key.get("acls"), _MODEL),
        requests_per_minute=_whole(key.get("qpm")),
        tokens_per_minute=_whole(key.get("tpm")),
        scopes=_listed(key.get("acls"), _ENDPOINT),
        expires_at_ns=_moment_ns(key.get("expireTime")),
    )


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int) or (isinstance(value, str) and value.isdecimal()) else None


def _moment_ns(value: Any) -> int | None:
    try:
        return to_ns(datetime.fromisoformat(value)) if isinstance(value, str) and value else None
    except ValueError:
        return None


def _presence(key: Mapping[str, Any], now_ns: int | None) -> Presence:
    expires = _moment_ns(key.get("expireTime"))
    if expires is not None and now_ns is not None and expires <= now_ns:
        return Presence.EXPIRED
    return Presence.DISABLED if key.get("disabled") else Presence.LIVE


def _found(key: Mapping[str, Any], team: str, mark: Mark | None, now_ns: int | None = None) -> Found:
    name = str(key.get("name", ""))
    return Found(
        Footprint({"team": team}, str(key.get("apiKeyId", ""))),
        name,
        _presence(key, now_ns),
        generation=generation_of(name, mark) if mark is not None else None,
        created_at_ns=_moment_ns(key.get("createTime")),
        owner=str(key["userId"]) if key.get("userId") else None,
        hint=str(key["redactedApiKey"]) if key.get("redactedApiKey") else None,
        terms=_terms(key),
    )
