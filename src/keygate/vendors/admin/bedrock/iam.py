"""The calls of IAM and STS that KeyGate makes, for one admin credential: signed, and their XML read."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from xml.etree import ElementTree as ET

from keygate.kit.clock import NANOSECONDS, to_ns
from keygate.kit.outbound import Answer
from keygate.kit.secret import Secret
from keygate.kit.sigv4 import AwsKey, sign
from keygate.vendors.admin.bedrock.facts import FACTS, PATH, POLICY, SERVICE
from keygate.vendors.admin.errors import (
    AdminKeyRefused,
    CeilingReached,
    MissingRight,
    NotFound,
    ProvisionerError,
    RateLimited,
    Rejected,
    Unavailable,
    quoted,
)
from keygate.vendors.admin.interface import Desk

_FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
_VERSIONS = {"iam": "2010-05-08", "sts": "2011-06-15"}
_READS = ("Get", "List", "Simulate")
_MAX_PAGES = 200
_TRIES = 6  # of a call about a user that IAM has not heard of everywhere
# What AWS's own SDK takes for throttling, whatever the status: botocore 1.44.6, retries/standard.py, read 2026-11-26. IAM's `LimitExceeded`
# is a quota and not among them, nor is what other services name so.
THROTTLED = frozenset(
    {
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestThrottled",
        "RequestThrottledException",
        "RequestLimitExceeded",
        "TooManyRequestsException",
        "BandwidthLimitExceeded",
        "PriorRequestNotComplete",
        "SlowDown",
        "EC2ThrottledException",
        "ProvisionedThroughputExceededException",
        "TransactionInProgressException",
    }
)
_DENIED = re.compile(r"not authorized to perform: ([\w-]+:\w+)")


@dataclass(frozen=True, slots=True)
class User:
    name: str
    arn: str
    created_at_ns: int | None
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Credential:
    id: str
    user: str
    status: str
    created_at_ns: int | None
    expires_at_ns: int | None
    alias: str | None


class Iam:
    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def setting(self, name: str) -> str:
        value = self._desk.settings.get(name)
        if not value:
            raise Rejected(f"The vendor's settings lack `{name}`: {FACTS.settings[name]}")
        return value

    @property
    def partition(self) -> str:
        return self._desk.settings.get("partition") or "aws"

    # Who we are.

    async def caller(self) -> tuple[str, str]:
        """`(account, arn)`."""
        found = await self._call("GetCallerIdentity", {}, what="read whose access key it is", service="sts")
        return _text(found, "Account"), _text(found, "Arn")

    async def simulate(self, arn: str, account: str, actions: Sequence[str], *, anywhere: bool = False) -> dict[str, bool]:
        """Which actions the credential's policies allow on a user that KeyGate would make; `anywhere`: of services without resources."""
        resource = "*" if anywhere else f"arn:{self.partition}:iam::{account}:user{PATH}kg-probe"
        parameters = {"PolicySourceArn": _principal(arn), "ResourceArns.member.1": resource}
        parameters |= {f"ActionNames.member.{number}": action for number, action in enumerate(actions, 1)}
        found = await self._call("SimulatePrincipalPolicy", parameters, what="look up the access key's rights")
        results = found.findall("EvaluationResults/member")
        return {_text(each, "EvalActionName"): _text(each, "EvalDecision") == "allowed" for each in results}

    async def users_left(self) -> tuple[int, int]:
        """`(left, quota)` of the account."""
        found = await self._call("GetAccountSummary", {}, what="read the account's quotas")
        numbers = {_text(each, "key"): _text(each, "value") for each in found.findall("SummaryMap/entry")}
        quota = int(numbers.get("UsersQuota") or 0)
        return max(0, quota - int(numbers.get("Users") or 0)), quota

    # Users.

    async def user(self, name: str) -> User | None:
        try:
            found = await self._call("GetUser", {"UserName": name}, what=f"read the user {name}")
        except NotFound:
            return None
        return _user(found.find("User"))

    async def users(self, marker: str | None) -> tuple[list[User], str | None]:
        """A page of the users that KeyGate has made."""
        parameters = {"PathPrefix": PATH, "MaxItems": "100"} | ({"Marker": marker} if marker else {})
        found = await self._call("ListUsers", parameters, what="list the users")
        return [_user(each) for each in found.findall("Users/member")], found.findtext("Marker") or None

    async def create_user(self, name: str, tags: Mapping[str, str]) -> User:
        parameters = {"UserName": name, "Path": PATH} | _tag_members(tags)
        found = await self._call("CreateUser", parameters, what=f"create the user {name}")
        return _user(found.find("User"))

    async def tag(self, name: str, tags: Mapping[str, str]) -> None:
        await self._eventually("TagUser", {"UserName": name} | _tag_members(tags), what=f"tag the user {name}")

    async def untag(self, name: str, key: str) -> None:
        await self._call("UntagUser", {"UserName": name, "TagKeys.member.1": key}, what=f"untag the user {name}")

    async def delete_user(self, name: str) -> None:
        await self._call("DeleteUser", {"UserName": name}, what=f"delete the user {name}")

    # Their policy.

    async def put_policy(self, name: str, document: str) -> None:
        parameters = {"UserName": name, "PolicyName": POLICY, "PolicyDocument": document}
        await self._eventually("PutUserPolicy", parameters, what=f"set the policy of {name}")

    async def policy(self, name: str) -> str | None:
        parameters = {"UserName": name, "PolicyName": POLICY}
        try:
            found = await self._call("GetUserPolicy", parameters, what=f"read the policy of {name}")
        except NotFound:
            return None
        return _text(found, "PolicyDocument")

    async def delete_policies(self, name: str) -> None:
        found = await self._call("ListUserPolicies", {"UserName": name}, what=f"list the policies of {name}")
        for each in found.findall("PolicyNames/member"):
            parameters = {"UserName": name, "PolicyName": each.text or ""}
            await self._call("DeleteUserPolicy", parameters, what=f"remove a policy of {name}")

    # Their keys.

    async def credentials(self, name: str) -> list[Credential]:
        """All of a user's, or none where the user is not there."""
        found: list[Credential] = []
        marker: str | None = None
        for _ in range(_MAX_PAGES):
            parameters = {"UserName": name, "ServiceName": SERVICE} | ({"Marker": marker} if marker else {})
            try:
                page = await self._call("ListServiceSpecificCredentials", parameters, what=f"list the keys of {name}")
            except NotFound:
                return []
            found += [_credential(each) for each in page.findall("ServiceSpecificCredentials/member")]
            marker = page.findtext("Marker") or None
            if marker is None:
                return found
        raise Unavailable(f"list the keys of {name}: there is no end of pages")

    async def every_credential(self, marker: str | None) -> tuple[list[Credential], str | None]:
        """A page of the Bedrock keys of all users, KeyGate's or not."""
        parameters = {"AllUsers": "true", "ServiceName": SERVICE, "MaxItems": "100"} | ({"Marker": marker} if marker else {})
        page = await self._call("ListServiceSpecificCredentials", parameters, what="list all Bedrock keys")
        return [_credential(each) for each in page.findall("ServiceSpecificCredentials/member")], page.findtext("Marker") or None

    async def create_credential(self, name: str, age_days: str | None) -> tuple[Credential, Secret]:
        parameters = {"UserName": name, "ServiceName": SERVICE} | ({"CredentialAgeDays": age_days} if age_days else {})
        found = await self._eventually("CreateServiceSpecificCredential", parameters, what=f"create a key of {name}")
        made = found.find("ServiceSpecificCredential")
        secret = None if made is None else made.findtext("ServiceCredentialSecret")
        if made is None or not secret:
            raise Unavailable(f"create a key of {name}: the answer holds no secret", uncertain=True)
        return _credential(made), Secret(secret)

    async def set_active(self, name: str, key: str, *, active: bool) -> None:
        parameters = {"UserName": name, "ServiceSpecificCredentialId": key, "Status": "Active" if active else "Inactive"}
        what = f"switch the key {key} {'on' if active else 'off'}"
        await self._call("UpdateServiceSpecificCredential", parameters, what=what)

    async def delete_credential(self, name: str, key: str) -> None:
        parameters = {"UserName": name, "ServiceSpecificCredentialId": key}
        await self._call("DeleteServiceSpecificCredential", parameters, what=f"delete the key {key}")

    # The wire.

    async def _eventually(self, action: str, parameters: Mapping[str, str], *, what: str) -> ET.Element:
        """As `_call`, for a user that was made a moment ago: IAM tells of it everywhere within seconds."""
        for attempt in range(1, _TRIES):
            try:
                return await self._call(action, parameters, what=what)
            except NotFound:
                await asyncio.sleep(0.5 * attempt)
        return await self._call(action, parameters, what=what)

    async def _call(self, action: str, parameters: Mapping[str, str], *, what: str, service: str = "iam") -> ET.Element:
        """The result element. Each call is signed for its own moment; a second try within the signature's five minutes goes as it is."""
        desk = self._desk
        body = urlencode({"Action": action, "Version": _VERSIONS[service], **parameters}).encode()
        url = f"{desk.base(None if service == 'iam' else service)}/"
        region = desk.settings.get("signing_region") or "us-east-1"
        key = AwsKey(self.setting("access_key_id"), desk.admin)
        headers = sign(key, "POST", url, headers=_FORM, body=body, region=region, service=service, now_ns=desk.clock.now_ns())
        reads = action.startswith(_READS)
        right = f"{service}:{action}"
        answer = await desk.http.call(
            "POST",
            url,
            what=what,
            right=right,
            headers=headers,
            body=body,
            changes=not reads,
            repeatable=reads,
            fault=_fault_of(what, right),
        )
        found = _parsed(answer.body)
        if found is None:
            raise Unavailable(f"{what}: the vendor's answer is not the XML expected", uncertain=not reads)
        inner = found.find(f"{action}Result")
        return found if inner is None else inner


