"""`/credentials`: vendor keys in the vault."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Response

from keygate.identities import Actor
from keygate.kit.routes import Page, PageQuery, Routes, current_actor, service
from keygate.vault.credential_service import CredentialService
from keygate.vault.schemas import CredentialIn, CredentialOut, CredentialPatch, ProbeOut

routes = Routes("/credentials", tag="credentials")

_Service = Annotated[CredentialService, service(CredentialService)]
_Actor = Annotated[Actor, Depends(current_actor)]
_Id = Annotated[str, Path(max_length=40, pattern=r"^[A-Za-z0-9_]+$")]
_ABSENT: dict[int | str, dict[str, Any]] = {404: {"description": "No credential has this id"}}
_TAKEN: dict[int | str, dict[str, Any]] = {
    409: {"description": "The name is taken for this vendor, or the secret is that of an issued key"}
}


@routes.post("", permission="credentials.write", status_code=201, responses=_TAKEN)
async def create_credential(credentials: _Service, actor: _Actor, body: CredentialIn) -> CredentialOut:
    """Seals a vendor's key. It is in use when the answer arrives, and is never shown again."""
    return CredentialOut.of(await credentials.create(actor, body.value()))


@routes.get("", permission="credentials.read")
async def list_credentials(
    credentials: _Service,
    actor: _Actor,
    page: Annotated[PageQuery, Depends()],
    vendor: Annotated[str | None, Query(max_length=40, pattern=r"^[a-z0-9_-]+$")] = None,
) -> Page[CredentialOut]:
    rows = await credentials.page(actor, vendor=vendor, after=page.after, limit=page.limit + 1)
    kept, cursor = page.page(rows, key=lambda credential: credential.id)
    return Page(items=[CredentialOut.of(credential) for credential in kept], next_cursor=cursor)


@routes.get("/{credential_id}", permission="credentials.read", responses=_ABSENT)
async def get_credential(credentials: _Service, actor: _Actor, credential_id: _Id) -> CredentialOut:
    return CredentialOut.of(await credentials.get(actor, credential_id))


@routes.patch("/{credential_id}", permission="credentials.write", responses={**_ABSENT, **_TAKEN})
async def update_credential(credentials: _Service, actor: _Actor, credential_id: _Id, body: CredentialPatch) -> CredentialOut:
    """Changes what is sent. The gateway uses the change when the answer arrives."""
    return CredentialOut.of(await credentials.update(actor, credential_id, body.value()))


@routes.delete("/{credential_id}", permission="credentials.write", status_code=204, responses=_ABSENT)
async def delete_credential(credentials: _Service, actor: _Actor, credential_id: _Id) -> Response:
    """Forgets the secret; no request uses it any more. It stays valid at the vendor."""
    await credentials.delete(actor, credential_id)
    return Response(status_code=204)


@routes.post("/{credential_id}/test", permission="credentials.write", responses=_ABSENT)
async def test_credential(credentials: _Service, actor: _Actor, credential_id: _Id) -> ProbeOut:
    """Asks the vendor for its list of models with this credential, and says how it answered."""
    return ProbeOut.of(await credentials.test(actor, credential_id))
