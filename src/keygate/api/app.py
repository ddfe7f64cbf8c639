"""Assembly of the control plane: everything that is not a gateway mount."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig

from keygate import __version__
from keygate.api import health, openapi, problems
from keygate.api.access import authoriser
from keygate.api.envelope import Envelope
from keygate.api.forwarded import Forwarded, Network
from keygate.api.health import Check
from keygate.api.routes import ALL, PREFIX
from keygate.audit import AuditLog
from keygate.identities import SessionService
from keygate.issued_keys import page
from keygate.kit.routes import Routes

# FastAPI's own would tell a collector what was wrong with a body and what an exception said. KeyGate's traces are made in the gateway.
_NOTHING_TOLD = TelemetryConfig(tracing=False, metrics=False, logs=False, operation_spans=False, auto_configure=False)


def create_app(
    *,
    services: Mapping[type, object],
    sessions: SessionService,
    audit: AuditLog,
    public_url: str,
    checks: Mapping[str, Check] | None = None,
    metrics: Callable[[], bytes] | None = None,
    routes: Sequence[Routes] = ALL,
    proxies: Sequence[Network] = (),
) -> FastAPI:
    """The ASGI application. `services` are the areas' services by class; `checks` must pass for `/ready`; `metrics` makes the text of
    `/metrics`; `proxies` are believed where they say who called them. `app.state` holds what routes may ask for: `services`, `authorise`,
    `public_url`, `checks`, `metrics`."""
    app = _routed(routes)
    app.state.services = services
    app.state.authorise = authoriser(sessions)
    app.state.public_url = public_url
    app.state.checks = checks or {}
    app.state.metrics = metrics or bytes
    problems.install(app, audit)
    app.add_middleware(Envelope)
    if proxies:
        app.add_middleware(Forwarded, trusted=proxies)
    return app


def openapi_document() -> str:
    """What stands in `docs/openapi.json`: made from the routes alone, nothing has to run."""
    return openapi.text(_routed(ALL))


def _routed(routes: Sequence[Routes]) -> FastAPI:
    app = FastAPI(
        title="KeyGate",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        generate_unique_id_function=_operation_id,
        telemetry=_NOTHING_TOLD,
    )
    for each in routes:
        each.add_to(app, prefix=PREFIX)
    health.routes.add_to(app)
    page.routes.add_to(app)
    openapi.install(app)
    return app


def _operation_id(route: APIRoute) -> str:
    """The handler's name: stable, and unique across areas (a test sees to it)."""
    return route.name
