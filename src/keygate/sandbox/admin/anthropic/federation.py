"""Workload identity federation: issuers, rules, and the exchange of a signed identity token for a short-lived access token (RFC 7523).

Archiving a rule stops new exchanges at once; tokens that it minted live until they expire (SDK docstrings). The sandbox knows inline key
sets only: it fetches nothing. Which audience the vendor expects where a rule names none is unverified; here it is its API's address.
"""

from __future__ import annotations

import secrets
from typing import Any

from keygate.kit.clock import NANOSECONDS
from keygate.sandbox.admin.account import Account
from keygate.sandbox.admin.anthropic import jwt, service_accounts, workspaces
from keygate.sandbox.admin.anthropic.reading import ACTOR, OAUTH, ORGANIZATION, flag, found, page_by_cursor, slug, stamp, text, whole
from keygate.sandbox.admin.anthropic.service_accounts import Row, oauth_only
from keygate.sandbox.admin.api import AdminRequest
from keygate.sandbox.admin.model import Credential
from keygate.sandbox.admin.shelf import Entry
from keygate.sandbox.errors import VendorError, invalid

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://api.anthropic.com"
SCOPES = ("workspace:developer", "workspace:inference")
ADMIN_SCOPE = "org:admin"


def _dates(account: Account) -> dict[str, Any]:
    now = stamp(account.now_ns())
    return {
        "archived_at": None,
        "archived_by_actor_id": None,
        "created_at": now,
        "created_by_actor_id": ACTOR,
        "updated_at": now,
        "updated_by_actor_id": ACTOR,
    }


# ---- issuers


def _key_set(body: dict[str, Any]) -> dict[str, Any]:
    jwks = body.get("jwks")
    if not isinstance(jwks, dict) or jwks.get("type") != "inline" or not isinstance(jwks.get("keys"), list):
        raise invalid("jwks: the sandbox fetches no key sets; give them inline")
    if any("d" in key for key in jwks["keys"] if isinstance(key, dict)):
        raise invalid("jwks: private key material is not accepted")
    return {"type": "inline", "keys": [key for key in jwks["keys"] if isinstance(key, dict)]}


def _add_issuer(account: Account, body: dict[str, Any]) -> Entry:
    id_ = f"fdis_{secrets.token_hex(12)}"
    shown_body = {
        "id": id_,
        "type": "federation_issuer",
        "name": slug(account, "issuers", body),
        "issuer_url": text(body, "issuer_url", most=2_000),
        "jwks": _key_set(body),
        "check_jti": body.get("check_jti") is not False,
        "max_jwt_lifetime_seconds": whole(body, "max_jwt_lifetime_seconds", 3_600, least=1, most=176_400),
        "jwks_polling_disabled_at": None,
        "poll_status": None,
        **_dates(account),
    }
    return account.make("issuers", id_, shown_body, seen={})


@oauth_only
def create_issuer(account: Account, request: AdminRequest) -> dict[str, Any]:
    return _add_issuer(account, request.json()).body


@oauth_only
def list_issuers(account: Account, request: AdminRequest) -> dict[str, Any]:
    archived = flag(request, "include_archived")
    entries = [entry for entry in account.listed("issuers") if archived or entry.body["archived_at"] is None]
    return page_by_cursor(request, entries, lambda entry: entry.body)


@oauth_only
def show_issuer(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "issuers", request.params["issuer"], "Federation issuer").body


