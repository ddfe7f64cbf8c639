"""Roles of service accounts in a project: the whole IAM policy is read, changed and written back, as long as nobody else did so between."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from keygate.vendors.admin.errors import Rejected, Unavailable
from keygate.vendors.admin.google.calls import call
from keygate.vendors.admin.interface import Desk

_TRIES = 8
_VERSION = 3  # the newest: conditions of others would be lost in an older one
GET, SET = "resourcemanager.projects.getIamPolicy", "resourcemanager.projects.setIamPolicy"


async def grant(desk: Desk, project: str, email: str, role: str) -> None:
    """The service account has the role. In force two minutes later, or seven, or more: docs.cloud.google.com/iam/docs, "access change
    propagation", read 2026-11-20."""
    await _change(desk, project, email, role, wanted=True)


async def withdraw(desk: Desk, project: str, email: str, role: str) -> None:
    """It has it no longer; otherwise a policy keeps the names of deleted accounts until it is full."""
    await _change(desk, project, email, role, wanted=False)


async def _change(desk: Desk, project: str, email: str, role: str, *, wanted: bool) -> None:
    path, member = f"v3/projects/{project}", f"serviceAccount:{email}"
    what = f"{'give' if wanted else 'take'} the service account its role"
    for attempt in range(1, _TRIES + 1):
        ask = {"options": {"requestedPolicyVersion": _VERSION}}
        read = f"{what}: read the policy"
        policy = await call(desk, "cloudresourcemanager", "POST", f"{path}:getIamPolicy", read, right=GET, json=ask, changes=False) or {}
        if (member in _plain(policy, role).get("members", [])) == wanted:
            return
        body = {"policy": {**_with(policy, role, member, wanted=wanted), "version": max(_VERSION, int(policy.get("version", 0)))}}
        try:
            done = await call(desk, "cloudresourcemanager", "POST", f"{path}:setIamPolicy", what, right=SET, json=body, accept=(409,))
        except Rejected as error:
            if attempt == _TRIES or "does not exist" not in error.detail:
                raise
            done = None  # the account was made a moment ago
        if done is not None:
            return
        await asyncio.sleep(min(8.0, 0.2 * 2**attempt) * random.uniform(0.5, 1.0))  # noqa: S311  (spreads load)
    raise Unavailable(f"{what}: others change the project's policy all the time")


def _plain(policy: dict[str, Any], role: str) -> dict[str, Any]:
    """The role's binding without a condition."""
    return next((each for each in policy.get("bindings", []) if each.get("role") == role and "condition" not in each), {})


def _with(policy: dict[str, Any], role: str, member: str, *, wanted: bool) -> dict[str, Any]:
    plain = _plain(policy, role)
    members = [each for each in plain.get("members", []) if each != member] + ([member] if wanted else [])
    others = [each for each in policy.get("bindings", []) if each is not plain]
    return {**policy, "bindings": [*others, *([{"role": role, "members": members}] if members else [])]}
