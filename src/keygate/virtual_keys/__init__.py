"""Virtual keys: the token's format and their life from the first use to the last."""

from keygate.virtual_keys.model import IssuedToken, KeyDraft, KeyFilter, KeyView, Standing, VirtualKey, usable_vendors
from keygate.virtual_keys.ports import BudgetStanding, KeyUsage, LimitStanding, OwnerDirectory, StatePublisher, UsageReader
from keygate.virtual_keys.service import VirtualKeyService
from keygate.virtual_keys.source import DatabaseKeySource
from keygate.virtual_keys.token import GRANT, PREFIXES, SCANNER_PATTERN, VIRTUAL_KEY, Token, digest, mint, parse

__all__ = [
    "GRANT",
    "PREFIXES",
    "SCANNER_PATTERN",
    "VIRTUAL_KEY",
    "BudgetStanding",
    "DatabaseKeySource",
    "IssuedToken",
    "KeyDraft",
    "KeyFilter",
    "KeyUsage",
    "KeyView",
    "LimitStanding",
    "OwnerDirectory",
    "Standing",
    "StatePublisher",
    "Token",
    "UsageReader",
    "VirtualKey",
    "VirtualKeyService",
    "digest",
    "mint",
    "parse",
    "usable_vendors",
]
