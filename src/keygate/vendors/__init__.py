"""What is true of each vendor: mounts, endpoints, auth, errors. Data, no behaviour."""

from keygate.vendors.model import Auth, Dialect, Endpoint, EndpointGroup, ErrorStyle, Vendor

__all__ = ["Auth", "Dialect", "Endpoint", "EndpointGroup", "ErrorStyle", "Vendor"]
