"""Table of rotation policies. A key's own schedule stands with the key."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

rotation_policies = sa.Table(
    "rotation_policies",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("max_age_days", sa.Integer, nullable=False),
    sa.Column("overlap_seconds", sa.Integer),
    sa.Column("team_id", sa.String(40)),
    sa.Column("vendor", sa.String(40)),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.Index(None, "organization_id", "id"),
)
