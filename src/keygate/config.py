"""Settings: the only reader of the environment. Every variable has the prefix `KEYGATE_`; a `.env` file is read too."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from keygate import client_config
from keygate.kit.secret import Secret

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")


def _named(name: str, *aliases: str) -> AliasChoices:
    return AliasChoices(f"KEYGATE_{name}", *aliases)


class Settings(BaseSettings):
    """Add a field here and it is documented: the table of settings is generated from names, defaults and descriptions."""

    model_config = SettingsConfigDict(
        env_file=".env", extra="ignore", frozen=True, populate_by_name=True, env_ignore_empty=True, ignored_types=(cached_property,)
    )

    database_url: SecretStr | None = Field(
        None,
        validation_alias=_named("DATABASE_URL", "DATABASE_URL"),
        description="SQLite or PostgreSQL URL; default: keygate.db in the data directory",
    )
    data_dir: Path = Field(Path(".keygate"), validation_alias=_named("DATA_DIR"), description="Database, journal, generated secrets")
    host: str = Field("127.0.0.1", validation_alias=_named("HOST"), description="Address to listen on")
    port: int = Field(8000, ge=1, le=65535, validation_alias=_named("PORT"), description="Port to listen on")
    sandbox_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        validation_alias=_named("SANDBOX_PORT"),
        description="Port of the sandbox vendor under `serve --sandbox`, on loopback; default: chosen once and kept in the data directory",
    )
    public_url: str | None = Field(
        None, validation_alias=_named("PUBLIC_URL"), description="The address that clients use; default: http://HOST:PORT"
    )
    trusted_proxies: str = Field(
        "",
        validation_alias=_named("TRUSTED_PROXIES"),
        description="Addresses and networks of the proxies before KeyGate, with commas between; what they write into `X-Forwarded-For` is "
        "believed. Default: none",
    )
    master_key: SecretStr | None = Field(
        None,
        validation_alias=_named("MASTER_KEY", "SECRET_KEY"),
        description="Master key; default: generated into the data directory (0600)",
    )
    master_key_file: Path | None = Field(None, validation_alias=_named("MASTER_KEY_FILE"), description="File that holds the master key")
    admin_email: str | None = Field(None, validation_alias=_named("ADMIN_EMAIL", "ADMIN_EMAIL"), description="First owner's e-mail address")
    admin_password: SecretStr | None = Field(
        None,
        validation_alias=_named("ADMIN_PASSWORD", "ADMIN_PASSWORD"),
        description="First owner's password; default: generated and printed once",
    )
    compiled: bool = Field(
        True,
        validation_alias=_named("COMPILED"),
        description="Use the compiled request path where it has been built; from the environment only, not from `.env`",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", validation_alias=_named("LOG_LEVEL"), description="Least level that is logged"
    )
    log_format: Literal["text", "json"] = Field(
        "text", validation_alias=_named("LOG_FORMAT"), description="Log lines for people or machines"
    )
    max_body_bytes: int = Field(
        64 * 2**20, ge=1024, validation_alias=_named("MAX_BODY_BYTES"), description="Largest request body that the gateway takes"
    )
    connect_timeout: float = Field(10, gt=0, validation_alias=_named("CONNECT_TIMEOUT"), description="Seconds to connect to a vendor")
    first_byte_timeout: float = Field(
        600, gt=0, validation_alias=_named("FIRST_BYTE_TIMEOUT"), description="Seconds until a vendor's first byte"
    )
    idle_timeout: float = Field(
        120, gt=0, validation_alias=_named("IDLE_TIMEOUT"), description="Seconds between two bytes of a vendor's answer"
    )
    drain_timeout: float = Field(
        120,
        ge=0,
        validation_alias=_named("DRAIN_TIMEOUT"),
        description="Seconds to read on from a vendor after the caller has gone, to learn the cost",
    )
    hold_wait: float = Field(
        5,
        ge=0,
        le=30,
        validation_alias=_named("HOLD_WAIT"),
        description="Seconds that a call waits where only holds of requests in flight stand in its way",
    )
    client_timeout: float = Field(
        60,
        gt=0,
        validation_alias=_named("CLIENT_TIMEOUT"),
        description="Seconds that a caller may take to send a request or to read an answer without progress",
    )
    shutdown_timeout: float = Field(
        3,
        gt=0,
        validation_alias=_named("SHUTDOWN_TIMEOUT"),
        description="Seconds for requests in flight to finish at a stop; the ledger is brought up to date after that",
    )
    retention_days: int = Field(
        400, ge=1, validation_alias=_named("RETENTION_DAYS"), description="Days that ledger entries are kept; roll-ups stay"
    )

    content_days: int = Field(
        30,
        ge=1,
        le=3650,
        validation_alias=_named("CONTENT_DAYS"),
        description="Days that prompts and answers are kept where a policy records them",
    )
    stale_days: int = Field(
        90,
        ge=1,
        le=3650,
        validation_alias=_named("STALE_DAYS"),
        description="Days without use after which the inventory calls a key at a vendor `stale`",
    )
    otlp_endpoint: str = Field(
        "",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT"),
        description="Base address of an OpenTelemetry collector (OTLP over HTTP) for traces; needs the extra `otel`. OpenTelemetry's other "
        "variables hold too: service name, headers, sampler, time-outs",
    )
    otlp_traces_endpoint: str = Field(
        "",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        description="The same for traces alone, as the whole address",
    )
    otel_protocol: str = Field(
        "",
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"),
        description="`http/protobuf` is spoken",
    )
    otel_traces_exporter: str = Field("", validation_alias=AliasChoices("OTEL_TRACES_EXPORTER"), description="`none` turns traces off")

    @field_validator("public_url")
    @classmethod
    def _whole_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("must be a whole address such as https://keys.example.com")
        return value.rstrip("/")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: str) -> str:
        try:
            _proxies(value)
        except ValueError:
            raise ValueError("must be addresses and networks with commas between, such as 10.0.0.2, 192.0.2.0/24") from None
        return value

    @field_validator("admin_email")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is not None and not _EMAIL.fullmatch(value.strip()):
            raise ValueError("must be an e-mail address such as owner@example.com")
        return value

    @field_validator("admin_password")
    @classmethod
    def _long_enough(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not 12 <= len(value.get_secret_value()) <= 200:
            raise ValueError("must have between 12 and 200 characters")
        return value

    @property
    def proxies(self) -> Sequence[IPv4Network | IPv6Network]:
        """Whose `X-Forwarded-For` is believed."""
        return _proxies(self.trusted_proxies)

    @property
    def traces_endpoint(self) -> str | None:
        """Where spans are sent, as a whole address; None: nowhere."""
        if self.otel_traces_exporter.strip().lower() == "none":
            return None
        base = self.otlp_endpoint.strip().rstrip("/")
        return self.otlp_traces_endpoint.strip() or (f"{base}/v1/traces" if base else None)

    @property
    def address(self) -> str:
        """What clients are told: the public URL, or the address that we listen on."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104  (compared, not bound)
        return self.public_url or f"http://{f'[{host}]' if ':' in host else host}:{self.port}"


