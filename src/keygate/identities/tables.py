"""Tables of identities."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata, partial_index

_ID = sa.String(40)


def _time(name: str, *, nullable: bool = True) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=nullable)


organizations = sa.Table(
    "organizations",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("time_zone", sa.String(64), nullable=False),
    sa.Column("policy_id", _ID),
    _time("created_at_ns", nullable=False),
)

teams = sa.Table(
    "teams",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("policy_id", _ID),
    _time("created_at_ns", nullable=False),
    _time("archived_at_ns"),
    partial_index("uq_teams_name", "organization_id", "name", where="archived_at_ns IS NULL", unique=True),
    sa.Index(None, "organization_id", "id"),
)

developers = sa.Table(
    "developers",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("email", sa.String(254), nullable=False),
    sa.Column("team_id", _ID, sa.ForeignKey("teams.id")),
    sa.Column("policy_id", _ID),
    sa.Column("status", sa.String(20), nullable=False),
    _time("created_at_ns", nullable=False),
    _time("deactivated_at_ns"),
    sa.UniqueConstraint("organization_id", "email"),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "team_id"),
)

apps = sa.Table(
    "apps",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("team_id", _ID, sa.ForeignKey("teams.id")),
    sa.Column("developer_id", _ID, sa.ForeignKey("developers.id")),
    sa.Column("policy_id", _ID),
    sa.Column("status", sa.String(20), nullable=False),
    _time("created_at_ns", nullable=False),
    _time("deactivated_at_ns"),
    partial_index("uq_apps_name", "organization_id", "name", where="deactivated_at_ns IS NULL", unique=True),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "team_id"),
    sa.Index(None, "developer_id"),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("email", sa.String(254), nullable=False, unique=True),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("role", sa.String(20), nullable=False),
    sa.Column("developer_id", _ID, sa.ForeignKey("developers.id")),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("password_hash", sa.String(200), nullable=False),  # argon2id, PHC string
    _time("created_at_ns", nullable=False),
    _time("last_login_at_ns"),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "developer_id"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("user_id", _ID, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),  # SHA-256 of the access token, hex
    _time("created_at_ns", nullable=False),
    _time("expires_at_ns", nullable=False),
    sa.Index(None, "user_id"),
    sa.Index(None, "expires_at_ns"),
)

api_tokens = sa.Table(
    "api_tokens",
    metadata,
    sa.Column("id", _ID, primary_key=True),
    sa.Column("organization_id", _ID, sa.ForeignKey("organizations.id"), nullable=False),
    sa.Column("user_id", _ID, sa.ForeignKey("users.id"), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False, unique=True),  # SHA-256 of the token, hex
    sa.Column("hint", sa.String(20), nullable=False),
    sa.Column("scopes", sa.JSON, nullable=False),
    _time("created_at_ns", nullable=False),
    _time("expires_at_ns"),
    _time("revoked_at_ns"),
    _time("last_used_at_ns"),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "user_id"),
)

login_attempts = sa.Table(
    "login_attempts",
    metadata,
    sa.Column("subject", sa.String(80), primary_key=True),  # kind and digest: no address and no e-mail stands here
    sa.Column("organization_id", _ID),  # of the account, where there is one
    sa.Column("failures", sa.BigInteger, nullable=False),
    _time("blocked_until_ns", nullable=False),
    _time("updated_at_ns", nullable=False),
    sa.Index(None, "updated_at_ns"),
)
