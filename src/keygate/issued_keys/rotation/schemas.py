"""The wire of rotation policies."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from keygate.issued_keys.model import MAX_OVERLAP_SECONDS
from keygate.issued_keys.rotation.model import MAX_ROTATION_DAYS, RotationPolicy
from keygate.issued_keys.rotation.service import Coverage, PolicyDraft
from keygate.issued_keys.schemas import Moment, VendorName
from keygate.kit.clock import rfc3339
from keygate.kit.routes import Id, Schema

_Days = Annotated[int, Field(ge=1, le=MAX_ROTATION_DAYS, description="No key that the policy covers may be older")]
_Overlap = Annotated[
    Annotated[int, Field(ge=0, le=MAX_OVERLAP_SECONDS)] | None,
    Field(
        description="How long both keys work once the new secret was fetched; the rotation begins so much before a key is too old. null: a "
        "quarter of the age, at most a week"
    ),
]


class RotationPolicyIn(Schema):
    """Neither `team_id` nor `vendor`: every issued key of the organisation."""

    max_age_days: _Days
    overlap_seconds: _Overlap = None
    team_id: Id | None = Field(None, description="Only keys of this team, of its developers and its apps")
    vendor: VendorName | None = Field(None, description="Only keys at this vendor")

    def draft(self) -> PolicyDraft:
        return PolicyDraft(self.max_age_days, self.overlap_seconds, self.team_id, self.vendor)


class RotationPolicyUpdate(Schema):
    max_age_days: _Days | None = None
    overlap_seconds: _Overlap = None

    def changes(self) -> dict[str, int | None]:
        """What is named; an age can't be taken away."""
        named = {name: getattr(self, name) for name in self.model_fields_set}
        return {name: value for name, value in named.items() if name != "max_age_days" or value is not None}


class RotationPolicyOut(Schema):
    id: str
    max_age_days: int
    overlap_seconds: int
    team_id: str | None
    vendor: str | None
    created_at: Moment
    created_by: str
    updated_at: Moment

    @classmethod
    def of(cls, policy: RotationPolicy) -> RotationPolicyOut:
        return cls(
            id=policy.id,
            max_age_days=policy.max_age_days,
            overlap_seconds=policy.overlap,
            team_id=policy.team_id,
            vendor=policy.vendor,
            created_at=rfc3339(policy.created_at_ns),
            created_by=policy.created_by,
            updated_at=rfc3339(policy.updated_at_ns),
        )


class CoverageOut(Schema):
    """What a policy means for the keys that there are now."""

    keys: int = Field(description="That it covers")
    due: int = Field(description="Whose rotation begins at once, a few at a time at each vendor account")
    too_old: int
    by_person: int = Field(description="Made by hand, or at vendors that can't: KeyGate reminds of them, and a person replaces them")

    @classmethod
    def of(cls, coverage: Coverage) -> CoverageOut:
        return cls(keys=coverage.keys, due=coverage.due, too_old=coverage.too_old, by_person=coverage.by_person)


class RotationPolicyDetail(RotationPolicyOut):
    coverage: CoverageOut

    @classmethod
    def with_coverage(cls, policy: RotationPolicy, coverage: Coverage) -> RotationPolicyDetail:
        return cls(**RotationPolicyOut.of(policy).model_dump(), coverage=CoverageOut.of(coverage))


class RotationPolicyList(Schema):
    items: list[RotationPolicyOut]
    next_cursor: str | None = None
