"""Commands that work on this machine instead of through the API. What they need is imported when they run: `--help` stays quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from keygate.cli.client import Exit, fail
from keygate.errors import InvalidInput, KeyGateError

T = TypeVar("T")


def _guarded(work: Callable[[], T]) -> T:
    """What refuses a start is told as a sentence, not as a trace."""
    try:
        return work()
    except KeyGateError as error:
        fail(error.detail, Exit.USAGE if isinstance(error, InvalidInput) and error.field else Exit.FAILED)
    except ValueError as error:
        from pydantic import ValidationError  # noqa: PLC0415  (loaded by now, if it is one of its)

        from keygate.config import wrong_setting  # noqa: PLC0415  (as above)

        if not isinstance(error, ValidationError):
            raise
        fail("; ".join(map(wrong_setting, error.errors(include_input=False, include_url=False))), Exit.USAGE)


def run_sandbox(*, host: str, port: int, state: Path | None) -> None:
    from keygate.sandbox import StateRefusedError, run  # noqa: PLC0415  (only here)

    try:
        run(host, port, state_file=state, say=lambda line: print(f"export {line}", flush=True))
    except StateRefusedError as error:
        fail(str(error))
    except OSError as error:
        fail(f"can't listen on {host} port {port}: {error.strerror}; name another with --port")


def upgrade_database() -> str:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(operating.upgrade_database)


def check_database() -> dict[str, Any]:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(operating.check_database)


def backup_database(file: Path) -> str:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(lambda: operating.backup_database(file))


def vault_status() -> dict[str, Any]:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(operating.vault_status)


def rotate_master_key(new_key_file: Path | None) -> str:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(lambda: operating.rotate(new_key_file))


def verify_receipt(file: Path, public_key: str | None) -> dict[str, Any]:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(lambda: operating.verify_receipt(file, public_key))


def receipt_key() -> str:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(operating.receipt_key)


def verify_audit(file: Path | None, public_key: str | None, *, heads_from: int) -> list[dict[str, Any]]:
    from keygate.processes import operating  # noqa: PLC0415  (only here)

    return _guarded(lambda: operating.verify_audit(file, public_key, heads_from=heads_from))
