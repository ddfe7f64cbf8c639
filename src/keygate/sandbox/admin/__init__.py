"""The vendors' admin APIs, with state: containers, keys, limits, usage and costs. Keys issued here work at the sandbox's inference side.

How it is set up and read: `control.py` (`/_sandbox/admin`), or `SandboxState.admin[Vendor.OPENAI]` in the same process. How a vendor
is added: a subclass of `api.AdminApi` and a line in `registry.py`.
"""

from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.api import AdminApi, AdminRequest, Answer, Route
from keygate.sandbox.admin.grants import IssuedSecret
from keygate.sandbox.admin.model import AdminCall, AdminFault, Credential, FaultKind, Settings
from keygate.sandbox.admin.state import AdminState

__all__ = [
    "Account",
    "AdminApi",
    "AdminCall",
    "AdminFault",
    "AdminRequest",
    "AdminState",
    "Answer",
    "Credential",
    "FaultKind",
    "IssuedSecret",
    "Route",
    "Settings",
]
