"""What stands in the sandbox's AWS account: IAM users with inline policies and credentials for Bedrock. Rules without a wire."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.aws.policies import allows, read_policy
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.shelf import Entry, Eventual
from keygate.sandbox.errors import VendorError

USERS = "users"
CREDENTIALS = "credentials"
NUMBER = "123456789012"  # the account's
SERVICE = "bedrock.amazonaws.com"
CEILINGS = {USERS: 5000, CREDENTIALS: 2}  # users of an account; Bedrock credentials of a user
DAY_NS = 86_400 * NANOSECONDS


@dataclass(slots=True)
class User:
    """`policies`: the inline ones, as documents; `felt`: the same, as the inference side knows them."""

    name: str
    path: str
    id: str
    made_at_ns: int
    tags: dict[str, str]
    policies: dict[str, str] = field(default_factory=dict)
    felt: Eventual[tuple[str, ...]] = field(default_factory=lambda: Eventual[tuple[str, ...]](()))

    @property
    def arn(self) -> str:
        return f"arn:aws:iam::{NUMBER}:user{self.path}{self.name}"


@dataclass(slots=True)
class ServiceCredential:
    id: str
    user: str
    made_at_ns: int
    alias: str
    secret: str
    grant: IssuedSecret
    active: bool = True
    expires_at_ns: int | None = None

    def status(self, now_ns: int) -> str:
        if self.expires_at_ns is not None and self.expires_at_ns <= now_ns:
            return "Expired"
        return "Active" if self.active else "Inactive"


def failed(status: int, code: str, message: str) -> VendorError:
    return VendorError(status, message, code=code)


def user_of(account: Account, name: str) -> User:
    entry = account.shelves[USERS].get(name)
    if entry is None:
        raise failed(404, "NoSuchEntity", f"The user with name {name[:64]} cannot be found.")
    found: User = entry.more["it"]
    return found


def credentials_of(account: Account, user: str | None, *, listed: bool = False) -> list[ServiceCredential]:
    """A user's, or all; `listed`: as late as lists are."""
    entries: list[Entry] = account.listed(CREDENTIALS, parent=user) if listed else list(account.shelves[CREDENTIALS])
    return [entry.more["it"] for entry in entries if user is None or entry.parent == user]


def issue(account: Account, user: User, days: int | None) -> ServiceCredential:
    """A Bedrock API key: `ABSK` and, in base64, `BedrockAPIKey-<suffix>-at-<account>:<secret>` (as public examples have it)."""
    now = account.now_ns()
    id_ = f"ACCASANDBOX{secrets.token_hex(5).upper()}"
    expires = None if days is None else now + days * DAY_NS
    alias, value = _secret()
    grant = account.issue(value, id_=id_, container=user.arn, expires_at_ns=expires)
    made = ServiceCredential(id_, user.name, now, alias, value, grant, expires_at_ns=expires)
    entry = account.make(CREDENTIALS, id_, {"user": user.name}, parent=user.name, it=made)
    entry.grant = grant
    return made


def reset(account: Account, credential: ServiceCredential, user: User) -> None:
    """A new secret under the same id; the old one stops working as late as the settings say."""
    credential.grant.revoke()
    credential.alias, credential.secret = _secret()
    id_, expires = credential.id, credential.expires_at_ns
    credential.grant = account.issue(credential.secret, id_=id_, container=user.arn, expires_at_ns=expires)
    entry = account.shelves[CREDENTIALS].get(id_)
    if entry is not None:
        entry.grant = credential.grant


def set_policies(account: Account, user: User) -> None:
    """The inference side hears of the user's policies, as late as the settings say."""
    user.felt.set(tuple(user.policies.values()), at_ns=account.later_ns(account.settings.limits_s))


def _secret() -> tuple[str, str]:
    alias = f"BedrockAPIKey-{secrets.token_hex(2)}-at-{NUMBER}"
    return alias, "ABSK" + base64.b64encode(f"{alias}:{secrets.token_urlsafe(32)}".encode()).decode()


def refuses(secret: IssuedSecret, model: str) -> VendorError | None:
    """What the policies of the secret's user don't allow; a user that is gone has those that it had."""
    entry = secret.account.shelves[USERS].last((secret.container or "").rpartition("/")[2])
    if entry is None:
        return failed(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    user: User = entry.more["it"]
    now = secret.account.now_ns()
    statements = [one for document in user.felt.at(now) for one in read_policy(document)]
    profile = model.split(".", 1)[0] in {"us", "eu", "apac", "global", "jp", "au"}
    wanted = [("bedrock:CallWithBearerToken", "*")]
    if profile:
        wanted.append(("bedrock:InvokeModel", f"arn:aws:bedrock:us-east-1:{NUMBER}:inference-profile/{model}"))
        model = model.split(".", 1)[1]
    wanted.append(("bedrock:InvokeModel", f"arn:aws:bedrock:us-east-1::foundation-model/{model}"))
    for action, resource in wanted:
        if not allows(statements, action, resource, now_ns=now):
            message = (
                f"User: {user.arn} is not authorized to perform: {action} on resource: {resource} because no identity-based policy "
                f"allows the {action} action"
            )
            return failed(403, "AccessDeniedException", message)
    return None
