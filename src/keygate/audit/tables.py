"""Tables of the audit log."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

audit_entries = sa.Table(
    "audit_entries",
    metadata,
    sa.Column("organization_id", sa.String(40), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("id", sa.String(40), nullable=False, unique=True),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("actor_kind", sa.String(20), nullable=False),
    sa.Column("actor_id", sa.String(200), nullable=False),
    sa.Column("address", sa.String(100)),
    sa.Column("request_id", sa.String(200)),
    sa.Column("action", sa.String(100), nullable=False),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("target", sa.String(500), nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("after", sa.Text),
    sa.Column("detail", sa.Text),
    sa.Column("previous_hash", sa.String(64), nullable=False),
    sa.Column("signature", sa.String(128), nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Index(None, "organization_id", "at_ns"),
    sa.Index(None, "organization_id", "action", "sequence"),
    sa.Index(None, "organization_id", "actor_id", "sequence"),
    sa.Index(None, "organization_id", "target", "sequence"),
)

audit_heads = sa.Table(
    "audit_heads",
    metadata,
    sa.Column("organization_id", sa.String(40), primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("hash", sa.String(64), nullable=False),
    sa.Column("at_ns", sa.BigInteger, nullable=False),
    sa.Column("key_id", sa.String(16), nullable=False),
    sa.Column("signature", sa.String(128), nullable=False),
)
