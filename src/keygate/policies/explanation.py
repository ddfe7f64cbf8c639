"""What would happen to a call, and why, without calling anything. The call is one under `/v1`, where the model's name chooses the vendor;
it is judged in the order in which the gateway does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from keygate.errors import InvalidInput, NotFound
from keygate.identities import Actor, Role
from keygate.kit.clock import Clock
from keygate.kit.secret import Secret
from keygate.policies.compilation import applies
from keygate.policies.evaluate import decide, evaluate, resolve_alias, server_tool_ceiling, standing
from keygate.policies.ports import BudgetStanding, Estimate, GatewayAnswers, KeyDirectory, KeyUsage, LimitStanding, PriceReader, UsageReader
from keygate.policies.state import Allow, BudgetMode, Decision, Deny, KeyState, LimitKind, RuleSet, Scope
from keygate.policies.validation import endpoint_groups
from keygate.vendors import EndpointGroup, Vendor

_TOKENS = frozenset({LimitKind.TOKENS_PER_MINUTE, LimitKind.TOKENS_PER_DAY})
_ORDER = (_TOKENS, frozenset({LimitKind.REQUESTS_PER_MINUTE, LimitKind.REQUESTS_PER_DAY}), frozenset({LimitKind.CONCURRENT_REQUESTS}))


@dataclass(frozen=True, slots=True)
class Layer:
    rules: RuleSet
    decision: Decision


@dataclass(frozen=True, slots=True)
class BudgetAnswer:
    """A budget that counts the call; `fits` says whether its hold would find room now, None where its size isn't known."""

    standing: BudgetStanding
    fits: bool | None


@dataclass(frozen=True, slots=True)
class Explanation:
    state: KeyState
    vendor: str | None
    model: str
    alias: str | None
    endpoint: str
    status: int  # of the answer that the gateway would give now: 200 stands for "forwarded"
    code: str | None  # in that answer
    refusal: Deny | None
    layers: tuple[Layer, ...]
    price: Estimate | None
    price_checked: bool
    input_tokens: int
    output_tokens: int
    budgets: tuple[BudgetAnswer, ...]
    limits: tuple[LimitStanding, ...]
    server_tool_ceiling_nano: int | None


