"""`/vendors/configure`, `/vendors/accounts`, `/keys` and `/receipts`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Path, Query, Request, Response

from keygate.identities import Actor
from keygate.issued_keys.account_schemas import AccountList, AccountOut, Configure, RoomOut
from keygate.issued_keys.accounts import VendorAccountService
from keygate.issued_keys.handover import Handover, Told
from keygate.issued_keys.inspection import InspectionService
from keygate.issued_keys.leaks import LeakService
from keygate.issued_keys.life import LIVE, State
from keygate.issued_keys.minting import MintingService
from keygate.issued_keys.model import IssuedFilter, IssuedKey
from keygate.issued_keys.ports import Budgets
from keygate.issued_keys.receipt_service import ReceiptService
from keygate.issued_keys.rotation.outlooks import Outlooks
from keygate.issued_keys.rotation.service import RotationService
from keygate.issued_keys.schemas import (
    BudgetOut,
    Check,
    Extend,
    IssuedDetail,
    IssuedOut,
    IssuerOut,
    LeakedKey,
    LeakOut,
    LinkIn,
    LinkOut,
    Open,
    Provision,
    ProvisionedOut,
    ReceiptOut,
    RevokeIssued,
    RotateIssued,
    ScheduleIn,
    StepOut,
    TokenOut,
    end_ns,
)
from keygate.issued_keys.service import IssuedKeyService
from keygate.kit.clock import Clock, rfc3339
from keygate.kit.routes import PUBLIC, Page, PageQuery, Routes, current_actor, service
from keygate.kit.secret import Secret

vendor_routes = Routes("/vendors", tag="vendors")
routes = Routes("/keys", tag="issued keys")
receipt_routes = Routes("/receipts", tag="issued keys")
ALL = (vendor_routes, routes, receipt_routes)

_Actor = Annotated[Actor, Depends(current_actor)]
_Keys = Annotated[IssuedKeyService, service(IssuedKeyService)]
_Handover = Annotated[Handover, service(Handover)]
_Receipts = Annotated[ReceiptService, service(ReceiptService)]
_Accounts = Annotated[VendorAccountService, service(VendorAccountService)]
_Leaks = Annotated[LeakService, service(LeakService)]
_Minting = Annotated[MintingService, service(MintingService)]
_Inspection = Annotated[InspectionService, service(InspectionService)]
_Outlooks = Annotated[Outlooks, service(Outlooks)]
_Budgets = Annotated[Budgets, service(Budgets)]
_Rotation = Annotated[RotationService, service(RotationService)]
_Clock = Annotated[Clock, service(Clock)]
_Id = Annotated[str, Path(max_length=100)]
_IdQuery = Annotated[str | None, Query(max_length=40, pattern=r"^[A-Za-z0-9_]+$")]
_RegionQuery = Annotated[str | None, Query(max_length=40, pattern=r"^[a-z0-9-]+$", description="Another than the setting's")]
_VendorQuery = Annotated[str | None, Query(max_length=40, pattern=r"^[a-z0-9_-]+$")]

Responses = dict[int | str, dict[str, Any]]
_ABSENT: Responses = {404: {"description": "Absent, or not visible to this actor"}}
_STATE: Responses = {409: {"description": "The key's state, or the vendor account's, does not allow it"}}
_VENDOR: Responses = {
    502: {"description": "The vendor did not answer as expected"},
    503: {"description": "The vendor can't be reached"},
}


@vendor_routes.post("/configure", permission="vendors.write", responses=_STATE | _VENDOR)
async def configure_vendor(body: Configure, actor: _Actor, accounts: _Accounts) -> AccountOut:
    """Enters an admin credential: tried at the vendor, then sealed. Rights that it lacks are named; nothing is made until they are there.
    Under a name that is taken it replaces the former one."""
    return AccountOut.of(
        await accounts.configure(actor, vendor=body.vendor, name=body.name, admin_key=body.secret(), settings=body.settings)
    )


@vendor_routes.get("/issuer", permission="vendors.read")
async def show_issuer(_actor: _Actor, minting: _Minting) -> IssuerOut:
    """KeyGate as an issuer of identity tokens: what an admin enters at a vendor that trades them for tokens of its own (Anthropic)."""
    return IssuerOut(**minting.identity())


@vendor_routes.get("/accounts", permission="vendors.read")
async def list_vendor_accounts(actor: _Actor, accounts: _Accounts, vendor: _VendorQuery = None) -> AccountList:
    """The admin credentials that keys are made with. Of the secrets only a hint is shown."""
    if actor.only_own:
        return AccountList(items=[])
    return AccountList(items=[AccountOut.of(account) for account in await accounts.all(actor, vendor=vendor)])


@vendor_routes.post("/accounts/{account_id}/verify", permission="vendors.write", responses=_ABSENT | _VENDOR)
async def verify_vendor_account(account_id: _Id, actor: _Actor, accounts: _Accounts) -> AccountOut:
    """Asks the vendor again which rights the admin credential has, and what its account can beside the others (`also_confirms`)."""
    return AccountOut.of(await accounts.verify(actor, account_id))


@vendor_routes.get("/accounts/{account_id}/room", permission="vendors.read", responses=_ABSENT)
async def vendor_account_room(account_id: _Id, actor: _Actor, accounts: _Accounts, region: _RegionQuery = None) -> RoomOut:
    """How many keys still fit, before a bulk order makes the first: the vendor is asked where its API can tell."""
    account = await accounts.get(actor, account_id)
    room = await accounts.room(account, {} if region is None else {"region": region}, afresh=True)
    return RoomOut(
        account_id=account_id,
        container=room.container,
        alive=room.standing,
        counted=room.counted,
        place=room.place,
        ceiling=room.ceiling,
        room=room.left,
        remedy=room.remedy,
        calls_per_minute=accounts.pace(account),
    )


@vendor_routes.delete("/accounts/{account_id}", permission="vendors.write", status_code=204, responses=_ABSENT | _STATE)
async def delete_vendor_account(account_id: _Id, actor: _Actor, accounts: _Accounts) -> Response:
    """Forgets an admin credential; refused while keys made with it are alive."""
    await accounts.delete(actor, account_id)
    return Response(status_code=204)


class Viewer:
    """Keys as the API shows them, with what lies ahead of each, and what holds it back."""

    def __init__(self, outlooks: _Outlooks, budgets: _Budgets, clock: _Clock) -> None:
        self._outlooks = outlooks
        self._budgets = budgets
        self._clock = clock

    async def fields(self, key: IssuedKey) -> dict[str, Any]:
        return (await self._fields([key]))[0]

    async def one(self, key: IssuedKey) -> IssuedOut:
        return IssuedOut(**await self.fields(key))

    async def many(self, keys: Sequence[IssuedKey]) -> list[IssuedOut]:
        return [IssuedOut(**fields) for fields in await self._fields(keys)]

    async def _fields(self, keys: Sequence[IssuedKey]) -> list[dict[str, Any]]:
        ahead = await self._outlooks.of(keys)
        held = await self._budgets.held_back(keys[0].organization_id, [key.id for key in keys]) if keys else {}
        return [IssuedOut.fields(key, self._clock.now_ns(), ahead[key.id], held.get(key.id) if key.state in LIVE else None) for key in keys]

    async def told(self, told: Told, *, link: LinkOut | None = None) -> ProvisionedOut:
        key = told.key
        env = dict(key.env)
        if told.secret is not None and key.secret_env is not None:
            env[key.secret_env] = told.secret.open()
        secret = None if told.secret is None else told.secret.open()
        return ProvisionedOut(**await self.fields(key), key=secret, env=env, link=link)


_Viewer = Annotated[Viewer, Depends()]


async def _provisioned(
    request: Request, actor: Actor, handover: Handover, told: Told, viewer: Viewer, *, deliver: str, link_seconds: int
) -> ProvisionedOut:
    link = None
    if deliver == "link":
        token, until = await handover.make_link(actor, told.key.id, expires_in_seconds=link_seconds)
        link = _link(request, token, until)
    return await viewer.told(told, link=link)


def _link(request: Request, token: Secret, until_ns: int) -> LinkOut:
    address = f"{request.app.state.public_url}/receive#{token.open()}"
    return LinkOut(url=address, token=token.open(), expires_at=rfc3339(until_ns))


@routes.post("/provision", permission="issued_keys.write", status_code=201, responses=_STATE | _VENDOR)
async def provision_key(
    body: Provision, request: Request, actor: _Actor, keys: _Keys, handover: _Handover, clock: _Clock, viewer: _Viewer
) -> ProvisionedOut:
    """Makes a key at a vendor: its own container, its limits set and read back, then the key. The secret is in this answer once, or
    behind a one-time link. Where the vendor takes longer than `wait_seconds`, the state says `creating` and the work goes on."""
    tell = body.deliver == "answer"
    told = await keys.provision(
        actor, body.draft(clock.now_ns()), tell=tell, gone=request.is_disconnected, patience=float(body.wait_seconds)
    )
    return await _provisioned(request, actor, handover, told, viewer, deliver=body.deliver, link_seconds=body.link_expires_in_seconds)


@routes.get("", permission="issued_keys.read")
async def list_issued_keys(
    actor: _Actor,
    keys: _Keys,
    viewer: _Viewer,
    page: Annotated[PageQuery, Depends()],
    vendor: _VendorQuery = None,
    developer_id: _IdQuery = None,
    team_id: _IdQuery = None,
    app_id: _IdQuery = None,
    state: Annotated[State | None, Query()] = None,
) -> Page[IssuedOut]:
    """Issued keys, oldest first, with the time of each one's next rotation. Secrets are never listed."""
    wanted = IssuedFilter(owner_id=developer_id or team_id or app_id, vendor=vendor, state=state)
    found = await keys.page(actor, wanted, after=page.after, limit=page.limit + 1)
    rows, cursor = page.page(found, key=lambda key: key.id)
    return Page(items=await viewer.many(rows), next_cursor=cursor)


