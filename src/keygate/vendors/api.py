"""`GET /vendors`: which vendors the gateway serves, what a client exports for them, and which way to a key is open at each."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Path, Request
from pydantic import Field

from keygate.errors import NotFound
from keygate.kit.routes import Routes, Schema
from keygate.vendors import VENDORS, Vendor
from keygate.vendors.admin import PROVISIONERS, UNUSED, AddsKey, KeyApi, KeyWay, Provisioner, ReportsSpend, Way, way_of, why_no_spend

routes = Routes("/vendors", tag="vendors")
_ABSENT: dict[int | str, dict[str, Any]] = {404: {"description": "KeyGate knows no vendor of this name"}}


class EndpointView(Schema):
    method: str
    path: str
    group: str
    billed: bool


class SpendView(Schema):
    """What this vendor's bill tells of keys."""

    told_by: Literal["key", "container", "none"]
    means: str | None = Field(description="What a number is, and whose")
    delay_seconds: int | None = Field(description="How late numbers come; null: the vendor does not say")
    restated_days: int | None = Field(description="How far back the vendor may change them")
    why_not: str | None = Field(description="Why nothing is told, or what an account needs before its bill is read; null: nothing")


class KeysView(Schema):
    """Which way to a key of this vendor's is open, and why."""

    way: Way = Field(
        description="made: KeyGate makes, limits and revokes keys there; by_hand: people make keys there, and enter them; none: neither"
    )
    vendor_api: KeyApi = Field(
        description="Whether the vendor's own API makes keys, whether KeyGate uses it or not. preview: for some customers; partly: it "
        "makes keys that can't be listed or limited; none_known: none was found"
    )
    why: str
    instead: str = Field(description="What to do to have a key")
    sources: dict[str, str]


class IssuingView(Schema):
    """What KeyGate can do with keys at this vendor."""

    admin_key: str = Field(description="What to enter as the admin credential")
    container: str = Field(description="What holds a key there: project, workspace …; empty: nothing")
    ceiling: int | None
    confirms: list[str] = Field(description="Terms that the vendor enforces and its API shows")
    confirms_for_some: dict[str, str] = Field(
        description="Terms of which the same is true for some accounts only, and for which; `also_confirms` of "
        "`GET /vendors/accounts` tells whether it is for yours"
    )
    takes: list[str] = Field(description="Terms that the vendor enforces and its API does not show again")
    needs: dict[str, str] = Field(description="Terms that every order must name, and what to name")
    cannot: dict[str, str] = Field(description="What the vendor can't do, and what KeyGate does instead")
    rights: dict[str, str] = Field(description="Least privilege: each right, and what it is needed for")
    settings: dict[str, str]
    options: dict[str, str]
    adopt_only: bool = Field(description="KeyGate makes no keys there: those made by hand are entered")
    rotates: bool
    reports_spend: bool
    spend: SpendView
    tells_last_use: bool
    revoke_delay_seconds: int | None = Field(description="How long a revoked key may still work; null: the vendor does not say")
    sources: dict[str, str]


class VendorView(Schema):
    name: str
    title: str
    mount: str | None = Field(description="Below KeyGate's address; null: the gateway does not serve this vendor")
    endpoints: list[EndpointView]
    client_env: dict[str, str]  # `{key}` stands for the virtual key
    keys: KeysView | None = Field(description="null: KeyGate knows nothing of keys there")
    issuing: IssuingView | None = Field(description="null: KeyGate neither makes nor keeps keys there")


class VendorList(Schema):
    items: list[VendorView]
    next_cursor: str | None = None


def _view(vendor: Vendor, public_url: str) -> VendorView:
    return VendorView(
        name=vendor.name,
        title=vendor.title,
        mount=f"/{vendor.name}",
        endpoints=[EndpointView(method=e.method, path=e.path, group=e.group, billed=e.billed) for e in vendor.endpoints],
        client_env={name: value.replace("{public_url}", public_url) for name, value in vendor.client_env},
        keys=_keys(way_of(vendor.name)),
        issuing=_issuing(vendor.name),
    )


def _keys(way: KeyWay | None) -> KeysView | None:
    if way is None:
        return None
    return KeysView(way=way.way, vendor_api=way.vendor_api, why=way.why, instead=way.instead, sources=dict(way.sources))


def _issuing(vendor: str) -> IssuingView | None:
    provisioner = PROVISIONERS.get(vendor)
    if provisioner is None:
        return None
    facts = provisioner.facts
    return IssuingView(
        admin_key=facts.admin_key_form,
        container=facts.container,
        ceiling=facts.ceiling,
        confirms=sorted(facts.confirms),
        confirms_for_some={str(term): which for term, which in facts.confirms_for_some.items()},
        takes=sorted(facts.takes),
        needs={str(term): what for term, what in facts.needs.items()},
        cannot=dict(facts.cannot),
        rights=dict(facts.rights),
        settings=dict(facts.settings),
        options=dict(facts.options),
        adopt_only=facts.adopt_only,
        rotates=isinstance(provisioner, AddsKey),
        reports_spend=isinstance(provisioner, ReportsSpend),
        spend=_spend(provisioner),
        tells_last_use=facts.tells_last_use,
        revoke_delay_seconds=facts.revoke_delay_seconds,
        sources=dict(facts.sources),
    )


def _spend(provisioner: Provisioner) -> SpendView:
    facts = provisioner.spend_facts if isinstance(provisioner, ReportsSpend) else None
    return SpendView(
        told_by="none" if facts is None else ("key" if facts.per_key else "container"),
        means=None if facts is None else facts.means,
        delay_seconds=None if facts is None else facts.delay_seconds,
        restated_days=None if facts is None else facts.restated_days,
        why_not=why_no_spend(provisioner, {}),
    )


def _not_served(name: str, title: str) -> VendorView:
    keys, issuing = _keys(way_of(name)), _issuing(name)
    return VendorView(name=name, title=title, mount=None, endpoints=[], client_env={}, keys=keys, issuing=issuing)


def _all(public_url: str) -> list[VendorView]:
    titles = {name: each.facts.title for name, each in PROVISIONERS.items()} | {name: each.title for name, each in UNUSED.items()}
    served = [_view(vendor, public_url) for vendor in VENDORS.values()]
    return [*served, *(_not_served(name, title) for name, title in titles.items() if name not in VENDORS)]


@routes.get(permission="vendors.read")
async def list_vendors(request: Request) -> VendorList:
    """Vendors that this KeyGate serves, those at which it makes keys, and those at which it does not, with the reason."""
    return VendorList(items=_all(request.app.state.public_url))


@routes.get("/{vendor}", permission="vendors.read", responses=_ABSENT)
async def show_vendor(request: Request, vendor: Annotated[str, Path(max_length=100)]) -> VendorView:
    """One vendor, by its name: what the gateway serves of it, which way to a key is open there, and why."""
    found = next((each for each in _all(request.app.state.public_url) if each.name == vendor), None)
    if found is None:
        raise NotFound("KeyGate knows no vendor of this name; `keygate vendors list` (GET /vendors) shows those that it does")
    return found
