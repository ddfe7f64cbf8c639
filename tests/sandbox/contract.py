"""OpenAI's published API description, to hold answers against."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema

REPOSITORY = Path(__file__).resolve().parents[2]


@cache
def contract() -> Path:
    """`contracts/openai/openapi.json` in the folder that stands beside the repository, or under KEYGATE_CONTRACTS."""
    named = os.environ.get("KEYGATE_CONTRACTS")
    path = (Path(named) if named else REPOSITORY.parent / "shared" / "contracts") / "openai" / "openapi.json"
    if not path.is_file():
        pytest.fail(f"OpenAI's API description is not at {path}; name the folder of contracts in KEYGATE_CONTRACTS")
    return path


@cache
def registry() -> Any:
    document = _plain(json.loads(contract().read_text()))
    resource = referencing.Resource.from_contents(document, default_specification=referencing.jsonschema.DRAFT202012)
    return referencing.Registry().with_resource("openai", resource), document["components"]["schemas"]


def _plain(node: Any) -> Any:
    """OpenAPI's own `nullable` as JSON schema says it, and an event union as the event that its discriminator names."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {name: _plain(value) for name, value in node.items() if name != "nullable"}
    if node.get("nullable") is True:
        return {"anyOf": [plain, {"type": "null"}]}
    return plain


@cache
def validator(schema: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator({"$ref": f"openai#/components/schemas/{schema}"}, registry=registry()[0])


@cache
def event_schemas() -> dict[str, str]:
    """The schema of each responses event by its `type`."""
    schemas = registry()[1]
    names = [item["$ref"].rpartition("/")[2] for item in schemas["ResponseStreamEvent"]["anyOf"]]
    return {kind: name for name in names for kind in schemas[name]["properties"]["type"]["enum"]}


def fits(value: Any, schema: str) -> None:
    errors = sorted(validator(schema).iter_errors(value), key=lambda error: str(error.path))
    assert not errors, f"{schema}: {jsonschema.exceptions.best_match(errors)}\n{json.dumps(value)[:2000]}"
