"""A sandbox, and the official SDKs of OpenAI, Anthropic and OpenRouter against it: fixtures for tests of admin APIs and of issued keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.sandbox.keeping import kept_sandbox
from tests.sdks.bridge import Bridge

from keygate.sandbox import SandboxServer

Sdk = Callable[..., Any]


@pytest.fixture(scope="session")
def openai_bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("openai-3", "openai_admin.py", home=tmp_path_factory.mktemp("openai-admin")) as bridge:
        yield bridge


@pytest.fixture(scope="session")
def anthropic_bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("anthropic-2", "anthropic_admin.py", home=tmp_path_factory.mktemp("anthropic-admin")) as bridge:
        yield bridge


@pytest.fixture(scope="session")
def openrouter_bridge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    with Bridge("openrouter-1", "openrouter_admin.py", home=tmp_path_factory.mktemp("openrouter-admin")) as bridge:
        yield bridge


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxServer]:
    with kept_sandbox(tmp_path) as server:
        yield server


def _sdk(bridge: Bridge, base: str) -> Sdk:
    def call(method: str, *arguments: Any, key: dict[str, Any], all: bool = False, **options: Any) -> Any:  # noqa: A002  (the bridge's own word)
        return bridge.call(base=base, method=method, arguments=arguments, options=options, all=all, **key)["answer"]

    return call


@pytest.fixture
def openai_sdk(sandbox: SandboxServer, openai_bridge: Bridge) -> Sdk:
    """`openai_sdk("admin.organization.projects.create", name="p", key={"admin": …})`."""
    return _sdk(openai_bridge, sandbox.openai_base_url)


@pytest.fixture
def anthropic_sdk(sandbox: SandboxServer, anthropic_bridge: Bridge) -> Sdk:
    """`anthropic_sdk("organization.workspaces.list", all=True, key={"key": …})`; `key` may hold `token` or `federation` instead."""
    return _sdk(anthropic_bridge, sandbox.anthropic_base_url)


@pytest.fixture
def openrouter_sdk(sandbox: SandboxServer, openrouter_bridge: Bridge) -> Sdk:
    """`openrouter_sdk("api_keys.list", key={"key": …})`."""

    def call(method: str, *, key: dict[str, Any], **options: Any) -> Any:
        return openrouter_bridge.call(base=sandbox.openrouter_base_url, method=method, options=options, **key)["answer"]

    return call
