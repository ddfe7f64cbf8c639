"""Resource Manager v3 (projects, IAM policies), Organisation Policy v2 and Cloud Billing v1, as far as keys need them."""

from __future__ import annotations

import re
from typing import Any

from keygate.sandbox.admin.google.budgets import ELIGIBLE
from keygate.sandbox.admin.google.cloud import GoogleCloud, Request, paged
from keygate.sandbox.admin.google.errors import GoogleError, denied, exists, invalid, no_such
from keygate.sandbox.admin.google.model import Json, Project

_PROJECT_ID = re.compile(r"[a-z][a-z0-9-]{4,28}[a-z0-9]$")
_TYPE = "type.googleapis.com/google.cloud.resourcemanager.v3.Project"


def serve_resource_manager(cloud: GoogleCloud, request: Request) -> Json:
    parts = request.path.removeprefix("v3/").split("/")
    match (request.method, *parts):
        case ("GET", "operations", _):
            return cloud.show_operation("/".join(parts))
        case ("POST", "projects"):
            return _create(cloud, request)
        case ("GET", "projects"):
            return _list(cloud, request)
        case (method, "projects", last):
            name, _, verb = last.partition(":")
            deleted_too = (method, verb) == ("GET", "")
            return _one(cloud, request, method, cloud.project(name, deleted_too=deleted_too), verb)
        case ("POST", ("folders" | "organizations") as kind, last) if last.endswith(":testIamPermissions"):
            return _tested(cloud, request, f"{kind}/{last.partition(':')[0]}")
    raise no_such("This method")


def _create(cloud: GoogleCloud, request: Request) -> Json:
    parent, project_id = str(request.body.get("parent", "")), str(request.body.get("projectId", ""))
    cloud.need(request, "resourcemanager.projects.create", parent)
    if not _PROJECT_ID.match(project_id):
        raise invalid("projectId must be 6 to 30 lowercase letters, digits or hyphens, and start with a letter.")
    if project_id in cloud.projects:
        raise exists(f"Project {project_id}")  # a deleted project's id is never free again
    if len([each for each in cloud.projects.values() if each.state == "ACTIVE"]) >= cloud.book.settings.ceilings["projects"]:
        raise GoogleError("RESOURCE_EXHAUSTED", "The project cannot be created because you have exceeded your allotted project quota.")
    project = cloud.add_project(project_id, parent=parent)
    project.display_name = str(request.body.get("displayName", project_id))
    project.labels = dict(request.body.get("labels") or {})
    return cloud.operate({"@type": _TYPE, **project.as_dict()}, prefix="operations/cp.")


def _list(cloud: GoogleCloud, request: Request) -> Json:
    parent = request.query.get("parent", "")
    cloud.need(request, "resourcemanager.projects.list", parent)
    found = [each.as_dict() for each in cloud.projects.values() if each.parent == parent and each.state == "ACTIVE"]
    return paged(found, request.query, "projects")


def _one(cloud: GoogleCloud, request: Request, method: str, project: Project, verb: str) -> Json:
    resource = f"projects/{project.id}"
    match (method, verb):
        case ("GET", ""):
            cloud.need(request, "resourcemanager.projects.get", resource)
            return project.as_dict()
        case ("DELETE", ""):
            cloud.need(request, "resourcemanager.projects.delete", resource)
            project.state = "DELETE_REQUESTED"
            return cloud.operate({"@type": _TYPE, **project.as_dict()}, prefix="operations/dp.")
        case ("POST", "getIamPolicy"):
            cloud.need(request, "resourcemanager.projects.getIamPolicy", resource)
            return project.policy()
        case ("POST", "setIamPolicy"):
            cloud.need(request, "resourcemanager.projects.setIamPolicy", resource)
            return _set_policy(cloud, project, request.body.get("policy") or {})
        case ("POST", "testIamPermissions"):
            return _tested(cloud, request, resource)
    raise no_such("This method")


