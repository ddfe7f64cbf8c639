"""`kill -9` at the worst moment of a call to a vendor."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
from tests.running import RunningKeyGate

from keygate.sandbox.admin import Account, AdminFault, FaultKind


def changes(account: Account) -> int:
    """Calls at the vendor that are more than questions."""
    return sum(call.method != "GET" for call in list(account.calls))


def killed_in(keygate: RunningKeyGate, account: Account, operation: str, call: Callable[[], Any]) -> None:
    """Does the call, kills KeyGate once the vendor has done the operation and not answered, and starts it again."""
    account.faults.append(AdminFault(operation, FaultKind.STALL, performed=True))

    def ask() -> None:
        with contextlib.suppress(httpx.HTTPError, AssertionError):
            call()

    caller = threading.Thread(target=ask)
    caller.start()
    ends = time.monotonic() + 30
    while account.faults:
        assert time.monotonic() < ends, f"{operation} was never called"
        time.sleep(0.02)
    keygate.kill()
    caller.join(30)
    keygate.start()
