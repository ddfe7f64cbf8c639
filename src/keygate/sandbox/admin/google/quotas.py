"""Service Usage: enabling services (v1) and consumer quota overrides (v1beta1).

The metrics of the Gemini API that stand here are named after those that its error messages quote; the whole list was not seen: unverified.
"""

from __future__ import annotations

import re
import secrets
from urllib.parse import quote

from keygate.sandbox.admin.google.cloud import GoogleCloud, Request, paged
from keygate.sandbox.admin.google.errors import exists, invalid, no_such
from keygate.sandbox.admin.google.model import GEMINI, Json, Project

# metric → limit → (unit, default)
METRICS: dict[str, dict[str, tuple[str, int]]] = {
    f"{GEMINI}/generate_content_requests": {"/min/project": ("1/min/{project}", 1_000), "/d/project": ("1/d/{project}", 50_000)},
    f"{GEMINI}/generate_content_input_tokens": {"/min/project": ("1/min/{project}", 4_000_000)},
}
_TYPE = "type.googleapis.com/google.api.serviceusage.v1beta1.QuotaOverride"


def serve(cloud: GoogleCloud, request: Request) -> Json:
    version, *parts = request.path.split("/")
    match (version, request.method, *parts):
        case ("v1" | "v1beta1", "GET", "operations", _):
            return cloud.show_operation("/".join(parts))
        case ("v1", method, "projects", name, "services", last):
            service, _, verb = last.partition(":")
            return _service(cloud, request, method, cloud.project(name), service, verb)
        case ("v1beta1", method, "projects", name, "services", service, "consumerQuotaMetrics", *_):
            project = cloud.project(name)
            cloud.need(request, "serviceusage.quotas.get" if method == "GET" else "serviceusage.quotas.update", f"projects/{project.id}")
            return _quotas(cloud, request, method, project, service, _names(request.path))
    raise no_such("This method")


def _service(cloud: GoogleCloud, request: Request, method: str, project: Project, service: str, verb: str) -> Json:
    resource = f"projects/{project.id}"
    name = f"projects/{project.number}/services/{service}"
    match (method, verb):
        case ("GET", ""):
            cloud.need(request, "serviceusage.services.get", resource)
            return {"name": name, "config": {"name": service}, "state": "ENABLED" if service in project.services else "DISABLED"}
        case ("POST", "enable"):
            cloud.need(request, "serviceusage.services.enable", resource)
            project.services.add(service)
        case ("POST", "disable"):
            cloud.need(request, "serviceusage.services.disable", resource)
            project.services.discard(service)
        case _:
            raise no_such("This method")
    state = "ENABLED" if service in project.services else "DISABLED"
    response = {"service": {"name": name, "state": state}}
    return cloud.operate(response, prefix="operations/acat.p17-")


_NAMES = re.compile(r".*?/consumerQuotaMetrics(?:/(.+?)(?:/limits/(.+?)(?:/(consumerOverrides)(?:/([^/]+))?)?)?)?")


def _names(path: str) -> list[str]:
    """Metric, limit and what is below: their names hold slashes, encoded ones that are decoded by now."""
    found = _NAMES.fullmatch(path)
    metric, limit, overrides, override = found.groups() if found else (None, None, None, None)
    return [part for part in (metric, limit and "limits", limit, overrides, override) if part]


def _quotas(cloud: GoogleCloud, request: Request, method: str, project: Project, service: str, rest: list[str]) -> Json:
    base = f"projects/{project.number}/services/{service}/consumerQuotaMetrics"
    match (method, *rest):
        case ("GET",):
            return paged([_metric(project, base, metric) for metric in _of(service)], request.query, "metrics")
        case ("GET", metric) if metric in _of(service):
            return _metric(project, base, metric)
        case ("GET", metric, "limits", limit) if limit in METRICS.get(metric, {}):
            return _limit(project, base, metric, limit)
        case ("GET", metric, "limits", limit, "consumerOverrides") if limit in METRICS.get(metric, {}):
            mine = _overrides(project, f"{base}/{quote(metric, safe='')}/limits/{quote(limit, safe='')}")
            return {"overrides": mine} if mine else {}
        case ("POST", metric, "limits", limit, "consumerOverrides") if limit in METRICS.get(metric, {}):
            parent = f"{base}/{quote(metric, safe='')}/limits/{quote(limit, safe='')}"
            if _overrides(project, parent):
                raise exists("A consumer override with these dimensions")
            name = f"{parent}/consumerOverrides/{secrets.token_hex(4)}"
            unit = METRICS[metric][limit][0]
            project.overrides[name] = {"name": name, "overrideValue": _value(request.body), "metric": metric, "unit": unit}
            return cloud.operate({"@type": _TYPE, **project.overrides[name]}, prefix="operations/quf.")
        case (_, metric, "limits", limit, "consumerOverrides", override) if method in {"PATCH", "DELETE"}:
            name = f"{base}/{quote(metric, safe='')}/limits/{quote(limit, safe='')}/consumerOverrides/{override}"
            if name not in project.overrides:
                raise no_such("The override")
            if method == "DELETE":
                del project.overrides[name]
                return cloud.operate({"@type": "type.googleapis.com/google.protobuf.Empty"}, prefix="operations/quf.")
            project.overrides[name]["overrideValue"] = _value(request.body)
            return cloud.operate({"@type": _TYPE, **project.overrides[name]}, prefix="operations/quf.")
    raise no_such("This quota")


def _of(service: str) -> list[str]:
    return [metric for metric in METRICS if metric.startswith(f"{service}/")]


def _value(body: Json) -> str:
    try:
        value = int(body.get("overrideValue", 0))
    except (TypeError, ValueError):
        raise invalid("overrideValue must be an integer.") from None
    if value < -1:
        raise invalid("overrideValue must be -1 or more.")
    return str(value)


def _overrides(project: Project, parent: str) -> list[Json]:
    return [override for name, override in project.overrides.items() if name.startswith(f"{parent}/")]


def _limit(project: Project, base: str, metric: str, limit: str) -> Json:
    name = f"{base}/{quote(metric, safe='')}/limits/{quote(limit, safe='')}"
    unit, default = METRICS[metric][limit]
    bucket: Json = {"effectiveLimit": str(default), "defaultLimit": str(default)}
    for override in _overrides(project, name):
        bucket = {**bucket, "effectiveLimit": override["overrideValue"], "consumerOverride": override}
    return {"name": name, "metric": metric, "unit": unit, "isPrecise": True, "quotaBuckets": [bucket]}


def _metric(project: Project, base: str, metric: str) -> Json:
    limits = [_limit(project, base, metric, limit) for limit in METRICS[metric]]
    return {"name": f"{base}/{quote(metric, safe='')}", "metric": metric, "displayName": metric, "consumerQuotaLimits": limits, "unit": "1"}
