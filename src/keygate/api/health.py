"""`/health`, `/ready` and `/metrics`: for orchestrators and Prometheus."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from fastapi import Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from keygate.kit.routes import PUBLIC, Routes, Schema

Check = Callable[[], Awaitable[None]]
"""Returns where the dependency is well, raises where it isn't."""

CHECK_SECONDS = 5

routes = Routes("", tag="operation")

_log = logging.getLogger(__name__)


class Health(Schema):
    status: str


class Readiness(Schema):
    status: str
    checks: dict[str, str]


@routes.get("/health", permission=PUBLIC)
async def health() -> Health:
    """The process lives."""
    return Health(status="ok")


@routes.get("/ready", permission=PUBLIC, responses={503: {"model": Readiness, "description": "Not ready; `checks` says what is missing"}})
async def ready(request: Request) -> Readiness:
    """Everything that requests need is there."""
    checks: Mapping[str, Check] = request.app.state.checks
    results = dict(zip(checks, await asyncio.gather(*(_run(name, check) for name, check in checks.items())), strict=True))
    whole = all(result == "ok" for result in results.values())
    found = Readiness(status="ready" if whole else "not_ready", checks=results)
    return found if whole else JSONResponse(found.model_dump(), 503)  # type: ignore[return-value]  # a response of its own passes FastAPI by


@routes.get("/metrics", permission=PUBLIC, response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    """For Prometheus, in its text format."""
    return Response(request.app.state.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


async def _run(name: str, check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except Exception:  # noqa: BLE001  (whatever a dependency raises, the answer is that it isn't well)
        _log.warning("the check %s failed", name, exc_info=True)
        return "failed"
    return "ok"
