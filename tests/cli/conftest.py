"""`desk`: somebody signed in to a KeyGate with the sandbox as its vendor. `stranger`: a home in which nobody has signed in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.cli.desk import Desk
from tests.running import RunningKeyGate

from keygate.sandbox import SandboxServer, Vendor


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxServer]:
    with SandboxServer() as server:
        yield server


@pytest.fixture(scope="module")
def vendor_key(sandbox: SandboxServer) -> str:
    return sandbox.state.create_key(Vendor.OPENAI).value


@pytest.fixture(scope="module")
def desk(tmp_path_factory, sandbox: SandboxServer) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    with RunningKeyGate(folder / "server") as keygate:
        home = folder / "home"
        home.mkdir()
        desk = Desk(keygate, home, {"KEYGATE_DATA_DIR": str(keygate.data_dir)})
        desk.sign_in()
        desk.ok("credentials", "add", "openai", "--name", "sandbox", "--base-url", sandbox.openai_base_url,
                text=sandbox.state.create_key(Vendor.OPENAI).value + "\n")  # fmt: skip
        yield desk


@pytest.fixture
def stranger(desk: Desk, tmp_path) -> Desk:
    return Desk(desk.keygate, tmp_path)
