"""Tables of bulk orders."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

bulk_orders = sa.Table(
    "bulk_orders",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("vendor", sa.String(40), nullable=False),
    sa.Column("account_id", sa.String(40), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("busy", sa.Boolean, nullable=False),
    sa.Column("total", sa.Integer, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("allow_unenforced", sa.Boolean, nullable=False),
    sa.Column("rotate_every_days", sa.Integer),
    sa.Column("rotate_overlap_seconds", sa.Integer),
    sa.Column("note", sa.Text),
    sa.Column("request_id", sa.String(100)),
    sa.Column("batch", sa.String(100)),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("created_by_kind", sa.String(20), nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.Column("ended_at_ns", sa.BigInteger),
    sa.UniqueConstraint("organization_id", "request_id"),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "busy"),
)

bulk_rows = sa.Table(
    "bulk_rows",
    metadata,
    sa.Column("order_id", sa.String(40), primary_key=True),
    sa.Column("line", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("email", sa.String(320), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("developer_id", sa.String(40)),
    sa.Column("team_id", sa.String(40)),
    sa.Column("terms", sa.JSON, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("key_id", sa.String(40)),
    sa.Column("claimed_at_ns", sa.BigInteger),
    sa.Column("claimed_by", sa.String(40)),
    sa.Column("error_code", sa.String(40)),
    sa.Column("error", sa.Text),
    sa.Index(None, "order_id", "state"),
)
