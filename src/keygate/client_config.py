"""What the command line reads of its environment. Apart from `config`, and without pydantic: loading that takes longer than all else that a
command does."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from keygate.kit.secret import Secret

_CONFIG_HOME = "~/.config"


def _said(variable: str, description: str, default: str = "") -> dict[str, str]:
    return {"variable": variable, "description": description, "default": default}


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """Where KeyGate is and who calls; a file written by `keygate login` stands below it. Add a field here and it is documented."""

    url: str | None = field(metadata=_said("KEYGATE_URL", "Address of the KeyGate server that the command line talks to"))
    token: Secret | None = field(metadata=_said("KEYGATE_TOKEN", "API token for the command line"))
    config_home: Path = field(
        metadata=_said("XDG_CONFIG_HOME", "Where `keygate login` keeps the sign-in (keygate/login.json, 0600)", _CONFIG_HOME)
    )


def client_settings() -> ClientSettings:
    """An empty variable is none."""
    token = os.environ.get("KEYGATE_TOKEN")
    return ClientSettings(
        url=os.environ.get("KEYGATE_URL") or None,
        token=Secret(token) if token else None,
        config_home=Path(os.environ.get("XDG_CONFIG_HOME") or _CONFIG_HOME),
    )


VARIABLES = tuple(str(each.metadata["variable"]) for each in fields(ClientSettings))
