"""KeyGate: where an organisation's LLM keys live."""

from keygate.compiled import install

__version__ = "0.1.0"

FORM = install()  # of the request path: `compiled`, or why it runs interpreted