class ExplainService:
    def __init__(
        self,
        *,
        keys: KeyDirectory,
        vendors: Mapping[str, Vendor],
        clock: Clock,
        gateway: GatewayAnswers,
        prices: PriceReader | None = None,
        usage: UsageReader | None = None,
    ) -> None:
        self._keys = keys
        self._vendors = vendors
        self._clock = clock
        self._gateway = gateway
        self._prices = prices
        self._usage = usage

    async def explain(
        self,
        actor: Actor,
        *,
        key: Secret | None,
        key_id: str | None,
        model: str,
        endpoint: str,
        input_tokens: int,
        output_tokens: int,
    ) -> Explanation:
        """Raises `NotFound` for a key that isn't there or isn't the actor's to see, whichever way it was named."""
        if (key is None) == (key_id is None):
            raise InvalidInput("key_id: name the key by its id, or send the key itself, not both", field="key_id")
        endpoint_groups([endpoint], "endpoint")
        if key is not None:
            state = await self._keys.state_by_token(actor.organization_id, key)
        else:
            state = await self._keys.state_by_id(actor.organization_id, key_id or "")
        if state is None or (actor.role is Role.DEVELOPER and (actor.developer_id is None or state.developer_id != actor.developer_id)):
            raise NotFound("There is no key with this id, or this is not a key of ours")
        now = self._clock.now_ns()
        alias = resolve_alias(state.aliases, model)
        vendor, name = self._named(alias or model)
        refusal = standing(state, now_ns=now)
        if refusal is None and vendor is None:
            refusal = Deny(
                "model_not_found",
                Scope.ORGANIZATION,
                state.organization_id,
                "No vendor owns models with such a name, and it is no alias; write vendor/model",
            )
        if refusal is None and vendor is not None and not any(e.group == endpoint for e in self._vendors[vendor].endpoints):
            refusal = Deny("endpoint_not_served", Scope.VENDOR, vendor, f"The vendor '{vendor}' has no endpoint '{endpoint}' here")
        if refusal is None and vendor is not None:
            decision = evaluate(state, vendor=vendor, model=name, endpoint=endpoint, now_ns=now)
            refusal = decision if isinstance(decision, Deny) else None
        price = self._price(vendor, name, endpoint, input_tokens, output_tokens, now)
        usage = KeyUsage() if self._usage is None else await self._usage.usage(state)
        budgets = tuple(BudgetAnswer(one, _fits(one, price)) for one in _budgets(state, usage) if _counts(one, vendor, name, state))
        limits = tuple(one for one in _limits(state, usage) if vendor and applies(one.rule, vendor=vendor, model=name, tags=state.tags))
        if refusal is None and vendor is not None and endpoint != EndpointGroup.MODELS:  # lists of models are the gateway's own
            tokens = input_tokens + output_tokens if self._billed(vendor, endpoint) else 0
            refusal = self._money(budgets, price) or _rates(limits, tokens) or self._credential(state, vendor, name)
        status, code = (200, None) if refusal is None else self._gateway.answer(refusal.rule)
        return Explanation(
            state=state,
            vendor=vendor,
            model=name,
            alias=model if alias is not None else None,
            endpoint=endpoint,
            status=status,
            code=code,
            refusal=refusal,
            layers=tuple(
                Layer(rules, Allow() if vendor is None else decide(rules, vendor=vendor, model=name, endpoint=endpoint))
                for rules in state.rules
            ),
            price=price,
            price_checked=self._prices is not None,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            budgets=budgets,
            limits=limits,
            server_tool_ceiling_nano=server_tool_ceiling(state),
        )

    def _named(self, model: str) -> tuple[str | None, str]:
        vendor, slash, name = model.partition("/")
        if slash and vendor in self._vendors and name:
            return vendor, name
        owners = [known.name for known in self._vendors.values() if known.model_prefixes and model.startswith(known.model_prefixes)]
        return (owners[0] if len(owners) == 1 else None), model

    def _price(self, vendor: str | None, model: str, endpoint: str, input_tokens: int, output_tokens: int, now: int) -> Estimate | None:
        if self._prices is None or vendor is None:
            return None
        if not self._billed(vendor, endpoint):
            return Estimate(price_id="unbilled", nano=0)
        return self._prices.estimate(vendor, model, input_tokens=input_tokens, output_tokens=output_tokens, at_ns=now)

    def _billed(self, vendor: str, endpoint: str) -> bool:
        return any(e.billed for e in self._vendors[vendor].endpoints if e.group == endpoint)

    def _money(self, budgets: tuple[BudgetAnswer, ...], price: Estimate | None) -> Deny | None:
        hard = [answer for answer in budgets if answer.standing.rule.mode is BudgetMode.HARD]
        if price is not None and price.nano == 0:
            return None  # what costs nothing, no budget refuses
        if hard and price is None and self._prices is not None:
            return _rule_refusal(hard[0].standing, "unpriced", "The price of the model is not known, and a hard budget applies")
        for one in (answer.standing for answer in hard):
            if one.spent_nano + (price.nano if price else 1) > one.rule.amount_nano:
                return _rule_refusal(one, "budget_spent", f"What is spent of the {one.rule.period} budget leaves no room for the call")
        for answer in hard:
            if answer.fits is False:
                held = "Only holds of requests in flight stand in the way; it clears by itself"
                return _rule_refusal(answer.standing, "budget_held", held)
        return None

    def _credential(self, state: KeyState, vendor: str, model: str) -> Deny | None:
        if self._gateway.serves(state.organization_id, vendor, model):
            return None
        return Deny("no_credential", Scope.ORGANIZATION, state.organization_id, f"There is no {vendor} credential for the model '{model}'")


def _rates(limits: tuple[LimitStanding, ...], tokens: int) -> Deny | None:
    """`tokens` 0: a call that counts towards no limit on tokens."""
    for kinds in _ORDER:
        for one in limits:
            rule = one.rule
            needed = tokens if kinds is _TOKENS else 1
            if rule.kind in kinds and needed and one.used + needed > rule.amount:
                detail = f"The limit {rule.kind} of {rule.amount} has no room: {one.used} are used, and the call may use {needed}"
                name = "concurrency" if rule.kind is LimitKind.CONCURRENT_REQUESTS else "rate_limit"
                return Deny(name, rule.scope, rule.scope_id, detail)
    return None


def _rule_refusal(one: BudgetStanding, rule: str, detail: str) -> Deny:
    return Deny(rule, one.rule.scope, one.rule.scope_id, detail)


def _budgets(state: KeyState, usage: KeyUsage) -> tuple[BudgetStanding, ...]:
    known = {one.rule.id: one for one in usage.budgets}
    return tuple(known.get(rule.id) or BudgetStanding(rule, 0, 0, None) for rule in state.budgets)


def _limits(state: KeyState, usage: KeyUsage) -> tuple[LimitStanding, ...]:
    known = {one.rule.id: one for one in usage.limits}
    return tuple(known.get(rule.id) or LimitStanding(rule, 0) for rule in state.limits)


def _counts(one: BudgetStanding, vendor: str | None, model: str, state: KeyState) -> bool:
    return vendor is not None and applies(one.rule, vendor=vendor, model=model, tags=state.tags)


def _fits(one: BudgetStanding, price: Estimate | None) -> bool | None:
    if price is None:
        return None
    return one.spent_nano + one.held_nano + price.nano <= one.rule.amount_nano
