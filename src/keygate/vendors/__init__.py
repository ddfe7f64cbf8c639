"""What is true of each vendor: mounts, endpoints, auth, errors. Data, no behaviour."""

from keygate.vendors.model import Auth, Dialect, Endpoint, EndpointGroup, ErrorStyle, Vendor
from keygate.vendors.registry import VENDORS, owner_of, split_model
from keygate.vendors.routes import Match, Refused, resolve

__all__ = [
    "VENDORS",
    "Auth",
    "Dialect",
    "Endpoint",
    "EndpointGroup",
    "ErrorStyle",
    "Match",
    "Refused",
    "Vendor",
    "owner_of",
    "resolve",
    "split_model",
]
