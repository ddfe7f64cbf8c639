"""What is measured: nginx, KeyGate, and, where asked for, LiteLLM; each one process on one core, in front of the same upstream."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from keygate.ledger.fold import INTERVAL

SUBJECT_CORE = 0
LOAD_CORE = 1


@dataclass(frozen=True, slots=True)
class Subject:
    name: str
    port: int
    path: str
    token: str
    process: psutil.Process
    settles_after: float = 0.5  # seconds after the last request until all of its work is done

    def cpu_seconds(self) -> float:
        """CPU time of the process and its children, from the operating system."""
        total = 0.0
        for process in (self.process, *self.process.children(recursive=True)):
            times = process.cpu_times()
            total += times.user + times.system
        return total

    def memory_mb(self) -> float:
        return sum(p.memory_info().rss for p in (self.process, *self.process.children(recursive=True))) / 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, *, path: str | None = None, seconds: float = 60) -> None:
    """Until something listens, or answers `path` with 200."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                if path is None:
                    return
                connection.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode())
                if connection.recv(64).startswith(b"HTTP/1.1 200"):
                    return
        except OSError:
            pass
        time.sleep(0.02)
    raise RuntimeError(f"nothing answers on port {port} after {seconds:.0f} s")


@contextmanager
def started(
    command: list[str], *, core: int, log: Path, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> Iterator[psutil.Process]:
    """The command, pinned to one core, ended by its id when the block ends."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            ["taskset", "-c", str(core), *command],
            stdout=output,
            stderr=output,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield psutil.Process(child.pid)
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


@contextmanager
def upstream(folder: Path) -> Iterator[int]:
    port = free_port()
    with started([sys.executable, "-m", "bench.upstream", str(port)], core=LOAD_CORE, log=folder / "upstream.log"):
        wait_for(port)
        yield port


_NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream vendor {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://vendor; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; client_max_body_size 64m; }}
  }}
}}
"""


@contextmanager
def nginx(upstream_port: int, folder: Path) -> Iterator[Subject]:
    """`proxy_pass` and nothing else: no key, no budget, no log."""
    binary = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if binary is None:
        raise SystemExit("bench: nginx is not installed (Debian: apt-get install nginx-light); the comparison needs it")
    port = free_port()
    configuration = folder / "nginx.conf"
    configuration.write_text(_NGINX.format(folder=folder, upstream=upstream_port, port=port))
    with started([binary, "-c", str(configuration), "-p", str(folder)], core=SUBJECT_CORE, log=folder / "nginx.out") as process:
        wait_for(port)
        yield Subject("nginx proxy_pass", port, "/v1/chat/completions", "none", process)


PASSWORD = secrets.token_urlsafe(18)  # of the bench's own servers


@contextmanager
def server(folder: Path, data_dir: Path) -> Iterator[tuple[psutil.Process, int, float]]:
    """`keygate serve` as anybody starts it. Yields its process, its port, and the seconds until it was ready."""
    port = free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "KEYGATE_DATA_DIR": str(data_dir),
        "KEYGATE_PORT": str(port),
        "KEYGATE_ADMIN_EMAIL": "bench@example.com",
        "KEYGATE_ADMIN_PASSWORD": PASSWORD,
        "KEYGATE_COMPILED": os.environ.get("KEYGATE_COMPILED", ""),  # KEYGATE_COMPILED=no measures the interpreted form
    }
    command = [str(Path(sys.executable).with_name("keygate")), "serve"]
    began = time.monotonic()
    with started(command, core=SUBJECT_CORE, log=folder / "keygate.log", environment=environment, cwd=folder) as process:
        wait_for(port, path="/ready")
        yield process, port, time.monotonic() - began


@contextmanager
def keygate(upstream_port: int, folder: Path) -> Iterator[Subject]:
    """Everything on: key digest, policy, limits, four nested budgets with holds, journal, ledger, audit, usage."""
    with server(folder, folder / "data") as (process, port, _):
        token = furnish(f"http://127.0.0.1:{port}", PASSWORD, upstream_port)
        yield Subject("KeyGate", port, "/openai/v1/chat/completions", token, process, settles_after=INTERVAL + 1)


_LITELLM = """
model_list:
  - model_name: gpt-4.1-mini
    litellm_params: {{model: openai/gpt-4.1-mini, api_base: "http://127.0.0.1:{upstream}/v1", api_key: bench-upstream-key}}
litellm_settings: {{telemetry: false}}
"""


def install_litellm(environment: Path) -> Path:
    """LiteLLM's proxy in an environment of its own, made at the first call. Returns its command."""
    command = environment / "bin" / "litellm"
    if not command.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        python = environment / "bin" / "python"
        print(f"installing litellm[proxy] into {environment.name}/ …", flush=True)
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(environment)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), "litellm[proxy]"], check=True, timeout=900)
    return command


@contextmanager
def litellm(upstream_port: int, folder: Path, command: Path) -> Iterator[Subject]:
    """One model, no database, and its master key as the only key: less than KeyGate does."""
    port, master_key = free_port(), f"sk-{secrets.token_hex(16)}"
    configuration = folder / "litellm.yaml"
    configuration.write_text(_LITELLM.format(upstream=upstream_port))
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # fetch nothing
        "LITELLM_LOG": "ERROR",
        "LITELLM_MASTER_KEY": master_key,
    }
    arguments = [str(command), "--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)]
    with started(arguments, core=SUBJECT_CORE, log=folder / "litellm.log", environment=environment, cwd=folder) as process:
        wait_for(port, path="/health/liveliness", seconds=180)
        yield Subject("LiteLLM, no database", port, "/v1/chat/completions", master_key, process)


def furnish(url: str, password: str, upstream_port: int) -> str:
    """A credential, a team, a developer, a policy, four nested budgets, limits, and a virtual key under all of them."""
    with httpx.Client(base_url=f"{url}/api/v1", timeout=30) as api:

        def post(path: str, body: dict[str, object]) -> dict[str, str]:
            answer = api.post(path, json=body)
            if answer.is_error:
                raise RuntimeError(f"{path}: {answer.status_code} {answer.text}")
            return answer.json()  # type: ignore[no-any-return]  # httpx's JSON is untyped

        signed_in = post("/auth/login", {"email": "bench@example.com", "password": password})
        api.headers["authorization"] = f"Bearer {signed_in['access_token']}"
        organization = api.get("/auth/me").json()["organization_id"]
        post(
            "/credentials",
            {"vendor": "openai", "name": "bench", "secret": "bench-upstream-key", "base_url": f"http://127.0.0.1:{upstream_port}/v1"},
        )
        team = post("/teams", {"name": "bench"})["id"]
        developer = post("/developers", {"name": "Bench", "email": "dev@example.com", "team_id": team})["id"]
        policy = post("/policies", {"name": "bench", "models": ["openai/gpt-4.1*"], "endpoints": ["chat", "responses"]})["id"]
        for scope, scope_id in (("organization", organization), ("team", team), ("developer", developer)):
            post("/budgets", {"scope": scope, "scope_id": scope_id, "amount_usd": "1000000.00", "period": "month", "mode": "hard"})
        key = post(
            "/virtual-keys",
            {
                "name": "bench",
                "owner": {"developer_id": developer},
                "policy_id": policy,
                "budgets": [{"amount_usd": "1000000.00", "period": "month", "mode": "hard"}],
                "limits": {"requests_per_minute": 100_000_000, "tokens_per_minute": 1_000_000_000_000, "concurrent_requests": 10_000},
            },
        )
        return key["key"]
