"""Rotation that nobody asks for: by a key's own schedule, and by policies of how old a key may be."""
