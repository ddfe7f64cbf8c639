"""Which role may do what: one table. A permission is `noun.verb`; a route names the one it needs. Pure.

What a developer sees is narrowed further by the services: their own keys, usage and records; everything else is absent to them.
"""

from __future__ import annotations

from keygate.identities.model import Actor, Role

SELF = "account.self"  # who am I, sign out, change my own password: every role, and every API token whatever its scopes

_READ = frozenset(
    f"{noun}.read"
    for noun in (
        "api_tokens",
        "apps",
        "audit",
        "budgets",
        "credentials",
        "dashboard",
        "developers",
        "events",
        "inventory",
        "issued_keys",
        "limits",
        "models",
        "organization",
        "policies",
        "prices",
        "receipts",
        "reconciliation",
        "rotation_policies",
        "teams",
        "usage",
        "users",
        "vendors",
        "virtual_keys",
    )
) | {"policies.explain", "audit.verify"}

_WRITE = frozenset(
    f"{noun}.write"
    for noun in (
        "api_tokens",
        "apps",
        "budgets",
        "credentials",
        "developers",
        "inventory",
        "issued_keys",
        "issued_tokens",  # fresh tokens, and the new secret after a rotation, of a key that one holds or administers
        "limits",
        "models",
        "organization",
        "policies",
        "prices",
        "rotation_policies",
        "teams",
        "usage",
        "users",
        "vendors",
        "virtual_keys",
    )
)

_CONTENT = frozenset({"content.read"})  # recorded prompts and answers: policies name who, the role only opens the door
_OWNER = frozenset({"owners.write"})  # of no route: who holds it may make, change and end owners (`may_grant`)
_IMPLIED = {"audit.read": "audit.verify"}  # whoever may read the log may check it; not the other way round

_ROLES: dict[Role, frozenset[str]] = {
    Role.OWNER: _READ | _WRITE | _CONTENT | _OWNER | {SELF},
    Role.ADMIN: _READ | _WRITE | _CONTENT | {SELF},
    Role.VIEWER: _READ | _CONTENT | {SELF},
    Role.DEVELOPER: frozenset(
        {
            SELF,
            "api_tokens.read",
            "api_tokens.write",
            "apps.read",
            "content.read",
            "dashboard.read",
            "developers.read",
            "issued_keys.read",
            "issued_tokens.write",
            "models.read",
            "organization.read",
            "policies.explain",
            "teams.read",
            "usage.read",
            "vendors.read",
            "virtual_keys.read",
            "virtual_keys.write",
        }
    ),
}

KNOWN: frozenset[str] = _ROLES[Role.OWNER]
"""Every permission there is. A route that names another one fails the lint."""


def permissions_of(role: Role) -> frozenset[str]:
    return _ROLES[role]


def held_by(actor: Actor) -> frozenset[str]:
    """What this actor may do now: the role's permissions, cut to the scopes of the API token in use."""
    permissions = _ROLES[actor.role]
    if actor.scopes is None:
        return permissions
    return permissions & (actor.scopes | {SELF} | {_IMPLIED[scope] for scope in actor.scopes & _IMPLIED.keys()})


def allows(actor: Actor, permission: str) -> bool:
    """Unknown permissions are nobody's."""
    return permission in held_by(actor)


def may_grant(actor: Actor, role: Role) -> bool:
    """Nobody grants more than they hold: to make, change or end a user of `role`, an actor must hold all that the role does."""
    return _ROLES[role] <= held_by(actor)
