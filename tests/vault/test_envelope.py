"""A sealed value opens only where it was stored, and only whole."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keygate.kit.secret import Secret
from keygate.vault.envelope import DataKey, EnvelopeBroken, Place, key_id_of, open_sealed, seal, seal_with_nonce
from keygate.vault.providers import LocalProvider

KEY = DataKey("dk_1", bytes(range(32)))
PLACE = Place("credentials", "cred_1", "org_1", "secret")

FROZEN = "0104646b5f310000000000000000000000007dd798aad05ff7ea4d50ebea0759b21c521c8911a41bc1"
FROZEN_EMPTY = "0104646b5f316e6e6e6e6e6e6e6e6e6e6e6eea8f2e54facd40b84e477e7e2a61b419"
FROZEN_KEK_ID = "local:d4317db7dcdd7a219c22e718"
FROZEN_WRAPPED = (
    "011e6c6f63616c3a64343331376462376463646437613231396332326537313856839df6a73a74d23cff7f683cfaf170ec94"
    "c8b81252fd71d151fadf52ae81a01782904d8cc899490c66f46a6bc048f808f20ed60a2d7282dad0de4c"
)


def test_format_is_frozen() -> None:
    assert seal_with_nonce(KEY, b"sk-test", PLACE, nonce=bytes(12)).hex() == FROZEN
    assert seal_with_nonce(KEY, b"", Place("", "", "", ""), nonce=b"n" * 12).hex() == FROZEN_EMPTY
    assert open_sealed(KEY, bytes.fromhex(FROZEN), PLACE) == b"sk-test"


async def test_derivation_of_the_local_key_is_frozen() -> None:
    provider = LocalProvider(Secret("a master key for tests, not secret"))
    assert provider.id == FROZEN_KEK_ID
    assert await provider.unwrap(bytes.fromhex(FROZEN_WRAPPED), b"context") == bytes(32)
    with pytest.raises(EnvelopeBroken):
        await provider.unwrap(bytes.fromhex(FROZEN_WRAPPED), b"another")
    with pytest.raises(EnvelopeBroken):
        await LocalProvider(Secret("another master key for tests")).unwrap(bytes.fromhex(FROZEN_WRAPPED), b"context")


@given(st.binary(max_size=200), st.text(max_size=10), st.text(max_size=10))
def test_what_is_sealed_opens(plain: bytes, row_id: str, organization_id: str) -> None:
    place = Place("t", row_id, organization_id, "c")
    sealed = seal(KEY, plain, place)
    assert open_sealed(KEY, sealed, place) == plain
    assert key_id_of(sealed) == "dk_1"
    assert seal(KEY, plain, place) != sealed


@given(st.binary(max_size=40), st.data())
def test_any_flipped_bit_fails(plain: bytes, data: st.DataObject) -> None:
    sealed = bytearray(seal(KEY, plain, PLACE))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(EnvelopeBroken):
        open_sealed(KEY, bytes(sealed), PLACE)


@given(st.binary(max_size=40), st.data())
def test_any_cut_or_addition_fails(plain: bytes, data: st.DataObject) -> None:
    sealed = seal(KEY, plain, PLACE)
    for changed in (sealed[: data.draw(st.integers(0, len(sealed) - 1))], sealed + data.draw(st.binary(min_size=1, max_size=9))):
        with pytest.raises(EnvelopeBroken):
            open_sealed(KEY, changed, PLACE)


@given(st.binary(max_size=60))
def test_garbage_fails_cleanly(garbage: bytes) -> None:
    with pytest.raises(EnvelopeBroken):
        open_sealed(KEY, garbage, PLACE)


@pytest.mark.parametrize("part", Place.__slots__)
@given(other=st.text(max_size=12))
def test_a_value_moved_elsewhere_does_not_open(part: str, other: str) -> None:
    moved = replace(PLACE, **{part: other})
    if moved == PLACE:
        return
    with pytest.raises(EnvelopeBroken):
        open_sealed(KEY, seal(KEY, b"x", PLACE), moved)


def test_parts_of_a_place_do_not_run_into_each_other() -> None:
    with pytest.raises(EnvelopeBroken):
        open_sealed(KEY, seal(KEY, b"x", Place("ab", "c", "d", "e")), Place("a", "bc", "d", "e"))


def test_another_key_fails_even_under_the_same_name() -> None:
    sealed = seal(KEY, b"x", PLACE)
    with pytest.raises(EnvelopeBroken):
        open_sealed(DataKey("dk_1", b"x" * 32), sealed, PLACE)
    with pytest.raises(EnvelopeBroken):
        open_sealed(DataKey("dk_2", KEY.material), sealed, PLACE)


def test_a_data_key_does_not_print_its_material() -> None:
    assert repr(DataKey("dk_1", b"canary-canary-canary-canary-1234")) == "DataKey(id='dk_1')"