def _fault_of(what: str, right: str) -> Any:
    def fault(answer: Answer) -> ProvisionerError | None:
        return _fault(answer, what=what, right=right)

    return fault


def _fault(answer: Answer, *, what: str, right: str) -> ProvisionerError | None:
    """IAM's errors, by their codes: a 403 may be a strange key or a missing right, a throttled call is a 400, or any 429."""
    found = _parsed(answer.body)
    if found is None:
        return None
    code, message = quoted(found.findtext("Error/Code"), most=100), quoted(found.findtext("Error/Message"))
    if code in THROTTLED or answer.status == 429:
        return RateLimited(f"{what}: AWS limits calls now ({code or answer.status})")
    match code:
        case "InvalidClientTokenId" | "SignatureDoesNotMatch" | "MissingAuthenticationToken" | "IncompleteSignature":
            hint = "; look at this machine's clock too" if code == "SignatureDoesNotMatch" else ""
            return AdminKeyRefused(f"{what}: AWS does not accept the access key ({code}); enter a valid id and secret{hint}")
        case "AccessDenied" | "AccessDeniedException":
            named = _DENIED.search(message)
            missing = named[1] if named else right
            return MissingRight(missing, f"{what}: the access key lacks the right {missing}; allow it in its policy and try again")
        case "NoSuchEntity":
            return NotFound(f"{what}: not found at AWS: {message}")
        case "DeleteConflict":
            return Unavailable(f"{what}: AWS holds something of it yet that its lists don't show: {message}")
        case "ConcurrentModification" | "EntityTemporarilyUnmodifiable":
            return Unavailable(f"{what}: AWS is busy with another change of the same user ({code}); try again in a moment")
        case "LimitExceeded":
            thing = "users" if "Users" in message else "keys of this user" if "Credential" in message else "of this"
            return CeilingReached(thing, f"{what}: {message}; remove what is not needed, or have AWS raise the quota")
        case "":
            return None
    if 400 <= answer.status < 500:
        return Rejected(f"{what}: AWS refused ({code}): {message}", status=answer.status, reason=code)
    return None


