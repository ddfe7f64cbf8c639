"""The sandbox's Google Cloud and Google's own clients, as `tests/sdks/google_clients.py` has them."""

from tests.sdks.google_clients import account, admin_client, admin_key, cloud, genai, genai_client, google, sandbox, signed_in

__all__ = ["account", "admin_client", "admin_key", "cloud", "genai", "genai_client", "google", "sandbox", "signed_in"]