@routes.post("/deliveries", permission=PUBLIC, responses=_ABSENT | _STATE)
async def open_delivery(body: Open, request: Request, response: Response, handover: _Handover, viewer: _Viewer) -> ProvisionedOut:
    """Opens a one-time link: tells the key's secret, and burns the link. The token is the only evidence asked for."""
    response.headers["cache-control"] = "no-store"
    address = request.client.host if request.client else None
    told = await handover.open_link(Secret(body.token), address=address, request_id=request.state.request_id, gone=request.is_disconnected)
    return await viewer.told(told)


@routes.post("/report-leak", permission=PUBLIC, responses={404: {"description": "Not a key that KeyGate issued"}})
async def report_leaked_vendor_key(body: LeakedKey, request: Request, leaks: _Leaks) -> LeakOut:
    """Whoever finds a secret that KeyGate issued may end it: the key is revoked at the vendor; during a rotation the former secret is cut
    and the next one goes on. Former secrets and fetched tokens are known too, and one that is dead is told as dead."""
    return LeakOut.of(await leaks.report(Secret(body.key), address=request.client.host if request.client else None))


@routes.get("/{issued_key_id}", permission="issued_keys.read", responses=_ABSENT)
async def get_issued_key(issued_key_id: _Id, actor: _Actor, keys: _Keys, budgets: _Budgets, viewer: _Viewer) -> IssuedDetail:
    """One key, how its budget is kept, and every call that was made at the vendor for it."""
    key = await keys.get(actor, issued_key_id)
    steps = await keys.steps(actor, issued_key_id)
    watched = key.state in LIVE and key.terms.budget_nano is not None
    kept = await budgets.kept(actor, key.id) if watched else None
    budget = None if kept is None else BudgetOut(enforced_by=kept.enforced_by, trouble=kept.trouble)
    return IssuedDetail(**await viewer.fields(key), budget=budget, steps=[StepOut.of(step) for step in steps])


