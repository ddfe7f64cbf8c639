"""Lists of models, answered here: what the price table knows of a vendor, cut down to what the key may use and a credential serves."""

from __future__ import annotations

from collections.abc import Iterator

from keygate.gateway.credentials import CredentialBook
from keygate.gateway.dialects.interface import Answer, Problem
from keygate.gateway.dialects.models import ListedModel, model_list, one_model
from keygate.gateway.pipeline import Refuse, Route
from keygate.gateway.ports import Prices
from keygate.policies import KeyState, may_use
from keygate.vendors import VENDORS, Vendor

_JSON = ((b"content-type", b"application/json"),)


class Catalogue:
    def __init__(self, prices: Prices, book: CredentialBook) -> None:
        self._prices = prices
        self._book = book

    def answer(self, route: Route, state: KeyState, query: bytes) -> Answer:
        """Raises Refuse where one model is asked for and isn't shown to this key."""
        match = route.match
        assert match is not None  # noqa: S101  (refused routes end earlier)
        if match.parameter is None:
            return Answer(200, _JSON, model_list(route.style, list(self._listed(match.vendor, state)), query))
        for model in self._listed(match.vendor, state):
            if model.id == match.parameter:
                return Answer(200, _JSON, one_model(route.style, model))
        raise Refuse(Problem.NOT_FOUND, f"There is no model '{match.parameter[:80]}' for this key.", code="model_not_found", param="model")

    def _listed(self, vendor: Vendor | None, state: KeyState) -> Iterator[ListedModel]:
        served = self._book.vendors_of(state.organization_id)
        for its in VENDORS.values() if vendor is None else (vendor,):
            if its.name not in served:
                continue
            prefix = "" if vendor is not None else f"{its.name}/"
            for name in self._prices.models(its.name):
                if may_use(state, vendor=its.name, model=name):
                    yield ListedModel(prefix + name, its.name)
        for alias, target in state.aliases:
            name, _, model = target.partition("/")
            if name in served and (vendor is None or name == vendor.name) and may_use(state, vendor=name, model=model):
                yield ListedModel(alias, name)
