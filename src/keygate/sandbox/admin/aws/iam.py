"""IAM's query API as far as keys for Bedrock need it, and who the caller is (STS).

Names, bounds and errors: botocore 1.44.6, iam 2010-05-08.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from keygate.kit.clock import NANOSECONDS, from_ns
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.aws.model import (
    CREDENTIALS,
    NUMBER,
    SERVICE,
    USERS,
    ServiceCredential,
    User,
    credentials_of,
    failed,
    issue,
    reset,
    set_policies,
    user_of,
)
from keygate.sandbox.admin.aws.policies import read_policy
from keygate.sandbox.admin.aws.xml import Entries
from keygate.sandbox.admin.model import Credential

Form = dict[str, str]
Action = Callable[[Account, Credential, Form], dict[str, Any] | None]
_NAME = re.compile(r"[\w+=,.@-]{1,64}", re.ASCII)
_PATH = re.compile(r"/|/[!-~]+/")


def create_user(account: Account, _: Credential, form: Form) -> dict[str, Any]:
    name, path = _text(form, "UserName"), form.get("Path", "/")
    if not _NAME.fullmatch(name) or not _PATH.fullmatch(path):
        raise failed(400, "ValidationError", "The specified value for userName or path is invalid.")
    if account.shelves[USERS].get(name) is not None:
        raise failed(409, "EntityAlreadyExists", f"User with name {name} already exists.")
    ceiling = account.full(USERS)
    if ceiling is not None:
        raise failed(409, "LimitExceeded", f"Cannot exceed quota for UsersPerAccount: {ceiling}")
    user = User(name, path, f"AIDASANDBOX{account.now_ns() % 10**10:010d}", account.now_ns(), _tags(form))
    account.make(USERS, name, {"path": path}, it=user)
    return {"User": _user_body(user, tags=True)}


def get_user(account: Account, credential: Credential, form: Form) -> dict[str, Any]:
    return {"User": _user_body(user_of(account, form.get("UserName", credential.name)), tags=True)}


def list_users(account: Account, _: Credential, form: Form) -> dict[str, Any]:
    prefix = form.get("PathPrefix", "/")
    users: list[User] = [entry.more["it"] for entry in account.listed(USERS)]
    found = sorted((user for user in users if user.path.startswith(prefix)), key=lambda user: user.name)
    return _page(form, [_user_body(user) for user in found], "Users")


def delete_user(account: Account, _: Credential, form: Form) -> None:
    user = user_of(account, _text(form, "UserName"))
    if user.policies:
        raise failed(409, "DeleteConflict", "Cannot delete entity, must delete policies first.")
    if credentials_of(account, user.name):
        raise failed(409, "DeleteConflict", "Cannot delete entity, must delete service specific credentials first.")
    account.remove(USERS, user.name)


def tag_user(account: Account, _: Credential, form: Form) -> None:
    user = user_of(account, _text(form, "UserName"))
    tags = {**user.tags, **_tags(form)}
    if len(tags) > 50:
        raise failed(409, "LimitExceeded", "The number of tags has reached the maximum limit.")
    user.tags = tags


def untag_user(account: Account, _: Credential, form: Form) -> None:
    user = user_of(account, _text(form, "UserName"))
    for name in _members(form, "TagKeys"):
        user.tags.pop(name, None)


def list_user_tags(account: Account, _: Credential, form: Form) -> dict[str, Any]:
    return _page(form, _tags_body(user_of(account, _text(form, "UserName")).tags), "Tags")


def put_user_policy(account: Account, _: Credential, form: Form) -> None:
    user, document = user_of(account, _text(form, "UserName")), _text(form, "PolicyDocument")
    try:
        read_policy(document)
    except ValueError as error:
        raise failed(400, "MalformedPolicyDocument", str(error)) from None
    others = sum(len(re.sub(r"\s", "", each)) for name, each in user.policies.items() if name != form.get("PolicyName"))
    if others + len(re.sub(r"\s", "", document)) > 2048:
        raise failed(409, "LimitExceeded", f"Maximum policy size of 2048 bytes exceeded for user {user.name}")
    user.policies[_text(form, "PolicyName")] = document
    set_policies(account, user)


def get_user_policy(account: Account, _: Credential, form: Form) -> dict[str, Any]:
    user, name = user_of(account, _text(form, "UserName")), _text(form, "PolicyName")
    return {"UserName": user.name, "PolicyName": name, "PolicyDocument": quote(_policy(user, name), safe="")}


def list_user_policies(account: Account, _: Credential, form: Form) -> dict[str, Any]:
    return _page(form, sorted(user_of(account, _text(form, "UserName")).policies), "PolicyNames")


def delete_user_policy(account: Account, _: Credential, form: Form) -> None:
    user, name = user_of(account, _text(form, "UserName")), _text(form, "PolicyName")
    _policy(user, name)
    del user.policies[name]
    set_policies(account, user)


def create_credential(account: Account, _: Credential, form: Form) -> dict[str, Any]:
    user = user_of(account, _text(form, "UserName"))
    if _text(form, "ServiceName") != SERVICE:
        raise failed(404, "NotSupportedService", f"The service {form['ServiceName'][:90]} is not supported.")
    days = form.get("CredentialAgeDays")
    if days is not None and not (days.isdecimal() and 1 <= int(days) <= 36_600):
        raise failed(400, "ValidationError", "CredentialAgeDays must be between 1 and 36600")
    ceiling = account.full(CREDENTIALS, len(credentials_of(account, user.name)))
    if ceiling is not None:
        raise failed(409, "LimitExceeded", f"Cannot exceed quota for ServiceSpecificCredentialsPerUser: {ceiling}")
    made = issue(account, user, None if days is None else int(days))
    return {"ServiceSpecificCredential": _credential_body(account, made, secret=True)}


def list_credentials(account: Account, credential: Credential, form: Form) -> dict[str, Any]:
    user: str | None = None
    if form.get("AllUsers") != "true":
        user = user_of(account, form.get("UserName", credential.name)).name
    found = credentials_of(account, user, listed=True) if form.get("ServiceName", SERVICE) == SERVICE else []
    return _page(form, [_credential_body(account, each) for each in found], "ServiceSpecificCredentials")


def update_credential(account: Account, _: Credential, form: Form) -> None:
    found, status = _credential(account, form), _text(form, "Status")
    if status not in {"Active", "Inactive"}:
        raise failed(400, "ValidationError", "Status must be Active or Inactive")
    found.active = status == "Active"
    if found.active:
        found.grant.restore()
    else:
        found.grant.revoke()


def reset_credential(account: Account, _: Credential, form: Form) -> dict[str, Any]:
    found = _credential(account, form)
    reset(account, found, user_of(account, found.user))
    return {"ServiceSpecificCredential": _credential_body(account, found, secret=True)}


def delete_credential(account: Account, _: Credential, form: Form) -> None:
    account.remove(CREDENTIALS, _credential(account, form).id)


def simulate(_: Account, credential: Credential, form: Form) -> dict[str, Any]:
    results = [
        {
            "EvalActionName": action,
            "EvalResourceName": resource,
            "EvalDecision": "allowed" if credential.may(action) else "implicitDeny",
        }
        for action in _members(form, "ActionNames")
        for resource in _members(form, "ResourceArns") or ["*"]
    ]
    return {"EvaluationResults": results, "IsTruncated": False}


def account_summary(account: Account, _: Credential, __: Form) -> dict[str, Any]:
    standing = sum(1 for _ in account.shelves[USERS])
    numbers = {"Users": standing, "UsersQuota": account.settings.ceilings[USERS]}
    return {"SummaryMap": Entries(numbers)}


def caller_identity(_: Account, credential: Credential, __: Form) -> dict[str, Any]:
    arn = f"arn:aws:iam::{NUMBER}:user/{credential.name}"
    return {"Arn": arn, "UserId": "AIDASANDBOXADMIN", "Account": NUMBER}


ACTIONS: dict[str, Action] = {
    "CreateUser": create_user,
    "GetUser": get_user,
    "ListUsers": list_users,
    "DeleteUser": delete_user,
    "TagUser": tag_user,
    "UntagUser": untag_user,
    "ListUserTags": list_user_tags,
    "PutUserPolicy": put_user_policy,
    "GetUserPolicy": get_user_policy,
    "ListUserPolicies": list_user_policies,
    "DeleteUserPolicy": delete_user_policy,
    "CreateServiceSpecificCredential": create_credential,
    "ListServiceSpecificCredentials": list_credentials,
    "UpdateServiceSpecificCredential": update_credential,
    "ResetServiceSpecificCredential": reset_credential,
    "DeleteServiceSpecificCredential": delete_credential,
    "SimulatePrincipalPolicy": simulate,
    "GetAccountSummary": account_summary,
}


def _text(form: Form, name: str) -> str:
    value = form.get(name)
    if not value:
        raise failed(400, "ValidationError", f"1 validation error detected: Value at '{name}' failed to satisfy constraint: not null")
    return value


def _members(form: Form, name: str) -> list[str]:
    return [value for key, value in form.items() if re.fullmatch(rf"{name}\.member\.\d+", key)]


def _tags(form: Form) -> dict[str, str]:
    numbers = {key.split(".")[2] for key in form if re.fullmatch(r"Tags\.member\.\d+\.Key", key)}
    return {form[f"Tags.member.{number}.Key"]: form.get(f"Tags.member.{number}.Value", "") for number in sorted(numbers)}


def _tags_body(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": name, "Value": value} for name, value in tags.items()]


def _policy(user: User, name: str) -> str:
    if name not in user.policies:
        raise failed(404, "NoSuchEntity", f"The user policy with name {name[:128]} cannot be found.")
    return user.policies[name]


def _credential(account: Account, form: Form) -> ServiceCredential:
    entry = account.shelves[CREDENTIALS].get(_text(form, "ServiceSpecificCredentialId"))
    if entry is None or form.get("UserName", entry.parent) != entry.parent:
        raise failed(404, "NoSuchEntity", f"No such credential {form['ServiceSpecificCredentialId'][:128]} exists")
    found: ServiceCredential = entry.more["it"]
    return found


def _page(form: Form, items: list[Any], name: str) -> dict[str, Any]:
    """`Marker` is the index of the next item."""
    most = min(int(form["MaxItems"]), 1000) if form.get("MaxItems", "").isdecimal() else 100
    first = int(form["Marker"]) if form.get("Marker", "").isdecimal() else 0
    more = first + most < len(items)
    return {name: items[first : first + most], "IsTruncated": more, "Marker": str(first + most) if more else None}


def _time(moment_ns: int) -> str:
    return from_ns(moment_ns // NANOSECONDS * NANOSECONDS).strftime("%Y-%m-%dT%H:%M:%SZ")


def _user_body(user: User, *, tags: bool = False) -> dict[str, Any]:
    body = {"Path": user.path, "UserName": user.name, "UserId": user.id, "Arn": user.arn, "CreateDate": _time(user.made_at_ns)}
    return {**body, "Tags": _tags_body(user.tags)} if tags and user.tags else body


def _credential_body(account: Account, one: ServiceCredential, *, secret: bool = False) -> dict[str, Any]:
    return {
        "UserName": one.user,
        "Status": one.status(account.now_ns()),
        "CreateDate": _time(one.made_at_ns),
        "ExpirationDate": None if one.expires_at_ns is None else _time(one.expires_at_ns),
        "ServiceName": SERVICE,
        "ServiceCredentialAlias": one.alias,
        "ServiceSpecificCredentialId": one.id,
        "ServiceCredentialSecret": one.secret if secret else None,
    }
