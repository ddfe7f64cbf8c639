"""The ledger in the database: entries, roll-ups over them, spend per budget, and how far the journal has been folded.

Indexes are few on purpose: each one costs every request. An index on the key would touch a page of its own for each entry of
each key, so what concerns one key is found through the roll-ups, which are written in bulk.
"""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata, partial_index
from keygate.ledger.reports import MEASURES

_ID = sa.String(64)
_NAME = sa.String(256)

# One row per settled request. `seq` is given by the fold, in the order of commits, and never used twice.
entries = sa.Table(
    "ledger_entries",
    metadata,
    sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=False),
    sa.Column("request_id", _ID, nullable=False),
    sa.Column("organization_id", _ID, nullable=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),  # when the request began
    sa.Column("key_id", _ID, nullable=False),
    sa.Column("team_id", _ID),
    sa.Column("developer_id", _ID),
    sa.Column("app_id", _ID),
    sa.Column("vendor", _ID, nullable=False),
    sa.Column("endpoint", _ID, nullable=False),
    sa.Column("model_asked", _NAME, nullable=False),
    sa.Column("model", _NAME, nullable=False),  # as routed, without the vendor
    sa.Column("model_served", _NAME),  # as the vendor names what answered
    sa.Column("credential_id", _ID),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("outcome", _ID, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_read_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_write_tokens", sa.BigInteger, nullable=False),
    sa.Column("cache_write_1h_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
    sa.Column("input_audio_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_audio_tokens", sa.BigInteger, nullable=False),
    sa.Column("web_searches", sa.BigInteger, nullable=False),
    sa.Column("price_id", _NAME),
    sa.Column("service_tier", _ID),
    sa.Column("cost_nano", sa.BigInteger),  # null: no price was known; never zero for that
    sa.Column("hold_nano", sa.BigInteger, nullable=False),
    sa.Column("in_doubt", sa.SmallInteger, nullable=False),  # 1: charged at its hold, the true cost is unknown
    sa.Column("latency_ms", sa.Integer, nullable=False),
    sa.Column("first_token_ms", sa.Integer),
    sa.Column("streamed", sa.SmallInteger, nullable=False),
    sa.Column("tags", sa.Text),  # JSON array of `name=value`; null for none
    sa.Column("upstream_request_id", _NAME),
    sa.Column("charges", sa.Text),  # JSON [[budget_id, window_start_ns], …], kept while in doubt, so that reconciling can correct them
    sa.Column("reconciled_at_ns", sa.BigInteger),
    sa.Column("reconciled_by", _ID),
    sa.Index("uq_ledger_entries_request_id", "request_id", unique=True),
    sa.Index("ix_ledger_entries_organization_id_at_ns", "organization_id", "at_ns"),
    partial_index("ix_ledger_entries_in_doubt", "organization_id", "at_ns", where="in_doubt = 1"),
)

# What the fold writes, in its order: what is each request's own, then what it shares with others of its context.
SHARED = (
    "organization_id",
    "key_id",
    "team_id",
    "developer_id",
    "app_id",
    "vendor",
    "endpoint",
    "model_asked",
    "model",
    "price_id",
    "streamed",
    "tags",
)
_LATER = ("reconciled_at_ns", "reconciled_by")
POSTED = (*(column.name for column in entries.columns if column.name not in (*SHARED, *_LATER)), *SHARED)

# What the columns of a roll-up are told apart by. Empty text stands for "none", since a primary key takes no null.
DIMENSIONS = ("key_id", "team_id", "developer_id", "app_id", "vendor", "model")


def _rollup(name: str) -> sa.Table:
    return sa.Table(
        name,
        metadata,
        sa.Column("organization_id", _ID, primary_key=True),
        sa.Column("bucket_ns", sa.BigInteger, primary_key=True, autoincrement=False),
        *(sa.Column(dimension, _NAME, primary_key=True) for dimension in DIMENSIONS),
        *(sa.Column(measure, sa.BigInteger, nullable=False) for measure in MEASURES),
        sa.Index(f"ix_{name}_key_id_bucket_ns", "key_id", "bucket_ns"),
        sqlite_with_rowid=False,
    )


usage_hourly = _rollup("usage_hourly")
usage_daily = _rollup("usage_daily")

# What each budget has spent in each of its windows (a rolling budget: in each of its buckets). Kept by the fold.
budget_spend = sa.Table(
    "budget_spend",
    metadata,
    sa.Column("budget_id", _ID, primary_key=True),
    sa.Column("window_start_ns", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("organization_id", _ID, nullable=False),
    sa.Column("spent_nano", sa.BigInteger, nullable=False),  # in-doubt charges included
    sa.Column("in_doubt_nano", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# What counted towards each limit per day, in buckets, so that a restart forgets nothing.
limit_use = sa.Table(
    "limit_use",
    metadata,
    sa.Column("limit_id", _ID, primary_key=True),
    sa.Column("bucket_ns", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("organization_id", _ID, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# How far each journal has been folded: everything before (segment, offset) stands in the database.
journal_checkpoints = sa.Table(
    "journal_checkpoints",
    metadata,
    sa.Column("journal_id", _ID, primary_key=True),
    sa.Column("segment", sa.BigInteger, nullable=False),
    sa.Column("offset", sa.BigInteger, nullable=False),
    sa.Column("folded_at_ns", sa.BigInteger, nullable=False),
)

# Counters of the ledger itself: `next_seq`, and `rolled_seq`, the last entry that the roll-ups contain.
ledger_counters = sa.Table(
    "ledger_counters",
    metadata,
    sa.Column("name", _ID, primary_key=True),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# Who may spend: one row per grant. A single gateway holds the whole (`budget_id` = `*`), by a lease that it renews.
budget_slices = sa.Table(
    "budget_slices",
    metadata,
    sa.Column("budget_id", _ID, primary_key=True),
    sa.Column("node_id", _ID, nullable=False),
    sa.Column("granted_at_ns", sa.BigInteger, nullable=False),
    sa.Column("expires_at_ns", sa.BigInteger, nullable=False),
)

# The operator's own prices, above the compiled ones. Rates are nano-dollars per million tokens, searches per thousand.
price_overrides = sa.Table(
    "price_overrides",
    metadata,
    sa.Column("organization_id", _ID, primary_key=True),
    sa.Column("vendor", _ID, primary_key=True),
    sa.Column("model", _NAME, primary_key=True),
    sa.Column("id", _ID, nullable=False, unique=True),
    sa.Column("rates", sa.Text, nullable=False),  # JSON {class: nano-dollars per million}
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.Column("updated_by", _ID, nullable=False),
)

# Prompts and answers, only of keys whose policy asks for it; sealed by the vault with the row's identity as associated data.
recorded_contents = sa.Table(
    "recorded_contents",
    metadata,
    sa.Column("request_id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, nullable=False),
    sa.Column("key_id", _ID, nullable=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("readers", sa.Text, nullable=False),  # JSON array of roles and user ids, as the policy named them then
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("truncated", sa.SmallInteger, nullable=False),
    sa.Index("ix_recorded_contents_at_ns", "at_ns"),
)
