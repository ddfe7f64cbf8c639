"""A secret is a type, not a string: it prints as nothing, can't be pickled or serialised, and is opened by an explicit call."""

from __future__ import annotations

import hmac
from typing import Any, Never


class Secret:
    """Holds text that must not leave. `open()` is the only way to it, so every use can be found by searching for `.open()`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def open(self) -> str:
        return self._text

    def hint(self) -> str:
        """The last four characters, for people to tell secrets apart; nothing for short ones."""
        return f"…{self._text[-4:]}" if len(self._text) >= 16 else "…"

    def __repr__(self) -> str:
        return "Secret(…)"

    def __str__(self) -> str:
        return "…"

    def __format__(self, spec: str) -> str:
        return "…"

    def __len__(self) -> int:
        return len(self._text)

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __reduce__(self) -> Never:
        raise TypeError("a secret is not serialisable")

    def __deepcopy__(self, memo: Any) -> Secret:
        return self
