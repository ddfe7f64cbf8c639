"""Drill: `kill -9` at steps of provision and revoke at Anthropic (all of them at full length), where a key is made of four things. After
the restart one of each stands, Anthropic's own SDK gets an answer with what the holder was told, and nothing else is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.drills.figures import length, write
from tests.drills.test_issued_crash import MortalKeyGate
from tests.issued_keys.test_anthropic import House
from tests.sdks.admin_clients import anthropic_bridge
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer

__all__ = ["anthropic_bridge"]

pytestmark = pytest.mark.timeout(length(120, 1_800))
STRIDE = length(6, 1)
_MOST = 60
TERMS = {"rate_limit_rpm": 60}


@pytest.fixture
def mortal(tmp_path: Path, anthropic_bridge: Bridge) -> Iterator[tuple[MortalKeyGate, House]]:
    with SandboxServer() as sandbox, MortalKeyGate(tmp_path, {}) as keygate:
        yield keygate, House(keygate, sandbox, anthropic_bridge)


def standing(house: House) -> dict[str, int]:
    """What stands at the vendor and carries a mark of KeyGate's."""
    with house.sandbox.state.admin.lock:
        return {
            shelf: sum(
                each.body["archived_at"] is None and str(each.body["name"]).startswith("kg-") for each in house.account.shelves[shelf]
            )
            for shelf in ("workspaces", "service_accounts", "rules")
        }


NOTHING = {"workspaces": 0, "service_accounts": 0, "rules": 0}
ONE = {"workspaces": 1, "service_accounts": 1, "rules": 1}


def survived(keygate: MortalKeyGate, act: Callable[[], Any]) -> Any:
    """What the call answers; where the process died under it, what it answers when it is made again."""
    try:
        return act()
    except httpx.HTTPError:
        assert keygate.died()
        return act()


def at_steps(keygate: MortalKeyGate, act: Callable[[int], None]) -> list[str]:
    deaths: list[str] = []
    for number in range(1, _MOST, STRIDE):
        before = keygate.deaths
        act(number)
        keygate.file.unlink(missing_ok=True)
        if keygate.deaths == before:
            return deaths
        deaths.append(keygate.last_step())
    raise AssertionError(f"an action with {_MOST} steps")


def test_provision_at_anthropic_converges_from_a_death_at_every_step(mortal: tuple[MortalKeyGate, House]) -> None:
    keygate, house = mortal
    developer = house.call("POST", "/developers", {"name": "priya", "email": "priya@example.com"})["id"]

    def provision(number: int) -> None:
        body = {"vendor": "anthropic", "developer_id": developer, "request_id": f"order-{number}", **TERMS}
        keygate.die_at(number)
        made = survived(keygate, lambda: house.call("POST", "/keys/provision", body))
        keygate.file.unlink(missing_ok=True)
        assert (made["state"], made["enforcement"]) == ("active", {"requests_per_minute": "confirmed"}), made
        assert standing(house) == ONE, "an orphan at the vendor"
        assert house.answers(made["env"])
        assert house.call("POST", f"/keys/{made['id']}/revoke")["state"] == "revoked"
        assert standing(house) == NOTHING
        assert not house.answers(made["env"])

    deaths = at_steps(keygate, provision)
    assert len(deaths) >= 18 // STRIDE
    write("anthropic_provision_crash", f"provision at Anthropic: killed at {len(deaths)} steps, converged from each", deaths=deaths)


def test_revoke_at_anthropic_converges_from_a_death_at_every_step(mortal: tuple[MortalKeyGate, House]) -> None:
    keygate, house = mortal

    def revoke(number: int) -> None:
        made = house.provision(**TERMS)
        keygate.die_at(number)
        survived(keygate, lambda: house.call("POST", f"/keys/{made['id']}/revoke"))
        key = house.until(made["id"], lambda key: key["state"] == "revoked", meanwhile=lambda: None)
        assert key["evidence"][0]["vendor_says"] == "gone"
        assert standing(house) == NOTHING
        assert not house.answers(made["env"])

    deaths = at_steps(keygate, revoke)
    assert len(deaths) >= 6 // STRIDE
    write("anthropic_revoke_crash", f"revoke at Anthropic: killed at {len(deaths)} steps, converged from each", deaths=deaths)
