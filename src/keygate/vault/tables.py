"""Tables of the vault: wrapped data keys, KeyGate's own secrets, vendor credentials."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

vault_keys = sa.Table(
    "vault_keys",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("kek_id", sa.String(300), nullable=False),
    sa.Column("wrapped", sa.LargeBinary, nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("wrapped_at_ns", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("organization_id", "generation"),
)

vault_secrets = sa.Table(
    "vault_secrets",
    metadata,
    sa.Column("organization_id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(100), primary_key=True),
    sa.Column("sealed", sa.LargeBinary, nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
)

credentials = sa.Table(
    "credentials",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("vendor", sa.String(40), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("secret", sa.LargeBinary, nullable=False),
    sa.Column("secret_digest", sa.String(80), nullable=False),
    sa.Column("hint", sa.String(8), nullable=False),
    sa.Column("base_url", sa.String(500), nullable=False),
    sa.Column("account", sa.String(200)),
    sa.Column("weight", sa.Integer, nullable=False),
    sa.Column("models", sa.JSON(none_as_null=True)),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.Column("last_used_at_ns", sa.BigInteger),
    sa.Column("imported_digest", sa.String(80)),
    sa.UniqueConstraint("organization_id", "vendor", "name"),
)
