"""Bulk orders: many keys from a list or a team, made one after the other by the worker. Inside this area only."""
