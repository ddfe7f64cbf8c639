"""`/rotation-policies`: how old issued keys may be."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Response

from keygate.identities import Actor
from keygate.issued_keys.rotation.schemas import (
    CoverageOut,
    RotationPolicyDetail,
    RotationPolicyIn,
    RotationPolicyList,
    RotationPolicyOut,
    RotationPolicyUpdate,
)
from keygate.issued_keys.rotation.service import RotationService
from keygate.kit.routes import Routes, current_actor, service

routes = Routes("/rotation-policies", tag="issued keys")

_Actor = Annotated[Actor, Depends(current_actor)]
_Rotation = Annotated[RotationService, service(RotationService)]
_Id = Annotated[str, Path(max_length=100)]

Responses = dict[int | str, dict[str, Any]]
_ABSENT: Responses = {404: {"description": "Absent, or not visible to this actor"}}
_TAKEN: Responses = {409: {"description": "A policy covers the same keys already, or there are too many"}}


@routes.post("/check", permission="rotation_policies.write")
async def check_rotation_policy(body: RotationPolicyIn, actor: _Actor, rotation: _Rotation) -> CoverageOut:
    """What such a policy would mean for the keys that there are now: how many it covers, how many rotations begin at once, and how many
    keys need a person. Changes nothing."""
    return CoverageOut.of(await rotation.check(actor, body.draft()))


@routes.post("", permission="rotation_policies.write", status_code=201, responses=_TAKEN)
async def create_rotation_policy(body: RotationPolicyIn, actor: _Actor, rotation: _Rotation) -> RotationPolicyOut:
    """No issued key older than `max_age_days`. KeyGate rotates them in time where the vendor can, a few at a time; of keys that only a
    person can replace it reminds, and shows them as `overdue`. Where several policies cover a key, the strictest holds."""
    return RotationPolicyOut.of(await rotation.create(actor, body.draft()))


@routes.get("", permission="rotation_policies.read")
async def list_rotation_policies(actor: _Actor, rotation: _Rotation) -> RotationPolicyList:
    """Rotation policies, oldest first."""
    return RotationPolicyList(items=[RotationPolicyOut.of(policy) for policy in await rotation.all(actor)])


@routes.get("/{rotation_policy_id}", permission="rotation_policies.read", responses=_ABSENT)
async def get_rotation_policy(rotation_policy_id: _Id, actor: _Actor, rotation: _Rotation) -> RotationPolicyDetail:
    """One policy, and how the keys that it covers stand."""
    return RotationPolicyDetail.with_coverage(*await rotation.get(actor, rotation_policy_id))


@routes.patch("/{rotation_policy_id}", permission="rotation_policies.write", responses=_ABSENT)
async def update_rotation_policy(
    rotation_policy_id: _Id, body: RotationPolicyUpdate, actor: _Actor, rotation: _Rotation
) -> RotationPolicyOut:
    """Another age or overlap; what it covers stays."""
    return RotationPolicyOut.of(await rotation.update(actor, rotation_policy_id, body.changes()))


@routes.delete("/{rotation_policy_id}", permission="rotation_policies.write", status_code=204, responses=_ABSENT)
async def delete_rotation_policy(rotation_policy_id: _Id, actor: _Actor, rotation: _Rotation) -> Response:
    """Removes a policy. Rotations that have begun go on."""
    await rotation.delete(actor, rotation_policy_id)
    return Response(status_code=204)
