"""Azure OpenAI: one Cognitive Services account for each owner, its two keys, deployments whose capacity is the limit.

An account has exactly two keys, with no name, id, scope or expiry, readable at any time. So odd generations are `Key1`, even ones
`Key2`. The account's tags `keygate-key1` and `keygate-key2` say which generation was handed out in each, and a key's id in a footprint
ends in a digest of its value, which tells a replaced key from its successor. A key is revoked by regenerating it: the value that then
stands there is nobody's.
"""

from __future__ import annotations

from collections.abc import Mapping

from keygate.kit.secret import Secret
from keygate.vendors.admin.azure.arm import Arm
from keygate.vendors.admin.azure.facts import DEFAULT_CAPACITY, FACTS, PREFIX, RIGHTS, SPEND_FACTS
from keygate.vendors.admin.azure.model import (
    SLOTS,
    allows,
    capacity_of,
    check_options,
    created_at,
    digest_of,
    key_id,
    models_of,
    name_of,
    parts_of,
    properties_of,
    slot_of,
    spend_rows,
    tag_of,
    tags_of,
    terms_of,
    wanted_of,
)
from keygate.vendors.admin.bills import SpendRow
from keygate.vendors.admin.errors import CeilingReached, Unavailable
from keygate.vendors.admin.interface import (
    Census,
    Desk,
    Footprint,
    Found,
    Made,
    Mark,
    Order,
    Presence,
    Reading,
    Right,
    Terms,
    Verification,
    Wanted,
)

_INFERENCE_VERSION = "2024-10-21"


