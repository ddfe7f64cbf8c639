"""The table of virtual keys. Of a token only its keyed digest is kept."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

virtual_keys = sa.Table(
    "virtual_keys",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("public_id", sa.String(20), nullable=False, unique=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("hint", sa.String(40), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False),
    sa.Column("previous_digest", sa.LargeBinary(32)),
    sa.Column("previous_expires_at_ns", sa.BigInteger),
    sa.Column("owner_scope", sa.String(20)),
    sa.Column("owner_id", sa.String(40)),
    sa.Column("policy_id", sa.String(40)),
    sa.Column("rules", sa.JSON, nullable=False),
    sa.Column("expires_at_ns", sa.BigInteger),
    sa.Column("tags", sa.Text, nullable=False),  # JSON array of strings
    sa.Column("revoked_at_ns", sa.BigInteger),
    sa.Column("revoked_by", sa.String(200)),
    sa.Column("revoked_reason", sa.Text),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("last_used_at_ns", sa.BigInteger),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "organization_id", "owner_id"),
    sa.Index(None, "organization_id", "policy_id"),
)
