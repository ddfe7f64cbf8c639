"""The format of tokens is frozen: keys in the field must parse in every later version."""

import re
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.kit.ids import ALPHABET, base62
from keygate.virtual_keys import GRANT, PREFIXES, SCANNER_PATTERN, VIRTUAL_KEY, digest, mint, parse

VECTORS = (
    (VIRTUAL_KEY, 12345678901234567890, 62**33 - 1, "sk-kg-0EhzL6HwZ5owzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz3SmeLV", "0EhzL6HwZ5ow"),
    (GRANT, 0, 0, "okap_0000000000000000000000000000000000000000000001hyisc", "000000000000"),
    (VIRTUAL_KEY, 62**12 - 1, 98765432109876543210**2, "sk-kg-zzzzzzzzzzzz00000000003bLeQxCz4dz53iMwNeFUnQK2jicQL", "zzzzzzzzzzzz"),
)

tokens = st.builds(
    lambda prefix, public, secret: mint(prefix, below=lambda n: (public if n == 62**12 else secret) % n).text.open(),
    st.sampled_from(PREFIXES),
    st.integers(0, 62**12 - 1),
    st.integers(0, 62**33 - 1),
)


@pytest.mark.parametrize(("prefix", "public", "secret", "text", "public_id"), VECTORS)
def test_minting_and_parsing_keep_to_the_frozen_vectors(prefix: str, public: int, secret: int, text: str, public_id: str) -> None:
    draws = iter((public, secret))
    token = mint(prefix, below=lambda _: next(draws))
    assert token.text.open() == text
    assert token.public_id == public_id
    assert token.hint == f"{prefix}{public_id}…"
    assert parse(text, PREFIXES) == parse(text.encode(), PREFIXES) == public_id


def test_the_digest_keeps_to_its_frozen_vector() -> None:
    text = VECTORS[0][3]
    frozen = bytes.fromhex("6cc019dcb00654d9f1000aa7041f4e08b069740cf4f7cf576b98fddec9d55344")
    assert digest(bytes(range(32)), text) == digest(bytes(range(32)), text.encode()) == frozen
    assert digest(bytes(32), text) != frozen


def test_the_checksum_is_crc32_in_six_base62_digits() -> None:
    text = mint().text.open()
    assert text[-6:] == base62(crc32(text[:-6].encode()), 6)


@given(tokens)
def test_every_minted_token_parses_and_the_scanner_pattern_finds_it(text: str) -> None:
    assert parse(text, PREFIXES) is not None
    assert SCANNER_PATTERN.findall(f'api_key = "{text}"\n') == [text]
    assert re.fullmatch(r"(?:sk-kg-|okap_)[0-9A-Za-z]{51}", text)


@given(tokens, st.data())
def test_any_single_changed_character_is_refused(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from([*ALPHABET, "-", "_", " ", "\x00", "é"]).filter(lambda c: c != text[at]))
    assert parse(text[:at] + other + text[at + 1 :], PREFIXES) is None


@given(tokens, st.data())
def test_two_swapped_neighbours_are_refused(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 2).filter(lambda i: text[i] != text[i + 1]))
    assert parse(text[:at] + text[at + 1] + text[at] + text[at + 2 :], PREFIXES) is None


@given(tokens, st.integers(0, 56))
def test_a_token_cut_off_or_with_something_added_is_refused(text: str, at: int) -> None:
    assert parse(text[: min(at, len(text) - 1)], PREFIXES) is None
    assert parse(text + "0", PREFIXES) is None
    assert parse(text + "\n", PREFIXES) is None
    assert parse(" " + text, PREFIXES) is None


@given(st.one_of(st.text(max_size=80), st.binary(max_size=80)))
def test_arbitrary_input_is_refused_without_an_exception(text: str | bytes) -> None:
    assert parse(text, PREFIXES) is None


def test_a_right_checksum_does_not_make_a_token_of_other_characters() -> None:
    head = b"sk-kg-" + b"a" * 44 + b"\n"
    assert parse(head + base62(crc32(head), 6).encode()) is None


def test_a_grant_is_no_virtual_key_and_the_other_way_round() -> None:
    assert parse(mint(GRANT).text.open()) is None
    assert parse(mint(VIRTUAL_KEY).text.open(), (GRANT,)) is None


def test_neither_printing_nor_the_hint_shows_the_secret() -> None:
    token = mint()
    secret = token.text.open()[len(VIRTUAL_KEY) + 12 :]
    assert secret not in f"{token!r} {token} {token.hint}"
    assert not any(secret[i : i + 4] in token.hint for i in range(len(secret) - 3))


def test_the_secret_has_at_least_190_bits_and_the_public_id_does_not_collide() -> None:
    ranges: list[int] = []
    mint(below=lambda n: ranges.append(n) or 0)
    assert ranges[1].bit_length() - 1 >= 190
    assert len({mint().public_id for _ in range(2_000)}) == 2_000
