"""Tables of policies, budgets, limits and aliases."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

policies = sa.Table(
    "policies",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("description", sa.Text, nullable=False),
    sa.Column("rules", sa.JSON, nullable=False),
    sa.Column("limits", sa.JSON, nullable=False),
    sa.Column("budgets", sa.JSON, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("organization_id", "name"),
)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("scope", sa.String(20), nullable=False),
    sa.Column("scope_id", sa.String(40), nullable=False),
    sa.Column("selector", sa.String(200)),
    sa.Column("period", sa.String(20), nullable=False),
    sa.Column("mode", sa.String(10), nullable=False),
    sa.Column("amount_nano", sa.BigInteger, nullable=False),
    sa.Column("rolling", sa.Boolean, nullable=False),
    sa.Column("time_zone", sa.String(60), nullable=False),
    sa.Column("thresholds", sa.JSON, nullable=False),
    sa.Column("starts_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Index(None, "organization_id", "scope_id"),
)

limits = sa.Table(
    "limits",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("scope", sa.String(20), nullable=False),
    sa.Column("scope_id", sa.String(40), nullable=False),
    sa.Column("selector", sa.String(200)),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Index(None, "organization_id", "scope_id"),
)

aliases = sa.Table(
    "model_aliases",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("alias", sa.String(100), nullable=False),
    sa.Column("target", sa.String(250), nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.UniqueConstraint("organization_id", "alias"),
)
