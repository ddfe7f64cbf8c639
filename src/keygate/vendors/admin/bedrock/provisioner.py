"""AWS Bedrock: one IAM user for each owner, with one inline policy (models, end) and up to two API keys.

An API key is an IAM service-specific credential: it has an id and no name. The user's tag `keygate-generation` says which generation is
being made; a key is tagged with its own (`keygate-key-<id>`) as soon as it is made, and keys without such a tag before the next one is.
So a key that a crash left behind is known by its generation, and one in use is never taken for it, however late IAM lists it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from keygate.kit.secret import Secret
from keygate.vendors.admin.bedrock import costs
from keygate.vendors.admin.bedrock.facts import COST_SETTING, FACTS, RIGHTS, SPEND_FACTS, SPEND_OFF, SPEND_RIGHTS, UNASKED
from keygate.vendors.admin.bedrock.iam import Credential, Iam, User
from keygate.vendors.admin.bedrock.policy import document, terms_of, whole_second
from keygate.vendors.admin.bills import ByKey, SpendRow
from keygate.vendors.admin.errors import AdminKeyRefused, CeilingReached, MissingRight, NotFound, ProvisionerError, Rejected, Unfit
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

_GENERATION = "keygate-generation"
_KEY = "keygate-key-"
_PRESENCE = {"Active": Presence.LIVE, "Inactive": Presence.DISABLED, "Expired": Presence.EXPIRED}


class BedrockProvisioner:
    """Also `AddsKey`, `Retires`, `SetsModels`, `SetsExpiry`, `Disables`, `Lists`, and where it is switched on `ReportsSpend` and
    `TellsByKey`."""

    adds_key = True
    facts = FACTS
    spend_facts = SPEND_FACTS

    async def verify(self, desk: Desk) -> Verification:
        iam = Iam(desk)
        notes = [UNASKED] if _runtime(desk) is None else []
        account, arn = await iam.caller()
        if arn.endswith(":root"):
            raise Rejected(
                "This is the access key of the account's root user: make an IAM user for KeyGate, with the rights that it needs and no more"
            )
        simulated = "iam:SimulatePrincipalPolicy"
        try:
            held = await iam.simulate(arn, account, list(RIGHTS))
        except MissingRight:
            untold = tuple(Right(name, False if name == simulated else None, why) for name, why in RIGHTS.items())
            return Verification(untold, f"AWS account {account}", tuple(notes), identity=account)
        rights = [Right(name, held.get(name), why) for name, why in RIGHTS.items()]
        if held.get("iam:GetAccountSummary"):
            left, quota = await iam.users_left()
            notes.append(f"{left} of {quota} IAM users are left")
        if self.spend_off(desk.settings) is None:
            bills = await iam.simulate(arn, account, list(SPEND_RIGHTS), anywhere=True)
            rights += [Right(name, bills.get(name), why) for name, why in SPEND_RIGHTS.items()]
            notes += await self._of_costs(desk) if all(bills.values()) else []
        return Verification(tuple(rights), f"AWS account {account}", tuple(notes), identity=account)

    async def _of_costs(self, desk: Desk) -> list[str]:
        """What stands in the way of telling costs by key. Keys can be made all the same."""
        try:
            found = await costs.by_key(desk)
        except AdminKeyRefused:
            raise
        except ProvisionerError as error:
            return [f"whether costs can be told by key could not be seen: {error.detail}"]
        return [] if found.why_not is None else [found.why_not]

    def check(self, wanted: Wanted) -> None:
        age = wanted.options.get("age_days")
        if age and not (age.isascii() and age.isdecimal() and 1 <= int(age) <= 36_600):
            raise Unfit("options.age_days", "write a whole number of days, 1 to 36600")
        expires_at_ns = whole_second(wanted.terms.expires_at_ns)
        document(wanted.terms.models, expires_at_ns, partition=wanted.settings.get("partition") or "aws")

    async def create(self, desk: Desk, order: Order) -> Made:
        self.check(Wanted.by(order, desk))
        iam = Iam(desk)
        name, generation = order.mark.tag, str(order.generation)
        age = order.options.get("age_days") or None
        policy = document(order.terms.models, whole_second(order.terms.expires_at_ns), partition=iam.partition)
        user = None if order.fresh else await iam.user(name)
        if user is None:
            left, quota = await iam.users_left()
            if left < 1:
                raise CeilingReached("IAM users", ceiling=quota)
            title = {"keygate-id": order.mark.id, "keygate-title": order.title[:80]}
            user = await iam.create_user(name, {**title, _GENERATION: generation})
        await iam.put_policy(name, policy)
        standing = [] if order.fresh else await iam.credentials(name)
        if len(standing) >= 2:
            detail = "IAM allows two Bedrock keys a user, and both stand: revoke one before the next rotation"
            raise CeilingReached("keys of this user", detail, ceiling=2)
        unmarked = {f"{_KEY}{each.id}": before for each in standing if (before := _generation_tag(user, each)) is not None}
        if unmarked or user.tags.get(_GENERATION) != generation:
            await iam.tag(name, {**unmarked, _GENERATION: generation})
        made, secret = await iam.create_credential(name, age)
        with suppress(ProvisionerError):  # the next generation does it, where IAM lists the key by then
            await iam.tag(name, {f"{_KEY}{made.id}": generation})
        region = iam.setting("region")
        env = {"AWS_REGION": region, "AWS_DEFAULT_REGION": region}
        if "runtime_url" in desk.settings:
            env["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = desk.base("runtime")
        return Made(Footprint({"user": name}, made.id), secret, "AWS_BEARER_TOKEN_BEDROCK", env, made.expires_at_ns)

    async def count(self, desk: Desk, options: Mapping[str, str]) -> Census:  # noqa: ARG002  (as the protocol has it)
        left, quota = await Iam(desk).users_left()
        if quota == 0:
            raise Rejected("The account's summary tells no quota of users")
        return Census(quota - left, quota, told=True, remedy="delete users that nobody needs, or have AWS raise the quota")

    async def find(self, desk: Desk, mark: Mark) -> tuple[Found, ...]:
        iam = Iam(desk)
        user = await iam.user(mark.tag)
        if user is None:
            return ()
        place = {"user": mark.tag}
        found = [Found(Footprint(place), mark.tag, Presence.LIVE, created_at_ns=user.created_at_ns)]
        for each in await iam.credentials(mark.tag):
            generation = user.tags.get(f"{_KEY}{each.id}") or user.tags.get(_GENERATION, "")
            number = int(generation) if generation.isdecimal() else None
            presence = _PRESENCE.get(each.status, Presence.DISABLED)
            found.append(Found(Footprint(place, each.id), each.id, presence, number, created_at_ns=each.created_at_ns, hint=each.alias))
        return tuple(found)

    async def read(self, desk: Desk, footprint: Footprint) -> Reading:
        iam = Iam(desk)
        name = _name(footprint)
        presence = Presence.LIVE
        if footprint.key is not None:
            key = next((each for each in await iam.credentials(name) if each.id == footprint.key), None)
            if key is None:
                return Reading(Presence.GONE)
            presence = _PRESENCE.get(key.status, Presence.DISABLED)
        elif await iam.user(name) is None:
            return Reading(Presence.GONE)
        policy = await iam.policy(name)
        terms = None if policy is None else terms_of(policy)
        if terms is None:
            return Reading(presence, name=name)
        if terms.expires_at_ns is not None and terms.expires_at_ns <= desk.clock.now_ns() and presence is Presence.LIVE:
            presence = Presence.EXPIRED
        return Reading(presence, terms, name=name)

    async def revoke(self, desk: Desk, footprint: Footprint) -> None:
        iam = Iam(desk)
        name, key = _name(footprint), footprint.key
        if key is None:
            return
        try:
            await iam.delete_credential(name, key)
        except NotFound:
            return
        user = await iam.user(name)
        if user is not None and f"{_KEY}{key}" in user.tags:
            await iam.untag(name, f"{_KEY}{key}")

    async def answers(self, desk: Desk, footprint: Footprint, secret: Secret, env: Mapping[str, str]) -> bool | None:  # noqa: ARG002  (as the protocol has it)
        """By a call without a message, of a model that does not exist: who the key is of is judged first, and nothing is run."""
        base = _runtime(desk)
        if base is None:
            return None
        url, what = f"{base}/model/keygate.nothing-v1:0/converse", "see whether the key works"
        answer = await desk.http.ask("POST", url, what=what, headers={"authorization": f"Bearer {secret.open()}"}, body=b"{}")
        if answer.status in {401, 403}:
            return b"not authorized to perform" in answer.body  # by its user's policy: the key is known
        return True if answer.status in {200, 400, 404} else None

    async def retire(self, desk: Desk, footprint: Footprint) -> None:
        iam = Iam(desk)
        name = _name(footprint)
        if await iam.user(name) is None:
            return
        for each in await iam.credentials(name):
            with suppress(NotFound):  # deleted, and listed still
                await iam.delete_credential(name, each.id)
        await iam.delete_policies(name)
        await iam.delete_user(name)

    async def set_terms(self, desk: Desk, footprint: Footprint, terms: Terms) -> None:
        iam = Iam(desk)
        policy = document(terms.models, whole_second(terms.expires_at_ns), partition=iam.partition)
        await iam.put_policy(_name(footprint), policy)

    async def set_models(self, desk: Desk, footprint: Footprint, models: tuple[str, ...] | None) -> None:
        iam = Iam(desk)
        standing = await self._standing(iam, _name(footprint))
        await iam.put_policy(_name(footprint), document(models, standing.expires_at_ns, partition=iam.partition))

    async def set_expiry(self, desk: Desk, footprint: Footprint, expires_at_ns: int | None) -> None:
        iam = Iam(desk)
        standing = await self._standing(iam, _name(footprint))
        await iam.put_policy(_name(footprint), document(standing.models, whole_second(expires_at_ns), partition=iam.partition))

    async def set_enabled(self, desk: Desk, footprint: Footprint, *, enabled: bool) -> None:
        if footprint.key is None:
            raise Rejected("At AWS single keys are switched off, not users")
        await Iam(desk).set_active(_name(footprint), footprint.key, active=enabled)

    def spend_off(self, settings: Mapping[str, str]) -> str | None:
        if settings.get("partition", "aws") != "aws":
            return "KeyGate reads AWS's bill in the standard partition only; a virtual key's costs are counted by KeyGate"
        return None if settings.get(COST_SETTING, "").strip().lower() == "on" else SPEND_OFF

    async def spend_page(self, desk: Desk, from_ns: int, until_ns: int, cursor: str | None) -> tuple[tuple[SpendRow, ...], str | None]:
        return await costs.page(desk, from_ns, until_ns, cursor)

    async def by_key(self, desk: Desk) -> ByKey:
        return await costs.by_key(desk)

    async def list_page(self, desk: Desk, cursor: str | None) -> tuple[tuple[Found, ...], str | None]:
        """First KeyGate's users, then the Bedrock keys of all users in the account; of KeyGate's users only, where the access key may not
        see the others'."""
        iam = Iam(desk)
        phase, _, marker = (cursor or "users:").partition(":")
        if phase == "users":
            users, following = await iam.users(marker or None)
            found = [
                Found(Footprint({"user": user.name}), user.name, Presence.LIVE, created_at_ns=user.created_at_ns, owner=user.arn)
                for user in users
            ]
            return tuple(found), f"users:{following}" if following else "keys:"
        if phase == "keys":
            try:
                keys, following = await iam.every_credential(marker or None)
            except MissingRight:
                return (), "own:"
            return tuple(map(_listed, keys)), f"keys:{following}" if following else None
        users, following = await iam.users(marker or None)
        own = [key for user in users for key in await iam.credentials(user.name)]
        return tuple(map(_listed, own)), f"own:{following}" if following else None

    @staticmethod
    async def _standing(iam: Iam, name: str) -> Terms:
        policy = await iam.policy(name)
        terms = None if policy is None else terms_of(policy)
        if terms is None:
            raise Rejected(
                f"The policy of {name} is not as KeyGate wrote it: somebody changed it in AWS. Repair the key first, which sets models and "
                "end as agreed"
            )
        return terms


