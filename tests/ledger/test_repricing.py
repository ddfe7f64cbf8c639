"""Entries can be priced again by what stands on them."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa
from tests.ledger.journal_files import settle, write

from keygate.ledger import TokenUsage
from keygate.ledger.fold import Fold
from keygate.ledger.repository import LedgerRepository
from keygate.ledger.repricing import reprice, usage_of
from keygate.ledger.tables import entries


@dataclass
class Flat:
    id: str = "new"

    def cost(self, usage: TokenUsage, tier: str | None = None) -> int:
        return usage.input + usage.output


class Book:
    def find(self, vendor, model, at_ns, organization_id):
        return None if model == "unknown" else Flat()


async def test_entries_are_priced_again_from_their_token_classes(database, clock, tmp_path):
    whole = TokenUsage(*range(20, 29))
    write(
        tmp_path,
        [
            settle(request_id="req_same", usage=TokenUsage(input=5, output=2), cost_nano=7),
            settle(request_id="req_dear", usage=whole, cost_nano=10),
            settle(request_id="req_free", usage=TokenUsage(input=5), cost_nano=None, price_id=None),
            settle(request_id="req_doubt", usage=None, in_doubt=True),
            settle(request_id="req_unknown", model="unknown"),
            settle(request_id="req_failed", usage=None, cost_nano=0),
        ],
    )
    await Fold(database=database, repository=LedgerRepository(), directory=tmp_path, journal_id="node_1", clock=clock).tick()
    async with database.read() as connection:
        rows = (await connection.execute(sa.select(entries).order_by(entries.c.seq))).all()
    assert usage_of(rows[1]) == whole
    found = list(reprice(rows, Book()))
    assert [(each.request_id, each.former_nano, each.nano, each.difference_nano) for each in found] == [
        ("req_dear", 10, whole.input + whole.output, whole.input + whole.output - 10),
        ("req_free", None, 5, 5),
    ]
