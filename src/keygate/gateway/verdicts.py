"""What the gateway would answer, for those who explain it: no request is made, and nothing is reserved."""

from __future__ import annotations

from typing import Protocol

from keygate.gateway.dialects.interface import Problem
from keygate.gateway.dialects.refusals import code_of, status_of
from keygate.gateway.pipeline import Refuse, refuse_denied, refuse_held
from keygate.ledger import Refusal, RefusalKind
from keygate.policies import Deny, Scope

_LEDGER = frozenset(RefusalKind)
_OWN = {"model_not_found": Problem.NOT_FOUND, "endpoint_not_served": Problem.BAD_REQUEST, "no_credential": Problem.UNAVAILABLE}


class Credentials(Protocol):
    """The `CredentialBook`, as far as it is asked here."""

    def serves(self, organization_id: str, vendor: str, model: str) -> bool: ...


class Verdicts:
    """The `GatewayAnswers` of the policies."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def serves(self, organization_id: str, vendor: str, model: str) -> bool:
        return self._credentials.serves(organization_id, vendor, model)

    def answer(self, rule: str) -> tuple[int, str]:
        if rule in _LEDGER:
            refused = refuse_held(Refusal(RefusalKind(rule), Scope.KEY, "", "", ""))
        elif rule in _OWN:
            refused = Refuse(_OWN[rule], "", code=rule)
        else:
            refused = refuse_denied(Deny(rule, Scope.KEY, "", ""))
        return status_of(refused.problem), refused.code or code_of(refused.problem)
