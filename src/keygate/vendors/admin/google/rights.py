"""What Google's admin credential may do, and what stands in the way: asked before anything is made."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keygate.vendors.admin.errors import AdminKeyRefused, MissingRight, ProvisionerError, Rejected
from keygate.vendors.admin.google import costs
from keygate.vendors.admin.google.calls import call, service_of
from keygate.vendors.admin.google.facts import NO_BOUND_KEYS, SPEND_RIGHTS
from keygate.vendors.admin.interface import Desk, Right


async def of_bills(desk: Desk) -> tuple[list[Right], list[str]]:
    """By a query that is not run. What is wrong with it other than a right is noted: keys can be made all the same."""
    try:
        await costs.may_read(desk)
    except AdminKeyRefused:
        raise
    except MissingRight as error:
        return [Right(name, False if name == error.right else None, why) for name, why in SPEND_RIGHTS.items()], []
    except ProvisionerError as error:
        return [Right(name, None, why) for name, why in SPEND_RIGHTS.items()], [f"the bill can't be read: {error.detail}"]
    return [Right(name, True, why) for name, why in SPEND_RIGHTS.items()], []


async def held(desk: Desk, service: str, resource: str, wanted: Mapping[str, str]) -> list[Right]:
    """Which of these rights the credential has on a resource: Google is asked for exactly that, and makes nothing. A resource
    that is not there (404) is no missing right: `NotFound`. Where Google does not take the question about one of them (400), it is
    asked about each."""
    what, body = f"see which rights the admin credential has on {resource.partition('/')[2]}", {"permissions": list(wanted)}
    options: dict[str, Any] = {"json": body, "changes": False}
    try:
        told = await call(desk, service, "POST", f"{resource}:testIamPermissions", what, accept=(403,), **options)
    except Rejected:
        if len(wanted) == 1:
            return [Right(name, None, purpose) for name, purpose in wanted.items()]
        alone = [await held(desk, service, resource, {name: purpose}) for name, purpose in wanted.items()]
        return [right for one in alone for right in one]
    has = set() if told is None else set(told.get("permissions", []))
    return [Right(name, name in has, purpose) for name, purpose in wanted.items()]


async def of_policy(desk: Desk, project: str) -> Right:
    """The organisation policy that forbids bound keys: told beforehand, as only the organisation's administrators can change it."""
    service = service_of(desk)
    name = f"organisation policy {NO_BOUND_KEYS}: not in force for {service}"
    path = f"v2/projects/{project}/policies/{NO_BOUND_KEYS}:getEffectivePolicy"
    policy = await call(desk, "orgpolicy", "GET", path, "see the organisation's policies", right="orgpolicy.policy.get", accept=(403, 404))
    needed_for = "make keys that are bound to service accounts"
    if policy is None:
        return Right(name, None, needed_for)
    rules = [rule for rule in policy.get("spec", {}).get("rules", []) if rule.get("enforce")]
    allowed = all(service in rule.get("parameters", {}).get("allowedServices", []) for rule in rules)
    return Right(name, allowed, needed_for)
