"""Journals as a gateway leaves them, for tests of the fold."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

from keygate.kit.ids import new_id
from keygate.ledger import TokenUsage
from keygate.ledger.journal import Context, Settle
from keygate.ledger.journal.records import CONTEXT, SETTLE, encode, encode_context
from keygate.ledger.journal.segments import MAGIC, frame, segment_path

JANUARY = 1_767_225_600 * 10**9  # 2026-01-01T00:00:00Z
HOUR = 3_600 * 10**9
DAY = 24 * HOUR
_numbers = count(1)


def settle(**changes: Any) -> Settle:
    """A finished request of one dollar on a budget of its key and one of its organisation."""
    shared: dict[str, Any] = {
        "organization_id": "org_1",
        "key_id": "vk_1",
        "team_id": "team_1",
        "developer_id": "dev_1",
        "app_id": None,
        "tags": (),
        "vendor": "openai",
        "model_asked": "gpt-4.1-mini",
        "model": "gpt-4.1-mini",
        "endpoint": "chat",
        "streamed": False,
        "price_id": "openai/gpt-4.1-mini@1",
        "budgets": (("bud_key", JANUARY), ("bud_org", JANUARY)),
        "minute_limits": (),
        "day_limits": (("lim_day", False),),
    }
    values: dict[str, Any] = {
        "request_id": new_id("req"),
        "at_ns": JANUARY + 10**9,
        "began_at_ns": JANUARY,
        "hold_nano": 2_000_000_000,
        "cost_nano": 1_000_000_000,
        "in_doubt": False,
        "usage": TokenUsage(input=1000, cache_read=100, output=50),
        "status": 200,
        "outcome": "finished",
        "latency_ns": 1_234_000_000,
    }
    for name, value in changes.items():
        (shared if name in shared else values)[name] = value
    return Settle(Context(**shared), **values)


def write(directory: Path, settles: list[Settle], *, segment: int = 1) -> None:
    """Appends to a segment, as the writer does."""
    directory.mkdir(parents=True, exist_ok=True)
    path = segment_path(directory, segment)
    data = b"" if path.exists() else MAGIC
    for record in settles:
        record.context.number = next(_numbers)
        data += frame(bytes([CONTEXT]) + encode_context(record.context)) + frame(bytes([SETTLE]) + encode(record))
    with path.open("ab") as file:
        file.write(data)