@routes.patch("/{issued_key_id}", permission="issued_keys.write", responses=_ABSENT | _STATE)
async def update_issued_key(issued_key_id: _Id, body: ScheduleIn, actor: _Actor, rotation: _Rotation, viewer: _Viewer) -> IssuedOut:
    """Changes what is named of a key's rotation schedule; `rotate_every_days` null ends it. Age counts from `made_at`: a key that is older
    than its new schedule is rotated at once. Its other terms are the vendor's: `extend`, or the inventory."""
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    return await viewer.one(await rotation.schedule(actor, issued_key_id, changes))


@routes.post("/{issued_key_id}/revoke", permission="issued_keys.write", responses=_ABSENT | _STATE)
async def revoke_issued_key(issued_key_id: _Id, actor: _Actor, keys: _Keys, viewer: _Viewer, body: RevokeIssued | None = None) -> IssuedOut:
    """Ends a key at the vendor. `revoked` in the answer means that the vendor has shown it gone; `revoking` and `irrevocable` are tried
    again by themselves, and at once where this is called again."""
    wanted = body or RevokeIssued()
    return await viewer.one(await keys.revoke(actor, issued_key_id, reason=wanted.reason, patience=float(wanted.wait_seconds)))


@routes.post("/{issued_key_id}/rotate", permission="issued_keys.write", responses=_ABSENT | _STATE | _VENDOR)
async def rotate_issued_key(
    issued_key_id: _Id, request: Request, actor: _Actor, keys: _Keys, handover: _Handover, viewer: _Viewer, body: RotateIssued | None = None
) -> ProvisionedOut:
    """A second key with the same terms in the same container; the former one is cut after the overlap, once the vendor shows it unused.
    What somebody changed of the terms at the vendor is set again. Refused for a key that is disabled, for its budget or at the vendor."""
    wanted = body or RotateIssued()
    told = await keys.rotate(
        actor,
        issued_key_id,
        overlap_seconds=wanted.overlap_seconds,
        quiet_seconds=wanted.quiet_seconds,
        insist=wanted.insist,
        request_id=wanted.request_id,
        tell=wanted.deliver == "answer",
        gone=request.is_disconnected,
        patience=float(wanted.wait_seconds),
    )
    return await _provisioned(request, actor, handover, told, viewer, deliver=wanted.deliver, link_seconds=wanted.link_expires_in_seconds)


