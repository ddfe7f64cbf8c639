"""Ids sort by creation and don't repeat."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from keygate.kit.ids import base62, new_id


def test_ids_sort_by_creation_within_a_millisecond_too() -> None:
    ids = [new_id("vk") for _ in range(5000)]
    assert ids == sorted(ids)
    assert {len(each) for each in ids} == {len("vk_") + 22}


def test_ids_of_many_threads_do_not_repeat() -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = list(pool.map(lambda _: new_id("req"), range(5000)))
    assert len(set(ids)) == len(ids)


def test_a_number_that_does_not_fit_is_refused() -> None:
    assert base62(61, 2) == "0z"
    with pytest.raises(ValueError, match="does not fit"):
        base62(62**2, 2)