def _proxies(text: str) -> Sequence[IPv4Network | IPv6Network]:
    return [ip_network(each.strip()) for each in text.split(",") if each.strip()]


def wrong_setting(problem: Mapping[str, Any]) -> str:
    """One of pydantic's problems as a sentence that begins with the variable's name."""
    return f"{problem['loc'][0]}: {problem['msg'].removeprefix('Value error, ')}"


def unknown_variables() -> list[str]:
    """Variables with our prefix that nothing reads: misspelt ones, most likely."""
    known = {
        str(choice)
        for field in Settings.model_fields.values()
        if isinstance(field.validation_alias, AliasChoices)
        for choice in field.validation_alias.choices
    }
    known.update(client_config.VARIABLES)
    return sorted(name for name in os.environ if name.startswith("KEYGATE_") and name not in known)


def vendor_keys(names: Iterable[str]) -> dict[str, Secret]:
    """Vendor keys found in the environment under the vendors' own names. Empty ones are left out."""
    return {name: Secret(value) for name in names if (value := os.environ.get(name, "").strip())}


def proxy_environment() -> dict[str, str]:
    """The variables that name proxies, as they stand, for `gateway.proxies`."""
    names = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "REQUEST_METHOD")
    return {name: os.environ[name] for each in names for name in (each, each.upper()) if name in os.environ}
