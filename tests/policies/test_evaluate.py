"""What a key may call: properties of the decision, and the words of a refusal."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.policies import (
    Allow,
    Deny,
    KeyState,
    KeyStatus,
    RuleSet,
    Scope,
    evaluate,
    may_use,
    resolve_alias,
    server_tool_ceiling,
    standing,
)

NOW = 1_000


def key(*rules: RuleSet, **fields: object) -> KeyState:
    state = KeyState(
        id="vk_1",
        public_id="p",
        name="ci",
        organization_id="org_1",
        team_id=None,
        developer_id=None,
        app_id=None,
        status=KeyStatus.ACTIVE,
        digests=(),
        expires_at_ns=None,
        rules=rules,
        limits=(),
        budgets=(),
    )
    return dataclasses.replace(state, **fields)


def layer(**fields: object) -> RuleSet:
    return RuleSet(**({"scope": Scope.TEAM, "scope_id": "team_1", "name": "search"} | fields))


vendors = st.sampled_from(["openai", "anthropic"])
models = st.sampled_from(["gpt-4.1", "gpt-4.1-mini", "claude-opus-4-5", "a/b:c"])
endpoints = st.sampled_from(["chat", "embeddings", "models"])
pattern = st.sampled_from(["openai/*", "anthropic/*", "openai/gpt-4.1", "openai/gpt-4.1*", "*mini", "*", "*/claude*"])
layers = st.builds(
    RuleSet,
    scope=st.sampled_from(list(Scope)[:5]),
    scope_id=st.just("x"),
    name=st.just("n"),
    models_allow=st.none() | st.lists(pattern, max_size=3).map(tuple),
    models_deny=st.lists(pattern, max_size=2).map(tuple),
    vendors=st.none() | st.frozensets(vendors),
    endpoints=st.none() | st.frozensets(endpoints),
)
calls = st.fixed_dictionaries({"vendor": vendors, "model": st.none() | models, "endpoint": endpoints})


@given(st.lists(layers, max_size=4), layers, st.integers(0, 4), calls)
def test_adding_a_layer_never_allows_more(several: list[RuleSet], added: RuleSet, at: int, call: dict[str, str]) -> None:
    wider = evaluate(key(*several), **call, now_ns=NOW)
    narrower = evaluate(key(*several[:at], added, *several[at:]), **call, now_ns=NOW)
    assert not (isinstance(wider, Deny) and isinstance(narrower, Allow))


@given(st.lists(layers, max_size=4), calls)
def test_the_order_of_layers_decides_nothing(several: list[RuleSet], call: dict[str, str]) -> None:
    assert type(evaluate(key(*several), **call, now_ns=NOW)) is type(evaluate(key(*several[::-1]), **call, now_ns=NOW))


@given(layers, calls, pattern)
def test_a_denial_wins_over_every_permission(rules: RuleSet, call: dict[str, str], denied: str) -> None:
    before = evaluate(key(rules), **call, now_ns=NOW)
    after = evaluate(key(dataclasses.replace(rules, models_deny=(*rules.models_deny, denied))), **call, now_ns=NOW)
    assert not (isinstance(before, Deny) and isinstance(after, Allow))
    if call["model"] is not None:
        everything = dataclasses.replace(rules, models_deny=("*",))
        assert isinstance(evaluate(key(everything), **call, now_ns=NOW), Deny)


@given(st.lists(layers, max_size=3), calls)
def test_models_are_listed_only_where_a_call_would_be_allowed(several: list[RuleSet], call: dict[str, str]) -> None:
    if call["model"] is not None and isinstance(evaluate(key(*several), **call, now_ns=NOW), Allow):
        assert may_use(key(*several), vendor=call["vendor"], model=call["model"])


def test_a_key_without_rules_may_call_anything() -> None:
    assert evaluate(key(), vendor="openai", model="gpt-4.1", endpoint="chat", now_ns=NOW) == Allow()


@pytest.mark.parametrize("nothing", [{"models_allow": ()}, {"vendors": frozenset()}, {"endpoints": frozenset()}])
def test_an_empty_list_allows_nothing(nothing: dict[str, object]) -> None:
    assert isinstance(evaluate(key(layer(**nothing)), vendor="openai", model="gpt-4.1", endpoint="chat", now_ns=NOW), Deny)


@pytest.mark.parametrize(
    ("rules", "rule", "words"),
    [
        ({"vendors": frozenset({"anthropic"})}, "vendor_not_allowed", "'openai'"),
        ({"endpoints": frozenset({"embeddings"})}, "endpoint_not_allowed", "'chat'"),
        ({"models_allow": ("openai/gpt-4o*",)}, "model_not_allowed", "do not allow the model 'openai/gpt-4.1'"),
        ({"models_deny": ("openai/gpt-4.1",)}, "model_not_allowed", "deny the model 'openai/gpt-4.1'"),
    ],
)
def test_a_refusal_names_the_rule_and_the_scope(rules: dict[str, object], rule: str, words: str) -> None:
    decision = evaluate(key(layer(), layer(**rules)), vendor="openai", model="gpt-4.1", endpoint="chat", now_ns=NOW)
    assert isinstance(decision, Deny)
    assert (decision.rule, decision.scope, decision.scope_id) == (rule, Scope.TEAM, "team_1")
    assert "team" in decision.detail
    assert "'search'" in decision.detail
    assert words in decision.detail


def test_no_spelling_slips_past_a_denial_and_a_permission_is_exact() -> None:
    denied, allowed = layer(models_deny=("openai/gpt-4.1*",)), layer(models_allow=("openai/gpt-4.1*",))
    assert isinstance(evaluate(key(denied), vendor="openai", model="GPT-4.1", endpoint="chat", now_ns=NOW), Deny)
    assert isinstance(evaluate(key(allowed), vendor="openai", model="GPT-4.1", endpoint="chat", now_ns=NOW), Deny)


def test_a_call_that_names_no_model_is_refused_where_models_are_restricted() -> None:
    restricted = key(layer(models_allow=("openai/*",)))
    assert isinstance(evaluate(restricted, vendor="openai", model=None, endpoint="moderations", now_ns=NOW), Deny)
    assert evaluate(restricted, vendor="openai", model=None, endpoint="models", now_ns=NOW) == Allow()


def test_a_revoked_an_expired_and_an_ownerless_key_are_refused_before_any_rule() -> None:
    for fields, rule, scope in (
        ({"status": KeyStatus.REVOKED}, "key_revoked", Scope.KEY),
        ({"expires_at_ns": NOW}, "key_expired", Scope.KEY),
        ({"status": KeyStatus.OWNER_INACTIVE, "developer_id": "dev_1"}, "owner_inactive", Scope.DEVELOPER),
        ({"status": KeyStatus.OWNER_INACTIVE, "app_id": "app_1"}, "owner_inactive", Scope.APP),
        ({"status": KeyStatus.OWNER_INACTIVE, "team_id": "team_1"}, "owner_inactive", Scope.TEAM),
    ):
        decision = evaluate(key(layer(models_allow=()), **fields), vendor="openai", model="gpt-4.1", endpoint="chat", now_ns=NOW)
        assert isinstance(decision, Deny)
        assert (decision.rule, decision.scope) == (rule, scope)
    assert standing(key(expires_at_ns=NOW + 1), now_ns=NOW) is None


def test_an_alias_is_found_by_its_whole_name() -> None:
    aliases = (("fast", "openai/gpt-4.1-mini"), ("faster", "openai/gpt-4.1-nano"), ("smart", "anthropic/claude-opus-4-5"))
    assert [resolve_alias(aliases, name) for name in ("fast", "smart", "faste", "", "z")] == [
        "openai/gpt-4.1-mini",
        "anthropic/claude-opus-4-5",
        None,
        None,
        None,
    ]


def test_the_lowest_ceiling_for_server_tools_counts() -> None:
    assert server_tool_ceiling(key(layer(), layer(server_tool_ceiling_nano=5), layer(server_tool_ceiling_nano=3))) == 3
    assert server_tool_ceiling(key(layer())) is None


def test_a_refusal_stays_short_whatever_the_caller_names() -> None:
    decision = evaluate(key(layer(models_allow=())), vendor="openai", model="m" * 100_000, endpoint="chat", now_ns=NOW)
    assert isinstance(decision, Deny)
    assert len(decision.detail) < 1_000
