"""What the guides tell a new user to type does what they say: each vendor set up at the sandbox, and each order of a key."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest
from tests.cli.desk import Desk
from tests.running import KEYGATE

from keygate.cli.client import Exit
from keygate.sandbox import SandboxServer

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides"
ORDER = re.compile(r"^ {0,4}keygate (provision --vendor \w+ --dev priya [^#>\n]*)", re.MULTILINE)
ORDERS = sorted({shlex.join(shlex.split(each)) for page in GUIDES.glob("issued-keys*.md") for each in ORDER.findall(page.read_text())})
VENDORS = {"openai", "openrouter", "xai", "bedrock", "azure", "google", "anthropic"}


@pytest.fixture(scope="module")
def furnished(desk: Desk, sandbox: SandboxServer) -> Desk:
    """All vendors set up by the commands of the sandbox's guide, typed as they stand there."""
    section = (GUIDES / "sandbox.md").read_text().partition("## Admin APIs")[2]
    script = "\n".join(block for block in re.findall(r"```\n(.*?)```", section, re.DOTALL) if "keygate vendors configure" in block)
    way = f"{Path(KEYGATE).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {"PATH": way, "HOME": str(desk.home), "S": sandbox.address, **desk.settings}
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script], env=environment, cwd=desk.home, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    desk.made("developers", "create", "Priya", "--email", "priya@example.com")
    return desk


def test_every_vendor_is_set_up_by_the_commands_of_the_guide(furnished: Desk) -> None:
    accounts = furnished.made("vendors", "accounts")
    assert {each["vendor"]: each["status"] for each in accounts} == dict.fromkeys(VENDORS, "ready")


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_in_the_guides_makes_a_key(furnished: Desk, order: str) -> None:
    words = [word for word in shlex.split(order) if word not in {"--env", "--link"}]
    made = furnished.made(*words)
    assert (made["state"], made["secret"]) == ("active", "told")
    furnished.ok("revoke", made["id"], "--yes")


def test_orders_of_every_vendor_stand_in_the_guides() -> None:
    assert {order.split()[2] for order in ORDERS} == VENDORS


def test_a_vendor_tells_its_settings_by_the_names_that_are_typed(desk: Desk) -> None:
    said = desk.ok("vendors", "show", "azure").out
    for name in ("resource_group", "client_id", "base_url", "calls_per_minute", "requests_per_minute"):
        assert re.search(rf"^{name} ", said, re.MULTILINE), name


def test_every_setting_that_is_missing_is_named_at_once(desk: Desk) -> None:
    said = desk.run("vendors", "configure", "azure", text="x\n")
    assert said.code != 0
    for name in ("tenant", "client_id", "subscription", "resource_group", "region"):
        assert f"{name}: " in said.err


def test_what_an_order_must_name_is_said_before_anything_is_recorded(furnished: Desk) -> None:
    before = len(furnished.made("issued-keys", "list"))
    assert "name those to deploy" in furnished.run("provision", "--vendor", "azure", "--dev", "priya").err
    assert len(furnished.made("issued-keys", "list")) == before
    said = furnished.run("provision", "--vendor", "bedrock", "--dev", "priya", "--rpm", "3").err
    assert "--allow-unenforced" in said


@pytest.mark.parametrize("text", ["", "[]", '{"admin_key": "x", "settings": 3}', "{"])
def test_a_body_that_is_none_is_said_to_be_so(desk: Desk, text: str) -> None:
    said = desk.run("vendors", "configure", "openai", "--from", "-", text=text)
    assert said.code == Exit.USAGE
    assert '{"admin_key": "…", "settings": {…}}' in said.err
