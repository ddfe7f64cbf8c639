"""What models cost: compiled tables, the operator's own rows above them, and upper bounds for holds."""

from keygate.ledger.prices.book import ModelFacts, PriceBook
from keygate.ledger.prices.model import Ceiling, Price, Rates, Tariff

__all__ = ["Ceiling", "ModelFacts", "Price", "PriceBook", "Rates", "Tariff"]
