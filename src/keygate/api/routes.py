"""Every route of the control API, in one list. An area that is not here is not served."""

from __future__ import annotations

import keygate.audit.api
import keygate.events.api
import keygate.identities.api
import keygate.issued_keys.api
import keygate.issued_keys.bulk.api
import keygate.issued_keys.inventory.api
import keygate.issued_keys.rotation.api
import keygate.ledger.api
import keygate.policies.api
import keygate.vault.api
import keygate.vendor_spend.api
import keygate.vendors.api
import keygate.virtual_keys.api
from keygate.kit.routes import Routes

PREFIX = "/api/v1"

ALL: tuple[Routes, ...] = (
    *keygate.identities.api.ALL,
    *keygate.policies.api.ALL,
    *keygate.virtual_keys.api.ALL,
    *keygate.issued_keys.api.ALL,
    keygate.issued_keys.bulk.api.routes,
    keygate.issued_keys.inventory.api.routes,
    keygate.issued_keys.rotation.api.routes,
    *keygate.ledger.api.ALL,
    *keygate.vendor_spend.api.ALL,
    keygate.vault.api.routes,
    keygate.vendors.api.routes,
    keygate.audit.api.routes,
    keygate.events.api.routes,
)
