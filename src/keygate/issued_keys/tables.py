"""Tables of issued keys: vendor accounts, keys, digests of their secrets, the calls made for them, one-time links, receipts. Secrets are
sealed."""

from __future__ import annotations

import sqlalchemy as sa

from keygate.kit.database import metadata

vendor_accounts = sa.Table(
    "vendor_accounts",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("vendor", sa.String(40), nullable=False),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("admin_key", sa.LargeBinary, nullable=False),  # sealed
    sa.Column("hint", sa.String(8), nullable=False),
    sa.Column("settings", sa.JSON, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("rights", sa.JSON, nullable=False),
    sa.Column("account", sa.String(200)),
    sa.Column("identity", sa.String(200)),
    sa.Column("same_since_ns", sa.BigInteger, nullable=False),
    sa.Column("notes", sa.JSON, nullable=False),
    sa.Column("also_confirms", sa.JSON, nullable=False),
    sa.Column("verified_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    sa.UniqueConstraint("organization_id", "vendor", "name"),
)

issued_keys = sa.Table(
    "issued_keys",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("vendor", sa.String(40), nullable=False),
    sa.Column("account_id", sa.String(40), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("owner_scope", sa.String(20)),
    sa.Column("owner_id", sa.String(40)),
    sa.Column("state", sa.String(20), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("terms", sa.JSON, nullable=False),
    sa.Column("options", sa.JSON, nullable=False),
    sa.Column("enforcement", sa.JSON, nullable=False),
    sa.Column("footprint", sa.JSON(none_as_null=True)),
    sa.Column("former", sa.JSON(none_as_null=True)),
    sa.Column("secret", sa.LargeBinary),  # sealed; gone once told
    sa.Column("probe", sa.LargeBinary),  # sealed; never told, gone with the key
    sa.Column("former_probe", sa.LargeBinary),  # sealed; of the former key of a rotation
    sa.Column("secret_generation", sa.Integer, nullable=False),
    sa.Column("secret_until_ns", sa.BigInteger),
    sa.Column("delivered_at_ns", sa.BigInteger),
    sa.Column("told_to", sa.String(200)),
    sa.Column("hint", sa.String(8)),
    sa.Column("made_at_ns", sa.BigInteger),
    sa.Column("secret_env", sa.String(100)),
    sa.Column("env", sa.JSON, nullable=False),
    sa.Column("activated_at_ns", sa.BigInteger),
    sa.Column("ending", sa.String(20)),
    sa.Column("end_reason", sa.Text),
    sa.Column("end_asked_at_ns", sa.BigInteger),
    sa.Column("end_asked_by", sa.String(200)),
    sa.Column("ended_at_ns", sa.BigInteger),
    sa.Column("gone_at_ns", sa.BigInteger),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("owed", sa.Boolean, nullable=False),
    sa.Column("due_at_ns", sa.BigInteger),
    sa.Column("check_at_ns", sa.BigInteger),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error_code", sa.String(40)),
    sa.Column("error", sa.Text),
    sa.Column("last_used_at_ns", sa.BigInteger),
    sa.Column("read_at_ns", sa.BigInteger),
    sa.Column("inspect_at_ns", sa.BigInteger),
    sa.Column("request_id", sa.String(100)),
    sa.Column("rotation_id", sa.String(100)),
    sa.Column("rotate_every_days", sa.Integer),
    sa.Column("rotate_overlap_seconds", sa.Integer),
    sa.Column("rotate_after_ns", sa.BigInteger),
    sa.Column("rotate_tries", sa.Integer, nullable=False),
    sa.Column("rotate_error", sa.Text),
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("leased_by", sa.String(40)),  # which process works on it now
    sa.Column("leased_until_ns", sa.BigInteger),
    sa.Column("claim", sa.String(600)),  # which key at the vendor an adopted one is, until it has ended
    sa.UniqueConstraint("organization_id", "request_id"),
    sa.UniqueConstraint("organization_id", "claim"),
    sa.Index(None, "organization_id", "id"),
    sa.Index(None, "organization_id", "owner_id"),
    sa.Index(None, "organization_id", "made_at_ns"),
    sa.Index(None, "account_id", "state"),
    sa.Index(None, "due_at_ns"),
)

# Every secret that was ever kept or handed out, former ones and tokens included, by its keyed digest: whoever finds one can be told what it
# is.
issued_key_secrets = sa.Table(
    "issued_key_secrets",
    metadata,
    sa.Column("digest", sa.String(80), primary_key=True),
    sa.Column("key_id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("known_at_ns", sa.BigInteger, nullable=False),
    sa.Column("minted_by", sa.String(200)),  # who fetched it; null: the key's own secret
    sa.Column("expires_at_ns", sa.BigInteger),  # when it ends by itself
    sa.Column("ended_at_ns", sa.BigInteger),  # when the vendor had confirmed that its generation is gone
    sa.Column("reported_at_ns", sa.BigInteger),  # when somebody first said that it leaked
    sa.Index(None, "key_id"),
    sa.Index(None, "expires_at_ns"),
)

issued_key_steps = sa.Table(
    "issued_key_steps",
    metadata,
    sa.Column("key_id", sa.String(40), primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("what", sa.String(200), nullable=False),
    sa.Column("began_at_ns", sa.BigInteger, nullable=False),
    sa.Column("ended_at_ns", sa.BigInteger),
    sa.Column("outcome", sa.String(40)),
)

key_links = sa.Table(
    "key_links",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("key_id", sa.String(40), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),  # of the token in the link
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Column("expires_at_ns", sa.BigInteger, nullable=False),
    sa.Column("opened_at_ns", sa.BigInteger),
    sa.Index(None, "organization_id", "key_id"),
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
    sa.Column("cause", sa.String(40), nullable=False),  # developer.deactivate, team.archive, …
    sa.Column("subject", sa.String(200), nullable=False),
    sa.Column("subject_name", sa.String(200), nullable=False),
    sa.Column("issued_keys", sa.JSON, nullable=False),  # ids
    sa.Column("virtual_keys", sa.JSON, nullable=False),  # [{id, hint}]: dead with the transaction that made this row
    sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    sa.Column("created_by", sa.String(200), nullable=False),
    sa.Index(None, "organization_id", "id"),
)

# Every place that a key ever had at its vendor, former keys of rotations included: by what the vendor's bills and lists name. `name` is
# `key` for the key's id, else the name of a part of its place (`project`).
issued_key_places = sa.Table(
    "issued_key_places",
    metadata,
    sa.Column("account_id", sa.String(40), primary_key=True),
    sa.Column("name", sa.String(40), primary_key=True),
    sa.Column("value", sa.String(500), primary_key=True),
    sa.Column("key_id", sa.String(40), primary_key=True),
    sa.Column("organization_id", sa.String(40), nullable=False),
)
