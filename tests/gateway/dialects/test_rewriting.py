"""Edits change what they say and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.gateway.dialects import codec
from keygate.vendors import Dialect

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)
OTHERS = st.dictionaries(TEXT.map(lambda name: "x" + name), VALUES, max_size=4)
STYLES = st.sampled_from([{"ensure_ascii": True}, {"ensure_ascii": False}, {"indent": 2}, {"separators": (",", ":")}])


@given(
    others=OTHERS,
    style=STYLES,
    governed=st.fixed_dictionaries(
        {},
        optional={
            "stream": st.sampled_from([True, False, None]),
            "stream_options": st.sampled_from(
                [None, {}, {"include_usage": False}, {"include_usage": True}, {"include_obfuscation": False}]
            ),
            "max_tokens": st.none(),
            "max_completion_tokens": st.none(),
        },
    ),
    model=st.sampled_from([None, "gpt-4.1-mini", 'quo"te\\d']),
    most=st.sampled_from([None, 17]),
)
def test_a_chat_body_means_the_same_but_for_the_edit(others, style, governed, model, most) -> None:
    chat = codec(Dialect.OPENAI_CHAT)
    before: dict[str, Any] = {**others, **governed, "model": "gpt-4.1-mini", "messages": [{"role": "user", "content": 'é\U0001f600"{}'}]}
    body = json.dumps(before, **style).encode()
    facts = chat.read(body, None)
    after = json.loads(chat.rewrite(body, facts, model=model, max_output=most, include_usage=True))
    expected = dict(before)
    if model is not None:
        expected["model"] = model
    if most is not None:
        expected.pop("max_tokens", None)
        expected["max_completion_tokens"] = most
    if governed.get("stream") and not facts.include_usage:
        expected["stream_options"] = {**(governed.get("stream_options") or {}), "include_usage": True}
    assert after == expected


def test_nothing_to_change_gives_the_same_object() -> None:
    body = b'{ "model" : "gpt-5" , "messages":[] }'
    for dialect in (Dialect.OPENAI_CHAT, Dialect.OPENAI_RESPONSES, Dialect.OPENAI_EMBEDDINGS):
        kind = codec(dialect)
        assert kind.rewrite(body, kind.read(body, None), model="gpt-5") is body


def test_numbers_and_escapes_of_other_members_keep_their_bytes() -> None:
    body = b'{"temperature": 1.00, "seed":12345678901234567890123, "messages":[ {"content" : "\\u00e9\\/"} ],"model":"a"}'
    kind = codec(Dialect.OPENAI_CHAT)
    after = kind.rewrite(body, kind.read(body, None), model="b", max_output=3)
    for kept in (b"1.00", b"12345678901234567890123", b'[ {"content" : "\\u00e9\\/"} ]'):
        assert kept in after


@pytest.mark.parametrize(
    ("dialect", "extra", "name"),
    [
        (Dialect.OPENAI_CHAT, {"max_tokens": None}, "max_completion_tokens"),
        (Dialect.OPENAI_COMPLETIONS, {}, "max_tokens"),
        (Dialect.OPENAI_RESPONSES, {}, "max_output_tokens"),
        (Dialect.OPENAI_RESPONSES, {"max_output_tokens": None}, "max_output_tokens"),
        (Dialect.ANTHROPIC_MESSAGES, {"max_tokens": 5}, "max_tokens"),
    ],
)
def test_each_dialect_has_its_own_maximum(dialect: Dialect, extra: dict[str, Any], name: str) -> None:
    kind = codec(dialect)
    body = json.dumps({"model": "m", **extra}).encode()
    after = kind.rewrite(body, kind.read(body, None), max_output=99)
    assert json.loads(after) == {"model": "m", name: 99}
    assert kind.read(after, None).output_max == 99
