"""Virtual keys: the token's format and their life from the first use to the last."""

from keygate.virtual_keys.token import GRANT, PREFIXES, SCANNER_PATTERN, VIRTUAL_KEY, Token, digest, mint, parse

__all__ = ["GRANT", "PREFIXES", "SCANNER_PATTERN", "VIRTUAL_KEY", "Token", "digest", "mint", "parse"]