def _parsed(body: bytes) -> ET.Element | None:
    """Without namespaces. A document type is refused before it is parsed: no entities, so nothing that grows."""
    if b"<!" in body:
        return None
    try:
        found = ET.fromstring(body)  # noqa: S314  (bounded by the HTTP client, and free of entities: see above)
    except (ET.ParseError, ValueError):
        return None
    for each in found.iter():
        each.tag = each.tag.rpartition("}")[2]
    return found


def _text(element: ET.Element, name: str) -> str:
    return element.findtext(name) or ""


def _moment(text: str | None) -> int | None:
    try:
        return None if not text else to_ns(datetime.fromisoformat(text)) // NANOSECONDS * NANOSECONDS
    except ValueError:
        return None


def _user(element: ET.Element | None) -> User:
    if element is None or not element.findtext("UserName"):
        raise Unavailable("the vendor's answer holds no user", uncertain=True)
    tags = {_text(each, "Key"): _text(each, "Value") for each in element.findall("Tags/member")}
    return User(_text(element, "UserName"), _text(element, "Arn"), _moment(element.findtext("CreateDate")), tags)


def _credential(element: ET.Element) -> Credential:
    return Credential(
        _text(element, "ServiceSpecificCredentialId"),
        _text(element, "UserName"),
        _text(element, "Status"),
        _moment(element.findtext("CreateDate")),
        _moment(element.findtext("ExpirationDate")),
        element.findtext("ServiceCredentialAlias"),
    )


def _tag_members(tags: Mapping[str, str]) -> dict[str, str]:
    members: dict[str, str] = {}
    for number, (name, value) in enumerate(tags.items(), 1):
        members |= {f"Tags.member.{number}.Key": name, f"Tags.member.{number}.Value": re.sub(r"[^\w .:/=+@-]", " ", value)[:256]}
    return members


def _principal(arn: str) -> str:
    """The user or role whose policies count: a session's role."""
    found = re.fullmatch(r"arn:([\w-]+):sts::(\d+):assumed-role/([^/]+)/.+", arn)
    return arn if found is None else f"arn:{found[1]}:iam::{found[2]}:role/{found[3]}"