class AzureProvisioner:
    adds_key = True
    facts = FACTS
    spend_facts = SPEND_FACTS

    async def verify(self, desk: Desk) -> Verification:
        call = Arm(desk)
        held = await call.permissions()
        rights = tuple(Right(name, allows(held, name), why) for name, why in RIGHTS.items())
        notes: tuple[str, ...] = ()
        if allows(held, f"{PREFIX}/locations/usages/read"):
            left, limit = await call.accounts_left(call.region)
            notes = (f"{left} of {limit} accounts are left in {call.region}",) if limit is not None else ()
        account = f"subscription {call.setting('subscription')}, resource group {call.setting('resource_group')}"
        return Verification(rights, account, notes, identity=f"{call.setting('subscription')}/{call.setting('resource_group')}".lower())

    def check(self, wanted: Wanted) -> None:
        wanted_of(wanted.terms)
        check_options(wanted.options)

    async def create(self, desk: Desk, order: Order) -> Made:
        self.check(Wanted.by(order, desk))
        call = Arm(desk)
        name = order.mark.tag
        wanted = wanted_of(order.terms)
        slot = slot_of(order.generation)
        account = None if order.fresh else await call.account(name)
        if account is None:
            account = await call.create_account(order)
        account = await call.settled(name, account)
        await call.set_deployments(name, wanted, sku=order.options.get("sku", "GlobalStandard"))
        tags = tags_of(account)
        standing = tags.get(tag_of(slot), "")
        if standing not in {"", str(order.generation)}:
            detail = f"Azure's accounts have two keys, and generation {standing} still has {slot}: revoke it before the next rotation"
            raise CeilingReached("keys in this account", detail, ceiling=2)
        if standing != str(order.generation):
            await call.tag(name, {**tags, tag_of(slot): str(order.generation)})
        value = (await call.keys(name))[slot]
        return Made(
            Footprint({"account": name}, key_id(order.generation, slot, value)),
            value,
            "AZURE_OPENAI_API_KEY",
            {"AZURE_OPENAI_ENDPOINT": str(properties_of(account).get("endpoint", "")), "OPENAI_API_VERSION": _INFERENCE_VERSION},
        )

    async def count(self, desk: Desk, options: Mapping[str, str]) -> Census:
        """The region's quota; accounts of other resource groups count, and deleted ones that were not purged."""
        call = Arm(desk)
        region = options.get("region", call.region)
        left, limit = await call.accounts_left(region)
        remedy = "order in another region (option `region`), purge deleted accounts, or have Microsoft raise the quota"
        if limit is None:
            raise Unavailable(f"Azure tells no quota of accounts in {region}")
        return Census(limit - left, limit, told=True, place=region, remedy=remedy)

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        call = Arm(desk)
        account = await call.account(mark.tag)
        if account is None:
            gone = await call.deleted(mark.tag)
            return () if gone is None else (Found(Footprint({"account": mark.tag}), mark.tag, Presence.DISABLED),)
        off = properties_of(account).get("disableLocalAuth") is True
        presence = Presence.DISABLED if off else Presence.LIVE
        place = {"account": mark.tag}
        found = [Found(Footprint(place), mark.tag, presence, created_at_ns=created_at(account))]
        tags = tags_of(account)
        keys = await call.keys(mark.tag) if any(tags.get(tag_of(slot)) for slot in SLOTS) else {}
        for slot, value in keys.items():
            generation = tags.get(tag_of(slot), "")
            if generation.isdecimal():
                key = key_id(int(generation), slot, value)
                found.append(Found(Footprint(place, key), f"{mark.tag} {slot}", presence, int(generation)))
        return tuple(found)

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        call = Arm(desk)
        name = name_of(footprint)
        account = await call.account(name)
        if account is None:
            waiting = footprint.key is None and await call.deleted(name) is not None
            return Reading(Presence.DISABLED if waiting else Presence.GONE)
        if footprint.key is not None:
            _, slot, digest = parts_of(footprint.key)
            if digest_of((await call.keys(name))[slot]) != digest:
                return Reading(Presence.GONE)
        off = properties_of(account).get("disableLocalAuth") is True
        terms = terms_of(await call.deployments(name))
        return Reading(Presence.DISABLED if off else Presence.LIVE, terms, name=name)

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        call = Arm(desk)
        name = name_of(footprint)
        account = await call.account(name)
        if account is None or footprint.key is None:
            return
        generation, slot, digest = parts_of(footprint.key)
        if digest_of((await call.keys(name))[slot]) == digest:
            await call.regenerate(name, slot)
        tags = tags_of(account)
        if tags.get(tag_of(slot)) == str(generation):
            await call.tag(name, {**tags, tag_of(slot): ""})

    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:
        """By the account's list of models. An account that was deleted takes its address with it."""
        endpoint = env.get("AZURE_OPENAI_ENDPOINT", "").rstrip("/")
        if not endpoint:
            return None
        url, what = f"{endpoint}/openai/models?api-version={_INFERENCE_VERSION}", "see whether the key works"
        try:
            answer = await desk.http.ask("GET", url, what=what, headers={"api-key": secret.open()})
        except Unavailable:
            if await Arm(desk).account(name_of(footprint)) is None:
                return False
            raise
        if answer.status == 404:
            return False if await Arm(desk).account(name_of(footprint)) is None else None
        return {200: True, 401: False}.get(answer.status)

    async def retire(self, desk: Desk, footprint: Footprint) -> None:
        """Deletes the account and purges it: until then it counts against the ceiling, and its name is taken."""
        call = Arm(desk)
        name = name_of(footprint)
        if await call.account(name) is not None:
            await call.delete_account(name)
            await call.until(f"the account {name} is being deleted", lambda: call.absent(name))
        gone = await call.deleted(name)
        if gone is not None:
            await call.purge(name, str(gone.get("location", call.region)))
            await call.until(f"the account {name} is being purged", lambda: call.purged(name))

    async def set_limits(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        """Whole units of capacity, never more than asked."""
        call = Arm(desk)
        capacity = capacity_of(terms, exact=False)
        if capacity is None:
            return
        for each in await call.deployments(name_of(footprint)):
            if each.capacity != capacity:
                await call.set_capacity(name_of(footprint), each, capacity)
                await call.deployed(name_of(footprint))

    async def set_models(self, desk: Desk, footprint: Footprint, models: tuple[str, ...] | None) -> None:
        call = Arm(desk)
        name = name_of(footprint)
        standing = await call.deployments(name)
        capacity = max((each.capacity for each in standing), default=DEFAULT_CAPACITY)
        sku = next((each.sku for each in standing), "GlobalStandard")
        wanted = dict.fromkeys(models_of(models), capacity)
        await call.set_deployments(name, wanted, sku=sku)

    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        """Of the account: both of its keys."""
        await Arm(desk).set_local_auth(name_of(footprint), enabled=enabled)

    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        """The resource group's accounts. Their keys have no ids that could be told without reading them."""
        found, following = await Arm(desk).accounts(cursor)
        return tuple(
            Found(
                Footprint({"account": str(one.get("name"))}),
                str(one.get("name")),
                Presence.DISABLED if properties_of(one).get("disableLocalAuth") is True else Presence.LIVE,
                created_at_ns=created_at(one),
                owner=tags_of(one).get("keygate-title"),
            )
            for one in found
        ), following

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
        body, following = await Arm(desk).costs(from_ns, until_ns, cursor)
        return tuple(spend_rows(body)), following


AZURE_ADMIN = AzureProvisioner()
