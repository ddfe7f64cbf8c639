"""KeyGate: where an organisation's LLM keys live."""

__version__ = "0.1.0"
