"""A body for every operation of the control API that takes one; `test_every_operation_is_called` fails where one is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Made = dict[str, str]  # ids by path parameter, secrets by name
Body = Callable[[Made], dict[str, Any]]

BODIES: dict[str, Body] = {
    "login": lambda made: {"email": made["email"], "password": made["typo"]},
    "change_password": lambda made: {"current_password": made["typo"], "password": made["new password"]},
    "update_organization": lambda made: {"name": "Silent"},
    "create_team": lambda made: {"name": made["fresh"]},
    "update_team": lambda made: {"name": made["fresh"]},
    "create_developer": lambda made: {"name": "Dev", "email": f"{made['fresh']}@example.com"},
    "update_developer": lambda made: {"name": "Dev"},
    "create_app": lambda made: {"name": made["fresh"]},
    "update_app": lambda made: {"name": made["fresh"]},
    "create_user": lambda made: {"email": f"{made['fresh']}@example.com", "name": "U", "role": "viewer", "password": made["user password"]},
    "update_user": lambda made: {"name": "User"},
    "set_password": lambda made: {"password": made["new password"]},
    "create_api_token": lambda made: {"name": made["fresh"], "scopes": ["teams.read"]},
    "create_policy": lambda made: {"name": made["fresh"], "models": ["openai/*"]},
    "update_policy": lambda made: {"description": "silent"},
    "explain": lambda made: {"key": made["key"], "model": "openai/gpt-4.1"},
    "create_budget": lambda made: {"scope": "team", "scope_id": made["team_id"], "amount_usd": "10.00", "period": "month"},
    "update_budget": lambda made: {"amount_usd": "20.00"},
    "create_limit": lambda made: {"scope": "team", "scope_id": made["team_id"], "kind": "requests_per_minute", "amount": 10},
    "update_limit": lambda made: {"amount": 20},
    "create_alias": lambda made: {"alias": made["fresh"], "target": "openai/gpt-4.1"},
    "update_alias": lambda made: {"target": "openai/gpt-4.1-mini"},
    "create_key": lambda made: {"name": made["fresh"]},
    "report_leak": lambda made: {"key": made["mistyped key"]},
    "update_key": lambda made: {"name": "silent"},
    "rotate_key": lambda made: {"grace_seconds": 60},
    "revoke_key": lambda made: {"reason": "silent"},
    "reconcile_entry": lambda made: {"cost_usd": "0.01"},
    "put_price": lambda made: {"rates_usd": {"input": "1.00", "output": "2.00"}},
    "create_credential": lambda made: {
        "vendor": "openai",
        "name": made["fresh"],
        "secret": made["another credential"],
        "base_url": "http://127.0.0.1:1",
    },
    "configure_vendor": lambda made: {
        "vendor": "openai",
        "name": "another",
        "admin_key": made["openai admin key"],
        "settings": {"base_url": made["vendor_url"]},
    },
    "provision_key": lambda made: {
        "vendor": "openai",
        "account": "default",
        "developer_id": made["developer_id"],
        "deliver": "later",
        "wait_seconds": 0,
    },
    "check_issued_key": lambda made: {"repair": True},
    "import_vendor_spend": lambda made: {},
    "set_budget_watch": lambda made: {"at_end": "warn"},
    "rotate_issued_key": lambda made: {"overlap_seconds": 0, "deliver": "later"},
    "revoke_issued_key": lambda made: {"reason": "silent"},
    "extend_issued_key": lambda made: {"expires_in_days": 30},
    "update_issued_key": lambda made: {"rotate_every_days": 30},
    "check_rotation_policy": lambda made: {"max_age_days": 90},
    "create_rotation_policy": lambda made: {"max_age_days": 90, "team_id": made["team_id"]},
    "update_rotation_policy": lambda made: {"max_age_days": 180},
    "link_issued_key": lambda made: {"expires_in_seconds": 600},
    "check_bulk_order": lambda made: {"vendor": "openai", "account": "default", "rows": [{"developer_id": made["developer_id"]}]},
    "create_bulk_order": lambda made: {
        "vendor": "openai",
        "account": "default",
        "rows": [{"email": f"{made['fresh']}@example.com"}],
        "create_developers": True,
    },
    "link_bulk_order": lambda made: {"expires_in_seconds": 600, "limit": 1},
    "begin_inventory_scan": lambda made: {"account": "default"},
    "enter_key_by_hand": lambda made: {
        "vendor": "groq",
        "key": made["another credential"],
        "settings": {"base_url": made["vendor_url"]},
    },
    "adopt_inventory_item": lambda made: {"developer_id": made["developer_id"]},
    "disable_inventory_item": lambda made: {"how": "revoke", "reason": "silent"},
    "accept_inventory_item": lambda made: {"reason": "silent"},
    "open_delivery": lambda made: {"token": made["opened link"]},
    "report_leaked_vendor_key": lambda made: {"key": made["another credential"]},
    "resume_issued_key": lambda made: {"extra_usd": "5.00"},
    "update_credential": lambda made: {"secret": made["another credential"], "status": "disabled"},
}
"""By operation id."""
