"""Keys at Anthropic. Its API makes none, so KeyGate is an issuer there: a workspace and a service account for each key, and a federation
rule for each generation of it. The holder gets an identity token signed by KeyGate, which Anthropic's own SDK trades at Anthropic for
access tokens of ten minutes, with no KeyGate in the path. Keys made by hand in the Console are found, renamed, switched off and ended.

Calls and fields: anthropic 2.8.0 `resources/organization/`, `resources/beta/organization/`, `lib/credentials/`, read 2026-11-26.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from keygate.kit.clock import NANOSECONDS, rfc3339
from keygate.kit.outbound import Answer
from keygate.kit.secret import Secret
from keygate.vendors.admin.anthropic import limits, spend
from keygate.vendors.admin.anthropic.calls import (
    OAUTH_BETA,
    archived,
    by_cursor,
    by_id,
    call,
    federated,
    full,
    identity,
    moment,
    probe,
    trade,
)
from keygate.vendors.admin.anthropic.facts import (
    ACCESS_SECONDS,
    ADMIN,
    ANTHROPIC_FACTS,
    ANTHROPIC_SPEND,
    AUDIENCE,
    KEYS_READ,
    KEYS_WRITE,
    LONGEST_IDENTITY_SECONDS,
    ORGANIZATION_SETTING,
    USAGE,
    VERSION,
    WORKSPACES_READ,
    WORKSPACES_WRITE,
)
from keygate.vendors.admin.anthropic.lifetimes import SHORTEST_KEY_SECONDS, identity_ends
from keygate.vendors.admin.bills import SpendRow
from keygate.vendors.admin.bounds import monthly_cents
from keygate.vendors.admin.errors import MissingRight, NotFound, ProvisionerError, Rejected, Unavailable, Unfit
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
    Reading,
    Right,
    Term,
    Terms,
    Verification,
    Wanted,
    generation_of,
)

_ROLE = "workspace_developer"
_SCOPE = "workspace:inference"
_OURS = re.compile(r"kg-[a-z2-7]{26}\b")
_RULE, _KEY = "fdrl_", "apikey_"
_JWT = "eyJ"  # how every JWT begins: `{"` in base64url
_AGAIN = re.compile(r"-again\d$")
_MAX_NAMES = 5
_PRESENCES = {"active": Presence.LIVE, "inactive": Presence.DISABLED, "expired": Presence.EXPIRED, "archived": Presence.GONE}


class AnthropicProvisioner:
    """Also `Checks`, `AddsKey`, `Retires`, `Mints`, `SetsBudget`, `SetsLimits`, `Disables`, `Renames`, `Counts`, `Lists`, `Probes`,
    `Witnesses`, `ReportsSpend`."""

    facts = ANTHROPIC_FACTS
    spend_facts = ANTHROPIC_SPEND
    adds_key = True

    async def verify(self, desk: Desk) -> Verification:
        """Without the settings of federation the account serves keys made by hand, and says so."""
        organization = await call(desk, "GET", "/me", what="read the organization", right=KEYS_READ)
        since = rfc3339(desk.clock.now_ns() - 86_400 * NANOSECONDS)
        asked: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
            (KEYS_READ, "GET", "/api_keys", {"params": {"limit": 1}}),
            (KEYS_WRITE, "POST", f"/api_keys/{_KEY}0", {"json": {}}),
            (WORKSPACES_READ, "GET", "/workspaces", {"params": {"limit": 1}}),
            (WORKSPACES_WRITE, "POST", "/workspaces", {"json": {}}),
            (USAGE, "GET", "/cost_report", {"params": {"starting_at": since}}),
        )
        rights = []
        for right, method, path, options in asked:
            # Calls that can't succeed: a name is missing, or the key is not there. Only who lacks the right is told 403.
            status = await probe(desk, method, path, right=right, **options)
            held = False if status == 403 else (True if status in {200, 400, 404} else None)
            rights.append(Right(right, held, self.facts.rights[right]))
        notes = [] if federated(desk) else [self.facts.cannot["create"]]
        try:
            held = await probe(desk, "GET", "/service_accounts", right=ADMIN, params={"limit": 1}) == 200
        except MissingRight as error:
            held = False
            notes += [error.detail] if federated(desk) else []
        rights.append(Right(ADMIN, held, self.facts.rights[ADMIN]))
        if all(right.held for right in rights if right.name == WORKSPACES_READ):
            standing = [each async for each in by_id(desk, "/workspaces", what="count workspaces", right=WORKSPACES_READ)]
            notes.append(f"{len(standing)} workspaces stand; {self.facts.ceiling} are allowed by default")
        identity = organization.get("id")
        return Verification(
            tuple(rights),
            organization.get("name"),
            tuple(notes),
            identity=None if identity is None else str(identity),
            also_confirms=frozenset({Term.BUDGET}) if await limits.may_set_budgets(desk) else frozenset(),
        )

    def check(self, wanted: Wanted) -> None:
        """Also of a budget that the organization may not set: it is the same number once it may."""
        terms = wanted.terms
        if terms.budget_nano is not None:
            monthly_cents("Anthropic", terms.budget_nano, terms.budget_period)
        if terms.expires_at_ns is not None and terms.expires_at_ns < wanted.now_ns + SHORTEST_KEY_SECONDS * NANOSECONDS:
            shortest = f"a key has to end {SHORTEST_KEY_SECONDS} seconds from now or later"
            raise Unfit(Term.EXPIRY, f"too soon: Anthropic's access tokens live a minute at least, so {shortest}")

    async def create(self, desk: Desk, order: Order) -> Made:
        terms = order.terms
        self.check(Wanted.by(order, desk))
        issuer = await self._issuer(desk)
        place = await self._container(desk, order)
        if order.generation == 1 or order.footprint is None:
            await self._limit(desk, place["workspace"], order)
        rule = await self._rule(desk, order, str(issuer["id"]), place)
        subject = str((rule.get("match") or {}).get("subject_prefix"))
        return self._made(desk, Footprint(place, str(rule["id"])), issuer, subject, terms.expires_at_ns)

    async def mint(self, desk: Desk, footprint: Footprint, *, expires_at_ns: int | None) -> Made:
        """A fresh identity token of a rule that lives."""
        rule = await call(desk, "GET", f"/federation_rules/{footprint.key}", what="read the federation rule", right=ADMIN)
        if archived(rule):
            raise NotFound("The federation rule is archived: the key was revoked")
        issuer = await call(desk, "GET", f"/federation_issuers/{rule['issuer_id']}", what="read the issuer", right=ADMIN)
        return self._made(desk, footprint, issuer, str((rule.get("match") or {}).get("subject_prefix")), expires_at_ns)

    async def count(self, desk: Desk, options: Mapping[str, str]) -> Census:  # noqa: ARG002  (as the protocol has it)
        """Workspaces that are not archived. Anthropic tells no ceiling."""
        standing = [each async for each in by_id(desk, "/workspaces", what="count the workspaces", right=WORKSPACES_READ)]
        return Census(
            sum(not archived(each) for each in standing),
            self.facts.ceiling,
            remedy="archive some there, or have Anthropic raise the ceiling and enter it as the setting `ceiling`",
        )

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        """Rules of an archived workspace too: what is left of a retirement that was cut off."""
        found: list[Found] = []
        accounts: dict[str, str] = {}
        if federated(desk):
            async for account in by_cursor(desk, "/service_accounts", what="find the service account", right=ADMIN):
                if account.get("name") == mark.tag:
                    accounts["service_account"] = str(account["id"])
        async for workspace in by_id(desk, "/workspaces", what="find the workspace", right=WORKSPACES_READ):
            if str(workspace.get("name")).startswith(mark.tag):
                place = {"workspace": str(workspace["id"]), **accounts}
                created = moment(workspace.get("created_at"))
                found.append(Found(Footprint(place), str(workspace["name"]), Presence.LIVE, created_at_ns=created))
        if not found and accounts:
            found.append(Found(Footprint(accounts), mark.tag, Presence.LIVE))
        if federated(desk):
            async for rule in by_cursor(desk, "/federation_rules", what="find federation rules", right=ADMIN):
                generation = _generation(str(rule.get("name")), mark)
                if generation is not None and not archived(rule):
                    found.append(replace(_found_rule(rule), generation=generation))
        return tuple(found)

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        """A rule is gone once it, or its workspace, is archived; an access token lives on for `facts.revoke_delay_seconds` at most."""
        try:
            if footprint.key is not None and footprint.key.startswith(_KEY):
                key = await call(desk, "GET", f"/api_keys/{footprint.key}", what="read the key", right=KEYS_READ)
                terms = Terms(expires_at_ns=moment(key.get("expires_at")))
                return Reading(_PRESENCES.get(str(key.get("status")), Presence.LIVE), terms, name=key.get("name"))
            workspace_id = footprint.place.get("workspace")
            if workspace_id is None:
                return Reading(Presence.GONE)
            workspace = await call(desk, "GET", f"/workspaces/{workspace_id}", what="read the workspace", right=WORKSPACES_READ)
            if archived(workspace):
                return Reading(Presence.GONE, name=workspace.get("name"))
            rule: Mapping[str, Any] = {}
            if footprint.key is not None:
                rule = await call(desk, "GET", f"/federation_rules/{footprint.key}", what="read the federation rule", right=ADMIN)
        except NotFound:
            return Reading(Presence.GONE)
        if archived(rule):
            return Reading(Presence.GONE, name=rule.get("name"))
        budget, told = await limits.budget(desk, workspace_id)
        requests = await limits.requests(desk, workspace_id)
        terms = Terms(budget_nano=budget, requests_per_minute=requests, untold=() if told else (Term.BUDGET,))
        shut_out = footprint.key is not None and not await self._is_in(desk, footprint.place)
        return Reading(Presence.DISABLED if shut_out else Presence.LIVE, terms, name=rule.get("name") or workspace.get("name"))

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        if footprint.key is None:
            return
        try:
            if footprint.key.startswith(_RULE):
                await self._archive(desk, f"/federation_rules/{footprint.key}", "archive the federation rule")
            else:
                await self._set_status(desk, footprint, "archived", "archive the key")
        except NotFound:
            return

    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:  # noqa: ARG002  (as the protocol has it)
        """An identity token by trading it, an access token (of `witness`) by the list of models."""
        if not self.is_witness(secret):
            return await trade(desk, footprint, secret) is not None
        what = "see whether access tokens still work"
        headers = {"authorization": f"Bearer {secret.open()}", "anthropic-version": VERSION, "anthropic-beta": OAUTH_BETA}
        answer = await desk.http.ask("GET", f"{desk.base()}/v1/models", what=what, headers=headers)
        return {200: True, 403: True, 401: False}.get(answer.status)

    async def witness(self, desk: Desk, footprint: Footprint) -> Secret:
        """The access token that somebody may have got a moment before the rule's end."""
        if footprint.key is None or not footprint.key.startswith(_RULE):
            raise NotFound("A key made by hand is traded for nothing")
        token = await trade(desk, footprint, (await self.mint(desk, footprint, expires_at_ns=None)).secret)
        if token is None:
            raise NotFound("The federation rule gives no token any more")
        return token

    def is_witness(self, secret: Secret) -> bool:
        return not secret.open().startswith(_JWT)

    async def retire(self, desk: Desk, footprint: Footprint) -> None:
        """Only what KeyGate made: a workspace that carries no mark, in which an adopted key stands, is left alone. The workspace goes
        first: with it everything ends that works there, whatever becomes of the rest."""
        workspace_id, account = footprint.place.get("workspace"), footprint.place.get("service_account")
        if workspace_id is not None:
            workspace = await self._workspace(desk, workspace_id)
            if workspace is None or _OURS.match(str(workspace.get("name"))) is None:
                return
            if not archived(workspace):
                await self._archive(desk, f"/workspaces/{workspace_id}", "archive the workspace", right=WORKSPACES_WRITE)
        if account is not None:
            async for rule in by_cursor(desk, "/federation_rules", what="find federation rules", right=ADMIN):
                if (rule.get("target") or {}).get("service_account_id") == account and not archived(rule):
                    await self._archive(desk, f"/federation_rules/{rule['id']}", "archive the federation rule")
            await self._archive(desk, f"/service_accounts/{account}", "archive the service account")

    async def set_budget(self, desk: Desk, footprint: Footprint, amount_nano: int | None, period: Period) -> None:
        await limits.set_budget(desk, footprint.place["workspace"], amount_nano, period)

    async def set_limits(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        """Of each group of models alike: three groups allow three times the requests together."""
        if terms.requests_per_minute is not None:
            await limits.set_requests(desk, footprint.place["workspace"], terms.requests_per_minute)

    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        """A key made by hand by its status. One that KeyGate made by its service account's membership in the workspace, without which no
        identity token is traded there; access tokens live on for their ten minutes."""
        if footprint.key is not None and footprint.key.startswith(_KEY):
            await self._set_status(desk, footprint, "active" if enabled else "inactive", "enable the key" if enabled else "disable the key")
        elif enabled:
            await self._let_in(desk, footprint.place["workspace"], footprint.place["service_account"])
        else:
            path = f"/workspaces/{footprint.place['workspace']}/service_accounts/{footprint.place['service_account']}"
            await call(desk, "DELETE", path, what="shut the service account out", right=ADMIN, accept={404})

    async def rename(self, desk: Desk, footprint: Footprint, name: str) -> None:
        if footprint.key is not None and footprint.key.startswith(_KEY):
            path, right = f"/api_keys/{footprint.key}", KEYS_WRITE
        else:
            path, right = f"/workspaces/{footprint.place['workspace']}", WORKSPACES_WRITE
        await call(desk, "POST", path, what="rename at Anthropic", right=right, json={"name": name}, repeatable=True)

    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        """Keys first, then workspaces, then federation rules. `cursor`: which of them, and where in its list."""
        kind, _, at = (cursor or "keys|").partition("|")
        if kind == "rules":
            params = {"limit": 100, "page": at or None}
            shown = await call(desk, "GET", "/federation_rules", what="list federation rules", right=ADMIN, params=params)
            following = shown.get("next_page")
            return tuple(_found_rule(rule) for rule in shown.get("data") or []), None if following is None else f"rules|{following}"
        params = {"limit": 100, "after_id": at or None}
        if kind == "keys":
            shown = await call(desk, "GET", "/api_keys", what="list keys", right=KEYS_READ, params=params)
            found = tuple(_found_key(key) for key in shown.get("data") or [])
        else:
            shown = await call(desk, "GET", "/workspaces", what="list workspaces", right=WORKSPACES_READ, params=params)
            found = tuple(_found_workspace(workspace) for workspace in shown.get("data") or [])
        if shown.get("has_more") and shown.get("last_id"):
            return found, f"{kind}|{shown['last_id']}"
        if kind == "keys":
            return found, "workspaces|"
        return found, "rules|" if federated(desk) else None

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
        return await spend.page(desk, from_ns, until_ns, cursor)

    # Parts

    async def _issuer(self, desk: Desk) -> dict[str, Any]:
        """KeyGate as an issuer of this organization, with the keys that it signs with now."""
        keys = desk.issuer.jwks()["keys"]
        issuers = by_cursor(desk, "/federation_issuers", what="find KeyGate's issuer", right=ADMIN)
        names = sorted(str(key.get("kid")) for key in keys)
        async for each in issuers:
            known = {key.get("kid") for key in (each.get("jwks") or {}).get("keys") or []}
            if each.get("issuer_url") == desk.issuer.url and known.issuperset(names) and not archived(each):
                return each
        of_ours = hashlib.sha256("\n".join((desk.issuer.url, *names)).encode()).hexdigest()[:12]  # another KeyGate has another name
        body: dict[str, Any] = {
            "name": f"keygate-{of_ours}",
            "issuer_url": desk.issuer.url,
            "jwks": {"type": "inline", "keys": keys},
            "max_jwt_lifetime_seconds": LONGEST_IDENTITY_SECONDS,
        }
        what = "register KeyGate as an issuer"
        return await call(desk, "POST", "/federation_issuers", what=what, right=ADMIN, json=body, fault=_unseen)

    async def _container(self, desk: Desk, order: Order) -> dict[str, str]:
        tag = order.mark.tag
        if order.footprint is not None and {"workspace", "service_account"} <= order.footprint.place.keys():
            return dict(order.footprint.place)
        there = {} if order.fresh else await self._standing(desk, order.mark)
        workspace = there.get("workspace")
        if workspace is None:
            body = {"name": f"{tag} {order.title}"[:200], "tags": {"keygate": order.mark.id}}
            made = await call(desk, "POST", "/workspaces", what="create the workspace", right=WORKSPACES_WRITE, json=body, fault=full)
            workspace = str(made["id"])
        account = there.get("service_account")
        if account is None:
            described = {"name": tag, "description": order.title}
            what = "create the service account"
            made = await call(desk, "POST", "/service_accounts", what=what, right=ADMIN, json=described, fault=_unseen)
            account = str(made["id"])
        await self._let_in(desk, workspace, account)
        return {"workspace": workspace, "service_account": account}

    async def _let_in(self, desk: Desk, workspace: str, account: str) -> None:
        joining = {"service_account_id": account, "workspace_role": _ROLE}
        path = f"/workspaces/{workspace}/service_accounts"
        await call(desk, "POST", path, what="let the service account in", right=ADMIN, json=joining, accept={409}, repeatable=True)

    async def _is_in(self, desk: Desk, place: Mapping[str, str]) -> bool:
        path = f"/workspaces/{place.get('workspace')}/service_accounts/{place.get('service_account')}"
        try:
            await call(desk, "GET", path, what="read the membership", right=ADMIN)
        except NotFound:
            return False
        return True

    async def _standing(self, desk: Desk, mark: Mark) -> dict[str, str]:
        found = await self.find(desk, mark)
        return {name: id_ for each in found if each.footprint.key is None for name, id_ in each.footprint.place.items()}

    async def _rule(self, desk: Desk, order: Order, issuer: str, place: Mapping[str, str]) -> dict[str, Any]:
        """Names are unique, perhaps those of archived rules too: where a former attempt's rule has the name, the next one says so."""
        name = order.mark.key_name(order.generation)
        for attempt in range(1, _MAX_NAMES + 1):
            own = name if attempt == 1 else f"{name}-again{attempt}"
            body = {
                "name": own,
                "issuer_id": issuer,
                "match": {"subject_prefix": f"keygate:{own}", "audience": AUDIENCE},
                "target": {"type": "service_account", "service_account_id": place["service_account"]},
                "oauth_scope": _SCOPE,
                "workspace_id": place["workspace"],
                "token_lifetime_seconds": ACCESS_SECONDS,
            }
            what = "create the federation rule"
            rule = await call(desk, "POST", "/federation_rules", what=what, right=ADMIN, json=body, accept={409})
            if isinstance(rule.get("id"), str):
                return rule
        raise Rejected("create the federation rule: every name that KeyGate would give it is taken", reason="name_taken")

    async def _limit(self, desk: Desk, workspace: str, order: Order) -> None:
        terms = order.terms
        if terms.requests_per_minute is not None:
            await limits.set_requests(desk, workspace, terms.requests_per_minute)
        if terms.budget_nano is not None:
            try:
                await limits.set_budget(desk, workspace, terms.budget_nano, terms.budget_period)
            except MissingRight as error:
                if Term.BUDGET not in order.must_set:
                    return  # not in the vendor's early access: `facts.cannot` says what KeyGate does instead
                raise MissingRight(
                    error.right,
                    "Anthropic does not let KeyGate set the workspace's spend limit any more: the organization has left its early "
                    f"access, or the Admin key lacks {error.right}. Have the account looked at again: `keygate vendors verify`",
                ) from None

    async def _workspace(self, desk: Desk, workspace: str) -> dict[str, Any] | None:
        try:
            return await call(desk, "GET", f"/workspaces/{workspace}", what="read the workspace", right=WORKSPACES_READ)
        except NotFound:
            return None

    async def _archive(self, desk: Desk, path: str, what: str, *, right: str = ADMIN) -> None:
        await call(desk, "POST", f"{path}/archive", what=what, right=right, repeatable=True, accept={404})

    async def _set_status(self, desk: Desk, footprint: Footprint, status: str, what: str) -> None:
        path = f"/api_keys/{footprint.key}"
        await call(desk, "POST", path, what=what, right=KEYS_WRITE, json={"status": status}, fault=full, repeatable=True)

    def _made(self, desk: Desk, footprint: Footprint, issuer: Mapping[str, Any], subject: str, expires_at_ns: int | None) -> Made:
        ends_ns = _token_ends(desk, issuer, expires_at_ns)
        env = {
            "ANTHROPIC_FEDERATION_RULE_ID": footprint.key or "",
            "ANTHROPIC_ORGANIZATION_ID": desk.settings[ORGANIZATION_SETTING],
            "ANTHROPIC_SERVICE_ACCOUNT_ID": footprint.place["service_account"],
            "ANTHROPIC_WORKSPACE_ID": footprint.place["workspace"],
        }
        if desk.settings.get("base_url") is not None:
            env["ANTHROPIC_BASE_URL"] = desk.base()
        return Made(footprint, identity(desk, subject, ends_ns), "ANTHROPIC_IDENTITY_TOKEN", env, ends_ns)


def _token_ends(desk: Desk, issuer: Mapping[str, Any], key_ends_ns: int | None) -> int:
    longest = issuer.get("max_jwt_lifetime_seconds")
    seconds = min(LONGEST_IDENTITY_SECONDS, longest if isinstance(longest, int) else 3_600)
    ends_ns = identity_ends(desk.clock.now_ns(), longest_seconds=seconds, key_ends_ns=key_ends_ns)
    if ends_ns is None:
        raise Unfit(Term.EXPIRY, "Anthropic's access tokens live a minute at least: the key ends too soon for one")
    return ends_ns


def _generation(name: str, mark: Mark) -> int | None:
    return generation_of(_AGAIN.sub("", name), mark)


def _unseen(answer: Answer) -> ProvisionerError | None:
    """The name is ours and taken, and the list doesn't show by what: made by a former attempt a moment ago, or archived by somebody."""
    detail = "Anthropic has a thing of this name already, which is not listed yet (or was archived there by somebody)"
    return Unavailable(detail) if answer.status == 409 else None


def _found_key(key: Mapping[str, Any]) -> Found:
    scope, principal = key.get("scope") or {}, key.get("principal") or {}
    workspace = scope.get("workspace_id")
    return Found(
        Footprint({} if workspace is None else {"workspace": str(workspace)}, str(key["id"])),
        str(key.get("name") or ""),
        _PRESENCES.get(str(key.get("status")), Presence.LIVE),
        created_at_ns=moment(key.get("created_at")),
        owner=principal.get("user_id") or principal.get("service_account_id"),
        hint=key.get("partial_key_hint"),
        terms=Terms(expires_at_ns=moment(key.get("expires_at"))),
    )


def _found_workspace(workspace: Mapping[str, Any]) -> Found:
    presence = Presence.GONE if archived(workspace) else Presence.LIVE
    place = {"workspace": str(workspace["id"])}
    return Found(Footprint(place), str(workspace.get("name")), presence, created_at_ns=moment(workspace.get("created_at")))


def _found_rule(rule: Mapping[str, Any]) -> Found:
    target = rule.get("target") or {}
    places = {"service_account": str(target.get("service_account_id"))}
    for workspace in (rule.get("workspace_ids") or [])[:1]:
        places["workspace"] = str(workspace)
    return Found(
        Footprint(places, str(rule["id"])),
        str(rule.get("name")),
        Presence.GONE if archived(rule) else Presence.LIVE,
        created_at_ns=moment(rule.get("created_at")),
        owner=target.get("service_account_name"),
    )


ANTHROPIC_ADMIN = AnthropicProvisioner()
