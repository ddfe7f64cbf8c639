"""Every route of the control API, in one list. An area that is not here is not served."""

from __future__ import annotations

import keygate.audit.api
import keygate.events.api
import keygate.identities.api
import keygate.vendors.api
from keygate.kit.routes import Routes

PREFIX = "/api/v1"

ALL: tuple[Routes, ...] = (
    *keygate.identities.api.ALL,
    keygate.vendors.api.routes,
    keygate.audit.api.routes,
    keygate.events.api.routes,
)
