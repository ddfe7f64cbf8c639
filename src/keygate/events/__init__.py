"""What happened, for those who want to be told: an outbox in the same transaction as its cause."""

from keygate.events.model import Event, EventType
from keygate.events.service import EventOutbox

__all__ = ["Event", "EventOutbox", "EventType"]