def _tested(cloud: GoogleCloud, request: Request, resource: str) -> Json:
    wanted: list[Any] = request.body.get("permissions") or []
    if not wanted or len(wanted) > 100 or any(not isinstance(each, str) or "*" in each for each in wanted):
        raise invalid("permissions: one to 100, without wildcards.")
    has = [permission for permission in wanted if cloud.may(request.caller, permission, resource)]
    return {"permissions": has} if has else {}


def _set_policy(cloud: GoogleCloud, project: Project, policy: Json) -> Json:
    """The whole policy is replaced; with an etag that is not the present one nothing is (409 ABORTED)."""
    etag = policy.get("etag")
    if etag and etag != project.policy()["etag"]:
        raise GoogleError(
            "ABORTED", "There were concurrent policy changes. Please retry the whole read-modify-write with exponential backoff."
        )
    bindings = [binding for binding in policy.get("bindings", []) if binding.get("members")]
    for binding in bindings:
        for member in binding["members"]:
            kind, _, email = str(member).partition(":")
            if kind == "serviceAccount" and email.endswith(".iam.gserviceaccount.com"):
                try:
                    cloud.account(email)
                except GoogleError:
                    raise invalid(f"Service account {email} does not exist.") from None
    project.bindings = [{**binding, "members": sorted(set(binding["members"]))} for binding in bindings]
    project.policy_version += 1
    project.policy_set_at = cloud.now()
    return project.policy()


def serve_org_policy(cloud: GoogleCloud, request: Request) -> Json:
    parts = request.path.removeprefix("v2/").split("/")
    match (request.method, *parts):
        case ("GET", "projects", name, "policies", last) if last.endswith(":getEffectivePolicy"):
            project = cloud.project(name)
            cloud.need(request, "orgpolicy.policy.get", f"projects/{project.id}")
            constraint = last.partition(":")[0]
            rule = project.policies.get(constraint, {"enforce": False})
            return {"name": f"projects/{project.number}/policies/{constraint}", "spec": {"rules": [rule]}}
    raise no_such("This method")


def serve_billing(cloud: GoogleCloud, request: Request) -> Json:
    parts = request.path.removeprefix("v1/").split("/")
    match (request.method, *parts):
        case ("GET", "projects", name, "billingInfo"):
            project = cloud.project(name)
            cloud.need(request, "resourcemanager.projects.get", f"projects/{project.id}")
            return _billing_info(cloud, project)
        case ("PUT", "projects", name, "billingInfo"):
            project = cloud.project(name)
            account = str(request.body.get("billingAccountName", "")).removeprefix("billingAccounts/")
            cloud.need(request, "resourcemanager.projects.createBillingAssignment", f"projects/{project.id}")
            if account:
                cloud.need(request, "billing.resourceAssociations.create", f"billingAccounts/{account}")
                if account not in cloud.billing_accounts:
                    raise denied("billing.resourceAssociations.create", f"billingAccounts/{account}")
            project.billing_account = account
            return _billing_info(cloud, project)
        case ("GET", "services"):
            others = {"services/5A4D-B0X1-0001": "Compute Engine"}
            listed = [
                {"name": name, "serviceId": name.partition("/")[2], "displayName": title} for name, title in {**others, **ELIGIBLE}.items()
            ]
            return paged(listed, request.query, "services", most=5000)
        case ("GET", "billingAccounts", name) if name in cloud.billing_accounts:
            cloud.need(request, "billing.accounts.get", f"billingAccounts/{name}")
            return {
                "name": f"billingAccounts/{name}",
                "open": cloud.billing_accounts[name]["open"],
                "currencyCode": cloud.billing_accounts[name]["currencyCode"],
            }
        case ("POST", "billingAccounts", last) if last.endswith(":testIamPermissions"):
            return _tested(cloud, request, f"billingAccounts/{last.partition(':')[0]}")
    raise no_such("This method")


def _billing_info(cloud: GoogleCloud, project: Project) -> Json:
    linked = project.billing_account
    return {
        "name": f"projects/{project.id}/billingInfo",
        "projectId": project.id,
        "billingAccountName": f"billingAccounts/{linked}" if linked else "",
        "billingEnabled": bool(linked and cloud.billing_accounts[linked]["open"]),
    }