@routes.post("/{issued_key_id}/cut", permission="issued_keys.write", responses=_ABSENT | _STATE)
async def cut_former_key(issued_key_id: _Id, actor: _Actor, keys: _Keys, viewer: _Viewer) -> IssuedOut:
    """During a rotation: the former key ends now, used or not."""
    return await viewer.one(await keys.cut(actor, issued_key_id))


@routes.post("/{issued_key_id}/extend", permission="issued_keys.write", responses=_ABSENT | _STATE | _VENDOR)
async def extend_issued_key(issued_key_id: _Id, body: Extend, actor: _Actor, keys: _Keys, clock: _Clock, viewer: _Viewer) -> IssuedOut:
    """Another end, at the vendor too where it keeps one."""
    until = end_ns(clock.now_ns(), body.expires_in_days, body.expires_at)
    return await viewer.one(await keys.extend(actor, issued_key_id, expires_at_ns=until))


@routes.post("/{issued_key_id}/collect", permission="issued_tokens.write", responses=_ABSENT | _STATE)
async def collect_issued_key(issued_key_id: _Id, response: Response, actor: _Actor, handover: _Handover, viewer: _Viewer) -> ProvisionedOut:
    """The secret that waits, told this once to whoever holds the key: the new one of a rotation that began by itself. The overlap, in which
    the former key works beside it, counts from here."""
    response.headers["cache-control"] = "no-store"
    return await viewer.told(await handover.collect(actor, issued_key_id))


@routes.post("/{issued_key_id}/token", permission="issued_tokens.write", responses=_ABSENT | _STATE | _VENDOR)
async def mint_issued_token(issued_key_id: _Id, actor: _Actor, minting: _Minting) -> TokenOut:
    """A fresh token for a key of a vendor that has no lasting secrets (Anthropic). Only its keyed digest is kept, so that a leaked one
    can be reported."""
    made = await minting.mint(actor, issued_key_id)
    env = {**made.env, made.secret_env: made.secret.open()}
    return TokenOut(key=made.secret.open(), env=env, expires_at=rfc3339(made.expires_at_ns))


@routes.post("/{issued_key_id}/check", permission="issued_keys.write", responses=_ABSENT | _STATE | _VENDOR)
async def check_issued_key(
    issued_key_id: _Id, actor: _Actor, inspection: _Inspection, viewer: _Viewer, body: Check | None = None
) -> IssuedOut:
    """Reads the key at the vendor: is it there, was it used, are its terms still those that were set? `repair` sets them again."""
    return await viewer.one(await inspection.check(actor, issued_key_id, repair=body is not None and body.repair))


@routes.post("/{issued_key_id}/link", permission="issued_keys.write", status_code=201, responses=_ABSENT | _STATE)
async def link_issued_key(issued_key_id: _Id, body: LinkIn, request: Request, actor: _Actor, handover: _Handover) -> LinkOut:
    """A one-time link to a secret that waits. It burns when it is opened, and ends by itself."""
    return _link(request, *await handover.make_link(actor, issued_key_id, expires_in_seconds=body.expires_in_seconds))


@receipt_routes.get("", permission="receipts.read")
async def list_receipts(
    actor: _Actor, receipts: _Receipts, page: Annotated[PageQuery, Depends()], subject: _IdQuery = None
) -> Page[ReceiptOut]:
    """What was ended together (a developer's deactivation, a team's archiving, a leak report), newest first; with `subject` of one
    developer, app, team or key. Who was ended with their team stands in the team's."""
    found = await receipts.page(actor, subject=subject, before=page.after, limit=page.limit + 1)
    rows, cursor = page.page(found, key=lambda receipt: receipt.id)
    return Page(items=[ReceiptOut.of(receipt) for receipt in rows], next_cursor=cursor)


@receipt_routes.get("/{receipt_id}", permission="receipts.read", responses=_ABSENT)
async def get_receipt(receipt_id: _Id, actor: _Actor, receipts: _Receipts) -> dict[str, Any]:
    """The receipt as of now, signed: each vendor's confirmation, and what remains. `keygate receipts verify FILE` checks it anywhere."""
    return await receipts.document(actor, receipt_id)
