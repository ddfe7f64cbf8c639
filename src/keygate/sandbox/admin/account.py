"""One vendor's organisation as its admin API keeps it: things on shelves, admin credentials, faults, books."""

from __future__ import annotations

import secrets
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.books import Books
from keygate.sandbox.admin.grants import IssuedSecret, Meter, Rule
from keygate.sandbox.admin.model import AdminCall, AdminFault, Credential, Settings, VendorClock
from keygate.sandbox.admin.shelf import Entry, Shelf
from keygate.sandbox.errors import VendorError
from keygate.sandbox.model import Key, KeyStatus, Usage, Vendor

KEEP_CALLS = 100_000


class Account:
    """All state of one vendor's admin side. Whoever changes it from another thread holds `AdminState.lock`."""

    def __init__(self, vendor: Vendor, *, clock: VendorClock, keys: dict[str, Key], ceilings: Mapping[str, int], rule: Rule) -> None:
        self.vendor = vendor
        self.clock = clock
        self.rule = rule
        self.behind: Any = None  # what a vendor keeps that is not on shelves: Google's cloud
        self.settings = Settings(ceilings=dict(ceilings))
        self.credentials: dict[str, Credential] = {}
        self.faults: list[AdminFault] = []
        self.shelves: defaultdict[str, Shelf] = defaultdict(Shelf)
        self.books = Books()
        self.meter = Meter()
        self.calls: deque[AdminCall] = deque(maxlen=KEEP_CALLS)
        self._keys = keys
        self._turns: defaultdict[str, deque[int]] = defaultdict(deque)

    def now_ns(self) -> int:
        return self.clock.now_ns()

    def later_ns(self, seconds: float) -> int:
        return self.clock.now_ns() + round(seconds * NANOSECONDS)

    # ---- who may call

    def create_credential(
        self, *, value: str | None = None, name: str = "admin", rights: Any = None, without: Any = (), kind: str = "admin_key"
    ) -> Credential:
        """A new admin credential; without `value`, `sandbox-<vendor>-admin-…`."""
        credential = Credential(
            value or f"sandbox-{self.vendor}-admin-{secrets.token_hex(16)}",
            name,
            None if rights is None else frozenset(rights),
            frozenset(without),
            kind,
        )
        self.credentials[credential.value] = credential
        return credential

    def own_credential(self) -> Credential:
        """The admin credential of whoever runs the sandbox, which may everything: made the first time."""
        return (
            next((each for each in self.credentials.values() if (each.name, each.rights) == ("admin", None)), None)
            or self.create_credential()
        )

    def take_turn(self, credential: Credential) -> float | None:
        """Counts a call of the credential; seconds to wait where its rate limit is reached, and then nothing is counted."""
        most = self.settings.requests_per_minute
        if most is None:
            return None
        now, turns = self.now_ns(), self._turns[credential.value]
        while turns and turns[0] <= now - 60 * NANOSECONDS:
            turns.popleft()
        if len(turns) >= most:
            return max(1.0, (turns[0] + 60 * NANOSECONDS - now) / NANOSECONDS)
        turns.append(now)
        return None

    def struck(self, operation: str, told: str) -> AdminFault | None:
        """The first planned fault that hits this call; `told`: its path, query and body."""
        found = next((fault for fault in self.faults if fault.strikes(operation, told)), None)
        struck = found.taken() if found is not None else None
        self.faults = [fault for fault in self.faults if fault.calls != 0]
        return struck

    # ---- things

    def make(self, shelf: str, id_: str, body: dict[str, Any], *, parent: str | None = None, **more: Any) -> Entry:
        """Puts a new thing on its shelf; ask `full` first."""
        return self.shelves[shelf].add(Entry(id_, body, self.now_ns(), parent, more=more))

    def full(self, shelf: str, standing: int | None = None, *, ceiling: str | None = None) -> int | None:
        """The ceiling of a shelf, where it is reached. `standing` counts instead of what is on the shelf."""
        most = self.settings.ceilings.get(ceiling or shelf)
        count = sum(1 for _ in self.shelves[shelf]) if standing is None else standing
        return most if most is not None and count >= most else None

    def listed(self, shelf: str, *, parent: str | None = None) -> list[Entry]:
        """What the vendor's list of a shelf shows now, late as its settings say."""
        late_ns = round(self.settings.lists_s * NANOSECONDS)
        return self.shelves[shelf].listed(self.now_ns(), late_ns=late_ns, parent=parent)

    def remove(self, shelf: str, id_: str) -> None:
        """Takes a thing away; a key among them stops working, as late as the settings say. KeyError: no such thing."""
        entry = self.shelves[shelf].get(id_)
        if entry is None:
            raise KeyError(id_)
        if entry.grant is not None:
            entry.grant.revoke()
        self.shelves[shelf].remove(id_, at_ns=self.now_ns())

    # ---- secrets

    def issue(
        self, value: str, *, id_: str, container: str | None, expires_at_ns: int | None = None, known_at_ns: int | None = None
    ) -> IssuedSecret:
        """A secret that works at the sandbox's inference side from now on, or as late as the settings say."""
        grant = IssuedSecret(self, value, id_=id_, container=container, expires_at_ns=expires_at_ns, known_at_ns=known_at_ns)
        self._keys[value] = Key(value, self.vendor, grant=grant)
        return grant

    def forget(self, value: str) -> None:
        """From now on the inference side refuses the secret, whatever its grant says: for those whose holder is gone for good."""
        if value in self._keys:
            self._keys[value].status = KeyStatus.REVOKED

    def count_tokens(self, grant: IssuedSecret, model: str, usage: Usage) -> None:
        """Counts produced tokens against what limits the container and model."""
        self.meter.count(f"{grant.container}/{model}", self.now_ns(), tokens=usage.input + usage.output)


def missing(what: str, id_: str) -> VendorError:
    return VendorError(404, f"No such {what}: {id_[:200]}")
