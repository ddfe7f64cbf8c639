"""Organisations, teams, developers, apps, users, sessions and API tokens."""

from keygate.identities.model import Actor, ActorKind, Role

__all__ = ["Actor", "ActorKind", "Role"]
