"""Organisations, teams, developers, apps, users, sessions and API tokens."""

from keygate.identities.api_tokens import ApiTokenService
from keygate.identities.apps import AppService
from keygate.identities.developers import DeveloperService
from keygate.identities.model import (
    Actor,
    ActorKind,
    ApiToken,
    App,
    Developer,
    Organization,
    Role,
    Session,
    Status,
    Team,
    User,
    actor_of,
    operator_actor,
    system_actor,
)
from keygate.identities.owners import OrganizationService, TeamService
from keygate.identities.passwords import Passwords
from keygate.identities.permissions import KNOWN, SELF, allows, held_by, may_grant, permissions_of
from keygate.identities.ports import ChangePublisher, HolderListener, NoListener, NoPublisher, PolicyDirectory
from keygate.identities.sessions import SessionService
from keygate.identities.users import Started, UserService

__all__ = [
    "KNOWN",
    "SELF",
    "Actor",
    "ActorKind",
    "ApiToken",
    "ApiTokenService",
    "App",
    "AppService",
    "ChangePublisher",
    "Developer",
    "DeveloperService",
    "HolderListener",
    "NoListener",
    "NoPublisher",
    "Organization",
    "OrganizationService",
    "Passwords",
    "PolicyDirectory",
    "Role",
    "Session",
    "SessionService",
    "Started",
    "Status",
    "Team",
    "TeamService",
    "User",
    "UserService",
    "actor_of",
    "allows",
    "held_by",
    "may_grant",
    "operator_actor",
    "permissions_of",
    "system_actor",
]
