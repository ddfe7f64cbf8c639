"""What the worker does for the inventory, and how often. Each is safe to call at any time and to repeat."""

from __future__ import annotations

from keygate.issued_keys.inventory.reminding import Reminders
from keygate.issued_keys.inventory.scanning import Scanner
from keygate.issued_keys.jobs import Job

TICK_SECONDS = 2.0
PLAN_SECONDS = 300.0
ASSESS_SECONDS = 300.0
REMIND_SECONDS = 600.0


def jobs(scanner: Scanner, reminders: Reminders) -> tuple[Job, ...]:
    return (
        Job("inventory", TICK_SECONDS, scanner.tick),
        Job("inventory.plan", PLAN_SECONDS, scanner.plan),
        Job("inventory.assess", ASSESS_SECONDS, scanner.assess),
        Job("inventory.remind", REMIND_SECONDS, reminders.tick),
    )
