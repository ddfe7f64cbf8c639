"""Documents that are generated from the code: `python -m keygate.processes.documents` writes them, a test says when one is stale."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any, get_args

from pydantic import AliasChoices, SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from keygate.api import openapi_document
from keygate.client_config import ClientSettings
from keygate.config import Settings


def _names(field: FieldInfo) -> list[str]:
    alias = field.validation_alias
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is None:
        return ""
    return f"`{value}`"


def _is_secret(field: FieldInfo) -> bool:
    return field.annotation is SecretStr or SecretStr in get_args(field.annotation)


def _table(settings: type[BaseSettings]) -> str:
    rows = []
    for field in settings.model_fields.values():
        name, *aliases = _names(field)
        also = f" (also `{'`, `'.join(aliases)}`)" if aliases else ""
        secret = " Secret." if _is_secret(field) else ""
        rows.append(f"| `{name}`{also} | {_default(field)} | {field.description}.{secret} |")
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows])


def _client_table() -> str:
    rows = []
    for each in dataclasses.fields(ClientSettings):
        said, default = each.metadata, each.metadata["default"]
        secret = " Secret." if "Secret" in str(each.type) else ""
        rows.append(f"| `{said['variable']}` | {f'`{default}`' if default else ''} | {said['description']}.{secret} |")
    return "\n".join(["| variable | default | |", "|---|---|---|", *rows])


def settings_document() -> str:
    """Every setting that KeyGate reads, as Markdown."""
    return f"""# Settings

Generated from `src/keygate/config.py` and `client_config.py` (`make docs`). The server reads environment variables and a `.env` file in the
working directory; a wrong value refuses the start and says which. Proxies for calls to vendors are taken from
`HTTPS_PROXY`, `http_proxy` and `NO_PROXY`. Vendor keys found under the vendors' own names (`OPENAI_API_KEY`,
`ANTHROPIC_API_KEY`) are put into the vault at each start: a value that is new there is taken up, KeyGate's own keys are not.

## Server

{_table(Settings)}

## Command line

{_client_table()}
"""


def main(root: Path) -> None:
    (root / "docs" / "settings.md").write_text(settings_document(), encoding="utf-8")
    (root / "docs" / "openapi.json").write_text(openapi_document(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path.cwd())