@oauth_only
def update_issuer(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry = found(account, "issuers", request.params["issuer"], "Federation issuer")
    body = request.json()
    if body.get("jwks") is not None:
        entry.body["jwks"] = _key_set(body)
    if body.get("issuer_url") is not None:
        entry.body["issuer_url"] = text(body, "issuer_url", most=2_000)
    if body.get("max_jwt_lifetime_seconds") is not None:
        entry.body["max_jwt_lifetime_seconds"] = whole(body, "max_jwt_lifetime_seconds", 0, least=1, most=176_400)
    entry.body["updated_at"] = stamp(account.now_ns())
    return entry.body


@oauth_only
def archive_issuer(account: Account, request: AdminRequest) -> dict[str, Any]:
    return _archive(account, found(account, "issuers", request.params["issuer"], "Federation issuer"))


def _archive(account: Account, entry: Entry) -> dict[str, Any]:
    if entry.body["archived_at"] is None:
        entry.body.update(archived_at=stamp(account.now_ns()), archived_by_actor_id=ACTOR)
        entry.more["archived_at_ns"] = account.now_ns()
    return entry.body


# ---- rules


def _match(body: dict[str, Any]) -> dict[str, Any]:
    match = body.get("match")
    if not isinstance(match, dict):
        raise invalid("match: Field required")
    if match.get("condition") is not None:
        raise invalid("match.condition: the sandbox evaluates no CEL; use subject_prefix or claims")
    prefix = match.get("subject_prefix")
    if (not isinstance(prefix, str) or not prefix.strip("*")) and not match.get("claims"):
        raise invalid("match: subject_prefix, claims or condition is required")
    return {name: match.get(name) for name in ("audience", "claims", "condition", "subject_prefix")}


def _add_rule(account: Account, body: dict[str, Any], *, scopes: tuple[str, ...]) -> Entry:
    issuer = found(account, "issuers", str(body.get("issuer_id")), "Federation issuer")
    target = body.get("target")
    if not isinstance(target, dict) or target.get("type") != "service_account":
        raise invalid("target: must be a service account")
    service_account = found(account, "service_accounts", str(target.get("service_account_id")), "Service account")
    if issuer.body["archived_at"] is not None or service_account.body["archived_at"] is not None:
        raise invalid("The issuer and the target must not be archived.")
    scope = body.get("oauth_scope")
    if scope not in scopes:
        raise VendorError(403, f"oauth_scope: must be one of {', '.join(scopes)}; other scopes require a Console session.")
    everywhere, workspace = body.get("applies_to_all_workspaces") is True, body.get("workspace_id")
    if workspace is None and not everywhere and scope != ADMIN_SCOPE:
        raise invalid("workspace_id: required unless applies_to_all_workspaces is true")
    if workspace is not None:
        workspaces.open_workspace(account, str(workspace))
    id_ = f"fdrl_{secrets.token_hex(12)}"
    shown_body = {
        "id": id_,
        "type": "federation_rule",
        "name": slug(account, "rules", body),
        "description": body.get("description"),
        "issuer_id": issuer.id,
        "issuer_name": issuer.body["name"],
        "match": _match(body),
        "oauth_scope": scope,
        "target": {
            "type": "service_account",
            "service_account_id": service_account.id,
            "service_account_name": service_account.body["name"],
        },
        "token_lifetime_seconds": whole(body, "token_lifetime_seconds", 3_600, least=60, most=86_400),
        "applies_to_all_workspaces": everywhere,
        "workspace_ids": [workspace] if workspace is not None else [],
        **_dates(account),
    }
    return account.make("rules", id_, shown_body)


@oauth_only
def create_rule(account: Account, request: AdminRequest) -> dict[str, Any]:
    return _add_rule(account, request.json(), scopes=SCOPES).body


@oauth_only
def list_rules(account: Account, request: AdminRequest) -> dict[str, Any]:
    archived, issuer = flag(request, "include_archived"), request.text("issuer_id")
    entries = [
        entry
        for entry in account.listed("rules")
        if (archived or entry.body["archived_at"] is None) and (issuer is None or entry.body["issuer_id"] == issuer)
    ]
    return page_by_cursor(request, entries, lambda entry: entry.body)


@oauth_only
def show_rule(account: Account, request: AdminRequest) -> dict[str, Any]:
    return found(account, "rules", request.params["rule"], "Federation rule").body


@oauth_only
def update_rule(account: Account, request: AdminRequest) -> dict[str, Any]:
    entry = found(account, "rules", request.params["rule"], "Federation rule")
    if entry.body["archived_at"] is not None:
        raise invalid("The federation rule is archived.")
    body = request.json()
    if body.get("match") is not None:
        entry.body["match"] = _match(body)
    if body.get("token_lifetime_seconds") is not None:
        entry.body["token_lifetime_seconds"] = whole(body, "token_lifetime_seconds", 0, least=60, most=86_400)
    if body.get("name") is not None and body["name"] != entry.body["name"]:
        entry.body["name"] = slug(account, "rules", body)
    entry.body["updated_at"] = stamp(account.now_ns())
    return entry.body


@oauth_only
def archive_rule(account: Account, request: AdminRequest) -> dict[str, Any]:
    return _archive(account, found(account, "rules", request.params["rule"], "Federation rule"))


# ---- the exchange


def exchange(account: Account, request: AdminRequest) -> dict[str, Any]:
    """`{grant_type, assertion, federation_rule_id, organization_id, service_account_id?, workspace_id?}` → an access token."""
    body = request.json()
    if body.get("grant_type") != GRANT_TYPE:
        raise VendorError(400, "grant_type is not supported", code="unsupported_grant_type")
    rule = account.shelves["rules"].get(str(body.get("federation_rule_id")))
    if body.get("organization_id") != ORGANIZATION or rule is None or rule.body["archived_at"] is not None:
        raise VendorError(401, "no federation rule matches")
    issuer = account.shelves["issuers"].get(rule.body["issuer_id"])
    if issuer is None or issuer.body["archived_at"] is not None:
        raise VendorError(401, "the issuer is archived")
    claims = _claims(account, str(body.get("assertion")), issuer, rule)
    target = rule.body["target"]["service_account_id"]
    if body.get("service_account_id") not in {None, target}:
        raise VendorError(401, "the rule has another target")
    return _mint(account, rule, target, _workspace(account, rule, target, body.get("workspace_id")), claims)


def _claims(account: Account, assertion: str, issuer: Entry, rule: Entry) -> dict[str, Any]:
    try:
        header, claims, signed, signature = jwt.read(assertion)
    except ValueError as error:
        raise VendorError(400, str(error)) from None
    if not jwt.verified(header, signed, signature, issuer.body["jwks"]["keys"]):
        raise VendorError(401, "the signature does not match the issuer's keys")
    now, issued, ends = account.clock.now_s(), claims.get("iat"), claims.get("exp")
    if not isinstance(issued, int) or not isinstance(ends, int) or ends <= now or issued > now + 60:
        raise VendorError(401, "the assertion is expired, or has no iat and exp")
    if ends - issued > issuer.body["max_jwt_lifetime_seconds"]:
        raise VendorError(401, "the assertion is valid for longer than the issuer allows")
    if claims.get("iss") != issuer.body["issuer_url"] or not _matches(rule.body["match"], claims):
        raise VendorError(401, "the assertion does not match the rule")
    identity = claims.get("jti")
    if issuer.body["check_jti"] and identity is not None:
        if str(identity) in issuer.more["seen"]:
            raise VendorError(401, "the assertion was used before")
        issuer.more["seen"][str(identity)] = claims["exp"]
    return claims


def _matches(match: dict[str, Any], claims: dict[str, Any]) -> bool:
    audience, wanted = claims.get("aud"), match["audience"] or AUDIENCE
    if wanted != audience and not (isinstance(audience, list) and wanted in audience):
        return False
    if any(claims.get(name) != value for name, value in (match["claims"] or {}).items()):
        return False
    prefix, subject = match["subject_prefix"], str(claims.get("sub"))
    if prefix is None:
        return True
    return subject.startswith(prefix[:-1]) if prefix.endswith("*") else subject == prefix


def _workspace(account: Account, rule: Entry, target: str, asked: Any) -> str | None:
    if rule.body["oauth_scope"] == ADMIN_SCOPE:
        return None
    enabled = rule.body["workspace_ids"]
    chosen = workspaces.DEFAULT if asked == "default" else asked or (enabled[0] if len(enabled) == 1 else workspaces.DEFAULT)
    if not rule.body["applies_to_all_workspaces"] and chosen not in enabled:
        raise VendorError(401, "the rule is not enabled for the workspace")
    workspace = account.shelves["workspaces"].get(chosen)
    if workspace is None or workspace.body["archived_at"] is not None:
        raise VendorError(401, "the workspace is archived")
    if chosen != workspaces.DEFAULT and service_accounts.membership(account, chosen, target) is None:
        raise VendorError(401, "the service account is not a member of the workspace")
    return str(chosen)


def _mint(account: Account, rule: Entry, target: str, workspace: str | None, claims: dict[str, Any]) -> dict[str, Any]:
    left = claims["exp"] - account.clock.now_s()
    lifetime = max(60, min(rule.body["token_lifetime_seconds"], 2 * left))
    value = f"sandbox-anthropic-oat01-{secrets.token_hex(24)}"
    ends_ns = account.later_ns(lifetime)
    if workspace is None:
        account.create_credential(value=value, name=target, kind=OAUTH)
        account.make("tokens", value, {}, ends_at_ns=ends_ns)
    else:
        entry = account.make("tokens", value, {"rule": rule.id, "subject": claims.get("sub")}, parent=workspace, ends_at_ns=ends_ns)
        known_ns = rule.made_at_ns + round(account.settings.new_key_s * NANOSECONDS)  # the rule is what is new, not each of its tokens
        entry.grant = account.issue(value, id_=target, container=workspace, expires_at_ns=ends_ns, known_at_ns=known_ns)
    return {"access_token": value, "token_type": "Bearer", "expires_in": lifetime, "scope": rule.body["oauth_scope"]}


def ended(account: Account, credential: Credential) -> bool:
    """Whether an admin token that was minted here has expired; admin keys don't."""
    token = account.shelves["tokens"].get(credential.value)
    return token is not None and token.more["ends_at_ns"] <= account.now_ns()


def add_admin_rule(account: Account, body: dict[str, Any]) -> dict[str, Any]:
    """The Console only: an issuer and a rule for an admin service account."""
    named = {**body, "name": str(body.get("name") or "keygate")}
    issuer = _add_issuer(account, named)
    target = service_accounts.add(account, f"{named['name']}-admin", role="admin")
    rule = _add_rule(
        account,
        {
            "name": f"{named['name']}-admin",
            "issuer_id": issuer.id,
            "match": {"subject_prefix": body.get("subject"), "audience": body.get("audience")},
            "oauth_scope": ADMIN_SCOPE,
            "target": {"type": "service_account", "service_account_id": target.id},
        },
        scopes=(ADMIN_SCOPE,),
    )
    return {"federation_rule_id": rule.id, "service_account_id": target.id, "organization_id": ORGANIZATION, "issuer_id": issuer.id}


_I, _R = "/federation_issuers", "/federation_rules"
ROUTES: tuple[Row, ...] = (
    ("GET", _I, "issuers.list", ADMIN_SCOPE, list_issuers),
    ("POST", _I, "issuers.create", ADMIN_SCOPE, create_issuer),
    ("GET", f"{_I}/{{issuer}}", "issuers.get", ADMIN_SCOPE, show_issuer),
    ("POST", f"{_I}/{{issuer}}", "issuers.update", ADMIN_SCOPE, update_issuer),
    ("POST", f"{_I}/{{issuer}}/archive", "issuers.archive", ADMIN_SCOPE, archive_issuer),
    ("GET", _R, "rules.list", ADMIN_SCOPE, list_rules),
    ("POST", _R, "rules.create", ADMIN_SCOPE, create_rule),
    ("GET", f"{_R}/{{rule}}", "rules.get", ADMIN_SCOPE, show_rule),
    ("POST", f"{_R}/{{rule}}", "rules.update", ADMIN_SCOPE, update_rule),
    ("POST", f"{_R}/{{rule}}/archive", "rules.archive", ADMIN_SCOPE, archive_rule),
)
