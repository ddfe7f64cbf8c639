"""Log lines: for people on a terminal, JSON for machines. No bodies, no secrets, no parameters of SQL.

What looks like a secret is blacked out all the same: a last line of defence behind `Secret`, for text that comes from libraries.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from keygate.kit.clock import rfc3339
from keygate.kit.redaction import redact

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def _value(value: Any) -> Any:
    """Numbers stay numbers for machines."""
    return value if value is None or isinstance(value, bool | int | float) else redact(str(value))


class _Line(logging.Formatter):
    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        return {name: value for name, value in vars(record).items() if name not in _STANDARD}

    def _trace(self, record: logging.LogRecord) -> str | None:
        return redact(self.formatException(record.exc_info)) if record.exc_info and record.exc_info[0] else None


class TextLine(_Line):
    def format(self, record: logging.LogRecord) -> str:
        when = rfc3339(int(record.created * 1e9)) or ""
        fields = " ".join(f"{name}={redact(str(value))}" for name, value in self._fields(record).items())
        line = f"{when[:23]}Z {record.levelname.lower():7} {record.name}: {redact(record.getMessage())}" + (f"  {fields}" if fields else "")
        trace = self._trace(record)
        return line if trace is None else f"{line}\n{trace}"


class JsonLine(_Line):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": rfc3339(int(record.created * 1e9)),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
            **{name: _value(value) for name, value in self._fields(record).items()},
        }
        trace = self._trace(record)
        if trace is not None:
            line["trace"] = trace
        return json.dumps(line, ensure_ascii=False)


def configure(*, level: str, form: str) -> None:
    """Logs go to standard error. Libraries stay at `warning` unless the level is `debug`, and chatty ones even then."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLine() if form == "json" else TextLine())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING if level != "debug" else logging.INFO)
    logging.getLogger("keygate").setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger("uvicorn.error").setLevel(level.upper() if level != "info" else "WARNING")
    for name in ("aiosqlite", "asyncio", "httpcore", "httpx", "sqlalchemy", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
