"""Tables of vendors' bills: rows, rows that wait for the rest of their window, what was read of keys just before their end, how far each
account was read, and budgets watched."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

_ID = sa.String(40)


def _row_columns() -> list[sa.Column[object]]:
    return [
        sa.Column("account_id", _ID, primary_key=True),
        sa.Column("row_id", _ID, primary_key=True),
        sa.Column("organization_id", _ID, nullable=False),
        sa.Column("place", sa.Text, nullable=False),  # JSON, canonical
        sa.Column("vendor_key", sa.String(500)),  # the vendor's id of the key; null: the bill names none
        sa.Column("start_ns", sa.BigInteger, nullable=False),
        sa.Column("end_ns", sa.BigInteger, nullable=False),
        sa.Column("item", sa.String(500), nullable=False),
        sa.Column("model", sa.String(256), nullable=False),
        sa.Column("amount_nano", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger),
        sa.Column("input_tokens", sa.BigInteger),
        sa.Column("output_tokens", sa.BigInteger),
    ]


vendor_spend = sa.Table(
    "vendor_spend",
    metadata,
    *_row_columns(),
    sa.Column("vendor", _ID, nullable=False),
    sa.Column("first_nano", sa.BigInteger, nullable=False),  # as the vendor told it first; another amount now: restated
    sa.Column("attribution", sa.String(10), nullable=False),
    sa.Column("issued_key_id", _ID),
    sa.Column("team_id", _ID),
    sa.Column("developer_id", _ID),
    sa.Column("app_id", _ID),
    sa.Index(None, "organization_id", "start_ns"),
    sa.Index(None, "account_id", "start_ns"),
    sa.Index(None, "issued_key_id", "start_ns"),
)

vendor_spend_incoming = sa.Table("vendor_spend_incoming", metadata, *_row_columns())

# What was read of a key just before it was ended, where the vendor may tell it no more: in place since then, and kept here for readings of
# the bill that began before, and until the vendor was asked again when the day was over.
vendor_spend_last = sa.Table(
    "vendor_spend_last",
    metadata,
    *_row_columns(),
    sa.Column("read_at_ns", sa.BigInteger, nullable=False),
    sa.Column("asked_at_ns", sa.BigInteger, nullable=False),  # when the vendor was last asked of the key that is gone
)

COPIED = tuple(column.name for column in vendor_spend_incoming.columns)
OWNER = ("attribution", "issued_key_id", "team_id", "developer_id", "app_id")
RESTATED = ("end_ns", "amount_nano", "requests", "input_tokens", "output_tokens")  # what a vendor may tell otherwise the next time

vendor_spend_imports = sa.Table(
    "vendor_spend_imports",
    metadata,
    sa.Column("account_id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, nullable=False),
    sa.Column("vendor", _ID, nullable=False),
    sa.Column("read_until_ns", sa.BigInteger),
    sa.Column("as_of_ns", sa.BigInteger),
    sa.Column("window_from_ns", sa.BigInteger),
    sa.Column("window_until_ns", sa.BigInteger),
    sa.Column("window_began_ns", sa.BigInteger, nullable=False),
    sa.Column("cursor", sa.Text),
    sa.Column("pages", sa.Integer, nullable=False),
    sa.Column("deep_at_ns", sa.BigInteger, nullable=False),
    sa.Column("deep_began_ns", sa.BigInteger),
    sa.Column("next_at_ns", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error_code", sa.String(40)),
    sa.Column("error", sa.Text),
    sa.Column("by_key_since_ns", sa.BigInteger, nullable=False),
    sa.Column("not_by_key", sa.Text),  # why the bill can't be told by key; null: it can
    sa.Column("leased_by", _ID),
    sa.Column("leased_until_ns", sa.BigInteger),
    sa.Index(None, "organization_id"),
)

# Budgets of issued keys that KeyGate watches because their vendor does not enforce them. No row: the defaults hold, nothing was done.
budget_watches = sa.Table(
    "budget_watches",
    metadata,
    sa.Column("key_id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, nullable=False),
    sa.Column("warn_at", sa.JSON, nullable=False),  # percent
    sa.Column("lower_at", sa.Integer),  # percent of the budget
    sa.Column("lower_to", sa.Integer, nullable=False),  # percent of the key's limits
    sa.Column("at_end", sa.String(20), nullable=False),
    sa.Column("window_start_ns", sa.BigInteger, nullable=False),
    sa.Column("waived_ns", sa.BigInteger),  # the period in which the key may go on past its budget
    sa.Column("waived_nano", sa.BigInteger),  # … by so much; null: by whatever comes
    sa.Column("warned", sa.Integer, nullable=False),  # the highest percent that was announced in this window
    sa.Column("wanted", sa.String(20), nullable=False),
    sa.Column("stage", sa.String(20), nullable=False),  # what the vendor has confirmed
    sa.Column("stage_key", sa.String(500)),  # of which key at the vendor
    sa.Column("confirmed_at_ns", sa.BigInteger),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_at_ns", sa.BigInteger, nullable=False),
    sa.Column("error_code", sa.String(40)),
    sa.Column("error", sa.Text),
    sa.Index(None, "organization_id"),
)
