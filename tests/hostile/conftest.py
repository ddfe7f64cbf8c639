"""`house`: one KeyGate for the whole run of these tests, before a vendor that can't be trusted. After each test it must be as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.hostile.evil import EvilVendor
from tests.hostile.house import SETTINGS, House, furnish
from tests.running import RunningKeyGate

_MEGABYTE = 2**20


@pytest.fixture(scope="session")
def _house(tmp_path_factory) -> Iterator[House]:
    with EvilVendor() as vendor, RunningKeyGate(tmp_path_factory.mktemp("hostile"), environment=SETTINGS) as keygate:
        house = furnish(keygate, vendor)
        yield house
        log = keygate.log.read_text(errors="replace")
        assert "Traceback" not in log, log[-6000:]
    assert keygate.process is None  # it ended when asked to


@pytest.fixture
async def house(_house: House) -> AsyncIterator[House]:
    before = _house.resident()
    _house.vendor.hold()
    yield _house
    _house.vendor.go()
    assert _house.is_up()
    await _house.calm()
    assert _house.resident() - before < 64 * _MEGABYTE
    assert b'"choices"' in await _house.chat()  # it serves as ever
