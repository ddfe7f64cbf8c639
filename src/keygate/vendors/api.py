"""`GET /vendors`: which vendors the gateway serves, and what a client exports for them."""

from __future__ import annotations

from fastapi import Request

from keygate.kit.routes import Routes, Schema
from keygate.vendors import VENDORS, Vendor

routes = Routes("/vendors", tag="vendors")


class EndpointView(Schema):
    method: str
    path: str
    group: str
    billed: bool


class VendorView(Schema):
    name: str
    title: str
    mount: str
    endpoints: list[EndpointView]
    client_env: dict[str, str]  # `{key}` stands for the virtual key


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
    )


@routes.get(permission="vendors.read")
async def list_vendors(request: Request) -> VendorList:
    """Vendors that this KeyGate serves."""
    return VendorList(items=[_view(vendor, request.app.state.public_url) for vendor in VENDORS.values()])
