"""What `explain` says about a call, without making it."""

import pytest

from keygate.errors import InvalidInput, NotFound
from keygate.kit.money import NANO
from keygate.kit.secret import Secret
from keygate.policies import BudgetMode, BudgetSpec, LimitKind, Period, Place, Rules, Scope
from keygate.virtual_keys import KeyDraft, mint

DAY = BudgetSpec(amount_nano=5 * NANO, period=Period.DAY)


async def explain(house, made, *, actor=None, model="gpt-4.1", endpoint="chat", by_token=False, **named):
    key = {"key": made.token.text, "key_id": None} if by_token else {"key": None, "key_id": made.view.key.id}
    sizes = {"input_tokens": 500, "output_tokens": 500} | named  # two dollars
    return await house.explain.explain(actor or house.admin, **key, model=model, endpoint=endpoint, **sizes)


async def test_a_call_that_would_pass_is_shown_layer_by_layer(house) -> None:
    await house.aliases.create(house.admin, alias="fast", target="openai/gpt-4.1")
    made = await house.keys.create(
        house.admin, KeyDraft(name="ci", rules=Rules(vendors=("openai",)), budgets=[DAY], limits={LimitKind.REQUESTS_PER_DAY: 3})
    )
    told = await explain(house, made, model="fast", by_token=True)
    assert (told.status, told.refusal, told.vendor, told.model, told.alias) == (200, None, "openai", "gpt-4.1", "fast")
    assert [layer.rules.name for layer in told.layers] == ["ci"]
    assert told.price.nano == 2 * NANO
    assert [answer.fits for answer in told.budgets] == [True]
    assert [one.rule.kind for one in told.limits] == [LimitKind.REQUESTS_PER_DAY]
    assert house.publisher.keys == [made.view.key.id]  # of its making; explaining changed nothing


async def test_refusals_come_with_the_status_and_rule_that_the_gateway_would_give(house) -> None:
    made = await house.keys.create(
        house.admin,
        KeyDraft(name="ci", rules=Rules(vendors=("openai",), endpoints=("chat",)), budgets=[DAY], limits={LimitKind.REQUESTS_PER_DAY: 3}),
    )
    budget, limit = made.state.budgets[0].id, made.state.limits[0].id

    async def answer(**named: object) -> tuple[int, str]:
        told = await explain(house, made, **named)
        return told.status, told.refusal.rule

    assert await answer(model="anthropic/claude-opus-4-5") == (403, "vendor_not_allowed")
    assert await answer(model="text-embedding-3-small", endpoint="embeddings") == (403, "endpoint_not_allowed")
    assert await answer(model="no-such-thing") == (404, "model_not_found")
    assert await answer(model="anthropic/claude-opus-4-5", endpoint="embeddings") == (400, "endpoint_not_served")
    assert await answer(model="openai/unknown-model") == (403, "unpriced")
    house.books.without_credential.add("openai")
    assert await answer() == (503, "no_credential")
    house.books.without_credential.clear()
    house.books.spent[budget] = 4 * NANO
    assert await answer() == (402, "budget_spent")
    house.books.spent[budget], house.books.held[budget] = 1 * NANO, 3 * NANO
    assert await answer() == (429, "budget_held")
    house.books.held.clear()
    house.books.used[limit] = 3
    assert await answer() == (429, "rate_limit")
    await house.keys.revoke(house.admin, made.view.key.id)
    assert await answer() == (401, "key_revoked")


async def test_a_soft_budget_refuses_nothing_and_budgets_of_other_vendors_are_left_out(house) -> None:
    soft = BudgetSpec(amount_nano=1, period=Period.DAY, mode=BudgetMode.SOFT)
    await house.budgets.create_budget(house.admin, scope=Scope.VENDOR, scope_id=None, selector="anthropic", terms=DAY)
    made = await house.keys.create(house.admin, KeyDraft(name="ci", budgets=[soft]))
    told = await explain(house, made)
    assert told.refusal is None
    assert [(answer.standing.rule.mode, answer.fits) for answer in told.budgets] == [(BudgetMode.SOFT, False)]


async def test_keys_of_others_are_absent_however_they_are_named(house) -> None:
    theirs = await house.keys.create(house.admin, KeyDraft(name="x", owner=Place(Scope.DEVELOPER, "dev_2")))
    for actor in (house.developer, house.stranger):
        for by_token in (True, False):
            with pytest.raises(NotFound):
                await explain(house, theirs, actor=actor, by_token=by_token)
    forged = mint(public_id=theirs.token.public_id).text
    for token in (forged, Secret("nonsense")):
        with pytest.raises(NotFound) as refused:
            await house.explain.explain(
                house.admin, key=token, key_id=None, model="gpt-4.1", endpoint="chat", input_tokens=1, output_tokens=1
            )
        assert token.open() not in str(refused.value)
    mine = await house.keys.create(house.developer, KeyDraft(name="mine"))
    assert (await explain(house, mine, actor=house.developer)).status == 200


async def test_a_key_is_named_in_one_way(house) -> None:
    with pytest.raises(InvalidInput):
        await house.explain.explain(house.admin, key=None, key_id=None, model="m", endpoint="chat", input_tokens=1, output_tokens=1)
