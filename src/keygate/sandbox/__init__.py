"""A vendor that runs on your machine: the inference and admin APIs of seven, with state, faults on request, and exact counts.

    keygate sandbox [--state FILE]       a process of its own
    with SandboxServer() as sandbox:     a thread, for tests: `sandbox.openai_base_url`, `sandbox.state`
    await start_sandbox()                on the running loop, for `keygate serve --sandbox`

How an answer is chosen: `model.py` (settings, faults, header and prompt directives), `tokens.py` (counts where nothing is set),
`control.py` (the API under `/_sandbox`).
"""

from keygate.sandbox.app import Sandbox, create_app
from keygate.sandbox.catalogue import MODELS, Model, Use
from keygate.sandbox.model import Behaviour, Call, Fault, FaultPlan, Key, KeyStatus, Usage, Vendor
from keygate.sandbox.server import SandboxServer, listen, run, start_sandbox
from keygate.sandbox.state import SandboxState
from keygate.sandbox.store import StateRefusedError, Store

__all__ = [
    "MODELS",
    "Behaviour",
    "Call",
    "Fault",
    "FaultPlan",
    "Key",
    "KeyStatus",
    "Model",
    "Sandbox",
    "SandboxServer",
    "SandboxState",
    "StateRefusedError",
    "Store",
    "Usage",
    "Use",
    "Vendor",
    "create_app",
    "listen",
    "run",
    "start_sandbox",
]
