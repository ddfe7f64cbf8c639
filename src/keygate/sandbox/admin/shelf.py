"""Things at a vendor, and how they come to be seen: at once by their id, late in lists, late at the inference side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from keygate.sandbox.admin.grants import IssuedSecret

T = TypeVar("T")


class Eventual(Generic[T]):
    """A value whose changes take effect at a moment of their own."""

    __slots__ = ("_changes",)

    def __init__(self, value: T) -> None:
        self._changes: list[tuple[int, T]] = [(0, value)]

    def set(self, value: T, *, at_ns: int) -> None:
        """`value` holds from `at_ns` on, over every change that was made before this one."""
        self._changes.append((at_ns, value))

    def at(self, now_ns: int) -> T:
        """What holds now; changes that later ones have overtaken are forgotten."""
        for index in range(len(self._changes) - 1, -1, -1):
            if self._changes[index][0] <= now_ns:
                if index:
                    del self._changes[:index]
                return self._changes[0][1]
        return self._changes[0][1]

    def changes(self) -> list[tuple[int, T]]:
        """`(from when, what)`: from these it can be made again."""
        return list(self._changes)

    @classmethod
    def of(cls, changes: Sequence[tuple[int, T]]) -> Eventual[T]:
        made = cls(changes[0][1])
        made._changes = list(changes)
        return made

    def last(self) -> T:
        """What was set last, in effect or not: the vendor's own record."""
        return self._changes[-1][1]


@dataclass(slots=True)
class Entry:
    """One thing: `body` is what the vendor's API shows of it. `more` holds what it doesn't show."""

    id: str
    body: dict[str, Any]
    made_at_ns: int
    parent: str | None = None
    removed_at_ns: int | None = None
    grant: IssuedSecret | None = None  # for keys: the secret's inference side
    more: dict[str, Any] = field(default_factory=dict)


class Shelf:
    """All things of one kind at a vendor, in the order in which they were made. What is removed stays listed while lists are late."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def add(self, entry: Entry) -> Entry:
        self._entries[entry.id] = entry
        return entry

    def get(self, id_: str) -> Entry | None:
        """The thing of this id, unless it was removed."""
        entry = self._entries.get(id_)
        return entry if entry is not None and entry.removed_at_ns is None else None

    def last(self, id_: str) -> Entry | None:
        """The thing of this id, or the last that had it."""
        return self._entries.get(id_)

    def remove(self, id_: str, *, at_ns: int) -> None:
        """KeyError: there is no such thing."""
        entry = self._entries[id_]
        if entry.removed_at_ns is None:
            entry.removed_at_ns = at_ns

    def __iter__(self) -> Iterator[Entry]:
        """What really stands, whatever lists say."""
        return (entry for entry in self._entries.values() if entry.removed_at_ns is None)

    def of(self, parent: str) -> list[Entry]:
        return [entry for entry in self if entry.parent == parent]

    def everything(self) -> Iterator[Entry]:
        """What stands and what ever stood."""
        return iter(self._entries.values())

    def listed(self, now_ns: int, *, late_ns: int = 0, parent: str | None = None) -> list[Entry]:
        """What a list shows now; of one parent, where it is named."""
        return [
            entry
            for entry in self._entries.values()
            if (parent is None or entry.parent == parent)
            and entry.made_at_ns + late_ns <= now_ns
            and (entry.removed_at_ns is None or entry.removed_at_ns + late_ns > now_ns)
        ]
