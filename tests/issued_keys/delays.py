"""A vendor whose inference side hears late of new and revoked keys, and whose admin API tells uses late: nothing that KeyGate says of a key
may run ahead of what the vendor's own SDK finds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from tests.issued_keys.houses import KeyHouse

from keygate.sandbox.admin import Account

NEW_KEY, REVOKED_KEY, LAST_USED = 2.5, 4.0, 1.5
OVERLAP = 3
Opens = Callable[[dict[str, Any]], bool]


@contextmanager
def slow(account: Account, **settings: float) -> Iterator[None]:
    before = account.settings
    account.settings = before.with_changes({"new_key_s": NEW_KEY, "revoked_key_s": REVOKED_KEY, "last_used_s": LAST_USED, **settings})
    try:
        yield
    finally:
        account.settings = before


class Witness:
    """Calls of the vendor's SDK with the keys of one rotation, compared with what KeyGate says at the time."""

    def __init__(self, house: KeyHouse, opens: Opens) -> None:
        self._house, self._opens = house, opens

    def while_going_on(self, work: Future[Any], made: dict[str, Any]) -> Any:
        """No call with this key fails while KeyGate works at the vendor."""
        calls = 0
        while not work.done() or not calls:
            assert self._opens(made), "the former key, while its successor is made"
            calls += 1
        return work.result()

    def overlap(self, former: dict[str, Any], turned: dict[str, Any]) -> int:
        """Both keys work until the overlap is over. Returns how often they were tried."""
        until = datetime.fromisoformat(turned["former"]["works_until"]).timestamp()
        tried = 0
        while True:
            new, old = self._opens(turned), self._opens(former)
            assert new, "the next key, from the moment it is handed out"
            if time.time() >= until:
                return tried
            assert old, "the former key, during the whole overlap"
            tried += 1

    def dead(
        self, made: dict[str, Any], over: Callable[[dict[str, Any]], bool], *, meanwhile: Callable[[dict[str, Any]], None] = lambda _: None
    ) -> list[dict[str, Any]]:
        """Follows the key until KeyGate says that it is over; what it said before, while the SDK still got answers with it, in order.
        Once it is said, the SDK is refused."""
        answered: list[dict[str, Any]] = []
        ends = time.monotonic() + 60
        while True:
            key: dict[str, Any] = self._house.call("GET", f"/keys/{made['id']}")
            if over(key):
                assert not self._opens(made), f"said to be over, and the vendor takes it: {key}"
                return answered
            if self._opens(made):
                answered.append(key)
            meanwhile(key)
            assert time.monotonic() < ends, key
            time.sleep(0.05)


def from_provision_to_revocation(
    house: KeyHouse,
    provision: Callable[[], dict[str, Any]],
    opens: Opens,
    *,
    lasts_at_end: bool = True,
    rotation: dict[str, Any] | None = None,
    meanwhile: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:
    """`lasts_at_end`: the vendor lets a revoked key work on for a while also where what holds it is removed."""
    witness = Witness(house, opens)
    made = provision()
    assert opens(made), "what is handed out works"

    order = {"overlap_seconds": OVERLAP, "insist": True} if rotation is None else rotation
    with ThreadPoolExecutor(1) as pool:
        turned = witness.while_going_on(pool.submit(house.call, "POST", f"/keys/{made['id']}/rotate", order), made)
    assert turned["key"], turned
    assert witness.overlap(made, turned), "there was an overlap"
    answered = witness.dead(made, lambda key: key["former"] is None, meanwhile=meanwhile)
    assert "refusal" in {key["former"]["waits_for"] for key in answered}, "shown as it is: gone, the vendor says, and it still answers"
    assert {key["state"] for key in answered} == {"rotating"}
    assert opens(turned)

    house.call("POST", f"/keys/{made['id']}/revoke", {"wait_seconds": 1})
    answered = witness.dead(turned, lambda key: key["state"] == "revoked", meanwhile=meanwhile)
    if lasts_at_end:
        assert answered, "the vendor took its time"
        assert {key["error_code"] for key in answered} & {"still_answers"}, answered
        assert {key["state"] for key in answered} == {"revoking"}
    last = house.call("GET", f"/keys/{made['id']}")
    assert last["evidence"][0]["the_key_itself"] == "refused"
    assert last["gone_at"] <= last["ended_at"]


__all__ = ["LAST_USED", "OVERLAP", "Witness", "from_provision_to_revocation", "slow"]