def _runtime(desk: Desk) -> str | None:
    """Where clients call Bedrock: in the settings' region, unless they name an address. None: IAM is asked elsewhere than at AWS, and where
    Bedrock is then is not told."""
    settings = desk.settings
    if "runtime_url" in settings:
        return desk.base("runtime")
    host = urlsplit(settings.get("base_url", FACTS.hosts["iam"])).hostname or ""
    if not host.endswith((".amazonaws.com", ".amazonaws.com.cn")):
        return None
    suffix = ".cn" if settings.get("partition") == "aws-cn" else ""
    return FACTS.hosts["runtime"].replace("{region}", Iam(desk).setting("region")) + suffix


def _name(footprint: Footprint) -> str:
    name = footprint.place.get("user", "")
    if not name:
        raise NotFound("the footprint names no IAM user")
    return name


def _listed(key: Credential) -> Found:
    presence = _PRESENCE.get(key.status, Presence.DISABLED)
    place = {"user": key.user}
    return Found(Footprint(place, key.id), key.id, presence, created_at_ns=key.created_at_ns, owner=key.user, hint=key.alias)


def _generation_tag(user: User, key: Credential) -> str | None:
    """The generation to write on a key that has no tag of its own; None: it has one."""
    return None if f"{_KEY}{key.id}" in user.tags else user.tags.get(_GENERATION, "")


BEDROCK_ADMIN = BedrockProvisioner()
