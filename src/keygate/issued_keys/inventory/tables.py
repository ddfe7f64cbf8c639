"""Tables of the inventory: what was found, scans, reminders, keys that are kept by hand."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

inventory_items = sa.Table(
    "inventory_items",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("account_id", sa.String(40), nullable=False),
    sa.Column("vendor", sa.String(40), nullable=False),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("identity", sa.String(64), nullable=False),
    sa.Column("footprint", sa.JSON, nullable=False),
    sa.Column("name", sa.String(300), nullable=False),
    sa.Column("presence", sa.String(20), nullable=False),
    sa.Column("scan_id", sa.String(40), nullable=False),
    sa.Column("first_seen_ns", sa.BigInteger, nullable=False),
    sa.Column("seen_at_ns", sa.BigInteger, nullable=False),
    sa.Column("owner", sa.String(320)),
    sa.Column("hint", sa.String(60)),
    sa.Column("created_at_ns", sa.BigInteger),
    sa.Column("last_used_at_ns", sa.BigInteger),
    sa.Column("terms", sa.JSON(none_as_null=True)),
    sa.Column("read_at_ns", sa.BigInteger),
    sa.Column("standing", sa.String(20), nullable=False),
    sa.Column("findings", sa.String(200), nullable=False),  # `,stale,no_limit,`
    sa.Column("drift", sa.JSON, nullable=False),
    sa.Column("attention", sa.Boolean, nullable=False),  # something is the matter that nobody has accepted
    sa.Column("judged", sa.Boolean, nullable=False),
    sa.Column("issued_key_id", sa.String(40)),
    sa.Column("acceptance", sa.JSON(none_as_null=True)),
    sa.UniqueConstraint("account_id", "identity"),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "account_id", "scan_id"),
    sa.Index(None, "issued_key_id"),
)

inventory_scans = sa.Table(
    "inventory_scans",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("account_id", sa.String(40), nullable=False),
    sa.Column("vendor", sa.String(40), nullable=False),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("asked_by", sa.String(200), nullable=False),
    sa.Column("began_at_ns", sa.BigInteger, nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.Column("cursor", sa.Text),
    sa.Column("pages", sa.Integer, nullable=False),
    sa.Column("seen", sa.Integer, nullable=False),
    sa.Column("read", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at_ns", sa.BigInteger),
    sa.Column("claimed_by", sa.String(60)),
    sa.Column("claimed_until_ns", sa.BigInteger),
    sa.Column("error", sa.Text),
    sa.Column("ended_at_ns", sa.BigInteger),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "account_id", "id"),
    sa.Index(None, "due_at_ns"),
)

key_reminders = sa.Table(
    "key_reminders",
    metadata,
    sa.Column("key_id", sa.String(40), primary_key=True),
    sa.Column("days_before", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("sent_at_ns", sa.BigInteger),
    sa.Index(None, "sent_at_ns"),
)
