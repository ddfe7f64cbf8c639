"""Long work on the event loop, piece by piece: requests of others have their turn in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import TypeVar

PIECE = 100  # rows: about a millisecond's work

T = TypeVar("T")


async def pieces(items: Sequence[T], size: int = PIECE) -> AsyncIterator[Sequence[T]]:
    """`items` in pieces, with a turn of the loop after each."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
        await asyncio.sleep(0)


async def gathered(parts: Iterable[Sequence[T]]) -> list[T]:
    """All of `parts` (of a query's result, say) in one list, with a turn of the loop after each part."""
    found: list[T] = []
    for part in parts:
        found += part
        await asyncio.sleep(0)
    return found
