"""Keys at OpenRouter: each with a limit in dollars, its reset and its end on the key itself. There is no container.

Calls and fields: openrouter 1.3.84 `api_keys.py`, `analytics.py` and `operations/`, read 2026-11-26. A limit resets at midnight UTC, weeks
begin on Monday. An end can't be changed once the key is made.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from keygate.kit.clock import NANOSECONDS, from_ns, to_ns
from keygate.kit.secret import Secret
from keygate.vendors.admin.bills import MISSHAPEN, SpendFacts, SpendRow
from keygate.vendors.admin.bounds import whole
from keygate.vendors.admin.errors import NotFound, ProvisionerError, Rejected, ToldInPart, Unavailable
from keygate.vendors.admin.interface import (
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
from keygate.vendors.admin.money import nano_of

_READ, _WRITE, _ACTIVITY = "keys:read", "keys:write", "activity:read"
_NO_KEY = "0" * 64  # for probes: the digest of nothing
_MAX_PAGES = 1_000
_RESETS = {Period.DAY: "daily", Period.WEEK: "weekly", Period.MONTH: "monthly", Period.LIFETIME: None}
_PERIODS = {reset: period for period, reset in _RESETS.items()}
_DAY_NS = 86_400 * NANOSECONDS
_REACH_DAYS = 30  # `/activity` tells the last 30 complete days
_ITEM = "usage"  # a day's cost of a key is one item, so that a day told anew, when it is over, replaces what was told of it before
_SPEND = SpendFacts(
    bucket_seconds=86_400,
    delay_seconds=None,
    restated_days=2,
    per_key=True,
    means="what a key has used of OpenRouter's credits, in dollars, by UTC day",
    reach_days=_REACH_DAYS,
    forgets_keys=True,  # a deleted key is in no list: what it cost is read before it is deleted
)

OPENROUTER_FACTS = ProvisionerFacts(
    vendor="openrouter",
    title="OpenRouter",
    hosts={"api": "https://openrouter.ai/api/v1"},
    admin_key_env=("OPENROUTER_MANAGEMENT_KEY", "OPENROUTER_PROVISIONING_KEY"),
    admin_key_form="a management key, made under Settings, Management keys; it can't be used for inference",
    confirms=frozenset({Term.BUDGET, Term.EXPIRY}),
    tells_last_use=True,
    revoke_delay_seconds=None,
    container="",
    budget_per_key=True,
    adopts=True,
    ceiling=None,
    calls_per_minute=120,
    base_url_env="OPENROUTER_BASE_URL",
    settings={"workspace_id": "workspace in which keys are made; the default workspace where it is not named"},
    cannot={
        "models": "permitted models stand on OpenRouter's guardrails, which KeyGate does not set; a virtual key has them",
        "requests_per_minute": "OpenRouter has no limit of requests on a key; a virtual key has one",
        "tokens_per_minute": "OpenRouter has no limit of tokens on a key; a virtual key has one",
        "scopes": "a key of OpenRouter has none",
        "change of the end": "the end is set when the key is made; KeyGate ends a key earlier itself, and a later end needs another key",
        "one budget over rotations": "the limit counts what the key itself has spent, and the next key begins with a whole one: after a "
        "rotation KeyGate watches what all keys together have spent, by OpenRouter's bill, and disables the key at the budget: late, not "
        "hard",
    },
    rights={
        _READ: "find and read keys and what they have spent",
        _WRITE: "make, change and delete keys",
        _ACTIVITY: "read what complete days cost by key",
    },
    sources={
        "fields, resets, seconds in expires_at": "openrouter 1.3.84 `operations/createkeys.py`, read 2026-11-26",
        "keys of a list's page": "not published: pages are read until one is empty",
        "names of rights": "a management key has no scopes that are published: the names are ours",
        "calls a minute": "not published; our own choice",
        "how long a deleted key works on": "not published",
        "how soon a use is in a key's `usage`": "not published",
        "that /activity still tells of a deleted key": "unverified: what it cost is read before it is deleted, and asked for again after",
        "what a key tells of itself (GET /key)": "openrouter.ai/docs/api-reference/limits, from memory; that a deleted one gets a 401: "
        "unverified",
        "OPENROUTER_BASE_URL": "the SDK takes `server_url=` and reads no variable: the name is ours",
    },
)


class OpenRouterProvisioner:
    """Also `Checks`, `AddsKey`, `SetsBudget`, `Disables`, `Renames`, `Lists`, `Probes`, `ReportsSpend`, `TellsLastSpend`."""

    facts = OPENROUTER_FACTS
    spend_facts = _SPEND
    adds_key = True

    async def verify(self, desk: Desk) -> Verification:
        listed = await _call(desk, "GET", "/keys", what="list keys", right=_READ, accept={403})  # 404: no API is at this address
        activity = await _status(desk, "GET", "/activity", _ACTIVITY)
        # Can't succeed: there is no such key. Only who lacks the right is told 403.
        changed = await _status(desk, "DELETE", f"/keys/{_NO_KEY}", _WRITE)
        held = {
            _READ: "data" in listed,
            _WRITE: {404: True, 400: True, 403: False}.get(changed),
            _ACTIVITY: {200: True, 403: False}.get(activity),
        }
        return Verification(tuple(Right(name, held[name], needed_for) for name, needed_for in self.facts.rights.items()))

    def check(self, wanted: Wanted) -> None:
        _limit(wanted.terms.budget_nano, wanted.terms.budget_period)

    async def create(self, desk: Desk, order: Order) -> Made:
        terms = order.terms
        body: dict[str, Any] = {"name": order.mark.key_name(order.generation), **_limit(terms.budget_nano, terms.budget_period)}
        if terms.expires_at_ns is not None:
            body["expires_at"] = from_ns(terms.expires_at_ns // NANOSECONDS * NANOSECONDS).strftime("%Y-%m-%dT%H:%M:%SZ")
        if "workspace_id" in desk.settings:
            body["workspace_id"] = desk.settings["workspace_id"]
        made = await _call(desk, "POST", "/keys", what="create the key", right=_WRITE, json=body)
        shown, value = made.get("data"), made.get("key")
        if not isinstance(shown, dict) or not isinstance(shown.get("hash"), str) or not isinstance(value, str):
            raise Rejected("create the key: the vendor's answer holds no key")
        env = {} if desk.settings.get("base_url") is None else {"OPENROUTER_BASE_URL": desk.base()}
        return Made(Footprint({}, shown["hash"]), Secret(value), "OPENROUTER_API_KEY", env, _moment(shown.get("expires_at")))

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        keys = _keys(desk, what="find keys")
        return tuple([_found(desk, key, mark) async for key in keys if generation_of(str(key.get("name") or ""), mark) is not None])

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        if footprint.key is None:
            return Reading(Presence.GONE)
        try:
            answer = await _call(desk, "GET", f"/keys/{footprint.key}", what="read the key", right=_READ)
        except NotFound:
            return Reading(Presence.GONE)
        shown = answer.get("data") or {}
        return Reading(_presence(desk, shown), _terms(shown), _moment(shown.get("last_used_at")), shown.get("name"))

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        if footprint.key is None:
            return
        try:
            await _call(desk, "DELETE", f"/keys/{footprint.key}", what="delete the key", right=_WRITE)
        except NotFound:
            return

    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:  # noqa: ARG002  (as the protocol has it)
        """By what OpenRouter tells a key of itself; its list of models is open to anybody."""
        what, headers = "see whether the key works", {"authorization": f"Bearer {secret.open()}"}
        answer = await desk.http.ask("GET", f"{desk.base()}/key", what=what, headers=headers)
        return {200: True, 402: True, 401: False}.get(answer.status)

    async def set_budget(self, desk: Desk, footprint: Footprint, amount_nano: int | None, period: Period) -> None:
        await self._update(desk, footprint, "set the key's limit", **_limit(amount_nano, period))

    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        await self._update(desk, footprint, "enable the key" if enabled else "disable the key", disabled=not enabled)

    async def rename(self, desk: Desk, footprint: Footprint, name: str) -> None:
        await self._update(desk, footprint, "rename the key", name=name)

    async def _update(self, desk: Desk, footprint: Footprint, what: str, **body: Any) -> None:
        await _call(desk, "PATCH", f"/keys/{footprint.key}", what=what, right=_WRITE, json=body, repeatable=True)

    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        offset = int(cursor or 0)
        page = await _page(desk, offset, what="list keys")
        return tuple(_found(desk, key, None) for key in page), str(offset + len(page)) if page else None

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
        """A page of keys. Complete days come from the activity report, the running one from the key itself. `cursor`: how many keys were
        told, and the last of them. The report is asked for keys alone that can be in it: a call for each is many."""
        told, _, last = (cursor or "0|").partition("|")
        offset = int(told)
        page = await _page(desk, offset, what="read what keys have spent")
        if page and page[-1]["hash"] == last:
            raise Unavailable("read what keys have spent: the list has no end")
        today_ns = desk.clock.now_ns() // _DAY_NS * _DAY_NS
        rows: list[SpendRow] = []
        for key in page:
            used_ns = _moment(key.get("last_used_at"))
            if from_ns < today_ns and key.get("usage") and (used_ns is None or used_ns >= from_ns - _DAY_NS):
                rows += await self._days(desk, str(key["hash"]), from_ns, until_ns)
            if until_ns > today_ns:
                rows.append(_running(key, today_ns))
        return tuple(rows), f"{offset + len(page)}|{page[-1]['hash']}" if page else None

    async def last_spend(self, desk: Desk, footprint: Footprint) -> tuple[SpendRow, ...]:
        for _ in range(2):  # over midnight the vendor may mean the one day or the other
            today_ns = desk.clock.now_ns() // _DAY_NS * _DAY_NS
            shown = await _call(desk, "GET", f"/keys/{footprint.key}", what="read what the key has spent", right=_READ)
            if desk.clock.now_ns() < today_ns + _DAY_NS:
                break
        key = shown["data"]
        running = _running(key, today_ns)
        if not key.get("usage") and key.get("last_used_at") is None:
            return (replace(running, requests=0),)
        if _nano(key.get("usage")) == running.amount_nano:
            return (running,)
        try:
            days = await self._days(desk, str(key["hash"]), today_ns - _REACH_DAYS * _DAY_NS, today_ns)
        except ProvisionerError as error:
            raise ToldInPart((running,), error) from None
        except MISSHAPEN:
            raise ToldInPart((running,), Unavailable("read what days cost: it is told in a shape that KeyGate does not know")) from None
        return (*days, running)

    async def spend_of_gone(self, desk: Desk, key: str, from_ns: int, until_ns: int) -> tuple[SpendRow, ...]:
        try:
            return tuple(await self._days(desk, key, from_ns, until_ns))
        except NotFound:
            return ()

    async def _days(self, desk: Desk, key: str, from_ns: int, until_ns: int) -> list[SpendRow]:
        params = {"api_key_hash": key}
        shown = await _call(desk, "GET", "/activity", what="read what days cost", right=_ACTIVITY, params=params)
        days: dict[int, list[Mapping[str, Any]]] = {}
        for row in shown.get("data") or []:
            start_ns = to_ns(datetime.strptime(str(row["date"])[:10], "%Y-%m-%d").replace(tzinfo=UTC))
            if start_ns + _DAY_NS > from_ns and start_ns < until_ns:
                days.setdefault(start_ns, []).append(row)
        return [
            SpendRow(
                place={},
                key=key,
                start_ns=start_ns,
                end_ns=start_ns + _DAY_NS,
                item=_ITEM,
                amount_nano=sum(_nano(row.get("usage")) for row in told),
                requests=sum(int(row.get("requests") or 0) for row in told),
                input_tokens=sum(int(row.get("prompt_tokens") or 0) for row in told),
                output_tokens=sum(int(row.get("completion_tokens") or 0) for row in told),
            )
            for start_ns, told in days.items()
        ]


def _headers(desk: Desk) -> dict[str, str]:
    return {"authorization": f"Bearer {desk.admin.open()}"}


async def _call(desk: Desk, method: str, path: str, *, what: str, right: str, **options: Any) -> dict[str, Any]:
    return await desk.http.json(method, desk.base() + path, what=what, right=right, headers=_headers(desk), exact=True, **options)


async def _status(desk: Desk, method: str, path: str, right: str) -> int:
    """The status of a call that changes nothing. A credential that the vendor does not know raises."""
    accept = (400, *range(402, 429))
    url, what = desk.base() + path, f"ask for the right {right}"
    answer = await desk.http.call(method, url, what=what, right=right, headers=_headers(desk), accept=accept, changes=False)
    return answer.status


async def _page(desk: Desk, offset: int, *, what: str) -> list[dict[str, Any]]:
    params = {
        "include_disabled": True,
        "include_expired": True,
        "offset": offset,
        "workspace_id": desk.settings.get("workspace_id"),
    }
    shown = await _call(desk, "GET", "/keys", what=what, right=_READ, params=params)
    return [key for key in shown.get("data") or [] if isinstance(key, dict) and isinstance(key.get("hash"), str)]


async def _keys(desk: Desk, *, what: str) -> AsyncIterator[dict[str, Any]]:
    offset = 0
    for _ in range(_MAX_PAGES):
        page = await _page(desk, offset, what=what)
        for key in page:
            yield key
        if not page:
            return
        offset += len(page)
    raise Rejected(f"{what}: the list has no end")


def _limit(amount_nano: int | None, period: Period) -> dict[str, Any]:
    """Whole micro-dollars, so that the number survives JSON on both sides exactly."""
    if amount_nano is None:
        return {"limit": None, "limit_reset": None}
    micro = whole("OpenRouter", amount_nano, 1_000, "millionths of a dollar")
    return {"limit": micro / 1_000_000, "limit_reset": _RESETS[period]}


def _running(key: Mapping[str, Any], today_ns: int) -> SpendRow:
    """What a key has used since midnight."""
    return SpendRow({}, str(key["hash"]), today_ns, today_ns + _DAY_NS, _ITEM, _nano(key.get("usage_daily")))


def _nano(dollars: Any) -> int:
    return nano_of(dollars, what="read an amount")


def _terms(shown: Mapping[str, Any]) -> Terms:
    limit = shown.get("limit")
    return Terms(
        budget_nano=None if limit is None else _nano(limit),
        budget_period=_PERIODS.get(shown.get("limit_reset"), Period.MONTH) if limit is not None else Period.MONTH,
        expires_at_ns=_moment(shown.get("expires_at")),
    )


def _moment(text: Any) -> int | None:
    if not isinstance(text, str):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return to_ns(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))


def _presence(desk: Desk, shown: Mapping[str, Any]) -> Presence:
    end = _moment(shown.get("expires_at"))
    if end is not None and end <= desk.clock.now_ns():
        return Presence.EXPIRED
    return Presence.DISABLED if shown.get("disabled") else Presence.LIVE


def _found(desk: Desk, shown: Mapping[str, Any], mark: Mark | None) -> Found:
    name = str(shown.get("name") or "")
    return Found(
        Footprint({}, str(shown["hash"])),
        name,
        _presence(desk, shown),
        generation=None if mark is None else generation_of(name, mark),
        last_used_at_ns=_moment(shown.get("last_used_at")),
        created_at_ns=_moment(shown.get("created_at")),
        owner=shown.get("creator_user_id"),
        hint=shown.get("label"),
        terms=_terms(shown),
    )


OPENROUTER_ADMIN = OpenRouterProvisioner()
