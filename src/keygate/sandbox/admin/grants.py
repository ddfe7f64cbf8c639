"""The inference side of a secret that an admin API issued: whether it works now, what it may use, whom its use is booked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.shelf import Eventual
from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import KeyStatus

if TYPE_CHECKING:
    from keygate.sandbox.admin.account import Account

Rule = Callable[["IssuedSecret", str], VendorError | None]  # why the vendor refuses a call of the model now, if it does
_MINUTE_NS = 60 * NANOSECONDS


class IssuedSecret:
    """Stands on the `Key` that a caller shows; `value` is what that shows. What else the vendor refuses a call for (limits, permissions,
    money spent) is its admin API's to say: `AdminApi.refuses`. `known_at_ns`: when the inference side hears of it; None: as late as the
    settings say."""

    def __init__(
        self,
        account: Account,
        value: str,
        *,
        id_: str,
        container: str | None,
        expires_at_ns: int | None = None,
        known_at_ns: int | None = None,
    ) -> None:
        self.account = account
        self.value = value
        self.id = id_
        self.container = container
        self.expires_at_ns = expires_at_ns
        self.last_used_ns: Eventual[int | None] = Eventual(None)
        self.usable: Eventual[bool] = Eventual(False)
        self.usable.set(True, at_ns=account.later_ns(account.settings.new_key_s) if known_at_ns is None else known_at_ns)

    def revoke(self) -> None:
        """Refused as a key that never was, once the vendor's inference side has heard of it."""
        self.usable.set(False, at_ns=self.account.later_ns(self.account.settings.revoked_key_s))

    def restore(self) -> None:
        """A disabled key works again."""
        self.usable.set(True, at_ns=self.account.later_ns(self.account.settings.new_key_s))

    @property
    def expired(self) -> bool:
        return self.expires_at_ns is not None and self.expires_at_ns <= self.account.now_ns()

    def status(self) -> KeyStatus:
        """What the inference side makes of the secret now."""
        return KeyStatus.VALID if self.usable.at(self.account.now_ns()) and not self.expired else KeyStatus.REVOKED

    def admit(self, model: str) -> None:
        """A call of the model begins. Raises what the vendor refuses it with."""
        now = self.account.now_ns()
        shown_at = self.account.later_ns(self.account.settings.last_used_s)
        previous = self.last_used_ns.last()
        if previous is None or now - previous >= NANOSECONDS:
            self.last_used_ns.set(now, at_ns=shown_at)
        refused = self.account.rule(self, model)
        if refused is not None:
            raise refused


class Meter:
    """Requests and tokens of the last minute, by whatever they are counted for."""

    def __init__(self) -> None:
        self._uses: dict[str, deque[list[int]]] = {}

    def count(self, name: str, now_ns: int, *, requests: int = 0, tokens: int = 0) -> None:
        uses = self._uses.setdefault(name, deque())
        while uses and uses[0][0] <= now_ns - _MINUTE_NS:
            uses.popleft()
        if uses and now_ns - uses[-1][0] < NANOSECONDS // 20:
            uses[-1][1] += requests
            uses[-1][2] += tokens
        else:
            uses.append([now_ns, requests, tokens])

    def minute(self, name: str, now_ns: int) -> tuple[int, int]:
        """`(requests, tokens)` of the minute that ends now."""
        uses = self._uses.get(name)
        if not uses:
            return 0, 0
        while uses and uses[0][0] <= now_ns - _MINUTE_NS:
            uses.popleft()
        return sum(use[1] for use in uses), sum(use[2] for use in uses)
