"""What can't be ordered at Google with these settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network

from keygate.vendors.admin.bounds import monthly
from keygate.vendors.admin.errors import Unfit
from keygate.vendors.admin.google.facts import GEMINI, VERTEX
from keygate.vendors.admin.interface import Term, Terms


def check_order(terms: Terms, options: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Raises `Unfit`."""
    service = settings.get("service", GEMINI)
    limit = Term.BUDGET if terms.budget_nano is not None else Term.REQUESTS_PER_MINUTE
    if terms.budget_nano is not None or terms.requests_per_minute is not None:
        if service == VERTEX:
            raise Unfit(limit, f"KeyGate sets budgets and rate limits of the Gemini API only, not of {VERTEX}: order the key without them")
        if not settings.get("parent"):
            raise Unfit(
                limit,
                "Google sets budgets and rate limits on projects: enter `parent` and `billing_account` in the vendor's settings, "
                "or order the key without them",
            )
    if terms.budget_nano is not None:
        monthly("Google", terms.budget_period)
    if terms.scopes is not None and set(terms.scopes) != {service}:
        raise Unfit(Term.SCOPES, f"a key is for the service of the vendor's settings, {service}: name that, or leave scopes out")
    for address in options.get("allowed_ips", "").split(","):
        _check_address(address.strip())


def _check_address(text: str) -> None:
    if not text:
        return
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise Unfit("options.allowed_ips", "write addresses or ranges (203.0.113.0/24), separated by commas") from None
